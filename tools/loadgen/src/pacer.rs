//! Open-loop sending: a thread that says when something is due.
//!
//! The engine's timers are as coarse as the kernel's poll, a millisecond. Where a processor is to spare, the thread spins on it and the
//! client's cores spin too: then a message leaves within a microsecond or so of when it is due. Elsewhere the thread sleeps to the
//! nanosecond and wakes the core, which is precise to some ten microseconds. What is late all the same is sent at once and its response
//! time counts from when it was due, so a server that stands still is not spared; how late the generator was has a histogram of its own.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use clap::ValueEnum;
use corecast::Handle;
use rustix::thread::{ClockId, CpuSet};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use crate::arrivals::Schedule;
use crate::client::Command;
use crate::clock;
use crate::error::Error;
use crate::progress::Progress;

/// Messages closer together than this are announced together.
const SLEEPING_QUANTUM_NS: u64 = 50_000;
const SPINNING_QUANTUM_NS: u64 = 1_000;

/// How the generator waits for the next message to be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pace {
    /// Looking at the clock, on a processor of its own.
    Spin,
    /// Asleep.
    Sleep,
}

/// One of the engines that send.
pub(crate) struct Sender {
    pub(crate) schedule: Schedule,
    pub(crate) handle: Handle<Command>,
    pub(crate) progress: Arc<Progress>,
}

/// The thread. Ends when it is dropped.
pub(crate) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// `cpu`: where the thread belongs, where that is known.
    pub(crate) fn start(pace: Pace, cpu: Option<usize>, senders: Vec<Sender>) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let for_thread = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("loadgen-pacer".into())
            .spawn(move || {
                prepare(cpu);
                keep_pace(pace, senders, &for_thread);
            })
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

/// Without either the thread is merely less precise, which its lag shows.
fn prepare(cpu: Option<usize>) {
    // The default slack of 50 us would be most of the error.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}

fn keep_pace(pace: Pace, mut senders: Vec<Sender>, stop: &AtomicBool) {
    let quantum = if pace == Pace::Spin { SPINNING_QUANTUM_NS } else { SLEEPING_QUANTUM_NS };
    let mut announced = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(due) = senders.iter().map(|sender| sender.schedule.next()).min() else { return };
        let due = due.max(announced + quantum);
        match pace {
            Pace::Spin => spin_until(due, stop),
            Pace::Sleep => sleep_until(due, stop),
        }
        announced = clock::now_ns();
        for Sender { schedule, handle, progress } in &mut senders {
            let mut owes = false;
            while schedule.due(announced).is_some() {
                owes = true;
            }
            // A core that has not looked since the last announcement will find this too. Where its inbox is full, it is told the next time.
            if owes && !progress.paced.swap(true, Ordering::AcqRel) && handle.post(0, Command::Pace).is_err() {
                progress.paced.store(false, Ordering::Release);
            }
        }
    }
}

fn spin_until(due: u64, stop: &AtomicBool) {
    while clock::now_ns() < due && !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
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
