//! A contestant as a process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// For whatever has to happen at some time.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The program.
    pub path: &'static str,
    /// What it gets besides the address and the mode.
    pub arguments: &'static [&'static str],
}

impl Program {
    /// Starts it on a free port.
    pub fn start(self, mode: &str) -> Running {
        let mut child = Command::new(self.path)
            .args(["--listen", "127.0.0.1:0", "--mode", mode])
            .args(self.arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.path));
        let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut running = Running { child, output, address: SocketAddr::from(([0; 4], 0)) };
        running.address = running.announced("listening");
        running
    }

    /// Runs it with nothing but these arguments, to its end.
    pub fn run(self, arguments: &[&str]) -> Output {
        Command::new(self.path).args(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }
}

/// A process that was started. It does not outlive this.
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Running {
    /// The address in the next line of output, which must be `WHAT on ADDRESS`.
    pub fn announced(&mut self, what: &str) -> SocketAddr {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let address = line.strip_prefix(what).and_then(|rest| rest.strip_prefix(" on "));
        let address = address.and_then(|address| address.trim_end().parse().ok());
        address.unwrap_or_else(|| panic!("{what} on ADDRESS, instead of {line:?}"))
    }

    /// Asks it to end, and expects it to do so in order.
    pub fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return assert!(status.success(), "it ended with {status}"),
                None => assert!(Instant::now() < deadline, "it did not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The version of a package in this workspace's `Cargo.lock`, for a program to name in its help. The package with the highest version, if
/// there are several.
pub fn locked_version(package: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines();
    let versions = std::iter::from_fn(|| {
        lines.by_ref().find(|line| **line == *name)?;
        lines.next()?.strip_prefix("version = \"")?.strip_suffix('"').map(str::to_owned)
    });
    versions.last().unwrap_or_else(|| panic!("{package} is not in {}", path.display()))
}
