//! Whether a message has reached everybody: what the closed loop of one sender and many receivers goes by.
//!
//! The receivers are on several engines. Each engine counts its own, and tells the sender's engine when the last of them has a message;
//! there the message has arrived everywhere when all engines have said so.

use std::collections::VecDeque;

/// A message that some engine's receivers do not have yet.
struct Unfinished {
    sent_at: u64,
    /// Engines whose receivers do not all have it.
    engines: usize,
}

/// One sender's messages that have not arrived everywhere, on the sender's engine.
#[derive(Default)]
pub(super) struct UnderWay {
    /// The number of the message that is sent next.
    next: u64,
    /// The number of the first is `next - len`.
    unfinished: VecDeque<Unfinished>,
}

impl UnderWay {
    pub(super) fn len(&self) -> usize {
        self.unfinished.len()
    }

    /// The next message was sent, to receivers on so many engines.
    pub(super) fn sent(&mut self, sent_at: u64, engines: usize) {
        self.unfinished.push_back(Unfinished { sent_at, engines });
        self.next += 1;
    }

    /// An engine says that all its receivers have the message `number`. `finished` is told when each message was sent that has arrived
    /// everywhere now, and so has all that was sent before it.
    pub(super) fn reached(&mut self, number: u64, mut finished: impl FnMut(u64)) {
        let first = self.next - self.unfinished.len() as u64;
        let message = number.checked_sub(first).and_then(|at| self.unfinished.get_mut(at as usize));
        let Some(message) = message else { return };
        message.engines = message.engines.saturating_sub(1);
        while let Some(&Unfinished { sent_at, engines: 0 }) = self.unfinished.front() {
            self.unfinished.pop_front();
            finished(sent_at);
        }
    }
}

/// How many receivers of one engine do not have a sender's message yet, from the number `first` on.
#[derive(Default)]
pub(super) struct Awaited {
    awaited: VecDeque<u32>,
    first: u64,
}

impl Awaited {
    /// One receiver of this engine has the message `number`. `receivers` says how many are to get a message; `reached` is told of each that
    /// all of them have now, and at least one.
    pub(super) fn count(&mut self, number: u64, receivers: impl Fn(u64) -> u32, mut reached: impl FnMut(u64)) {
        let Some(at) = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        // A gap opens one entry for each message in it; the checksum keeps the number from being just anything.
        while self.awaited.len() <= at {
            self.awaited.push_back(receivers(self.first + self.awaited.len() as u64));
        }
        self.awaited[at] = self.awaited[at].saturating_sub(1);
        while self.awaited.front() == Some(&0) {
            self.awaited.pop_front();
            let number = self.first;
            self.first += 1;
            // Where nobody is to get it, nobody awaits this engine's word.
            if receivers(number) > 0 {
                reached(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_arrived_when_every_engine_says_so_and_not_before_its_elders() {
        let mut under_way = UnderWay::default();
        under_way.sent(10, 2);
        under_way.sent(11, 1);
        let mut finished = Vec::new();
        under_way.reached(1, |sent_at| finished.push(sent_at));
        under_way.reached(0, |sent_at| finished.push(sent_at));
        assert_eq!((finished.len(), under_way.len()), (0, 2));
        under_way.reached(0, |sent_at| finished.push(sent_at));
        assert_eq!((finished, under_way.len()), (vec![10, 11], 0));
        under_way.reached(1, |_| panic!("it has arrived already"));
        under_way.reached(7, |_| panic!("it was never sent"));
    }

    #[test]
    fn an_engine_speaks_when_its_last_receiver_has_a_message_and_only_of_those_it_has_receivers_for() {
        let mut awaited = Awaited::default();
        // Every third message has nobody here.
        let receivers = |number: u64| if number % 3 == 2 { 0 } else { 2 };
        let mut reached = Vec::new();
        for number in [0, 1, 1, 3, 0, 3, 4] {
            awaited.count(number, receivers, |number| reached.push(number));
        }
        assert_eq!(reached, [0, 1, 3]);
    }
}
