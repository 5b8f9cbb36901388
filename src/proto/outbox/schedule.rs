//! The order in which the lanes of an outbox leave.
//!
//! 1. A frame that has begun is finished.
//! 2. Everything of the control lane.
//! 3. The message lanes by deficit round robin. In each round a lane has an allowance, its quantum. The most urgent lane that waits and has
//!    some of it left sends whole frames until it has used it up; by how much the last frame went beyond it, the lane has less in the next
//!    round. When no lane that waits has any left, the next round begins. A lane that is idle saves nothing up, but keeps what it has left
//!    of the round: so a message that comes into an idle lane leaves after the frame that is under way, while a lane that never
//!    runs empty takes its quantum of each round and no more.
//!
//! All that is sent is charged. While one lane waits alone, its rounds go by bytes: nobody cares where in a frame a round began, and no
//! border has to be found. When the outbox runs empty, all begin afresh.
//!
//! [`Plan`] is this order, as runs of bytes. It reads an outbox and does not change it, so listing and taking off go by the same order.

use super::queue::Queue;
use super::{CONTROL, LANES, Outbox, Started};
use crate::proto::log::Logs;
use crate::wire::Lane;

const MESSAGE_LANES: usize = Lane::ALL.len();

/// How many bytes each message lane may send in one round, the most urgent lane first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quanta([u32; MESSAGE_LANES]);

impl Quanta {
    /// Each at least 1 and at most 1 GiB. Where a quantum is smaller than a fragment, a round is a fragment; below some 1 KiB many small
    /// messages make many short slices.
    pub(crate) const fn new(bytes: [u32; MESSAGE_LANES]) -> Self {
        const fn clamp(bytes: u32) -> u32 {
            if bytes < 1 {
                1
            } else if bytes > 1 << 30 {
                1 << 30
            } else {
                bytes
            }
        }
        Self([clamp(bytes[0]), clamp(bytes[1]), clamp(bytes[2])])
    }
}

/// What the message lanes have used of their allowances. All zero: nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rounds {
    /// Less than the quantum: the rest may be sent. More: debt.
    spent: [u32; MESSAGE_LANES],
}

impl Rounds {
    fn has_allowance(&self, lane: usize, quanta: &Quanta) -> bool {
        self.spent[lane] < quanta.0[lane]
    }

    /// So many rounds go by.
    fn next(&mut self, rounds: u32, quanta: &Quanta) {
        for (spent, quantum) in self.spent.iter_mut().zip(quanta.0) {
            *spent = spent.saturating_sub(rounds.saturating_mul(quantum));
        }
    }

    fn charge(&mut self, lane: usize, bytes: usize, alone: bool, quanta: &Quanta) {
        let (spent, quantum) = (self.spent[lane] as usize + bytes, quanta.0[lane] as usize);
        if alone && spent >= quantum {
            self.next(u32::try_from(spent / quantum).unwrap_or(u32::MAX), quanta);
            self.spent[lane] = (spent % quantum) as u32;
        } else {
            // Not alone, a lane goes at most one frame beyond its quantum.
            self.spent[lane] = spent as u32;
        }
    }
}

/// Bytes of one lane that leave in one go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) lane: usize,
    pub(super) bytes: usize,
}

/// The order from here on: [`Plan::next`] says what leaves next, [`Plan::take`] that it has.
pub(super) struct Plan<'a> {
    outbox: &'a Outbox,
    logs: &'a Logs,
    quanta: &'a Quanta,
    /// Bytes of each lane that wait.
    waiting: [usize; LANES],
    started: Started,
    rounds: Rounds,
    /// For each message lane, where its next run begins.
    marks: [Mark; MESSAGE_LANES],
}

/// A border between frames of a lane.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// Which span; behind the last, the part of the log that is implied.
    span: usize,
    /// Where in it.
    offset: usize,
    /// Bytes of the tail before the span.
    tail: usize,
}

impl<'a> Plan<'a> {
    /// `waiting`: the bytes of each lane.
    pub(super) fn new(outbox: &'a Outbox, logs: &'a Logs, quanta: &'a Quanta, waiting: [usize; LANES]) -> Self {
        let mut started = outbox.started;
        if (0..LANES).all(|lane| lane == started.lane as usize || waiting[lane] == 0) {
            // It is finished first in any case.
            started = Started::default();
        }
        Self { outbox, logs, quanta, waiting, started, rounds: outbox.rounds, marks: Default::default() }
    }

    /// The allowances after what was taken.
    pub(super) fn rounds(&self) -> Rounds {
        self.rounds
    }

    /// What leaves next. To be told to [`Plan::take`], all or the front of it, before it is asked again.
    pub(super) fn next(&mut self) -> Option<Run> {
        if self.started.left > 0 {
            let Started { lane, left } = std::mem::take(&mut self.started);
            if lane as usize != CONTROL {
                self.marks[lane as usize - 1].offset = left as usize;
            }
            return Some(Run { lane: lane as usize, bytes: left as usize });
        }
        let lane = (0..LANES).find(|&lane| self.waiting[lane] > 0)?;
        if lane == CONTROL || self.is_alone(lane) { Some(Run { lane, bytes: self.waiting[lane] }) } else { Some(self.next_of_round()) }
    }

    /// The first `bytes` of what [`Plan::next`] said are taken.
    pub(super) fn take(&mut self, lane: usize, bytes: usize) {
        if lane != CONTROL {
            let alone = self.is_alone(lane);
            self.rounds.charge(lane - 1, bytes, alone, self.quanta);
        }
        self.waiting[lane] -= bytes;
    }

    /// Whether no other message lane waits.
    fn is_alone(&self, lane: usize) -> bool {
        (CONTROL + 1..LANES).all(|other| other == lane || self.waiting[other] == 0)
    }

    /// Several message lanes wait.
    fn next_of_round(&mut self) -> Run {
        let (quanta, waiting) = (self.quanta, self.waiting);
        let lanes = || (0..MESSAGE_LANES).filter(|&lane| waiting[lane + 1] > 0);
        if !lanes().any(|lane| self.rounds.has_allowance(lane, quanta)) {
            let rounds = lanes().map(|lane| self.rounds.spent[lane] / quanta.0[lane]).min();
            self.rounds.next(rounds.unwrap_or_default(), quanta);
        }
        let lane = lanes().find(|&lane| self.rounds.has_allowance(lane, quanta)).expect("a round gives somebody an allowance");
        let allowance = (quanta.0[lane] - self.rounds.spent[lane]) as usize;
        let waiting = waiting[lane + 1];
        // Where all of it fits, no border is looked for.
        let bytes = if waiting <= allowance { waiting } else { self.whole_frames(lane + 1, allowance) };
        Run { lane: lane + 1, bytes }
    }

    /// How long the frames at the lane's mark are that have `wanted` bytes or more together; the mark moves behind them. There are more.
    fn whole_frames(&mut self, lane: usize, mut wanted: usize) -> usize {
        let before = wanted;
        let mark = &mut self.marks[lane - 1];
        if let Some(queued) = &self.outbox.queued {
            let queue: &Queue = &queued.lanes[lane];
            while let Some(span) = queue.spans.get(mark.span) {
                let rest = span.len() - mark.offset;
                if rest > wanted {
                    let tail = if span.is_tail() { &queue.tail[queue.head + mark.tail + mark.offset..] } else { &[] };
                    let bytes = span.border(lane, self.logs, tail, mark.offset, wanted);
                    mark.offset += bytes;
                    return before - wanted + bytes;
                }
                wanted -= rest;
                *mark = Mark { span: mark.span + 1, offset: 0, tail: mark.tail + if span.is_tail() { span.len() } else { 0 } };
                if wanted == 0 {
                    return before;
                }
            }
        }
        let from = self.outbox.cursors[lane - 1].position + (mark.offset + wanted) as u64;
        let bytes = wanted + self.logs.lane(lane - 1).place(from).1 as usize;
        mark.offset += bytes;
        before - wanted + bytes
    }
}
