//! A server on monoio, over io_uring or over epoll (its legacy driver).
//!
//! ```text
//! main     the runtime with either driver, the accept loop, the signal
//! input    a connection's receive buffer, which belongs to the kernel while it reads
//! answer   echo and sink: what goes back to its sender, one write a turn
//! fanout   one log, and one task that drives a writer for each subscriber
//! ```

mod answer;
mod fanout;
mod input;

use std::cell::OnceCell;
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Poll as TaskPoll, Waker};

use clap::{Parser, ValueEnum};
use contestant::session::Acceptor;
use contestant::{Mode, Options, Poll};
use fanout::Fanout;
use monoio::io::{AsyncReadRent, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Shown by `--help`, and checked against Cargo.lock by a test.
const ABOUT: &str = "monoio: a server of the comparison (monoio 0.2.4, io-uring 0.6.4)";
const NOTES: &str = "\
One thread, one task per connection; what one read brought is answered with one write. Fan-out
writes from one log, and one task drives the writers of all subscribers. A subscriber for which 64
MiB wait is cut off.

--poll  spin: two tasks wake each other for ever, so the driver is asked again and again and never
        sleeps. block: it sleeps in the kernel.
--core  The process runs on this core alone.";

const BACKLOG: i32 = 4096;
/// Submissions for one system call: a broadcast to so many subscribers is one.
const ENTRIES: u32 = 4096;

#[derive(Parser)]
#[command(about = ABOUT, after_help = NOTES)]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// What is under the runtime; io_uring where there is one if not given
    #[arg(long, value_enum)]
    driver: Option<Driver>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// io_uring
    Uring,
    /// epoll, as in monoio's LegacyDriver
    Epoll,
}

/// What all connections share.
pub(crate) struct Server {
    mode: Mode,
    acceptor: Acceptor,
    fanout: Fanout,
}

fn main() -> ExitCode {
    let Cli { options, driver } = Cli::parse();
    match run(options, driver) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("monoio-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options, driver: Option<Driver>) -> io::Result<()> {
    options.prepare()?;
    let stop = contestant::stop_signal()?;
    if driver != Some(Driver::Epoll) {
        match build_uring(options.poll) {
            Ok(mut runtime) => return runtime.block_on(serve(options, stop)),
            Err(error) if driver.is_some() => {
                return Err(io::Error::new(error.kind(), format!("no io_uring as of Linux 6.1 here ({error}); try --driver epoll")));
            }
            Err(error) => eprintln!("monoio-server: no io_uring as of Linux 6.1 here ({error}): epoll instead"),
        }
    }
    RuntimeBuilder::<LegacyDriver>::new().with_entries(ENTRIES).build()?.block_on(serve(options, stop))
}

/// The ring does its work when this thread asks for completions, and does not interrupt it: that is what `DEFER_TASKRUN` is for, but
/// monoio only asks in this way when it is going to sleep. Where it never sleeps, `COOP_TASKRUN` is next to it.
fn build_uring(poll: Poll) -> io::Result<monoio::Runtime<IoUringDriver>> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer();
    match poll {
        Poll::Block => ring.setup_defer_taskrun(),
        Poll::Spin => ring.setup_coop_taskrun(),
    };
    RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).uring_builder(ring).build()
}

async fn serve(options: Options, stop: UnixStream) -> io::Result<()> {
    stop.set_nonblocking(true)?;
    let mut stop = monoio::net::UnixStream::from_std(stop)?;
    // Without SO_REUSEPORT, which monoio sets by default: a second server on this port would be an error.
    let settings = ListenerOpts::new().reuse_port(false).backlog(BACKLOG);
    let listener = TcpListener::bind_with_config(options.listen, &settings)?;
    contestant::announce("listening", listener.local_addr()?)?;
    let server = Rc::new(Server { mode: options.mode, acceptor: Acceptor::new()?, fanout: Fanout::default() });
    if options.poll == Poll::Spin {
        spin();
    }
    if options.mode == Mode::Fanout {
        monoio::spawn(fanout::drive_writers(server.clone()));
    }
    let mut stopped = pin!(stop.read(vec![0; 1]));
    loop {
        monoio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => _ = monoio::spawn(serve_connection(server.clone(), stream)),
                Err(error) if contestant::dialler_gone(&error) => {}
                Err(error) => return Err(error),
            },
            _ = &mut stopped => return Ok(()),
        }
    }
}

/// Two tasks that wake each other for ever: where a task is ready, the driver is polled without sleeping. One that woke itself would go to
/// the head of monoio's queue, and no other would ever run.
fn spin() {
    let tasks: Rc<[OnceCell<Waker>; 2]> = Rc::default();
    for own in 0..2 {
        let tasks = tasks.clone();
        monoio::spawn(poll_fn(move |cx| {
            tasks[own].get_or_init(|| cx.waker().clone());
            tasks[1 - own].get().inspect(|other| other.wake_by_ref());
            TaskPoll::<()>::Pending
        }));
    }
}

async fn serve_connection(server: Rc<Server>, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // A connection that breaks is no one's business but its own.
    let _ = match server.mode {
        Mode::Echo | Mode::Sink => answer::run(stream, &server).await,
        Mode::Fanout => {
            let (reader, writer) = stream.into_split();
            fanout::run(reader, writer, &server).await
        }
    };
}
