//! Flood: every peer sends as fast as backpressure lets it, or as it was told; the server counts and verifies.
//!
//! What arrived is asked of the server at the end, peer by peer and behind the peer's last message, so the answer also says that the
//! peer's stream has come to its end. With a bound on what is in flight the same question is asked every half of the bound: its answer
//! acknowledges what came before it.

use corecast::{Context, Message};

use super::open_loop::OpenLoop;
use super::{Pacing, Workload};
use crate::client::{Core, Push};
use crate::clock;
use crate::probe::Sample;

/// Messages that one peer sends before the others have their turn.
const BURST: u32 = 64;

/// One peer's messages.
#[derive(Clone, Default)]
struct Flow {
    next_seq: u64,
    blocked: bool,
    /// Closed loop: messages that the server is known to have.
    acknowledged: u64,
    /// Closed loop: messages that the last question covers.
    asked: u64,
    /// Closed loop: questions without an answer.
    unanswered: u32,
}

/// One core's peers.
pub(crate) struct Flood {
    pacing: Pacing,
    flows: Vec<Flow>,
    open_loop: OpenLoop,
}

impl Flood {
    pub(crate) fn new(pacing: Pacing, peers: usize) -> Self {
        Self { pacing, flows: vec![Flow::default(); peers], open_loop: OpenLoop::default() }
    }

    /// Sends until the peer is told to wait, or has had its burst. Returns whether it could send more.
    fn burst(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) -> bool {
        let in_flight = match self.pacing {
            Pacing::Closed { in_flight } => Some(u64::from(in_flight)),
            Pacing::Greedy => None,
            Pacing::Open(_) => return false,
        };
        for _ in 0..BURST {
            let flow = &mut self.flows[index];
            if !core.sending || flow.blocked || in_flight.is_some_and(|most| flow.next_seq - flow.acknowledged >= most) {
                return false;
            }
            let push = core.send(cx, index, flow.next_seq, clock::now_ns());
            flow.blocked = push != Push::Taken;
            flow.next_seq += u64::from(push != Push::Refused);
            if in_flight.is_some_and(|most| flow.next_seq - flow.asked >= most.div_ceil(2)) {
                self.ask(cx, core, index);
            }
        }
        true
    }

    /// Asks for an acknowledgement of all that the peer has sent. What is refused is asked again by and by.
    fn ask(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        if core.ask_for_acknowledgement(cx, index) {
            let flow = &mut self.flows[index];
            flow.asked = flow.next_seq;
            flow.unanswered += 1;
        }
    }

    fn fill(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        while self.burst(cx, core, index) {}
    }

    fn catch_up(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        let flow = &mut self.flows[index];
        if !flow.blocked {
            flow.blocked = self.open_loop.catch_up(cx, core, index, &mut flow.next_seq);
        }
    }
}

impl Workload for Flood {
    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, at: u64) {
        if let Pacing::Open(offered) = &self.pacing {
            self.open_loop.begin(offered, at, core);
        }
        let mut willing: Vec<usize> = (0..core.count()).collect();
        while !willing.is_empty() {
            willing.retain(|index| self.burst(cx, core, *index));
        }
    }

    fn on_message(&mut self, _cx: &mut Context<'_>, core: &mut Core, _index: usize, _message: Message<'_>) {
        // A sink sends nothing but answers.
        core.tally.corrupt += 1;
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        self.flows[index].blocked = false;
        self.fill(cx, core, index);
        self.catch_up(cx, core, index);
    }

    fn on_pace(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        if core.sending {
            for index in self.open_loop.deal() {
                self.catch_up(cx, core, index);
            }
        }
    }

    fn on_tick(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        if !core.sending {
            return;
        }
        for index in 0..core.count() {
            let flow = &self.flows[index];
            if matches!(self.pacing, Pacing::Closed { .. }) && flow.unanswered == 0 && flow.acknowledged < flow.next_seq {
                self.ask(cx, core, index);
            }
            self.on_drained(cx, core, index);
        }
    }

    fn on_stop(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        core.unsent = self.open_loop.unsent();
        (0..core.count()).for_each(|index| core.ask_for_tally(cx, index));
    }

    fn on_tally(&mut self, _cx: &mut Context<'_>, core: &mut Core, index: usize, sample: &Sample) {
        core.arrived_at_server(index, sample.tally);
    }

    fn on_acknowledged(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, sample: Option<&Sample>) {
        let flow = &mut self.flows[index];
        flow.unanswered = flow.unanswered.saturating_sub(1);
        if let Some(Sample { tally, .. }) = sample {
            // A damaged message is in flight no longer either.
            flow.acknowledged = flow.acknowledged.max(tally.delivered + tally.corrupt).min(flow.next_seq);
        }
        self.fill(cx, core, index);
    }
}
