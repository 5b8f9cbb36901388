//! A server in a process of its own, that this one starts, ends and starts again.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use corecast::Address;

use crate::error::Error;
use crate::security::{Target, parse_target};

/// What it says before the address.
const LISTENING: &str = "listening on ";
/// How long it may take until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

/// A running `serve`. Ends when it is dropped.
pub(crate) struct ServerProcess {
    child: Child,
    /// Nobody reads more of it, but whoever writes to a pipe that is closed is told.
    _stdout: ChildStdout,
    target: Target,
    args: Vec<String>,
    _folder: Folder,
}

impl ServerProcess {
    /// `args` are `serve`'s, without the address and the key.
    pub(crate) fn start(listen: &Address, mut args: Vec<String>, plaintext: bool) -> Result<Self, Error> {
        let folder = Folder::new()?;
        if !plaintext && !args.iter().any(|arg| arg.starts_with("--identity")) {
            // After a restart it is the same node.
            args.extend(["--identity".to_owned(), folder.0.join("server.key").display().to_string()]);
        }
        let (child, stdout, target) = spawn(listen, &args)?;
        Ok(Self { child, _stdout: stdout, target, args, _folder: folder })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Ends it at once, as a crash would, and starts it again: the same node at the same address.
    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        self.end();
        let (child, stdout, target) = spawn(&self.target.address, &self.args)?;
        if target != self.target {
            return Err(Error::ServerProcess { what: format!("it was {} and came back as {target}", self.target) });
        }
        (self.child, self._stdout) = (child, stdout);
        Ok(())
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.end();
        if let Address::Unix(path) = &self.target.address {
            // What was killed has left its socket there.
            let _ = std::fs::remove_file(path.as_path());
        }
    }
}

/// Returns when it listens.
fn spawn(listen: &Address, args: &[String]) -> Result<(Child, ChildStdout, Target), Error> {
    let failed = |what: &'static str| move |source| Error::System { what, source };
    let program = std::env::current_exe().map_err(failed("cannot find this program"))?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--listen").arg(listen.to_string()).args(args);
    // Its errors are for the user. A signal from the terminal is for this process, which ends it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed("cannot start the server's process"))?;
    let stdout = child.stdout.take().expect("piped");
    let said = first_line(stdout);
    let why = if said.is_err() { format!("and has said nothing for {LISTENS_WITHIN:?}") } else { "and has said why".to_owned() };
    let reached = |(line, stdout): (String, ChildStdout)| Some((parse_target(line.trim().strip_prefix(LISTENING)?).ok()?, stdout));
    match said.ok().flatten().and_then(reached) {
        Some((target, stdout)) => Ok((child, stdout, target)),
        None => {
            let _ = child.kill();
            let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(Error::ServerProcess { what: format!("it did not come to listen on {listen} ({status}), {why}") })
        }
    }
}

/// What it says first, and its output from there on. An error where it says nothing in time: it is ended then, which ends the reading too.
fn first_line(stdout: ChildStdout) -> Result<Option<(String, ChildStdout)>, mpsc::RecvTimeoutError> {
    let (sender, said) = mpsc::channel();
    thread::spawn(move || {
        // One byte at a time: what comes after the line is somebody else's.
        let mut stdout = BufReader::with_capacity(1, stdout);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        // Nobody may wait any more.
        let _ = sender.send(read.ok().map(|_| (line, stdout.into_inner())));
    });
    said.recv_timeout(LISTENS_WITHIN)
}

/// A folder of this run's, for the server's key. Gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Error> {
        let name = format!("corecast-loadgen-{}-{:x}", std::process::id(), crate::clock::now_ns());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
