//! What the integration tests share: configurations, an engine whose handler tells everything, peers written by hand, waiting with a
//! deadline.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part")]

pub(crate) mod node;
pub(crate) mod place;
pub(crate) mod raw;

use std::time::{Duration, Instant};

use corecast::{Admission, Config, Counter, Dial, Engine, Handle, Identity, Stats};

/// How long anything may take before a test calls it lost. Generous: the machine may be busy.
pub(crate) const LIVENESS: Duration = Duration::from_secs(10);
/// Longer than any test: for deadlines that must not be what ends something.
pub(crate) const NEVER: Duration = Duration::from_secs(600);

/// Listens on a free port of 127.0.0.1, where many peers may come from one address. A handler that panics, over what it expects say, ends
/// its core, so that no test passes beside it.
pub(crate) fn loopback() -> Config {
    let mut config = Config::plaintext().listen("127.0.0.1:0".parse().unwrap());
    config.addresses.exempt = vec!["127.0.0.0/8".parse().unwrap()];
    config.restarts.most = 0;
    config
}

/// The ways in which two engines may speak, for what must hold in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Plaintext,
    Noise,
}

impl Wire {
    pub(crate) const BOTH: [Self; 2] = [Self::Plaintext, Self::Noise];

    /// A server's configuration.
    pub(crate) fn listening(self) -> Config {
        self.config(2).listen("127.0.0.1:0".parse().unwrap())
    }

    /// A client's.
    pub(crate) fn dialling(self) -> Config {
        self.config(1)
    }

    fn config(self, name: u8) -> Config {
        let mut config = match self {
            Self::Plaintext => Config::plaintext(),
            Self::Noise => Config::secure(Identity::from_secret([name; 32]), Admission::Open),
        };
        config.addresses.exempt = vec!["127.0.0.0/8".parse().unwrap()];
        config.restarts.most = 0;
        config
    }

    /// How a client dials that server.
    pub(crate) fn dial<C: Send + 'static>(self, server: &Engine<C>) -> Dial {
        let dial = Dial::to(server.local_addrs()[0]);
        if self == Self::Noise { dial.expect(server.node_id()) } else { dial }
    }
}

/// Waits until `done` says so; fails, naming `what`, after [`LIVENESS`].
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIVENESS;
    while !done() {
        assert!(Instant::now() < deadline, "not within {LIVENESS:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the counters are as they should be.
pub(crate) fn eventually_stats<C: Send + 'static>(handle: &Handle<C>, what: &str, mut done: impl FnMut(&Stats) -> bool) {
    let deadline = Instant::now() + LIVENESS;
    loop {
        let stats = handle.stats();
        if done(&stats) {
            return;
        }
        assert!(Instant::now() < deadline, "not within {LIVENESS:?}: {what}: {stats:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a counter has exactly this value.
pub(crate) fn eventually_counts<C: Send + 'static>(handle: &Handle<C>, counter: Counter, value: u64) {
    let deadline = Instant::now() + LIVENESS;
    while handle.stats().get(counter) != value {
        assert!(Instant::now() < deadline, "{} is {}, not {value}: {:?}", counter.name(), handle.stats().get(counter), handle.stats());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until nothing is left of anybody: no peer, no handshake, no byte.
pub(crate) fn eventually_idle<C: Send + 'static>(handle: &Handle<C>) {
    const LEVELS: [Counter; 6] =
        [Counter::Peers, Counter::HalfOpen, Counter::Subscriptions, Counter::PrivateBytes, Counter::LogBytes, Counter::ReassemblyBytes];
    eventually_stats(handle, "everything is given back", |stats| LEVELS.iter().all(|&level| stats.get(level) == 0));
}

/// How many file descriptors this process has open.
pub(crate) fn open_files() -> usize {
    // One of them is the directory that is read.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}
