//! The same work on corecast and on the smallest server that can do it.
//!
//! ```text
//! corecast-compare serve-bare   the denominator: a bare epoll loop (server)
//! corecast-compare client       one run of the neutral client against any server whose protocol it speaks (client)
//! corecast-compare run          the interleaved comparison, with a table at its end (run, stats)
//! ```
//!
//! Nothing here depends on the corecast library: both ends of its wire are written from `src/wire/WIRE.md` alone.

mod client;
mod machine;
mod run;
mod server;
mod stats;
mod sys;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

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
    /// The interleaved comparison
    Run(Run),
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

#[derive(Args)]
struct Run {
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// 3 rounds of 0.2 s warm-up and 0.5 s: to see that it works, not to decide anything
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this
    #[arg(long)]
    only: Option<String>,
    #[arg(long, default_value_t = 500)]
    warmup_ms: u64,
    #[arg(long, default_value_t = 1500)]
    measure_ms: u64,
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// How the client waits. A sleeping client is woken by the server, and in a virtual machine that costs the server
    /// as much as a send
    #[arg(long, value_enum, default_value = "spin")]
    client_poll: Poll,
    /// Seconds to wait before each pair for other programs to be done, at most
    #[arg(long, default_value_t = 10)]
    patience: u64,
    /// Compare bare with itself: what is left of the ratios is the machine's noise
    #[arg(long)]
    self_check: bool,
    /// The corecast-loadgen program; next to this one if not given
    #[arg(long)]
    corecast: Option<PathBuf>,
    /// Write every round's figures here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table here too
    #[arg(long)]
    markdown: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::ServeBare(args) => serve_bare(&args),
        Command::Client(args) => args.run(&args.config().unwrap_or_else(|reason| refuse(reason))),
        Command::Run(args) => compare(args),
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

fn compare(args: Run) -> std::io::Result<bool> {
    sys::raise_file_limit()?;
    let (rounds, warmup_ms, measure_ms) = if args.quick { (3, 200, 500) } else { (args.rounds, args.warmup_ms, args.measure_ms) };
    run::run(&run::RunConfig {
        rounds: rounds.max(1),
        warmup: Duration::from_millis(warmup_ms),
        measure: Duration::from_millis(measure_ms),
        only: args.only,
        server_core: args.server_core,
        client_core: args.client_core,
        client_poll: args.client_poll,
        patience: Duration::from_secs(args.patience),
        self_check: args.self_check,
        corecast: args.corecast,
        json: args.json,
        markdown: args.markdown,
    })
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
