//! `baseline`: what is run, how often, and what counts as worse.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::parse_positive_seconds;

/// `baseline`.
#[derive(Debug, Args)]
pub(crate) struct BaselineArgs {
    #[command(subcommand)]
    pub(crate) what: Baseline,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Baseline {
    /// Measure, and keep the figures of all rounds.
    Save(SaveArgs),
    /// Measure the same again, and compare. With --against, measure another build by turns with this one instead.
    Compare(CompareArgs),
}

/// `baseline save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// A name, kept under $XDG_DATA_HOME/corecast-loadgen (~/.local/share/corecast-loadgen), or a file: what has a / or ends in .json.
    #[arg(value_name = "NAME|FILE")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) rounds: RoundArgs,
}

/// `baseline compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// What was saved. Its work, rounds and times are run again.
    #[arg(value_name = "NAME|FILE", required_unless_present = "against", conflicts_with = "against")]
    pub(crate) name: Option<String>,
    /// Another corecast-loadgen, such as an older build: run by turns with this one, so that whatever the machine does meets both.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) against: Option<PathBuf>,
    /// How much worse a figure has to be, as a part of it, for certain: the whole 95 % interval of the ratio is beyond it.
    #[arg(long, value_name = "PART", default_value = "0.1", value_parser = parse_threshold)]
    pub(crate) threshold: f64,
    /// Write the comparison there as JSON (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) rounds: RoundArgs,
}

/// What is measured in each round.
#[derive(Clone, Debug, Args)]
pub(crate) struct RoundArgs {
    /// Rounds, of one run of each work. The interval of a median needs six.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(6..=999))]
    pub(crate) rounds: u32,
    /// How long to measure in each run, in seconds.
    #[arg(long, value_name = "S", default_value = "1", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) duration: Duration,
    /// A command line of echo or fanout, such as "echo --peers 50 --closed"; several with several --work. Without it: echo and fanout in
    /// the closed loop, and echo in the open one.
    #[arg(long, value_name = "ARGS", value_parser = super::parse_work)]
    pub(crate) work: Vec<Work>,
}

/// The command line of one work, as words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work(pub(crate) Vec<String>);

impl RoundArgs {
    /// What is run where the command line does not say.
    const WORK: [&str; 3] =
        ["echo --peers 50 --size 64 --closed", "fanout --peers 50 --size 128 --in-flight 16", "echo --peers 50 --size 64 --rate 2000"];

    pub(crate) fn works(&self) -> Vec<Work> {
        if self.work.is_empty() { Self::WORK.iter().map(|text| Work::of(text)).collect() } else { self.work.clone() }
    }
}

impl Work {
    pub(super) fn of(text: &str) -> Self {
        Self(text.split_whitespace().map(str::to_owned).collect())
    }
}

fn parse_threshold(text: &str) -> Result<f64, String> {
    let part = text.parse::<f64>().ok().filter(|value| (0.0..=1e6).contains(value));
    part.ok_or_else(|| "expected 0 to 1000000, such as 0.1 for a tenth".into())
}
