//! The spans of one peer, lane by lane, and the memory behind them.
//!
//! What is counted here, `claimed` and `used`, is exact after every call. Cursors, lanes' turns and the order between lanes are the
//! outbox's.

use std::collections::VecDeque;

use super::keys::Keys;
use super::span::{SPAN_CHARGE, Shared, Span};
use super::{Advanced, LANES};
use crate::proto::log::Logs;
use crate::time::Timestamp;

/// A tail that grew beyond this is not kept for the next peer. As much as a peer is written to in one turn.
pub(super) const KEPT_TAIL: usize = 256 * 1024;
/// Bytes at the front of a tail that have been sent before it is worth moving the rest.
pub(super) const TRIMMED: usize = 64 * 1024;
/// A queue of spans with more room than this is not kept for the next peer.
const KEPT_SPANS: usize = 1024;
/// Room that a peer's tail and queue of spans may have beyond twice what is in them, for each lane.
pub(super) const SPARE_TAIL: usize = 4 * 1024;
pub(super) const SPARE_SPANS: usize = 16;

/// The spans of one peer, and their memory.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    pub(super) lanes: [Queue; LANES],
    /// Bytes of all spans, and their charges.
    pub(super) claimed: usize,
    /// See [`super::Outbox::used`].
    pub(super) used: usize,
    /// Memory that it had when the pool lent it, until that is fitted to what is in it.
    pub(super) lent: usize,
    /// No message expires before then; without one, none does. That one may have left since.
    pub(super) expiry: Option<Timestamp>,
}

/// The spans of one lane.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) spans: VecDeque<Span>,
    /// Bytes of the spans.
    pub(super) bytes: usize,
    /// The bytes of the `Tail` spans, in order, from `head` on.
    pub(super) tail: Vec<u8>,
    pub(super) head: usize,
    /// Bytes that have left the tail, and charges of spans that have left, whose memory is still there.
    pub(super) spare: usize,
    /// The number of the first span: spans are numbered in order, from far above zero, since one may be put in front.
    pub(super) first: u64,
    pub(super) keys: Option<Box<Keys>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { spans: VecDeque::new(), bytes: 0, tail: Vec::new(), head: 0, spare: 0, first: 1 << 32, keys: None }
    }
}

impl Queued {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|queue| queue.spans.is_empty())
    }

    pub(super) fn only_tail(&self) -> Option<&[u8]> {
        let mut used = self.lanes.iter().filter(|queue| !queue.spans.is_empty());
        let queue = used.next()?;
        match queue.spans.back() {
            Some(Span::Tail { .. }) if queue.spans.len() == 1 && used.next().is_none() => Some(&queue.tail[queue.head..]),
            _ => None,
        }
    }

    pub(super) fn push_span(&mut self, lane: usize, span: Span) {
        let len = span.len();
        self.lanes[lane].bytes += len;
        self.claimed += len + span.charge();
        self.lanes[lane].spans.push_back(span);
        let span = &self.lanes[lane].spans[self.lanes[lane].spans.len() - 1];
        self.used += span.charge() + if matches!(span, Span::Shared(_)) { len } else { 0 };
    }

    pub(super) fn push_shared(&mut self, lane: usize, shared: Shared) {
        self.note_expiry(shared.expiry);
        self.push_span(lane, Span::Shared(shared));
        self.lanes[lane].note_key();
    }

    pub(super) fn note_expiry(&mut self, expiry: Option<Timestamp>) {
        self.expiry = self.expiry.into_iter().chain(expiry).min();
    }

    /// Bytes that only this peer keeps in memory.
    #[cfg(test)]
    pub(super) fn private(&self) -> usize {
        let own = |queue: &Queue| queue.spare + queue.spans.iter().map(Span::charge).sum::<usize>();
        self.used - self.lanes.iter().map(own).sum::<usize>()
    }

    /// Accounts for `len` bytes that were just appended to the tail of a lane.
    #[inline]
    pub(super) fn extend_tail(&mut self, lane: usize, len: usize, messages: u32) {
        let queue = &mut self.lanes[lane];
        queue.bytes += len;
        self.claimed += len;
        self.used += len;
        if let Some(Span::Tail { len: run, messages: count }) = queue.spans.back_mut() {
            *run += len;
            *count += messages;
        } else {
            queue.spans.push_back(Span::Tail { len, messages });
            self.claimed += SPAN_CHARGE;
            self.used += SPAN_CHARGE;
        }
    }

    /// Takes `taken` bytes, all of them in spans, off a lane. `begun` bytes at its front finish a frame. Returns what is left of the frame
    /// in which that ends.
    pub(super) fn take_off(&mut self, lane: usize, logs: &Logs, mut taken: usize, mut begun: u32, advanced: &mut Advanced) -> u32 {
        let queue = &mut self.lanes[lane];
        queue.bytes -= taken;
        while taken > 0 {
            let front = queue.spans.front_mut().expect("the bytes of a lane are the bytes of its spans");
            let len = front.len();
            let part = taken.min(len);
            self.claimed -= part;
            #[cfg(test)]
            if front.is_private() {
                advanced.freed += part;
            }
            let of_tail = if front.is_tail() { part } else { 0 };
            queue.spare += of_tail;
            self.used -= if front.is_private() { part - of_tail } else { 0 };
            if part == len {
                // Where a span ends, a frame ends.
                advanced.messages += front.messages();
                begun = 0;
                let charge = front.charge();
                self.claimed -= charge;
                queue.spans.pop_front();
                queue.first += 1;
                queue.spare += charge;
            } else {
                let messages;
                (messages, begun) = front.take_off(lane, logs, &queue.tail[queue.head..], part, begun);
                advanced.messages += messages;
            }
            queue.head += of_tail;
            taken -= part;
        }
        self.used -= queue.trim();
        begun
    }

    /// Accounts for private bytes of a lane that are gone, and for what was charged besides.
    pub(super) fn remove(&mut self, lane: usize, private: usize, charges: usize) {
        self.lanes[lane].bytes -= private;
        self.claimed -= private + charges;
        self.used -= private + charges;
    }

    pub(super) fn evacuate(&mut self, lane: usize, logs: &Logs) {
        let queue = &mut self.lanes[lane];
        if !queue.spans.iter().any(|span| matches!(span, Span::Log { .. })) {
            return;
        }
        // Everything is written out again in order; a span by reference stays one.
        queue.forget_keys();
        let spans = std::mem::take(&mut queue.spans);
        let old = std::mem::take(&mut queue.tail);
        let mut head = std::mem::take(&mut queue.head);
        self.claimed -= queue.bytes + spans.iter().map(Span::charge).sum::<usize>();
        let private = spans.iter().filter(|span| span.is_private()).map(Span::len).sum::<usize>();
        self.used -= private + spans.iter().map(Span::charge).sum::<usize>() + std::mem::take(&mut queue.spare);
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
                Span::Shared(_) => self.push_span(lane, span),
            }
        }
    }

    /// Lets go of everything. Returns how many messages that was.
    pub(super) fn clear(&mut self) -> u64 {
        let mut messages = 0;
        for queue in &mut self.lanes {
            if !queue.spans.is_empty() {
                while let Some(span) = queue.spans.pop_front() {
                    messages += span.messages();
                }
                queue.keys = None;
                queue.tail.clear();
                queue.bytes = 0;
            }
            queue.head = 0;
            queue.spare = 0;
        }
        self.claimed = 0;
        self.used = 0;
        self.expiry = None;
        messages
    }

    #[cold]
    pub(super) fn fit(&mut self) {
        self.used -= self.lanes.iter_mut().map(Queue::fit).sum::<usize>();
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let spans = self.lanes.iter().flat_map(|queue| &queue.spans);
        // A shared message has a head of 16 bytes.
        let shared = spans.map(|span| if span.is_private() && !span.is_tail() { 16 + span.len() } else { 0 });
        let keys = self.lanes.iter().filter_map(|queue| queue.keys.as_ref()).map(|keys| keys.memory());
        self.footprint() + shared.sum::<usize>() + keys.sum::<usize>()
    }

    /// Bytes of memory, of a box without spans.
    pub(super) fn footprint(&self) -> usize {
        let queues = self.lanes.iter().map(|queue| queue.tail.capacity() + queue.spans.capacity() * SPAN_CHARGE);
        size_of::<Self>() + queues.sum::<usize>()
    }

    pub(super) fn shrink(&mut self) {
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
    pub(super) fn assert_invariants(&self) {
        let spans = || self.lanes.iter().flat_map(|queue| &queue.spans);
        assert!(!self.is_empty(), "an empty box belongs in the pool");
        assert_eq!(self.claimed, spans().map(|span| span.len() + span.charge()).sum::<usize>());
        assert_eq!(self.private(), spans().filter(|span| span.is_private()).map(Span::len).sum::<usize>());
        let own = |queue: &Queue| queue.spare + queue.spans.iter().map(Span::charge).sum::<usize>();
        assert_eq!(self.used, self.private() + self.lanes.iter().map(own).sum::<usize>());
        let most = 2 * self.used + super::OUTBOX_SPARE + self.lent;
        assert!(self.memory() <= most, "{} bytes of memory where {} are used, and {most} may be", self.memory(), self.used);
        for queue in &self.lanes {
            assert_eq!(queue.bytes, queue.spans.iter().map(Span::len).sum::<usize>());
            let tails = queue.spans.iter().filter(|span| span.is_tail()).map(Span::len).sum::<usize>();
            assert_eq!(queue.tail.len() - queue.head, tails);
            assert!(queue.spans.iter().all(|span| span.len() > 0));
            for (at, span) in queue.spans.iter().enumerate() {
                if let Span::Shared(shared) = span {
                    assert!(at == 0 || !shared.has_begun(), "a message has begun that is not the first");
                    let noted = shared.has_begun() || shared.expiry.is_none_or(|expiry| self.expiry.is_some_and(|first| first <= expiry));
                    assert!(noted, "an expiry was forgotten");
                }
            }
        }
    }
}

impl Queue {
    /// Each span's bytes in order, until `put` says that it has enough; says whether it never did.
    pub(super) fn each_slice<'a>(&'a self, lane: usize, logs: &'a Logs, put: &mut impl FnMut(&'a [u8]) -> bool) -> bool {
        let mut tail = self.head;
        self.spans.iter().all(|span| match span {
            Span::Log { lo, hi } => logs.lane(lane - 1).slices(lo.position, hi.position).all(&mut *put),
            Span::Tail { len, .. } => {
                tail += len;
                put(&self.tail[tail - len..tail])
            }
            Span::Shared(shared) => put(shared.rest()),
        })
    }

    /// Gives the front of the tail back when it is empty, or when moving the rest costs less than what was sent. Returns by how much that
    /// makes less of what is spare: no more is than there is memory.
    pub(super) fn trim(&mut self) -> usize {
        if self.head == self.tail.len() {
            self.tail.clear();
            self.head = 0;
        } else if self.head > TRIMMED && self.head > self.tail.len() / 2 {
            self.tail.drain(..self.head);
            self.head = 0;
        } else {
            return 0;
        }
        let room = (self.spans.capacity() - self.spans.len()) * SPAN_CHARGE;
        let less = self.spare.saturating_sub(self.tail.capacity() - self.tail.len() + room);
        self.spare -= less;
        less
    }

    /// Fits the memory to what is in it. Returns by how much that makes less of what is spare.
    fn fit(&mut self) -> usize {
        let waiting = self.tail.len() - self.head;
        if self.tail.capacity() > 2 * waiting + SPARE_TAIL {
            self.tail.drain(..self.head);
            self.head = 0;
            self.tail.shrink_to(waiting + waiting / 4);
        }
        if self.spans.capacity() > 2 * self.spans.len() + SPARE_SPANS {
            self.spans.shrink_to(self.spans.len() + self.spans.len() / 2);
        }
        self.fit_keys();
        // What stands in front of a tail that stays is doubled with it, when it grows.
        std::mem::replace(&mut self.spare, self.head) - self.head
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.spans.iter().find_map(|span| match span {
            Span::Log { lo, .. } => Some(lo.position),
            _ => None,
        })
    }
}
