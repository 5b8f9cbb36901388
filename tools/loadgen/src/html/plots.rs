//! Which plots a run has, and several runs together. What there is nothing to plot of has none.

use hdrhistogram::Histogram;

use super::axis::{Axis, Scale, Unit};
use super::plot::{Series, all_x, all_y, areas, bars, lines};
use crate::report::{CoreTime, Figures, Interval, Measured, Report};

/// Where the histograms' points lie: so many in each halving of the distance to 100 %.
const POINTS: u32 = 6;
/// What a core spends its time on, from the bottom up, with the colours of the page.
const PARTS: [(&str, usize); 9] =
    [("read", 0), ("decode", 5), ("handler", 2), ("encode", 6), ("write", 1), ("poll", 4), ("inbox", 3), ("events", 7), ("idle", 9)];

/// All plots of one run.
pub(super) fn of_run(report: &Report) -> Vec<String> {
    let over_time = Timeline { intervals: &report.intervals, bands: bands(&report.intervals) };
    let plots = [
        by_percentile(&distributions(report)),
        over_time.latency(),
        over_time.throughput(report.setup.rate),
        over_time.lag(),
        over_time.queued(),
        over_time.core_time(),
        each_core(&report.intervals),
    ];
    plots.into_iter().flatten().collect()
}

/// What several runs have to show together.
pub(super) fn of_several(reports: &[&Report]) -> Vec<String> {
    let distributions: Vec<_> = reports.iter().filter_map(|&report| Some((short(report), latency(report)?))).collect();
    [against_throughput(reports), by_percentile(&distributions)].into_iter().flatten().collect()
}

/// What tells a run from the others, in a few words.
pub(super) fn short(report: &Report) -> String {
    let setup = &report.setup;
    let pacing = match (setup.rate, setup.in_flight) {
        (Some(rate), _) => format!(" at {}", Unit::PerSecond.text(rate)),
        (None, Some(in_flight)) => format!(", {in_flight} in flight"),
        (None, None) => String::new(),
    };
    format!("{}{pacing}", setup.workload)
}

/// The measured parts with what each is called.
pub(super) fn parts(report: &Report) -> Vec<(&'static str, &Measured)> {
    let names = match &report.figures {
        Figures::Mixed { .. } => ["without bulk", "with bulk"],
        Figures::SlowReaders { .. } => ["undisturbed", "disturbed"],
        // The others have one part.
        _ => ["", ""],
    };
    names.into_iter().zip(report.figures.measured()).collect()
}

/// Each distribution of a run with its name.
pub(super) fn distributions(report: &Report) -> Vec<(String, &Histogram<u64>)> {
    let open = report.setup.rate.is_some();
    let mut all = Vec::new();
    for (part, measured) in parts(report) {
        let histograms = &measured.histograms;
        let named = [
            (if open { "response time" } else { "latency" }, &histograms.latency),
            ("service time", &histograms.service),
            ("last of all", &histograms.completion),
            ("sent late by", &histograms.send_lag),
        ];
        for (name, recorded) in named {
            let name = if part.is_empty() { name.to_owned() } else { format!("{name}, {part}") };
            all.extend(recorded.as_ref().map(|recorded| (name, &recorded.0)));
        }
    }
    all
}

/// The latency of a run: of one with two parts, the disturbed.
fn latency(report: &Report) -> Option<&Histogram<u64>> {
    Some(&parts(report).last()?.1.histograms.latency.as_ref()?.0)
}

/// How much of everything took how long at most.
fn by_percentile(distributions: &[(String, &Histogram<u64>)]) -> Option<String> {
    let series = distributions.iter().enumerate().map(|(style, (name, histogram))| {
        // The largest has no percentile below 100 %, which has no place: it is put where half of one value is missing.
        let end = 100.0 - 50.0 / histogram.len().max(1) as f64;
        let points = histogram.iter_quantiles(POINTS).map(|step| {
            let value = histogram.highest_equivalent(step.value_iterated_to()).min(histogram.max());
            ((step.quantile_iterated_to() * 100.0).min(end), value.max(1) as f64)
        });
        Series::new(name, style % 9, points.collect())
    });
    let series: Vec<_> = series.filter(|series| !series.is_empty()).collect();
    let x = Axis::fit("percentile", Unit::Percent, Scale::Percentile, all_x(&series))?;
    let y = Axis::fit("time", Unit::Nanoseconds, Scale::Log, all_y(&series))?;
    Some(lines("Latency by percentile", &x, &y, &series, &[]))
}

/// The measured time.
struct Timeline<'a> {
    intervals: &'a [Interval],
    /// Where it was disturbed.
    bands: Vec<(f64, f64)>,
}

fn bands(intervals: &[Interval]) -> Vec<(f64, f64)> {
    let disturbed = intervals.iter().filter(|interval| interval.disturbed);
    disturbed.map(|interval| (interval.at_s, interval.at_s + interval.elapsed_s)).collect()
}

impl Timeline<'_> {
    /// A value of each piece, in its middle.
    fn series(&self, name: &str, style: usize, value: impl Fn(&Interval) -> Option<f64>) -> Series {
        let point = |interval: &Interval| Some((interval.at_s + interval.elapsed_s / 2.0, value(interval)?));
        Series::new(name, style, self.intervals.iter().filter_map(point).collect())
    }

    /// Nothing where there are less than two pieces: that would be no course of anything.
    fn draw(&self, title: &str, label: &'static str, unit: Unit, scale: Scale, series: Vec<Series>) -> Option<String> {
        let series: Vec<_> = series.into_iter().filter(|series| series.points.len() > 1).collect();
        let y = Axis::fit(label, unit, scale, all_y(&series))?;
        Some(lines(title, &self.time()?, &y, &series, &self.bands))
    }

    fn time(&self) -> Option<Axis> {
        let end = self.intervals.last().map(|interval| interval.at_s + interval.elapsed_s)?;
        Some(Axis::up_to("seconds of the measured time", Unit::Seconds, end.max(1e-3)))
    }

    fn latency(&self) -> Option<String> {
        let some = |nanos: u64| (nanos > 0).then_some(nanos as f64);
        let series = vec![
            self.series("max", 1, |interval| some(interval.max_ns)),
            self.series("p99", 3, |interval| some(interval.p99_ns)),
            self.series("p50", 0, |interval| some(interval.p50_ns)),
        ];
        self.draw("Latency over time", "latency", Unit::Nanoseconds, Scale::Log, series)
    }

    fn throughput(&self, offered: Option<f64>) -> Option<String> {
        let rate = |count: u64, interval: &Interval| (interval.elapsed_s > 0.0).then(|| count as f64 / interval.elapsed_s);
        let mut series = vec![
            self.series("delivered", 0, |interval| rate(interval.delivered, interval)),
            self.series("sent", 1, |interval| rate(interval.sent, interval)),
        ];
        series.extend(offered.map(|offered| self.series("due", 2, |_| Some(offered))));
        self.draw("Throughput over time", "messages a second", Unit::PerSecond, Scale::Linear, series)
    }

    /// Nothing in a closed loop, where nothing is due.
    fn lag(&self) -> Option<String> {
        let series = self.series("at most", 3, |interval| (interval.lag_max_ns > 0).then_some(interval.lag_max_ns as f64));
        self.draw("How late the generator itself was", "lag", Unit::Nanoseconds, Scale::Log, vec![series])
    }

    /// Nothing where nothing ever waited.
    fn queued(&self) -> Option<String> {
        if self.intervals.iter().all(|interval| interval.queued_bytes == 0) {
            return None;
        }
        let series = self.series("client, and a server in this process", 4, |interval| Some(interval.queued_bytes as f64));
        self.draw("Waiting to be written", "bytes", Unit::Bytes, Scale::Linear, vec![series])
    }

    /// Of all cores together, as shares of the time that they had.
    fn core_time(&self) -> Option<String> {
        if self.intervals.len() < 2 {
            return None;
        }
        let sums: Vec<_> = self.intervals.iter().map(|interval| sums(&interval.core_time)).collect();
        if sums.iter().flatten().all(|spent| *spent == 0.0) {
            return None;
        }
        let pieces: Vec<_> = self.intervals.iter().map(|interval| (interval.at_s, interval.at_s + interval.elapsed_s)).collect();
        let share = |sums: &[f64; PARTS.len()], part: usize| sums[part] / sums.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let parts =
            PARTS.iter().enumerate().map(|(part, (name, style))| (*name, *style, sums.iter().map(|sums| share(sums, part)).collect()));
        let parts: Vec<_> = parts.collect();
        let y = Axis::up_to("share", Unit::Share, 1.0);
        Some(areas("What the server's cores did, over time", &self.time()?, &y, &pieces, &parts))
    }
}

fn sums(cores: &[CoreTime]) -> [f64; PARTS.len()] {
    let mut sums = [0.0; PARTS.len()];
    for core in cores {
        let CoreTime { poll, inbox, read, decode, handler, encode, events, write, idle } = *core;
        for (sum, spent) in sums.iter_mut().zip([read, decode, handler, encode, write, poll, inbox, events, idle]) {
            *sum += spent;
        }
    }
    sums
}

/// The whole measured time, core by core.
fn each_core(intervals: &[Interval]) -> Option<String> {
    let cores = intervals.iter().map(|interval| interval.core_time.len()).max().filter(|cores| *cores > 0)?;
    let rows = (0..cores).map(|core| {
        let of_core: Vec<_> = intervals.iter().filter_map(|interval| interval.core_time.get(core).copied()).collect();
        (format!("core {core}"), sums(&of_core).to_vec())
    });
    let rows: Vec<_> = rows.collect();
    let longest = rows.iter().map(|(_, lengths)| lengths.iter().sum()).fold(0.0, f64::max);
    (longest > 0.0).then(|| bars("What each core of the server did", &Axis::up_to("seconds", Unit::Seconds, longest), &PARTS, &rows))
}

/// The staircase: what latency is paid for what throughput.
fn against_throughput(reports: &[&Report]) -> Option<String> {
    let mut steps: Vec<_> =
        reports.iter().filter_map(|&report| Some((report, latency(report)?, parts(report).last()?.1.deliveries_per_s))).collect();
    steps.sort_by(|one, other| one.2.total_cmp(&other.2));
    let quantiles = [("p99.9", 1, 0.999), ("p99", 3, 0.99), ("p50", 0, 0.5)];
    let series = quantiles.map(|(name, style, quantile)| {
        let points = steps.iter().map(|(_, histogram, rate)| (*rate, histogram.value_at_quantile(quantile).max(1) as f64));
        let mut series = Series::new(name, style, points.collect());
        if name == "p99" {
            series.labels = steps.iter().map(|(report, ..)| label(report)).collect();
        }
        series
    });
    let x = Axis::fit("deliveries a second", Unit::PerSecond, Scale::Linear, all_x(&series))?;
    let y = Axis::fit("latency", Unit::Nanoseconds, Scale::Log, all_y(&series))?;
    Some(lines("Latency against throughput", &x, &y, &series, &[]))
}

/// Where a step has to be read with care, why.
fn label(report: &Report) -> String {
    match (report.is_valid(), report.passed()) {
        (false, _) => "INVALID".into(),
        (true, false) => "FAILED".into(),
        (true, true) => String::new(),
    }
}
