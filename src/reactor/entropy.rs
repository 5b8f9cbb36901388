//! Randomness for keys, from the system: ring 0 has none of its own.

use std::io;

use zeroize::Zeroizing;

use crate::shard::Shared;

impl Shared {
    /// Calls with 32 bytes for one handshake; where there are no keys, there is nothing to draw. They are wiped afterwards.
    pub(super) fn with_entropy<T>(&self, act: impl FnOnce(&[u8; 32]) -> T) -> io::Result<T> {
        let mut bytes = Zeroizing::new([0; 32]);
        if self.keys.is_some() {
            getrandom::fill(bytes.as_mut())?;
        }
        Ok(act(&bytes))
    }
}
