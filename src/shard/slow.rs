//! Peers that read more slowly than they are sent to.
//!
//! A peer has two marks. Over the soft one it is *pressed*: its application is told, it has the grace time to drain at the least rate, and
//! the lanes whose policy is to drop do so. Over the hard one it is cut off, unless it is this core that has not got round to writing.

use std::time::Duration;

use super::{Event, Shard};
use crate::config::WhenSlow;
use crate::error::{CloseReason, Slow};
use crate::handler::Backlog;
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::proto::{Dropped, Timer};
use crate::wire::{Frame, Lane};

impl Shard {
    /// A sweep found a peer over its soft mark.
    #[cold]
    pub(super) fn sweep_slow(&mut self, slot: u32) {
        if !self.slots.at(slot).is_established() {
            return;
        }
        self.press(slot);
        self.shed(slot, 0, None);
        let entry = self.slots.at(slot);
        if entry.blocked && entry.peer.outbox.claimed(&self.logs) > self.shared.config.limits.outbox_hard {
            self.close(slot, CloseReason::SlowPeer(Slow::HardBound));
        }
    }

    /// Makes room for `charge` more bytes in `lane` for a peer of this core, as the policy of the lane says. Says whether they are wanted.
    #[cold]
    pub(super) fn find_room(&mut self, peer: PeerId, lane: Lane, charge: usize) -> bool {
        let limits = &self.shared.config.limits;
        let Some(entry) = self.slots.find(peer).filter(|entry| entry.is_established()) else { return true };
        let claimed = entry.peer.outbox.claimed(&self.logs);
        if claimed + charge <= limits.outbox_soft || !(entry.blocked || claimed + charge > limits.outbox_hard) {
            return true;
        }
        let slot = peer.slot();
        self.press(slot);
        self.shed(slot, charge, Some(lane));
        let full = self.queued_bytes(peer) + charge > self.shared.config.limits.outbox_soft;
        let refuses = self.shared.config.lanes.get(lane).when_slow == WhenSlow::DropNewest;
        if full && refuses && self.slots.at(slot).blocked {
            self.count_shed(slot, Counter::DroppedNewest, Dropped { messages: 1, freed: 0 });
            return false;
        }
        true
    }

    /// Drops what has expired, and then, if the peer's socket takes nothing, what the lanes are to drop, until `more` bytes fit under the soft
    /// mark: of `only` this lane, or of all, the least urgent first.
    ///
    /// A peer whose socket takes what it is given waits for this core, and loses nothing by that.
    fn shed(&mut self, slot: u32, more: usize, only: Option<Lane>) {
        self.expire(slot);
        if !self.drops || !self.slots.at(slot).blocked {
            return;
        }
        let target = self.shared.config.limits.outbox_soft.saturating_sub(more + 1);
        for lane in Lane::ALL.into_iter().rev().filter(|&lane| only.is_none_or(|only| only == lane)) {
            let (logs, pool) = (&self.logs, &mut self.pool);
            let outbox = &mut self.slots.at_mut(slot).peer.outbox;
            if outbox.claimed(logs) <= target {
                return;
            }
            // A good part at once: finding out what may go costs more than dropping it.
            let some = target - target / 8;
            let before = outbox.used();
            let (counter, dropped) = match self.shared.config.lanes.get(lane).when_slow {
                WhenSlow::Disconnect => continue,
                // What is only now to be queued is the newest: the caller leaves it out.
                WhenSlow::DropNewest if more > 0 => continue,
                WhenSlow::DropNewest => (Counter::DroppedNewest, outbox.drop_newest(lane, target, logs, pool)),
                WhenSlow::DropOldest | WhenSlow::Conflate => (Counter::DroppedOldest, outbox.drop_oldest(lane, some, logs, pool)),
            };
            self.sends.settle(before, outbox.used());
            self.count_shed(slot, counter, dropped);
        }
    }

    /// Queues a frame with a key: in the place of an older one of the same key, where the lane conflates.
    #[cold]
    pub(super) fn push_keyed(&mut self, slot: u32, frame: &Frame) {
        let now = self.now;
        if self.shared.config.lanes.get(frame.lane()).when_slow == WhenSlow::Conflate {
            let (_, dropped) = self.with_outbox(slot, |outbox, logs, pool| outbox.push_conflated(logs, pool, frame, now));
            self.count_shed(slot, Counter::Conflated, dropped);
        } else {
            self.with_outbox(slot, |outbox, logs, pool| outbox.push_frame(logs, pool, frame, now));
        }
    }

    /// Messages were dropped because the peer is slow.
    pub(super) fn count_shed(&mut self, slot: u32, counter: Counter, dropped: Dropped) {
        self.stats.add(counter, dropped.messages);
        self.slots.at_mut(slot).cold.shed += dropped.messages;
    }

    /// Drops what has waited for longer than it is of use.
    #[inline]
    pub(super) fn expire(&mut self, slot: u32) {
        if self.slots.at(slot).peer.outbox.next_expiry().is_some_and(|first| first <= self.now) {
            self.expire_some(slot);
        }
    }

    #[cold]
    fn expire_some(&mut self, slot: u32) {
        let now = self.now;
        let expired = self.with_outbox(slot, |outbox, logs, pool| outbox.expire(now, logs, pool));
        self.stats.add(Counter::MessagesExpired, expired.messages);
        let entry = self.slots.at(slot);
        if expired.messages > 0 && entry.peer.outbox.is_empty(&self.logs) {
            self.emptied(slot);
        }
    }

    /// A peer is over its soft mark: watch how fast it drains.
    pub(super) fn press(&mut self, slot: u32) {
        let entry = self.slots.at_mut(slot);
        if !entry.pressed {
            entry.pressed = true;
            entry.cold.drained = 0;
            entry.peer.timers.set(Timer::SoftGrace, self.now + self.shared.config.limits.soft_grace);
            self.rearm(slot);
            self.report_slow(slot);
        }
    }

    /// Bytes left a peer that is over its soft mark, or was.
    #[cold]
    pub(super) fn relieve(&mut self, slot: u32, taken: usize) {
        let soft = self.shared.config.limits.outbox_soft;
        let entry = self.slots.at_mut(slot);
        entry.cold.drained += taken as u64;
        // Rounded up, so that a soft mark of one byte has something below it.
        if entry.peer.outbox.claimed(&self.logs) < soft.div_ceil(2) {
            entry.pressed = false;
            entry.peer.timers.clear(Timer::SoftGrace);
            if entry.is_established() {
                self.events.push_back(Event::Drained(self.slots.id(slot)));
            }
        }
    }

    /// The grace time of a peer over its soft mark is up: is it slow, or merely busy?
    pub(super) fn judge_soft(&mut self, slot: u32) {
        self.shed(slot, 0, None);
        self.relieve(slot, 0);
        let limits = &self.shared.config.limits;
        let entry = self.slots.at_mut(slot);
        if !entry.pressed {
            return;
        }
        let wanted = limits.min_drain_rate as f64 * limits.soft_grace.as_secs_f64();
        // Where dropping keeps it under the mark, that is all that happens to it.
        let is_kept = self.drops && entry.peer.outbox.claimed(&self.logs) < limits.outbox_soft;
        if (entry.cold.drained as f64) < wanted && !is_kept {
            self.close(slot, CloseReason::SlowPeer(Slow::SoftMark));
        } else {
            entry.cold.drained = 0;
            entry.peer.timers.set(Timer::SoftGrace, self.now + limits.soft_grace);
            self.report_slow(slot);
        }
    }

    /// Tells the application how far a peer is behind.
    pub(super) fn report_slow(&mut self, slot: u32) {
        let peer = self.slots.id(slot);
        let now = self.now;
        let entry = self.slots.at_mut(slot);
        let bytes = entry.peer.outbox.claimed(&self.logs);
        let age = if entry.behind { now - entry.cold.behind_since } else { Duration::ZERO };
        let dropped = std::mem::take(&mut entry.cold.shed);
        self.events.push_back(Event::Slow { peer, backlog: Backlog { bytes, age, dropped } });
    }
}
