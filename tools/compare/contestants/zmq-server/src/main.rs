//! A server on libzmq: a ROUTER for echo and sink, a PULL and a PUB for fan-out.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use contestant::{Mode, Options, tally::Tally};
use zmq::{Context, DONTWAIT, Message, POLLIN, SNDMORE, Socket, SocketType};

const NOTES: &str = "\
Echo and sink: a ROUTER for DEALERs. Fan-out: a PULL takes what is published, a PUB on an address of
its own sends it to all subscribers. Messages are passed on without a copy. Where 16,384 messages
wait for one connection, libzmq drops further ones for it.

--poll  Taken and ignored: libzmq's own thread sleeps in epoll_wait, and this one, on the same core,
        must not keep it from running.
--core  The process, with libzmq's thread, runs on this core alone.";

/// Messages that may wait for one connection.
const QUEUE: i32 = 16_384;
const BACKLOG: i32 = 4096;
/// Messages between two looks at the signal.
const BATCH: usize = 1024;

#[derive(Parser)]
#[command(after_help = NOTES)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let (major, minor, patch) = zmq::version();
    let about = format!("libzmq: a server of the comparison (libzmq {major}.{minor}.{patch}, zmq 0.10.0)");
    let matches = Cli::command().about(about).get_matches();
    let Cli { options } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zmq-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> io::Result<()> {
    options.prepare()?;
    let stop = contestant::stop_signal()?;
    let context = Context::new();
    match options.mode {
        Mode::Echo => {
            let router = bind(&context, zmq::ROUTER, options.listen, "listening")?;
            forward_until(&stop, &router, || send_on(&router, &router))
        }
        Mode::Sink => {
            let router = bind(&context, zmq::ROUTER, options.listen, "listening")?;
            let mut tallies = HashMap::new();
            forward_until(&stop, &router, || count(&router, &mut tallies))
        }
        Mode::Fanout => {
            let pull = bind(&context, zmq::PULL, options.listen, "listening")?;
            let publishing = bind(&context, zmq::PUB, SocketAddr::new(options.listen.ip(), 0), "publishing")?;
            forward_until(&stop, &pull, || send_on(&pull, &publishing))
        }
    }
}

fn bind(context: &Context, kind: SocketType, address: SocketAddr, what: &str) -> io::Result<Socket> {
    let socket = context.socket(kind)?;
    socket.set_backlog(BACKLOG)?;
    socket.set_sndhwm(QUEUE)?;
    // What waits for someone who does not read must not keep the program from ending.
    socket.set_linger(0)?;
    socket.bind(&format!("tcp://{address}"))?;
    let endpoint = socket.get_last_endpoint()?.unwrap_or_default();
    let bound = endpoint.strip_prefix("tcp://").and_then(|address| address.parse().ok());
    contestant::announce(what, bound.ok_or_else(|| io::Error::other(format!("bound to {endpoint:?}")))?)?;
    Ok(socket)
}

/// Calls `forward` for each message that waits on `socket`, until the signal comes.
fn forward_until(mut stop: &UnixStream, socket: &Socket, mut forward: impl FnMut() -> zmq::Result<()>) -> io::Result<()> {
    loop {
        let mut items = [socket.as_poll_item(POLLIN), zmq::PollItem::from_fd(stop.as_raw_fd(), POLLIN)];
        match zmq::poll(&mut items, -1) {
            Ok(_) | Err(zmq::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if items[1].is_readable() {
            return stop.read_exact(&mut [0]);
        }
        for _ in 0..BATCH {
            match forward() {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Passes on one message, with all of its frames: for a ROUTER the first one is who it came from, and so to whom it goes.
fn send_on(from: &Socket, to: &Socket) -> zmq::Result<()> {
    loop {
        let frame = from.recv_msg(DONTWAIT)?;
        let more = frame.get_more();
        to.send(frame, if more { SNDMORE } else { 0 })?;
        if !more {
            return Ok(());
        }
    }
}

/// Counts one message, and sends it back if it is the turn of that. A ROUTER does not say who has left: tallies stay.
fn count(router: &Socket, tallies: &mut HashMap<Vec<u8>, Tally>) -> zmq::Result<()> {
    let sender = router.recv_msg(DONTWAIT)?;
    let mut frames: Vec<Message> = Vec::new();
    while frames.last().unwrap_or(&sender).get_more() {
        frames.push(router.recv_msg(0)?);
    }
    if !tallies.entry(sender.to_vec()).or_default().count() {
        return Ok(());
    }
    router.send(sender, SNDMORE)?;
    for frame in frames {
        let more = frame.get_more();
        router.send(frame, if more { SNDMORE } else { 0 })?;
    }
    Ok(())
}
