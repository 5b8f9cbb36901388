//! Requests that wait for a response.

use std::collections::HashMap;
use std::time::Duration;

use super::response::ResponseTimes;
use crate::error::Violation;
use crate::time::Timestamp;
use crate::wheel::TimerKey;

/// Who asked, and where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The handler of a core, which gave this tag.
    Handler { core: usize, tag: u64 },
    /// A thread that waits; the shell knows it by this number.
    Waiter(u64),
}

/// Room for requests that a peer keeps when none is left: a table of 64.
const KEPT: usize = 56;
/// Most memory of a peer's table beyond that of its requests.
pub(crate) const REQUESTS_SPARE: usize = size_of::<Requests>() + 64 * (1 + ENTRY);
/// Most memory of a table for each request in it: it is an eighth full, or has just grown and the old one is still there.
pub(crate) const REQUEST_BYTES: usize = 16 * (1 + ENTRY);
const ENTRY: usize = size_of::<(u64, Pending)>();

/// A request that has no response yet.
#[derive(Debug)]
struct Pending {
    /// Who asked.
    origin: Origin,
    /// Ends the wait.
    timer: TimerKey,
    asked: Timestamp,
}

/// The requests to one peer that have no response yet.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// The last correlation id that was given out.
    last: u64,
    pending: HashMap<u64, Pending>,
    pub(crate) times: ResponseTimes,
}

impl Requests {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// A new request's correlation id. `set_timer` is given it, and sets the timer that ends the wait.
    pub(crate) fn insert(&mut self, now: Timestamp, origin: Origin, set_timer: impl FnOnce(u64) -> TimerKey) -> u64 {
        self.last += 1;
        self.pending.insert(self.last, Pending { origin, timer: set_timer(self.last), asked: now });
        self.last
    }

    /// The response to `correlation` came: who asked, and the timer to cancel; `None` where nobody waits any more.
    pub(crate) fn answer(&mut self, now: Timestamp, correlation: u64) -> Result<Option<(Origin, TimerKey)>, Violation> {
        if correlation == 0 || correlation > self.last {
            return Err(Violation::UnsolicitedResponse);
        }
        let answered = self.pending.remove(&correlation);
        self.fit();
        Ok(answered.map(|pending| {
            self.times.record(now - pending.asked);
            (pending.origin, pending.timer)
        }))
    }

    /// The deadline of `correlation` came: who asked, unless it was answered. `bounds`: of how long responses are waited for.
    pub(crate) fn expire(&mut self, now: Timestamp, correlation: u64, bounds: (Duration, Duration)) -> Option<Origin> {
        let expired = self.pending.remove(&correlation)?;
        self.times.miss(expired.asked, now, bounds.0, bounds.1);
        self.fit();
        Some(expired.origin)
    }

    /// A peer of which much was asked once does not keep the room for it.
    #[inline]
    fn fit(&mut self) {
        if self.pending.capacity() > KEPT && self.pending.capacity() > 8 * self.pending.len() {
            self.pending.shrink_to((2 * self.pending.len()).max(KEPT));
        }
    }

    /// The peer is gone: everyone who still waits, in the order in which they asked.
    pub(crate) fn abandon(self) -> Vec<(Origin, TimerKey)> {
        let mut pending: Vec<_> = self.pending.into_iter().collect();
        pending.sort_unstable_by_key(|&(correlation, _)| correlation);
        pending.into_iter().map(|(_, waiting)| (waiting.origin, waiting.timer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wheel::TimerWheel;

    const NOW: Timestamp = Timestamp::ORIGIN;

    #[test]
    fn an_answer_finds_who_asked_once_and_only_for_what_was_asked() {
        let mut requests = Requests::default();
        let mut wheel = TimerWheel::new(Timestamp::ORIGIN);
        let timer = wheel.insert(Timestamp::END, ());
        let origin = Origin::Handler { core: 0, tag: 7 };
        let id = requests.insert(NOW, origin, |_| timer);
        assert_eq!(requests.answer(NOW, id + 1), Err(Violation::UnsolicitedResponse));
        assert_eq!(requests.answer(NOW, 0), Err(Violation::UnsolicitedResponse));
        assert_eq!(requests.answer(NOW, id), Ok(Some((origin, timer))));
        assert_eq!(requests.answer(NOW, id), Ok(None), "late or repeated answers are ignored");
        let second = requests.insert(NOW, Origin::Waiter(1), |_| timer);
        assert_eq!(requests.expire(NOW, second, (Duration::ZERO, Duration::MAX)), Some(Origin::Waiter(1)));
        assert_eq!(requests.answer(NOW, second), Ok(None));
    }
}
