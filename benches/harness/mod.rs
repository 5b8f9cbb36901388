//! How the benches measure.
//!
//! Each case is run often enough for a sample to take some milliseconds, and sampled some dozen times; the median is printed, with the
//! fastest sample and the ninth decile beside it. `--quick` takes fewer, shorter samples: whether it works, not how fast it is. A
//! word on the command line runs the cases whose name contains it.
//!
//! `--count` runs each case a fixed number of times and measures nothing, for instruction counts, which two noisy cores do not blur:
//!
//! ```text
//! cargo bench --features bench-internals --no-run
//! valgrind --tool=callgrind --toggle-collect='*counted*' target/release/deps/fanout-<hash> --count 1000-peers
//! ```
//!
//! Only what runs inside `counted` is collected then: the case, warm, and not its set-up.

#![allow(dead_code, reason = "each bench is a crate of its own and uses a part")]

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Runs of a case for `--count`.
const COUNTED: u64 = 10;

/// What was asked for on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Full,
    Quick,
    Count,
}

/// One bench's cases.
pub(crate) struct Bench {
    mode: Mode,
    filter: Vec<String>,
}

impl Bench {
    /// From the command line. `--bench` comes from cargo.
    pub(crate) fn new(title: &str) -> Self {
        let (mut mode, mut filter) = (Mode::Full, Vec::new());
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--bench" => {}
                "--quick" => mode = Mode::Quick,
                "--count" => mode = Mode::Count,
                unknown if unknown.starts_with('-') => {
                    eprintln!("unknown argument {unknown}; known: --quick, --count, and words that the cases' names contain");
                    std::process::exit(2);
                }
                word => filter.push(word.to_owned()),
            }
        }
        println!("{title}");
        Self { mode, filter }
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.mode != Mode::Full
    }

    /// Whether instructions are counted, not time.
    pub(crate) fn is_counting(&self) -> bool {
        self.mode == Mode::Count
    }

    /// Whether the case was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| name.contains(word.as_str()))
    }

    /// Measures `run`, which does `units` of something, and prints what one of them takes.
    pub(crate) fn case(&self, name: &str, units: u64, unit: &str, mut run: impl FnMut()) {
        if !self.wants(name) {
            return;
        }
        run();
        if self.mode == Mode::Count {
            counted(&mut run);
            println!("  {name}: {COUNTED} runs, each {units} times a {unit}");
            return;
        }
        let (sample, samples) = if self.is_quick() { (Duration::from_millis(1), 5) } else { (Duration::from_millis(10), 51) };
        let times = calibrate(sample, &mut run);
        let mut nanos: Vec<f64> = (0..samples).map(|_| time(times, &mut run).as_nanos() as f64 / (times * units) as f64).collect();
        nanos.sort_by(f64::total_cmp);
        let at = |part: f64| nanos[((nanos.len() - 1) as f64 * part) as usize];
        println!("  {name:<48} {:>10} a {unit:<9} (fastest {}, 90 % {})", human(at(0.5)), human(at(0.0)), human(at(0.9)));
    }
}

/// How often `run` has to be called for a sample to take as long as it should.
fn calibrate(sample: Duration, run: &mut impl FnMut()) -> u64 {
    let mut times = 1;
    loop {
        let took = time(times, run);
        if took >= sample / 2 {
            return (times as f64 * sample.as_secs_f64() / took.as_secs_f64()).ceil() as u64;
        }
        times *= 2;
    }
}

fn time(times: u64, run: &mut impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        run();
    }
    black_box(began.elapsed())
}

/// What callgrind collects.
#[inline(never)]
fn counted(run: &mut impl FnMut()) {
    for _ in 0..COUNTED {
        run();
    }
}

/// Nanoseconds in a unit that suits them.
pub(crate) fn human(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{n:.1} ns"),
        n if n < 1e6 => format!("{:.2} us", n / 1e3),
        n => format!("{:.2} ms", n / 1e6),
    }
}
