//! Figures as people read them: three digits, and a unit.

use crate::stats::Estimate;

/// Deliveries a second.
pub(crate) fn rate(value: f64) -> String {
    scaled(value, &[(1e6, " M"), (1e3, " k"), (1.0, "")])
}

/// Nanoseconds.
pub(crate) fn time(nanos: f64) -> String {
    scaled(nanos, &[(1e9, " s"), (1e6, " ms"), (1e3, " us"), (1.0, " ns")])
}

pub(crate) fn bytes(value: f64) -> String {
    scaled(value, &[(1_073_741_824.0, " GiB"), (1_048_576.0, " MiB"), (1_024.0, " KiB"), (1.0, " B")])
}

/// A share of one core.
pub(crate) fn cores(value: f64) -> String {
    format!("{:.2} %", value * 100.0)
}

pub(crate) fn ratio(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.3}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// With the largest unit that it reaches, or else with the smallest.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    // What would be rounded to 1,000 of a unit is 1 of the next.
    let (size, unit) = units.iter().find(|(size, _)| value.abs() >= *size * 0.9995).or(units.last()).expect("there are units");
    let value = value / size;
    match value.abs() {
        _ if *size == 1.0 => format!("{value:.0}{unit}"),
        ..9.995 => format!("{value:.2}{unit}"),
        ..99.95 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

pub(crate) fn middle(estimate: Option<Estimate>, show: fn(f64) -> String) -> String {
    estimate.map_or_else(|| "-".into(), |estimate| show(estimate.median))
}

/// The median and the interval that holds it.
pub(crate) fn interval(estimate: Option<Estimate>, show: fn(f64) -> String) -> String {
    match estimate {
        None => "-".into(),
        // One value has no interval.
        Some(Estimate { median, count: 1, .. }) => show(median),
        Some(Estimate { median, low, high, .. }) => format!("{} [{}, {}]", show(median), show(low), show(high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!([0.4, 12.0, 999.6, 9_994.0, 99_950.0, 8_538_500.0].map(rate), ["0", "12", "1.00 k", "9.99 k", "100 k", "8.54 M"]);
        assert_eq!([81.0, 8_371.0, 489_000.0, 7_311_400.0, 2e9].map(time), ["81 ns", "8.37 us", "489 us", "7.31 ms", "2.00 s"]);
        assert_eq!([0.0, 512.0, 2_560.0, 3_551_358.0].map(bytes), ["0 B", "512 B", "2.50 KiB", "3.39 MiB"]);
        assert_eq!([0.9821, 12.34, 345.6].map(ratio), ["0.982", "12.3", "346"]);
        assert_eq!(cores(0.0123), "1.23 %");
    }

    #[test]
    fn an_interval_is_shown_where_there_is_one() {
        let estimate = |count| Some(Estimate { median: 2.0, low: 1.0, high: 3.0, coverage: 0.75, count });
        assert_eq!(interval(estimate(3), ratio), "2.000 [1.000, 3.000]");
        assert_eq!(interval(estimate(1), ratio), "2.000");
        assert_eq!((interval(None, ratio), middle(None, ratio)), ("-".into(), "-".into()));
    }
}
