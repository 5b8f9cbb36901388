//! A piece of the measured time: what a plot over time is made of.

use corecast::{Counter, Stats};
use serde::{Deserialize, Serialize};

/// One piece. What arrived in it counts in it, wherever it was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// From the beginning of the measured time to that of this piece.
    pub(crate) at_s: f64,
    pub(crate) elapsed_s: f64,
    /// Whether it belongs to a disturbed phase, where there are phases.
    pub(crate) disturbed: bool,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    /// Of what was delivered. Zero where nothing was.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
    /// Open loop: how late the generator itself was at most.
    pub(crate) lag_max_ns: u64,
    /// Bytes that wait to be written at its end: in the client, and in a server in the same process.
    pub(crate) queued_bytes: u64,
    /// What each core of a server in the same process did meanwhile. Empty where it is another process.
    pub(crate) core_time: Vec<CoreTime>,
    /// All latencies of what was delivered, for `--hdr-log`: see [`crate::hdr::encode`]. Nothing where none was asked for.
    #[serde(skip)]
    pub(crate) latencies: Option<String>,
}

/// What a core spent its time on, in seconds. Everything that it does is in one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CoreTime {
    /// Asking the kernel what is ready.
    pub(crate) poll: f64,
    /// What came from other cores and handles.
    pub(crate) inbox: f64,
    pub(crate) read: f64,
    pub(crate) decode: f64,
    pub(crate) handler: f64,
    pub(crate) encode: f64,
    /// Timers, connecting, closing.
    pub(crate) events: f64,
    pub(crate) write: f64,
    /// Waiting for work, asleep or looking for it.
    pub(crate) idle: f64,
}

impl CoreTime {
    /// Between two readings of a core's counters.
    pub(crate) fn between(before: &Stats, after: &Stats) -> Self {
        let spent = |counter| after.get(counter).saturating_sub(before.get(counter)) as f64 / 1e9;
        Self {
            poll: spent(Counter::TimePoll),
            inbox: spent(Counter::TimeInbox),
            read: spent(Counter::TimeRead),
            decode: spent(Counter::TimeDecode),
            handler: spent(Counter::TimeHandler),
            encode: spent(Counter::TimeEncode),
            events: spent(Counter::TimeEvents),
            write: spent(Counter::TimeWrite),
            idle: spent(Counter::TimeIdle),
        }
    }
}
