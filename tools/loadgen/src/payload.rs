//! The bytes of a workload's messages.
//!
//! ```text
//! offset  0      8         16       20    24     28         32
//!         seq    sent_at   sender   run   held   checksum   filler ...
//! ```
//!
//! All fields are little-endian. `sent_at` is when the message was to be sent, `held` how much later it was, in [`HELD_NS`]: a receiver
//! knows the response time and the service time, wherever it is. The filler differs from message to message, so that a fragment that ends
//! up in another message of the same length is noticed. The checksum covers everything but itself; it is fast and has no other merit.

use corecast::Topic;

/// Bytes before the filler, and so the smallest message.
pub(crate) const HEADER_LEN: usize = 32;
const HELD_AT: usize = 24;
const CHECKSUM_AT: usize = 28;
/// What `held` counts, nanoseconds: over a minute fits in it, and it is well below what a clock reading costs.
const HELD_NS: u64 = 16;
/// The filler begins somewhere in so many bytes of noise, by sequence number.
const NOISE_OFFSETS: u64 = 512;

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Position in its sender's stream, from 0.
    pub(crate) seq: u64,
    /// When it was sent or, with a fixed rate, should have been; see [`crate::clock::now_ns`].
    pub(crate) sent_at: u64,
    /// When it was given to the engine, which is `sent_at` in a closed loop.
    pub(crate) departed: u64,
    /// The sending peer's number in its run. Topics: the topic's, which has a stream of its own.
    pub(crate) sender: u32,
    /// The run that it belongs to: a fan-out server may serve several at once.
    pub(crate) run: u32,
}

/// Makes the messages of one core of one run, in one buffer.
pub(crate) struct Builder {
    run: u32,
    noise: Vec<u8>,
    buffer: Vec<u8>,
}

impl Builder {
    /// `size` is at least [`HEADER_LEN`]: the command line checks it.
    pub(crate) fn new(run: u32, size: usize) -> Self {
        assert!(size >= HEADER_LEN);
        let mut state = u64::from(run) | 1 << 40;
        let words = (size - HEADER_LEN).div_ceil(8) + NOISE_OFFSETS as usize;
        let noise = (0..words).flat_map(|_| split_mix(&mut state).to_le_bytes()).collect();
        Self { run, noise, buffer: vec![0; size] }
    }

    pub(crate) fn run(&self) -> u32 {
        self.run
    }

    pub(crate) fn size(&self) -> usize {
        self.buffer.len()
    }

    /// The message, sent when it was to be, until the next one is made.
    pub(crate) fn build(&mut self, seq: u64, sender: u32, sent_at: u64) -> &[u8] {
        self.build_late(seq, sender, sent_at, sent_at)
    }

    /// The same, sent only when it `departed`.
    pub(crate) fn build_late(&mut self, seq: u64, sender: u32, sent_at: u64, departed: u64) -> &[u8] {
        let (header, filler) = self.buffer.split_at_mut(HEADER_LEN);
        let offset = (seq % NOISE_OFFSETS) as usize * 8;
        filler.copy_from_slice(&self.noise[offset..offset + filler.len()]);
        header[0..8].copy_from_slice(&seq.to_le_bytes());
        header[8..16].copy_from_slice(&sent_at.to_le_bytes());
        header[16..20].copy_from_slice(&sender.to_le_bytes());
        header[20..24].copy_from_slice(&self.run.to_le_bytes());
        let held = u32::try_from(departed.saturating_sub(sent_at) / HELD_NS).unwrap_or(u32::MAX);
        header[HELD_AT..CHECKSUM_AT].copy_from_slice(&held.to_le_bytes());
        let sum = checksum(&header[..CHECKSUM_AT], filler);
        header[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
        &self.buffer
    }
}

/// The header of an undamaged message; nothing where the message is too short or its checksum is wrong.
pub(crate) fn parse(body: &[u8]) -> Option<Header> {
    let (header, filler) = body.split_at_checked(HEADER_LEN)?;
    let sum = half(&header[CHECKSUM_AT..]);
    if checksum(&header[..CHECKSUM_AT], filler) != sum {
        return None;
    }
    let ids = word(&header[16..]);
    let sent_at = word(&header[8..]);
    let departed = sent_at.saturating_add(u64::from(half(&header[HELD_AT..])) * HELD_NS);
    Some(Header { seq: word(header), sent_at, departed, sender: ids as u32, run: (ids >> 32) as u32 })
}

/// A topic of a run: a server may serve several runs at once.
pub(crate) fn topic(run: u32, number: u32) -> Topic {
    Topic(u64::from(run) << 32 | u64::from(number))
}

/// The topic of a message, damaged or not: it is for its subscribers to say that it is. Nothing where the message is too short.
pub(crate) fn topic_of(body: &[u8]) -> Option<Topic> {
    let (header, _) = body.split_at_checked(HEADER_LEN)?;
    Some(Topic(word(&header[16..])))
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"))
}

fn half(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(*bytes.first_chunk().expect("four bytes"))
}

/// Multiply and fold, eight bytes at a time, in four lanes: one lane would wait for each multiplication.
fn checksum(header: &[u8], filler: &[u8]) -> u32 {
    let mut lanes = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d];
    let mut blocks = filler.chunks_exact(32);
    for block in &mut blocks {
        for (lane, bytes) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            *lane = fold(*lane, word(bytes));
        }
    }
    let mut sum = lanes.into_iter().fold(filler.len() as u64, fold);
    for bytes in header.chunks(8).chain(blocks.remainder().chunks(8)) {
        let mut last = [0; 8];
        last[..bytes.len()].copy_from_slice(bytes);
        sum = fold(sum, u64::from_le_bytes(last));
    }
    (sum ^ sum >> 32) as u32
}

#[inline]
fn fold(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * 0xa076_1d64_78bd_642f_u128;
    // The addition keeps a state that happens to equal the word from erasing everything before it.
    (product as u64 ^ (product >> 64) as u64).wrapping_add(state.rotate_left(23))
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_it_was_made_of() {
        for size in [32, 33, 40, 63, 64, 65, 100, 16 << 10] {
            let mut builder = Builder::new(7, size);
            let body = builder.build(1 << 40, 9, 77).to_vec();
            assert_eq!(parse(&body), Some(Header { seq: 1 << 40, sent_at: 77, departed: 77, sender: 9, run: 7 }), "size {size}");
            assert_eq!(topic_of(&body), Some(topic(7, 9)));
        }
    }

    #[test]
    fn a_message_says_when_it_was_due_and_when_it_went() {
        let mut builder = Builder::new(7, 32);
        let mut times = |due, departed| {
            let header = parse(builder.build_late(1, 2, due, departed)).expect("it is whole");
            (header.sent_at, header.departed)
        };
        assert_eq!(times(1_000, 1_000 + 5 * HELD_NS), (1_000, 1_000 + 5 * HELD_NS));
        assert_eq!(times(1_000, 999), (1_000, 1_000));
        // What was held up for longer than fits was held up for that at least.
        assert_eq!(times(0, u64::MAX), (0, u64::from(u32::MAX) * HELD_NS));
    }

    #[test]
    fn every_flipped_bit_and_every_lost_byte_is_noticed() {
        let mut builder = Builder::new(3, 111);
        let body = builder.build(5, 1, 2).to_vec();
        for at in 0..body.len() {
            for bit in 0..8 {
                let mut damaged = body.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(parse(&damaged), None, "byte {at} bit {bit}");
            }
            assert_eq!(parse(&body[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn messages_of_one_stream_have_different_fillers() {
        let mut builder = Builder::new(3, 4096);
        let first = builder.build(1, 0, 0).to_vec();
        let mut mixed = builder.build(2, 0, 0).to_vec();
        mixed[2048..].copy_from_slice(&first[2048..]);
        assert_eq!(parse(&mixed), None);
    }
}
