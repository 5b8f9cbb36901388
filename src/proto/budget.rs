//! Memory that peers share, with a reserve for each.
//!
//! A budget does not know its peers: whoever changes what a peer uses says how much that was before and is now. What a peer uses up to the
//! reserve is its own and always there. What it uses beyond that comes out of the shared part, which is one for all peers of a core; so
//! those that hoard can use up the shared part, and nobody else's reserve.

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    used: usize,
    /// Of these, what is beyond the reserve of whoever uses it, and how much that may be.
    shared_used: usize,
    shared: usize,
    reserve: usize,
}

impl Budget {
    pub(crate) fn new(shared: usize, reserve: usize) -> Self {
        Self { used: 0, shared_used: 0, shared, reserve }
    }

    /// What there is for all.
    pub(crate) fn shared(&self) -> usize {
        self.shared
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Bytes of the shared part that are in use.
    #[cfg(test)]
    pub(crate) fn shared_used(&self) -> usize {
        self.shared_used
    }

    /// What of a peer's use comes out of the shared part.
    #[inline]
    pub(crate) fn beyond(&self, used: usize) -> usize {
        used.saturating_sub(self.reserve)
    }

    /// Whether a peer that uses `before` bytes may use `after`.
    #[inline]
    pub(crate) fn fits(&self, before: usize, after: usize) -> bool {
        after <= self.reserve || self.shared_used + self.beyond(after) - self.beyond(before) <= self.shared
    }

    /// Whether more of the shared part is in use than there is.
    #[inline]
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.shared_used > self.shared
    }

    /// A peer uses `more` bytes more, which makes `after`.
    #[inline]
    pub(crate) fn grow(&mut self, more: usize, after: usize) {
        self.used += more;
        if after > self.reserve {
            self.shared_used += more.min(after - self.reserve);
        }
    }

    /// A peer uses `less` bytes less, which leaves `after`.
    #[inline]
    pub(crate) fn shrink(&mut self, less: usize, after: usize) {
        self.used -= less;
        let before = after + less;
        if before > self.reserve {
            self.shared_used -= less.min(before - self.reserve);
        }
    }

    /// A peer that used `before` bytes uses `after` now, whether that fits or not.
    #[inline]
    pub(crate) fn settle(&mut self, before: usize, after: usize) {
        if after >= before {
            self.grow(after - before, after);
        } else {
            self.shrink(before - after, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hoarders_use_up_the_shared_part_and_nobody_elses_reserve() {
        let mut budget = Budget::new(1000, 100);
        assert!(budget.fits(0, 1100) && !budget.fits(0, 1101));
        budget.settle(0, 700);
        budget.settle(0, 500);
        assert_eq!((budget.used(), budget.shared_used()), (1200, 1000));
        assert!(budget.fits(0, 100), "the third has its reserve");
        assert!(!budget.fits(0, 101) && !budget.fits(700, 701));
        budget.settle(0, 100);
        budget.settle(700, 600);
        assert!(budget.fits(100, 200) && !budget.fits(100, 201));
        for used in [600, 500, 100] {
            budget.settle(used, 0);
        }
        assert_eq!((budget.used(), budget.shared_used()), (0, 0));
    }

    #[test]
    fn what_cannot_be_refused_may_pass_the_bound_and_is_made_good_later() {
        let mut budget = Budget::new(100, 10);
        budget.settle(0, 200);
        assert_eq!((budget.used(), budget.is_overdrawn()), (200, true));
        assert!(budget.fits(0, 10) && !budget.fits(0, 11) && !budget.fits(200, 150));
        assert!(budget.fits(200, 110));
        budget.settle(200, 0);
        assert!(budget.fits(0, 110) && !budget.is_overdrawn());
    }
}
