//! Who has subscribed to what.
//!
//! Two sides meet here. As a publisher a core has [`Topics`], the subscribers of this core, and with each peer the topics that it wants
//! ([`Subscriptions::theirs`]), so that they can be taken back when it ends. As a subscriber it has with each peer the topics that this
//! side has asked it for ([`Subscriptions::ours`]): what is asked twice is said once, and the other side's limit, taken to be
//! this one's, is never passed. What a publish does with the subscribers is in `publish`.
//!
//! **Ordered sets, and no hash maps.** Topics are numbers of the peers' choice. A hash map that they cannot attack needs a key that they
//! cannot guess, which ring 0 does not have: what `Rng` gives may not be a secret (the instance number, which every peer is told, comes
//! from the same generator). An ordered set has no bad inputs, needs no key, keeps one order for the simulator, and gives the subscribers
//! of a topic in the order of their slots, which is the order in memory. It makes subscribing and finding a topic logarithmic: a
//! few hundred instructions among a million subscriptions, against about as many for one delivery.
//!
//! **Memory.** A subscription is 16 bytes in the core's set and 8 in the peer's, in nodes that are between half and wholly full: 45 to 60
//! bytes with its share of the nodes (measured: a million of them), 90 at the worst. There is no list for each
//! topic: one with a single subscriber costs no more than one of a thousand, and one without subscribers costs nothing. A peer without
//! topics has a null pointer. All of it is bounded by `Limits::subscriptions` for each peer.
//!
//! **Floods.** A peer that subscribes and unsubscribes without end is bounded by what is read of it in a turn (`Io::read_budget`: 16,384
//! of these frames with the default, each about 1,200 instructions among a quarter of a million subscriptions), and others are read in
//! between; memory does not grow by it.

use std::collections::BTreeSet;

use super::Shard;
use super::mail::Mail;
use super::supervised::{Call, Supervised};
use crate::error::{SendError, Violation};
use crate::handler::{Callback, Handler};
use crate::id::{PeerId, Topic};
use crate::metrics::Counter;
use crate::proto::SPANS_CHARGE;
use crate::wire::{HEADER_LEN, Kind, control_frame};

/// The subscribers of one core.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// Topic and slot in one number, which is quicker to compare than two: see [`key`].
    subscribers: BTreeSet<u128>,
}

impl Topics {
    /// How many subscriptions there are.
    pub(super) fn len(&self) -> usize {
        self.subscribers.len()
    }

    fn insert(&mut self, topic: Topic, slot: u32) {
        let is_new = self.subscribers.insert(key(topic, slot));
        debug_assert!(is_new, "the peer's own set says first whether it has this topic");
    }

    fn remove(&mut self, topic: Topic, slot: u32) {
        let was_there = self.subscribers.remove(&key(topic, slot));
        debug_assert!(was_there, "what is in the peer's own set is in this one");
    }

    /// The slots that have subscribed to a topic, in order.
    #[inline]
    pub(super) fn subscribers(&self, topic: Topic) -> impl Iterator<Item = u32> + '_ {
        // With an upper bound given, it would be searched for as well.
        self.subscribers.range(key(topic, 0)..).take_while(move |&&key| key >> 32 == u128::from(topic.0)).map(|&key| key as u32)
    }

    #[cfg(test)]
    pub(super) fn contains(&self, topic: Topic, slot: u32) -> bool {
        self.subscribers.contains(&key(topic, slot))
    }
}

/// In the order of topics, and of slots within one.
#[inline]
fn key(topic: Topic, slot: u32) -> u128 {
    u128::from(topic.0) << 32 | u128::from(slot)
}

/// One peer's topics.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// It has subscribed to them here.
    pub(super) theirs: BTreeSet<Topic>,
    /// This side has subscribed to them there.
    pub(super) ours: BTreeSet<Topic>,
}

impl Subscriptions {
    fn is_empty(&self) -> bool {
        self.theirs.is_empty() && self.ours.is_empty()
    }
}

/// What `Subscribe` and `Unsubscribe` add at most to what a peer has still to receive.
const CHARGE: usize = SPANS_CHARGE + HEADER_LEN + size_of::<Topic>();

impl Shard {
    /// Subscribes at a peer, of this core or another, or (`wanted` is false) unsubscribes.
    pub(crate) fn subscribe(&mut self, peer: PeerId, topic: Topic, wanted: bool) -> Result<(), SendError> {
        if peer.core() != self.core() {
            return self.forward_mail(peer.core(), Mail::Subscribe { peer, topic, wanted });
        }
        self.try_subscribe(peer, topic, wanted).inspect_err(|_| self.stats.count(Counter::SubscriptionsRefused))
    }

    fn try_subscribe(&mut self, peer: PeerId, topic: Topic, wanted: bool) -> Result<(), SendError> {
        let entry = self.slots.find(peer).ok_or(SendError::NotConnected)?;
        if !entry.is_established() {
            return Err(SendError::Closing);
        }
        let all = self.slots.cold(peer.slot()).subscriptions();
        let (had, count) = all.map_or((false, 0), |all| (all.ours.contains(&topic), all.ours.len()));
        if had == wanted {
            return Ok(());
        }
        if wanted && count >= self.shared.config.limits.subscriptions {
            return Err(SendError::TooManySubscriptions);
        }
        // These frames are bounded like everything that the application has a peer receive: it may change its mind without end.
        self.check_room(peer, 0, CHARGE)?;
        if self.rates.is_some() {
            let cost = self.cost_of_subscribing(HEADER_LEN + size_of::<Topic>());
            self.charge(peer, cost, false).inspect_err(|_| self.stats.count(Counter::SendsRateLimited))?;
        }
        let kind = if wanted { Kind::Subscribe } else { Kind::Unsubscribe };
        let frame = control_frame(kind, topic.0.to_le_bytes());
        self.record_control(peer.slot(), kind, frame.len());
        self.with_outbox(peer.slot(), |outbox, _, pool| outbox.push_control(pool, &frame));
        let all = self.subscriptions(peer.slot());
        if wanted {
            all.ours.insert(topic);
        } else {
            all.ours.remove(&topic);
        }
        self.forget_empty(peer.slot());
        self.mark_dirty(peer.slot());
        Ok(())
    }

    /// A peer subscribes.
    pub(super) fn handle_subscribe<H: Handler>(
        &mut self,
        handler: &mut Supervised<H>,
        peer: PeerId,
        topic: Topic,
    ) -> Result<(), Violation> {
        let most = self.shared.config.limits.subscriptions;
        let theirs = &mut self.subscriptions(peer.slot()).theirs;
        if theirs.contains(&topic) {
            return Ok(());
        }
        if theirs.len() >= most {
            return Err(Violation::TooManySubscriptions);
        }
        theirs.insert(topic);
        self.topics.insert(topic, peer.slot());
        handler.call(self, || Call::of(Callback::Subscribed, peer), |handler, cx| handler.on_subscribed(cx, peer, topic));
        Ok(())
    }

    /// A peer unsubscribes.
    pub(super) fn handle_unsubscribe<H: Handler>(&mut self, handler: &mut Supervised<H>, peer: PeerId, topic: Topic) {
        let Some(all) = self.slots.cold_mut(peer.slot()).subscriptions_mut() else { return };
        if all.theirs.remove(&topic) {
            self.topics.remove(topic, peer.slot());
            self.forget_empty(peer.slot());
            handler.call(self, || Call::of(Callback::Unsubscribed, peer), |handler, cx| handler.on_unsubscribed(cx, peer, topic));
        }
    }

    /// The peer leaves, and with it what it has subscribed to.
    pub(super) fn end_subscriptions(&mut self, slot: u32) {
        if let Some(all) = self.slots.cold_mut(slot).few.as_mut().and_then(|few| few.subscriptions.take()) {
            all.theirs.iter().for_each(|&topic| self.topics.remove(topic, slot));
        }
    }

    fn subscriptions(&mut self, slot: u32) -> &mut Subscriptions {
        self.slots.cold_mut(slot).few.get_or_insert_default().subscriptions.get_or_insert_default()
    }

    fn forget_empty(&mut self, slot: u32) {
        if let Some(few) = &mut self.slots.cold_mut(slot).few
            && few.subscriptions.as_ref().is_some_and(|all| all.is_empty())
        {
            few.subscriptions = None;
        }
    }

    /// How many peers of this core have subscribed to a topic. Counts them.
    pub(crate) fn subscribers(&self, topic: Topic) -> usize {
        self.topics.subscribers(topic).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subscribers_of_a_topic_are_its_own_and_in_order() {
        const MOST: Topic = Topic(u64::MAX);
        let mut topics = Topics::default();
        for (topic, slot) in [(1, 9), (1, 0), (1, u32::MAX), (2, 0), (0, u32::MAX), (u64::MAX, 5), (u64::MAX - 1, u32::MAX)] {
            topics.insert(Topic(topic), slot);
        }
        let of = |topics: &Topics, topic| topics.subscribers(topic).collect::<Vec<_>>();
        assert_eq!(of(&topics, Topic(1)), [0, 9, u32::MAX]);
        assert_eq!((of(&topics, Topic(0)), of(&topics, Topic(2)), of(&topics, MOST)), (vec![u32::MAX], vec![0], vec![5]));
        assert_eq!(of(&topics, Topic(3)), [0; 0]);
        topics.remove(Topic(1), 9);
        topics.remove(MOST, 5);
        assert_eq!((of(&topics, Topic(1)), of(&topics, MOST)), (vec![0, u32::MAX], vec![]));
        assert_eq!(topics.len(), 5);
    }

    #[test]
    fn a_peer_without_topics_pays_for_a_pointer() {
        assert_eq!(size_of::<Option<Box<Subscriptions>>>(), 8);
    }
}
