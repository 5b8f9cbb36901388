//! A server on message-io, with its `FramedTcp` transport, as in its own examples: one callback for all events.

use std::collections::HashMap;
use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use contestant::{Mode, Options, tally::Tally};
use message_io::network::{Endpoint, NetEvent, Transport};
use message_io::node;

/// Shown by `--help`, and checked against Cargo.lock by a test.
const ABOUT: &str = "message-io with FramedTcp: a server of the comparison (message-io 0.19.0)";
const NOTES: &str = "\
One callback for all events, as in message-io's examples. Its send tries again until the socket has
taken everything, so a connection that does not read stops the whole server until it reads or
leaves. A send is two writes, length and body, on a socket without TCP_NODELAY, which message-io
does not let one set: an echo may wait for the other side's delayed acknowledgement.

--poll  Taken and ignored: message-io sleeps in epoll_wait while nothing is ready.
--core  The process, which has several threads, runs on this core alone.";

/// For a callback that waits for a connection that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(about = ABOUT, after_help = NOTES)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Cli { options } = Cli::parse();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("message-io-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> io::Result<()> {
    options.prepare()?;
    let mut stop = contestant::stop_signal()?;
    let (handler, listener) = node::split::<()>();
    let (_, address) = handler.network().listen(Transport::FramedTcp, options.listen)?;
    contestant::announce("listening", address)?;

    let (ended, has_ended) = mpsc::channel();
    let network = handler.clone();
    let mut clients: HashMap<Endpoint, Tally> = HashMap::new();
    std::thread::spawn(move || {
        listener.for_each(move |event| match event.network() {
            NetEvent::Accepted(client, _) => _ = clients.insert(client, Tally::default()),
            NetEvent::Message(client, message) => match options.mode {
                Mode::Echo => _ = network.network().send(client, message),
                Mode::Fanout => {
                    for &other in clients.keys().filter(|other| **other != client) {
                        network.network().send(other, message);
                    }
                }
                Mode::Sink => {
                    if clients.get_mut(&client).is_some_and(Tally::count) {
                        network.network().send(client, message);
                    }
                }
            },
            NetEvent::Disconnected(client) => _ = clients.remove(&client),
            NetEvent::Connected(..) => {}
        });
        let _ = ended.send(());
    });

    stop.read_exact(&mut [0])?;
    handler.stop();
    // A callback that waits for ever for a socket is left behind.
    let _ = has_ended.recv_timeout(PATIENCE);
    Ok(())
}
