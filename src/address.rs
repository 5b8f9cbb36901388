//! Where nodes are: TCP addresses and paths of Unix-domain sockets, as values, and who is at the other end of the latter. Knows no sockets
//! and looks at no file.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// What stands before a path.
const UNIX: &str = "unix:";

/// Where an engine listens, whom it dials, and where a peer is.
///
/// As text it is `ip:port`, an IPv6 address in brackets, or `unix:PATH`, which both parse and print. The text of an address asks no
/// resolver; that of a [`crate::Dial`] does. A path that is not UTF-8 has no text that parses.
///
/// Processes on one machine are better off with a Unix-domain socket: a message takes about half the time, the file's mode says who may
/// connect ([`crate::Io::unix_mode`]), and the kernel says who did ([`crate::PeerInfo::credentials`]). The handshake, the lanes, the limits
/// and all that follows are the same. What is different is said where it is: [`crate::Addresses`], [`crate::Security`],
/// [`crate::Dial::source`], [`crate::Io`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix-domain socket in the file system, of this machine.
    Unix(UnixPath),
}

impl Address {
    /// The address of a Unix-domain socket. The error says what is wrong with the path; nothing is looked for there.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, UnixPathError> {
        UnixPath::new(path).map(Self::Unix)
    }

    /// The IP address and port, where it is one.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The IP address, where it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// Whether only this machine has it: a Unix-domain socket, or a loopback address, mapped ones included.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.to_canonical().is_loopback())
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<UnixPath> for Address {
    fn from(path: UnixPath) -> Self {
        Self::Unix(path)
    }
}

impl PartialEq<SocketAddr> for Address {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.socket_addr().is_some_and(|address| address == *other)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        match text.strip_prefix(UNIX) {
            Some(path) => Self::unix(path).map_err(ParseAddressError::Unix),
            None => text.parse().map(Self::Tcp).map_err(|_| ParseAddressError::Tcp),
        }
    }
}

/// A path that a Unix-domain socket can have: 1 to [`UnixPath::MAX`] bytes, none of them zero. A relative one counts from the directory
/// that the process is in when it listens or dials. Cloning it copies a reference.
///
/// Names without a file (Linux's abstract namespace, `@name` in some tools' writing) are not supported: they have no mode, so any user of
/// the machine could connect, or take the name first. `unix:@name` is a file of that name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UnixPath(Arc<Path>);

impl UnixPath {
    /// Longest path, bytes: what `sockaddr_un` has room for, without the zero at the end. 107 on Linux, 103 elsewhere.
    pub const MAX: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

    /// A path for a socket. Nothing is looked for there.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, UnixPathError> {
        let path = path.as_ref();
        match path.as_os_str().as_encoded_bytes() {
            [] => Err(UnixPathError::Empty),
            bytes if bytes.len() > Self::MAX => Err(UnixPathError::TooLong { len: bytes.len(), max: Self::MAX }),
            bytes if bytes.contains(&0) => Err(UnixPathError::Nul),
            _ => Ok(Self(path.into())),
        }
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for UnixPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().display().fmt(f)
    }
}

impl fmt::Debug for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().fmt(f)
    }
}

/// Why no Unix-domain socket can have a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnixPathError {
    /// There is none.
    Empty,
    /// It has a byte of zero; abstract names begin with one, and are not supported.
    Nul,
    /// The system's addresses have no room for it.
    TooLong {
        /// How long it is, bytes.
        len: usize,
        /// How long it may be: [`UnixPath::MAX`].
        max: usize,
    },
}

impl fmt::Display for UnixPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the path of a Unix-domain socket is missing"),
            Self::Nul => f.write_str("the path of a Unix-domain socket has a byte of zero; abstract names are not supported"),
            Self::TooLong { len, max } => {
                write!(f, "the path of a Unix-domain socket has {len} bytes, more than the system's {max}; use a shorter or a relative one")
            }
        }
    }
}

impl std::error::Error for UnixPathError {}

/// Why a text is no [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseAddressError {
    /// It is not `ip:port`, and does not begin with `unix:`.
    Tcp,
    /// What follows `unix:` cannot be the path of a socket.
    Unix(UnixPathError),
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("expected ip:port, as in 127.0.0.1:7000 or [::1]:7000, or unix:PATH"),
            Self::Unix(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ParseAddressError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tcp => None,
            Self::Unix(error) => Some(error),
        }
    }
}

/// The process at the other end of a Unix-domain socket, as the kernel says (`SO_PEERCRED`).
///
/// It was taken down once: of a connection that was accepted, when the other side connected; of one that was dialled, when the other side
/// began to listen. Nobody can make these up without being root, so `uid` and `gid` are proof that somebody with these rights opened that
/// end. They are *not* proof of who holds it now: an open socket can be handed to another process, inherited by a child, or outlive the
/// process, whose number may then be somebody else's. So decide by `uid`, and show `pid` to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// The process. `None` where it has no number here: it is in another process namespace (a container).
    pub pid: Option<u32>,
    /// Its effective user. One that has no number in this user namespace is the overflow user, 65534 as a rule.
    pub uid: u32,
    /// Its effective group, likewise.
    pub gid: u32,
}

impl Credentials {
    pub(crate) fn new(pid: Option<u32>, uid: u32, gid: u32) -> Self {
        Self { pid, uid, gid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_parses() {
        for text in ["127.0.0.1:7000", "[::1]:9", "unix:/run/node.sock", "unix:relative", "unix:@name", "unix:unix:a:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("127.0.0.1:1".parse(), Ok(Address::Tcp("127.0.0.1:1".parse().unwrap())));
        assert_eq!("unix:/a".parse(), Ok(Address::unix("/a").unwrap()));
        for text in ["", "localhost:1", "127.0.0.1", "/run/node.sock", "UNIX:/a", "[::1]"] {
            assert_eq!(text.parse::<Address>(), Err(ParseAddressError::Tcp), "{text}");
        }
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let refused = |path: &str| UnixPath::new(path).unwrap_err();
        assert_eq!(refused(""), UnixPathError::Empty);
        assert_eq!(refused("\0name"), UnixPathError::Nul);
        assert_eq!(refused("/a\0"), UnixPathError::Nul);
        let longest = "x".repeat(UnixPath::MAX);
        assert_eq!(UnixPath::new(&longest).unwrap().as_path(), Path::new(&longest));
        assert_eq!(refused(&(longest + "x")), UnixPathError::TooLong { len: UnixPath::MAX + 1, max: UnixPath::MAX });
        assert_eq!("unix:".parse::<Address>(), Err(ParseAddressError::Unix(UnixPathError::Empty)));
    }

    #[test]
    fn what_only_this_machine_has_is_local() {
        let local = |text: &str| text.parse::<Address>().unwrap().is_local();
        assert!(local("127.0.0.1:1") && local("[::1]:1") && local("[::ffff:127.0.0.1]:1") && local("unix:/a"));
        assert!(!local("10.0.0.1:1") && !local("[::ffff:10.0.0.1]:1") && !local("0.0.0.0:1"));
    }

    /// Most are IP addresses.
    #[test]
    fn a_path_makes_no_address_longer() {
        assert_eq!(size_of::<Address>(), size_of::<SocketAddr>());
    }
}
