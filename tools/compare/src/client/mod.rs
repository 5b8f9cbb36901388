//! The neutral client: it dials any server whose protocol it speaks, loads it, and accounts for every byte.
//!
//! One thread, one edge-triggered epoll, the same code whatever the server is. Messages carry a sequence number, a send time
//! and a checksum ([`message`]); arrivals are entered into a [`ledger`]; rates and CPU time are taken at the borders of a
//! window ([`meter`]). The workloads ([`echo`], [`fanout`], [`sink`], [`open`], [`idle`]) say what is sent when, and a [`protocol`] how
//! it looks on the wire. Before a fan-out begins, [`settle`] sees to it that every subscriber is one.

pub(crate) mod command;
mod config;
mod connection;
mod echo;
mod fanout;
mod idle;
pub(crate) mod ledger;
mod message;
pub(crate) mod meter;
mod open;
mod protocol;
mod settle;
mod sink;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::server::Poll;
use crate::sys::{self, Epoll, Interest};
use connection::{Connection, Received, SharedBuffer, invalid};
use echo::Echo;
use fanout::Fanout;
use idle::Idle;
use ledger::Faults;
use meter::{Figures, Meter};
use open::{OpenEcho, OpenFanout};
use protocol::{Codec, Role};
use settle::Settle;
use sink::Sink;

pub(crate) use config::{ClientConfig, Load, Protocol, SINK_ANSWERS_EVERY};

/// Without any delivery for this long, the run is over and what is outstanding is lost.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// For all connections together, of which there may be thousands.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A blocking wait ends after this long to look at the clock.
const WAIT_MS: u64 = 50;
const EVENTS_PER_WAIT: usize = 1024;

/// What a workload decides.
trait Workload<C: Codec> {
    /// Sends what must be on its way before anything can come back.
    fn start(&mut self, connections: &mut [Connection<C>], now: u64) -> io::Result<()>;
    /// A message came in on a connection, or something that is none: then `body` is empty.
    fn on_message(&mut self, connection: usize, body: &[u8], meter: &mut Meter);
    /// All messages of one read were handled.
    fn after_read(&mut self, connection: usize, connections: &mut [Connection<C>], meter: &mut Meter) -> io::Result<()>;
    /// Once a turn: sends what is due by now.
    fn on_turn(&mut self, _connections: &mut [Connection<C>], _meter: &mut Meter, _now: u64) -> io::Result<()> {
        Ok(())
    }
    /// When [`Workload::on_turn`] has something to do next.
    fn next_due(&self) -> Option<u64> {
        None
    }
    /// Messages that were sent and have not arrived everywhere.
    fn outstanding(&self) -> u64;
    /// The faults, if nothing more will come.
    fn faults(&self) -> Faults;
}

/// Dials, runs one window, drains, closes, and returns its figures. Faults are part of them; an error means that there are none.
pub(crate) fn measure(config: &ClientConfig) -> io::Result<Figures> {
    config.check().map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))?;
    match config.protocol {
        Protocol::Wire => measure_over::<protocol::Wire>(config),
        Protocol::Noise => measure_over::<protocol::Noise>(config),
        Protocol::Nats => measure_over::<protocol::Nats>(config),
        Protocol::Redis => measure_over::<protocol::Redis>(config),
        Protocol::Zmtp => measure_over::<protocol::Zmtp>(config),
        Protocol::MessageIo => measure_over::<protocol::MessageIo>(config),
        Protocol::Json => measure_over::<protocol::Json>(config),
    }
}

fn measure_over<C: Codec>(config: &ClientConfig) -> io::Result<Figures> {
    let body_len = config.body_len;
    match config.load {
        Load::Echo { connections, in_flight } => Client::<C>::dial(config)?.load(config, &mut Echo::new(connections, in_flight, body_len)),
        Load::Sink { connections, in_flight } => Client::<C>::dial(config)?.load(config, &mut Sink::new(connections, in_flight, body_len)),
        Load::OpenEcho { connections, rate } => Client::<C>::dial(config)?.load(config, &mut OpenEcho::new(connections, rate, body_len)),
        Load::Fanout { subscribers, outstanding, stuck } => {
            let mut client = Client::<C>::dial(config)?;
            client.settle(config, subscribers)?;
            client.stop_reading(subscribers - stuck..subscribers)?;
            client.load(config, &mut Fanout::new(subscribers, stuck, outstanding, body_len))
        }
        Load::OpenFanout { subscribers, rate } => {
            let mut client = Client::<C>::dial(config)?;
            client.settle(config, subscribers)?;
            client.load(config, &mut OpenFanout::new(subscribers, rate, body_len))
        }
        Load::Idle { connections } => {
            let mut idle = Idle::new(config.window.server_pid)?;
            let figures = Client::<C>::dial(config)?.load(config, &mut idle)?;
            let bytes_per_connection = idle.grown_bytes().map(|bytes| bytes / connections as f64);
            Ok(Figures { bytes_per_connection, ..figures })
        }
    }
}

/// The connections, and the loop around them.
struct Client<C> {
    epoll: Epoll,
    connections: Vec<Connection<C>>,
    /// Those that are not read any more, and whose end does not matter.
    stuck: Range<usize>,
    /// Where there may be more to read, and whether the server has ended its direction there.
    unfinished: Vec<(usize, bool)>,
    shared: SharedBuffer,
}

impl<C: Codec> Client<C> {
    fn dial(config: &ClientConfig) -> io::Result<Self> {
        let (epoll, mut connections) = (Epoll::new(EVENTS_PER_WAIT)?, Vec::new());
        for index in 0..config.load.connections() {
            let role = config.load.role(index);
            let address = config.publishing.filter(|_| role == Role::Subscriber).unwrap_or(config.server);
            let connection = Connection::dial(address, index, role, config)
                .map_err(|error| io::Error::new(error.kind(), format!("connection {index}: {error}")))?;
            epoll.add(&connection.stream, Interest::EdgeBoth, index as u64)?;
            connections.push(connection);
        }
        Ok(Self { epoll, connections, stuck: 0..0, unfinished: Vec::new(), shared: SharedBuffer::new::<C>(config.body_len) })
    }

    /// Waits until every subscriber gets what the publisher sends.
    fn settle(&mut self, config: &ClientConfig, subscribers: usize) -> io::Result<()> {
        let mut settle = Settle::new(subscribers, config.body_len);
        let mut meter = Meter::start(&settle::NO_WINDOW, sys::monotonic_nanos())?;
        settle.start(&mut self.connections, sys::monotonic_nanos())?;
        self.run(&mut settle, &mut meter, config.poll)?;
        settle.outcome()?;
        // Whose core acknowledges is not to depend on what a protocol's opening looks like: a fifth of the server's CPU with 1 KiB.
        self.connections[..subscribers].iter().try_for_each(|connection| sys::only_listens(&connection.stream))
    }

    /// From here on these are not read.
    fn stop_reading(&mut self, connections: Range<usize>) -> io::Result<()> {
        self.stuck = connections;
        self.connections[self.stuck.clone()].iter().try_for_each(|connection| self.epoll.remove(&connection.stream))
    }

    /// One window of a load, from its start to the end of the connections.
    fn load(mut self, config: &ClientConfig, workload: &mut impl Workload<C>) -> io::Result<Figures> {
        let mut meter = Meter::start(&config.window, sys::monotonic_nanos())?;
        workload.start(&mut self.connections, sys::monotonic_nanos())?;
        self.run(workload, &mut meter, config.poll)?;
        let faults = workload.faults();
        if faults.none() {
            self.close()?;
        }
        meter.figures(faults).ok_or_else(|| invalid(format!("stalled before the end of the window: {faults:?}")))
    }

    /// The loop: until the window is over and nothing is outstanding, or nothing moves any more.
    fn run<W: Workload<C>>(&mut self, workload: &mut W, meter: &mut Meter, poll: Poll) -> io::Result<()> {
        let mut progress = (meter.deliveries(), sys::monotonic_nanos());
        let mut now = progress.1;
        while !(meter.draining() && workload.outstanding() == 0) {
            let at_once = poll == Poll::Spin || !self.unfinished.is_empty();
            let ready = self.epoll.wait(if at_once { 0 } else { wait_ms(workload.next_due(), now) })?;
            for (connection, ended) in std::mem::take(&mut self.unfinished) {
                self.read(connection, ended, workload, meter)?;
            }
            for index in 0..ready {
                let event = self.epoll.event(index);
                let connection = event.token as usize;
                if event.writable() {
                    self.connections[connection].flush()?;
                }
                if event.readable() {
                    self.read(connection, event.ended(), workload, meter)?;
                }
            }
            now = sys::monotonic_nanos();
            meter.tick(now)?;
            workload.on_turn(&mut self.connections, meter, now)?;
            if meter.deliveries() != progress.0 || workload.outstanding() == 0 {
                progress = (meter.deliveries(), now);
            } else if now - progress.1 > STALLED_AFTER.as_nanos() as u64 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads once, and again in the next turn if there may be more: a server that answers as fast as this client asks would otherwise
    /// keep it at one connection. A short read says that there is no more: bytes that come later raise a new edge. Where the server has
    /// ended its direction there is none, so then only the end itself will do.
    fn read<W: Workload<C>>(&mut self, index: usize, ended: bool, workload: &mut W, meter: &mut Meter) -> io::Result<()> {
        let received = self.connections[index].read(&mut self.shared, |body| workload.on_message(index, body, meter))?;
        if received == Received::Nothing {
            return Ok(());
        }
        if received == Received::Full || ended {
            self.unfinished.push((index, ended));
        }
        workload.after_read(index, &mut self.connections, meter)
    }

    /// Ends all connections in order, which also shows that nothing more was on its way.
    fn close(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let stuck = self.stuck.clone();
        let mut read: Vec<_> = self.connections.iter_mut().enumerate().filter(|(index, _)| !stuck.contains(index)).collect();
        read.iter_mut().try_for_each(|(_, connection)| connection.begin_close())?;
        read.iter_mut().try_for_each(|(_, connection)| connection.finish_close(deadline))
    }
}

/// How long a wait may sleep: up to the next thing that is due, of which the last millisecond is spun away.
fn wait_ms(next_due: Option<u64>, now: u64) -> i32 {
    next_due.map_or(WAIT_MS, |due| (due.saturating_sub(now) / 1_000_000).min(WAIT_MS)) as i32
}
