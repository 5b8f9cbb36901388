//! `hostile`: the attacks of `corecast-attacks` on a server, and what a good peer of it notices.
//!
//! The good peer, the canary, has one message returned after the other, all the time, from 127.1.0.1; the attackers come from
//! 127.66.0.0/16. A server in this process exempts the one from its limits by address and not the others. What the attacks have to end
//! in is asserted by the library's tests; here their price is measured.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use corecast::{Admission, CloseReason, Context, Engine, Handler, Identity, Message, PeerId, PeerInfo};
use corecast_attacks::frames::{forbidden_everything, halves, pings, send_and_never_read};
use corecast_attacks::openers::Garbage;
use corecast_attacks::{Peer, Protection, Report, Scale, Sources, Target as Victim, Who};
use corecast_attacks::{floods, handshake, openers, records, replay};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::{EngineArgs, parse_positive_seconds};
use crate::clock;
use crate::error::Error;
use crate::html;
use crate::measure::{new_histogram, percentiles};
use crate::output::{self, JsonSink};
use crate::security::{self, Target, parse_target};
use crate::server::{Mode, Server};

/// Where the canary comes from, and what the server in this process exempts.
const CANARY: [u8; 4] = [127, 1, 0, 1];
const EXEMPT: &str = "127.1.0.0/16";
/// How long the canary may hear nothing before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// Attacks a server, and says what a good peer of it notices.
#[derive(Clone, Debug, Args)]
pub(crate) struct HostileArgs {
    /// The server to attack, as it says of itself: `serve --mode echo --open --exempt 127.1.0.0/16`. On loopback only. Without it: one in
    /// this process, with the library's own limits.
    #[arg(long, value_name = "NODE@ADDR", value_parser = parse_target)]
    pub(crate) target: Option<Target>,
    /// How long to measure without an attack, and how long each attack is made, in seconds.
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_positive_seconds)]
    duration: Duration,
    /// Half a second each: whether it works, not how well.
    #[arg(long)]
    quick: bool,
    /// Write the figures there as JSON (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Write the figures there as one HTML page (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    html: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// What the canary has heard since it was last asked.
#[derive(Default)]
struct Heard {
    latency: Mutex<Option<Histogram<u64>>>,
    dead: AtomicBool,
}

impl Heard {
    fn take(&self) -> Histogram<u64> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).replace(new_histogram()).unwrap_or_else(new_histogram)
    }
}

/// One message there and back after the other.
struct Canary(Arc<Heard>);

impl Canary {
    fn send(cx: &mut Context<'_>, peer: PeerId) {
        // An empty outbox takes everything; a peer that is gone says so in `on_closed`.
        let _ = cx.send(peer, 1, &clock::now_ns().to_le_bytes());
    }
}

impl Handler for Canary {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        Self::send(cx, peer);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let sent = message.body.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if let Some(latency) = self.0.latency.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            latency.saturating_record(clock::now_ns().saturating_sub(sent));
        }
        Self::send(cx, peer);
    }

    fn on_closed(&mut self, _: &mut Context<'_>, _: PeerId, _: CloseReason) {
        self.0.dead.store(true, Ordering::Relaxed);
    }
}

/// One line of the table.
#[derive(Serialize)]
struct Line {
    attack: &'static str,
    round_trips_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// From the attackers' side.
    connected: u64,
    established: u64,
    attempts: u64,
}

/// The figures of a run.
#[derive(Serialize)]
struct Figures {
    schema: &'static str,
    target: String,
    lines: Vec<Line>,
    /// What a server in this process has counted.
    counters: Option<std::collections::BTreeMap<String, u64>>,
    canary_survived: bool,
}

/// Repeats `attack` until the time of the scale is up.
fn repeat(scale: &Scale, mut attack: impl FnMut(&Scale) -> Report) -> Report {
    let deadline = Instant::now() + scale.duration;
    let mut all = Report::default();
    while Instant::now() < deadline {
        all.merge(&attack(&scale.clone().lasting(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))));
    }
    all
}

type Run = fn(&Victim, &Scale) -> Report;

/// The attacks, by name. Each ends by itself when the time of its scale is up.
const ATTACKS: &[(&str, Run)] = &[
    ("garbage instead of an opening", |victim, scale| repeat(scale, |_| openers::garbage(victim, &at_most(scale, Garbage::ALL.len(), 1)))),
    ("silence, 3,000 connections", |victim, scale| hold(scale, openers::Held::open(victim, &at_most(scale, 3000, 1), &[]))),
    ("half a first message, 3,000 connections", |victim, scale| hold(scale, floods::half_open(victim, &at_most(scale, 3000, 1)))),
    ("valid first messages", |victim, scale| {
        repeat(scale, |_| floods::first_messages(victim, &at_most(scale, 200, 1)).finish(Duration::from_millis(1)))
    }),
    ("resets", |victim, scale| repeat(scale, |_| floods::reset_storm(victim, &at_most(scale, 500, 1)))),
    ("connections that come and go", |victim, scale| floods::churn(victim, &at_most(scale, usize::MAX, 1))),
    ("handshakes cut everywhere", |victim, scale| repeat(scale, |_| handshake::cut_everywhere(victim, &at_most(scale, 50, 1)))),
    ("a session played back from everywhere", played_back),
    ("tampered records", |victim, scale| repeat(scale, |_| tampered(victim, scale))),
    ("forbidden frames", |victim, scale| repeat(scale, |_| forbidden_everything(victim, &at_most(scale, 1, 1)))),
    ("pings without end", |victim, scale| repeat(scale, |_| ping_flood(victim, scale))),
    ("half a frame, 500 peers", |victim, scale| {
        let (held, report) = halves(victim, &at_most(scale, 500, 1));
        std::thread::sleep(scale.duration);
        drop(held);
        report
    }),
    ("100 that never read", never_readers),
];

fn at_most(scale: &Scale, connections: usize, count: u64) -> Scale {
    Scale { connections, count, ..scale.clone() }
}

fn hold(scale: &Scale, held: openers::Held) -> Report {
    std::thread::sleep(scale.duration);
    held.finish(Duration::from_millis(1))
}

fn tampered(victim: &Victim, scale: &Scale) -> Report {
    // Plaintext has no records.
    if victim.is_secure() {
        records::tamper_every_way(victim, &at_most(scale, 1, 1))
    } else {
        forbidden_everything(victim, &at_most(scale, 1, 1))
    }
}

fn played_back(victim: &Victim, scale: &Scale) -> Report {
    let who = Who::numbered(1, scale.sources.next());
    match replay::record(victim, &who, 5) {
        Ok(recording) => repeat(scale, |_| replay::from_everywhere(victim, &at_most(scale, 1, 1), &recording)),
        Err(failure) => {
            let mut report = Report::default();
            report.failure(&failure);
            report
        }
    }
}

fn ping_flood(victim: &Victim, scale: &Scale) -> Report {
    let mut report = Report::default();
    match Peer::dial(victim, &Who::numbered(2, scale.sources.next())) {
        Ok(mut peer) => {
            report.established += 1;
            let (sent, told) = pings(&mut peer, 1_000_000);
            report.attempts += sent;
            report.failure(&told);
        }
        Err(failure) => report.failure(&failure),
    }
    report
}

fn never_readers(victim: &Victim, scale: &Scale) -> Report {
    let mut report = Report::default();
    let mut peers = Vec::new();
    for number in 0..100 {
        match Peer::dial(victim, &Who::numbered(100 + number, scale.sources.next())) {
            Ok(peer) => peers.push(peer),
            Err(failure) => report.failure(&failure),
        }
    }
    report.established = peers.len() as u64;
    report.bytes_sent = send_and_never_read(&mut peers, 64 << 10, scale.duration);
    report
}

/// Measures the canary in peace and under each attack.
pub(crate) fn main(args: &HostileArgs) -> Result<(), Error> {
    let (json, html) = (JsonSink::open_some(args.json.as_ref())?, JsonSink::open_some(args.html.as_ref())?);
    let shown = json.is_none() && !html.as_ref().is_some_and(JsonSink::is_stdout);
    let duration = if args.quick { Duration::from_millis(500) } else { args.duration };
    let (server, target) = match args.target.clone() {
        Some(target) if target.address.is_local() => (None, target),
        Some(Target { address, .. }) => return Err(Error::NotLoopback { address }),
        None => {
            let server = start_server(args)?;
            let target = server.target();
            (Some(server), target)
        }
    };
    let heard = Arc::<Heard>::default();
    let canary = start_canary(args, &target, &heard)?;
    let victim = victim(&args.engine, &target)?;
    let mut figures = Figures {
        schema: "corecast-loadgen-hostile/1",
        target: target.to_string(),
        lines: Vec::new(),
        counters: None,
        canary_survived: true,
    };
    let quiet: (&'static str, Run) = ("none", |_, scale| {
        std::thread::sleep(scale.duration);
        Report::default()
    });
    for (attack, run) in std::iter::once(&quiet).chain(ATTACKS) {
        // What the last one has left behind has its end first.
        std::thread::sleep(Duration::from_millis(100));
        let scale = Scale::new(1, 1).lasting(duration).from(Sources::everywhere());
        drop(heard.take());
        let began = Instant::now();
        let report = run(&victim, &scale);
        let elapsed = began.elapsed();
        figures.lines.push(line(attack, &heard.take(), elapsed, &report));
        figures.canary_survived &= !heard.dead.load(Ordering::Relaxed);
    }
    figures.canary_survived &= still_sings(&heard);
    figures.counters = server.as_ref().map(|server| server.counters().into_iter().filter(|(name, _)| tells(name)).collect());
    canary.shutdown();
    if let Some(server) = server {
        server.shutdown();
    }
    if let Some(sink) = json {
        sink.write(&figures)?;
    }
    if let Some(sink) = html {
        sink.write_text(&html::result(&figures))?;
    }
    if shown {
        print(&figures)?;
    }
    if figures.canary_survived { Ok(()) } else { Err(Error::CanaryDied) }
}

/// The counters that say what became of the attackers.
fn tells(name: &str) -> bool {
    ["refused_", "half_open_evicted", "handshake_", "handshakes_", "violation_", "closed_"].iter().any(|begin| name.starts_with(begin))
}

fn still_sings(heard: &Heard) -> bool {
    drop(heard.take());
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
        if heard.latency.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|latency| !latency.is_empty()) {
            return true;
        }
    }
    false
}

fn start_server(args: &HostileArgs) -> Result<Server, Error> {
    let identity = Identity::generate().map_err(|source| Error::System { what: "no randomness for a key", source })?;
    let mut config = security::config(&args.engine, identity, Admission::Open)?.listen(SocketAddr::from(([127, 0, 0, 1], 0)).into());
    config.addresses.exempt = vec![EXEMPT.parse().expect("a subnet")];
    Server::start(config, 1, Mode::Echo)
}

fn start_canary(args: &HostileArgs, target: &Target, heard: &Arc<Heard>) -> Result<Engine<()>, Error> {
    let identity = Identity::generate().map_err(|source| Error::System { what: "no randomness for a key", source })?;
    let config = security::config(&args.engine, identity, Admission::Open)?;
    let report = Arc::clone(heard);
    let engine = Engine::start(config, move |_| Canary(Arc::clone(&report))).map_err(|source| Error::Start { what: "canary", source })?;
    let _ = heard.take();
    // The queue is empty: there is room for one.
    let _ = engine.handle().dial(target.dial().once().source(IpAddr::from(CANARY)));
    if still_sings(heard) { Ok(engine) } else { Err(Error::CanaryDied) }
}

/// What the attackers know of the server: all that a stranger may know, and the network's secret, so that they get as far as one can.
pub(crate) fn victim(engine: &EngineArgs, target: &Target) -> Result<Victim, Error> {
    let suite = match engine.cipher {
        security::Suite::AesGcm => corecast_attacks::Suite::AesGcm,
        security::Suite::ChachaPoly => corecast_attacks::Suite::ChaChaPoly,
    };
    // The attackers have addresses, of which a path knows nothing.
    let Some(address) = target.address.socket_addr() else { return Err(Error::NotLoopback { address: target.address.clone() }) };
    Ok(match target.node {
        None => Victim { network: *engine.network.as_bytes(), ..Victim::plaintext(address) },
        Some(node) => {
            let secret = engine.network_secret_file.as_deref().map(security::network_secret).transpose()?;
            let protection = Protection::Noise { suite, secret };
            Victim { network: *engine.network.as_bytes(), protection, ..Victim::secure(address, *node.as_bytes()) }
        }
    })
}

fn line(attack: &'static str, latency: &Histogram<u64>, elapsed: Duration, report: &Report) -> Line {
    let [p50, _, p99, _, max] = percentiles(latency).map(|nanos| nanos as f64 / 1e3);
    let round_trips_per_s = latency.len() as f64 / elapsed.as_secs_f64();
    let Report { connected, established, attempts, .. } = *report;
    Line { attack, round_trips_per_s, p50_us: p50, p99_us: p99, max_us: max, connected, established, attempts }
}

fn print(figures: &Figures) -> Result<(), Error> {
    output::print(format_args!("a good peer of {}, its round trips one after the other:\n", figures.target))?;
    output::print(format_args!("{:42} {:>9} {:>9} {:>9} {:>9}   attackers\n", "attack", "trips/s", "p50 us", "p99 us", "max us"))?;
    for line in &figures.lines {
        output::print(format_args!(
            "{:42} {:>9.0} {:>9.1} {:>9.1} {:>9.1}   {} connected, {} established, {} attempts\n",
            line.attack, line.round_trips_per_s, line.p50_us, line.p99_us, line.max_us, line.connected, line.established, line.attempts
        ))?;
    }
    if figures.counters.is_some() {
        output::print(format_args!("what the server counted:\n"))?;
    }
    for (name, value) in figures.counters.iter().flatten() {
        output::print(format_args!("{name} {value}\n"))?;
    }
    let end = if figures.canary_survived { "the good peer was never cut off" } else { "THE GOOD PEER WAS CUT OFF" };
    output::print(format_args!("{end}\n"))
}
