//! What a core measures of itself beyond counting.

use crate::error::ConfigError;

/// What a core measures of itself, beyond its counters, which are always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Whether each core keeps histograms of its turns, queueing delays, round trips and writes: [`crate::Handle::histograms`]. Default
    /// true: one read of the clock a turn, a few nanoseconds a write, and about 150 KB for each core.
    pub histograms: bool,
    /// Whether each core keeps accounts of where its time goes: the counters `time_*_ns` ([`crate::Counter::TimePoll`] and those that
    /// follow it). Default true: four reads of the clock a turn, 25 ns each, and a close look at one read batch in 64.
    pub time: bool,
}

impl Metrics {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { histograms: true, time: true }
    }
}
