//! What one peer has still to receive.
//!
//! An outbox has four lanes. Lane 0 carries the engine's control frames; 1 to 3 carry messages ([`Lane`]). In each lane stand
//! *spans*: runs of bytes in one of three places. Broadcasts stand in the core's [`Log`](super::log::Log), small direct sends in the lane's
//! own tail, large ones in their shared frame.
//!
//! ```text
//! lane:   | Tail | Log lo..hi | Shared | Tail |   then, implied:  log cursor .. log end
//! ```
//!
//! The last part is not stored: a broadcast touches no outbox at all. Only a direct send into a lane whose log part is not empty
//! writes it down as a span, so that order within the lane holds across both kinds.
//!
//! [`Outbox::gather`] lists the bytes in the order in which they leave, [`Outbox::advance`] takes off what the kernel took, in the same
//! order. A frame that has begun to leave is finished before another lane is served (`started`).

use std::collections::VecDeque;
use std::io::IoSlice;

use super::log::{Cursor, Logs, walk};
use crate::wire::{Draft, Frame, HEADER_LEN, Header, Kind, Lane, append_message};

/// Lanes of an outbox: control and the message lanes.
const LANES: usize = 1 + Lane::ALL.len();
/// The control lane's index.
const CONTROL: usize = 0;
/// Slices of one vectored write. The kernel copies up to 8 without allocating and allows 1,024; 64 covers a burst of large frames.
pub(crate) const MAX_SLICES: usize = 64;
/// Direct sends of at least so many wire bytes stay in their shared frame instead of being copied into the tail.
const BY_REFERENCE: usize = 4 * 1024;
/// What a stored span is charged, in claimed bytes, besides the bytes it stands for: many tiny sends must not grow past the bound.
const SPAN_CHARGE: usize = size_of::<Span>();
/// Most that one push is charged for spans: its own, and the part of the log before it.
pub(crate) const SPANS_CHARGE: usize = 2 * SPAN_CHARGE;
/// A tail that grew beyond this is not kept for the next peer. As much as a peer is written to in one turn.
const KEPT_TAIL: usize = 256 * 1024;
/// Bytes at the front of a tail that have been sent before it is worth moving the rest.
const TRIMMED: usize = 64 * 1024;
/// A queue of spans with more room than this is not kept for the next peer.
const KEPT_SPANS: usize = 1024;
/// Room that a peer's tail and queue of spans may have beyond twice what is in them, for each lane.
const SPARE_TAIL: usize = 4 * 1024;
const SPARE_SPANS: usize = 16;
/// Most memory that an outbox may have beyond twice its private bytes and what the pool keeps.
pub(crate) const OUTBOX_SPARE: usize = size_of::<Queued>() + LANES * (SPARE_TAIL + SPARE_SPANS * SPAN_CHARGE);

/// What one peer has still to receive.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// For each message lane, up to where the log is accounted for in spans or was sent.
    cursors: [Cursor; Lane::ALL.len()],
    /// Spans that are written down. Most peers have none most of the time, so they borrow this from the core's pool.
    queued: Option<Box<Queued>>,
    /// A frame of `started.lane` has begun to leave and has `started.left` bytes to go. Zero: between frames.
    started: Started,
}

#[derive(Clone, Copy, Debug, Default)]
struct Started {
    left: u32,
    lane: u8,
}

/// The spans of one peer, and their memory.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    lanes: [Queue; LANES],
    /// Bytes of all spans, and their charges.
    claimed: usize,
    /// What only this peer keeps in memory: of these bytes all but the logs', and the charges.
    private: usize,
    /// Memory that it had when the pool lent it, until that is fitted to what is in it.
    lent: usize,
}

#[derive(Debug, Default)]
struct Queue {
    spans: VecDeque<Span>,
    /// Bytes of the spans.
    bytes: usize,
    /// The bytes of the `Tail` spans, in order, from `head` on.
    tail: Vec<u8>,
    head: usize,
}

#[derive(Debug)]
enum Span {
    Log { lo: Cursor, hi: Cursor },
    Tail { len: usize, messages: u32 },
    Shared { frame: Frame, sent: usize },
}

/// What the kernel's taking of some bytes meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advanced {
    /// Messages that have left whole.
    pub(crate) messages: u64,
    /// Private bytes that were given back.
    pub(crate) freed: usize,
}

/// Boxes for peers that have something queued, shared by the peers of a core.
///
/// Last in, first out: in an echo the box that a reply is written into is the one that has just been emptied, and is in the cache.
#[derive(Debug)]
pub(crate) struct QueuedPool {
    #[expect(clippy::vec_box, reason = "a peer takes the box itself, not its contents")]
    free: Vec<Box<Queued>>,
    /// Bytes of memory of the free ones, and of those that were lent and have still the room that they had then: so what peers have beyond
    /// what they were sent is bounded, whoever has it.
    kept: usize,
    /// Most that is kept. When more peers than this is enough for have something queued at once, some of them allocate.
    most_kept: usize,
}

impl QueuedPool {
    /// Keeps up to so many bytes.
    pub(crate) fn new(most_kept: usize) -> Self {
        Self { free: Vec::new(), kept: 0, most_kept }
    }

    fn take(&mut self) -> Box<Queued> {
        let Some(mut queued) = self.free.pop() else { return Box::default() };
        queued.lent = queued.footprint();
        queued
    }

    /// Bytes of memory that are kept, or were lent and not fitted.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    fn give_back(&mut self, mut queued: Box<Queued>) {
        debug_assert!(queued.is_empty());
        self.kept -= std::mem::take(&mut queued.lent);
        queued.shrink();
        let footprint = queued.footprint();
        if self.kept + footprint <= self.most_kept {
            self.kept += footprint;
            self.free.push(queued);
        }
    }
}

/// A bounded list of slices for one vectored write.
pub(crate) struct Slices<'a> {
    slices: [IoSlice<'a>; MAX_SLICES],
    len: usize,
    bytes: usize,
    budget: usize,
}

impl<'a> Slices<'a> {
    pub(crate) fn new(budget: usize) -> Self {
        Self { slices: [IoSlice::new(&[]); MAX_SLICES], len: 0, bytes: 0, budget }
    }

    pub(crate) fn as_slice(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.len]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_full(&self) -> bool {
        self.len == MAX_SLICES || self.bytes == self.budget
    }

    fn push(&mut self, bytes: &'a [u8]) {
        if bytes.is_empty() || self.is_full() {
            return;
        }
        let bytes = &bytes[..bytes.len().min(self.budget - self.bytes)];
        self.slices[self.len] = IoSlice::new(bytes);
        self.len += 1;
        self.bytes += bytes.len();
    }
}

impl Outbox {
    /// An empty outbox that will receive the broadcasts from here on.
    pub(crate) fn new(logs: &Logs) -> Self {
        Self { cursors: logs.ends(), queued: None, started: Started::default() }
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

    /// Bytes that only this peer keeps in memory, the spans themselves included.
    #[inline]
    pub(crate) fn private(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.private)
    }

    /// Bytes of memory, without what it had when the pool lent it.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let Some(queued) = &self.queued else { return 0 };
        let spans = queued.lanes.iter().flat_map(|queue| &queue.spans);
        let shared: usize = spans.map(|span| if matches!(span, Span::Shared { .. }) { span.len() } else { 0 }).sum();
        (queued.footprint() + shared).saturating_sub(queued.lent)
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

    /// Whether a control frame is waiting.
    #[cfg(test)]
    pub(crate) fn has_control(&self) -> bool {
        self.queued.as_ref().is_some_and(|queued| queued.lanes[CONTROL].bytes > 0)
    }

    /// Whether a frame has begun to leave and not ended.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.started.left > 0
    }

    /// Appends a message, copied into the lane's tail. Returns the private bytes that this took.
    #[inline]
    pub(crate) fn push_message(&mut self, logs: &Logs, pool: &mut QueuedPool, draft: Draft<'_>, cut: usize) -> usize {
        let (queued, lane, settled) = self.open_lane(logs, pool, draft.meta.lane);
        let queue = &mut queued.lanes[lane];
        let before = queue.tail.len();
        append_message(&mut queue.tail, draft, cut);
        let len = queue.tail.len() - before;
        settled + queued.extend_tail(lane, len, 1)
    }

    /// Appends an encoded message: by reference where it is large. Returns the private bytes that this took.
    pub(crate) fn push_frame(&mut self, logs: &Logs, pool: &mut QueuedPool, frame: &Frame) -> usize {
        let (queued, lane, settled) = self.open_lane(logs, pool, frame.lane());
        let bytes = frame.as_bytes();
        if bytes.len() >= BY_REFERENCE {
            queued.push_span(lane, Span::Shared { frame: frame.clone(), sent: 0 });
            settled + SPAN_CHARGE + bytes.len()
        } else {
            queued.lanes[lane].tail.extend_from_slice(bytes);
            settled + queued.extend_tail(lane, bytes.len(), 1)
        }
    }

    /// Appends a control frame. Returns the private bytes that this took.
    pub(crate) fn push_control(&mut self, pool: &mut QueuedPool, frame: &[u8]) -> usize {
        let queued = self.queued.get_or_insert_with(|| pool.take());
        queued.lanes[CONTROL].tail.extend_from_slice(frame);
        queued.extend_tail(CONTROL, frame.len(), 0)
    }

    /// The queue of a message lane, with everything that was broadcast so far before it, and the private bytes that this took.
    #[inline]
    fn open_lane(&mut self, logs: &Logs, pool: &mut QueuedPool, lane: Lane) -> (&mut Queued, usize, usize) {
        let settled = self.settle(logs, pool, lane.index());
        (self.queued.get_or_insert_with(|| pool.take()), lane.index() + 1, settled)
    }

    /// Writes the implied log part of a lane down as a span. Returns the private bytes that this took.
    #[inline]
    fn settle(&mut self, logs: &Logs, pool: &mut QueuedPool, log: usize) -> usize {
        if self.lane_behind(log, logs) == 0 { 0 } else { self.settle_part(logs, pool, log) }
    }

    #[inline(never)]
    fn settle_part(&mut self, logs: &Logs, pool: &mut QueuedPool, log: usize) -> usize {
        let (lo, hi) = (self.cursors[log], logs.lane(log).end());
        self.queued.get_or_insert_with(|| pool.take()).push_span(log + 1, Span::Log { lo, hi });
        self.cursors[log] = hi;
        SPAN_CHARGE
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
    pub(crate) fn gather<'a>(&'a self, logs: &'a Logs, out: &mut Slices<'a>) {
        let split = self.split(logs);
        if split.left > 0 {
            self.gather_lane(split.lane as usize, logs, 0, split.left as usize, out);
        }
        for lane in 0..LANES {
            let skip = if lane == split.lane as usize { split.left as usize } else { 0 };
            self.gather_lane(lane, logs, skip, usize::MAX, out);
            if out.is_full() {
                return;
            }
        }
    }

    /// The frame that has to be finished first because a more urgent lane has something too. Where none has, order is as it is.
    fn split(&self, logs: &Logs) -> Started {
        let urgent = self.started.left > 0 && (0..self.started.lane as usize).any(|lane| self.lane_bytes(lane, logs) > 0);
        if urgent { self.started } else { Started::default() }
    }

    fn lane_bytes(&self, lane: usize, logs: &Logs) -> usize {
        let behind = if lane == CONTROL { 0 } else { self.lane_behind(lane - 1, logs) };
        behind + self.queued.as_ref().map_or(0, |queued| queued.lanes[lane].bytes)
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

    /// Takes off `taken` bytes, in the order of [`Outbox::gather`].
    pub(crate) fn advance(&mut self, logs: &Logs, pool: &mut QueuedPool, mut taken: usize) -> Advanced {
        let mut advanced = Advanced::default();
        let split = self.split(logs);
        if split.left > 0 {
            let first = taken.min(split.left as usize);
            self.take_off(split.lane as usize, logs, first, &mut advanced);
            taken -= first;
        }
        let mut lane = CONTROL;
        while taken > 0 {
            assert!(lane < LANES, "the kernel took more than was gathered");
            let part = taken.min(self.lane_bytes(lane, logs));
            if part > 0 {
                self.take_off(lane, logs, part, &mut advanced);
            }
            taken -= part;
            lane += 1;
        }
        self.release_queued(pool);
        advanced
    }

    /// Takes `taken` bytes off one lane and notes whether that ends inside a frame.
    fn take_off(&mut self, lane: usize, logs: &Logs, mut taken: usize, advanced: &mut Advanced) {
        let mut left = if self.started.lane as usize == lane { self.started.left } else { 0 };
        if let Some(queued) = &mut self.queued {
            let written_down = taken.min(queued.lanes[lane].bytes);
            left = queued.take_off(lane, logs, written_down, left, advanced);
            taken -= written_down;
        }
        if taken > 0 {
            let cursor = &mut self.cursors[lane - 1];
            let sent = cursor.sequence;
            (*cursor, left) = logs.lane(lane - 1).place(cursor.position + taken as u64);
            advanced.messages += cursor.sequence - sent;
        }
        self.started = Started { left, lane: lane as u8 };
    }

    fn release_queued(&mut self, pool: &mut QueuedPool) {
        if self.queued.as_ref().is_some_and(|queued| !queued.is_empty()) {
            self.fit(pool);
        } else if let Some(queued) = self.queued.take() {
            pool.give_back(queued);
        }
    }

    /// Fits the memory to what is in it: the peer takes nothing for now, and what a box had room for may have been much more.
    pub(crate) fn fit(&mut self, pool: &mut QueuedPool) {
        if let Some(queued) = &mut self.queued {
            queued.lanes.iter_mut().for_each(Queue::fit);
            pool.kept -= std::mem::take(&mut queued.lent);
        }
    }

    /// Drops everything that is waiting, and takes no part in later broadcasts. Returns the messages that did not leave whole, and the
    /// private bytes that were given back.
    pub(crate) fn clear(&mut self, logs: &Logs, pool: &mut QueuedPool) -> Advanced {
        self.detach(logs, pool);
        self.started = Started::default();
        let mut dropped = Advanced::default();
        if let Some(mut queued) = self.queued.take() {
            dropped = Advanced { messages: queued.messages(), freed: queued.private };
            queued.clear();
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
        assert!(self.started.left == 0 || self.lane_bytes(self.started.lane as usize, logs) >= self.started.left as usize);
    }
}

impl Queued {
    fn is_empty(&self) -> bool {
        self.lanes.iter().all(|queue| queue.spans.is_empty())
    }

    fn only_tail(&self) -> Option<&[u8]> {
        let mut used = self.lanes.iter().filter(|queue| !queue.spans.is_empty());
        let queue = used.next()?;
        match queue.spans.back() {
            Some(Span::Tail { .. }) if queue.spans.len() == 1 && used.next().is_none() => Some(&queue.tail[queue.head..]),
            _ => None,
        }
    }

    fn push_span(&mut self, lane: usize, span: Span) {
        let len = span.len();
        self.lanes[lane].bytes += len;
        self.lanes[lane].spans.push_back(span);
        self.claimed += len + SPAN_CHARGE;
        self.private += SPAN_CHARGE;
        if matches!(self.lanes[lane].spans.back(), Some(Span::Shared { .. })) {
            self.private += len;
        }
    }

    /// Accounts for `len` bytes that were just appended to the tail of a lane. Returns the private bytes that this took.
    #[inline]
    fn extend_tail(&mut self, lane: usize, len: usize, messages: u32) -> usize {
        let queue = &mut self.lanes[lane];
        if queue.head > 0 {
            // It grows by doubling, and what was sent must not be doubled too.
            queue.fit();
        }
        queue.bytes += len;
        self.private += len;
        self.claimed += len;
        if let Some(Span::Tail { len: run, messages: count }) = queue.spans.back_mut() {
            *run += len;
            *count += messages;
            len
        } else {
            queue.spans.push_back(Span::Tail { len, messages });
            self.claimed += SPAN_CHARGE;
            self.private += SPAN_CHARGE;
            len + SPAN_CHARGE
        }
    }

    /// Takes `taken` bytes, all of them in spans, off a lane. `begun` bytes at its front finish a frame. Returns what is left of the frame
    /// in which that ends.
    fn take_off(&mut self, lane: usize, logs: &Logs, mut taken: usize, mut begun: u32, advanced: &mut Advanced) -> u32 {
        let queue = &mut self.lanes[lane];
        queue.bytes -= taken;
        while taken > 0 {
            let front = queue.spans.front_mut().expect("the bytes of a lane are the bytes of its spans");
            let len = front.len();
            let part = taken.min(len);
            self.claimed -= part;
            if front.is_private() {
                self.private -= part;
                advanced.freed += part;
            }
            let of_tail = if matches!(front, Span::Tail { .. }) { part } else { 0 };
            if part == len {
                // Where a span ends, a frame ends.
                advanced.messages += front.messages();
                begun = 0;
                queue.spans.pop_front();
                self.claimed -= SPAN_CHARGE;
                self.private -= SPAN_CHARGE;
                advanced.freed += SPAN_CHARGE;
            } else {
                let messages;
                (messages, begun) = front.take_off(lane, logs, &queue.tail[queue.head..], part, begun);
                advanced.messages += messages;
            }
            queue.head += of_tail;
            taken -= part;
        }
        queue.trim();
        begun
    }

    fn evacuate(&mut self, lane: usize, logs: &Logs) {
        let queue = &mut self.lanes[lane];
        if !queue.spans.iter().any(|span| matches!(span, Span::Log { .. })) {
            return;
        }
        // Everything is written out again in order; a span by reference stays one.
        let spans = std::mem::take(&mut queue.spans);
        let old = std::mem::take(&mut queue.tail);
        let mut head = std::mem::take(&mut queue.head);
        self.claimed -= queue.bytes + spans.len() * SPAN_CHARGE;
        self.private -= spans.iter().map(Span::private).sum::<usize>();
        queue.bytes = 0;
        for span in spans {
            match span {
                Span::Log { lo, hi } => {
                    for slice in logs.lane(lane - 1).slices(lo.position, hi.position) {
                        self.lanes[lane].tail.extend_from_slice(slice);
                    }
                    self.extend_tail(lane, (hi.position - lo.position) as usize, (hi.sequence - lo.sequence) as u32);
                }
                Span::Tail { len, messages } => {
                    self.lanes[lane].tail.extend_from_slice(&old[head..head + len]);
                    head += len;
                    self.extend_tail(lane, len, messages);
                }
                Span::Shared { .. } => self.push_span(lane, span),
            }
        }
    }

    fn messages(&self) -> u64 {
        self.lanes.iter().flat_map(|queue| &queue.spans).map(Span::messages).sum()
    }

    fn clear(&mut self) {
        for queue in &mut self.lanes {
            queue.spans.clear();
            queue.tail.clear();
            queue.head = 0;
            queue.bytes = 0;
        }
        self.claimed = 0;
        self.private = 0;
    }

    /// Bytes of memory, of a box without spans.
    fn footprint(&self) -> usize {
        let queues = self.lanes.iter().map(|queue| queue.tail.capacity() + queue.spans.capacity() * SPAN_CHARGE);
        size_of::<Self>() + queues.sum::<usize>()
    }

    fn shrink(&mut self) {
        for queue in &mut self.lanes {
            if queue.tail.capacity() > KEPT_TAIL {
                queue.tail = Vec::new();
            }
            if queue.spans.capacity() > KEPT_SPANS {
                queue.spans = VecDeque::new();
            }
        }
    }

    #[cfg(test)]
    fn assert_invariants(&self) {
        let spans = || self.lanes.iter().flat_map(|queue| &queue.spans);
        assert!(!self.is_empty(), "an empty box belongs in the pool");
        assert_eq!(self.claimed, spans().map(|span| span.len() + SPAN_CHARGE).sum::<usize>());
        assert_eq!(self.private, spans().map(Span::private).sum::<usize>());
        let by_reference = |span: &Span| if matches!(span, Span::Shared { .. }) { span.len() } else { 0 };
        let most = 2 * self.private + OUTBOX_SPARE + self.lent;
        let memory = self.footprint() + spans().map(by_reference).sum::<usize>();
        assert!(memory <= most, "{memory} bytes of memory for {} private ones, and {most} may be", self.private);
        for queue in &self.lanes {
            assert_eq!(queue.bytes, queue.spans.iter().map(Span::len).sum::<usize>());
            let tails = queue.spans.iter().filter(|span| matches!(span, Span::Tail { .. })).map(Span::len).sum::<usize>();
            assert_eq!(queue.tail.len() - queue.head, tails);
            assert!(queue.spans.iter().all(|span| span.len() > 0));
        }
    }
}

impl Queue {
    /// Each span's bytes in order, until `put` says that it has enough; says whether it never did.
    fn each_slice<'a>(&'a self, lane: usize, logs: &'a Logs, put: &mut impl FnMut(&'a [u8]) -> bool) -> bool {
        let mut tail = self.head;
        self.spans.iter().all(|span| match span {
            Span::Log { lo, hi } => logs.lane(lane - 1).slices(lo.position, hi.position).all(&mut *put),
            Span::Tail { len, .. } => {
                tail += len;
                put(&self.tail[tail - len..tail])
            }
            Span::Shared { frame, sent } => put(&frame.as_bytes()[*sent..]),
        })
    }

    /// Gives the front of the tail back when it is empty, or when moving the rest costs less than what was sent.
    fn trim(&mut self) {
        if self.head == self.tail.len() {
            self.tail.clear();
            self.head = 0;
        } else if self.head > TRIMMED && self.head > self.tail.len() / 2 {
            self.tail.drain(..self.head);
            self.head = 0;
        }
    }

    #[cold]
    fn fit(&mut self) {
        let waiting = self.tail.len() - self.head;
        if self.tail.capacity() > 2 * waiting + SPARE_TAIL {
            self.tail.drain(..self.head);
            self.head = 0;
            self.tail.shrink_to(waiting + waiting / 4);
        }
        if self.spans.capacity() > 2 * self.spans.len() + SPARE_SPANS {
            self.spans.shrink_to(self.spans.len() + self.spans.len() / 2);
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.spans.iter().find_map(|span| match span {
            Span::Log { lo, .. } => Some(lo.position),
            _ => None,
        })
    }
}

impl Span {
    fn len(&self) -> usize {
        match self {
            Self::Log { lo, hi } => (hi.position - lo.position) as usize,
            Self::Tail { len, .. } => *len,
            Self::Shared { frame, sent } => frame.as_bytes().len() - sent,
        }
    }

    fn is_private(&self) -> bool {
        !matches!(self, Self::Log { .. })
    }

    /// Bytes that only this peer keeps in memory, the span itself included.
    fn private(&self) -> usize {
        SPAN_CHARGE + if self.is_private() { self.len() } else { 0 }
    }

    /// Messages that end in this span.
    fn messages(&self) -> u64 {
        match self {
            Self::Log { lo, hi } => hi.sequence - lo.sequence,
            Self::Tail { messages, .. } => u64::from(*messages),
            Self::Shared { .. } => 1,
        }
    }

    /// Takes `taken` bytes off, fewer than all. Returns the messages that end in them, and what is left of the frame in which that ends.
    /// `begun` bytes at the front finish a frame; `tail` begins where a tail span at the front of its queue does.
    fn take_off(&mut self, lane: usize, logs: &Logs, tail: &[u8], taken: usize, begun: u32) -> (u64, u32) {
        match self {
            Self::Log { lo, .. } => {
                let sent = lo.sequence;
                let left;
                (*lo, left) = logs.lane(lane - 1).place(lo.position + taken as u64);
                (lo.sequence - sent, left)
            }
            Self::Tail { len, messages } => {
                let (ended, left) = walk(tail, begun as usize, taken);
                // Control frames are no messages.
                let ended = ended.min(*messages);
                *len -= taken;
                *messages -= ended;
                (u64::from(ended), left)
            }
            Self::Shared { frame, sent } => {
                *sent += taken;
                (0, walk(frame.as_bytes(), 0, *sent).1)
            }
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
