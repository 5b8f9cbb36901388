//! A staircase of rates: how response times grow with what is offered, and where the server or the generator gives up.

use serde::Serialize;

use crate::cli::SweepArgs;
use crate::error::Error;
use crate::html;
use crate::machine::Machine;
use crate::output::JsonSink;
use crate::report::Setup;
use crate::step::{Step, Steps, Verdict};

/// Names the meaning of the fields below.
const SCHEMA: &str = "corecast-loadgen-sweep/1";

/// All steps, in JSON.
#[derive(Serialize)]
struct Sweep {
    schema: &'static str,
    command: Vec<String>,
    /// Of the first step: the rate is each step's own.
    setup: Option<Setup>,
    duration_s: f64,
    steps: Vec<Step>,
    machine: Machine,
}

/// Runs at each rate.
pub(crate) fn main(args: &SweepArgs) -> Result<(), Error> {
    let load = &args.stepped.load;
    let (json, html) = (JsonSink::open_some(load.json.as_ref())?, JsonSink::open_some(load.view.html.as_ref())?);
    let mut steps = Steps::new(&args.stepped, ![&json, &html].into_iter().flatten().any(JsonSink::is_stdout))?;
    for rate in rates(args.stepped.from, args.stepped.to, args.steps, args.geometric) {
        steps.run(rate)?;
    }
    let wrong = steps.went_wrong() || !steps.done.iter().any(|step| step.verdict == Verdict::Valid);
    let (command, duration_s) = (std::env::args().collect(), load.duration.as_secs_f64());
    let sweep = Sweep { schema: SCHEMA, command, setup: steps.setup, duration_s, steps: steps.done, machine: steps.machine };
    if let Some(sink) = json {
        sink.write(&sweep)?;
    }
    if let Some(sink) = html {
        sink.write_text(&html::staircase(&sweep))?;
    }
    if wrong { Err(Error::NoAnswer) } else { Ok(()) }
}

/// From the lowest to the highest, both among them.
fn rates(from: f64, to: f64, steps: u32, geometric: bool) -> Vec<f64> {
    let part = |step: u32| f64::from(step) / f64::from(steps - 1);
    let rate = |step: u32| match step {
        // The last one is what was asked for, and not what rounding makes of it.
        _ if step + 1 == steps => to,
        _ if geometric => from * (to / from).powf(part(step)),
        _ => from + (to - from) * part(step),
    };
    (0..steps).map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staircase_has_both_ends_and_even_steps() {
        assert_eq!(rates(100.0, 500.0, 5, false), [100.0, 200.0, 300.0, 400.0, 500.0]);
        let geometric = rates(1.0, 10_000.0, 5, true);
        assert_eq!((geometric[0], geometric[4]), (1.0, 10_000.0));
        assert!(geometric.windows(2).all(|pair| (pair[1] / pair[0] - 10.0).abs() < 1e-9), "{geometric:?}");
        assert_eq!(rates(1.0, 3.0, 2, false), [1.0, 3.0]);
    }
}
