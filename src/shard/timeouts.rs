//! Deadlines.

use std::time::Duration;

use super::{Deadline, Event, Shard};
use crate::error::{CloseReason, RequestError};
use crate::metrics::Counter;
use crate::proto::{Due, Timer};
use crate::time::Timestamp;
use crate::wheel::{Expired, TimerKey};
use crate::wire::{HEADER_LEN, Kind};

/// A turn that begins so much later than it was meant to means that this process, or its machine, was stopped.
const FROZEN: Duration = Duration::from_secs(1);

impl Shard {
    /// When something is due, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.wheel.next_deadline()
    }

    /// Makes sure that the wheel has a timer not later than the peer's earliest deadline.
    ///
    /// A deadline that moves away leaves its timer where it is: it comes early, finds nothing due, and is set anew. So a deadline that
    /// moves with every message costs nothing per message.
    #[inline]
    pub(super) fn rearm(&mut self, slot: u32) {
        let entry = self.slots.at_mut(slot);
        let Some(next) = entry.peer.timers.next() else { return };
        if entry.armed.is_none_or(|armed| armed > next) {
            // Strictly later than now, or a drain of the wheel would not end.
            let at = next.max(self.now + Duration::from_millis(1));
            entry.armed = Some(at);
            self.wheel.set(slot, at);
        }
    }

    /// Does what is due. Says whether anything was.
    pub(crate) fn handle_timeouts(&mut self) -> bool {
        let mut any = false;
        while let Some(expired) = self.wheel.pop_expired(self.now) {
            any = true;
            let deadline = match expired {
                Expired::Index(slot) => {
                    self.peer_timeout(slot);
                    continue;
                }
                Expired::Value(deadline) => deadline,
            };
            match deadline {
                Deadline::Half(half) => self.half_timeout(half),
                Deadline::Request { slot, correlation } => self.request_timeout(slot, correlation),
                Deadline::User { tag } => {
                    self.user_timers -= 1;
                    self.events.push_back(Event::Timer { tag });
                }
                Deadline::Rated(peer) => self.rate_timeout(peer),
                Deadline::Receipt(id) => self.expire_receipt(id),
                Deadline::Acked(id) => self.expire_acked(id),
                Deadline::Ledgers => self.with_directory(|directory, means| directory.sweep_ledgers(means)),
                Deadline::Landed => self.landed(),
                Deadline::Idle => self.sweep_idle(),
                Deadline::Breakers => self.with_directory(|directory, means| directory.sweep_breakers(means)),
                Deadline::Probe(id) => self.with_directory(|directory, means| directory.probe_expired(id, means)),
                Deadline::Redial(id) => self.with_directory(|directory, means| directory.redial(id, means)),
            }
        }
        any
    }

    fn peer_timeout(&mut self, slot: u32) {
        self.slots.at_mut(slot).armed = None;
        if self.rates.is_some() {
            self.reassure(slot);
        }
        while let Some(due) = self.slots.at_mut(slot).peer.handle_timeout(self.now, &self.shared.config, &mut self.pool) {
            match due {
                Due::Handled => {}
                Due::Queued(bytes) => {
                    self.stats.count(Counter::PingsSent);
                    self.record_control(slot, Kind::Ping, HEADER_LEN + 8);
                    self.control_queued(slot, bytes);
                }
                Due::SoftGrace => self.judge_soft(slot),
                Due::Linger => self.end(slot),
                Due::Unresponsive => self.close(slot, CloseReason::Unresponsive),
                Due::WriteStall => self.judge_stall(slot),
                Due::Partial => self.close(slot, CloseReason::PartialTimeout),
                Due::Pause => self.close(slot, CloseReason::PausedTooLong),
            }
        }
        self.rearm(slot);
    }

    fn request_timeout(&mut self, slot: u32, correlation: u64) {
        let timeouts = &self.shared.config.timeouts;
        let Some(entry) = self.slots.get_mut(slot) else { return };
        if let Some(origin) = entry.peer.expire_request(self.now, correlation, timeouts) {
            self.requests -= 1;
            self.stats.count(Counter::RequestsTimedOut);
            self.fail_request(self.slots.id(slot), origin, RequestError::TimedOut);
        }
    }

    pub(crate) fn set_timer(&mut self, after: Duration, tag: u64) -> Option<TimerKey> {
        if self.user_timers >= self.shared.config.limits.max_timers {
            return None;
        }
        self.user_timers += 1;
        Some(self.wheel.insert(self.now + after, Deadline::User { tag }))
    }

    pub(crate) fn cancel_timer(&mut self, timer: TimerKey) -> bool {
        let cancelled = self.wheel.cancel(timer).is_some();
        if cancelled {
            self.user_timers -= 1;
        }
        cancelled
    }

    /// The process slept for longer than it meant to: what the others sent meanwhile has not been read, so it is not held against them.
    pub(super) fn forgive_freeze(&mut self, now: Timestamp, meant: Timestamp) {
        let gap = now - meant;
        if gap < FROZEN {
            return;
        }
        for (_, entry) in self.slots.iter_mut() {
            entry.peer.keepalive.forgive(now, gap);
            if entry.peer.timers.is_set(Timer::WriteStall) {
                entry.peer.timers.set(Timer::WriteStall, now + self.shared.config.timeouts.write_stall);
            }
        }
    }
}
