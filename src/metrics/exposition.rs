//! Counters and histograms as Prometheus reads them.
//!
//! How many series there are depends on the number of cores, and on nothing that peers do: none is per peer, address or message type. The
//! text goes over [`Counter::ALL`] and [`Measure::ALL`], so what is counted is in it.

use std::fmt::Write;

use super::{Counter, Histogram, Histograms, Measure, Stats};

const NANOS: f64 = 1e9;
/// Borders between the buckets of times, nanoseconds: 1, 2 and 5 of each power of ten from a microsecond to ten seconds.
const TIMES: [u64; 22] = {
    let mut borders = [0; 22];
    let (mut index, mut power) = (0, 1_000);
    while index < borders.len() {
        borders[index] = power * [1, 2, 5][index % 3];
        index += 1;
        if index % 3 == 0 {
            power *= 10;
        }
    }
    borders
};
/// Borders between the buckets of sizes, bytes: powers of four.
const SIZES: [u64; 8] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// The readings of each core, from core 0 on, in Prometheus's text format (0.0.4): what an endpoint answers with the content type
/// `text/plain; version=0.0.4`. [`crate::Handle::prometheus_text`] takes the readings and makes the text.
///
/// Names are those of [`Counter::name`] and [`Measure::name`] with `corecast_` before them; nanoseconds become seconds, counters that only
/// grow end in `_total`, and each series has the label `core`. A core without histograms has empty ones, so that the number of series
/// depends on the number of `stats` alone: about 240 for each, none for a peer.
#[must_use]
pub fn prometheus_text(stats: &[Stats], histograms: &[Histograms]) -> String {
    let mut text = String::with_capacity((16 << 10) + stats.len() * (16 << 10));
    head(&mut text, "build_info", "gauge", "The version of corecast.");
    line(&mut text, "build_info", format_args!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1.0);
    for &counter in Counter::ALL {
        let kind = if counter.is_level() { "gauge" } else { "counter" };
        let (base, scale) = unit(counter.name());
        let name = if counter.is_level() { base } else { base + "_total" };
        // Of seconds here, whatever the counter is in.
        head(&mut text, &name, kind, &counter.description().replace(", nanoseconds", ""));
        for (core, stats) in stats.iter().enumerate() {
            line(&mut text, &name, format_args!("core=\"{core}\""), stats.get(counter) as f64 / scale);
        }
    }
    let none = Histograms::default();
    for &measure in Measure::ALL {
        let (name, scale) = unit(measure.name());
        head(&mut text, &name, "histogram", measure.description());
        for core in 0..stats.len() {
            buckets(&mut text, &name, scale, core, histograms.get(core).unwrap_or(&none).get(measure));
        }
    }
    text
}

/// The name in base units, and by what a value is divided for it.
fn unit(name: &str) -> (String, f64) {
    match name.strip_suffix("_ns") {
        Some(name) => (format!("{name}_seconds"), NANOS),
        None => (name.to_owned(), 1.0),
    }
}

fn buckets(text: &mut String, name: &str, scale: f64, core: usize, histogram: &Histogram) {
    let borders: &[u64] = if scale == NANOS { &TIMES } else { &SIZES };
    let bucket = format!("{name}_bucket");
    for (border, count) in borders.iter().zip(histogram.at_most(borders)) {
        line(text, &bucket, format_args!("core=\"{core}\",le=\"{}\"", *border as f64 / scale), count as f64);
    }
    line(text, &bucket, format_args!("core=\"{core}\",le=\"+Inf\""), histogram.count() as f64);
    line(text, &format!("{name}_sum"), format_args!("core=\"{core}\""), histogram.sum() as f64 / scale);
    line(text, &format!("{name}_count"), format_args!("core=\"{core}\""), histogram.count() as f64);
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // What is documentation for Rust is text here.
    let help = help.replace(['`', '[', ']'], "").replace('\\', "\\\\").replace('\n', " ");
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP corecast_{name} {help}\n# TYPE corecast_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: std::fmt::Arguments<'_>, value: f64) {
    let _ = writeln!(text, "corecast_{name}{{{labels}}} {value}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Name and labels of each series.
    fn series(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0).collect()
    }

    fn busy() -> (Stats, Histograms) {
        let (mut stats, mut histograms) = (Stats::default(), Histograms::default());
        Counter::ALL.iter().enumerate().for_each(|(index, &counter)| stats.set(counter, 1_000_000_000 * index as u64));
        Measure::ALL.iter().for_each(|&measure| (1..2000).for_each(|value| histograms.record(measure, value * value * value)));
        (stats, histograms)
    }

    #[test]
    fn the_number_of_series_is_the_cores_and_nothing_elses() {
        let (stats, histograms) = busy();
        let each = Counter::ALL.len() + 3 * (TIMES.len() + 3) + SIZES.len() + 3;
        for cores in [1, 2, 16] {
            let (idle, busy) = (vec![Stats::default(); cores], vec![stats.clone(); cores]);
            let texts = [
                prometheus_text(&idle, &[]),
                prometheus_text(&busy, &vec![histograms.clone(); cores]),
                prometheus_text(&busy, std::slice::from_ref(&histograms)),
            ];
            for text in &texts {
                assert_eq!(series(text).len(), 1 + cores * each);
                assert_eq!(series(text), series(&texts[0]));
            }
            let names: BTreeSet<_> = series(&texts[0]).into_iter().collect();
            assert_eq!(names.len(), 1 + cores * each, "none is there twice");
        }
    }

    #[test]
    fn every_counter_and_every_measure_is_in_it_in_base_units() {
        let (stats, histograms) = busy();
        let text = prometheus_text(std::slice::from_ref(&stats), &[histograms]);
        assert!(!text.contains("nanoseconds"), "what is said of it is in base units, too");
        for &counter in Counter::ALL {
            let value = stats.get(counter) as f64;
            let expected = match (counter.name().strip_suffix("_ns"), counter.is_level()) {
                (Some(name), _) => format!("\ncorecast_{name}_seconds_total{{core=\"0\"}} {}\n", value / 1e9),
                (None, false) => format!("\ncorecast_{}_total{{core=\"0\"}} {value}\n", counter.name()),
                (None, true) => format!("\ncorecast_{}{{core=\"0\"}} {value}\n", counter.name()),
            };
            assert!(text.contains(&expected), "{expected}");
        }
        // 1, 8, 27 ... 1999^3: the cube of 215 is the last under ten million.
        for expected in [
            "corecast_turn_seconds_bucket{core=\"0\",le=\"0.00001\"} 21",
            "corecast_turn_seconds_bucket{core=\"0\",le=\"0.01\"} 215",
            "corecast_turn_seconds_bucket{core=\"0\",le=\"+Inf\"} 1999",
            "corecast_turn_seconds_count{core=\"0\"} 1999",
            "corecast_batch_bytes_bucket{core=\"0\",le=\"1024\"} 10",
            "# TYPE corecast_turn_seconds histogram",
            "# TYPE corecast_messages_received_total counter",
            "# TYPE corecast_peers gauge",
            "# HELP corecast_peers Established peers now.",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected}");
        }
    }

    #[test]
    fn levels_are_told_from_what_only_grows_by_what_is_said_of_them() {
        for level in [Counter::Peers, Counter::HalfOpen, Counter::LogBytes, Counter::Timers, Counter::Receipts, Counter::PendingRequests] {
            assert!(level.is_level(), "{}", level.name());
        }
        for counter in [Counter::MessagesReceived, Counter::CpuNanos, Counter::HandlerOverruns, Counter::SubscriptionsRefused] {
            assert!(!counter.is_level(), "{}", counter.name());
        }
        assert!(Counter::ALL.iter().all(|counter| counter.description().ends_with('.') && !counter.description().starts_with(' ')));
    }

    #[test]
    fn the_format_is_that_of_the_specification() {
        let (stats, histograms) = busy();
        let text = prometheus_text(&[stats], &[histograms]);
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            let (series, value) = line.rsplit_once(' ').unwrap();
            if let Some(comment) = line.strip_prefix("# ") {
                assert!(comment.starts_with("HELP corecast_") || comment.starts_with("TYPE corecast_"), "{line}");
                continue;
            }
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (name, labels) = series.split_once('{').unwrap();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            assert!(labels.ends_with("\"}") && labels.split(',').all(|label| label.contains("=\"")), "{line}");
        }
        // Each family stands in one piece, with its head before it.
        let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(families.len(), families.iter().collect::<BTreeSet<_>>().len());
    }
}
