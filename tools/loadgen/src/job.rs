//! What happens without arguments: echo and fan-out on loopback, in this process, in about ten seconds.

use std::time::{Duration, Instant};

use corecast::NetworkId;

use crate::cli::{EngineArgs, JobArgs, LoadArgs, ViewArgs};
use crate::error::Error;
use crate::html;
use crate::output::{self, JsonSink};
use crate::report::Report;
use crate::run;
use crate::security::Suite;
use crate::serve::Stop;
use crate::spec::Spec;
use crate::workload::{Kind, Pacing};

const PEERS: u32 = 50;
const SIZE: usize = 256;

/// Runs both workloads, prints both tables, and fails where either did.
pub(crate) fn main(args: &JobArgs) -> Result<(), Error> {
    let stop = Stop::install()?;
    let started = Instant::now();
    let (json, html) = (JsonSink::open_some(args.json.as_ref())?, JsonSink::open_some(args.html.as_ref())?);
    let to_stdout = [&json, &html].into_iter().flatten().any(JsonSink::is_stdout);
    let mut reports = Vec::new();
    for (kind, in_flight) in [(Kind::Echo, 4), (Kind::Fanout, 16)] {
        let spec = Spec::plain(kind, Pacing::Closed { in_flight }, load(args.quick));
        let report = run::execute(&spec, &stop)?;
        if !to_stdout {
            output::print(format_args!("{report}\n"))?;
        }
        let interrupted = report.interrupted;
        reports.push(report);
        if interrupted {
            break;
        }
    }
    if let Some(sink) = json {
        sink.write(&reports)?;
    }
    if let Some(sink) = html {
        sink.write_text(&html::page(&reports))?;
    }
    output::remark(format_args!("done in {:.1} s; --help lists what else there is", started.elapsed().as_secs_f64()));
    if reports.iter().all(Report::passed) { Ok(()) } else { Err(Error::Verification) }
}

fn load(quick: bool) -> LoadArgs {
    let (warmup, duration) = if quick { (50, 200) } else { (500, 4200) };
    LoadArgs {
        target: Vec::new(),
        server_peers: None,
        identities: None,
        seed: None,
        peers: PEERS,
        size: SIZE,
        duration: Duration::from_millis(duration),
        warmup: Duration::from_millis(warmup),
        drain: Duration::from_secs(5),
        connect_timeout: None,
        json: None,
        hgrm: None,
        hdr_log: None,
        server_cores: None,
        client_cores: None,
        engine: EngineArgs {
            spin_us: None,
            network: NetworkId::default(),
            plaintext: false,
            allow_remote: false,
            cipher: Suite::default(),
            network_secret_file: None,
        },
        view: ViewArgs::default(),
    }
}
