//! Listening sockets, of both kinds.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Type};

use super::socket::Socket;
use super::socket_file::{self, SocketFile};
use crate::address::{Address, UnixPath};
use crate::error::StartError;
use crate::time::Timestamp;

/// How long accepting rests when the process has no file descriptor left. No edge will tell when there is one again.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// A listening socket that is in no loop yet.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(StdTcpListener),
    /// The file goes first, while the socket still listens, so that nobody else has taken the path meanwhile.
    Unix(SocketFile, UnixPath, StdUnixListener),
}

/// Opens a listening socket. `mode`: of the file of a Unix-domain socket.
pub(crate) fn bind(address: &Address, mode: u32) -> Result<Bound, StartError> {
    match address {
        Address::Tcp(tcp) => bind_tcp(*tcp).map(Bound::Tcp).map_err(|source| StartError::Listen { address: address.clone(), source }),
        Address::Unix(path) => socket_file::bind(path, mode).map(|(file, socket)| Bound::Unix(file, path.clone(), socket)),
    }
}

impl Bound {
    /// Where it listens, with the port that was given for 0.
    pub(crate) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Address::Tcp),
            Self::Unix(_, path, _) => Ok(path.clone().into()),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier run that linger in TIME_WAIT do not keep the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listening socket in the loop of core 0.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Listening,
    /// An edge came, or a budget ended, and accepting has not met its end yet.
    pub(super) ready: bool,
    /// Do not accept before.
    pub(super) paused_until: Option<Timestamp>,
    /// A descriptor to let go of when there is no other, so that whoever waits in the backlog is at least closed and not left hanging.
    spare: Option<File>,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    /// See [`Bound::Unix`].
    Unix(#[expect(dead_code, reason = "held for its drop")] SocketFile, UnixPath, UnixListener),
}

impl Listening {
    /// The next connection, and where it is from. Who connects to a path has none of its own.
    fn accept(&self) -> io::Result<(Socket, Address)> {
        match self {
            Self::Tcp(socket) => socket.accept().map(|(stream, address)| (stream.into(), address.into())),
            Self::Unix(_, path, socket) => socket.accept().map(|(stream, _)| (stream.into(), path.clone().into())),
        }
    }
}

/// What accepting gave.
pub(super) enum AcceptResult {
    Connection(Socket, Address),
    /// Nobody waits.
    WouldBlock,
    /// The process has no file descriptor left.
    Exhausted,
    /// That connection was gone before it was accepted; there may be others.
    Failed,
}

impl Listener {
    pub(super) fn new(bound: Bound) -> Self {
        let socket = match bound {
            Bound::Tcp(socket) => Listening::Tcp(TcpListener::from_std(socket)),
            Bound::Unix(file, path, socket) => Listening::Unix(file, path, UnixListener::from_std(socket)),
        };
        Self { socket, ready: false, paused_until: None, spare: spare() }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Listening::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            Listening::Unix(_, _, socket) => registry.register(socket, token, Interest::READABLE),
        }
    }

    pub(super) fn accept(&mut self, now: Timestamp) -> AcceptResult {
        match self.socket.accept() {
            Ok((socket, address)) => {
                if self.spare.is_none() {
                    self.spare = spare();
                }
                AcceptResult::Connection(socket, address)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => AcceptResult::WouldBlock,
            Err(error) if is_exhaustion(&error) => {
                self.shed();
                self.paused_until = Some(now + PAUSE);
                AcceptResult::Exhausted
            }
            Err(error) => {
                if error.kind() != ErrorKind::ConnectionAborted {
                    // Not that one connection's fault: trying again at once would only fail again.
                    self.paused_until = Some(now + PAUSE);
                }
                AcceptResult::Failed
            }
        }
    }

    /// Takes the oldest connection that waits, with the spare descriptor, and closes it.
    fn shed(&mut self) {
        if self.spare.take().is_some() {
            drop(self.socket.accept());
            self.spare = spare();
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// No descriptor in this process or in the system, or no memory for a socket.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
