//! Listening sockets.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::time::Timestamp;

/// How long accepting rests when the process has no file descriptor left. No edge will tell when there is one again.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Opens a listening socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
    socket: TcpListener,
    /// An edge came, or a budget ended, and accepting has not met its end yet.
    pub(super) ready: bool,
    /// Do not accept before.
    pub(super) paused_until: Option<Timestamp>,
    /// A descriptor to let go of when there is no other, so that whoever waits in the backlog is at least closed and not left hanging.
    spare: Option<File>,
}

/// What accepting gave.
pub(super) enum AcceptResult {
    Connection(TcpStream, SocketAddr),
    /// Nobody waits.
    WouldBlock,
    /// The process has no file descriptor left.
    Exhausted,
    /// That connection was gone before it was accepted; there may be others.
    Failed,
}

impl Listener {
    pub(super) fn new(socket: StdListener) -> Self {
        Self { socket: TcpListener::from_std(socket), ready: false, paused_until: None, spare: spare() }
    }

    pub(super) fn socket_mut(&mut self) -> &mut TcpListener {
        &mut self.socket
    }

    pub(super) fn accept(&mut self, now: Timestamp) -> AcceptResult {
        match self.socket.accept() {
            Ok((stream, address)) => {
                if self.spare.is_none() {
                    self.spare = spare();
                }
                AcceptResult::Connection(stream, address)
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
