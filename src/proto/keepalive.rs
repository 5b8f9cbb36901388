//! Whether the other side is there, and how far away.
//!
//! Both sides of a connection do the same: whoever has heard nothing for an interval sends a ping, and any byte is a sign of life. A side
//! has one ping outstanding at most, so a pong needs no table, and one that does not answer it is a violation.

use std::time::Duration;

use super::rtt::RttEstimator;
use crate::error::Violation;
use crate::rate::TokenBucket;
use crate::time::Timestamp;

/// One peer's signs of life.
#[derive(Debug)]
pub(crate) struct Keepalive {
    last_received: Timestamp,
    /// The nonce of the ping that has no pong yet, and when it was sent.
    ping: Option<(u64, Timestamp)>,
    next_nonce: u64,
    rtt: RttEstimator,
    inbound: TokenBucket,
}

/// What a look at the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Something came lately; look again then.
    Alive { look_again: Timestamp },
    /// Send a ping with this nonce, then look again.
    Probe { nonce: u64, look_again: Timestamp },
    /// Nothing came for the dead time.
    Dead,
}

impl Keepalive {
    pub(crate) fn new(now: Timestamp, max_pings_per_second: u32, ping_burst: u32) -> Self {
        Self {
            last_received: now,
            ping: None,
            next_nonce: 1,
            rtt: RttEstimator::new(),
            inbound: TokenBucket::new(max_pings_per_second, ping_burst),
        }
    }

    #[inline]
    pub(crate) fn handle_bytes(&mut self, now: Timestamp) {
        self.last_received = now;
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// A ping came: whether it is one too many.
    pub(crate) fn handle_ping(&mut self, now: Timestamp) -> Result<(), Violation> {
        if self.inbound.take(now, 1) { Ok(()) } else { Err(Violation::PingFlood) }
    }

    /// A pong came: it must be the answer to the ping that is outstanding. Returns how long that took.
    pub(crate) fn handle_pong(&mut self, now: Timestamp, nonce: u64) -> Result<Duration, Violation> {
        match self.ping {
            Some((expected, sent)) if expected == nonce => {
                self.ping = None;
                self.rtt.record(now - sent);
                Ok(now - sent)
            }
            _ => Err(Violation::UnsolicitedPong),
        }
    }

    pub(crate) fn poll(&mut self, now: Timestamp, interval: Duration, timeout: Duration) -> Life {
        let silent = now - self.last_received;
        if silent >= timeout {
            return Life::Dead;
        }
        let dead = self.last_received + timeout;
        if silent < interval {
            return Life::Alive { look_again: self.last_received + interval };
        }
        if self.ping.is_some() {
            return Life::Alive { look_again: dead };
        }
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        self.ping = Some((nonce, now));
        Life::Probe { nonce, look_again: dead.min(now + interval) }
    }

    /// This side was asleep for `gap` (stopped, or its machine was): what came meanwhile is not read yet, so nobody is dead because of it.
    pub(crate) fn forgive(&mut self, now: Timestamp, gap: Duration) {
        self.last_received = (self.last_received + gap).min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(15);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn silence_is_probed_once_and_then_dead() {
        let mut keepalive = Keepalive::new(at(0), 4, 8);
        assert_eq!(keepalive.poll(at(1000), INTERVAL, TIMEOUT), Life::Alive { look_again: at(5000) });
        assert_eq!(keepalive.poll(at(5000), INTERVAL, TIMEOUT), Life::Probe { nonce: 1, look_again: at(10_000) });
        assert_eq!(keepalive.poll(at(10_000), INTERVAL, TIMEOUT), Life::Alive { look_again: at(15_000) });
        assert_eq!(keepalive.poll(at(15_000), INTERVAL, TIMEOUT), Life::Dead);
    }

    #[test]
    fn any_byte_is_life_and_a_pong_measures() {
        let mut keepalive = Keepalive::new(at(0), 4, 8);
        assert!(matches!(keepalive.poll(at(5000), INTERVAL, TIMEOUT), Life::Probe { nonce: 1, .. }));
        assert_eq!(keepalive.handle_pong(at(5007), 2), Err(Violation::UnsolicitedPong));
        keepalive.handle_bytes(at(5007));
        assert_eq!(keepalive.handle_pong(at(5007), 1), Ok(Duration::from_millis(7)));
        assert_eq!(keepalive.rtt(), Some(Duration::from_millis(7)));
        assert_eq!(keepalive.handle_pong(at(5008), 1), Err(Violation::UnsolicitedPong));
        assert!(matches!(keepalive.poll(at(10_007), INTERVAL, TIMEOUT), Life::Probe { nonce: 2, .. }));
    }

    #[test]
    fn a_flood_of_pings_is_a_violation_and_a_steady_trickle_is_not() {
        let mut keepalive = Keepalive::new(at(0), 4, 8);
        assert!((0..8).all(|_| keepalive.handle_ping(at(0)).is_ok()));
        assert_eq!(keepalive.handle_ping(at(0)), Err(Violation::PingFlood));
        assert!((1..100).all(|step| keepalive.handle_ping(at(step * 250)).is_ok()));
    }
}
