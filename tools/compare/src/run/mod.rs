//! The interleaved comparison: for each row, pairs of short runs, A B, B A, A B ..., each against a fresh server process.
//!
//! The two runs of a pair share the machine's mood, so their ratio is steadier than either figure. The order within the
//! pairs alternates, which takes out a drift. A fresh process for each run gives each its own luck with memory layout and
//! ports. A pair that other programs disturbed is run again: that is decided by the CPU they used, never by the result.
//! The median of the ratios and its interval decide ([`crate::stats`]); the absolute figures are printed beside it.

mod process;
mod report;
mod rows;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::meter::{Figures, Window};
use crate::client::{self, ClientConfig, Protocol};
use crate::machine;
use crate::server::Poll;
use crate::sys::CpuSet;
use process::{Contestant, ServerProcess};
use report::Report;
use rows::Row;

/// What to compare, and how long.
#[derive(Clone, Debug)]
pub(crate) struct RunConfig {
    pub(crate) rounds: usize,
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
    pub(crate) only: Option<String>,
    pub(crate) server_core: usize,
    pub(crate) client_core: usize,
    /// How the client waits, in every row.
    pub(crate) client_poll: Poll,
    /// How long to wait before each pair for a quiet machine.
    pub(crate) patience: Duration,
    /// Compare bare with itself.
    pub(crate) self_check: bool,
    /// The corecast load generator; next to this program, if not given.
    pub(crate) corecast: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
}

/// What came out of one row: the figures of each round for each contestant, or why there are none.
struct RowOutcome {
    row: Row,
    bare: Vec<Figures>,
    other: Vec<Figures>,
    failure: Option<String>,
}

/// Runs all rows and prints the report. False if any row failed or was invalid.
pub(crate) fn run(config: &RunConfig) -> io::Result<bool> {
    let rows: Vec<Row> =
        rows::all().into_iter().filter(|row| config.only.as_ref().is_none_or(|pattern| row.name().contains(pattern))).collect();
    if rows.is_empty() {
        let names: Vec<String> = rows::all().iter().map(Row::name).collect();
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no row matches; there are: {}", names.join(", "))));
    }
    let contestants = contestants(config)?;
    let cpus = CpuSet::current()?;
    crate::pin(Some(config.client_core));
    let other = contestants.get(1).map(Contestant::name);
    let mut outcomes = Vec::new();
    for row in rows {
        outcomes.push(compare_row(config, &contestants, row, cpus));
        // After every row: a full run takes a quarter of an hour, and one that is cut short should leave what it has.
        write_files(config, &Report::new(config, other, &outcomes))?;
    }
    let report = Report::new(config, other, &outcomes);
    println!("{}", report.markdown());
    Ok(report.valid())
}

fn write_files(config: &RunConfig, report: &Report<'_>) -> io::Result<()> {
    if let Some(path) = &config.markdown {
        std::fs::write(path, report.markdown())?;
    }
    if let Some(path) = &config.json {
        std::fs::write(path, report.json())?;
    }
    Ok(())
}

fn contestants(config: &RunConfig) -> io::Result<Vec<Contestant>> {
    let own = std::env::current_exe()?;
    let corecast = config.corecast.clone().unwrap_or_else(|| own.with_file_name("corecast-loadgen"));
    let mut contestants = vec![Contestant::Bare(own.clone())];
    if config.self_check {
        contestants.push(Contestant::BareAgain(own));
    } else if corecast.is_file() {
        contestants.push(Contestant::Corecast(corecast));
    } else {
        eprintln!("no corecast server at {}: running bare alone (build it, or give --corecast PATH)", corecast.display());
    }
    Ok(contestants)
}

/// CPU of other programs, in cores, above which a pair is run again.
const DISTURBED_ABOVE: f64 = 0.1;

fn compare_row(config: &RunConfig, contestants: &[Contestant], row: Row, cpus: CpuSet) -> RowOutcome {
    let mut outcome = RowOutcome { row, bare: Vec::new(), other: Vec::new(), failure: None };
    // As many again as wanted, but no more: the machine may never become quiet.
    let mut repeats_left = config.rounds;
    while outcome.bare.len() < config.rounds {
        let round = outcome.bare.len();
        eprintln!("{} round {}/{}", row.name(), round + 1, config.rounds);
        machine::wait_until_quiet(config.patience);
        match run_pair(config, contestants, &row, round % 2 == 1, cpus) {
            Ok(pair) if repeats_left > 0 && pair.iter().any(|figures| figures.foreign_cores > DISTURBED_ABOVE) => {
                repeats_left -= 1;
                eprintln!("{}: disturbed by other programs, once more", row.name());
            }
            Ok(pair) => {
                let mut pair = pair.into_iter();
                outcome.bare.extend(pair.next());
                outcome.other.extend(pair.next());
            }
            Err(failure) => {
                eprintln!("{} failed: {failure}", row.name());
                outcome.failure = Some(failure.to_string());
                break;
            }
        }
    }
    outcome
}

/// One run of each contestant, in their order or the other way round; the figures are in their order.
fn run_pair(config: &RunConfig, contestants: &[Contestant], row: &Row, reversed: bool, cpus: CpuSet) -> io::Result<Vec<Figures>> {
    let run = |contestant: &Contestant| {
        run_once(config, contestant, row, cpus).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", contestant.name())))
    };
    if reversed {
        let mut pair = contestants.iter().rev().map(run).collect::<io::Result<Vec<_>>>()?;
        pair.reverse();
        Ok(pair)
    } else {
        contestants.iter().map(run).collect()
    }
}

/// One run of one contestant: fresh server, dial, warm up, measure, drain, close, stop.
fn run_once(config: &RunConfig, contestant: &Contestant, row: &Row, cpus: CpuSet) -> io::Result<Figures> {
    let server = ServerProcess::start(contestant, row, config.server_core, cpus)?;
    let figures = client::measure(&ClientConfig {
        protocol: Protocol::Wire,
        server: server.address,
        publishing: None,
        network: [0; 32],
        node: None,
        load: row.load,
        body_len: row.body_len,
        poll: config.client_poll,
        window: Window { warmup: config.warmup, measure: config.measure, server_pid: Some(server.pid()) },
    })?;
    server.stop()?;
    if figures.faults.none() {
        Ok(figures)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("INVALID: {:?}", figures.faults)))
    }
}
