//! A run of bytes of one lane, in one of three places.

use crate::proto::log::{Cursor, Logs, walk};
use crate::wire::{Frame, frame_left};

/// What a stored span is charged, in claimed bytes, besides the bytes it stands for: many tiny sends must not grow past the bound.
pub(super) const SPAN_CHARGE: usize = size_of::<Span>();

#[derive(Debug)]
pub(super) enum Span {
    Log { lo: Cursor, hi: Cursor },
    Tail { len: usize, messages: u32 },
    Shared { frame: Frame, sent: usize },
}

impl Span {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Log { lo, hi } => (hi.position - lo.position) as usize,
            Self::Tail { len, .. } => *len,
            Self::Shared { frame, sent } => frame.as_bytes().len() - sent,
        }
    }

    pub(super) fn is_private(&self) -> bool {
        !matches!(self, Self::Log { .. })
    }

    pub(super) fn is_tail(&self) -> bool {
        matches!(self, Self::Tail { .. })
    }

    /// Messages that end in this span.
    pub(super) fn messages(&self) -> u64 {
        match self {
            Self::Log { lo, hi } => hi.sequence - lo.sequence,
            Self::Tail { messages, .. } => u64::from(*messages),
            Self::Shared { .. } => 1,
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
            Self::Shared { frame, sent } => {
                *sent += taken;
                (0, frame_left(frame.as_bytes(), *sent))
            }
        }
    }

    /// How many bytes there are from `from`, a border between frames inside this span, to the first border that is at least `wanted` bytes
    /// further. Fewer than `wanted` bytes there are not. `tail` begins where `from` is, if this is a tail span.
    pub(super) fn border(&self, lane: usize, logs: &Logs, tail: &[u8], from: usize, wanted: usize) -> usize {
        let left = match self {
            Self::Log { lo, .. } => logs.lane(lane - 1).place(lo.position + (from + wanted) as u64).1 as usize,
            Self::Tail { .. } => walk(tail, 0, wanted).1 as usize,
            Self::Shared { frame, sent } => frame_left(frame.as_bytes(), sent + from + wanted) as usize,
        };
        wanted + left
    }
}
