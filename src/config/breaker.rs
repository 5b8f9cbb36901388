//! When a target is not dialled any more for a while.

use std::time::Duration;

use super::{at_least, at_least_as_long, at_least_time, within};
use crate::error::ConfigError;

/// The circuit breaker that each target has: an address, with the node that is to answer there where the dial names one. All channels of a
/// target share it; dials with an identity of their own ([`crate::Dial::identity`]) have one of their own.
///
/// Attempts that fail in a row open it; then the target is not dialled until its cool-down is over. After that a few *probes* find out
/// whether it is back: one that fails opens the breaker again, for twice as long, and enough that succeed close it. An attempt has
/// succeeded when the other side's first message, ping, or answer to one is there: not when it has merely accepted. It has failed when the
/// connection or its handshake did, or ended before that, and the target or the network was to blame. What this side is to blame for
/// counts neither way: no file descriptors, no such source address, no route, a cancelled dial, a node that is not on our list, a
/// connection that there is already, a shutdown.
///
/// While it is open, [`crate::Dial::once`] and [`crate::Context::connect`] fail with [`crate::DialError::BreakerOpen`] (`breaker_refused`),
/// and a dial that is kept up waits (`breaker_delayed`). Such a dial waits for its backoff and for the breaker at the same time, not for
/// one after the other: the next attempt is at the later of the two.
///
/// Failures in a row, not failures in a window of time: the backoff spreads attempts from milliseconds to half a minute, so a window that
/// is right at the beginning says nothing later. How long ago they were counts all the same: see `expire`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Failures in a row that open it. Default 5, which take the backoff about a second. Zero: there are no breakers.
    pub failures: u32,
    /// Shortest cool-down. The actual one is drawn evenly between half of it and all of it, so that those who lost a target together do not
    /// come back together; not less, or it were none. Default 1 s.
    pub cool_down: Duration,
    /// Longest cool-down, which doubles each time that a probe fails. Default 30 s, as [`crate::BackoffConfig::max`]. For nodes on the
    /// allow-list it is not longer than [`crate::BackoffConfig::max_allowed`].
    pub max_cool_down: Duration,
    /// Probes at a time. Default 1. Dials that are kept up wait for their outcome; others are refused.
    pub probes: u32,
    /// Successes that close it. Default 1. More make sense where several channels or dials lead to one target.
    pub successes: u32,
    /// How long a probe may take from its beginning to that proof. Default 15 s: a connect, a handshake and a ping (so longer than
    /// [`crate::Keepalive::interval`], where the other side's application may have nothing to say). A probe that takes longer has failed:
    /// its attempt is given up; a connection that it has led to stays, and closes the breaker with its first message or ping all the same.
    pub probe_timeout: Duration,
    /// How long failures are remembered after the last attempt, or the end of the cool-down; at most a quarter more. Default 10 min. What
    /// is forgotten is closed, without an event.
    pub expire: Duration,
    /// Targets that are remembered, whole engine: those only whose last attempt failed. Default 8,192, 1.5 KiB each at the worst. For
    /// one more the oldest whose breaker is closed is forgotten; where there is none, the new one is not remembered, and its breaker stays
    /// closed. Both are counted (`breaker_forgotten`).
    pub targets: usize,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            cool_down: Duration::from_secs(1),
            max_cool_down: Duration::from_secs(30),
            probes: 1,
            successes: 1,
            probe_timeout: Duration::from_secs(15),
            expire: Duration::from_secs(600),
            targets: 8 << 10,
        }
    }
}

impl BreakerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        at_least_time("breaker.cool_down", self.cool_down, Duration::from_millis(1))?;
        at_least_as_long("breaker.max_cool_down", self.max_cool_down, self.cool_down, "not shorter than breaker.cool_down")?;
        at_least("breaker.probes", self.probes as usize, 1, "at least 1")?;
        at_least("breaker.successes", self.successes as usize, 1, "at least 1")?;
        at_least_time("breaker.probe_timeout", self.probe_timeout, Duration::from_millis(10))?;
        at_least_time("breaker.expire", self.expire, Duration::from_millis(1))?;
        within("breaker.targets", self.targets, 1, 1 << 24, "1 to 16777216 targets")
    }
}
