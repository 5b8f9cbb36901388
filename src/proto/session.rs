//! What protects a connection.

/// How the bytes of an established connection are protected: the one place that will change when they are.
///
/// A plaintext session passes bytes through, in both directions, without touching them. An encrypted one will open records before the
/// decoder and seal them after the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Plaintext,
}

impl Session {
    /// Whether the other side has proved that it is the node it says it is.
    pub(crate) const fn is_authenticated(self) -> bool {
        match self {
            Self::Plaintext => false,
        }
    }
}
