//! Whether the other side is there, and how far away.
//!
//! Both sides of a connection do the same: whoever has heard nothing for an interval sends a ping, and any byte is a sign of life. Pings
//! are numbered, and a pong answers its ping and those before it, so it needs no table; one that answers nothing is a violation. Round
//! trips are measured on the latest ping alone, and not where the other side was not read meanwhile.

use std::time::Duration;

use super::rtt::RttEstimator;
use crate::config::{self, AdaptiveKeepalive};
use crate::error::Violation;
use crate::time::Timestamp;

/// One peer's signs of life.
#[derive(Debug)]
pub(crate) struct Keepalive {
    last_received: Timestamp,
    /// When the latest ping was sent, while it has no pong and is a measure.
    sent: Option<Timestamp>,
    /// The nonce of the latest ping: 34 years of four pings a second.
    last: u32,
    /// How many of the latest are not answered: four hours of them.
    outstanding: u16,
    /// Pings since the last byte came; of meaning while `sent` is later than that.
    probes: u16,
    rtt: RttEstimator,
    /// When the bucket of its pings is full again: all that there is to say of one whose rate and burst are the core's.
    refilled: Timestamp,
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
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { last_received: now, sent: None, last: 0, outstanding: 0, probes: 0, rtt: RttEstimator::new(), refilled: now }
    }

    #[inline]
    pub(crate) fn handle_bytes(&mut self, now: Timestamp) {
        self.last_received = now;
    }

    /// When the ping with this nonce was sent, if its pong is a measure that is still to come.
    pub(crate) fn sent(&self, nonce: u64) -> Option<Timestamp> {
        self.sent.filter(|_| nonce == u64::from(self.last))
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// A ping came: whether it is one too many.
    pub(crate) fn handle_ping(&mut self, now: Timestamp, config: &config::Keepalive) -> Result<(), Violation> {
        let one = Duration::from_secs(1) / config.max_pings_per_second;
        let refilled = self.refilled.max(now) + one;
        if refilled - now > one * config.ping_burst {
            return Err(Violation::PingFlood);
        }
        self.refilled = refilled;
        Ok(())
    }

    /// A pong came: it must be the answer to a ping that is outstanding. Those before it stay without an answer. Returns how long that
    /// took, where it is a measure.
    pub(crate) fn handle_pong(&mut self, now: Timestamp, nonce: u64) -> Result<Option<Duration>, Violation> {
        let later = u64::from(self.last).checked_sub(nonce).ok_or(Violation::UnsolicitedPong)?;
        if later >= u64::from(self.outstanding) {
            return Err(Violation::UnsolicitedPong);
        }
        self.outstanding = later as u16;
        let took = if later == 0 { self.sent.take().map(|sent| now - sent) } else { None };
        took.inspect(|&took| self.rtt.record(took));
        Ok(took)
    }

    /// A ping that is no measure: its pong will be late for other reasons than the way that it takes. Returns its nonce.
    pub(crate) fn reassure(&mut self) -> u64 {
        self.sent = None;
        self.next_nonce()
    }

    /// The other side is not read for a while, so a pong that comes then says nothing of the way that it took.
    pub(crate) fn forget_sample(&mut self) {
        self.sent = None;
    }

    fn next_nonce(&mut self) -> u64 {
        self.last = self.last.saturating_add(1);
        self.outstanding = self.outstanding.saturating_add(1);
        u64::from(self.last)
    }

    /// Looks at the clock.
    pub(crate) fn poll(&mut self, now: Timestamp, config: &config::Keepalive) -> Life {
        let silent = now - self.last_received;
        if silent >= config.timeout {
            return Life::Dead;
        }
        let dead = self.last_received + config.timeout;
        if silent < config.interval {
            return Life::Alive { look_again: self.last_received + config.interval };
        }
        let adaptive = config.adaptive.filter(|_| self.rtt.smoothed().is_some());
        let first = adaptive.map(|adaptive| self.rtt.timeout(adaptive.floor, config.timeout));
        if let Some(sent) = self.sent.filter(|&sent| sent > self.last_received) {
            // The last ping is waited for: to the end, where there is nothing to go by.
            let due = first.map_or(dead, |first| dead.min(sent + AdaptiveKeepalive::backed_off(first, self.probes.into())));
            if now < due {
                return Life::Alive { look_again: due };
            }
            if adaptive.is_some_and(|adaptive| u32::from(self.probes) >= adaptive.probes) {
                return Life::Dead;
            }
        } else {
            self.probes = 0;
        }
        let nonce = self.next_nonce();
        self.sent = Some(now);
        self.probes += 1;
        let wait = first.map_or(config.interval, |first| AdaptiveKeepalive::backed_off(first, self.probes.into()));
        Life::Probe { nonce, look_again: dead.min(now + wait) }
    }

    /// This side was asleep for `gap` (stopped, or its machine was): what came meanwhile is not read yet, so nobody is dead because of it.
    /// Nor is a pong that comes late because of it a measure.
    pub(crate) fn forgive(&mut self, now: Timestamp, gap: Duration) {
        self.forget_sample();
        self.last_received = (self.last_received + gap).min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(adaptive: Option<AdaptiveKeepalive>) -> config::Keepalive {
        config::Keepalive { adaptive, ..Default::default() }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn silence_is_probed_once_and_then_dead() {
        let mut keepalive = Keepalive::new(at(0));
        assert_eq!(keepalive.poll(at(1000), &config(None)), Life::Alive { look_again: at(5000) });
        assert_eq!(keepalive.poll(at(5000), &config(None)), Life::Probe { nonce: 1, look_again: at(10_000) });
        assert_eq!(keepalive.poll(at(10_000), &config(None)), Life::Alive { look_again: at(15_000) });
        assert_eq!(keepalive.poll(at(15_000), &config(None)), Life::Dead);
    }

    #[test]
    fn any_byte_is_life_and_a_pong_measures() {
        let mut keepalive = Keepalive::new(at(0));
        assert!(matches!(keepalive.poll(at(5000), &config(None)), Life::Probe { nonce: 1, .. }));
        assert_eq!(keepalive.handle_pong(at(5007), 2), Err(Violation::UnsolicitedPong));
        keepalive.handle_bytes(at(5007));
        assert_eq!(keepalive.handle_pong(at(5007), 1), Ok(Some(Duration::from_millis(7))));
        assert_eq!(keepalive.rtt(), Some(Duration::from_millis(7)));
        assert_eq!(keepalive.handle_pong(at(5008), 1), Err(Violation::UnsolicitedPong));
        assert!(matches!(keepalive.poll(at(10_007), &config(None)), Life::Probe { nonce: 2, .. }));
    }

    #[test]
    fn a_pong_that_was_slept_over_is_no_measure_and_pings_begin_anew() {
        let config = config(Some(AdaptiveKeepalive { probes: 1, ..Default::default() }));
        let mut keepalive = Keepalive::new(at(0));
        assert!(matches!(keepalive.poll(at(5000), &config), Life::Probe { nonce: 1, .. }));
        keepalive.handle_bytes(at(5002));
        assert_eq!(keepalive.handle_pong(at(5002), 1), Ok(Some(Duration::from_millis(2))));
        assert!(matches!(keepalive.poll(at(10_002), &config), Life::Probe { nonce: 2, .. }));
        // Stopped for three seconds right then: the wait of that ping is over, and says nothing.
        keepalive.forgive(at(13_002), Duration::from_secs(3));
        assert!(matches!(keepalive.poll(at(13_002), &config), Life::Probe { nonce: 3, .. } | Life::Alive { .. }));
        assert_eq!(keepalive.sent(2), None);
        keepalive.handle_bytes(at(13_003));
        assert_eq!(keepalive.handle_pong(at(13_003), 2), Ok(None));
        assert_eq!(keepalive.rtt(), Some(Duration::from_millis(2)));
    }

    #[test]
    fn is_small() {
        assert_eq!(size_of::<Keepalive>(), 40);
    }

    #[test]
    fn where_round_trips_are_known_pings_are_repeated_each_after_twice_the_wait_and_the_last_is_the_end() {
        let config = config(Some(AdaptiveKeepalive::default()));
        let mut keepalive = Keepalive::new(at(0));
        // Not before one was answered.
        assert_eq!(keepalive.poll(at(5000), &config), Life::Probe { nonce: 1, look_again: at(10_000) });
        assert_eq!(keepalive.poll(at(10_000), &config), Life::Alive { look_again: at(15_000) });
        keepalive.handle_bytes(at(10_500));
        assert!(keepalive.handle_pong(at(10_500), 1).is_ok());
        assert_eq!(keepalive.rtt(), Some(Duration::from_millis(5500)));
        // 5.5 s and four times 2.75 s are more than is left.
        assert_eq!(keepalive.poll(at(15_500), &config), Life::Probe { nonce: 2, look_again: at(25_500) });
        for nonce in 2..100 {
            keepalive.handle_bytes(at(10_000 * nonce + 100));
            assert!(keepalive.handle_pong(at(10_000 * nonce + 100), nonce).is_ok());
            assert!(matches!(keepalive.poll(at(10_000 * (nonce + 1)), &config), Life::Probe { .. }));
        }
        // Pings have been answered in 100 ms for long: the floor holds.
        assert_eq!(keepalive.poll(at(1_000_500), &config), Life::Alive { look_again: at(1_001_000) });
        assert_eq!(keepalive.poll(at(1_001_000), &config), Life::Probe { nonce: 101, look_again: at(1_003_000) });
        assert_eq!(keepalive.poll(at(1_003_000), &config), Life::Probe { nonce: 102, look_again: at(1_005_100) }, "the ceiling");
        assert_eq!(keepalive.poll(at(1_005_100), &config), Life::Dead);
    }

    #[test]
    fn a_pong_answers_those_before_it_and_only_the_latest_is_a_measure() {
        let config = config(Some(AdaptiveKeepalive::default()));
        let mut keepalive = Keepalive::new(at(0));
        assert!(matches!(keepalive.poll(at(5000), &config), Life::Probe { nonce: 1, .. }));
        keepalive.handle_bytes(at(5001));
        assert!(keepalive.handle_pong(at(5001), 1).is_ok());
        for (now, nonce) in [(10_001, 2), (11_001, 3), (13_001, 4)] {
            assert!(matches!(keepalive.poll(at(now), &config), Life::Probe { nonce: sent, .. } if sent == nonce));
        }
        keepalive.handle_bytes(at(13_500));
        assert!(keepalive.handle_pong(at(13_500), 3).is_ok());
        assert_eq!(keepalive.handle_pong(at(13_500), 2), Err(Violation::UnsolicitedPong), "answered with the one after it");
        assert_eq!(keepalive.rtt(), Some(Duration::from_millis(1)));
        assert!(keepalive.handle_pong(at(13_501), 4).is_ok());
        assert_eq!(keepalive.rtt(), Some(Duration::from_micros(63_375)));
        assert_eq!(keepalive.handle_pong(at(13_501), 5), Err(Violation::UnsolicitedPong));
        // A sign of life is no measure, and what was measured before it is none any more.
        assert_eq!(keepalive.reassure(), 5);
        assert!(keepalive.handle_pong(at(19_000), 5).is_ok());
        assert_eq!(keepalive.rtt(), Some(Duration::from_micros(63_375)));
    }

    #[test]
    fn a_flood_of_pings_is_a_violation_and_a_steady_trickle_is_not() {
        let mut keepalive = Keepalive::new(at(0));
        let mut ping = |millis| keepalive.handle_ping(at(millis), &config(None));
        assert!((0..8).all(|_| ping(0).is_ok()));
        assert_eq!(ping(0), Err(Violation::PingFlood));
        assert_eq!(ping(249), Err(Violation::PingFlood), "what was refused costs nothing");
        assert!((1..100).all(|step| ping(step * 250).is_ok()));
        assert_eq!(ping(99 * 250), Err(Violation::PingFlood));
        // A pause of any length fills it, and no further.
        assert!((0..8).all(|_| ping(3_600_000).is_ok()));
        assert_eq!(ping(3_600_000), Err(Violation::PingFlood));
    }
}
