//! One connected socket, and the calls on it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Type};

use crate::config::Config;
use crate::proto::Slices;

/// A socket, and what is known of its edges.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// The other side's FIN was announced: a short read is not the end.
    pub(super) read_closed: bool,
    /// In the reactor's list of sockets to read.
    pub(super) queued: bool,
    /// `connect` has not ended.
    pub(super) connecting: bool,
}

/// What a read gave.
pub(super) enum ReadResult {
    Bytes(usize),
    Eof,
    WouldBlock,
    Failed(ErrorKind),
}

/// What a write took.
pub(super) enum WriteResult {
    /// So many bytes; `full` where that was not all.
    Taken {
        bytes: usize,
        full: bool,
    },
    Failed(ErrorKind),
}

impl Socket {
    pub(super) fn new(stream: TcpStream, connecting: bool) -> Self {
        Self { stream, read_closed: false, queued: false, connecting }
    }

    /// Begins to connect, from an address of ours where one is named.
    pub(super) fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        let Some(source) = source else { return Ok(Self::new(TcpStream::connect(address)?, true)) };
        if source.is_ipv4() != address.is_ipv4() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error().map(Errno::from_raw_os_error) != Some(Errno::INPROGRESS) => Err(error),
            _ => Ok(Self::new(TcpStream::from_std(socket.into()), true)),
        }
    }

    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether `connect` has ended, and how.
    pub(super) fn finish_connect(&mut self) -> Option<io::Result<()>> {
        if let Ok(Some(error)) | Err(error) = self.stream.take_error() {
            return Some(Err(error));
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.connecting = false;
                Some(Ok(()))
            }
            Err(error) if matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOTCONN | Errno::INPROGRESS)) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Options that every connection has. Failing to set one does not end a connection: where it matters, the connection is broken anyway
    /// and says so.
    pub(super) fn configure(&self, config: &Config) {
        let socket = SockRef::from(&self.stream);
        let _ = socket.set_tcp_nodelay(true);
        if let Some(bytes) = config.io.send_buffer {
            let _ = socket.set_send_buffer_size(bytes);
        }
        if let Some(bytes) = config.io.socket_receive_buffer {
            let _ = socket.set_recv_buffer_size(bytes);
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            if let Some(bytes) = config.io.notsent_lowat {
                let _ = socket.set_tcp_notsent_lowat(bytes);
            }
            // The backstop for what the engine's own deadlines cannot see, so longer than they are.
            let longest = config.keepalive.timeout.max(config.timeouts.write_stall);
            let _ = socket.set_tcp_user_timeout(Some(2 * longest + Duration::from_secs(1)));
        }
    }

    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> ReadResult {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return ReadResult::Eof,
                Ok(bytes) => return ReadResult::Bytes(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return ReadResult::WouldBlock,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return ReadResult::Failed(error.kind()),
            }
        }
    }

    /// One piece. `write` of a TCP stream is `send` with `MSG_NOSIGNAL`.
    #[inline]
    pub(super) fn write(&mut self, bytes: &[u8]) -> WriteResult {
        loop {
            match self.stream.write(bytes) {
                Ok(0) if !bytes.is_empty() => return WriteResult::Failed(ErrorKind::WriteZero),
                Ok(taken) => return WriteResult::Taken { bytes: taken, full: taken < bytes.len() },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return WriteResult::Taken { bytes: 0, full: true },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return WriteResult::Failed(error.kind()),
            }
        }
    }

    /// Several pieces. Not `write_vectored`: that is `writev`, which has no `MSG_NOSIGNAL`, and a host that has not turned SIGPIPE off
    /// would die of a reset.
    pub(super) fn write_vectored(&mut self, slices: &Slices<'_>) -> WriteResult {
        use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
        #[cfg(not(target_vendor = "apple"))]
        const FLAGS: SendFlags = SendFlags::NOSIGNAL;
        #[cfg(target_vendor = "apple")]
        const FLAGS: SendFlags = SendFlags::empty();
        loop {
            match sendmsg(&self.stream, slices.as_slice(), &mut SendAncillaryBuffer::default(), FLAGS) {
                Ok(0) => return WriteResult::Failed(ErrorKind::WriteZero),
                Ok(taken) => return WriteResult::Taken { bytes: taken, full: taken < slices.bytes() },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return WriteResult::Taken { bytes: 0, full: true },
                Err(error) => return WriteResult::Failed(error.kind()),
            }
        }
    }

    /// Sends FIN.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }
}
