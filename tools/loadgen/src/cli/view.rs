//! How a run is looked at, while it goes on and afterwards.

use std::path::{Path, PathBuf};

use clap::Args;

/// Besides the table and the JSON.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "To look at it")]
pub(crate) struct ViewArgs {
    /// Write the report there as one HTML page with plots, which needs nothing else: no network, no scripts. See also `html`.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Show what goes on on the terminal, in several lines instead of one: throughput, percentiles, what waits, what the server's cores do.
    /// Where standard output is no terminal it is not there.
    #[arg(long)]
    pub(crate) live: bool,
    /// Profile this process while it is measured, by function and thread, and write the SVG there. A server that --target names is not in
    /// it: see its own --flamegraph, or tools/flamegraph.sh. Takes a few percent.
    #[arg(long, value_name = "FILE")]
    pub(crate) flamegraph: Option<PathBuf>,
}

impl ViewArgs {
    /// `written`: everything that is written, and where.
    pub(super) fn check(&self, written: &[(&'static str, &Option<PathBuf>)]) -> Result<(), String> {
        let is_stdout = |path: &&Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
        if is_stdout(&&self.flamegraph) {
            return Err("--flamegraph needs a file: an SVG on standard output would be among everything else".into());
        }
        match written.iter().find(|(_, path)| self.live && is_stdout(path)) {
            Some((name, _)) => Err(format!("--live and {name} - cannot both have standard output")),
            None => Ok(()),
        }
    }
}
