//! When the next message of one peer is to be sent that sends for the whole run.

use super::Pacing;
use super::open_loop::{Backlog, MOST_OWED};
use crate::arrivals::Schedule;
use crate::client::{Core, Push, Share};
use crate::clock;

/// One peer's pacing.
pub(super) struct Cadence {
    pacing: Pacing,
    /// Open loop.
    schedule: Option<Schedule>,
    /// Open loop: what is due and has not been sent.
    backlog: Backlog,
    /// Told to wait.
    blocked: bool,
}

impl Cadence {
    pub(super) fn new(pacing: Pacing) -> Self {
        Self { pacing, schedule: None, backlog: Backlog::default(), blocked: false }
    }

    /// With a fixed rate, the first message is due at `at`.
    pub(super) fn begin(&mut self, at: u64, core: &Core) {
        if let Pacing::Open(offered) = &self.pacing {
            // One engine sends, so the rate is not shared.
            let share = Share { engine: 0, engines: 1, ..core.share };
            self.schedule = Some(Schedule::new(offered, at, &share));
        }
    }

    /// Looks at what has become due.
    pub(super) fn look(&mut self) {
        let Some(schedule) = &mut self.schedule else { return };
        let now = clock::now_ns();
        while let Some(due) = (self.backlog.len() < MOST_OWED).then(|| schedule.due(now)).flatten() {
            self.backlog.push(due, self.blocked, now);
        }
    }

    /// When the message that is to be sent now is said to be sent, where so many are under way. Nothing: none is to be sent now.
    pub(super) fn next(&self, core: &Core, under_way: usize) -> Option<u64> {
        match self.pacing {
            _ if self.blocked || !core.sending => None,
            Pacing::Closed { in_flight } => (under_way < in_flight as usize).then(clock::now_ns),
            Pacing::Open(_) => self.backlog.first(),
            Pacing::Greedy => None,
        }
    }

    /// That message was sent, or not. Returns whether it was.
    pub(super) fn pushed(&mut self, core: &mut Core, push: Push) -> bool {
        self.blocked = push != Push::Taken;
        if push != Push::Refused {
            self.backlog.sent(core);
        }
        if self.blocked {
            self.backlog.held(clock::now_ns());
        }
        push != Push::Refused
    }

    /// The peer takes messages again.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Messages that were due and have not been sent.
    pub(super) fn unsent(&self) -> u64 {
        let owed = self.backlog.len();
        let undealt = self.schedule.as_ref().filter(|_| owed >= MOST_OWED).map_or(0, |schedule| schedule.overdue(clock::now_ns()));
        owed as u64 + undealt
    }
}
