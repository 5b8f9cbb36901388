//! What a run looks like from outside while it goes on: counters that the client cores publish, and one line on a terminal.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::live::{Live, Now};
use crate::report::Interval;

/// Published by one client core, read by the main thread, but for what the pacer says. A cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Progress {
    /// Peers that the server has answered.
    pub(crate) ready: AtomicU64,
    /// Peers that were ready and have ended.
    pub(crate) ended: AtomicU64,
    /// The targets at which something answered, if only to refuse: a bit each.
    pub(crate) reached: AtomicU64,
    /// Why the latest attempt to connect failed.
    failure: Mutex<Option<String>>,
    /// Failures that trying again will not mend.
    pub(crate) fatal: AtomicU64,
    /// Messages sent.
    pub(crate) sent: AtomicU64,
    /// Messages that arrived, each counted once.
    pub(crate) received: AtomicU64,
    /// Requests that ended without an answer: nobody waits for those.
    pub(crate) unanswered: AtomicU64,
    /// What the server owes besides: bulk messages that were asked for, word of broadcasts that were sent.
    pub(crate) outstanding: AtomicU64,
    /// The pacer has announced something that the core has not looked at.
    pub(crate) paced: AtomicBool,
}

impl Progress {
    /// Something answered at this target. One writer each: no read-modify-write is needed.
    pub(crate) fn answered(&self, target: usize) {
        self.reached.store(self.reached.load(Relaxed) | 1 << target, Relaxed);
    }

    /// An attempt to connect failed.
    pub(crate) fn failed(&self, reason: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_deref() != Some(reason) {
            *failure = Some(reason.to_owned());
        }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All cores of a run.
#[derive(Clone, Debug)]
pub(crate) struct Cohort(pub(crate) Vec<Arc<Progress>>);

impl Cohort {
    /// Why some core's latest attempt to connect failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.0.iter().find_map(|progress| progress.failure())
    }

    /// At how many targets something answered.
    pub(crate) fn reached(&self) -> usize {
        self.0.iter().fold(0, |all, progress| all | progress.reached.load(Relaxed)).count_ones() as usize
    }

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
    /// What is said instead of how fast the count grows.
    note: Option<String>,
    /// What is shown instead of the line.
    live: Option<Live>,
}

impl Line {
    pub(crate) fn new(name: &'static str, live: Option<Live>) -> Self {
        let now = Instant::now();
        Self { terminal: std::io::stderr().is_terminal(), name, started: now, shown: None, last: (String::new(), now, 0), note: None, live }
    }

    /// Whether there is a line at all.
    pub(crate) fn on_terminal(&self) -> bool {
        self.terminal || self.live.is_some()
    }

    /// What is said from now on instead of how fast the count grows.
    pub(crate) fn note(&mut self, note: Option<String>) {
        self.note = note;
    }

    /// `phase`, the time, and how fast `count` grows.
    pub(crate) fn show(&mut self, phase: &str, count: u64, unit: &str) {
        self.show_measured(phase, count, unit, &[]);
    }

    /// The same, and the measured time so far.
    pub(crate) fn show_measured(&mut self, phase: &str, count: u64, unit: &str, intervals: &[Interval]) {
        let now = Instant::now();
        if !self.on_terminal() || self.shown.is_some_and(|shown| now - shown < Duration::from_millis(200)) {
            return;
        }
        let (last_phase, last_shown, last_count) = &self.last;
        let since = (now - *last_shown).as_secs_f64();
        // Another phase counts another thing.
        let rate = if since > 0.0 && last_phase == phase { count.saturating_sub(*last_count) as f64 / since } else { 0.0 };
        self.last = (phase.to_owned(), now, count);
        self.shown = Some(now);
        if let Some(live) = &mut self.live {
            let (elapsed, note) = (now - self.started, self.note.as_deref());
            return live.show(&Now { phase, elapsed, count, unit, rate, note, intervals });
        }
        let elapsed = (now - self.started).as_secs_f64();
        let (name, growth) = (self.name, format!("{count:>12} {unit}  {rate:>12.0} /s"));
        let told = self.note.as_ref().map_or(growth, |note| format!("{count} {unit}: {note}"));
        let text = format!("{name:<8}{phase:<12}{elapsed:6.1} s  {told}");
        // A line that wraps cannot be written over.
        let shown: String = text.chars().take(terminal_size(std::io::stderr()).0 - 1).collect();
        overwrite(&shown);
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.shown.take().is_none() {
            return;
        }
        match &mut self.live {
            Some(live) => live.clear(),
            None => overwrite(""),
        }
    }
}

/// Columns and rows of the terminal.
pub(crate) fn terminal_size(terminal: impl AsFd) -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(terminal).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

/// A terminal that is gone is no reason to stop.
fn overwrite(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}
