//! Request: every peer asks, by the library's requests, and the server answers each with what it was asked.
//!
//! Each request comes to exactly one end: its answer, or its deadline. Which request an answer belongs to is the library's word, by its
//! correlation; what the answer says must be the same. Answers may overtake each other, so their order is not looked at.

use std::time::Duration;

use corecast::{Context, Message, RequestError};

use super::open_loop::OpenLoop;
use super::{Pacing, Workload};
use crate::client::{Core, Push};
use crate::clock;
use crate::verify::{Stream, Verdict};

/// One peer's requests.
#[derive(Default)]
struct Flow {
    next_seq: u64,
    /// Those that have come to their end.
    ended: Stream,
    /// Closed loop: those that have not.
    outstanding: u32,
    /// Told to wait.
    blocked: bool,
}

/// One core's peers.
pub(crate) struct Request {
    pacing: Pacing,
    deadline: Duration,
    flows: Vec<Flow>,
    open_loop: OpenLoop,
}

impl Request {
    pub(crate) fn new(pacing: Pacing, deadline: Duration, peers: usize) -> Self {
        let flows = (0..peers).map(|_| Flow::default()).collect();
        Self { pacing, deadline, flows, open_loop: OpenLoop::default() }
    }

    /// Closed loop: asks until as many are under way as may be.
    fn fill(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        let Pacing::Closed { in_flight } = self.pacing else { return };
        let (flow, deadline) = (&mut self.flows[index], self.deadline);
        while core.sending && !flow.blocked && flow.outstanding < in_flight {
            let push = core.request(cx, index, flow.next_seq, clock::now_ns(), deadline);
            flow.blocked = push != Push::Taken;
            if push != Push::Refused {
                flow.next_seq += 1;
                flow.outstanding += 1;
            }
        }
    }

    /// Open loop: asks what is overdue.
    fn catch_up(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        let (flow, deadline) = (&mut self.flows[index], self.deadline);
        if !flow.blocked {
            let ask = |core: &mut Core, seq, due| core.request(cx, index, seq, due, deadline);
            flow.blocked = self.open_loop.catch_up_by(core, index, &mut flow.next_seq, ask);
        }
    }

    fn resume(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        self.flows[index].blocked = false;
        self.fill(cx, core, index);
        self.catch_up(cx, core, index);
    }
}

impl Workload for Request {
    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, at: u64) {
        match self.pacing {
            Pacing::Open(offered) => self.open_loop.begin(&offered, at, core),
            Pacing::Closed { .. } | Pacing::Greedy => (0..core.count()).for_each(|index| self.fill(cx, core, index)),
        }
    }

    fn on_message(&mut self, _cx: &mut Context<'_>, core: &mut Core, _index: usize, _message: Message<'_>) {
        // Nothing comes but answers.
        core.tally.corrupt += 1;
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, seq: u64, answer: Result<Message<'_>, RequestError>) {
        let flow = &mut self.flows[index];
        flow.outstanding = flow.outstanding.saturating_sub(1);
        let first = flow.ended.accept(seq) != Verdict::Duplicate;
        match answer {
            _ if !first => core.tally.duplicated += 1,
            Ok(message) => core.responded(index, seq, &message),
            Err(error) => core.unanswered(error),
        }
        self.resume(cx, core, index);
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
