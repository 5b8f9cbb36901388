//! The most that one can reasonably get out of tokio on one core.
//!
//! ```text
//! main     the runtime, the accept loop, the signal
//! input    one read for all that is there, into a buffer that all connections share
//! answer   echo and sink: what goes back to its sender, one write a turn
//! fanout   one log, one task that writes to everybody, a task more only for a socket that is full
//! ```
//!
//! One thread, so nothing is `Send` and nothing is locked: `LocalRuntime`, `Rc`, `RefCell`.

mod answer;
mod fanout;
mod input;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use answer::Answerer;
use clap::Parser;
use contestant::session::Acceptor;
use contestant::{Mode, Options, Poll};
use fanout::Fanout;
use input::{Input, ReadBuffer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Shown by `--help`, and checked against Cargo.lock by a test.
const ABOUT: &str = "tokio, tuned for one core: a server of the comparison (tokio 1.54.1)";
const NOTES: &str = "\
A LocalRuntime: one thread, no locks. All connections read into one buffer; what one read brought is
answered with one write. Fan-out writes from one log to all sockets in one task, without waking a
task per subscriber; only a socket that is full gets one of its own. A subscriber for which 64 MiB
wait is cut off.

--poll  spin: a task yields for ever, so the runtime asks epoll again and again and never sleeps.
        block: it sleeps in epoll_wait.
--core  The process runs on this core alone.";

const BACKLOG: u32 = 4096;

#[derive(Parser)]
#[command(about = ABOUT, after_help = NOTES)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

/// What all connections share.
pub(crate) struct Server {
    mode: Mode,
    acceptor: Acceptor,
    buffer: RefCell<ReadBuffer>,
    fanout: Fanout,
}

fn main() -> io::Result<()> {
    let Cli { options } = Cli::parse();
    options.prepare()?;
    let runtime = Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let listener = listen(options.listen)?;
    contestant::announce("listening", listener.local_addr()?)?;
    let server = Rc::new(Server { mode: options.mode, acceptor: Acceptor::new()?, buffer: RefCell::default(), fanout: Fanout::default() });
    if options.poll == Poll::Spin {
        tokio::task::spawn_local(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
    }
    if options.mode == Mode::Fanout {
        tokio::task::spawn_local(fanout::flush_when_due(server.clone()));
    }
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => _ = tokio::task::spawn_local(serve_connection(server.clone(), stream)),
                Err(error) if contestant::dialler_gone(&error) => {}
                Err(error) => return Err(error),
            },
            _ = stop.recv() => return Ok(()),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn serve_connection(server: Rc<Server>, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (reader, writer) = stream.into_split();
    let input = Input::new(reader);
    // A connection that breaks is no one's business but its own.
    let _ = match server.mode {
        Mode::Echo | Mode::Sink => Answerer::new(writer, server.mode).run(input, &server).await,
        Mode::Fanout => fanout::run(input, writer, &server).await,
    };
}
