//! What the simulator asks of a shard after each turn, and at the end.

use super::slots::{Entry, Mark};
use super::{Shard, bound};
use crate::buffers::MEDIUM;
use crate::id::PeerId;
use crate::wire::Frame;

impl Shard {
    /// The id of the peer in a slot that is in use.
    pub(crate) fn peer_id(&self, slot: u32) -> PeerId {
        self.slots.id(slot)
    }

    /// Whether the peer's socket takes nothing for now.
    pub(crate) fn is_blocked(&self, peer: PeerId) -> bool {
        self.slots.find(peer).is_some_and(|entry| entry.blocked)
    }

    /// What was queued to be acknowledged since the last call, and for whom.
    pub(crate) fn take_queued_acked(&mut self) -> Vec<(PeerId, Frame)> {
        std::mem::take(&mut self.queued_acked)
    }

    /// Entries for which each queue has room: mail and control for other cores, control for this one, events, actions.
    pub(crate) fn queue_room(&self) -> [usize; 5] {
        let out = &self.out;
        [out.mail.capacity(), out.control.capacity(), out.local.capacity(), self.events.capacity(), self.actions.capacity()]
    }

    /// See `Recorder::held`.
    pub(crate) fn rings(&self) -> (usize, usize, usize) {
        self.recorder.held()
    }

    /// Panics where the shard's figures and its peers contradict each other. Between turns.
    pub(crate) fn assert_invariants(&self) {
        let (mut private, mut blocked, mut established, mut reassembling, mut awaited) = (0, 0, 0, 0, 0);
        let (mut borrowed, mut parked) = (0, 0);
        let (mut shared, mut shared_reassembling, mut requests) = (0, 0, 0);
        let swept = self.sweep_is_over();
        for (slot, entry) in self.slots.iter() {
            let outbox = &entry.peer.outbox;
            outbox.assert_invariants(&self.logs);
            // A publish may take a peer past its bound for which the core has not written yet, but not past twice of it.
            let most = 2 * self.config().limits.outbox_hard;
            assert!(!entry.is_established() || outbox.private() <= most, "slot {slot}: {}", outbox.private());
            private += outbox.used();
            shared += self.sends.beyond(outbox.used());
            blocked += usize::from(entry.blocked);
            established += usize::from(entry.is_established());
            reassembling += entry.peer.reassembling();
            awaited += self.slots.cold(slot).exchange().map_or(0, |exchange| exchange.awaited());
            assert!(entry.is_established() || self.slots.cold(slot).exchange().is_none(), "slot {slot} has closed and kept its ledger");
            shared_reassembling += self.budget.beyond(entry.peer.reassembling());
            requests += entry.peer.pending_requests();
            borrowed += entry.peer.borrowed();
            parked += super::receive::parked(entry.peer.decoder.held());
            let reads_on = entry.is_read() && !entry.marks.has(Mark::Resuming);
            assert!(!reads_on || entry.peer.decoder.held() <= MEDIUM, "slot {slot} holds more than a frame between reads");
            if entry.is_ended() {
                // Letting go of a full log is the last thing in a turn: what that ends is freed with the next one.
                assert!(self.ended.contains(&slot) && self.has_work(), "slot {slot} ended and was not freed");
                continue;
            }
            let queued = self.dirty.iter().filter(|&&dirty| dirty == slot).count();
            assert!(queued >= usize::from(entry.dirty), "slot {slot} is marked dirty and not in the list");
            let waits = !entry.peer.has_output(&self.logs) || entry.blocked || entry.dirty || !swept;
            assert!(waits, "slot {slot} has something to write and nobody will");
            let ends = entry.is_established() || entry.armed.is_some();
            assert!(ends, "slot {slot} is {:?} without a deadline", entry.state);
            if let Some(next) = entry.peer.timers.next() {
                let latest = next.max(self.now + std::time::Duration::from_millis(1));
                assert!(entry.armed.is_some_and(|armed| armed <= latest), "slot {slot}: {:?}", (entry.state, &entry.peer.timers));
            }
        }
        self.assert_subscriptions();
        self.assert_rates();
        // Looked at each `RECLAIM_STEP`; a turn appends half of the hard bound, or one batch more.
        let limits = &self.config().limits;
        let most = limits.log_bytes + super::flush::RECLAIM_STEP + limits.outbox_hard;
        assert!(self.logs.held() <= most, "the logs hold {} bytes, and may {}", self.logs.held(), limits.log_bytes);
        assert_eq!((self.sends.used(), self.sends.shared_used()), (private, shared), "private bytes");
        assert_eq!(self.blocked, blocked, "blocked peers");
        assert_eq!(self.slots.established(), established, "established peers");
        let unfinished = (self.budget.used(), self.budget.shared_used());
        assert_eq!(unfinished, (reassembling, shared_reassembling), "bytes of unfinished messages");
        assert!(!self.budget.is_overdrawn(), "more is reserved for unfinished messages than may be");
        assert_eq!(self.buffers.lent(), borrowed, "bytes of buffers");
        assert_eq!(self.parked, parked, "bytes of whole reads that were put aside");
        let most = super::receive::PARKED_READS * super::receive::parked_read(self.config());
        assert!(parked <= most, "{parked} bytes are put aside, and {most} may be");
        assert_eq!(self.requests, requests, "requests that wait");
        self.assert_bounded();
        assert!(self.user_timers <= self.wheel.len());
        assert_eq!(self.unacked.awaited(), awaited, "acknowledgements that are awaited");
        let acks = &self.config().acks;
        assert!(self.receipts.len() <= acks.pending && self.receipts.bytes() <= acks.bytes);
        assert!(self.receipts.answers() <= bound::answers(self.config()), "{} acknowledgements", self.receipts.answers());
        assert!(self.landing.asked() <= self.slots.iter().count());
        let (live, closed, bytes) = self.recorder.held();
        assert_eq!(live, if self.recorder.is_on() { established } else { 0 }, "rings of established peers");
        assert!(closed <= self.events.len(), "{closed} rings of peers of whose end nobody will be told");
        let slots = self.slots.high_water() as usize;
        assert!(self.idle.room() <= 4.max(2 * slots), "room for {} connections of the pool, of {slots} slots", self.idle.room());
        assert!(bytes <= slots * bound::recorded(self.config()), "rings: {bytes} bytes");
        for (half, open) in &self.half_open {
            assert!(!open.is_ended(), "half-open connection {half} ended and was not freed");
        }
    }

    /// The core's subscribers and the peers' topics are the same.
    fn assert_subscriptions(&self) {
        let (mut count, most) = (0, self.config().limits.subscriptions);
        for (slot, entry) in self.slots.iter() {
            let Some(all) = self.slots.cold(slot).subscriptions() else { continue };
            assert!(entry.is_established() && all.theirs.len() <= most && all.ours.len() <= most);
            assert!(!all.theirs.is_empty() || !all.ours.is_empty(), "slot {slot} keeps an empty box");
            assert!(all.theirs.iter().all(|&topic| self.topics.contains(topic, slot)), "slot {slot} has subscribed in vain");
            count += all.theirs.len();
        }
        assert_eq!(self.topics.len(), count, "subscriptions");
        assert!(self.published.is_between());
    }

    /// Panics where the core holds more than its part of `Config::memory_bound`.
    fn assert_bounded(&self) {
        let config = self.config();
        let slots = self.slots.iter().count();
        let within = |what: &str, held: usize, most: usize| assert!(held <= most, "{what}: {held} bytes are held, and {most} may be");
        within("broadcasts", self.logs.held(), bound::broadcasts(config));
        let memory = self.pool.kept() + self.slots.iter().map(|(_, entry)| entry.peer.outbox.memory()).sum::<usize>();
        within("sends", memory, bound::sends(config, slots));
        let input = |(_, entry): (u32, &Entry)| entry.peer.decoder.held();
        within("input", self.slots.iter().map(input).sum(), bound::input(config, slots));
        let sealed = self.slots.iter().map(|(_, entry)| entry.peer.sealed()).sum::<usize>();
        within("records", sealed, bound::sessions(config, slots));
        let unfinished = self.buffers.lent() - sealed - self.slots.iter().map(input).sum::<usize>();
        within("unfinished messages", unfinished, bound::reassembly(config, slots));
        let exchanges = self.slots.iter_cold().filter_map(|(_, cold)| cold.exchange());
        let exchanged = exchanges.map(|exchange| exchange.memory()).sum();
        within("acknowledgements", exchanged, bound::exchanges(config, slots) + bound::receipts(config));
        within("kept buffers", self.buffers.held() - self.buffers.lent(), config.limits.buffer_pool);
    }

    /// Panics where something is left of connections that are all gone.
    pub(crate) fn assert_released(&self) {
        assert_eq!(self.topics.len(), 0);
        assert!(self.slots.is_empty() && self.half_open.is_empty() && self.logs.is_empty());
        assert_eq!((self.sends.used(), self.blocked, self.budget.used(), self.user_timers), (0, 0, 0, 0));
        assert_eq!((self.requests, self.connects), (0, 0));
        assert_eq!((self.buffers.lent(), self.parked), (0, 0));
        assert!(self.starved.is_empty() && self.resuming.is_empty() && self.events.is_empty() && self.actions.is_empty());
        let receipts = (self.receipts.len(), self.receipts.bytes(), self.receipts.answers());
        assert_eq!((receipts, self.unacked.awaited()), ((0, 0, 0), 0), "acknowledged sends");
        assert_eq!(self.landing.asked(), 0, "what peers asked for when they went");
        assert_eq!((self.recorder.held().0, self.recorder.held().1), (0, 0), "rings");
        if let Some(directory) = &self.directory {
            assert_eq!(directory.kept(), (0, 0), "ledgers, connections that wait for another to yield");
            assert_eq!(directory.len(), 0, "grants");
            assert_eq!(directory.remembered(), (0, 0, 0), "grant numbers, dials, targets");
            assert_eq!(directory.targets(), (0, 0), "targets of the pool, and of breakers");
            directory.assert_pool();
        }
    }
}
