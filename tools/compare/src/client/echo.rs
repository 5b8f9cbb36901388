//! Echo: every connection keeps a fixed number of messages on their way; an answer makes room for the next.

use std::io;

use super::Workload;
use super::connection::Connection;
use super::ledger::{Faults, Ledger};
use super::message::{Stamp, Template};
use super::meter::Meter;
use super::protocol::Codec;
use crate::sys;

/// One connection's account.
#[derive(Default)]
struct Account {
    ledger: Ledger,
    sent: u64,
    arrived: u64,
}

/// The workload. Connection `n` is sender `n`.
pub(super) struct Echo {
    accounts: Vec<Account>,
    template: Template,
    in_flight: u64,
    outstanding: u64,
    /// When the read that is being handled came back.
    read_at: Option<u64>,
    /// What leaves with one `send`.
    batch: Vec<u8>,
}

impl Echo {
    pub(super) fn new(connections: usize, in_flight: usize, body_len: usize) -> Self {
        Self {
            accounts: (0..connections).map(|_| Account::default()).collect(),
            template: Template::new(body_len),
            in_flight: in_flight as u64,
            outstanding: 0,
            read_at: None,
            batch: Vec::new(),
        }
    }

    /// Sends as many messages as may be on their way, all with one `send`.
    fn fill<C: Codec>(&mut self, index: usize, connection: &mut Connection<C>, now: u64) -> io::Result<()> {
        let account = &self.accounts[index];
        self.append(index, connection, now, self.in_flight.saturating_sub(account.sent - account.arrived));
        self.send(connection)
    }

    /// Adds so many messages to the batch.
    #[inline]
    pub(super) fn append<C: Codec>(&mut self, index: usize, connection: &Connection<C>, sent_at: u64, count: u64) {
        let account = &mut self.accounts[index];
        for sequence in account.sent..account.sent + count {
            connection.append(self.template.stamp(index, Stamp { sequence, sent_at }), &mut self.batch);
        }
        account.sent += count;
        self.outstanding += count;
    }

    /// Sends the batch.
    pub(super) fn send<C: Codec>(&mut self, connection: &mut Connection<C>) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let sent = connection.send(&self.batch);
        self.batch.clear();
        sent
    }
}

impl<C: Codec> Workload<C> for Echo {
    fn start(&mut self, connections: &mut [Connection<C>], _now: u64) -> io::Result<()> {
        connections.iter_mut().enumerate().try_for_each(|(index, connection)| self.fill(index, connection, sys::monotonic_nanos()))
    }

    // Once a message: as a call of its own, it takes a tenth longer.
    #[inline(always)]
    fn on_message(&mut self, connection: usize, body: &[u8], meter: &mut Meter) {
        let now = *self.read_at.get_or_insert_with(sys::monotonic_nanos);
        let account = &mut self.accounts[connection];
        match self.template.check(connection, body) {
            Some(stamp) if account.ledger.enter(stamp.sequence) => {
                account.arrived += 1;
                self.outstanding -= 1;
                meter.delivered(1);
                meter.record(stamp.sent_at, now);
            }
            Some(_) => {}
            None => account.ledger.enter_corrupt(),
        }
    }

    fn after_read(&mut self, connection: usize, connections: &mut [Connection<C>], meter: &mut Meter) -> io::Result<()> {
        match self.read_at.take() {
            Some(now) if !meter.draining() => self.fill(connection, &mut connections[connection], now),
            _ => Ok(()),
        }
    }

    fn outstanding(&self) -> u64 {
        self.outstanding
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for account in &self.accounts {
            faults += account.ledger.close(account.sent);
        }
        faults
    }
}
