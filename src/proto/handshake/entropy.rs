//! The random bytes of one handshake, from when they come to when its ephemeral key is made of them.
//!
//! They are as good as that key. A value that is moved leaves its bytes behind where it was, so these are put where they stay, are used in
//! place, once, and are wiped there.

use zeroize::Zeroize;

/// See the module.
#[derive(Default)]
pub(super) struct Entropy(Option<[u8; 32]>);

impl Entropy {
    pub(super) fn put(&mut self, bytes: &[u8; 32]) {
        self.0 = Some(*bytes);
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Makes something of them, if they are there, and wipes them.
    pub(super) fn spend<T>(&mut self, make: impl FnOnce(&[u8; 32]) -> T) -> Option<T> {
        let made = self.0.as_ref().map(make);
        self.0.zeroize();
        made
    }
}

impl Drop for Entropy {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spent_once() {
        let mut entropy = Entropy::default();
        assert!(!entropy.is_there() && entropy.spend(|_| ()).is_none());
        entropy.put(&[7; 32]);
        assert!(entropy.is_there());
        assert_eq!(entropy.spend(|bytes| *bytes), Some([7; 32]));
        assert!(!entropy.is_there() && entropy.spend(|_| ()).is_none());
    }
}
