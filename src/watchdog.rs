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

use crate::time::Timestamp;

/// Looks per budget: a call that runs for a quarter more than its budget, and for as long as this thread is late, is never missed.
const LOOKS: u32 = 4;
/// At most one line is logged in so long, for the whole engine.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The methods of [`crate::Handler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Method {
    Start,
    Authorize,
    Connected,
    Message,
    Request,
    Response,
    Drained,
    Slow,
    Subscribed,
    Unsubscribed,
    SendFailed,
    DialFailed,
    Closed,
    Command,
    Acked,
    Receipt,
    Timer,
}

impl Method {
    const ALL: [(Self, &'static str); 17] = [
        (Self::Start, "on_start"),
        (Self::Authorize, "authorize"),
        (Self::Connected, "on_connected"),
        (Self::Message, "on_message"),
        (Self::Request, "on_request"),
        (Self::Response, "on_response"),
        (Self::Drained, "on_drained"),
        (Self::Slow, "on_slow"),
        (Self::Subscribed, "on_subscribed"),
        (Self::Unsubscribed, "on_unsubscribed"),
        (Self::SendFailed, "on_send_failed"),
        (Self::DialFailed, "on_dial_failed"),
        (Self::Closed, "on_closed"),
        (Self::Command, "on_command"),
        (Self::Acked, "on_acked"),
        (Self::Receipt, "on_receipt"),
        (Self::Timer, "on_timer"),
    ];
}

/// A call of a handler.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Callback {
    method: Method,
    message_type: Option<u16>,
}

impl Callback {
    #[inline]
    pub(crate) fn new(method: Method) -> Self {
        Self { method, message_type: None }
    }

    #[inline]
    pub(crate) fn with(method: Method, message_type: u16) -> Self {
        Self { method, message_type: Some(message_type) }
    }

    /// The method of [`crate::Handler`].
    #[must_use]
    pub fn method(&self) -> &'static str {
        Method::ALL[self.method as usize].1
    }

    /// The type of the message, request or response that it was called with.
    #[must_use]
    pub fn message_type(&self) -> Option<u16> {
        self.message_type
    }

    /// In 25 bits.
    fn encode(self) -> u64 {
        let message_type = self.message_type.map_or(0, |message_type| 1 << 16 | u64::from(message_type));
        (self.method as u64) << 17 | message_type
    }

    fn decode(bits: u64) -> Self {
        let (method, _) = Method::ALL[(bits >> 17 & 0xFF) as usize % Method::ALL.len()];
        Self { method, message_type: (bits >> 16 & 1 == 1).then_some(bits as u16) }
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message_type {
            Some(message_type) => write!(f, "{} of type {message_type}", self.method()),
            None => f.write_str(self.method()),
        }
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A call of a handler that ran for longer than [`crate::Metrics::handler_budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrun {
    /// On which core.
    pub core: usize,
    /// Which call.
    pub callback: Callback,
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
pub(crate) struct Running<'a>(&'a Watch);

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.running.store(0, Ordering::Relaxed);
    }
}

impl Watch {
    /// A call begins. `number`: how many have begun on this core.
    #[inline]
    pub(crate) fn enter(&self, number: u64, callback: Callback) -> Running<'_> {
        self.running.store(number << 25 | callback.encode(), Ordering::Relaxed);
        Running(self)
    }

    pub(crate) fn overruns(&self) -> u64 {
        self.overruns.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self, core: usize) -> Option<Overrun> {
        let last = self.last.load(Ordering::Relaxed);
        let at = Timestamp::ORIGIN + Duration::from_secs((last >> 25).saturating_sub(1));
        (last != 0).then(|| Overrun { core, callback: Callback::decode(last), at })
    }

    fn report(&self, callback: Callback, now: Duration) {
        self.overruns.fetch_add(1, Ordering::Relaxed);
        // One more, so that it is never zero.
        self.last.store((now.as_secs() + 1) << 25 | callback.encode(), Ordering::Relaxed);
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
    fn again(&mut self, running: u64, passed: Duration, budget: Duration) -> Option<Callback> {
        if running == 0 || running != self.running {
            *self = Self { running, ..Self::default() };
            return None;
        }
        self.age += passed;
        if self.told || self.age < budget {
            return None;
        }
        self.told = true;
        Some(Callback::decode(running))
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
            let Some(callback) = look.again(watch.running.load(Ordering::Relaxed), passed, budget) else { continue };
            watch.report(callback, elapsed());
            if silent_until.is_some_and(|until| now < until) {
                unsaid += 1;
                continue;
            }
            silent_until = Some(now + LOG_INTERVAL);
            let unsaid = std::mem::take(&mut unsaid);
            log::warn!("core {core}: {callback} has run for more than {budget:?} (metrics.handler_budget); {unsaid} others before it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_call_survives_its_encoding() {
        for (index, (method, name)) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, index);
            for callback in [Callback::new(method), Callback::with(method, 0), Callback::with(method, u16::MAX)] {
                assert_eq!(Callback::decode(u64::MAX << 25 | callback.encode()), callback);
                assert_eq!(callback.method(), name);
            }
        }
        assert_eq!(Callback::with(Method::Message, 7).to_string(), "on_message of type 7");
        assert_eq!(Callback::new(Method::Timer).to_string(), "on_timer");
    }

    #[test]
    fn a_call_is_told_once_when_it_was_seen_for_the_budget_and_its_twin_is_another() {
        let watch = Watch::default();
        let callback = Callback::with(Method::Message, 7);
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
            let _running = watch.enter(1, Callback::new(Method::Timer));
            panic!("as the application does");
        }));
        assert!(result.is_err());
        assert_eq!(watch.running.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_last_offender_is_kept_with_its_second() {
        let watch = Watch::default();
        assert_eq!((watch.overruns(), watch.last(3)), (0, None));
        watch.report(Callback::new(Method::Timer), 500 * MS);
        watch.report(Callback::with(Method::Request, 9), 70_500 * MS);
        let last = watch.last(3).unwrap();
        assert_eq!((last.core, last.callback), (3, Callback::with(Method::Request, 9)));
        assert_eq!((watch.overruns(), last.at - Timestamp::ORIGIN), (2, 70_000 * MS));
    }
}
