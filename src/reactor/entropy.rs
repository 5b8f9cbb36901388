//! Randomness for keys, from the system: ring 0 has none of its own.

use std::io;

use crate::shard::Shared;

impl Shared {
    /// 32 bytes for one handshake; where there are no keys, there is nothing to draw.
    pub(super) fn entropy(&self) -> io::Result<[u8; 32]> {
        let mut bytes = [0; 32];
        if self.keys.is_some() {
            getrandom::fill(&mut bytes)?;
        }
        Ok(bytes)
    }
}
