//! How long to wait before the next try.
//!
//! Exponential from `min`, doubled each time, capped at `max`, and only then jittered over the whole range ("full jitter" of Brooker,
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: it spreads a crowd of dialers best and costs the least work). The
//! cap comes first so that the late delays spread too: a cap put on after the jitter heaps them up at `max`.
//!
//! Whether and whom to dial is the caller's affair, and so is when to [`reset`](Backoff::reset): on the first received message, not
//! on connect, or a peer that accepts and hangs up is dialed at full speed.

use crate::rng::Rng;
use std::time::Duration;

/// No delay is shorter: one tick of the timer wheel. Full jitter reaches down to zero, and a row of zeros would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(1);

/// Exponential backoff with full jitter; `min` and `max` come with each call, so that a row of thousands stays four bytes each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// How many delays have been drawn since the last reset.
    attempt: u32,
}

impl Backoff {
    /// A backoff that starts at `min`.
    pub(crate) const fn new() -> Self {
        Self { attempt: 0 }
    }

    /// The next delay: even over `0..=min(max, min * 2^attempt)`, but no shorter than 1 ms, whatever `min` and `max` say. `max` wins
    /// over a larger `min`.
    pub(crate) fn next(&mut self, min: Duration, max: Duration, rng: &mut Rng) -> Duration {
        let capped = self.capped(min, max);
        self.attempt = self.attempt.saturating_add(1);
        // One nanosecond more, because the drawn range is without its end.
        rng.duration_below(capped.saturating_add(Duration::from_nanos(1))).max(SHORTEST)
    }

    /// How many delays there were since the last reset.
    pub(crate) fn attempts(self) -> u32 {
        self.attempt
    }

    /// Back to `min`.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    fn capped(self, min: Duration, max: Duration) -> Duration {
        let factor = 1u64.checked_shl(self.attempt).unwrap_or(u64::MAX);
        let nanos = u64::try_from(min.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos.saturating_mul(factor)).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);

    /// Many first, second, ... delays.
    fn drawn(attempt: u32) -> Vec<Duration> {
        let mut rng = Rng::new(u64::from(attempt));
        (0..2000).map(|_| Backoff { attempt }.next(MIN, MAX, &mut rng)).collect()
    }

    #[test]
    fn doubles_up_to_the_cap() {
        for attempt in 0..100 {
            let limit = (MIN * 2u32.pow(attempt.min(16))).min(MAX);
            let delays = drawn(attempt);
            assert!(delays.iter().all(|&delay| delay >= SHORTEST && delay <= limit), "attempt {attempt}");
            // The whole range is used: the mean is its middle, and both ends are reached.
            let mean = delays.iter().sum::<Duration>() / 2000;
            assert!(mean > limit / 100 * 46 && mean < limit / 100 * 54, "attempt {attempt}: {mean:?}");
            assert!(delays.iter().any(|&delay| delay < limit / 20), "attempt {attempt}");
            assert!(delays.iter().any(|&delay| delay > limit / 20 * 19), "attempt {attempt}");
        }
    }

    #[test]
    fn the_cap_comes_before_the_jitter() {
        let at_the_cap = drawn(60).iter().filter(|&&delay| delay == MAX).count();
        assert!(at_the_cap < 3, "{at_the_cap} delays heap up at the cap");
    }

    #[test]
    fn each_call_is_one_attempt() {
        let (mut backoff, mut rng) = (Backoff::new(), Rng::new(1));
        for attempt in 0..10 {
            assert_eq!(backoff, Backoff { attempt });
            backoff.next(MIN, MAX, &mut rng);
        }
        backoff.reset();
        assert_eq!(backoff, Backoff::new());
        assert!(backoff.next(MIN, MAX, &mut rng) <= MIN);
    }

    #[test]
    fn never_zero() {
        let mut rng = Rng::new(2);
        for (min, max) in [(Duration::ZERO, Duration::ZERO), (Duration::ZERO, MAX), (MIN, Duration::ZERO), (Duration::from_nanos(1), MAX)] {
            let mut backoff = Backoff::new();
            assert!((0..200).all(|_| backoff.next(min, max, &mut rng) >= SHORTEST));
        }
    }

    #[test]
    fn extremes_saturate() {
        let mut rng = Rng::new(3);
        let mut backoff = Backoff { attempt: u32::MAX };
        assert!(backoff.next(MIN, MAX, &mut rng) <= MAX);
        assert_eq!(backoff, Backoff { attempt: u32::MAX });
        backoff.next(Duration::MAX, Duration::MAX, &mut rng);
        // A smaller `max` than `min` wins.
        backoff.reset();
        assert!((0..100).all(|_| backoff.next(MAX, MIN, &mut rng) <= MIN));
    }
}
