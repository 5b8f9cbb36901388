//! The report: a Markdown table for people, JSON with every round for programs.

use std::fmt::Write;

use serde::Serialize;

use super::{RowOutcome, RunConfig};
use crate::client::Load;
use crate::client::meter::Figures;
use crate::machine;
use crate::stats::{self, Estimate};

/// A contestant that beats the limit by more than this shows that it is none.
const LIMIT_MARGIN: f64 = 1.05;

/// One figure over all rounds. Ratios are per pair, and above 1 the other one, corecast, is better.
#[derive(Serialize)]
struct Measure {
    bare: Option<Estimate>,
    other: Option<Estimate>,
    ratio: Option<Estimate>,
}

impl Measure {
    fn rising(outcome: &RowOutcome, figure: impl Fn(&Figures) -> f64) -> Self {
        Self::new(outcome, &figure, |bare, other| other / bare)
    }

    fn falling(outcome: &RowOutcome, figure: impl Fn(&Figures) -> f64) -> Self {
        Self::new(outcome, &figure, |bare, other| bare / other)
    }

    fn new(outcome: &RowOutcome, figure: &impl Fn(&Figures) -> f64, ratio: impl Fn(f64, f64) -> f64) -> Self {
        let bare: Vec<f64> = outcome.bare.iter().map(figure).collect();
        let other: Vec<f64> = outcome.other.iter().map(figure).collect();
        let ratios: Vec<f64> = bare.iter().zip(&other).map(|(&bare, &other)| ratio(bare, other)).collect();
        Self { bare: stats::estimate(&bare), other: stats::estimate(&other), ratio: stats::estimate(&ratios) }
    }
}

#[derive(Serialize)]
struct RowReport<'a> {
    name: String,
    load: Load,
    body_len: usize,
    poll: &'static str,
    failure: Option<&'a str>,
    deliveries_per_second: Measure,
    p50_ns: Measure,
    p99_ns: Measure,
    server_cpu_ns_per_delivery: Measure,
    client_cpu_ns_per_delivery: Measure,
    bare_rounds: &'a [Figures],
    other_rounds: &'a [Figures],
}

/// All that a run found out.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    machine: String,
    rounds: usize,
    warmup_seconds: f64,
    measure_seconds: f64,
    client_poll: &'static str,
    /// Who is compared with bare.
    other: Option<&'static str>,
    rows: Vec<RowReport<'a>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(config: &RunConfig, other: Option<&'static str>, outcomes: &'a [RowOutcome]) -> Self {
        Self {
            machine: machine::describe(),
            rounds: config.rounds,
            warmup_seconds: config.warmup.as_secs_f64(),
            measure_seconds: config.measure.as_secs_f64(),
            client_poll: config.client_poll.name(),
            other,
            rows: outcomes.iter().map(row_report).collect(),
        }
    }

    /// Whether every row ran to its end without a fault.
    pub(super) fn valid(&self) -> bool {
        self.rows.iter().all(|row| row.failure.is_none())
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data always serialises")
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_preface(&mut text).and_then(|()| self.write_rows(&mut text)).expect("writing to a string");
        text
    }

    fn write_preface(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "Machine: {}.\n", self.machine)?;
        writeln!(
            text,
            "{} {} of {} s after {} s of warm-up; server and client on a core each, loopback; the client polls: {}. All figures are \
             medians over the rounds. Rate: deliveries (echo: answers) per second. Latency: echo, round trip; fan-out, until the last \
             peer has it. CPU: server CPU time per delivery (means nothing while spinning). In brackets: the interval that holds the \
             median with at least 95 % (sign test; with fewer than 6 rounds it is the whole range).",
            self.rounds,
            if self.other.is_some() { "interleaved pairs of runs" } else { "runs" },
            self.measure_seconds,
            self.warmup_seconds,
            self.client_poll,
        )?;
        if let Some(other) = self.other {
            writeln!(text, "Ratios are per pair; above 1 {other} is better.")?;
        }
        writeln!(text)
    }

    fn write_rows(&self, text: &mut String) -> std::fmt::Result {
        if let Some(other) = self.other {
            let head = ["rate bare".into(), format!("rate {other}"), "ratio".into()].into_iter();
            let pairs = ["p50", "p99", "CPU"].into_iter().flat_map(|name| [format!("{name} bare / {other}"), "ratio".into()]);
            writeln!(text, "| row | {} |", head.chain(pairs).collect::<Vec<String>>().join(" | "))?;
            text.push_str("|---|---:|---:|---|---:|---|---:|---|---:|---|\n");
        } else {
            text.push_str(
                "| row | rate | p50 | p99 | server CPU per delivery | client CPU per delivery |\n|---|---:|---:|---:|---:|---:|\n",
            );
        }
        for row in &self.rows {
            if let Some(failure) = row.failure {
                writeln!(text, "| {} | **FAILED**: {failure} |", row.name)?;
            } else if self.other.is_some() {
                row.write_pair(text)?;
            } else {
                row.write_bare(text)?;
            }
        }
        for row in self.rows.iter().filter(|row| row.failure.is_none()) {
            row.write_remarks(text)?;
        }
        let foreign = self.rows.iter().flat_map(|row| row.bare_rounds.iter().chain(row.other_rounds)).map(|figures| figures.foreign_cores);
        if let Some(foreign) = stats::estimate(&foreign.collect::<Vec<_>>()) {
            writeln!(text, "\nCPU of other programs during the runs: median {:.2} cores.", foreign.median)?;
        }
        Ok(())
    }
}

fn row_report(outcome: &RowOutcome) -> RowReport<'_> {
    RowReport {
        name: outcome.row.name(),
        load: outcome.row.load,
        body_len: outcome.row.body_len,
        poll: outcome.row.poll.name(),
        failure: outcome.failure.as_deref(),
        deliveries_per_second: Measure::rising(outcome, |figures| figures.deliveries_per_second),
        p50_ns: Measure::falling(outcome, |figures| figures.p50_ns as f64),
        p99_ns: Measure::falling(outcome, |figures| figures.p99_ns as f64),
        server_cpu_ns_per_delivery: Measure::falling(outcome, |figures| figures.server_cpu_ns_per_delivery),
        client_cpu_ns_per_delivery: Measure::falling(outcome, |figures| figures.client_cpu_ns_per_delivery),
        bare_rounds: &outcome.bare,
        other_rounds: &outcome.other,
    }
}

impl RowReport<'_> {
    fn write_pair(&self, text: &mut String) -> std::fmt::Result {
        let (rate, cpu) = (&self.deliveries_per_second, &self.server_cpu_ns_per_delivery);
        let both = |measure: &Measure, show: fn(f64) -> String| format!("{} / {}", middle(measure.bare, show), middle(measure.other, show));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            middle(rate.bare, thousands),
            middle(rate.other, thousands),
            interval(rate.ratio, ratio),
            both(&self.p50_ns, micros),
            interval(self.p50_ns.ratio, ratio),
            both(&self.p99_ns, micros),
            interval(self.p99_ns.ratio, ratio),
            both(cpu, nanos),
            interval(cpu.ratio, ratio),
        )
    }

    fn write_bare(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            self.name,
            interval(self.deliveries_per_second.bare, thousands),
            middle(self.p50_ns.bare, micros),
            middle(self.p99_ns.bare, micros),
            interval(self.server_cpu_ns_per_delivery.bare, nanos),
            middle(self.client_cpu_ns_per_delivery.bare, nanos),
        )
    }

    /// Where the limit was beaten it is not one, and a blocking server's CPU says more than a spinning one's.
    fn write_remarks(&self, text: &mut String) -> std::fmt::Result {
        let cpu = (self.poll == "block").then_some(("server CPU", self.server_cpu_ns_per_delivery.ratio));
        let figures = [Some(("rate", self.deliveries_per_second.ratio)), cpu];
        for (figure, estimate) in figures.into_iter().flatten() {
            if estimate.is_some_and(|estimate| estimate.coverage >= 0.95 && estimate.low > LIMIT_MARGIN) {
                writeln!(text, "\n**{}: bare is beaten by more than 5 % in {figure}, so it is not a limit here.**", self.name)?;
            }
        }
        Ok(())
    }
}

fn middle(estimate: Option<Estimate>, show: fn(f64) -> String) -> String {
    estimate.map_or_else(|| "-".into(), |estimate| show(estimate.median))
}

fn interval(estimate: Option<Estimate>, show: fn(f64) -> String) -> String {
    estimate.map_or_else(|| "-".into(), |estimate| format!("{} [{}, {}]", show(estimate.median), show(estimate.low), show(estimate.high)))
}

fn ratio(value: f64) -> String {
    format!("{value:.3}")
}

fn nanos(value: f64) -> String {
    format!("{value:.0} ns")
}

fn micros(nanos: f64) -> String {
    format!("{:.1} us", nanos / 1e3)
}

fn thousands(value: f64) -> String {
    format!("{:.1} k", value / 1e3)
}
