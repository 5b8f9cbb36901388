//! Fan-out: one peer publishes, the server sends each message to all others, and every subscriber checks that it has each once and in
//! order.
//!
//! The run's peer 0 publishes. It is on the first engine; the subscribers are on all. In the closed loop every engine tells the first
//! one when its last subscriber has a broadcast, and the publisher goes on when all engines have.

use std::collections::VecDeque;

use corecast::{Context, Message};

use super::{Pacing, Workload};
use crate::client::{Command, Core, Push};
use crate::clock;
use crate::pacer::Schedule;
use crate::verify::{Stream, Verdict};

/// The run's number of the publishing peer, and its position on the first engine.
const PUBLISHER: u32 = 0;

/// A broadcast that some engine's subscribers do not have yet.
struct Unfinished {
    sent_at: u64,
    /// Engines whose subscribers do not all have it.
    engines: usize,
}

/// The peer that publishes. On the first engine only.
struct Publisher {
    next_seq: u64,
    /// Closed loop: `seq` of the first is `next_seq - len`.
    unfinished: VecDeque<Unfinished>,
    /// Open loop.
    schedule: Option<Schedule>,
    /// Open loop: when the messages that could not be sent were due.
    overdue: VecDeque<u64>,
    /// Told to wait.
    blocked: bool,
}

/// One core's subscribers, and on the first core the publisher.
pub(crate) struct Fanout {
    pacing: Pacing,
    publisher: Option<Publisher>,
    /// Engines with subscribers.
    engines: usize,
    /// What each peer has received; the publisher's stays empty.
    streams: Vec<Stream>,
    subscribers: u32,
    /// Closed loop: how many subscribers of this core do not have a broadcast yet, from `first` on.
    awaited: VecDeque<u32>,
    first: u64,
}

impl Fanout {
    pub(crate) fn new(pacing: Pacing, core: &Core) -> Self {
        let publishes = core.share.first == PUBLISHER;
        let publisher = publishes.then(|| Publisher {
            next_seq: 0,
            unfinished: VecDeque::new(),
            schedule: None,
            overdue: VecDeque::new(),
            blocked: false,
        });
        // The first engine may have the publisher and nobody else.
        let alone = core.share.total as usize == core.share.engines;
        Self {
            pacing,
            publisher,
            engines: core.share.engines - usize::from(alone),
            streams: (0..core.count()).map(|_| Stream::default()).collect(),
            subscribers: core.share.count - u32::from(publishes),
            awaited: VecDeque::new(),
            first: 0,
        }
    }

    /// Sends what may be sent now.
    fn publish(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        let Some(publisher) = &mut self.publisher else { return };
        while core.sending && !publisher.blocked {
            let sent_at = match self.pacing {
                Pacing::Closed { in_flight } if publisher.unfinished.len() < in_flight as usize => clock::now_ns(),
                Pacing::Open { .. } if !publisher.overdue.is_empty() => publisher.overdue[0],
                _ => return,
            };
            let push = core.send(cx, PUBLISHER as usize, publisher.next_seq, sent_at);
            publisher.blocked = push != Push::Taken;
            if push == Push::Refused {
                return;
            }
            publisher.next_seq += 1;
            if matches!(self.pacing, Pacing::Closed { .. }) {
                publisher.unfinished.push_back(Unfinished { sent_at, engines: self.engines });
            } else {
                publisher.overdue.pop_front();
                core.window().lagged(clock::now_ns().saturating_sub(sent_at));
            }
        }
    }

    /// One subscriber of this core has it: says so when it was the last one.
    fn count(&mut self, cx: &mut Context<'_>, core: &mut Core, seq: u64) {
        let Some(at) = seq.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        // A gap opens one entry for each broadcast in it; the checksum keeps `seq` from being just anything.
        while self.awaited.len() <= at {
            self.awaited.push_back(self.subscribers);
        }
        self.awaited[at] = self.awaited[at].saturating_sub(1);
        while self.awaited.front() == Some(&0) {
            self.awaited.pop_front();
            let seq = self.first;
            self.first += 1;
            if self.publisher.is_some() {
                self.on_reached(cx, core, seq);
            } else if let Some(first) = core.common.handles.get().and_then(|handles| handles.first()) {
                // As many are under way as broadcasts, and the inbox was made to hold those.
                let _ = first.post(0, Command::Reached { seq });
            }
        }
    }
}

impl Workload for Fanout {
    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, at: u64) {
        if let (Some(publisher), Pacing::Open { rate }) = (&mut self.publisher, self.pacing) {
            // One engine publishes, so the rate is not shared.
            let share = crate::client::Share { engine: 0, engines: 1, ..core.share };
            publisher.schedule = Some(Schedule::new(rate, at, &share));
        }
        self.publish(cx, core);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>) {
        let Some(header) = core.parse(&message) else { return };
        let publisher = core.share.first + index as u32 == PUBLISHER;
        if header.sender != PUBLISHER || publisher {
            // Nobody else publishes in this run, and the publisher must not get its own.
            core.tally.corrupt += 1;
            return;
        }
        let verdict = self.streams[index].accept(header.seq);
        core.arrived(verdict, &header, clock::now_ns());
        if verdict != Verdict::Duplicate && matches!(self.pacing, Pacing::Closed { .. }) {
            self.count(cx, core, header.seq);
        }
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, core: &mut Core, _index: usize) {
        if let Some(publisher) = &mut self.publisher {
            publisher.blocked = false;
        }
        self.publish(cx, core);
    }

    fn on_pace(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        let Some(publisher) = &mut self.publisher else { return };
        let Some(schedule) = &mut publisher.schedule else { return };
        let now = clock::now_ns();
        while let Some(due) = schedule.due(now) {
            publisher.overdue.push_back(due);
        }
        self.publish(cx, core);
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>, core: &mut Core) {
        core.unsent = self.publisher.as_ref().map_or(0, |publisher| publisher.overdue.len() as u64);
    }

    fn on_tick(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        self.on_drained(cx, core, PUBLISHER as usize);
    }

    fn on_reached(&mut self, cx: &mut Context<'_>, core: &mut Core, seq: u64) {
        let Some(publisher) = &mut self.publisher else { return };
        let first = publisher.next_seq - publisher.unfinished.len() as u64;
        let broadcast = seq.checked_sub(first).and_then(|at| publisher.unfinished.get_mut(at as usize));
        let Some(broadcast) = broadcast else { return };
        broadcast.engines = broadcast.engines.saturating_sub(1);
        let now = clock::now_ns();
        while publisher.unfinished.front().is_some_and(|broadcast| broadcast.engines == 0) {
            if let Some(broadcast) = publisher.unfinished.pop_front() {
                core.window().completed(now.saturating_sub(broadcast.sent_at));
            }
        }
        self.publish(cx, core);
    }
}
