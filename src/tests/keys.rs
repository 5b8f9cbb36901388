//! What nodes that encrypt need in the simulator: keys that are the same in each run, dials that name them, and the way to write.

use std::io::IoSlice;

use super::pipe::{End, Net};
use super::sim::{Core, address};
use crate::config::{Config, Security};
use crate::dial::Dial;
use crate::identity::Identity;
use crate::rng::Rng;
use crate::shard::Shared;

/// The key of a node, where nodes have keys: the same after a restart.
pub(super) fn identity(node: usize) -> Identity {
    Identity::from_secret([node as u8 + 1; 32])
}

/// What a node with this configuration dials to reach another.
pub(super) fn dial_to(config: &Config, target: usize) -> Dial {
    match config.security {
        Security::Noise(_) => Dial::node(identity(target).node_id(), address(target)),
        Security::Plaintext { .. } => Dial::to(address(target)),
    }
}

/// For one handshake. Plaintext draws none, so that what older seeds draw stays as it is.
pub(super) fn entropy(shared: &Shared, rng: &mut Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    if shared.keys.is_some() {
        rng.fill(&mut bytes);
    }
    bytes
}

/// Writes to a peer as the reactor does: one record after the other.
pub(super) fn write_sealed(now: u64, net: &mut Net, this: &mut Core, slot: u32, end: End, mut budget: usize) {
    loop {
        let record = this.shard.seal(slot);
        if record.is_empty() {
            return;
        }
        let offered = record.len();
        match net.write(now, end, &[IoSlice::new(record)]) {
            Ok(taken) => {
                budget = budget.saturating_sub(taken);
                if !this.shard.advance_sealed(slot, taken, taken < offered, budget == 0) {
                    return;
                }
            }
            Err(kind) => return this.shard.handle_error(slot, kind),
        }
    }
}
