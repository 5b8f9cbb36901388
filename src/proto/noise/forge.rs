//! For tests: a dialler that follows the protocol, but for its static key, which is whatever the test says.

use std::sync::atomic::{AtomicBool, Ordering};

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

use super::Prologue;
use super::resolver::Resolver;
use crate::id::NodeId;

/// The dialler's side towards `node`, without a network secret, with AES-GCM.
pub(crate) fn forged_static(prologue: &Prologue, node: NodeId, public: [u8; 32]) -> HandshakeState {
    let forge = Forge { honest: Resolver { entropy: Zeroizing::new([0xF0; 32]) }, public, asked: AtomicBool::new(false) };
    let parameters = "Noise_XK_25519_AESGCM_SHA256".parse().unwrap();
    let builder = Builder::with_resolver(parameters, Box::new(forge)).local_private_key(&[1; 32]).unwrap();
    builder.prologue(&prologue.0).unwrap().remote_public_key(node.as_bytes()).unwrap().build_initiator().unwrap()
}

struct Forge {
    honest: Resolver,
    public: [u8; 32],
    /// `snow` asks for the static key first.
    asked: AtomicBool,
}

impl CryptoResolver for Forge {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.honest.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        if self.asked.swap(true, Ordering::Relaxed) { self.honest.resolve_dh(choice) } else { Some(Box::new(Static(self.public))) }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.honest.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.honest.resolve_cipher(choice)
    }
}

/// A key whose every shared secret is zero, as it would be for the other side.
struct Static([u8; 32]);

impl Dh for Static {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _: &[u8]) {}

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), Error> {
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.0
    }

    fn privkey(&self) -> &[u8] {
        &[0; 32]
    }

    fn dh(&self, _: &[u8], out: &mut [u8]) -> Result<(), Error> {
        out.fill(0);
        Ok(())
    }
}
