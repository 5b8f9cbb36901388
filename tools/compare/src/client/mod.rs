//! The neutral client: it dials any server that speaks WIRE.md, loads it, and accounts for every byte.
//!
//! One thread, one edge-triggered epoll, the same code whatever the server is. Messages carry a sequence number, a send time
//! and a checksum ([`message`]); arrivals are entered into a [`ledger`]; rates and CPU time are taken at the borders of a
//! window ([`meter`]). The workloads, [`echo`] and [`fanout`], say what is sent when.

pub(crate) mod command;
mod config;
mod connection;
mod echo;
mod fanout;
pub(crate) mod ledger;
mod message;
pub(crate) mod meter;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::server::Poll;
use crate::sys::{self, Epoll, Interest};
use crate::wire::{self, Header};
use connection::{Connection, invalid};
use ledger::Faults;
use meter::{Figures, Meter};

pub(crate) use config::{ClientConfig, Load, Protocol, SINK_ANSWERS_EVERY};

/// Without any delivery for this long, the run is over and what is outstanding is lost.
const STALLED_AFTER: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A blocking wait ends after this long to look at the clock.
const WAIT_MS: i32 = 50;
const EVENTS_PER_WAIT: usize = 1024;
const READ_LEN: usize = 256 << 10;

/// What a workload decides. Two implementations: [`echo::Echo`] and [`fanout::Fanout`].
trait Workload {
    /// Sends what must be on its way before anything can come back.
    fn start(&mut self, connections: &mut [Connection]) -> io::Result<()>;
    /// A message came in on a connection. Its frame has passed the checks of the protocol.
    fn on_message(&mut self, connection: usize, header: Header, body: &[u8], meter: &mut Meter);
    /// All messages of one read were handled.
    fn after_read(&mut self, connection: usize, connections: &mut [Connection], meter: &mut Meter) -> io::Result<()>;
    /// Messages that were sent and have not arrived everywhere.
    fn outstanding(&self) -> u64;
    /// The faults, if nothing more will come.
    fn faults(&self) -> Faults;
}

/// Dials, runs one window, drains, closes, and returns its figures. Faults are part of them; an error means that there are none.
pub(crate) fn measure(config: &ClientConfig) -> io::Result<Figures> {
    config.check().map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))?;
    let connections = (0..config.load.connections())
        .map(|index| {
            Connection::dial(config.server, config.network)
                .map_err(|error| io::Error::new(error.kind(), format!("connection {index}: {error}")))
        })
        .collect::<io::Result<Vec<_>>>()?;
    match config.load {
        Load::Echo { connections: count, in_flight } => drive(config, connections, echo::Echo::new(count, in_flight, config.body_len)),
        Load::Fanout { subscribers, outstanding, .. } => {
            drive(config, connections, fanout::Fanout::new(subscribers, outstanding, config.body_len))
        }
        _ => unreachable!("refused by the check"),
    }
}

fn drive(config: &ClientConfig, connections: Vec<Connection>, workload: impl Workload) -> io::Result<Figures> {
    let epoll = Epoll::new(EVENTS_PER_WAIT)?;
    for (index, connection) in connections.iter().enumerate() {
        epoll.add(&connection.stream, Interest::EdgeBoth, index as u64)?;
    }
    let meter = Meter::start(&config.window, sys::monotonic_nanos())?;
    let buffer = vec![0; wire::HEADER_LEN + wire::MAX_FRAME_LEN + READ_LEN].into_boxed_slice();
    let mut client = Client { epoll, connections, workload, meter, buffer };
    client.workload.start(&mut client.connections)?;
    client.run(config.poll)?;
    let faults = client.workload.faults();
    if faults.none() {
        client.close()?;
    }
    client.meter.figures(faults).ok_or_else(|| invalid(format!("stalled before the end of the window: {faults:?}")))
}

struct Client<W> {
    epoll: Epoll,
    connections: Vec<Connection>,
    workload: W,
    meter: Meter,
    buffer: Box<[u8]>,
}

impl<W: Workload> Client<W> {
    /// The loop: until the window is over and nothing is outstanding, or nothing moves any more.
    fn run(&mut self, poll: Poll) -> io::Result<()> {
        let timeout_ms = if poll == Poll::Spin { 0 } else { WAIT_MS };
        let mut progress = (self.meter.deliveries(), sys::monotonic_nanos());
        while !(self.meter.draining() && self.workload.outstanding() == 0) {
            for index in 0..self.epoll.wait(timeout_ms)? {
                let event = self.epoll.event(index);
                let connection = event.token as usize;
                if event.writable() {
                    self.connections[connection].flush()?;
                }
                if event.readable() {
                    self.read(connection, event.ended())?;
                }
            }
            let now = sys::monotonic_nanos();
            self.meter.tick(now)?;
            if self.meter.deliveries() != progress.0 {
                progress = (self.meter.deliveries(), now);
            } else if now - progress.1 > STALLED_AFTER.as_nanos() as u64 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads until a short read; see the server's `read`, which has the same reasons.
    fn read(&mut self, index: usize, ended: bool) -> io::Result<()> {
        loop {
            let connection = &mut self.connections[index];
            let kept = connection.partial.len();
            self.buffer[..kept].copy_from_slice(&connection.partial);
            let filled = match (&connection.stream).read(&mut self.buffer[kept..]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection")),
                Ok(count) => kept + count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.handle_bytes(index, filled)?;
            self.workload.after_read(index, &mut self.connections, &mut self.meter)?;
            if filled < self.buffer.len() && !ended {
                return Ok(());
            }
        }
    }

    /// Handles the frames in the first `filled` bytes of the buffer where they lie, and keeps an unfinished one.
    fn handle_bytes(&mut self, index: usize, filled: usize) -> io::Result<()> {
        let mut rest = &self.buffer[..filled];
        while let Some(header) = Header::read(rest) {
            header.check().map_err(|rule| invalid(format!("the server broke rule {}", rule.0)))?;
            let end = wire::HEADER_LEN + header.length();
            if end > rest.len() {
                break;
            }
            let body = &rest[wire::HEADER_LEN..end];
            if header.kind() < wire::READY {
                self.workload.on_message(index, header, body, &mut self.meter);
            } else {
                answer_control(&mut self.connections[index], header, body)?;
            }
            rest = &rest[end..];
        }
        let partial = &mut self.connections[index].partial;
        partial.clear();
        partial.extend_from_slice(rest);
        Ok(())
    }

    /// Ends all connections in order, which also shows that nothing more was on its way.
    fn close(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        self.connections.iter_mut().try_for_each(Connection::begin_close)?;
        self.connections.iter_mut().try_for_each(|connection| connection.finish_close(deadline))
    }
}

fn answer_control(connection: &mut Connection, header: Header, body: &[u8]) -> io::Result<()> {
    match header.kind() {
        wire::PING => connection.send(&wire::control(wire::PONG, body.try_into().expect("its length was checked"))),
        wire::GOODBYE => {
            let (code, detail) = (wire::u16_at(body, 0), wire::u16_at(body, 2));
            Err(invalid(format!("the server said goodbye: code {code}, detail {detail}")))
        }
        kind => Err(invalid(format!("the server sent a control frame of kind {kind}"))),
    }
}
