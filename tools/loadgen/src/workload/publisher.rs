//! One peer that publishes and many that subscribe: what fan-out and topics have in common. Who subscribes to what is an [`Audience`]'s.
//!
//! The run's peer 0 publishes and does not subscribe. It is on the first engine; the subscribers are on all. In the closed loop every
//! engine tells the first one when the last of its subscribers has a message, and the publisher goes on when all engines have.

use corecast::{Context, Message, SendError};

use super::cadence::Cadence;
use super::reach::{Awaited, UnderWay};
use super::{Pacing, Workload};
use crate::client::Core;
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

/// The peer that publishes. On the first engine only.
struct Publisher {
    /// The next message's number.
    next: u64,
    /// Closed loop.
    under_way: UnderWay,
    cadence: Cadence,
}

/// One core's subscribers, and on the first core the publisher.
pub(crate) struct Published<A> {
    pacing: Pacing,
    publisher: Option<Publisher>,
    audience: A,
    /// Closed loop: the subscribers of this core.
    awaited: Awaited,
}

impl<A: Audience> Published<A> {
    pub(super) fn to(audience: A, pacing: Pacing, core: &Core) -> Self {
        let publisher = Publisher { next: 0, under_way: UnderWay::default(), cadence: Cadence::new(pacing) };
        let publisher = (core.share.first == PUBLISHER).then_some(publisher);
        Self { pacing, publisher, audience, awaited: Awaited::default() }
    }

    /// Sends what may be sent now.
    fn publish(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        let Some(publisher) = &mut self.publisher else { return };
        while let Some(sent_at) = publisher.cadence.next(core, publisher.under_way.len()) {
            let (sender, seq) = self.audience.address(publisher.next);
            let push = core.send_as(cx, PUBLISHER as usize, sender, seq, sent_at);
            if !publisher.cadence.pushed(core, push) {
                return;
            }
            if matches!(self.pacing, Pacing::Closed { .. }) {
                publisher.under_way.sent(sent_at, self.audience.engines(publisher.next));
            }
            publisher.next += 1;
        }
    }

    /// One subscriber of this core has a message: says so when it was the last one.
    fn count(&mut self, cx: &mut Context<'_>, core: &mut Core, number: u64) {
        let Self { publisher, audience, awaited, .. } = self;
        let mut reached_here = false;
        awaited.count(
            number,
            |number| audience.subscribers(number),
            |number| match publisher {
                Some(publisher) => {
                    reached_here = true;
                    publisher.reached(core, number);
                }
                None => core.say_reached(0, PUBLISHER, number),
            },
        );
        if reached_here {
            self.publish(cx, core);
        }
    }
}

impl Publisher {
    /// One engine's subscribers all have a message.
    fn reached(&mut self, core: &mut Core, number: u64) {
        let now = clock::now_ns();
        self.under_way.reached(number, |sent_at| core.window().completed(now.saturating_sub(sent_at)));
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

    fn on_reached(&mut self, cx: &mut Context<'_>, core: &mut Core, _sender: u32, number: u64) {
        let Some(publisher) = &mut self.publisher else { return };
        publisher.reached(core, number);
        self.publish(cx, core);
    }
}
