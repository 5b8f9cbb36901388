//! All-to-all: every peer sends, the server sends each message to all others, and every peer checks that it has each message of every
//! other once and in order.
//!
//! Each sender has a stream of its own at each receiver, so what is missing is known by sender and receiver. In the closed loop a peer's
//! message is under way until every other peer has it.

use corecast::{Context, Message};

use super::open_loop::OpenLoop;
use super::reach::{Awaited, UnderWay};
use super::{Pacing, Workload};
use crate::client::{Core, Push, Share};
use crate::clock;
use crate::pairs::Pairs;
use crate::verify::{Stream, Verdict};

/// What one peer sends.
#[derive(Default)]
struct Flow {
    next_seq: u64,
    /// Closed loop.
    under_way: UnderWay,
    /// Told to wait.
    blocked: bool,
}

/// One core's peers.
pub(crate) struct AllToAll {
    pacing: Pacing,
    flows: Vec<Flow>,
    open_loop: OpenLoop,
    /// The shares of all engines of the run.
    shares: Vec<Share>,
    /// What each peer of this core has received of each of the run: receiver by receiver. Nobody's own is used.
    streams: Vec<Stream>,
    /// Closed loop: of each peer of the run, what the peers of this core do not have.
    awaited: Vec<Awaited>,
}

impl AllToAll {
    pub(crate) fn new(pacing: Pacing, core: &Core) -> Self {
        let total = core.share.total as usize;
        Self {
            pacing,
            flows: (0..core.count()).map(|_| Flow::default()).collect(),
            open_loop: OpenLoop::default(),
            shares: Share::split(core.share.total, core.share.engines),
            streams: (0..core.count() * total).map(|_| Stream::default()).collect(),
            awaited: (0..total).map(|_| Awaited::default()).collect(),
        }
    }

    /// Engines with somebody else than a sender of this one.
    fn engines(core: &Core) -> usize {
        core.share.engines - usize::from(core.share.count == 1)
    }

    /// Closed loop: sends until as many are under way as may be.
    fn fill(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        let Pacing::Closed { in_flight } = self.pacing else { return };
        let flow = &mut self.flows[index];
        while core.sending && !flow.blocked && flow.under_way.len() < in_flight as usize {
            let sent_at = clock::now_ns();
            let push = core.send(cx, index, flow.next_seq, sent_at);
            flow.blocked = push != Push::Taken;
            if push != Push::Refused {
                flow.next_seq += 1;
                flow.under_way.sent(sent_at, Self::engines(core));
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

    /// One peer of this core has a sender's message: says so when it was the last one.
    fn count(&mut self, cx: &mut Context<'_>, core: &mut Core, sender: u32, number: u64) {
        let own = core.index(sender);
        let receivers = core.share.count - u32::from(own.is_some());
        let mut reached = Vec::new();
        self.awaited[sender as usize].count(number, |_| receivers, |number| reached.push(number));
        for number in reached {
            if own.is_some() {
                self.on_reached(cx, core, sender, number);
            } else if let Some(share) = self.shares.iter().find(|share| share.contains(sender)) {
                core.say_reached(share.engine, sender, number);
            }
        }
    }
}

impl Workload for AllToAll {
    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, at: u64) {
        match self.pacing {
            Pacing::Open(offered) => self.open_loop.begin(&offered, at, core),
            Pacing::Closed { .. } | Pacing::Greedy => (0..core.count()).for_each(|index| self.fill(cx, core, index)),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>) {
        let Some(header) = core.parse(&message) else { return };
        // Nobody gets his own.
        if header.sender >= core.share.total || header.sender == core.number(index) {
            core.tally.corrupt += 1;
            return;
        }
        let stream = index * core.share.total as usize + header.sender as usize;
        let verdict = self.streams[stream].accept(header.seq);
        core.arrived(verdict, &header, clock::now_ns());
        if verdict != Verdict::Duplicate && matches!(self.pacing, Pacing::Closed { .. }) {
            self.count(cx, core, header.sender, header.seq);
        }
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

    fn on_reached(&mut self, cx: &mut Context<'_>, core: &mut Core, sender: u32, number: u64) {
        let Some(index) = core.index(sender) else { return };
        let now = clock::now_ns();
        self.flows[index].under_way.reached(number, |sent_at| core.window().completed(now.saturating_sub(sent_at)));
        self.fill(cx, core, index);
    }

    fn pairs(&self, core: &Core) -> Option<Pairs> {
        Some(Pairs {
            first: core.share.first,
            sent: self.flows.iter().map(|flow| flow.next_seq).collect(),
            received: self.streams.iter().map(Stream::received).collect(),
        })
    }
}
