//! What is done with several runs or their results.

use std::path::PathBuf;

use clap::Args;

/// `html`.
#[derive(Debug, Args)]
pub(crate) struct HtmlArgs {
    /// Reports as --json wrote them, alone or in a list. Several are compared: latency against throughput.
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
