//! The load generator of corecast: servers to load, workloads that load them, and reports that say what came of it.
//!
//! It uses nothing but corecast's public API. Every message carries a sequence number and a checksum, so a run is a test as well as
//! a measurement: what is lost, duplicated, reordered or damaged fails it.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`job`] | what happens without arguments |
//! | [`spec`] | what is run: a workload and all that it was told |
//! | [`run`] | one run of one workload: connect, warm up, measure (in phases, where something disturbs), drain, verify |
//! | [`targets`] | several servers, and what each of them was sent |
//! | [`client`] | the peers that load a server: an engine's handler, and what every workload needs |
//! | [`workload`] | echo, fan-out, all-to-all, request, flood, mixed, slow readers, topics, receipts: one file each |
//! | [`server`], [`sink`], [`serve`] | the servers that are loaded; what one has received that counts; the process around one |
//! | [`hostile`], [`churn`] | attacks and what a good peer notices; comers and goers, and the books afterwards |
//! | [`crowd`], [`idle`], [`storm`] | many peers of a server in another process; those that do nothing; those that all come back at once |
//! | [`probe`] | what a client asks a server about itself |
//! | [`acked`] | the terms of acknowledged broadcasts, and what came of them |
//! | [`payload`], [`bulk`], [`verify`] | the bytes of a message, and of a large one; whether each came once and in order |
//! | [`arrivals`], [`pacer`] | the open loop: when messages are due, and who says so |
//! | [`answers`], [`pairs`] | what became of requests; who has how much of whom, where every peer sends to every other |
//! | [`limits`], [`rates`] | what the engines of a run are allowed; what each peer of a server may send |
//! | [`measure`], [`progress`], [`outcome`], [`report`] | what is counted, shown meanwhile, added up, and reported |
//! | [`hdr`] | histograms as other tools read them |
//! | [`merge`] | one report of several client processes |
//! | [`step`], [`sweep`], [`knee`] | runs at several rates: each of them, all of a staircase, the highest that is good enough |
//! | [`baseline`] | whether a build does worse than another, or than before |
//! | [`reason`], [`error`] | why connections and runs fail, in words |
//! | [`output`] | what is written where |
//! | [`live`] | a run on the terminal while it goes on |
//! | [`html`] | a report as one page with plots |
//! | [`flamegraph`], [`sys`] | where the time goes, sampled from inside |
//! | [`machine`], [`clock`] | where it was measured, and the clock it was measured with |
//! | [`doctor`] | whether the machine is fit to be measured on, and what to change |
#![deny(unsafe_code)]

mod acked;
mod answers;
mod arrivals;
mod baseline;
mod bulk;
mod churn;
mod cli;
mod client;
mod clock;
mod crowd;
mod doctor;
mod error;
mod flamegraph;
mod hdr;
mod hostile;
mod html;
mod idle;
mod job;
mod knee;
mod limits;
mod live;
mod machine;
mod measure;
mod merge;
mod outcome;
mod output;
mod pacer;
mod pairs;
mod payload;
mod probe;
mod progress;
mod rates;
mod reason;
mod report;
mod run;
mod security;
mod serve;
mod server;
mod sink;
mod spec;
mod step;
mod storm;
mod sweep;
#[allow(unsafe_code, reason = "signals, and the stacks that they interrupt")]
mod sys;
mod targets;
mod verify;
mod workload;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    // Quiet unless RUST_LOG asks: the engine's own lines would tear the progress line apart.
    env_logger::Builder::new().parse_filters(&std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into())).init();
    let cli = cli::parse();
    let result = match &cli.command {
        None => job::main(&cli.job),
        Some(Command::Serve(args)) => serve::main(args),
        Some(Command::Echo(args)) => run::main(args.into()),
        Some(Command::Fanout(args)) => run::main(args.into()),
        Some(Command::AllToAll(args)) => run::main(args.into()),
        Some(Command::Request(args)) => run::main(args.into()),
        Some(Command::Flood(args)) => run::main(args.into()),
        Some(Command::Mixed(args)) => run::main(args.into()),
        Some(Command::SlowReaders(args)) => run::main(args.into()),
        Some(Command::Topics(args)) => run::main(args.into()),
        Some(Command::Receipts(args)) => run::main(args.into()),
        Some(Command::Hostile(args)) => hostile::main(args),
        Some(Command::Churn(args)) => churn::main(args),
        Some(Command::Idle(args)) => idle::main(args),
        Some(Command::ReconnectStorm(args)) => storm::main(args),
        Some(Command::Merge(args)) => merge::main(args),
        Some(Command::Doctor(args)) => doctor::main(args),
        Some(Command::Html(args)) => html::main(args),
        Some(Command::Sweep(args)) => sweep::main(args),
        Some(Command::Knee(args)) => knee::main(args),
        Some(Command::Baseline(args)) => baseline::main(&args.what),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                output::remark(&error);
            }
            ExitCode::from(error.exit_code())
        }
    }
}
