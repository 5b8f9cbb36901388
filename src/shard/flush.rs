//! What leaves.

use super::slots::{Entry, Mark, State};
use super::{Action, Conn, Shard};
use crate::error::{CloseReason, Slow};
use crate::flight::FlightEvent;
use crate::metrics::Counter;
use crate::proto::{Slices, Timer};

/// Growth of the logs after which it is looked at what can be released: 256 KiB to 1,000 peers take 100 ms to write, a look at them 20 us.
pub(super) const RECLAIM_STEP: usize = 256 * 1024;
/// What a peer may need of a full log at most for it to be copied instead of the peer being cut off.
const EVACUATED: usize = 64 * 1024;

/// A pass over all peers, because broadcasts came: it may take several turns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    /// Where the last pass began.
    first: u32,
    next: u32,
    left: u32,
    /// Slots there were when it began.
    count: u32,
    /// In this flush before the peers that are dirty.
    goes_first: bool,
}

impl Shard {
    #[inline]
    pub(super) fn mark_dirty(&mut self, slot: u32) {
        let entry = self.slots.at_mut(slot);
        if !entry.dirty && !entry.blocked {
            entry.dirty = true;
            self.dirty.push_back(slot);
        } else if entry.blocked {
            self.fit_blocked(slot);
        }
    }

    /// What is queued may wait for long: no more memory than it needs.
    fn fit_blocked(&mut self, slot: u32) {
        self.with_outbox(slot, |outbox, _, pool| outbox.fit(pool));
    }

    /// Begins a flush. Broadcasts since the last sweep are for every peer, so a sweep over all of them begins, unless one is under way.
    pub(crate) fn begin_flush(&mut self) {
        self.flush_left = self.dirty.len();
        // By turns, so that a budget that one of them uses up alone does not keep the other waiting for ever.
        self.sweep.goes_first = !self.sweep.goes_first;
        let ends = self.logs.ends().map(|cursor| cursor.position);
        if ends != self.swept && self.sweep.left == 0 {
            self.swept = ends;
            let count = self.slots.high_water();
            // From another peer each time, so that none is always the last.
            self.sweep.first = if self.sweep.first + 1 < count { self.sweep.first + 1 } else { 0 };
            self.sweep = Sweep { next: self.sweep.first, left: count, count, ..self.sweep };
        }
    }

    /// The next peer of the sweep that has something to receive and a socket that may take it. Those that are dirty have their turn
    /// already. Looking at a peer and writing to it follow each other, so what the look brought into the cache is still there: with 1,000
    /// peers the kernel's work for one of them puts out what is known of the others.
    fn sweep_next(&mut self) -> Option<u32> {
        while self.sweep.left > 0 {
            let slot = self.sweep.next;
            self.sweep.next = if slot + 1 < self.sweep.count { slot + 1 } else { 0 };
            self.sweep.left -= 1;
            if self.sweep_one(slot) {
                return Some(slot);
            }
        }
        None
    }

    #[inline]
    fn sweep_one(&mut self, slot: u32) -> bool {
        let Some(entry) = self.slots.get(slot) else { return false };
        let claimed = entry.peer.outbox.claimed(&self.logs);
        if claimed == 0 {
            return false;
        }
        if claimed >= self.shared.config.limits.outbox_soft {
            self.sweep_slow(slot);
        }
        self.expire(slot);
        let entry = self.slots.at(slot);
        !entry.dirty && !entry.blocked && !entry.is_ended() && entry.peer.has_output(&self.logs)
    }

    /// Whether every peer was looked at since the last broadcast.
    #[cfg(test)]
    pub(super) fn sweep_is_over(&self) -> bool {
        self.sweep.left == 0 && self.logs.ends().map(|cursor| cursor.position) == self.swept
    }

    /// Whether anything is to be written now.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.sweep.left > 0 || self.logs.ends().map(|cursor| cursor.position) != self.swept
    }

    /// The next peer to write to: then `contiguous` or `gather`, and `advance`. Those that were dirty when the flush began, and the
    /// sweep's; who is not done after that is for the next flush.
    #[inline]
    pub(crate) fn pop_dirty(&mut self) -> Option<u32> {
        if self.sweep.goes_first {
            self.sweep_next().or_else(|| self.pop_listed())
        } else {
            self.pop_listed().or_else(|| self.sweep_next())
        }
    }

    // Always: `pop_dirty` is this and the sweep.
    #[inline(always)]
    fn pop_listed(&mut self) -> Option<u32> {
        while self.flush_left > 0 {
            self.flush_left -= 1;
            let slot = self.dirty.pop_front()?;
            let Some(entry) = self.slots.get_mut(slot) else { continue };
            entry.dirty = false;
            self.expire(slot);
            let entry = self.slots.at(slot);
            if !entry.is_ended() && !entry.blocked && entry.peer.has_output(&self.logs) {
                return Some(slot);
            }
        }
        None
    }

    /// What is to be written, where it is in one piece.
    #[inline]
    pub(crate) fn contiguous(&self, slot: u32) -> Option<&[u8]> {
        self.slots.at(slot).peer.outbox.contiguous(&self.logs)
    }

    /// What is to be written.
    pub(crate) fn gather<'a>(&'a self, slot: u32, out: &mut Slices<'a>) {
        self.slots.at(slot).peer.outbox.gather(&self.logs, &self.quanta, out);
    }

    /// The kernel took so many bytes of what `gather` listed. `full`: it takes no more for now.
    #[inline]
    pub(crate) fn advance(&mut self, slot: u32, taken: usize, full: bool) {
        let entry = self.slots.at_mut(slot);
        let before = entry.peer.outbox.used();
        let advanced = entry.peer.outbox.advance(&self.logs, &mut self.pool, &self.quanta, taken);
        let after = entry.peer.outbox.used();
        entry.used |= advanced.messages > 0;
        self.sends.shrink(before - after, after);
        self.stats.add(Counter::BytesSent, taken as u64);
        self.stats.add(Counter::MessagesSent, advanced.messages);
        if entry.pressed {
            self.relieve(slot, taken);
        }
        self.written(slot, taken, full, true);
    }

    /// The kernel took so many bytes, and no more for now if `full`. Returns whether there is more to write at once, which with `last`
    /// waits for the next flush.
    // Always: it is the end of `advance`, which plaintext goes through for each write.
    #[inline(always)]
    pub(super) fn written(&mut self, slot: u32, taken: usize, full: bool, last: bool) -> bool {
        if self.recorder.is_on() {
            self.record_written(slot, taken);
        }
        if full {
            self.block(slot, taken > 0);
            return false;
        }
        let entry = self.slots.at(slot);
        let more = entry.peer.has_output(&self.logs);
        if !more && (entry.behind || !entry.is_established()) {
            self.emptied(slot);
        } else if more && last {
            self.mark_dirty(slot);
        }
        more && !last
    }

    /// A peer that had something left over from a write, or is being closed, has nothing more.
    #[cold]
    pub(super) fn emptied(&mut self, slot: u32) {
        let entry = self.slots.at_mut(slot);
        entry.behind = false;
        // A full socket that nothing waits for is nobody's fault.
        entry.peer.timers.clear(Timer::WriteStall);
        self.drained_closing(slot);
    }

    /// The socket takes nothing more: wait until it says otherwise, but not for ever.
    fn block(&mut self, slot: u32, progress: bool) {
        let entry = self.slots.at_mut(slot);
        if !entry.blocked {
            entry.blocked = true;
            self.blocked += 1;
            self.record(slot, FlightEvent::Blocked);
        }

        let entry = self.slots.at_mut(slot);
        if !entry.behind {
            entry.behind = true;
            self.slots.cold_mut(slot).arrears().since = Some(self.now);
        }
        let entry = self.slots.at_mut(slot);
        if progress || !entry.peer.timers.is_set(Timer::WriteStall) {
            entry.peer.timers.set(Timer::WriteStall, self.now + self.shared.config.timeouts.write_stall);
            self.rearm(slot);
        }
        self.fit_blocked(slot);
    }

    /// The socket can be written to again.
    pub(crate) fn handle_writable(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        if entry.blocked {
            entry.blocked = false;
            self.blocked -= 1;
            entry.peer.timers.clear(Timer::WriteStall);
            self.record(slot, FlightEvent::Writable);
            self.mark_dirty(slot);
        }
    }

    /// Everything that a closing peer had to send has left.
    pub(super) fn drained_closing(&mut self, slot: u32) {
        match self.slots.at(slot).state {
            State::Draining { tell } => {
                self.slots.at_mut(slot).state = State::Farewell;
                self.queue_goodbye(slot, tell, 0);
            }
            State::Farewell => {
                self.actions.push_back(Action::ShutdownWrite { conn: Conn::Peer(slot) });
                let entry = self.slots.at_mut(slot);
                entry.state = State::HalfClosed;
                entry.peer.timers.set(Timer::Linger, self.now + self.shared.config.timeouts.linger);
                if entry.marks.has(Mark::Eof) {
                    self.end(slot);
                } else {
                    self.rearm(slot);
                }
            }
            State::Established | State::HalfClosed | State::Ended => {}
        }
    }

    /// After a flush: whether peers that take what they are given wait for this core. Then nothing more is taken in until they have it:
    /// what the core has not written yet is not held against them.
    pub(super) fn look_behind(&mut self) {
        if !self.is_dirty() {
            self.published.unwritten = 0;
            self.behind = false;
            return;
        }
        let most = self.append_budget();
        let mut one = false;
        if self.logs.held() + self.published.unwritten > most {
            // What single peers were sent is not counted: whoever sends that much to one is told so by its outbox.
            let mut largest = 0;
            for entry in self.waiting() {
                let (claimed, own) = (entry.peer.outbox.claimed(&self.logs), entry.peer.outbox.used());
                one |= claimed.saturating_sub(own) + own.min(self.published.unwritten) > most;
                largest = largest.max(own);
            }
            self.published.unwritten = self.published.unwritten.min(largest);
        }
        // Nor may they have so much of the core's memory that there is none left for what comes next.
        let most = self.sends.shared() / 2;
        let many = self.published.unwritten > 0 && self.sends.used() > most;
        self.behind = one || (many && self.waiting().map(|entry| entry.peer.outbox.used()).sum::<usize>() > most);
    }

    /// The peers that take what they are given.
    fn waiting(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().map(|(_, entry)| entry).filter(|entry| entry.is_established() && !entry.blocked)
    }

    /// After a flush: gives back the parts of the logs that everybody has.
    pub(super) fn reclaim(&mut self) {
        if self.logs.is_empty() {
            return;
        }
        if self.blocked == 0 && !self.is_dirty() {
            self.logs.release(self.swept);
        } else if self.logs.held() >= self.reclaim_at {
            self.release_read();
            self.enforce_log_bound();
            // Rarer the more there is to look at, but not past the bound.
            let held = self.logs.held();
            let bound = self.shared.config.limits.log_bytes.max(held + RECLAIM_STEP);
            self.reclaim_at = (held + RECLAIM_STEP.max(held / 4)).min(bound);
        }
        if self.logs.is_empty() {
            self.reclaim_at = RECLAIM_STEP;
        }
    }

    /// Looks where the slowest reader of each log is, and releases what is before it.
    fn release_read(&mut self) {
        let mut oldest = self.logs.ends().map(|cursor| cursor.position);
        for (_, entry) in self.slots.iter() {
            for (oldest, needs) in oldest.iter_mut().zip(entry.peer.outbox.oldest(&self.logs)) {
                *oldest = needs.min(*oldest);
            }
        }
        self.logs.release(oldest);
    }

    /// Over the bound, whoever keeps the oldest segment alive lets go of it: with a copy, or with the connection.
    fn enforce_log_bound(&mut self) {
        while self.logs.held() > self.shared.config.limits.log_bytes {
            let holders: Vec<u32> = self.slots.iter().filter(|(_, entry)| self.holds_oldest(entry)).map(|(slot, _)| slot).collect();
            if holders.is_empty() {
                return;
            }
            for slot in holders {
                self.let_go(slot);
            }
            self.release_read();
        }
    }

    fn holds_oldest(&self, entry: &Entry) -> bool {
        let needs = entry.peer.outbox.oldest(&self.logs);
        (0..needs.len()).any(|lane| needs[lane] < self.logs.lane(lane).oldest_end() && needs[lane] < self.logs.lane(lane).end().position)
    }

    fn let_go(&mut self, slot: u32) {
        let outbox = &self.slots.at(slot).peer.outbox;
        let (claimed, private) = (outbox.claimed(&self.logs), outbox.used());
        // Where lanes drop, a peer that is too slow stays: under its soft mark, and with its own memory.
        let most = if self.drops { EVACUATED.max(self.shared.config.limits.outbox_soft) } else { EVACUATED };
        if claimed <= most && self.sends.fits(private, private + claimed) {
            self.with_outbox(slot, |outbox, logs, pool| outbox.evacuate(logs, pool));
            self.stats.count(Counter::LogEvacuations);
        } else if self.slots.at(slot).is_established() {
            self.close(slot, CloseReason::SlowPeer(Slow::LogFull));
        } else {
            self.end(slot);
        }
    }
}
