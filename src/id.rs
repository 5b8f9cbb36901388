//! Names for things: peers, nodes, networks, dials, timers.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// One established connection of this engine: core, slot and generation in one word.
///
/// It routes by itself: no registry is asked and no lock is taken to find the peer. The generation makes it harmless after the peer
/// is gone: whatever is done with a stale id is answered with `SendError::NotConnected`, never with another peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(NonZeroU64);

impl PeerId {
    /// Slots of one core that an id can tell apart.
    pub(crate) const MAX_SLOTS: usize = 1 << 24;
    /// Cores that an id can tell apart.
    pub(crate) const MAX_CORES: usize = 1 << 8;

    /// `generation` is never zero.
    pub(crate) fn new(core: usize, slot: u32, generation: u32) -> Self {
        debug_assert!(core < Self::MAX_CORES && (slot as usize) < Self::MAX_SLOTS);
        let word = (generation as u64) << 32 | (core as u64) << 24 | slot as u64;
        Self(NonZeroU64::new(word).expect("generations begin at one"))
    }

    /// The core that owns the peer, from 0.
    #[must_use]
    pub fn core(self) -> usize {
        (self.0.get() >> 24) as usize & (Self::MAX_CORES - 1)
    }

    pub(crate) fn slot(self) -> u32 {
        self.0.get() as u32 & (Self::MAX_SLOTS as u32 - 1)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    /// The id as a number, for logs and foreign interfaces.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.core(), self.slot(), self.generation())
    }
}

/// A node's long-lived name: 32 bytes, as text 64 hexadecimal digits in lower case.
///
/// With Noise it is the node's public key, and the handshake proves that the other side has the secret one
/// ([`crate::PeerInfo::authenticated`]). On a plaintext connection it is what the other side *says* it is, and proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

/// The network that a node belongs to: 32 bytes that must be equal on both sides of a connection.
///
/// Use a hash of whatever tells your networks apart (name, genesis block, environment). The default is all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NetworkId(pub [u8; 32]);

/// The text was not 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 64 hexadecimal digits in lower case")
    }
}

impl std::error::Error for ParseIdError {}

impl NodeId {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl NetworkId {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }
}

impl FromStr for NetworkId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({self})")
    }
}

/// Lower case only, so that an id has one form as text.
pub(crate) fn parse_hex(text: &str) -> Result<[u8; 32], ParseIdError> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(ParseIdError);
    }
    let value = |digit: u8| (digit as char).to_digit(16).map_or(0, |value| value as u8);
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    Ok(out)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// One wish to be connected, from `dial` until it is established, has failed for good, or is cancelled.
///
/// The connection pool dials too, by ids of its own: they are seen in [`crate::PeerInfo::dial`], and cancelling them changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DialId(pub(crate) NonZeroU64);

impl DialId {
    /// Who asks for dials counts them from 1: handles together in space 0, each core in the next ones.
    pub(crate) fn new(space: usize, number: u64) -> Self {
        Self(NonZeroU64::new((space as u64) << 48 | number).expect("they are counted from 1"))
    }
}

impl DialId {
    /// Handles count from 1 on, cores from (core + 1) << 48, and the pool from here.
    const POOL: u64 = 0xFFFF << 48;

    pub(crate) fn of_pool(number: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(Self::POOL - 1 + number))
    }

    pub(crate) fn is_pooled(self) -> bool {
        self.0.get() >= Self::POOL
    }
}

/// What messages are about, as publishers and subscribers have agreed: any number.
///
/// A peer subscribes to a topic at another one, which then gets to it what the other publishes there: see
/// [`crate::Context::subscribe`] and [`crate::Context::publish`]. corecast gives the number no meaning. For names use a hash of the
/// name; where the same name must not be guessed at, a keyed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(pub u64);

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_gives_back_what_it_was_made_of() {
        for (core, slot, generation) in [(0, 0, 1), (255, (1 << 24) - 1, u32::MAX), (3, 70_000, 9)] {
            let id = PeerId::new(core, slot, generation);
            assert_eq!((id.core(), id.slot(), id.generation()), (core, slot, generation));
        }
        assert_eq!(size_of::<Option<PeerId>>(), 8);
    }

    #[test]
    fn ids_print_and_parse_in_one_form() {
        let id = NodeId(std::array::from_fn(|index| index as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("xy".parse::<NodeId>(), Err(ParseIdError));
        assert_eq!("+1".repeat(32).parse::<NodeId>(), Err(ParseIdError));
        assert_eq!(id.to_string().to_uppercase().parse::<NodeId>(), Err(ParseIdError));
    }
}
