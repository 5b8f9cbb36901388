//! The peers of a core, by index and generation.

use std::any::Any;

use slab::Slab;

use super::places::Place;
use super::topics::Subscriptions;
use crate::handler::PeerInfo;
use crate::id::PeerId;
use crate::proto::{Exchange, Peer};
use crate::time::Timestamp;
use crate::wheel::TimerKey;
use crate::wire::GoodbyeCode;

/// How far a peer is.
///
/// ```text
/// Established --close--> Draining --outbox empty--> Farewell --goodbye written, FIN sent--> HalfClosed --FIN received--> Ended
///      |                                               ^                                                                  ^
///      +----cut off (slow, violation)------------------+          any error, or the linger deadline ----------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Established,
    /// What was queued still leaves; nothing new is taken. `tell` is the goodbye that follows.
    Draining {
        tell: GoodbyeCode,
    },
    /// The goodbye is on its way.
    Farewell,
    /// This side's direction is closed; the other side is read to its end, so that what it has not read yet is not lost.
    HalfClosed,
    /// The socket is to be closed; freed at the end of the turn.
    Ended,
}

/// Why a peer is not read for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Halt {
    /// The application has stopped reading.
    Paused = 1 << 0,
    /// A lack of memory has.
    Starved = 1 << 1,
    /// What it sends is over its limit, and is read when that has room again: see `rates`.
    Delayed = 1 << 2,
}

/// Any of them, in one byte: asked after each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Halts(u8);

impl Halts {
    #[inline]
    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }

    #[inline]
    pub(crate) fn has(self, halt: Halt) -> bool {
        self.0 & halt as u8 != 0
    }

    /// Returns whether it was there before.
    pub(crate) fn set(&mut self, halt: Halt) -> bool {
        let had = self.has(halt);
        self.0 |= halt as u8;
        had
    }

    /// Returns whether it was there before.
    pub(crate) fn clear(&mut self, halt: Halt) -> bool {
        let had = self.has(halt);
        self.0 &= !(halt as u8);
        had
    }
}

/// What a core keeps for each peer. What a flush looks at stands first.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) state: State,
    /// In the shard's dirty list.
    pub(crate) dirty: bool,
    /// The socket takes nothing for now.
    pub(crate) blocked: bool,
    /// Why it is not read for now.
    pub(crate) halts: Halts,
    /// What was put aside when reading stopped comes before what the socket has: see `Shard::resume`.
    pub(crate) resuming: bool,
    /// Over the soft mark since; `on_drained` is due when it is below half of it.
    pub(crate) pressed: bool,
    /// A write was not taken whole, and the outbox has not been empty since: `Cold::behind_since` says since when.
    pub(crate) behind: bool,
    /// The other side has closed its direction.
    pub(crate) eof: bool,
    /// At least one message, ping, or answer to one came: the other side is useful, not merely reachable.
    pub(crate) proven: bool,
    /// A message came, or was sent, since the pool looked last.
    pub(crate) used: bool,
    generation: u32,
    pub(crate) peer: Peer,
    /// The wheel's timer for this peer's earliest deadline, or for an earlier one.
    pub(crate) armed: Option<(Timestamp, TimerKey)>,
    pub(crate) cold: Box<Cold>,
}

/// What is rarely needed.
#[derive(Debug)]
pub(crate) struct Cold {
    pub(crate) info: PeerInfo,
    pub(crate) grant: u64,
    /// Given back when this is dropped.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) place: Place,
    pub(crate) user: Option<Box<dyn Any>>,
    /// Most peers have no topics.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    pub(crate) established_at: Timestamp,
    /// Bytes that the kernel took since the peer went over the soft mark.
    pub(crate) drained: u64,
    /// Since when something has been left over from a write; of meaning while `Entry::behind`.
    pub(crate) behind_since: Timestamp,
    /// Messages that were dropped because the peer is slow, and not reported yet.
    pub(crate) shed: u64,
    /// Acknowledged messages of both directions; most peers have none.
    pub(crate) exchange: Option<Box<Exchange>>,
}

impl Entry {
    pub(crate) fn new(peer: Peer, cold: Cold) -> Self {
        Self {
            state: State::Established,
            dirty: false,
            blocked: false,
            halts: Halts::default(),
            resuming: false,
            pressed: false,
            behind: false,
            eof: false,
            proven: false,
            used: false,
            generation: 0,
            peer,
            armed: None,
            cold: Box::new(cold),
        }
    }

    // By pattern: the derived comparison looks at what is told too.
    #[inline]
    pub(crate) fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    #[inline]
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether it holds nothing any more that only the core can take back.
    pub(super) fn has_given_back(&self) -> bool {
        let cold = &self.cold;
        self.is_ended() && !self.blocked && self.peer.has_given_back() && cold.subscriptions.is_none() && cold.exchange.is_none()
    }

    /// Whether received bytes are given to the application.
    #[inline]
    pub(crate) fn is_read(&self) -> bool {
        self.is_established() && !self.halts.any()
    }
}

/// A slab whose keys carry a generation: a key from outside that is stale finds nothing.
#[derive(Debug)]
pub(crate) struct Slots {
    core: usize,
    entries: Slab<Entry>,
    /// The generation of each slot that was ever used. Odd arithmetic is not needed: it wraps after four billion peers in one slot, and
    /// skips zero.
    generations: Vec<u32>,
    established: usize,
}

impl Slots {
    pub(crate) fn new(core: usize) -> Self {
        Self { core, entries: Slab::new(), generations: Vec::new(), established: 0 }
    }

    pub(crate) fn insert(&mut self, mut entry: Entry) -> PeerId {
        let vacant = self.entries.vacant_entry();
        let index = vacant.key();
        if index == self.generations.len() {
            self.generations.push(1);
        }
        entry.generation = self.generations[index];
        self.established += 1;
        let id = PeerId::new(self.core, index as u32, entry.generation);
        vacant.insert(entry);
        id
    }

    /// Frees a slot; its id means nobody from here on.
    pub(crate) fn remove(&mut self, slot: u32) -> Entry {
        let generation = &mut self.generations[slot as usize];
        *generation = generation.checked_add(1).unwrap_or(1);
        self.entries.remove(slot as usize)
    }

    /// The peer in a slot that the core itself has kept track of: there is one.
    #[inline]
    pub(crate) fn at(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }

    /// A slot that may be empty.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)
    }

    /// The peer that an id from outside means, if it is still there.
    #[inline]
    pub(crate) fn find(&self, id: PeerId) -> Option<&Entry> {
        self.entries.get(id.slot() as usize).filter(|entry| entry.generation == id.generation() && id.core() == self.core)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, id: PeerId) -> Option<&mut Entry> {
        let core = self.core;
        self.entries.get_mut(id.slot() as usize).filter(|entry| entry.generation == id.generation() && id.core() == core)
    }

    #[inline]
    pub(crate) fn id(&self, slot: u32) -> PeerId {
        PeerId::new(self.core, slot, self.at(slot).generation)
    }

    /// One past the highest slot that was ever used.
    pub(crate) fn high_water(&self) -> u32 {
        self.generations.len() as u32
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.entries.iter().map(|(index, entry)| (index as u32, entry))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Entry)> {
        self.entries.iter_mut().map(|(index, entry)| (index as u32, entry))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn established(&self) -> usize {
        self.established
    }

    /// A peer has left `State::Established`.
    pub(crate) fn unestablish(&mut self) {
        self.established -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one of each for each peer. The power of two also makes an index one shift.
    #[test]
    fn are_small() {
        assert_eq!((size_of::<Entry>(), size_of::<Cold>()), (256, 200));
    }
}
