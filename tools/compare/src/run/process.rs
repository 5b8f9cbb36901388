//! A server under test: its process, from start to end.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::contestant::{Contestant, free_port};
use crate::client::Load;
use crate::parse_id;
use crate::sys::{self, CpuSet};

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take to end after SIGTERM before it is killed. corecast drains for up to 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Where a server said that it can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) address: SocketAddr,
    /// Where its subscribers connect, if that is another place.
    pub(super) publishing: Option<SocketAddr>,
    /// Its node id, if it encrypts.
    pub(super) node: Option<[u8; 32]>,
}

/// A running server. Dropping it ends its process.
pub(super) struct ServerProcess {
    child: Child,
    pub(super) reach: Reach,
    /// Whether anything but status 0 is a failure: not of servers that come in packages, which say by it what ended them.
    ends_with_zero: bool,
}

impl ServerProcess {
    /// Starts a server for this load and waits until it listens. What it logs goes to `log`, or nowhere.
    pub(super) fn start(
        contestant: &Contestant,
        file: &Path,
        load: Load,
        core: usize,
        cpus: CpuSet,
        log: Option<&Path>,
    ) -> io::Result<Self> {
        let address = if contestant.announces() { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) } else { free_port()? };
        let mut command = contestant.command(file, load.mode(), core, address);
        command.stdin(Stdio::null()).stdout(if contestant.announces() { Stdio::piped() } else { Stdio::null() });
        // Ours may say what is wrong. The others may log what they like, at no cost to the terminal.
        let silent = contestant.is_foreign();
        match log {
            Some(path) => contestant.log_to(&mut command, path)?,
            None if silent => drop(command.stderr(Stdio::null())),
            None => {}
        }
        let cpus = if contestant.pins_itself() { cpus } else { CpuSet::only(core)? };
        let child = sys::spawn(&mut command, cpus)?;
        let reach = Reach { address, publishing: None, node: None };
        let mut server = Self { child, reach, ends_with_zero: contestant.announces() };
        if contestant.announces() {
            server.reach = server.announced(contestant.publishes_apart(load))?;
        } else {
            server.wait_until_it_listens()?;
        }
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads its first lines until they say where it is.
    fn announced(&mut self, publishes_apart: bool) -> io::Result<Reach> {
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
            if let Some(reach) = parse_announcement(whole, publishes_apart)? {
                return Ok(reach);
            }
        }
    }

    /// It says nothing, so it is asked.
    fn wait_until_it_listens(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(self.reach.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended before it listened: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not listen"));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Ends the server in order, and says if it did not end well.
    pub(super) fn stop(mut self) -> io::Result<()> {
        sys::terminate(&self.child)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() || !self.ends_with_zero => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("the server ended with {status}"))),
                None => thread::sleep(POLL_INTERVAL),
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

/// Runs a program to its end on these processors, and returns what it printed. One that has not ended in time is killed.
pub(super) fn output(command: &mut Command, cpus: CpuSet, within: Duration) -> io::Result<Output> {
    let mut child = sys::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()), cpus)?;
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let deadline = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it had not ended after {within:?}, and was killed")));
        }
        thread::sleep(POLL_INTERVAL);
    };
    let read = |reader: JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output { status, stdout: read(out), stderr: read(err) })
}

/// Reads a pipe aside, so that a child that prints much is not held up.
fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before it broke is shown.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// `listening on [NODE@]ADDR` and, where there is a second port, `publishing on ADDR`. None until all of it is there.
fn parse_announcement(lines: &str, publishes_apart: bool) -> io::Result<Option<Reach>> {
    let after = |start: &str| lines.lines().find_map(|line| line.strip_prefix(start)).map(str::trim);
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not an address: {text}"));
    let parse = |text: &str| text.parse::<SocketAddr>().map_err(|_| wrong(text));
    let (Some(listening), publishing) = (after("listening on "), after("publishing on ")) else { return Ok(None) };
    if publishes_apart && publishing.is_none() {
        return Ok(None);
    }
    let (node, address) = match listening.split_once('@') {
        Some((node, address)) => (Some(parse_id(node).map_err(|_| wrong(listening))?), address),
        None => (None, listening),
    };
    Ok(Some(Reach { address: parse(address)?, publishing: publishing.map(parse).transpose()?, node }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_prints_much_is_read_whole_and_one_that_hangs_is_ended() {
        let cpus = CpuSet::current().unwrap();
        let mut shell = Command::new("sh");
        let much = output(shell.args(["-c", "head -c 300000 /dev/zero; echo wrong >&2; exit 3"]), cpus, Duration::from_secs(60)).unwrap();
        assert_eq!((much.stdout.len(), much.stderr.as_slice(), much.status.code()), (300_000, &b"wrong\n"[..], Some(3)));
        let hangs = output(Command::new("sleep").arg("1000"), cpus, Duration::from_millis(100)).unwrap_err();
        assert_eq!(hangs.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn an_announcement_is_read_when_all_of_it_is_there() {
        let address = "127.0.0.1:7".parse().unwrap();
        let plain = Reach { address, publishing: None, node: None };
        assert_eq!(parse_announcement("", false).unwrap(), None);
        assert_eq!(parse_announcement("hello\nlistening on 127.0.0.1:7\n", false).unwrap(), Some(plain));
        assert_eq!(parse_announcement("listening on 127.0.0.1:7\n", true).unwrap(), None);
        let both = parse_announcement("listening on 127.0.0.1:7\npublishing on 127.0.0.1:8\n", true).unwrap().unwrap();
        assert_eq!(both.publishing, Some("127.0.0.1:8".parse().unwrap()));
        let node = "ab".repeat(32);
        let noise = parse_announcement(&format!("listening on {node}@127.0.0.1:7\n"), false).unwrap();
        assert_eq!(noise, Some(Reach { node: Some([0xAB; 32]), ..plain }));
        for wrong in ["listening on here\n", "listening on xyz@127.0.0.1:7\n"] {
            assert!(parse_announcement(wrong, false).unwrap_err().to_string().contains("not an address"));
        }
    }
}
