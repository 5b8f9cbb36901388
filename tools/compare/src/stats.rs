//! The median and its interval.
//!
//! The interval is that of the sign test: order statistics of the sample, with their coverage from the binomial
//! distribution. It assumes nothing about the shape of the noise, needs no random numbers, and one wild pair cannot move it.

use serde::{Deserialize, Serialize};

/// A median with an interval that covers the true one with at least 95 %, unless the sample is too small for any.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The probability that an interval made this way contains the true median.
    pub(crate) coverage: f64,
    /// Values that it is made of.
    pub(crate) count: usize,
}

const WANTED_COVERAGE: f64 = 0.95;

/// None for an empty sample. Under six values the interval is the whole range, and `coverage` says how little that is.
pub(crate) fn estimate(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
    // Cut as many values from both ends as the coverage allows.
    let cut = (1..count.div_ceil(2)).take_while(|&cut| coverage(count, cut) >= WANTED_COVERAGE).last().unwrap_or(0);
    Some(Estimate { median, low: sorted[cut], high: sorted[count - 1 - cut], coverage: coverage(count, cut), count })
}

/// The chance that the median lies between the values that remain when `cut` are cut from both ends of `count`.
fn coverage(count: usize, cut: usize) -> f64 {
    // P(X <= cut) for X ~ Binomial(count, 1/2): more than `count - cut - 1` of all lie on one side of the median.
    let mut term = 0.5_f64.powi(count as i32);
    let mut tail = term;
    for chosen in 1..=cut {
        term *= (count - chosen + 1) as f64 / chosen as f64;
        tail += term;
    }
    1.0 - 2.0 * tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coverage_is_that_of_the_tables() {
        // Ranks 4 and 12 of 15: 96.48 %. Ranks 3 and 13: 99.26 %. Ranks 1 and 6 of 6: 96.88 %.
        assert!((coverage(15, 3) - 0.96484).abs() < 1e-5);
        assert!((coverage(15, 2) - 0.99261).abs() < 1e-5);
        assert!((coverage(6, 0) - 0.96875).abs() < 1e-5);
    }

    #[test]
    fn fifteen_values_give_the_fourth_and_the_twelfth() {
        let values: Vec<f64> = (1..=15).rev().map(f64::from).collect();
        let estimate = estimate(&values).unwrap();
        assert_eq!((estimate.median, estimate.low, estimate.high), (8.0, 4.0, 12.0));
        assert!(estimate.coverage >= 0.95);
    }

    #[test]
    fn one_wild_value_moves_nothing() {
        let mut values = vec![1.0; 14];
        values.push(1e9);
        let estimate = estimate(&values).unwrap();
        assert_eq!((estimate.median, estimate.low, estimate.high), (1.0, 1.0, 1.0));
    }

    #[test]
    fn a_small_sample_says_how_little_it_covers() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[2.0]), Some(Estimate { median: 2.0, low: 2.0, high: 2.0, coverage: 0.0, count: 1 }));
        let three = estimate(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((three.median, three.low, three.high, three.coverage), (2.0, 1.0, 3.0, 0.75));
        assert_eq!(estimate(&[1.0, 2.0]).unwrap().median, 1.5);
    }

    #[test]
    fn the_interval_covers_the_median_as_often_as_it_says() {
        // A fixed linear congruential sequence, skewed by squaring: the median of x^2 for uniform x is 1/4.
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let trials = 4000;
        let covered = (0..trials).filter(|_| {
            let sample: Vec<f64> = (0..15).map(|_| uniform().powi(2)).collect();
            let estimate = estimate(&sample).unwrap();
            estimate.low <= 0.25 && 0.25 <= estimate.high
        });
        let share = covered.count() as f64 / f64::from(trials);
        assert!((0.95..0.98).contains(&share), "{share}");
    }
}
