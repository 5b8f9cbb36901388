//! The bytes that many outboxes share.
//!
//! A broadcast is appended here once per core and lane; a peer's outbox holds nothing but a position. What a peer has still to receive
//! is the range from its position to the end, and leaves as one slice however many broadcasts it spans. So a broadcast costs a core the
//! same whether it has one peer or ten thousand, and the first work per peer is the write itself.
//!
//! Small frames are copied next to each other into segments: one slice of 64 frames costs the kernel a third less than 64 slices.
//! From [`BY_REFERENCE`] bytes on the copy costs more than the slice, and a frame becomes a segment of its own, by reference.
//!
//! The log does not know its readers. Its owner says, with [`Log::release`], up to where nobody reads any more.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::wire::{Frame, HEADER_LEN, Header, Kind, Lane, frame_left};

/// Bytes of a segment of copied frames. Fits the second-level cache of current cores beside the peers' state.
const SEGMENT: usize = 256 * 1024;
/// What a segment begins with where no buffer can be used again.
const FIRST_ALLOCATION: usize = 16 * 1024;
/// Frames of at least this many bytes are not copied. At 1 KiB slices and copies came out even; the margin keeps segments few.
const BY_REFERENCE: usize = 4 * 1024;

/// Most memory of the segments that are kept for the next ones: their bytes, and where messages end in them.
pub(crate) const LOG_SPARE: usize = Lane::ALL.len() * (SEGMENT + SEGMENT / HEADER_LEN * size_of::<u32>());

/// Most memory for keeping track of logs of so many bytes: at worst each large message has a small one before it, and is a segment like it.
pub(crate) const fn log_segments(bytes: usize) -> usize {
    bytes / BY_REFERENCE * 2 * 2 * size_of::<Segment>() + Lane::ALL.len() * FIRST_ALLOCATION
}

/// A point in a log: bytes and messages that were appended before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
}

impl Cursor {
    const START: Cursor = Cursor { position: 0, sequence: 0 };
    /// After everything that will ever be appended: a reader that wants no more.
    pub(crate) const DETACHED: Cursor = Cursor { position: u64::MAX, sequence: u64::MAX };
}

/// One lane's broadcasts on one core.
#[derive(Debug)]
pub(crate) struct Log {
    /// In order, without gaps: each begins where the one before it ends, the last ends at `end`.
    segments: VecDeque<Segment>,
    end: Cursor,
    held: usize,
    /// The buffers of the last segment that was released, for the next one.
    spare: Option<(Vec<u8>, Vec<u32>)>,
}

#[derive(Debug)]
struct Segment {
    start: Cursor,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Whole messages, next to each other, and where each ends.
    Copied { bytes: Vec<u8>, ends: Vec<u32> },
    /// One message.
    Shared(Frame),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Copied { bytes, .. } => bytes,
            Body::Shared(frame) => frame.as_bytes(),
        }
    }

    fn end(&self) -> u64 {
        self.start.position + self.bytes().len() as u64
    }

    /// What the segment costs in memory.
    fn held(&self) -> usize {
        match &self.body {
            Body::Copied { bytes, ends } => bytes.capacity() + ends.capacity() * size_of::<u32>(),
            Body::Shared(frame) => frame.as_bytes().len(),
        }
    }
}

impl Log {
    fn new() -> Self {
        Self { segments: VecDeque::new(), end: Cursor::START, held: 0, spare: None }
    }

    /// Where the next message will stand.
    #[inline]
    pub(crate) fn end(&self) -> Cursor {
        self.end
    }

    /// Bytes of memory.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Appends one message.
    pub(crate) fn append(&mut self, frame: &Frame) {
        let len = frame.as_bytes().len();
        if len >= BY_REFERENCE {
            self.close_segment();
            self.push(Body::Shared(frame.clone()));
        } else {
            self.copy(frame.as_bytes());
        }
        self.end.position += len as u64;
        self.end.sequence += 1;
    }

    /// To the last segment if it fits there, or to a new one.
    fn copy(&mut self, message: &[u8]) {
        let fits = |bytes: &Vec<u8>| bytes.len() + message.len() <= SEGMENT;
        if !matches!(self.segments.back(), Some(Segment { body: Body::Copied { bytes, .. }, .. }) if fits(bytes)) {
            let (bytes, ends) = self.spare.take().unwrap_or_default();
            self.push(Body::Copied { bytes, ends });
        }
        let Some(segment) = self.segments.back_mut() else { unreachable!("a segment was just made sure of") };
        self.held -= segment.held();
        if let Body::Copied { bytes, ends } = &mut segment.body {
            if bytes.len() + message.len() > bytes.capacity() {
                // Doubling, but never beyond a segment.
                bytes.reserve_exact((2 * bytes.capacity()).clamp(FIRST_ALLOCATION, SEGMENT) - bytes.len());
            }
            bytes.extend_from_slice(message);
            ends.push(bytes.len() as u32);
        }
        self.held += segment.held();
    }

    /// Nothing more comes to the last segment. Where little came, its memory is given back: small messages that take turns with large ones
    /// would otherwise hold a whole segment each.
    fn close_segment(&mut self) {
        if let Some(segment) = self.segments.back_mut()
            && let Body::Copied { bytes, ends } = &mut segment.body
            && bytes.len() < bytes.capacity() / 2
        {
            let before = bytes.capacity() + ends.capacity() * size_of::<u32>();
            bytes.shrink_to_fit();
            ends.shrink_to_fit();
            self.held -= before - segment.held();
        }
    }

    fn push(&mut self, body: Body) {
        let segment = Segment { start: self.end, body };
        self.held += segment.held();
        self.segments.push_back(segment);
    }

    /// The bytes of `lo..hi`, as few slices as there are segments.
    pub(crate) fn slices(&self, lo: u64, hi: u64) -> impl Iterator<Item = &[u8]> {
        let first = if lo < hi { self.index_of(lo) } else { self.segments.len() };
        self.segments.range(first..).map_while(move |segment| {
            let bytes = segment.bytes();
            let from = lo.saturating_sub(segment.start.position) as usize;
            let to = bytes.len().min(hi.saturating_sub(segment.start.position) as usize);
            (from < to).then(|| &bytes[from..to])
        })
    }

    /// The bytes of `lo..hi` that are in one piece with `lo`.
    #[inline]
    pub(crate) fn first_slice(&self, lo: u64, hi: u64) -> &[u8] {
        let segment = &self.segments[self.index_of(lo)];
        let bytes = segment.bytes();
        let to = bytes.len().min((hi - segment.start.position) as usize);
        &bytes[(lo - segment.start.position) as usize..to]
    }

    /// `position` with the messages that end at or before it, and how many bytes the frame that it is inside of has from there on; zero
    /// between frames.
    #[inline]
    pub(crate) fn place(&self, position: u64) -> (Cursor, u32) {
        if position < self.end.position { self.place_inside(position) } else { (self.end, 0) }
    }

    fn place_inside(&self, position: u64) -> (Cursor, u32) {
        let (begin, message) = self.message_at(position);
        let left = frame_left(message, (position - begin.position) as usize);
        (Cursor { position, ..begin }, left)
    }

    /// The message that begins at `position` or that this is inside of, and its beginning. Something is there.
    fn message_at(&self, position: u64) -> (Cursor, &[u8]) {
        let segment = &self.segments[self.index_of(position)];
        let offset = (position - segment.start.position) as usize;
        let (whole, begin, end) = match &segment.body {
            Body::Copied { ends, .. } => {
                let whole = ends.partition_point(|&end| end as usize <= offset);
                (whole, if whole > 0 { ends[whole - 1] as usize } else { 0 }, ends[whole] as usize)
            }
            Body::Shared(frame) => (0, 0, frame.as_bytes().len()),
        };
        let begin_at = Cursor { position: segment.start.position + begin as u64, sequence: segment.start.sequence + whole as u64 };
        (begin_at, &segment.bytes()[begin..end])
    }

    /// The message that `position` is inside of, for somebody to keep, and how much of it is before that.
    pub(crate) fn share(&self, position: u64) -> (Arc<[u8]>, usize) {
        let (begin, message) = self.message_at(position);
        let shared = match &self.segments[self.index_of(position)].body {
            Body::Copied { .. } => message.into(),
            Body::Shared(frame) => frame.share(),
        };
        (shared, (position - begin.position) as usize)
    }

    /// The last border between messages that is not after `position`.
    pub(crate) fn border_before(&self, position: u64) -> Cursor {
        if position < self.end.position { self.message_at(position).0 } else { self.end }
    }

    /// The first border between messages that is not before `position`.
    pub(crate) fn border_after(&self, position: u64) -> Cursor {
        if position >= self.end.position {
            return self.end;
        }
        let (begin, message) = self.message_at(position);
        if begin.position == position {
            return begin;
        }
        Cursor { position: begin.position + message.len() as u64, sequence: begin.sequence + 1 }
    }

    #[inline]
    fn index_of(&self, position: u64) -> usize {
        // Nearly every reader is in the newest segment.
        match self.segments.back() {
            Some(last) if last.start.position <= position => self.segments.len() - 1,
            _ => self.segments.partition_point(|segment| segment.start.position <= position) - 1,
        }
    }

    /// Forgets everything before `position`, a point that no reader is behind.
    pub(crate) fn release(&mut self, position: u64) {
        while let Some(front) = self.segments.front() {
            if front.end() > position {
                return;
            }
            self.held -= front.held();
            if let Some(Segment { body: Body::Copied { mut bytes, mut ends }, .. }) = self.segments.pop_front()
                && self.spare.as_ref().is_none_or(|(kept, _)| kept.capacity() < bytes.capacity())
            {
                bytes.clear();
                ends.clear();
                self.spare = Some((bytes, ends));
            }
        }
    }

    /// Where the oldest segment ends: who is behind it, keeps it alive.
    pub(crate) fn oldest_end(&self) -> u64 {
        self.segments.front().map_or(self.end.position, Segment::end)
    }
}

/// Walks from header to header: how many messages end in the first `taken` of `bytes`, and how many bytes the frame in which that is has
/// from there on, zero between frames.
///
/// `begun` bytes at the front finish a frame. More than `taken` bytes are there, so a message has ended where the next frame continues
/// none.
pub(super) fn walk(bytes: &[u8], begun: usize, taken: usize) -> (u32, u32) {
    let mut messages = 0;
    let mut border = begun;
    while border <= taken {
        let header = bytes[border..].first_chunk::<HEADER_LEN>().expect("frames are kept whole");
        let header = Header::decode(*header).expect("this side encoded the header");
        if border > 0 && header.kind != Kind::Fragment {
            messages += 1;
        }
        if border == taken {
            return (messages, 0);
        }
        border += HEADER_LEN + header.len as usize;
    }
    (messages, (border - taken) as u32)
}

/// The logs of a core, one for each lane that messages have.
#[derive(Debug)]
pub(crate) struct Logs {
    lanes: [Log; Lane::ALL.len()],
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self { lanes: std::array::from_fn(|_| Log::new()) }
    }

    #[inline]
    pub(crate) fn lane(&self, index: usize) -> &Log {
        &self.lanes[index]
    }

    pub(crate) fn append(&mut self, frame: &Frame) {
        self.lanes[frame.lane().index()].append(frame);
    }

    /// The end of every lane: where a new reader begins.
    #[inline]
    pub(crate) fn ends(&self) -> [Cursor; Lane::ALL.len()] {
        std::array::from_fn(|index| self.lanes[index].end)
    }

    /// Bytes of memory.
    pub(crate) fn held(&self) -> usize {
        self.lanes.iter().map(Log::held).sum()
    }

    /// Forgets, in each lane, what is before the position given for it.
    pub(crate) fn release(&mut self, positions: [u64; Lane::ALL.len()]) {
        for (log, position) in self.lanes.iter_mut().zip(positions) {
            log.release(position);
        }
    }

    /// Whether there is anything at all in memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|log| log.segments.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{DEFAULT_FRAGMENT, Draft, MIN_FRAGMENT, Meta};

    fn frame(index: usize, len: usize) -> Frame {
        Frame::new(Meta::new(index as u16), &vec![index as u8; len]).unwrap()
    }

    #[test]
    fn slices_give_back_what_was_appended_from_any_point() {
        let mut log = Log::new();
        let mut all = Vec::new();
        for (index, len) in [10, 5000, 0, 40_000, 100, 100].into_iter().enumerate() {
            let frame = frame(index, len);
            log.append(&frame);
            all.extend_from_slice(frame.as_bytes());
        }
        assert_eq!(log.end(), Cursor { position: all.len() as u64, sequence: 6 });
        for lo in (0..=all.len()).step_by(97) {
            let read: Vec<u8> = log.slices(lo as u64, all.len() as u64).flatten().copied().collect();
            assert_eq!(read, all[lo..], "from {lo}");
        }
    }

    #[test]
    fn the_messages_before_any_point_and_the_rest_of_its_frame_are_found() {
        let mut log = Log::new();
        let (mut borders, mut ends) = (vec![0], Vec::new());
        for (index, len) in [10, 5000, 0, 3000, 40_000, 100].into_iter().enumerate() {
            let cut = if len == 3000 { MIN_FRAGMENT } else { DEFAULT_FRAGMENT };
            let frame = Frame::encode(Draft::data(Meta::new(index as u16), &vec![index as u8; len]), cut).unwrap();
            let mut at = 0;
            while at < frame.as_bytes().len() {
                at += Header::frame_len(&frame.as_bytes()[at..]);
                borders.push(log.end().position + at as u64);
            }
            log.append(&frame);
            ends.push(log.end().position);
        }
        for position in 0..=log.end().position {
            let next = borders.iter().find(|&&border| border >= position).unwrap();
            let whole = ends.iter().filter(|&&end| end <= position).count();
            let cursor = Cursor { position, sequence: whole as u64 };
            assert_eq!(log.place(position), (cursor, (next - position) as u32));
            let before = ends.iter().copied().rfind(|&end| end <= position).unwrap_or(0);
            assert_eq!(log.border_before(position), Cursor { position: before, ..cursor });
            let after = if before == position { position } else { *ends.iter().find(|&&end| end > position).unwrap() };
            let begun = u64::from(before != position);
            assert_eq!(log.border_after(position), Cursor { position: after, sequence: cursor.sequence + begun });
        }
    }

    #[test]
    fn a_segment_is_filled_to_the_last_byte_and_not_beyond() {
        for len in [2048, 3000] {
            let mut log = Log::new();
            for index in 0..SEGMENT / len {
                log.append(&frame(index, len - 8));
            }
            assert_eq!(log.segments.len(), 1);
            assert!((SEGMENT..SEGMENT + SEGMENT / 100).contains(&log.held()), "{}", log.held());
            log.append(&frame(0, len - 8));
            assert_eq!(log.segments.len(), 2);
        }
    }

    #[test]
    fn small_messages_between_large_ones_hold_little_more_than_themselves() {
        let mut log = Log::new();
        for index in 0..256 {
            log.append(&frame(index, 100));
            log.append(&frame(index, BY_REFERENCE));
        }
        let bytes = log.end().position as usize;
        assert!(log.held() < bytes + FIRST_ALLOCATION + 256 * 32, "{} for {bytes}", log.held());
        log.release(log.end().position);
        assert_eq!(log.held(), 0);
    }

    #[test]
    fn releasing_keeps_what_is_still_read_and_reuses_buffers() {
        let mut log = Log::new();
        for index in 0..1000 {
            log.append(&frame(index, 1000));
        }
        assert!(log.segments.len() > 3);
        let second = log.segments[1].start;
        log.release(second.position);
        assert_eq!(log.segments.front().unwrap().start, second);
        log.release(log.end().position);
        assert!(log.segments.is_empty());
        assert_eq!(log.held(), 0);
        let spare = log.spare.as_ref().map(|(bytes, _)| bytes.as_ptr());
        log.append(&frame(0, 10));
        assert_eq!(spare, Some(log.segments[0].bytes().as_ptr()));
    }
}
