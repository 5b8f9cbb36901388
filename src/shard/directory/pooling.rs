//! The connection pool: which connection of a target is handed out, when one more is dialled, and when one is not needed any more.
//!
//! The pool keeps no list of connections. A target's channels are looked up in the grants (by node) and in the dials (by address), so
//! that a connection that anybody has made is found, and none is believed to be there that is not. What it hands out may end on its way
//! to whoever asked: then the peer's id means nobody, as that of any peer that is gone.

use super::super::breaker::Faced;
use super::super::mail::Control;
use super::super::pool::PoolKey;
use super::dialling::DialState;
use super::{Directory, Key, Means, answer};
use crate::address::Address;
use crate::dial::Dial;
use crate::endpoint::Endpoint;
use crate::error::DialError;
use crate::id::{DialId, PeerId};
use crate::metrics::Counter;
use crate::proto::Origin;
use crate::time::Timestamp;

/// Attempts that a connect makes where there is said to be a connection already, which is not to be seen yet.
const DUPLICATES: u32 = 4;

/// How far a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This peer is established, and not being closed.
    Ready {
        grant: u64,
        peer: PeerId,
    },
    /// It is being dialled, about to be established, or about to end: whoever waits hears of it.
    Busy,
    /// Another dial has the address.
    Taken,
    Free,
}

impl Directory {
    fn channels(&self) -> u16 {
        self.config.pool.max_channels
    }

    /// Where the pool would dial a target.
    fn pool_address(&self, key: &PoolKey) -> Option<Address> {
        match key {
            PoolKey::Address(address) => Some(address.clone()),
            PoolKey::Node(_) => self.pool.get(key)?.address.clone(),
        }
    }

    fn channel(&self, key: &PoolKey, channel: u16) -> State {
        let by_grant = |number: u64| {
            let newest = self.grants.key(number).and_then(|key| self.grants.current(&key)).filter(|(newest, _)| *newest == number);
            newest.and_then(|(_, grant)| grant.peer).map_or(State::Busy, |peer| State::Ready { grant: number, peer })
        };
        if let PoolKey::Node(node) = key
            && let Some((number, _)) = self.grants.newest(&Key::own(*node, channel))
        {
            return by_grant(number);
        }
        let target = self.pool_address(key).map(|address| (address, channel, [0; 8]));
        let dial = target.and_then(|target| self.targets.get(&target)).and_then(|id| self.dials.get(id));
        match dial {
            None => State::Free,
            Some(dialling) if PoolKey::of_dial(&dialling.dial) != *key => State::Taken,
            Some(dialling) => match dialling.state {
                DialState::Connected(grant) => by_grant(grant),
                _ => State::Busy,
            },
        }
    }

    fn is_busy(&self, key: &PoolKey) -> bool {
        (0..self.channels()).any(|channel| self.channel(key, channel) == State::Busy)
    }

    /// The connection to be handed out, if there is one: by turns, those first that are not over their soft mark.
    fn pick(&mut self, key: &PoolKey, now: Timestamp) -> Option<PeerId> {
        let (channels, turn) = (self.channels(), self.pool.get(key).map_or(0, |target| target.turn));
        let is_pressed = |channel| self.pool.get(key).is_some_and(|target| target.channel(channel).pressed);
        let by_turns = || (0..channels).map(move |step| (turn + step) % channels);
        let ready = |channel| match self.channel(key, channel) {
            State::Ready { peer, .. } => Some((channel, peer)),
            _ => None,
        };
        let (channel, peer) = by_turns().filter(|&channel| !is_pressed(channel)).find_map(ready).or_else(|| by_turns().find_map(ready))?;
        if let Some(target) = self.pool.get_mut(key) {
            target.turn = (channel + 1) % channels;
            target.channel_mut(channel).handed_at = Some(now);
        }
        Some(peer)
    }

    /// A connection is wanted, and, if `pin`, to be kept.
    pub(in crate::shard) fn pool_connect(&mut self, endpoint: Endpoint, origin: Origin, pin: bool, means: &mut Means<'_>) {
        let Some(key) = PoolKey::of(&endpoint) else { return answer(origin, Err(DialError::NoAddress), means) };
        if self.closed {
            return answer(origin, Err(DialError::ShuttingDown), means);
        }
        let hit = self.pick(&key, means.now);
        means.stats.count(if hit.is_some() { Counter::PoolHits } else { Counter::PoolMisses });
        let listed = hit.is_none() || pin || self.pool.get(&key).is_some();
        if listed && !self.enlist(key.clone(), endpoint.address, means) {
            means.stats.count(Counter::PoolRefused);
            return answer(origin, Err(DialError::PoolFull), means);
        }
        if pin {
            self.pin(&key);
        }
        match hit {
            Some(peer) => {
                answer(origin, Ok(peer), means);
                self.grow(&key, origin, means);
            }
            None => self.miss(key, origin, means),
        }
    }

    /// Makes sure that the pool knows a target. False: there is no room.
    fn enlist(&mut self, key: PoolKey, address: Option<Address>, means: &mut Means<'_>) -> bool {
        if self.pool.get(&key).is_none() && self.pool.len() >= self.config.pool.max_targets && !self.evict(means) {
            return false;
        }
        // What is dialled at the old address is found there, and what is connected has shown that it is right.
        let is_known = |channel| matches!(self.channel(&key, channel), State::Busy | State::Ready { .. });
        let moves = address.is_some() && !(0..self.channels()).any(is_known);
        let target = self.pool.ask(key);
        if target.address.is_none() || moves {
            target.address = address.or(target.address.take());
        }
        true
    }

    /// Makes room for another target.
    fn evict(&mut self, means: &mut Means<'_>) -> bool {
        let Some(key) = self.pool.oldest(|key, _| !self.is_busy(key)) else { return false };
        for channel in 0..self.channels() {
            if let State::Ready { grant, peer } = self.channel(&key, channel) {
                self.close_pooled(grant, peer, true, means);
            }
        }
        self.pool.remove(&key);
        means.stats.count(Counter::PoolEvicted);
        true
    }

    /// Closes a connection, if it is the pool's.
    fn close_pooled(&mut self, grant: u64, peer: PeerId, at_once: bool, means: &mut Means<'_>) {
        let Some(granted) = self.grants.get_mut(grant).filter(|granted| granted.dial.is_some_and(DialId::is_pooled)) else { return };
        // It is not handed out any more; where it stays after all, its core says so.
        granted.peer = None;
        means.out.control(granted.core(), Control::CloseIdle { grant, peer, at_once });
    }

    /// There is no connection to be handed out.
    fn miss(&mut self, key: PoolKey, origin: Origin, means: &mut Means<'_>) {
        let limits = self.config.pool;
        let waiting = self.pool.get(&key).map_or(0, |target| target.waiters.len());
        if waiting >= limits.waiting_per_target || self.pool.waiting() >= limits.waiting {
            means.stats.count(Counter::PoolRefused);
            answer(origin, Err(DialError::PoolFull), means);
            return self.pool_look(key, means);
        }
        let endpoint = Endpoint { node: key.node(), address: self.pool_address(&key) };
        if let Some(until) = self.breakers.open_until(&Faced { endpoint, ours: [0; 8] }, means.now) {
            means.stats.count(Counter::BreakerRefused);
            answer(origin, Err(DialError::BreakerOpen { retry_in: until - means.now }), means);
        } else {
            self.pool.wait(&key, origin);
        }
        self.look(key, home(origin), means);
    }

    /// One more connection, where all that there are have much to receive.
    fn grow(&mut self, key: &PoolKey, origin: Origin, means: &mut Means<'_>) {
        let Some(target) = self.pool.get(key) else { return };
        let all_pressed = (0..self.channels()).all(|channel| match self.channel(key, channel) {
            State::Ready { .. } => target.channel(channel).pressed,
            State::Busy => false,
            State::Taken | State::Free => true,
        });
        if all_pressed {
            // It is nobody's business if that fails: what was asked for is there.
            let _ = self.pool_dial(key.clone(), home(origin), true, means);
        }
    }

    /// Dials a target's lowest free channel. `home`: the core that is told of its breaker.
    fn pool_dial(&mut self, key: PoolKey, home: usize, once: bool, means: &mut Means<'_>) -> Result<(), DialError> {
        let address = self.pool_address(&key).ok_or(DialError::NoAddress)?;
        let free = (0..self.channels()).find(|&channel| self.channel(&key, channel) == State::Free);
        let channel = free.ok_or(DialError::Duplicate)?;
        let dial = Dial { expected: key.node(), once, ..Dial::to(address).channel(channel) };
        self.check_dial(&dial)?;
        self.check_breaker(&dial, means)?;
        let id = self.pool.next_dial();
        self.add_dial(id, dial, home, means);
        Ok(())
    }

    /// Keeps a target connected from now on.
    fn pin(&mut self, key: &PoolKey) {
        if let Some(target) = self.pool.get_mut(key) {
            target.pinned = true;
        }
        // The first that there is; where there is none yet, one is dialled.
        if let Some(id) = self.pooled_dials(key).next()
            && let Some(dialling) = self.dials.get_mut(&id)
        {
            dialling.dial.once = false;
        }
    }

    /// The dials that the pool makes for a target.
    fn pooled_dials(&self, key: &PoolKey) -> impl Iterator<Item = DialId> + use<> {
        let address = self.pool_address(key);
        let dials = (0..self.channels()).filter_map(|channel| self.targets.get(&(address.clone()?, channel, [0; 8])).copied());
        let is_its = |id: &DialId| id.is_pooled() && self.dials.get(id).is_some_and(|dialling| PoolKey::of_dial(&dialling.dial) == *key);
        dials.filter(is_its).collect::<Vec<_>>().into_iter()
    }

    /// Does not keep a target connected any more. What is connected stays until it is idle.
    pub(in crate::shard) fn unpin(&mut self, endpoint: Endpoint, means: &mut Means<'_>) {
        let Some(key) = PoolKey::of(&endpoint) else { return };
        let Some(target) = self.pool.get_mut(&key).filter(|target| target.pinned) else { return };
        target.pinned = false;
        let waits = !target.waiters.is_empty();
        for id in self.pooled_dials(&key) {
            let Some(dialling) = self.dials.get_mut(&id) else { continue };
            dialling.dial.once = true;
            if matches!(dialling.state, DialState::Waiting(_)) && !waits {
                self.forget(id, means);
            }
        }
        self.pool_look(key, means);
    }

    /// Something has changed for a target: dials it if somebody waits or it is pinned, forgets it if there is nothing left.
    pub(super) fn pool_look(&mut self, key: PoolKey, means: &mut Means<'_>) {
        self.look(key, 0, means);
    }

    fn look(&mut self, key: PoolKey, home: usize, means: &mut Means<'_>) {
        let Some(target) = self.pool.get(&key).filter(|_| !self.closed) else { return };
        let (waits, pinned) = (!target.waiters.is_empty(), target.pinned);
        if waits && let Some(peer) = self.pick(&key, means.now) {
            return self.pool_found(&key, peer, means);
        }
        let states = (0..self.channels()).map(|channel| self.channel(&key, channel));
        if states.into_iter().any(|state| matches!(state, State::Busy | State::Ready { .. })) {
            return;
        }
        let failed = if waits || pinned { self.pool_dial(key.clone(), home, !pinned, means) } else { Err(DialError::Cancelled) };
        let Err(error) = failed else { return };
        self.pool_failed(&key, error, means);
        // Whoever has pinned it without an address keeps what connects by itself.
        if pinned && error != DialError::NoAddress {
            means.stats.count(Counter::PoolRefused);
        }
        if !pinned || error != DialError::NoAddress {
            self.pool.remove(&key);
        }
    }

    /// A connection is established: whoever waits for its target has it.
    pub(super) fn pool_established(&mut self, number: u64, means: &mut Means<'_>) {
        let Some(granted) = self.grants.get(number) else { return };
        let (node, channel, dial) = (granted.node, granted.channel, granted.dial.and_then(|id| self.dials.get(&id)));
        let by_dial = dial.map(|dialling| PoolKey::of_dial(&dialling.dial));
        for key in [Some(PoolKey::Node(node)), by_dial.filter(|key| *key != PoolKey::Node(node))].into_iter().flatten() {
            if channel >= self.channels() || !matches!(self.channel(&key, channel), State::Ready { grant, .. } if grant == number) {
                continue;
            }
            if let Some(target) = self.pool.get_mut(&key) {
                target.channel_mut(channel).pressed = false;
            }
            if let Some(peer) = self.pick_waited(&key, means.now) {
                self.pool_found(&key, peer, means);
            }
        }
    }

    fn pick_waited(&mut self, key: &PoolKey, now: Timestamp) -> Option<PeerId> {
        let waits = self.pool.get(key).is_some_and(|target| !target.waiters.is_empty());
        if waits { self.pick(key, now) } else { None }
    }

    fn pool_found(&mut self, key: &PoolKey, peer: PeerId, means: &mut Means<'_>) {
        for origin in self.pool.take_waiters(key) {
            answer(origin, Ok(peer), means);
        }
    }

    /// What was dialled turned out to be connected already, with this key: whoever waits has that.
    pub(super) fn pool_duplicate(&mut self, id: DialId, key: &Key, means: &mut Means<'_>) {
        let Some(target) = self.dials.get(&id).map(|dialling| PoolKey::of_dial(&dialling.dial)) else { return };
        if let Some(peer) = self.grants.current(key).and_then(|(_, grant)| grant.peer) {
            self.pool_found(&target, peer, means);
        }
    }

    /// Whether an attempt of the pool is made again: somebody waits, and there is said to be a connection that is not to be seen yet.
    pub(super) fn pool_insists(&self, id: DialId, error: DialError) -> bool {
        let Some(dialling) = self.dials.get(&id).filter(|_| id.is_pooled() && error == DialError::Duplicate) else { return false };
        let target = self.pool.get(&PoolKey::of_dial(&dialling.dial));
        target.is_some_and(|target| !target.waiters.is_empty()) && dialling.backoff.attempts() < DUPLICATES
    }

    /// Whether those who wait for a dial's target wait for this dial: where it goes to the address that the pool would dial.
    pub(super) fn is_awaited(&self, dial: &Dial) -> bool {
        self.pool_address(&PoolKey::of_dial(dial)).is_none_or(|address| address == dial.address)
    }

    /// A target could not be connected to: whoever waits is told.
    pub(super) fn pool_failed(&mut self, key: &PoolKey, error: DialError, means: &mut Means<'_>) {
        for origin in self.pool.take_waiters(key) {
            answer(origin, Err(error), means);
        }
    }

    /// A connection of the pool has not been in use for `pool.max_idle`.
    pub(in crate::shard) fn idle(&mut self, number: u64, means: &mut Means<'_>) {
        let Some(granted) = self.grants.get(number) else { return };
        let (channel, Some(peer)) = (granted.channel, granted.peer) else { return };
        let dial = granted.dial.and_then(|id| self.dials.get(&id));
        let target = dial.and_then(|dialling| self.pool.get(&PoolKey::of_dial(&dialling.dial)));
        let is_kept = target.is_some_and(|target| {
            let just_handed = |at: Timestamp| means.now - at < self.config.pool.max_idle;
            target.pinned || !target.waiters.is_empty() || target.channel(channel).handed_at.is_some_and(just_handed)
        });
        if !is_kept {
            self.close_pooled(number, peer, false, means);
        }
    }

    /// A connection of the pool is over its soft mark, or below it again.
    pub(in crate::shard) fn pressed(&mut self, number: u64, pressed: bool) {
        let Some(granted) = self.grants.get(number) else { return };
        let dial = granted.dial.and_then(|id| self.dials.get(&id));
        if let Some(target) = dial.and_then(|dialling| self.pool.get_mut(&PoolKey::of_dial(&dialling.dial))) {
            target.channel_mut(granted.channel).pressed = pressed;
        }
    }

    /// Panics where what the pool counts is not what it has.
    #[cfg(test)]
    pub(in crate::shard) fn assert_pool(&self) {
        assert_eq!(self.pool.waiting(), self.pool.count_waiters(), "calls that wait for a connection");
    }
}

/// The core that is told of the breaker of what is dialled for a call: the one that asked, or for threads the first.
fn home(origin: Origin) -> usize {
    match origin {
        Origin::Handler { core, .. } => core,
        Origin::Waiter(_) => 0,
    }
}
