//! What several commands are told: what both sides of a run are told, what every workload is told, how messages are spaced.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use corecast::{Address, NetworkId, Spin};

use super::values::{CpuList, parse_bytes, parse_cpus, parse_lag_bound, parse_positive_seconds, parse_rate, parse_seconds, parse_size};
use super::view::ViewArgs;
use crate::arrivals::{Arrivals, Offered, parse_arrivals};
use crate::error::Error;
use crate::pacer::Pace;
use crate::security::{Suite, Target, parse_target};
use crate::spec::Generator;

/// When a server cuts off a peer that does not read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SlowPeerArgs {
    /// A peer for which more waits, and hardly gets less for --soft-grace, is cut off. Without it: the library's own choice, and for the
    /// server that slow-readers starts 64k, or twice what is in flight where that is more.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) outbox_soft: Option<usize>,
    /// A peer for which more would wait is cut off. Without it: the library's own choice, or more where long messages need it.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) outbox_hard: Option<usize>,
    /// See --outbox-soft, in seconds. Without it: the library's own choice, and 1 for the server that slow-readers starts.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) soft_grace: Option<Duration>,
    /// A peer whose socket takes nothing of what waits for so long is cut off, in seconds. Without it: the library's own choice.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) write_stall: Option<Duration>,
}

/// What both sides of a run are told.
#[derive(Clone, Debug, Args)]
pub(crate) struct EngineArgs {
    /// How long a core looks for work before it sleeps, in us; 0: not at all. Without it: the library's own choice.
    #[arg(long, value_name = "N")]
    pub(crate) spin_us: Option<u64>,
    /// Network id, 64 hexadecimal digits. Both sides need the same.
    #[arg(long, value_name = "HEX", default_value_t = NetworkId::default(), hide_default_value = true)]
    pub(crate) network: NetworkId,
    /// Encrypt nothing. Both sides need the same.
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// With --plaintext: allow addresses other than loopback.
    #[arg(long, requires = "plaintext")]
    pub(crate) allow_remote: bool,
    /// What seals the records. Both sides need the same.
    #[arg(long, value_enum, default_value = "aes-gcm", conflicts_with = "plaintext")]
    pub(crate) cipher: Suite,
    /// The file with the secret of the whole network: one line, corecast-network-secret-1, a space and 64 hexadecimal digits, mode 0600.
    /// Both sides need the same.
    #[arg(long, value_name = "FILE", conflicts_with = "plaintext")]
    pub(crate) network_secret_file: Option<PathBuf>,
}

impl EngineArgs {
    /// The library refuses it too, in the words of its configuration.
    pub(crate) fn check_address(&self, address: &Address) -> Result<(), Error> {
        let allowed = !self.plaintext || self.allow_remote || address.is_local();
        if allowed { Ok(()) } else { Err(Error::Remote { address: address.clone() }) }
    }

    /// The same, for the command line of another process.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let mut args = vec!["--network".to_owned(), self.network.to_string()];
        args.extend(self.spin_us.map(|us| format!("--spin-us={us}")));
        if self.plaintext {
            args.push("--plaintext".into());
            args.extend(self.allow_remote.then(|| "--allow-remote".to_owned()));
            return args;
        }
        let cipher = self.cipher.to_possible_value().expect("every suite has a name");
        args.push(format!("--cipher={}", cipher.get_name()));
        args.extend(self.network_secret_file.as_ref().map(|file| format!("--network-secret-file={}", file.display())));
        args
    }

    /// What the engine is told about spinning, where the command line says anything.
    pub(crate) fn spin(&self) -> Option<Spin> {
        self.spin_us.map(|us| Spin { window: Duration::from_micros(us), forced: us > 0 })
    }
}

/// What every workload is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// The server to load, as it says of itself: NodeId@127.0.0.1:7000 or NodeId@unix:PATH; with --plaintext without what is before the
    /// @. Without it: one in this process, which needs two file descriptors a peer. Can be given more than once where peers do not hear of
    /// each other: they are dealt to the targets in turn.
    #[arg(long, value_name = "NODE@ADDR", value_parser = parse_target)]
    pub(crate) target: Vec<Target>,
    /// Begin when the target has so many peers, of all client processes together: each of them is told the same number, and their measured
    /// times overlap. Fan-out and topics have one peer more than --peers in each process.
    #[arg(long, value_name = "N", requires = "target")]
    pub(crate) server_peers: Option<u32>,
    /// Keys that the peers have, all together. Without it: one for each peer.
    #[arg(long, value_name = "N", conflicts_with = "plaintext", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) identities: Option<u64>,
    /// Where the peers' keys come from: the same number gives the same keys. Without it: others in each run.
    #[arg(long, value_name = "N", conflicts_with = "plaintext")]
    pub(crate) seed: Option<u64>,
    /// Peers; fan-out and topics: subscribers, and one publisher besides.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub(crate) peers: u32,
    /// Bytes of each message, 32 (sequence number, time, sender, checksum) to 16M.
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = parse_size)]
    pub(crate) size: usize,
    /// How long to measure, in seconds.
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) duration: Duration,
    /// How long to run before that, in seconds.
    #[arg(long, value_name = "S", default_value = "1", value_parser = parse_seconds, allow_negative_numbers = true)]
    pub(crate) warmup: Duration,
    /// How long to wait at the end for what is under way, in seconds. What has not come then is lost.
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds, allow_negative_numbers = true)]
    pub(crate) drain: Duration,
    /// How long all peers together may take to connect, in seconds. Without it: 30, or 5 while nothing at all answers.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) connect_timeout: Option<Duration>,
    /// Write the report there as JSON (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the latencies there, open loop: the response times, by percentile in microseconds, as HdrHistogram's plotters read them.
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    /// Write the latencies of each piece of the measured time there, as HdrHistogram's log analysers read them, in nanoseconds.
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr_log: Option<PathBuf>,
    /// Processors of the server in this process. Without it: pinned to the first allowed one, where there are two.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus, conflicts_with = "target")]
    pub(crate) server_cores: Option<CpuList>,
    /// Processors of the client: one engine on each. Without it: pinned to the second allowed one with the server in this process,
    /// otherwise one that is not pinned.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub(crate) client_cores: Option<CpuList>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
}

impl LoadArgs {
    /// Everything that is written, and where.
    pub(super) fn written(&self) -> Vec<(&'static str, &Option<PathBuf>)> {
        let ViewArgs { html, flamegraph, .. } = &self.view;
        let Self { json, hgrm, hdr_log, .. } = self;
        vec![("--json", json), ("--hgrm", hgrm), ("--hdr-log", hdr_log), ("--html", html), ("--flamegraph", flamegraph)]
    }
}

/// What an open loop offers, and how well it has to.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OpenArgs {
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    /// Open loop: so many messages a second, all peers together, however slow the server is. Response times count from when a message
    /// should have been sent.
    #[arg(long, value_name = "R", value_parser = parse_rate, allow_negative_numbers = true)]
    pub(crate) rate: Option<f64>,
}

/// An open loop, but for its rate.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ScheduleArgs {
    /// Open loop: when messages are due. constant; poisson (at random); burst or burst:N (N at once, 10 without it). All keep the rate.
    #[arg(long, value_name = "HOW", value_parser = parse_arrivals)]
    pub(crate) arrivals: Option<Arrivals>,
    /// Open loop, poisson: the same number gives the same times. Several clients at once need one each. Without it: 1.
    #[arg(long, value_name = "N")]
    pub(crate) arrival_seed: Option<u64>,
    /// Open loop: how to wait for the next message to be due. Without it: spin where a processor is to spare beyond the server's and the
    /// client's cores, which then spin too unless --spin-us says otherwise.
    #[arg(long, value_enum)]
    pub(crate) pace: Option<Pace>,
    /// Open loop: the run is INVALID where the generator itself was later than that at p99, in seconds. Without it: half of the response
    /// time's p99, or 0.0001 where that is more.
    #[arg(long, value_name = "S", value_parser = parse_lag_bound, allow_negative_numbers = true)]
    pub(crate) lag_bound: Option<Duration>,
}

impl ScheduleArgs {
    /// What was given of it.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.arrivals.is_some(), "--arrivals"),
            (self.arrival_seed.is_some(), "--arrival-seed"),
            (self.pace.is_some(), "--pace"),
            (self.lag_bound.is_some(), "--lag-bound"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }

    /// At so many messages a second.
    pub(crate) fn offered(&self, rate: f64) -> Offered {
        Offered { rate, arrivals: self.arrivals.unwrap_or(Arrivals::Constant), seed: self.arrival_seed.unwrap_or(1) }
    }

    pub(crate) fn generator(&self) -> Generator {
        Generator { pace: self.pace, lag_bound: self.lag_bound }
    }
}

/// How messages are spaced.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PacingArgs {
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Closed loop: a message is sent when another one has come to its end, so that a slow server is asked for less.
    #[arg(long, conflicts_with_all = OPEN_ONLY)]
    pub(crate) closed: bool,
    /// Closed loop: messages under way. Echo: of each peer. Fan-out: broadcasts that the slowest subscriber does not have yet. 1 where
    /// only --closed is given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with_all = OPEN_ONLY)]
    pub(crate) in_flight: Option<u32>,
}

/// What a closed loop has no use for.
const OPEN_ONLY: [&str; 5] = ["rate", "arrivals", "arrival_seed", "pace", "lag_bound"];

/// How the messages of a flood are spaced.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct FloodPacingArgs {
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Closed loop: messages of each peer that the server is not known to have counted. It is asked after every N/2 messages, which adds
    /// one request and one answer to those.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with_all = OPEN_ONLY)]
    pub(crate) in_flight: Option<u32>,
}

/// Rounds of an undisturbed and a disturbed phase.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PhaseArgs {
    /// Rounds of one undisturbed and one disturbed phase; they share --duration evenly.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// One round in under two seconds, with 50 peers at most: whether it works, not how well.
    #[arg(long)]
    pub(crate) quick: bool,
}
