//! What the connection pool keeps.

use std::time::Duration;

use super::{at_least, at_least_time, within};
use crate::error::ConfigError;

/// The connection pool: what [`crate::Context::connect`] and [`crate::Handle::connect`] hand out.
///
/// A target is a node, or an address in plaintext. Its connections are its channels 0 to `max_channels`, by the engine's own name: those
/// that the pool has dialled, and, where the node is known, those that the node or the application has dialled, which are handed out as
/// well but are not the pool's to close.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Targets that the pool has connections to, or is to have, or that are pinned. Default 1,024. For one more the connections of the
    /// target that was asked for longest ago are closed, unless it is pinned or being dialled (`pool_evicted`); where there is none, the
    /// call fails ([`crate::DialError::PoolFull`], `pool_refused`).
    pub max_targets: usize,
    /// Connections to one target, 1 to 64, and no more than [`crate::Limits::channels`]. Default 1. The pool opens one more when all that
    /// there are have more than [`crate::Limits::outbox_soft`] bytes to receive, and hands out those that have less by turns; by turns also
    /// where all have more.
    pub max_channels: u16,
    /// A connection that the pool has dialled is closed ([`crate::CloseReason::Idle`], `closed_idle`) when for so long no message was
    /// received or sent on it and it was not handed out. Pings are not messages; but while a message is still arriving, something waits to
    /// be read ([`crate::WhenOver::Delay`]), sent, answered or acknowledged, or either side has subscribed to a topic, the connection is in
    /// use. Default 60 s. Looked at each quarter of it, so
    /// it may be a quarter more. Pinned targets are not closed.
    pub max_idle: Duration,
    /// Calls that wait for a connection, whole engine; and calls of one core's handler that have no answer yet. Default 1,024. One more
    /// fails ([`crate::DialError::PoolFull`], [`crate::SendError::TooManyConnects`]; `pool_refused`).
    pub waiting: usize,
    /// The same for one target. Default 256. All of them wait for one attempt.
    pub waiting_per_target: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { max_targets: 1024, max_channels: 1, max_idle: Duration::from_secs(60), waiting: 1024, waiting_per_target: 256 }
    }
}

impl PoolConfig {
    /// More channels than these would be looked at one by one.
    const MOST_CHANNELS: usize = 64;

    pub(super) fn validate(&self, channels: usize) -> Result<(), ConfigError> {
        within("pool.max_targets", self.max_targets, 1, 1 << 20, "1 to 1048576 targets")?;
        let most = channels.min(Self::MOST_CHANNELS);
        within("pool.max_channels", usize::from(self.max_channels), 1, most, "1 to 64 channels, and no more than limits.channels")?;
        at_least_time("pool.max_idle", self.max_idle, Duration::from_millis(10))?;
        within("pool.waiting", self.waiting, 1, 1 << 24, "1 to 16777216 calls")?;
        at_least("pool.waiting_per_target", self.waiting_per_target, 1, "at least 1")
    }
}
