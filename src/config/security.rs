//! How connections are protected, and who may connect.

use super::{Config, ConfigError};
use crate::id::NodeId;
use crate::identity::{Identity, NetworkSecret};

/// How connections are protected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Security {
    /// Encrypted, and both sides prove who they are: the default.
    Noise(Noise),
    /// Not at all: whoever can reach the socket can read, change and claim anything. For one machine or a closed wire.
    Plaintext {
        /// Whether addresses other than loopback may be listened on and dialled. False refuses them with an error that says so.
        /// Unix-domain sockets are this machine's own, and need no flag.
        allow_remote: bool,
    },
}

/// Encrypted connections: the [Noise protocol](https://noiseprotocol.org/noise.html), pattern XK over X25519 with SHA-256.
///
/// All nodes of a network have the same cipher and the same secret; nothing is negotiated.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Noise {
    /// Our key pair. There is no default: an engine without one does not start.
    pub identity: Option<Identity>,
    /// Default: AES-GCM, which processors since 2010 have instructions for.
    pub cipher: Cipher,
    /// A secret of the whole network, besides each node's key: who does not know it cannot even begin a handshake. Default: none.
    pub secret: Option<NetworkSecret>,
}

impl Noise {
    /// With this key pair, AES-GCM and no network secret.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { identity: Some(identity), ..Self::default() }
    }
}

/// What seals the records. One for a whole network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM: sealing 128 bytes takes 80 ns on a processor with AES instructions.
    #[default]
    AesGcm,
    /// ChaCha20-Poly1305: 200 ns for the same, and not slower on processors without them.
    ChaChaPoly,
}

/// Who may be a peer of this engine, dialled or accepted. There is no default: it has to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// These nodes and no others, at most 1,048,576. Can be changed while the engine runs: [`crate::Handle::allow`],
    /// [`crate::Handle::disallow`]. Not with plaintext, where a node id proves nothing.
    AllowList(Vec<NodeId>),
    /// Whoever speaks the protocol, on this network, and passes [`crate::Handler::authorize`].
    Open,
}

impl Admission {
    /// Most nodes that a list may have: about 130 MiB of them.
    pub(crate) const MAX_LISTED: usize = 1 << 20;
}

impl Security {
    /// Our key pair, where there is one.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Noise(noise) => noise.identity.as_ref(),
            Self::Plaintext { .. } => None,
        }
    }

    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let missing = |field, expected| Err(ConfigError { field, value: None, expected, bound: None, unit: "" });
        match (self, &config.admission) {
            (Self::Noise(Noise { identity: None, .. }), _) => {
                missing("security.identity", "a key pair: Config::secure(Identity::load_or_generate(path)?, ...)")
            }
            (Self::Noise(_), _) if config.node.is_some() => {
                missing("node", "left out: with Noise a node's name is its public key, which comes from security.identity")
            }
            (_, None) => missing("admission", "said: Admission::AllowList(nodes), or Admission::Open for whoever comes"),
            (Self::Plaintext { .. }, Some(Admission::AllowList(list))) => Err(ConfigError {
                field: "admission",
                value: Some(list.len() as u64),
                expected: "Admission::Open with plaintext, where a node id is a claim and no list can tell whose",
                bound: None,
                unit: "",
            }),
            (_, Some(Admission::AllowList(list))) => {
                super::within("admission", list.len(), 0, Admission::MAX_LISTED, "a list of at most 1048576 nodes")
            }
            (_, Some(Admission::Open)) => Ok(()),
        }
    }
}
