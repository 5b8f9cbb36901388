//! The file of a listening Unix-domain socket: made with its mode, taken over from a process that is gone, removed at the end.
//!
//! A file outlives the process that listened on it when that is killed. Whether somebody still listens is found out by connecting: a
//! refusal says that nobody does, and only then is the file removed. While that is looked into and until the new socket listens, the
//! directory is locked (`flock`), so that of two engines that start at the same time neither takes the other's new socket for an old
//! one. Who may read the directory can hold that lock; it is waited for a second, and then done without.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::listener::BACKLOG;
use crate::address::UnixPath;
use crate::error::StartError;

/// How long the lock is waited for, and how often it is looked for.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const MODE: u32 = 0o777;

/// A socket's file. Dropping it removes the file, if that is still this one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Absolute: the process may go to another directory.
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self { path: std::path::absolute(path)?, device: file.dev(), inode: file.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode)) {
            // One that cannot be removed is left for whoever listens there next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What is where a socket is to be.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    NotASocket,
    /// A socket that nobody listens on.
    Stale,
    Live,
}

/// Listens at a path, with a file of this mode.
pub(super) fn bind(path: &UnixPath, mode: u32) -> Result<(SocketFile, UnixListener), StartError> {
    let failed = |source| StartError::Listen { address: path.clone().into(), source };
    let _lock = lock_directory(path.as_path());
    match find(path.as_path()).map_err(failed)? {
        Found::NotASocket => return Err(StartError::NotASocket { path: path.clone() }),
        Found::Live => return Err(failed(Errno::ADDRINUSE.into())),
        Found::Stale => fs::remove_file(path).map_err(failed)?,
        Found::Nothing => {}
    }
    listen(path.as_path(), mode).map_err(failed)
}

fn find(path: &Path) -> io::Result<Found> {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => probe(path),
        Ok(_) => Ok(Found::NotASocket),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

/// Whether somebody listens. Without blocking: a listener whose backlog is full is there too.
fn probe(path: &Path) -> io::Result<Found> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let Err(error) = socket.connect(&SockAddr::unix(path)?) else { return Ok(Found::Live) };
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNREFUSED) => Ok(Found::Stale),
        Some(Errno::NOENT) => Ok(Found::Nothing),
        // The last: a socket of datagrams, say.
        Some(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => Ok(Found::Live),
        _ => Err(error),
    }
}

fn listen(path: &Path, mode: u32) -> io::Result<(SocketFile, UnixListener)> {
    let socket = with_mode(Socket::new(Domain::UNIX, Type::STREAM, None)?, mode);
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    // The umask has cut it, or this system does not go by the socket's mode. Whatever it is until then, nobody can connect to a socket
    // that does not listen.
    if fs::symlink_metadata(path)?.permissions().mode() & MODE != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    Ok((file, OwnedFd::from(socket).into()))
}

/// Linux gives the file the mode of the socket itself, less the umask, so that it is never wider than it is meant to be. Elsewhere this
/// does nothing.
fn with_mode(socket: Socket, mode: u32) -> Socket {
    let file = File::from(OwnedFd::from(socket));
    let _ = file.set_permissions(Permissions::from_mode(mode));
    OwnedFd::from(file).into()
}

/// Held while it is not dropped.
fn lock_directory(path: &Path) -> Option<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(parent.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    None
}
