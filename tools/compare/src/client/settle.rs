//! Before a fan-out: the publisher sends probes until every subscriber gets them.
//!
//! That a subscriber has connected does not say that the server knows it already: not every protocol confirms a subscription, and a
//! server with a task for each connection may hear the publisher first. A probe is a message like the others, from a sender that is
//! none of the run. When everybody has the latest one there is none on its way any more, since nothing is overtaken.

use std::io;
use std::time::Duration;

use super::Workload;
use super::connection::{Connection, invalid};
use super::ledger::Faults;
use super::message::{Stamp, Template};
use super::meter::{Meter, Window};
use super::protocol::Codec;
use crate::sys;

/// The probes' sender, which is nobody's number.
const PROBER: usize = usize::MAX;
/// Another probe is sent when nothing has come for this long; the next one after twice as long, and so on: a server that takes longer
/// to pass one on would only get more to do.
const QUIET_NS: u64 = 50_000_000;
const LONGEST_QUIET_NS: u64 = 2_000_000_000;
/// Who does not get a probe in this time gets none. That others do is no progress: each has had its first long before.
const SETTLED_WITHIN_NS: u64 = 30_000_000_000;
/// A run with this window is over when nothing is outstanding.
pub(super) const NO_WINDOW: Window = Window { warmup: Duration::ZERO, measure: Duration::ZERO, server_pid: None };

/// The workload. The publisher is the connection after the subscribers.
pub(super) struct Settle {
    template: Template,
    /// The number of the latest probe that each subscriber has; zero: none.
    latest: Vec<u64>,
    sent: u64,
    /// Subscribers that do not have the latest one.
    missing: usize,
    begun_at: u64,
    quiet_since: u64,
    quiet_ns: u64,
    /// Something came that is no probe.
    corrupt: u64,
}

impl Settle {
    pub(super) fn new(subscribers: usize, body_len: usize) -> Self {
        Self {
            template: Template::new(body_len),
            latest: vec![0; subscribers],
            sent: 0,
            missing: subscribers,
            begun_at: 0,
            quiet_since: 0,
            quiet_ns: QUIET_NS,
            corrupt: 0,
        }
    }

    fn probe<C: Codec>(&mut self, connections: &mut [Connection<C>], now: u64) -> io::Result<()> {
        let publisher = &mut connections[self.latest.len()];
        self.sent += 1;
        self.missing = self.latest.len();
        self.quiet_since = now;
        let mut probe = Vec::new();
        publisher.append(self.template.stamp(PROBER, Stamp { sequence: self.sent, sent_at: now }), &mut probe);
        publisher.send(&probe)
    }

    /// Whether everybody is there.
    pub(super) fn outcome(&self) -> io::Result<()> {
        if self.corrupt > 0 {
            return Err(invalid(format!("before the run, {} messages came that were not sent", self.corrupt)));
        }
        if self.missing > 0 {
            let deaf = self.latest.iter().filter(|&&number| number == 0).count();
            let reason =
                format!("before the run: of {} subscribers, {deaf} get nothing, {} not all", self.latest.len(), self.missing - deaf);
            return Err(invalid(reason));
        }
        Ok(())
    }
}

impl<C: Codec> Workload<C> for Settle {
    fn start(&mut self, connections: &mut [Connection<C>], now: u64) -> io::Result<()> {
        self.begun_at = now;
        self.probe(connections, now)
    }

    fn on_message(&mut self, connection: usize, body: &[u8], meter: &mut Meter) {
        let Some(stamp) = self.template.check(PROBER, body) else {
            self.corrupt += 1;
            return;
        };
        match self.latest.get_mut(connection) {
            Some(latest) if stamp.sequence > *latest => {
                *latest = stamp.sequence;
                self.missing -= usize::from(stamp.sequence == self.sent);
                meter.delivered(1);
            }
            _ => self.corrupt += 1,
        }
    }

    fn after_read(&mut self, _connection: usize, _connections: &mut [Connection<C>], _meter: &mut Meter) -> io::Result<()> {
        self.quiet_since = sys::monotonic_nanos();
        Ok(())
    }

    fn on_turn(&mut self, connections: &mut [Connection<C>], _meter: &mut Meter, now: u64) -> io::Result<()> {
        if self.missing == 0 || now.saturating_sub(self.quiet_since) <= self.quiet_ns {
            return Ok(());
        }
        if now.saturating_sub(self.begun_at) > SETTLED_WITHIN_NS {
            return self.outcome();
        }
        self.quiet_ns = (2 * self.quiet_ns).min(LONGEST_QUIET_NS);
        self.probe(connections, now)
    }

    fn next_due(&self) -> Option<u64> {
        Some(self.quiet_since + self.quiet_ns)
    }

    fn outstanding(&self) -> u64 {
        self.missing as u64
    }

    fn faults(&self) -> Faults {
        Faults::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::wire::Wire;
    use super::*;

    #[test]
    fn who_never_gets_a_probe_is_not_awaited_for_ever() {
        let mut settle = Settle::new(3, 32);
        (settle.sent, settle.latest, settle.missing) = (9, vec![9, 0, 9], 1);
        let mut meter = Meter::start(&NO_WINDOW, 1).unwrap();
        let mut turn = |now| Workload::<Wire>::on_turn(&mut settle, &mut [], &mut meter, now);
        let error = turn(SETTLED_WITHIN_NS + 1).unwrap_err().to_string();
        assert!(error.contains("of 3 subscribers, 1 get nothing"), "{error}");
    }
}
