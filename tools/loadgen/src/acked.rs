//! Acknowledged broadcasts: on what terms a client has a server make them, and what the server says came of each.

use std::time::Duration;

use corecast::{Meta, Receipt};

/// The type of [`Terms`].
pub(crate) const TERMS: u16 = 5;
/// The type of [`Settled`].
pub(crate) const SETTLED: u16 = 6;

/// Said once by the peer that has broadcasts made, before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// So many acknowledgements are a quorum.
    pub(crate) quorum: u32,
    /// What is not acknowledged after so long has failed. To the millisecond.
    pub(crate) deadline: Duration,
}

impl Terms {
    pub(crate) fn meta() -> Meta {
        Meta::new(TERMS)
    }

    pub(crate) fn encode(self) -> [u8; 8] {
        let mut out = [0; 8];
        out[..4].copy_from_slice(&self.quorum.to_le_bytes());
        out[4..].copy_from_slice(&u32::try_from(self.deadline.as_millis()).unwrap_or(u32::MAX).to_le_bytes());
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let body: &[u8; 8] = body.try_into().ok()?;
        let quorum = u32::from_le_bytes(*body.first_chunk()?);
        let deadline = Duration::from_millis(u32::from_le_bytes(*body.last_chunk()?).into());
        Some(Self { quorum, deadline })
    }
}

/// What came of one broadcast, by the server's receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The message's number in its stream.
    pub(crate) seq: u64,
    /// Peers that it went to.
    pub(crate) expected: u64,
    pub(crate) acked: u64,
    pub(crate) failed: u64,
    /// From the broadcast to the first acknowledgement, to that which made the quorum, and to the last, nanoseconds. Zero: it never came.
    pub(crate) after_ns: [u64; 3],
    /// Why somebody did not acknowledge it, where somebody did not.
    pub(crate) reason: String,
}

const WORDS: usize = 7;

impl Settled {
    pub(crate) fn of(receipt: &Receipt, seq: u64, quorum: u32) -> Self {
        let acked = receipt.acked().len();
        let after = |k: usize| receipt.kth(k).map_or(0, |after| (after.as_nanos() as u64).max(1));
        Self {
            seq,
            expected: receipt.expected().unwrap_or(0) as u64,
            acked: acked as u64,
            failed: receipt.failed().len() as u64,
            after_ns: [after(1), after(quorum as usize), after(acked)],
            reason: receipt.failed().first().map_or_else(String::new, |(_, failure)| failure.to_string()),
        }
    }

    /// The broadcast was not made.
    pub(crate) fn refused(seq: u64, reason: &impl ToString) -> Self {
        Self { seq, failed: 1, reason: format!("not broadcast: {}", reason.to_string()), ..Self::default() }
    }

    /// Whether all of so many peers have acknowledged it.
    pub(crate) fn is_complete(&self, peers: u64) -> bool {
        (self.expected, self.acked, self.failed) == (peers, peers, 0) && self.after_ns.iter().all(|after| *after > 0)
    }

    pub(crate) fn meta() -> Meta {
        Meta::new(SETTLED)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let [first, quorum, last] = self.after_ns;
        let words: [u64; WORDS] = [self.seq, self.expected, self.acked, self.failed, first, quorum, last];
        words.into_iter().flat_map(u64::to_le_bytes).chain(self.reason.bytes()).collect()
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let (numbers, reason) = body.split_at_checked(WORDS * 8)?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(numbers.chunks_exact(8)) {
            *word = u64::from_le_bytes(*bytes.first_chunk()?);
        }
        let [seq, expected, acked, failed, after_ns @ ..] = words;
        Some(Self { seq, expected, acked, failed, after_ns, reason: std::str::from_utf8(reason).ok()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_and_outcomes_travel() {
        let terms = Terms { quorum: 34, deadline: Duration::from_millis(2500) };
        assert_eq!(Terms::decode(&terms.encode()), Some(terms));
        assert_eq!(Terms::decode(&[0; 7]), None);
        let settled = Settled { seq: 1, expected: 2, acked: 3, failed: 4, after_ns: [5, 6, 7], reason: "gone".into() };
        assert_eq!(Settled::decode(&settled.encode()), Some(settled));
        assert_eq!(Settled::decode(&[0; WORDS * 8 - 1]), None);
        assert_eq!(Settled::decode(&[0xff; WORDS * 8 + 1]), None);
    }

    #[test]
    fn complete_is_when_all_have_acknowledged_and_nothing_failed() {
        let whole = Settled { expected: 3, acked: 3, after_ns: [1, 2, 3], ..Settled::default() };
        assert!(whole.is_complete(3));
        assert!(!whole.is_complete(2) && !whole.is_complete(4));
        assert!(!Settled { acked: 2, ..whole.clone() }.is_complete(3));
        assert!(!Settled { failed: 1, ..whole.clone() }.is_complete(3));
        assert!(!Settled { after_ns: [1, 0, 3], ..whole }.is_complete(3));
        assert!(!Settled::refused(0, &"full").is_complete(0));
    }
}
