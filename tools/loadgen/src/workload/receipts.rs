//! Receipts: the server broadcasts what one peer sends to all peers, that one among them; each acknowledges it, and the server says when
//! the first did, when a quorum had, and when the last did.
//!
//! The run's peer 0 has the broadcasts made. The times are the receipts' own: from the broadcast to the acknowledgements' arrival, by the
//! clock of the server's engine. In the closed loop the next one is sent when the server has said what came of an earlier one. Whatever
//! a receipt says, each subscriber checks that it has each message once and in order, as one to be acknowledged.

use corecast::{Context, Message, SendError};

use super::cadence::Cadence;
use super::{Pacing, Workload};
use crate::acked::{SETTLED, Settled, Terms};
use crate::client::Core;
use crate::clock;
use crate::verify::{Stream, Verdict};

/// The run's number of the peer that has the broadcasts made, and its position on the first engine.
const SENDER: u32 = 0;

/// The peer that has the broadcasts made. On the first engine only.
struct Sender {
    next_seq: u64,
    cadence: Cadence,
    /// What the server has said of the broadcasts.
    settled: Stream,
    /// Of how many it has said nothing.
    outstanding: u64,
}

/// One core's subscribers, and on the first core the sender.
pub(crate) struct Receipts {
    terms: Terms,
    sender: Option<Sender>,
    streams: Vec<Stream>,
}

impl Receipts {
    pub(crate) fn new(pacing: Pacing, terms: Terms, core: &Core) -> Self {
        let sender = Sender { next_seq: 0, cadence: Cadence::new(pacing), settled: Stream::default(), outstanding: 0 };
        let streams = (0..core.count()).map(|_| Stream::default()).collect();
        Self { terms, sender: (core.share.first == SENDER).then_some(sender), streams }
    }

    /// Sends what may be sent now.
    fn send(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        let Some(sender) = &mut self.sender else { return };
        while let Some(sent_at) = sender.cadence.next(core, sender.outstanding as usize) {
            let push = core.send(cx, SENDER as usize, sender.next_seq, sent_at);
            if !sender.cadence.pushed(core, push) {
                break;
            }
            sender.next_seq += 1;
            sender.outstanding += 1;
        }
        core.outstanding(sender.outstanding);
    }

    fn on_settled(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>) {
        let settled = Settled::decode(message.body);
        let known = self.sender.as_mut().filter(|_| core.number(index) == SENDER).zip(settled);
        let Some((sender, settled)) = known.filter(|(sender, settled)| settled.seq < sender.next_seq) else {
            core.tally.corrupt += 1;
            return;
        };
        // Receipts end in any order, and each once.
        if sender.settled.accept(settled.seq) == Verdict::Duplicate {
            core.tally.duplicated += 1;
            return;
        }
        sender.outstanding -= 1;
        core.settled(&settled);
        self.send(cx, core);
    }
}

impl Workload for Receipts {
    fn on_connected(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) -> Result<(), SendError> {
        if core.number(index) == SENDER { core.say_terms(cx, index, self.terms) } else { Ok(()) }
    }

    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, at: u64) {
        if let Some(sender) = &mut self.sender {
            sender.cadence.begin(at, core);
        }
        self.send(cx, core);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>) {
        if message.meta.message_type == SETTLED {
            return self.on_settled(cx, core, index, message);
        }
        let Some(header) = core.parse(&message) else { return };
        if header.sender != SENDER || !message.requires_ack() {
            core.tally.corrupt += 1;
            return;
        }
        let verdict = self.streams[index].accept(header.seq);
        core.arrived(verdict, &header, clock::now_ns());
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, core: &mut Core, _index: usize) {
        if let Some(sender) = &mut self.sender {
            sender.cadence.unblock();
        }
        self.send(cx, core);
    }

    fn on_pace(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        if let Some(sender) = &mut self.sender {
            sender.cadence.look();
        }
        self.send(cx, core);
    }

    fn on_tick(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        self.on_drained(cx, core, SENDER as usize);
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>, core: &mut Core) {
        core.unsent = self.sender.as_ref().map_or(0, |sender| sender.cadence.unsent());
    }
}
