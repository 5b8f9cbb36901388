//! The last events of each peer, where that was asked for: [`crate::Config::recorder`].
//!
//! A side table of the core: what is off costs a peer nothing, and the paths of messages one comparison each. A peer's ring is taken whole
//! when it is established, so noting an event allocates nothing; it is kept past the end of the peer until the application has been told of
//! that, so at most two for each slot.

use std::collections::BTreeMap;

use super::Shard;
use super::send::Payload;
use crate::config::Config;
use crate::error::CloseReason;
use crate::flight::{FlightEntry, FlightEvent, FlightRecord};
use crate::handler::Direction;
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::time::Timestamp;
use crate::wire::{FrameRef, HEADER_LEN, Kind};

/// One peer's.
#[derive(Debug)]
struct Ring {
    peer: PeerId,
    since: Timestamp,
    entries: Vec<FlightEntry>,
    /// All that there were.
    seen: u64,
}

impl Ring {
    fn push(&mut self, most: usize, entry: FlightEntry) {
        if self.entries.len() < most {
            self.entries.push(entry);
        } else {
            // The oldest is where the next one goes.
            let at = (self.seen % most as u64) as usize;
            self.entries[at] = entry;
        }
        self.seen += 1;
    }

    fn record(&self) -> FlightRecord {
        let kept = self.entries.len();
        let oldest = (self.seen % kept.max(1) as u64) as usize;
        let (newer, older) = self.entries.split_at(if self.seen > kept as u64 { oldest } else { 0 });
        FlightRecord { peer: self.peer, since: self.since, earlier: self.seen - kept as u64, entries: [older, newer].concat() }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// Events that each ring holds; zero: none are noted.
    most: usize,
    /// Of the established peers, by slot.
    live: Vec<Option<Box<Ring>>>,
    /// Of those whose end the application has not been told.
    closed: BTreeMap<PeerId, Box<Ring>>,
}

/// Memory that the rings of one slot may take: the peer's, and that of the one before it.
pub(super) fn bound(config: &Config) -> usize {
    let ring = config.recorder * size_of::<FlightEntry>() + size_of::<Ring>() + 3 * size_of::<(PeerId, Box<Ring>)>();
    if config.recorder == 0 { 0 } else { 2 * ring + 2 * size_of::<Option<Box<Ring>>>() }
}

impl Recorder {
    pub(super) fn new(config: &Config) -> Self {
        Self { most: config.recorder, ..Self::default() }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.most > 0
    }

    fn begin(&mut self, peer: PeerId, since: Timestamp) {
        let slot = peer.slot() as usize;
        if self.live.len() <= slot {
            self.live.resize_with(slot + 1, || None);
        }
        self.live[slot] = Some(Box::new(Ring { peer, since, entries: Vec::with_capacity(self.most), seen: 0 }));
    }

    fn push(&mut self, slot: u32, entry: FlightEntry) {
        if let Some(Some(ring)) = self.live.get_mut(slot as usize) {
            ring.push(self.most, entry);
        }
    }

    /// The peer in this slot has ended.
    fn end(&mut self, slot: u32) {
        if let Some(ring) = self.live.get_mut(slot as usize).and_then(Option::take) {
            self.closed.insert(ring.peer, ring);
        }
    }

    /// The application has been told.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.closed.remove(&peer);
    }

    fn find(&self, peer: PeerId) -> Option<&Ring> {
        let live = self.live.get(peer.slot() as usize).and_then(Option::as_ref).filter(|ring| ring.peer == peer);
        live.or_else(|| self.closed.get(&peer)).map(|ring| &**ring)
    }

    /// Rings of established peers, rings of ended ones, and bytes of all.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize, usize) {
        let rings = self.live.iter().flatten().chain(self.closed.values());
        let bytes = rings.map(|ring| size_of::<Ring>() + ring.entries.capacity() * size_of::<FlightEntry>()).sum::<usize>();
        let table = self.live.capacity() * size_of::<Option<Box<Ring>>>();
        (self.live.iter().flatten().count(), self.closed.len(), bytes + table)
    }
}

impl Shard {
    /// The last events of a peer of this core, or of one of whose end the application is being told.
    pub(crate) fn flight(&self, peer: PeerId) -> Option<FlightRecord> {
        if peer.core() == self.core { self.recorder.find(peer).map(Ring::record) } else { None }
    }

    pub(super) fn record(&mut self, slot: u32, event: FlightEvent) {
        if self.recorder.is_on() {
            self.recorder.push(slot, FlightEntry { at: self.now, event });
        }
    }

    pub(super) fn record_connected(&mut self, peer: PeerId, direction: Direction) {
        if self.recorder.is_on() {
            self.recorder.begin(peer, self.now);
            self.record(peer.slot(), FlightEvent::Connected { direction });
        }
    }

    pub(super) fn record_closed(&mut self, slot: u32, reason: CloseReason) {
        if self.recorder.is_on() {
            self.record(slot, FlightEvent::Closed(reason));
            self.recorder.end(slot);
        }
    }

    #[cold]
    pub(super) fn record_received(&mut self, slot: u32, frame: FrameRef<'_>) {
        let header = frame.header;
        self.record(slot, FlightEvent::Received { kind: header.kind, message_type: header.message_type, len: header.len });
        if header.kind == Kind::Pong
            && let Some(nonce) = frame.payload.first_chunk()
            && let Some(sent) = self.slots.at(slot).peer.keepalive.sent(u64::from_le_bytes(*nonce))
        {
            let nanos = u64::try_from((self.now - sent).as_nanos()).unwrap_or(u64::MAX);
            self.record(slot, FlightEvent::Rtt { nanos });
        }
    }

    #[cold]
    pub(super) fn record_queued(&mut self, slot: u32, payload: Payload<'_>) {
        let (kind, meta) = match payload {
            Payload::Draft(draft) => (draft.kind, draft.meta),
            Payload::Frame(frame) => (frame.kind(), frame.meta()),
        };
        self.record(slot, FlightEvent::Queued { kind, message_type: meta.message_type, len: payload.body_len() as u32 });
    }

    /// A control frame of this kind was queued.
    pub(super) fn record_control(&mut self, slot: u32, kind: Kind, frame: usize) {
        self.record(slot, FlightEvent::Queued { kind, message_type: 0, len: (frame - HEADER_LEN) as u32 });
    }

    #[cold]
    pub(super) fn record_written(&mut self, slot: u32, bytes: usize) {
        self.record(slot, FlightEvent::Written { bytes: u32::try_from(bytes).unwrap_or(u32::MAX) });
    }

    pub(super) fn record_dropped(&mut self, slot: u32, why: Counter, messages: u64) {
        if messages > 0 {
            self.record(slot, FlightEvent::Dropped { why, messages: u32::try_from(messages).unwrap_or(u32::MAX) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_the_last_events_in_their_order() {
        let config = Config { recorder: 3, ..Config::plaintext() };
        let mut recorder = Recorder::new(&config);
        let (peer, since) = (PeerId::new(0, 4, 1), Timestamp::from_nanos(7));
        recorder.begin(peer, since);
        for seen in 0..10_u32 {
            let record = recorder.find(peer).unwrap().record();
            let bytes: Vec<_> = record.entries.iter().map(|entry| entry.event).collect();
            let expected: Vec<_> = (seen.saturating_sub(3)..seen).map(|bytes| FlightEvent::Written { bytes }).collect();
            assert_eq!((bytes, record.earlier), (expected, u64::from(seen.saturating_sub(3))));
            recorder.push(4, FlightEntry { at: since, event: FlightEvent::Written { bytes: seen } });
        }
        assert!(recorder.held().2 <= bound(&config));
        // Its end: it can be read until the application has heard of it. Nobody else's is touched.
        recorder.end(4);
        recorder.begin(PeerId::new(0, 4, 2), since);
        assert_eq!(recorder.find(peer).unwrap().record().earlier, 7);
        assert_eq!((recorder.held().0, recorder.held().1), (1, 1));
        recorder.forget(peer);
        assert!(recorder.find(peer).is_none() && recorder.find(PeerId::new(0, 4, 2)).is_some());
    }
}
