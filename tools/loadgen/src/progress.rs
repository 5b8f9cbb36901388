//! What a run looks like from outside while it goes on: counters that the client cores publish, and one line on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Published by one client core, read by the main thread. A cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Progress {
    /// Peers that the server has answered.
    pub(crate) ready: AtomicU64,
    /// Peers that were ready and have ended.
    pub(crate) ended: AtomicU64,
    /// Failures that trying again will not mend.
    pub(crate) fatal: AtomicU64,
    /// Messages sent.
    pub(crate) sent: AtomicU64,
    /// Messages that arrived, each counted once.
    pub(crate) received: AtomicU64,
}

/// All cores of a run.
#[derive(Clone, Debug)]
pub(crate) struct Cohort(pub(crate) Vec<Arc<Progress>>);

impl Cohort {
    pub(crate) fn sum(&self, field: impl Fn(&Progress) -> &AtomicU64) -> u64 {
        self.0.iter().map(|progress| field(progress).load(Relaxed)).sum()
    }
}

/// The line that is written over itself. Nothing where standard error is no terminal.
pub(crate) struct Line {
    terminal: bool,
    name: &'static str,
    started: Instant,
    shown: Option<Instant>,
    /// What was shown last: the phase, when, and the count.
    last: (String, Instant, u64),
}

impl Line {
    pub(crate) fn new(name: &'static str) -> Self {
        let now = Instant::now();
        Self { terminal: std::io::stderr().is_terminal(), name, started: now, shown: None, last: (String::new(), now, 0) }
    }

    /// `phase`, the time, and how fast `count` grows.
    pub(crate) fn show(&mut self, phase: &str, count: u64, unit: &str) {
        let now = Instant::now();
        if !self.terminal || self.shown.is_some_and(|shown| now - shown < Duration::from_millis(200)) {
            return;
        }
        let (last_phase, last_shown, last_count) = &self.last;
        let since = (now - *last_shown).as_secs_f64();
        // Another phase counts another thing.
        let rate = if since > 0.0 && last_phase == phase { count.saturating_sub(*last_count) as f64 / since } else { 0.0 };
        self.last = (phase.to_owned(), now, count);
        self.shown = Some(now);
        let elapsed = (now - self.started).as_secs_f64();
        eprint!("\r\x1b[K{:<8}{phase:<12}{elapsed:6.1} s  {count:>12} {unit}  {rate:>12.0} /s", self.name);
        let _ = std::io::stderr().flush();
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}
