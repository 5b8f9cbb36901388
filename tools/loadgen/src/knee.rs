//! The knee: the highest rate at which the response time's p99 stays under a bound.
//!
//! It is looked for between two rates by bisection of their ratio, since a server's limits are told apart by factors and not by amounts.
//! One run may be lucky and one may be unlucky, so the two rates that are left, the one that is under and the one that is over, are asked
//! about again, and what most runs say counts.

use std::time::Duration;

use serde::Serialize;

use crate::cli::KneeArgs;
use crate::error::Error;
use crate::html;
use crate::machine::Machine;
use crate::output::{self, JsonSink};
use crate::report::{Setup, group, time};
use crate::step::{Step, Steps, Verdict};

/// Names the meaning of the fields below.
const SCHEMA: &str = "corecast-loadgen-knee/1";

/// What a run at some rate said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Under the bound.
    Under,
    /// Over it, or more than the server takes.
    Over,
    /// The generator fell behind: nobody knows.
    Unknown,
}

impl Probe {
    fn of(step: &Step, bound: Duration) -> Self {
        match (step.verdict, step.response_ns) {
            (Verdict::Valid, Some(response)) if u128::from(response.p99) <= bound.as_nanos() => Self::Under,
            // A server that does not take what is due is over, whoever was late besides.
            (Verdict::Invalid, _) if step.unsent == 0 => Self::Unknown,
            _ => Self::Over,
        }
    }
}

/// Where to look, and how hard.
#[derive(Clone, Copy, Debug)]
struct Terms {
    from: f64,
    to: f64,
    /// The part of the rate that the two ends may be apart.
    precision: f64,
    confirmations: u32,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Knee {
    /// The highest rate that stayed under the bound. Nothing: even the lowest did not.
    rate: Option<f64>,
    /// The lowest rate above it that did not. Nothing: the highest did.
    over: Option<f64>,
    /// Whether the generator is why there is no more, and not the server.
    generator_limited: bool,
}

/// Times that a run is found to have been lucky or unlucky, before what stands is the answer.
const MOST_DOUBTS: u32 = 8;

/// Finds the knee by asking `probe`.
fn search<E>(terms: Terms, mut probe: impl FnMut(f64) -> Result<Probe, E>) -> Result<Knee, E> {
    // Rates that were under, the highest last; rates that were not, the lowest last, and what was said of them.
    let (mut under, mut over): (Vec<f64>, Vec<(f64, Probe)>) = (Vec::new(), Vec::new());
    let (mut confirmed, mut doubts, mut back) = (Vec::new(), 0, terms.precision);
    loop {
        let rate = match (under.last(), over.last()) {
            (None, None) => Some(terms.from),
            (Some(&low), None) => Some(terms.to).filter(|to| low < *to),
            (Some(&low), Some(&(high, _))) => Some(f64::sqrt(low * high)).filter(|_| high > low * (1.0 + terms.precision)),
            (None, Some(_)) => None,
        };
        if let Some(rate) = rate {
            match probe(rate)? {
                Probe::Under => under.push(rate),
                said => over.push((rate, said)),
            }
            continue;
        }
        // Both ends of what is left are asked about again, each once.
        let low = under.last().map(|&rate| (rate, Probe::Under));
        let doubted = [low, over.last().copied()].into_iter().flatten().find(|(rate, _)| !confirmed.contains(rate));
        let Some((rate, first)) = doubted.filter(|_| doubts < MOST_DOUBTS) else { break };
        let most = if terms.confirmations == 0 { first } else { majority(terms, rate, first, &mut probe)? };
        match (first, most) {
            (Probe::Under, Probe::Under) => confirmed.push(rate),
            (Probe::Under, said) => {
                // It was luck, and so may be what was just below it: each time this happens, more of that is looked at again.
                under.pop();
                over.push((rate, said));
                while under.len() > 1 && under.last().is_some_and(|below| *below > rate / (1.0 + back)) {
                    under.pop();
                }
                (doubts, back) = (doubts + 1, back * 2.0);
            }
            (_, Probe::Under) => {
                over.pop();
                under.push(rate);
                doubts += 1;
            }
            (_, _) => confirmed.push(rate),
        }
    }
    let generator_limited = over.last().is_some_and(|(_, said)| *said == Probe::Unknown);
    Ok(Knee { rate: under.last().copied(), over: over.last().map(|(rate, _)| *rate), generator_limited })
}

/// What most further runs say of a rate of which one has said something: that one was chosen because it said so, and does not count. Half
/// of them are not enough for it to be under. Asks no more than it takes.
fn majority<E>(terms: Terms, rate: f64, first: Probe, probe: &mut impl FnMut(f64) -> Result<Probe, E>) -> Result<Probe, E> {
    let (mut under, mut not, mut said) = (0, 0, first);
    while 2 * under <= terms.confirmations && 2 * not < terms.confirmations {
        match probe(rate)? {
            Probe::Under => under += 1,
            other => (not, said) = (not + 1, other),
        }
    }
    Ok(if 2 * under > terms.confirmations { Probe::Under } else { said })
}

/// The answer, in JSON.
#[derive(Serialize)]
struct Answer {
    schema: &'static str,
    command: Vec<String>,
    /// Of the first run: the rate is each step's own.
    setup: Option<Setup>,
    duration_s: f64,
    bound_ns: u64,
    precision: f64,
    confirmations: u32,
    #[serde(flatten)]
    knee: Knee,
    steps: Vec<Step>,
    machine: Machine,
}

/// Looks for the knee, and says where it is.
pub(crate) fn main(args: &KneeArgs) -> Result<(), Error> {
    let load = &args.stepped.load;
    let (json, html) = (JsonSink::open_some(load.json.as_ref())?, JsonSink::open_some(load.view.html.as_ref())?);
    let shown = ![&json, &html].into_iter().flatten().any(JsonSink::is_stdout);
    let mut steps = Steps::new(&args.stepped, shown)?;
    let terms = Terms { from: args.stepped.from, to: args.stepped.to, precision: args.precision, confirmations: args.confirm };
    let knee = search(terms, |rate| steps.run(rate).map(|step| Probe::of(step, args.p99)))?;
    let found = knee.rate.is_some() && !steps.went_wrong();
    let bound_ns = u64::try_from(args.p99.as_nanos()).unwrap_or(u64::MAX);
    if shown {
        output::print(format_args!("  {}\n", verdict(&knee, bound_ns)))?;
    }
    let Terms { precision, confirmations, .. } = terms;
    let (command, duration_s) = (std::env::args().collect(), load.duration.as_secs_f64());
    let Steps { setup, done: steps, machine, .. } = steps;
    let answer = Answer { schema: SCHEMA, command, setup, duration_s, bound_ns, precision, confirmations, knee, steps, machine };
    if let Some(sink) = json {
        sink.write(&answer)?;
    }
    if let Some(sink) = html {
        sink.write_text(&html::staircase(&answer))?;
    }
    if found { Ok(()) } else { Err(Error::NoAnswer) }
}

fn verdict(knee: &Knee, bound_ns: u64) -> String {
    let bound = time(bound_ns);
    let per_s = |rate: f64| format!("{} messages a second", group(rate.round() as u64));
    let why = if knee.generator_limited { "the generator falls behind, see its lag" } else { "it is over" };
    match *knee {
        Knee { rate: Some(rate), over: Some(over), .. } => {
            format!("knee: {}, p99 under {bound}; at {} {why}", per_s(rate), group(over.round() as u64))
        }
        Knee { rate: Some(rate), over: None, .. } => format!("no knee: p99 is under {bound} at {} too, raise --to", per_s(rate)),
        Knee { rate: None, over, .. } => {
            format!("no knee: already at {} {why}: lower --from, or raise --p99 above {bound}", per_s(over.unwrap_or(0.0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const TERMS: Terms = Terms { from: 100.0, to: 1_000_000.0, precision: 0.05, confirmations: 3 };

    /// Asks a model, and says how often it was asked.
    fn asked(terms: Terms, mut model: impl FnMut(f64, u32) -> Probe) -> (Knee, u32) {
        let mut runs = 0;
        let found = search::<Infallible>(terms, |rate| {
            runs += 1;
            assert!(runs < 500, "it never ends");
            Ok(model(rate, runs))
        });
        let Ok(knee) = found;
        (knee, runs)
    }

    /// A server of a queue: response times grow as its capacity comes near, and from there without bound.
    fn queue(capacity: f64, bound: f64) -> impl Fn(f64, u32) -> Probe {
        move |rate, _| {
            let p99 = if rate < capacity { 100e-6 / (1.0 - rate / capacity) } else { f64::INFINITY };
            if p99 <= bound { Probe::Under } else { Probe::Over }
        }
    }

    #[test]
    fn the_knee_of_a_queue_is_found_within_the_precision() {
        for capacity in [1_000.0, 54_321.0, 700_000.0] {
            // 100 us / (1 - rate / capacity) is a millisecond at nine tenths of the capacity.
            let (Knee { rate, over, generator_limited }, runs) = asked(TERMS, queue(capacity, 1e-3));
            let (rate, over, exact) = (rate.expect("there is one"), over.expect("there is one"), capacity * 0.9);
            assert!(rate <= exact && exact < over && over <= rate * 1.05 && !generator_limited, "{rate} {exact} {over}");
            // Of 190 rates that are 5 % apart a bisection asks for eight. The ends are besides, and what is left is asked about again.
            assert!(runs <= 2 + 8 + 4, "{runs} runs");
        }
    }

    #[test]
    fn a_knee_that_is_not_between_the_ends_is_not_made_up() {
        assert_eq!(asked(TERMS, queue(1e9, 1e-3)).0, Knee { rate: Some(1_000_000.0), over: None, generator_limited: false });
        assert_eq!(asked(TERMS, queue(50.0, 1e-3)).0, Knee { rate: None, over: Some(100.0), generator_limited: false });
    }

    #[test]
    fn one_lucky_or_unlucky_run_does_not_matter() {
        let honest = queue(10_000.0, 1e-3);
        for wrong in 1..20 {
            let (knee, _) = asked(TERMS, |rate, run| match honest(rate, run) {
                Probe::Under if run == wrong => Probe::Over,
                Probe::Over if run == wrong => Probe::Under,
                said => said,
            });
            let (rate, over) = (knee.rate.expect("there is one"), knee.over.expect("there is one"));
            assert!(rate <= 9_000.0 && 9_000.0 < over && over <= rate * 1.05, "run {wrong}: {knee:?}");
        }
    }

    #[test]
    fn a_server_that_is_disturbed_all_the_time_is_not_far_off() {
        // One run in five is disturbed and says over, whatever the rate.
        for offset in 0..5 {
            let honest = queue(10_000.0, 1e-3);
            let (knee, _) = asked(TERMS, |rate, run| if (run + offset) % 5 == 0 { Probe::Over } else { honest(rate, run) });
            assert!(knee.rate.is_some_and(|rate| (8_000.0..=9_000.0).contains(&rate)), "{offset}: {knee:?}");
        }
    }

    #[test]
    fn a_generator_that_falls_behind_is_named() {
        // The server has its knee at 90,000, the generator gives up at 20,000.
        let honest = queue(100_000.0, 1e-3);
        let (knee, _) = asked(TERMS, |rate, run| if rate > 20_000.0 { Probe::Unknown } else { honest(rate, run) });
        assert!(knee.generator_limited && knee.rate.is_some_and(|rate| (19_000.0..=20_000.0).contains(&rate)), "{knee:?}");
        assert!(verdict(&knee, 1_000_000).contains("generator"), "{}", verdict(&knee, 1_000_000));
    }

    #[test]
    fn confirmations_can_be_left_out() {
        let (knee, runs) = asked(Terms { confirmations: 0, ..TERMS }, queue(54_321.0, 1e-3));
        assert!(knee.rate.is_some() && runs <= 2 + 8, "{knee:?} {runs}");
    }
}
