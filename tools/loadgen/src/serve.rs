//! `serve`: a server in a process of its own, until a signal ends it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use corecast::{Config, Cores, Stats};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::cli::{BULK_AHEAD_MAX, ServeArgs};
use crate::error::Error;
use crate::flamegraph::Flamegraph;
use crate::limits;
use crate::machine::raise_descriptor_limit;
use crate::output::{self, JsonSink};
use crate::security;
use crate::server::{Mode, Server, counter};

/// All counters of a server at its end.
#[derive(Serialize)]
struct StatsReport {
    schema: &'static str,
    mode: String,
    listen: String,
    elapsed_s: f64,
    sum: BTreeMap<&'static str, u64>,
    cores: Vec<BTreeMap<&'static str, u64>>,
}

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once.
pub(crate) fn main(args: &ServeArgs) -> Result<(), Error> {
    args.engine.check_address(&args.listen)?;
    if args.ends_with_parent {
        // Who would be signalled is gone: so are those that load this server.
        let asked = set_parent_process_death_signal(Some(Signal::KILL));
        asked.map_err(|source| Error::System { what: "cannot be told of the parent's end", source: source.into() })?;
    }
    let stats_json = JsonSink::open_some(args.stats_json.as_ref())?;
    let stop = Stop::install()?;
    let config = config(args)?;
    let mut flamegraph = Flamegraph::prepare_some(args.flamegraph.as_ref())?;
    let limits = security::describe(&config);
    let cores = args.cores.as_ref().map_or(1, |list| list.0.len());
    let server = Server::start(config, cores, args.mode)?;
    let (address, handle) = (server.target(), server.handle());
    announce(&format!("listening on {address}"));
    announce(&limits);
    flamegraph.as_mut().map_or(Ok(()), Flamegraph::start)?;
    let started = Instant::now();
    stop.wait();
    flamegraph.iter_mut().for_each(Flamegraph::stop);
    let elapsed_s = started.elapsed().as_secs_f64();
    let (peers, refused) = (counter(&handle.stats(), "peers"), server.refused());
    let report = server.shutdown();
    // Read after the shutdown: draining sends too.
    let stats = handle.stats();
    let _ = writeln!(
        std::io::stderr(),
        "served {} in {elapsed_s:.1} s: {} messages received, {} sent, {refused} refused, {:.2} s of processor time; \
         {peers} peers at the end, {} in {:.3} s, {} messages unsent",
        args.mode,
        counter(&stats, "messages_received"),
        counter(&stats, "messages_sent"),
        counter(&stats, "cpu_ns") as f64 / 1e9,
        if report.drained { "drained" } else { "NOT drained" },
        report.elapsed.as_secs_f64(),
        report.unsent_messages,
    );
    flamegraph.map_or(Ok(()), |flamegraph| flamegraph.finish(format!("serve: {}, {}", args.mode, address)))?;
    if let Some(sink) = stats_json {
        let cores = (0..handle.cores()).map(|core| by_name(&handle.core_stats(core))).collect();
        let stats = StatsReport {
            schema: "corecast-loadgen-stats/1",
            mode: args.mode.to_string(),
            listen: address.to_string(),
            elapsed_s,
            sum: by_name(&stats),
            cores,
        };
        sink.write(&stats)?;
    }
    if report.panicked.is_empty() { Ok(()) } else { Err(Error::CoreSilent { engine: report.panicked[0] }) }
}

fn config(args: &ServeArgs) -> Result<Config, Error> {
    let admission = args.admission.admission(args.engine.plaintext)?;
    let mut config = security::config(&args.engine, args.admission.identity()?, admission)?.listen(args.listen.clone());
    if let Some(list) = &args.cores {
        config.cores = Cores::Pinned(list.0.clone());
    }
    let allowed = raise_descriptor_limit();
    let (max_peers, max_half_open) = limits::peers_within(u64::from(args.max_peers), allowed);
    if max_peers < args.max_peers as usize {
        output::remark(format_args!(
            "warning: RLIMIT_NOFILE allows {allowed} file descriptors, so at most {max_peers} peers instead of {}",
            args.max_peers
        ));
    }
    config.limits.max_peers = max_peers;
    config.limits.max_half_open = max_half_open;
    // What a client of this version asks for at most, so that no bulk is refused it.
    let under_way = if args.mode == Mode::Mixed { BULK_AHEAD_MAX as usize } else { 1 };
    limits::fit_messages(&mut config.limits, args.max_message, under_way);
    limits::fit_acks(&mut config.acks, &config.limits, args.max_message, 1);
    config.io.notsent_lowat = args.notsent_lowat;
    limits::cut_off(&mut config, &args.slow_peers);
    args.limits.apply(&mut config);
    args.rates.apply(&mut config);
    Ok(config)
}

fn by_name(stats: &Stats) -> BTreeMap<&'static str, u64> {
    stats.iter().map(|(counter, value)| (counter.name(), value)).collect()
}

/// Whoever started the server reads this line from a pipe, and may be gone: that is no reason to stop.
fn announce(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// SIGTERM and SIGINT.
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
    /// A byte comes with each signal.
    bell: UnixStream,
}

impl Stop {
    /// The first signal is asked for, the second ends the process at once.
    pub(crate) fn install() -> Result<Self, Error> {
        let failed = |source| Error::System { what: "cannot catch signals", source };
        let flag = Arc::new(AtomicBool::new(false));
        let (bell, ringer) = UnixStream::pair().map_err(failed)?;
        for signal in [SIGTERM, SIGINT] {
            // In this order: the one that ends the process looks at what the next one left behind.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&flag)).map_err(failed)?;
            flag::register(signal, Arc::clone(&flag)).map_err(failed)?;
            pipe::register(signal, ringer.try_clone().map_err(failed)?).map_err(failed)?;
        }
        Ok(Self { flag, bell })
    }

    pub(crate) fn requested(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Sleeps until a signal comes.
    fn wait(&self) {
        while !self.requested() {
            // An error is a signal's doing too: look again.
            let _ = (&self.bell).read(&mut [0]);
        }
    }
}
