//! The three messages of the handshake.

use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::records::{Records, TAG};
use super::resolver::Resolver;
use crate::config::{Cipher, Noise};
use crate::error::HandshakeError;
use crate::id::{NetworkId, NodeId};
use crate::identity::{Identity, NetworkSecret};
use crate::wire::{PREAMBLE_LEN, PROVED_HELLO_LEN};

const KEY: usize = 32;
/// `e, es`.
pub(crate) const MESSAGE_1: usize = KEY + TAG;
/// `e, ee`, and the acceptor's hello.
pub(crate) const MESSAGE_2: usize = KEY + PROVED_HELLO_LEN + TAG;
/// `s, se`, and the dialler's hello.
pub(crate) const MESSAGE_3: usize = KEY + TAG + PROVED_HELLO_LEN + TAG;

/// What a side brings to a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) identity: Identity,
    cipher: Cipher,
    secret: Option<NetworkSecret>,
}

impl Keys {
    /// `None` without an identity, which `Config::validate` refuses.
    pub(crate) fn new(noise: &Noise) -> Option<Self> {
        Some(Self { identity: noise.identity.clone()?, cipher: noise.cipher, secret: noise.secret.clone() })
    }

    /// The same, as another node.
    pub(crate) fn with_identity(&self, identity: Identity) -> Self {
        Self { identity, ..self.clone() }
    }

    /// The byte that names the cipher in the preamble.
    pub(crate) fn suite(&self) -> u8 {
        match self.cipher {
            Cipher::AesGcm => 1,
            Cipher::ChaChaPoly => 2,
        }
    }

    fn pattern(&self) -> &'static str {
        match (self.cipher, &self.secret) {
            (Cipher::AesGcm, None) => "Noise_XK_25519_AESGCM_SHA256",
            (Cipher::AesGcm, Some(_)) => "Noise_XKpsk0_25519_AESGCM_SHA256",
            (Cipher::ChaChaPoly, None) => "Noise_XK_25519_ChaChaPoly_SHA256",
            (Cipher::ChaChaPoly, Some(_)) => "Noise_XKpsk0_25519_ChaChaPoly_SHA256",
        }
    }
}

/// One side of a handshake.
pub(crate) struct Xk(HandshakeState);

impl Xk {
    /// The dialler's side, towards the node that it means.
    pub(crate) fn dialler(keys: &Keys, node: NodeId, prologue: &Prologue, entropy: &[u8; 32]) -> Self {
        Self::new(keys, Some(node), prologue, entropy)
    }

    pub(crate) fn acceptor(keys: &Keys, prologue: &Prologue, entropy: &[u8; 32]) -> Self {
        Self::new(keys, None, prologue, entropy)
    }

    fn new(keys: &Keys, node: Option<NodeId>, prologue: &Prologue, entropy: &[u8; 32]) -> Self {
        let mut resolver = Box::new(Resolver { entropy: Zeroizing::default() });
        resolver.entropy.copy_from_slice(entropy);
        let parameters = keys.pattern().parse().expect("the four patterns are Noise's");
        let build = || {
            let mut builder =
                Builder::with_resolver(parameters, resolver).local_private_key(keys.identity.secret())?.prologue(&prologue.0)?;
            if let Some(secret) = &keys.secret {
                builder = builder.psk(0, secret.secret())?;
            }
            match &node {
                Some(node) => builder.remote_public_key(node.as_bytes())?.build_initiator(),
                None => builder.build_responder(),
            }
        };
        // Each key is 32 bytes by its type, and each is given once.
        Self(build().expect("the patterns' keys are all there"))
    }

    /// This side's next message with this payload. `out` has its length.
    pub(crate) fn write(&mut self, payload: &[u8], out: &mut [u8]) -> Result<(), HandshakeError> {
        match self.0.write_message(payload, out) {
            Ok(len) => {
                debug_assert_eq!(len, out.len(), "a message's length follows from its tokens and its payload");
                Ok(())
            }
            Err(error) => Err(reason(&error)),
        }
    }

    /// The other side's next message; its payload goes to `out`, which has the payload's length.
    pub(crate) fn read(&mut self, message: &[u8], out: &mut [u8]) -> Result<(), HandshakeError> {
        // `snow` has ring open in place, and wants room for the tag as well.
        let mut payload = [0; PROVED_HELLO_LEN + TAG];
        let read = self.0.read_message(message, &mut payload).map_err(|error| reason(&error))?;
        if read != out.len() {
            return Err(HandshakeError::AuthFailed);
        }
        out.copy_from_slice(&payload[..read]);
        Ok(())
    }

    /// Who the other side is: proved once message 3 was read, or, to the dialler, message 2.
    pub(crate) fn remote(&self) -> Option<NodeId> {
        self.0.get_remote_static()?.first_chunk().copied().map(NodeId)
    }

    /// The session that all three messages have led to.
    pub(crate) fn finish(self) -> Records {
        Records::new(self.0.into_transport_mode().expect("all three messages were exchanged"))
    }
}

impl std::fmt::Debug for Xk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Xk(..)")
    }
}

/// What both sides have to agree on without saying it: the dialler's preamble and the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prologue(pub(super) [u8; PREAMBLE_LEN + 32]);

impl Prologue {
    pub(crate) fn new(preamble: [u8; PREAMBLE_LEN], network: NetworkId) -> Self {
        let mut bytes = [0; PREAMBLE_LEN + 32];
        bytes[..PREAMBLE_LEN].copy_from_slice(&preamble);
        bytes[PREAMBLE_LEN..].copy_from_slice(network.as_bytes());
        Self(bytes)
    }
}

fn reason(error: &snow::Error) -> HandshakeError {
    match error {
        snow::Error::Dh => HandshakeError::WeakKey,
        _ => HandshakeError::AuthFailed,
    }
}
