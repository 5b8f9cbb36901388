//! Mixed: small messages in the high lane go to the server and back while, in half of the phases, the server sends bulk to the same peers.
//!
//! What is measured is the high lane's round trip. Its way there is free: only requests for bulk go along with it. Its way back leads
//! through the outbox that holds the bulk, through what the kernel has taken of it already, and through a client that receives it.
//! The client asks for each bulk message, so that as many are under way as it was told, and the outbox has a bound.

use corecast::{Context, Lane, Message};

use super::open_loop::OpenLoop;
use super::{Bulk, Workload};
use crate::arrivals::Offered;
use crate::bulk::{self, BULK};
use crate::client::Core;
use crate::clock;
use crate::measure::Condition;
use crate::verify::{Stream, Verdict};

/// One peer's messages in both lanes.
#[derive(Default)]
struct Flow {
    next_seq: u64,
    stream: Stream,
    /// Told to wait.
    blocked: bool,
    /// Bulk messages that were asked for.
    asked: u64,
    bulk: Stream,
    /// Asked for and not there yet.
    outstanding: u32,
}

/// One core's peers.
pub(crate) struct Mixed {
    offered: Offered,
    bulk: Bulk,
    /// Whether bulk is asked for.
    asking: bool,
    /// Of all peers.
    outstanding: u64,
    flows: Vec<Flow>,
    open_loop: OpenLoop,
}

impl Mixed {
    pub(crate) fn new(offered: Offered, bulk: Bulk, peers: usize) -> Self {
        let flows = (0..peers).map(|_| Flow::default()).collect();
        Self { offered, bulk, asking: false, outstanding: 0, flows, open_loop: OpenLoop::default() }
    }

    fn catch_up(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        let flow = &mut self.flows[index];
        if !flow.blocked {
            flow.blocked = self.open_loop.catch_up(cx, core, index, &mut flow.next_seq);
        }
    }

    /// Asks for bulk until as much is under way as may be. What is refused is asked for again by and by.
    fn ask(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        let flow = &mut self.flows[index];
        while core.sending && self.asking && flow.outstanding < self.bulk.ahead && core.pull(cx, index, flow.asked, self.bulk.size) {
            flow.asked += 1;
            flow.outstanding += 1;
            self.outstanding += 1;
        }
        core.outstanding(self.outstanding);
    }

    fn on_bulk(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>) {
        let flow = &mut self.flows[index];
        let number = bulk::number(message.body, self.bulk.size, flow.bulk.next());
        let Some(number) = number.filter(|_| message.meta.lane == Lane::Bulk) else {
            core.tally.corrupt += 1;
            return;
        };
        let verdict = flow.bulk.accept(number);
        core.bulk_arrived(index, verdict);
        if verdict != Verdict::Duplicate && flow.outstanding > 0 {
            flow.outstanding -= 1;
            self.outstanding -= 1;
        }
        self.ask(cx, core, index);
    }
}

impl Workload for Mixed {
    fn begin(&mut self, _cx: &mut Context<'_>, core: &mut Core, at: u64) {
        self.open_loop.begin(&self.offered, at, core);
    }

    fn enter(&mut self, cx: &mut Context<'_>, core: &mut Core, condition: Condition) {
        self.asking = condition == Condition::Disturbed;
        (0..self.flows.len()).for_each(|index| self.ask(cx, core, index));
    }

    fn on_message(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>) {
        if message.meta.message_type == BULK {
            return self.on_bulk(cx, core, index, message);
        }
        let Some(header) = core.parse(&message) else { return };
        if header.sender != core.number(index) {
            core.tally.corrupt += 1;
            return;
        }
        let verdict = self.flows[index].stream.accept(header.seq);
        core.answered(verdict, &header, clock::now_ns());
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        self.flows[index].blocked = false;
        self.catch_up(cx, core, index);
    }

    fn on_pace(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        if core.sending {
            for index in self.open_loop.deal() {
                self.catch_up(cx, core, index);
            }
        }
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>, core: &mut Core) {
        self.asking = false;
        core.unsent = self.open_loop.unsent();
    }

    fn on_tick(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        for index in 0..self.flows.len() {
            if self.flows[index].blocked {
                self.on_drained(cx, core, index);
            }
            self.ask(cx, core, index);
        }
    }
}
