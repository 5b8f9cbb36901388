//! Wishes to be connected: their attempts, their backoff, and the breakers of their targets.
//!
//! An attempt comes to one of three ends for its target's breaker: the other side has proved to be alive (its first message, its first
//! ping, or its answer to one), it has failed and is to blame, or neither. The backoff is a dial's own and begins anew with the same proof.
//! The two are waited for at the same time: the next attempt of a dial that is kept up is at the later of them. Only where that comes while
//! all probes of a half-open breaker are under way, the dial waits for the end of one of those, and then for its backoff.

use std::time::Duration;

use super::super::Deadline;
use super::super::backoff::Backoff;
use super::super::blame::Fault;
use super::super::breaker::{Faced, Verdict};
use super::super::mail::Control;
use super::super::parting::Parting;
use super::super::pool::PoolKey;
use super::{Directory, Means, Target};
use crate::config::Security;
use crate::dial::Dial;
use crate::endpoint::{BreakerState, Endpoint};
use crate::error::DialError;
use crate::id::DialId;
use crate::metrics::Counter;
use crate::wheel::TimerKey;

/// A wish to be connected.
#[derive(Debug)]
pub(super) struct Dialling {
    pub(super) dial: Dial,
    /// The core whose handler is told.
    pub(super) home: usize,
    pub(super) backoff: Backoff,
    pub(super) state: DialState,
    /// The round that the attempt, or the connection that it has led to, is a probe of; and the end of its time.
    pub(super) probe: Option<(u32, TimerKey)>,
}

#[derive(Debug)]
pub(super) enum DialState {
    /// This core is trying.
    Attempting(usize),
    /// The next attempt comes with this timer.
    Waiting(TimerKey),
    /// It led to the connection that has this grant.
    Connected(u64),
}

impl Directory {
    pub(in crate::shard) fn dial(&mut self, id: DialId, dial: Dial, home: usize, means: &mut Means<'_>) {
        match self.check_dial(&dial).and_then(|()| self.check_breaker(&dial, means)) {
            Ok(()) => self.add_dial(id, dial, home, means),
            Err(error) => means.out.control(home, Control::DialFailed { id, error, retry_in: None }),
        }
    }

    /// What can be said of a dial before anything is tried.
    pub(super) fn check_dial(&self, dial: &Dial) -> Result<(), DialError> {
        if self.closed {
            return Err(DialError::ShuttingDown);
        }
        if !self.config.allows(&dial.address) {
            return Err(DialError::PlaintextRemote);
        }
        match dial.expected {
            None if matches!(self.config.security, Security::Noise(_)) => return Err(DialError::NodeRequired),
            Some(node) if node == self.name(dial) => return Err(DialError::SelfConnection),
            Some(node) if !self.allowed.has(&node) => return Err(DialError::NotAllowed),
            _ => {}
        }
        if self.targets.contains_key(&self.target(dial)) {
            return Err(DialError::Duplicate);
        }
        if usize::from(dial.channel) >= self.config.limits.channels {
            return Err(DialError::Full);
        }
        if self.dials.len() < self.config.limits.max_dials { Ok(()) } else { Err(DialError::Full) }
    }

    /// Whether the target's breaker lets a dial be made that is not kept up.
    pub(super) fn check_breaker(&self, dial: &Dial, means: &mut Means<'_>) -> Result<(), DialError> {
        let refused = self.breakers.refuses_until(&self.faced(dial), means.now).filter(|_| dial.once);
        let Some(until) = refused else { return Ok(()) };
        means.stats.count(Counter::BreakerRefused);
        Err(DialError::BreakerOpen { retry_in: until - means.now })
    }

    /// What the breaker of a dial is for.
    pub(super) fn faced(&self, dial: &Dial) -> Faced {
        Faced { endpoint: Endpoint::of(dial), ours: self.short(self.name(dial)) }
    }

    fn target(&self, dial: &Dial) -> Target {
        (dial.address.clone(), dial.channel, self.short(self.name(dial)))
    }

    /// A dial begins that may be.
    pub(super) fn add_dial(&mut self, id: DialId, dial: Dial, home: usize, means: &mut Means<'_>) {
        self.targets.insert(self.target(&dial), id);
        let (state, probe) = self.begin(id, &dial, home, means);
        self.dials.insert(id, Dialling { dial, home, backoff: Backoff::new(), state, probe });
    }

    /// Begins an attempt; or waits, where the target's breaker says so.
    fn begin(&mut self, id: DialId, dial: &Dial, home: usize, means: &mut Means<'_>) -> (DialState, Option<(u32, TimerKey)>) {
        let target = self.faced(dial);
        let (verdict, changed) = self.breakers.ask(&target, means.now);
        let at = match verdict {
            Verdict::Go => return (DialState::Attempting(means.connect(id, dial.clone())), None),
            Verdict::Probe(round) => {
                let timer = means.wheel.insert(means.now + self.config.breaker.probe_timeout, Deadline::Probe(id));
                self.breaker_changed(&target, changed, home, means);
                return (DialState::Attempting(means.connect(id, dial.clone())), Some((round, timer)));
            }
            Verdict::Wait(until) => until,
            Verdict::Busy => {
                self.breakers.block(&target, id);
                means.now + self.config.breaker.probe_timeout
            }
        };
        means.stats.count(Counter::BreakerDelayed);
        let retry_in = at - means.now;
        let error = DialError::BreakerOpen { retry_in };
        if id.is_pooled() {
            self.pool_failed(&PoolKey::of_dial(dial), error, means);
        } else {
            means.out.control(home, Control::DialFailed { id, error, retry_in: Some(retry_in) });
        }
        (DialState::Waiting(means.wheel.insert(at, Deadline::Redial(id))), None)
    }

    /// The timer of a waiting dial has come.
    pub(in crate::shard) fn redial(&mut self, id: DialId, means: &mut Means<'_>) {
        let Some(dialling) = self.dials.get(&id) else { return };
        let (dial, home) = (dialling.dial.clone(), dialling.home);
        self.breakers.unblock(&self.faced(&dial), id);
        let (state, probe) = self.begin(id, &dial, home, means);
        if let Some(dialling) = self.dials.get_mut(&id) {
            (dialling.state, dialling.probe) = (state, probe);
        }
    }

    /// Sets the timer for the next attempt, at the later of what the backoff, by how the last one ended, and the breaker say. Returns how
    /// long that is.
    pub(super) fn wait(&mut self, id: DialId, parting: Parting, means: &mut Means<'_>) -> Option<Duration> {
        let longest = self.longest_wait(id);
        let cooled = self.breakers.open_until(&self.faced(&self.dials.get(&id)?.dial), means.now);
        let dialling = self.dials.get_mut(&id)?;
        if let DialState::Waiting(timer) = dialling.state {
            means.wheel.cancel(timer);
        }
        let config = &self.config.backoff;
        if !parting.asked.min(config.max_asked).is_zero() {
            means.stats.count(Counter::DelaysHeeded);
            means.stats.add(Counter::DelaysCut, u64::from(parting.asked > config.max_asked));
        }
        let backoff = means.now + parting.wait(&mut dialling.backoff, config, longest, means.rng);
        let at = cooled.map_or(backoff, |until| until.max(backoff));
        dialling.state = DialState::Waiting(means.wheel.insert(at, Deadline::Redial(id)));
        Some(at - means.now)
    }

    /// Nodes that are listed are meant to be there.
    fn longest_wait(&self, id: DialId) -> Duration {
        let backoff = &self.config.backoff;
        let expected = self.dials.get(&id).and_then(|dialling| dialling.dial.expected);
        let is_listed = expected.is_some_and(|node| self.allowed.names(&node));
        if is_listed { backoff.max_allowed.clamp(backoff.min, backoff.max) } else { backoff.max }
    }

    pub(in crate::shard) fn attempt_failed(&mut self, id: DialId, error: DialError, fault: Fault, parting: Parting, means: &mut Means<'_>) {
        match fault {
            Fault::Target => self.target_failed(id, means),
            Fault::Local => self.target_spared(id, means),
        }
        let Some(dialling) = self.dials.get(&id) else { return };
        let (home, once, key) = (dialling.home, dialling.dial.once, PoolKey::of_dial(&dialling.dial));
        let is_own = dialling.dial.identity.is_none() && self.is_awaited(&dialling.dial);
        let goes_on = !self.closed && (!once || self.pool_insists(id, error));
        // Somebody waits for the pool's, which is made again because there is said to be a connection already: at once, not after the
        // second that one would be left alone for otherwise.
        let parting = if once { Parting::default() } else { parting };
        let retry_in = if goes_on { self.wait(id, parting, means) } else { None };
        if retry_in.is_none() {
            self.forget(id, means);
        }
        if !id.is_pooled() {
            means.out.control(home, Control::DialFailed { id, error, retry_in });
        }
        if is_own && !(once && goes_on) {
            self.pool_failed(&key, error, means);
            self.pool_look(key, means);
        }
    }

    /// The connection that a dial has led to is over. `failed`: it never was a peer.
    pub(super) fn dial_ended(
        &mut self,
        id: DialId,
        number: u64,
        failed: Option<(DialError, Fault)>,
        parting: Parting,
        means: &mut Means<'_>,
    ) {
        let Some(dialling) = self.dials.get(&id) else { return };
        if !matches!(dialling.state, DialState::Connected(grant) if grant == number) {
            // The attempt failed while its grant was on its way, which was reported, and the dial goes on already.
            return;
        }
        if let Some((error, fault)) = failed {
            return self.attempt_failed(id, error, fault, parting, means);
        }
        let (once, key) = (dialling.dial.once, PoolKey::of_dial(&dialling.dial));
        self.target_spared(id, means);
        if once {
            self.forget(id, means);
        } else {
            self.wait(id, parting, means);
        }
        self.pool_look(key, means);
    }

    /// The other side of a connection has proved to be alive, and not merely reachable.
    pub(in crate::shard) fn proven(&mut self, number: u64, means: &mut Means<'_>) {
        let Some(id) = self.grants.get(number).and_then(|grant| grant.dial) else { return };
        let Some(dialling) = self.dials.get_mut(&id) else { return };
        if matches!(dialling.state, DialState::Connected(grant) if grant == number) {
            dialling.backoff.reset();
        }
        let Some((target, home)) = self.dials.get(&id).map(|dialling| (self.faced(&dialling.dial), dialling.home)) else { return };
        let probe = self.take_probe(id, means);
        let changed = self.breakers.succeeded(&target, probe, means.now);
        self.breaker_changed(&target, changed, home, means);
        if changed.is_none() && probe.is_some() {
            // More successes are needed, and there is room for the next probe.
            self.release_blocked(&target, false, means);
        }
    }

    /// A probe has had its time. Its attempt is given up; where it has led to a connection, that stays.
    pub(in crate::shard) fn probe_expired(&mut self, id: DialId, means: &mut Means<'_>) {
        self.target_failed(id, means);
        if let Some(&Dialling { state: DialState::Attempting(core), .. }) = self.dials.get(&id) {
            means.out.control(core, Control::EndAttempt { dial: id, expired: true });
        }
    }

    /// The attempt of a dial, or what it has led to, has failed, and its target is to blame.
    pub(super) fn target_failed(&mut self, id: DialId, means: &mut Means<'_>) {
        let Some(dialling) = self.dials.get(&id) else { return };
        let (target, home) = (self.faced(&dialling.dial), dialling.home);
        let expected = dialling.dial.expected;
        let is_listed = expected.is_some_and(|node| self.allowed.names(&node));
        let longest = if is_listed { self.longest_wait(id) } else { Duration::MAX };
        let probe = self.take_probe(id, means);
        let failed = self.breakers.failed(&target, probe, longest, means.now, means.rng);
        means.stats.add(Counter::BreakerForgotten, u64::from(failed.forgotten));
        self.watch_breakers(means);
        self.breaker_changed(&target, failed.changed, home, means);
    }

    /// The attempt of a dial, or what it has led to, has ended, which says nothing of its target.
    fn target_spared(&mut self, id: DialId, means: &mut Means<'_>) {
        let Some(round) = self.take_probe(id, means) else { return };
        let Some(target) = self.dials.get(&id).map(|dialling| self.faced(&dialling.dial)) else { return };
        if self.breakers.probe_ended(&target, round, means.now) {
            self.release_blocked(&target, false, means);
        }
    }

    /// The round that a dial's attempt was a probe of: it is so no more.
    fn take_probe(&mut self, id: DialId, means: &mut Means<'_>) -> Option<u32> {
        let (round, timer) = self.dials.get_mut(&id)?.probe.take()?;
        means.wheel.cancel(timer);
        Some(round)
    }

    /// A breaker has come into another state, by something that this core's dial did.
    fn breaker_changed(&mut self, target: &Faced, changed: Option<BreakerState>, home: usize, means: &mut Means<'_>) {
        let Some(state) = changed else { return };
        means.stats.count(match state {
            BreakerState::Closed => Counter::BreakerClosed,
            BreakerState::Open => Counter::BreakerOpened,
            BreakerState::HalfOpen => Counter::BreakerHalfOpened,
        });
        means.out.control(home, Control::Breaker { endpoint: Box::new(target.endpoint.clone()), state });
        if state != BreakerState::HalfOpen {
            self.release_blocked(target, state == BreakerState::Closed, means);
        }
    }

    /// Dials that waited for the end of a probe wait for their backoff now. `anew`: the target is back.
    fn release_blocked(&mut self, target: &Faced, anew: bool, means: &mut Means<'_>) {
        for id in self.breakers.take_blocked(target) {
            if let Some(dialling) = self.dials.get_mut(&id).filter(|_| anew) {
                dialling.backoff.reset();
            }
            self.wait(id, Parting::default(), means);
        }
    }

    fn watch_breakers(&mut self, means: &mut Means<'_>) {
        if let Some(interval) = self.breakers.sweep_interval().filter(|_| self.breaker_sweep.is_none()) {
            self.breaker_sweep = Some(means.wheel.insert(means.now + interval, Deadline::Breakers));
        }
    }

    /// Forgets failures that are too long ago.
    pub(in crate::shard) fn sweep_breakers(&mut self, means: &mut Means<'_>) {
        self.breaker_sweep = None;
        self.breakers.sweep(means.now);
        self.watch_breakers(means);
    }

    /// Ends a dial, and the attempt that is under way.
    pub(super) fn end_dial(&mut self, id: DialId, error: DialError, means: &mut Means<'_>) {
        let Some(dialling) = self.dials.get(&id) else { return };
        let (home, key, is_awaited) = (dialling.home, PoolKey::of_dial(&dialling.dial), self.is_awaited(&dialling.dial));
        if let DialState::Attempting(core) = dialling.state {
            means.out.control(core, Control::EndAttempt { dial: id, expired: false });
        }
        self.forget(id, means);
        if !id.is_pooled() {
            means.out.control(home, Control::DialFailed { id, error, retry_in: None });
        }
        if is_awaited {
            self.pool_failed(&key, error, means);
        }
        self.pool_look(key, means);
    }

    /// Ends a dial. A connection that it led to stays.
    pub(in crate::shard) fn cancel(&mut self, id: DialId, means: &mut Means<'_>) {
        let Some(dialling) = self.dials.get(&id).filter(|_| !id.is_pooled()) else { return };
        let (home, key, is_awaited) = (dialling.home, PoolKey::of_dial(&dialling.dial), self.is_awaited(&dialling.dial));
        let was_connected = matches!(dialling.state, DialState::Connected(_));
        self.forget(id, means);
        if !was_connected {
            means.out.control(home, Control::DialFailed { id, error: DialError::Cancelled, retry_in: None });
            if is_awaited {
                self.pool_failed(&key, DialError::Cancelled, means);
            }
        }
        self.pool_look(key, means);
    }

    /// A dial is over: it has no timer any more, and nothing waits for it.
    pub(super) fn forget(&mut self, id: DialId, means: &mut Means<'_>) {
        self.target_spared(id, means);
        if let Some(dialling) = self.dials.remove(&id) {
            if let DialState::Waiting(timer) = dialling.state {
                means.wheel.cancel(timer);
            }
            self.breakers.unblock(&self.faced(&dialling.dial), id);
            self.targets.remove(&self.target(&dialling.dial));
        }
    }
}
