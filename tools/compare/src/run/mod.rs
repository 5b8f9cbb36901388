//! The comparison: the same work on every contestant, interleaved, and the reports of it.
//!
//! ```text
//! command ─▶ plan (work x contestant) ─▶ rounds ─▶ results ─▶ bars, report (Markdown, HTML, SVG), JSON
//!                                          └ process, crate::client
//! ```
//!
//! [`work`] has the rows and [`contestant`] who there is. [`setout`] is the table of the figures that the project set out from.

mod bars;
pub(crate) mod command;
mod contestant;
mod plan;
mod process;
mod report;
mod results;
mod rounds;
pub(crate) mod setout;
mod work;

use std::io;
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::network::Network;
use crate::server::Poll;
use crate::sys::CpuSet;
use command::Outputs;
use plan::Plan;
use results::{Conditions, Results, SCHEMA};
use rounds::Bench;

/// How to measure.
#[derive(Clone, Debug)]
pub(crate) struct RunConfig {
    pub(crate) rounds: usize,
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
    pub(crate) server_core: usize,
    pub(crate) client_core: usize,
    /// How the client waits, in every row.
    pub(crate) client_poll: Poll,
    /// Where the run is.
    pub(crate) network: Network,
    /// How long to wait before each round for a quiet machine.
    pub(crate) patience: Duration,
}

/// Runs all of the plan and prints the report. False if bare or corecast failed in a row.
fn compare(config: &RunConfig, plan: &Plan, outputs: &Outputs) -> io::Result<bool> {
    let cpus = CpuSet::current()?;
    crate::pin(Some(config.client_core));
    let mut results = Results {
        schema: SCHEMA.into(),
        machine: Machine::read(config.network),
        conditions: conditions(config),
        contestants: plan.contestants(),
        rows: Vec::new(),
    };
    let bench = Bench { config, present: &plan.present, cpus };
    let start = Instant::now();
    for (number, row) in plan.rows.iter().enumerate() {
        let left = plan.minutes(config, number, start.elapsed());
        results.add(bench.measure(row, &mut |round, rounds| {
            eprintln!("[{}/{}, {left} left] {}: round {}/{rounds}", number + 1, plan.rows.len(), row.name, round + 1);
        }));
        // After every row: a full run takes an hour, and one that is cut short should leave what it has.
        outputs.write(&results)?;
    }
    outputs.print(&results);
    Ok(ours_held(&results, plan))
}

/// Whether the limit and ours ran to their end everywhere. Another contestant that fails is a result.
fn ours_held(results: &Results, plan: &Plan) -> bool {
    let ours = |name: &str| plan.present.iter().any(|present| present.contestant.name == name && !present.contestant.is_foreign());
    results.rows.iter().flat_map(|row| &row.entries).all(|entry| entry.failed.is_none() || !ours(&entry.contestant))
}

fn conditions(config: &RunConfig) -> Conditions {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    Conditions {
        command: format!("corecast-compare {arguments}"),
        rounds: config.rounds,
        warmup_s: config.warmup.as_secs_f64(),
        measure_s: config.measure.as_secs_f64(),
        server_core: config.server_core,
        client_core: config.client_core,
        client_poll: config.client_poll.name().into(),
    }
}
