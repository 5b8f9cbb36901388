//! What a fan-out has still to send: written once, read by every connection at its own pace.
//!
//! What one turn of the event loop brought in becomes one [`Bytes`], a chunk, so that a reader that keeps up gets it with one write. A
//! chunk is freed when its last reader is past it. Nobody gets back what it wrote: a chunk remembers which of its bytes came from whom.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Bytes that may wait for the slowest reader before it is cut off: as many as the bare loop lets wait.
pub const LIMIT: u64 = 64 << 20;

/// Where pieces are joined by copying, no further ones are added to so many bytes: by then the copy costs more than a write.
const JOINED: usize = 64 << 10;
/// What is allocated at once for chunks to come.
const BLOCK: usize = 256 << 10;

/// Neighbouring bytes of a chunk from one source. A run starts where the one before it ends.
#[derive(Clone, Copy, Debug)]
struct Run {
    source: usize,
    end: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    runs: Vec<Run>,
    /// Where it starts, in bytes from the start of the log.
    start: u64,
    /// How many have not read it to its end.
    readers: usize,
}

/// Where a reader is. It belongs to one log, which counts it until [`Log::leave`].
#[derive(Debug)]
pub struct Cursor {
    /// Whose messages are left out.
    source: usize,
    /// The number of the chunk, from the start of the log, and the offset in it.
    chunk: u64,
    at: usize,
}

/// A part of a chunk.
struct Piece<'a> {
    bytes: &'a Bytes,
    range: Range<usize>,
}

/// The log.
#[derive(Debug, Default)]
pub struct Log {
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk that is still there.
    first: u64,
    /// Where the next chunk starts.
    end: u64,
    /// The next chunk, so far.
    pending: BytesMut,
    pending_runs: Vec<Run>,
    readers: usize,
}

impl Log {
    /// A reader that gets all that is appended from now on, except by `source`.
    pub fn join(&mut self, source: usize) -> Cursor {
        self.seal();
        self.readers += 1;
        Cursor { source, chunk: self.first + self.chunks.len() as u64, at: 0 }
    }

    /// Forgets a reader.
    pub fn leave(&mut self, cursor: Cursor) {
        self.seal();
        self.readers -= 1;
        for chunk in self.chunks.range_mut((cursor.chunk - self.first) as usize..) {
            chunk.readers -= 1;
        }
        self.free();
    }

    /// Appends whole frames.
    pub fn append(&mut self, source: usize, frames: &[u8]) {
        if self.pending.capacity() - self.pending.len() < frames.len() {
            self.pending.reserve(frames.len().max(BLOCK));
        }
        self.pending.extend_from_slice(frames);
        let end = self.pending.len();
        match self.pending_runs.last_mut() {
            Some(last) if last.source == source => last.end = end,
            _ => self.pending_runs.push(Run { source, end }),
        }
    }

    /// Makes one chunk of all that was appended since the last call.
    pub fn seal(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let (bytes, runs) = (self.pending.split().freeze(), std::mem::take(&mut self.pending_runs));
        let start = self.end;
        self.end += bytes.len() as u64;
        self.chunks.push_back(Chunk { bytes, runs, start, readers: self.readers });
        self.free();
    }

    /// Bytes that wait for the slowest reader.
    pub fn waiting(&self) -> u64 {
        self.chunks.front().map_or(0, |oldest| self.end - oldest.start)
    }

    /// Bytes that wait for this reader.
    pub fn behind(&self, cursor: &Cursor) -> u64 {
        let chunk = self.chunks.get((cursor.chunk - self.first) as usize);
        chunk.map_or(0, |chunk| self.end - chunk.start - cursor.at as u64)
    }

    /// What the reader misses, as far as there is room for it in `slices`; returns how many of them are filled.
    pub fn missing<'a>(&'a mut self, cursor: &mut Cursor, slices: &mut [IoSlice<'a>]) -> usize {
        self.settle(cursor);
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(self.pieces(cursor)) {
            *slice = IoSlice::new(&piece.bytes[piece.range]);
            filled += 1;
        }
        filled
    }

    /// What the reader misses next, in one piece: as it is in the log where the reader keeps up, and joined where it is behind.
    pub fn next(&mut self, cursor: &mut Cursor) -> Option<Bytes> {
        self.settle(cursor);
        let mut pieces = self.pieces(cursor);
        let first = pieces.next()?;
        let Some(second) = pieces.next().filter(|second| first.range.len() + second.range.len() <= JOINED) else {
            return Some(first.bytes.slice(first.range));
        };
        let mut joined = BytesMut::with_capacity(JOINED);
        for piece in [first, second].into_iter().chain(pieces) {
            if joined.len() + piece.range.len() > JOINED {
                break;
            }
            joined.extend_from_slice(&piece.bytes[piece.range]);
        }
        Some(joined.freeze())
    }

    /// The reader has sent so many bytes of what it missed.
    pub fn advance(&mut self, cursor: &mut Cursor, mut sent: usize) {
        loop {
            self.settle(cursor);
            if sent == 0 {
                return;
            }
            let piece = self.pieces(cursor).next().expect("no more was sent than is missing");
            let step = piece.range.len().min(sent);
            cursor.at += step;
            sent -= step;
        }
    }

    /// Moves the reader over its own messages and out of the chunks that it is through with.
    fn settle(&mut self, cursor: &mut Cursor) {
        let mut left = false;
        while let Some(chunk) = self.chunks.get_mut((cursor.chunk - self.first) as usize) {
            if cursor.at == chunk.bytes.len() {
                chunk.readers -= 1;
                (cursor.chunk, cursor.at) = (cursor.chunk + 1, 0);
                left = true;
                continue;
            }
            let run = chunk.runs.iter().find(|run| run.end > cursor.at).expect("the last run ends with the chunk");
            if run.source != cursor.source {
                break;
            }
            cursor.at = run.end;
        }
        if left {
            self.free();
        }
    }

    /// What others wrote from the cursor on; the pieces between which the reader itself wrote are apart.
    fn pieces(&self, cursor: &Cursor) -> impl Iterator<Item = Piece<'_>> {
        let (source, mut index, mut at) = (cursor.source, (cursor.chunk - self.first) as usize, cursor.at);
        std::iter::from_fn(move || {
            loop {
                let chunk = self.chunks.get(index)?;
                let (start, mut end) = (at, at);
                for run in chunk.runs.iter().filter(|run| run.end > start) {
                    if run.source == source {
                        break;
                    }
                    end = run.end;
                }
                // Behind the piece there is a run of its own, if anything.
                at = chunk.runs.iter().find(|run| run.end > end).map_or(end, |run| run.end);
                if at == chunk.bytes.len() {
                    (index, at) = (index + 1, 0);
                }
                if start < end {
                    return Some(Piece { bytes: &chunk.bytes, range: start..end });
                }
            }
        })
    }

    /// Frees the chunks that all have read.
    fn free(&mut self) {
        while self.chunks.front().is_some_and(|oldest| oldest.readers == 0) {
            self.chunks.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all that is missing, `step` bytes at a time, in both ways that there are.
    fn read(log: &mut Log, cursor: &mut Cursor, step: usize) -> String {
        let mut all = Vec::new();
        loop {
            let next = log.next(cursor).unwrap_or_default();
            let mut slices = [IoSlice::new(&[]); 64];
            let filled = log.missing(cursor, &mut slices);
            let listed = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
            assert!(listed.starts_with(&next), "both ways give the same");
            if next.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            let taken = step.min(next.len());
            all.extend_from_slice(&next[..taken]);
            log.advance(cursor, taken);
        }
    }

    #[test]
    fn each_reads_everything_but_its_own_at_any_pace() {
        for step in [1, 2, 3, 5, 100] {
            let mut log = Log::default();
            let mut cursors: Vec<_> = (0..4).map(|source| log.join(source)).collect();
            for chunk in [[(1, "ab"), (1, "cd"), (2, "ef")], [(3, "gh"), (1, "ij"), (3, "kl")], [(1, "mn"), (1, "op"), (1, "qr")]] {
                chunk.iter().for_each(|&(source, bytes)| log.append(source, bytes.as_bytes()));
                log.seal();
            }
            let read: Vec<_> = cursors.iter_mut().map(|cursor| read(&mut log, cursor, step)).collect();
            assert_eq!(read, ["abcdefghijklmnopqr", "efghkl", "abcdghijklmnopqr", "abcdefijmnopqr"], "by {step}");
            assert_eq!((log.chunks.len(), log.waiting(), log.first), (0, 0, 3), "all is freed");
        }
    }

    #[test]
    fn one_that_comes_later_starts_there_and_one_that_leaves_holds_nothing() {
        let mut log = Log::default();
        log.append(9, b"before anyone");
        let mut early = log.join(1);
        log.append(9, b"first");
        let mut late = log.join(2);
        log.append(9, b"second");
        log.seal();
        assert_eq!((log.behind(&early), log.behind(&late), log.waiting()), (11, 6, 11));
        assert_eq!(read(&mut log, &mut late, 100), "second");
        assert_eq!(log.waiting(), 11, "the early one has not read it");
        log.append(9, b"third");
        log.seal();
        log.advance(&mut early, 2);
        assert_eq!((log.behind(&early), log.waiting()), (14, 16));
        log.leave(early);
        assert_eq!(log.waiting(), 5, "what the late one still has to read");
        log.leave(late);
        assert_eq!((log.waiting(), log.chunks.len()), (0, 0));
        log.append(9, b"no one is there");
        log.seal();
        assert_eq!(log.chunks.len(), 0);
    }

    #[test]
    fn large_chunks_are_not_joined() {
        let mut log = Log::default();
        let mut cursor = log.join(0);
        for _ in 0..3 {
            log.append(1, &vec![b'x'; JOINED]);
            log.seal();
        }
        assert_eq!(log.next(&mut cursor).unwrap().len(), JOINED);
        log.advance(&mut cursor, JOINED - 1);
        assert_eq!(log.next(&mut cursor).unwrap().len(), 1, "together they would be more than is worth a copy");
        log.leave(cursor);
    }
}
