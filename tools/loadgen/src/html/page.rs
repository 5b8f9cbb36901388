//! The page: verdict, plots, tables, and every counter there is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use super::axis::Unit;
use super::{escape, plots};
use crate::report::{Figures, Latency, Report, group, time};

const STYLE: &str = include_str!("style.css");

/// One page of one run, or of several.
pub(crate) fn page(reports: &[Report]) -> String {
    let title = match reports {
        [report] => report.setup.to_string(),
        reports => format!("{} runs", reports.len()),
    };
    let mut out = String::new();
    // A staircase in its order, whatever the order of its files.
    let key = |report: &Report| (report.setup.workload.clone(), report.setup.peers, report.setup.size);
    let mut reports: Vec<_> = reports.iter().collect();
    reports.sort_by(|one, other| {
        let rates = [one, other].map(|report| report.setup.rate.unwrap_or(0.0));
        key(one).cmp(&key(other)).then(rates[0].total_cmp(&rates[1]))
    });
    if reports.len() > 1 {
        together(&mut out, &title, &reports);
    }
    reports.iter().for_each(|report| run(&mut out, report));
    document(&title, &out)
}

/// The page around what is in it.
pub(super) fn document(title: &str, body: &str) -> String {
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    let _ = write!(out, "<title>{} - corecast-loadgen</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}", escape(title));
    let version = env!("CARGO_PKG_VERSION");
    let _ =
        write!(out, "<footer>corecast-loadgen {version}. Times and rates are of this machine and this run.</footer>\n</body>\n</html>\n");
    out
}

/// What was thought of a run, and why.
struct Verdict {
    word: &'static str,
    /// A class of the page.
    kind: &'static str,
    reasons: Vec<String>,
}

fn verdict(report: &Report) -> Verdict {
    let mut reasons = report.validity.iter().flat_map(|validity| validity.reasons.clone()).collect::<Vec<_>>();
    reasons.extend(report.verified.disconnect_reasons.iter().map(|(reason, count)| format!("{} disconnected: {reason}", group(*count))));
    let waited = plots::parts(report).into_iter().filter_map(|(_, measured)| measured.server_cpus_waited).fold(0.0, f64::max);
    if waited > 0.05 {
        reasons.push(format!("not alone: the server waited for {waited:.2} processors, so rates are too low and latencies too high"));
    }
    if report.interrupted {
        reasons.push("a signal ended the measurement early".into());
    }
    let (word, kind) = match (report.passed(), report.is_valid()) {
        (_, false) => ("INVALID", "bad"),
        (false, true) => ("FAILED", "bad"),
        (true, true) if reasons.is_empty() => ("passed", "good"),
        (true, true) => ("passed, with doubts", "doubt"),
    };
    Verdict { word, kind, reasons }
}

impl Verdict {
    fn badge(&self) -> String {
        format!("<span class=\"verdict {}\">{}</span>", self.kind, self.word)
    }
}

/// What several runs have in common, and where they differ.
fn together(out: &mut String, title: &str, reports: &[&Report]) {
    let _ = writeln!(out, "<h1>{}</h1>", escape(title));
    let columns = ["run", "verdict", "deliveries/s", "p50", "p99", "p99.9", "max", "CPU per delivery"];
    let rows = reports.iter().map(|report| {
        let parts = plots::parts(report);
        let measured = parts.last().map(|(_, measured)| *measured);
        let rate = measured.map_or_else(String::new, |measured| group(measured.deliveries_per_s as u64));
        let latency = measured.and_then(|measured| measured.latency_ns);
        let times = latency.map_or([const { String::new() }; 4], |Latency { p50, p99, p999, max, .. }| [p50, p99, p999, max].map(time));
        let cpu = measured.and_then(|measured| measured.server_cpu_ns_per_delivery).map_or_else(String::new, |nanos| time(nanos as u64));
        let name = escape(&report.setup.to_string());
        let cells = [rate].into_iter().chain(times).chain([cpu]).map(|text| escape(&text));
        [name, verdict(report).badge()].into_iter().chain(cells).collect::<Vec<_>>()
    });
    table(out, &columns, rows);
    figures(out, plots::of_several(reports));
}

fn run(out: &mut String, report: &Report) {
    let verdict = verdict(report);
    let _ = writeln!(out, "<section class=\"run\">\n<h1>{}</h1>", escape(&report.setup.to_string()));
    let verified = &report.verified;
    let wrong = format!(
        "{} lost, {} duplicated, {} reordered, {} corrupt",
        verified.lost, verified.duplicated, verified.reordered, verified.corrupt
    );
    let counts = format!("{} sent and {} delivered in the whole run: {wrong}", group(verified.total_sent), group(verified.total_delivered));
    let _ = writeln!(out, "<p>{} {}</p>", verdict.badge(), escape(&counts));
    if !verdict.reasons.is_empty() {
        let items: String = verdict.reasons.iter().map(|reason| format!("<li>{}</li>", escape(reason))).collect();
        let _ = writeln!(out, "<ul class=\"reasons {}\">{items}</ul>", verdict.kind);
    }
    tiles(out, report);
    figures(out, plots::of_run(report));
    out.push_str("<h2>Times</h2>\n");
    times(out, report);
    out.push_str("<h2>As the terminal shows it</h2>\n");
    let _ = writeln!(out, "<pre>{}</pre>", escape(report.to_string().trim_end()));
    course(out, report);
    out.push_str("<h2>How it was run</h2>\n");
    if !report.command.is_empty() {
        let _ = writeln!(out, "<pre class=\"command\">{}</pre>", escape(&command_line(&report.command)));
    }
    let _ = writeln!(out, "<p class=\"faint\">{}</p>", escape(&moment(report.started_at_s)));
    out.push_str("<div class=\"two\"><div><h3>Run</h3>\n");
    pairs(out, &report.setup);
    out.push_str("</div><div><h3>Machine</h3>\n");
    pairs(out, &report.machine);
    out.push_str("</div></div>\n");
    counters(out, "What the server counted", report.server_counters.as_ref());
    counters(out, "Attempts to connect that failed and were repeated", Some(&report.connect_failures));
    out.push_str("</section>\n");
}

/// The figures that one looks for first.
fn tiles(out: &mut String, report: &Report) {
    let mut tiles = Vec::new();
    for (part, measured) in plots::parts(report) {
        let named = |name: &str| if part.is_empty() { name.to_owned() } else { format!("{name}, {part}") };
        tiles.push((named("deliveries a second"), group(measured.deliveries_per_s as u64)));
        let latency = measured.latency_ns.map(|Latency { p50, p99, p999, .. }| [("p50", p50), ("p99", p99), ("p99.9", p999)]);
        tiles.extend(latency.into_iter().flatten().map(|(name, nanos)| (named(name), time(nanos))));
        tiles.extend(measured.send_lag_ns.map(|lag| (named("sent late by, p99"), time(lag.p99))));
        tiles.extend(measured.server_cpu_ns_per_delivery.map(|nanos| (named("server CPU per delivery"), time(nanos as u64))));
        tiles.extend(measured.server_cpus_used.map(|used| (named("server processors busy"), format!("{used:.2}"))));
    }
    match &report.figures {
        Figures::Mixed { bulk, .. } => tiles.push(("bulk".into(), format!("{}/s", Unit::Bytes.text(bulk.bytes_per_s)))),
        Figures::SlowReaders { rate_ratio: Some(ratio), .. } => tiles.push(("rate while disturbed".into(), Unit::Share.text(*ratio))),
        Figures::Receipts { receipts, .. } => tiles.push(("receipts complete".into(), group(receipts.complete))),
        _ => {}
    }
    let tiles: String =
        tiles.iter().map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))).collect();
    let _ = writeln!(out, "<dl class=\"tiles\">{tiles}</dl>");
}

pub(super) fn figures(out: &mut String, plots: Vec<String>) {
    if !plots.is_empty() {
        let _ = writeln!(out, "<div class=\"plots\">\n{}</div>", plots.concat());
    }
}

/// Each distribution by its percentiles.
fn times(out: &mut String, report: &Report) {
    let columns = ["", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let row = |(name, histogram): (String, &Histogram<u64>)| {
        let at = |quantile| time(histogram.value_at_quantile(quantile).min(histogram.max()));
        let mean = time(histogram.mean() as u64);
        let values = [group(histogram.len()), mean, at(0.5), at(0.9), at(0.99), at(0.999), at(0.9999), time(histogram.max())];
        std::iter::once(name).chain(values).map(|text: String| escape(&text)).collect::<Vec<_>>()
    };
    let recorded = plots::distributions(report).into_iter().map(row);
    // Measured at the server, where only the percentiles are known.
    let summed_up = summaries(report).into_iter().map(|(name, Latency { p50, p90, p99, p999, max })| {
        let none = || "-".to_owned();
        vec![escape(&name), none(), none(), time(p50), time(p90), time(p99), time(p999), none(), time(max)]
    });
    table(out, &columns, recorded.chain(summed_up));
}

/// What there are only percentiles of.
fn summaries(report: &Report) -> Vec<(String, Latency)> {
    let mut all = Vec::new();
    for (part, measured) in plots::parts(report) {
        if measured.histograms.latency.is_none() {
            let name = if part.is_empty() { "latency".into() } else { format!("latency, {part}") };
            all.extend(measured.latency_ns.map(|latency| (name, latency)));
        }
    }
    if let Figures::Receipts { receipts, .. } = &report.figures {
        let named =
            [("first acknowledgement", receipts.first_ns), ("quorum", receipts.quorum_ns), ("last acknowledgement", receipts.last_ns)];
        all.extend(named.into_iter().filter_map(|(name, latency)| Some((name.to_owned(), latency?))));
    }
    all
}

/// The numbers behind the plots over time.
fn course(out: &mut String, report: &Report) {
    if report.intervals.is_empty() {
        return;
    }
    out.push_str("<details><summary>The measured time, piece by piece</summary>\n");
    let columns = ["from", "seconds", "sent", "delivered", "p50", "p99", "max", "late by at most", "waiting", "disturbed"];
    let rows = report.intervals.iter().map(|interval| {
        let times = [interval.p50_ns, interval.p99_ns, interval.max_ns, interval.lag_max_ns].map(time);
        let disturbed = if interval.disturbed { "yes" } else { "" };
        let counts =
            [format!("{:.2}", interval.at_s), format!("{:.2}", interval.elapsed_s), group(interval.sent), group(interval.delivered)];
        let rest = [Unit::Bytes.text(interval.queued_bytes as f64), disturbed.to_owned()];
        counts.into_iter().chain(times).chain(rest).collect()
    });
    table(out, &columns, rows);
    out.push_str("</details>\n");
}

/// `cells` are HTML.
pub(super) fn table(out: &mut String, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    out.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    columns.iter().for_each(|column| out.push_str(&format!("<th>{}</th>", escape(column))));
    out.push_str("</tr></thead>\n<tbody>\n");
    for cells in rows {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(out, "<tr>{cells}</tr>");
    }
    out.push_str("</tbody></table></div>\n");
}

/// Every field that says something.
pub(super) fn pairs(out: &mut String, value: &impl Serialize) {
    out.push_str("<table><tbody>\n");
    let Ok(Value::Object(fields)) = serde_json::to_value(value) else { return };
    for (name, value) in fields {
        if let Some(text) = plain(&value) {
            let name = name.replace('_', " ");
            let _ = writeln!(out, "<tr><td>{}</td><td class=\"text\">{}</td></tr>", escape(&name), escape(&text));
        }
    }
    out.push_str("</tbody></table>\n");
}

pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(yes) => Some(if *yes { "yes" } else { "no" }.to_owned()),
        Value::Number(number) => Some(match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => group(whole),
            (None, Some(value)) => value.to_string(),
            (None, None) => number.to_string(),
        }),
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => Some(values.iter().filter_map(plain).collect::<Vec<_>>().join(", ")),
        Value::Object(_) => Some(value.to_string()),
    }
}

/// All of them, in columns. Nothing where there are none.
fn counters(out: &mut String, title: &str, counters: Option<&BTreeMap<String, u64>>) {
    let Some(counters) = counters.filter(|counters| !counters.is_empty()) else { return };
    let _ = writeln!(out, "<h2>{}</h2>\n<div class=\"pairs\"><table><tbody>", escape(title));
    for (name, count) in counters {
        let _ = writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", escape(name), group(*count));
    }
    out.push_str("</tbody></table></div>\n");
}

/// As a shell takes it.
pub(super) fn command_line(words: &[String]) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=,@%+".contains(char);
    let quoted = words.iter().enumerate().map(|(index, word)| {
        // The program by its name: where it lay is of no interest elsewhere.
        let word = if index == 0 { word.rsplit('/').next().unwrap_or(word) } else { word };
        if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// A time since 1970, in UTC.
fn moment(seconds: f64) -> String {
    let seconds = seconds as i64;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's days to a civil date: years that begin in March, in eras of 400.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + i64::from(month <= 2);
    format!("Measured on {year}-{month:02}-{day:02} at {:02}:{:02}:{:02} UTC.", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{CoreTime, Interval, sample};

    /// Whether tags are closed in order and nothing is in them that XML has no place for. The page is written as HTML and as XML.
    fn assert_well_formed(page: &str) {
        let mut open = Vec::new();
        let body = page.split_once("</style>").map_or(page, |(_, body)| body);
        for part in body.split('<').skip(1) {
            let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("a tag does not end: {part:?}"));
            assert!(!text.contains('>'), "{part:?}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "closed by {tag:?}");
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            assert!(tag.matches('"').count() % 2 == 0, "{tag:?}");
        }
        assert_eq!(open, ["head"; 0].map(|name| name), "still open");
    }

    fn interval(at_s: f64, delivered: u64) -> Interval {
        let core = CoreTime { read: 0.1, write: 0.3, idle: 0.6, ..CoreTime::default() };
        Interval {
            at_s,
            elapsed_s: 1.0,
            disturbed: at_s > 1.5,
            sent: delivered,
            delivered,
            p50_ns: 20_000,
            p99_ns: 90_000,
            max_ns: 1_000_000,
            lag_max_ns: 5_000,
            latencies: None,
            queued_bytes: 4096,
            core_time: vec![core; 2],
        }
    }

    fn full() -> Report {
        let mut report = sample(1, 1_700_000_000.0, (1..10_000).map(|value| value * 100));
        report.intervals = vec![interval(0.0, 900), interval(1.0, 1000), interval(2.0, 950)];
        report.server_counters = Some(BTreeMap::from([("messages_received".into(), 12_345), ("closed_eof".into(), 3)]));
        report.command = ["/x/corecast-loadgen", "echo", "--target", "a b"].map(str::to_owned).to_vec();
        report
    }

    #[test]
    fn a_page_has_everything_and_needs_nothing() {
        let page = page(&[full()]);
        assert_well_formed(page.split_once("</head>").unwrap().1.trim_end().trim_end_matches("</html>"));
        let parts = [
            "Latency by percentile",
            "Latency over time",
            "Throughput over time",
            "How late the generator itself was",
            "Waiting to be written",
            "What the server&#39;s cores did",
            "What each core of the server did",
            "messages_received",
            "12,345",
            "corecast-loadgen echo --target &#39;a b&#39;",
            "2023-11-14 at 22:13:20 UTC",
            "passed",
            "prefers-color-scheme: dark",
            "@page",
        ];
        for part in parts {
            assert!(page.contains(part), "{part:?} is missing");
        }
        for foreign in ["<script", "http:", "https:", "@import", "url(", "NaN", "inf\"", "<link"] {
            assert!(!page.contains(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn a_page_of_nothing_has_no_plots_of_nothing() {
        let mut empty = sample(1, 0.0, std::iter::empty());
        empty.verified.total_delivered = 0;
        let page = page(&[empty]);
        assert!(!page.contains("<svg") && !page.contains("NaN") && page.contains("FAILED"), "{page}");
    }

    #[test]
    fn several_runs_are_compared() {
        let slow = sample(2, 0.0, (1..2_000).map(|value| value * 1000));
        let page = page(&[full(), slow]);
        assert!(page.contains("2 runs") && page.contains("Latency against throughput"));
        assert_eq!(page.matches("<section").count(), 2);
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut report = full();
        report.validity.as_mut().unwrap().valid = false;
        report.validity.as_mut().unwrap().reasons.push("late & <late>".into());
        let page = page(&[report]);
        assert!(page.contains("INVALID") && page.contains("<li>late &amp; &lt;late&gt;</li>"));
    }

    #[test]
    fn moments_are_dates() {
        let of = |seconds: f64| moment(seconds);
        assert_eq!(of(0.0), "Measured on 1970-01-01 at 00:00:00 UTC.");
        assert_eq!(of(951_782_400.0), "Measured on 2000-02-29 at 00:00:00 UTC.");
        assert_eq!(of(1_767_225_599.0), "Measured on 2025-12-31 at 23:59:59 UTC.");
    }
}
