//! Acknowledged messages, on the core where the peer lives: who still owes an acknowledgement for what, and what came.
//!
//! A message that went to many peers of this core stands here once. Each peer's own part is its [`Exchange`]; when its connection ends,
//! what is open goes to the directory as a [`Ledger`] (see `ledgers`), and from there to the next connection of the same node and channel.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;

use super::mail::{Control, Mail};
use super::slots::{Entry, Slots, State};
use super::supervised::{Call, Supervised};
use super::{Deadline, Shard};
use crate::error::{CloseReason, SendError, Slow, Violation};
use crate::handler::{Callback, Handler, Message, Sent};
use crate::id::{NodeId, PeerId};
use crate::metrics::Counter;
use crate::proto::{Arrival, Delivery, Exchange, Ledger, SPANS_CHARGE};
use crate::receipt::{AckFailure, AckId, ReceiptId};
use crate::wheel::TimerKey;
use crate::wire::{HEADER_LEN, Kind, Meta, control_frame};

/// Bytes of an acknowledgement on the wire.
pub(super) const ACK_LEN: usize = HEADER_LEN + 8;

/// Memory of a message that waits for the peers of one core, and of each of them.
pub(super) const OPEN: usize = 5 * size_of::<(u64, Open)>();
pub(super) const OPEN_SLOT: usize = 2 * size_of::<u32>();

/// One message that some peers of this core have not acknowledged.
#[derive(Debug)]
struct Open {
    delivery: Delivery,
    timer: TimerKey,
    /// Where it was sent, in no order; who has acknowledged is still among them.
    slots: Vec<u32>,
    /// Acknowledgements that are still awaited.
    awaited: usize,
}

/// The messages that some peer of this core has not acknowledged. Bounded by the receipts of all cores.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    open: HashMap<u64, Open>,
}

impl Unacked {
    #[cfg(test)]
    pub(super) fn awaited(&self) -> usize {
        self.open.values().map(|open| open.awaited).sum()
    }
}

impl Shard {
    /// Sends a message to a peer of this core, to be acknowledged, for the first time.
    pub(super) fn deliver_to(&mut self, peer: PeerId, delivery: &Delivery) -> Result<Sent, SendError> {
        let claimed = self.room_to_deliver(peer, delivery)?;
        if self.rates.is_some() {
            self.charge_one(peer, super::Payload::Frame(&delivery.frame))?;
        }
        Ok(self.put_delivery(peer, delivery, claimed))
    }

    /// The same, again: it was taken once, so the limit on what a peer is sent does not refuse it now.
    fn deliver_again(&mut self, peer: PeerId, delivery: &Delivery) -> Result<Sent, SendError> {
        let claimed = self.room_to_deliver(peer, delivery)?;
        Ok(self.put_delivery(peer, delivery, claimed))
    }

    fn room_to_deliver(&mut self, peer: PeerId, delivery: &Delivery) -> Result<usize, SendError> {
        let (body, bytes) = (delivery.frame.body_len(), delivery.frame.as_bytes().len());
        self.check_room(peer, body, SPANS_CHARGE + bytes).inspect_err(|_| self.stats.count(Counter::SendsRefused))
    }

    fn put_delivery(&mut self, peer: PeerId, delivery: &Delivery, claimed: usize) -> Sent {
        self.push(peer.slot(), super::Payload::Frame(&delivery.frame));
        self.await_ack(delivery, vec![peer.slot()]);
        self.after_push(peer.slot(), claimed)
    }

    /// Sends a message to all peers of this core, each of which is to acknowledge it. Returns how many that are.
    pub(super) fn append_acked(&mut self, delivery: &Delivery) -> usize {
        if delivery.is_over(self.now) {
            return 0;
        }
        let (id, lane) = (delivery.id, delivery.frame.lane());
        let has_it = |slots: &Slots, slot: u32| slots.cold(slot).exchange().is_some_and(|exchange| exchange.awaits(id));
        // Who came here from another core may have been sent it again, as what its last connection left open.
        let again: Vec<u32> = match self.unacked.open.contains_key(&id) {
            true => self.slots.iter().map(|(slot, _)| slot).filter(|&slot| has_it(&self.slots, slot)).collect(),
            false => Vec::new(),
        };
        for &slot in &again {
            self.with_outbox(slot, |outbox, logs, pool| outbox.settle_lane(logs, pool, lane));
        }
        self.append(&delivery.frame, None);
        if self.shutting_down {
            return 0;
        }
        for &slot in &again {
            self.slots.at_mut(slot).peer.outbox.skip_to_end(&self.logs, lane);
        }
        let body = delivery.frame.body_len();
        // Those that take only shorter messages were passed by, and those that were sent enough.
        let wanted = |entry: &Entry| entry.is_established() && entry.max_message as usize >= body;
        let took =
            |&(slot, entry): &(u32, &Entry)| wanted(entry) && !has_it(&self.slots, slot) && self.passed_by().binary_search(&slot).is_err();
        let slots: Vec<u32> = self.slots.iter().filter(took).map(|(slot, _)| slot).collect();
        let count = slots.len();
        if count > 0 {
            self.await_ack(delivery, slots);
        }
        self.stats.add(Counter::AckedSent, count as u64);
        count
    }

    /// From another core.
    pub(super) fn deliver_mail(&mut self, peer: PeerId, delivery: &Delivery) {
        if delivery.is_over(self.now) {
            return; // so is its receipt
        }
        match self.deliver_to(peer, delivery) {
            Ok(_) => self.stats.count(Counter::AckedSent),
            Err(error) => self.report_answer(delivery.id, None, Err(AckFailure::Refused(error))),
        }
    }

    /// From another core, which waits to be told how many it reached.
    pub(super) fn append_mail(&mut self, delivery: &Delivery) {
        let peers = self.append_acked(delivery);
        self.out.control(ReceiptId(delivery.id).core(), Control::Reached { id: delivery.id, peers });
    }

    /// The message was queued for the peers in these slots.
    fn await_ack(&mut self, delivery: &Delivery, slots: Vec<u32>) {
        for &slot in &slots {
            self.exchange(slot).expect(delivery.id);
            #[cfg(test)]
            self.queued_acked.push((self.slots.id(slot), delivery.frame.clone()));
        }
        match self.unacked.open.entry(delivery.id) {
            Place::Vacant(place) => {
                let timer = self.wheel.insert(delivery.deadline, Deadline::Acked(delivery.id));
                place.insert(Open { delivery: delivery.clone(), timer, awaited: slots.len(), slots });
            }
            Place::Occupied(mut place) => {
                // A broadcast to others of this core, of which a peer has come here from its last connection.
                let open = place.get_mut();
                open.awaited += slots.len();
                slots.into_iter().for_each(|slot| {
                    if !open.slots.contains(&slot) {
                        open.slots.push(slot);
                    }
                });
            }
        }
    }

    /// One acknowledgement less is awaited.
    fn settle_ack(&mut self, id: u64) -> Option<Delivery> {
        let Place::Occupied(mut place) = self.unacked.open.entry(id) else { return None };
        place.get_mut().awaited -= 1;
        if place.get().awaited > 0 {
            return Some(place.get().delivery.clone());
        }
        let Open { delivery, timer, .. } = place.remove();
        self.wheel.cancel(timer);
        Some(delivery)
    }

    /// The deadline of a message has come: whoever acknowledges it now is late.
    pub(super) fn expire_acked(&mut self, id: u64) {
        let Some(open) = self.unacked.open.remove(&id) else { return };
        for slot in open.slots {
            if self.slots.get(slot).is_some()
                && let Some(exchange) = self.slots.cold_mut(slot).exchange_mut()
            {
                exchange.forget(id);
            }
        }
    }

    /// A peer has acknowledged a message.
    pub(super) fn handle_ack(&mut self, slot: u32, id: u64) -> Result<(), Violation> {
        let cold = self.slots.cold_mut(slot);
        let node = cold.node;
        let awaited = cold.exchange_mut().map_or(Err(Violation::UnsolicitedAck), |exchange| exchange.handle_ack(id))?;
        self.stats.count(Counter::AcksReceived);
        if awaited {
            self.settle_ack(id);
            self.report_answer(id, Some(node), Ok(()));
        } else {
            self.stats.count(Counter::LateAcks);
        }
        Ok(())
    }

    /// A message came that asks for an acknowledgement.
    #[inline(never)]
    pub(super) fn deliver_acked<H: Handler>(&mut self, handler: &mut Supervised<H>, peer: PeerId, meta: Meta, id: u64, body: &[u8]) {
        let by_handler = self.by_handler.binary_search(&meta.message_type).is_ok();
        let most = self.shared.config.acks.pending;
        match self.exchange(peer.slot()).handle_message(id, by_handler, most) {
            Arrival::New => {
                self.stats.count(Counter::MessagesReceived);
                let ack = by_handler.then_some(id);
                let message = Message::new(Kind::Acked, meta, body).with_ack(peer, ack);
                let about = || Call::of_message(Callback::Message, peer, meta.message_type).acked(id);
                let handled = handler.call(self, about, |handler, cx| handler.on_message(cx, peer, message));
                // What its handler panicked over was not taken.
                if !by_handler && handled.is_some() {
                    self.queue_ack(peer, id);
                }
            }
            Arrival::Taken => {
                self.stats.count(Counter::DuplicatesSuppressed);
                self.queue_ack(peer, id);
            }
            Arrival::Pending => self.stats.count(Counter::DuplicatesSuppressed),
            Arrival::Full => self.stats.count(Counter::AckedDropped),
        }
    }

    /// The application acknowledges a message.
    pub(crate) fn ack(&mut self, ack: AckId) -> Result<Sent, SendError> {
        let AckId { peer, id } = ack;
        if peer.core() != self.core {
            self.forward_mail(peer.core(), Mail::Ack(AckId { peer, id }))?;
            return Ok(Sent::Forwarded);
        }
        let entry = self.slots.find(peer).ok_or(SendError::NotConnected)?;
        if !entry.is_established() {
            return Err(SendError::Closing);
        }
        if self.slots.cold_mut(peer.slot()).exchange_mut().is_some_and(|exchange| exchange.take(id)) {
            self.queue_ack(peer, id);
        }
        Ok(Sent::Queued)
    }

    /// Says that a message was taken, if the connection still can. A peer that sends and does not read what it asked for is cut off: it
    /// may leave as many acknowledgements unread as this side remembers ids, for more than that no sender waits; and while there is no
    /// memory for all, as many as this side would leave one of its own cores.
    fn queue_ack(&mut self, peer: PeerId, id: u64) {
        let config = &self.shared.config;
        let Some(entry) = self.slots.find_mut(peer) else { return };
        if !matches!(entry.state, State::Established | State::Draining { .. }) {
            return;
        }
        let outbox = &entry.peer.outbox;
        let (unread, used) = (outbox.control_bytes(), outbox.used());
        let full = unread >= config.acks.window * ACK_LEN || outbox.claimed(&self.logs) + ACK_LEN > config.limits.outbox_hard;
        let no_room = unread >= config.acks.pending * ACK_LEN && !self.sends.fits(used, used + ACK_LEN);
        if full || no_room {
            return self.close(peer.slot(), CloseReason::SlowPeer(Slow::HardBound));
        }
        self.with_outbox(peer.slot(), |outbox, _, pool| outbox.push_control(pool, &control_frame(Kind::Ack, id.to_le_bytes())));
        self.record_control(peer.slot(), Kind::Ack, ACK_LEN);
        self.stats.count(Counter::AcksSent);
        self.mark_dirty(peer.slot());
    }

    fn exchange(&mut self, slot: u32) -> &mut Exchange {
        let window = self.shared.config.acks.window;
        let exchange = &mut self.slots.cold_mut(slot).few.get_or_insert_default().exchange;
        exchange.get_or_insert_with(|| Box::new(Exchange::new(window, Vec::new(), Vec::new())))
    }

    /// A connection is over: what is open is the directory's until there is another.
    pub(super) fn give_ledger(&mut self, slot: u32) {
        let cold = self.slots.cold_mut(slot);
        let (grant, instance) = (cold.grant, cold.instance);
        let Some(exchange) = cold.take_exchange() else { return };
        let (awaited, window, lost) = exchange.dissolve();
        let deliveries = awaited.into_iter().filter_map(|id| self.settle_ack(id)).collect();
        self.return_ledger(grant, Box::new(Ledger { instance, window, lost, deliveries }));
    }

    /// The same, for a connection that did not get to use it.
    pub(super) fn return_ledger(&mut self, grant: u64, ledger: Box<Ledger>) {
        // When the engine stops there is no next connection, and the receipts end by themselves.
        if !ledger.is_empty() && !self.shutting_down {
            self.out.control(0, Control::Ledger { grant, ledger });
        }
    }

    /// A new connection begins with what its predecessor left: what is not acknowledged is sent again.
    pub(super) fn take_ledger(&mut self, peer: PeerId, ledger: Ledger) {
        let Ledger { instance, window, lost, deliveries } = ledger;
        let cold = self.slots.cold_mut(peer.slot());
        let node = cold.node;
        if instance == cold.instance && !(window.is_empty() && lost.is_empty()) {
            let limit = self.shared.config.acks.window;
            cold.few.get_or_insert_default().exchange = Some(Box::new(Exchange::new(limit, window, lost)));
        }
        let now = self.now;
        for delivery in deliveries.iter().filter(|delivery| !delivery.is_over(now)) {
            match self.deliver_again(peer, delivery) {
                Ok(_) => self.stats.count(Counter::AckedResent),
                Err(error) => self.report_answer(delivery.id, Some(node), Err(AckFailure::Refused(error))),
            }
        }
    }

    /// The directory has a message for a connection of this core.
    pub(super) fn deliver_by_grant(&mut self, grant: u64, node: NodeId, channel: u16, delivery: Delivery) {
        if delivery.is_over(self.now) {
            return; // so is its receipt
        }
        let connection = self.slots.granted(grant).filter(|&slot| self.slots.at(slot).is_established());
        if let Some(peer) = connection.map(|slot| self.slots.id(slot)) {
            match self.deliver_to(peer, &delivery) {
                Ok(_) => self.stats.count(Counter::AckedSent),
                Err(error) => self.report_answer(delivery.id, Some(node), Err(AckFailure::Refused(error))),
            }
        } else if let Some(delivery) = self.keep_for_half(grant, delivery) {
            self.out.control(0, Control::Undelivered { grant, node, channel, delivery });
        }
    }
}
