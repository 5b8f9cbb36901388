//! Received bytes to frames, in place.

use super::{HEADER_LEN, Header};
use crate::buffers::BufferPool;
use crate::error::DecodeError;

/// A frame whose payload is still where it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameRef<'a> {
    pub(crate) header: Header,
    /// The bytes after the header.
    pub(crate) payload: &'a [u8],
}

/// Cuts a byte stream into frames.
///
/// Whole frames are handed out as slices of the caller's receive buffer. Only a frame that the buffer ends in the middle of is
/// copied, into a tail, and completed from the next read. The tail's bytes are the core's pool's, and grow with what arrives. A decoder
/// between frames holds none. One that has not needed a tail for a while is one word: see [`FrameDecoder::tidy`].
#[derive(Debug, Default)]
pub(crate) struct FrameDecoder {
    tail: Option<Box<Tail>>,
}

/// In one of three states: empty; an unfinished frame (`served` is 0); or a frame that was handed out by the last `next` and is dropped
/// by the following one (`served` is its length).
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    served: usize,
}

impl FrameDecoder {
    /// Memory besides itself, and besides what the pool has lent it.
    pub(crate) const TAIL: usize = size_of::<Tail>();

    /// The next whole frame of `input`, from position `at`, which moves on by what was used. `None` when all of it is used up.
    #[inline]
    pub(crate) fn next<'a>(
        &'a mut self,
        pool: &mut BufferPool,
        input: &'a [u8],
        at: &mut usize,
    ) -> Result<Option<FrameRef<'a>>, DecodeError> {
        if self.is_held() { self.next_held(pool, input, at) } else { self.next_in_place(pool, input, at) }
    }

    /// The next frame, where it is a whole message that breaks no rule and stands whole in `input`, and nothing is held. Else nothing has
    /// happened, and it is `next`'s.
    // Always: then neither the frame nor its header has to be put together.
    #[inline(always)]
    pub(crate) fn next_whole<'a>(&self, input: &'a [u8], at: &mut usize) -> Option<FrameRef<'a>> {
        if self.is_held() {
            return None;
        }
        let bytes = input.get(*at..)?;
        let header = Header::decode_whole(*bytes.first_chunk()?)?;
        let payload = bytes[HEADER_LEN..].get(..header.len as usize)?;
        *at += HEADER_LEN + payload.len();
        Some(FrameRef { header, payload })
    }

    // Always: `next` is a test and this.
    #[inline(always)]
    fn next_in_place<'a>(&mut self, pool: &mut BufferPool, input: &'a [u8], at: &mut usize) -> Result<Option<FrameRef<'a>>, DecodeError> {
        let bytes = &input[*at..];
        if let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
            let header = Header::decode(*head)?;
            let end = HEADER_LEN + header.len as usize;
            if let Some(frame) = bytes.get(..end) {
                *at += end;
                return Ok(Some(FrameRef { header, payload: &frame[HEADER_LEN..] }));
            }
        }
        self.keep(pool, bytes);
        *at = input.len();
        Ok(None)
    }

    /// With something in the tail: what was handed out is dropped, what is unfinished is completed.
    #[cold]
    fn next_held<'a>(&'a mut self, pool: &mut BufferPool, input: &'a [u8], at: &mut usize) -> Result<Option<FrameRef<'a>>, DecodeError> {
        if self.is_partial() {
            return self.tail().complete(pool, input, at);
        }
        self.release(pool);
        self.next_in_place(pool, input, at)
    }

    /// Puts what was not looked at aside, because the peer is not to be read for now.
    pub(crate) fn park(&mut self, pool: &mut BufferPool, rest: &[u8]) {
        if !self.is_partial() {
            self.release(pool);
        }
        self.keep(pool, rest);
    }

    /// The same, with the frame that was handed out last: `frame` where it stood in the input, `rest` after it.
    pub(crate) fn park_again(&mut self, pool: &mut BufferPool, frame: &[u8], rest: &[u8]) {
        let tail = self.tail();
        let frame = if tail.served == 0 { frame } else { &[] };
        tail.served = 0;
        let held = tail.bytes.len() + frame.len() + rest.len();
        pool.grow(&mut tail.bytes, held);
        tail.bytes.extend_from_slice(frame);
        tail.bytes.extend_from_slice(rest);
    }

    /// What was put aside, to be given to `next` as input before anything that is read later. The buffer is the pool's.
    pub(crate) fn unpark(&mut self) -> Vec<u8> {
        let Some(tail) = &mut self.tail else { return Vec::new() };
        debug_assert_eq!(tail.served, 0, "reading goes on until nothing is handed out");
        std::mem::take(&mut tail.bytes)
    }

    /// Gives the tail's memory back.
    pub(crate) fn release(&mut self, pool: &mut BufferPool) {
        if let Some(tail) = &mut self.tail {
            pool.give_back(std::mem::take(&mut tail.bytes));
            tail.served = 0;
        }
    }

    /// Gives back memory that nothing is in. To be called now and then, so that a tail with each read costs no allocation.
    pub(crate) fn tidy(&mut self) {
        self.tail.take_if(|tail| tail.bytes.capacity() == 0);
    }

    /// Bytes of memory that are held between reads.
    pub(crate) fn held(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.bytes.capacity())
    }

    #[inline]
    fn is_held(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| !tail.bytes.is_empty())
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| !tail.bytes.is_empty() && tail.served == 0)
    }

    /// How long the unfinished frame will be, header included; what is known of it where its header is not whole yet.
    pub(crate) fn partial_len(&self) -> usize {
        match &self.tail {
            Some(tail) if tail.bytes.len() >= HEADER_LEN => Header::frame_len(&tail.bytes),
            _ => HEADER_LEN,
        }
    }

    fn tail(&mut self) -> &mut Tail {
        self.tail.get_or_insert_default()
    }

    #[inline]
    fn keep(&mut self, pool: &mut BufferPool, rest: &[u8]) {
        if !rest.is_empty() {
            pool.extend(&mut self.tail().bytes, rest);
        }
    }
}

impl Tail {
    fn complete<'a>(&'a mut self, pool: &mut BufferPool, input: &'a [u8], at: &mut usize) -> Result<Option<FrameRef<'a>>, DecodeError> {
        if !self.fill(pool, HEADER_LEN, input, at) {
            return Ok(None);
        }
        let header = Header::decode(*self.bytes.first_chunk().expect("filled above"))?;
        let end = HEADER_LEN + header.len as usize;
        if !self.fill(pool, end, input, at) {
            return Ok(None);
        }
        self.served = end;
        Ok(Some(FrameRef { header, payload: &self.bytes[HEADER_LEN..end] }))
    }

    /// Moves bytes into the tail until it has `want`; says whether it has.
    fn fill(&mut self, pool: &mut BufferPool, want: usize, input: &[u8], at: &mut usize) -> bool {
        let missing = want.saturating_sub(self.bytes.len());
        let end = input.len().min(*at + missing);
        pool.extend(&mut self.bytes, &input[*at..end]);
        *at = end;
        self.bytes.len() >= want
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Draft, Kind, Meta, append_message};
    use super::*;
    use crate::buffers::{MEDIUM, SMALL};

    fn stream() -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        for (index, len) in [0, 1, 7, 8, 300, 2000].into_iter().enumerate() {
            append_message(&mut bytes, Draft::data(Meta::new(index as u16), &vec![index as u8; len]), 1024);
        }
        append_message(&mut bytes, Draft::new(Kind::Request, Meta::new(9), Some(u64::MAX), b"request"), 1024);
        bytes.extend_from_slice(&Header::control(Kind::Ping).encode());
        bytes.extend_from_slice(&[1; 8]);
        (bytes, 9)
    }

    fn decode(chunks: &[&[u8]]) -> Vec<(Header, Vec<u8>)> {
        let (mut decoder, mut pool) = (FrameDecoder::default(), BufferPool::new(0));
        let mut frames = Vec::new();
        for chunk in chunks {
            let mut at = 0;
            while let Some(frame) = decoder.next(&mut pool, chunk, &mut at).unwrap() {
                frames.push((frame.header, frame.payload.to_vec()));
            }
            assert_eq!(at, chunk.len());
        }
        assert!(!decoder.is_partial());
        frames
    }

    #[test]
    fn every_cut_in_two_and_single_bytes_give_the_same_frames() {
        let (bytes, count) = stream();
        let whole = decode(&[&bytes]);
        assert_eq!(whole.len(), count);
        for cut in 0..=bytes.len() {
            assert_eq!(decode(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(decode(&bytes.chunks(1).collect::<Vec<_>>()), whole);
        assert_eq!(decode(&bytes.chunks(7).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn a_decoder_between_frames_holds_nothing() {
        let (bytes, _) = stream();
        let (mut decoder, mut pool) = (FrameDecoder::default(), BufferPool::new(0));
        for chunk in bytes.chunks(100) {
            let mut at = 0;
            while decoder.next(&mut pool, chunk, &mut at).unwrap().is_some() {}
        }
        assert_eq!((decoder.held(), pool.lent()), (0, 0));
    }

    #[test]
    fn one_that_is_tidied_keeps_what_is_unfinished() {
        let (bytes, _) = stream();
        let (mut decoder, mut pool) = (FrameDecoder::default(), BufferPool::new(0));
        assert_eq!(size_of::<FrameDecoder>(), 8);
        assert!(decoder.next(&mut pool, &bytes[..3], &mut 0).unwrap().is_none());
        decoder.tidy();
        assert!(decoder.is_partial());
        let mut at = 3;
        while decoder.next(&mut pool, &bytes, &mut at).unwrap().is_some() {}
        assert!(decoder.tail.is_some());
        decoder.tidy();
        assert!(decoder.tail.is_none() && !decoder.is_partial());
    }

    #[test]
    fn the_memory_of_an_unfinished_frame_grows_with_what_arrives() {
        let mut bytes = Vec::new();
        append_message(&mut bytes, Draft::data(Meta::new(1), &[0; 30_000]), 32 << 10);
        let (mut decoder, mut pool) = (FrameDecoder::default(), BufferPool::new(0));
        assert!(decoder.next(&mut pool, &bytes[..20], &mut 0).unwrap().is_none());
        assert!(decoder.is_partial());
        assert_eq!((decoder.partial_len(), decoder.held()), (30_008, SMALL), "not what is announced");
        assert!(decoder.next(&mut pool, &bytes[20..20_000], &mut 0).unwrap().is_none());
        assert_eq!((decoder.held(), pool.lent()), (MEDIUM, MEDIUM));
        assert!(decoder.next(&mut pool, &bytes[20_000..], &mut 0).unwrap().is_some());
        assert!(decoder.next(&mut pool, &[], &mut 0).unwrap().is_none());
        assert_eq!((decoder.held(), pool.lent()), (0, 0));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_the_header_alone() {
        let (mut decoder, mut pool) = (FrameDecoder::default(), BufferPool::new(0));
        let input = [0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 0, 0];
        assert_eq!(decoder.next(&mut pool, &input, &mut 0).unwrap_err(), DecodeError::FrameTooLong { len: u32::MAX });
        assert_eq!(decoder.held(), 0);
    }
}
