//! What is dropped of an outbox that a peer is too slow for.
//!
//! Only whole messages are dropped, and only such as have not begun to leave: of a message that has, the other side has a part, and the
//! rest follows though the last write ended between two of its frames. Nothing here decides that something is to be dropped.

use super::queue::{Queue, Queued};
use super::span::{SPAN_CHARGE, Shared, Span};
use super::{Outbox, QueuedPool};
use crate::proto::log::{Cursor, Log, Logs};
use crate::time::Timestamp;
use crate::wire::{Frame, HEADER_LEN, Header, Kind, Lane};

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) messages: u64,
    /// Private bytes that were given back.
    pub(crate) freed: usize,
}

impl Outbox {
    /// When [`Outbox::expire`] may have something to do: not later than the first message expires, but that may have left since.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.queued.as_ref().and_then(|queued| queued.expiry)
    }

    /// Drops the messages whose time is up. Looks at nothing before [`Outbox::next_expiry`], and at every span then.
    #[inline]
    pub(crate) fn expire(&mut self, now: Timestamp, logs: &Logs, pool: &mut QueuedPool) -> Dropped {
        if self.next_expiry().is_none_or(|first| first > now) { Dropped::default() } else { self.drop_expired(now, logs, pool) }
    }

    #[cold]
    fn drop_expired(&mut self, now: Timestamp, logs: &Logs, pool: &mut QueuedPool) -> Dropped {
        let mut dropped = Dropped::default();
        if let Some(queued) = &mut self.queued {
            queued.expiry = None;
            for lane in 0..queued.lanes.len() {
                let mut first = None;
                let (mut spans, mut charges) = (0, 0);
                let queue = &mut queued.lanes[lane];
                let before = dropped.freed;
                queue.spans.retain(|span| {
                    let Span::Shared(shared) = span else { return true };
                    let Some(expiry) = shared.expiry.filter(|_| !shared.has_begun()) else { return true };
                    if expiry > now {
                        first = first.into_iter().chain([expiry]).min();
                        return true;
                    }
                    spans += 1;
                    charges += span.charge();
                    dropped.freed += shared.rest().len();
                    false
                });
                if spans > 0 {
                    queue.forget_keys();
                }
                dropped.messages += spans as u64;
                queued.remove(lane, dropped.freed - before, charges);
                queued.note_expiry(first);
            }
        }
        self.settle_dropped(logs, pool);
        dropped
    }

    /// Drops the oldest messages of a lane, no more than it takes for at most `target` bytes to be claimed, or all that can be.
    ///
    /// Costs what it drops: headers are walked in tails, but not in logs. Where a message of the lane has begun, what is left of it in the
    /// tail is moved, or what is behind it: the less. So `target` should be some way below the mark at which this is called.
    pub(crate) fn drop_oldest(&mut self, lane: Lane, target: usize, logs: &Logs, pool: &mut QueuedPool) -> Dropped {
        let (index, log) = (lane.index() + 1, logs.lane(lane.index()));
        let mut shed = Shed { excess: self.claimed(logs).saturating_sub(target), ..Shed::default() };
        if shed.excess == 0 {
            return shed.dropped;
        }
        let mut begun = self.begun(index, log);
        if let Some(queued) = self.queued.as_mut().filter(|queued| !queued.lanes[index].spans.is_empty()) {
            queued.drop_oldest(index, log, begun, &mut shed);
            begun = 0;
        }
        let (from, end) = (self.cursors[index - 1], log.end());
        let rest = log.border_after(from.position + begun as u64);
        if shed.excess > 0 && from.position < end.position && rest != end {
            if begun > 0 {
                // What has begun is written down.
                self.queued.get_or_insert_with(|| pool.take()).push_span(index, Span::Log { lo: from, hi: rest });
                shed.excess += SPAN_CHARGE;
            }
            let to = log.border_after(rest.position + shed.excess as u64);
            self.cursors[index - 1] = to;
            shed.count(to.sequence - rest.sequence, 0);
        }
        self.settle_dropped(logs, pool);
        shed.dropped
    }

    /// Drops the newest messages of a lane, no more than it takes for at most `target` bytes to be claimed, or all that can be.
    ///
    /// Costs what it drops, and a walk over the last run of direct sends: a tail can be walked from its front only.
    pub(crate) fn drop_newest(&mut self, lane: Lane, target: usize, logs: &Logs, pool: &mut QueuedPool) -> Dropped {
        let (index, log) = (lane.index() + 1, logs.lane(lane.index()));
        let mut shed = Shed { excess: self.claimed(logs).saturating_sub(target), ..Shed::default() };
        if shed.excess == 0 {
            return shed.dropped;
        }
        let begun = self.begun(index, log);
        let (from, end) = (self.cursors[index - 1], log.end());
        if from.position < end.position {
            let least = log.border_after(from.position);
            // What stays is to be written down.
            let most = end.position.saturating_sub((shed.excess + SPAN_CHARGE) as u64);
            let to = if most > least.position { log.border_before(most) } else { least };
            if to != end {
                shed.excess = shed.excess.saturating_sub((end.position - to.position) as usize);
                shed.count(end.sequence - to.sequence, 0);
                if to.position > from.position {
                    self.queued.get_or_insert_with(|| pool.take()).push_span(index, Span::Log { lo: from, hi: to });
                }
                self.cursors[index - 1] = end;
            }
        }
        if let Some(queued) = self.queued.as_mut().filter(|_| shed.excess > 0) {
            queued.drop_newest(index, log, begun, &mut shed);
        }
        self.settle_dropped(logs, pool);
        shed.dropped
    }

    /// Appends an encoded message. If it has a key, and a message of that key waits in the lane and has not begun, takes that one's place
    /// instead: of several the newest's. Returns the bytes that this took, and what was dropped for it.
    pub(crate) fn push_conflated(&mut self, logs: &Logs, pool: &mut QueuedPool, frame: &Frame, now: Timestamp) -> (usize, Dropped) {
        let lane = frame.lane().index() + 1;
        if let (Some(key), Some(queued)) = (frame.key(), &mut self.queued)
            && let Some(freed) = queued.replace(lane, key, || Shared::new(frame, now))
        {
            return (frame.as_bytes().len(), Dropped { messages: 1, freed });
        }
        (self.push_frame(logs, pool, frame, now), Dropped::default())
    }

    /// What is left of the message at the front of a lane, if that has begun, stands in the log, and what followed it there was dropped:
    /// then it alone keeps the log from there on.
    pub(crate) fn begun_alone(&self, lane: Lane, logs: &Logs) -> usize {
        let (index, log) = (lane.index() + 1, logs.lane(lane.index()));
        let front = self.queued.as_ref().and_then(|queued| queued.lanes[index].spans.front());
        match front {
            Some(&Span::Log { lo, hi }) if hi.position - lo.position == rest_in_log(log, lo) as u64 => (hi.position - lo.position) as usize,
            _ => 0,
        }
    }

    /// Takes that out of the log: by reference where the log has it so, else as a copy of the message, which is small then.
    pub(crate) fn keep_begun(&mut self, lane: Lane, logs: &Logs) {
        if let Some(queued) = &mut self.queued
            && let Some(front @ &mut Span::Log { lo, .. }) = queued.lanes[lane.index() + 1].spans.front_mut()
        {
            let (bytes, sent) = logs.lane(lane.index()).share(lo.position);
            *front = Span::Shared(Shared::begun(bytes, sent));
            queued.used += front.len();
        }
    }

    /// What is left of the message at the front of a lane, if that has begun.
    fn begun(&self, lane: usize, log: &Log) -> usize {
        let queue = self.queued.as_ref().map(|queued| &queued.lanes[lane]);
        match queue.and_then(|queue| Some((queue, queue.spans.front()?))) {
            Some((_, Span::Shared(shared))) => {
                if shared.has_begun() {
                    shared.rest().len()
                } else {
                    0
                }
            }
            Some((queue, Span::Tail { len, .. })) => {
                let mut rest = if self.started.lane as usize == lane { self.started.left as usize } else { 0 };
                let tail = &queue.tail[queue.head..][..*len];
                while rest < tail.len() && header(&tail[rest..]).kind == Kind::Fragment {
                    rest += Header::frame_len(&tail[rest..]);
                }
                rest
            }
            Some((_, Span::Log { lo, .. })) => rest_in_log(log, *lo),
            None => rest_in_log(log, self.cursors[lane - 1]),
        }
    }
}

/// How much is to be dropped still, in claimed bytes, and what was.
#[derive(Debug, Default)]
struct Shed {
    excess: usize,
    dropped: Dropped,
}

impl Shed {
    fn count(&mut self, messages: u64, freed: usize) {
        self.dropped.messages += messages;
        self.dropped.freed += freed;
    }
}

impl Queued {
    /// From the front, behind the `begun` bytes of a message that has begun.
    fn drop_oldest(&mut self, lane: usize, log: &Log, begun: usize, shed: &mut Shed) {
        let first = self.split_begun(lane, log, begun, shed);
        let kept = if self.lanes[lane].spans.front().is_some_and(Span::is_tail) { begun } else { 0 };
        let mut gone = 0;
        while shed.excess > 0 && self.lanes[lane].spans.len() > first {
            let queue = &mut self.lanes[lane];
            let (span, tail) = (&mut queue.spans[first], &queue.tail[queue.head + kept + gone..]);
            let before = span.len();
            let (bytes, messages) = span.cut_front(log, tail, shed.excess);
            gone += if span.is_tail() { bytes } else { 0 };
            self.account(lane, first, (bytes, messages), bytes == before, shed);
        }
        self.used -= self.lanes[lane].cut_tail(kept, gone);
        self.join_begun(lane, first);
    }

    /// From the back, as far as the `begun` bytes of a message that has begun.
    fn drop_newest(&mut self, lane: usize, log: &Log, begun: usize, shed: &mut Shed) {
        let first = self.split_begun(lane, log, begun, shed);
        while shed.excess > 0 && self.lanes[lane].spans.len() > first {
            let queue = &mut self.lanes[lane];
            let last = queue.spans.len() - 1;
            let span = &mut queue.spans[last];
            let before = span.len();
            let tail = if span.is_tail() { &queue.tail[queue.tail.len() - before..] } else { &[] };
            let (bytes, messages) = span.cut_back(log, tail, shed.excess);
            if span.is_tail() {
                queue.tail.truncate(queue.tail.len() - bytes);
            }
            self.account(lane, last, (bytes, messages), bytes == before, shed);
        }
        self.used -= self.lanes[lane].trim();
        self.join_begun(lane, first);
    }

    /// Makes what is left of a message that has begun a span of its own. Returns how many spans are not to be dropped.
    fn split_begun(&mut self, lane: usize, log: &Log, begun: usize, shed: &mut Shed) -> usize {
        let spans = &mut self.lanes[lane].spans;
        let Some(front) = spans.front_mut().filter(|_| begun > 0) else { return 0 };
        let split = match front {
            Span::Log { lo, hi } => {
                let rest = log.border_after(lo.position);
                (rest != *hi).then(|| Span::Log { lo: std::mem::replace(lo, rest), hi: rest })
            }
            Span::Tail { len, messages } => (begun < *len).then(|| {
                *len -= begun;
                *messages -= 1;
                Span::Tail { len: begun, messages: 1 }
            }),
            Span::Shared(_) => None,
        };
        if let Some(begun) = split {
            spans.push_front(begun);
            self.lanes[lane].first -= 1;
            self.claimed += SPAN_CHARGE;
            self.used += SPAN_CHARGE;
            shed.excess += SPAN_CHARGE;
        }
        1
    }

    /// Undoes the split where nothing between the two was dropped, or where tails follow each other again.
    fn join_begun(&mut self, lane: usize, begun: usize) {
        let spans = &mut self.lanes[lane].spans;
        if begun == 0 || spans.len() < 2 {
            return;
        }
        let joined = match (&spans[0], &spans[1]) {
            (Span::Log { lo, hi }, Span::Log { lo: next, hi: end }) if hi == next => Span::Log { lo: *lo, hi: *end },
            (Span::Tail { len, messages }, Span::Tail { len: more, messages: others }) => {
                Span::Tail { len: len + more, messages: messages + others }
            }
            _ => return,
        };
        spans.pop_front();
        spans[0] = joined;
        self.lanes[lane].first += 1;
        self.claimed -= SPAN_CHARGE;
        self.used -= SPAN_CHARGE;
    }

    /// Accounts for what was cut off a span, and removes this if that was all of it.
    fn account(&mut self, lane: usize, at: usize, (bytes, messages): (usize, u64), whole: bool, shed: &mut Shed) {
        let queue = &mut self.lanes[lane];
        let freed = if queue.spans[at].is_private() { bytes } else { 0 };
        queue.bytes -= bytes;
        if queue.spans[at].is_tail() {
            queue.spare += bytes;
        } else {
            self.used -= freed;
        }
        let mut less = bytes;
        if whole {
            // Taken out at the front, or behind a message that has begun, whose number nobody asks for: those behind keep theirs.
            queue.first += u64::from(at + 1 < queue.spans.len());
            let charge = queue.spans.remove(at).map_or(0, |span| span.charge());
            less += charge;
            self.used -= charge;
        }
        self.claimed -= less;
        shed.excess = shed.excess.saturating_sub(less);
        shed.count(messages, freed);
    }

    /// Puts a message in the place of the one that has its key, and has not begun. Returns the bytes of that.
    fn replace(&mut self, lane: usize, key: u64, shared: impl FnOnce() -> Shared) -> Option<usize> {
        let queue = &mut self.lanes[lane];
        let at = queue.find_key(key)?;
        let Some(Span::Shared(old)) = queue.spans.get_mut(at) else { return None };
        let freed = old.bytes.len();
        *old = shared();
        let (more, expiry) = (old.bytes.len(), old.expiry);
        queue.bytes = queue.bytes + more - freed;
        self.claimed = self.claimed + more - freed;
        self.used = self.used + more - freed;
        self.note_expiry(expiry);
        Some(freed)
    }
}

impl Queue {
    /// Takes `gone` bytes out of the tail, behind the first `kept`. Returns what [`Queue::trim`] does.
    fn cut_tail(&mut self, kept: usize, gone: usize) -> usize {
        let behind = self.tail.len() - self.head - kept - gone;
        if gone == 0 {
            return 0;
        }
        if behind < kept {
            self.tail.drain(self.head + kept..self.head + kept + gone);
        } else {
            self.tail.copy_within(self.head..self.head + kept, self.head + gone);
            self.head += gone;
        }
        self.trim()
    }
}

impl Span {
    /// Cuts off whole messages at the front that have `wanted` bytes together, or all. Returns their bytes, and how many they are. `tail`
    /// begins where the span does, if it is one of the tail.
    fn cut_front(&mut self, log: &Log, tail: &[u8], wanted: usize) -> (usize, u64) {
        match self {
            Self::Log { lo, hi } => {
                let cut = log.border_after(lo.position + wanted as u64);
                let from = std::mem::replace(lo, if cut.position < hi.position { cut } else { *hi });
                ((lo.position - from.position) as usize, lo.sequence - from.sequence)
            }
            Self::Tail { len, messages } => {
                let (mut cut, mut ended) = (0, 0);
                while cut < wanted.min(*len) {
                    cut += message_len(&tail[cut..]);
                    ended += 1;
                }
                *len -= cut;
                *messages -= ended;
                (cut, u64::from(ended))
            }
            Self::Shared(shared) => (shared.bytes.len(), 1),
        }
    }

    /// The same at the back.
    fn cut_back(&mut self, log: &Log, tail: &[u8], wanted: usize) -> (usize, u64) {
        match self {
            Self::Log { lo, hi } => {
                // Before `lo` there may be nothing any more.
                let cut = log.border_before(lo.position.max(hi.position.saturating_sub(wanted as u64)));
                let to = std::mem::replace(hi, cut);
                ((to.position - hi.position) as usize, to.sequence - hi.sequence)
            }
            Self::Tail { len, messages } => {
                let (mut keep, mut kept) = (0, 0);
                loop {
                    let end = keep + message_len(&tail[keep..]);
                    if end + wanted > *len {
                        break;
                    }
                    (keep, kept) = (end, kept + 1);
                }
                let (cut, ended) = (*len - keep, *messages - kept);
                (*len, *messages) = (keep, kept);
                (cut, u64::from(ended))
            }
            Self::Shared(shared) => (shared.bytes.len(), 1),
        }
    }
}

fn rest_in_log(log: &Log, at: Cursor) -> usize {
    (log.border_after(at.position).position.saturating_sub(at.position)) as usize
}

fn header(frame: &[u8]) -> Header {
    let header = frame.first_chunk::<HEADER_LEN>().expect("frames are kept whole");
    Header::decode(*header).expect("this side encoded the header")
}

/// Bytes of the message that begins here.
fn message_len(bytes: &[u8]) -> usize {
    let mut len = 0;
    loop {
        let header = header(&bytes[len..]);
        len += HEADER_LEN + header.len as usize;
        if !header.more {
            return len;
        }
    }
}
