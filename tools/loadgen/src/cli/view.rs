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
    /// `others`: what else is written, and where.
    pub(super) fn check<const N: usize>(&self, others: [(&'static str, Option<&Path>); N]) -> Result<(), String> {
        let html = ("--html", self.html.as_deref());
        let flamegraph = ("--flamegraph", self.flamegraph.as_deref());
        if flamegraph.1 == Some(Path::new("-")) {
            return Err("--flamegraph needs a file: an SVG on standard output would be among everything else".into());
        }
        let written: Vec<_> = others.into_iter().chain([html, flamegraph]).filter_map(|(name, path)| Some((name, path?))).collect();
        for (at, (name, path)) in written.iter().enumerate() {
            if let Some((other, _)) = written[..at].iter().find(|(_, other)| other == path) {
                return Err(format!("{other} and {name} cannot go to the same place"));
            }
            if self.live && *path == Path::new("-") {
                return Err(format!("--live and {name} - cannot both have standard output"));
            }
        }
        Ok(())
    }
}
