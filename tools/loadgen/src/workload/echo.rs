//! Echo: every peer sends, the server sends it back, and the peer checks that it is what it sent.

use corecast::{Context, Message};

use super::open_loop::OpenLoop;
use super::{Pacing, Workload};
use crate::client::{Core, Push};
use crate::clock;
use crate::verify::Stream;

/// One peer's messages.
#[derive(Default)]
struct Flow {
    next_seq: u64,
    stream: Stream,
    /// Closed loop: sent and not back yet.
    outstanding: u32,
    /// Told to wait.
    blocked: bool,
}

/// One core's peers.
pub(crate) struct Echo {
    pacing: Pacing,
    flows: Vec<Flow>,
    open_loop: OpenLoop,
}

impl Echo {
    pub(crate) fn new(pacing: Pacing, peers: usize) -> Self {
        Self { pacing, flows: (0..peers).map(|_| Flow::default()).collect(), open_loop: OpenLoop::default() }
    }

    /// Closed loop: sends until as many are under way as may be.
    fn fill(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        let Pacing::Closed { in_flight } = self.pacing else { return };
        let flow = &mut self.flows[index];
        while core.sending && !flow.blocked && flow.outstanding < in_flight {
            let push = core.send(cx, index, flow.next_seq, clock::now_ns());
            flow.blocked = push != Push::Taken;
            if push != Push::Refused {
                flow.next_seq += 1;
                flow.outstanding += 1;
            }
        }
    }

    /// Open loop: sends what is overdue.
    fn catch_up(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        let flow = &mut self.flows[index];
        if !flow.blocked {
            flow.blocked = self.open_loop.catch_up(cx, core, index, &mut flow.next_seq);
        }
    }

    fn resume(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        self.flows[index].blocked = false;
        self.fill(cx, core, index);
        self.catch_up(cx, core, index);
    }
}

impl Workload for Echo {
    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, at: u64) {
        match &self.pacing {
            Pacing::Open(offered) => self.open_loop.begin(offered, at, core),
            Pacing::Closed { .. } | Pacing::Greedy => (0..core.count()).for_each(|index| self.fill(cx, core, index)),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>) {
        let Some(header) = core.parse(&message) else { return };
        if header.sender != core.number(index) {
            core.tally.corrupt += 1;
            return;
        }
        let flow = &mut self.flows[index];
        let verdict = flow.stream.accept(header.seq);
        flow.outstanding = flow.outstanding.saturating_sub(1);
        core.arrived(verdict, &header, clock::now_ns());
        self.fill(cx, core, index);
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        self.resume(cx, core, index);
    }

    fn on_pace(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        if core.sending {
            for index in self.open_loop.deal() {
                self.catch_up(cx, core, index);
            }
        }
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>, core: &mut Core) {
        core.unsent = self.open_loop.unsent();
    }

    fn on_tick(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        for index in 0..self.flows.len() {
            if self.flows[index].blocked {
                self.resume(cx, core, index);
            }
        }
    }
}
