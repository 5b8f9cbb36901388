//! What the directory keeps of connections that are over, for the next connection of the same node and channel.
//!
//! A ledger is kept until its messages are over and its window has been kept for `Acks::retain`. There are at most `Limits::max_peers`;
//! one more puts out the oldest: of those without messages first, so that nobody can put out what the application sends by connecting
//! under many names. Windows are bounded by `Acks::window`, and frames by the receipts that they belong to: those that are over are looked
//! for before their time when as much has come as all receipts allow.

use std::collections::HashMap;
use std::time::Duration;

use super::directory::Key;
use crate::proto::{Delivery, Ledger};
use crate::time::Timestamp;

/// The table is not gone through more often than this.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Kept {
    ledger: Box<Ledger>,
    /// The order in which they came.
    number: u64,
    /// How long the window is kept.
    until: Timestamp,
}

impl Kept {
    /// When something of it is over.
    fn end(&self, now: Timestamp) -> Timestamp {
        let first = self.ledger.deliveries.iter().map(|delivery| delivery.deadline).min();
        if self.until > now { first.map_or(self.until, |first| first.min(self.until)) } else { first.unwrap_or(self.until) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledgers {
    kept: HashMap<Key, Kept>,
    last: u64,
    most: usize,
    /// What came since the last sweep, and how much may come before the next.
    came: Load,
    receipts: Load,
    retain: Duration,
}

/// Messages, and bytes of their frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Ledgers {
    /// Memory of one, besides its ids and messages.
    pub(super) const KEPT: usize = size_of::<(Key, Kept)>();

    /// `receipts`: what all receipts allow.
    pub(super) fn new(most: usize, receipts: Load, retain: Duration) -> Self {
        Self { kept: HashMap::new(), last: 0, most, came: Load::default(), receipts, retain }
    }

    /// Messages come. Those that are over go first, where together they could be more than the receipts allow.
    fn count(&mut self, deliveries: &[Delivery], now: Timestamp) {
        self.came.messages += deliveries.len();
        self.came.bytes += deliveries.iter().map(|delivery| delivery.frame.as_bytes().len()).sum::<usize>();
        if self.came.messages > self.receipts.messages || self.came.bytes > self.receipts.bytes {
            self.sweep(now);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Keeps a ledger. Returns the one that had to make room, if one had to.
    pub(super) fn stow(&mut self, key: Key, ledger: Box<Ledger>, now: Timestamp) -> Option<(Key, Box<Ledger>)> {
        self.count(&ledger.deliveries, now);
        let mut ledger = ledger;
        if let Some(kept) = self.kept.remove(&key) {
            // Messages for the node came while it had no connection that could take them: they are the later ones.
            ledger.deliveries.extend(kept.ledger.deliveries);
        }
        self.insert(key, ledger, now)
    }

    fn insert(&mut self, key: Key, ledger: Box<Ledger>, now: Timestamp) -> Option<(Key, Box<Ledger>)> {
        self.last += 1;
        let evicted = if self.kept.len() >= self.most { self.evict() } else { None };
        self.kept.insert(key, Kept { ledger, number: self.last, until: now + self.retain });
        evicted
    }

    fn evict(&mut self) -> Option<(Key, Box<Ledger>)> {
        let oldest = self.kept.iter().min_by_key(|(_, kept)| (!kept.ledger.deliveries.is_empty(), kept.number));
        let key = oldest.map(|(key, _)| *key)?;
        self.kept.remove(&key).map(|kept| (key, kept.ledger))
    }

    /// One more message for a node that has no connection.
    pub(super) fn add(&mut self, key: Key, delivery: Delivery, now: Timestamp) -> Option<(Key, Box<Ledger>)> {
        self.count(std::slice::from_ref(&delivery), now);
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.ledger.deliveries.push(delivery);
            return None;
        }
        self.insert(key, Box::new(Ledger { deliveries: vec![delivery], ..Ledger::default() }), now)
    }

    /// The ledger that a new connection begins with.
    pub(super) fn take(&mut self, key: &Key) -> Option<Box<Ledger>> {
        self.kept.remove(key).map(|kept| kept.ledger)
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.came = Load::default();
        self.kept.retain(|_, kept| {
            kept.ledger.deliveries.retain(|delivery| !delivery.is_over(now));
            now < kept.until || !kept.ledger.deliveries.is_empty()
        });
    }

    /// When to sweep next; never while nothing is kept. Looks at everything that is.
    pub(super) fn next_sweep(&self, now: Timestamp) -> Option<Timestamp> {
        self.kept.values().map(|kept| kept.end(now)).min().map(|end| end.max(now + SWEEP_INTERVAL))
    }

    /// When to sweep because of what is kept for one.
    pub(super) fn end_of(&self, key: &Key, now: Timestamp) -> Option<Timestamp> {
        self.kept.get(key).map(|kept| kept.end(now).max(now + SWEEP_INTERVAL))
    }

    /// The engine stops.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::wire::Frame;

    const RECEIPTS: Load = Load { messages: 100, bytes: 10_000 };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ORIGIN + Duration::from_secs(seconds)
    }

    fn key(number: u8) -> Key {
        Key::own(NodeId([number; 32]), 0)
    }

    fn delivery(id: u64, deadline: u64) -> Delivery {
        Delivery { id, frame: Frame::new(1, b"x").unwrap(), deadline: at(deadline) }
    }

    fn window(ids: &[u64]) -> Box<Ledger> {
        Box::new(Ledger { instance: 9, window: ids.to_vec(), ..Ledger::default() })
    }

    fn ids(ledger: &Ledger) -> Vec<u64> {
        ledger.deliveries.iter().map(|delivery| delivery.id).collect()
    }

    #[test]
    fn one_too_many_puts_out_the_oldest_and_those_without_messages_first() {
        let mut ledgers = Ledgers::new(2, RECEIPTS, Duration::from_secs(60));
        assert!(ledgers.add(key(1), delivery(1, 50), at(1)).is_none());
        assert!(ledgers.stow(key(2), window(&[5]), at(2)).is_none());
        assert_eq!(ledgers.stow(key(3), window(&[6]), at(3)).map(|(key, _)| key), Some(key(2)));
        assert_eq!(ledgers.add(key(4), delivery(2, 50), at(4)).map(|(key, _)| key), Some(key(3)));
        let (evicted, ledger) = ledgers.stow(key(5), window(&[7]), at(5)).unwrap();
        assert_eq!((evicted, ids(&ledger)), (key(1), vec![1]));
        assert_eq!(ledgers.len(), 2);
    }

    #[test]
    fn messages_for_one_node_are_kept_in_order_beside_its_window() {
        let mut ledgers = Ledgers::new(2, RECEIPTS, Duration::from_secs(60));
        ledgers.stow(key(1), Box::new(Ledger { deliveries: vec![delivery(1, 50)], ..*window(&[5]) }), at(1));
        ledgers.add(key(1), delivery(2, 50), at(2));
        let ledger = ledgers.take(&key(1)).unwrap();
        assert_eq!((ledger.instance, &ledger.window[..], ids(&ledger)), (9, &[5][..], vec![1, 2]));
        assert!(ledgers.take(&key(1)).is_none());
    }

    #[test]
    fn a_ledger_is_kept_until_both_its_window_and_its_messages_are_over() {
        let mut ledgers = Ledgers::new(2, RECEIPTS, Duration::from_secs(10));
        ledgers.stow(key(1), window(&[5]), at(0));
        ledgers.add(key(2), delivery(2, 30), at(0));
        assert_eq!(ledgers.next_sweep(at(0)), Some(at(10)));
        ledgers.sweep(at(10));
        assert_eq!((ledgers.len(), ledgers.next_sweep(at(10))), (1, Some(at(30))));
        ledgers.sweep(at(30));
        assert_eq!((ledgers.len(), ledgers.next_sweep(at(30))), (0, None));
    }

    #[test]
    fn messages_that_are_over_do_not_pile_up_until_the_next_sweep() {
        let len = delivery(1, 1).frame.as_bytes().len();
        for receipts in [Load { messages: 3, bytes: 1000 * len }, Load { messages: 1000, bytes: 3 * len }] {
            let mut ledgers = Ledgers::new(100, receipts, Duration::from_secs(5000));
            for second in 1..1000 {
                // Each is over when the next comes, for some node or other; every other one is what a connection has left.
                let (key, delivery) = (key(second as u8 % 10), delivery(second, second + 1));
                let evicted = if second.is_multiple_of(2) {
                    ledgers.add(key, delivery, at(second))
                } else {
                    ledgers.stow(key, Box::new(Ledger { deliveries: vec![delivery], ..*window(&[5]) }), at(second))
                };
                let kept: usize = ledgers.kept.values().map(|kept| kept.ledger.deliveries.len()).sum();
                assert!(evicted.is_none() && kept <= 4, "{kept} are kept");
            }
            assert_eq!(ledgers.len(), 10, "windows are kept on");
        }
    }
}
