//! Whom a connection leads to, and what is thought of it: the names that the pool and the circuit breaker go by.

use std::fmt;
use std::net::SocketAddr;

use crate::address::Address;
use crate::dial::Dial;
use crate::id::NodeId;

/// Whom a connection is to lead to: a node, an address, or a node at an address.
///
/// With Noise a target that is to be dialled has both. A node alone is enough where it is connected already, or where the pool has been
/// told its address before and still has the target: while it is connected, dialled or pinned. When that ends, it is forgotten with its
/// address: say both each time, or pin. An address that is said later takes the place of the one before, unless that is being dialled,
/// and is dialled when the target is not connected any more. An address alone is for plaintext, where nobody can prove who answers
/// there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Endpoint {
    /// The node that has to answer.
    pub node: Option<NodeId>,
    /// Where to dial it.
    pub address: Option<Address>,
}

impl Endpoint {
    /// Bytes that it takes where it waits, its path included.
    pub(crate) fn memory(&self) -> usize {
        let path = if let Some(Address::Unix(path)) = &self.address { path.as_path().as_os_str().len() } else { 0 };
        size_of::<Self>() + path
    }

    /// What a dial means.
    pub(crate) fn of(dial: &Dial) -> Self {
        Self { node: dial.expected, address: Some(dial.address.clone()) }
    }
}

impl From<NodeId> for Endpoint {
    fn from(node: NodeId) -> Self {
        Self { node: Some(node), address: None }
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self { node: None, address: Some(address) }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Address::from(address).into()
    }
}

impl<A: Into<Address>> From<(NodeId, A)> for Endpoint {
    fn from((node, address): (NodeId, A)) -> Self {
        Self { node: Some(node), address: Some(address.into()) }
    }
}

impl From<&Endpoint> for Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        endpoint.clone()
    }
}

/// Node and address; channel, source, identity and how often it is tried are the pool's own affair.
impl From<&Dial> for Endpoint {
    fn from(dial: &Dial) -> Self {
        Self::of(dial)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.node, &self.address) {
            (Some(node), Some(address)) => write!(f, "{node}@{address}"),
            (Some(node), None) => node.fmt(f),
            (None, Some(address)) => address.fmt(f),
            (None, None) => f.write_str("nobody"),
        }
    }
}

/// What the circuit breaker of a target lets through: see [`crate::BreakerConfig`].
///
/// ```text
/// Closed --failures in a row--> Open --cool-down over, and somebody dials--> HalfOpen --successes--> Closed
///                                 ^                                             |
///                                 +---------- a probe fails, cool-down doubles -+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Every attempt.
    Closed,
    /// None, until the cool-down is over.
    Open,
    /// A few attempts, to find out whether the target is back.
    HalfOpen,
}
