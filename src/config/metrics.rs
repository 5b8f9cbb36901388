//! What a core measures of itself beyond counting.

use std::time::Duration;

use super::at_least_time;
use crate::error::ConfigError;

/// What a core measures of itself, beyond its counters, which are always on.
///
/// Both `histograms` and `time` are on by default, because what they cost is hard to find and what they tell is needed when it is too late
/// to turn them on. Measured over loopback, with answers of 32 bytes and both on, against a build without either: 0 to 4 % more processor
/// time for an answer, with 1 peer and with 100, one by one and in batches; the differences between runs were as large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Whether each core keeps histograms of its turns, queueing delays, round trips and writes: [`crate::Handle::histograms`]. Default
    /// true: one read of the clock a turn, which `time` makes anyway, a few nanoseconds a write, and about 150 KB for each core.
    pub histograms: bool,
    /// Whether each core keeps accounts of where its time goes: the counters `time_*_ns` ([`crate::Counter::TimePoll`] and those that
    /// follow it). Default true: four reads of the clock a turn, 25 ns each, and a close look at one read batch in 64.
    pub time: bool,
    /// How long one call of a handler may take. Default: not set. Where it is, a thread of the engine (`corecast-watchdog`) looks four
    /// times in that time at what each core runs; a call that is still there after it is counted (`handler_overruns`), named with its
    /// message type by [`crate::Stats::last_overrun`], and by a line in the log, at most one in ten seconds. Nothing else happens to it.
    /// Calls that take less are never reported, those that take a third more always are while the thread gets to run. Costs a core two
    /// stores a call. At least 1 ms.
    pub handler_budget: Option<Duration>,
}

impl Metrics {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.handler_budget.map_or(Ok(()), |budget| at_least_time("metrics.handler_budget", budget, Duration::from_millis(1)))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { histograms: true, time: true, handler_budget: None }
    }
}
