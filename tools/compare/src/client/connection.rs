//! One dialled connection of the client: the handshake, and bytes in both directions.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::wire::{self, Hello};

/// The dialler's side of the handshake deadline.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection after its handshake.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// The start of an unfinished frame.
    pub(crate) partial: Vec<u8>,
    /// What the kernel did not take yet.
    pending: Vec<u8>,
}

impl Connection {
    /// Dials and shakes hands, one connection at a time: servers limit how many may be half-open from one address.
    pub(crate) fn dial(address: SocketAddr, network: [u8; 32]) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, HANDSHAKE_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        let (node, instance) = wire::random_identity()?;
        let ours = Hello { network, node, instance, max_message: wire::MAX_MESSAGE, channel: 0 };
        stream.write_all(&wire::opening(&ours))?;
        let mut answer = [0; wire::OPENING_LEN];
        stream.read_exact(&mut answer[..wire::PREAMBLE_LEN])?;
        if let Some(code) = wire::refusal_code(&answer) {
            return Err(io::Error::other(format!("the server refused the handshake: {}", code.name())));
        }
        stream.read_exact(&mut answer[wire::PREAMBLE_LEN..])?;
        match wire::parse_opening(&answer) {
            Ok(theirs) if theirs.network != ours.network => return Err(invalid("the server's hello names another network")),
            Ok(theirs) if theirs.channel != ours.channel => return Err(invalid("the server's hello names another channel")),
            Ok(_) => {}
            Err(error) => return Err(invalid(format!("the server's hello is malformed: {error:?}"))),
        }
        stream.write_all(&wire::ready())?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, partial: Vec::new(), pending: Vec::new() })
    }

    /// Sends, or keeps what the kernel does not take until the next writable edge.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = if self.pending.is_empty() { self.write(bytes)? } else { 0 };
        self.pending.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Call on a writable edge.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            let kept = std::mem::take(&mut self.pending);
            let sent = self.write(&kept)?;
            self.pending.extend_from_slice(&kept[sent..]);
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match (&self.stream).write(&bytes[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// Says goodbye and shuts the sending direction.
    pub(crate) fn begin_close(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT))?;
        allow_reset(self.stream.write_all(&wire::goodbye(wire::CLOSED, 0)))?;
        allow_reset(self.stream.shutdown(Shutdown::Write))
    }

    /// Reads to the server's end of the connection. Anything but control frames before it is an error.
    pub(crate) fn finish_close(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut last_bytes = std::mem::take(&mut self.partial);
        allow_reset(self.stream.read_to_end(&mut last_bytes).map(|_| ()))?;
        while let Some(header) = wire::Header::read(&last_bytes) {
            let end = wire::HEADER_LEN + header.length();
            if header.check().is_err() || header.kind() < wire::READY || end > last_bytes.len() {
                return Err(invalid("more than control frames came before the end"));
            }
            last_bytes.drain(..end);
        }
        if last_bytes.is_empty() { Ok(()) } else { Err(invalid("the last frame was cut off")) }
    }
}

/// How politely a server ends is for its own tests: everything that was sent has been accounted for by then.
fn allow_reset(outcome: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    match outcome {
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected) => Ok(()),
        outcome => outcome,
    }
}

pub(crate) fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
