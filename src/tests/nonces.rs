//! What a simulated world has sealed: under one key, each nonce seals exactly one byte string.
//!
//! Each cipher of a test build counts its own nonces. That no two sessions have the same key is seen only here, by whoever looks at all of
//! them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// By key and nonce, a digest of what was sealed.
type Digests = HashMap<([u8; 32], u64), u64>;

thread_local! {
    /// A world is in one thread.
    static SEALED: RefCell<Option<Digests>> = const { RefCell::new(None) };
}

/// From here on, no two sessions of this thread may seal different things under one key and nonce. Where randomness is drawn for each
/// handshake, none do; a test that gives all of them the same must not ask for this.
pub(crate) fn begin() {
    SEALED.set(Some(HashMap::new()));
}

/// How many keys and nonces have sealed something since.
pub(crate) fn count() -> usize {
    SEALED.with_borrow(|sealed| sealed.as_ref().map_or(0, HashMap::len))
}

/// A cipher seals something.
pub(crate) fn note(key: [u8; 32], nonce: u64, data: &[u8], plaintext: &[u8]) {
    SEALED.with_borrow_mut(|sealed| {
        let Some(sealed) = sealed else { return };
        let mut hasher = DefaultHasher::new();
        (data, plaintext).hash(&mut hasher);
        let digest = hasher.finish();
        let first = *sealed.entry((key, nonce)).or_insert(digest);
        assert_eq!(first, digest, "nonce {nonce} seals a second byte string under one key");
    });
}
