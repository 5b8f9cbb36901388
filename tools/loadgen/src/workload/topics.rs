//! Topics: one peer publishes to numbered topics in turn, every other has subscribed to some of them, and checks that it gets exactly
//! theirs, each topic's messages once and in order.
//!
//! A message names its topic where it names its sender elsewhere: each topic has a stream of its own. The server publishes what comes to
//! the topic that it names. The subscriptions of a run are known to all its engines beforehand, so each can tell what its subscribers
//! should get, and the first how many engines have to say that a message has reached them.

use std::ops::Range;

use corecast::{Context, SendError};

use super::Pacing;
use super::publisher::{Audience, PUBLISHER, Published};
use crate::client::{Core, Share};
use crate::payload::Header;
use crate::verify::{Stream, Verdict};

/// One core's subscribers, and on the first core the publisher.
pub(crate) type Topics = Published<Subscribers>;

/// Who has subscribed to what: the subscriber `p` to `per_peer` topics from `p * per_peer` on, in a circle. So every topic has as many
/// subscribers as every other, or one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscriptions {
    /// Topics, from 0. At least one.
    pub(crate) topics: u32,
    /// Of each subscriber, all different: not more than there are topics.
    pub(crate) per_peer: u32,
}

impl Subscriptions {
    /// The topics that a subscriber has.
    fn of(self, subscriber: u32) -> impl Iterator<Item = u32> {
        let first = self.first(subscriber);
        (0..self.per_peer).map(move |position| ((u64::from(first) + u64::from(position)) % u64::from(self.topics)) as u32)
    }

    fn first(self, subscriber: u32) -> u32 {
        (u64::from(subscriber) * u64::from(self.per_peer) % u64::from(self.topics)) as u32
    }

    /// Which of the subscriber's topics this is, if it is one.
    fn position(self, subscriber: u32, topic: u32) -> Option<u32> {
        let topics = u64::from(self.topics);
        let position = (u64::from(topic) + topics - u64::from(self.first(subscriber))) % topics;
        (topic < self.topics && position < u64::from(self.per_peer)).then_some(position as u32)
    }

    /// How many of these subscribers have the topic.
    fn among(self, subscribers: &Range<u32>, topic: u32) -> u64 {
        let below = |end: u32| {
            let dealt = u64::from(end) * u64::from(self.per_peer);
            dealt / u64::from(self.topics) + u64::from(u64::from(topic) < dealt % u64::from(self.topics))
        };
        below(subscribers.end) - below(subscribers.start)
    }

    /// Fewest and most subscribers of a topic, of so many in all.
    pub(crate) fn per_topic(self, subscribers: u32) -> (u64, u64) {
        let all = 0..subscribers;
        (self.among(&all, self.topics - 1), self.among(&all, 0))
    }

    /// Deliveries that so many messages lead to, which the topics take in turn, to so many subscribers.
    pub(crate) fn deliveries(self, subscribers: u32, messages: u64) -> u64 {
        let (topics, dealt) = (u64::from(self.topics), u64::from(subscribers) * u64::from(self.per_peer));
        let (rounds, more) = (messages / topics, messages % topics);
        rounds * dealt + more * (dealt / topics) + more.min(dealt % topics)
    }
}

/// Some peers get some topics.
pub(crate) struct Subscribers {
    subscriptions: Subscriptions,
    /// Of each engine, in order.
    engines: Vec<Range<u32>>,
    /// Of this engine.
    own: Range<u32>,
    /// What each subscriber has received of each of its topics.
    streams: Vec<Stream>,
}

/// Subscribers are numbered as peers are, but from the one after the publisher.
fn subscribers(share: &Share) -> Range<u32> {
    let from_zero = |peer: u32| peer.saturating_sub(PUBLISHER + 1);
    from_zero(share.first)..from_zero(share.first + share.count)
}

impl Topics {
    pub(crate) fn new(pacing: Pacing, subscriptions: Subscriptions, core: &Core) -> Self {
        let engines = Share::split(core.share.total, core.share.engines).iter().map(subscribers).collect();
        let own = subscribers(&core.share);
        let streams = own.len() * subscriptions.per_peer as usize;
        let streams = (0..streams).map(|_| Stream::default()).collect();
        Self::to(Subscribers { subscriptions, engines, own, streams }, pacing, core)
    }
}

impl Subscribers {
    /// The run's number of the subscriber that is this peer of the engine.
    fn subscriber(&self, index: usize) -> u32 {
        let publishes = self.own.start == 0;
        self.own.start + index as u32 - u32::from(publishes)
    }

    fn topic(&self, number: u64) -> u32 {
        (number % u64::from(self.subscriptions.topics)) as u32
    }
}

impl Audience for Subscribers {
    fn join(&self, cx: &mut Context<'_>, core: &Core, index: usize) -> Result<(), SendError> {
        self.subscriptions.of(self.subscriber(index)).try_for_each(|topic| core.subscribe(cx, index, topic))
    }

    fn address(&self, number: u64) -> (u32, u64) {
        (self.topic(number), number / u64::from(self.subscriptions.topics))
    }

    fn engines(&self, number: u64) -> usize {
        let topic = self.topic(number);
        self.engines.iter().filter(|subscribers| self.subscriptions.among(subscribers, topic) > 0).count()
    }

    fn subscribers(&self, number: u64) -> u32 {
        self.subscriptions.among(&self.own, self.topic(number)) as u32
    }

    fn accept(&mut self, index: usize, header: &Header) -> Option<(Verdict, u64)> {
        let (subscriber, per_peer) = (self.subscriber(index), self.subscriptions.per_peer as usize);
        let position = self.subscriptions.position(subscriber, header.sender)?;
        let number = header.seq.checked_mul(u64::from(self.subscriptions.topics))?.checked_add(u64::from(header.sender))?;
        let stream = &mut self.streams[(subscriber - self.own.start) as usize * per_peer + position as usize];
        Some((stream.accept(header.seq), number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [(u32, u32, u32); 6] = [(1, 1, 1), (10, 5, 2), (7, 3, 3), (5, 8, 2), (100, 100, 10), (9, 7, 5)];

    #[test]
    fn topics_are_dealt_evenly_and_each_once_to_a_subscriber() {
        for (peers, topics, per_peer) in SHAPES {
            let subscriptions = Subscriptions { topics, per_peer };
            let mut counts = vec![0; topics as usize];
            for subscriber in 0..peers {
                let mine: Vec<_> = subscriptions.of(subscriber).collect();
                mine.iter().for_each(|topic| counts[*topic as usize] += 1);
                for topic in 0..topics + 1 {
                    let position = mine.iter().position(|mine| *mine == topic);
                    assert_eq!(subscriptions.position(subscriber, topic).map(|position| position as usize), position);
                }
            }
            let (fewest, most) = subscriptions.per_topic(peers);
            assert!(most - fewest <= 1);
            assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&fewest), Some(&most)));
            for topic in 0..topics {
                assert_eq!(subscriptions.among(&(0..peers), topic), counts[topic as usize]);
                let split = peers / 3;
                let parts = subscriptions.among(&(0..split), topic) + subscriptions.among(&(split..peers), topic);
                assert_eq!(parts, counts[topic as usize]);
            }
        }
    }

    #[test]
    fn what_should_arrive_is_what_the_topics_subscribers_get() {
        for (peers, topics, per_peer) in SHAPES {
            let subscriptions = Subscriptions { topics, per_peer };
            let mut deliveries = 0;
            for message in 0..30 {
                assert_eq!(subscriptions.deliveries(peers, message), deliveries);
                deliveries += subscriptions.among(&(0..peers), (message % u64::from(topics)) as u32);
            }
        }
    }
}
