//! Whether figures have become worse: medians, what is known of them, and a threshold for noise.

use serde::Serialize;

/// What is thought of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Better by more than the threshold, for certain.
    Better,
    /// Within the threshold, as far as is known.
    Same,
    /// The medians say worse by more than the threshold, but the noise is wider than that.
    Undecided,
    /// Worse by more than the threshold, for certain.
    Worse,
}

/// A figure, before and now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Judgement {
    /// Medians.
    pub(crate) before: f64,
    pub(crate) now: f64,
    /// How much worse it is: above 1 is worse, whether more or less of it is better.
    pub(crate) ratio: f64,
    /// With at least 95 % the ratio of the medians is between these.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) outcome: Outcome,
}

/// How the two sides were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounds {
    /// By turns: the figures of a round belong together.
    Paired,
    /// At different times.
    Apart,
}

/// `more_is_better`: of rates it is, of times it is not. Nothing where a figure is missing.
pub(crate) fn judge(before: &[f64], now: &[f64], more_is_better: bool, rounds: Rounds, threshold: f64) -> Option<Judgement> {
    let known = |values: &[f64]| !values.is_empty() && values.iter().all(|value| *value > 0.0);
    if !known(before) || !known(now) {
        return None;
    }
    let worse = |before: f64, now: f64| if more_is_better { before / now } else { now / before };
    let (ratio, low, high) = match rounds {
        Rounds::Paired => {
            let ratios: Vec<f64> = before.iter().zip(now).map(|(before, now)| worse(*before, *now)).collect();
            let (low, high) = interval(&ratios);
            (median(&ratios), low, high)
        }
        Rounds::Apart => {
            // Both ends at their worst for each other: wider than it need be, and not wrong.
            let ((before_low, before_high), (now_low, now_high)) = (interval(before), interval(now));
            let ends = [worse(before_low, now_high), worse(before_high, now_low)];
            (worse(median(before), median(now)), ends[0].min(ends[1]), ends[0].max(ends[1]))
        }
    };
    let outcome = match () {
        () if low > 1.0 + threshold => Outcome::Worse,
        () if high < 1.0 / (1.0 + threshold) => Outcome::Better,
        () if ratio > 1.0 + threshold => Outcome::Undecided,
        () => Outcome::Same,
    };
    Some(Judgement { before: median(before), now: median(now), ratio, low, high, outcome })
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// The order statistics that hold the median with at least 95 %; of fewer than six values all that there are.
fn interval(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    let count = sorted.len();
    // The chance that fewer than so many of the values are below the median, doubled for both sides.
    let (mut skipped, mut ways, mut outside) = (0, 1.0, 0.0);
    let all = 2_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    while skipped < count / 2 && 2.0 * (outside + ways) / all <= 0.05 {
        outside += ways;
        skipped += 1;
        ways *= (count - skipped + 1) as f64 / skipped as f64;
    }
    let at = skipped.saturating_sub(1);
    (sorted[at], sorted[count - 1 - at])
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(middle: f64, spread: f64) -> Vec<f64> {
        [-4.0, 3.0, -2.0, 1.0, 0.0, -1.0, 2.0, -3.0, 4.0].map(|step| middle + step * spread).to_vec()
    }

    fn outcome(before: &[f64], now: &[f64], more_is_better: bool, rounds: Rounds) -> Outcome {
        judge(before, now, more_is_better, rounds, 0.1).expect("there are figures").outcome
    }

    #[test]
    fn medians_and_their_intervals() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        // Of nine values the second and the last but one hold the median with 96 %, of six only the ends do, with 97 %.
        assert_eq!(interval(&[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), (2.0, 8.0));
        assert_eq!(interval(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), (1.0, 6.0));
        assert_eq!(interval(&[1.0, 2.0, 3.0]), (1.0, 3.0));
        // Of fifteen the fourth from either end, with 96 %.
        assert_eq!(interval(&(1..=15).map(f64::from).collect::<Vec<_>>()), (4.0, 12.0));
    }

    #[test]
    fn what_is_worse_for_certain_is_worse() {
        let quiet = around(100.0, 0.5);
        for rounds in [Rounds::Apart, Rounds::Paired] {
            // A time that is a fifth longer, a rate that is a fifth lower.
            assert_eq!(outcome(&quiet, &around(120.0, 0.5), false, rounds), Outcome::Worse);
            assert_eq!(outcome(&quiet, &around(80.0, 0.5), true, rounds), Outcome::Worse);
            assert_eq!(outcome(&quiet, &around(80.0, 0.5), false, rounds), Outcome::Better);
            assert_eq!(outcome(&quiet, &around(120.0, 0.5), true, rounds), Outcome::Better);
            // Under the threshold, in either direction.
            assert_eq!(outcome(&quiet, &around(105.0, 0.5), false, rounds), Outcome::Same);
            assert_eq!(outcome(&quiet, &quiet, true, rounds), Outcome::Same);
        }
    }

    #[test]
    fn noise_is_no_regression() {
        // The medians are 20 % apart, and so is what each side does by itself.
        let (before, now) = (around(100.0, 8.0), around(120.0, 8.0));
        assert_eq!(outcome(&before, &now, false, Rounds::Apart), Outcome::Undecided);
        // In pairs, noise that meets both sides of a round does not count.
        assert_eq!(outcome(&before, &before.iter().map(|value| value * 1.2).collect::<Vec<_>>(), false, Rounds::Paired), Outcome::Worse);
        assert_eq!(outcome(&before, &around(101.0, 8.0), false, Rounds::Apart), Outcome::Same);
    }

    #[test]
    fn a_figure_that_is_missing_is_not_judged() {
        assert_eq!(judge(&[], &[1.0], false, Rounds::Apart, 0.1), None);
        assert_eq!(judge(&[1.0, 0.0], &[1.0, 1.0], false, Rounds::Paired, 0.1), None);
    }

    #[test]
    fn a_ratio_is_above_one_where_it_is_worse() {
        let rate = judge(&[100.0; 6], &[50.0; 6], true, Rounds::Paired, 0.1).expect("there are figures");
        assert_eq!((rate.before, rate.now, rate.ratio, rate.low, rate.high), (100.0, 50.0, 2.0, 2.0, 2.0));
    }
}
