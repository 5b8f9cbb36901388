//! Histograms as the field's tools know them: base64 of the compressed V2 encoding, of which several add up to one exactly; the text by
//! percentile (`.hgrm`) that the plotters read; and the log of one histogram a piece of time, which the log analysers read.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize, de};

use crate::measure::new_histogram;

/// Lines of the text for each halving of what is left to 100 %: the plotters' own choice.
const TICKS: u32 = 5;
/// The text is in microseconds.
const UNIT_NS: f64 = 1e3;

/// A histogram in JSON.
#[derive(Clone, Debug)]
pub(crate) struct Recorded(pub(crate) Histogram<u64>);

impl Recorded {
    /// Nothing where nothing was recorded.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self(histogram.clone()))
    }

    /// All values of all of them; nothing where there are none.
    pub(crate) fn merged<'a>(parts: impl Iterator<Item = &'a Recorded>) -> Option<Self> {
        let mut sum = new_histogram();
        // Beyond an hour nothing was recorded, whoever wrote it.
        parts.for_each(|part| sum.add(&part.0).expect("values are within the bounds"));
        (!sum.is_empty()).then_some(Self(sum))
    }
}

impl Serialize for Recorded {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Recorded {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(de::Error::custom)?;
        let shape = new_histogram();
        if read.sigfig() != shape.sigfig() || read.high() > shape.high() || read.low() != shape.low() {
            return Err(de::Error::custom("the histogram has other bounds than this version's"));
        }
        Ok(Self(read))
    }
}

/// Base64 of the compressed V2 encoding.
pub(crate) fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("memory takes what is written to it");
    STANDARD.encode(bytes)
}

/// The log (version 1.3) of a measurement that began at `started_at_s`, seconds since 1970: of each piece when it began after that, how
/// long it was, and what [`encode`] has made of its histogram, whose largest value is `max_ns`.
pub(crate) fn log(started_at_s: f64, pieces: impl Iterator<Item = Logged>) -> String {
    let since = format!("{started_at_s:.3} (seconds since epoch)");
    let columns = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"";
    let mut out = format!("#[Histogram log format version 1.3]\n#[BaseTime: {since}]\n#[StartTime: {since}]\n{columns}\n");
    for Logged { at_s, elapsed_s, max_ns, encoded } in pieces {
        // By convention the maximum is in milliseconds; the histogram has what it has.
        let _ = writeln!(out, "{at_s:.3},{elapsed_s:.3},{:.3},{encoded}", max_ns as f64 / 1e6);
    }
    out
}

/// A line of the log.
pub(crate) struct Logged {
    pub(crate) at_s: f64,
    pub(crate) elapsed_s: f64,
    pub(crate) max_ns: u64,
    pub(crate) encoded: String,
}

/// The distribution by percentile, with five lines for each halving of the distance to 100 %, in microseconds.
pub(crate) fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut out = String::new();
    let _ = write!(out, "{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS) {
        count += step.count_since_last_iteration();
        let value = histogram.highest_equivalent(step.value_iterated_to()).min(histogram.max()) as f64 / UNIT_NS;
        let quantile = step.quantile_iterated_to();
        if quantile < 1.0 {
            let _ = writeln!(out, "{value:12.3} {quantile:14.12} {count:10} {:14.2}", 1.0 / (1.0 - quantile));
        } else {
            // Nobody divides by zero: the last line has no fourth column.
            let _ = writeln!(out, "{value:12.3} {quantile:14.12} {count:10}");
        }
    }
    let (mean, deviation) = (histogram.mean() / UNIT_NS, histogram.stdev() / UNIT_NS);
    let max = histogram.max() as f64 / UNIT_NS;
    let sub_buckets = (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    let _ = writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(out, "#[Max     = {max:12.3}, Total count    = {:12}]", histogram.len());
    let _ = writeln!(out, "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]", histogram.buckets());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl Iterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = new_histogram();
        values.for_each(|value| histogram.saturating_record(value));
        histogram
    }

    fn travelled(recorded: &Recorded) -> Recorded {
        let text = serde_json::to_string(recorded).expect("it is text");
        // As every HdrHistogram of this encoding begins: its cookie, in base64.
        assert!(text.starts_with("\"HISTFAA"), "{text}");
        serde_json::from_str(&text).expect("it is read again")
    }

    #[test]
    fn what_several_processes_recorded_adds_up_exactly() {
        let all = of((1..5_000).map(|value| value * 997));
        let parts = [0, 1, 2].map(|part| Recorded(of((1..5_000).filter(|value| value % 3 == part).map(|value| value * 997))));
        let merged = Recorded::merged(parts.map(|part| travelled(&part)).iter()).expect("there is something in them");
        assert_eq!((&merged.0, merged.0.len(), merged.0.max()), (&all, all.len(), all.max()));
        assert!(Recorded::merged([].iter()).is_none() && Recorded::of(&new_histogram()).is_none());
    }

    #[test]
    fn what_is_no_histogram_of_ours_is_refused() {
        let mut other = Histogram::<u64>::new_with_bounds(1, 1_000, 2).expect("bounds");
        other.record(5).expect("in range");
        for text in [serde_json::to_string(&Recorded(other)).expect("it is text"), "\"aGVsbG8=\"".into(), "\"!\"".into(), "7".into()] {
            assert!(serde_json::from_str::<Recorded>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_log_is_what_the_analysers_read() {
        use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

        let pieces = [of(1..100), of(100..2_000)];
        let logged = pieces.iter().enumerate().map(|(at, piece)| Logged {
            at_s: at as f64,
            elapsed_s: 1.0,
            max_ns: piece.max(),
            encoded: encode(piece),
        });
        let text = log(1_500_000_000.25, logged);
        let entries: Vec<_> = IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.expect("it is a log")).collect();
        let [LogEntry::BaseTime(base), LogEntry::StartTime(start), LogEntry::Interval(first), LogEntry::Interval(second)] = &entries[..]
        else {
            panic!("{text}")
        };
        assert_eq!((base, base.as_millis()), (start, 1_500_000_000_250));
        for (read, (at, written)) in [first, second].into_iter().zip(pieces.iter().enumerate()) {
            assert_eq!((read.start_timestamp().as_secs(), read.duration().as_secs()), (at as u64, 1));
            let recorded: Recorded = serde_json::from_str(&format!("\"{}\"", read.encoded_histogram())).expect("it is read");
            assert_eq!(&recorded.0, written);
        }
    }

    #[test]
    fn the_text_is_what_the_plotters_read() {
        // Below 2,048 every value has a bucket of its own.
        let text = hgrm(&of([500, 1_000, 1_500, 2_000].into_iter()));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["       Value     Percentile TotalCount 1/(1-Percentile)", ""]);
        assert_eq!(lines[2], "       0.500 0.000000000000          1           1.00");
        assert!(lines.contains(&"       1.000 0.500000000000          2           2.00"), "{text}");
        let [mean, max, shape] = lines[lines.len() - 3..] else { panic!("{text}") };
        assert_eq!(lines[lines.len() - 4], "       2.000 1.000000000000          4");
        assert_eq!(mean, "#[Mean    =        1.250, StdDeviation   =        0.559]");
        assert_eq!(max, "#[Max     =        2.000, Total count    =            4]");
        assert!(shape.starts_with("#[Buckets =") && shape.ends_with("SubBuckets     =         2048]"), "{shape}");
        // Percentiles and counts never fall.
        let rows =
            lines[2..lines.len() - 3].iter().map(|line| line.split_whitespace().map(|word| word.parse().expect("numbers")).collect());
        let rows: Vec<Vec<f64>> = rows.collect();
        assert!(rows.windows(2).all(|pair| (0..3).all(|column| pair[0][column] <= pair[1][column])), "{text}");
    }
}
