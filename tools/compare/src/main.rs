//! The same work on corecast and on the smallest server that can do it.
//!
//! ```text
//! corecast-compare serve-bare   the denominator: a bare epoll loop (server)
//! corecast-compare client       one run of the neutral client against any server that speaks WIRE.md (client)
//! corecast-compare run          the interleaved comparison, with a table at its end (run, stats)
//! ```
//!
//! Nothing here depends on the corecast library: both ends of the wire are written from `src/wire/WIRE.md` alone.

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

use clap::{Args, Parser, Subcommand};
use client::meter::Window;
use client::{ClientConfig, Load};
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
    Client(Client),
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
    #[arg(long, value_parser = parse_network)]
    network: Option<[u8; 32]>,
}

#[derive(Args)]
struct Client {
    #[arg(long)]
    server: SocketAddr,
    #[arg(long, value_enum)]
    mode: Mode,
    /// Connections (echo) or subscribers (fan-out, which has one publisher more)
    #[arg(long, default_value_t = 1)]
    peers: usize,
    /// Echo: messages on their way, per connection
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Fan-out: broadcasts on their way
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
    /// Bytes in a message
    #[arg(long, default_value_t = 32)]
    size: usize,
    #[arg(long, default_value_t = 1)]
    core: usize,
    #[arg(long, value_enum, default_value = "block")]
    poll: Poll,
    /// Measure the CPU time of this process
    #[arg(long)]
    server_pid: Option<u32>,
    #[arg(long, default_value_t = 500)]
    warmup_ms: u64,
    #[arg(long, default_value_t = 1500)]
    measure_ms: u64,
    /// 64 hex digits; all zero if not given
    #[arg(long, value_parser = parse_network)]
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
        Command::Client(args) => run_client(&args),
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

fn run_client(args: &Client) -> std::io::Result<bool> {
    sys::raise_file_limit()?;
    pin(Some(args.core));
    check_size(args.size)?;
    let load = match args.mode {
        Mode::Echo => Load::Echo { connections: args.peers, in_flight: args.in_flight },
        Mode::Fanout => Load::Fanout { subscribers: args.peers, outstanding: args.outstanding },
    };
    let figures = client::measure(&ClientConfig {
        server: args.server,
        network: args.network.unwrap_or_default(),
        load,
        body_len: args.size,
        poll: args.poll,
        window: Window {
            warmup: Duration::from_millis(args.warmup_ms),
            measure: Duration::from_millis(args.measure_ms),
            server_pid: args.server_pid,
        },
    })?;
    println!("{}", serde_json::to_string_pretty(&figures)?);
    if !figures.faults.none() {
        eprintln!("INVALID: {:?}", figures.faults);
    }
    Ok(figures.faults.none())
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

fn check_size(size: usize) -> std::io::Result<()> {
    let sizes = client::MIN_BODY..=wire::FRAGMENT_LEN;
    if sizes.contains(&size) {
        Ok(())
    } else {
        let reason = format!("a message has {} to {} bytes", sizes.start(), sizes.end());
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason))
    }
}

fn parse_network(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "a network id is 64 hex digits".to_owned();
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    let mut network = [0; 32];
    for (index, byte) in network.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| wrong())?;
    }
    Ok(network)
}
