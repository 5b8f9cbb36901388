//! The same work on corecast and on the smallest server that can do it.
//!
//! ```text
//! corecast-compare serve-bare   the denominator: a bare epoll loop (server)
//! corecast-compare client       one run of the neutral client against any server whose protocol it speaks (client)
//! corecast-compare run          the same work on every contestant, interleaved, with tables and plots at its end (run, stats)
//! corecast-compare report       the tables and plots once more, from the JSON of a run (run::report)
//! corecast-compare setout       the figures that the project set out from (run::setout)
//! ```
//!
//! Nothing here depends on the corecast library: both ends of its wire are written from `src/wire/WIRE.md` alone.

mod client;
mod machine;
mod network;
mod run;
mod server;
mod stats;
mod sys;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use server::{Mode, Poll, Server, ServerConfig};
use sys::CpuSet;

/// Compares corecast with the smallest server that can do the same work.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The bare epoll loop
    ServeBare(ServeBare),
    /// One run of the client against a server that is already there
    Client(client::command::ClientArgs),
    /// The same work on every contestant, interleaved
    Run(run::command::RunArgs),
    /// The reports of a run once more, from its JSON
    Report(run::command::ReportArgs),
    /// The figures that the project set out from: the naive start and corecast in one run
    Setout(run::setout::SetoutArgs),
}

#[derive(Args)]
struct ServeBare {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, value_enum)]
    mode: Mode,
    /// The core to run on; anywhere if not given
    #[arg(long)]
    core: Option<usize>,
    #[arg(long, value_enum, default_value = "block")]
    poll: Poll,
    /// 64 hex digits; all zero if not given
    #[arg(long, value_parser = parse_id)]
    network: Option<[u8; 32]>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::ServeBare(args) => serve_bare(&args),
        Command::Client(args) => args.run(&args.config().unwrap_or_else(|reason| refuse(reason))),
        Command::Run(args) => args.main(),
        Command::Report(args) => args.main(),
        Command::Setout(args) => args.main(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("corecast-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the program as clap does for a command line that makes no sense: with the reason, and status 2.
fn refuse(reason: String) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, reason).exit()
}

fn serve_bare(args: &ServeBare) -> std::io::Result<bool> {
    // First, so that a signal that comes at any time ends the program in order.
    let stop = sys::termination_signals()?;
    sys::raise_file_limit()?;
    pin(args.core);
    let config = ServerConfig { mode: args.mode, poll: args.poll, network: args.network.unwrap_or_default(), log_limit: server::LOG_LIMIT };
    let listener = TcpListener::bind(args.listen)?;
    let address = listener.local_addr()?;
    let mut server = Server::new(listener, config)?;
    println!("listening on {address}");
    server.run(&stop)?;
    Ok(true)
}

/// Pinning may be refused (a container, a smaller machine); the figures are then noisier, not wrong.
fn pin(core: Option<usize>) {
    if let Some(core) = core
        && let Err(error) = CpuSet::only(core).and_then(|set| set.apply())
    {
        eprintln!("corecast-compare: not pinned to core {core}: {error}");
    }
}

fn parse_id(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "an id is 64 hex digits".to_owned();
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    let mut id = [0; 32];
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| wrong())?;
    }
    Ok(id)
}
