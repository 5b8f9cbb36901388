//! A message, encoded once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{CORRELATION_LEN, DEFAULT_FRAGMENT, HEADER_LEN, Header, Kind, Lane, MAX_MESSAGE, Meta, TOTAL_LEN};

/// Why a message could not be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is longer than `max` bytes: `Limits::max_message`, or 16 MiB where no configuration is involved.
    TooLong {
        /// Bytes of the body.
        len: usize,
        /// The most that is allowed.
        max: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len, max } => write!(
                f,
                "a message of {len} bytes is longer than the {max} that are allowed; split it or raise Limits::max_message on both sides"
            ),
        }
    }
}

impl std::error::Error for FrameError {}

/// A message before it is encoded: the body still where the caller has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) kind: Kind,
    pub(crate) meta: Meta,
    /// Given exactly where `kind` has one.
    pub(crate) correlation: Option<u64>,
    pub(crate) body: &'a [u8],
}

impl<'a> Draft<'a> {
    pub(crate) fn new(kind: Kind, meta: Meta, correlation: Option<u64>, body: &'a [u8]) -> Self {
        debug_assert_eq!(kind.has_correlation(), correlation.is_some());
        Self { kind, meta, correlation, body }
    }

    pub(crate) fn data(meta: Meta, body: &'a [u8]) -> Self {
        Self::new(Kind::Data, meta, None, body)
    }

    pub(crate) fn request(meta: Meta, correlation: u64, body: &'a [u8]) -> Self {
        Self::new(Kind::Request, meta, Some(correlation), body)
    }

    /// `id` names the message for ever, together with the sender's instance.
    pub(crate) fn acked(meta: Meta, id: u64, body: &'a [u8]) -> Self {
        Self::new(Kind::Acked, meta, Some(id), body)
    }

    pub(crate) fn response(meta: Meta, correlation: u64, body: &'a [u8]) -> Self {
        Self::new(Kind::Response, meta, Some(correlation), body)
    }
}

/// A message in its wire form: encoded once, shared by every core and every peer that it goes to.
///
/// Cloning is one atomic increment. The bytes include the headers of all fragments, so nothing is encoded again, however many peers
/// the frame reaches.
///
/// A frame may have terms, which stay at the sender: how long it is worth sending ([`Frame::with_ttl`]), and what later frames it gives way
/// to ([`Frame::with_key`]). A frame with terms never enters the broadcast log, and is not copied however small it is: each peer that it
/// goes to has a reference of its own.
#[derive(Clone)]
pub struct Frame {
    /// One allocation: reference counts and wire bytes.
    bytes: Arc<[u8]>,
    terms: Terms,
}

/// What a frame says to its sender, in 16 bytes: frames are moved and cloned on every path.
#[derive(Clone, Copy)]
struct Terms {
    /// Nanoseconds, or `NO_TTL`; and `KEYED`.
    ttl: u64,
    key: u64,
}

impl Terms {
    const KEYED: u64 = 1 << 63;
    const NO_TTL: u64 = Self::KEYED - 1;
    const NONE: Self = Self { ttl: Self::NO_TTL, key: 0 };
}

impl Frame {
    /// What the frame, or its first fragment, is.
    pub(crate) fn kind(&self) -> Kind {
        let header = self.bytes.first_chunk().map(|header| super::Header::decode(*header));
        header.and_then(Result::ok).expect("this side encoded it").kind
    }

    /// Encodes a message with the default cut of 16 KiB.
    ///
    /// One allocation. Fails only where `body` is longer than the protocol's ceiling of 16 MiB; whether it fits an engine's own
    /// `max_message`, and the peer's, is checked when it is sent.
    pub fn new(meta: impl Into<Meta>, body: &[u8]) -> Result<Self, FrameError> {
        Self::encode(Draft::data(meta.into(), body), DEFAULT_FRAGMENT)
    }

    pub(crate) fn encode(draft: Draft<'_>, cut: usize) -> Result<Self, FrameError> {
        let Draft { correlation, body, .. } = draft;
        if body.len() > MAX_MESSAGE {
            return Err(FrameError::TooLong { len: body.len(), max: MAX_MESSAGE });
        }
        let len = message_wire_len(correlation.is_some(), body.len(), cut);
        // An exact-size iterator makes the one allocation; the bytes are written in place afterwards.
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        let out = Arc::get_mut(&mut bytes).expect("a new allocation has one owner");
        let mut at = 0;
        each_piece(draft, cut, |piece| {
            out[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        });
        debug_assert_eq!(at, len);
        Ok(Self { bytes, terms: Terms::NONE })
    }

    /// The same frame, worth sending for so long: where more time than that has passed since the core that has the peer took the frame, and
    /// none of it has left, it is dropped whole and counted. A message of which a part has left is sent to its end.
    ///
    /// Default: no limit. Zero: it leaves in the turn in which the core took it, or not at all. Longer than 292 years is 292 years.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        let nanos = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX).min(Terms::NO_TTL - 1);
        self.terms.ttl = self.terms.ttl & Terms::KEYED | nanos;
        self
    }

    /// The same frame with a conflation key: where the lane's policy is to conflate, it takes the place of an older frame of the same key
    /// that waits in the same lane for the same peer, if none of that has left. Default: none, which gives way to nothing.
    #[must_use]
    pub fn with_key(mut self, key: u64) -> Self {
        self.terms = Terms { ttl: self.terms.ttl | Terms::KEYED, key };
        self
    }

    /// How long the frame is worth sending: see [`Frame::with_ttl`].
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        let nanos = self.terms.ttl & !Terms::KEYED;
        (nanos != Terms::NO_TTL).then(|| Duration::from_nanos(nanos))
    }

    /// The conflation key: see [`Frame::with_key`].
    #[must_use]
    pub fn key(&self) -> Option<u64> {
        (self.terms.ttl & Terms::KEYED != 0).then_some(self.terms.key)
    }

    /// Whether the frame has a time to live or a key, and so no place in a log.
    #[inline]
    pub(crate) fn has_terms(&self) -> bool {
        self.terms.ttl != Terms::NO_TTL
    }

    /// The wire bytes, shared.
    pub(crate) fn share(&self) -> Arc<[u8]> {
        Arc::clone(&self.bytes)
    }

    /// The wire bytes: every fragment with its header.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Type and lane.
    #[must_use]
    pub fn meta(&self) -> Meta {
        let header = self.header();
        Meta::new(header.message_type).lane(header.lane.unwrap_or_default())
    }

    /// Bytes of the message's body, without headers.
    #[must_use]
    pub fn body_len(&self) -> usize {
        let header = self.header();
        let correlation = if header.kind.has_correlation() { CORRELATION_LEN } else { 0 };
        if header.more {
            let total = &self.bytes[HEADER_LEN..HEADER_LEN + TOTAL_LEN];
            u32::from_le_bytes([total[0], total[1], total[2], total[3]]) as usize
        } else {
            header.len as usize - correlation
        }
    }

    /// The lane that the frame was encoded for.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.header().lane.unwrap_or_default()
    }

    /// Whether the receiver acknowledges it: see [`crate::Context::send_acked`], which makes such frames itself.
    #[must_use]
    pub fn requires_ack(&self) -> bool {
        self.header().kind == Kind::Acked
    }

    /// Whether it answers a request.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.header().kind == Kind::Response
    }

    /// Whether it was encoded for the high lane.
    #[must_use]
    pub fn is_high_priority(&self) -> bool {
        self.lane() == Lane::High
    }

    fn header(&self) -> Header {
        let first = self.bytes.first_chunk().expect("a frame begins with a header");
        Header::decode(*first).expect("this side encoded the header")
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Frame");
        debug.field("meta", &self.meta()).field("body_len", &self.body_len());
        if self.has_terms() {
            debug.field("ttl", &self.ttl()).field("key", &self.key());
        }
        debug.finish()
    }
}

/// How many bytes a message takes on the wire, headers of all fragments included.
#[inline]
pub(crate) fn message_wire_len(has_correlation: bool, body: usize, cut: usize) -> usize {
    let correlation = if has_correlation { CORRELATION_LEN } else { 0 };
    if correlation + body <= cut {
        return HEADER_LEN + correlation + body;
    }
    let fragments = (TOTAL_LEN + correlation + body).div_ceil(cut);
    fragments * HEADER_LEN + TOTAL_LEN + correlation + body
}

/// How many bytes the frame that `offset` is inside of has from there on, in one message's wire bytes; zero between frames.
///
/// Every fragment but the last is as long as the first, so no header in between is looked at.
#[inline]
pub(crate) fn frame_left(message: &[u8], offset: usize) -> u32 {
    let end = offset.next_multiple_of(Header::frame_len(message)).min(message.len());
    (end - offset) as u32
}

/// Appends a message to `out`, cut into fragments where it is longer than `cut` bytes.
#[inline]
pub(crate) fn append_message(out: &mut Vec<u8>, draft: Draft<'_>, cut: usize) {
    let Draft { kind, meta, correlation, body } = draft;
    if correlation.is_none() && body.len() <= cut {
        // The common case: one header, one body, no loop.
        out.extend_from_slice(&Header::message(kind, meta, false, body.len()).encode());
        out.extend_from_slice(body);
        return;
    }
    each_piece(draft, cut, |piece| out.extend_from_slice(piece));
}

/// The pieces of a message in wire order. Both encoders are made of it, so the two cannot drift apart.
fn each_piece(draft: Draft<'_>, cut: usize, mut put: impl FnMut(&[u8])) {
    let Draft { kind, meta, correlation, body } = draft;
    let mut prefix = [0; TOTAL_LEN + CORRELATION_LEN];
    let mut prefix_len = 0;
    let whole = body.len() + correlation.map_or(0, |_| CORRELATION_LEN) <= cut;
    if !whole {
        prefix[..TOTAL_LEN].copy_from_slice(&(body.len() as u32).to_le_bytes());
        prefix_len = TOTAL_LEN;
    }
    if let Some(correlation) = correlation {
        prefix[prefix_len..prefix_len + CORRELATION_LEN].copy_from_slice(&correlation.to_le_bytes());
        prefix_len += CORRELATION_LEN;
    }
    let first = body.len().min(cut - prefix_len);
    let (mut chunk, mut rest) = body.split_at(first);
    put(&Header::message(kind, meta, !whole, prefix_len + first).encode());
    put(&prefix[..prefix_len]);
    put(chunk);
    while !rest.is_empty() {
        (chunk, rest) = rest.split_at(rest.len().min(cut));
        put(&Header::message(Kind::Fragment, meta, !rest.is_empty(), chunk.len()).encode());
        put(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_known_before_encoding() {
        for cut in [1024, 4096, 16384] {
            for body_len in [0, 1, cut - 13, cut - 12, cut - 9, cut - 8, cut - 4, cut, cut + 1, 2 * cut - 4, 2 * cut, 5 * cut + 3] {
                let body = vec![7; body_len];
                for correlation in [None, Some(9)] {
                    let kind = if correlation.is_some() { Kind::Request } else { Kind::Data };
                    let frame = Frame::encode(Draft::new(kind, Meta::new(3), correlation, &body), cut).unwrap();
                    assert_eq!(frame.as_bytes().len(), message_wire_len(correlation.is_some(), body_len, cut));
                    assert_eq!(frame.body_len(), body_len, "cut {cut} correlation {correlation:?}");
                    let mut appended = Vec::new();
                    append_message(&mut appended, Draft::new(kind, Meta::new(3), correlation, &body), cut);
                    assert_eq!(appended, frame.as_bytes());
                }
            }
        }
    }

    #[test]
    fn what_is_left_of_a_frame_is_what_its_headers_say() {
        for body_len in [0, 1, 1015, 1016, 1024, 1025, 2035, 2036, 2037, 2048, 3000, 10_000] {
            for correlation in [None, Some(9)] {
                let kind = if correlation.is_some() { Kind::Request } else { Kind::Data };
                let frame = Frame::encode(Draft::new(kind, Meta::new(3), correlation, &vec![7; body_len]), 1024).unwrap();
                let bytes = frame.as_bytes();
                let mut border = 0;
                for offset in 0..=bytes.len() {
                    assert_eq!(frame_left(bytes, offset) as usize, border - offset, "{offset} of {body_len}");
                    if offset == border && border < bytes.len() {
                        border += Header::frame_len(&bytes[border..]);
                    }
                }
            }
        }
    }

    #[test]
    fn terms_are_kept_apart_and_do_not_touch_the_bytes() {
        assert!(size_of::<Frame>() <= 32);
        let plain = Frame::new(1, b"body").unwrap();
        assert_eq!((plain.ttl(), plain.key(), plain.has_terms()), (None, None, false));
        for ttl in [None, Some(Duration::ZERO), Some(Duration::from_nanos(1)), Some(Duration::from_secs(1 << 33))] {
            for key in [None, Some(0), Some(7), Some(u64::MAX)] {
                let timed = ttl.map_or(plain.clone(), |ttl| plain.clone().with_ttl(ttl));
                let both = key.map_or(timed.clone(), |key| timed.with_key(key));
                assert_eq!((both.ttl(), both.key()), (ttl, key));
                assert_eq!(both.has_terms(), ttl.is_some() || key.is_some());
                assert_eq!(both.as_bytes(), plain.as_bytes());
                let again = both.with_key(9).with_ttl(Duration::from_secs(2));
                assert_eq!((again.ttl(), again.key()), (Some(Duration::from_secs(2)), Some(9)));
            }
        }
        let longest = plain.with_ttl(Duration::MAX).ttl().unwrap();
        assert!(longest > Duration::from_secs(292 * 365 * 24 * 3600));
    }

    #[test]
    fn a_body_over_the_ceiling_is_refused_before_it_is_copied() {
        let body = vec![0; MAX_MESSAGE + 1];
        assert_eq!(Frame::new(1, &body).unwrap_err(), FrameError::TooLong { len: MAX_MESSAGE + 1, max: MAX_MESSAGE });
    }
}
