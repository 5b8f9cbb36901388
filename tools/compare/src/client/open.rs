//! Open loops: messages leave when they are due, whatever is still on its way.
//!
//! Each message carries the time when it was due, and its latency counts from there. A server that stands still for a while delays
//! every message that was due in the meantime, and all of them are in the figures; a client that waits for answers would have sent
//! none of them.

use std::io;

use super::Workload;
use super::connection::Connection;
use super::echo::Echo;
use super::fanout::Fanout;
use super::ledger::Faults;
use super::meter::Meter;
use super::protocol::Codec;

/// Above this many on their way the server has long been overrun: what is due waits here instead of in a buffer. Its time stays the
/// one when it was due, so this changes no latency that means anything.
const MOST_OUTSTANDING: u64 = 1 << 16;

/// When each message is due: a fixed number a second.
struct Schedule {
    begun_at: u64,
    rate: u64,
    taken: u64,
}

impl Schedule {
    fn new(rate: u64) -> Self {
        Self { begun_at: 0, rate, taken: 0 }
    }

    fn next_due(&self) -> u64 {
        self.begun_at + (u128::from(self.taken) * 1_000_000_000 / u128::from(self.rate)) as u64
    }

    /// The number of the next message and the time when it was due, if that has come.
    fn take(&mut self, now: u64) -> Option<(u64, u64)> {
        let due = self.next_due();
        (due <= now).then(|| {
            self.taken += 1;
            (self.taken - 1, due)
        })
    }
}

/// Echo at a rate: the connections send in turn.
pub(super) struct OpenEcho {
    echo: Echo,
    schedule: Schedule,
    connections: u64,
}

impl OpenEcho {
    pub(super) fn new(connections: usize, rate: u64, body_len: usize) -> Self {
        // With none in flight, an answer makes room for nothing.
        Self { echo: Echo::new(connections, 0, body_len), schedule: Schedule::new(rate), connections: connections as u64 }
    }
}

impl<C: Codec> Workload<C> for OpenEcho {
    fn start(&mut self, _connections: &mut [Connection<C>], now: u64) -> io::Result<()> {
        self.schedule.begun_at = now;
        Ok(())
    }

    fn on_message(&mut self, connection: usize, body: &[u8], meter: &mut Meter) {
        Workload::<C>::on_message(&mut self.echo, connection, body, meter);
    }

    fn after_read(&mut self, connection: usize, connections: &mut [Connection<C>], meter: &mut Meter) -> io::Result<()> {
        self.echo.after_read(connection, connections, meter)
    }

    fn on_turn(&mut self, connections: &mut [Connection<C>], meter: &mut Meter, now: u64) -> io::Result<()> {
        let mut last = 0;
        while !meter.draining() && Workload::<C>::outstanding(&self.echo) < MOST_OUTSTANDING {
            let Some((number, due)) = self.schedule.take(now) else { break };
            let index = (number % self.connections) as usize;
            if index != last {
                self.echo.send(&mut connections[last])?;
            }
            self.echo.append(index, &connections[index], due, 1);
            last = index;
        }
        self.echo.send(&mut connections[last])
    }

    fn next_due(&self) -> Option<u64> {
        Some(self.schedule.next_due())
    }

    fn outstanding(&self) -> u64 {
        Workload::<C>::outstanding(&self.echo)
    }

    fn faults(&self) -> Faults {
        Workload::<C>::faults(&self.echo)
    }
}

/// Fan-out at a rate.
pub(super) struct OpenFanout {
    fanout: Fanout,
    schedule: Schedule,
}

impl OpenFanout {
    pub(super) fn new(subscribers: usize, rate: u64, body_len: usize) -> Self {
        Self { fanout: Fanout::new(subscribers, 0, 0, body_len), schedule: Schedule::new(rate) }
    }
}

impl<C: Codec> Workload<C> for OpenFanout {
    fn start(&mut self, _connections: &mut [Connection<C>], now: u64) -> io::Result<()> {
        self.schedule.begun_at = now;
        Ok(())
    }

    fn on_message(&mut self, connection: usize, body: &[u8], meter: &mut Meter) {
        Workload::<C>::on_message(&mut self.fanout, connection, body, meter);
    }

    fn after_read(&mut self, connection: usize, connections: &mut [Connection<C>], meter: &mut Meter) -> io::Result<()> {
        self.fanout.after_read(connection, connections, meter)
    }

    fn on_turn(&mut self, connections: &mut [Connection<C>], meter: &mut Meter, now: u64) -> io::Result<()> {
        while !meter.draining() && Workload::<C>::outstanding(&self.fanout) < MOST_OUTSTANDING {
            let Some((_, due)) = self.schedule.take(now) else { break };
            self.fanout.append(connections, due);
        }
        self.fanout.send(connections)
    }

    fn next_due(&self) -> Option<u64> {
        Some(self.schedule.next_due())
    }

    fn outstanding(&self) -> u64 {
        Workload::<C>::outstanding(&self.fanout)
    }

    fn faults(&self) -> Faults {
        Workload::<C>::faults(&self.fanout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_still_due_at_its_own_time() {
        let mut schedule = Schedule::new(1000);
        schedule.begun_at = 5_000_000;
        assert_eq!(schedule.take(4_999_999), None);
        let taken: Vec<_> = std::iter::from_fn(|| schedule.take(8_200_000)).collect();
        assert_eq!(taken, [(0, 5_000_000), (1, 6_000_000), (2, 7_000_000), (3, 8_000_000)]);
        assert_eq!(schedule.next_due(), 9_000_000);
    }

    #[test]
    fn a_rate_that_divides_nothing_does_not_drift() {
        let mut schedule = Schedule::new(3);
        while schedule.take(100_000_000_000).is_some() {}
        assert_eq!((schedule.taken, schedule.next_due()), (301, 100_333_333_333));
    }
}
