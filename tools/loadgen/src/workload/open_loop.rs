//! Open loop: the messages of one core's peers, who take turns, from when they are due until they are sent.

use std::collections::VecDeque;

use corecast::Context;

use crate::arrivals::{Offered, Schedule};
use crate::client::{Core, Push};
use crate::clock;

/// Messages that the peers of a core, or the one that sends, may owe. What is due beyond that stays in the schedule, late, until there is
/// room: a server that takes nothing must not cost the generator all its memory.
pub(super) const MOST_OWED: usize = 1 << 22;

/// What one peer owes: messages that are due and have not been sent.
#[derive(Clone, Default)]
pub(super) struct Backlog {
    owed: VecDeque<Owed>,
}

#[derive(Clone, Copy)]
struct Owed {
    due: u64,
    /// When the generator would have sent it, had the peer not been told to wait. What it waits from then on is no fault of the generator.
    ready: Option<u64>,
}

impl Backlog {
    /// One more is due, to a peer that was told to wait, or not.
    pub(super) fn push(&mut self, due: u64, waiting: bool, now: u64) {
        self.owed.push_back(Owed { due, ready: waiting.then_some(now) });
    }

    /// When the first was due.
    pub(super) fn first(&self) -> Option<u64> {
        self.owed.front().map(|owed| owed.due)
    }

    /// The first has been sent.
    pub(super) fn sent(&mut self, core: &mut Core) {
        if let Some(Owed { due, ready }) = self.owed.pop_front() {
            let ready = ready.unwrap_or_else(|| core.departed());
            core.window().lagged(due, ready.saturating_sub(due));
        }
    }

    /// The peer was told to wait: all of it would have been sent now.
    pub(super) fn held(&mut self, now: u64) {
        // Those that were ready before are in front.
        self.owed.iter_mut().rev().take_while(|owed| owed.ready.is_none()).for_each(|owed| owed.ready = Some(now));
    }

    pub(super) fn len(&self) -> usize {
        self.owed.len()
    }
}

/// What is due, of each peer.
#[derive(Default)]
pub(crate) struct OpenLoop {
    schedule: Option<Schedule>,
    turn: usize,
    peers: Vec<Peer>,
    /// By all of them.
    owed: usize,
}

#[derive(Clone, Default)]
struct Peer {
    backlog: Backlog,
    /// Told to wait.
    waiting: bool,
}

impl OpenLoop {
    pub(crate) fn begin(&mut self, offered: &Offered, at: u64, core: &Core) {
        self.schedule = Some(Schedule::new(offered, at, &core.share));
        self.peers = vec![Peer::default(); core.count()];
    }

    /// Deals what has become due to the peers, and returns whose turn it was. Nothing in the other loops.
    pub(crate) fn deal(&mut self) -> Vec<usize> {
        let Some(schedule) = &mut self.schedule else { return Vec::new() };
        let now = clock::now_ns();
        let mut owing = Vec::new();
        while let Some(due) = (self.owed < MOST_OWED).then(|| schedule.due(now)).flatten() {
            self.owed += 1;
            let peer = &mut self.peers[self.turn];
            peer.backlog.push(due, peer.waiting, now);
            owing.push(self.turn);
            self.turn = (self.turn + 1) % self.peers.len();
        }
        owing
    }

    /// Sends what peer `index` owes, from its message `next_seq` on. Returns whether the peer must wait.
    pub(crate) fn catch_up(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, next_seq: &mut u64) -> bool {
        self.catch_up_by(core, index, next_seq, |core, seq, due| core.send(cx, index, seq, due))
    }

    /// The same, where `send` sends the message with this number that was due then.
    pub(crate) fn catch_up_by(
        &mut self,
        core: &mut Core,
        index: usize,
        next_seq: &mut u64,
        mut send: impl FnMut(&mut Core, u64, u64) -> Push,
    ) -> bool {
        let Some(Peer { backlog, waiting }) = self.peers.get_mut(index) else { return false };
        *waiting = false;
        while let Some(due) = backlog.first().filter(|_| core.sending) {
            let push = send(core, *next_seq, due);
            if push != Push::Refused {
                backlog.sent(core);
                self.owed -= 1;
                *next_seq += 1;
            }
            if push != Push::Taken {
                *waiting = true;
                backlog.held(clock::now_ns());
                break;
            }
        }
        *waiting
    }

    /// Messages that were due and have not been sent. One that has become due since the last look would have been.
    pub(crate) fn unsent(&self) -> u64 {
        let undealt = self.schedule.as_ref().filter(|_| self.owed >= MOST_OWED).map_or(0, |schedule| schedule.overdue(clock::now_ns()));
        self.owed as u64 + undealt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_knows_since_when_it_waits() {
        let mut backlog = Backlog::default();
        backlog.push(10, false, 12);
        backlog.push(20, true, 25);
        backlog.push(30, false, 32);
        backlog.push(40, false, 42);
        backlog.held(50);
        backlog.held(60);
        let ready: Vec<_> = backlog.owed.iter().map(|owed| (owed.due, owed.ready)).collect();
        // What was ready is not made ready again; what is behind it has become ready once.
        assert_eq!(ready, [(10, None), (20, Some(25)), (30, Some(50)), (40, Some(50))]);
        assert_eq!((backlog.first(), backlog.len()), (Some(10), 4));
    }
}
