//! Our own keys: made, kept in files, and never shown.
//!
//! This module does not know what the keys are used for. Secrets are wiped when the last copy of them is dropped, and no formatting prints
//! them.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use x25519_dalek::{PublicKey, StaticSecret};

use crate::id::NodeId;
use crate::key_file::{KeyFile, KeyFileError, Secret};

const FILE: KeyFile = KeyFile { heading: "corecast-identity-1 " };
const NETWORK_FILE: KeyFile = KeyFile { heading: "corecast-network-secret-1 " };

/// A node's key pair: an X25519 secret (RFC 7748), and the public key that is the node's [`NodeId`].
///
/// It is for corecast alone: do not use a key here that signs or decrypts anything else. Cloning shares the secret, it does not copy it.
///
/// To change a node's key, make a new one, have the other nodes allow both, restart the node with the new one, and have them disallow
/// the old one: a node id *is* the key, so a new key is a new node.
#[derive(Clone)]
pub struct Identity(Arc<Keys>);

struct Keys {
    /// Wiped when it is dropped.
    secret: StaticSecret,
    node: NodeId,
}

impl Identity {
    /// A new one, from the system's randomness. Fails only where the system has none to give.
    pub fn generate() -> io::Result<Self> {
        draw().map(|secret| Self::from_secret(*secret))
    }

    /// The one with this secret: 32 bytes from a cryptographic source. Everything about it follows from them.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let node = NodeId(PublicKey::from(&secret).to_bytes());
        Self(Arc::new(Keys { secret, node }))
    }

    /// The node that has this identity.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.0.node
    }

    /// The secret. For the handshake alone.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        self.0.secret.as_bytes()
    }

    /// Reads it from a file that [`Identity::save`] has written. On Unix the file must be this process's user's, and readable by nobody
    /// else (mode 0600 or less).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        FILE.load(path.as_ref()).map(|secret| Self::from_secret(*secret))
    }

    /// Reads it from a file, or makes one and writes it there, if there is no such file. Where two processes do this at once, both get the
    /// one that was written.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        FILE.load_or(path.as_ref(), draw).map(|secret| Self::from_secret(*secret))
    }

    /// Writes it to a new file with mode 0600: whole, or not at all. A file that is there already is left as it is, which is an error.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), KeyFileError> {
        FILE.save(path.as_ref(), self.secret())
    }
}

/// From the system's randomness.
fn draw() -> io::Result<Secret> {
    let mut secret = Secret::default();
    getrandom::fill(secret.as_mut())?;
    Ok(secret)
}

/// It names the node, and nothing else.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0.node)
    }
}

/// A secret that all nodes of a network share: 32 bytes from a cryptographic source. It goes into every handshake, so that who does not
/// know it gets no further than the first message. It does not take the place of the allow-list: it is as secret as its least careful
/// holder.
#[derive(Clone)]
pub struct NetworkSecret(Arc<Secret>);

impl NetworkSecret {
    /// The one with these bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Arc::new(Secret::from(secret)))
    }

    /// A new one, from the system's randomness. Fails only where the system has none to give.
    pub fn generate() -> io::Result<Self> {
        draw().map(|secret| Self(Arc::new(secret)))
    }

    /// Reads it from a file that [`NetworkSecret::save`] has written, under the conditions of [`Identity::load`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        NETWORK_FILE.load(path.as_ref()).map(|secret| Self(Arc::new(secret)))
    }

    /// Writes it to a new file with mode 0600, as [`Identity::save`] does. The file is what every node of the network gets a copy of.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), KeyFileError> {
        NETWORK_FILE.save(path.as_ref(), self.secret())
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_id_is_the_public_key() {
        // RFC 7748, section 6.1: Alice.
        let secret = crate::id::parse_hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a").unwrap();
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        assert_eq!(Identity::from_secret(secret).node_id().to_string(), public);
    }

    #[test]
    fn nothing_prints_a_secret() {
        let identity = Identity::from_secret([0x5A; 32]);
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.node_id()));
        assert_eq!(format!("{:?}", NetworkSecret::new([0x5A; 32])), "NetworkSecret(..)");
    }
}
