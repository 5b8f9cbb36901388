//! How often a handler may panic.

use std::time::Duration;

use super::{at_least_time, within};
use crate::error::ConfigError;

/// How often a core's handler may panic and be made anew, before its core ends over it. What a panic costs is in [`crate::Handler`].
///
/// A handler that panics now and then has met something that it was not written for, and is better off without the peer that brought it.
/// One that panics all the time does not work: each time it forgets what it knew and cuts off one more peer, and whoever runs it does
/// not hear of it. Then the core ends, with all of its peers, which [`crate::ShutdownReport::panicked`] reports.
///
/// Where peers can set a panic off on purpose, this is what they need to take a core down: a peer that is refused further on
/// ([`crate::Handler::authorize`], [`crate::Handle::disallow`]) cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restarts {
    /// Panics of a core's handler within `within` after which it is made anew; one more ends the core. Default 16: two peers that bring the
    /// same trouble again each time they have dialled anew (50 ms, doubled each time: eight attempts in ten seconds) do not end it. 0 to
    /// 4,096; zero: the first panic ends the core.
    pub most: usize,
    /// Panics longer ago are forgotten. Default 10 s. At least 1 ms.
    pub within: Duration,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { most: 16, within: Duration::from_secs(10) }
    }
}

impl Restarts {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("restarts.most", self.most, 0, 4096, "0 to 4096 panics")?;
        at_least_time("restarts.within", self.within, Duration::from_millis(1))
    }
}
