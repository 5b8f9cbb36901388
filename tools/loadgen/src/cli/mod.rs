//! The command line: what can be asked for, and what makes no sense before anything is started.

mod baseline;
mod help;
mod load;
mod results;
mod values;
mod view;
mod workloads;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use corecast::Address;

use crate::churn::ChurnArgs;
use crate::crowd::CrowdArgs;
use crate::doctor::DoctorArgs;
use crate::hostile::HostileArgs;
use crate::idle::IdleArgs;
use crate::rates::RateArgs;
use crate::security::{AdmissionArgs, LimitArgs, Target};
use crate::server::Mode;
use crate::storm::StormArgs;
use crate::targets::MOST_TARGETS;
use crate::workload::Subscriptions;

pub(crate) use baseline::{Baseline, BaselineArgs, CompareArgs, RoundArgs, SaveArgs, Work};
use help::{EXIT_CODES, GLOSSARY, HOSTILE_TABLE, IDLE_TABLE, STEPS, STORM_TABLE};
pub(crate) use load::{EngineArgs, LoadArgs, OpenArgs, PacingArgs, PhaseArgs, ScheduleArgs, SlowPeerArgs};
pub(crate) use results::{HtmlArgs, KneeArgs, MergeArgs, SteppedArgs, SweepArgs};
pub(crate) use values::{CpuList, parse_address, parse_bytes, parse_cpus, parse_positive_seconds};
use values::{parse_lowat, parse_max_message};
pub(crate) use view::ViewArgs;
use workloads::ALL_TO_ALL_MAX;
pub(crate) use workloads::{
    AllToAllArgs, BULK_AHEAD_MAX, EchoArgs, FanoutArgs, FloodArgs, MixedArgs, ReceiptsArgs, RequestArgs, SlowReadersArgs, TopicsArgs,
};

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
    /// Every peer sends, the server sends each message to all others. A --target needs `serve --mode fanout`.
    #[command(after_long_help = GLOSSARY)]
    AllToAll(AllToAllArgs),
    /// Every peer makes requests, each with a deadline, and the server answers them. A --target needs `serve --mode request`.
    #[command(after_long_help = GLOSSARY)]
    Request(RequestArgs),
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
    /// Peers that do nothing: memory of each, processor time of the server, and whether all are still there. The server is a process of its
    /// own. A --target needs `serve --mode echo`.
    #[command(after_help = IDLE_TABLE)]
    Idle(Box<IdleArgs>),
    /// All peers are cut off at once and come back by themselves: when they are back, handshakes a second, what is refused, and what a peer
    /// notices that was not cut off. The server is a process of its own. A --target needs `serve --mode echo`.
    #[command(after_help = STORM_TABLE)]
    ReconnectStorm(Box<StormArgs>),
    /// Peers come and go, fail, break rules and stop reading; afterwards every counter of both sides has to be explained, and everything
    /// given back. Servers in this process only.
    Churn(ChurnArgs),
    /// Merge the results of several client processes that loaded one server at the same time: histograms are added, counts and rates
    /// summed. Results that do not belong together are refused.
    Merge(MergeArgs),
    /// Check whether this machine carries a run and gives figures that mean something, and say what to change where it does not. Exit code
    /// 1 only for what would make a run fail.
    Doctor(DoctorArgs),
    /// Make one HTML page with plots of results that were written before: of one run, or of several and what they have to show together.
    Html(HtmlArgs),
    /// A staircase of rates, each in a run of its own: throughput, response and service times, the generator's lag and the verdict at
    /// each.
    #[command(after_help = STEPS)]
    Sweep(SweepArgs),
    /// The highest rate at which the response time's p99 stays under a bound: by bisection, and confirmed by more runs.
    #[command(after_help = STEPS)]
    Knee(KneeArgs),
    /// Keep what a build does on this machine, and say later whether another one does worse. For CI: exit code 1 where it does.
    Baseline(BaselineArgs),
}

impl Command {
    /// What a workload is told of an open loop that has none unless it is told a rate, and the workload's name.
    fn closed_by_default(&self) -> Option<(&OpenArgs, &'static str)> {
        Some(match self {
            Self::Flood(args) => (&args.pacing.open, "flood"),
            Self::SlowReaders(args) => (&args.pacing.open, "slow-readers"),
            Self::Topics(args) => (&args.pacing.open, "topics"),
            Self::Receipts(args) => (&args.pacing.open, "receipts"),
            _ => return None,
        })
    }

    /// What a workload is told.
    fn load(&self) -> Option<&LoadArgs> {
        Some(match self {
            Self::Serve(_) | Self::Hostile(_) | Self::Churn(_) | Self::Idle(_) | Self::ReconnectStorm(_) => return None,
            Self::Merge(_) | Self::Baseline(_) | Self::Doctor(_) | Self::Html(_) => return None,
            Self::Sweep(args) => &args.stepped.load,
            Self::Knee(args) => &args.stepped.load,
            Self::Echo(args) => &args.load,
            Self::Fanout(args) => &args.load,
            Self::AllToAll(args) => &args.load,
            Self::Request(args) => &args.load,
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

/// A command line in one word, of which runs in processes of their own are made.
fn parse_work(text: &str) -> Result<Work, String> {
    let work = Work::of(text);
    let words = std::iter::once("corecast-loadgen").chain(work.0.iter().map(String::as_str));
    let cli = command().try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.map_err(|error| error.to_string())?;
    check(&cli)?;
    let one_phase = matches!(cli.command, Some(Command::Echo(_) | Command::Fanout(_)));
    let own = ["--duration", "--warmup", "--json", "--hgrm", "--hdr-log", "--html", "--flamegraph", "--live"]
        .iter()
        .find(|option| work.0.iter().any(|word| word.starts_with(**option)));
    match own {
        _ if !one_phase => Err("expected echo or fanout and its options".into()),
        Some(option) => Err(format!("{option} is the baseline's own: leave it out")),
        None => Ok(work),
    }
}

/// What makes sense alone and not together.
fn check(cli: &Cli) -> Result<(), String> {
    let (targets, engine) = match &cli.command {
        Some(Command::Hostile(args)) => (args.target.as_slice(), Some(&args.engine)),
        Some(Command::Idle(args)) => (args.crowd.target.as_slice(), Some(&args.crowd.engine)),
        Some(Command::ReconnectStorm(args)) => (args.crowd.target.as_slice(), Some(&args.crowd.engine)),
        command => command.as_ref().and_then(Command::load).map_or((&[][..], None), |load| (&load.target, Some(&load.engine))),
    };
    engine.map_or(Ok(()), |engine| targets.iter().try_for_each(|target| check_target(target, engine)))?;
    cli.command.as_ref().and_then(Command::load).map_or(Ok(()), check_targets)?;
    let written = match &cli.command {
        Some(Command::Merge(args)) => [("--json", &args.json), ("--hgrm", &args.hgrm)].to_vec(),
        command => command.as_ref().and_then(Command::load).map_or_else(Vec::new, LoadArgs::written),
    };
    for (at, (name, file)) in written.iter().enumerate() {
        if let Some((other, _)) = written[..at].iter().find(|(_, other)| other.is_some() && other == file) {
            return Err(format!("{other} and {name} cannot go to the same place"));
        }
    }
    if let Some(load) = cli.command.as_ref().and_then(Command::load) {
        load.view.check(&written)?;
    }
    if let Some((open, name)) = cli.command.as_ref().and_then(Command::closed_by_default)
        && let (None, Some(given)) = (open.rate, open.schedule.given())
    {
        return Err(format!("{given} needs --rate: without it {name} is no open loop"));
    }
    match &cli.command {
        Some(Command::Serve(args)) => args.rates.check(),
        Some(Command::Idle(args)) => check_server(&args.crowd, args.server_args()),
        Some(Command::ReconnectStorm(args)) => args.check().and_then(|()| check_server(&args.crowd, args.server_args())),
        Some(Command::Sweep(SweepArgs { stepped, .. }) | Command::Knee(KneeArgs { stepped, .. })) => stepped.check(),
        Some(Command::Topics(args)) => check_topics(args),
        Some(Command::Receipts(args)) if args.quorum() > args.load.peers => {
            Err(format!("--quorum {}: there are only {} --peers", args.quorum(), args.load.peers))
        }
        _ => Ok(()),
    }
}

/// Who is meant has to be said where it can be proved, and not where it cannot.
fn check_target(target: &Target, engine: &EngineArgs) -> Result<(), String> {
    match target.node {
        Some(_) if engine.plaintext => Err("--target names a node, which --plaintext cannot prove: leave out what is before the @".into()),
        None if !engine.plaintext => Err(format!(
            "--target {target} says where, but not who: expected NodeId@{target}, as the server says of itself, or --plaintext"
        )),
        _ => Ok(()),
    }
}

/// Several targets: as many peers at least, and none twice. Several processes: at least this one's peers.
fn check_targets(load: &LoadArgs) -> Result<(), String> {
    let targets = &load.target;
    if let Some(all) = load.server_peers.filter(|all| *all < load.peers) {
        return Err(format!("--server-peers {all}: this process alone has {} --peers", load.peers));
    }
    if targets.len() > MOST_TARGETS {
        return Err(format!("--target: {} of them, and no more than {MOST_TARGETS} are dealt to", targets.len()));
    }
    if targets.len() > load.peers as usize {
        return Err(format!("--peers {}: fewer than there are targets, which is {}", load.peers, targets.len()));
    }
    match targets.iter().enumerate().find(|(at, target)| targets[..*at].contains(target)) {
        Some((_, twice)) => Err(format!("--target {twice} is there twice: peers are dealt to each in turn anyway")),
        None => Ok(()),
    }
}

/// What a server that is started for a run would say of its options.
fn check_server(crowd: &CrowdArgs, options: Vec<String>) -> Result<(), String> {
    let listen = ["corecast-loadgen".to_owned(), "serve".to_owned(), "--listen".to_owned(), crowd.listen.to_string()];
    let Err(error) = command().try_get_matches_from(listen.into_iter().chain(options)) else { return Ok(()) };
    let text = error.to_string();
    let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':');
    Err(format!("what follows -- is for the server: {what}"))
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
    let peers = |command: clap::Command, least: i64, most: i64| {
        command.mut_arg("peers", |arg| arg.value_parser(clap::value_parser!(u32).range(least..=most)))
    };
    // Refused with a word on where they belong, and not offered.
    let single = |command: clap::Command| {
        ["hgrm", "hdr_log", "flamegraph"].into_iter().fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
    };
    let own_server = ["outbox_soft", "outbox_hard", "soft_grace", "write_stall"];
    Cli::command()
        .mut_subcommand("mixed", |mixed| {
            defaults(mixed, [("peers", "8"), ("size", "128"), ("duration", "12"), ("rate", "1000")])
                .mut_arg("rate", |arg| arg.help("Messages in the high lane a second, all peers together, however slow the server is"))
                .mut_arg("lag_bound", |arg| {
                    arg.help("The run is INVALID where the generator itself was later than that at p99, in seconds")
                })
                .mut_arg("duration", |arg| arg.help("How long to measure, in seconds, all phases together"))
        })
        .mut_subcommand("all-to-all", |all| {
            peers(all, 2, ALL_TO_ALL_MAX)
                .mut_arg("peers", |arg| arg.help(format!("Peers, 2 to {ALL_TO_ALL_MAX}")))
                .mut_arg("in_flight", |arg| arg.help("Closed loop: messages of each peer that some other peer does not have yet"))
        })
        .mut_subcommand("request", |request| {
            request.mut_arg("in_flight", |arg| arg.help("Closed loop: requests of each peer that have no answer yet"))
        })
        .mut_subcommand("receipts", |receipts| {
            defaults(receipts, [("in_flight", "1")])
                .mut_arg("in_flight", |arg| arg.help("Closed loop: broadcasts of which the server has not said what came of them"))
        })
        .mut_subcommand("baseline", |baseline| {
            // What was saved says it.
            let said = |compare: clap::Command, name: &'static str| compare.mut_arg(name, |arg| arg.conflicts_with("name"));
            baseline.mut_subcommand("compare", |compare| ["rounds", "duration", "work"].into_iter().fold(compare, said))
        })
        .mut_subcommand("sweep", |sweep| single(sweep).mut_arg("duration", |arg| arg.help("How long to measure at each rate, in seconds")))
        .mut_subcommand("knee", |knee| single(knee).mut_arg("duration", |arg| arg.help("How long to measure in each run, in seconds")))
        .mut_subcommand("topics", |topics| {
            defaults(topics, [("peers", "1000"), ("in_flight", "64")])
                .mut_arg("in_flight", |arg| arg.help("Closed loop: messages that the slowest of their subscribers does not have yet"))
        })
        .mut_subcommand("slow-readers", |slow| {
            let slow = defaults(slow, [("peers", "1000"), ("size", "1k"), ("duration", "16"), ("in_flight", "16"), ("rounds", "2")])
                .mut_arg("duration", |arg| arg.help("How long to measure, in seconds, all phases together: disturbed ones may end sooner"));
            own_server.into_iter().fold(peers(slow, 2, 4_000_000), |slow, name| slow.mut_arg(name, |arg| arg.conflicts_with("target")))
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
    /// Write the reports of both workloads there as one HTML page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
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
    /// Profile this process, by function and thread, and write the SVG there at the end. Takes a few percent.
    #[arg(long, value_name = "FILE")]
    pub(crate) flamegraph: Option<PathBuf>,
    /// Peers at a time. Lowered, with a warning, to what the file descriptor limit allows.
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1..=8_388_608))]
    pub(crate) max_peers: u32,
    /// Longest message.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_max_message)]
    pub(crate) max_message: usize,
    /// TCP_NOTSENT_LOWAT of each connection: what the kernel takes beyond what is in flight. Without it: not set.
    #[arg(long, value_name = "BYTES", value_parser = parse_lowat)]
    pub(crate) notsent_lowat: Option<u32>,
    /// End when the process does that has started this one.
    #[arg(long, hide = true)]
    pub(crate) ends_with_parent: bool,
    #[command(flatten)]
    pub(crate) slow_peers: SlowPeerArgs,
    #[command(flatten)]
    pub(crate) admission: AdmissionArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) rates: RateArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
