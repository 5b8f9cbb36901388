//! A token bucket: so much per second, with bursts of a known size.
//!
//! The bucket knows neither what a token stands for (a connection, a message, a byte) nor what happens to the one that gets none; it
//! only counts, in whole nanoseconds that the caller hands in.

use crate::time::Timestamp;

/// The parts of one token: a bucket gains `per_second` parts each nanosecond, so no rate is ever rounded and nothing drifts.
const PARTS: u64 = 1_000_000_000;

// The fullest bucket and the dearest cost, in parts, fit their type.
const _: () = assert!(PARTS.checked_mul(u32::MAX as u64).is_some());

/// A token bucket. Starts full; a pause of any length fills it to `burst` and no further.
///
/// A time before one already seen counts as that one: the bucket never gains the same nanosecond twice.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    /// What the bucket held at `filled_at`: `parts <= burst * PARTS`.
    parts: u64,
    filled_at: Timestamp,
    per_second: u32,
    burst: u32,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that gains `per_second` tokens a second; at zero a second it is never refilled.
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        Self { parts: burst as u64 * PARTS, filled_at: Timestamp::ORIGIN, per_second, burst }
    }

    /// Takes `cost` tokens if the bucket has them at `now`; otherwise takes nothing and says false.
    ///
    /// A cost above `burst` is never granted: whoever sets the limits sees to it that the burst covers the largest single cost.
    pub(crate) fn take(&mut self, now: Timestamp, cost: u32) -> bool {
        self.parts = self.parts_at(now);
        self.filled_at = self.filled_at.max(now);
        match self.parts.checked_sub(u64::from(cost) * PARTS) {
            Some(rest) => {
                self.parts = rest;
                true
            }
            None => false,
        }
    }

    /// Takes as much of `cost` as there is.
    pub(crate) fn drain(&mut self, now: Timestamp, cost: u32) {
        self.parts = self.parts_at(now).saturating_sub(u64::from(cost) * PARTS);
        self.filled_at = self.filled_at.max(now);
    }

    /// Gives tokens back that were taken for nothing.
    pub(crate) fn give_back(&mut self, cost: u32) {
        self.parts = (self.parts + u64::from(cost) * PARTS).min(u64::from(self.burst) * PARTS);
    }

    /// Whole tokens that it has.
    pub(crate) fn tokens(&self, now: Timestamp) -> u32 {
        (self.parts_at(now) / PARTS) as u32
    }

    /// Most that it can hold.
    pub(crate) fn burst(&self) -> u32 {
        self.burst
    }

    /// When [`take`](Self::take) will grant `cost` if nothing else is taken: `now` where it would at once, and the end of time where
    /// it never will (a cost above the burst, or a bucket that is never refilled). Exact: a nanosecond earlier it would not.
    pub(crate) fn ready_at(&self, now: Timestamp, cost: u32) -> Timestamp {
        const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);
        let missing = (u64::from(cost) * PARTS).saturating_sub(self.parts_at(now));
        if missing == 0 {
            return now;
        }
        if cost > self.burst || self.per_second == 0 {
            return NEVER;
        }
        // From `filled_at` where the caller's time is behind it: until then the bucket gains nothing.
        let from = self.filled_at.max(now);
        Timestamp::from_nanos(from.as_nanos().saturating_add(missing.div_ceil(u64::from(self.per_second))))
    }

    /// Whether it holds all that it can: whether a new one would be the same.
    pub(crate) fn is_full(&self, now: Timestamp) -> bool {
        self.parts_at(now) == u64::from(self.burst) * PARTS
    }

    fn parts_at(&self, now: Timestamp) -> u64 {
        let nanos = now.as_nanos().saturating_sub(self.filled_at.as_nanos());
        // Both saturate far above the bucket's own limit, so that a pause of years is a full bucket and no overflow.
        let gained = nanos.saturating_mul(u64::from(self.per_second));
        self.parts.saturating_add(gained).min(u64::from(self.burst) * PARTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::time::Duration;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn is_small() {
        assert_eq!(size_of::<TokenBucket>(), 24);
    }

    #[test]
    fn gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(10, 3);
        let start = at(5_000_000_000);
        assert!((0..3).all(|_| bucket.take(start, 1)));
        assert!(!bucket.take(start, 1));
        assert_eq!(bucket.ready_at(start, 1), start + Duration::from_millis(100));
        assert!(!bucket.take(start + Duration::from_nanos(99_999_999), 1));
        assert!(bucket.take(start + Duration::from_millis(100), 1));
        assert!(!bucket.take(start + Duration::from_millis(100), 1));
    }

    #[test]
    fn a_refusal_costs_nothing() {
        let mut bucket = TokenBucket::new(1, 5);
        assert!(bucket.take(at(0), 3));
        assert!(!bucket.take(at(0), 3));
        assert!(bucket.take(at(0), 2));
        assert!(bucket.take(at(0), 0));
    }

    #[test]
    fn what_is_given_back_fills_it_to_its_burst_and_what_is_drained_empties_it_at_most() {
        let mut bucket = TokenBucket::new(1, 5);
        assert!(bucket.take(at(0), 3));
        bucket.give_back(2);
        assert_eq!((bucket.tokens(at(0)), bucket.burst()), (4, 5));
        bucket.give_back(9);
        assert!(bucket.is_full(at(0)));
        bucket.drain(at(0), 3);
        assert_eq!(bucket.tokens(at(1_999_999_999)), 3);
        bucket.drain(at(2_000_000_000), 99);
        assert_eq!((bucket.tokens(at(2_000_000_000)), bucket.tokens(at(2_999_999_999)), bucket.tokens(at(3_000_000_000))), (0, 0, 1));
    }

    #[test]
    fn an_uneven_rate_does_not_drift() {
        // Neither rate divides a second. At 7 a second nearly every call is a refusal, which must not throw a remainder away; at
        // 999 983 a second an interval rounded to whole nanoseconds would be off by 17 tokens a second.
        for (per_second, burst, step, end) in [(7, 2, 1_300_000, 3_600_000_000_000), (999_983, 2000, 700_001, 2_000_000_000)] {
            let mut bucket = TokenBucket::new(per_second, burst);
            let mut taken = 0;
            for now in (0..end).step_by(step) {
                while bucket.take(at(now), 1) {
                    taken += 1;
                }
                assert_eq!(taken, u64::from(burst) + now * u64::from(per_second) / 1_000_000_000, "{per_second} a second, at {now}");
            }
        }
    }

    #[test]
    fn a_long_pause_saturates() {
        let mut bucket = TokenBucket::new(u32::MAX, u32::MAX);
        assert!(bucket.take(at(1), u32::MAX));
        assert!(bucket.take(at(u64::MAX), u32::MAX));
        assert!(!bucket.take(at(u64::MAX), 1));

        let mut bucket = TokenBucket::new(1000, 2);
        assert!(bucket.take(at(0), 2));
        let later = at(0) + Duration::from_secs(3600 * 24 * 365);
        assert!(bucket.take(later, 2));
        assert!(!bucket.take(later, 1));
    }

    #[test]
    fn time_does_not_run_backwards() {
        let mut bucket = TokenBucket::new(1, 1);
        let second = at(1_000_000_000);
        assert!(bucket.take(second, 1));
        assert!(!bucket.take(at(0), 1));
        assert_eq!(bucket.ready_at(at(0), 1), second + Duration::from_secs(1));
        assert!(!bucket.take(second + Duration::from_millis(999), 1));
        assert!(bucket.take(second + Duration::from_secs(1), 1));
    }

    #[test]
    fn what_is_never_granted_is_ready_at_the_end_of_time() {
        let never = at(u64::MAX);
        let mut bucket = TokenBucket::new(10, 5);
        assert!(!bucket.take(at(0), 6));
        assert_eq!(bucket.ready_at(at(0), 6), never);
        let mut once = TokenBucket::new(0, 1);
        assert_eq!(once.ready_at(at(9), 1), at(9));
        assert!(once.take(at(9), 1));
        assert_eq!(once.ready_at(at(9), 1), never);
        assert!(!once.take(never, 1));
    }

    #[test]
    fn ready_at_is_exact() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let burst = 1 + rng.below(1000) as u32;
            let mut bucket = TokenBucket::new(1 + rng.below(1_000_000) as u32, burst);
            let mut now = at(rng.below(1 << 40));
            for _ in 0..200 {
                let cost = 1 + rng.below(u64::from(burst)) as u32;
                let ready = bucket.ready_at(now, cost);
                assert_eq!(bucket.clone().take(now, cost), ready == now, "seed {seed}");
                if ready > now {
                    assert!(!bucket.clone().take(at(ready.as_nanos() - 1), cost), "seed {seed}");
                    // Asking in between changes nothing.
                    assert!(!bucket.take(at(now.as_nanos() + rng.below(ready.as_nanos() - now.as_nanos())), cost), "seed {seed}");
                }
                assert!(bucket.take(ready, cost), "seed {seed}");
                now = ready + rng.duration_below(Duration::from_millis(5));
            }
        }
    }
}
