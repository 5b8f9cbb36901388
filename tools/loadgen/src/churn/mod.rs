//! `churn`: what a server lives with for months, in seconds, and whether its books balance afterwards.
//!
//! Peers come, have messages returned and go; some stay, some are pooled; strangers fail to get in, each in his way; peers break rules,
//! take more than they may, make the application panic, vanish, do not read, or stop in the middle; dials lead nowhere until a breaker is
//! open. When all of them have gone, every counter of both engines has to come to what was done, or
//! to another counter, and every level, file and peer has to be back where it was ([`books`]).

mod books;
mod guests;
mod pooled;
mod rough;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use corecast::{
    Admission, Config, Context, Counter, Engine, Handle, Handler, Identity, Message, PeerId, Rate, RateLimit, Rates, Stats, WhenOver,
};
use corecast_attacks::Sources;
use serde::Serialize;

use self::books::{Books, Entry, named};
use self::guests::{Guests, Plan, Seen, read};
use self::pooled::Errands;
use self::rough::{Done, Rough};
use crate::cli::{EngineArgs, parse_positive_seconds};
use crate::error::Error;
use crate::hostile;
use crate::html;
use crate::output::{self, JsonSink};
use crate::security::{self, Identities, Target};

/// What the well-behaved come from, and what the server does not hold to its limits by address.
const EXEMPT: &str = "127.1.0.0/16";
/// How long everything may take to be given back when the last one has gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Peers come and go, fail, break rules and stop reading; afterwards every counter has to be explained and everything given back.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChurnArgs {
    /// How long, in seconds.
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_positive_seconds)]
    duration: Duration,
    /// Well-behaved peers at a time; a quarter of them stays all the time, for the others somebody new comes when one goes.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(4..=1000))]
    peers: u64,
    /// Where the keys of the well-behaved begin.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Three seconds: whether it works.
    #[arg(long)]
    quick: bool,
    /// Write the books there as JSON (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Write the books there as one HTML page (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    html: Option<std::path::PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// A message of this type costs half of what a peer may send at once.
const DEAR: u16 = 2;
/// One of this type makes the application panic.
const TRAP: u16 = 3;
const AT_ONCE: u32 = 1_000_000;

/// Sends every message back.
struct Echo;

impl Handler for Echo {
    type Command = ();

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        if message.message_type() == TRAP {
            // As a panic is, but for its text, which would be all over the screen.
            std::panic::resume_unwind(Box::new("a trap"));
        }
        // What is refused is counted by the engine; the books say how often.
        let _ = cx.send(peer, message.meta, message.body);
    }
}

/// What is published.
#[derive(Serialize)]
struct Outcome {
    schema: &'static str,
    visits: u64,
    messages: u64,
    entries: Vec<Entry>,
    balanced: bool,
}

/// What has to be as it was before anybody came.
struct Baseline {
    server: Stats,
    guests: Stats,
    files: usize,
}

/// Both engines.
struct Engines {
    server: Engine<()>,
    guests: Guests,
}

impl Engines {
    fn handles(&self) -> [Handle<()>; 2] {
        [self.server.handle(), self.guests.handle()]
    }
}

pub(crate) fn main(args: &ChurnArgs) -> Result<(), Error> {
    let (json, html) = (JsonSink::open_some(args.json.as_ref())?, JsonSink::open_some(args.html.as_ref())?);
    let shown = json.is_none() && !html.as_ref().is_some_and(JsonSink::is_stdout);
    let duration = if args.quick { Duration::from_secs(3) } else { args.duration };
    let server = Engine::start(server_config(args)?, |_| Echo).map_err(|source| Error::Start { what: "server", source })?;
    let target = Target { node: (!args.engine.plaintext).then(|| server.node_id()), address: server.local_addrs()[0].into() };
    let deserted = deserted().map_err(|source| Error::System { what: "no port to be had", source })?;
    let identities = Identities { seed: args.seed, engine: 0, count: u64::MAX };
    let victim = hostile::victim(&args.engine, &target)?;
    let plan = Plan { target, identities, guests: args.peers, staying: args.peers / 4, deserted };
    let guests = Guests::start(guests_config(args, identities)?, &plan)?;
    let engines = Engines { server, guests };
    let baseline = Baseline::of(&engines);
    let done = Arc::<Done>::default();
    engines.guests.go();
    make_trouble(victim, &done, duration);
    engines.guests.stop();
    settle(&engines, &baseline);
    let outcome = Outcome::of(&engines, &baseline, &done, args.engine.plaintext);
    engines.guests.shutdown();
    engines.server.shutdown();
    if let Some(sink) = json {
        sink.write(&outcome)?;
    }
    if let Some(sink) = html {
        sink.write_text(&html::result(&outcome))?;
    }
    if shown {
        print(&outcome)?;
    }
    if outcome.balanced { Ok(()) } else { Err(Error::Verification) }
}

/// Limits that are met within seconds.
fn server_config(args: &ChurnArgs) -> Result<Config, Error> {
    let identity = Identity::generate().map_err(|source| Error::System { what: "no randomness for a key", source })?;
    let mut config = security::config(&args.engine, identity, Admission::Open)?.listen(SocketAddr::from(([127, 0, 0, 1], 0)).into());
    config.addresses.exempt = vec![EXEMPT.parse().expect("a subnet")];
    config.limits.max_peers = args.peers as usize + 64;
    config.limits.outbox_soft = 128 << 10;
    config.limits.soft_grace = Duration::from_millis(300);
    config.timeouts.handshake = Duration::from_secs(1);
    config.timeouts.partial = Duration::from_secs(1);
    config.timeouts.write_stall = Duration::from_secs(1);
    config.keepalive.interval = Duration::from_millis(500);
    config.keepalive.timeout = Duration::from_secs(2);
    config.acks.retain = Duration::from_millis(100);
    config.restarts.most = 4096;
    let mut rates = Rates::default();
    rates.receive = Some(RateLimit { messages: Some(Rate { per_second: AT_ONCE, burst: AT_ONCE }), bytes: None });
    rates.when_over = WhenOver::Disconnect;
    rates.costs.insert(DEAR, AT_ONCE / 2);
    config.rates = Some(rates);
    Ok(config)
}

fn guests_config(args: &ChurnArgs, identities: Identities) -> Result<Config, Error> {
    let mut config = security::config(&args.engine, identities.of_engine(), Admission::Open)?;
    config.limits.max_peers = args.peers as usize + 8;
    config.backoff.max = Duration::from_millis(200);
    config.breaker.failures = 3;
    config.breaker.cool_down = Duration::from_millis(100);
    config.breaker.max_cool_down = Duration::from_millis(400);
    config.breaker.expire = Duration::from_secs(1);
    config.pool.max_idle = Errands::IDLE;
    config.acks.retain = Duration::from_millis(100);
    Ok(config)
}

/// An address where nobody listens: bound, and closed again.
fn deserted() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Until the time is up: what is quick on one thread, what has to be waited for on another.
fn make_trouble(target: corecast_attacks::Target, done: &Arc<Done>, duration: Duration) {
    let deadline = Instant::now() + duration;
    let sources = Sources::everywhere();
    let rough = |first| Rough { target, done: Arc::clone(done), sources: sources.clone(), first };
    std::thread::scope(|scope| {
        scope.spawn(|| rough(1_000_000).slow(deadline));
        rough(1).quick(deadline);
    });
}

impl Baseline {
    fn of(engines: &Engines) -> Self {
        let [server, guests] = engines.handles().map(|handle| handle.stats());
        Self { server, guests, files: open_files() }
    }

    /// Levels, files and peers are as they were.
    fn is_restored(&self, engines: &Engines) -> bool {
        let [server, guests] = engines.handles();
        let level = |before: &Stats, handle: &Handle<()>| {
            let now = handle.stats();
            LEVELS.iter().all(|&level| now.get(level) == before.get(level))
        };
        level(&self.server, &server) && level(&self.guests, &guests) && open_files() == self.files
    }
}

/// Waits until everything is given back, or for as long as that may take; then until the last counters are published.
fn settle(engines: &Engines, baseline: &Baseline) {
    let deadline = Instant::now() + PATIENCE;
    while !baseline.is_restored(engines) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let counted = || engines.handles().map(|handle| COUNTED_LAST.map(|counter| handle.stats().get(counter)));
    let mut last = counted();
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        let now = counted();
        if std::mem::replace(&mut last, now) == now {
            return;
        }
    }
}

const LEVELS: [Counter; 12] = [
    Counter::PoolTargets,
    Counter::BreakerTargets,
    Counter::Peers,
    Counter::HalfOpen,
    Counter::Subscriptions,
    Counter::LogBytes,
    Counter::PrivateBytes,
    Counter::ReassemblyBytes,
    Counter::PendingRequests,
    Counter::Timers,
    Counter::Receipts,
    Counter::ReceiptBytes,
];
const COUNTED_LAST: [Counter; 3] = [Counter::Established, Counter::MessagesSent, Counter::ClosedGoodbye];
/// As much as there was to do: bytes, turns, buffers.
const VOLUMES: [Counter; 21] = [
    Counter::MessagesReceived,
    Counter::BytesReceived,
    Counter::BytesSent,
    Counter::BufferHits,
    Counter::BufferMisses,
    Counter::BufferBytes,
    Counter::PingsSent,
    Counter::HandshakesDeferred,
    Counter::Turns,
    Counter::Sleeps,
    Counter::CpuNanos,
    Counter::TimePoll,
    Counter::TimeIdle,
    Counter::TimeInbox,
    Counter::TimeRead,
    Counter::TimeDecode,
    Counter::TimeHandler,
    Counter::TimeEncode,
    Counter::TimeEvents,
    Counter::TimeWrite,
    Counter::OutboxPoolBytes,
];

impl Outcome {
    fn of(engines: &Engines, baseline: &Baseline, done: &Done, plaintext: bool) -> Self {
        let seen = &engines.guests.seen;
        let [server, guests] = engines.handles().map(|handle| handle.stats());
        let mut entries = server_books(&server, &baseline.server, seen, done, plaintext);
        entries.extend(guests_books(&guests, &baseline.guests, seen));
        entries.extend(Books::facts([
            ("files open as before", open_files() as u64, baseline.files as u64),
            ("guests' messages that came back", read(&seen.heard), read(&seen.sent)),
            ("guests' messages that were not the next, or dials that failed", read(&seen.wrong), 0),
            ("errands that came back", read(&seen.errands_done), read(&seen.errands)),
            ("guests that were cut off", read(&seen.cut_off), 0),
            ("things that could not be done to the server", read(&done.failed), 0),
        ]));
        Self {
            schema: "corecast-loadgen-churn/1",
            visits: read(&seen.left),
            messages: read(&seen.heard),
            balanced: entries.iter().all(Entry::balances),
            entries,
        }
    }
}

fn server_books(stats: &Stats, before: &Stats, seen: &Seen, done: &Done, plaintext: bool) -> Vec<Entry> {
    use Counter::*;
    let mut books = Books::open("server", stats);
    let strangers = [named("refused_"), named("handshake_"), vec![HalfOpenEvicted]].concat();
    books.balance("connections = turned away + failed in the handshake + peers", &[Accepted], &[&strangers[..], &[Established]].concat());
    books.balance("peers = ends of peers", &[Established], &named("closed_"));
    books.balance("broken rules, by rule", &[ClosedViolation], &named("violation_"));
    books.balance(
        "messages received = returned + lost with their peer + refused",
        &[MessagesReceived],
        &[MessagesSent, MessagesDropped, SendsRefused, HandlerPanics],
    );
    let guests = read(&seen.connected) + read(&seen.pooled);
    books.done("connections", &[Accepted], guests + read(&seen.mistaken) + read(&done.connected));
    books.done("handshakes that came to their end", &[Established], guests + read(&done.established));
    books.done("openings that are none", &[HandshakeWrongMagic], read(&done.garbage));
    let foreign = if plaintext { HandshakeWrongNetwork } else { HandshakeAuthFailed };
    books.done("of another network, or meant another node", &[foreign], read(&done.wrong_network) + read(&seen.mistaken));
    books.done(
        "left before they had said who they are, or one too many from their address",
        &[HandshakeEof, HandshakeIo, RefusedIpHalfOpen, RefusedIpRate, RefusedSubnetRate],
        read(&done.left_early),
    );
    books.done("said nothing for too long", &[HandshakeTimeout], read(&done.silent));
    books.done("broke a rule", &[ClosedViolation], read(&done.broke_rules) + read(&done.flooded));
    books.done("of these: too many pings", &[ViolationPingFlood], read(&done.flooded));
    let rules: Vec<_> = named("violation_").into_iter().filter(|&rule| rule != ViolationPingFlood).collect();
    books.done("of these: other rules", &rules, read(&done.broke_rules));
    books.done("sent more than they may", &[ClosedRateLimited], read(&done.greedy));
    books.done("set off a panic of the application", &[ClosedHandlerPanicked], read(&done.trapped));
    books.done("panics of the application", &[HandlerPanics], read(&done.trapped));
    books.done("vanished", &[ClosedEof, ClosedIo], read(&done.vanished));
    books.done("left a frame unfinished", &[ClosedPartial], read(&done.unfinished));
    books.done("did not read", &[SlowHardBound, SlowSoftMark, SlowWriteStall, ClosedUnresponsive], read(&done.deaf));
    books.done("said goodbye", &[ClosedGoodbye], read(&seen.left) + read(&seen.idled));
    books.volumes(&[&VOLUMES[..], &[MessagesSent, MessagesDropped, SendsRefused]].concat());
    books.levels(before, &LEVELS);
    books.close()
}

fn guests_books(stats: &Stats, before: &Stats, seen: &Seen) -> Vec<Entry> {
    use Counter::*;
    let mut books = Books::open("guests", stats);
    books.balance("dials = peers + failures", &[DialAttempts], &[Established, DialFailures]);
    books.balance("peers = ends of peers", &[Established], &named("closed_"));
    books.done("attempts that failed", &[DialFailures], read(&seen.failed));
    books.volumes(&[DialAttempts]);
    books.done("peers", &[Established], read(&seen.connected) + read(&seen.pooled));
    books.done("connections that the pool was asked for", &[PoolHits, PoolMisses], read(&seen.asked));
    books.done("connections of the pool that were idle", &[ClosedIdle], read(&seen.pooled));
    books.done("breakers that opened", &[BreakerOpened], read(&seen.opened));
    books.done("breakers that let a probe through", &[BreakerHalfOpened], read(&seen.half_opened));
    books.done("dials that a breaker refused", &[BreakerRefused], read(&seen.refused));
    books.done("closed by their own choice", &[ClosedRequested], read(&seen.left));
    books.done("messages sent", &[MessagesSent], read(&seen.sent) + read(&seen.errands));
    // A deserted address has no handshake.
    books.done("told that they meant another node", &[HandshakeRefusedByPeer], read(&seen.mistaken));
    books.volumes(&VOLUMES);
    books.levels(before, &LEVELS);
    books.close()
}

fn print(outcome: &Outcome) -> Result<(), Error> {
    for entry in &outcome.entries {
        output::print(format_args!("{entry}\n"))?;
    }
    output::print(format_args!("{} visits, {} messages returned\n", outcome.visits, outcome.messages))?;
    let end = if outcome.balanced { "every counter is explained, and everything was given back" } else { "THE BOOKS DO NOT BALANCE" };
    output::print(format_args!("{end}\n"))
}
