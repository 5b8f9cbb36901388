//! The measurement window: what is counted between the end of the warm-up and the end of the run.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::ledger::Faults;
use crate::machine;
use crate::sys::{self, CpuClock};

/// How long to run, and whose CPU time to watch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
    /// The server's process.
    pub(crate) server_pid: Option<u32>,
}

/// The figures of one window.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Figures {
    pub(crate) deliveries: u64,
    pub(crate) seconds: f64,
    pub(crate) deliveries_per_second: f64,
    /// Echo: from sending a message to having its answer. Fan-out: from sending to the last peer having it.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) server_cpu_ns_per_delivery: f64,
    pub(crate) client_cpu_ns_per_delivery: f64,
    /// CPU that the server used, in cores.
    pub(crate) server_cores: f64,
    /// `Idle`: what the server's resident memory grew by, for each connection.
    pub(crate) bytes_per_connection: Option<f64>,
    /// CPU that neither the server nor the client used, in cores: how much the run was disturbed.
    pub(crate) foreign_cores: f64,
    pub(crate) faults: Faults,
}

/// Readings at one border of the window.
#[derive(Clone, Copy)]
struct Reading {
    at: u64,
    deliveries: u64,
    server_cpu: u64,
    client_cpu: u64,
    machine_cpu: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warmup,
    Measure,
    /// Nothing new is sent; what is outstanding is awaited.
    Drain,
}

/// Counts deliveries and latencies of one run.
pub(crate) struct Meter {
    phase: Phase,
    next_border: u64,
    measure_ns: u64,
    deliveries: u64,
    latency: Histogram<u64>,
    server: Option<CpuClock>,
    client: CpuClock,
    first: Option<Reading>,
    last: Option<Reading>,
}

impl Meter {
    pub(crate) fn start(window: &Window, now: u64) -> std::io::Result<Self> {
        Ok(Self {
            phase: Phase::Warmup,
            next_border: now + window.warmup.as_nanos() as u64,
            measure_ns: window.measure.as_nanos() as u64,
            deliveries: 0,
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are valid"),
            server: window.server_pid.map(CpuClock::of_process).transpose()?,
            client: CpuClock::of_process(std::process::id())?,
            first: None,
            last: None,
        })
    }

    #[inline]
    pub(crate) fn delivered(&mut self, messages: u64) {
        self.deliveries += messages;
    }

    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// A message that was sent (open loop: due) then has come now. It counts in the window that it was sent in, however late it came:
    /// otherwise those that a server held up at the end of the window would be left out.
    #[inline]
    pub(crate) fn record(&mut self, sent_at: u64, now: u64) {
        let begun = self.first.is_some_and(|first| first.at <= sent_at);
        if begun && self.last.is_none_or(|last| sent_at < last.at) {
            self.latency.saturating_record(now.saturating_sub(sent_at));
        }
    }

    #[inline]
    pub(crate) fn draining(&self) -> bool {
        self.phase == Phase::Drain
    }

    /// Moves on to the next phase when its time has come.
    #[inline]
    pub(crate) fn tick(&mut self, now: u64) -> std::io::Result<()> {
        if now >= self.next_border && self.phase != Phase::Drain { self.cross_border() } else { Ok(()) }
    }

    #[cold]
    fn cross_border(&mut self) -> std::io::Result<()> {
        let reading = Reading {
            server_cpu: self.server.map_or(Ok(0), CpuClock::nanos)?,
            client_cpu: self.client.nanos()?,
            machine_cpu: machine::busy_nanos(),
            at: sys::monotonic_nanos(),
            deliveries: self.deliveries,
        };
        if self.phase == Phase::Warmup {
            self.phase = Phase::Measure;
            self.next_border = reading.at + self.measure_ns;
            self.first = Some(reading);
        } else {
            self.phase = Phase::Drain;
            self.last = Some(reading);
        }
        Ok(())
    }

    /// The figures, once the run is over. None if it ended before its window did.
    pub(crate) fn figures(&self, faults: Faults) -> Option<Figures> {
        let (first, last) = (self.first?, self.last?);
        let deliveries = last.deliveries - first.deliveries;
        let seconds = (last.at - first.at) as f64 / 1e9;
        let (server_cpu, client_cpu) = (last.server_cpu - first.server_cpu, last.client_cpu - first.client_cpu);
        let foreign = (last.machine_cpu - first.machine_cpu).saturating_sub(server_cpu + client_cpu);
        let per_delivery = |nanos: u64| nanos as f64 / deliveries as f64;
        Some(Figures {
            deliveries,
            seconds,
            deliveries_per_second: deliveries as f64 / seconds,
            p50_ns: self.latency.value_at_quantile(0.50),
            p99_ns: self.latency.value_at_quantile(0.99),
            p999_ns: self.latency.value_at_quantile(0.999),
            server_cpu_ns_per_delivery: per_delivery(server_cpu),
            client_cpu_ns_per_delivery: per_delivery(client_cpu),
            server_cores: server_cpu as f64 / 1e9 / seconds,
            bytes_per_connection: None,
            foreign_cores: foreign as f64 / 1e9 / seconds,
            faults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_in_the_window_counts_however_late_it_came() {
        let window = Window { warmup: Duration::ZERO, measure: Duration::from_secs(3600), server_pid: None };
        let mut meter = Meter::start(&window, 1).unwrap();
        meter.record(1, 2);
        meter.tick(u64::MAX - 1).unwrap();
        let begin = meter.first.unwrap().at;
        meter.record(begin - 1, begin + 5);
        meter.record(begin, begin + 7);
        // The window ends now, whatever it was to be.
        meter.cross_border().unwrap();
        let end = meter.last.unwrap().at;
        meter.record(end - 1, end + 1_000_000);
        meter.record(end, end + 3);
        assert!(meter.draining());
        assert_eq!((meter.latency.len(), meter.latency.min()), (2, 7));
    }
}
