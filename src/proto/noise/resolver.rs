//! Where `snow` gets its primitives from.

use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

/// `ring`'s ciphers and hash; a Diffie-Hellman that takes no shared secret of zero; and the one random number that a side of a handshake
/// needs, its ephemeral key, as an argument.
pub(super) struct Resolver {
    pub(super) entropy: Zeroizing<[u8; 32]>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let mut once = Box::new(Once::default());
        // Where it stays: what is moved leaves its bytes behind.
        once.bytes.copy_from_slice(self.entropy.as_ref());
        once.is_left = true;
        Some(once)
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::default())),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let cipher = RingResolver.resolve_cipher(choice)?;
        #[cfg(test)]
        let cipher: Box<dyn Cipher> = Box::new(watch::Watched::new(cipher));
        Some(cipher)
    }
}

/// Gives what it has, once: a second ephemeral key from the same bytes would be the same key.
#[derive(Default)]
struct Once {
    bytes: Zeroizing<[u8; 32]>,
    is_left: bool,
}

impl Random for Once {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        if !std::mem::take(&mut self.is_left) || out.len() != self.bytes.len() {
            return Err(Error::Rng);
        }
        out.copy_from_slice(self.bytes.as_ref());
        self.bytes.zeroize();
        Ok(())
    }
}

/// X25519 (RFC 7748).
struct X25519 {
    /// Wiped when it is dropped.
    secret: StaticSecret,
    public: [u8; 32],
}

impl Default for X25519 {
    fn default() -> Self {
        Self { secret: StaticSecret::from([0; 32]), public: [0; 32] }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(secret);
        self.secret = StaticSecret::from(*bytes);
        self.public = PublicKey::from(&self.secret).to_bytes();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(bytes.as_mut())?;
        self.set(bytes.as_ref());
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    /// Fails where the outcome is zero, whatever our key: with the twelve encodings of points of small order (RFC 7748, section 7). `snow`
    /// and Noise would go on with it.
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public: &[u8; 32] = public.first_chunk().ok_or(Error::Input)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(*public));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out[..32].copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

/// In tests and in the simulator, what must never happen is looked for: that a nonce seals a second byte string under the same key.
#[cfg(test)]
mod watch {
    use std::sync::atomic::{AtomicU64, Ordering};

    use snow::Error;
    use snow::types::Cipher;

    use crate::tests::nonces;

    /// Each counts on by itself. That no two have the same key is seen where a world is watched: see `nonces`.
    pub(super) struct Watched {
        cipher: Box<dyn Cipher>,
        key: [u8; 32],
        /// The lowest nonce that may seal next.
        next: AtomicU64,
    }

    impl Watched {
        pub(super) fn new(cipher: Box<dyn Cipher>) -> Self {
            Self { cipher, key: [0; 32], next: AtomicU64::new(0) }
        }
    }

    impl Cipher for Watched {
        fn name(&self) -> &'static str {
            self.cipher.name()
        }

        fn set(&mut self, key: &[u8; 32]) {
            self.cipher.set(key);
            self.key = *key;
            self.next = AtomicU64::new(0);
        }

        fn encrypt(&self, nonce: u64, data: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
            let next = self.next.swap(nonce.saturating_add(1), Ordering::Relaxed);
            assert!(nonce >= next, "nonce {nonce} seals a second byte string under one key");
            nonces::note(self.key, nonce, data, plaintext);
            self.cipher.encrypt(nonce, data, plaintext, out)
        }

        fn decrypt(&self, nonce: u64, data: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
            self.cipher.decrypt(nonce, data, ciphertext, out)
        }
    }
}
