//! How a contestant is started and ended: `PROGRAM --listen ADDR --mode MODE [--poll POLL] [--core N]`, a first line that says where it
//! listens, SIGTERM, status 0.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// It goes back to its sender
    Echo,
    /// It goes to every other established connection
    Fanout,
    /// It is counted and dropped; every 64th of a connection goes back
    Sink,
}

/// What the server does while nothing is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Poll {
    /// Asks again at once
    Spin,
    /// Sleeps in the kernel
    Block,
}

/// The command line that all contestants take.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// What happens to a message
    #[arg(long, value_enum)]
    pub mode: Mode,
    /// What to do while nothing is ready; see below
    #[arg(long, value_enum, default_value = "block")]
    pub poll: Poll,
    /// The core to run on; anywhere if not given
    #[arg(long)]
    pub core: Option<usize>,
}

impl Options {
    /// Moves the process to its core and lets it have as many descriptors as it may. Call it before any other thread is started: threads
    /// inherit the core.
    pub fn prepare(&self) -> io::Result<()> {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
        if let Some(core) = self.core
            && let Err(error) = pin(core)
        {
            // A container may refuse it; the figures are then noisier, not wrong.
            eprintln!("not pinned to core {core}: {error}");
        }
        Ok(())
    }
}

fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such core"));
    }
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// Says where the contestant is to be found: the first line of its output. `what` is `listening`, or for a second address `publishing`.
pub fn announce(what: &str, address: SocketAddr) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{what} on {address}")?;
    output.flush()
}

/// Whether a failed accept was a matter of the one that dialled, who is gone again: the next one may come.
pub fn dialler_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

/// A stream that becomes readable when the program is to end, by SIGTERM or SIGINT. For those whose framework has nothing of its own.
pub fn stop_signal() -> io::Result<UnixStream> {
    let (stop, signalled) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
    }
    Ok(stop)
}
