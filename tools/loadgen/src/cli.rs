//! The command line: what can be asked for, and what makes no sense before anything is started.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use corecast::{Address, NetworkId, ParseAddressError, Spin};

use crate::churn::ChurnArgs;
use crate::error::Error;
use crate::hostile::HostileArgs;
use crate::payload::HEADER_LEN;
use crate::security::{AdmissionArgs, LimitArgs, Suite, Target, parse_target};
use crate::server::Mode;
use crate::workload::Subscriptions;

const HOSTILE_TABLE: &str = "\
The table:
  trips/s, p50, p99, max   the round trips of the good peer, which sends one message at a time
  attackers     connected: connections that TCP granted; established: handshakes that came to their end; attempts: what was tried, in the
                attack's own unit (pings, records, bit flips). 0 where an attack does not count it";

const EXIT_CODES: &str = "\
Exit code: 0 when everything arrived once, in order and undamaged; 1 when not, or when a run failed; 2 for a wrong command line.";

/// What the words of a report mean, for `--help`.
const GLOSSARY: &str = "\
The table:
  measured      what was sent and what arrived in the measured time alone; the rates are these counts a second
  latency       from when a message was sent (with --rate: was due) to its arrival
  last of all   fan-out and topics: from when a message was sent to its arrival at the last of its subscribers
  sent late by  with --rate: how late the load generator itself was
  server CPU    processor time of the server's cores for each delivery; `1.00 processors busy` is one processor all the time, which a
                core that looks for work instead of sleeping (--spin-us) is even when there is none
  NOT ALONE     something else ran on the processors that the server needed: measure again on a quieter machine, or with other cores
  NOT SENT      with --rate: messages were due that could not be sent, so the latencies are better than they should be
  whole run     the counts from the first message to the last: warm-up, measured time, drain
  verified      of the whole run: lost (sent and did not arrive), duplicated, reordered, corrupt (wrong checksum, length, lane, sender or
                topic). Topics: everything in the order of each topic, and nothing of a topic that was not subscribed to

The table of mixed and slow-readers, which measure in rounds of an undisturbed and a disturbed phase, every other one:
  without bulk, with bulk          mixed: the round trip of the messages that were due in these phases: from when each was due at the
                client to the arrival of its echo there, by one clock. The way back leads through an outbox, a kernel and a client
                that have bulk
  bulk          mixed: what arrived of it in the phases that had it
  undisturbed, disturbed           slow-readers: the rates of the subscribers that read all the time. A disturbed phase begins when the
                others stop reading and ends after its time, or as soon as the last of them was cut off
  slow readers  those that stopped (fresh ones in each round), how many the server cut off meanwhile, and its counters that say why
  whole run, verified              mixed: both lanes; a bulk message counts as sent when it was asked for. slow-readers: the subscribers
                that read all the time, which must get everything; the others must get what they read in order, without a gap

The table of receipts:
  first ack, quorum, last ack      from when the server broadcast a message to the first acknowledgement, to the one that made the quorum,
                and to the last, by the server's own receipts, which know the time of the engine's turn: latency, above, is from the
                client to the server and to every subscriber
  receipts      whole run: broadcasts that every peer has acknowledged; those that somebody has not, or of which the server said nothing

The JSON:
  elapsed_s, sent, delivered, msgs_per_s (sent / elapsed_s), deliveries_per_s (delivered / elapsed_s), latency_ns and the other times
  and server_cpu*: the measured time alone.
  total_sent, total_delivered, unsent, lost, duplicated, reordered, corrupt, disconnected: the whole run.
  topics: topics: what was subscribed to.
  receipts: receipts: complete and incomplete of the whole run; first_ns, quorum_ns, last_ns of the measured time.
  mixed: without_bulk and with_bulk hold what elsewhere is at the top, for their phases; bulk: what was asked for and what arrived.
  slow-readers: undisturbed and disturbed likewise; rate_ratio: deliveries_per_s of disturbed / undisturbed; slow: stopped, cut_off.

Exit code: 0 when everything arrived once, in order and undamaged; 1 when not, or when a run failed; 2 for a wrong command line.";

/// Loads corecast servers and reports what came of it.
///
/// Without a command: echo, then fan-out, on loopback in this process, in about ten seconds.
#[derive(Debug, Parser)]
#[command(name = "corecast-loadgen", version, args_conflicts_with_subcommands = true)]
#[command(after_help = EXIT_CODES, after_long_help = GLOSSARY)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server to load, until SIGTERM or SIGINT.
    Serve(Box<ServeArgs>),
    /// Every peer sends and waits for its messages to come back. A --target needs `serve --mode echo`.
    #[command(after_long_help = GLOSSARY)]
    Echo(EchoArgs),
    /// One peer publishes, the server sends each message to all others. A --target needs `serve --mode fanout`.
    #[command(after_long_help = GLOSSARY)]
    Fanout(FanoutArgs),
    /// Every peer sends as fast as it is let; the server counts and verifies. A --target needs `serve --mode sink`.
    #[command(after_long_help = GLOSSARY)]
    Flood(FloodArgs),
    /// Small messages in the high lane there and back, with and without large ones that the server sends to the same peers in the bulk
    /// lane: the high lane's round trip in both cases, in one run. A --target needs `serve --mode mixed`.
    #[command(after_long_help = GLOSSARY)]
    Mixed(MixedArgs),
    /// Fan-out of which some subscribers stop reading: the others' rate with and without them, in one run, and why the server cut those
    /// off. A --target needs `serve --mode fanout`.
    #[command(after_long_help = GLOSSARY)]
    SlowReaders(SlowReadersArgs),
    /// One peer publishes to numbered topics in turn, the server sends each message to the peers that have subscribed to its topic. A
    /// --target needs `serve --mode topics`.
    #[command(after_long_help = GLOSSARY)]
    Topics(TopicsArgs),
    /// The server broadcasts what one peer sends, every peer acknowledges it: when the first has, a quorum has, and the last has. A
    /// --target needs `serve --mode receipts`, and no other peers.
    #[command(after_long_help = GLOSSARY)]
    Receipts(ReceiptsArgs),
    /// Attack a server, one attack after the other, and measure the round trips of a good peer before and during each.
    #[command(after_help = HOSTILE_TABLE)]
    Hostile(HostileArgs),
    /// Peers come and go, fail, break rules and stop reading; afterwards every counter of both sides has to be explained, and everything
    /// given back. Servers in this process only.
    Churn(ChurnArgs),
}

impl Command {
    /// What a workload is told.
    fn load(&self) -> Option<&LoadArgs> {
        Some(match self {
            Self::Serve(_) | Self::Hostile(_) | Self::Churn(_) => return None,
            Self::Echo(args) => &args.load,
            Self::Fanout(args) => &args.load,
            Self::Flood(args) => &args.load,
            Self::Mixed(args) => &args.load,
            Self::SlowReaders(args) => &args.load,
            Self::Topics(args) => &args.load,
            Self::Receipts(args) => &args.load,
        })
    }
}

/// The command line, or the end of the process with what is wrong with it.
pub(crate) fn parse() -> Cli {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    if let Err(wrong) = check(&cli) {
        command().error(ErrorKind::ValueValidation, wrong).exit();
    }
    cli
}

/// What makes sense alone and not together.
fn check(cli: &Cli) -> Result<(), String> {
    let target = match &cli.command {
        Some(Command::Hostile(args)) => args.target.as_ref().map(|target| (target, &args.engine)),
        command => command.as_ref().and_then(Command::load).and_then(|load| load.target.as_ref().map(|target| (target, &load.engine))),
    };
    match target {
        Some((target, engine)) if engine.plaintext && target.node.is_some() => {
            return Err("--target names a node, which --plaintext cannot prove: leave out what is before the @".into());
        }
        Some((target, engine)) if !engine.plaintext && target.node.is_none() => {
            return Err(format!(
                "--target {target} says where, but not who: expected NodeId@{target}, as the server says of itself, or --plaintext"
            ));
        }
        _ => {}
    }
    match &cli.command {
        Some(Command::Topics(args)) => check_topics(args),
        Some(Command::Receipts(args)) if args.quorum() > args.load.peers => {
            Err(format!("--quorum {}: there are only {} --peers", args.quorum(), args.load.peers))
        }
        _ => Ok(()),
    }
}

fn check_topics(args: &TopicsArgs) -> Result<(), String> {
    let Subscriptions { topics, per_peer } = args.subscriptions();
    if per_peer > topics {
        return Err(format!("--per-peer {per_peer}: there are only {topics} --topics"));
    }
    if u64::from(args.load.peers) * u64::from(per_peer) < u64::from(topics) {
        return Err(format!("--topics {topics}: {} --peers with {per_peer} --per-peer leave some without a subscriber", args.load.peers));
    }
    Ok(())
}

/// What is said once for all workloads, with what is different for some.
fn command() -> clap::Command {
    fn defaults<const N: usize>(command: clap::Command, defaults: [(&'static str, &'static str); N]) -> clap::Command {
        defaults.into_iter().fold(command, |command, (name, value)| command.mut_arg(name, |arg| arg.default_value(value)))
    }
    let own_server = ["outbox_soft", "outbox_hard", "soft_grace", "write_stall"];
    Cli::command()
        .mut_subcommand("mixed", |mixed| {
            defaults(mixed, [("peers", "8"), ("size", "128"), ("duration", "12")])
                .mut_arg("duration", |arg| arg.help("How long to measure, in seconds, all phases together"))
        })
        .mut_subcommand("receipts", |receipts| {
            receipts.mut_arg("in_flight", |arg| arg.help("Closed loop: broadcasts of which the server has not said what came of them"))
        })
        .mut_subcommand("topics", |topics| {
            defaults(topics, [("peers", "1000"), ("in_flight", "64")])
                .mut_arg("in_flight", |arg| arg.help("Closed loop: messages that the slowest of their subscribers does not have yet"))
        })
        .mut_subcommand("slow-readers", |slow| {
            let slow = defaults(slow, [("peers", "1000"), ("size", "1k"), ("duration", "16"), ("in_flight", "16"), ("rounds", "2")])
                .mut_arg("duration", |arg| arg.help("How long to measure, in seconds, all phases together: disturbed ones may end sooner"));
            let slow = slow.mut_arg("peers", |arg| arg.value_parser(clap::value_parser!(u32).range(2..=4_000_000)));
            own_server.into_iter().fold(slow, |slow, name| slow.mut_arg(name, |arg| arg.conflicts_with("target")))
        })
}

/// Without a command.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// A second instead of ten: whether it works, not how well.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the reports of both workloads there as a JSON array (`-`: standard output).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// A server of its own.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port, such as 127.0.0.1:7000 or localhost:7000, or unix:PATH; port 0 takes a free one, which the first line on standard
    /// output names.
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) listen: Address,
    /// What is done with a message.
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    /// Processors to pin one core each to: 0,2 or 0-3. Without it: one core, not pinned.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub(crate) cores: Option<CpuList>,
    /// At the end, write all counters there, of each core and in sum (`-`: standard output).
    #[arg(long, value_name = "FILE")]
    pub(crate) stats_json: Option<PathBuf>,
    /// Peers at a time. Lowered, with a warning, to what the file descriptor limit allows.
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1..=8_388_608))]
    pub(crate) max_peers: u32,
    /// Longest message.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_max_message)]
    pub(crate) max_message: usize,
    /// TCP_NOTSENT_LOWAT of each connection: what the kernel takes beyond what is in flight. Without it: not set.
    #[arg(long, value_name = "BYTES", value_parser = parse_lowat)]
    pub(crate) notsent_lowat: Option<u32>,
    #[command(flatten)]
    pub(crate) slow_peers: SlowPeerArgs,
    #[command(flatten)]
    pub(crate) admission: AdmissionArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

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

    /// What the engine is told about spinning, where the command line says anything.
    pub(crate) fn spin(&self) -> Option<Spin> {
        self.spin_us.map(|us| Spin { window: Duration::from_micros(us), forced: us > 0 })
    }
}

/// What every workload is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// The server to load, as it says of itself: NodeId@127.0.0.1:7000 or NodeId@unix:PATH; with --plaintext without what is before the
    /// @. Without it: one in this process, which needs two file descriptors a peer.
    #[arg(long, value_name = "NODE@ADDR", value_parser = parse_target)]
    pub(crate) target: Option<Target>,
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
    /// Processors of the server in this process. Without it: pinned to the first allowed one, where there are two.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus, conflicts_with = "target")]
    pub(crate) server_cores: Option<CpuList>,
    /// Processors of the client: one engine on each. Without it: pinned to the second allowed one with the server in this process,
    /// otherwise one that is not pinned.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub(crate) client_cores: Option<CpuList>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// How messages are spaced.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PacingArgs {
    /// Open loop: so many messages a second, all peers together, however slow the server is. Latency counts from when a message
    /// should have been sent.
    #[arg(long, value_name = "R", value_parser = parse_rate, allow_negative_numbers = true, conflicts_with = "in_flight")]
    pub(crate) rate: Option<f64>,
    /// Closed loop: messages under way. Echo: of each peer. Fan-out: broadcasts that the slowest subscriber does not have yet.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) in_flight: u32,
}

/// How the messages of a flood are spaced.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct FloodPacingArgs {
    /// Open loop: so many messages a second, all peers together, however slow the server is. Latency counts from when a message
    /// should have been sent. Without it and --in-flight: as fast as backpressure lets each peer.
    #[arg(long, value_name = "R", value_parser = parse_rate, allow_negative_numbers = true, conflicts_with = "in_flight")]
    pub(crate) rate: Option<f64>,
    /// Closed loop: messages of each peer that the server is not known to have counted. It is asked after every N/2 messages, which adds
    /// one request and one answer to those.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
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

/// `mixed`.
#[derive(Clone, Debug, Args)]
pub(crate) struct MixedArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Messages in the high lane a second, all peers together, however slow the server is. Latency counts from when a message should have
    /// been sent.
    #[arg(long, value_name = "R", default_value = "1000", value_parser = parse_rate, allow_negative_numbers = true)]
    pub(crate) rate: f64,
    /// Bytes of each bulk message, 32 to 16M.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_size)]
    pub(crate) bulk_size: usize,
    /// Bulk messages that each peer has asked for and not received. With as few as the kernel's socket buffers hold, the kernel has the
    /// bulk, and not the server's outbox.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=i64::from(BULK_AHEAD_MAX)))]
    pub(crate) bulk_ahead: u32,
    /// TCP_NOTSENT_LOWAT of the server in this process: what its kernel takes of the bulk beyond what is in flight, and so has in front of
    /// what is sent next in the high lane. Without it: not set.
    #[arg(long, value_name = "BYTES", value_parser = parse_lowat, conflicts_with = "target")]
    pub(crate) notsent_lowat: Option<u32>,
    /// SO_RCVBUF of the client's connections: it bounds what is in flight, which is in front of what is sent next in the high lane too.
    /// Without it: the kernel's own tuning, which is megabytes on loopback.
    #[arg(long, value_name = "BYTES", value_parser = parse_receive_buffer)]
    pub(crate) receive_buffer: Option<usize>,
    #[command(flatten)]
    pub(crate) phases: PhaseArgs,
}

/// Most bulk messages that one peer may have under way: a server in a process of its own must have room for them.
pub(crate) const BULK_AHEAD_MAX: u32 = 64;

/// `slow-readers`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SlowReadersArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
    /// How many of the subscribers stop reading; one at least does not.
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) slow: u32,
    /// TCP_NOTSENT_LOWAT of the server in this process: what its kernel takes for a peer that does not read, before the outbox has it.
    /// Without it: 64k.
    #[arg(long, value_name = "BYTES", value_parser = parse_lowat, conflicts_with = "target")]
    pub(crate) notsent_lowat: Option<u32>,
    #[command(flatten)]
    pub(crate) slow_peers: SlowPeerArgs,
    #[command(flatten)]
    pub(crate) phases: PhaseArgs,
}

/// `echo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
}

/// `fanout`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
}

/// `topics`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TopicsArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
    /// Topics, to which the publisher publishes in turn. Each has a subscriber at least.
    #[arg(long, value_name = "T", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) topics: u32,
    /// Topics that each peer subscribes to. They are dealt evenly: each topic has peers x M / T subscribers, or one more. Without it: 10,
    /// or all where there are fewer.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) per_peer: Option<u32>,
}

impl TopicsArgs {
    pub(crate) fn subscriptions(&self) -> Subscriptions {
        Subscriptions { topics: self.topics, per_peer: self.per_peer.unwrap_or(10.min(self.topics)) }
    }
}

/// `receipts`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReceiptsArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
    /// Acknowledgements that make a quorum. Without it: two thirds of the peers and one more.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) quorum: Option<u32>,
    /// A broadcast that somebody has not acknowledged after so long has failed, in seconds.
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) deadline: Duration,
}

impl ReceiptsArgs {
    pub(crate) fn quorum(&self) -> u32 {
        self.quorum.unwrap_or(2 * self.load.peers / 3 + 1)
    }
}

/// `flood`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FloodArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: FloodPacingArgs,
}

/// Processors, in the order they were named, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

fn parse_cpus(text: &str) -> Result<CpuList, String> {
    let number = |text: &str| {
        text.trim().parse::<usize>().map_err(|_| format!("`{text}` is no processor number; expected a list such as 0,2 or 0-3"))
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last || last >= 4096 {
            return Err(format!("`{part}` is no range of processors"));
        }
        cpus.extend(first..=last);
    }
    let mut seen = cpus.clone();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != cpus.len() {
        Err("a processor is named twice: two pinned cores on it would halve each other".into())
    } else {
        Ok(CpuList(cpus))
    }
}

pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|value| value.checked_mul(factor));
    bytes.ok_or_else(|| "expected a number of bytes, such as 64, 16k or 1M".to_owned())
}

fn parse_lowat(text: &str) -> Result<u32, String> {
    let bytes = u32::try_from(parse_bytes(text)?).ok().filter(|bytes| (1..=1 << 30).contains(bytes));
    bytes.ok_or_else(|| "expected 1 byte to 1024M".into())
}

fn parse_receive_buffer(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if (1 << 10..=1 << 30).contains(&bytes) { Ok(bytes) } else { Err("expected 1k to 1024M".into()) }
}

fn parse_max_message(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if (1..=MAX_MESSAGE).contains(&bytes) { Ok(bytes) } else { Err("expected 1 byte to 16M".into()) }
}

/// The protocol's ceiling.
const MAX_MESSAGE: usize = 16 << 20;

fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if (HEADER_LEN..=MAX_MESSAGE).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("expected {HEADER_LEN} bytes to 16M: each message begins with its sequence number, time, sender and checksum"))
}

/// Of a name's addresses the first IPv4 one, otherwise the first: both sides choose the same.
pub(crate) fn parse_address(text: &str) -> Result<Address, String> {
    const EXPECTED: &str = "expected IP:port, host:port or unix:PATH, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000";
    match text.parse() {
        Ok(address) => return Ok(address),
        Err(error @ ParseAddressError::Unix(_)) => return Err(error.to_string()),
        Err(_) => {}
    }
    if !text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(EXPECTED.into());
    }
    let addresses: Vec<_> = text.to_socket_addrs().map_err(|error| format!("{error}; {EXPECTED}"))?.collect();
    let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied();
    address.map(Address::Tcp).ok_or_else(|| format!("the name has no address; {EXPECTED}"))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|value| (0.0..=86_400.0).contains(value));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, 0 to 86400, such as 5 or 0.5".into())
}

pub(crate) fn parse_positive_seconds(text: &str) -> Result<Duration, String> {
    let duration = parse_seconds(text)?;
    if duration >= Duration::from_millis(1) { Ok(duration) } else { Err("expected at least 0.001 seconds".into()) }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|value| (0.001..=1e9).contains(value));
    rate.ok_or_else(|| "expected messages a second, over 0, such as 1000".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(parse_cpus("0,2"), Ok(CpuList(vec![0, 2])));
        assert_eq!(parse_cpus("4-6,1"), Ok(CpuList(vec![4, 5, 6, 1])));
        for bad in ["", "a", "1,1", "3-1", "0-2,1", "1,"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16k"), Ok(16 << 10));
        assert_eq!(parse_size("16M"), Ok(16 << 20));
        assert_eq!(parse_size("32"), Ok(32));
        for bad in ["31", "0", "17M", "-1", "x", "99999999999999999999", "18446744073709551615k"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(parse_address("127.0.0.1:0").map(|address| address.to_string()), Ok("127.0.0.1:0".into()));
        assert_eq!(parse_address("unix:/run/a:b"), Ok(Address::unix("/run/a:b").unwrap()));
        assert!(parse_address("[::1]:7000").is_ok_and(|address| address.to_string() == "[::1]:7000"));
        assert!(parse_address("localhost:7000").is_ok_and(|address| address.is_local() && address.to_string().ends_with(":7000")));
        for bad in ["", "nowhere", ":7000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1", "unix:"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_rates() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(parse_seconds("-1").is_err() && parse_seconds("nan").is_err() && parse_seconds("inf").is_err());
        assert!(parse_positive_seconds("0").is_err());
        assert!(parse_rate("0").is_err() && parse_rate("NaN").is_err());
    }
}
