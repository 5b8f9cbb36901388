//! A server under test: its process, from start to end.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::rows::Row;
use crate::server::Poll;
use crate::sys::{self, CpuSet};

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take to end after SIGTERM before it is killed. corecast drains for up to 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);

/// Who is measured.
#[derive(Clone, Debug)]
pub(super) enum Contestant {
    /// This program's own `serve-bare`.
    Bare(PathBuf),
    /// The same once more. Its ratios are all 1 on a quiet machine, so their intervals say what this one can tell apart.
    BareAgain(PathBuf),
    /// `corecast-loadgen serve`.
    Corecast(PathBuf),
}

impl Contestant {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Contestant::Bare(_) => "bare",
            Contestant::BareAgain(_) => "bare again",
            Contestant::Corecast(_) => "corecast",
        }
    }

    fn command(&self, row: &Row, core: usize) -> Command {
        let core = core.to_string();
        let mode = row.load.mode().name();
        match self {
            Contestant::Bare(path) | Contestant::BareAgain(path) => {
                let mut command = Command::new(path);
                command.args(["serve-bare", "--listen", "127.0.0.1:0", "--mode", mode]);
                command.args(["--core", &core, "--poll", row.poll.name()]);
                command
            }
            Contestant::Corecast(path) => {
                // A second of spinning is longer than any pause in the load: it spins always.
                let spin_us = if row.poll == Poll::Spin { "1000000" } else { "0" };
                let mut command = Command::new(path);
                // The bare loop encrypts nothing either.
                command.args(["serve", "--listen", "127.0.0.1:0", "--mode", mode, "--plaintext", "--exempt", "127.0.0.0/8"]);
                command.args(["--cores", &core, "--spin-us", spin_us]);
                command
            }
        }
    }
}

/// A running server. Dropping it ends its process.
pub(super) struct ServerProcess {
    child: Child,
    pub(super) address: SocketAddr,
}

impl ServerProcess {
    /// Starts a server and waits until it listens.
    pub(super) fn start(contestant: &Contestant, row: &Row, core: usize, cpus: CpuSet) -> io::Result<Self> {
        let mut command = contestant.command(row, core);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = sys::spawn(&mut command, cpus)?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        // Owned from here on, so that a server that never listens is ended too.
        let mut server = Self { child, address: unknown };
        server.address = server.read_address()?;
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads stdout up to `listening on ADDR`. The pipe stays open afterwards: closing it could end the server.
    fn read_address(&mut self) -> io::Result<SocketAddr> {
        let deadline = Instant::now() + START_TIMEOUT;
        let stdout = self.child.stdout.as_mut().expect("it is piped");
        let mut text = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !sys::wait_readable(stdout.as_fd(), left)? {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server did not say where it listens"));
            }
            let mut chunk = [0; 512];
            let count = stdout.read(&mut chunk)?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended before it listened"));
            }
            text.push_str(&String::from_utf8_lossy(&chunk[..count]));
            // Whole lines only: the last one may still be on its way.
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            let address = whole.lines().find_map(|line| line.strip_prefix("listening on "));
            if let Some(address) = address {
                return address.trim().parse().map_err(|_| io::Error::other(format!("not an address: {address}")));
            }
        }
    }

    /// Ends the server in order, and says if it did not end well.
    pub(super) fn stop(mut self) -> io::Result<()> {
        sys::terminate(&self.child)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("the server ended with {status}"))),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the server did not end after SIGTERM"))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail harmlessly if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
