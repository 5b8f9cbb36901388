//! Who has sent how much, and who has how much of whom: the exact account of a run in which every peer sends to every other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::{group, row};

/// Pairs that are named where something is wrong with them.
const NAMED: usize = 10;

/// What one engine knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs {
    /// The run's number of the engine's first peer.
    pub(crate) first: u32,
    /// Messages of each of its peers.
    pub(crate) sent: Vec<u64>,
    /// Messages that each of its peers has of each peer of the run, receiver by receiver.
    pub(crate) received: Vec<u64>,
}

/// All pairs of a sender and a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PairFigures {
    pub(crate) pairs: u64,
    /// Those of which the receiver has as many messages as the sender has sent.
    pub(crate) complete: u64,
    /// Messages of one sender, at the fewest and at the most.
    pub(crate) sent_min: u64,
    pub(crate) sent_max: u64,
    /// Messages that came to one receiver.
    pub(crate) delivered_min: u64,
    pub(crate) delivered_max: u64,
    /// Some of those that are not complete, the worst first.
    pub(crate) incomplete: Vec<Pair>,
}

/// A sender and a receiver that do not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) sender: usize,
    pub(crate) receiver: usize,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
}

impl PairFigures {
    /// From what each engine knows. Nothing where no engine does.
    pub(crate) fn of(mut engines: Vec<Pairs>) -> Option<Self> {
        engines.sort_by_key(|engine| engine.first);
        let sent: Vec<u64> = engines.iter().flat_map(|engine| &engine.sent).copied().collect();
        let mut figures = Self {
            sent_min: sent.iter().min().copied()?,
            sent_max: sent.iter().max().copied()?,
            delivered_min: u64::MAX,
            ..Self::default()
        };
        let rows = engines.iter().flat_map(|engine| engine.received.chunks_exact(sent.len()));
        for (receiver, row) in rows.enumerate() {
            figures.add(receiver, row, &sent);
        }
        figures.incomplete.sort_by_key(|pair| std::cmp::Reverse(pair.sent.abs_diff(pair.delivered)));
        figures.incomplete.truncate(NAMED);
        Some(figures)
    }

    fn add(&mut self, receiver: usize, received: &[u64], sent: &[u64]) {
        let others = received.iter().zip(sent).enumerate().filter(|(sender, _)| *sender != receiver);
        let mut all = 0;
        for (sender, (&delivered, &sent)) in others {
            all += delivered;
            self.pairs += 1;
            if delivered == sent {
                self.complete += 1;
            } else {
                self.incomplete.push(Pair { sender, receiver, sent, delivered });
            }
        }
        self.delivered_min = self.delivered_min.min(all);
        self.delivered_max = self.delivered_max.max(all);
    }

    pub(crate) fn are_complete(&self) -> bool {
        self.complete == self.pairs
    }
}

impl fmt::Display for PairFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = |min: u64, max: u64| if min == max { group(min) } else { format!("{} to {}", group(min), group(max)) };
        let each = (between(self.sent_min, self.sent_max), between(self.delivered_min, self.delivered_max));
        let end = if self.are_complete() { "" } else { "   FAILED" };
        let [complete, pairs] = [self.complete, self.pairs].map(group);
        row(f, "pairs", &format!("{complete} of {pairs} complete; each peer sent {}, and got {}{end}", each.0, each.1))?;
        self.incomplete.iter().try_for_each(|Pair { sender, receiver, sent, delivered }| {
            row(f, "incomplete", &format!("peer {sender} sent {sent}, of which peer {receiver} has {delivered}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_but_oneself_is_accounted_for() {
        let engine = |first: u32, sent: &[u64], received: &[u64]| Pairs { first, sent: sent.to_vec(), received: received.to_vec() };
        let second = engine(2, &[7], &[5, 6, 0]);
        let whole = PairFigures::of(vec![second.clone(), engine(0, &[5, 6], &[0, 6, 7, 5, 0, 7])]).unwrap();
        assert_eq!((whole.pairs, whole.complete, whole.are_complete()), (6, 6, true));
        assert_eq!((whole.sent_min, whole.sent_max, whole.delivered_min, whole.delivered_max), (5, 7, 11, 13));
        // What one pair has too much does not make up for what another lacks.
        let wrong = PairFigures::of(vec![engine(0, &[5, 6], &[0, 7, 7, 3, 0, 7]), second]).unwrap();
        assert_eq!((wrong.complete, wrong.are_complete()), (4, false));
        let short = Pair { sender: 0, receiver: 1, sent: 5, delivered: 3 };
        assert_eq!(wrong.incomplete, [short, Pair { sender: 1, receiver: 0, sent: 6, delivered: 7 }]);
        assert_eq!(PairFigures::of(Vec::new()), None);
    }
}
