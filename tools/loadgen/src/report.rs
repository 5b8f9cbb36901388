//! What a run comes to: the figures, as JSON and as a short table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::acked::Terms;
use crate::machine::Machine;
use crate::measure::{Condition, percentiles};
use crate::outcome::{Total, per_second};
use crate::probe::Counters;
use crate::run::Phases;
use crate::spec::Spec;
use crate::workload::{Bulk, Subscriptions};

/// Names the meaning of the fields below. A change of meaning changes the number.
pub(crate) const SCHEMA: &str = "corecast-loadgen/3";

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
    pub(crate) figures: Figures,
    /// A signal ended the measurement early.
    pub(crate) interrupted: bool,
    /// Everything that the server counted, whatever is not zero. Nothing where it is another process: see its `--stats-json`.
    pub(crate) server_counters: Option<Counters>,
    pub(crate) machine: Machine,
}

/// What was measured: once, or under two conditions that took turns.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    One(Measured),
    Mixed {
        rounds: u32,
        without_bulk: Measured,
        with_bulk: Measured,
        bulk: BulkFigures,
    },
    Receipts {
        #[serde(flatten)]
        measured: Measured,
        receipts: ReceiptFigures,
    },
    Topics {
        #[serde(flatten)]
        measured: Measured,
        topics: TopicFigures,
    },
    SlowReaders {
        rounds: u32,
        undisturbed: Measured,
        disturbed: Measured,
        /// `deliveries_per_s` of the second by that of the first; nothing where the first is zero.
        rate_ratio: Option<f64>,
        slow: SlowFigures,
    },
}

/// The bulk lane of a mixed run.
#[derive(Debug, Serialize)]
pub(crate) struct BulkFigures {
    pub(crate) size: usize,
    /// Messages that each peer had asked for and not received.
    pub(crate) ahead: u32,
    /// The server's, where the command line says it.
    pub(crate) notsent_lowat: Option<u32>,
    /// The client's, likewise.
    pub(crate) receive_buffer: Option<usize>,
    /// Messages that arrived in the phases that had bulk.
    pub(crate) delivered: u64,
    pub(crate) deliveries_per_s: f64,
    pub(crate) bytes_per_s: f64,
}

/// What became of acknowledged broadcasts.
#[derive(Debug, Serialize)]
pub(crate) struct ReceiptFigures {
    /// So many acknowledgements make a quorum.
    pub(crate) quorum: u32,
    pub(crate) deadline_s: f64,
    /// Broadcasts that every peer has acknowledged, warm-up and drain included.
    pub(crate) complete: u64,
    /// All others.
    pub(crate) incomplete: u64,
    pub(crate) incomplete_reasons: BTreeMap<String, u64>,
    /// From the broadcast to the first acknowledgement, by the server's engine; of those receipts that came in the measured time.
    pub(crate) first_ns: Option<Latency>,
    /// To the one that made the quorum.
    pub(crate) quorum_ns: Option<Latency>,
    /// To the last.
    pub(crate) last_ns: Option<Latency>,
}

/// What was subscribed to.
#[derive(Debug, Serialize)]
pub(crate) struct TopicFigures {
    /// How many topics there are.
    pub(crate) count: u32,
    /// How many of them each peer had subscribed to.
    pub(crate) per_peer: u32,
    /// How many peers had subscribed to each, at the fewest and at the most.
    pub(crate) subscribers_min: u64,
    pub(crate) subscribers_max: u64,
}

/// The subscribers that stopped reading.
#[derive(Debug, Serialize)]
pub(crate) struct SlowFigures {
    /// So many of the subscribers in each round.
    pub(crate) readers: u32,
    /// When a server in this process cuts them off. Nothing: as the library does, or as the target was told.
    pub(crate) notsent_lowat: Option<u32>,
    pub(crate) outbox_soft: Option<usize>,
    pub(crate) outbox_hard: Option<usize>,
    pub(crate) soft_grace_s: Option<f64>,
    pub(crate) write_stall_s: Option<f64>,
    /// Messages that they received while they read.
    pub(crate) total_delivered: u64,
    /// Of all rounds.
    pub(crate) stopped: u64,
    /// Those that the server cut off before their phase had ended.
    pub(crate) cut_off: u64,
    /// By the server's counter of the reason.
    pub(crate) cut_off_reasons: Counters,
}

impl Figures {
    pub(crate) fn of(spec: &Spec, total: &Total, phases: &Phases) -> Self {
        let [undisturbed, disturbed] = Condition::BOTH.map(|condition| total.measured(spec.kind, condition, phases));
        let Some(rounds) = spec.rounds else { return Self::of_one_phase(spec, total, undisturbed) };
        if let Some(Bulk { size, ahead }) = spec.bulk {
            let (delivered, elapsed_ns) = total.bulk();
            let deliveries_per_s = per_second(delivered, elapsed_ns);
            let bytes_per_s = deliveries_per_s * size as f64;
            let notsent_lowat = spec.tuning.notsent_lowat;
            let bulk =
                BulkFigures { size, ahead, notsent_lowat, receive_buffer: spec.receive_buffer, delivered, deliveries_per_s, bytes_per_s };
            return Self::Mixed { rounds, without_bulk: undisturbed, with_bulk: disturbed, bulk };
        }
        let tuning = &spec.tuning.slow_peers;
        let slow = SlowFigures {
            readers: spec.slow,
            notsent_lowat: spec.tuning.notsent_lowat,
            outbox_soft: tuning.outbox_soft,
            outbox_hard: tuning.outbox_hard,
            soft_grace_s: tuning.soft_grace.map(|grace| grace.as_secs_f64()),
            write_stall_s: tuning.write_stall.map(|stall| stall.as_secs_f64()),
            total_delivered: total.slow_delivered(),
            stopped: phases.stopped,
            cut_off: phases.cut_off.values().sum(),
            cut_off_reasons: phases.cut_off.clone(),
        };
        let rate = undisturbed.deliveries_per_s;
        let rate_ratio = (rate > 0.0).then(|| disturbed.deliveries_per_s / rate);
        Self::SlowReaders { rounds, undisturbed, disturbed, rate_ratio, slow }
    }

    fn of_one_phase(spec: &Spec, total: &Total, measured: Measured) -> Self {
        if let Some(Terms { quorum, deadline }) = spec.terms {
            let (complete, incomplete_reasons) = total.receipts();
            let [first_ns, quorum_ns, last_ns] = total.acked();
            let (incomplete, deadline_s) = (incomplete_reasons.values().sum(), deadline.as_secs_f64());
            let receipts = ReceiptFigures { quorum, deadline_s, complete, incomplete, incomplete_reasons, first_ns, quorum_ns, last_ns };
            return Self::Receipts { measured, receipts };
        }
        let Some(subscriptions) = spec.subscriptions else { return Self::One(measured) };
        let (subscribers_min, subscribers_max) = subscriptions.per_topic(spec.load.peers);
        let Subscriptions { topics: count, per_peer } = subscriptions;
        Self::Topics { measured, topics: TopicFigures { count, per_peer, subscribers_min, subscribers_max } }
    }

    /// Whether every broadcast that was to be acknowledged was, by every peer.
    fn all_acknowledged(&self) -> bool {
        if let Self::Receipts { receipts, .. } = self { receipts.incomplete == 0 } else { true }
    }

    /// What has no figure although it was run: a comparison with nothing shows nothing.
    fn missing(&self) -> Option<&'static str> {
        let counts = match self {
            Self::One(_) | Self::Topics { .. } | Self::Receipts { .. } => return None,
            Self::Mixed { without_bulk, with_bulk, bulk, .. } => [
                (without_bulk.delivered, "no round trip without bulk"),
                (with_bulk.delivered, "none with bulk"),
                (bulk.delivered, "no bulk"),
            ],
            Self::SlowReaders { undisturbed, disturbed, slow, .. } => [
                (undisturbed.delivered, "nothing undisturbed"),
                (disturbed.delivered, "nothing disturbed"),
                (slow.stopped, "nobody stopped"),
            ],
        };
        counts.into_iter().find(|(count, _)| *count == 0).map(|(_, missing)| missing)
    }
}

/// What was run.
#[derive(Debug, Serialize)]
pub(crate) struct Setup {
    pub(crate) workload: &'static str,
    /// `embedded`, or the target's address.
    pub(crate) server: String,
    /// Peers as asked for: fan-out and topics have one publisher besides.
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
    /// Closed-loop fan-out and topics: from when a message was sent to its arrival at the last of its subscribers.
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
        self.verified.passed() && self.figures.all_acknowledged() && self.missing().is_none()
    }

    /// Who ends a run early has not asked for all of it.
    fn missing(&self) -> Option<&'static str> {
        self.figures.missing().filter(|_| !self.interrupted)
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receivers = if matches!(self.workload, "fanout" | "slow-readers" | "topics" | "receipts") { "subscriber" } else { "peer" };
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

impl Measured {
    fn rate(&self) -> String {
        format!("{} deliveries/s, {} messages/s", group(self.deliveries_per_s as u64), group(self.msgs_per_s as u64))
    }

    /// A line under `name`, where there were any.
    fn latency_row(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        self.latency_ns.map_or(Ok(()), |latency| row(f, name, &percentile_text(&latency)))
    }

    /// What one should know before believing the rest.
    fn doubts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waited = self.server_cpus_waited.filter(|waited| *waited > 0.05);
        waited.map_or(Ok(()), |waited| {
            row(f, "NOT ALONE", &format!("the server waited for {waited:.2} processors: rates are too low, latencies too high"))
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(measured) => measured.fmt(f),
            Self::Receipts { measured, receipts } => write!(f, "{measured}{receipts}"),
            Self::Topics { measured, topics } => {
                row(f, "topics", &topics.to_string())?;
                measured.fmt(f)
            }
            Self::Mixed { rounds, without_bulk, with_bulk, bulk } => {
                let times = (without_bulk.elapsed_s, with_bulk.elapsed_s);
                row(f, "measured", &format!("{}, {:.2} s without and {:.2} s with bulk in all", rounds_text(*rounds), times.0, times.1))?;
                without_bulk.latency_row(f, "without bulk")?;
                with_bulk.latency_row(f, "with bulk")?;
                let rate = format!("{} MB/s, {:.0} messages/s", group((bulk.bytes_per_s / 1e6) as u64), bulk.deliveries_per_s);
                row(f, "bulk", &format!("{rate} of {} bytes, {} ahead for each peer", group(bulk.size as u64), bulk.ahead))?;
                with_bulk.send_lag_ns.map_or(Ok(()), |lag| row(f, "sent late by", &format!("with bulk: {}", percentile_text(&lag))))?;
                without_bulk.doubts(f)?;
                with_bulk.doubts(f)
            }
            Self::SlowReaders { rounds, undisturbed, disturbed, rate_ratio, slow } => {
                let times = (undisturbed.elapsed_s, disturbed.elapsed_s);
                row(
                    f,
                    "measured",
                    &format!("{}, {:.2} s undisturbed and {:.2} s disturbed in all", rounds_text(*rounds), times.0, times.1),
                )?;
                row(f, "undisturbed", &undisturbed.rate())?;
                undisturbed.latency_row(f, "")?;
                let ratio = rate_ratio.map_or_else(String::new, |ratio| format!(": {ratio:.3} of the undisturbed rate"));
                row(f, "disturbed", &format!("{}{ratio}", disturbed.rate()))?;
                disturbed.latency_row(f, "")?;
                row(f, "slow readers", &slow.to_string())?;
                undisturbed.doubts(f)?;
                disturbed.doubts(f)
            }
        }
    }
}

impl fmt::Display for ReceiptFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, latency) in [("first ack", self.first_ns), ("quorum", self.quorum_ns), ("last ack", self.last_ns)] {
            latency.map_or(Ok(()), |latency| row(f, name, &percentile_text(&latency)))?;
        }
        let failed = if self.incomplete > 0 { "   FAILED" } else { "" };
        let (complete, incomplete) = (group(self.complete), group(self.incomplete));
        row(f, "receipts", &format!("{complete} complete, {incomplete} incomplete, quorum of {}{failed}", self.quorum))?;
        self.incomplete_reasons.iter().try_for_each(|(reason, count)| row(f, "incomplete", &format!("{count} x {reason}")))
    }
}

impl fmt::Display for TopicFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, per_peer, subscribers_min, subscribers_max } = self;
        write!(f, "{}, {} subscribed to by each peer, {} ", group(u64::from(*count)), per_peer, group(*subscribers_min))?;
        if subscribers_min < subscribers_max {
            write!(f, "or {} ", group(*subscribers_max))?;
        }
        f.write_str("subscribers each")
    }
}

impl fmt::Display for SlowFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} a round: {} stopped, {} cut off", self.readers, self.stopped, self.cut_off)?;
        for (reason, count) in &self.cut_off_reasons {
            write!(f, ", {count} x {reason}")?;
        }
        match self.stopped.saturating_sub(self.cut_off) {
            0 => Ok(()),
            left => write!(f, ", {left} still connected when their phase ended"),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "measured", &format!("{} sent, {} delivered in {:.2} s", group(self.sent), group(self.delivered), self.elapsed_s))?;
        row(f, "rate", &self.rate())?;
        for (name, latency) in [("latency", self.latency_ns), ("last of all", self.completion_ns), ("sent late by", self.send_lag_ns)] {
            if let Some(latency) = latency {
                row(f, name, &percentile_text(&latency))?;
            }
        }
        if let (Some(cpu), Some(used)) = (self.server_cpu_ns_per_delivery, self.server_cpus_used) {
            row(f, "server CPU", &format!("{} per delivery, {used:.2} processors busy", time(cpu as u64)))?;
        }
        self.doubts(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interrupted = if self.interrupted { " (interrupted)" } else { "" };
        writeln!(f, "{}{interrupted}", self.setup)?;
        write!(f, "{}{}", self.figures, self.verified)?;
        if let Some(missing) = self.missing() {
            row(f, "FAILED", &format!("{missing} in the measured time"))?;
        }
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

fn rounds_text(rounds: u32) -> String {
    if rounds == 1 { "1 round".into() } else { format!("{rounds} rounds") }
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
