//! Topics in the simulator: what actors do about them, and what the oracle is told of it.
//!
//! The oracle keeps by itself who has subscribed to what, from what the applications were told, so it does not take the shard's word for
//! whom a publish reaches: those peers of the core that have subscribed when the shard takes it, but for those that it
//! passes by, and those that it cuts off with it.

use super::actor::Actor;
use super::oracle::Item;
use super::sim::World;
use crate::error::SendError;
use crate::handler::Context;
use crate::id::{PeerId, Topic};
use crate::metrics::Counter;
use crate::shard::Mail;
use crate::wire::Frame;

impl Actor {
    pub(super) fn publish(&mut self, cx: &mut Context<'_>, topic: Topic, frame: &Frame) -> Result<(), SendError> {
        self.sync(cx);
        let result = cx.publish(topic, frame);
        let passed_by = cx.take_passed_by();
        let mut oracle = self.oracle.borrow_mut();
        oracle.note(&[5, topic.0, u64::from(result.is_ok())]);
        if result.is_ok() {
            let item = Item::sent(frame);
            let there = cx.peers().filter(|peer| !passed_by.contains(peer));
            oracle.published(self.engine, there, topic, frame.lane(), item);
        }
        result
    }

    pub(super) fn subscribe(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic, wanted: bool) -> Result<(), SendError> {
        let result = if wanted { cx.subscribe(peer, topic) } else { cx.unsubscribe(peer, topic) };
        let mut oracle = self.oracle.borrow_mut();
        oracle.note(&[6, peer.to_u64(), topic.0, u64::from(wanted), u64::from(result.is_ok())]);
        if result.is_ok() && peer.core() == self.core {
            oracle.subscribes(self.engine, peer, topic, wanted);
        }
        result
    }

    /// One of the things that an application can do about topics, drawn.
    pub(super) fn act_on_topics(&mut self, cx: &mut Context<'_>, peer: Option<PeerId>) {
        let (draw, topic) = (self.rng.below(10), Topic(self.rng.below(3)));
        match (draw, peer) {
            (0..4, Some(peer)) => drop(self.subscribe(cx, peer, topic, true)),
            (4..6, Some(peer)) => drop(self.subscribe(cx, peer, topic, false)),
            _ => {
                let frame = self.frame(cx);
                let _ = self.publish(cx, topic, &frame);
            }
        }
    }
}

impl World {
    /// Gives mail about topics to a shard, and tells the oracle what the shard took.
    pub(super) fn handle_topic_mail(&mut self, node: usize, core: usize, mail: Mail) {
        let engine = self.nodes[node].engine;
        let shard = &mut self.nodes[node].cores[core].shard;
        match mail {
            Mail::Publish { topic, ref frame } => {
                let (lane, item) = (frame.lane(), Item::sent(frame));
                shard.handle_mail(mail);
                let passed_by = shard.take_passed_by();
                let there = shard.peers().filter(|peer| !passed_by.contains(peer));
                self.oracle.borrow_mut().published(engine, there, topic, lane, item);
            }
            Mail::Subscribe { peer, topic, wanted } => {
                let refused = shard.stats().get(Counter::SubscriptionsRefused);
                shard.handle_mail(mail);
                if shard.stats().get(Counter::SubscriptionsRefused) == refused {
                    self.oracle.borrow_mut().subscribes(engine, peer, topic, wanted);
                }
            }
            _ => unreachable!("the caller looked"),
        }
    }
}
