//! The deadlines of one peer, in one table.

use crate::time::Timestamp;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Timer {
    /// Look whether a ping is due, or the peer dead.
    Keepalive,
    /// The kernel has taken nothing for too long.
    WriteStall,
    /// A frame began and has not ended.
    PartialFrame,
    /// A message in pieces began and has not ended.
    PartialMessage,
    /// The outbox has been over its soft mark for the grace time.
    SoftGrace,
    /// Reading has been paused for too long.
    Pause,
    /// The connection is being closed and has not ended.
    Linger,
}

impl Timer {
    const ALL: [Timer; 7] =
        [Timer::Keepalive, Timer::WriteStall, Timer::PartialFrame, Timer::PartialMessage, Timer::SoftGrace, Timer::Pause, Timer::Linger];
}

/// The deadlines of one peer: at most one of each kind.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: [Option<Timestamp>; Timer::ALL.len()],
}

impl Timers {
    #[inline]
    pub(crate) fn set(&mut self, timer: Timer, deadline: Timestamp) {
        self.deadlines[timer as usize] = Some(deadline);
    }

    #[inline]
    pub(crate) fn clear(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    #[inline]
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.deadlines[timer as usize].is_some()
    }

    /// Whether the deadline of this kind has come.
    pub(crate) fn is_due(&self, timer: Timer, now: Timestamp) -> bool {
        self.deadlines[timer as usize].is_some_and(|deadline| deadline <= now)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Takes a timer out whose deadline has come.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<Timer> {
        let expired = Timer::ALL.into_iter().find(|&timer| self.deadlines[timer as usize].is_some_and(|deadline| deadline <= now))?;
        self.clear(expired);
        Some(expired)
    }

    /// Clears everything but `kept`.
    pub(crate) fn keep_only(&mut self, kept: Timer) {
        for timer in Timer::ALL {
            if timer != kept {
                self.clear(timer);
            }
        }
    }
}
