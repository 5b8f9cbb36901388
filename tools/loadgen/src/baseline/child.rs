//! A run of another build, with a deadline: a program that hangs is not to hang whoever compares it.

use std::io::{self, Read};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs it to its end and returns what it printed. It is killed when its time is up, or when the user says stop.
pub(super) fn output(command: &mut Command, within: Duration, stopped: impl Fn() -> bool) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let deadline = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline || stopped() {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it had not ended after {within:?}, and was killed")));
        }
        thread::sleep(POLL_INTERVAL);
    };
    let read = |reader: thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output { status, stdout: read(out), stderr: read(err) })
}

/// Reads a pipe aside, so that a child that prints much is not held up.
fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before it broke is shown.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, within: Duration) -> io::Result<Output> {
        output(Command::new("sh").args(["-c", script]), within, || false)
    }

    #[test]
    fn what_it_printed_comes_back_however_much_it_is() {
        let output = shell("head -c 300000 /dev/zero; echo wrong >&2; exit 3", Duration::from_secs(60)).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.as_slice(), output.status.code()), (300_000, &b"wrong\n"[..], Some(3)));
    }

    #[test]
    fn a_program_that_hangs_is_ended_when_its_time_is_up() {
        let error = shell("exec sleep 1000", Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let stopped = output(Command::new("sh").args(["-c", "exec sleep 1000"]), Duration::from_secs(1000), || true);
        assert!(stopped.is_err());
    }
}
