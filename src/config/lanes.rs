//! How the lanes share a connection, and what a reader that is too slow loses.

use std::collections::BTreeMap;

use super::within;
use crate::error::ConfigError;
use crate::wire::{Lane, Meta};

/// The lanes of each peer's outbox: control before all others, then high, normal and bulk by deficit round robin (Shreedhar and Varghese,
/// "Efficient Fair Queuing using Deficit Round-Robin", 1995), the more urgent first in each round.
///
/// While only one lane has something to send, it has the whole connection. A message that comes into an idle high lane leaves right after
/// the frame that is under way; one that comes after its lane has used up its share of the round waits for the shares of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lanes {
    /// Default: weight 16, [`WhenSlow::Disconnect`].
    pub high: LaneConfig,
    /// Default: weight 4, [`WhenSlow::Disconnect`].
    pub normal: LaneConfig,
    /// Default: weight 1, [`WhenSlow::Disconnect`].
    pub bulk: LaneConfig,
    /// The lane of messages of a type, where the sender does not choose one with [`Meta::lane`]. Default: none, all are normal. Of no
    /// meaning to [`crate::Frame::new`], which knows no configuration.
    pub types: BTreeMap<u16, Lane>,
}

/// One lane of each peer's outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneConfig {
    /// What the lane may send in a round while others wait too, in units of `Limits::fragment`: 1 to 4,096. The defaults, 16 to 4 to 1,
    /// leave bulk one fragment in 21, so that it never starves; with fragments of 16 KiB a round is 336 KiB at most.
    pub weight: u32,
    /// What happens to this lane's messages when the peer is too slow for them.
    pub when_slow: WhenSlow,
}

/// What happens to a lane's messages while their peer has more than `Limits::outbox_soft` bytes still to receive.
///
/// Dropping takes whole messages of which nothing has left, counts each (`dropped_oldest`, `dropped_newest`, `conflated`), and is reported
/// with [`crate::Handler::on_slow`]. Only when there is nothing left to drop is the peer treated as `Disconnect` says. Nothing is dropped
/// while the peer's socket takes what it is given and it is this core that has not got round to writing.
///
/// Room for a message is made in its own lane and in less urgent ones, the least urgent first; before a peer is cut off, in all. Requests
/// and responses are messages too: a request that is dropped, or whose response is, times out.
///
/// A peer whose lanes drop stays connected however slow it is, while its socket takes something: where it takes nothing for
/// `Timeouts::write_stall`, it is cut off whatever its lanes do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenSlow {
    /// Nothing is dropped. The peer has `Limits::soft_grace` to drain at `Limits::min_drain_rate`, and is cut off at `Limits::outbox_hard`.
    #[default]
    Disconnect,
    /// The oldest messages make room: the peer sees gaps, then what is new. For prices, positions, anything that the next one replaces.
    DropOldest,
    /// New messages are not taken: the peer sees what was under way, then a gap. A send says `OutboxFull`, and counts as refused as well; a
    /// batch is left out as a whole.
    DropNewest,
    /// A frame with a key ([`crate::Frame::with_key`]) replaces the one of the same key that still waits, in its place, whether the peer
    /// is slow or not; over the mark, the oldest messages make room. For the latest value of each of many things.
    Conflate,
}

impl LaneConfig {
    const fn new(weight: u32) -> Self {
        Self { weight, when_slow: WhenSlow::Disconnect }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self { high: LaneConfig::new(16), normal: LaneConfig::new(4), bulk: LaneConfig::new(1), types: BTreeMap::new() }
    }
}

impl Lanes {
    /// One lane.
    #[must_use]
    pub const fn get(&self, lane: Lane) -> &LaneConfig {
        match lane {
            Lane::High => &self.high,
            Lane::Normal => &self.normal,
            Lane::Bulk => &self.bulk,
        }
    }

    /// The metadata with a lane that is meant: the sender's choice, or what the type says.
    #[inline]
    pub(crate) fn resolve(&self, meta: Meta) -> Meta {
        if meta.is_lane_chosen() || self.types.is_empty() {
            return meta;
        }
        self.types.get(&meta.message_type).map_or(meta, |&lane| meta.lane(lane))
    }

    /// What each lane may send in a round, bytes.
    pub(crate) fn quanta(&self, fragment: usize) -> [u32; Lane::ALL.len()] {
        Lane::ALL.map(|lane| self.get(lane).weight * fragment as u32)
    }

    /// Whether any lane drops anything.
    pub(crate) fn drops(&self) -> bool {
        Lane::ALL.iter().any(|&lane| self.get(lane).when_slow != WhenSlow::Disconnect)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for (field, lane) in [("lanes.high.weight", Lane::High), ("lanes.normal.weight", Lane::Normal), ("lanes.bulk.weight", Lane::Bulk)] {
            within(field, self.get(lane).weight as usize, 1, 4096, "1 to 4096 fragments a round")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_lane_stays_and_an_unchosen_one_is_what_the_type_says() {
        let mut lanes = Lanes::default();
        lanes.types.insert(7, Lane::High);
        assert_eq!(lanes.resolve(Meta::new(7)).lane, Lane::High);
        assert_eq!(lanes.resolve(Meta::new(7).lane(Lane::Bulk)).lane, Lane::Bulk);
        assert_eq!(lanes.resolve(Meta::new(7).lane(Lane::Normal)).lane, Lane::Normal);
        assert_eq!(lanes.resolve(Meta::new(8)).lane, Lane::Normal);
    }

    #[test]
    fn a_round_fits_its_integers_at_the_largest_weights_and_fragments() {
        let mut lanes = Lanes::default();
        lanes.high.weight = 4096;
        assert_eq!(lanes.validate(), Ok(()));
        assert_eq!(lanes.quanta(32 << 10), [128 << 20, 128 << 10, 32 << 10]);
        lanes.bulk.weight = 0;
        assert_eq!(lanes.validate().unwrap_err().field, "lanes.bulk.weight");
    }
}
