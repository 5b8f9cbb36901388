//! The core's side of the connection pool: which of its peers are the pool's, whether they are in use, and what its handler has asked for.
//!
//! When a message came or went is not written down with each message: the peers that the pool has dialled are looked at four times in
//! `pool.max_idle`, and a flag says whether there was one since the last time. So other peers cost nothing, and these a list of their own.

use std::time::Duration;

use super::blame::Fault;
use super::mail::{Control, Mail};
use super::slots::{Entry, Mark, Slots};
use super::{Action, Deadline, Event, Shard};
use crate::endpoint::Endpoint;
use crate::error::{CloseReason, DialError, SendError};
use crate::id::{DialId, PeerId};
use crate::metrics::Counter;
use crate::proto::{Logs, Origin};
use crate::time::Timestamp;
use crate::wheel::TimerKey;

/// The pool's connections of a core, each with when it was seen to be in use last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    peers: Vec<(PeerId, Timestamp)>,
    timer: Option<TimerKey>,
}

/// Whether a peer is in use although no message comes or goes: one has begun to arrive, something waits to be sent, to be answered or to be
/// acknowledged, or one side has asked for what the other will publish.
fn is_in_use(slots: &Slots, peer: PeerId, logs: &Logs) -> bool {
    let (entry, cold) = (slots.at(peer.slot()), slots.cold(peer.slot()));
    let owes = cold.exchange().is_some_and(|exchange| exchange.is_awaiting());
    let comes = entry.marks.has(Mark::Delayed) || entry.peer.borrowed() > 0;
    comes || entry.peer.has_output(logs) || entry.peer.pending_requests() > 0 || owes || cold.subscriptions().is_some()
}

impl Watch {
    /// Memory of one of them.
    pub(super) const PEER: usize = 2 * size_of::<(PeerId, Timestamp)>();

    /// Entries that there is room for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.peers.capacity()
    }
}

impl Shard {
    /// A peer is established: if the pool has dialled it, it is looked at from now on.
    pub(super) fn watch_idle(&mut self, peer: PeerId) {
        if self.is_pooled(peer.slot()) {
            let (peers, slots) = (&mut self.idle.peers, &self.slots);
            if peers.len() == peers.capacity() {
                // A target that is dialled again and again may come many times between two looks.
                peers.retain(|&(peer, _)| slots.find(peer).is_some_and(Entry::is_established));
            }
            peers.push((peer, self.now));
            self.plan_idle();
        }
    }

    fn is_pooled(&self, slot: u32) -> bool {
        self.slots.cold(slot).dial.is_some_and(DialId::is_pooled)
    }

    fn plan_idle(&mut self) {
        if self.idle.timer.is_none() && !self.idle.peers.is_empty() && !self.shutting_down {
            let at = self.now + (self.shared.config.pool.max_idle / 4).max(Duration::from_millis(1));
            self.idle.timer = Some(self.wheel.insert(at, Deadline::Idle));
        }
    }

    /// Looks which of the pool's connections have not been in use for too long, and says so to the directory, which knows whether they are
    /// pinned or have just been handed out.
    pub(super) fn sweep_idle(&mut self) {
        self.idle.timer = None;
        let max_idle = self.shared.config.pool.max_idle;
        let (slots, logs, out, now) = (&mut self.slots, &self.logs, &mut self.out, self.now);
        self.idle.peers.retain_mut(|(peer, used_at)| {
            let Some(entry) = slots.find_mut(*peer).filter(|entry| entry.is_established()) else { return false };
            if std::mem::take(&mut entry.used) || is_in_use(slots, *peer, logs) {
                *used_at = now;
            } else if now - *used_at >= max_idle {
                out.control(0, Control::Idle { grant: slots.cold(peer.slot()).grant });
            }
            true
        });
        self.plan_idle();
    }

    /// The pool does not need this peer any more.
    pub(super) fn close_idle(&mut self, grant: u64, peer: PeerId, at_once: bool) {
        let Some(entry) = self.slots.find(peer).filter(|entry| entry.is_established()) else { return };
        if (entry.used || is_in_use(&self.slots, peer, &self.logs)) && !at_once {
            self.out.control(0, Control::Established { grant, peer });
        } else {
            self.close(peer.slot(), CloseReason::Idle);
        }
    }

    /// The engine is shutting down: nothing is idle any more.
    pub(super) fn stop_watching(&mut self) {
        self.idle.peers = Vec::new();
        if let Some(timer) = self.idle.timer.take() {
            self.wheel.cancel(timer);
        }
    }

    /// A message came from a peer that had not been in use since the pool looked last.
    #[cold]
    pub(super) fn note_use(&mut self, slot: u32) {
        self.slots.at_mut(slot).used = true;
        self.note_proof(slot);
    }

    /// A frame came that the peer has seen to by itself: a pong, or a piece of a message.
    pub(super) fn note_life(&mut self, slot: u32) {
        let entry = self.slots.at(slot);
        if !entry.marks.has(Mark::Proven) && entry.peer.keepalive.rtt().is_some() {
            self.note_proof(slot);
        }
    }

    /// The other side has sent something that only a live one can.
    pub(super) fn note_proof(&mut self, slot: u32) {
        let proven = self.slots.at_mut(slot).marks.set(Mark::Proven);
        let cold = self.slots.cold(slot);
        if !proven && cold.dial.is_some() {
            self.out.control(0, Control::Proven { grant: cold.grant });
        }
    }

    /// A peer is being closed: nobody is to be sent there any more.
    pub(super) fn tell_closed(&mut self, slot: u32, reason: CloseReason) {
        let (entry, cold) = (self.slots.at(slot), self.slots.cold(slot));
        let fruitless = !entry.marks.has(Mark::Proven) && cold.dial.is_some() && Fault::of_close(reason) == Fault::Target;
        self.out.control(0, Control::Closing { grant: cold.grant, fruitless });
    }

    /// A peer has come over its soft mark, or is below it again: the pool hands out others of its target.
    pub(super) fn tell_pressed(&mut self, slot: u32, pressed: bool) {
        if self.is_pooled(slot) {
            self.out.control(0, Control::Pressed { grant: self.slots.cold(slot).grant, pressed });
        }
    }

    /// The handler wants a connection of the pool.
    pub(crate) fn connect(&mut self, endpoint: Box<Endpoint>, tag: u64, pin: bool) -> Result<(), SendError> {
        if self.connects >= self.shared.config.pool.waiting {
            self.stats.count(Counter::PoolRefused);
            return Err(SendError::TooManyConnects);
        }
        let origin = Origin::Handler { core: self.core, tag };
        if self.core == 0 {
            self.connect_for(endpoint, origin, pin);
        } else {
            self.forward_mail(0, Mail::Connect { endpoint, origin, pin })?;
        }
        self.connects += 1;
        Ok(())
    }

    /// Somebody wants a connection of the pool. On core 0 only. After what this core has already told itself.
    pub(crate) fn connect_for(&mut self, endpoint: Box<Endpoint>, origin: Origin, pin: bool) {
        self.out.control(0, Control::Connect { endpoint, origin, pin });
    }

    pub(crate) fn unpin(&mut self, endpoint: Box<Endpoint>) -> Result<(), SendError> {
        if self.core != 0 {
            return self.forward_mail(0, Mail::Unpin { endpoint });
        }
        self.unpin_for(endpoint);
        Ok(())
    }

    /// The same, for whoever asks. On core 0 only.
    pub(crate) fn unpin_for(&mut self, endpoint: Box<Endpoint>) {
        self.out.control(0, Control::Unpin { endpoint });
    }

    /// What became of a connect.
    pub(super) fn pooled(&mut self, origin: Origin, result: Result<PeerId, DialError>) {
        match origin {
            Origin::Handler { tag, .. } => self.events.push_back(Event::Pooled { tag, result }),
            Origin::Waiter(waiter) => self.actions.push_back(Action::Pooled { waiter, result }),
        }
    }
}
