//! Acknowledged sends of the simulated nodes, and what must be true of them.
//!
//! Each has an outcome, once. Who is said to have acknowledged has had the message handed over. No start of a node is handed the same
//! message twice, unless the application acknowledges messages of that type itself, or the run is one in which ledgers are put out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::actor::Actor;
use super::oracle::{Item, Oracle, STAMP, Told, word};
use crate::error::SendError;
use crate::handler::Context;
use crate::id::{NodeId, PeerId};
use crate::receipt::{AckId, Receipt, ReceiptId, Target};
use crate::wire::{Frame, Kind, Lane, Meta};

/// Messages of this type are acknowledged by the actors.
pub(super) const BY_HANDLER: u16 = 3;
/// The longest deadline that an actor draws.
pub(super) const LONGEST_DEADLINE: Duration = Duration::from_secs(10);

/// What the oracle knows of acknowledged sends. Messages go by the number in their body.
#[derive(Debug, Default)]
pub(super) struct Sends {
    /// By engine and receipt: the message, and how many acknowledgements were told.
    open: BTreeMap<(usize, ReceiptId), (u64, usize)>,
    /// Which engine was handed which message, on which channel: on two, they are two connections.
    delivered: BTreeSet<(u64, usize, u16)>,
    delivered_to: BTreeSet<(u64, NodeId)>,
    /// The name of each engine, by the number of its start.
    nodes: BTreeMap<usize, NodeId>,
    /// Ledgers may be put out, so that a message can come twice.
    pub(super) may_repeat: bool,
}

impl Sends {
    /// Whether the receiver may have suppressed this.
    pub(super) fn may_be_suppressed(&self, item: &Item, receiver: usize, channel: u16) -> bool {
        item.kind == Kind::Acked && (item.message_type == BY_HANDLER || self.delivered.contains(&(item.id, receiver, channel)))
    }

    pub(super) fn forget(&mut self, engine: usize) {
        self.open.retain(|(owner, _), _| *owner != engine);
    }

    pub(super) fn check_end(&self) {
        assert!(self.open.is_empty(), "acknowledged sends without on_receipt: {:?}", self.open);
    }
}

impl Oracle {
    pub(super) fn named(&mut self, engine: usize, node: NodeId) {
        self.sends.nodes.insert(engine, node);
    }

    /// A message that asks for an acknowledgement was handed over.
    pub(super) fn delivered(&mut self, engine: usize, channel: u16, meta: Meta, body: &[u8]) {
        let id = word(body, 0);
        let first = self.sends.delivered.insert((id, engine, channel));
        assert!(first || meta.message_type == BY_HANDLER || self.sends.may_repeat, "engine {engine} was handed message {id} twice");
        if let Some(node) = self.sends.nodes.get(&engine) {
            self.sends.delivered_to.insert((id, *node));
        }
    }

    fn asked(&mut self, engine: usize, id: ReceiptId, message: u64) {
        assert!(self.sends.open.insert((engine, id), (message, 0)).is_none(), "{id:?} was given out twice");
    }

    fn check_receipt(&self, message: u64, receipt: &Receipt) {
        // Behind other names there is no engine, but a test.
        let is_ours = |node: &NodeId| self.sends.nodes.values().any(|ours| ours == node);
        for (node, _) in receipt.acked().iter().filter(|(node, _)| is_ours(node)) {
            assert!(self.sends.delivered_to.contains(&(message, *node)), "{node} has acknowledged {message}, and nobody there has it");
        }
        assert!(receipt.acked().is_sorted_by_key(|(_, after)| *after));
        assert_eq!(receipt.tag(), message);
    }

    pub(super) fn on_acked(&mut self, engine: usize, receipt: &Receipt) {
        let name = (engine, receipt.id());
        let (message, told) = *self.sends.open.get(&name).unwrap_or_else(|| panic!("on_acked for {name:?}, which is not open"));
        assert!(receipt.acked().len() > told && !(receipt.is_complete() && receipt.acked().is_empty()));
        self.check_receipt(message, receipt);
        self.sends.open.insert(name, (message, receipt.acked().len()));
        self.tell(engine, None, Told::Acked(receipt.acked().len()));
    }

    pub(super) fn on_receipt(&mut self, engine: usize, receipt: Receipt) {
        let name = (engine, receipt.id());
        let (message, told) = self.sends.open.remove(&name).unwrap_or_else(|| panic!("on_receipt for {name:?}, which is not open"));
        assert!(receipt.is_complete() && receipt.acked().len() == told, "{receipt:?}");
        if let Some(expected) = receipt.expected() {
            assert_eq!(receipt.acked().len() + receipt.failed().len(), expected, "{receipt:?}");
        }
        self.check_receipt(message, &receipt);
        self.tell(engine, None, Told::Receipt(receipt));
    }

    /// A shard has taken messages to be acknowledged.
    pub(super) fn taken_acked(&mut self, engine: usize, queued: Vec<(PeerId, Frame)>) {
        for (peer, frame) in queued {
            self.taken(engine, peer, frame.lane(), Item::of_frame(frame.meta(), frame.as_bytes()));
        }
    }
}

impl Actor {
    /// Tells the oracle what the shard has queued by itself: repetitions, and what came from the directory.
    pub(super) fn sync(&mut self, cx: &mut Context<'_>) {
        self.oracle.borrow_mut().taken_acked(self.engine, cx.shard.take_queued_acked());
    }

    /// To one target, or to everybody.
    pub(super) fn send_acked(
        &mut self,
        cx: &mut Context<'_>,
        target: Option<Target>,
        meta: Meta,
        len: usize,
        deadline: Duration,
    ) -> Result<ReceiptId, SendError> {
        let body = self.body(len.max(STAMP));
        let message = word(&body, 0);
        let result = match target {
            Some(target) => cx.send_acked(target, meta, &body, deadline, message),
            None => cx.broadcast_acked(meta, &body, deadline, message),
        };
        // Those of whom no acknowledgement is awaited: the shard notes itself who is to have it.
        let _ = cx.take_passed_by();
        self.oracle.borrow_mut().note(&[5, message, result.map_or(0, ReceiptId::to_u64)]);
        if let Ok(id) = result {
            assert!(cx.receipt(id).is_some_and(|receipt| receipt.tag() == message));
            self.oracle.borrow_mut().asked(self.engine, id, message);
        }
        self.sync(cx);
        result
    }

    /// Sends something to be acknowledged, drawn, or acknowledges something.
    pub(super) fn act_acked(&mut self, cx: &mut Context<'_>, peer: Option<PeerId>) {
        let target = match (self.rng.below(10), peer) {
            (0..5, Some(peer)) => Some(Target::Peer(peer)),
            (5..8, _) => {
                let nodes: Vec<NodeId> = self.oracle.borrow().sends.nodes.values().copied().collect();
                let node = nodes[self.rng.below(nodes.len() as u64) as usize];
                Some(Target::Node { node, channel: self.rng.below(2) as u16 })
            }
            (8, _) => None,
            _ => {
                let owed = self.owed.borrow_mut().pop();
                return if let Some(ack) = owed {
                    self.ack(cx, ack)
                };
            }
        };
        let meta = Meta::new(self.rng.below(5) as u16).lane(Lane::ALL[self.rng.below(3) as usize]);
        let len = self.rng.below(self.mood.longest_body as u64 / 2) as usize;
        let deadline = self.rng.duration_below(LONGEST_DEADLINE);
        let _ = self.send_acked(cx, target, meta, len, deadline);
    }

    pub(super) fn ack(&mut self, cx: &mut Context<'_>, ack: AckId) {
        let peer = ack.peer().to_u64();
        let result = cx.ack(ack);
        self.oracle.borrow_mut().note(&[6, peer, result.map_or(9, |sent| sent as u64)]);
    }
}
