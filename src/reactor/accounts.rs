//! Where a core's time goes.
//!
//! The clock is read at the end of each phase of a turn that had something to do, and every nanosecond between two reads is one phase's;
//! what it took to find that a phase had nothing to do is the next one's. A turn that answers a message reads it three times: when it
//! wakes, between reading and writing, and at its end, which is when it goes to sleep. Within the reading phase a read of the clock takes
//! as long as a small message, so one batch in 64 is looked at closely, and the phase is divided as the batches of late were: reading,
//! decoding, the handler, and what the handler's sends took.

use std::time::Duration;

use super::Clock;
use crate::metrics::{Counter, Stats};
use crate::time::Timestamp;

/// A read batch in so many is looked at closely.
const SAMPLED: u32 = 64;
/// How many samples it takes for an old one to weigh a third of what it did.
const REMEMBERED: u64 = 64;

/// A part of a turn, between two reads of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Asking the kernel what is ready while there is work.
    Poll,
    /// Waiting for work, asleep or looking.
    Idle,
    /// Mail, commands, and new connections.
    Inbox,
    /// Everything from the sockets to the handlers' return.
    Read,
    /// Timers, what the application is told outside of reading, connecting and closing.
    Events,
    Write,
}

/// What one read batch took, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) read: u64,
    pub(super) decode: u64,
    pub(super) handler: u64,
    pub(super) encode: u64,
}

/// What was measured of one, with what measuring took in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawSample {
    /// The read, and what came after it.
    pub(super) read: Duration,
    pub(super) rest: Duration,
    /// In how many calls of the handler, and how long they were.
    pub(super) calls: u32,
    pub(super) called: Duration,
    /// Likewise the sends within them.
    pub(super) sends: u32,
    pub(super) sent: Duration,
}

impl RawSample {
    /// Without what reading the clock took: each measured time has half a read at either end in it, and its two reads are in what is
    /// around it.
    fn without(self, clock: u64) -> Sample {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (calls, sends) = (u64::from(self.calls) * clock, u64::from(self.sends) * clock);
        let (called, sent) = (nanos(self.called), nanos(self.sent));
        Sample {
            read: nanos(self.read).saturating_sub(clock),
            decode: nanos(self.rest).saturating_sub(called + clock + calls),
            handler: called.saturating_sub(sent + calls + sends),
            encode: sent.saturating_sub(sends),
        }
    }
}

/// See the module. Plain memory of the core.
#[derive(Debug)]
pub(super) struct Accounts {
    on: bool,
    /// What one read of the clock takes, nanoseconds.
    clock: u64,
    /// The last border.
    since: Timestamp,
    /// By phase, since `settle`.
    spent: [u64; 6],
    /// How the reading phase is divided, as the samples of late weigh: read, decode, handler, encode.
    shares: [u64; 4],
    until_sample: u32,
}

impl Accounts {
    pub(super) fn new(on: bool, clock: &Clock) -> Self {
        let since = clock.now();
        // Only for what is turned on: a start is not to read the clock in vain.
        let cost = if on { (0..16).map(|_| cost_of(clock)).min().unwrap_or(0) } else { 0 };
        Self { on, clock: cost, since, spent: [0; 6], shares: [0; 4], until_sample: 0 }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// A phase has ended.
    #[inline]
    pub(super) fn end(&mut self, phase: Phase, now: Timestamp) {
        if self.on {
            self.spent[phase as usize] += (now - self.since).as_nanos() as u64;
            self.since = now;
        }
    }

    /// Whether the read that begins now is to be looked at, if it brings anything: the first, and then one in 64.
    #[inline]
    pub(super) fn is_sampled(&self) -> bool {
        self.on && self.until_sample == 0
    }

    /// A read has brought something.
    #[inline]
    pub(super) fn count_batch(&mut self) {
        self.until_sample = self.until_sample.checked_sub(1).unwrap_or(SAMPLED - 1);
    }

    pub(super) fn take(&mut self, sample: RawSample) {
        let Sample { read, decode, handler, encode } = sample.without(self.clock);
        for (share, new) in self.shares.iter_mut().zip([read, decode, handler, encode]) {
            // A batch that took minutes is not to outweigh everything for ever.
            *share = *share - *share / REMEMBERED + new.min(1 << 40);
        }
    }

    /// Hands over what was spent since the last time. What is divided adds up to what was measured, and nothing that was handed over is
    /// taken back, so each figure only grows.
    pub(super) fn settle(&mut self, stats: &mut Stats) {
        let [poll, idle, inbox, read, events, write] = std::mem::take(&mut self.spent);
        let [_, decode, handler, encode] = self.divide(read);
        for (counter, nanos) in [
            (Counter::TimePoll, poll),
            (Counter::TimeIdle, idle),
            (Counter::TimeInbox, inbox),
            (Counter::TimeRead, read - decode - handler - encode),
            (Counter::TimeDecode, decode),
            (Counter::TimeHandler, handler),
            (Counter::TimeEncode, encode),
            (Counter::TimeEvents, events),
            (Counter::TimeWrite, write),
        ] {
            stats.add(counter, nanos);
        }
    }

    fn divide(&self, nanos: u64) -> [u64; 4] {
        let whole = self.shares.iter().fold(0_u64, |sum, &share| sum.saturating_add(share)).max(1);
        // It is done before each sleep, and a division of 128 bits takes longer than a read of the clock.
        if (nanos | whole) >> 32 == 0 {
            self.shares.map(|share| nanos * share / whole)
        } else {
            self.shares.map(|share| (u128::from(nanos) * u128::from(share) / u128::from(whole)) as u64)
        }
    }
}

fn cost_of(clock: &Clock) -> u64 {
    let before = clock.now();
    (clock.now() - before).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn accounts() -> Accounts {
        Accounts { on: true, clock: 0, since: at(0), spent: [0; 6], shares: [0; 4], until_sample: 0 }
    }

    const ALL: [Counter; 9] = [
        Counter::TimePoll,
        Counter::TimeIdle,
        Counter::TimeInbox,
        Counter::TimeRead,
        Counter::TimeDecode,
        Counter::TimeHandler,
        Counter::TimeEncode,
        Counter::TimeEvents,
        Counter::TimeWrite,
    ];

    #[test]
    fn every_nanosecond_is_somebodys_and_none_is_taken_back() {
        let mut accounts = accounts();
        let mut stats = Stats::default();
        let phases = [Phase::Idle, Phase::Inbox, Phase::Read, Phase::Events, Phase::Write, Phase::Poll];
        let mut before = ALL.map(|_| 0);
        for turn in 0..1000_u64 {
            for (index, &phase) in phases.iter().enumerate() {
                accounts.end(phase, at(1000 * turn + 100 * (index as u64 + 1)));
            }
            accounts.end(Phase::Write, at(1000 * (turn + 1)));
            accounts.count_batch();
            if accounts.is_sampled() {
                // The shares change all the time.
                let nanos = Duration::from_nanos;
                accounts.take(RawSample { read: nanos(turn % 7), rest: nanos(100), called: nanos(turn % 100), ..RawSample::default() });
            }
            accounts.settle(&mut stats);
            let now = ALL.map(|counter| stats.get(counter));
            assert!(now.iter().zip(before).all(|(&now, before)| now >= before));
            assert_eq!(now.iter().sum::<u64>(), 1000 * (turn + 1));
            before = now;
        }
    }

    #[test]
    fn the_reading_phase_is_divided_as_its_samples_were_without_the_clocks_part() {
        let mut accounts = Accounts { clock: 10, ..accounts() };
        let nanos = Duration::from_nanos;
        // Two calls of 300 with one send of 100 each; the clock's part is taken off.
        let sample = RawSample { read: nanos(110), rest: nanos(1030), calls: 2, called: nanos(640), sends: 2, sent: nanos(220) };
        assert_eq!(sample.without(10), Sample { read: 100, decode: 360, handler: 380, encode: 200 });
        accounts.take(sample);
        accounts.end(Phase::Read, at(10_400));
        let mut stats = Stats::default();
        accounts.settle(&mut stats);
        let read = [Counter::TimeRead, Counter::TimeDecode, Counter::TimeHandler, Counter::TimeEncode].map(|counter| stats.get(counter));
        assert_eq!(read, [1000, 3600, 3800, 2000]);
    }

    #[test]
    fn it_adds_up_with_long_phases_too() {
        for (read, rest, phase) in [(3, 4, 1_000_000_007), (u64::MAX / 2, 5, 999_999_999_999), (1 << 31, 1 << 31, 1 << 50), (0, 0, 77)] {
            let (mut accounts, mut stats) = (accounts(), Stats::default());
            let (read, rest) = (Duration::from_nanos(read), Duration::from_nanos(rest));
            accounts.take(RawSample { read, rest, ..RawSample::default() });
            accounts.end(Phase::Read, at(phase));
            accounts.settle(&mut stats);
            assert_eq!(ALL.map(|counter| stats.get(counter)).iter().sum::<u64>(), phase);
        }
    }

    #[test]
    fn one_batch_in_64_is_sampled_and_none_where_it_is_off() {
        let mut accounts = accounts();
        assert!(accounts.is_sampled() && accounts.is_sampled(), "one that brings nothing is no sample");
        let mut next = || {
            let sampled = accounts.is_sampled();
            accounts.count_batch();
            sampled
        };
        let sampled: Vec<usize> = (0..200).filter(|_| next()).collect();
        assert_eq!(sampled, [0, 64, 128, 192]);
        accounts.on = false;
        assert!((0..200).all(|_| {
            accounts.count_batch();
            !accounts.is_sampled()
        }));
    }
}
