//! Bulk messages: made once by the server, asked for one at a time by the client, told apart by their slot.
//!
//! A megabyte takes a tenth of a millisecond to fill and to sum up, and the core that does it sends nothing meanwhile. That would be the
//! load generator's delay and not the library's, so a server makes a few messages beforehand and sends them in turn, by reference. A
//! message's sequence number is its slot, from which the receiver tells the number in the stream: a message that is lost, repeated or
//! overtaken leads to the wrong slot.

use corecast::{Context, Frame, Lane, Meta, PeerId};

use crate::payload;

/// The type of a bulk message.
pub(crate) const BULK: u16 = 3;
/// The type of a request for one. No request of the library's: what is asked for is a message, and nobody waits for an answer.
pub(crate) const PULL: u16 = 4;

/// Bytes of all messages of a ring, as far as [`FEWEST`] and [`MOST`] allow.
const RING_BYTES: usize = 16 << 20;
/// Messages of a ring: fewer could not tell a message that is missing from one that came again.
const FEWEST: usize = 4;
const MOST: usize = 64;
/// In a bulk message's header, in place of a sender and a run: the messages are the same for all.
const NOBODY: u32 = u32::MAX;

/// How many messages of `size` bytes make a ring.
fn slots(size: usize) -> u64 {
    (RING_BYTES / size.max(1)).clamp(FEWEST, MOST) as u64
}

/// One bulk message of `size` bytes, please: the one with this number in the asking peer's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pull {
    pub(crate) seq: u64,
    pub(crate) size: usize,
}

impl Pull {
    /// Type and lane of the request.
    pub(crate) fn meta() -> Meta {
        Meta::new(PULL)
    }

    pub(crate) fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.seq.to_le_bytes());
        out[8..].copy_from_slice(&(self.size as u64).to_le_bytes());
        out
    }

    /// Nothing where it is no request for a message of at most `max_message` bytes.
    pub(crate) fn decode(body: &[u8], max_message: usize) -> Option<Self> {
        let body: &[u8; 16] = body.try_into().ok()?;
        let seq = u64::from_le_bytes(*body.first_chunk()?);
        let size = usize::try_from(u64::from_le_bytes(*body.last_chunk()?)).ok()?;
        (payload::HEADER_LEN..=max_message).contains(&size).then_some(Self { seq, size })
    }
}

/// The bulk messages of one core of a server, all of one size: another one's are made when they are asked for.
#[derive(Default)]
pub(crate) struct Ring {
    size: usize,
    frames: Vec<Frame>,
}

impl Ring {
    /// Sends what was asked for, in the bulk lane. Returns whether it was taken.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, peer: PeerId, pull: Pull) -> bool {
        if self.size != pull.size {
            self.fill(cx, pull.size);
        }
        let frame = self.frames.get((pull.seq % slots(pull.size)) as usize);
        frame.is_some_and(|frame| cx.send_frame(peer, frame).is_ok())
    }

    #[cold]
    fn fill(&mut self, cx: &Context<'_>, size: usize) {
        let mut builder = payload::Builder::new(NOBODY, size);
        let meta = Meta::new(BULK).lane(Lane::Bulk);
        self.size = size;
        self.frames.clear();
        self.frames.extend((0..slots(size)).map_while(|slot| cx.frame(meta, builder.build(slot, NOBODY, 0)).ok()));
    }
}

/// The number in the stream of the bulk message with this body, where `next` is expected: the nearest with its slot. Nothing where the body
/// is damaged or of another size.
pub(crate) fn number(body: &[u8], size: usize, next: u64) -> Option<u64> {
    let header = payload::parse(body).filter(|header| body.len() == size && header.run == NOBODY && header.sender == NOBODY)?;
    let slots = slots(size);
    let slot = Some(header.seq).filter(|slot| *slot < slots)?;
    let ahead = next + (slot + slots - next % slots) % slots;
    // Before the first there is none: then it is one that is far ahead.
    let behind = ahead.checked_sub(slots).filter(|behind| next - behind < ahead - next);
    Some(behind.unwrap_or(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Builder;

    #[test]
    fn requests_travel_and_wrong_ones_do_not() {
        let pull = Pull { seq: 1 << 40, size: 4096 };
        assert_eq!(Pull::decode(&pull.encode(), 4096), Some(pull));
        assert_eq!(Pull::decode(&pull.encode(), 4095), None);
        assert_eq!(Pull::decode(&Pull { seq: 0, size: 31 }.encode(), 4096), None);
        assert_eq!(Pull::decode(&[0; 15], 4096), None);
    }

    #[test]
    fn a_slot_says_which_message_it_is() {
        let size = 4 << 20;
        assert_eq!(slots(size), 4);
        let mut builder = Builder::new(NOBODY, size);
        let mut numbers = |slot| {
            let body = builder.build(slot, NOBODY, 0).to_vec();
            [0, 1, 9, 10].map(|next| number(&body, size, next))
        };
        assert_eq!(numbers(0), [Some(0), Some(0), Some(8), Some(12)]);
        assert_eq!(numbers(1), [Some(1), Some(1), Some(9), Some(9)]);
        assert_eq!(numbers(2), [Some(2), Some(2), Some(10), Some(10)]);
        assert_eq!(numbers(3), [Some(3), Some(3), Some(11), Some(11)]);
        assert_eq!(numbers(4), [None; 4]);
        let mut body = builder.build(0, NOBODY, 0).to_vec();
        assert_eq!(number(&body, size - 1, 0), None);
        body[size - 1] ^= 1;
        assert_eq!(number(&body, size, 0), None);
        assert_eq!(number(Builder::new(1, size).build(0, NOBODY, 0), size, 0), None);
    }
}
