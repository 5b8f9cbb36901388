//! Deadlines that follow how long answers take.

use std::time::Duration;

use super::{Keepalive, at_least_time, within};
use crate::error::ConfigError;

/// How soon a silent peer is given up whose round trips are known.
///
/// After [`Keepalive::interval`] of silence a peer is pinged. With this, the answer is waited for as long as RFC 6298 says (the smoothed
/// round trip and four times its variation, but not less than `floor`), then another ping is sent and waited for twice as long, and so on;
/// when the last one was in vain, the peer is cut off (`Unresponsive`). With the defaults that is after 5 + 1 + 2 + 4 = 12 s where round
/// trips take up to a few 100 ms, and later where they take longer. [`Keepalive::timeout`] is the ceiling: after so much silence a peer is
/// cut off in any case, and so it is alone while no ping was answered yet. Any byte that comes ends the wait and begins all anew.
///
/// Round trips are measured on the pings of the keepalive alone, which the other side's core answers without its application. They are
/// not measured while this side does not read. Whose interval is clearly longer than the other side's hears its pings before it would send
/// one, and knows no round trips: give both sides the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdaptiveKeepalive {
    /// Shortest wait for the answer to the first ping. Default 1 s, as RFC 6298 (2.4) has it: hosts stand still for shorter than that every
    /// day. All waits together have to be longer than the other side pauses reading ([`crate::Timeouts::pause`]), and is not scheduled; not
    /// shorter than [`Keepalive::max_pings_per_second`] allows, and all of them within `Keepalive::timeout`.
    pub floor: Duration,
    /// Pings that have to stay without an answer, 1 to 8. Default 3: the last wait is four times the first.
    pub probes: u32,
}

impl Default for AdaptiveKeepalive {
    fn default() -> Self {
        Self { floor: Duration::from_secs(1), probes: 3 }
    }
}

impl AdaptiveKeepalive {
    /// How long the answer to the `probe`th ping is waited for, where the first is waited for so long (RFC 6298, 5.5).
    pub(crate) fn backed_off(first: Duration, probe: u32) -> Duration {
        first.saturating_mul(1 << (probe.clamp(1, 16) - 1))
    }

    pub(super) fn validate(&self, keepalive: &Keepalive) -> Result<(), ConfigError> {
        within("keepalive.adaptive.probes", self.probes as usize, 1, 8, "1 to 8 pings")?;
        at_least_time("keepalive.adaptive.floor", self.floor, Duration::from_secs(1) / keepalive.max_pings_per_second)?;
        // All waits together: one less than twice the last one.
        let waits = self.floor.saturating_mul((1 << self.probes) - 1);
        let left = keepalive.timeout.saturating_sub(keepalive.interval);
        if waits <= left {
            return Ok(());
        }
        Err(ConfigError {
            field: "keepalive.adaptive.floor",
            value: Some(self.floor.as_millis() as u64),
            expected: "so short that all waits, each twice the one before, are within keepalive.timeout",
            bound: Some((left / ((1 << self.probes) - 1)).as_millis() as u64),
            unit: "ms",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_would_never_be_sooner_or_be_a_flood_is_refused() {
        let refused = |floor: u64, probes: u32| {
            let mut config = Config::plaintext();
            config.keepalive.adaptive = Some(AdaptiveKeepalive { floor: Duration::from_millis(floor), probes });
            config.validate().err().map(|error| (error.field, error.bound))
        };
        assert_eq!(refused(1000, 3), None);
        assert_eq!(refused(1428, 3), None);
        assert_eq!(refused(1429, 3), Some(("keepalive.adaptive.floor", Some(1428))));
        assert_eq!(refused(250, 3), None);
        assert_eq!(refused(249, 3), Some(("keepalive.adaptive.floor", Some(250))));
        assert_eq!(refused(1000, 0), Some(("keepalive.adaptive.probes", Some(1))));
        assert_eq!(refused(250, 9), Some(("keepalive.adaptive.probes", Some(8))));
    }

    #[test]
    fn each_wait_is_twice_the_one_before() {
        let waits = [1, 2, 3, 4].map(|probe| AdaptiveKeepalive::backed_off(Duration::from_secs(3), probe).as_secs());
        assert_eq!(waits, [3, 6, 12, 24]);
    }
}
