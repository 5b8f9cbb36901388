//! Whether every message of a stream came, once, and in order.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

/// What is known about one message by its sequence number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one, or some are missing before it.
    New,
    /// It was missing: one that was sent after it came before it.
    Late,
    /// It had come already.
    Duplicate,
}

/// One sender's messages as one receiver sees them. While all is well, a message costs one comparison.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    next: u64,
    /// What is missing below `next`: first to one past the last. Empty while nothing goes wrong.
    missing: BTreeMap<u64, u64>,
}

impl Stream {
    /// Of a receiver that came later: what was before `seq` is not missing.
    pub(crate) fn starting_at(seq: u64) -> Self {
        Self { next: seq, missing: BTreeMap::new() }
    }

    /// The sequence number after the highest one so far.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many have come, each counted once.
    pub(crate) fn received(&self) -> u64 {
        self.next - self.missing.iter().map(|(from, to)| to - from).sum::<u64>()
    }

    #[inline]
    pub(crate) fn accept(&mut self, seq: u64) -> Verdict {
        if seq == self.next {
            self.next += 1;
            return Verdict::New;
        }
        self.accept_out_of_order(seq)
    }

    #[cold]
    fn accept_out_of_order(&mut self, seq: u64) -> Verdict {
        if seq > self.next {
            self.missing.insert(self.next, seq);
            self.next = seq.saturating_add(1);
            return Verdict::New;
        }
        let Some((&from, &to)) = self.missing.range(..=seq).next_back().filter(|(_, to)| seq < **to) else {
            return Verdict::Duplicate;
        };
        self.missing.remove(&from);
        if from < seq {
            self.missing.insert(from, seq);
        }
        if seq + 1 < to {
            self.missing.insert(seq + 1, to);
        }
        Verdict::Late
    }
}

/// What was received, counted by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Messages that came, each counted once.
    pub(crate) delivered: u64,
    /// Messages that came again.
    pub(crate) duplicated: u64,
    /// Messages that came after one that was sent later.
    pub(crate) reordered: u64,
    /// Messages with a wrong checksum, length or sender.
    pub(crate) corrupt: u64,
}

impl Tally {
    #[inline]
    pub(crate) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::New => self.delivered += 1,
            Verdict::Late => {
                self.delivered += 1;
                self.reordered += 1;
            }
            Verdict::Duplicate => self.duplicated += 1,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(seqs: &[u64]) -> Tally {
        let mut stream = Stream::default();
        let mut tally = Tally::default();
        seqs.iter().for_each(|seq| tally.count(stream.accept(*seq)));
        assert_eq!(stream.received(), tally.delivered);
        tally
    }

    #[test]
    fn a_stream_in_order_is_delivered() {
        assert_eq!(tally(&[0, 1, 2, 3]), Tally { delivered: 4, ..Tally::default() });
    }

    #[test]
    fn what_comes_late_is_reordered_and_what_comes_again_is_duplicated() {
        assert_eq!(tally(&[0, 5, 3, 1, 2, 4]), Tally { delivered: 6, reordered: 4, ..Tally::default() });
        assert_eq!(tally(&[0, 0, 3, 3, 1, 1]), Tally { delivered: 3, duplicated: 3, reordered: 1, ..Tally::default() });
    }

    #[test]
    fn a_receiver_that_came_later_misses_nothing_of_before() {
        let mut stream = Stream::starting_at(7);
        assert_eq!([7, 8, 8, 6, 10].map(|seq| stream.accept(seq)), {
            use Verdict::{Duplicate, New};
            [New, New, Duplicate, Duplicate, New]
        });
        assert_eq!(stream.next(), 11);
    }

    #[test]
    fn gaps_are_not_delivered() {
        assert_eq!(tally(&[2, 9, 10]), Tally { delivered: 3, ..Tally::default() });
    }
}
