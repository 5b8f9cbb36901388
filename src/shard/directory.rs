//! What spans cores: who is connected, and who is to be dialled.
//!
//! The directory lives on core 0. Cores ask it, by message, before a connection becomes a peer, and tell it when one is over. It is on no
//! message path. It owns the rule that there is one connection per node and channel, the cap on peers, and the dials with their backoff; it
//! knows no sockets and no peers' state.

use std::collections::HashMap;
use std::collections::hash_map;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::admission::Admission;
use super::backoff::Backoff;
use super::mail::{Ask, Control};
use super::{Deadline, Outgoing};
use crate::config::Config;
use crate::error::DialError;
use crate::handler::Dial;
use crate::id::{DialId, NodeId};
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::wheel::{TimerKey, TimerWheel};
use crate::wire::RefusalCode;

/// A node that connects anew replaces its own connection, but not more often than this.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);

type Key = (NodeId, u16);

/// A connection that may be, or is.
#[derive(Debug)]
struct Grant {
    number: u64,
    core: usize,
    instance: u64,
    dialled: bool,
    granted_at: Timestamp,
}

/// A wish to be connected.
#[derive(Debug)]
struct Dialling {
    dial: Dial,
    /// The core whose handler is told.
    home: usize,
    backoff: Backoff,
    state: DialState,
}

#[derive(Debug)]
enum DialState {
    /// This core is trying.
    Attempting(usize),
    /// The next attempt comes with this timer.
    Waiting(TimerKey),
    /// It led to the connection that has this grant.
    Connected(u64),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Directory {
    config: Arc<Config>,
    node: NodeId,
    grants: HashMap<Key, Grant>,
    /// What each grant is for, and its core, until that says that the connection is over: a replaced one outlives its place in `grants`.
    numbers: HashMap<u64, (Key, Option<DialId>, usize)>,
    next_grant: u64,
    dials: HashMap<DialId, Dialling>,
    /// Targets of the dials: none is dialled twice.
    targets: HashMap<(SocketAddr, u16), DialId>,
    shutting_down: bool,
}

/// What the directory needs of its core to act.
pub(super) struct Means<'a> {
    pub(super) now: Timestamp,
    pub(super) out: &'a mut Outgoing,
    pub(super) wheel: &'a mut TimerWheel<Deadline>,
    pub(super) rng: &'a mut Rng,
    pub(super) admission: &'a Arc<Admission>,
}

impl Means<'_> {
    /// Tells the core with the fewest connections to try. Returns which that is.
    fn connect(&mut self, id: DialId, dial: Dial) -> usize {
        let ticket = self.admission.dial();
        let core = ticket.core();
        self.out.control(core, Control::Connect { id, dial, ticket });
        core
    }
}

impl Directory {
    /// Memory of one connection's entries in the tables.
    pub(super) const GRANT: usize = size_of::<(Key, Grant)>() + size_of::<(u64, (Key, Option<DialId>, usize))>();
    /// Memory of one dial's entries in the tables.
    pub(super) const DIAL: usize = size_of::<(DialId, Dialling)>() + size_of::<((SocketAddr, u16), DialId)>();

    pub(crate) fn new(config: Arc<Config>, node: NodeId) -> Self {
        Self {
            config,
            node,
            grants: HashMap::new(),
            numbers: HashMap::new(),
            next_grant: 1,
            dials: HashMap::new(),
            targets: HashMap::new(),
            shutting_down: false,
        }
    }

    /// May this connection be?
    pub(super) fn ask(&mut self, ask: Ask, means: &mut Means<'_>) {
        let key = (ask.node, ask.channel);
        let verdict = self.judge(&ask, &key, means.now);
        let half = ask.half;
        match verdict {
            Err(code) => means.out.control(half.core, Control::Denied { half, code }),
            Ok(()) => {
                if let Some(old) = self.grants.get(&key) {
                    means.out.control(old.core, Control::Replace { grant: old.number });
                }
                let number = self.next_grant;
                self.next_grant += 1;
                let grant = Grant { number, core: half.core, instance: ask.instance, dialled: ask.dial.is_some(), granted_at: means.now };
                self.grants.insert(key, grant);
                self.numbers.insert(number, (key, ask.dial, half.core));
                if let Some(dialling) = ask.dial.and_then(|id| self.dials.get_mut(&id)) {
                    dialling.state = DialState::Connected(number);
                }
                means.out.control(half.core, Control::Granted { half, grant: number });
            }
        }
    }

    fn judge(&self, ask: &Ask, key: &Key, now: Timestamp) -> Result<(), RefusalCode> {
        if self.shutting_down {
            return Err(RefusalCode::ShuttingDown);
        }
        if ask.node == self.node {
            return Err(RefusalCode::SelfConnection);
        }
        if ask.dial.is_some_and(|id| !self.dials.contains_key(&id)) {
            return Err(RefusalCode::Duplicate); // cancelled meanwhile
        }
        if self.numbers.len() >= self.config.limits.max_peers + self.config.limits.max_half_open {
            return Err(RefusalCode::Full); // too many of those that were replaced are still on their way out
        }
        let Some(old) = self.grants.get(key) else {
            return if self.grants.len() < self.config.limits.max_peers { Ok(()) } else { Err(RefusalCode::Full) };
        };
        let settled = now - old.granted_at >= REPLACE_INTERVAL;
        let new_wins = if old.instance != ask.instance {
            settled // the node has restarted: what it had before is gone
        } else if old.dialled == ask.dial.is_some() {
            // The other side knows best whether its old connection is dead. Two dials of our own that reach one node would replace each
            // other for ever.
            !old.dialled && settled
        } else {
            // Both sides dialled: both keep the one that the smaller node dialled.
            ask.dial.is_some() == (self.node < ask.node)
        };
        if new_wins { Ok(()) } else { Err(RefusalCode::Duplicate) }
    }

    /// The connection of a grant is over.
    pub(super) fn ended(&mut self, number: u64, received: bool, means: &mut Means<'_>) {
        let Some((key, dial, _)) = self.numbers.remove(&number) else { return };
        if let hash_map::Entry::Occupied(grant) = self.grants.entry(key)
            && grant.get().number == number
        {
            grant.remove();
        }
        if let Some(id) = dial {
            self.dial_ended(id, number, received, means);
        }
    }

    fn dial_ended(&mut self, id: DialId, number: u64, received: bool, means: &mut Means<'_>) {
        let Some(dialling) = self.dials.get_mut(&id) else { return };
        if !matches!(dialling.state, DialState::Connected(grant) if grant == number) {
            // The attempt failed while its grant was on its way, which was reported, and the dial goes on already.
            return;
        }
        if dialling.dial.once {
            self.forget(id);
            return;
        }
        if received {
            // Backing off ends when the other side has proved to be useful, not merely reachable.
            dialling.backoff.reset();
        }
        self.wait(id, means);
    }

    /// Sets the timer for the next attempt. Returns how long that is.
    fn wait(&mut self, id: DialId, means: &mut Means<'_>) -> Option<Duration> {
        let dialling = self.dials.get_mut(&id)?;
        let wait = dialling.backoff.next(self.config.backoff.min, self.config.backoff.max, means.rng);
        debug_assert!(!matches!(dialling.state, DialState::Waiting(_)), "a dial has one timer");
        dialling.state = DialState::Waiting(means.wheel.insert(means.now + wait, Deadline::Redial(id)));
        Some(wait)
    }

    pub(super) fn dial(&mut self, id: DialId, dial: Dial, home: usize, means: &mut Means<'_>) {
        let target = (dial.address, dial.channel);
        let refused = if self.shutting_down {
            Some(DialError::ShuttingDown)
        } else if self.targets.contains_key(&target) {
            Some(DialError::Duplicate)
        } else if self.dials.len() >= self.config.limits.max_dials {
            Some(DialError::Full)
        } else if !self.config.allows(&dial.address) {
            Some(DialError::PlaintextRemote)
        } else {
            None
        };
        if let Some(error) = refused {
            means.out.control(home, Control::DialFailed { id, error, retry_in: None });
            return;
        }
        self.targets.insert(target, id);
        let state = DialState::Attempting(means.connect(id, dial));
        self.dials.insert(id, Dialling { dial, home, backoff: Backoff::new(), state });
    }

    /// The timer of a waiting dial has come.
    pub(super) fn redial(&mut self, id: DialId, means: &mut Means<'_>) {
        if let Some(dialling) = self.dials.get_mut(&id) {
            dialling.state = DialState::Attempting(means.connect(id, dialling.dial));
        }
    }

    pub(super) fn attempt_failed(&mut self, id: DialId, error: DialError, means: &mut Means<'_>) {
        let Some(dialling) = self.dials.get(&id) else { return };
        let (home, once) = (dialling.home, dialling.dial.once);
        let retry_in = if once || self.shutting_down { None } else { self.wait(id, means) };
        if retry_in.is_none() {
            self.forget(id);
        }
        means.out.control(home, Control::DialFailed { id, error, retry_in });
    }

    /// Ends a dial. A connection that it led to stays.
    pub(super) fn cancel(&mut self, id: DialId, means: &mut Means<'_>) {
        if let Some(dialling) = self.dials.get(&id) {
            let home = dialling.home;
            match dialling.state {
                DialState::Connected(_) => {}
                DialState::Waiting(timer) => {
                    means.wheel.cancel(timer);
                    means.out.control(home, Control::DialFailed { id, error: DialError::Cancelled, retry_in: None });
                }
                DialState::Attempting(_) => {
                    means.out.control(home, Control::DialFailed { id, error: DialError::Cancelled, retry_in: None })
                }
            }
            self.forget(id);
        }
    }

    /// A core is gone, and with it every connection that it had or was making.
    pub(super) fn core_lost(&mut self, core: usize, means: &mut Means<'_>) {
        let mut grants: Vec<u64> = self.numbers.iter().filter(|(_, (_, _, on))| *on == core).map(|(&number, _)| number).collect();
        grants.sort_unstable();
        grants.into_iter().for_each(|number| self.ended(number, false, means));
        let attempting = |dialling: &Dialling| matches!(dialling.state, DialState::Attempting(on) if on == core);
        let mut dials: Vec<DialId> = self.dials.iter().filter(|(_, dialling)| attempting(dialling)).map(|(&id, _)| id).collect();
        dials.sort_unstable_by_key(|id| id.0);
        for id in dials {
            self.attempt_failed(id, DialError::Connect(ErrorKind::ConnectionAborted), means);
        }
    }

    fn forget(&mut self, id: DialId) {
        if let Some(dialling) = self.dials.remove(&id) {
            self.targets.remove(&(dialling.dial.address, dialling.dial.channel));
        }
    }

    /// Grants nothing more and dials nobody.
    pub(super) fn shut_down(&mut self, means: &mut Means<'_>) {
        self.shutting_down = true;
        let mut dials: Vec<_> = self.dials.drain().collect();
        dials.sort_unstable_by_key(|(id, _)| id.0);
        for (id, dialling) in dials {
            if let DialState::Waiting(timer) = dialling.state {
                means.wheel.cancel(timer);
            }
            if !matches!(dialling.state, DialState::Connected(_)) {
                means.out.control(dialling.home, Control::DialFailed { id, error: DialError::ShuttingDown, retry_in: None });
            }
        }
        self.targets.clear();
    }

    /// Grants whose end was not reported, dials, and their targets.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> (usize, usize, usize) {
        (self.numbers.len(), self.dials.len(), self.targets.len())
    }

    /// Connections that may be, or are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.grants.len()
    }
}
