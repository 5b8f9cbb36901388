//! The denominator: the smallest server that can do the work, and as fast as a bare epoll loop gets.
//!
//! One thread, one edge-triggered epoll, one receive buffer for the process, no timers, no deadlines, no limits on
//! who may connect. What is left is what no engine can avoid: a wait, a `recv` for each ready peer, a look at each header,
//! a `send` for each peer that misses something.
//!
//! ```text
//!  wait ─▶ recv each ready peer until a short read ─▶ echo:   answer in place, one send for all frames of one read
//!                                                  ├▶ fan-out: append to the shared log ─▶ end of batch: one send a peer
//!                                                  └▶ sink:   count, and send every 64th back
//! ```
//!
//! The process must stay single-threaded: with a second thread the kernel counts references on every descriptor that a
//! system call names, which costs each `send` two atomic operations.

mod fanout;
mod peer;
mod scan;
mod sink;
#[cfg(test)]
pub(crate) mod tests;

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::AsFd;

use crate::sys::{Epoll, Event, Interest};
use crate::wire::{self, Hello};
use fanout::SharedLog;
use peer::{Ending, Peer, State};

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// It goes back to its sender.
    Echo,
    /// It goes to every other established peer.
    Fanout,
    /// It is counted and dropped; every 64th of a peer goes back to it.
    Sink,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Echo => "echo",
            Mode::Fanout => "fanout",
            Mode::Sink => "sink",
        }
    }
}

/// What the loop does while nothing is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Poll {
    /// Asks again at once.
    Spin,
    /// Sleeps in the kernel.
    Block,
}

impl Poll {
    /// The epoll timeout, for a loop that has nothing else to wait for.
    pub(crate) fn timeout_ms(self) -> i32 {
        match self {
            Poll::Spin => 0,
            Poll::Block => -1,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Poll::Spin => "spin",
            Poll::Block => "block",
        }
    }
}

/// What a server is built with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerConfig {
    pub(crate) mode: Mode,
    pub(crate) poll: Poll,
    pub(crate) network: [u8; 32],
    /// Fan-out: bytes that may wait for the slowest peer before it is cut off.
    pub(crate) log_limit: usize,
}

/// As much as a well-behaved peer may be behind: far above what any workload has outstanding.
pub(crate) const LOG_LIMIT: usize = 64 << 20;

const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// Events taken with one wait. With fewer, 1,000 ready peers would need several waits.
const EVENTS_PER_WAIT: usize = 1024;
const ACCEPTS_PER_EVENT: usize = 64;
const BACKLOG: i32 = 4096;
/// Bytes asked of one `recv`, on top of the room for the start of an unfinished frame.
const READ_LEN: usize = 256 << 10;

/// The server. Peers live in slots; a slot's index is its epoll token.
pub(crate) struct Server {
    config: ServerConfig,
    hello: Hello,
    epoll: Epoll,
    listener: TcpListener,
    /// False while the process is out of descriptors: the listener is level-triggered, and would report for ever.
    accepting: bool,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    buffer: Box<[u8]>,
    scratch: Vec<u8>,
    log: SharedLog,
    /// Fan-out: there is something that a peer may be able to take now.
    flush_due: bool,
}

impl Server {
    pub(crate) fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        crate::sys::set_backlog(&listener, BACKLOG)?;
        let epoll = Epoll::new(EVENTS_PER_WAIT)?;
        epoll.add(&listener, Interest::Level, LISTENER)?;
        let (node, instance) = wire::random_identity()?;
        Ok(Self {
            hello: Hello { network: config.network, node, instance, max_message: wire::MAX_MESSAGE, channel: 0 },
            config,
            epoll,
            listener,
            accepting: true,
            peers: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; wire::HEADER_LEN + wire::MAX_FRAME_LEN + READ_LEN].into_boxed_slice(),
            scratch: Vec::new(),
            log: SharedLog::default(),
            flush_due: false,
        })
    }

    /// Serves until `stop` becomes readable.
    pub(crate) fn run(&mut self, stop: &impl AsFd) -> io::Result<()> {
        self.epoll.add(stop, Interest::Level, STOP)?;
        let timeout_ms = self.config.poll.timeout_ms();
        loop {
            for index in 0..self.epoll.wait(timeout_ms)? {
                match self.epoll.event(index) {
                    Event { token: STOP, .. } => return Ok(()),
                    Event { token: LISTENER, .. } => self.accept()?,
                    event => self.serve(event),
                }
            }
            if self.flush_due {
                self.flush_due = false;
                self.flush_log();
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_EVENT {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    eprintln!("bare: {error}: not accepting until a peer leaves");
                    self.accepting = false;
                    return self.epoll.remove(&self.listener);
                }
                // The dialler gave up before it was accepted.
                Err(_) => continue,
            };
            if stream.set_nonblocking(true).is_err() || stream.set_nodelay(true).is_err() {
                continue;
            }
            let slot = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            self.epoll.add(&stream, Interest::EdgeBoth, slot as u64)?;
            self.peers[slot] = Some(Peer::new(stream));
        }
        Ok(())
    }

    fn serve(&mut self, event: Event) {
        let slot = event.token as usize;
        // A peer that ended earlier in the same batch may still have an event in it.
        let Some(peer) = self.peers[slot].as_mut() else { return };
        let mut readable = event.readable();
        if event.writable() && !peer.writable {
            peer.writable = true;
            if peer.flush_own().is_err() {
                return self.close(slot);
            }
            // Reading, or closing, may have stopped while answers did not leave, and its edge is gone.
            readable = true;
            self.flush_due |= self.config.mode == Mode::Fanout;
        }
        if readable && self.read(slot, event.ended()).is_err() {
            self.close(slot);
        }
    }

    /// Reads until the kernel has no more. A short read says so without a second call: bytes that come later raise a new
    /// edge. Where the peer has ended its direction there is none, so then only the end itself will do.
    fn read(&mut self, slot: usize, ended: bool) -> Result<(), Ending> {
        loop {
            let Some(peer) = self.peers[slot].as_mut() else { return Ok(()) };
            if peer.is_clogged() {
                return Ok(());
            }
            let kept = peer.partial.len();
            self.buffer[..kept].copy_from_slice(&peer.partial);
            let filled = match (&peer.stream).read(&mut self.buffer[kept..]) {
                Ok(0) => return peer.handle_eof(),
                Ok(count) => kept + count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Ending::Broken),
            };
            peer.partial.clear();
            self.handle_bytes(slot, filled)?;
            if filled < self.buffer.len() && !ended {
                return Ok(());
            }
        }
    }

    /// Handles the first `filled` bytes of the receive buffer, and keeps what is left of them as the peer's partial frame.
    fn handle_bytes(&mut self, slot: usize, filled: usize) -> Result<(), Ending> {
        let Some(peer) = self.peers[slot].as_mut() else { return Ok(()) };
        let bytes = &self.buffer[..filled];
        let mut used = 0;
        let mut outcome = Ok(());
        if matches!(peer.state, State::Hello | State::Ready) {
            outcome = peer.handshake(bytes, &self.hello, self.log.end()).map(|count| used = count);
        }
        if outcome.is_ok() && peer.state == State::Open {
            let frames = &bytes[used..];
            let consumed = match self.config.mode {
                Mode::Echo => peer.echo(frames, &mut self.scratch),
                Mode::Sink => peer.sink(frames, &mut self.scratch),
                Mode::Fanout => {
                    self.flush_due = true;
                    self.log.append_from(slot, peer, frames)
                }
            };
            outcome = consumed.map(|count| used += count);
        }
        match outcome {
            Err(ending) => peer.end(ending),
            Ok(()) => {
                if peer.state != State::Closing {
                    peer.partial.extend_from_slice(&bytes[used..]);
                }
                Ok(())
            }
        }
    }

    /// Sends every peer what it misses of the log: one `send` each. Then forgets what all have.
    fn flush_log(&mut self) {
        let mut slowest = self.log.end();
        for slot in 0..self.peers.len() {
            let Some(peer) = self.peers[slot].as_mut() else { continue };
            if !peer.takes_log() {
                continue;
            }
            if peer.writable && self.log.flush(slot, peer).is_err() {
                self.close(slot);
                continue;
            }
            slowest = slowest.min(peer.cursor);
        }
        if self.log.len() > self.config.log_limit {
            slowest = self.cut_off_slow_peers();
        }
        self.log.trim(slowest);
    }

    /// Ends every peer that has more than half of the log still to come, and returns where the slowest of the others is.
    fn cut_off_slow_peers(&mut self) -> u64 {
        let oldest = self.log.end() - self.log.len() as u64 / 2;
        let mut slowest = self.log.end();
        for slot in 0..self.peers.len() {
            match &self.peers[slot] {
                Some(peer) if peer.takes_log() && peer.cursor < oldest => {
                    eprintln!("bare: cut off a peer that is {} bytes behind", self.log.end() - peer.cursor);
                    self.close(slot);
                }
                Some(peer) if peer.takes_log() => slowest = slowest.min(peer.cursor),
                _ => {}
            }
        }
        slowest
    }

    fn close(&mut self, slot: usize) {
        // Dropping the stream closes the descriptor, and that takes it out of the epoll set.
        self.peers[slot] = None;
        self.free.push(slot);
        if !self.accepting {
            self.accepting = self.epoll.add(&self.listener, Interest::Level, LISTENER).is_ok();
        }
    }
}
