//! One peer that publishes and many that subscribe: what fan-out and topics have in common. Who subscribes to what is an [`Audience`]'s.
//!
//! The run's peer 0 publishes and does not subscribe. It is on the first engine; the subscribers are on all. In the closed loop every
//! engine tells the first one when the last of its subscribers has a message, and the publisher goes on when all engines have.

use std::collections::VecDeque;

use corecast::{Context, Message, SendError};

use super::cadence::Cadence;
use super::{Pacing, Workload};
use crate::client::{Command, Core};
use crate::clock;
use crate::payload::Header;
use crate::verify::Verdict;

/// The run's number of the publishing peer, and its position on the first engine.
pub(super) const PUBLISHER: u32 = 0;

/// Who gets what. Messages are numbered from 0 in the order in which they are published.
pub(crate) trait Audience: 'static {
    /// A subscriber is connected, and does not count as ready before the server has read what is sent to it here.
    fn join(&self, _cx: &mut Context<'_>, _core: &Core, _index: usize) -> Result<(), SendError> {
        Ok(())
    }
    /// The sender that the message names, and its position in that sender's stream.
    fn address(&self, number: u64) -> (u32, u64);
    /// How many engines have subscribers that get the message.
    fn engines(&self, number: u64) -> usize;
    /// How many subscribers of this engine get the message.
    fn subscribers(&self, number: u64) -> u32;
    /// A message came to the subscriber `index`: what is to be said of it, and its number. Nothing where it is not for this subscriber.
    fn accept(&mut self, index: usize, header: &Header) -> Option<(Verdict, u64)>;
}

/// A message that some engine's subscribers do not have yet.
struct Unfinished {
    sent_at: u64,
    /// Engines whose subscribers do not all have it.
    engines: usize,
}

/// The peer that publishes. On the first engine only.
struct Publisher {
    /// The next message's number.
    next: u64,
    /// Closed loop: the number of the first is `next - len`.
    unfinished: VecDeque<Unfinished>,
    cadence: Cadence,
}

/// One core's subscribers, and on the first core the publisher.
pub(crate) struct Published<A> {
    pacing: Pacing,
    publisher: Option<Publisher>,
    audience: A,
    /// Closed loop: how many subscribers of this core do not have a message yet, from the number `first` on.
    awaited: VecDeque<u32>,
    first: u64,
}

impl<A: Audience> Published<A> {
    pub(super) fn to(audience: A, pacing: Pacing, core: &Core) -> Self {
        let publisher = Publisher { next: 0, unfinished: VecDeque::new(), cadence: Cadence::new(pacing) };
        let publisher = (core.share.first == PUBLISHER).then_some(publisher);
        Self { pacing, publisher, audience, awaited: VecDeque::new(), first: 0 }
    }

    /// Sends what may be sent now.
    fn publish(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        let Some(publisher) = &mut self.publisher else { return };
        while let Some(sent_at) = publisher.cadence.next(core, publisher.unfinished.len()) {
            let (sender, seq) = self.audience.address(publisher.next);
            let push = core.send_as(cx, PUBLISHER as usize, sender, seq, sent_at);
            if !publisher.cadence.pushed(core, push) {
                return;
            }
            if matches!(self.pacing, Pacing::Closed { .. }) {
                publisher.unfinished.push_back(Unfinished { sent_at, engines: self.audience.engines(publisher.next) });
            }
            publisher.next += 1;
        }
    }

    /// One subscriber of this core has a message: says so when it was the last one.
    fn count(&mut self, cx: &mut Context<'_>, core: &mut Core, number: u64) {
        let Some(at) = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        // A gap opens one entry for each message in it; the checksum keeps the number from being just anything.
        while self.awaited.len() <= at {
            self.awaited.push_back(self.audience.subscribers(self.first + self.awaited.len() as u64));
        }
        self.awaited[at] = self.awaited[at].saturating_sub(1);
        while self.awaited.front() == Some(&0) {
            self.awaited.pop_front();
            let number = self.first;
            self.first += 1;
            if self.audience.subscribers(number) == 0 {
                // Nobody awaits this engine's word.
            } else if self.publisher.is_some() {
                self.on_reached(cx, core, number);
            } else if let Some(first) = core.common.handles.get().and_then(|handles| handles.first()) {
                // As many are under way as messages, and the inbox was made to hold those.
                let _ = first.post(0, Command::Reached { number });
            }
        }
    }
}

impl<A: Audience> Workload for Published<A> {
    fn on_connected(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) -> Result<(), SendError> {
        if core.number(index) == PUBLISHER { Ok(()) } else { self.audience.join(cx, core, index) }
    }

    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, at: u64) {
        if let Some(publisher) = &mut self.publisher {
            publisher.cadence.begin(at, core);
        }
        self.publish(cx, core);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>) {
        let Some(header) = core.parse(&message) else { return };
        // The publisher must not get its own.
        let accepted = if core.number(index) == PUBLISHER { None } else { self.audience.accept(index, &header) };
        let Some((verdict, number)) = accepted else {
            core.tally.corrupt += 1;
            return;
        };
        core.arrived(verdict, &header, clock::now_ns());
        if verdict != Verdict::Duplicate && matches!(self.pacing, Pacing::Closed { .. }) {
            self.count(cx, core, number);
        }
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, core: &mut Core, _index: usize) {
        if let Some(publisher) = &mut self.publisher {
            publisher.cadence.unblock();
        }
        self.publish(cx, core);
    }

    fn on_pace(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        if let Some(publisher) = &mut self.publisher {
            publisher.cadence.look();
        }
        self.publish(cx, core);
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>, core: &mut Core) {
        core.unsent = self.publisher.as_ref().map_or(0, |publisher| publisher.cadence.unsent());
    }

    fn on_tick(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        self.on_drained(cx, core, PUBLISHER as usize);
    }

    fn on_reached(&mut self, cx: &mut Context<'_>, core: &mut Core, number: u64) {
        let Some(publisher) = &mut self.publisher else { return };
        let first = publisher.next - publisher.unfinished.len() as u64;
        let message = number.checked_sub(first).and_then(|at| publisher.unfinished.get_mut(at as usize));
        let Some(message) = message else { return };
        message.engines = message.engines.saturating_sub(1);
        let now = clock::now_ns();
        while publisher.unfinished.front().is_some_and(|message| message.engines == 0) {
            if let Some(message) = publisher.unfinished.pop_front() {
                core.window().completed(now.saturating_sub(message.sent_at));
            }
        }
        self.publish(cx, core);
    }
}
