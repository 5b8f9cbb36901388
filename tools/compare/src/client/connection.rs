//! One dialled connection of the client: bytes in both directions, and its end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::ClientConfig;
use super::protocol::{Codec, Role, Scratch};

/// The dialler's side of the handshake deadline.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes asked of one `recv`, on top of the room for what came before and could not be decoded yet.
const READ_LEN: usize = 256 << 10;
/// What could not be decoded is kept by the connection, and moved in front of what comes next. Above this that would cost more than a
/// buffer for each connection, where it stays where it is.
const MOST_MOVED: usize = 128 << 10;

/// A connection after its handshake.
pub(super) struct Connection<C> {
    pub(super) stream: TcpStream,
    codec: C,
    /// The start of an unfinished message; not used if there is a buffer.
    partial: Vec<u8>,
    /// A buffer of its own, for long messages, and how much of it is filled.
    own: Vec<u8>,
    own_filled: usize,
    /// What the kernel did not take yet.
    pending: Vec<u8>,
}

/// The buffer that connections read into which have none of their own.
pub(super) struct SharedBuffer {
    bytes: Box<[u8]>,
    pub(super) scratch: Scratch,
}

impl SharedBuffer {
    pub(super) fn new<C: Codec>(body_len: usize) -> Self {
        let undecided = C::most_undecided(body_len).min(MOST_MOVED);
        Self { bytes: vec![0; undecided + READ_LEN].into_boxed_slice(), scratch: Scratch::default() }
    }
}

/// What one `recv` brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Nothing,
    /// There may be more.
    Full,
    /// The kernel has no more: bytes that come later raise a new edge.
    Short,
}

impl<C: Codec> Connection<C> {
    /// Dials and greets, one connection at a time: servers limit how many may be half-open from one address.
    pub(super) fn dial(address: SocketAddr, index: usize, role: Role, config: &ClientConfig) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, HANDSHAKE_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        let codec = C::greet(&mut stream, index, role, config)?;
        stream.set_nonblocking(true)?;
        let undecided = C::most_undecided(config.body_len);
        let own = if undecided > MOST_MOVED { vec![0; undecided + READ_LEN] } else { Vec::new() };
        Ok(Self { stream, codec, partial: Vec::new(), own, own_filled: 0, pending: Vec::new() })
    }

    /// Appends a message in this connection's protocol to what will be sent.
    #[inline(always)]
    pub(super) fn append(&self, frame: &[u8], out: &mut Vec<u8>) {
        self.codec.append(frame, out);
    }

    /// Sends, or keeps what the kernel does not take until the next writable edge.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sealed = self.codec.seal(bytes);
        let sent = if self.pending.is_empty() { write(&self.stream, sealed)? } else { 0 };
        self.pending.extend_from_slice(&sealed[sent..]);
        Ok(())
    }

    /// Call on a writable edge.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            let kept = std::mem::take(&mut self.pending);
            let sent = write(&self.stream, &kept)?;
            self.pending.extend_from_slice(&kept[sent..]);
        }
        Ok(())
    }

    /// One `recv`, and the messages in it where they lie.
    #[inline(always)]
    pub(super) fn read(&mut self, shared: &mut SharedBuffer, deliver: impl FnMut(&[u8])) -> io::Result<Received> {
        let (buffer, kept) = if self.own.is_empty() {
            let kept = self.partial.len();
            shared.bytes[..kept].copy_from_slice(&self.partial);
            (&mut *shared.bytes, kept)
        } else {
            (&mut *self.own, self.own_filled)
        };
        let filled = loop {
            match (&self.stream).read(&mut buffer[kept..]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection")),
                Ok(count) => break kept + count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let full = filled == buffer.len();
        let used = self.codec.decode(&buffer[..filled], &mut shared.scratch, deliver)?;
        if full && used == 0 {
            return Err(invalid("the server sent something longer than any message of this run"));
        }
        if self.own.is_empty() {
            self.partial.clear();
            self.partial.extend_from_slice(&shared.bytes[used..filled]);
        } else {
            self.own.copy_within(used..filled, 0);
            self.own_filled = filled - used;
        }
        if !shared.scratch.replies.is_empty() {
            let replies = std::mem::take(&mut shared.scratch.replies);
            self.send(&replies)?;
        }
        Ok(if full { Received::Full } else { Received::Short })
    }

    /// Says goodbye, where that is said, and shuts the sending direction.
    pub(super) fn begin_close(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT))?;
        let farewell = self.codec.farewell();
        if !farewell.is_empty() {
            allow_reset(self.stream.write_all(self.codec.seal(&farewell)))?;
        }
        allow_reset(self.stream.shutdown(Shutdown::Write))
    }

    /// Reads to the server's end of the connection. A message before it is an error.
    pub(super) fn finish_close(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut last_bytes = std::mem::take(&mut self.partial);
        last_bytes.extend_from_slice(&self.own[..self.own_filled]);
        allow_reset(self.stream.read_to_end(&mut last_bytes).map(|_| ())).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "the server did not end a connection in time"),
            _ => error,
        })?;
        let mut messages = 0;
        let used = self.codec.decode(&last_bytes, &mut Scratch::default(), |_| messages += 1)?;
        if messages > 0 {
            return Err(invalid(format!("{messages} more messages came before the end of a connection")));
        }
        if used == last_bytes.len() { Ok(()) } else { Err(invalid("the last message was cut off")) }
    }
}

fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// How politely a server ends is for its own tests: everything that was sent has been accounted for by then.
fn allow_reset(outcome: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    match outcome {
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected) => Ok(()),
        outcome => outcome,
    }
}

pub(super) fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
