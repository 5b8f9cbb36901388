//! The figures that the project set out from, measured: the naive start and corecast in one run.
//!
//! What was said of the old program and promised of the new one stands beside what both do here, whether it agrees or not. The naive
//! start sends JSON to each peer by itself; corecast encodes once. Both get the same messages from the same client, interleaved.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::RunConfig;
use super::command::check_cores;
use super::contestant::{self, CORECAST, CORECAST_NOISE, NAIVE, Places};
use super::plan::Plan;
use super::process;
use super::report::show;
use super::results::{Figure, RowResults};
use super::rounds::{Bench, Present};
use super::work::{Row, Weight, Work};
use crate::client::Load;
use crate::machine::Machine;
use crate::network::{Network, NetworkArgs};
use crate::server::Poll;
use crate::stats::{self, Estimate};
use crate::sys::{self, CpuSet};
use crate::wire;

/// What a round of the codecs may take; it takes some thirty milliseconds.
const CODEC_ROUND: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct SetoutArgs {
    #[arg(long, default_value_t = 9, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    rounds: usize,
    #[arg(long, default_value_t = 150)]
    warmup_ms: u64,
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    measure_ms: u64,
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    #[command(flatten)]
    network: NetworkArgs,
    /// Seconds to wait before each round for other programs to be done, at most
    #[arg(long, default_value_t = 3)]
    patience: u64,
    /// A folder with the contestants' programs; see `run`
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Write all figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Who takes part, in the order of the columns.
const COLUMNS: [&str; 3] = [NAIVE, CORECAST, CORECAST_NOISE];
const PEERS: usize = 50;
const BLOCK_BYTES: usize = 1 << 20;
/// A second, for the log lines: what the old program was said to handle.
const MESSAGES: u64 = 500;
/// What encryption adds to a frame that stands alone in its record: the record's length and its tag.
const RECORD: usize = 18;

const fn broadcast(name: &'static str, title: &'static str, subscribers: usize, outstanding: usize, body_len: usize) -> Row {
    let work = Work::Load(Load::Fanout { subscribers, outstanding, stuck: 0 });
    Row { name, title, work, body_len, weight: Weight::Deciding, windows: 1 }
}

const BROADCAST: Row = broadcast("setout-broadcast", "broadcast of 128 B to 50 peers", PEERS, 1, 128);
const HEARTBEAT: Row = broadcast("setout-heartbeat", "heartbeat to 100 peers", 100, 1, 32);
/// Long enough for a few blocks of a server that takes half a second for each.
const BLOCK: Row = Row { windows: 6, ..broadcast("setout-block", "a block of 1 MiB to 50 peers", PEERS, 1, BLOCK_BYTES) };
const PIPELINED: Row = broadcast("setout-pipelined", "128 B to 50 peers, 64 outstanding", PEERS, 64, 128);
/// Deliveries a second become messages a second: one message is this many deliveries.
const DELIVERIES: f64 = PEERS as f64;

/// One line of the table.
#[derive(Debug, Serialize)]
struct SetoutLine {
    what: &'static str,
    /// What was said: before, after.
    said: &'static str,
    unit: Unit,
    /// In the order of [`COLUMNS`].
    measured: [Option<Estimate>; 3],
    /// How many times better corecast in plaintext is than the naive start.
    better: Option<Estimate>,
}

#[derive(Clone, Copy, Debug, Serialize)]
enum Unit {
    Nanoseconds,
    PerSecond,
    Bytes,
}

impl Unit {
    fn writer(self) -> fn(f64) -> String {
        match self {
            Unit::Nanoseconds => show::time,
            Unit::PerSecond => show::rate,
            Unit::Bytes => |bytes| format!("{bytes:.0} B"),
        }
    }
}

/// The table, with what it depends on.
#[derive(Serialize)]
struct Setout {
    schema: &'static str,
    machine: Machine,
    rounds: usize,
    missing: Vec<String>,
    lines: Vec<SetoutLine>,
}

/// What `corecast-codecs` prints.
#[derive(Deserialize)]
struct CodecReport {
    json: Codec,
    binary: Codec,
    json_ping_bytes: usize,
}

#[derive(Deserialize)]
struct Codec {
    block_bytes: usize,
    encode_ns: Vec<f64>,
    decode_ns: Vec<f64>,
}

impl SetoutArgs {
    fn plan(&self) -> Result<(RunConfig, Plan, Places), String> {
        check_cores(self.server_core, self.client_core, Poll::Spin)?;
        let config = RunConfig {
            rounds: self.rounds,
            warmup: Duration::from_millis(self.warmup_ms),
            measure: Duration::from_millis(self.measure_ms),
            server_core: self.server_core,
            client_core: self.client_core,
            client_poll: Poll::Spin,
            network: Network::Machine,
            patience: Duration::from_secs(self.patience),
        };
        let places = Places::find(self.programs.as_deref()).map_err(|error| format!("cannot say where this program is: {error}"))?;
        let contestants = contestant::select(Some(&COLUMNS.map(String::from)))?;
        let plan = Plan::new(vec![BROADCAST, HEARTBEAT, BLOCK, PIPELINED], &contestants, &places)?;
        Ok((config, plan, places))
    }

    pub(crate) fn main(&self) -> io::Result<bool> {
        let (mut config, plan, places) = self.plan().unwrap_or_else(|reason| crate::refuse(reason));
        config.network = self.network.enter()?;
        sys::raise_file_limit()?;
        let missing: Vec<String> = plan.missing_lines();
        missing.iter().for_each(|line| eprintln!("{line}"));
        eprintln!("the figures set out from: {} on a quiet machine", plan.minutes(&config, 0, Duration::ZERO));
        let cpus = CpuSet::current()?;
        let codecs = codecs(&places, &config)?;
        crate::pin(Some(config.client_core));
        let bench = Bench { config: &config, present: &plan.present, cpus };
        let rows =
            plan.rows.iter().map(|row| bench.measure(row, &mut |round, rounds| eprintln!("{}: round {}/{rounds}", row.name, round + 1)));
        let rows: Vec<RowResults> = rows.collect();
        let failures: Vec<String> = rows.iter().flat_map(failures).collect();
        let logged = COLUMNS.map(|name| plan.present.iter().find(|present| present.contestant.name == name));
        let logged = logged.map(|present| present.and_then(|present| log_lines(&bench, present)));
        let lines = lines(&rows, logged, codecs.as_ref());
        let setout = Setout { schema: "corecast-setout/1", machine: Machine::read(config.network), rounds: config.rounds, missing, lines };
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&setout)?)?;
        }
        let table = setout.markdown();
        if let Some(path) = &self.markdown {
            std::fs::write(path, &table)?;
        }
        println!("{table}");
        Ok(failures.is_empty())
    }
}

fn failures(row: &RowResults) -> Vec<String> {
    row.entries.iter().filter_map(|entry| entry.failed.clone()).collect()
}

/// Blocks as JSON and in binary: a program of its own, because this one does not depend on the library. None if it is not built.
fn codecs(places: &Places, config: &RunConfig) -> io::Result<Option<CodecReport>> {
    let Some(file) = places.built("corecast-codecs") else {
        eprintln!("skipped: the codecs: not built: cargo build --release -p corecast-contestant");
        return Ok(None);
    };
    // On the server's core, like everything else that is measured here.
    let mut command = Command::new(file);
    command.args(["--rounds", &config.rounds.to_string()]);
    let output = process::output(&mut command, CpuSet::only(config.server_core)?, CODEC_ROUND * (config.rounds as u32 + 2))?;
    if !output.status.success() {
        return Err(io::Error::other(format!("corecast-codecs ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr))));
    }
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}

/// Lines that a server logs in a second, while so many messages a second come. None if it failed.
fn log_lines(bench: &Bench<'_>, present: &Present) -> Option<Estimate> {
    let path = std::env::temp_dir().join(format!("corecast-compare-{}.log", std::process::id()));
    let load = Load::OpenFanout { subscribers: PEERS, rate: MESSAGES };
    let lines = bench.run_once(present, load, &BROADCAST, Some(&path));
    let lines = lines.and_then(|_| Ok(BufReader::new(File::open(&path)?).split(b'\n').count()));
    // It may not be there.
    let _ = std::fs::remove_file(&path);
    match lines {
        Ok(lines) => one(lines as f64 / (bench.config.warmup + bench.config.measure).as_secs_f64()),
        Err(error) => {
            eprintln!("log lines of {}: {error}", present.contestant.name);
            None
        }
    }
}

/// Counted once, and the same each time.
fn one(value: f64) -> Option<Estimate> {
    stats::estimate(&[value])
}

/// All lines of the table.
fn lines(rows: &[RowResults], logged: [Option<Estimate>; 3], codecs: Option<&CodecReport>) -> Vec<SetoutLine> {
    let row = |wanted: &Row| rows.iter().find(|row| row.name == wanted.name);
    let latency = |what, said, wanted: &Row| SetoutLine {
        what,
        said,
        unit: Unit::Nanoseconds,
        measured: COLUMNS.map(|name| row(wanted)?.estimate(name, Figure::P50)),
        better: row(wanted).and_then(|row| row.ratio(CORECAST, NAIVE, Figure::P50)),
    };
    let rate = |what, said, wanted: &Row| SetoutLine {
        what,
        said,
        unit: Unit::PerSecond,
        measured: COLUMNS.map(|name| row(wanted)?.estimate(name, Figure::Rate).map(|rate| divided(rate, DELIVERIES))),
        better: row(wanted).and_then(|row| row.ratio(CORECAST, NAIVE, Figure::Rate)),
    };
    let mut lines = vec![
        latency("broadcast of 128 B to 50 peers, until the last has it", "50 ms -> 1 ms", &BROADCAST),
        latency("heartbeat to 100 peers, until the last has it", "150 ms -> 5 ms", &HEARTBEAT),
        latency("a block of 1 MiB to 50 peers, until the last has it", "500 ms -> 50 ms, with encoding", &BLOCK),
        rate("messages a second to 50 peers, one at a time", "500 -> 550", &BROADCAST),
        rate("messages a second to 50 peers, 64 outstanding", "500 -> 550", &PIPELINED),
        SetoutLine {
            what: "log lines a second, at 500 messages a second to 50 peers",
            said: "3,000 -> 300",
            unit: Unit::PerSecond,
            measured: logged,
            better: None,
        },
    ];
    lines.extend(codecs.map(codec_lines).into_iter().flatten());
    lines
}

fn codec_lines(report: &CodecReport) -> [SetoutLine; 4] {
    let CodecReport { json, binary, json_ping_bytes, .. } = report;
    let ping = wire::control(wire::PING, [0; 8]).len();
    let bytes = |what, json: usize, binary: usize, encrypted: usize| SetoutLine {
        what,
        said: "JSON -> binary",
        unit: Unit::Bytes,
        measured: [json, binary, encrypted].map(|bytes| one(bytes as f64)),
        better: one(json as f64 / binary as f64),
    };
    let time = |what, json: &[f64], binary: &[f64]| {
        let ratios: Vec<f64> = json.iter().zip(binary).map(|(json, binary)| json / binary).collect();
        let (json, binary) = (stats::estimate(json), stats::estimate(binary));
        SetoutLine {
            what,
            said: "JSON -> binary",
            unit: Unit::Nanoseconds,
            measured: [json, binary, binary],
            better: stats::estimate(&ratios),
        }
    };
    [
        bytes("a ping, on the wire", *json_ping_bytes, ping, ping + RECORD),
        bytes("the block of 5,000 transactions, encoded", json.block_bytes, binary.block_bytes, binary.block_bytes),
        time("encoding that block", &json.encode_ns, &binary.encode_ns),
        time("decoding that block", &json.decode_ns, &binary.decode_ns),
    ]
}

fn divided(estimate: Estimate, by: f64) -> Estimate {
    Estimate { median: estimate.median / by, low: estimate.low / by, high: estimate.high / by, ..estimate }
}

impl Setout {
    fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "Machine: {}.\n", self.machine)?;
        writeln!(
            text,
            "{} rounds, interleaved; server and client on a core each, loopback. Medians, in brackets the interval that holds the \
             median with at least 95 % (with fewer than 6 rounds the whole range). What was said is printed as it was, whether it is \
             found or not. `{NAIVE}`: JSON for each peer by itself, one lock over all connections, a flush per peer, a log line per \
             message.\n",
            self.rounds
        )?;
        for line in &self.missing {
            writeln!(text, "{line}\n")?;
        }
        writeln!(text, "| figure | said | {} | times better |\n|---|---|---:|---:|---:|---:|", COLUMNS.join(" | "))?;
        for SetoutLine { what, said, unit, measured, better } in &self.lines {
            let cells = measured.map(|estimate| show::interval(estimate, unit.writer()));
            writeln!(text, "| {what} | {said} | {} | {} |", cells.join(" | "), show::interval(*better, show::ratio))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{entry, row};
    use super::*;

    fn codecs() -> CodecReport {
        let codec = |block_bytes, factor: f64| Codec {
            block_bytes,
            encode_ns: vec![1e6 * factor, 2e6 * factor],
            decode_ns: vec![3e6 * factor, 5e6 * factor],
        };
        CodecReport { json: codec(3_000_000, 40.0), binary: codec(BLOCK_BYTES, 1.0), json_ping_bytes: 100 }
    }

    fn table(missing: Vec<String>, logged: [Option<Estimate>; 3]) -> String {
        let rows = [row(BROADCAST.name, vec![entry(NAIVE, "bare", &[1e5, 1e5]), entry(CORECAST, "bare", &[4e5, 4e5])])];
        let lines = lines(&rows, logged, Some(&codecs()));
        Setout { schema: "s", machine: Machine::default(), rounds: 2, missing, lines }.markdown()
    }

    #[test]
    fn what_was_said_stands_beside_what_is_measured() {
        let text = table(vec![], [one(500.0), one(0.0), one(0.0)]);
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}\n{text}"));
        assert_eq!(
            line("| broadcast"),
            "| broadcast of 128 B to 50 peers, until the last has it | 50 ms -> 1 ms | 10.0 us [10.0 us, 10.0 us] | \
             2.50 us [2.50 us, 2.50 us] | - | 4.000 [4.000, 4.000] |"
        );
        assert!(line("| messages a second to 50 peers, one").contains("| 500 -> 550 | 2.00 k [2.00 k, 2.00 k] | 8.00 k"), "{text}");
        assert!(line("| log lines").contains("| 3,000 -> 300 | 500 | 0 | 0 | - |"), "{text}");
        assert!(line("| a ping").contains("| 100 B | 16 B | 34 B | 6.250 |"), "{text}");
        assert!(line("| encoding that block").contains("| 60.0 ms [40.0 ms, 80.0 ms] | 1.50 ms [1.00 ms, 2.00 ms] |"), "{text}");
        assert!(line("| encoding that block").ends_with("| 40.0 [40.0, 40.0] |"), "{text}");
        let widths: Vec<usize> = text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert!(widths.len() == 12 && widths.iter().all(|&width| width == 7), "{text}");
    }

    #[test]
    fn who_is_missing_is_said_and_has_no_figures() {
        let text = table(vec!["skipped: naive: not built".into()], [None; 3]);
        assert!(text.contains("skipped: naive: not built"));
        assert!(text.contains("| heartbeat to 100 peers, until the last has it | 150 ms -> 5 ms | - | - | - | - |"), "{text}");
    }
}
