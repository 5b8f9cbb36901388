//! How long things took, and how large they were: histograms of a core.
//!
//! A core records into plain memory of its own (`hdrhistogram`, two significant digits, saturating: nothing a peer does can make it fail or
//! grow). Other threads get a copy on request, through the core's control queue: no lock, no atomic, and nothing shared.

use std::fmt;

/// What is measured. Each has one histogram in each core, whatever the number of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Measure {
    /// Nanoseconds from the return of a poll to the end of the turn that followed: how long whatever comes meanwhile has to wait. Every
    /// turn.
    Turn,
    /// Nanoseconds that messages and commands have waited in a core's inbox, from other cores and from handles: pushed to taken out. One
    /// in 13 of what each thread pushes is measured, so `count` is a thirteenth.
    Queueing,
    /// Nanoseconds from a keepalive ping to its pong, of all peers of the core. Only silent peers are pinged
    /// ([`crate::Keepalive::interval`]). It ends with the turn's clock, so a turn's length is its resolution under load.
    RoundTrip,
    /// Bytes that the kernel took from a peer's outbox in one write: how well batching works. Writes that took nothing are not in it.
    Batch,
}

impl Measure {
    /// Every measure, in a fixed order.
    pub const ALL: &'static [Measure] = &[Self::Turn, Self::Queueing, Self::RoundTrip, Self::Batch];

    /// The name under which it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn_ns",
            Self::Queueing => "queueing_ns",
            Self::RoundTrip => "round_trip_ns",
            Self::Batch => "batch_bytes",
        }
    }
}

impl Measure {
    /// What is measured, in a sentence.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Turn => "From the return of a poll to the end of the turn.",
            Self::Queueing => "What messages and commands waited in an inbox, one in 13 of them.",
            Self::RoundTrip => "From a keepalive ping to its pong.",
            Self::Batch => "What the kernel took from a peer's outbox in one write.",
        }
    }
}

const MEASURES: usize = Measure::ALL.len();

/// Above this, values count as this: one hour, or 3.3 TiB.
const HIGHEST: u64 = 3_600_000_000_000;
/// Every value is kept to within one in a hundred.
const DIGITS: u8 = 2;

/// How often each value was seen, to within one percent. Values above one hour (3.6e12) count as that.
#[derive(Clone, PartialEq)]
pub struct Histogram {
    counts: hdrhistogram::Histogram<u64>,
    sum: u64,
}

impl Histogram {
    /// Memory that one takes: fixed, however much is recorded. 36 powers of two of 128 steps each, and the vector's own part.
    const BYTES: usize = 36 * 128 * size_of::<u64>() + size_of::<Self>();

    fn new() -> Self {
        let counts = hdrhistogram::Histogram::new_with_bounds(1, HIGHEST, DIGITS).expect("the bounds are in order");
        Self { counts, sum: 0 }
    }

    #[inline]
    fn record(&mut self, value: u64) {
        self.counts.saturating_record(value);
        self.sum = self.sum.saturating_add(value);
    }

    fn merge(&mut self, other: &Self) {
        self.counts.add(&other.counts).expect("all have the same bounds");
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// All values together, exact.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The smallest value; zero where there is none.
    #[must_use]
    pub fn min(&self) -> u64 {
        self.counts.min()
    }

    /// The largest value; zero where there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.counts.max()
    }

    /// The average; zero where there is none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum as f64 / self.count() as f64 }
    }

    /// The value that the given part of all values does not pass: 0.5 is the median, 0.999 what one in a thousand passes. Parts outside 0
    /// to 1 count as those. Zero where there is no value.
    #[must_use]
    pub fn quantile(&self, part: f64) -> u64 {
        if self.count() == 0 { 0 } else { self.counts.value_at_quantile(part).min(self.max()) }
    }

    /// How many values were at most each of these, which have to rise. Of values within a percent of a border, some are counted on its
    /// wrong side.
    #[must_use]
    pub fn at_most(&self, borders: &[u64]) -> Vec<u64> {
        let mut below = vec![0; borders.len()];
        for step in self.counts.iter_recorded() {
            let index = borders.partition_point(|&border| border < step.value_iterated_to());
            if let Some(count) = below.get_mut(index) {
                *count += step.count_at_value();
            }
        }
        let mut sum = 0;
        below.iter_mut().for_each(|count| {
            sum += *count;
            *count = sum;
        });
        below
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Histogram");
        all.field("count", &self.count()).field("mean", &self.mean());
        all.field("p50", &self.quantile(0.5)).field("p99", &self.quantile(0.99)).field("p999", &self.quantile(0.999));
        all.field("max", &self.max()).finish()
    }
}

/// A reading of the histograms of one core, or of all of them together: see [`crate::Handle::histograms`].
#[derive(Clone, PartialEq)]
pub struct Histograms {
    all: [Histogram; MEASURES],
}

impl Histograms {
    /// Memory that one core's take: about 150 KB.
    pub(crate) const BYTES: usize = MEASURES * Histogram::BYTES;

    /// One of them.
    #[must_use]
    pub fn get(&self, measure: Measure) -> &Histogram {
        &self.all[measure as usize]
    }

    /// All of them, in the order of [`Measure::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Measure, &Histogram)> {
        Measure::ALL.iter().copied().zip(&self.all)
    }

    #[inline]
    pub(crate) fn record(&mut self, measure: Measure, value: u64) {
        self.all[measure as usize].record(value);
    }

    /// Adds another core's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.all.iter_mut().zip(&other.all).for_each(|(mine, theirs)| mine.merge(theirs));
    }
}

/// Nothing recorded.
impl Default for Histograms {
    fn default() -> Self {
        Self { all: std::array::from_fn(|_| Histogram::new()) }
    }
}

impl fmt::Debug for Histograms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(measure, histogram)| (measure.name(), histogram))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_memory_that_is_said_whatever_is_recorded() {
        let mut histogram = Histogram::new();
        [0, 1, 2, 1000, HIGHEST, u64::MAX].into_iter().for_each(|value| histogram.record(value));
        let bytes = histogram.counts.distinct_values() * size_of::<u64>() + size_of::<Histogram>();
        assert!(bytes <= Histogram::BYTES && bytes > Histogram::BYTES / 2, "{bytes} of {}", Histogram::BYTES);
        assert_eq!(histogram.count(), 6, "what is out of bounds is not lost");
        assert!(histogram.max() >= HIGHEST);
        assert_eq!(histogram.sum(), u64::MAX, "it saturates");
    }

    #[test]
    fn every_value_is_kept_to_within_a_percent() {
        for value in (0..41).map(|power| 3 * (1_u64 << power)).filter(|&value| value < HIGHEST) {
            let mut histogram = Histogram::new();
            histogram.record(value);
            let kept = histogram.quantile(0.5);
            assert!(kept.abs_diff(value) <= value / 100, "{value} is kept as {kept}");
        }
    }

    #[test]
    fn cores_add_up_and_borders_divide() {
        let (mut one, mut other) = (Histograms::default(), Histograms::default());
        (1..=100).for_each(|value| one.record(Measure::Batch, value));
        (101..=200).for_each(|value| other.record(Measure::Batch, value));
        other.record(Measure::Turn, 7);
        one.merge(&other);
        let batch = one.get(Measure::Batch);
        assert_eq!((batch.count(), batch.sum(), batch.min(), batch.max()), (200, 20_100, 1, 200));
        assert!((batch.quantile(0.5) as i64 - 100).abs() <= 1);
        assert_eq!(batch.at_most(&[0, 10, 100, 1000]), [0, 10, 100, 200]);
        assert_eq!(one.get(Measure::Turn).count(), 1);
        assert_eq!(Histograms::default().get(Measure::Turn).quantile(0.99), 0);
    }

    #[test]
    fn measures_are_where_they_say() {
        assert!(Measure::ALL.iter().enumerate().all(|(index, &measure)| measure as usize == index));
    }
}
