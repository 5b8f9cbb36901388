//! How long an answer takes: the round-trip estimate behind a peer's timeouts.
//!
//! The arithmetic of RFC 6298, fed by requests and pings that carry a number. An answer names the question it belongs to, so Karn's
//! rule (no samples from what was sent twice) has nothing to exclude here. What a timeout leads to is not decided here.

use std::time::Duration;

/// Longer samples count as this: above it the number says "broken", not "slow", and nothing below overflows.
const MAX_SAMPLE: Duration = Duration::from_secs(3600);

/// RFC 6298's G, the granularity of the timers: one tick of the shard's wheel. A steady peer's timeout stays this far above its
/// average, where K * RTTVAR would go to zero.
const GRANULARITY: Duration = Duration::from_millis(1);

/// Smoothed round-trip time and its variation (RFC 6298: alpha 1/8, beta 1/4, K 4). Saturates at one hour.
///
/// There is one in each peer, so both are single-precision floats, in microseconds: they resolve one part in 16 million, so half a
/// nanosecond of 10 ms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RttEstimator {
    /// SRTT; zero before the first sample.
    smoothed: f32,
    /// RTTVAR.
    variation: f32,
}

impl RttEstimator {
    /// An estimator without a sample.
    pub(crate) const fn new() -> Self {
        Self { smoothed: 0.0, variation: 0.0 }
    }

    /// Takes in one measured round trip (RFC 6298, 2.2 and 2.3).
    pub(crate) fn record(&mut self, sample: Duration) {
        // A round trip below the clock's resolution is still a sample.
        let sample = micros(sample.clamp(Duration::from_nanos(1), MAX_SAMPLE));
        if self.smoothed == 0.0 {
            (self.smoothed, self.variation) = (sample, sample / 2.0);
        } else {
            // RTTVAR first: the RFC measures the deviation from the average before this sample.
            self.variation += ((self.smoothed - sample).abs() - self.variation) / 4.0;
            self.smoothed += (sample - self.smoothed) / 8.0;
        }
    }

    /// The smoothed round-trip time; none before the first sample.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        (self.smoothed > 0.0).then(|| duration(self.smoothed).min(MAX_SAMPLE))
    }

    /// How long to wait for an answer: SRTT + max(G, K * RTTVAR), held between `floor` and `ceiling`; `ceiling` before the first
    /// sample, and where the two contradict each other.
    pub(crate) fn timeout(&self, floor: Duration, ceiling: Duration) -> Duration {
        match self.smoothed() {
            None => ceiling,
            Some(smoothed) => (smoothed + GRANULARITY.max(duration(4.0 * self.variation))).max(floor).min(ceiling),
        }
    }
}

fn micros(duration: Duration) -> f32 {
    (duration.as_nanos() as f64 / 1e3) as f32
}

fn duration(micros: f32) -> Duration {
    Duration::from_nanos((f64::from(micros) * 1e3).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const CEILING: Duration = Duration::from_secs(60);

    fn after(samples: impl IntoIterator<Item = Duration>) -> RttEstimator {
        let mut rtt = RttEstimator::new();
        samples.into_iter().for_each(|sample| rtt.record(sample));
        rtt
    }

    #[test]
    fn is_small() {
        assert_eq!(size_of::<RttEstimator>(), 8);
    }

    #[test]
    fn the_ceiling_stands_before_the_first_sample() {
        let rtt = RttEstimator::new();
        assert_eq!(rtt.smoothed(), None);
        assert_eq!(rtt.timeout(MS, CEILING), CEILING);
    }

    #[test]
    fn follows_the_rfc() {
        // First sample R: SRTT = R, RTTVAR = R/2, so the timeout is 3R.
        let mut rtt = after([100 * MS]);
        assert_eq!(rtt.smoothed(), Some(100 * MS));
        assert_eq!(rtt.timeout(MS, CEILING), 300 * MS);
        // Then R' = 180 ms: RTTVAR = 3/4 * 50 + 1/4 * |100 - 180| = 57.5, SRTT = 7/8 * 100 + 1/8 * 180 = 110.
        rtt.record(180 * MS);
        assert_eq!(rtt.smoothed(), Some(110 * MS));
        assert_eq!(rtt.timeout(MS, CEILING), 340 * MS);
        // A faster one also counts as variation: 3/4 * 57.5 + 1/4 * |110 - 30| = 63.125, SRTT = 7/8 * 110 + 1/8 * 30 = 100.
        rtt.record(30 * MS);
        assert_eq!(rtt.smoothed(), Some(100 * MS));
        assert_eq!(rtt.timeout(MS, CEILING), Duration::from_micros(100_000 + 4 * 63_125));
    }

    #[test]
    fn settles_on_a_steady_peer() {
        let rtt = after(std::iter::once(CEILING).chain((0..1000).map(|_| Duration::from_micros(50))));
        let smoothed = rtt.smoothed().unwrap();
        assert!(smoothed.abs_diff(Duration::from_micros(50)) <= Duration::from_nanos(8), "{smoothed:?}");
        // No variation is left, so the granularity is what stands above the average.
        assert_eq!(rtt.timeout(Duration::ZERO, CEILING), smoothed + GRANULARITY);
    }

    #[test]
    fn floor_and_ceiling_hold() {
        let rtt = after([10 * MS]);
        assert_eq!(rtt.timeout(200 * MS, CEILING), 200 * MS);
        assert_eq!(rtt.timeout(MS, 20 * MS), 20 * MS);
        assert_eq!(rtt.timeout(50 * MS, 20 * MS), 20 * MS);
    }

    #[test]
    fn extremes_saturate() {
        let rtt = after((0..100).map(|_| Duration::MAX));
        assert!(rtt.smoothed().unwrap() <= MAX_SAMPLE);
        assert!(rtt.smoothed().unwrap() > MAX_SAMPLE - MS);
        let jumping = after((0..1000).map(|n| if n % 2 == 0 { Duration::ZERO } else { Duration::MAX }));
        assert!(jumping.timeout(MS, Duration::MAX) <= 5 * MAX_SAMPLE);
        let nothing = after([Duration::ZERO, Duration::ZERO]);
        assert!(nothing.smoothed().is_some());
        assert_eq!(nothing.timeout(Duration::ZERO, CEILING), nothing.smoothed().unwrap() + GRANULARITY);
    }
}
