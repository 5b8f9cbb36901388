//! Idle: connections that do nothing, and what the server's memory grows by for them.

use std::fs;
use std::io;

use super::Workload;
use super::connection::{Connection, invalid};
use super::ledger::Faults;
use super::meter::Meter;
use super::protocol::Codec;

/// The workload: it waits for the end of the window. Made before the first connection is dialled, when the memory is read first.
pub(super) struct Idle {
    pid: u32,
    before: u64,
    at_the_end: Option<u64>,
    /// Messages that came from nowhere.
    received: u64,
}

impl Idle {
    pub(super) fn new(server_pid: Option<u32>) -> io::Result<Self> {
        let pid = server_pid.ok_or_else(|| invalid("whose memory is to be read was not said"))?;
        Ok(Self { pid, before: resident_bytes(pid)?, at_the_end: None, received: 0 })
    }

    /// What the memory has grown by, until the end of the window and with all connections still open.
    pub(super) fn grown_bytes(&self) -> Option<f64> {
        self.at_the_end.map(|bytes| bytes as f64 - self.before as f64)
    }
}

impl<C: Codec> Workload<C> for Idle {
    fn start(&mut self, _connections: &mut [Connection<C>], _now: u64) -> io::Result<()> {
        Ok(())
    }

    fn on_message(&mut self, _connection: usize, _body: &[u8], _meter: &mut Meter) {
        self.received += 1;
    }

    fn after_read(&mut self, _connection: usize, _connections: &mut [Connection<C>], _meter: &mut Meter) -> io::Result<()> {
        Ok(())
    }

    fn on_turn(&mut self, _connections: &mut [Connection<C>], meter: &mut Meter, _now: u64) -> io::Result<()> {
        if meter.draining() && self.at_the_end.is_none() {
            self.at_the_end = Some(resident_bytes(self.pid)?);
        }
        Ok(())
    }

    fn outstanding(&self) -> u64 {
        0
    }

    fn faults(&self) -> Faults {
        Faults { corrupt: self.received, ..Faults::default() }
    }
}

/// Resident memory of a process, counted page by page: the figure in `/proc/<pid>/status` may be off by some pages for each core.
fn resident_bytes(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.map(|count| count * 1024).ok_or_else(|| invalid(format!("{path} does not say how much memory is resident")))
}
