//! Fan-out: one publisher, many subscribers; a broadcast is complete when every subscriber has it.

use std::collections::VecDeque;
use std::io;

use super::Workload;
use super::connection::Connection;
use super::ledger::{Faults, Ledger};
use super::message::{Stamp, Template};
use super::meter::Meter;
use crate::sys;
use crate::wire::Header;

/// A broadcast on its way.
struct Broadcast {
    /// Subscribers that do not have it yet.
    missing: usize,
    sent_at: u64,
}

/// The workload. The subscribers are connections `0..subscribers`; the publisher is the one after them.
pub(super) struct Fanout {
    ledgers: Vec<Ledger>,
    template: Template,
    most_outstanding: usize,
    /// The broadcasts on their way, oldest first; the first one's sequence number is `sent - on_their_way.len()`.
    on_their_way: VecDeque<Broadcast>,
    sent: u64,
    batch: Vec<u8>,
}

impl Fanout {
    pub(super) fn new(subscribers: usize, outstanding: usize, body_len: usize) -> Self {
        Self {
            // The publisher's ledger must stay empty: it gets nothing back.
            ledgers: (0..=subscribers).map(|_| Ledger::default()).collect(),
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
    fn fill(&mut self, connections: &mut [Connection], now: u64) -> io::Result<()> {
        let publisher = self.publisher();
        self.batch.clear();
        while self.on_their_way.len() < self.most_outstanding {
            self.batch.extend_from_slice(self.template.stamp(publisher, Stamp { sequence: self.sent, sent_at: now }));
            self.on_their_way.push_back(Broadcast { missing: publisher, sent_at: now });
            self.sent += 1;
        }
        connections[publisher].send(&self.batch)
    }
}

impl Workload for Fanout {
    fn start(&mut self, connections: &mut [Connection]) -> io::Result<()> {
        self.fill(connections, sys::monotonic_nanos())
    }

    fn on_message(&mut self, connection: usize, header: Header, body: &[u8], meter: &mut Meter) {
        let publisher = self.publisher();
        let first = self.sent - self.on_their_way.len() as u64;
        let ledger = &mut self.ledgers[connection];
        let stamp = self.template.check(publisher, header, body).filter(|_| connection != publisher);
        match stamp {
            Some(stamp) if ledger.enter(stamp.sequence) => {
                let index = stamp.sequence.checked_sub(first).map(|index| index as usize);
                if let Some(broadcast) = index.and_then(|index| self.on_their_way.get_mut(index)) {
                    broadcast.missing -= 1;
                    meter.delivered();
                }
            }
            Some(_) => {}
            None => ledger.enter_corrupt(),
        }
    }

    fn after_read(&mut self, _connection: usize, connections: &mut [Connection], meter: &mut Meter) -> io::Result<()> {
        if self.on_their_way.front().is_none_or(|oldest| oldest.missing > 0) {
            return Ok(());
        }
        let now = sys::monotonic_nanos();
        while let Some(oldest) = self.on_their_way.front().filter(|oldest| oldest.missing == 0) {
            meter.record(now - oldest.sent_at);
            self.on_their_way.pop_front();
        }
        if meter.draining() { Ok(()) } else { self.fill(connections, now) }
    }

    fn outstanding(&self) -> u64 {
        self.on_their_way.len() as u64
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for (index, ledger) in self.ledgers.iter().enumerate() {
            faults += ledger.close(if index == self.publisher() { 0 } else { self.sent });
        }
        faults
    }
}
