//! Peers that read more slowly than they are sent to.
//!
//! A peer has two marks. Over the soft one it is *pressed*: its application is told, it has the grace time to drain at the least rate, and
//! the lanes whose policy is to drop do so. Over the hard one it is cut off, unless it is this core that has not got round to writing.

use std::time::Duration;

use super::{Event, Shard};
use crate::error::{CloseReason, Slow};
use crate::handler::Backlog;
use crate::proto::Timer;

impl Shard {
    /// A sweep found a peer over its soft mark.
    #[cold]
    pub(super) fn sweep_slow(&mut self, slot: u32, claimed: usize) {
        if !self.slots.at(slot).is_established() {
            return;
        }
        if self.slots.at(slot).blocked && claimed > self.shared.config.limits.outbox_hard {
            self.close(slot, CloseReason::SlowPeer(Slow::HardBound));
        } else {
            self.press(slot);
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
        let limits = &self.shared.config.limits;
        let entry = self.slots.at_mut(slot);
        let wanted = limits.min_drain_rate as f64 * limits.soft_grace.as_secs_f64();
        if (entry.cold.drained as f64) < wanted {
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
