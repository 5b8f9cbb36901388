//! What a program writes when it wants to be connected.

use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::address::{Address, ParseAddressError, UnixPathError};
use crate::id::NodeId;
use crate::identity::Identity;

/// A wish to be connected to a node at an address.
///
/// As text it is `NodeId@host:port` or `NodeId@unix:PATH`, 64 hexadecimal digits before the `@`; what follows the `@` alone names no node,
/// which only plaintext allows.
#[derive(Clone, Debug)]
pub struct Dial {
    pub(crate) address: Address,
    pub(crate) source: Option<IpAddr>,
    pub(crate) channel: u16,
    pub(crate) expected: Option<NodeId>,
    pub(crate) identity: Option<Identity>,
    pub(crate) once: bool,
}

impl Dial {
    /// Connects to `node` at `address` on channel 0, and again, with backoff, whenever that fails or ends, until it is cancelled.
    ///
    /// A Unix-domain socket that is not there, or that nobody listens on any more, fails an attempt as a port does (`Connect` with
    /// `NotFound` or `ConnectionRefused`), and so does one whose file may not be written to (`PermissionDenied`), or whose listener has as
    /// many connections waiting to be accepted as it may (`WouldBlock`).
    #[must_use]
    pub fn node(node: NodeId, address: impl Into<Address>) -> Self {
        Self::to(address).expect(node)
    }

    /// The same, to whoever answers there. In plaintext only: with Noise a dial has to say whom it means (`NodeRequired`).
    #[must_use]
    pub fn to(address: impl Into<Address>) -> Self {
        Self { address: address.into(), source: None, channel: 0, expected: None, identity: None, once: false }
    }

    /// From this address of ours, on a port that the system chooses. Default: what the system's routes say. One that is not ours, or
    /// of another family than the target's, fails the dial (`Connect`); so does any for a Unix-domain socket.
    #[must_use]
    pub fn source(self, address: IpAddr) -> Self {
        Self { source: Some(address), ..self }
    }

    /// On another channel: one connection exists for each node and channel, and one dial for each address and channel
    /// ([`crate::DialError::Duplicate`]). Default 0; below [`crate::Limits::channels`].
    #[must_use]
    pub fn channel(self, channel: u16) -> Self {
        Self { channel, ..self }
    }

    /// Only if that node answers.
    #[must_use]
    pub fn expect(self, node: NodeId) -> Self {
        Self { expected: Some(node), ..self }
    }

    /// Under another identity than the engine's: for who is several nodes in one, a load generator for instance. Plaintext takes its name
    /// and nothing else.
    #[must_use]
    pub fn identity(self, identity: Identity) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// One attempt, no second; and none at all while the target's circuit breaker is open ([`crate::DialError::BreakerOpen`]).
    #[must_use]
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }
}

/// Why a text is no [`Dial`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ParseDialError {
    /// What stands before the `@` is not 64 hexadecimal digits in lower case.
    Node,
    /// What stands after it is not `host:port`, or that host is not known.
    Address(io::Error),
    /// What stands after `unix:` cannot be the path of a socket.
    Unix(UnixPathError),
}

impl fmt::Display for ParseDialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("expected NodeId@host:port or NodeId@unix:PATH: the node id is 64 hexadecimal digits in lower case"),
            Self::Address(error) => write!(f, "not NodeId@host:port or NodeId@unix:PATH, or the host is not known: {error}"),
            Self::Unix(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ParseDialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(error) => Some(error),
            Self::Unix(error) => Some(error),
            Self::Node => None,
        }
    }
}

/// Asks the system's resolver for a host that is a name, which blocks, and takes the first address that it gives.
impl FromStr for Dial {
    type Err = ParseDialError;

    fn from_str(text: &str) -> Result<Self, ParseDialError> {
        let (node, address) = match text.split_once('@') {
            // Paths may have one too, node ids no colon.
            Some((node, address)) if !node.contains(':') => (Some(node.parse().map_err(|_| ParseDialError::Node)?), address),
            _ => (None, text),
        };
        match address.parse::<Address>() {
            Ok(address) => return Ok(Self { expected: node, ..Self::to(address) }),
            Err(ParseAddressError::Unix(error)) => return Err(ParseDialError::Unix(error)),
            Err(ParseAddressError::Tcp) => {}
        }
        let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        let address = address.to_socket_addrs().and_then(|mut found| found.next().ok_or_else(none)).map_err(ParseDialError::Address)?;
        Ok(Self { expected: node, ..Self::to(address) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_is_written_as_node_and_address() {
        let node = NodeId([0xAB; 32]);
        let dial: Dial = format!("{node}@127.0.0.1:9000").parse().unwrap();
        assert_eq!((dial.expected, dial.address), (Some(node), "127.0.0.1:9000".parse().unwrap()));
        let dial: Dial = "[::1]:9".parse().unwrap();
        assert_eq!((dial.expected, dial.address), (None, "[::1]:9".parse().unwrap()));
        assert!(matches!("ab@127.0.0.1:1".parse::<Dial>(), Err(ParseDialError::Node)));
        assert!(matches!(format!("{node}@127.0.0.1").parse::<Dial>(), Err(ParseDialError::Address(_))));
        assert!(matches!("".parse::<Dial>(), Err(ParseDialError::Address(_))));
    }

    #[test]
    fn a_path_may_stand_for_the_address() {
        let node = NodeId([0xAB; 32]);
        let of = |text: &str| text.parse::<Dial>().map(|dial| (dial.expected, dial.address.to_string()));
        assert_eq!(of(&format!("{node}@unix:/run/a@b")).unwrap(), (Some(node), "unix:/run/a@b".into()));
        assert_eq!(of("unix:/run/a@b:9").unwrap(), (None, "unix:/run/a@b:9".into()));
        assert!(matches!(of("unix:"), Err(ParseDialError::Unix(UnixPathError::Empty))));
        assert!(matches!(of("ab@unix:/a"), Err(ParseDialError::Node)));
    }
}
