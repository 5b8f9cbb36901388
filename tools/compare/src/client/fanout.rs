//! Fan-out: one publisher, many subscribers; a broadcast is complete when every subscriber that reads has it.

use std::collections::VecDeque;
use std::io;

use super::Workload;
use super::connection::Connection;
use super::ledger::{Faults, Ledger};
use super::message::{Stamp, Template};
use super::meter::Meter;
use super::protocol::Codec;
use crate::sys;

/// A broadcast on its way.
struct Broadcast {
    /// Subscribers that do not have it yet.
    missing: usize,
    sent_at: u64,
}

/// The workload. The subscribers are connections `0..subscribers`, those that are stuck the last of them; the publisher is the
/// connection after them.
pub(super) struct Fanout {
    ledgers: Vec<Ledger>,
    /// Subscribers that read.
    readers: usize,
    template: Template,
    most_outstanding: usize,
    /// The broadcasts on their way, oldest first; the first one's sequence number is `sent - on_their_way.len()`.
    on_their_way: VecDeque<Broadcast>,
    sent: u64,
    batch: Vec<u8>,
}

impl Fanout {
    pub(super) fn new(subscribers: usize, stuck: usize, outstanding: usize, body_len: usize) -> Self {
        Self {
            // The publisher's ledger must stay empty: it gets nothing back.
            ledgers: (0..=subscribers).map(|_| Ledger::default()).collect(),
            readers: subscribers - stuck,
            template: Template::new(body_len),
            most_outstanding: outstanding,
            on_their_way: VecDeque::with_capacity(outstanding),
            sent: 0,
            batch: Vec::new(),
        }
    }

    fn publisher(&self) -> usize {
        self.ledgers.len() - 1
    }

    /// Publishes as many messages as may be on their way, all with one `send`.
    fn fill<C: Codec>(&mut self, connections: &mut [Connection<C>], now: u64) -> io::Result<()> {
        while self.on_their_way.len() < self.most_outstanding {
            self.append(connections, now);
        }
        self.send(connections)
    }

    /// Adds one broadcast to the batch.
    pub(super) fn append<C: Codec>(&mut self, connections: &[Connection<C>], sent_at: u64) {
        let publisher = self.publisher();
        connections[publisher].append(self.template.stamp(publisher, Stamp { sequence: self.sent, sent_at }), &mut self.batch);
        self.on_their_way.push_back(Broadcast { missing: self.readers, sent_at });
        self.sent += 1;
    }

    /// Sends the batch.
    pub(super) fn send<C: Codec>(&mut self, connections: &mut [Connection<C>]) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let sent = connections[self.publisher()].send(&self.batch);
        self.batch.clear();
        sent
    }
}

impl<C: Codec> Workload<C> for Fanout {
    fn start(&mut self, connections: &mut [Connection<C>], now: u64) -> io::Result<()> {
        self.fill(connections, now)
    }

    // Once a message: as a call of its own, it takes a tenth longer.
    #[inline(always)]
    fn on_message(&mut self, connection: usize, body: &[u8], meter: &mut Meter) {
        let publisher = self.publisher();
        let first = self.sent - self.on_their_way.len() as u64;
        let ledger = &mut self.ledgers[connection];
        let stamp = self.template.check(publisher, body).filter(|_| connection != publisher);
        match stamp {
            Some(stamp) if ledger.enter(stamp.sequence) => {
                let index = stamp.sequence.checked_sub(first).map(|index| index as usize);
                if let Some(broadcast) = index.and_then(|index| self.on_their_way.get_mut(index)) {
                    broadcast.missing -= 1;
                    meter.delivered(1);
                }
            }
            Some(_) => {}
            None => ledger.enter_corrupt(),
        }
    }

    fn after_read(&mut self, _connection: usize, connections: &mut [Connection<C>], meter: &mut Meter) -> io::Result<()> {
        if self.on_their_way.front().is_none_or(|oldest| oldest.missing > 0) {
            return Ok(());
        }
        let now = sys::monotonic_nanos();
        while let Some(oldest) = self.on_their_way.front().filter(|oldest| oldest.missing == 0) {
            meter.record(oldest.sent_at, now);
            self.on_their_way.pop_front();
        }
        if meter.draining() { Ok(()) } else { self.fill(connections, now) }
    }

    fn outstanding(&self) -> u64 {
        self.on_their_way.len() as u64
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        let publisher = self.publisher();
        for (index, ledger) in self.ledgers.iter().enumerate() {
            let is_stuck = (self.readers..publisher).contains(&index);
            faults += ledger.close(if index == publisher || is_stuck { 0 } else { self.sent });
        }
        faults
    }
}
