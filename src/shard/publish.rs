//! One message for the subscribers of a topic.
//!
//! A publish goes to every core, all or nothing over the inboxes, like a broadcast; on each core every subscriber gets the frame into its
//! own outbox, like a direct send: small frames are copied next to each other, large ones stay one by reference. So topics never
//! enter the broadcast log. A log that holds a thousand topics would be kept alive by the slowest subscriber of the quietest one, and what
//! each peer has to receive of it would be in pieces.
//!
//! **Bounds.** What one turn publishes and broadcasts is at most half of `Limits::outbox_hard` for a single subscriber, and what it
//! queues for all of them at most a quarter of the core's part of `Limits::send_bytes`, past which one publish goes (so it always goes
//! on). At either, publishes from handlers are refused (`LogFull`) and mail waits for the next turn. Both are also refused and wait while
//! the core is behind: see `look_behind`. So what the core merely has not written yet is not held against a subscriber.
//!
//! **A subscriber for whom there is no room** is dealt with in [`Shard::no_room`], and nowhere else.

use super::mail::Mail;
use super::rates::Cost;
use super::slow::Wanted;
use super::{Payload, Shard};
use crate::error::{CloseReason, SendError, Slow};
use crate::id::{PeerId, Topic};
use crate::metrics::Counter;
use crate::wire::{Frame, Lane};

/// What the publishes of a core have come to.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Bytes that this turn had for subscribers, all of them together.
    met: usize,
    /// Bytes of the frames since everything was written: no peer has more of them to receive.
    pub(super) unwritten: usize,
    /// Subscribers for whom there was no room, while one frame is published.
    without_room: Vec<PeerId>,
    /// Who was passed by, for the oracle.
    #[cfg(test)]
    pub(super) passed_by: Vec<PeerId>,
}

impl Published {
    pub(super) fn begin_turn(&mut self) {
        self.met = 0;
    }

    #[cfg(test)]
    pub(super) fn is_between(&self) -> bool {
        self.without_room.is_empty()
    }
}

impl Shard {
    /// To every subscriber of every core, or, on error, to none.
    pub(crate) fn publish(&mut self, topic: Topic, frame: &Frame) -> Result<(), SendError> {
        if let Err(error) = self.try_reserve_publish(frame) {
            self.stats.count(Counter::PublishesRefused);
            return Err(error);
        }
        for core in self.other_cores() {
            self.out.mail.push_back((core, Mail::Publish { topic, frame: frame.clone() }));
        }
        self.fan_out(topic, frame);
        Ok(())
    }

    fn try_reserve_publish(&mut self, frame: &Frame) -> Result<(), SendError> {
        if !self.wants_publishes() {
            return Err(SendError::LogFull);
        }
        self.try_reserve_broadcast(std::slice::from_ref(frame))
    }

    /// Whether this turn has room for more copies of published frames.
    pub(super) fn wants_publishes(&self) -> bool {
        self.published.met < self.sends.shared() / 4
    }

    /// To every subscriber of this core.
    pub(super) fn fan_out(&mut self, topic: Topic, frame: &Frame) {
        if self.shutting_down {
            // There is nobody left for it.
            self.stats.count(Counter::PublishesRefused);
            return;
        }
        self.stats.count(Counter::Publishes);
        // Taken out while their peers are written to.
        let topics = std::mem::take(&mut self.topics);
        let queued = self.fan_out_to(topics.subscribers(topic), frame, None);
        self.topics = topics;
        self.end_fan_out(frame, queued);
    }

    /// A broadcast of a frame with terms. Each peer may let go of it at another time, so it has no place in the log: it goes to every peer
    /// as a publish goes to subscribers.
    pub(super) fn append_apart(&mut self, frame: &Frame, except: Option<PeerId>) {
        let queued = self.fan_out_to(0..self.slots.high_water(), frame, except);
        self.end_fan_out(frame, queued);
    }

    /// To the established peers among these. Returns for how many there was room; the others are noted, for [`Shard::no_room`].
    fn fan_out_to(&mut self, slots: impl Iterator<Item = u32>, frame: &Frame, except: Option<PeerId>) -> usize {
        let payload = Payload::Frame(frame);
        let (body, charge) = (payload.body_len(), payload.charge(0));
        let wanted = Wanted { lane: payload.lane(), messages: 1, longest: body, charge };
        let bytes = frame.as_bytes().len();
        let is_rated = self.rates.is_some();
        let cost = if is_rated { self.cost_of(std::iter::once(payload)) } else { Cost::default() };
        let mut queued = 0;
        for slot in slots {
            if !self.slots.get(slot).is_some_and(|entry| entry.is_established()) {
                continue;
            }
            self.published.met += bytes;
            let peer = self.slots.id(slot);
            if Some(peer) == except {
                continue;
            }
            if is_rated && self.charge(peer, cost, false).is_err() {
                self.stats.count(Counter::SendsRateLimited);
                self.pass_by(peer);
                continue;
            }
            let result = match self.check_room(peer, body, charge) {
                Ok(_) if self.drops => self.make_room(peer, wanted),
                Err(SendError::OutboxFull) => self.make_room(peer, wanted),
                result => result.map(Some),
            };
            match result {
                Ok(None) => self.refund(peer, cost),
                Ok(Some(claimed)) => {
                    self.push(slot, payload);
                    self.after_push(slot, claimed);
                    queued += 1;
                }
                Err(SendError::OutboxFull) => self.published.without_room.push(peer),
                // It takes only shorter messages: to it this one would be a violation.
                Err(_) => {
                    self.refund(peer, cost);
                    self.pass_by(peer);
                }
            }
        }
        queued
    }

    fn end_fan_out(&mut self, frame: &Frame, mut queued: usize) {
        queued += self.no_room(frame);
        self.stats.add(Counter::Deliveries, queued as u64);
        // Whoever is passed by, and a publish for nobody, count too: who publishes until it is refused comes to an end in any case.
        let bytes = frame.as_bytes().len();
        self.appended += bytes;
        self.published.unwritten += bytes;
    }

    /// What becomes of the subscribers for whom there was no room, in their outbox or in the core's memory. Returns for how many there was
    /// in the end.
    ///
    /// One whose socket takes nothing is cut off, as a broadcast would do: a gap would leave it with a state that it believes to be
    /// whole, and what it holds is what the others lack. One whose socket takes what it is given is not to blame for what this core has
    /// not written yet: as with a broadcast it goes over its bound, to no more than twice of it (see the module). Only where the core has
    /// no memory at all, even after those were cut off, it is passed by, which is counted.
    fn no_room(&mut self, frame: &Frame) -> usize {
        if self.published.without_room.is_empty() {
            return 0;
        }
        self.settle_without_room(frame)
    }

    #[cold]
    fn settle_without_room(&mut self, frame: &Frame) -> usize {
        let payload = Payload::Frame(frame);
        let charge = payload.charge(0);
        let wanted = Wanted { lane: payload.lane(), messages: 1, longest: 0, charge };
        let mut peers = std::mem::take(&mut self.published.without_room);
        let mut queued = 0;
        peers.retain(|&peer| {
            // Lanes that are more urgent may be in the way: before it is cut off, they drop what they are to.
            self.shed(peer.slot(), Lane::High, Some(wanted));
            if let Ok(claimed) = self.check_room(peer, 0, charge) {
                self.push(peer.slot(), Payload::Frame(frame));
                self.after_push(peer.slot(), claimed);
                queued += 1;
                return false;
            }
            let blocked = self.slots.at(peer.slot()).blocked;
            if blocked {
                self.close(peer.slot(), CloseReason::SlowPeer(Slow::HardBound));
            }
            !blocked
        });
        for peer in peers.drain(..) {
            let used = self.slots.at(peer.slot()).peer.outbox.used();
            if self.sends.fits(used, used + charge) {
                self.push(peer.slot(), Payload::Frame(frame));
                self.after_push(peer.slot(), usize::MAX);
                queued += 1;
            } else {
                // What was charged was not sent.
                self.refund(peer, self.cost_of(std::iter::once(payload)));
                self.pass_by(peer);
            }
        }
        self.published.without_room = peers;
        queued
    }

    #[cold]
    pub(super) fn pass_by(&mut self, peer: PeerId) {
        let _ = peer;
        self.stats.count(Counter::DeliveriesRefused);
        #[cfg(test)]
        self.published.passed_by.push(peer);
    }

    /// Who was passed by since this was asked last.
    #[cfg(test)]
    pub(crate) fn take_passed_by(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.published.passed_by)
    }
}
