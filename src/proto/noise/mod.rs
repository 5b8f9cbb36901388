//! The cryptography of an encrypted session: Noise XK, and records.
//!
//! The state machine of the handshake and of the keys is `snow`'s; ciphers and hash are `ring`'s. What is ours is the Diffie-Hellman (on
//! `x25519-dalek`, see [`resolver`]), the cutting into records, and the counting that says when keys change. This module is given the
//! randomness that it needs, knows nothing of sockets and frames, and prints no key. What goes over the wire is WIRE.md, 3.2 and 5.7.

#[cfg(test)]
mod forge;
mod records;
mod resolver;
mod xk;

#[cfg(test)]
pub(crate) use forge::forged_static;
pub(crate) use records::{MAX_PLAINTEXT, MAX_RECORD, Opened, Records, TAG};
pub(crate) use xk::{Keys, MESSAGE_1, MESSAGE_2, MESSAGE_3, Prologue, Xk};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
