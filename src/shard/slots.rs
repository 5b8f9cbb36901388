//! The peers of a core, by index and generation.
//!
//! What each message and write needs of a peer is an [`Entry`]; all else is its [`Cold`] part, in a list of its own by the same index, so
//! that what is needed of many peers in a row stands close together.

use slab::Slab;

use super::cold::Cold;
use crate::handler::PeerInfo;
use crate::id::PeerId;
use crate::proto::Peer;
use crate::time::Timestamp;
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

/// What is the case with a peer, a bit each. The first three say why it is not read for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mark {
    /// The application has stopped reading.
    Paused = 1 << 0,
    /// A lack of memory has.
    Starved = 1 << 1,
    /// What it sends is over its limit, and is read when that has room again: see `rates`.
    Delayed = 1 << 2,
    /// What was put aside when reading stopped comes before what the socket has: see `Shard::resume`.
    Resuming = 1 << 3,
    /// The other side has closed its direction.
    Eof = 1 << 4,
    /// At least one message, ping, or answer to one came: the other side is useful, not merely reachable.
    Proven = 1 << 5,
}

/// Any of them, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    const HALTS: u8 = Mark::Paused as u8 | Mark::Starved as u8 | Mark::Delayed as u8;

    /// Whether there is a reason not to read the peer. Asked after each message.
    #[inline]
    pub(crate) fn is_halted(self) -> bool {
        self.0 & Self::HALTS != 0
    }

    #[inline]
    pub(crate) fn has(self, mark: Mark) -> bool {
        self.0 & mark as u8 != 0
    }

    /// Returns whether it was there before.
    pub(crate) fn set(&mut self, mark: Mark) -> bool {
        let had = self.has(mark);
        self.0 |= mark as u8;
        had
    }

    /// Returns whether it was there before.
    pub(crate) fn clear(&mut self, mark: Mark) -> bool {
        let had = self.has(mark);
        self.0 &= !(mark as u8);
        had
    }
}

/// What a core needs of a peer for its traffic, in the order in which it is needed.
///
/// A flush looks at what stands before the peer's decoder, 96 bytes, and so do sends and sweeps; a read of a plaintext peer also at the
/// rest, up to its requests.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) state: State,
    /// In the shard's dirty list.
    pub(crate) dirty: bool,
    /// The socket takes nothing for now.
    pub(crate) blocked: bool,
    /// Over the soft mark since; `on_drained` is due when it is below half of it.
    pub(crate) pressed: bool,
    /// A write was not taken whole, and the outbox has not been empty since: `Arrears::since` says since when.
    pub(crate) behind: bool,
    /// A message came, or was sent, since the pool looked last.
    pub(crate) used: bool,
    pub(crate) marks: Marks,
    generation: u32,
    /// The longest message that the other side takes.
    pub(crate) max_message: u32,
    pub(crate) peer: Peer,
    /// When the wheel's timer for this peer comes: at its earliest deadline, or before.
    pub(crate) armed: Option<Timestamp>,
}

impl Entry {
    pub(crate) fn new(peer: Peer, max_message: u32) -> Self {
        Self {
            state: State::Established,
            dirty: false,
            blocked: false,
            pressed: false,
            behind: false,
            used: false,
            marks: Marks::default(),
            generation: 0,
            max_message,
            peer,
            armed: None,
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
        self.is_ended() && !self.blocked && self.peer.has_given_back()
    }

    /// Whether received bytes are given to the application.
    #[inline]
    pub(crate) fn is_read(&self) -> bool {
        self.is_established() && !self.marks.is_halted()
    }
}

/// A slab whose keys carry a generation: a key from outside that is stale finds nothing.
#[derive(Debug)]
pub(crate) struct Slots {
    core: usize,
    entries: Slab<Entry>,
    /// By the same index.
    colds: Vec<Option<Cold>>,
    /// The generation of each slot that was ever used. Odd arithmetic is not needed: it wraps after four billion peers in one slot, and
    /// skips zero.
    generations: Vec<u32>,
    established: usize,
}

impl Slots {
    /// `room`: for so many peers from the start. Memory that was never touched is not resident, and a list that is large from the start
    /// grows where it is, and leaves nothing behind that it has outgrown.
    pub(crate) fn new(core: usize, room: usize) -> Self {
        let (entries, colds) = (Slab::with_capacity(room), Vec::with_capacity(room));
        Self { core, entries, colds, generations: Vec::with_capacity(room), established: 0 }
    }

    pub(crate) fn insert(&mut self, mut entry: Entry, cold: Cold) -> PeerId {
        let vacant = self.entries.vacant_entry();
        let index = vacant.key();
        if index == self.generations.len() {
            self.generations.push(1);
            self.colds.push(None);
        }
        self.colds[index] = Some(cold);
        entry.generation = self.generations[index];
        self.established += 1;
        let id = PeerId::new(self.core, index as u32, entry.generation);
        vacant.insert(entry);
        id
    }

    /// Frees a slot; its id means nobody from here on.
    pub(crate) fn remove(&mut self, slot: u32) -> (Entry, Cold) {
        let generation = &mut self.generations[slot as usize];
        *generation = generation.checked_add(1).unwrap_or(1);
        let entry = self.entries.remove(slot as usize);
        (entry, self.colds[slot as usize].take().expect("who has an entry has this"))
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

    /// The same of what is rarely needed.
    pub(crate) fn cold(&self, slot: u32) -> &Cold {
        self.colds[slot as usize].as_ref().expect("there is such a peer")
    }

    pub(crate) fn cold_mut(&mut self, slot: u32) -> &mut Cold {
        self.colds[slot as usize].as_mut().expect("there is such a peer")
    }

    /// What there is to say of the peer in a slot.
    pub(crate) fn info(&self, slot: u32) -> PeerInfo {
        let entry = self.at(slot);
        self.cold(slot).info(entry.peer.session.is_authenticated(), entry.max_message as usize)
    }

    /// The peer whose connection has this grant. Looks at all of the core.
    pub(crate) fn granted(&self, grant: u64) -> Option<u32> {
        self.iter_cold().find(|(_, cold)| cold.grant == grant).map(|(slot, _)| slot)
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

    pub(crate) fn iter_cold(&self) -> impl Iterator<Item = (u32, &Cold)> {
        self.colds.iter().enumerate().filter_map(|(index, cold)| Some((index as u32, cold.as_ref()?)))
    }

    pub(crate) fn iter_cold_mut(&mut self) -> impl Iterator<Item = (u32, &mut Cold)> {
        self.colds.iter_mut().enumerate().filter_map(|(index, cold)| Some((index as u32, cold.as_mut()?)))
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
    use std::mem::offset_of;

    use super::*;

    /// There is one for each peer.
    #[test]
    fn is_small() {
        assert_eq!(size_of::<Entry>(), 184);
        assert_eq!(offset_of!(Entry, peer) + Peer::DECODER, 96);
    }
}
