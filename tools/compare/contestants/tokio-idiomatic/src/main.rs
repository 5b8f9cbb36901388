//! A server as a good tokio programmer writes it first: one task per connection, a codec over its socket, and for fan-out a bounded channel
//! per subscriber. Nothing is measured, nothing is clever.
//!
//! ```text
//! main         the runtime, the accept loop, the signal
//! codec        bytes of WIRE.md to frames and back
//! connection   the handshake, and one loop per mode
//! hub          who is subscribed
//! ```

mod codec;
mod connection;
mod hub;

use std::io;
use std::sync::Arc;

use clap::Parser;
use contestant::{Options, session::Acceptor};
use hub::Hub;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Shown by `--help`, and checked against Cargo.lock by a test.
const ABOUT: &str = "tokio, idiomatic: a server of the comparison (tokio 1.54.1, tokio-util 0.7.20)";
const NOTES: &str = "\
One task per connection on a current_thread runtime, tokio-util's Framed with a codec, and for
fan-out a bounded mpsc channel per subscriber. A subscriber whose channel is full (16,384 messages)
is disconnected.

--poll  Taken and ignored: the runtime sleeps in epoll_wait while nothing is ready.
--core  The process runs on this core alone.";

#[derive(Parser)]
#[command(about = ABOUT, after_help = NOTES)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

/// What all connections share.
pub(crate) struct Server {
    pub(crate) acceptor: Acceptor,
    pub(crate) hub: Hub,
}

fn main() -> io::Result<()> {
    let Cli { options } = Cli::parse();
    options.prepare()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(options.listen).await?;
    let server = Arc::new(Server { acceptor: Acceptor::new()?, hub: Hub::default() });
    contestant::announce("listening", listener.local_addr()?)?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = match accepted {
                    Err(error) if contestant::dialler_gone(&error) => continue,
                    accepted => accepted?,
                };
                let server = server.clone();
                tokio::spawn(async move {
                    // A connection that breaks is no one's business but its own.
                    let _ = connection::serve(stream, options.mode, &server).await;
                });
            }
            _ = stop.recv() => return Ok(()),
        }
    }
}
