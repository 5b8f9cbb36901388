//! What is done with several runs or their results.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::load::{LoadArgs, ScheduleArgs};
use super::values::parse_rate;
use crate::workload::Kind;

/// `html`.
#[derive(Debug, Args)]
pub(crate) struct HtmlArgs {
    /// Results as --json wrote them, of any command. Several runs are compared: latency against throughput.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Write the page there (`-`: standard output).
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// `merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Reports as --json wrote them, of clients that loaded one --target at the same time: two at least.
    #[arg(value_name = "FILE", required = true, num_args = 2..)]
    pub(crate) files: Vec<PathBuf>,
    /// Write the merged report there as JSON (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the merged latencies there by percentile, as HdrHistogram's plotters read them.
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
}

/// The workloads that are one thing at one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stepped {
    /// Every peer sends and waits for its messages to come back.
    Echo,
    /// One peer publishes, the server sends each message to all others.
    Fanout,
}

impl Stepped {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Echo => Kind::Echo,
            Self::Fanout => Kind::Fanout,
        }
    }
}

/// Several runs of one workload, each at a rate of its own.
#[derive(Clone, Debug, Args)]
pub(crate) struct SteppedArgs {
    /// What is run.
    #[arg(value_enum)]
    pub(crate) workload: Stepped,
    /// The lowest rate, messages a second.
    #[arg(long, value_name = "R", value_parser = parse_rate, allow_negative_numbers = true)]
    pub(crate) from: f64,
    /// The highest rate.
    #[arg(long, value_name = "R", value_parser = parse_rate, allow_negative_numbers = true)]
    pub(crate) to: f64,
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

impl SteppedArgs {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.from >= self.to {
            return Err(format!("--from {} is not below --to {}", self.from, self.to));
        }
        let Self { load, .. } = self;
        let single = [(&load.hgrm, "--hgrm"), (&load.hdr_log, "--hdr-log"), (&load.view.flamegraph, "--flamegraph")];
        let single = single.into_iter().find(|(file, _)| file.is_some());
        single.map_or(Ok(()), |(_, name)| Err(format!("{name} is for one run, and here are several: take the workload alone, with --rate")))
    }
}

/// `sweep`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) stepped: SteppedArgs,
    /// How many rates, the lowest and the highest among them.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub(crate) steps: u32,
    /// Each rate is the same multiple of the last one, instead of the same amount above it.
    #[arg(long)]
    pub(crate) geometric: bool,
}

/// `knee`.
#[derive(Clone, Debug, Args)]
pub(crate) struct KneeArgs {
    #[command(flatten)]
    pub(crate) stepped: SteppedArgs,
    /// What the response time's p99 has to stay under, in seconds.
    #[arg(long, value_name = "S", value_parser = parse_bound)]
    pub(crate) p99: Duration,
    /// How near to each other the rate that is under the bound and the one that is over it have to be, as a part of the rate.
    #[arg(long, value_name = "PART", default_value = "0.05", value_parser = parse_precision)]
    pub(crate) precision: f64,
    /// Runs more, at most, at the rate that was found and at the next one above it. Where most of them say otherwise, the search goes on.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=20))]
    pub(crate) confirm: u32,
}

/// What is a latency and not a duration of a run.
fn parse_bound(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|value| (1e-6..=60.0).contains(value));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, 0.000001 to 60, such as 0.001".into())
}

fn parse_precision(text: &str) -> Result<f64, String> {
    let part = text.parse::<f64>().ok().filter(|value| (0.001..=0.5).contains(value));
    part.ok_or_else(|| "expected 0.001 to 0.5".into())
}
