//! What a run comes to: the figures, as JSON and as a short table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::machine::Machine;
use crate::measure::percentiles;

/// Names the meaning of the fields below. A change of meaning changes the number.
pub(crate) const SCHEMA: &str = "corecast-loadgen/2";

/// Nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latency {
    pub(crate) fn new([p50, p90, p99, p999, max]: [u64; 5]) -> Self {
        Self { p50, p90, p99, p999, max }
    }

    /// Nothing where nothing was recorded.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self::new(percentiles(histogram)))
    }
}

/// One run of one workload.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: &'static str,
    #[serde(flatten)]
    pub(crate) setup: Setup,
    pub(crate) connect_s: f64,
    /// Failed attempts to connect that were repeated.
    pub(crate) connect_failures: BTreeMap<String, u64>,
    #[serde(flatten)]
    pub(crate) verified: Verified,
    #[serde(flatten)]
    pub(crate) measured: Measured,
    /// A signal ended the measurement early.
    pub(crate) interrupted: bool,
    /// Everything that the server counted, whatever is not zero. Nothing where it is another process: see its `--stats-json`.
    pub(crate) server_counters: Option<BTreeMap<&'static str, u64>>,
    pub(crate) machine: Machine,
}

/// What was run.
#[derive(Debug, Serialize)]
pub(crate) struct Setup {
    pub(crate) workload: &'static str,
    /// `embedded`, or the target's address.
    pub(crate) server: String,
    /// Peers as asked for: fan-out has one publisher besides.
    pub(crate) peers: u32,
    pub(crate) size: usize,
    /// Closed loop only.
    pub(crate) in_flight: Option<u32>,
    /// Open loop only: messages a second.
    pub(crate) rate: Option<f64>,
    /// Processors that the cores were pinned to. Nothing where they were not, or in another process.
    pub(crate) server_cores: Option<Vec<usize>>,
    pub(crate) client_cores: Option<Vec<usize>>,
    pub(crate) spin_us: Option<u64>,
}

/// The whole run, with its warm-up and its drain: all of it is verified.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    /// Messages that the client's engines took, warm-up included.
    pub(crate) total_sent: u64,
    /// Open loop: messages that were due and could not be sent, because the server did not take them. Their latency is in no figure.
    pub(crate) unsent: u64,
    /// Messages that arrived, each counted once at each receiver, warm-up and drain included.
    pub(crate) total_delivered: u64,
    /// Deliveries that `total_sent` should have led to, less `total_delivered`.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupt: u64,
    /// Peers that ended during the run.
    pub(crate) disconnected: u64,
    pub(crate) disconnect_reasons: BTreeMap<String, u64>,
}

/// The measured part of the run. Each rate is a count divided by `elapsed_s`.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) elapsed_s: f64,
    /// Messages that were sent in it.
    pub(crate) sent: u64,
    /// Messages that arrived in it, at each receiver; what was under way when it began or ended makes the difference.
    pub(crate) delivered: u64,
    /// `sent` a second.
    pub(crate) msgs_per_s: f64,
    /// `delivered` a second.
    pub(crate) deliveries_per_s: f64,
    /// From when a message was sent (with a rate: was due) to its arrival. Flood: at the server, where its clock is the client's.
    pub(crate) latency_ns: Option<Latency>,
    /// Closed-loop fan-out: from when a broadcast was sent to its arrival at the last subscriber.
    pub(crate) completion_ns: Option<Latency>,
    /// Open loop: how late the generator itself was.
    pub(crate) send_lag_ns: Option<Latency>,
    pub(crate) server_cpu_ns_per_delivery: Option<f64>,
    /// Processors that the server kept busy.
    pub(crate) server_cpus_used: Option<f64>,
    /// Processors that it would have used besides, had nobody else run there. More than a few hundredths: measure again.
    pub(crate) server_cpus_waited: Option<f64>,
}

impl Verified {
    /// Whether everything that was sent arrived once, in order and undamaged, and that was not nothing.
    fn passed(&self) -> bool {
        let wrong = [self.lost, self.duplicated, self.reordered, self.corrupt, self.disconnected];
        self.total_delivered > 0 && wrong.iter().all(|count| *count == 0)
    }
}

impl Report {
    pub(crate) fn passed(&self) -> bool {
        self.verified.passed()
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receivers = if self.workload == "fanout" { "subscriber" } else { "peer" };
        let plural = if self.peers == 1 { "" } else { "s" };
        write!(f, "{}: {} {receivers}{plural}, {} bytes", self.workload, group(u64::from(self.peers)), group(self.size as u64))?;
        match (self.in_flight, self.rate) {
            (Some(in_flight), _) => write!(f, ", {in_flight} in flight"),
            (None, Some(rate)) => write!(f, ", {rate} a second"),
            (None, None) => f.write_str(", as fast as it goes"),
        }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = format!("{} lost, {} duplicated, {} reordered, {} corrupt", self.lost, self.duplicated, self.reordered, self.corrupt);
        let counts = format!("{} sent, {} delivered, with warm-up and drain", group(self.total_sent), group(self.total_delivered));
        row(f, "whole run", &counts)?;
        row(f, "verified", &format!("{wrong}{}", if self.passed() { "" } else { "   FAILED" }))?;
        if self.unsent > 0 {
            row(f, "NOT SENT", &format!("{} were due, but the server did not keep up: latencies are too good", group(self.unsent)))?;
        }
        for (reason, count) in &self.disconnect_reasons {
            row(f, "disconnected", &format!("{count} x {reason}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "measured", &format!("{} sent, {} delivered in {:.2} s", group(self.sent), group(self.delivered), self.elapsed_s))?;
        row(f, "rate", &format!("{} deliveries/s, {} messages/s", group(self.deliveries_per_s as u64), group(self.msgs_per_s as u64)))?;
        for (name, latency) in [("latency", self.latency_ns), ("last of all", self.completion_ns), ("sent late by", self.send_lag_ns)] {
            if let Some(latency) = latency {
                row(f, name, &percentile_text(&latency))?;
            }
        }
        if let (Some(cpu), Some(used)) = (self.server_cpu_ns_per_delivery, self.server_cpus_used) {
            row(f, "server CPU", &format!("{} per delivery, {used:.2} processors busy", time(cpu as u64)))?;
        }
        if let Some(waited) = self.server_cpus_waited.filter(|waited| *waited > 0.05) {
            row(f, "NOT ALONE", &format!("the server waited for {waited:.2} processors: rates are too low, latencies too high"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interrupted = if self.interrupted { " (interrupted)" } else { "" };
        writeln!(f, "{}{interrupted}", self.setup)?;
        write!(f, "{}{}", self.measured, self.verified)?;
        if !self.passed() {
            for (name, count) in self.server_counters.iter().flatten().filter(|(name, _)| tells_why(name)) {
                row(f, "server says", &format!("{name} {count}"))?;
            }
        }
        Ok(())
    }
}

/// Whether a counter's name says that something was refused, cut off or thrown away.
fn tells_why(counter: &str) -> bool {
    let parts = ["closed_", "violation_", "refused", "dropped", "timed_out", "errors"];
    parts.iter().any(|part| counter.contains(part))
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {name:<13}{text}")
}

fn percentile_text(latency: &Latency) -> String {
    let named = [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("p99.9", latency.p999), ("max", latency.max)];
    named.map(|(name, value)| format!("{name} {}", time(value))).join("   ")
}

/// Three significant digits and a unit.
fn time(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// Thousands set apart.
pub(crate) fn group(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Reasons and how often, the most frequent first, for a one-line message.
pub(crate) fn reasons_text(reasons: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = reasons.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1));
    let mut out = String::new();
    for (reason, count) in sorted.into_iter().take(5) {
        let _ = write!(out, "; {count} x {reason}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0, 999, 1000, 1_234_567].map(group), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1_000, 12_340, 123_400_000, 2_000_000_000].map(time), ["999 ns", "1.00 us", "12.3 us", "123 ms", "2.00 s"]);
    }
}
