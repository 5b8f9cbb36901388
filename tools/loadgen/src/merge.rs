//! One report of several client processes that loaded a server together: their histograms are added, so that a percentile is that of all
//! messages and no average of averages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cli::MergeArgs;
use crate::error::Error;
use crate::hdr::Recorded;
use crate::output::{self, JsonSink};
use crate::report::{Figures, Histograms, Latency, Measured, Report, Setup, Validity, Verified};

/// Part of the shorter measured time in which all must have measured: those that ran one after the other did not load a server together.
const TOGETHER: f64 = 0.5;

/// Reads the reports, merges them, prints the table, writes what was asked for.
pub(crate) fn main(args: &MergeArgs) -> Result<(), Error> {
    let reports = args.files.iter().map(|path| Report::read(path).map(|report| (path.clone(), report)));
    let merged = merge(reports.collect::<Result<_, _>>()?)?;
    let (json, hgrm) = (JsonSink::open_some(args.json.as_ref())?, JsonSink::open_some(args.hgrm.as_ref())?);
    if ![&json, &hgrm].into_iter().flatten().any(JsonSink::is_stdout) {
        output::print(&merged)?;
    }
    if let Some(sink) = json {
        sink.write(&merged)?;
    }
    if let Some(sink) = hgrm {
        sink.write_text(&merged.hgrm())?;
    }
    if merged.passed() { Ok(()) } else { Err(Error::Verification) }
}

/// A run of one phase, as far as it can be merged.
struct Part {
    path: PathBuf,
    report: Report,
    measured: Measured,
}

impl Part {
    fn of((path, report): (PathBuf, Report)) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Mismatch { reason: format!("{}: {reason}", path.display()) };
        if report.setup.server == "embedded" {
            return Err(refused("its server was its own; only runs against one --target can be merged"));
        }
        if report.setup.workload == "flood" {
            return Err(refused("the latencies of a flood are counted at the server, which tells no more than some percentiles"));
        }
        let Figures::One(measured) = &report.figures else {
            return Err(refused("only runs of one phase can be merged: echo and fanout"));
        };
        let measured = measured.clone();
        Ok(Self { path, report, measured })
    }

    /// Why it does not belong to this one.
    fn stranger(&self, other: &Part) -> Option<String> {
        let (mine, others) = (&self.report.setup, &other.report.setup);
        if self.report.run_id == other.report.run_id {
            return Some("it is the same run".into());
        }
        let differs = |what: &str, mine: &dyn std::fmt::Display, others: &dyn std::fmt::Display| {
            let (mine, others) = (mine.to_string(), others.to_string());
            (mine != others).then(|| format!("its {what} is {others} and not {mine}"))
        };
        let loop_of = |setup: &Setup| match (&setup.arrivals, setup.in_flight) {
            (Some(arrivals), _) => format!("open with {arrivals} arrivals"),
            (None, in_flight) => format!("closed with {} in flight", in_flight.unwrap_or(0)),
        };
        differs("workload", &mine.workload, &others.workload)
            .or_else(|| differs("server", &mine.server, &others.server))
            .or_else(|| differs("size", &mine.size, &others.size))
            .or_else(|| differs("loop", &loop_of(mine), &loop_of(others)))
            .or_else(|| {
                let same = mine.arrival_seed.is_some() && mine.arrival_seed == others.arrival_seed;
                same.then(|| "it has the same --arrival-seed, so that both sent at the same times".into())
            })
            .or_else(|| {
                let (begin, end) = (self.report.started_at_s.max(other.report.started_at_s), self.end().min(other.end()));
                let shorter = self.measured.elapsed_s.min(other.measured.elapsed_s);
                (end - begin < shorter * TOGETHER).then(|| "they did not measure at the same time".into())
            })
    }

    fn end(&self) -> f64 {
        self.report.started_at_s + self.measured.elapsed_s
    }
}

fn merge(reports: Vec<(PathBuf, Report)>) -> Result<Report, Error> {
    let parts: Vec<Part> = reports.into_iter().map(Part::of).collect::<Result<_, _>>()?;
    for (at, other) in parts.iter().enumerate() {
        for part in &parts[..at] {
            if let Some(reason) = part.stranger(other) {
                let (path, first) = (other.path.display(), part.path.display());
                return Err(Error::Mismatch { reason: format!("{path} does not belong to {first}: {reason}") });
            }
        }
    }
    let sum = |field: fn(&Setup) -> Option<f64>| parts.iter().map(|part| field(&part.report.setup)).sum::<Option<f64>>();
    let (rate, peers) = (sum(|setup| setup.rate), parts.iter().map(|part| part.report.setup.peers).sum());
    let client_cores = parts.iter().map(|part| part.report.setup.client_cores.clone()).collect::<Option<Vec<_>>>();
    let measured = measured(&parts);
    let verified = verified(&parts);
    let validity = validity(&parts);
    let (started_at_s, connect_s) = parts.iter().fold((f64::MAX, 0.0_f64), |(started, connect), Part { report, .. }| {
        (started.min(report.started_at_s), connect.max(report.connect_s))
    });
    let first = &parts[0].report;
    Ok(Report {
        schema: first.schema.clone(),
        run_id: first.run_id,
        command: std::env::args().collect(),
        merged: parts.iter().map(|part| part.report.run_id).collect(),
        setup: Setup { rate, peers, arrival_seed: None, client_cores: client_cores.map(|lists| lists.concat()), ..first.setup.clone() },
        started_at_s,
        connect_s,
        connect_failures: counts(parts.iter().map(|part| &part.report.connect_failures)),
        verified,
        figures: Figures::One(measured),
        validity,
        // They are among those of the others.
        other_peers: None,
        // Percentiles of pieces cannot be added up, nor those of each target.
        targets: Vec::new(),
        intervals: Vec::new(),
        interrupted: parts.iter().any(|part| part.report.interrupted),
        server_counters: None,
        machine: first.machine.clone(),
    })
}

fn counts<'a>(maps: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    maps.flatten().for_each(|(reason, count)| *sum.entry(reason.clone()).or_default() += count);
    sum
}

fn verified(parts: &[Part]) -> Verified {
    let sum = |field: fn(&Verified) -> u64| parts.iter().map(|part| field(&part.report.verified)).sum();
    Verified {
        total_sent: sum(|verified| verified.total_sent),
        unsent: sum(|verified| verified.unsent),
        total_delivered: sum(|verified| verified.total_delivered),
        lost: sum(|verified| verified.lost),
        duplicated: sum(|verified| verified.duplicated),
        reordered: sum(|verified| verified.reordered),
        corrupt: sum(|verified| verified.corrupt),
        foreign: sum(|verified| verified.foreign),
        disconnected: sum(|verified| verified.disconnected),
        disconnect_reasons: counts(parts.iter().map(|part| &part.report.verified.disconnect_reasons)),
    }
}

fn validity(parts: &[Part]) -> Option<Validity> {
    let mut whole: Option<Validity> = None;
    for part in parts {
        let Some(validity) = &part.report.validity else { continue };
        let whole = whole.get_or_insert(Validity { valid: true, lag_bound_ns: 0, reasons: Vec::new() });
        whole.valid &= validity.valid;
        whole.lag_bound_ns = whole.lag_bound_ns.max(validity.lag_bound_ns);
        whole.reasons.extend(validity.reasons.iter().map(|reason| format!("{}: {reason}", part.path.display())));
    }
    whole
}

/// Each rate is the sum of theirs, each of which is a count by its own time.
fn measured(parts: &[Part]) -> Measured {
    let all = || parts.iter().map(|part| &part.measured);
    let histogram =
        |field: fn(&Histograms) -> &Option<Recorded>| Recorded::merged(all().filter_map(|measured| field(&measured.histograms).as_ref()));
    let histograms = Histograms {
        latency: histogram(|histograms| &histograms.latency),
        service: histogram(|histograms| &histograms.service),
        completion: histogram(|histograms| &histograms.completion),
        send_lag: histogram(|histograms| &histograms.send_lag),
    };
    let latency = |recorded: &Option<Recorded>| recorded.as_ref().and_then(|recorded| Latency::of(&recorded.0));
    let deliveries_per_s: f64 = all().map(|measured| measured.deliveries_per_s).sum();
    // Each asked the same server how busy it was, at about the same time.
    let used: Option<Vec<f64>> = all().map(|measured| measured.server_cpus_used).collect();
    let server_cpus_used = used.map(|used| used.iter().sum::<f64>() / used.len() as f64);
    Measured {
        elapsed_s: all().map(|measured| measured.elapsed_s).fold(0.0, f64::max),
        sent: all().map(|measured| measured.sent).sum(),
        delivered: all().map(|measured| measured.delivered).sum(),
        msgs_per_s: all().map(|measured| measured.msgs_per_s).sum(),
        deliveries_per_s,
        latency_ns: latency(&histograms.latency),
        service_ns: latency(&histograms.service),
        completion_ns: latency(&histograms.completion),
        send_lag_ns: latency(&histograms.send_lag),
        server_cpu_ns_per_delivery: server_cpus_used.filter(|_| deliveries_per_s > 0.0).map(|used| used * 1e9 / deliveries_per_s),
        server_cpus_used,
        server_cpus_waited: all().filter_map(|measured| measured.server_cpus_waited).reduce(f64::max),
        histograms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn merged(reports: Vec<Report>) -> Result<Report, String> {
        let named = reports.into_iter().enumerate().map(|(at, report)| (PathBuf::from(format!("{at}.json")), report));
        merge(named.collect()).map_err(|error| error.to_string())
    }

    /// As it is when it comes from a file.
    fn travelled(report: &Report) -> Report {
        serde_json::from_str(&serde_json::to_string(report).expect("it is text")).expect("it is read again")
    }

    fn figures(report: &Report) -> &Measured {
        report.figures.measured().next().expect("there is one")
    }

    #[test]
    fn percentiles_are_those_of_all_messages() {
        // One process has the fast half, the other the slow one: no average of their percentiles comes near.
        let (fast, slow) = (sample(1, 0.0, (1..=500).map(|us| us * 1_000)), sample(2, 0.1, (501..=1_000).map(|us| us * 1_000)));
        let whole = sample(3, 0.0, (1..=1_000).map(|us| us * 1_000));
        let merged = merged(vec![travelled(&fast), travelled(&slow)]).expect("they belong together");
        assert_eq!(figures(&merged).latency_ns, figures(&whole).latency_ns);
        assert_eq!(figures(&merged).histograms.latency.as_ref().map(|all| all.0.len()), Some(1_000));
        assert_eq!((merged.setup.peers, merged.setup.rate, &merged.merged), (2 * fast.setup.peers, Some(2_000.0), &vec![1, 2]));
        assert_eq!(merged.verified.total_sent, fast.verified.total_sent + slow.verified.total_sent);
        assert!(merged.passed());
        // And it can be read and written as any other.
        assert_eq!(figures(&travelled(&merged)).latency_ns, figures(&merged).latency_ns);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let one = || sample(1, 0.0, 1..10);
        let other = |change: fn(&mut Report)| {
            let mut other = sample(2, 0.0, 1..10);
            change(&mut other);
            merged(vec![one(), other]).err().unwrap_or_default()
        };
        for (refusal, part) in [
            (other(|report| report.run_id = 1), "the same run"),
            (other(|report| report.setup.workload = "fanout".into()), "its workload is fanout and not echo"),
            (other(|report| report.setup.server = "127.0.0.1:2".into()), "its server is"),
            (other(|report| report.setup.size = 65), "its size is 65 and not 64"),
            (other(|report| report.setup.arrivals = Some("poisson".into())), "open with poisson"),
            (other(|report| (report.setup.arrivals, report.setup.in_flight) = (None, Some(4))), "closed with 4 in flight"),
            (other(|report| report.started_at_s += 5.0), "at the same time"),
            (other(|report| report.setup.server = "embedded".into()), "its server was its own"),
            (other(|report| report.setup.workload = "flood".into()), "counted at the server"),
        ] {
            assert!(refusal.contains(part) && refusal.contains("1.json"), "{part:?} in {refusal:?}");
        }
        let mut seeded = [one(), sample(2, 0.0, 1..10)];
        seeded.iter_mut().for_each(|report| (report.setup.arrivals, report.setup.arrival_seed) = (Some("poisson".into()), Some(1)));
        assert!(merged(seeded.into()).err().unwrap_or_default().contains("--arrival-seed"));
    }

    #[test]
    fn one_that_is_invalid_makes_all_of_it_invalid() {
        let mut late = sample(2, 0.0, 1..10);
        late.validity = Some(Validity { valid: false, lag_bound_ns: 9, reasons: vec!["late".into()] });
        let merged = merged(vec![sample(1, 0.0, 1..10), late]).expect("they belong together");
        assert_eq!(merged.validity.as_ref().map(|validity| validity.reasons.as_slice()), Some(&["1.json: late".to_owned()][..]));
        assert!(!merged.passed());
    }
}
