//! What spans cores: who is connected, and who is to be dialled.
//!
//! The directory lives on core 0. Cores ask it, by message, before a connection becomes a peer, and tell it when one is over. It is on no
//! message path, but for acknowledged messages to a node instead of a peer. It owns the rule that there is one connection per node and
//! channel, the cap on peers, the dials with their backoff and breakers (`dialling`), the connection pool (`pooling`), and what connections
//! leave to those that follow them; it knows no sockets and no peers' state.

mod dialling;
mod grants;
mod pooling;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::allowed::{Allowed, Listed};
use super::blame::Fault;
use super::breaker::Breakers;
use super::credit::Credit;
use super::ledgers::{Ledgers, Load};
use super::mail::{Ask, Control, HalfRef};
use super::parting::Parting;
use super::places::Places;
use super::pool::{Pool, PoolKey};
use super::{Deadline, Outgoing, room};
use crate::address::Address;
use crate::config::Config;
use crate::dial::Dial;
use crate::error::DialError;
use crate::id::{DialId, NodeId, PeerId};
use crate::identity::Identity;
use crate::metrics::{Counter, Stats};
use crate::proto::{Delivery, Ledger, Origin};
use crate::receipt::{AckFailure, ReceiptId};
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::wheel::{TimerKey, TimerWheel};
use crate::wire::RefusalCode;
use dialling::{DialState, Dialling};
use grants::{Grants, New};

/// A node that connects anew replaces its own connection, but not more often than this.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);

/// What there is one connection for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Which of our names it goes by. Zero: the engine's own; else the first bytes of a dial's, since those are few and nobody else's.
    ours: [u8; 8],
    pub(super) node: NodeId,
    channel: u16,
}

impl Key {
    /// By the engine's own name, as everything goes but what a dial says otherwise.
    pub(super) fn own(node: NodeId, channel: u16) -> Self {
        Self { ours: [0; 8], node, channel }
    }
}

/// Where a dial leads: address, channel, and by which of our names.
type Target = (Address, u16, [u8; 8]);

/// See the module.
#[derive(Debug)]
pub(crate) struct Directory {
    config: Arc<Config>,
    node: NodeId,
    allowed: Allowed,
    grants: Grants,
    /// Which key's new connection waits for the end of the one that has this grant.
    waiting: HashMap<u64, Key>,
    ledgers: Ledgers,
    /// When the ledgers are looked through.
    sweep: Option<(Timestamp, TimerKey)>,
    dials: HashMap<DialId, Dialling>,
    /// Targets of the dials: none is dialled twice.
    targets: HashMap<Target, DialId>,
    breakers: Breakers,
    /// When those are looked through.
    breaker_sweep: Option<TimerKey>,
    pool: Pool,
    /// Nobody more is let in or dialled.
    closed: bool,
    shutting_down: bool,
}

/// What the directory needs of its core to act.
pub(super) struct Means<'a> {
    pub(super) now: Timestamp,
    pub(super) out: &'a mut Outgoing,
    pub(super) wheel: &'a mut TimerWheel<Deadline>,
    pub(super) rng: &'a mut Rng,
    pub(super) places: &'a Arc<Places>,
    pub(super) stats: &'a mut Stats,
    pub(super) credits: &'a [Credit],
}

impl Means<'_> {
    /// Tells the core with the fewest connections to try. Returns which that is.
    fn connect(&mut self, id: DialId, dial: Dial) -> usize {
        let ticket = self.places.dial();
        let core = ticket.core();
        self.out.control(core, Control::Attempt { id, dial: Box::new(dial), ticket });
        core
    }

    /// Tells the core that has the connection with this grant to send a message there. It waits there as mail does, under the same credit,
    /// since messages for which nobody waits any more would pile up at a core that is held up; and it comes after what made the grant.
    fn deliver(&mut self, core: usize, grant: u64, Key { node, channel, .. }: Key, delivery: Delivery) {
        match self.credits[core].take(core, delivery.frame.as_bytes().len()) {
            Ok(()) => self.out.control(core, Control::Deliver { grant, node, channel, delivery }),
            Err(reason) => {
                self.stats.count(Counter::InboxRefused);
                fail(delivery.id, node, AckFailure::Refused(reason), self);
            }
        }
    }
}

impl Directory {
    /// Memory of one connection: its grant, and that it is waited for.
    pub(super) const GRANT: usize = Grants::BYTES + 4 * size_of::<(u64, Key)>();
    /// Memory of what one connection leaves, besides its ids and messages.
    pub(super) const LEDGER: usize = 5 * Ledgers::KEPT + size_of::<Ledger>();
    /// Memory of one dial's entries in the tables, and of its place among those that wait for a probe.
    pub(super) const DIAL: usize = size_of::<(DialId, Dialling)>() + size_of::<(Target, DialId)>() + 2 * size_of::<DialId>();

    pub(crate) fn new(config: Arc<Config>, node: NodeId, listed: Listed) -> Self {
        let (cores, acks) = (config.cores.count(), &config.acks);
        let receipts = Load { messages: cores * acks.pending, bytes: cores * acks.bytes };
        Self {
            ledgers: Ledgers::new(config.limits.max_peers, receipts, config.acks.retain),
            waiting: HashMap::new(),
            sweep: None,
            allowed: Allowed::new(config.admission.as_ref(), listed),
            breakers: Breakers::new(config.breaker),
            breaker_sweep: None,
            pool: Pool::default(),
            node,
            grants: Grants::new(room(&config)),
            config,
            dials: HashMap::new(),
            targets: HashMap::new(),
            closed: false,
            shutting_down: false,
        }
    }

    /// May this connection be?
    pub(super) fn ask(&mut self, ask: Ask, means: &mut Means<'_>) {
        let key = Key { ours: self.short(ask.ours), node: ask.node, channel: ask.channel };
        let verdict = self.judge(&ask, &key, means.now);
        let half = ask.half;
        match verdict {
            Err(code) => {
                if let (RefusalCode::Duplicate, Some(id)) = (code, ask.dial) {
                    self.pool_duplicate(id, &key, means);
                }
                means.out.control(half.core, Control::Denied { half, code });
            }
            Ok(()) => {
                let predecessor = self.replace(&key, means);
                let waiting = predecessor.map(|old| (old, half));
                let new = New { key, core: half.core, instance: ask.instance, dial: ask.dial, waiting };
                let number = self.grants.insert(new, means.now);
                if let Some(dialling) = ask.dial.and_then(|id| self.dials.get_mut(&id)) {
                    dialling.state = DialState::Connected(number);
                }
                match predecessor {
                    Some(old) => drop(self.waiting.insert(old, key)),
                    None => self.tell_granted(half, number, &key, means),
                }
            }
        }
    }

    /// Ends the connection that there is, if there is one. Returns the grant that has to yield before the new one may begin.
    fn replace(&mut self, key: &Key, means: &mut Means<'_>) -> Option<u64> {
        let (number, old) = self.grants.newest(key)?;
        match self.grants.waiting(number) {
            None => {
                means.out.control(old.core(), Control::Replace { grant: number });
                Some(number)
            }
            // It has not begun, and will not: whom it waits for, the new one waits for.
            Some((before, half)) => {
                means.out.control(half.core, Control::Denied { half, code: RefusalCode::Duplicate });
                self.grants.remove(number);
                Some(before)
            }
        }
    }

    /// The connection may begin, with what those before it have left.
    fn tell_granted(&mut self, half: HalfRef, grant: u64, key: &Key, means: &mut Means<'_>) {
        let ledger = self.ledgers.take(key);
        means.out.control(half.core, Control::Granted { half, grant, ledger });
    }

    /// The connection of a grant takes nothing any more: what it left has come before this.
    pub(super) fn yielded(&mut self, number: u64, means: &mut Means<'_>) {
        let Some(key) = self.waiting.remove(&number) else { return };
        let Some((successor, _)) = self.grants.newest(&key) else { return };
        if let Some(half) = self.grants.stop_waiting(successor, number) {
            self.tell_granted(half, successor, &key, means);
        }
    }

    /// A connection has left something to its successor.
    pub(super) fn keep(&mut self, number: u64, ledger: Box<Ledger>, means: &mut Means<'_>) {
        if let Some(key) = self.grants.key(number).filter(|_| !self.shutting_down) {
            let evicted = self.ledgers.stow(key, ledger, means.now);
            self.report_evicted(evicted, means);
            self.watch_ledgers(self.ledgers.end_of(&key, means.now), means);
        }
    }

    /// A message for a node: to its connection, or kept until it has one. `not_by`: the connection that could not take it.
    pub(super) fn route(&mut self, key: Key, delivery: Delivery, not_by: Option<u64>, means: &mut Means<'_>) {
        if self.shutting_down {
            return fail(delivery.id, key.node, AckFailure::Stopped, means);
        }
        if let Some((number, grant)) = self.grants.current(&key).filter(|(number, _)| Some(*number) != not_by) {
            return means.deliver(grant.core(), number, key, delivery);
        }
        let evicted = self.ledgers.add(key, delivery, means.now);
        self.report_evicted(evicted, means);
        self.watch_ledgers(self.ledgers.end_of(&key, means.now), means);
    }

    fn report_evicted(&self, evicted: Option<(Key, Box<Ledger>)>, means: &mut Means<'_>) {
        let Some((key, ledger)) = evicted else { return };
        means.stats.count(Counter::LedgersEvicted);
        ledger.deliveries.iter().for_each(|delivery| fail(delivery.id, key.node, AckFailure::Evicted, means));
    }

    /// Sets the timer for the next look through the ledgers, if it has to be earlier than it is.
    fn watch_ledgers(&mut self, next: Option<Timestamp>, means: &mut Means<'_>) {
        let Some(next) = next else { return };
        match self.sweep {
            Some((at, _)) if at <= next => {}
            other => {
                if let Some((_, timer)) = other {
                    means.wheel.cancel(timer);
                }
                self.sweep = Some((next, means.wheel.insert(next, Deadline::Ledgers)));
            }
        }
    }

    /// That timer has come.
    pub(super) fn sweep_ledgers(&mut self, means: &mut Means<'_>) {
        self.sweep = None;
        self.ledgers.sweep(means.now);
        self.watch_ledgers(self.ledgers.next_sweep(means.now), means);
    }

    /// The name that a dial goes by on this side.
    fn name(&self, dial: &Dial) -> NodeId {
        dial.identity.as_ref().map_or(self.node, Identity::node_id)
    }

    /// The same, as keys and targets have it.
    fn short(&self, name: NodeId) -> [u8; 8] {
        if name == self.node { [0; 8] } else { *name.0.first_chunk().expect("it is longer") }
    }

    fn judge(&self, ask: &Ask, key: &Key, now: Timestamp) -> Result<(), RefusalCode> {
        if self.closed {
            return Err(RefusalCode::ShuttingDown);
        }
        if ask.node == ask.ours {
            return Err(RefusalCode::SelfConnection);
        }
        if !self.allowed.has(&ask.node) {
            return Err(RefusalCode::NotAllowed);
        }
        if usize::from(ask.channel) >= self.config.limits.channels {
            return Err(RefusalCode::Full);
        }
        if ask.dial.is_some_and(|id| !self.dials.contains_key(&id)) {
            return Err(RefusalCode::Duplicate); // cancelled meanwhile
        }
        if self.grants.len() >= self.config.limits.max_peers + self.config.limits.max_half_open {
            return Err(RefusalCode::Full); // too many of those that were replaced are still on their way out
        }
        let Some((_, old)) = self.grants.newest(key) else {
            return if self.grants.keys() < self.config.limits.max_peers { Ok(()) } else { Err(RefusalCode::Full) };
        };
        let settled = old.is_older(REPLACE_INTERVAL, now);
        let new_wins = if old.instance != ask.instance {
            settled // the node has restarted: what it had before is gone
        } else if old.dial.is_some() == ask.dial.is_some() {
            // The other side knows best whether its old connection is dead. Two dials of our own that reach one node would replace each
            // other for ever.
            old.dial.is_none() && settled
        } else {
            // Both sides dialled: both keep the one that the smaller node dialled.
            ask.dial.is_some() == (ask.ours < ask.node)
        };
        if new_wins { Ok(()) } else { Err(RefusalCode::Duplicate) }
    }

    /// The connection of a grant is a peer.
    pub(super) fn established(&mut self, number: u64, peer: PeerId, means: &mut Means<'_>) {
        if let Some(grant) = self.grants.get_mut(number) {
            grant.peer = Some(peer);
            self.pool_established(number, means);
        }
    }

    /// The connection of a grant is being closed.
    pub(super) fn closing(&mut self, number: u64, fruitless: bool, means: &mut Means<'_>) {
        let Some(grant) = self.grants.get_mut(number) else { return };
        grant.peer = None;
        if let Some(dial) = grant.dial.filter(|_| fruitless) {
            self.target_failed(dial, means);
        }
    }

    /// The connection of a grant is over. `failed`: it never was a peer.
    pub(super) fn ended(&mut self, number: u64, failed: Option<(DialError, Fault)>, parting: Parting, means: &mut Means<'_>) {
        let Some((key, grant)) = self.grants.remove(number) else { return };
        if let Some(id) = grant.dial {
            self.dial_ended(id, number, failed, parting, means);
        }
        self.yielded(number, means);
        self.pool_look(PoolKey::Node(key.node), means);
    }

    /// A node may be a peer from now on.
    pub(super) fn allow(&mut self, node: NodeId) {
        self.allowed.add(node);
    }

    /// A node may not be a peer any more: its connections are cut, and dialling it ends. Looks at every connection and every dial there is,
    /// since keys are rarely taken back.
    pub(super) fn disallow(&mut self, node: NodeId, means: &mut Means<'_>) {
        if !self.allowed.remove(&node) {
            return;
        }
        // Those that are on their way out are among them.
        let its = self.grants.iter().filter(|(_, grant)| grant.node == node);
        let mut grants: Vec<u64> = its.map(|(number, _)| number).collect();
        grants.sort_unstable();
        for number in grants {
            self.cut(number, means);
        }
        // Where there is a list, each dial says whom it means.
        let means_it = |dialling: &Dialling| dialling.dial.expected == Some(node);
        let mut dials: Vec<DialId> = self.dials.iter().filter(|(_, dialling)| means_it(dialling)).map(|(&id, _)| id).collect();
        dials.sort_unstable_by_key(|id| id.0);
        for id in dials {
            self.end_dial(id, DialError::NotAllowed, means);
        }
    }

    fn cut(&mut self, number: u64, means: &mut Means<'_>) {
        let Some(grant) = self.grants.get(number) else { return };
        match self.grants.waiting(number) {
            None => means.out.control(grant.core(), Control::Cut { grant: number }),
            // It has not begun, and will not.
            Some((before, half)) => {
                means.out.control(half.core, Control::Denied { half, code: RefusalCode::NotAllowed });
                self.waiting.remove(&before);
                self.grants.remove(number);
            }
        }
    }

    /// A core is gone, and with it every connection that it had or was making.
    pub(super) fn core_lost(&mut self, core: usize, means: &mut Means<'_>) {
        let lost = self.grants.iter().filter(|(_, grant)| grant.core() == core);
        let mut grants: Vec<u64> = lost.map(|(number, _)| number).collect();
        grants.sort_unstable();
        grants.into_iter().for_each(|number| self.ended(number, None, Parting::default(), means));
        let attempting = |dialling: &Dialling| matches!(dialling.state, DialState::Attempting(on) if on == core);
        let mut dials: Vec<DialId> = self.dials.iter().filter(|(_, dialling)| attempting(dialling)).map(|(&id, _)| id).collect();
        dials.sort_unstable_by_key(|id| id.0);
        for id in dials {
            let error = DialError::Connect(ErrorKind::ConnectionAborted);
            self.attempt_failed(id, error, Fault::Local, Parting::new(error, 0), means);
        }
    }

    /// Grants nothing more and dials nobody.
    pub(super) fn close(&mut self, means: &mut Means<'_>) {
        self.closed = true;
        let mut dials: Vec<_> = self.dials.drain().collect();
        dials.sort_unstable_by_key(|(id, _)| id.0);
        for (id, dialling) in dials {
            if let DialState::Waiting(timer) = dialling.state {
                means.wheel.cancel(timer);
            }
            if let Some((_, timer)) = dialling.probe {
                means.wheel.cancel(timer);
            }
            if !matches!(dialling.state, DialState::Connected(_)) && !id.is_pooled() {
                means.out.control(dialling.home, Control::DialFailed { id, error: DialError::ShuttingDown, retry_in: None });
            }
        }
        self.targets.clear();
        self.breakers.clear();
        if let Some(timer) = self.breaker_sweep.take() {
            means.wheel.cancel(timer);
        }
        for origin in self.pool.clear() {
            answer(origin, Err(DialError::ShuttingDown), means);
        }
    }

    /// The same, and nothing is kept for later connections.
    pub(super) fn shut_down(&mut self, means: &mut Means<'_>) {
        self.close(means);
        self.shutting_down = true;
        // Their messages end with the receipts.
        self.ledgers.clear();
        if let Some((_, timer)) = self.sweep.take() {
            means.wheel.cancel(timer);
        }
    }

    /// Targets of the pool, and those that breakers remember.
    pub(super) fn targets(&self) -> (usize, usize) {
        (self.pool.len(), self.breakers.len())
    }

    /// Grants whose end was not reported, dials, and their targets.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> (usize, usize, usize) {
        (self.grants.len(), self.dials.len(), self.targets.len())
    }

    /// Ledgers that are kept, and connections that wait for another to yield.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.ledgers.len(), self.waiting.len())
    }

    /// Connections that may be, or are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.grants.keys()
    }
}

/// Says to whoever wanted a connection of the pool what became of it. Waiting threads are known to this core.
fn answer(origin: Origin, result: Result<PeerId, DialError>, means: &mut Means<'_>) {
    let core = if let Origin::Handler { core, .. } = origin { core } else { means.out.core };
    means.out.control(core, Control::Pooled { origin, result });
}

/// A message will not be acknowledged.
fn fail(id: u64, node: NodeId, failure: AckFailure, means: &mut Means<'_>) {
    let answer = Control::Answered { id, node: Some(node), at: means.now, result: Err(failure) };
    means.out.control(ReceiptId(id).core(), answer);
}
