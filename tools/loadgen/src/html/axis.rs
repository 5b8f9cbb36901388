//! An axis of a plot: where a value lies on it, and where its ticks are.

use std::ops::RangeInclusive;

use crate::report::time;

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// From and to a round number. Values of zero and less have no place on it.
    Log,
    /// Percentiles, 0 to 100, so that each nine more takes as much room as the one before.
    Percentile,
}

/// What a value is, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Nanoseconds,
    Seconds,
    PerSecond,
    Bytes,
    /// A share of one.
    Share,
    Percent,
}

impl Unit {
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => time(value.max(0.0).round() as u64),
            Self::Seconds => format!("{} s", plain(value)),
            Self::PerSecond => format!("{}/s", metric(value)),
            Self::Bytes => decimal(value),
            Self::Share => format!("{} %", plain(value * 100.0)),
            Self::Percent => format!("{} %", plain(value)),
        }
    }
}

/// As few digits as tell it: three that count, no zeros behind the point. A percentile needs all of its nines.
fn plain(value: f64) -> String {
    let digits = if (99.0..100.0).contains(&value) { 6 } else { 3 - value.abs().max(1.0).log10().floor().clamp(0.0, 3.0) as usize };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn metric(value: f64) -> String {
    let units = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    match units.into_iter().find(|(factor, _)| value.abs() >= *factor) {
        Some((factor, unit)) => format!("{}{unit}", plain(value / factor)),
        None => plain(value),
    }
}

fn decimal(value: f64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|(factor, _)| value >= *factor) {
        Some((factor, unit)) => format!("{} {unit}", plain(value / factor)),
        None => format!("{} B", plain(value)),
    }
}

/// A line across the plot, and what is written at its end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    /// Between 0 and 1.
    pub(super) at: f64,
    pub(super) label: String,
}

/// One axis. `from` < `to`, and both are places on the scale: logarithms, or nines.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) unit: Unit,
    scale: Scale,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// One on which all of the values that have a place have it; nothing where none has.
    pub(super) fn fit(label: &'static str, unit: Unit, scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let placed = values.filter_map(|value| place(scale, value)).fold(None, |range: Option<(f64, f64)>, place| {
            let (least, most) = range.unwrap_or((place, place));
            Some((least.min(place), most.max(place)))
        });
        let (least, most) = placed?;
        let (from, to, ticks) = match scale {
            Scale::Linear => linear(most),
            Scale::Log => logarithmic(least..=most),
            Scale::Percentile => nines(most),
        };
        Some(Self { label, unit, scale, from, to, ticks })
    }

    /// One that ends where it is said to, and has ticks at round values.
    pub(super) fn up_to(label: &'static str, unit: Unit, most: f64) -> Self {
        let (_, _, mut ticks) = linear(most);
        ticks.retain(|tick| *tick <= most * (1.0 + 1e-9));
        Self { label, unit, scale: Scale::Linear, from: 0.0, to: most, ticks }
    }

    /// Between 0 and 1; nothing where the value has no place.
    pub(super) fn at(&self, value: f64) -> Option<f64> {
        place(self.scale, value).map(|place| self.share(place))
    }

    fn share(&self, place: f64) -> f64 {
        ((place - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    pub(super) fn ticks(&self) -> impl Iterator<Item = Tick> + '_ {
        self.ticks.iter().filter_map(|value| Some(Tick { at: self.at(*value)?, label: self.unit.text(*value) }))
    }
}

/// 100 % and what is nearer to it than this many nines lie at the end.
const MOST_NINES: f64 = 9.0;

fn place(scale: Scale, value: f64) -> Option<f64> {
    let place = match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
        // `max` and `min` would make a number of what is none.
        Scale::Percentile if value.is_nan() => value,
        Scale::Percentile => (-(1.0 - value / 100.0).max(0.0).log10()).min(MOST_NINES),
    };
    place.is_finite().then_some(place)
}

/// The steps of 1, 2 or 5 times a power of ten that make about five of `most`.
fn linear(most: f64) -> (f64, f64, Vec<f64>) {
    let most = if most > 0.0 { most } else { 1.0 };
    let exact = most / 5.0;
    let power = 10_f64.powf(exact.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= exact * (1.0 - 1e-9)).unwrap_or(exact);
    let steps = (most / step - 1e-9).ceil().max(1.0);
    (0.0, step * steps, (0..=steps as u32).map(|index| f64::from(index) * step).collect())
}

/// From and to 1, 2 or 5 times a power of ten; ticks at all of these, or at powers of ten where that is enough.
fn logarithmic(range: RangeInclusive<f64>) -> (f64, f64, Vec<f64>) {
    let digits = [1.0, 2.0, 5.0];
    let first = range.start().floor() as i32;
    let last = range.end().floor() as i32 + 1;
    let round = (first..=last).flat_map(|power| digits.map(|digit: f64| digit.log10() + f64::from(power)));
    let round: Vec<f64> = round.filter(|place| *place <= f64::from(last) + 1e-9).collect();
    let from = round.iter().copied().rfind(|place| *place <= range.start() + 1e-9).unwrap_or(f64::from(first));
    let to = round.iter().copied().find(|place| *place >= range.end() - 1e-9 && *place > from).unwrap_or(f64::from(last));
    let within = round.into_iter().filter(|place| (from - 1e-9..=to + 1e-9).contains(place));
    let sparse = to - from > 2.5;
    let ticks = within.filter(|place| !sparse || (place - place.round()).abs() < 1e-9);
    (from, to, ticks.map(round_power).collect())
}

/// Ten to a power, without the last digits' errors: 20,000 and not 19,999.999.
fn round_power(place: f64) -> f64 {
    let value = 10_f64.powf(place);
    let digit = 10_f64.powf(place.floor());
    (value / digit).round() * digit
}

fn nines(most: f64) -> (f64, f64, Vec<f64>) {
    let to = most.max(1.0);
    let nines = (1..=MOST_NINES as i32).take_while(|nines| f64::from(*nines) <= to + 1e-9).map(|nines| 100.0 - 100.0 * 10_f64.powi(-nines));
    (0.0, to, [0.0, 50.0].into_iter().chain(nines).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(unit: Unit, scale: Scale, values: &[f64]) -> Vec<String> {
        let axis = Axis::fit("", unit, scale, values.iter().copied()).expect("there are values");
        let ticks: Vec<_> = axis.ticks().collect();
        assert!(ticks.iter().all(|tick| (0.0..=1.0).contains(&tick.at)), "{ticks:?}");
        assert!(ticks.is_sorted_by(|one, other| one.at < other.at), "{ticks:?}");
        ticks.into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(labels(Unit::PerSecond, Scale::Linear, &[930_000.0, 1.0]), ["0/s", "200 k/s", "400 k/s", "600 k/s", "800 k/s", "1 M/s"]);
        assert_eq!(labels(Unit::Seconds, Scale::Linear, &[0.7]), ["0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s"]);
        assert_eq!(labels(Unit::Share, Scale::Linear, &[1.0]), ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]);
        assert_eq!(labels(Unit::PerSecond, Scale::Linear, &[0.0]), ["0/s", "0.2/s", "0.4/s", "0.6/s", "0.8/s", "1/s"]);
    }

    #[test]
    fn logarithmic_ticks_are_round() {
        assert_eq!(labels(Unit::Nanoseconds, Scale::Log, &[21_000.0, 160_000.0]), ["20.0 us", "50.0 us", "100 us", "200 us"]);
        assert_eq!(labels(Unit::Nanoseconds, Scale::Log, &[9_000.0, 3e9]).first().unwrap(), "10.0 us");
        assert_eq!(labels(Unit::Nanoseconds, Scale::Log, &[100.0]), ["100 ns", "200 ns"]);
        assert_eq!(labels(Unit::Nanoseconds, Scale::Log, &[0.0, -1.0, 500.0]), ["500 ns", "1.00 us"]);
    }

    #[test]
    fn each_nine_takes_as_much_room() {
        assert_eq!(labels(Unit::Percent, Scale::Percentile, &[99.95]), ["0 %", "50 %", "90 %", "99 %", "99.9 %"]);
        let axis = Axis::fit("", Unit::Percent, Scale::Percentile, [99.99].into_iter()).unwrap();
        let at = [90.0, 99.0, 99.9, 99.99, 100.0].map(|value| axis.at(value).unwrap());
        for (at, expected) in at.into_iter().zip([0.25, 0.5, 0.75, 1.0, 1.0]) {
            assert!((at - expected).abs() < 1e-6, "{at} instead of {expected}");
        }
        assert_eq!(Unit::Percent.text(99.9999), "99.9999 %");
    }

    #[test]
    fn what_has_no_place_is_left_out() {
        for scale in [Scale::Linear, Scale::Log, Scale::Percentile] {
            assert!(Axis::fit("", Unit::PerSecond, scale, std::iter::empty()).is_none());
            assert!(Axis::fit("", Unit::PerSecond, scale, [f64::NAN].into_iter()).is_none());
            let axis = Axis::fit("", Unit::PerSecond, scale, [f64::NAN, 5.0].into_iter()).unwrap();
            assert_eq!(axis.at(f64::NAN), None);
            assert!(axis.at(5.0).is_some_and(f64::is_finite));
        }
        let log = Axis::fit("", Unit::PerSecond, Scale::Log, [5.0].into_iter()).unwrap();
        assert_eq!((log.at(0.0), log.at(-1.0)), (None, None));
    }

    #[test]
    fn every_magnitude_has_ticks() {
        for power in -3..12 {
            for digit in [1.0, 1.5, 2.0, 3.3, 5.0, 9.99] {
                let value = digit * 10_f64.powi(power);
                for scale in [Scale::Linear, Scale::Log] {
                    let axis = Axis::fit("", Unit::PerSecond, scale, [value].into_iter()).unwrap();
                    let count = axis.ticks().count();
                    assert!((2..=8).contains(&count), "{value} {scale:?}: {count} ticks");
                    assert!(axis.at(value).is_some_and(|at| (0.0..=1.0).contains(&at)));
                }
            }
        }
    }

    #[test]
    fn values_in_words() {
        assert_eq!([0.5, 12.34, 1234.0].map(|value| Unit::PerSecond.text(value)), ["0.5/s", "12.34/s", "1.234 k/s"]);
        assert_eq!([512.0, 1500.0, 3e6].map(|value| Unit::Bytes.text(value)), ["512 B", "1.5 kB", "3 MB"]);
    }
}
