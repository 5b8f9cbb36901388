//! One run at one rate, as a line of a table: what sweeps and knees are made of.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::SteppedArgs;
use crate::error::Error;
use crate::machine::Machine;
use crate::output;
use crate::report::{Latency, Report, Setup, group, time};
use crate::run;
use crate::serve::Stop;
use crate::spec::Spec;

/// What a run at one rate is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Valid,
    /// The generator was late, or messages that were due were never sent.
    Invalid,
    /// Something was lost, a peer ended, or worse.
    Failed,
}

/// A run at one rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Messages a second that were due.
    pub(crate) rate: f64,
    pub(crate) msgs_per_s: f64,
    pub(crate) deliveries_per_s: f64,
    pub(crate) response_ns: Option<Latency>,
    pub(crate) service_ns: Option<Latency>,
    pub(crate) send_lag_ns: Option<Latency>,
    pub(crate) server_cpu_ns_per_delivery: Option<f64>,
    pub(crate) unsent: u64,
    pub(crate) lost: u64,
    pub(crate) disconnected: u64,
    pub(crate) verdict: Verdict,
    /// Why it is not valid.
    pub(crate) reasons: Vec<String>,
    /// Whether something happened that may not happen at any rate.
    #[serde(skip)]
    wrong: bool,
}

impl Step {
    fn of(rate: f64, report: &Report) -> Option<Self> {
        let (measured, verified) = (report.figures.measured().next()?, &report.verified);
        let verdict = match () {
            () if !report.verified.passed() => Verdict::Failed,
            () if !report.is_valid() => Verdict::Invalid,
            () => Verdict::Valid,
        };
        let mut reasons = report.validity.as_ref().map_or_else(Vec::new, |validity| validity.reasons.clone());
        reasons.extend(verified.disconnect_reasons.iter().map(|(reason, count)| format!("{count} x {reason}")));
        if verified.lost > 0 {
            reasons.push(format!("{} lost", verified.lost));
        }
        Some(Self {
            rate,
            msgs_per_s: measured.msgs_per_s,
            deliveries_per_s: measured.deliveries_per_s,
            response_ns: measured.latency_ns,
            service_ns: measured.service_ns,
            send_lag_ns: measured.send_lag_ns,
            server_cpu_ns_per_delivery: measured.server_cpu_ns_per_delivery,
            unsent: verified.unsent,
            lost: verified.lost,
            disconnected: verified.disconnected,
            verdict,
            reasons,
            wrong: verified.duplicated + verified.reordered + verified.corrupt > 0,
        })
    }
}

/// What all runs have in common, and where their lines go.
pub(crate) struct Steps<'a> {
    args: &'a SteppedArgs,
    stop: Stop,
    /// Whether there is a table.
    shown: bool,
    pub(crate) done: Vec<Step>,
    /// Of the first run.
    pub(crate) setup: Option<Setup>,
    pub(crate) machine: Machine,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(args: &'a SteppedArgs, shown: bool) -> Result<Self, Error> {
        Ok(Self { args, stop: Stop::install()?, shown, done: Vec::new(), setup: None, machine: Machine::describe() })
    }

    /// Runs at this rate, and prints the line.
    pub(crate) fn run(&mut self, rate: f64) -> Result<&Step, Error> {
        let spec = Spec::at_rate(self.args.workload.kind(), rate, &self.args.schedule, &self.args.load);
        let report = run::execute(&spec, &self.stop)?;
        if report.interrupted {
            return Err(Error::Interrupted);
        }
        let step = Step::of(rate, &report).expect("a run has figures");
        if self.shown {
            if self.done.is_empty() {
                output::print(Heading { setup: &report.setup, duration: self.args.load.duration })?;
            }
            output::print(format_args!("{step}\n"))?;
        }
        self.setup.get_or_insert(report.setup);
        self.done.push(step);
        Ok(self.done.last().expect("one was pushed"))
    }

    /// Whether something happened that may not happen at any rate.
    pub(crate) fn went_wrong(&self) -> bool {
        self.done.iter().any(|step| step.wrong)
    }
}

/// What is above the lines.
struct Heading<'a> {
    setup: &'a Setup,
    duration: Duration,
}

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { workload, peers, size, arrivals, .. } = self.setup;
        let arrivals = arrivals.as_deref().unwrap_or_default();
        let seconds = self.duration.as_secs_f64();
        writeln!(
            f,
            "{workload}: {} peers, {} bytes, {arrivals} arrivals, {seconds} s each",
            group(u64::from(*peers)),
            group(*size as u64)
        )?;
        writeln!(
            f,
            "  {:>11} {:>11} {:>13} {:>9} {:>9} {:>9} {:>12} {:>10}  verdict",
            "rate", "messages/s", "deliveries/s", "p50", "p99", "p99.9", "service p99", "sent late"
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |latency: Option<Latency>, of: fn(Latency) -> u64| latency.map_or_else(|| "-".into(), |latency| time(of(latency)));
        let verdict = match self.verdict {
            Verdict::Valid => "valid",
            Verdict::Invalid => "INVALID",
            Verdict::Failed => "FAILED",
        };
        write!(
            f,
            "  {:>11} {:>11} {:>13} {:>9} {:>9} {:>9} {:>12} {:>10}  {verdict}",
            group(self.rate.round() as u64),
            group(self.msgs_per_s.round() as u64),
            group(self.deliveries_per_s.round() as u64),
            shown(self.response_ns, |latency| latency.p50),
            shown(self.response_ns, |latency| latency.p99),
            shown(self.response_ns, |latency| latency.p999),
            shown(self.service_ns, |latency| latency.p99),
            shown(self.send_lag_ns, |latency| latency.p99),
        )?;
        match (self.unsent, self.lost, self.disconnected) {
            (0, 0, 0) => Ok(()),
            (unsent, 0, 0) => write!(f, ", {} not sent", group(unsent)),
            (_, lost, disconnected) => write!(f, ", {} lost, {} peers ended", group(lost), group(disconnected)),
        }
    }
}
