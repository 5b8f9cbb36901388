//! Sink: messages in one direction. The server sends every 64th back, which says that the 63 before it arrived too.

use std::io;

use super::connection::Connection;
use super::ledger::{Faults, Ledger};
use super::message::{Stamp, Template};
use super::meter::Meter;
use super::protocol::Codec;
use super::{SINK_ANSWERS_EVERY, Workload};
use crate::sys;

/// One connection's account.
#[derive(Default)]
struct Account {
    /// The answers, numbered from 0: the server has counted 64 messages for each.
    answers: Ledger,
    sent: u64,
    arrived: u64,
}

/// The workload. Connection `n` is sender `n`. Messages are sent by the 64, so that the last one of all is answered too.
pub(super) struct Sink {
    accounts: Vec<Account>,
    template: Template,
    in_flight: u64,
    outstanding: u64,
    batch: Vec<u8>,
}

impl Sink {
    pub(super) fn new(connections: usize, in_flight: usize, body_len: usize) -> Self {
        Self {
            accounts: (0..connections).map(|_| Account::default()).collect(),
            template: Template::new(body_len),
            in_flight: in_flight as u64,
            outstanding: 0,
            batch: Vec::new(),
        }
    }

    /// Sends as many messages as may be on their way, all with one `send`.
    fn fill<C: Codec>(&mut self, index: usize, connection: &mut Connection<C>, now: u64) -> io::Result<()> {
        let account = &mut self.accounts[index];
        self.batch.clear();
        while account.sent + SINK_ANSWERS_EVERY - account.arrived <= self.in_flight {
            for _ in 0..SINK_ANSWERS_EVERY {
                connection.append(self.template.stamp(index, Stamp { sequence: account.sent, sent_at: now }), &mut self.batch);
                account.sent += 1;
            }
            self.outstanding += SINK_ANSWERS_EVERY;
        }
        if self.batch.is_empty() { Ok(()) } else { connection.send(&self.batch) }
    }
}

impl<C: Codec> Workload<C> for Sink {
    fn start(&mut self, connections: &mut [Connection<C>], now: u64) -> io::Result<()> {
        connections.iter_mut().enumerate().try_for_each(|(index, connection)| self.fill(index, connection, now))
    }

    fn on_message(&mut self, connection: usize, body: &[u8], meter: &mut Meter) {
        let account = &mut self.accounts[connection];
        let stamp = self.template.check(connection, body);
        // Any other number than that of a 64th message means that the server has counted too few or too many.
        match stamp.filter(|stamp| (stamp.sequence + 1).is_multiple_of(SINK_ANSWERS_EVERY)) {
            Some(stamp) if account.answers.enter(stamp.sequence / SINK_ANSWERS_EVERY) => {
                account.arrived += SINK_ANSWERS_EVERY;
                self.outstanding -= SINK_ANSWERS_EVERY;
                meter.delivered(SINK_ANSWERS_EVERY);
                meter.record(stamp.sent_at, sys::monotonic_nanos());
            }
            Some(_) => {}
            None => account.answers.enter_corrupt(),
        }
    }

    fn after_read(&mut self, connection: usize, connections: &mut [Connection<C>], meter: &mut Meter) -> io::Result<()> {
        if meter.draining() { Ok(()) } else { self.fill(connection, &mut connections[connection], sys::monotonic_nanos()) }
    }

    fn outstanding(&self) -> u64 {
        self.outstanding
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for account in &self.accounts {
            faults += account.answers.close(account.sent / SINK_ANSWERS_EVERY);
        }
        // An answer that never came leaves all that it stood for unaccounted.
        faults.lost *= SINK_ANSWERS_EVERY;
        faults
    }
}
