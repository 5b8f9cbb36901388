//! How long to look for work before going to sleep.

use std::time::Duration;

use crate::config::Spin;
use crate::time::Timestamp;

/// A window that is not worth less than this is not worth anything.
const SHORTEST: Duration = Duration::from_micros(5);

/// The spin window of one core.
///
/// Only messages open it, and it begins with the first look after what they have set off is done: a broadcast may take longer than the
/// window. It halves each time it ends in vain, down to nothing, and is whole again as soon as a message comes that looking for would have
/// found.
#[derive(Debug)]
pub(crate) struct Spinner {
    whole: Duration,
    window: Duration,
    adaptive: bool,
    open: bool,
    /// When it ends, from the first look on.
    until: Option<Timestamp>,
    slept_at: Option<Timestamp>,
}

impl Spinner {
    pub(crate) fn new(spin: Spin, may_spin: bool) -> Self {
        let whole = if spin.forced || may_spin { spin.window } else { Duration::ZERO };
        Self { whole, window: whole, adaptive: !spin.forced, open: false, until: None, slept_at: None }
    }

    /// A turn in which messages came.
    pub(crate) fn handle_messages(&mut self, now: Timestamp) {
        let in_reach = self.slept_at.take().is_none_or(|slept| now - slept < self.whole);
        if in_reach {
            self.window = self.whole;
        }
        (self.open, self.until) = (self.window >= SHORTEST, None);
    }

    /// Nothing was found: whether to look again.
    pub(crate) fn goes_on(&mut self, now: Timestamp) -> bool {
        if !self.open {
            return false;
        }
        if now < *self.until.get_or_insert(now + self.window) {
            return true;
        }
        self.open = false;
        if self.adaptive {
            self.window /= 2;
        }
        false
    }

    /// Whether there is a window at all just now.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) fn handle_sleep(&mut self, now: Timestamp) {
        self.slept_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_nanos(micros * 1000)
    }

    fn spin(forced: bool) -> Spin {
        Spin { window: Duration::from_micros(100), forced }
    }

    #[test]
    fn windows_that_end_in_vain_shrink_to_nothing_and_a_near_message_restores_them() {
        let mut spinner = Spinner::new(spin(false), true);
        let mut now = 0;
        let mut windows = 0;
        loop {
            now += 10_000;
            spinner.handle_messages(at(now));
            if !spinner.is_open() {
                break;
            }
            windows += 1;
            // What the message has set off took longer than the window, which begins with the first look.
            assert!(spinner.goes_on(at(now + 500)));
            assert!(!spinner.goes_on(at(now + 600)));
            spinner.handle_sleep(at(now + 600));
        }
        assert_eq!(windows, 5, "100, 50, 25, 12.5 and 6.25 us");
        spinner.handle_sleep(at(now));
        spinner.handle_messages(at(now + 50));
        assert!(spinner.goes_on(at(now + 60)) && spinner.goes_on(at(now + 159)));
        assert!(!spinner.goes_on(at(now + 160)));
    }

    #[test]
    fn a_forced_window_stays_and_a_forbidden_one_never_opens() {
        let mut forced = Spinner::new(spin(true), false);
        for step in 1..100 {
            let now = step * 10_000;
            forced.handle_messages(at(now));
            assert!(forced.goes_on(at(now + 10)) && forced.goes_on(at(now + 109)));
            assert!(!forced.goes_on(at(now + 110)));
            forced.handle_sleep(at(now + 110));
        }
        let mut forbidden = Spinner::new(spin(false), false);
        forbidden.handle_messages(at(1));
        assert!(!forbidden.is_open());
    }
}
