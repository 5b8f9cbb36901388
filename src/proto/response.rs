//! How long the responses of a peer take, and how long to wait for the next.
//!
//! A response takes a round trip and what the other side's application needs for it, which may be much more: so this is an estimate
//! of its own, of the same arithmetic as that of pings (RFC 6298), and neither feeds the other. It is kept with the requests, by peers
//! that are asked something.

use std::time::Duration;

use super::rtt::RttEstimator;
use crate::time::Timestamp;

/// How long a request waits for its response. A [`Duration`] converts into the first kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestTimeout {
    /// So long.
    After(Duration),
    /// As long as this peer's responses take: their smoothed time and four times its variation (RFC 6298), but not less than
    /// [`crate::Timeouts::request_floor`] and not more than [`crate::Timeouts::request_ceiling`]; the ceiling before the first response.
    ///
    /// Every response that comes in time is a measure, whatever its request's timeout. A request that waited for so long in vain doubles
    /// the wait of those that are made after it, up to the ceiling, until a response comes in time. One estimate holds for all that a
    /// peer is asked: where some requests take much longer than others, give those a time of their own.
    Adaptive,
}

impl From<Duration> for RequestTimeout {
    fn from(timeout: Duration) -> Self {
        Self::After(timeout)
    }
}

/// Doublings after which the wait is as long as any ceiling.
const MOST_DOUBLINGS: u32 = 20;

/// The response times of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ResponseTimes {
    measured: RttEstimator,
    /// Doublings of the wait since the last response in time.
    doublings: u32,
    /// When it was doubled last: what was asked before says nothing new.
    doubled_at: Option<Timestamp>,
}

impl ResponseTimes {
    /// A response came in time.
    pub(crate) fn record(&mut self, took: Duration) {
        self.measured.record(took);
        self.doublings = 0;
    }

    /// A request that was made at `asked` has waited until `now`, in vain. What was asked with it ends with it: that is one doubling.
    pub(crate) fn miss(&mut self, asked: Timestamp, now: Timestamp, floor: Duration, ceiling: Duration) {
        let news = self.doubled_at.is_none_or(|doubled| asked >= doubled);
        if news && self.measured.smoothed().is_some() && now - asked >= self.timeout(floor, ceiling) {
            self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
            self.doubled_at = Some(now);
        }
    }

    /// How long to wait for the next response.
    pub(crate) fn timeout(&self, floor: Duration, ceiling: Duration) -> Duration {
        self.measured.timeout(floor, ceiling).saturating_mul(1 << self.doublings).min(ceiling)
    }

    /// The smoothed response time; none before the first.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.measured.smoothed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_millis(100);
    const CEILING: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Timestamp {
        Timestamp::ORIGIN + Duration::from_millis(millis)
    }

    fn millis(times: &ResponseTimes) -> u128 {
        times.timeout(FLOOR, CEILING).as_millis()
    }

    #[test]
    fn the_wait_follows_the_responses_between_floor_and_ceiling() {
        let mut times = ResponseTimes::default();
        assert_eq!((millis(&times), times.smoothed()), (10_000, None));
        times.record(Duration::from_millis(1));
        assert_eq!(millis(&times), 100);
        times.record(Duration::from_millis(801));
        // SRTT 101, RTTVAR 0.375 + 200.
        assert_eq!(millis(&times), 902);
        times.record(Duration::from_secs(3600));
        assert_eq!(millis(&times), 10_000);
    }

    #[test]
    fn what_was_asked_together_and_missed_together_doubles_the_wait_once() {
        let mut times = ResponseTimes::default();
        times.record(Duration::from_millis(50));
        assert_eq!(millis(&times), 150);
        (0..10).for_each(|asked| times.miss(at(asked), at(1000), FLOOR, CEILING));
        assert_eq!(millis(&times), 300);
        times.miss(at(1000), at(1200), FLOOR, CEILING);
        assert_eq!(millis(&times), 300, "it gave up sooner than that");
        times.miss(at(1001), at(1301), FLOOR, CEILING);
        assert_eq!(millis(&times), 600);
        (2..50).for_each(|second| times.miss(at(second * 20_000), at(second * 20_000 + 10_000), FLOOR, CEILING));
        assert_eq!(millis(&times), 10_000, "no longer than the ceiling");
        times.record(Duration::from_millis(50));
        assert!(millis(&times) < 150);
    }

    #[test]
    fn nothing_is_doubled_that_was_never_measured() {
        let mut times = ResponseTimes::default();
        times.miss(at(0), at(60_000), FLOOR, CEILING);
        times.record(Duration::from_millis(50));
        assert_eq!(millis(&times), 150);
    }
}
