//! Acknowledged messages, as one connection knows them, and what outlives it.
//!
//! A message that is to be acknowledged has an id, which together with the *sender's instance* names it for ever. An [`Exchange`] is what
//! one connection knows of both directions: which ids wait for the other side's acknowledgement, which ids came and were taken
//! (the [`Window`]: one that comes again is not delivered again), and which were delivered and wait for the application's word.
//!
//! When the connection ends, its exchange dissolves into a [`Ledger`], which the next connection to the same node and channel is begun
//! with. What waits for the application is not in it: a message that was not acknowledged has not been taken, and comes again.
//!
//! This module knows no peers and no cores, and does not send: it says what is to be done.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::error::Violation;
use crate::time::Timestamp;
use crate::wire::Frame;

/// A message on its way to be acknowledged, wherever it is kept. Cloning shares the frame.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Upper eight bits: the core that sent it and awaits the outcome.
    pub(crate) id: u64,
    pub(crate) frame: Frame,
    /// From here on nobody is interested any more.
    pub(crate) deadline: Timestamp,
}

impl Delivery {
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.deadline <= now
    }
}

/// What outlives a connection.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The other side's: whose ids the window has.
    pub(crate) instance: u64,
    /// Ids that came and were taken, the oldest first.
    pub(crate) window: Vec<u64>,
    /// Ids that came, and that the handler panicked over: they are neither handed over again nor acknowledged.
    pub(crate) lost: Vec<u64>,
    /// What the other side has not acknowledged, in the order in which it was sent.
    pub(crate) deliveries: Vec<Delivery>,
}

impl Ledger {
    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty() && self.lost.is_empty() && self.deliveries.is_empty()
    }
}

/// The last so many ids that were taken: in the order in which they came, and sorted, 8 bytes each.
///
/// A table would find an id sooner, and take more than twice the memory, times all peers. A sender's ids rise, so that the newest is put at
/// the end and the oldest taken from the front; ids that are made up, or come from many cores, move at most half of the sorted ones.
#[derive(Debug)]
struct Window {
    limit: usize,
    ring: VecDeque<u64>,
    sorted: VecDeque<u64>,
}

impl Window {
    fn new(limit: usize, ids: Vec<u64>) -> Self {
        let mut ring = VecDeque::from(ids);
        ring.drain(..ring.len().saturating_sub(limit));
        let mut sorted: Vec<u64> = ring.iter().copied().collect();
        sorted.sort_unstable();
        Self { limit, sorted: sorted.into(), ring }
    }

    fn contains(&self, id: u64) -> bool {
        self.sorted.binary_search(&id).is_ok()
    }

    fn insert(&mut self, id: u64) {
        let Err(mut at) = self.sorted.binary_search(&id) else { return };
        if self.ring.len() == self.limit
            && let Some(oldest) = self.ring.pop_front()
            && let Ok(gone) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(gone);
            at -= usize::from(gone < at);
        }
        for ids in [&mut self.ring, &mut self.sorted] {
            if ids.len() == ids.capacity() {
                // Doubled, but never beyond what there may be.
                ids.reserve_exact(ids.len().clamp(4, self.limit.max(4)).min(self.limit - ids.len()));
            }
        }
        self.sorted.insert(at, id);
        self.ring.push_back(id);
    }

    /// Looks at all of them.
    fn remove(&mut self, id: u64) {
        self.ring.retain(|&kept| kept != id);
        self.sorted.retain(|&kept| kept != id);
    }
}

/// What to do with a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Hand it over.
    New,
    /// It was taken before: acknowledge it again.
    Taken,
    /// It was handed over on this connection, and the application has not acknowledged it yet: nothing.
    Pending,
    /// The application owes too many acknowledgements already: nothing, so that the sender does not take it for delivered.
    Full,
}

/// Memory of an id in the window, and of a window's id in a ledger.
pub(crate) const WINDOW_ID: usize = 2 * size_of::<u64>();
pub(crate) const LEDGER_ID: usize = size_of::<u64>();
/// Memory of an id that waits for an acknowledgement, of the other side or of the application: in a table that has up to 32 places for 7,
/// since those of ids that have left are free again only when it is made anew.
pub(crate) const AWAITED_ID: usize = 5 * (size_of::<(u64, u64)>() + 1);
pub(crate) const PENDING_ID: usize = 5 * (size_of::<u64>() + 1);

/// Both directions of one connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Messages that were sent here, and acknowledgements that came.
    sent: u64,
    answered: u64,
    /// Ids that are not acknowledged, and their order.
    awaited: HashMap<u64, u64>,
    window: Window,
    /// Ids that were handed over and wait for the application.
    pending: HashSet<u64>,
    /// See [`Ledger::lost`]. The oldest go when there are more than `LOST`.
    lost: Vec<u64>,
}

/// A connection ends with the first, so more of them need as many connections, and then the handler may be better by now.
pub(crate) const LOST: usize = 4;

impl Exchange {
    /// `window`, `lost`: ids that this very sender is known to have sent already; `limit`: how many are remembered.
    pub(crate) fn new(limit: usize, window: Vec<u64>, lost: Vec<u64>) -> Self {
        Self { sent: 0, answered: 0, awaited: HashMap::new(), window: Window::new(limit, window), pending: HashSet::new(), lost }
    }

    /// A message was queued.
    pub(crate) fn expect(&mut self, id: u64) {
        self.awaited.insert(id, self.sent);
        self.sent += 1;
    }

    /// Whether an acknowledgement of this is awaited.
    pub(crate) fn awaits(&self, id: u64) -> bool {
        self.awaited.contains_key(&id)
    }

    /// An acknowledgement came: says whether it was still awaited.
    pub(crate) fn handle_ack(&mut self, id: u64) -> Result<bool, Violation> {
        if self.answered == self.sent {
            return Err(Violation::UnsolicitedAck);
        }
        self.answered += 1;
        Ok(self.awaited.remove(&id).is_some())
    }

    /// Nobody is interested in the acknowledgement any more.
    pub(crate) fn forget(&mut self, id: u64) {
        self.awaited.remove(&id);
    }

    /// A message came. `by_handler`: the application acknowledges it, and may owe at most `most` acknowledgements.
    ///
    /// Otherwise it counts as taken from here on, although it is acknowledged only after the handler has seen it: the handler may end the
    /// connection, and the next one must know of it.
    pub(crate) fn handle_message(&mut self, id: u64, by_handler: bool, most: usize) -> Arrival {
        if self.lost.contains(&id) {
            return Arrival::Pending;
        }
        if self.window.contains(id) {
            return Arrival::Taken;
        }
        if !by_handler {
            self.window.insert(id);
            return Arrival::New;
        }
        if self.pending.contains(&id) {
            Arrival::Pending
        } else if self.pending.len() >= most {
            Arrival::Full
        } else {
            self.pending.insert(id);
            Arrival::New
        }
    }

    /// The application acknowledges a message: says whether it was pending.
    pub(crate) fn take(&mut self, id: u64) -> bool {
        let pending = self.pending.remove(&id);
        if pending {
            self.window.insert(id);
        }
        pending
    }

    /// The handler has panicked over a message: it was not taken, and it is not handed over again, or it would cost every connection that
    /// it comes on.
    pub(crate) fn give_up(&mut self, id: u64) {
        self.pending.remove(&id);
        self.window.remove(id);
        self.lost.drain(..(self.lost.len() + 1).saturating_sub(LOST));
        self.lost.push(id);
    }

    /// The connection is over: the ids that were not acknowledged, in the order in which they were sent, those that were taken, and those
    /// that were given up.
    pub(crate) fn dissolve(self) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let mut awaited: Vec<_> = self.awaited.into_iter().collect();
        awaited.sort_unstable_by_key(|&(_, order)| order);
        (awaited.into_iter().map(|(id, _)| id).collect(), self.window.ring.into(), self.lost)
    }

    /// Bytes of memory besides the exchange itself.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let window = (self.window.ring.capacity() + self.window.sorted.capacity() + self.lost.capacity()) * size_of::<u64>();
        window + self.awaited.capacity() * (size_of::<(u64, u64)>() + 1) + self.pending.capacity() * (size_of::<u64>() + 1)
    }

    /// Whether acknowledgements are awaited.
    pub(crate) fn is_awaiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// How many acknowledgements are awaited.
    #[cfg(test)]
    pub(crate) fn awaited(&self) -> usize {
        self.awaited.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 3;

    fn exchange() -> Exchange {
        Exchange::new(LIMIT, Vec::new(), Vec::new())
    }

    #[test]
    fn what_came_twice_is_taken_once_and_acknowledged_twice() {
        let mut exchange = exchange();
        assert_eq!(exchange.handle_message(7, false, 1), Arrival::New);
        assert_eq!(exchange.handle_message(7, false, 1), Arrival::Taken);
        let (_, window, _) = exchange.dissolve();
        assert_eq!(Exchange::new(LIMIT, window, Vec::new()).handle_message(7, false, 1), Arrival::Taken, "the next connection knows it");
    }

    #[test]
    fn what_the_handler_panicked_over_is_neither_handed_over_nor_acknowledged_again() {
        for by_handler in [false, true] {
            let mut exchange = exchange();
            assert_eq!(exchange.handle_message(7, by_handler, 1), Arrival::New);
            exchange.give_up(7);
            assert!(!exchange.take(7), "the application has nothing to acknowledge");
            assert_eq!(exchange.handle_message(7, by_handler, 1), Arrival::Pending);
            let (_, window, lost) = exchange.dissolve();
            assert_eq!((&window[..], &lost[..]), (&[][..], &[7][..]));
            let mut next = Exchange::new(LIMIT, window, lost);
            assert_eq!(next.handle_message(7, by_handler, 1), Arrival::Pending, "the next connection knows it");
            assert_eq!(next.handle_message(8, by_handler, 1), Arrival::New);
            // Bounded: the oldest is handed over again.
            (100..100 + LOST as u64).for_each(|id| next.give_up(id));
            assert_eq!((next.lost.len(), next.handle_message(7, false, 1)), (LOST, Arrival::New));
        }
    }

    #[test]
    fn the_window_forgets_the_oldest_and_no_other() {
        let mut exchange = exchange();
        for id in [1, 2, 3, 3, 2, 4] {
            exchange.handle_message(id, false, 1);
        }
        for (id, arrival) in [(2, Arrival::Taken), (3, Arrival::Taken), (4, Arrival::Taken), (1, Arrival::New)] {
            assert_eq!(exchange.handle_message(id, false, 1), arrival, "{id}");
        }
        assert_eq!(exchange.window.sorted.len(), LIMIT);
        assert_eq!(Exchange::new(2, vec![5, 6, 7], Vec::new()).dissolve().1, [6, 7]);
    }

    #[test]
    fn a_window_knows_the_last_ids_in_whatever_order_they_came_and_takes_no_more_than_it_needs() {
        let mut rng = crate::rng::Rng::new(3);
        for limit in [1, 2, 5, 100] {
            let (mut window, mut model) = (Window::new(limit, Vec::new()), VecDeque::new());
            for step in 0..2_000 {
                // Rising, from several cores, or made up.
                let id = if rng.chance(1, 2) { rng.below(3) << 56 | step } else { rng.below(2 * limit as u64 + 1) };
                assert_eq!(window.contains(id), model.contains(&id), "{id}");
                window.insert(id);
                if !model.contains(&id) {
                    model.push_back(id);
                    model.drain(..model.len().saturating_sub(limit));
                }
                assert_eq!(window.ring, model);
                assert!(window.sorted.iter().is_sorted() && window.sorted.len() == model.len());
                assert!((window.ring.capacity() + window.sorted.capacity()) * size_of::<u64>() <= limit * WINDOW_ID);
            }
        }
    }

    #[test]
    fn what_the_application_has_not_acknowledged_is_not_taken() {
        let mut exchange = exchange();
        assert_eq!(exchange.handle_message(1, true, 2), Arrival::New);
        assert_eq!(exchange.handle_message(1, true, 2), Arrival::Pending);
        assert_eq!(exchange.handle_message(2, true, 2), Arrival::New);
        assert_eq!(exchange.handle_message(3, true, 2), Arrival::Full);
        assert!(exchange.take(1));
        assert!(!exchange.take(1) && !exchange.take(9));
        assert_eq!(exchange.handle_message(1, true, 2), Arrival::Taken);
        assert_eq!(exchange.handle_message(3, true, 2), Arrival::New);
        assert_eq!(exchange.dissolve().1, [1], "2 and 3 come again");
    }

    #[test]
    fn acknowledgements_are_matched_and_those_beyond_what_was_sent_are_a_violation() {
        let mut exchange = exchange();
        assert_eq!(exchange.handle_ack(1), Err(Violation::UnsolicitedAck));
        [30, 10, 20, 40].into_iter().for_each(|id| exchange.expect(id));
        assert_eq!(exchange.handle_ack(10), Ok(true));
        assert_eq!(exchange.handle_ack(10), Ok(false), "repeated");
        exchange.forget(40);
        assert_eq!(exchange.handle_ack(40), Ok(false), "late");
        assert_eq!(exchange.awaited(), 2);
        assert_eq!(exchange.handle_ack(99), Ok(false), "never sent");
        assert_eq!(exchange.handle_ack(30), Err(Violation::UnsolicitedAck), "the fifth for four");
        assert_eq!(exchange.dissolve().0, [30, 20], "in the order in which they were sent");
    }
}
