//! What the tests of the binary share: processes that do not outlive their test, and what a report has to say.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part")]

pub(crate) mod rogue;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far beyond what anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn loadgen(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast-loadgen"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Option<Child>);

impl Process {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self(Some(loadgen(args).spawn().expect("the binary starts")))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not waited for yet")
    }

    pub(crate) fn signal(&mut self, name: &str) {
        let pid = self.child().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }

    /// Waits for the end, at most [`LIMIT`].
    pub(crate) fn finish(mut self) -> Output {
        let until = Instant::now() + LIMIT;
        let mut child = self.0.take().expect("waited for once");
        // Both pipes are read from the start: a full pipe would hold the process up.
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let status = loop {
            match child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                None => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("not finished in {LIMIT:?}; stderr: {}", String::from_utf8_lossy(&stderr.recv().unwrap_or_default()));
                }
            }
        };
        Output { status, stdout: stdout.recv().expect("reader ends"), stderr: stderr.recv().expect("reader ends") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What comes out of a pipe, where there is one.
pub(crate) fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = done.send(bytes);
    });
    result
}

pub(crate) fn run(args: &[&str]) -> Output {
    Process::start(args).finish()
}

/// The first line of a pipe that a condition holds for, within [`LIMIT`]; the pipe is given back.
pub(crate) fn line_where<R: Read + Send + 'static>(pipe: R, found: impl Fn(&str) -> bool + Send + 'static) -> (String, R) {
    let (said, line) = mpsc::channel();
    std::thread::spawn(move || {
        // One byte at a time: what comes after the line is for whoever reads next.
        let mut pipe = BufReader::with_capacity(1, pipe);
        let mut line = String::new();
        while pipe.read_line(&mut line).is_ok_and(|len| len > 0) && !found(&line) {
            line.clear();
        }
        let _ = said.send((line, pipe.into_inner()));
    });
    line.recv_timeout(LIMIT).expect("the line comes in time")
}

/// A server in its own process, and what it says that a client is to dial.
pub(crate) fn serve(mode: &str, more: &[&str]) -> (Process, String) {
    serve_at("127.0.0.1:0", mode, more)
}

/// The same, listening there.
pub(crate) fn serve_at(listen: &str, mode: &str, more: &[&str]) -> (Process, String) {
    let args = ["serve", "--listen", listen, "--mode", mode, "--open", "--exempt", "127.0.0.0/8"];
    let mut process = Process::start(&[&args, more].concat());
    let line = process.says();
    let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("unexpected first line {line:?}"));
    (process, address.to_owned())
}

impl Process {
    /// The next line of its standard output.
    pub(crate) fn says(&mut self) -> String {
        let (line, out) = line_where(self.child().stdout.take().expect("piped"), |_| true);
        self.child().stdout = Some(out);
        line.trim().to_owned()
    }
}

/// A run whose peers are all connected.
pub(crate) fn ready(args: &[&str]) -> Process {
    let mut process = Process(Some(loadgen(args).env("RUST_LOG", "corecast_loadgen=info").spawn().expect("the binary starts")));
    let (line, err) = line_where(process.child().stderr.take().expect("piped"), |line| line.contains("peers are ready"));
    process.child().stderr = Some(err);
    assert!(!line.is_empty(), "the run ended before its peers were ready");
    process
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn show(output: &Output) -> String {
    format!("{}\nstdout: {}\nstderr: {}", output.status, text(&output.stdout), text(&output.stderr))
}

pub(crate) fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", show(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(output)))
}

pub(crate) fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("{field} in {report:#}"))
}

/// Nothing lost, duplicated, reordered, damaged or disconnected, of a run of this workload.
pub(crate) fn assert_verified(report: &Value, workload: &str, peers: u64, size: u64) {
    assert_eq!(report["schema"], "corecast-loadgen/4");
    assert_eq!(report["workload"], workload);
    assert_eq!((number(report, "peers"), number(report, "size")), (peers, size));
    for wrong in ["lost", "duplicated", "reordered", "corrupt", "disconnected"] {
        assert_eq!(number(report, wrong), 0, "{wrong} in {report:#}");
    }
    assert!(report["machine"]["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()), "{report:#}");
}

/// Figures of a measured time, in which there was something.
pub(crate) fn assert_measured(figures: &Value) {
    for (rate, count) in [("msgs_per_s", "sent"), ("deliveries_per_s", "delivered")] {
        let elapsed = figures["elapsed_s"].as_f64().expect("a time");
        let rate = figures[rate].as_f64().expect("a rate");
        assert!(rate > 0.0 && (rate * elapsed / number(figures, count) as f64 - 1.0).abs() < 1e-6, "{figures:#}");
    }
    let latency = &figures["latency_ns"];
    let percentiles = ["p50", "p90", "p99", "p999", "max"].map(|name| number(latency, name));
    assert!(percentiles.is_sorted() && percentiles[0] > 0, "{figures:#}");
    assert!(figures["server_cpu_ns_per_delivery"].as_f64().is_some_and(|cpu| cpu > 0.0), "{figures:#}");
}
