//! How a run is looked at, while it goes on and afterwards.

use std::path::PathBuf;

use clap::Args;

/// Besides the table and the JSON.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "To look at it")]
pub(crate) struct ViewArgs {
    /// Write the report there as one HTML page with plots, which needs nothing else: no network, no scripts. See also `html`.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Profile this process while it is measured, by function and thread, and write the SVG there. A server that --target names is not in
    /// it: see its own --flamegraph, or tools/flamegraph.sh. Takes a few percent.
    #[arg(long, value_name = "FILE")]
    pub(crate) flamegraph: Option<PathBuf>,
}
