//! What a side says before it goes: see [`crate::Handle::drain`].

use std::time::Duration;

use crate::wire::GoAway;

/// That a side is about to go, and what the other side should do about it: given to [`crate::Handle::drain`] here, handed to
/// [`crate::Handler::on_going_away`] there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Notice {
    /// How long the connection goes on as before. Then its side says goodbye ([`crate::CloseReason::ShuttingDown`]). To the millisecond, at
    /// most 49 days; a longer one counts as that.
    pub period: Duration,
    /// The other side should not dial again sooner than so long after the end of the connection, or of the period where that is later. What
    /// it makes of that is its own affair: an engine waits between once and twice as long ([`crate::BackoffConfig::max_asked`]), so that
    /// those who were told together do not come back together; what is asked for once ([`crate::Dial::once`], [`crate::Context::connect`])
    /// does not wait. Zero: not said. To the millisecond, at most 49 days.
    pub retry_after: Duration,
    /// The application's reason. corecast gives it no meaning.
    pub reason: u16,
}

impl Notice {
    /// To go after so long; nothing is said of when to come back, and the reason is 0.
    #[must_use]
    pub const fn new(period: Duration) -> Self {
        Self { period, retry_after: Duration::ZERO, reason: 0 }
    }

    /// The same; who was told should come back so long after the end, not sooner.
    #[must_use]
    pub const fn retry_after(self, retry_after: Duration) -> Self {
        Self { retry_after, ..self }
    }

    /// The same, for this reason.
    #[must_use]
    pub const fn reason(self, reason: u16) -> Self {
        Self { reason, ..self }
    }

    /// As it can be said.
    pub(crate) fn rounded(self) -> Self {
        let rounded = |time| Duration::from_millis(u64::from(millis(time)));
        Self { period: rounded(self.period), retry_after: rounded(self.retry_after), ..self }
    }

    /// `left`: what is left of the period.
    pub(crate) fn frame(self, left: Duration) -> GoAway {
        GoAway { within_ms: millis(left), delay_ms: millis(self.retry_after), reason: self.reason }
    }

    pub(crate) fn of_frame(frame: GoAway) -> Self {
        let time = |millis: u32| Duration::from_millis(u64::from(millis));
        Self { period: time(frame.within_ms), retry_after: time(frame.delay_ms), reason: frame.reason }
    }
}

/// Whole milliseconds, rounded up, so that what is not zero is not said to be; as many as the field holds.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let notice = Notice::new(Duration::from_micros(1_500)).retry_after(Duration::from_nanos(1)).reason(7);
        let rounded = Notice::new(Duration::from_millis(2)).retry_after(Duration::from_millis(1)).reason(7);
        assert_eq!(notice.rounded(), rounded);
        assert_eq!(Notice::of_frame(notice.frame(notice.period)), rounded);
        assert_eq!(rounded.rounded(), rounded);
        assert_eq!((millis(Duration::ZERO), millis(Duration::MAX)), (0, u32::MAX));
    }
}
