//! Where the simulator's nodes are.

use std::net::SocketAddr;

use super::pipe::End;
use crate::address::Address;

const FIRST_PORT: u16 = 1000;

/// Where a node listens.
pub(super) fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + node as u16))
}

/// Which node listens there.
pub(super) fn node_at(address: &Address) -> usize {
    address.socket_addr().map_or(usize::MAX, |address| usize::from(address.port().wrapping_sub(FIRST_PORT)))
}

/// What an accepting node sees of the dialling end.
pub(super) fn dialler_address(end: End) -> Address {
    SocketAddr::from(([127, 1, (end.link >> 8) as u8, end.link as u8], 40_000)).into()
}
