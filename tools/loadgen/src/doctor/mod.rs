//! `doctor`: whether this machine carries a run and gives figures that mean something, and what to change where it does not.
//!
//! It reads `/proc` and `/sys` and changes nothing. What cannot be read is said to be so: nothing follows from it.

mod host;
mod machine;
mod network;
mod processors;

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cli::{CpuList, parse_cpus};
use crate::error::Error;
use crate::output::{self, JsonSink};
use crate::report::group;
use host::Host;

/// Names the meaning of the fields below. A change of meaning changes the number.
const SCHEMA: &str = "corecast-loadgen-doctor/1";

/// `doctor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// How many peers the machine is to carry.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub(crate) peers: u32,
    /// The server will be a process of its own (`serve`, then --target): each process needs one file descriptor a peer instead of two.
    #[arg(long)]
    pub(crate) own_server: bool,
    /// Processors of the server. Without it: the first allowed one, as in a run.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub(crate) server_cores: Option<CpuList>,
    /// Processors of the client. Without it: the next allowed one, as in a run.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub(crate) client_cores: Option<CpuList>,
    /// Write what was found there as JSON (`-`, or nothing: standard output, instead of the table).
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    /// Figures are worse, or mean less, than they could.
    Warn,
    /// A run would not come to its end.
    Fail,
    CannotRead,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::CannotRead => "cannot read",
        })
    }
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    /// What there is.
    found: String,
    /// What follows from it, where something does.
    means: Option<String>,
    /// What changes it: a command, or words where there is none.
    change: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), means: None, change: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, means: impl Into<String>, change: impl Into<String>) -> Self {
        Self { check, status: Status::Warn, found: found.into(), means: Some(means.into()), change: Some(change.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, means: impl Into<String>, change: impl Into<String>) -> Self {
        Self { status: Status::Fail, ..Self::warn(check, found, means, change) }
    }

    /// `what`: the file that is not there, or says something else than expected.
    fn cannot_read(check: &'static str, what: impl fmt::Display) -> Self {
        Self { check, status: Status::CannotRead, found: what.to_string(), means: None, change: None }
    }
}

/// What the machine is to carry.
#[derive(Clone, Debug)]
struct Plan {
    peers: u64,
    own_server: bool,
    /// Processors that the run would be pinned to.
    server: Vec<usize>,
    client: Vec<usize>,
}

impl Plan {
    fn new(args: &DoctorArgs, host: &Host) -> Self {
        let allowed = host.allowed().unwrap_or_default();
        let list = |list: &Option<CpuList>| list.as_ref().map(|list| list.0.clone());
        let next = |taken: &[usize]| allowed.iter().copied().find(|cpu| !taken.contains(cpu)).into_iter().collect::<Vec<_>>();
        let (server, client) = match (list(&args.server_cores), list(&args.client_cores)) {
            (Some(server), client) => (server.clone(), client.unwrap_or_else(|| next(&server))),
            (None, Some(client)) => (next(&client), client),
            (None, None) => (next(&[]), next(&next(&[]))),
        };
        Self { peers: u64::from(args.peers), own_server: args.own_server, server, client }
    }

    /// All processors of a run: the server's, then the client's.
    fn processors(&self) -> Vec<usize> {
        [&self.server[..], &self.client[..]].concat()
    }

    /// Whom a processor is for.
    fn side(&self, index: usize) -> &'static str {
        if index < self.server.len() { "server" } else { "client" }
    }
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Diagnosis {
    schema: &'static str,
    peers: u64,
    own_server: bool,
    server_cores: Vec<usize>,
    client_cores: Vec<usize>,
    /// Whether a run comes to its end here, as far as that can be seen.
    runs: bool,
    checks: Vec<Finding>,
}

impl Diagnosis {
    fn new(host: &Host, plan: Plan) -> Self {
        let mut checks = network::checks(host, &plan);
        checks.extend(processors::checks(host, &plan));
        checks.extend(machine::checks(host, &plan));
        Self {
            schema: SCHEMA,
            peers: plan.peers,
            own_server: plan.own_server,
            runs: checks.iter().all(|finding| finding.status != Status::Fail),
            server_cores: plan.server,
            client_cores: plan.client,
            checks,
        }
    }

    fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|finding| finding.status == status).count()
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.own_server { "a process of its own" } else { "the process of the peers" };
        writeln!(f, "doctor: {} peers, the server in {place}", group(self.peers))?;
        for Finding { check, status, found, means, change } in &self.checks {
            writeln!(f, "  {status:<13}{check:<15}{found}")?;
            means.iter().try_for_each(|means| writeln!(f, "{:30}{means}", ""))?;
            change.iter().try_for_each(|change| writeln!(f, "{:28}> {change}", ""))?;
        }
        let [ok, warn, fail, unknown] = [Status::Ok, Status::Warn, Status::Fail, Status::CannotRead].map(|status| self.count(status));
        writeln!(f, "{ok} ok, {warn} to change for better figures, {fail} that make runs fail, {unknown} could not be read")
    }
}

/// Looks, says what it saw, and fails where a run would.
pub(crate) fn main(args: &DoctorArgs) -> Result<(), Error> {
    let host = Host::here();
    let diagnosis = Diagnosis::new(&host, Plan::new(args, &host));
    let json = JsonSink::open_some(args.json.as_ref())?;
    if !json.as_ref().is_some_and(JsonSink::is_stdout) {
        output::print(&diagnosis)?;
    }
    if let Some(sink) = json {
        sink.write(&diagnosis)?;
    }
    if diagnosis.runs { Ok(()) } else { Err(Error::Unfit) }
}

#[cfg(test)]
mod tests {
    use super::host::tests::Tree;
    use super::*;

    fn args(peers: u32) -> DoctorArgs {
        DoctorArgs { peers, own_server: false, server_cores: None, client_cores: None, json: None }
    }

    fn diagnose(tree: &Tree, args: &DoctorArgs) -> Diagnosis {
        let host = tree.host();
        Diagnosis::new(&host, Plan::new(args, &host))
    }

    #[test]
    fn a_machine_that_is_as_it_should_be_has_nothing_to_change() {
        let diagnosis = diagnose(&Tree::good(), &args(1000));
        let others: Vec<_> = diagnosis.checks.iter().filter(|finding| finding.status != Status::Ok).collect();
        assert!(others.is_empty(), "{others:#?}");
        assert!(diagnosis.runs);
        assert_eq!((&diagnosis.server_cores[..], &diagnosis.client_cores[..]), (&[0][..], &[1][..]));
    }

    #[test]
    fn a_machine_of_which_nothing_can_be_read_is_not_said_to_fail() {
        let diagnosis = diagnose(&Tree::empty(), &args(1000));
        let others: Vec<_> = diagnosis.checks.iter().filter(|finding| finding.status != Status::CannotRead).collect();
        assert!(others.is_empty() && diagnosis.runs, "{others:#?}");
    }

    #[test]
    fn odd_contents_are_not_read_as_something_else() {
        let tree = Tree::good();
        let files = tree.files();
        let tree = files.iter().fold(tree, |tree, file| tree.with(file, "what\n: is\tthis 99999999999999999999999999 -\n"));
        let diagnosis = diagnose(&tree, &args(1000));
        assert!(diagnosis.runs, "{diagnosis}");
    }

    #[test]
    fn whatever_is_to_change_is_said_with_what_to_do() {
        let tree = Tree::good().with("proc/self/limits", "Max open files            1024                 1024                 files\n");
        let diagnosis = diagnose(&tree, &args(1000));
        assert!(!diagnosis.runs);
        let text = diagnosis.to_string();
        for part in ["FAIL         files", "> ulimit -n", "1 that make runs fail"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
        let json = serde_json::to_value(&diagnosis).unwrap();
        assert_eq!((&json["schema"], &json["runs"]), (&SCHEMA.into(), &false.into()));
        assert_eq!((&json["checks"][0]["check"], &json["checks"][0]["status"]), (&"files".into(), &"fail".into()));
    }

    #[test]
    fn processors_are_those_of_a_run() {
        let tree = Tree::good();
        let plan = |server: Option<&[usize]>, client: Option<&[usize]>| {
            let list = |list: Option<&[usize]>| list.map(|list| CpuList(list.to_vec()));
            let plan = Plan::new(&DoctorArgs { server_cores: list(server), client_cores: list(client), ..args(1) }, &tree.host());
            (plan.server, plan.client)
        };
        assert_eq!(plan(None, None), (vec![0], vec![1]));
        assert_eq!(plan(Some(&[0, 1]), None), (vec![0, 1], vec![2]));
        assert_eq!(plan(None, Some(&[0])), (vec![1], vec![0]));
        assert_eq!(plan(Some(&[3]), Some(&[2, 9])), (vec![3], vec![2, 9]));
    }
}
