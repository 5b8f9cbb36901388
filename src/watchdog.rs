//! Who keeps a core from everything else: a thread that looks which call of a handler runs.
//!
//! A core publishes with one relaxed store which call begins, and with another that it has ended; it reads no clock for that. The watchdog
//! looks four times per budget, and a call that it sees from one look to the next, for a budget's time, has run at least that long. It
//! knows no peers and no shard, and it only reports: a call that never returns cannot be ended from outside.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crossbeam::utils::CachePadded;

use crate::handler::Callback;
use crate::time::Timestamp;

/// Looks per budget: a call that runs for a quarter more than its budget, and for as long as this thread is late, is never missed.
const LOOKS: u32 = 4;
/// At most one line is logged in so long, for the whole engine.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A call of a handler, as far as it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    callback: Callback,
    message_type: Option<u16>,
}

impl Running {
    #[inline]
    pub(crate) fn new(callback: Callback) -> Self {
        Self { callback, message_type: None }
    }

    #[inline]
    pub(crate) fn with(callback: Callback, message_type: u16) -> Self {
        Self { callback, message_type: Some(message_type) }
    }

    /// In 25 bits.
    fn encode(self) -> u64 {
        let message_type = self.message_type.map_or(0, |message_type| 1 << 16 | u64::from(message_type));
        (self.callback as u64) << 17 | message_type
    }

    fn decode(bits: u64) -> Self {
        let callback = Callback::ALL[(bits >> 17 & 0xFF) as usize % Callback::ALL.len()];
        Self { callback, message_type: (bits >> 16 & 1 == 1).then_some(bits as u16) }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message_type {
            Some(message_type) => write!(f, "{} of type {message_type}", self.callback),
            None => self.callback.fmt(f),
        }
    }
}

/// A call of a handler that ran for longer than [`crate::Metrics::handler_budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrun {
    /// On which core.
    pub core: usize,
    /// Which method.
    pub callback: Callback,
    /// The type of the message, request or response that it was called with.
    pub message_type: Option<u16>,
    /// When it was seen, to the second, in the engine's time ([`crate::Context::now`]).
    pub at: Timestamp,
}

/// What a core says of the call that runs, and what the watchdog has seen of it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Zero while none does. A number for each call, so that one is told from the next of the same kind; then the call.
    running: CachePadded<AtomicU64>,
    overruns: AtomicU64,
    /// Seconds since the engine's start, then the call: one word, so that both belong together. Zero: none yet.
    last: AtomicU64,
}

/// A call runs while this lives, also where it ends by a panic.
pub(crate) struct Published<'a>(&'a Watch);

impl Drop for Published<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.running.store(0, Ordering::Relaxed);
    }
}

impl Watch {
    /// A call begins. `number`: how many have begun on this core.
    #[inline]
    pub(crate) fn enter(&self, number: u64, call: Running) -> Published<'_> {
        self.running.store(number << 25 | call.encode(), Ordering::Relaxed);
        Published(self)
    }

    pub(crate) fn overruns(&self) -> u64 {
        self.overruns.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self, core: usize) -> Option<Overrun> {
        let last = self.last.load(Ordering::Relaxed);
        let at = Timestamp::ORIGIN + Duration::from_secs((last >> 25).saturating_sub(1));
        let Running { callback, message_type } = Running::decode(last);
        (last != 0).then_some(Overrun { core, callback, message_type, at })
    }

    fn report(&self, call: Running, now: Duration) {
        self.overruns.fetch_add(1, Ordering::Relaxed);
        // One more, so that it is never zero.
        self.last.store((now.as_secs() + 1) << 25 | call.encode(), Ordering::Relaxed);
    }
}

/// What the watchdog remembers of a core.
#[derive(Debug, Default)]
struct Look {
    running: u64,
    /// How long that has been seen.
    age: Duration,
    told: bool,
}

impl Look {
    /// So much time after the last look. Returns the call if it is over the budget now, once.
    fn again(&mut self, running: u64, passed: Duration, budget: Duration) -> Option<Running> {
        if running == 0 || running != self.running {
            *self = Self { running, ..Self::default() };
            return None;
        }
        self.age += passed;
        if self.told || self.age < budget {
            return None;
        }
        self.told = true;
        Some(Running::decode(running))
    }
}

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches these cores. `elapsed` says how long the engine has run.
    pub(crate) fn start(cores: Vec<Arc<Watch>>, budget: Duration, elapsed: impl Fn() -> Duration + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let watch = move || watch(&cores, budget, &stopped, elapsed);
        let thread = std::thread::Builder::new().name("corecast-watchdog".to_owned()).spawn(watch)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there would be nobody to tell.
            let _ = thread.join();
        }
    }
}

fn watch(cores: &[Arc<Watch>], budget: Duration, stopped: &Receiver<()>, elapsed: impl Fn() -> Duration) {
    let interval = budget / LOOKS;
    let mut looks: Vec<Look> = cores.iter().map(|_| Look::default()).collect();
    let (mut last, mut silent_until, mut unsaid) = (Instant::now(), None, 0_u64);
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        // Where this thread did not run for longer, the cores perhaps did not either: that is no handler's fault.
        let passed = (now - last).min(2 * interval);
        last = now;
        for (core, (watch, look)) in cores.iter().zip(&mut looks).enumerate() {
            let Some(call) = look.again(watch.running.load(Ordering::Relaxed), passed, budget) else { continue };
            watch.report(call, elapsed());
            if silent_until.is_some_and(|until| now < until) {
                unsaid += 1;
                continue;
            }
            silent_until = Some(now + LOG_INTERVAL);
            let unsaid = std::mem::take(&mut unsaid);
            log::warn!(
                "core {core}: {call} has run for more than {budget:?} (metrics.handler_budget); {unsaid} more since the last such line"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_call_survives_its_encoding() {
        for (index, callback) in Callback::ALL.into_iter().enumerate() {
            assert_eq!(callback as usize, index);
            for call in [Running::new(callback), Running::with(callback, 0), Running::with(callback, u16::MAX)] {
                assert_eq!(Running::decode(u64::MAX << 25 | call.encode()), call);
            }
        }
        assert_eq!(Running::with(Callback::Message, 7).to_string(), "on_message of type 7");
        assert_eq!(Running::new(Callback::Timer).to_string(), "on_timer");
    }

    #[test]
    fn a_call_is_told_once_when_it_was_seen_for_the_budget_and_its_twin_is_another() {
        let watch = Watch::default();
        let callback = Running::with(Callback::Message, 7);
        let mut look = Look::default();
        let mut again = |passed| look.again(watch.running.load(Ordering::Relaxed), passed, 10 * MS);
        {
            let _running = watch.enter(1, callback);
            assert_eq!([again(MS), again(5 * MS), again(4 * MS)], [None, None, None], "the first look does not know since when");
            assert_eq!([again(MS), again(50 * MS)], [Some(callback), None]);
        }
        assert_eq!(again(50 * MS), None, "nothing runs");
        let _running = watch.enter(2, callback);
        assert_eq!([again(9 * MS), again(9 * MS)], [None, None]);
        let _running = watch.enter(3, callback);
        assert_eq!([again(9 * MS), again(9 * MS), again(MS)], [None, None, Some(callback)]);
    }

    #[test]
    fn a_call_that_panics_does_not_run_any_more() {
        let watch = Watch::default();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _running = watch.enter(1, Running::new(Callback::Timer));
            panic!("as the application does");
        }));
        assert!(result.is_err());
        assert_eq!(watch.running.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_last_offender_is_kept_with_its_second() {
        let watch = Watch::default();
        assert_eq!((watch.overruns(), watch.last(3)), (0, None));
        watch.report(Running::new(Callback::Timer), 500 * MS);
        watch.report(Running::with(Callback::Request, 9), 70_500 * MS);
        let last = watch.last(3).unwrap();
        assert_eq!((last.core, last.callback, last.message_type), (3, Callback::Request, Some(9)));
        assert_eq!((watch.overruns(), last.at - Timestamp::ORIGIN), (2, 70_000 * MS));
    }
}
