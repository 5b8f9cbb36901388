//! Starting and stopping.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use mio::{Poll, Waker};

use crate::address::Address;
use crate::config::{Config, Cores};
use crate::error::StartError;
use crate::handle::{Handle, mark_core_thread};
use crate::handler::Handler;
use crate::id::NodeId;
use crate::metrics::Counter;
use crate::notice::Notice;
use crate::reactor::affinity;
use crate::reactor::files;
use crate::reactor::host::Host;
use crate::reactor::inbox::{Fabric, Inbox, Signal};
use crate::reactor::listener::{self, Bound};
use crate::reactor::{Clock, Farewell, Reactor, WAKER};
use crate::rng::Rng;
use crate::shard::{Control, Shard, Shared, drop_quietly};
use crate::time::Timestamp;
use crate::warning::Warning;
use crate::watchdog::Watchdog;

/// A running engine. Dropping it shuts it down, as [`Engine::shutdown`] does.
pub struct Engine<C: Send + 'static = ()> {
    handle: Handle<C>,
    fabric: Arc<Fabric<C>>,
    threads: Vec<JoinHandle<Farewell>>,
    /// Ends after the cores, so that it sees what keeps them.
    watchdog: Option<Watchdog>,
    addresses: Vec<Address>,
    local_addrs: Vec<SocketAddr>,
    warnings: Vec<Warning>,
}

/// How a shutdown went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Everything that was queued when the shutdown began has left, and every peer was told goodbye.
    pub drained: bool,
    /// Messages that were accepted for a peer and did not leave, over the engine's whole life: a peer that ended early had some too.
    pub unsent_messages: u64,
    /// Bytes that were still queued for peers that ended during this shutdown.
    pub unsent_bytes: u64,
    /// Connections that had not ended when the time was up.
    pub cut: usize,
    /// Cores whose thread ended by a panic, at any time since the start: their handlers panicked more often than `Config::restarts` allows,
    /// or when they were made anew, or wanted it ([`crate::AfterPanic::EndCore`]).
    pub panicked: Vec<usize>,
    /// Panics of the application's code on all cores since the start, caught or not: `handler_panics`.
    pub handler_panics: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl<C: Send + 'static> Engine<C> {
    /// Starts an engine: opens the listening sockets, then one thread for each core. `factory` is called once on each core's thread, with
    /// the core's number, and again each time that the core's handler has panicked: see [`Handler`].
    ///
    /// When this returns, the engine listens, and [`Engine::local_addrs`] says where. A processor that cannot be had is no error: see
    /// [`Engine::warnings`].
    pub fn start<H, F>(config: Config, factory: F) -> Result<Self, StartError>
    where
        H: Handler<Command = C>,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        config.validate()?;
        let mut warnings = Vec::from_iter(ensure_files(&config)?);
        let host = Host::here();
        warnings.extend(host.warnings(&config));
        let may_spin = host.may_spin(config.cores.count());
        let (listeners, addresses) = listen(&config)?;
        let mut rng = Rng::new(config.seed.unwrap_or_else(random_seed));
        let shared = Shared::new(Arc::new(config), &mut rng);
        let (fabric, polls) = make_fabric(shared)?;
        let starter = Starter { fabric: Arc::clone(&fabric), factory: Arc::new(factory), may_spin };
        let mut threads = Vec::new();
        let (ready, started) = bounded(polls.len());
        let mut listeners = Some(listeners);
        for (core, poll) in polls.into_iter().enumerate() {
            let sockets = listeners.take().unwrap_or_default();
            match starter.spawn(core, poll, sockets, rng.next_u64(), ready.clone()) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    stop(&fabric, threads);
                    return Err(StartError::Core { core, source });
                }
            }
        }
        drop(ready);
        if let Err(error) = await_cores(&started, threads.len(), &mut warnings) {
            stop(&fabric, threads);
            return Err(error);
        }
        let watchdog = match watch(&fabric) {
            Ok(watchdog) => watchdog,
            Err(source) => {
                stop(&fabric, threads);
                return Err(StartError::Core { core: 0, source });
            }
        };
        for warning in &warnings {
            log::warn!("{warning}");
        }
        let listening = addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
        let listening = if listening.is_empty() { "nothing" } else { &listening };
        log::info!("started: cores {}, node {}, listening on {listening}", threads.len(), fabric.shared.node);
        let local_addrs = addresses.iter().filter_map(Address::socket_addr).collect();
        Ok(Self { handle: Handle::new(Arc::clone(&fabric)), fabric, threads, watchdog, addresses, local_addrs, warnings })
    }

    /// A handle for any thread.
    #[must_use]
    pub fn handle(&self) -> Handle<C> {
        self.handle.clone()
    }

    /// The IP addresses and ports where the engine listens, in the order of `Config::listen`, with the ports that were given for 0. Paths
    /// are not among them, since they are what `Config::listen` has: see [`Engine::addresses`].
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Wherever the engine listens, in the order of `Config::listen`, with the ports that were given for 0.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The name that this engine claims.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.fabric.shared.node
    }

    /// What is not as it was asked for, or will not carry what was asked for. Found out once, at start.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Stops: accepts and dials nobody more, gives the outboxes `Timeouts::drain` to empty, says goodbye, closes, and ends the threads.
    /// Blocks until that is done.
    pub fn shutdown(mut self) -> ShutdownReport {
        self.stop()
    }

    /// Lands, and stops: tells all peers that this engine goes and lets nobody more in ([`Handle::drain`]), waits until all have gone, for
    /// `notice.period` at most, then does what [`Engine::shutdown`] does. Blocks until that is done.
    ///
    /// An engine that was told to go before, by a handle, goes by that notice; only how long this waits is by the one given here. How many
    /// did not go by themselves is in [`Counter::ClosedShuttingDown`](crate::Counter::ClosedShuttingDown) while it runs, and who is still
    /// there, in [`Handle::stats`] of a handle (`peers`).
    pub fn drain(mut self, notice: Notice) -> ShutdownReport {
        let began = Instant::now();
        let (waiting, landed) = bounded::<()>(0);
        // Without the core that decides it, nobody lands.
        if !self.fabric.shared.credits[0].is_closed() {
            self.fabric.signal(0, Signal::Shard(Control::Drain { notice }));
            for core in 0..self.threads.len() {
                self.fabric.signal(core, Signal::Landing(waiting.clone()));
            }
            drop(waiting);
            // Nothing is sent: either all have landed, or the time is up.
            let _ = landed.recv_timeout(notice.rounded().period);
        }
        let mut report = self.stop();
        report.elapsed = began.elapsed();
        report
    }

    fn stop(&mut self) -> ShutdownReport {
        let report = stop(&self.fabric, std::mem::take(&mut self.threads));
        self.watchdog = None;
        log::info!("stopped: {report:?}");
        report
    }
}

impl<C: Send + 'static> Drop for Engine<C> {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
        }
    }
}

impl<C: Send + 'static> fmt::Debug for Engine<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("node", &self.node_id()).field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

fn stop<C>(fabric: &Fabric<C>, threads: Vec<JoinHandle<Farewell>>) -> ShutdownReport {
    let began = Instant::now();
    for core in 0..threads.len() {
        fabric.signal(core, Signal::Shard(Control::Shutdown));
    }
    let mut report = ShutdownReport::default();
    for (core, thread) in threads.into_iter().enumerate() {
        match thread.join() {
            Ok(farewell) => {
                report.unsent_messages += farewell.unsent_messages;
                report.unsent_bytes += farewell.unsent_bytes;
                report.cut += farewell.cut;
            }
            Err(panic) => {
                // It may carry something of the application's.
                drop_quietly(panic);
                report.panicked.push(core);
            }
        }
        report.handler_panics += fabric.inboxes[core].published.read().get(Counter::HandlerPanics);
    }
    report.drained = report.panicked.is_empty() && report.cut == 0 && report.unsent_bytes == 0;
    report.elapsed = began.elapsed();
    report
}

/// The thread that looks after handlers, if they have a budget.
fn watch<C: Send + 'static>(fabric: &Arc<Fabric<C>>) -> io::Result<Option<Watchdog>> {
    let Some(budget) = fabric.shared.config.metrics.handler_budget else { return Ok(None) };
    let cores = fabric.inboxes.iter().map(|inbox| Arc::clone(&inbox.watch)).collect();
    let clock = fabric.clock;
    Watchdog::start(cores, budget, move || clock.now() - Timestamp::ORIGIN).map(Some)
}

fn listen(config: &Config) -> Result<(Vec<Bound>, Vec<Address>), StartError> {
    let open = |address: &Address| {
        let bound = listener::bind(address, config.io.unix_mode)?;
        match bound.address() {
            Ok(local) => Ok((bound, local)),
            Err(source) => Err(StartError::Listen { address: address.clone(), source }),
        }
    };
    config.listen.iter().map(open).collect::<Result<Vec<_>, _>>().map(|opened| opened.into_iter().unzip())
}

fn make_fabric<C>(shared: Shared) -> Result<(Arc<Fabric<C>>, Vec<Poll>), StartError> {
    let make = |core: usize| {
        let made = Poll::new().and_then(|poll| Waker::new(poll.registry(), WAKER).map(|waker| (Inbox::new(&shared, waker), poll)));
        made.map_err(|source| StartError::Core { core, source })
    };
    let made: Vec<_> = (0..shared.config.cores.count()).map(make).collect::<Result<_, _>>()?;
    let (inboxes, polls): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    Ok((Arc::new(Fabric { shared, clock: Clock::new(), inboxes: inboxes.into() }), polls))
}

/// What a core says when it is about to run: where it could not be pinned, or why it cannot run.
type Ready = Result<Option<Warning>, StartError>;

fn await_cores(started: &Receiver<Ready>, cores: usize, warnings: &mut Vec<Warning>) -> Result<(), StartError> {
    for core in 0..cores {
        match started.recv() {
            Ok(Ok(warning)) => warnings.extend(warning),
            Ok(Err(error)) => return Err(error),
            // The factory panicked; the panic has printed itself.
            Err(_) => return Err(StartError::Core { core, source: io::Error::other("the handler's factory panicked") }),
        }
    }
    Ok(())
}

/// What every core's thread is made of.
struct Starter<C, F> {
    fabric: Arc<Fabric<C>>,
    factory: Arc<F>,
    may_spin: bool,
}

impl<C: Send + 'static, F> Starter<C, F> {
    fn spawn<H>(&self, core: usize, poll: Poll, sockets: Vec<Bound>, seed: u64, ready: Sender<Ready>) -> io::Result<JoinHandle<Farewell>>
    where
        H: Handler<Command = C>,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        let (fabric, factory, may_spin) = (Arc::clone(&self.fabric), Arc::clone(&self.factory), self.may_spin);
        std::thread::Builder::new().name(format!("corecast-{core}")).spawn(move || {
            mark_core_thread();
            let _closed = CloseOnExit { fabric: Arc::clone(&fabric), core };
            let warning = pin(&fabric.shared.config.cores, core);
            let shard = Shard::new(core, fabric.shared.clone(), seed, fabric.clock.now());
            let mut reactor = Reactor::new(shard, move |core| factory(core), fabric, poll, may_spin);
            let listening = reactor.listen(sockets).map_err(|source| StartError::Core { core, source });
            let failed = listening.is_err();
            let told = ready.send(listening.map(|()| warning));
            // Only a start that was given up does not listen to this.
            if failed || told.is_err() {
                return Farewell::default();
            }
            drop(ready);
            reactor.run()
        })
    }
}

/// However a core's thread ends, nobody sends to it afterwards.
struct CloseOnExit<C> {
    fabric: Arc<Fabric<C>>,
    core: usize,
}

impl<C> Drop for CloseOnExit<C> {
    fn drop(&mut self) {
        self.fabric.retire(self.core);
    }
}

fn pin(cores: &Cores, core: usize) -> Option<Warning> {
    let Cores::Pinned(processors) = cores else { return None };
    let processor = processors[core];
    (!affinity::pin(processor)).then_some(Warning::PinRefused { core, processor })
}

/// An engine that could not have the peers that it may have would find that out under load.
fn ensure_files(config: &Config) -> Result<Option<Warning>, StartError> {
    // Beyond connections: polls, wakers, listeners, logs, and whatever else the program has open.
    const OTHERS: usize = 64;
    let needed = (config.limits.max_peers + config.limits.max_half_open + OTHERS) as u64;
    match files::ensure(needed) {
        Ok(raised) => Ok(raised.map(|(from, to)| Warning::FileLimitRaised { from, to })),
        Err(limit) => Err(StartError::FileLimit { limit, needed }),
    }
}

/// A seed that differs at each start: the standard library's hasher keys are drawn from the system's randomness.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
