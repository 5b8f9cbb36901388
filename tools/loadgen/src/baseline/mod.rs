//! Baselines: whether this build on this machine is worse than what was measured before, or than another build.
//!
//! Every run is a process of its own, of this program or the other. The works take turns, round by round, so that what the machine does
//! meanwhile meets all of them. A figure is worse where the whole interval of its ratio is beyond a threshold; where the medians are beyond
//! it and the noise is wider, that is said, and is no regression.

mod child;
mod judge;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{Baseline, CompareArgs, RoundArgs, SaveArgs, Work};
use crate::error::Error;
use crate::machine::Machine;
use crate::output::{self, JsonSink};
use crate::report::{group, time};
use crate::serve::Stop;

use judge::{Judgement, Outcome, Rounds, judge};

/// Names the meaning of the fields of a saved baseline.
const SCHEMA: &str = "corecast-loadgen-baseline/1";
/// Names the meaning of the fields of a comparison.
const COMPARISON: &str = "corecast-loadgen-comparison/1";
/// How long each run is run before it is measured, seconds, where it is not measured for less.
const WARMUP: f64 = 0.3;
/// A run that is INVALID is made again; more often than this, the machine is too busy.
const ATTEMPTS: u32 = 3;
/// What a run may take beside measuring: ten thousand handshakes, and peers that say goodbye.
const AROUND: Duration = Duration::from_secs(120);

/// What was saved.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    schema: String,
    duration_s: f64,
    works: Vec<Measured>,
    machine: Machine,
}

/// All rounds of one work.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    args: Vec<String>,
    rounds: Vec<Round>,
}

/// One run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Round {
    deliveries_per_s: f64,
    p50_ns: f64,
    p99_ns: f64,
    server_cpu_ns_per_delivery: f64,
}

/// The figures of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Figure {
    DeliveriesPerS,
    P50,
    P99,
    ServerCpu,
}

impl Figure {
    const ALL: [Figure; 4] = [Self::DeliveriesPerS, Self::P50, Self::P99, Self::ServerCpu];

    fn of(self, round: &Round) -> f64 {
        match self {
            Self::DeliveriesPerS => round.deliveries_per_s,
            Self::P50 => round.p50_ns,
            Self::P99 => round.p99_ns,
            Self::ServerCpu => round.server_cpu_ns_per_delivery,
        }
    }

    fn shown(self, value: f64) -> String {
        if self == Self::DeliveriesPerS { format!("{}/s", group(value.round() as u64)) } else { time(value.round() as u64) }
    }

    fn name(self) -> &'static str {
        match self {
            Self::DeliveriesPerS => "deliveries",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::ServerCpu => "server CPU",
        }
    }
}

/// A comparison.
#[derive(Debug, Serialize)]
struct Comparison {
    schema: &'static str,
    threshold: f64,
    /// Whether something is worse for certain.
    worse: bool,
    works: Vec<Compared>,
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Compared {
    args: Vec<String>,
    figures: Vec<(Figure, Judgement)>,
}

/// Saves or compares.
pub(crate) fn main(what: &Baseline) -> Result<(), Error> {
    match what {
        Baseline::Save(args) => save(args),
        Baseline::Compare(args) => compare(args),
    }
}

fn save(args: &SaveArgs) -> Result<(), Error> {
    let path = located(&args.name)?;
    if let Some(folder) = path.parent().filter(|_| path != Path::new(&args.name)) {
        // Where names are kept; the folder of a file is its owner's.
        fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    }
    // Beside it: a baseline that is there stays if this one comes to nothing.
    let (mut unfinished, refused) = (path.clone().into_os_string(), |source| Error::Write { path: path.clone(), source });
    unfinished.push(".unfinished");
    let sink = JsonSink::open(Path::new(&unfinished))?;
    let (stop, machine) = (Stop::install()?, Machine::describe());
    let program = own_program()?;
    let plan = Plan::new(&args.rounds);
    let measured = plan.measure([&program], &stop);
    let written =
        measured.and_then(|[works]| sink.write(&Saved { schema: SCHEMA.to_owned(), duration_s: plan.duration_s, works, machine }));
    if let Err(error) = written {
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    fs::rename(&unfinished, &path).map_err(refused)?;
    output::print(format_args!("{} rounds of {} works saved in {}\n", plan.rounds, plan.works.len(), path.display()))
}

fn compare(args: &CompareArgs) -> Result<(), Error> {
    let json = JsonSink::open_some(args.json.as_ref())?;
    let (stop, machine, program) = (Stop::install()?, Machine::describe(), own_program()?);
    let (before, now, rounds) = match (&args.name, &args.against) {
        (Some(name), _) => {
            let saved = read(&located(name)?)?;
            if let Some(difference) = saved.machine.difference(&machine) {
                return Err(Error::Mismatch { reason: format!("{name} was measured elsewhere: {difference}; save one here") });
            }
            let plan = Plan::of(&saved);
            let [now] = plan.measure([&program], &stop)?;
            (saved.works, now, Rounds::Apart)
        }
        (None, against) => {
            let other = against.as_deref().unwrap_or(&program);
            let [before, now] = Plan::new(&args.rounds).measure([other, &program], &stop)?;
            (before, now, Rounds::Paired)
        }
    };
    let works: Vec<Compared> = before.into_iter().zip(now).map(|(before, now)| compared(before, &now, rounds, args.threshold)).collect();
    let worse = works.iter().flat_map(|work| &work.figures).any(|(_, judgement)| judgement.outcome == Outcome::Worse);
    let comparison = Comparison { schema: COMPARISON, threshold: args.threshold, worse, works, machine };
    match json {
        Some(sink) => {
            if !sink.is_stdout() {
                output::print(&comparison)?;
            }
            sink.write(&comparison)?;
        }
        None => output::print(&comparison)?,
    }
    if worse { Err(Error::Verification) } else { Ok(()) }
}

fn compared(before: Measured, now: &Measured, rounds: Rounds, threshold: f64) -> Compared {
    // Of an open loop the rate is what it was told.
    let closed = !before.args.iter().any(|word| word == "--rate");
    let figures = Figure::ALL.into_iter().filter(|figure| closed || *figure != Figure::DeliveriesPerS);
    let judged = figures.filter_map(|figure| {
        let values = |measured: &Measured| measured.rounds.iter().map(|round| figure.of(round)).collect::<Vec<_>>();
        let judgement = judge(&values(&before), &values(now), figure == Figure::DeliveriesPerS, rounds, threshold);
        judgement.map(|judgement| (figure, judgement))
    });
    Compared { figures: judged.collect(), args: before.args }
}

/// A file, or a name's file.
fn located(name: &str) -> Result<PathBuf, Error> {
    if name.contains('/') || name.ends_with(".json") {
        return Ok(PathBuf::from(name));
    }
    let set = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let missing = || Error::Mismatch { reason: format!("there is no $HOME to keep `{name}` in: give a file, such as ./{name}.json") };
    Ok(data.ok_or_else(missing)?.join("corecast-loadgen").join(format!("{name}.json")))
}

fn read(path: &Path) -> Result<Saved, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let saved = serde_json::from_str(&text).ok().filter(|saved: &Saved| saved.schema == SCHEMA);
    saved.ok_or_else(|| Error::Content { path: path.to_owned(), expected: "what `baseline save` of this version writes" })
}

fn own_program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(|source| Error::System { what: "cannot find this program's own file", source })
}

/// What is run, and how often.
struct Plan {
    rounds: u32,
    duration_s: f64,
    works: Vec<Work>,
}

impl Plan {
    fn new(args: &RoundArgs) -> Self {
        Self { rounds: args.rounds, duration_s: args.duration.as_secs_f64(), works: args.works() }
    }

    /// The same again.
    fn of(saved: &Saved) -> Self {
        let rounds = saved.works.iter().map(|work| work.rounds.len()).max().unwrap_or(0);
        let works = saved.works.iter().map(|work| Work(work.args.clone())).collect();
        Self { rounds: u32::try_from(rounds).unwrap_or(u32::MAX), duration_s: saved.duration_s, works }
    }

    /// Every round of every work by every program, which take turns.
    fn measure<const N: usize>(&self, programs: [&Path; N], stop: &Stop) -> Result<[Vec<Measured>; N], Error> {
        let empty = || self.works.iter().map(|work| Measured { args: work.0.clone(), rounds: Vec::new() }).collect();
        let mut measured: [Vec<Measured>; N] = std::array::from_fn(|_| empty());
        for round in 0..self.rounds as usize {
            for (at, work) in self.works.iter().enumerate() {
                for turn in 0..N {
                    // Each is first as often as the others.
                    let side = (turn + round) % N;
                    measured[side][at].rounds.push(self.run(programs[side], work, stop)?);
                }
            }
            output::remark(format_args!("round {} of {} is done", round + 1, self.rounds));
        }
        Ok(measured)
    }

    fn run(&self, program: &Path, work: &Work, stop: &Stop) -> Result<Round, Error> {
        let mut said = String::new();
        for _ in 0..ATTEMPTS {
            if stop.requested() {
                return Err(Error::Interrupted);
            }
            let (duration, warmup) = (self.duration_s.to_string(), self.duration_s.min(WARMUP).to_string());
            let mut command = Command::new(program);
            command.args(&work.0).args(["--duration", &duration, "--warmup", &warmup, "--json", "-"]);
            let measured = Duration::try_from_secs_f64(self.duration_s).unwrap_or_default();
            let within = measured.saturating_mul(2).saturating_add(AROUND);
            let output = match child::output(&mut command, within, || stop.requested()) {
                Ok(output) => output,
                Err(_) if stop.requested() => return Err(Error::Interrupted),
                Err(error) => {
                    said = error.to_string();
                    break;
                }
            };
            let report: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            match report {
                Some(report) if output.status.success() => {
                    let round = Round::of(&report);
                    return round.ok_or_else(|| Error::Content { path: program.to_owned(), expected: "a report with figures, from a run" });
                }
                // The machine's fault, and not the build's.
                Some(report) if report["validity"]["valid"] == false => said = report["validity"]["reasons"].to_string(),
                _ => {
                    said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    break;
                }
            }
        }
        Err(Error::Run { program: program.to_owned(), work: work.0.join(" "), said })
    }
}

impl Round {
    /// By names and not by this version's structure: the other build may be an older one.
    fn of(report: &Value) -> Option<Self> {
        Some(Self {
            deliveries_per_s: report["deliveries_per_s"].as_f64()?,
            p50_ns: report["latency_ns"]["p50"].as_f64()?,
            p99_ns: report["latency_ns"]["p99"].as_f64()?,
            server_cpu_ns_per_delivery: report["server_cpu_ns_per_delivery"].as_f64().unwrap_or(0.0),
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Compared { args, figures } in &self.works {
            writeln!(f, "{}", args.join(" "))?;
            for (figure, Judgement { before, now, ratio, low, high, outcome }) in figures {
                let outcome = match outcome {
                    Outcome::Better => "better",
                    Outcome::Same => "same",
                    Outcome::Undecided => "undecided: the noise is wider than the difference",
                    Outcome::Worse => "WORSE",
                };
                let (name, before, now) = (figure.name(), figure.shown(*before), figure.shown(*now));
                writeln!(f, "  {name:<12}{before:>16} to {now:>16}   {ratio:.3} [{low:.3}, {high:.3}]   {outcome}")?;
            }
        }
        writeln!(f, "a ratio above 1 is worse, and WORSE where it is above {:.3} for certain", 1.0 + self.threshold)
    }
}
