//! One TCP connection: from a chosen address, byte by byte, and written down where somebody wants to replay it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::wire::refusal_code;

/// How long one read or write waits. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order.
    Eof,
    /// With a reset.
    Reset,
    /// Not at all, in the time that it was given.
    Open,
}

/// All that the other side said, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it said.
    pub bytes: Vec<u8>,
    /// How it ended.
    pub ending: Ending,
}

impl Answer {
    /// The code, if it was a refusal and nothing else.
    #[must_use]
    pub fn refusal(&self) -> Option<u16> {
        refusal_code(&self.bytes)
    }

    /// Whether nothing was said and the connection has ended, in order or not.
    #[must_use]
    pub fn is_silent_close(&self) -> bool {
        self.bytes.is_empty() && self.ending != Ending::Open
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    sent: u64,
    recording: Option<Vec<Vec<u8>>>,
}

impl Link {
    /// Connects from this address and says nothing.
    pub fn connect(source: IpAddr, target: SocketAddr) -> io::Result<Self> {
        Self::connect_with(source, target, None)
    }

    /// The same, with a receive buffer so small that little hides in the kernel.
    pub fn connect_narrow(source: IpAddr, target: SocketAddr) -> io::Result<Self> {
        Self::connect_with(source, target, Some(4096))
    }

    fn connect_with(source: IpAddr, target: SocketAddr, receive_buffer: Option<usize>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if source.is_ipv4() == target.is_ipv4() {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&target.into(), PATIENCE)?;
        Self::over(socket.into())
    }

    /// Over a connection that there is already.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, sent: 0, recording: None })
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Writes down what is sent from now on.
    pub fn record(&mut self) {
        self.recording = Some(Vec::new());
    }

    /// What was sent since, one entry for each time.
    pub fn recorded(&mut self) -> Vec<Vec<u8>> {
        self.recording.take().unwrap_or_default()
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(recording) = &mut self.recording {
            recording.push(bytes.to_vec());
        }
        self.stream.write_all(bytes)?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Sends what the other side takes without waiting; how much that was. An error: it has closed.
    pub fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_nonblocking(true)?;
        let written = match self.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        };
        self.stream.set_nonblocking(false)?;
        self.sent += *written.as_ref().unwrap_or(&0) as u64;
        written
    }

    /// Sends every byte in a segment of its own, with a pause after each.
    pub fn send_slowly(&mut self, bytes: &[u8], pause: Duration) -> io::Result<()> {
        bytes.iter().try_for_each(|byte| {
            self.send(std::slice::from_ref(byte))?;
            std::thread::sleep(pause);
            Ok(())
        })
    }

    /// Exactly so many bytes; or what came before the end, and how it ended.
    pub fn read(&mut self, len: usize) -> Result<Vec<u8>, Answer> {
        let mut bytes = vec![0; len];
        let mut at = 0;
        while at < len {
            match self.stream.read(&mut bytes[at..]) {
                Ok(0) => return Err(ended(bytes, at, Ending::Eof)),
                Ok(more) => at += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ended(bytes, at, ending_of(&error))),
            }
        }
        Ok(bytes)
    }

    /// Everything to the end, for which it waits so long.
    pub fn read_to_end(&mut self, patience: Duration) -> Answer {
        let deadline = Instant::now() + patience;
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Answer { bytes, ending: Ending::Open };
            }
            // The kernel's clock for this is coarse, and zero would mean for ever.
            let _ = self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))));
            match self.stream.read(&mut buffer) {
                Ok(0) => return Answer { bytes, ending: Ending::Eof },
                Ok(more) => bytes.extend_from_slice(&buffer[..more]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Answer { bytes, ending: ending_of(&error) },
            }
        }
    }

    /// Everything to the end, for which it waits as long as for anything.
    pub fn answer(&mut self) -> Answer {
        let answer = self.read_to_end(PATIENCE);
        let _ = self.stream.set_read_timeout(Some(PATIENCE));
        answer
    }

    /// Whether the other side has ended it, without waiting. What it said and nobody has read counts as life.
    #[must_use]
    pub fn is_over(&self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let over = match self.stream.peek(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).is_err() || over
    }

    /// Says that nothing more will come; reading goes on.
    pub fn shut(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The address that it comes from.
    pub fn source(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }
}

fn ended(mut bytes: Vec<u8>, len: usize, ending: Ending) -> Answer {
    bytes.truncate(len);
    Answer { bytes, ending }
}

fn ending_of(error: &io::Error) -> Ending {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Ending::Open,
        _ => Ending::Reset,
    }
}

/// Where a raw peer waits to be dialled.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// On a free port of this address.
    pub fn bind(address: IpAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind((address, 0))? })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection, for which it waits so long.
    pub fn accept(&self, patience: Duration) -> io::Result<Link> {
        self.listener.set_nonblocking(true)?;
        let deadline = Instant::now() + patience;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => return Link::over(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }
}
