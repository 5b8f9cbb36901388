//! The command lines of `run` and `report`: checked before anything starts.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::bars;
use super::contestant::{self, BARE, Contestant, Places};
use super::plan::{Announcement, Plan};
use super::report;
use super::results::Results;
use super::{RunConfig, compare, work};
use crate::network::{Network, NetworkArgs};
use crate::server::Poll;
use crate::sys::{self, CpuSet};

/// How many rounds, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) rounds: usize,
    pub(super) warmup_ms: u64,
    pub(super) measure_ms: u64,
}

pub(super) const DEFAULT: Times = Times { rounds: 15, warmup_ms: 120, measure_ms: 350 };
pub(super) const QUICK: Times = Times { rounds: 1, warmup_ms: 50, measure_ms: 150 };

#[derive(Args)]
pub(crate) struct RunArgs {
    /// Rounds of the rows that a bar hangs on; the others have a third of them, memory a fifth. A bar needs 15 to be decided
    #[arg(long, default_value_t = DEFAULT.rounds, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    rounds: usize,
    /// One round of 0.05 s and 0.15 s: to see that it works, not to decide anything
    #[arg(long, conflicts_with_all = ["rounds", "warmup_ms", "measure_ms"])]
    quick: bool,
    /// Only rows whose name contains this
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Only these, by name: bare,corecast,tokio-tuned
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    contestants: Option<Vec<String>>,
    #[arg(long, default_value_t = DEFAULT.warmup_ms)]
    warmup_ms: u64,
    #[arg(long, default_value_t = DEFAULT.measure_ms, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    measure_ms: u64,
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// How the client waits. A sleeping client is woken by the server, and in a virtual machine that costs the server as much as a send
    #[arg(long, value_enum, default_value = "spin")]
    client_poll: Poll,
    #[command(flatten)]
    network: NetworkArgs,
    /// Seconds to wait before each round for other programs to be done, at most
    #[arg(long, default_value_t = 3)]
    patience: u64,
    /// Compare bare with itself: what is left of the ratios is the machine's noise
    #[arg(long, conflicts_with = "contestants")]
    self_check: bool,
    /// A folder with the contestants' programs. They are also looked for beside this program, and in tools/compare/contestants/target
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Write all figures of all rounds here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
}

/// Where the results go, besides standard output.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Outputs {
    /// Write the tables here too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write a page with plots here: one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write one plot here: the rates of one row
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The row of --svg. Without it: fan-out to 1,000 with 64 outstanding, or the first there is
    #[arg(long, value_name = "ROW", requires = "svg")]
    svg_row: Option<String>,
    /// Print the bars that corecast is held to: met, not met, or undecided
    #[arg(long)]
    bars: bool,
    #[arg(skip)]
    json: Option<PathBuf>,
}

/// The plot of a README, where nothing else is asked for.
const SVG_ROW: &str = "fanout-1000-128B-x64";

impl Outputs {
    /// Writes every file that was asked for.
    pub(super) fn write(&self, results: &Results) -> io::Result<()> {
        let plotted = match &self.svg_row {
            Some(name) => results.row(name),
            None => results.row(SVG_ROW).or(results.rows.first()),
        };
        let svg = || plotted.map(|row| report::html::single_plot(results, row)).unwrap_or_default();
        let files: [(&Option<PathBuf>, &dyn Fn() -> String); 4] = [
            (&self.json, &|| results.json()),
            (&self.markdown, &|| report::markdown::document(results)),
            (&self.html, &|| report::html::page(results)),
            (&self.svg.clone().filter(|_| plotted.is_some()), &svg),
        ];
        for (path, text) in files {
            if let Some(path) = path {
                std::fs::write(path, text()).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            }
        }
        // Last: what an hour has brought is written first.
        match &self.svg_row {
            Some(name) if plotted.is_none() => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, format!("--svg-row {name}: no such row in this run, so there is no plot")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn print(&self, results: &Results) {
        println!("{}", report::markdown::document(results));
        if self.bars {
            println!("{}", report::markdown::bars(&bars::all(results)));
        }
    }
}

impl RunArgs {
    /// Looks whether this can be done at all.
    fn plan(&self) -> Result<(RunConfig, Plan), String> {
        let times = if self.quick { QUICK } else { Times { rounds: self.rounds, warmup_ms: self.warmup_ms, measure_ms: self.measure_ms } };
        let rows = work::select(self.only.as_deref())?;
        let contestants: Vec<Contestant> = match self.self_check {
            true => [contestant::select(Some(&[BARE.into()]))?, vec![contestant::BARE_AGAIN]].concat(),
            false => contestant::select(self.contestants.as_deref())?,
        };
        if let Some(row) = self.outputs.svg_row.as_deref().filter(|name| rows.iter().all(|row| row.name != *name)) {
            return Err(format!("--svg-row {row}: this run has no such row"));
        }
        check_cores(self.server_core, self.client_core, self.client_poll)?;
        let config = RunConfig {
            rounds: times.rounds,
            warmup: Duration::from_millis(times.warmup_ms),
            measure: Duration::from_millis(times.measure_ms),
            server_core: self.server_core,
            client_core: self.client_core,
            client_poll: self.client_poll,
            network: Network::Machine,
            patience: Duration::from_secs(self.patience),
        };
        let places = Places::find(self.programs.as_deref()).map_err(|error| format!("cannot say where this program is: {error}"))?;
        let plan = Plan::new(rows, &contestants, &places)?;
        Ok((config, plan))
    }

    pub(crate) fn main(&self) -> io::Result<bool> {
        let (mut config, mut plan) = self.plan().unwrap_or_else(|reason| crate::refuse(reason));
        for line in plan.leave_out_beyond(sys::raise_file_limit()?) {
            eprintln!("{line}");
        }
        config.network = self.network.enter()?;
        eprintln!("{}", Announcement(&plan, &config));
        let outputs = Outputs { json: self.json.clone(), ..self.outputs.clone() };
        compare(&config, &plan, &outputs)
    }
}

/// A core that this process may not run on cannot be pinned to, and a client that spins leaves nothing of its core to the server.
pub(super) fn check_cores(server: usize, client: usize, client_poll: Poll) -> Result<(), String> {
    let allowed = CpuSet::current().map_err(|error| format!("cannot say where this process may run: {error}"))?;
    for (option, core) in [("--server-core", server), ("--client-core", client)] {
        if !allowed.contains(core) {
            return Err(format!("{option} {core}: this process may run on {allowed} only"));
        }
    }
    if server == client && client_poll == Poll::Spin {
        return Err(format!(
            "server and client are both to run on core {server}, and the client spins: give each a core, or --client-poll block"
        ));
    }
    Ok(())
}

#[derive(Args)]
pub(crate) struct ReportArgs {
    /// What `run --json` has written
    results: PathBuf,
    #[command(flatten)]
    outputs: Outputs,
}

impl ReportArgs {
    /// The reports again, from the figures of a run.
    pub(crate) fn main(&self) -> io::Result<bool> {
        let text = std::fs::read_to_string(&self.results).map_err(|error| error.to_string());
        let results = text.and_then(|text| Results::from_json(&text));
        let results = results.unwrap_or_else(|error| crate::refuse(format!("{}: {error}", self.results.display())));
        self.outputs.write(&results)?;
        self.outputs.print(&results);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_of_a_row_that_is_not_there_costs_no_results() {
        use super::super::results::tests::{entry, results, row};
        let folder = folder();
        let json = folder.join("compare.json");
        let outputs = Outputs {
            markdown: None,
            html: None,
            svg: Some(folder.join("plot.svg")),
            svg_row: Some("typo".into()),
            bars: false,
            json: Some(json.clone()),
        };
        let error = outputs.write(&results(vec![row("echo-1", vec![entry("bare", "bare", &[1.0])])])).unwrap_err().to_string();
        let written = std::fs::read_to_string(&json).is_ok_and(|text| text.contains("echo-1"));
        let plotted = folder.join("plot.svg").exists();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(error.contains("--svg-row typo") && written && !plotted, "{error}, {written}, {plotted}");
    }

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("corecast-compare-outputs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}
