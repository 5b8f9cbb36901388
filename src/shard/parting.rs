//! When to dial again, by how it ended.
//!
//! A dial whose connection has ended, or whose attempt has failed, waits for a time that is even over a range from zero ("full jitter", see
//! `backoff`): those who were cut off together do not come back together. The range begins with the first step of this table, doubles with
//! each further attempt until a message is received, and is capped by [`BackoffConfig::max`] (for nodes on the allow-list `max_allowed`).
//!
//! | why | what ended it | first step | because |
//! |---|---|---|---|
//! | `Passing` | the network; `Closed`, `Eof`; all that is not below | [`BackoffConfig::min`] | it may be over at once |
//! | `Restarting` | `ShuttingDown` | 1 s | a process takes about so long to come back |
//! | `Taken` | `Duplicate`, `Replaced` | 1 s | another connection has the place, and keeps it for so long |
//! | `Full` | `Full` | 5 s | somebody else has to go first |
//! | `Slow` | `SlowPeer`, `RateLimited`, by either side; `HandlerPanicked` | 5 s | what was too much is still being sent |
//! | `Rejected` | `Violation`, `NotAllowed`, `WrongNetwork`, `Version`, ... | the cap | somebody has to change something |
//!
//! Where the other side has asked for a delay, in a `GoAway`, a goodbye or a refusal, that comes first: at least so long, and at most twice
//! so long or the delay and the range, whichever is more. What it asks for beyond [`BackoffConfig::max_asked`] counts as that, so that
//! nobody is sent away for ever by a word.

use std::time::Duration;

use super::backoff::Backoff;
use crate::config::BackoffConfig;
use crate::error::{CloseReason, DialError, HandshakeError};
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::wire::{GoodbyeCode, RefusalCode};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Why {
    #[default]
    Passing,
    Restarting,
    Taken,
    Full,
    Slow,
    Rejected,
}

impl Why {
    /// The first step. The caller caps it.
    fn first(self, min: Duration) -> Duration {
        match self {
            Self::Passing => min,
            Self::Restarting | Self::Taken => min.max(Duration::from_secs(1)),
            Self::Full | Self::Slow => min.max(Duration::from_secs(5)),
            Self::Rejected => Duration::MAX,
        }
    }
}

impl From<GoodbyeCode> for Why {
    fn from(code: GoodbyeCode) -> Self {
        match code {
            GoodbyeCode::Closed | GoodbyeCode::Unresponsive => Self::Passing,
            GoodbyeCode::ShuttingDown => Self::Restarting,
            GoodbyeCode::Replaced | GoodbyeCode::Duplicate => Self::Taken,
            GoodbyeCode::SlowPeer | GoodbyeCode::RateLimited => Self::Slow,
            GoodbyeCode::Full => Self::Full,
            GoodbyeCode::Violation | GoodbyeCode::NotAllowed | GoodbyeCode::SelfConnection => Self::Rejected,
        }
    }
}

impl From<RefusalCode> for Why {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Duplicate => Self::Taken,
            RefusalCode::Full => Self::Full,
            RefusalCode::ShuttingDown => Self::Restarting,
            RefusalCode::Version | RefusalCode::Suite | RefusalCode::Malformed | RefusalCode::WrongNetwork => Self::Rejected,
            RefusalCode::SelfConnection | RefusalCode::AuthFailed | RefusalCode::NotAllowed => Self::Rejected,
            RefusalCode::Unknown => Self::Passing,
        }
    }
}

impl From<CloseReason> for Why {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Goodbye(code) => code.into(),
            CloseReason::SlowPeer(_) => Self::Slow,
            CloseReason::Replaced => Self::Taken,
            CloseReason::Violation(_) | CloseReason::NotAllowed => Self::Rejected,
            CloseReason::Requested | CloseReason::Idle | CloseReason::ShuttingDown | CloseReason::Eof | CloseReason::Io(_) => Self::Passing,
            CloseReason::Unresponsive | CloseReason::PartialTimeout | CloseReason::PausedTooLong => Self::Passing,
            // The same peer may set it off again.
            CloseReason::HandlerPanicked | CloseReason::RateLimited => Self::Slow,
        }
    }
}

impl From<HandshakeError> for Why {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Refused(code) | HandshakeError::RefusedByPeer(code) => code.into(),
            HandshakeError::Goodbye(code) => code.into(),
            HandshakeError::Timeout | HandshakeError::Eof | HandshakeError::Io(_) => Self::Passing,
            HandshakeError::WrongMagic | HandshakeError::Violation(_) | HandshakeError::WrongNode => Self::Rejected,
            HandshakeError::AuthFailed | HandshakeError::WeakKey => Self::Rejected,
        }
    }
}

impl From<DialError> for Why {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Handshake(error) => error.into(),
            DialError::Duplicate => Self::Taken,
            DialError::Full => Self::Full,
            DialError::NotAllowed | DialError::SelfConnection => Self::Rejected,
            // The others are this side's own word, and have no next attempt.
            _ => Self::Passing,
        }
    }
}

/// What is known of an end, when it is decided how long to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parting {
    pub(super) why: Why,
    /// What the other side asked for; zero: nothing.
    pub(super) asked: Duration,
}

impl Parting {
    pub(super) fn new(why: impl Into<Why>, asked_ms: u32) -> Self {
        Self { why: why.into(), asked: Duration::from_millis(u64::from(asked_ms)) }
    }

    /// How long to wait before the next attempt. `max`: the cap of what this side chooses by itself.
    pub(super) fn wait(self, backoff: &mut Backoff, config: &BackoffConfig, max: Duration, rng: &mut Rng) -> Duration {
        let chosen = backoff.next(self.why.first(config.min), max, rng);
        let asked = self.asked.min(config.max_asked);
        if asked.is_zero() {
            return chosen;
        }
        asked + chosen.max(rng.duration_below(asked))
    }
}

/// What a peer that this side dialled has said of when it goes, and of when to come back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) why: Why,
    pub(super) delay: Duration,
    /// When the delay begins, if the connection does not end later.
    pub(super) from: Option<Timestamp>,
}

impl Asked {
    /// The connection has ended.
    pub(super) fn parting(self, now: Timestamp) -> Parting {
        let left = self.from.map_or(Duration::ZERO, |from| from - now);
        let asked = if self.delay.is_zero() { Duration::ZERO } else { self.delay + left };
        Parting { why: self.why, asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Slow, Violation};

    const CAP: Duration = Duration::from_secs(30);

    /// The longest of many first waits, in tenths of a second, and the shortest.
    fn range(parting: Parting, config: &BackoffConfig, max: Duration) -> (Duration, Duration) {
        let mut rng = Rng::new(5);
        let waits: Vec<_> = (0..4000).map(|_| parting.wait(&mut Backoff::new(), config, max, &mut rng)).collect();
        (*waits.iter().min().unwrap(), *waits.iter().max().unwrap())
    }

    #[test]
    fn each_reason_has_its_first_step_and_the_whole_range_below_it() {
        let config = BackoffConfig::default();
        let steps = [
            (Why::from(GoodbyeCode::Closed), 50),
            (Why::from(CloseReason::Eof), 50),
            (Why::from(DialError::Connect(std::io::ErrorKind::ConnectionRefused)), 50),
            (Why::from(GoodbyeCode::ShuttingDown), 1000),
            (Why::from(DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::ShuttingDown))), 1000),
            (Why::from(GoodbyeCode::Replaced), 1000),
            (Why::from(DialError::Duplicate), 1000),
            (Why::from(DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::Full))), 5000),
            (Why::from(GoodbyeCode::SlowPeer), 5000),
            (Why::from(CloseReason::SlowPeer(Slow::WriteStall)), 5000),
            (Why::from(CloseReason::Violation(Violation::PingFlood)), 30_000),
            (Why::from(GoodbyeCode::NotAllowed), 30_000),
            (Why::from(DialError::NotAllowed), 30_000),
        ];
        for (why, millis) in steps {
            let most = Duration::from_millis(millis);
            let (shortest, longest) = range(Parting { why, asked: Duration::ZERO }, &config, CAP);
            assert!(shortest < most / 20 && longest <= most && longest > most / 50 * 49, "{why:?}: {shortest:?} to {longest:?}");
            // Whatever it is, the cap holds.
            let cap = Duration::from_millis(40);
            assert!(range(Parting { why, asked: Duration::ZERO }, &config, cap).1 <= cap, "{why:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_waited_for_and_a_crowd_spreads_over_as_long_again() {
        let config = BackoffConfig::default();
        let asked = Duration::from_secs(10);
        let (shortest, longest) = range(Parting { why: Why::Restarting, asked }, &config, CAP);
        assert!(shortest >= asked && shortest < asked * 11 / 10, "{shortest:?}");
        assert!(longest <= 2 * asked && longest > asked * 19 / 10, "{longest:?}");
        // A short delay does not undo what the reason is worth.
        let (_, longest) = range(Parting { why: Why::Restarting, asked: Duration::from_millis(1) }, &config, CAP);
        assert!(longest > Duration::from_millis(900), "{longest:?}");
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_is_allowed() {
        let mut config = BackoffConfig::default();
        let forever = Parting::new(GoodbyeCode::ShuttingDown, u32::MAX);
        let (shortest, longest) = range(forever, &config, CAP);
        assert!(shortest >= config.max_asked && longest <= 2 * config.max_asked, "{shortest:?} to {longest:?}");
        config.max_asked = Duration::ZERO;
        assert!(range(forever, &config, CAP).1 <= Duration::from_secs(1), "what is asked for is not listened to");
    }

    #[test]
    fn a_delay_begins_when_the_other_side_goes() {
        let now = Timestamp::from_nanos(1 << 40);
        let later = now + Duration::from_secs(3);
        let asked = Asked { why: Why::Passing, delay: Duration::from_secs(5), from: Some(later) };
        assert_eq!(asked.parting(now).asked, Duration::from_secs(8));
        assert_eq!(asked.parting(later + Duration::from_secs(1)).asked, Duration::from_secs(5));
        assert_eq!(Asked { delay: Duration::ZERO, ..asked }.parting(now).asked, Duration::ZERO);
    }
}
