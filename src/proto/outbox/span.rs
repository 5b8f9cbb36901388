//! A run of bytes of one lane, in one of three places.

use std::sync::Arc;
use std::time::Duration;

use crate::proto::log::{Cursor, Logs, walk};
use crate::time::Timestamp;
use crate::wire::{Frame, frame_left};

/// What a stored span is charged, in claimed bytes, besides the bytes it stands for: many tiny sends must not grow past the bound.
pub(super) const SPAN_CHARGE: usize = size_of::<Span>();
/// What a message with terms is charged beyond that. It stays an allocation of its own, with a head of 16 bytes; and its lane's index of
/// keys has at most two entries for it, of up to 48 bytes each in a tree. Memory may be twice what is charged.
pub(crate) const TERMS_CHARGE: usize = 64;

#[derive(Debug)]
pub(super) enum Span {
    /// Messages of the lane's log.
    Log { lo: Cursor, hi: Cursor },
    /// Messages of the lane's own tail; its spans are there in order.
    Tail { len: usize, messages: u32 },
    /// One message, by reference.
    Shared(Shared),
}

/// A message that is not copied, and its terms: packed, so that a span is no larger than two cursors and a tag.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bytes: Arc<[u8]>,
    /// From then on it is dropped, if none of it has left.
    pub(super) expiry: Option<Timestamp>,
    key: u64,
    has_key: bool,
    /// Bytes that have left: a message is 16 MiB at most, and its headers.
    pub(super) sent: u32,
}

impl Shared {
    pub(super) fn new(frame: &Frame, now: Timestamp) -> Self {
        let key = frame.key();
        // In the turn in which its time is up it may still leave: it is a nanosecond later that it may not.
        let expiry = frame.ttl().map(|ttl| now + ttl + Duration::from_nanos(1));
        Self { bytes: frame.share(), expiry, key: key.unwrap_or_default(), has_key: key.is_some(), sent: 0 }
    }

    /// A message without terms, of which so many bytes have left.
    pub(super) fn begun(bytes: Arc<[u8]>, sent: usize) -> Self {
        Self { bytes, expiry: None, key: 0, has_key: false, sent: sent as u32 }
    }

    pub(super) fn key(&self) -> Option<u64> {
        self.has_key.then_some(self.key)
    }

    pub(super) fn has_terms(&self) -> bool {
        self.has_key || self.expiry.is_some()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.sent > 0
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.sent as usize..]
    }
}

impl Span {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Log { lo, hi } => (hi.position - lo.position) as usize,
            Self::Tail { len, .. } => *len,
            Self::Shared(shared) => shared.rest().len(),
        }
    }

    pub(super) fn is_private(&self) -> bool {
        !matches!(self, Self::Log { .. })
    }

    pub(super) fn is_tail(&self) -> bool {
        matches!(self, Self::Tail { .. })
    }

    /// What it is charged besides its bytes.
    #[inline]
    pub(super) fn charge(&self) -> usize {
        match self {
            Self::Shared(shared) if shared.has_terms() => SPAN_CHARGE + TERMS_CHARGE,
            _ => SPAN_CHARGE,
        }
    }

    /// The conflation key, if it is a message that has one.
    pub(super) fn key(&self) -> Option<u64> {
        if let Self::Shared(shared) = self { shared.key() } else { None }
    }

    /// Messages that end in this span.
    pub(super) fn messages(&self) -> u64 {
        match self {
            Self::Log { lo, hi } => hi.sequence - lo.sequence,
            Self::Tail { messages, .. } => u64::from(*messages),
            Self::Shared(_) => 1,
        }
    }

    /// Takes `taken` bytes off, fewer than all. Returns the messages that end in them, and what is left of the frame in which that ends.
    /// `begun` bytes at the front finish a frame; `tail` begins where a tail span at the front of its queue does.
    pub(super) fn take_off(&mut self, lane: usize, logs: &Logs, tail: &[u8], taken: usize, begun: u32) -> (u64, u32) {
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
            Self::Shared(shared) => {
                shared.sent += taken as u32;
                (0, frame_left(&shared.bytes, shared.sent as usize))
            }
        }
    }

    /// How many bytes there are from `from`, a border between frames inside this span, to the first border that is at least `wanted` bytes
    /// further. Fewer than `wanted` bytes there are not. `tail` begins where `from` is, if this is a tail span.
    pub(super) fn border(&self, lane: usize, logs: &Logs, tail: &[u8], from: usize, wanted: usize) -> usize {
        let left = match self {
            Self::Log { lo, .. } => logs.lane(lane - 1).place(lo.position + (from + wanted) as u64).1 as usize,
            Self::Tail { .. } => walk(tail, 0, wanted).1 as usize,
            Self::Shared(shared) => frame_left(&shared.bytes, shared.sent as usize + from + wanted) as usize,
        };
        wanted + left
    }
}
