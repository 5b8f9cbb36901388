//! The table that a report is on a terminal.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::{Figures, Latency, Measured, ReceiptFigures, Report, Setup, SlowFigures, TopicFigures, Verified};

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receivers =
            if matches!(self.workload.as_str(), "fanout" | "slow-readers" | "topics" | "receipts") { "subscriber" } else { "peer" };
        let plural = if self.peers == 1 { "" } else { "s" };
        write!(f, "{}: {} {receivers}{plural}, {} bytes", self.workload, group(u64::from(self.peers)), group(self.size as u64))?;
        match (self.in_flight, self.rate) {
            (Some(in_flight), _) => write!(f, ", {in_flight} in flight"),
            (None, Some(rate)) => {
                let arrivals = self.arrivals.as_deref().filter(|arrivals| *arrivals != "constant");
                write!(f, ", {rate:.0} a second")?;
                arrivals.map_or(Ok(()), |arrivals| write!(f, ", {arrivals}"))
            }
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
            Self::AllToAll { measured, pairs } => write!(f, "{measured}{pairs}"),
            Self::Request { measured, requests } => write!(f, "{measured}{requests}"),
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
        let latency = if self.service_ns.is_some() { "response" } else { "latency" };
        for (name, latency) in [
            (latency, self.latency_ns),
            ("service", self.service_ns),
            ("last of all", self.completion_ns),
            ("sent late by", self.send_lag_ns),
        ] {
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
        self.figures.fmt(f)?;
        self.targets.iter().try_for_each(|target| target.fmt(f))?;
        self.verified.fmt(f)?;
        if let Some(others) = self.other_peers.filter(|others| *others > 0) {
            let foreign = group(self.verified.foreign);
            row(
                f,
                "OTHERS",
                &format!("{} peers of other clients: the server CPU is for them too; {foreign} of their messages came here", group(others)),
            )?;
        }
        if self.validity.is_none() && self.verified.unsent > 0 {
            let unsent = group(self.verified.unsent);
            row(f, "NOT SENT", &format!("{unsent} were due, but the server did not keep up: latencies are too good"))?;
        }
        for reason in self.validity.iter().flat_map(|validity| &validity.reasons) {
            row(f, "INVALID", reason)?;
        }
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

pub(crate) fn row(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {name:<13}{text}")
}

pub(crate) fn percentile_text(latency: &Latency) -> String {
    let named = [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("p99.9", latency.p999), ("max", latency.max)];
    named.map(|(name, value)| format!("{name} {}", time(value))).join("   ")
}

/// Three significant digits and a unit.
pub(crate) fn time(nanos: u64) -> String {
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
