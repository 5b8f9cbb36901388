//! Acknowledged sends, on the core that asked: their receipts, their deadlines, their end.
//!
//! The receipt is the one place that ends a send: when everybody has answered, when the deadline comes, or when the engine stops. Those
//! who keep the message meanwhile (see `acks` and `ledgers`) only report answers, and drop it when its deadline comes. So an outcome comes
//! exactly once, although a core that had the message is lost. It is also the one place where the memory for them is bounded: a frame
//! is kept somewhere only while its receipt runs, so that what all cores and the directory keep is what all receipts allow.

use std::collections::HashMap;
use std::time::Duration;

use super::mail::{Control, Mail};
use super::supervised::{Call, Supervised};
use super::{Action, Deadline, Event, Shard};
use crate::error::SendError;
use crate::handler::{Callback, Handler};
use crate::id::NodeId;
use crate::metrics::Counter;
use crate::proto::{Delivery, SPANS_CHARGE};
use crate::receipt::{AckFailure, Receipt, ReceiptId, Target};
use crate::time::Timestamp;
use crate::wheel::TimerKey;
use crate::wire::{Draft, Frame, Meta, message_wire_len};

/// Memory of a send, and of each acknowledgement that it awaits or has: vectors that grow by doubling.
pub(super) const RUNNING: usize = 5 * size_of::<(u64, Running)>();
pub(super) const ANSWER: usize = 2 * (size_of::<(NodeId, Duration)>() + size_of::<(Option<NodeId>, AckFailure)>());

/// Who asked, and is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// This core's handler, which gave this tag.
    Handler { tag: u64 },
    /// A thread; the shell knows it by this number.
    Waiter(u64),
}

#[derive(Debug)]
struct Running {
    receipt: Receipt,
    asker: Asker,
    timer: TimerKey,
    /// Bytes of the frame.
    bytes: usize,
    /// Peers that it may have gone to.
    answers: usize,
    /// Where it is one node, and known.
    node: Option<NodeId>,
    /// `on_acked` is due.
    announced: bool,
}

/// The sends of this core that have no outcome yet.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    running: HashMap<u64, Running>,
    /// How many there are: one may be on loan to the handler.
    count: usize,
    bytes: usize,
    answers: usize,
    /// The last id that was given out, without the core.
    last: u64,
}

impl Receipts {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many acknowledgements they await or have.
    #[cfg(test)]
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    fn remove(&mut self, id: u64) -> Option<Running> {
        let running = self.running.remove(&id)?;
        self.count -= 1;
        self.bytes -= running.bytes;
        self.answers -= running.answers;
        Some(running)
    }
}

impl Shard {
    pub(crate) fn send_acked(
        &mut self,
        target: Target,
        meta: Meta,
        body: &[u8],
        deadline: Duration,
        asker: Asker,
    ) -> Result<ReceiptId, SendError> {
        self.try_send_acked(target, meta, body, deadline, asker).inspect_err(|_| self.stats.count(Counter::AckedRefused))
    }

    fn try_send_acked(
        &mut self,
        target: Target,
        meta: Meta,
        body: &[u8],
        deadline: Duration,
        asker: Asker,
    ) -> Result<ReceiptId, SendError> {
        let len = self.check_acked(body, 1)?;
        let mut node = None;
        if let Target::Peer(peer) = target
            && peer.core() == self.core
        {
            // Before the frame is made.
            self.check_room(peer, body.len(), SPANS_CHARGE + len)?;
            node = self.node_of(peer);
        }
        let delivery = self.make_delivery(meta, body, deadline)?;
        match target {
            Target::Peer(peer) if peer.core() == self.core => {
                self.deliver_to(peer, &delivery)?;
                self.stats.count(Counter::AckedSent);
            }
            Target::Peer(peer) => self.forward_mail(peer.core(), Mail::SendAcked { peer, delivery: delivery.clone() })?,
            Target::Node { node: named, channel } => {
                node = Some(named);
                let delivery = delivery.clone();
                if self.directory.is_some() {
                    self.out.control(self.core, Control::Route { node: named, channel, delivery });
                } else {
                    self.forward_mail(0, Mail::Route { node: named, channel, delivery })?;
                }
            }
        }
        Ok(self.open_receipt(&delivery, asker, node, (1, 1), 0))
    }

    pub(crate) fn broadcast_acked(&mut self, meta: Meta, body: &[u8], deadline: Duration, asker: Asker) -> Result<ReceiptId, SendError> {
        self.try_broadcast_acked(meta, body, deadline, asker).inspect_err(|_| self.stats.count(Counter::AckedRefused))
    }

    fn try_broadcast_acked(&mut self, meta: Meta, body: &[u8], deadline: Duration, asker: Asker) -> Result<ReceiptId, SendError> {
        // To how many the other cores send it, they say later; to no more than there may be.
        let limits = &self.shared.config.limits;
        let others = self.other_cores().next().is_some();
        let answers = if others { limits.max_peers + limits.max_half_open } else { self.slots.established() };
        self.check_acked(body, answers)?;
        let delivery = self.make_delivery(meta, body, deadline)?;
        self.reserve_broadcast(std::slice::from_ref(&delivery.frame))?;
        let mut silent = 0;
        for core in self.other_cores() {
            self.out.mail.push_back((core, Mail::BroadcastAcked { delivery: delivery.clone() }));
            silent += 1;
        }
        let reached = self.append_acked(&delivery);
        Ok(self.open_receipt(&delivery, asker, None, (reached, answers), silent))
    }

    /// Whether one more may run, to so many peers. Returns the length of its frame.
    fn check_acked(&self, body: &[u8], answers: usize) -> Result<usize, SendError> {
        let (limits, acks) = (&self.shared.config.limits, &self.shared.config.acks);
        if self.shutting_down {
            return Err(SendError::Stopped);
        }
        if body.len() > limits.max_message {
            return Err(SendError::TooLong { len: body.len(), max: limits.max_message });
        }
        let len = message_wire_len(true, body.len(), limits.fragment);
        // One alone always may, however many peers there are.
        let crowded = self.receipts.answers > 0 && self.receipts.answers + answers > acks.answers;
        if crowded || self.receipts.count >= acks.pending || self.receipts.bytes + len > acks.bytes {
            return Err(SendError::TooManyUnacked);
        }
        Ok(len)
    }

    fn make_delivery(&mut self, meta: Meta, body: &[u8], deadline: Duration) -> Result<Delivery, SendError> {
        let meta = self.resolve(meta);
        let limits = &self.shared.config.limits;
        let id = (self.core as u64) << ReceiptId::CORE_SHIFT | (self.receipts.last + 1);
        let too_long = SendError::TooLong { len: body.len(), max: limits.max_message };
        let frame = Frame::encode(Draft::acked(meta, id, body), limits.fragment).map_err(|_| too_long)?;
        self.receipts.last += 1;
        Ok(Delivery { id, frame, deadline: self.now + deadline })
    }

    /// The message is on its way: from here on it has an outcome.
    fn open_receipt(
        &mut self,
        delivery: &Delivery,
        asker: Asker,
        node: Option<NodeId>,
        (reached, answers): (usize, usize),
        silent: usize,
    ) -> ReceiptId {
        let id = ReceiptId(delivery.id);
        let tag = if let Asker::Handler { tag } = asker { tag } else { 0 };
        let receipt = Receipt::new(id, tag, self.now, reached, silent);
        let timer = self.wheel.insert(delivery.deadline, Deadline::Receipt(delivery.id));
        let bytes = delivery.frame.as_bytes().len();
        self.receipts.running.insert(delivery.id, Running { receipt, asker, timer, bytes, answers, node, announced: false });
        self.receipts.count += 1;
        self.receipts.bytes += bytes;
        self.receipts.answers += answers;
        self.review(delivery.id);
        id
    }

    /// A core says to how many of its peers it has sent a broadcast.
    pub(super) fn reached(&mut self, id: u64, peers: usize) {
        if let Some(running) = self.receipts.running.get_mut(&id) {
            running.receipt.reach(peers);
            if let Some(reached) = running.receipt.expected() {
                self.receipts.answers = self.receipts.answers + reached - std::mem::replace(&mut running.answers, reached);
            }
            self.review(id);
        }
    }

    /// An answer for some core's send: that core's receipt notes it.
    pub(super) fn report_answer(&mut self, id: u64, node: Option<NodeId>, result: Result<(), AckFailure>) {
        let core = ReceiptId(id).core();
        if core == self.core {
            self.answered(id, node, self.now, result);
        } else {
            self.out.control(core, Control::Answered { id, node, at: self.now, result });
        }
    }

    /// An answer to a send of this core.
    pub(super) fn answered(&mut self, id: u64, node: Option<NodeId>, at: Timestamp, result: Result<(), AckFailure>) {
        let Some(running) = self.receipts.running.get_mut(&id).filter(|running| !running.receipt.is_complete()) else { return };
        match (result, node) {
            (Ok(()), Some(node)) => {
                let after = running.receipt.ack(node, at);
                match running.asker {
                    Asker::Waiter(waiter) => self.actions.push_back(Action::Acked { waiter, node, after }),
                    Asker::Handler { .. } if !running.announced => {
                        running.announced = true;
                        self.events.push_back(Event::Acked(id));
                    }
                    Asker::Handler { .. } => {}
                }
            }
            (Ok(()), None) => debug_assert!(false, "a peer has a name"),
            (Err(failure), node) => running.receipt.fail(node.or(running.node), failure),
        }
        self.review(id);
    }

    /// Ends the receipt if everybody has answered.
    fn review(&mut self, id: u64) {
        if self.receipts.running.get(&id).is_some_and(|running| running.receipt.is_answered()) {
            self.end_receipt(id, AckFailure::Expired);
        }
    }

    /// The deadline has come.
    pub(super) fn expire_receipt(&mut self, id: u64) {
        self.stats.count(Counter::ReceiptsExpired);
        self.end_receipt(id, AckFailure::Expired);
    }

    /// The engine stops.
    pub(super) fn stop_receipts(&mut self) {
        let mut ids: Vec<u64> = self.receipts.running.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().for_each(|id| self.end_receipt(id, AckFailure::Stopped));
    }

    /// The one end of a receipt. Who has not answered has failed with `rest`.
    fn end_receipt(&mut self, id: u64, rest: AckFailure) {
        let Some(running) = self.receipts.running.get_mut(&id).filter(|running| !running.receipt.is_complete()) else { return };
        running.receipt.end(running.node, rest);
        self.wheel.cancel(running.timer);
        match running.asker {
            Asker::Handler { .. } => self.events.push_back(Event::Receipt(id)),
            Asker::Waiter(waiter) => {
                if let Some(Running { receipt, .. }) = self.receipts.remove(id) {
                    self.actions.push_back(Action::Receipt { waiter, receipt });
                }
            }
        }
    }

    pub(super) fn tell_acked<H: Handler>(&mut self, handler: &mut Supervised<H>, id: u64) {
        // Out of the table while the handler has both it and the shard. Nothing that a handler can call answers a receipt at once.
        if let Some(mut running) = self.receipts.running.remove(&id) {
            running.announced = false;
            handler.call(self, || Call::new(Callback::Acked), |handler, cx| handler.on_acked(cx, &running.receipt));
            self.receipts.running.insert(id, running);
        }
    }

    pub(super) fn tell_receipt<H: Handler>(&mut self, handler: &mut Supervised<H>, id: u64) {
        if let Some(running) = self.receipts.remove(id) {
            handler.call(self, || Call::new(Callback::Receipt), |handler, cx| handler.on_receipt(cx, running.receipt));
        }
    }

    pub(crate) fn receipt(&self, id: ReceiptId) -> Option<&Receipt> {
        let is_handlers = |running: &&Running| matches!(running.asker, Asker::Handler { .. });
        self.receipts.running.get(&id.0).filter(is_handlers).map(|running| &running.receipt)
    }
}
