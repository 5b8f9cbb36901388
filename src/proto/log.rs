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

use crate::wire::{Frame, Header, Lane};

/// Bytes of a segment of copied frames. Fits the second-level cache of current cores beside the peers' state.
const SEGMENT: usize = 256 * 1024;
/// Frames of at least this many bytes are not copied. At 1 KiB slices and copies came out even; the margin keeps segments few.
const BY_REFERENCE: usize = 4 * 1024;

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
    start: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Whole messages of one frame each, next to each other, and where each ends.
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
        self.start + self.bytes().len() as u64
    }

    /// What the segment costs in memory.
    fn held(&self) -> usize {
        match &self.body {
            Body::Copied { .. } => SEGMENT,
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
            self.push(Body::Shared(frame.clone()));
        } else {
            let (bytes, ends) = self.open_segment(len);
            bytes.extend_from_slice(frame.as_bytes());
            ends.push(bytes.len() as u32);
        }
        self.end.position += len as u64;
        self.end.sequence += 1;
    }

    /// The last segment if `len` more bytes fit, or a new one.
    fn open_segment(&mut self, len: usize) -> (&mut Vec<u8>, &mut Vec<u32>) {
        let fits = matches!(self.segments.back(), Some(Segment { body: Body::Copied { bytes, .. }, .. }) if bytes.len() + len <= SEGMENT);
        if !fits {
            let (bytes, ends) = self.spare.take().unwrap_or_else(|| (Vec::with_capacity(SEGMENT), Vec::new()));
            self.push(Body::Copied { bytes, ends });
        }
        match self.segments.back_mut() {
            Some(Segment { body: Body::Copied { bytes, ends }, .. }) => (bytes, ends),
            _ => unreachable!("a segment for copies was just made sure of"),
        }
    }

    fn push(&mut self, body: Body) {
        let segment = Segment { start: self.end.position, body };
        self.held += segment.held();
        self.segments.push_back(segment);
    }

    /// The bytes of `lo..hi`, as few slices as there are segments.
    pub(crate) fn slices(&self, lo: u64, hi: u64) -> impl Iterator<Item = &[u8]> {
        let first = if lo < hi { self.index_of(lo) } else { self.segments.len() };
        self.segments.range(first..).map_while(move |segment| {
            let bytes = segment.bytes();
            let from = lo.saturating_sub(segment.start) as usize;
            let to = bytes.len().min(hi.saturating_sub(segment.start) as usize);
            (from < to).then(|| &bytes[from..to])
        })
    }

    /// The bytes of `lo..hi` that are in one piece with `lo`.
    #[inline]
    pub(crate) fn first_slice(&self, lo: u64, hi: u64) -> &[u8] {
        let segment = &self.segments[self.index_of(lo)];
        let bytes = segment.bytes();
        let to = bytes.len().min((hi - segment.start) as usize);
        &bytes[(lo - segment.start) as usize..to]
    }

    /// How many bytes the frame that `position` is inside of has from there on; zero between frames.
    pub(crate) fn frame_left(&self, position: u64) -> u32 {
        if position >= self.end.position {
            return 0;
        }
        let segment = &self.segments[self.index_of(position)];
        let offset = (position - segment.start) as usize;
        match &segment.body {
            _ if offset == 0 => 0,
            Body::Copied { ends, .. } => {
                let next = ends.partition_point(|&end| (end as usize) < offset);
                ends[next] - offset as u32
            }
            Body::Shared(frame) => frame_left(frame.as_bytes(), 0, offset),
        }
    }

    #[inline]
    fn index_of(&self, position: u64) -> usize {
        // Nearly every reader is in the newest segment.
        match self.segments.back() {
            Some(last) if last.start <= position => self.segments.len() - 1,
            _ => self.segments.partition_point(|segment| segment.start <= position) - 1,
        }
    }

    /// Forgets everything before `position`, a point that no reader is behind.
    pub(crate) fn release(&mut self, position: u64) {
        while let Some(front) = self.segments.front() {
            if front.end() > position {
                return;
            }
            self.held -= front.held();
            if let Some(Segment { body: Body::Copied { mut bytes, mut ends }, .. }) = self.segments.pop_front() {
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

/// How many bytes the frame that `offset` is inside of has from there on, found by walking from header to header.
///
/// `border` is where some frame at or before `offset` begins.
pub(super) fn frame_left(bytes: &[u8], mut border: usize, offset: usize) -> u32 {
    while border < offset {
        border += Header::frame_len(&bytes[border..]);
    }
    (border - offset) as u32
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
    use crate::wire::Meta;

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
    fn the_rest_of_a_frame_is_found_from_any_point() {
        let mut log = Log::new();
        let mut borders = vec![0];
        for (index, len) in [10, 5000, 0, 40_000, 100].into_iter().enumerate() {
            let frame = frame(index, len);
            let mut at = 0;
            while at < frame.as_bytes().len() {
                at += Header::frame_len(&frame.as_bytes()[at..]);
                borders.push(log.end().position + at as u64);
            }
            log.append(&frame);
        }
        for position in 0..log.end().position {
            let next = borders.iter().find(|&&border| border >= position).unwrap();
            assert_eq!(log.frame_left(position) as u64, next - position, "at {position}");
        }
    }

    #[test]
    fn releasing_keeps_what_is_still_read_and_reuses_buffers() {
        let mut log = Log::new();
        for index in 0..1000 {
            log.append(&frame(index, 1000));
        }
        assert!(log.segments.len() > 3);
        let second = log.segments[1].start;
        log.release(second);
        assert_eq!(log.segments.front().unwrap().start, second);
        log.release(log.end().position);
        assert!(log.segments.is_empty());
        assert_eq!(log.held(), 0);
        let spare = log.spare.as_ref().map(|(bytes, _)| bytes.as_ptr());
        log.append(&frame(0, 10));
        assert_eq!(spare, Some(log.segments[0].bytes().as_ptr()));
    }
}
