//! One connected socket, and the calls on it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, SockRef, Type};

use crate::address::{Address, Credentials};
use crate::config::Config;
use crate::proto::Slices;

/// A reset must not become a signal that ends the host.
#[cfg(not(target_vendor = "apple"))]
const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const SEND: SendFlags = SendFlags::empty();

/// What a socket is of. Connecting, options and events tell them apart: reading and writing are the same calls.
///
/// The kernel tells of room in a TCP socket only after there was none. Of room in a Unix-domain socket it tells each time that the other
/// side has read something, so there it is asked only while room is waited for: else each message would cost its sender a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Tcp,
    Unix,
    /// Room is waited for, or the end of `connect`.
    UnixFull,
}

/// A socket, and what is known of its edges.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    family: Family,
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

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::new(stream.into(), Family::Tcp)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::new(stream.into(), Family::Unix)
    }
}

impl Socket {
    fn new(fd: OwnedFd, family: Family) -> Self {
        Self { fd, family, read_closed: false, queued: false, connecting: false }
    }

    /// Begins to connect, from an IP address of ours where one is named.
    pub(super) fn connect(address: &Address, source: Option<IpAddr>) -> io::Result<Self> {
        let socket = match (address, source) {
            (Address::Tcp(address), None) => TcpStream::connect(*address)?.into(),
            (Address::Tcp(address), Some(source)) => Self::connect_from(source, *address)?,
            (Address::Unix(path), None) => Self::new(UnixStream::connect(path)?.into(), Family::UnixFull),
            (Address::Unix(_), Some(_)) => return Err(ErrorKind::InvalidInput.into()),
        };
        Ok(Self { connecting: true, ..socket })
    }

    fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<Self> {
        if source.is_ipv4() != address.is_ipv4() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error().map(Errno::from_raw_os_error) != Some(Errno::INPROGRESS) => Err(error),
            _ => Ok(Self::new(socket.into(), Family::Tcp)),
        }
    }

    fn interest(&self) -> Interest {
        match self.family {
            Family::Tcp | Family::UnixFull => Interest::READABLE | Interest::WRITABLE,
            Family::Unix => Interest::READABLE,
        }
    }

    /// Makes it part of a loop.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.fd.as_raw_fd()), token, self.interest())
    }

    /// The same loop knows it by another token from now on, or is asked for something else.
    pub(super) fn reregister(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.reregister(&mut SourceFd(&self.fd.as_raw_fd()), token, self.interest())
    }

    /// A write was not taken whole: room is to be an event.
    pub(super) fn await_room(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self.family {
            Family::Tcp | Family::UnixFull => Ok(()),
            Family::Unix => {
                self.family = Family::UnixFull;
                self.reregister(registry, token)
            }
        }
    }

    /// There was that event.
    #[inline]
    pub(super) fn has_room(&mut self, registry: &Registry, token: Token) {
        if self.family == Family::UnixFull {
            self.family = Family::Unix;
            // Where that fails, there are more events than are needed.
            let _ = self.reregister(registry, token);
        }
    }

    /// Whose process is at the other end, where the kernel says so.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        match self.family {
            Family::Tcp => None,
            Family::Unix | Family::UnixFull => credentials(&self.fd),
        }
    }

    /// Whether `connect` has ended, and how.
    pub(super) fn finish_connect(&mut self) -> Option<io::Result<()>> {
        let socket = SockRef::from(&self.fd);
        if let Ok(Some(error)) | Err(error) = socket.take_error() {
            return Some(Err(error));
        }
        match socket.peer_addr() {
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
        let socket = SockRef::from(&self.fd);
        if let Some(bytes) = config.io.send_buffer {
            let _ = socket.set_send_buffer_size(bytes);
        }
        if let Some(bytes) = config.io.socket_receive_buffer {
            let _ = socket.set_recv_buffer_size(bytes);
        }
        if self.family != Family::Tcp {
            return;
        }
        let _ = socket.set_tcp_nodelay(true);
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
            match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return ReadResult::Eof,
                Ok((bytes, _)) => return ReadResult::Bytes(bytes),
                Err(Errno::AGAIN) => return ReadResult::WouldBlock,
                Err(Errno::INTR) => {}
                Err(error) => return ReadResult::Failed(error.kind()),
            }
        }
    }

    /// One piece.
    #[inline]
    pub(super) fn write(&mut self, bytes: &[u8]) -> WriteResult {
        loop {
            match rustix::net::send(&self.fd, bytes, SEND) {
                Ok(0) if !bytes.is_empty() => return WriteResult::Failed(ErrorKind::WriteZero),
                Ok(taken) => return WriteResult::Taken { bytes: taken, full: taken < bytes.len() },
                Err(Errno::AGAIN) => return WriteResult::Taken { bytes: 0, full: true },
                Err(Errno::INTR) => {}
                Err(error) => return WriteResult::Failed(error.kind()),
            }
        }
    }

    /// Several pieces. Not by `writev`, which has no flags.
    pub(super) fn write_vectored(&mut self, slices: &Slices<'_>) -> WriteResult {
        loop {
            match rustix::net::sendmsg(&self.fd, slices.as_slice(), &mut SendAncillaryBuffer::default(), SEND) {
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
        SockRef::from(&self.fd).shutdown(Shutdown::Write)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn credentials(socket: &impl AsFd) -> Option<Credentials> {
    let found = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials).ok()?;
    // Zero: it has no number in this process namespace.
    let pid = u32::try_from(found.pid()).ok().filter(|&pid| pid != 0);
    Some(Credentials::new(pid, found.uid(), found.gid()))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn credentials(_: &impl AsFd) -> Option<Credentials> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one for each peer.
    #[test]
    fn a_socket_is_a_descriptor_and_a_few_flags() {
        assert_eq!(size_of::<Option<Socket>>(), 8);
    }
}
