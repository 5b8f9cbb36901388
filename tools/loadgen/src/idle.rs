//! `idle`: what established peers cost that do nothing: memory of each, processor time of a core, pings; and whether all are still there.

use std::fmt;
use std::time::{Duration, Instant};

use clap::Args;
use corecast::Counter;
use serde::Serialize;

use crate::cli::parse_positive_seconds;
use crate::crowd::{Bystander, CrowdArgs, Return, wait_until};
use crate::error::Error;
use crate::machine::Machine;
use crate::output::{self, JsonSink};
use crate::probe::Sample;
use crate::report::{group, reasons_text, row};
use crate::serve::Stop;

/// After the last one has come: the server gives back what only handshakes need, and counts it.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the messages at the end may take.
const RETURN: Duration = Duration::from_secs(10);
/// `--quick`: peers at most, and how long.
const QUICK: (u32, Duration) = (200, Duration::from_millis(500));

/// Connects peers that do nothing, and says what they cost.
#[derive(Clone, Debug, Args)]
pub(crate) struct IdleArgs {
    /// Peers.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    peers: u32,
    /// How long they do nothing, in seconds. Pings come every five.
    #[arg(long, value_name = "S", default_value = "12", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    duration: Duration,
    /// Half a second, with 200 peers at most: whether it works.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,
}

impl IdleArgs {
    /// The options of the server that is started, where one is.
    pub(crate) fn server_args(&self) -> Vec<String> {
        self.crowd.server_args(self.peers, true)
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    schema: &'static str,
    workload: &'static str,
    target: String,
    peers: u32,
    encrypted: bool,
    connect_s: f64,
    idle_s: f64,
    /// Memory of the server's process: before the first of them came, when all had, and when they had done nothing for `idle_s`.
    resident_before: Option<u64>,
    resident_connected: Option<u64>,
    resident_idle: Option<u64>,
    /// The last less the first, by the peers. The kernel's memory for their sockets is not in it.
    bytes_per_peer: Option<f64>,
    /// Of the server's cores, while nothing was done.
    server_cpus_used: Option<f64>,
    pings_by_server: u64,
    pings_by_peers: u64,
    /// Peers that ended while they did nothing.
    disconnected: u64,
    disconnect_reasons: std::collections::BTreeMap<String, u64>,
    /// Messages at the end, one of each peer, and how many came back.
    woken: u64,
    returned: u64,
    interrupted: bool,
    passed: bool,
    machine: Machine,
}

/// What the server says of itself.
struct State {
    resident: Option<u64>,
    sample: Sample,
    pings: u64,
}

impl State {
    fn of(bystander: &Bystander) -> Result<Self, Error> {
        let pings = bystander.counters()?.get(Counter::PingsSent.name()).copied().unwrap_or(0);
        Ok(Self { resident: bystander.memory()?, sample: bystander.sample()?, pings })
    }
}

pub(crate) fn main(args: &IdleArgs) -> Result<(), Error> {
    let stop = Stop::install()?;
    let json = JsonSink::open_some(args.crowd.json.as_ref())?;
    let mut args = args.clone();
    if args.quick {
        (args.peers, args.duration) = (args.peers.min(QUICK.0), QUICK.1);
    }
    let figures = run(&args, &stop)?;
    match json {
        Some(sink) if sink.is_stdout() => sink.write(&figures)?,
        sink => {
            output::print(&figures)?;
            sink.map_or(Ok(()), |sink| sink.write(&figures))?;
        }
    }
    if figures.passed { Ok(()) } else { Err(Error::Verification) }
}

fn run(args: &IdleArgs, stop: &Stop) -> Result<Figures, Error> {
    CrowdArgs::check_descriptors(args.peers)?;
    let (_server, target) = args.crowd.server(args.peers, true)?;
    let bystander = args.crowd.bystander(&target)?;
    bystander.check_mode()?;
    let before = State::of(&bystander)?;
    let connecting = Instant::now();
    let crowd = args.crowd.gather(&target, args.peers, false, stop, |_| ())?;
    let connect_s = connecting.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    crowd.begin_round(crate::clock::now_ns())?;
    let (connected, pings) = (State::of(&bystander)?, crowd.counted(Counter::PingsSent));
    let until = Instant::now() + args.duration;
    // Somebody who is gone does not come back to what he was.
    wait_until(until, || stop.requested() || !crowd.all_present());
    let (idle, pings_by_peers) = (State::of(&bystander)?, crowd.counted(Counter::PingsSent) - pings);
    crowd.wake();
    wait_until(Instant::now() + RETURN, || crowd.unreturned() == 0 || !crowd.all_present());
    let Return { endings: disconnect_reasons, woken: (returned, woken), .. } = crowd.report()?;
    let disconnected = disconnect_reasons.values().sum();
    crowd.shutdown();
    bystander.shutdown();
    let clock_ns = idle.sample.clock_ns.saturating_sub(connected.sample.clock_ns);
    let ran_ns = idle.sample.cpu.ran_ns.saturating_sub(connected.sample.cpu.ran_ns);
    let grown = before.resident.zip(idle.resident).map(|(before, idle)| idle as f64 - before as f64);
    Ok(Figures {
        schema: "corecast-loadgen-idle/1",
        workload: "idle",
        target: args.crowd.target.as_ref().map_or_else(|| "a process of its own".to_owned(), ToString::to_string),
        peers: args.peers,
        encrypted: !args.crowd.engine.plaintext,
        connect_s,
        idle_s: clock_ns as f64 / 1e9,
        resident_before: before.resident,
        resident_connected: connected.resident,
        resident_idle: idle.resident,
        bytes_per_peer: grown.map(|bytes| bytes / f64::from(args.peers)),
        server_cpus_used: (clock_ns > 0).then(|| ran_ns as f64 / clock_ns as f64),
        pings_by_server: idle.pings.saturating_sub(connected.pings),
        pings_by_peers,
        disconnected,
        disconnect_reasons,
        woken,
        returned,
        interrupted: stop.requested(),
        passed: disconnected == 0 && returned == u64::from(args.peers),
        machine: Machine::describe(),
    })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interrupted = if self.interrupted { " (interrupted)" } else { "" };
        let how = if self.encrypted { "encrypted" } else { "in plaintext" };
        writeln!(f, "idle: {} peers, {how}{interrupted}", group(u64::from(self.peers)))?;
        row(f, "connected", &format!("in {:.2} s", self.connect_s))?;
        let kilobytes = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} kB", group(bytes / 1024)));
        let [before, connected, idle] = [self.resident_before, self.resident_connected, self.resident_idle].map(kilobytes);
        let each = self.bytes_per_peer.map_or_else(|| "unknown".to_owned(), |bytes| format!("{bytes:.0} B a peer"));
        row(f, "memory", &format!("{each}: {before} before, {connected} when all had come, {idle} idle"))?;
        let cpu = self.server_cpus_used.map_or_else(|| "unknown".to_owned(), |cpus| format!("{:.2} % of a processor", cpus * 100.0));
        row(f, "server CPU", &format!("{cpu} in {:.2} s", self.idle_s))?;
        let [server, peers] = [self.pings_by_server, self.pings_by_peers].map(group);
        row(f, "pings", &format!("{server} by the server, {peers} by the peers"))?;
        let end = if self.passed { "" } else { "   FAILED" };
        let [returned, woken, ended] = [self.returned, self.woken, self.disconnected].map(group);
        row(f, "verified", &format!("{returned} of {woken} messages came back at the end, {ended} disconnected{end}"))?;
        if self.disconnected > 0 {
            row(f, "disconnected", reasons_text(&self.disconnect_reasons).trim_start_matches("; "))?;
        }
        Ok(())
    }
}
