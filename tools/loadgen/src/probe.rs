//! What a client asks a `corecast-loadgen` server about itself, by the library's own requests.
//!
//! These need it: that a peer is *established at the server* (the dialler's side is ready first, and a broadcast before that
//! would miss the peer), that the server runs in the mode that the workload needs, and what only the server knows: its processor time,
//! what a sink received, and why it cut peers off.

use std::collections::BTreeMap;

use corecast::{Lane, Meta};

use crate::machine::CpuTime;
use crate::server::Mode;
use crate::verify::Tally;

/// The messages that are measured and verified.
pub(crate) const DATA: u16 = 1;
/// The requests of this module.
const PROBE: u16 = 2;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Who are you? Answered as soon as the asking peer is established.
    Greet,
    /// How are you, all your cores?
    Sample,
    /// The same, and begin your latency histogram anew.
    SampleAndReset,
    /// What came from the asking peer? Asked in the lane of the messages, so that it is answered after the last of them.
    Tally,
    /// What have you counted? The answer is no [`Sample`]: see [`encode_counters`].
    Counters,
    /// How much memory does your process have? The answer is a number of bytes in eight; zero where the system does not say.
    Memory,
}

impl Question {
    const ALL: [Question; 6] = [Self::Greet, Self::Sample, Self::SampleAndReset, Self::Tally, Self::Counters, Self::Memory];

    /// Type and lane of the request: samples overtake the messages, a tally must not.
    pub(crate) fn meta(self) -> Meta {
        let lane = if self == Self::Tally { Lane::Normal } else { Lane::High };
        Meta::new(PROBE).lane(lane)
    }

    /// Asked by a peer of this run: what a sink has received is told by run.
    pub(crate) fn encode(self, run: u32) -> [u8; 5] {
        let [a, b, c, d] = run.to_le_bytes();
        [self as u8, a, b, c, d]
    }

    pub(crate) fn decode(meta: Meta, body: &[u8]) -> Option<(Self, u32)> {
        let [code, run @ ..] = *<&[u8; 5]>::try_from(body).ok()?;
        let question = Self::ALL.get(usize::from(code)).copied().filter(|_| meta.message_type == PROBE)?;
        Some((question, u32::from_le_bytes(run)))
    }
}

/// Everything that a server has counted, whatever is not zero, by name.
pub(crate) type Counters = BTreeMap<String, u64>;

/// By name, so that client and server need not know the same counters.
pub(crate) fn encode_counters(counters: &Counters) -> Vec<u8> {
    serde_json::to_vec(counters).expect("text and numbers")
}

pub(crate) fn decode_counters(body: &[u8]) -> Option<Counters> {
    serde_json::from_slice(body).ok()
}

/// The answer to every question but two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// A [`Mode`], as [`Mode::code`] numbers it.
    pub(crate) mode: u64,
    /// See [`crate::machine::boot_id`]: whether the two clocks are one.
    pub(crate) boot_id: u64,
    /// The server's clock when it answered.
    pub(crate) clock_ns: u64,
    /// Processor time of all cores since the server began.
    pub(crate) cpu: CpuTime,
    /// What arrived at a sink: of all peers of the asking one's run, or of the asking one.
    pub(crate) tally: Tally,
    /// Send to arrival, p50 p90 p99 p99.9 max, since the last reset. Sinks only.
    pub(crate) latency: [u64; 5],
}

/// Tells samples from other answers, and versions of them from each other.
const MAGIC: u64 = u64::from_le_bytes(*b"ccload03");
const WORDS: usize = 15;
/// Bytes of an encoded sample.
pub(crate) const SAMPLE_LEN: usize = WORDS * 8;

impl Sample {
    pub(crate) fn mode(&self) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.code() == self.mode)
    }

    pub(crate) fn encode(&self) -> [u8; SAMPLE_LEN] {
        let tally = &self.tally;
        let [p50, p90, p99, p999, max] = self.latency;
        let words: [u64; WORDS] = [
            MAGIC,
            self.mode,
            self.boot_id,
            self.clock_ns,
            self.cpu.ran_ns,
            self.cpu.waited_ns,
            tally.delivered,
            tally.duplicated,
            tally.reordered,
            tally.corrupt,
            p50,
            p90,
            p99,
            p999,
            max,
        ];
        let mut out = [0; SAMPLE_LEN];
        for (bytes, word) in out.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let bytes: &[u8; SAMPLE_LEN] = body.try_into().ok()?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(*bytes.first_chunk()?);
        }
        let [magic, mode, boot_id, clock_ns, ran_ns, waited_ns, delivered, duplicated, reordered, corrupt, latency @ ..] = words;
        let tally = Tally { delivered, duplicated, reordered, corrupt };
        (magic == MAGIC).then_some(Self { mode, boot_id, clock_ns, cpu: CpuTime { ran_ns, waited_ns }, tally, latency })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_samples_travel() {
        for question in Question::ALL {
            assert_eq!(Question::decode(question.meta(), &question.encode(1 << 30)), Some((question, 1 << 30)));
            assert_eq!(Question::decode(Meta::new(DATA), &question.encode(0)), None);
        }
        assert_eq!(Question::decode(Meta::new(PROBE), &[9, 0, 0, 0, 0]), None);
        assert_eq!(Question::decode(Meta::new(PROBE), &[0]), None);
        let tally = Tally { delivered: 5, duplicated: 6, reordered: 7, corrupt: 8 };
        let sample =
            Sample { mode: 1, boot_id: 2, clock_ns: 3, cpu: CpuTime { ran_ns: 4, waited_ns: 14 }, tally, latency: [9, 10, 11, 12, 13] };
        assert_eq!(Sample::decode(&sample.encode()), Some(sample));
        assert_eq!(Sample::decode(&[0; SAMPLE_LEN]), None);
        let counters = Counters::from([("peers".into(), 3), ("closed_slow_soft_mark".into(), u64::MAX)]);
        assert_eq!(decode_counters(&encode_counters(&counters)), Some(counters));
        assert_eq!(decode_counters(&sample.encode()), None);
    }
}
