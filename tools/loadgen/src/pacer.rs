//! Open-loop sending: when each message is due, and a thread that says so.
//!
//! The engine's timers are as coarse as the kernel's poll, a millisecond. A thread that sleeps to the nanosecond and posts a command is
//! precise to some ten microseconds, which is the price of waking two threads. What is late all the same is sent at once and its
//! latency counts from when it was due, so a server that stands still is not spared.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use corecast::Handle;
use rustix::thread::ClockId;
use rustix::time::Timespec;

use crate::client::{Command, Share};
use crate::clock;
use crate::error::Error;

/// Messages closer together than this are announced together.
const QUANTUM_NS: f64 = 50_000.0;

/// When the messages of one core are due.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: f64,
    interval: f64,
    next: u64,
}

impl Schedule {
    /// The core's part of `rate` messages a second from `at` on; the cores take turns.
    pub(crate) fn new(rate: f64, at: u64, share: &Share) -> Self {
        let interval = 1e9 / rate;
        Self { start: at as f64 + interval * share.engine as f64, interval: interval * share.engines as f64, next: 0 }
    }

    /// When the next message is due, if that is not after `now`. Each is returned once.
    pub(crate) fn due(&mut self, now: u64) -> Option<u64> {
        let due = (self.start + self.interval * self.next as f64) as u64;
        (due <= now).then(|| {
            self.next += 1;
            due
        })
    }
}

/// The thread. Ends when it is dropped.
pub(crate) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    pub(crate) fn start(rate: f64, at: u64, handles: Vec<Handle<Command>>) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let for_thread = Arc::clone(&stop);
        let period = (1e9 / rate).max(QUANTUM_NS);
        let thread = std::thread::Builder::new()
            .name("loadgen-pacer".into())
            .spawn(move || pace(period, at, &handles, &for_thread))
            .map_err(|source| Error::System { what: "cannot start the pacer's thread", source })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pace(period: f64, at: u64, handles: &[Handle<Command>], stop: &AtomicBool) {
    // The default slack of 50 us would be most of the error. Without it the thread is merely less precise.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        sleep_until((at as f64 + period * round as f64) as u64, stop);
        for handle in handles {
            // Refused where the inbox is full: then the core has not looked at the last announcement either.
            let _ = handle.post(0, Command::Pace);
        }
        // What has become due meanwhile is sent by the announcement that was just made.
        let passed = (clock::now_ns().saturating_sub(at) as f64 / period) as u64;
        round = (round + 1).max(passed);
    }
}

/// In naps, so that a pacer of one message a minute ends in time as well.
fn sleep_until(due: u64, stop: &AtomicBool) {
    const NAP_NS: u64 = 100_000_000;
    loop {
        let now = clock::now_ns();
        if now >= due || stop.load(Ordering::Relaxed) {
            return;
        }
        let until = due.min(now + NAP_NS);
        let until = Timespec { tv_sec: (until / 1_000_000_000) as i64, tv_nsec: (until % 1_000_000_000) as i64 };
        let _ = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cores_of_a_run_share_one_rate() {
        let share = |engine| Share { engine, engines: 2, first: 0, count: 1, total: 2 };
        let mut schedules = [Schedule::new(1000.0, 5, &share(0)), Schedule::new(1000.0, 5, &share(1))];
        let [first, second] = schedules.each_mut().map(|schedule| {
            let mut due = Vec::new();
            while let Some(at) = schedule.due(4_000_004) {
                due.push(at);
            }
            due
        });
        assert_eq!(first, [5, 2_000_005]);
        assert_eq!(second, [1_000_005, 3_000_005]);
    }
}
