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
    // Those from here on are seldom set.
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

const OFTEN: usize = Timer::PartialMessage as usize;
const SELDOM: usize = Timer::ALL.len() - OFTEN;

/// The deadlines of one peer: at most one of each kind.
///
/// Of most of them most peers have none most of the time, so these are in a box, which is there while one of them is set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    often: [Option<Timestamp>; OFTEN],
    seldom: Option<Box<[Option<Timestamp>; SELDOM]>>,
}

impl Timers {
    /// Memory besides itself.
    pub(crate) const SELDOM: usize = size_of::<[Option<Timestamp>; SELDOM]>();

    // Always, as what follows: which timer it is, the caller knows, and one of two stores is left.
    #[inline(always)]
    fn get(&self, timer: Timer) -> Option<Timestamp> {
        match self.often.get(timer as usize) {
            Some(deadline) => *deadline,
            None => self.seldom.as_ref().and_then(|seldom| seldom[timer as usize - OFTEN]),
        }
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, timer: Timer, deadline: Timestamp) {
        match self.often.get_mut(timer as usize) {
            Some(often) => *often = Some(deadline),
            None => self.set_seldom(timer, deadline),
        }
    }

    fn set_seldom(&mut self, timer: Timer, deadline: Timestamp) {
        self.seldom.get_or_insert_default()[timer as usize - OFTEN] = Some(deadline);
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self, timer: Timer) {
        match self.often.get_mut(timer as usize) {
            Some(often) => *often = None,
            None if self.seldom.is_some() => self.clear_seldom(timer),
            None => {}
        }
    }

    fn clear_seldom(&mut self, timer: Timer) {
        let Some(seldom) = &mut self.seldom else { return };
        seldom[timer as usize - OFTEN] = None;
        if seldom.iter().all(Option::is_none) {
            self.seldom = None;
        }
    }

    #[inline(always)]
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.get(timer).is_some()
    }

    /// Whether the deadline of this kind has come.
    pub(crate) fn is_due(&self, timer: Timer, now: Timestamp) -> bool {
        self.get(timer).is_some_and(|deadline| deadline <= now)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let often = self.often.iter().flatten().min();
        match &self.seldom {
            None => often.copied(),
            Some(seldom) => often.into_iter().chain(seldom.iter().flatten()).min().copied(),
        }
    }

    /// Takes a timer out whose deadline has come.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<Timer> {
        let expired = Timer::ALL.into_iter().find(|&timer| self.is_due(timer, now))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// There is one for each peer.
    #[test]
    fn is_small() {
        assert_eq!(size_of::<Timers>(), 32);
    }

    #[test]
    fn each_kind_has_one_deadline_and_what_is_seldom_set_has_memory_only_then() {
        let mut rng = Rng::new(1);
        let (mut timers, mut model) = (Timers::default(), [None; Timer::ALL.len()]);
        for step in 1..10_000 {
            let timer = Timer::ALL[rng.below(7) as usize];
            let at = Timestamp::from_nanos(1 + rng.below(1_000));
            match rng.below(20) {
                0 => {
                    timers.keep_only(timer);
                    Timer::ALL.into_iter().filter(|&other| other != timer).for_each(|other| model[other as usize] = None);
                }
                1..=3 => {
                    let due = Timer::ALL.into_iter().find(|&timer| model[timer as usize].is_some_and(|deadline| deadline <= at));
                    assert_eq!(timers.pop_expired(at), due, "step {step}");
                    due.inspect(|&due| model[due as usize] = None);
                }
                4..=9 => {
                    timers.set(timer, at);
                    model[timer as usize] = Some(at);
                }
                _ => {
                    timers.clear(timer);
                    model[timer as usize] = None;
                }
            }
            assert_eq!(timers.next(), model.into_iter().flatten().min(), "step {step}");
            assert!(Timer::ALL.into_iter().all(|timer| timers.is_set(timer) == model[timer as usize].is_some()), "step {step}");
            assert_eq!(timers.seldom.is_some(), model[OFTEN..].iter().any(Option::is_some), "step {step}");
        }
    }
}
