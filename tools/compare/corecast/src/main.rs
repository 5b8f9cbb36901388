//! corecast as a contestant: the smallest application of the library that can do the comparison's work.
//!
//! It takes what every contestant takes (`--listen`, `--mode`, `--poll`, `--core`), names its address in its first line, and ends in
//! order at SIGTERM. The configuration is the library's default, with room for as many peers and as long messages as the rows have.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use corecast::{
    Admission, Config, Context, Cores, Engine, Handler, Identity, Message, PeerId, PeerInfo, RequestError, Responder, Security, Sent, Spin,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// A server for corecast-compare: echo, fan-out or sink on one core.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, value_enum)]
    mode: Mode,
    /// What the core does while nothing is there to do; `default`: what the library does by itself
    #[arg(long, value_enum, default_value = "default")]
    poll: Poll,
    /// The processor to run on; anywhere if not given
    #[arg(long)]
    core: Option<usize>,
    /// Encrypt: Noise, with a key made at the start, for whoever comes
    #[arg(long)]
    noise: bool,
    /// Events that the flight recorder keeps of each peer
    #[arg(long, default_value_t = 0)]
    recorder: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Each message goes back to its sender
    Echo,
    /// Each message goes to every other peer
    Fanout,
    /// Messages are counted and dropped; every 64th of a peer goes back to it
    Sink,
}

#[derive(Clone, Copy, ValueEnum)]
enum Poll {
    Spin,
    Block,
    Default,
}

/// Every so many messages of a peer, a sink sends one back.
const ANSWERED: u64 = 64;

struct Server(Mode);

/// What a sink has taken from one peer.
struct Taken(u64);

impl Server {
    fn answer(cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        // Who does not read its answers is not read either, until it has.
        if matches!(cx.send(peer, message.meta, message.body), Ok(Sent::Backpressure)) {
            cx.pause_read(peer);
        }
    }
}

impl Handler for Server {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _info: &PeerInfo) {
        if self.0 == Mode::Sink {
            cx.set_user(peer, Taken(0));
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        match self.0 {
            Mode::Echo => Self::answer(cx, peer, message),
            Mode::Fanout => {
                if let Ok(frame) = cx.frame(message.meta, message.body) {
                    // What cannot be sent is lost, and the client counts it.
                    let _ = cx.broadcast_except(&frame, peer);
                }
            }
            Mode::Sink => {
                let Some(taken) = cx.user_mut::<Taken>(peer) else { return };
                taken.0 += 1;
                if taken.0.is_multiple_of(ANSWERED) {
                    Self::answer(cx, peer, message);
                }
            }
        }
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        cx.resume_read(peer);
    }

    // Nobody asks, so nobody is answered.
    fn on_request(&mut self, _cx: &mut Context<'_>, _peer: PeerId, _request: Message<'_>, _responder: Responder) {}
    fn on_response(&mut self, _cx: &mut Context<'_>, _peer: PeerId, _tag: u64, _result: Result<Message<'_>, RequestError>) {}
}

/// The defaults, with room for what the rows bring: 10,000 peers from one address, and 64 messages of 100 KiB under way.
fn config(args: &Args) -> Result<Config, Box<dyn std::error::Error>> {
    let mut config = Config::plaintext();
    if args.noise {
        config = Config::secure(Identity::generate()?, Admission::Open);
    } else {
        config.security = Security::Plaintext { allow_remote: false };
    }
    config = config.listen(args.listen.into());
    config.addresses.exempt = vec!["127.0.0.0/8".parse()?];
    config.limits.max_peers = 12_000;
    config.limits.max_half_open = 4_096;
    // The client reads nothing while it dials the others, and ten thousand of them take longer than the silence that is allowed otherwise.
    config.keepalive.timeout = Duration::from_secs(60);
    config.recorder = args.recorder;
    config.cores = args.core.map_or(Cores::Unpinned(1), |core| Cores::Pinned(vec![core]));
    config.io.spin = match args.poll {
        // Longer than any pause in the load: it spins always.
        Poll::Spin => Spin { window: Duration::from_secs(1), forced: true },
        Poll::Block => Spin { window: Duration::ZERO, forced: false },
        Poll::Default => config.io.spin,
    };
    Ok(config)
}

fn serve(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    // First, so that a signal that comes at any time ends the program in order.
    let (mut bell, ringer) = UnixStream::pair()?;
    pipe::register(SIGINT, ringer.try_clone()?)?;
    pipe::register(SIGTERM, ringer)?;
    let (config, mode) = (config(args)?, args.mode);
    let engine = Engine::start(config, move |_| Server(mode))?;
    for warning in engine.warnings() {
        eprintln!("corecast-contestant: {warning}");
    }
    let address = engine.local_addrs()[0];
    let mut out = std::io::stdout();
    if args.noise {
        writeln!(out, "listening on {}@{address}", engine.node_id())?;
    } else {
        writeln!(out, "listening on {address}")?;
    }
    out.flush()?;
    bell.read_exact(&mut [0])?;
    engine.shutdown();
    Ok(())
}

fn main() -> ExitCode {
    match serve(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecast-contestant: {error}");
            ExitCode::FAILURE
        }
    }
}
