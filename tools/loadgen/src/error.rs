//! Why a run or a server did not come to its end. The command line's own errors are clap's, with exit code 2.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use corecast::{Address, KeyFileError, RequestError, StartError};

use crate::security::Target;
use crate::server::Mode;

/// Why a run or a server did not come to its end.
#[derive(Debug)]
pub(crate) enum Error {
    /// An engine did not start: `what` says which.
    Start { what: &'static str, source: StartError },
    /// An address that is not loopback, and nobody said that it may be.
    Remote { address: Address },
    /// Signals could not be caught, or a thread not be made.
    System { what: &'static str, source: io::Error },
    /// Standard output could not be written to.
    Stdout { source: io::Error },
    /// A server that encrypts was not told who may connect.
    NoAdmission,
    /// The server's key.
    Identity(KeyFileError),
    /// Attacks stay on this machine.
    NotLoopback { address: Address },
    /// The good peer did not get in, was cut off, or heard nothing any more.
    CanaryDied,
    /// A file could not be read.
    File { path: PathBuf, source: io::Error },
    /// A file has something else in it.
    Content { path: PathBuf, expected: &'static str },
    /// A file is no report of this version.
    NotAReport { path: PathBuf, reason: String },
    /// A run in a process of its own came to nothing.
    Run { program: PathBuf, work: String, said: String },
    /// Results that do not belong together.
    Mismatch { reason: String },
    /// A file could not be written.
    Write { path: PathBuf, source: io::Error },
    /// More peers than file descriptors.
    Descriptors { needed: u64, limit: u64, embedded: bool },
    /// The peers did not connect in time.
    Connect { target: String, ready: u64, wanted: u64, waited: Duration, reasons: String },
    /// The server serves another workload.
    WrongMode { target: Target, is: Mode, needed: Mode },
    /// What one peer sends goes to others, who are to be at the same server.
    SeveralTargets { workload: &'static str },
    /// Other clients did not come that were to be there.
    TooFewPeers { targets: String, there: u64, wanted: u64, waited: Duration },
    /// Other clients are there, and what they do cannot be told from what this one does.
    NotAlone { targets: String, others: u64, workload: &'static str },
    /// The server did not answer the probe.
    Probe { target: Target, source: RequestError },
    /// What the server answered was no sample: it is another program, or another version of this one.
    NotALoadgen { target: Target },
    /// A client core did not answer: its thread has ended or hangs.
    CoreSilent { engine: usize },
    /// The same of the subscribers that stop reading.
    SlowReadersSilent,
    /// The same of the peer that stands by.
    BystanderSilent,
    /// The server that was started for the run.
    ServerProcess { what: String },
    /// A signal came before there was anything to report.
    Interrupted,
    /// Several runs came to their end, and there is no answer in them. It has been said why.
    NoAnswer,
    /// The run came to its end and something in it was not as promised.
    Verification,
    /// Doctor: a run would not come to its end on this machine.
    Unfit,
}

impl Error {
    /// 2 where the command line is wrong, as clap does; 1 where the run is.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Remote { .. } | Self::NoAdmission | Self::NotLoopback { .. } | Self::Mismatch { .. } | Self::SeveralTargets { .. } => 2,
            _ => 1,
        }
    }

    /// Whether there is nothing to say: what was wrong has been printed with the figures, or whoever read them has had enough.
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Verification | Self::NoAnswer | Self::Unfit => true,
            Self::Stdout { source } => source.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { what, source } => write!(f, "the {what} did not start: {source}"),
            Self::Remote { address } => {
                write!(f, "{address} is not a loopback address, and nothing is encrypted: add --allow-remote where that is no concern")
            }
            Self::NoAdmission => f.write_str("who may connect? Say --open for everybody, or --allow NODE or --allow-file FILE"),
            Self::Identity(source) => source.fmt(f),
            Self::NotLoopback { address } => write!(f, "{address} is not a loopback address: attacks go by TCP and stay on this machine"),
            Self::CanaryDied => f.write_str("the good peer did not get in, was cut off, or heard nothing any more"),
            Self::File { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::Content { path, expected } => write!(f, "{}: expected {expected}", path.display()),
            Self::NotAReport { path, reason } => {
                write!(f, "{}: expected a report of this version, as --json writes it: {reason}", path.display())
            }
            Self::Run { program, work, said } => write!(f, "{} {work} gave no figures: {said}", program.display()),
            Self::Mismatch { reason } => f.write_str(reason),
            Self::System { what, source } => write!(f, "{what}: {source}"),
            Self::Stdout { source } => write!(f, "cannot write to standard output: {source}"),
            Self::Write { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            Self::Descriptors { needed, limit, embedded } => {
                write!(
                    f,
                    "this takes {needed} file descriptors, but RLIMIT_NOFILE allows {limit}: use fewer --peers, raise it (ulimit -n)"
                )?;
                let hint = ", or run the server in a process of its own (serve, then --target)";
                if *embedded { f.write_str(hint) } else { Ok(()) }
            }
            Self::Connect { target, ready, wanted, waited, reasons } => {
                write!(f, "only {ready} of {wanted} peers connected to {target} in {:.1} s{reasons}", waited.as_secs_f64())
            }
            Self::WrongMode { target, is, needed } => {
                write!(f, "the server at {target} runs in {is} mode; this workload needs `serve --mode {needed}`")
            }
            Self::SeveralTargets { workload } => write!(
                f,
                "{workload} needs one --target: what a peer sends goes to the others, and a server knows nothing of another one's peers; \
                 load each with a process of its own"
            ),
            Self::TooFewPeers { targets, there, wanted, waited } => {
                let waited = waited.as_secs_f64();
                write!(f, "{targets}: only {there} of --server-peers {wanted} after {waited:.1} s: are all client processes running?")
            }
            Self::NotAlone { targets, others, workload } => write!(
                f,
                "{targets} has {others} peers of other clients: what {workload} is told by the server is about all of them, so it needs a \
                 server of its own"
            ),
            Self::Probe { target, source } => write!(f, "the server at {target} did not answer the probe: {source}"),
            Self::NotALoadgen { target } => {
                write!(f, "{target} is no `corecast-loadgen serve` of this version: its answer to the probe is not a sample")
            }
            Self::CoreSilent { engine } => write!(f, "client engine {engine} does not answer"),
            Self::SlowReadersSilent => f.write_str("the slow readers' engine does not answer"),
            Self::BystanderSilent => f.write_str("the bystander's engine does not answer"),
            Self::ServerProcess { what } => write!(f, "the server that was started for this run: {what}"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::NoAnswer => f.write_str("no rate was good enough"),
            Self::Verification => f.write_str("the run failed its verification"),
            Self::Unfit => f.write_str("this machine does not carry such a run"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { source, .. } => Some(source),
            Self::Identity(source) => Some(source),
            Self::File { source, .. } => Some(source),
            Self::System { source, .. } | Self::Stdout { source } | Self::Write { source, .. } => Some(source),
            Self::Probe { source, .. } => Some(source),
            _ => None,
        }
    }
}
