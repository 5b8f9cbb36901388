//! Which messages have arrived: nothing may be lost, doubled or overtaken.

use serde::Serialize;

/// What went wrong in a run. Any of it makes the run invalid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Not what was sent: length, type, checksum, or a frame of another kind.
    pub(crate) corrupt: u64,
}

impl Faults {
    pub(crate) fn none(&self) -> bool {
        *self == Self::default()
    }
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
    }
}

/// Follows the sequence numbers of one sender as they arrive on one connection.
#[derive(Default)]
pub(crate) struct Ledger {
    expected: u64,
    /// Numbers that were jumped over. Empty unless something is wrong.
    missing: Vec<u64>,
    faults: Faults,
}

impl Ledger {
    /// Enters an arrival; true if this message had not arrived before.
    #[inline]
    pub(crate) fn enter(&mut self, sequence: u64) -> bool {
        if sequence == self.expected {
            self.expected += 1;
            return true;
        }
        self.enter_unexpected(sequence)
    }

    #[cold]
    fn enter_unexpected(&mut self, sequence: u64) -> bool {
        /// Larger gaps are counted, not listed: the checksum held, so only a broken sender gets here.
        const MOST_LISTED: u64 = 1 << 16;
        if sequence > self.expected {
            let gap = sequence - self.expected;
            if gap > MOST_LISTED {
                self.faults.lost += gap;
            } else {
                self.missing.extend(self.expected..sequence);
            }
            self.expected = sequence + 1;
            return true;
        }
        match self.missing.iter().position(|&number| number == sequence) {
            Some(index) => {
                self.missing.swap_remove(index);
                self.faults.reordered += 1;
                true
            }
            None => {
                self.faults.duplicated += 1;
                false
            }
        }
    }

    pub(crate) fn enter_corrupt(&mut self) {
        self.faults.corrupt += 1;
    }

    /// The faults, if `sent` messages were sent and no more will come.
    pub(crate) fn close(&self, sent: u64) -> Faults {
        let never_came = self.missing.len() as u64 + sent.saturating_sub(self.expected);
        Faults { lost: self.faults.lost + never_came, ..self.faults }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(arrivals: &[u64], sent: u64) -> Faults {
        let mut ledger = Ledger::default();
        for &sequence in arrivals {
            ledger.enter(sequence);
        }
        ledger.close(sent)
    }

    #[test]
    fn every_fault_has_its_own_count() {
        let none = Faults::default();
        assert_eq!(faults(&[0, 1, 2], 3), none);
        assert_eq!(faults(&[0, 1], 3), Faults { lost: 1, ..none });
        assert_eq!(faults(&[0, 2], 3), Faults { lost: 1, ..none });
        assert_eq!(faults(&[0, 1, 1, 2], 3), Faults { duplicated: 1, ..none });
        assert_eq!(faults(&[0, 2, 1, 3], 4), Faults { reordered: 1, ..none });
        assert_eq!(faults(&[0, 2, 1, 1], 4), Faults { lost: 1, duplicated: 1, reordered: 1, ..none });
    }
}
