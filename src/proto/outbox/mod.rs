//! What one peer has still to receive.
//!
//! An outbox has four lanes. Lane 0 carries the engine's control frames; 1 to 3 carry messages ([`Lane`]). In each lane stand
//! *spans*: runs of bytes in one of three places. Broadcasts stand in the core's [`Log`](super::log::Log), small direct sends in the lane's
//! own tail; large ones stay where they are, in the frame that is shared, and so do those with a time to live or a conflation key, which
//! may be dropped or replaced one by one.
//!
//! ```text
//! lane:   | Tail | Log lo..hi | Shared | Tail |   then, implied:  log cursor .. log end
//! ```
//!
//! The last part is not stored: a broadcast touches no outbox at all. Only a direct send into a lane whose log part is not empty
//! writes it down as a span, so that order within the lane holds across both kinds.
//!
//! [`Outbox::gather`] lists the bytes in the order in which they leave, [`Outbox::advance`] takes off what the kernel took, in the same
//! order: that of [`schedule`]. A frame that has begun to leave is finished before another lane is served (`started`).

mod keys;
mod pool;
mod queue;
mod schedule;
mod shedding;
mod slices;
mod span;

pub(crate) use pool::QueuedPool;
use queue::Queued;
pub(crate) use schedule::Quanta;
use schedule::{Plan, Rounds};
pub(crate) use slices::Slices;
pub(crate) use span::TERMS_CHARGE;
use span::{SPAN_CHARGE, Shared, Span};

use super::log::{Cursor, Logs};
use crate::time::Timestamp;
use crate::wire::{Draft, Frame, HEADER_LEN, Header, Kind, Lane, MAX_FRAME_PAYLOAD, append_message};

/// Lanes of an outbox: control and the message lanes.
const LANES: usize = 1 + Lane::ALL.len();
/// The control lane's index.
const CONTROL: usize = 0;
/// Direct sends of at least so many wire bytes stay in their shared frame instead of being copied into the tail.
const BY_REFERENCE: usize = 4 * 1024;
/// Most that one push is charged for spans: its own, and the part of the log before it. A frame with terms is charged more: `TERMS_CHARGE`.
pub(crate) const SPANS_CHARGE: usize = 2 * SPAN_CHARGE;
/// Most memory that an outbox may have beyond twice what it uses and what the pool keeps.
pub(crate) const OUTBOX_SPARE: usize = size_of::<Queued>() + LANES * (queue::SPARE_TAIL + queue::SPARE_SPANS * SPAN_CHARGE);

/// What one peer has still to receive.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// For each message lane, up to where the log is accounted for in spans or was sent.
    cursors: [Cursor; Lane::ALL.len()],
    /// Spans that are written down. Most peers have none most of the time, so they borrow this from the core's pool.
    queued: Option<Box<Queued>>,
    /// A frame of `started.lane` has begun to leave and has `started.left` bytes to go. Zero: between frames.
    started: Started,
    /// Which message lane may send how much before the others have their turn.
    rounds: Rounds,
}

#[derive(Clone, Copy, Debug, Default)]
struct Started {
    left: u16,
    lane: u8,
}

const _: () = assert!(HEADER_LEN + MAX_FRAME_PAYLOAD <= u16::MAX as usize);

/// What the kernel's taking of some bytes meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advanced {
    /// Messages that have left whole.
    pub(crate) messages: u64,
    /// Private bytes that were among what left.
    #[cfg(test)]
    pub(crate) freed: usize,
}

impl Outbox {
    /// An empty outbox that will receive the broadcasts from here on.
    pub(crate) fn new(logs: &Logs) -> Self {
        Self { cursors: logs.ends(), queued: None, started: Started::default(), rounds: Rounds::default() }
    }

    /// Bytes that the peer has still to receive, and the charges for keeping track of them.
    #[inline]
    pub(crate) fn claimed(&self, logs: &Logs) -> usize {
        self.behind(logs) + self.queued.as_ref().map_or(0, |queued| queued.claimed)
    }

    /// Bytes of the logs that are implied.
    #[inline]
    fn behind(&self, logs: &Logs) -> usize {
        (0..self.cursors.len()).map(|lane| self.lane_behind(lane, logs)).sum()
    }

    #[inline]
    fn lane_behind(&self, log: usize, logs: &Logs) -> usize {
        logs.lane(log).end().position.saturating_sub(self.cursors[log].position) as usize
    }

    #[inline]
    pub(crate) fn is_empty(&self, logs: &Logs) -> bool {
        self.queued.is_none() && self.behind(logs) == 0
    }

    /// Bytes that only this peer keeps in memory.
    #[cfg(test)]
    pub(crate) fn private(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.private())
    }

    /// What the outbox uses of the core's budget: the private bytes; the charges for all spans, which are memory of its own too; and what
    /// has left its tails since [`Outbox::fit`] or since it was empty, for the memory of that is still there.
    #[inline]
    pub(crate) fn used(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.used)
    }

    /// Bytes of memory, without what it had when the pool lent it.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.memory().saturating_sub(queued.lent))
    }

    /// Whether a pong is waiting, whole. Looks at each control frame that waits: few, and rarely asked.
    pub(crate) fn has_pong(&self) -> bool {
        let Some(queued) = &self.queued else { return false };
        let begun = if self.started.lane as usize == CONTROL { self.started.left as usize } else { 0 };
        let control = &queued.lanes[CONTROL];
        let mut frames = &control.tail[control.head + begun..];
        while let Some(head) = frames.first_chunk() {
            let header = Header::decode(*head).expect("this side encoded the header");
            if header.kind == Kind::Pong {
                return true;
            }
            frames = &frames[HEADER_LEN + header.len as usize..];
        }
        false
    }

    /// Bytes of control frames that are waiting.
    pub(crate) fn control_bytes(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.lanes[CONTROL].bytes)
    }

    /// Whether a control frame is waiting.
    #[cfg(test)]
    pub(crate) fn has_control(&self) -> bool {
        self.queued.as_ref().is_some_and(|queued| queued.lanes[CONTROL].bytes > 0)
    }

    /// Whether a frame has begun to leave and not ended.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.started.left > 0
    }

    /// Appends a message, copied into the lane's tail. Returns the bytes that this took.
    #[inline]
    pub(crate) fn push_message(&mut self, logs: &Logs, pool: &mut QueuedPool, draft: Draft<'_>, cut: usize) -> usize {
        let (queued, lane) = self.open_lane(logs, pool, draft.meta.lane);
        let queue = &mut queued.lanes[lane];
        let before = queue.tail.len();
        append_message(&mut queue.tail, draft, cut);
        let len = queue.tail.len() - before;
        queued.extend_tail(lane, len, 1);
        len
    }

    /// Appends an encoded message: by reference where it is large, or has terms. Returns the bytes that this took.
    pub(crate) fn push_frame(&mut self, logs: &Logs, pool: &mut QueuedPool, frame: &Frame, now: Timestamp) -> usize {
        let (queued, lane) = self.open_lane(logs, pool, frame.lane());
        let bytes = frame.as_bytes();
        if bytes.len() >= BY_REFERENCE || frame.has_terms() {
            queued.push_shared(lane, Shared::new(frame, now));
        } else {
            queued.lanes[lane].tail.extend_from_slice(bytes);
            queued.extend_tail(lane, bytes.len(), 1);
        }
        bytes.len()
    }

    /// Appends a control frame. Returns the bytes that this took.
    pub(crate) fn push_control(&mut self, pool: &mut QueuedPool, frame: &[u8]) -> usize {
        let queued = self.queued.get_or_insert_with(|| pool.take());
        queued.lanes[CONTROL].tail.extend_from_slice(frame);
        queued.extend_tail(CONTROL, frame.len(), 0);
        frame.len()
    }

    /// The queue of a message lane, with everything that was broadcast so far before it.
    #[inline]
    fn open_lane(&mut self, logs: &Logs, pool: &mut QueuedPool, lane: Lane) -> (&mut Queued, usize) {
        self.settle(logs, pool, lane.index());
        (self.queued.get_or_insert_with(|| pool.take()), lane.index() + 1)
    }

    /// Writes the implied log part of a lane down as a span.
    fn settle(&mut self, logs: &Logs, pool: &mut QueuedPool, log: usize) {
        if self.lane_behind(log, logs) > 0 {
            let (lo, hi) = (self.cursors[log], logs.lane(log).end());
            self.queued.get_or_insert_with(|| pool.take()).push_span(log + 1, Span::Log { lo, hi });
            self.cursors[log] = hi;
        }
    }

    /// Leaves out what is about to be appended to the log of `lane`: call before appending, and [`Outbox::skip_to_end`] after.
    pub(crate) fn settle_lane(&mut self, logs: &Logs, pool: &mut QueuedPool, lane: Lane) {
        self.settle(logs, pool, lane.index());
    }

    /// See [`Outbox::settle_lane`].
    pub(crate) fn skip_to_end(&mut self, logs: &Logs, lane: Lane) {
        let cursor = &mut self.cursors[lane.index()];
        if *cursor != Cursor::DETACHED {
            *cursor = logs.lane(lane.index()).end();
        }
    }

    /// Takes no part in later broadcasts; what was broadcast before still leaves.
    pub(crate) fn detach(&mut self, logs: &Logs, pool: &mut QueuedPool) {
        for log in 0..self.cursors.len() {
            self.settle(logs, pool, log);
            self.cursors[log] = Cursor::DETACHED;
        }
    }

    /// Where in each log this outbox has its oldest byte, or would have its next.
    pub(crate) fn oldest(&self, logs: &Logs) -> [u64; Lane::ALL.len()] {
        std::array::from_fn(|log| {
            let written_down = self.queued.as_ref().and_then(|queued| queued.lanes[log + 1].oldest());
            written_down.unwrap_or_else(|| self.cursors[log].position.min(logs.lane(log).end().position))
        })
    }

    /// Copies what this outbox needs of the logs into its own memory, so that it keeps no segment alive.
    pub(crate) fn evacuate(&mut self, logs: &Logs, pool: &mut QueuedPool) {
        for log in 0..self.cursors.len() {
            self.settle(logs, pool, log);
            if let Some(queued) = &mut self.queued {
                queued.evacuate(log + 1, logs);
            }
        }
    }

    /// Everything that is waiting, where it is one run of bytes: the common case, which needs no list of slices.
    #[inline]
    pub(crate) fn contiguous<'a>(&'a self, logs: &'a Logs) -> Option<&'a [u8]> {
        let mut behind = (0..self.cursors.len()).filter(|&log| self.lane_behind(log, logs) > 0);
        match (&self.queued, behind.next()) {
            (None, Some(log)) if behind.next().is_none() => {
                let (lo, hi) = (self.cursors[log].position, logs.lane(log).end().position);
                let slice = logs.lane(log).first_slice(lo, hi);
                (slice.len() as u64 == hi - lo).then_some(slice)
            }
            (Some(queued), None) => queued.only_tail(),
            _ => None,
        }
    }

    /// Lists what leaves next, in order.
    pub(crate) fn gather<'a>(&'a self, logs: &'a Logs, quanta: &Quanta, out: &mut Slices<'a>) {
        let mut plan = Plan::new(self, logs, quanta, self.waiting(logs));
        let mut listed = [0; LANES];
        let mut next = plan.next();
        while let Some(mut run) = next {
            plan.take(run.lane, run.bytes);
            next = None;
            // Runs of one lane that follow each other are one.
            while run.bytes < out.room() {
                next = plan.next();
                let Some(more) = next.filter(|next| next.lane == run.lane) else { break };
                plan.take(more.lane, more.bytes);
                run.bytes += more.bytes;
            }
            self.gather_lane(run.lane, logs, listed[run.lane], run.bytes, out);
            if out.is_full() {
                return;
            }
            listed[run.lane] += run.bytes;
        }
    }

    /// How many message lanes have something to send.
    pub(crate) fn backlogged(&self, logs: &Logs) -> usize {
        self.waiting(logs)[CONTROL + 1..].iter().filter(|&&bytes| bytes > 0).count()
    }

    /// Bytes of each lane.
    pub(crate) fn waiting(&self, logs: &Logs) -> [usize; LANES] {
        let mut waiting = self.queued.as_ref().map_or([0; LANES], |queued| queued.lanes.each_ref().map(|queue| queue.bytes));
        for (log, waiting) in waiting[CONTROL + 1..].iter_mut().enumerate() {
            *waiting += self.lane_behind(log, logs);
        }
        waiting
    }

    fn gather_lane<'a>(&'a self, lane: usize, logs: &'a Logs, mut skip: usize, mut limit: usize, out: &mut Slices<'a>) {
        let mut put = |bytes: &'a [u8]| {
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            let taken = limit.min(bytes.len() - skipped);
            limit -= taken;
            out.push(&bytes[skipped..skipped + taken]);
            limit > 0 && !out.is_full()
        };
        if let Some(queued) = &self.queued
            && !queued.lanes[lane].each_slice(lane, logs, &mut put)
        {
            return;
        }
        if lane != CONTROL {
            let (lo, hi) = (self.cursors[lane - 1].position, logs.lane(lane - 1).end().position);
            let _all = logs.lane(lane - 1).slices(lo, hi).all(put);
        }
    }

    /// Takes off `taken` bytes, in the order of [`Outbox::gather`]: nothing may have been pushed or dropped in between.
    pub(crate) fn advance(&mut self, logs: &Logs, pool: &mut QueuedPool, quanta: &Quanta, taken: usize) -> Advanced {
        let waiting = self.waiting(logs);
        if taken == waiting.iter().sum::<usize>() { self.take_all(logs, pool) } else { self.take_some(logs, pool, quanta, waiting, taken) }
    }

    /// The common case: nothing stays.
    #[inline]
    fn take_all(&mut self, logs: &Logs, pool: &mut QueuedPool) -> Advanced {
        let mut advanced = Advanced::default();
        for log in 0..self.cursors.len() {
            if self.lane_behind(log, logs) > 0 {
                let end = logs.lane(log).end();
                advanced.messages += end.sequence - self.cursors[log].sequence;
                self.cursors[log] = end;
            }
        }
        (self.started, self.rounds) = (Started::default(), Rounds::default());
        if let Some(mut queued) = self.queued.take() {
            #[cfg(test)]
            {
                advanced.freed = queued.private();
            }
            advanced.messages += queued.clear();
            pool.give_back(queued);
        }
        advanced
    }

    fn take_some(&mut self, logs: &Logs, pool: &mut QueuedPool, quanta: &Quanta, waiting: [usize; LANES], mut taken: usize) -> Advanced {
        let mut advanced = Advanced::default();
        let mut plan = Plan::new(self, logs, quanta, waiting);
        let mut parts = [0; LANES];
        let mut last = CONTROL;
        while taken > 0 {
            let run = plan.next().expect("the kernel took more than was gathered");
            let part = taken.min(run.bytes);
            plan.take(run.lane, part);
            parts[run.lane] += part;
            taken -= part;
            last = run.lane;
        }
        self.rounds = plan.rounds();
        let before = self.started;
        for (lane, &part) in parts.iter().enumerate().filter(|&(_, &part)| part > 0) {
            let begun = if before.lane as usize == lane { before.left.into() } else { 0 };
            let left = self.take_off(lane, logs, part, begun, &mut advanced);
            if lane == last {
                self.started = Started { left: left as u16, lane: lane as u8 };
            }
        }
        self.release_queued(pool);
        advanced
    }

    /// Takes `taken` bytes off one lane. `begun` bytes at its front finish a frame. Returns what is left of the frame in which that ends.
    fn take_off(&mut self, lane: usize, logs: &Logs, mut taken: usize, mut begun: u32, advanced: &mut Advanced) -> u32 {
        if let Some(queued) = &mut self.queued {
            let written_down = taken.min(queued.lanes[lane].bytes);
            begun = queued.take_off(lane, logs, written_down, begun, advanced);
            taken -= written_down;
        }
        if taken > 0 {
            let cursor = &mut self.cursors[lane - 1];
            let sent = cursor.sequence;
            (*cursor, begun) = logs.lane(lane - 1).place(cursor.position + taken as u64);
            advanced.messages += cursor.sequence - sent;
        }
        begun
    }

    /// After something was dropped.
    fn settle_dropped(&mut self, logs: &Logs, pool: &mut QueuedPool) {
        self.release_queued(pool);
        self.fit(pool);
        if self.is_empty(logs) {
            self.rounds = Rounds::default();
        }
    }

    fn release_queued(&mut self, pool: &mut QueuedPool) {
        if self.queued.as_ref().is_some_and(|queued| queued.is_empty())
            && let Some(queued) = self.queued.take()
        {
            pool.give_back(queued);
        }
    }

    /// Fits the memory to what is in it: the peer takes nothing for now, and what a box had room for may have been much more.
    pub(crate) fn fit(&mut self, pool: &mut QueuedPool) {
        if let Some(queued) = &mut self.queued {
            queued.fit();
            pool.forget(&mut queued.lent);
        }
    }

    /// Drops everything that is waiting, and takes no part in later broadcasts. Returns the messages that did not leave whole, and the
    /// private bytes that were given back.
    pub(crate) fn clear(&mut self, logs: &Logs, pool: &mut QueuedPool) -> Advanced {
        self.detach(logs, pool);
        (self.started, self.rounds) = (Started::default(), Rounds::default());
        let mut dropped = Advanced::default();
        if let Some(mut queued) = self.queued.take() {
            #[cfg(test)]
            {
                dropped.freed = queued.private();
            }
            dropped.messages = queued.clear();
            pool.give_back(queued);
        }
        dropped
    }

    /// What the types cannot say. For tests and the simulator.
    #[cfg(test)]
    pub(crate) fn assert_invariants(&self, logs: &Logs) {
        for (log, cursor) in self.cursors.iter().enumerate() {
            let end = logs.lane(log).end();
            assert!(*cursor == Cursor::DETACHED || (cursor.position <= end.position && cursor.sequence <= end.sequence));
        }
        if let Some(queued) = &self.queued {
            queued.assert_invariants();
        }
        assert!(self.started.left == 0 || self.waiting(logs)[self.started.lane as usize] >= self.started.left as usize);
    }
}

#[cfg(test)]
mod tests;
