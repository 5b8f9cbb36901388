//! Peers that read more slowly than they are sent to.
//!
//! A peer has two marks. Over the soft one it is *pressed*: its application is told, it has the grace time to drain at the least rate, and
//! the lanes whose policy is to drop do so. Over the hard one it is cut off, unless it is this core that has not got round to writing.

use std::time::Duration;

use super::{Event, Shard};
use crate::config::WhenSlow;
use crate::error::{CloseReason, SendError, Slow};
use crate::flight::FlightEvent;
use crate::handler::Backlog;
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::proto::Timer;
use crate::wire::{Frame, Lane};

/// What is to be queued for a peer, all of it or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The lane whose policy holds.
    pub(super) lane: Lane,
    pub(super) messages: u64,
    /// Bytes of the longest body.
    pub(super) longest: usize,
    /// Most that it adds to what the peer has still to receive.
    pub(super) charge: usize,
}

impl Shard {
    /// A sweep found a peer over its soft mark.
    #[cold]
    pub(super) fn sweep_slow(&mut self, slot: u32) {
        if !self.slots.at(slot).is_established() {
            return;
        }
        // What has expired says nothing about the peer.
        self.expire(slot);
        if self.claimed(slot) < self.shared.config.limits.outbox_soft {
            return;
        }
        self.press(slot);
        self.shed(slot, Lane::High, None);
        if self.slots.at(slot).blocked && self.claimed(slot) > self.shared.config.limits.outbox_hard {
            self.close(slot, CloseReason::SlowPeer(Slow::HardBound));
        }
    }

    fn claimed(&self, slot: u32) -> usize {
        self.slots.at(slot).peer.outbox.claimed(&self.logs)
    }

    /// [`Shard::check_room`] said that there is none, or some lane drops what a slow peer does not take: the same again, after making room
    /// as the policy says. `Ok(None)`: by that policy the messages are left out, which is counted.
    #[cold]
    pub(super) fn make_room(&mut self, peer: PeerId, wanted: Wanted) -> Result<Option<usize>, SendError> {
        if !self.find_room(peer, wanted) {
            return Ok(None);
        }
        self.check_room(peer, wanted.longest, wanted.charge).map(Some)
    }

    /// Makes room for what is to be queued for a peer of this core. Says whether it is wanted.
    fn find_room(&mut self, peer: PeerId, wanted: Wanted) -> bool {
        let limits = &self.shared.config.limits;
        let (soft, hard) = (limits.outbox_soft, limits.outbox_hard);
        let Wanted { lane, charge, .. } = wanted;
        let slot = peer.slot();
        let used = self.slots.at(slot).peer.outbox.used();
        // What does not fit into an empty outbox is refused, and nothing need make room for it.
        if charge > hard || (self.claimed(slot) + charge <= soft && self.sends.fits(used, used + charge)) {
            return true;
        }
        self.expire(slot);
        let claimed = self.claimed(slot);
        if claimed + charge <= soft || !(self.slots.at(slot).blocked || claimed + charge > hard) {
            return true;
        }
        self.press(slot);
        self.shed(slot, lane, Some(wanted));
        let refuses = self.shared.config.lanes.get(lane).when_slow == WhenSlow::DropNewest;
        if refuses && self.slots.at(slot).blocked && self.claimed(slot) + charge > soft {
            self.count_shed(slot, Counter::DroppedNewest, wanted.messages);
            return false;
        }
        true
    }

    /// If the peer's socket takes nothing, drops what its lanes are to drop, until what is `wanted` fits under the soft mark as well: the
    /// least urgent lane first, and none that is more urgent than `last`.
    ///
    /// A peer whose socket takes what it is given waits for this core, and loses nothing by that.
    pub(super) fn shed(&mut self, slot: u32, last: Lane, wanted: Option<Wanted>) {
        if self.drops && self.slots.at(slot).blocked {
            self.shed_lanes(slot, last, wanted);
        }
    }

    fn shed_lanes(&mut self, slot: u32, last: Lane, wanted: Option<Wanted>) {
        let more = wanted.map_or(0, |wanted| wanted.charge);
        let target = self.shared.config.limits.outbox_soft.saturating_sub(more + 1);
        for lane in Lane::ALL.into_iter().rev().take_while(|lane| lane.index() >= last.index()) {
            if self.claimed(slot) <= target {
                return;
            }
            // A good part at once: finding out what may go costs more than dropping it.
            let some = target - target / 8;
            let (counter, dropped) = match self.shared.config.lanes.get(lane).when_slow {
                WhenSlow::Disconnect => continue,
                // What is only now to be queued is the newest: the caller leaves it out.
                WhenSlow::DropNewest if wanted.is_some_and(|wanted| wanted.lane == lane) => continue,
                WhenSlow::DropNewest => {
                    let dropped = self.with_outbox(slot, |outbox, logs, pool| outbox.drop_newest(lane, target, logs, pool));
                    (Counter::DroppedNewest, dropped.messages)
                }
                WhenSlow::DropOldest | WhenSlow::Conflate => (Counter::DroppedOldest, self.drop_oldest(slot, lane, some)),
            };
            self.count_shed(slot, counter, dropped);
        }
    }

    /// Drops the oldest of a lane. What has begun is kept, and would alone keep all of the log that comes after it: it is taken out of
    /// there, where the core has the memory.
    fn drop_oldest(&mut self, slot: u32, lane: Lane, target: usize) -> u64 {
        let dropped = self.with_outbox(slot, |outbox, logs, pool| outbox.drop_oldest(lane, target, logs, pool)).messages;
        let outbox = &self.slots.at(slot).peer.outbox;
        let (used, begun) = (outbox.used(), outbox.begun_alone(lane, &self.logs));
        if begun > 0 && self.sends.fits(used, used + begun) {
            self.with_outbox(slot, |outbox, logs, _| outbox.keep_begun(lane, logs));
        }
        dropped
    }

    /// Queues a frame with a key: in the place of an older one of the same key, where the lane conflates.
    #[cold]
    pub(super) fn push_keyed(&mut self, slot: u32, frame: &Frame) {
        let now = self.now;
        if self.shared.config.lanes.get(frame.lane()).when_slow == WhenSlow::Conflate {
            let (_, dropped) = self.with_outbox(slot, |outbox, logs, pool| outbox.push_conflated(logs, pool, frame, now));
            self.count_shed(slot, Counter::Conflated, dropped.messages);
        } else {
            self.with_outbox(slot, |outbox, logs, pool| outbox.push_frame(logs, pool, frame, now));
        }
    }

    /// Messages were dropped because the peer is slow.
    fn count_shed(&mut self, slot: u32, counter: Counter, messages: u64) {
        self.stats.add(counter, messages);
        self.record_dropped(slot, counter, messages);
        self.slots.cold_mut(slot).arrears().shed += messages;
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
        self.record_dropped(slot, Counter::MessagesExpired, expired.messages);
        if expired.messages == 0 {
            return;
        }
        if self.slots.at(slot).pressed {
            self.relieve(slot, 0);
        }
        if !self.slots.at(slot).peer.has_output(&self.logs) {
            self.emptied(slot);
        }
    }

    /// A peer is over its soft mark. It may have been for long: then there is nothing to do, with each message that is sent to it.
    #[inline]
    pub(super) fn press(&mut self, slot: u32) {
        if !self.slots.at(slot).pressed {
            self.begin_pressed(slot);
        }
    }

    /// Watch how fast it drains.
    #[cold]
    #[inline(never)]
    fn begin_pressed(&mut self, slot: u32) {
        let entry = self.slots.at_mut(slot);
        entry.pressed = true;
        entry.peer.timers.set(Timer::SoftGrace, self.now + self.shared.config.limits.soft_grace);
        self.rearm(slot);
        let arrears = self.slots.cold_mut(slot).arrears();
        arrears.drained = 0;
        // Messages that gave way to newer ones of their key while it was not slow are nothing to report.
        arrears.shed = 0;
        self.report_slow(slot);
        self.tell_pressed(slot, true);
    }

    /// Bytes left a peer that is over its soft mark, or was.
    #[cold]
    pub(super) fn relieve(&mut self, slot: u32, taken: usize) {
        let soft = self.shared.config.limits.outbox_soft;
        let arrears = self.slots.cold_mut(slot).arrears();
        arrears.drained += taken as u64;
        let shed = arrears.shed;
        let entry = self.slots.at_mut(slot);
        // Rounded up, so that a soft mark of one byte has something below it.
        if entry.peer.outbox.claimed(&self.logs) < soft.div_ceil(2) {
            entry.pressed = false;
            entry.peer.timers.clear(Timer::SoftGrace);
            if entry.is_established() {
                if shed > 0 {
                    self.report_slow(slot);
                }
                self.record(slot, FlightEvent::Drained);
                self.events.push_back(Event::Drained(self.slots.id(slot)));
                self.tell_pressed(slot, false);
            }
        }
    }

    /// The grace time of a peer over its soft mark is up: is it slow, or merely busy?
    pub(super) fn judge_soft(&mut self, slot: u32) {
        self.expire(slot);
        self.relieve(slot, 0);
        if !self.slots.at(slot).pressed {
            return;
        }
        let limits = &self.shared.config.limits;
        let (soft, grace) = (limits.outbox_soft, limits.soft_grace);
        let wanted = limits.min_drain_rate as f64 * grace.as_secs_f64();
        if (self.slots.cold_mut(slot).arrears().drained as f64) < wanted {
            // It is slow, though its socket may have room just now. Where dropping keeps it under the mark, that is all that happens to it.
            if self.drops {
                self.shed_lanes(slot, Lane::High, None);
            }
            if !self.drops || self.claimed(slot) >= soft {
                return self.close(slot, CloseReason::SlowPeer(Slow::SoftMark));
            }
        }
        self.slots.cold_mut(slot).arrears().drained = 0;
        self.slots.at_mut(slot).peer.timers.set(Timer::SoftGrace, self.now + grace);
        self.report_slow(slot);
    }

    /// The kernel took nothing for too long.
    pub(super) fn judge_stall(&mut self, slot: u32) {
        self.expire(slot);
        if !self.slots.at(slot).peer.has_output(&self.logs) {
            // Nothing waits any more. The next message finds out how it is.
            self.handle_writable(slot);
        } else {
            self.close(slot, CloseReason::SlowPeer(Slow::WriteStall));
        }
    }

    /// Tells the application how far a peer is behind.
    pub(super) fn report_slow(&mut self, slot: u32) {
        let peer = self.slots.id(slot);
        let now = self.now;
        let entry = self.slots.at(slot);
        let (bytes, behind) = (entry.peer.outbox.claimed(&self.logs), entry.behind);
        let arrears = self.slots.cold_mut(slot).arrears();
        let age = arrears.since.filter(|_| behind).map_or(Duration::ZERO, |since| now - since);
        let dropped = std::mem::take(&mut arrears.shed);
        self.record(slot, FlightEvent::Slow { queued: bytes as u64 });
        self.events.push_back(Event::Slow { peer, backlog: Backlog { bytes, age, dropped } });
    }
}
