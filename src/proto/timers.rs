//! The deadlines of one peer, in one table.

use crate::time::Timestamp;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Timer {
    /// Look whether a ping is due, or the peer dead.
    Keepalive,
    // Those from here on are not set while a peer is idle.
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

const BOXED: usize = Timer::ALL.len() - 1;

/// The deadlines of one peer: at most one of each kind.
///
/// An idle peer has one. The others are in a box, from the first that is set until [`Timers::tidy`] finds none: a deadline that is set and
/// cleared with each read costs no allocation.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    keepalive: Option<Timestamp>,
    others: Option<Box<[Option<Timestamp>; BOXED]>>,
}

impl Timers {
    /// Memory besides itself.
    pub(crate) const BOXED: usize = size_of::<[Option<Timestamp>; BOXED]>();

    // Always, as what follows: which timer it is, the caller knows, and one of two stores is left.
    #[inline(always)]
    fn get(&self, timer: Timer) -> Option<Timestamp> {
        match timer {
            Timer::Keepalive => self.keepalive,
            _ => self.others.as_ref().and_then(|others| others[timer as usize - 1]),
        }
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, timer: Timer, deadline: Timestamp) {
        match timer {
            Timer::Keepalive => self.keepalive = Some(deadline),
            _ => self.others.get_or_insert_default()[timer as usize - 1] = Some(deadline),
        }
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self, timer: Timer) {
        match (timer, &mut self.others) {
            (Timer::Keepalive, _) => self.keepalive = None,
            (_, Some(others)) => others[timer as usize - 1] = None,
            (_, None) => {}
        }
    }

    /// Gives back memory that nothing is in. To be called now and then.
    pub(crate) fn tidy(&mut self) {
        self.others.take_if(|others| others.iter().all(Option::is_none));
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
        match &self.others {
            None => self.keepalive,
            Some(others) => self.keepalive.iter().chain(others.iter().flatten()).min().copied(),
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
        assert_eq!(size_of::<Timers>(), 16);
    }

    #[test]
    fn each_kind_has_one_deadline_and_all_but_one_have_memory_until_it_is_tidied() {
        let mut rng = Rng::new(1);
        let (mut timers, mut model) = (Timers::default(), [None; Timer::ALL.len()]);
        for step in 1..10_000 {
            let timer = Timer::ALL[rng.below(7) as usize];
            let at = Timestamp::from_nanos(1 + rng.below(1_000));
            let boxed = timers.others.is_some();
            match rng.below(21) {
                20 => timers.tidy(),
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
            let others = model[1..].iter().any(Option::is_some);
            assert!(timers.others.is_some() || !others, "step {step}");
            assert!(!boxed || timers.others.is_some() || !others, "step {step}");
        }
        timers.keep_only(Timer::Keepalive);
        timers.tidy();
        assert!(timers.others.is_none());
    }
}
