//! Open loop: the messages of one core's peers, who take turns, from when they are due until they are sent.

use std::collections::VecDeque;

use corecast::Context;

use crate::client::{Core, Push};
use crate::clock;
use crate::pacer::Schedule;

/// What is due, of each peer.
#[derive(Default)]
pub(crate) struct OpenLoop {
    schedule: Option<Schedule>,
    turn: usize,
    /// When the messages that have not been sent were due.
    overdue: Vec<VecDeque<u64>>,
}

impl OpenLoop {
    pub(crate) fn begin(&mut self, rate: f64, at: u64, core: &Core) {
        self.schedule = Some(Schedule::new(rate, at, &core.share));
        self.overdue = vec![VecDeque::new(); core.count()];
    }

    /// Deals what has become due to the peers, and returns whose turn it was. Nothing in the other loops.
    pub(crate) fn deal(&mut self) -> Vec<usize> {
        let Some(schedule) = &mut self.schedule else { return Vec::new() };
        let now = clock::now_ns();
        let mut owing = Vec::new();
        while let Some(due) = schedule.due(now) {
            self.overdue[self.turn].push_back(due);
            owing.push(self.turn);
            self.turn = (self.turn + 1) % self.overdue.len();
        }
        owing
    }

    /// Sends what peer `index` owes, from its message `next_seq` on. Returns whether the peer must wait.
    pub(crate) fn catch_up(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, next_seq: &mut u64) -> bool {
        let Some(overdue) = self.overdue.get_mut(index) else { return false };
        while let Some(&due) = overdue.front().filter(|_| core.sending) {
            let push = core.send(cx, index, *next_seq, due);
            if push != Push::Refused {
                core.window().lagged(clock::now_ns().saturating_sub(due));
                *next_seq += 1;
                overdue.pop_front();
            }
            if push != Push::Taken {
                return true;
            }
        }
        false
    }

    /// Messages that were due and have not been sent.
    pub(crate) fn unsent(&self) -> u64 {
        self.overdue.iter().map(|overdue| overdue.len() as u64).sum()
    }
}
