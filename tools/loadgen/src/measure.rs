//! What one core counts while a measurement is open.

use hdrhistogram::Histogram;

use crate::clock;
use crate::payload::Header;

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

/// Under which condition something is measured. A run that has only one is undisturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Undisturbed,
    /// Mixed: bulk is on its way to every peer. Slow readers: some subscribers do not read.
    Disturbed,
}

impl Condition {
    pub(crate) const BOTH: [Condition; 2] = [Self::Undisturbed, Self::Disturbed];
}

/// What one core has counted in one part of a measurement.
pub(crate) struct Slice {
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages that arrived.
    pub(crate) delivered: u64,
    /// Mixed: bulk messages that arrived.
    pub(crate) bulk: u64,
    /// Send to arrival, of each message. Open loop: the response time, from when it was due to its arrival.
    pub(crate) latency: Histogram<u64>,
    /// Open loop: the service time, from when it was sent to its arrival.
    pub(crate) service: Histogram<u64>,
    /// Fan-out: publication to arrival at the last subscriber. One core's run only knows it where it sees the end of every broadcast.
    pub(crate) completion: Histogram<u64>,
    /// Receipts: broadcast to the first acknowledgement, to that which made the quorum, to the last.
    pub(crate) acked: [Histogram<u64>; 3],
    /// Open loop: how much later than intended the generator itself sent.
    pub(crate) send_lag: Histogram<u64>,
}

impl Slice {
    pub(crate) fn new() -> Self {
        let [latency, service, completion, send_lag] = std::array::from_fn(|_| new_histogram());
        let acked = std::array::from_fn(|_| new_histogram());
        Self { sent: 0, delivered: 0, bulk: 0, latency, service, completion, acked, send_lag }
    }

    /// Another core's, or a later one.
    pub(crate) fn add(&mut self, other: &Slice) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.bulk += other.bulk;
        for (mine, others) in self.histograms().into_iter().zip(other.recorded()) {
            if !others.is_empty() {
                mine.add(others).expect("histograms of one shape");
            }
        }
    }

    /// Empty again, with the memory that it has.
    pub(crate) fn reset(&mut self) {
        (self.sent, self.delivered, self.bulk) = (0, 0, 0);
        self.histograms().into_iter().filter(|histogram| !histogram.is_empty()).for_each(Histogram::reset);
    }

    fn histograms(&mut self) -> [&mut Histogram<u64>; 7] {
        let [first, quorum, last] = &mut self.acked;
        [&mut self.latency, &mut self.service, &mut self.completion, &mut self.send_lag, first, quorum, last]
    }

    /// The same, in the same order.
    fn recorded(&self) -> [&Histogram<u64>; 7] {
        let [first, quorum, last] = &self.acked;
        [&self.latency, &self.service, &self.completion, &self.send_lag, first, quorum, last]
    }
}

/// The part of a run that is measured under one condition, as one core sees it: closed at first, opened and closed once, or once in
/// each round.
pub(crate) struct Window {
    opened_at: Option<u64>,
    /// From when to when it was open.
    spans: Vec<(u64, u64)>,
    elapsed_ns: u64,
    /// What was counted since the last cut.
    slice: Box<Slice>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { opened_at: None, spans: Vec::new(), elapsed_ns: 0, slice: Box::new(Slice::new()) }
    }

    pub(crate) fn open(&mut self) {
        self.opened_at = Some(clock::now_ns());
    }

    pub(crate) fn close(&mut self) {
        if let Some(opened_at) = self.opened_at.take() {
            let now = clock::now_ns();
            self.spans.push((opened_at, now));
            self.elapsed_ns += now.saturating_sub(opened_at);
        }
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        self.elapsed_ns
    }

    /// What was counted since the last cut, or in all where nothing was cut off.
    pub(crate) fn slice(&self) -> &Slice {
        &self.slice
    }

    /// Takes what was counted since the last cut, and counts in `fresh` from here on. A pointer changes hands and nothing is copied: what
    /// a core does here it does while it is measured.
    pub(crate) fn cut(&mut self, fresh: Box<Slice>) -> Box<Slice> {
        std::mem::replace(&mut self.slice, fresh)
    }

    /// Another core's part of the same run. Their windows opened and closed within microseconds of each other: the longest counts.
    pub(crate) fn add(&mut self, other: &Window) {
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
        self.slice.add(&other.slice);
    }

    /// What was cut off before.
    pub(crate) fn add_slice(&mut self, slice: &Slice) {
        self.slice.add(slice);
    }

    #[inline]
    fn is_open(&self) -> bool {
        self.opened_at.is_some()
    }

    /// Whether it was or is open at `time`. The latest span comes first: that is the one that is nearly always meant.
    fn covers(&self, time: u64) -> bool {
        self.opened_at.is_some_and(|opened_at| time >= opened_at)
            || self.spans.iter().rev().any(|&(opened_at, closed_at)| (opened_at..closed_at).contains(&time))
    }

    #[inline]
    pub(crate) fn sent(&mut self) {
        self.slice.sent += u64::from(self.is_open());
    }

    /// A message arrived, and counts where it arrived while this was open. Returns whether it did.
    #[inline]
    pub(crate) fn delivered(&mut self, latency: u64) -> bool {
        if self.is_open() {
            self.slice.delivered += 1;
            self.slice.latency.saturating_record(latency);
        }
        self.is_open()
    }

    /// A message arrived, and counts where it was due while this was open, however late it is: a message that the condition held up beyond
    /// the condition's end is the condition's.
    /// Returns whether it was.
    pub(crate) fn answered(&mut self, header: &Header, now: u64) -> bool {
        let covered = self.responded(header, now);
        self.slice.delivered += u64::from(covered);
        covered
    }

    /// A message of an open loop arrived, and counts where it arrived while this was open.
    #[inline]
    pub(crate) fn received(&mut self) {
        self.slice.delivered += u64::from(self.is_open());
    }

    /// Its times count where it was due while this was open. Returns whether it was.
    #[inline]
    pub(crate) fn responded(&mut self, header: &Header, now: u64) -> bool {
        let covered = self.covers(header.sent_at);
        if covered {
            self.slice.latency.saturating_record(now.saturating_sub(header.sent_at));
            self.slice.service.saturating_record(now.saturating_sub(header.departed));
        }
        covered
    }

    pub(crate) fn bulk_arrived(&mut self) {
        self.slice.bulk += u64::from(self.is_open());
    }

    pub(crate) fn completed(&mut self, latency: u64) {
        if self.is_open() {
            self.slice.completion.saturating_record(latency);
        }
    }

    /// The times after which a broadcast was acknowledged, in the order of `acked`.
    pub(crate) fn acked(&mut self, after_ns: [u64; 3]) {
        if self.is_open() {
            self.slice.acked.iter_mut().zip(after_ns).for_each(|(histogram, after)| histogram.saturating_record(after));
        }
    }

    /// A message that was due then was sent so late. It counts where its response time does.
    pub(crate) fn lagged(&mut self, due: u64, lag: u64) {
        if self.covers(due) {
            self.slice.send_lag.saturating_record(lag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_in_a_window_counts_there_however_late() {
        let mut window = Window::new();
        let sent = |due, departed| Header { seq: 0, sent_at: due, departed, sender: 0, run: 0 };
        let _ = window.answered(&sent(clock::now_ns(), clock::now_ns()), clock::now_ns());
        assert_eq!(window.slice.delivered, 0);
        window.open();
        let due = clock::now_ns();
        window.close();
        let between = clock::now_ns();
        window.open();
        let _ = window.answered(&sent(due, due + 2), due + 7);
        let _ = window.answered(&sent(between, between), between + 8);
        assert_eq!((window.slice.delivered, window.slice.latency.max(), window.slice.service.max()), (1, 7, 5));
        window.close();
        let _ = window.answered(&sent(due, due), due + 9);
        assert_eq!((window.slice.delivered, window.spans.len()), (2, 2));
        // A generator that stood still when the window ended sends afterwards, and its lateness is in the response time.
        window.lagged(due, 11);
        window.lagged(between, 13);
        assert_eq!((window.slice.send_lag.len(), window.slice.send_lag.max()), (1, 11));
        assert!(window.elapsed_ns() > 0);
    }

    #[test]
    fn nothing_is_lost_where_a_window_is_cut() {
        let mut window = Window::new();
        window.open();
        (0..10).for_each(|latency| assert!(window.delivered(latency)));
        let mut first = window.cut(Box::new(Slice::new()));
        assert!(window.delivered(10));
        assert_eq!((first.delivered, window.slice().delivered), (10, 1));
        window.add_slice(&first);
        assert_eq!((window.slice().delivered, window.slice().latency.len(), window.slice().latency.max()), (11, 11, 10));
        first.reset();
        assert_eq!((first.delivered, first.latency.len(), first.latency.max()), (0, 0, 0));
    }
}
