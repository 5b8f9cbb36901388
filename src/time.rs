//! Points in time, as the engine's pure rings see them.
//!
//! Ring 0 never reads a clock: every entry point takes `now: Timestamp` as an argument, and one read per turn decides all timers of
//! that turn. The reactor makes timestamps from a monotonic clock, the simulator from a counter.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: nanoseconds since the engine's own origin. Never zero, so that `Option<Timestamp>` takes eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64);

impl Timestamp {
    /// The origin: the smallest timestamp there is.
    pub const ORIGIN: Timestamp = Timestamp(NonZeroU64::MIN);

    /// Later than anything that will happen.
    pub const END: Timestamp = Timestamp(NonZeroU64::MAX);

    /// The point `nanos` nanoseconds after the origin; saturates at the end of time (584 years).
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        match NonZeroU64::new(nanos.saturating_add(1)) {
            Some(value) => Self(value),
            None => Self::ORIGIN,
        }
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// How long after `earlier` this is; zero where it is not after it.
    #[must_use]
    pub const fn saturating_since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self::from_nanos(self.as_nanos().saturating_add(nanos))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Timestamp) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:?}", self.saturating_since(Self::ORIGIN))
    }
}
