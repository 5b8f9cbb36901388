//! What one core counts while a measurement is open.

use hdrhistogram::Histogram;

use crate::clock;

/// An hour: what takes longer is recorded as that.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Nanoseconds to three significant digits.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("constant bounds")
}

/// p50, p90, p99, p99.9, max.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> [u64; 5] {
    let at = |quantile| histogram.value_at_quantile(quantile);
    // The histogram answers with the upper end of a bucket, and that may be above the largest value in it.
    [at(0.5), at(0.9), at(0.99), at(0.999), histogram.max()].map(|value| value.min(histogram.max()))
}

/// The part of a run that is measured, as one core sees it: closed at first, opened once, closed again.
pub(crate) struct Window {
    open: bool,
    opened_at: u64,
    closed_at: u64,
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages that arrived.
    pub(crate) delivered: u64,
    /// Send to arrival, of each message.
    pub(crate) latency: Histogram<u64>,
    /// Fan-out: publication to arrival at the last subscriber. One core's run only knows it where it sees the end of every broadcast.
    pub(crate) completion: Histogram<u64>,
    /// Open loop: how much later than intended the generator itself sent.
    pub(crate) send_lag: Histogram<u64>,
}

impl Window {
    pub(crate) fn new() -> Self {
        let [latency, completion, send_lag] = std::array::from_fn(|_| new_histogram());
        Self { open: false, opened_at: 0, closed_at: 0, sent: 0, delivered: 0, latency, completion, send_lag }
    }

    pub(crate) fn open(&mut self) {
        self.open = true;
        self.opened_at = clock::now_ns();
    }

    pub(crate) fn close(&mut self) {
        if self.open {
            self.open = false;
            self.closed_at = clock::now_ns();
        }
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        self.closed_at.saturating_sub(self.opened_at)
    }

    /// Another core's part of the same run. Their windows opened and closed within microseconds of each other: the longest counts.
    pub(crate) fn add(&mut self, other: &Window) {
        if other.elapsed_ns() > self.elapsed_ns() {
            (self.opened_at, self.closed_at) = (other.opened_at, other.closed_at);
        }
        self.sent += other.sent;
        self.delivered += other.delivered;
        for (mine, others) in
            [(&mut self.latency, &other.latency), (&mut self.completion, &other.completion), (&mut self.send_lag, &other.send_lag)]
        {
            mine.add(others).expect("histograms of one shape");
        }
    }

    #[inline]
    pub(crate) fn sent(&mut self) {
        self.sent += u64::from(self.open);
    }

    #[inline]
    pub(crate) fn delivered(&mut self, latency: u64) {
        if self.open {
            self.delivered += 1;
            self.latency.saturating_record(latency);
        }
    }

    pub(crate) fn completed(&mut self, latency: u64) {
        if self.open {
            self.completion.saturating_record(latency);
        }
    }

    pub(crate) fn lagged(&mut self, lag: u64) {
        if self.open {
            self.send_lag.saturating_record(lag);
        }
    }
}
