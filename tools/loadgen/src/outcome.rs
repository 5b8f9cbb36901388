//! From what each core saw to one report.

use std::collections::BTreeMap;

use crate::client::Outcome;
use crate::machine::boot_id;
use crate::measure::Window;
use crate::probe::Sample;
use crate::report::{Latency, Measured, Verified};
use crate::verify::Tally;
use crate::workload::Kind;

/// What the server said at the two ends of the measured window.
pub(crate) type Samples = [Option<Sample>; 2];

/// All cores' outcomes in one.
pub(crate) struct Total {
    sent: u64,
    unsent: u64,
    tally: Tally,
    window: Window,
    pub(crate) failures: BTreeMap<String, u64>,
    endings: BTreeMap<String, u64>,
}

impl Total {
    pub(crate) fn of(outcomes: Vec<Outcome>) -> Self {
        let mut outcomes = outcomes.into_iter();
        let first = outcomes.next().expect("a run has an engine");
        let Outcome { sent, unsent, tally, window, failures, endings } = first;
        let mut total = Self { sent, unsent, tally, window, failures, endings };
        for outcome in outcomes {
            total.sent += outcome.sent;
            total.unsent += outcome.unsent;
            total.tally += outcome.tally;
            total.window.add(&outcome.window);
            for (reasons, more) in [(&mut total.failures, outcome.failures), (&mut total.endings, outcome.endings)] {
                more.into_iter().for_each(|(reason, count)| *reasons.entry(reason).or_default() += count);
            }
        }
        total
    }

    pub(crate) fn verified(&self, deliveries_per_message: u64) -> Verified {
        Verified {
            total_sent: self.sent,
            unsent: self.unsent,
            total_delivered: self.tally.delivered,
            lost: (self.sent * deliveries_per_message).saturating_sub(self.tally.delivered),
            duplicated: self.tally.duplicated,
            reordered: self.tally.reordered,
            corrupt: self.tally.corrupt,
            disconnected: self.endings.values().sum(),
            disconnect_reasons: self.endings.clone(),
        }
    }

    pub(crate) fn measured(&self, kind: Kind, samples: Samples) -> Measured {
        let window = &self.window;
        let [before, after] = samples;
        let both = before.zip(after);
        let (elapsed_ns, delivered, latency) = match both {
            _ if !kind.counted_at_server() => (window.elapsed_ns(), window.delivered, Latency::of(&window.latency)),
            Some((before, after)) => at_server(&before, &after),
            None => (window.elapsed_ns(), 0, None),
        };
        let deliveries_per_s = per_second(delivered, elapsed_ns);
        let (server_cpus_used, server_cpus_waited) = both.and_then(|(before, after)| cpus_used(&before, &after)).unzip();
        Measured {
            elapsed_s: elapsed_ns as f64 / 1e9,
            sent: window.sent,
            delivered,
            msgs_per_s: per_second(window.sent, elapsed_ns),
            deliveries_per_s,
            latency_ns: latency,
            completion_ns: Latency::of(&window.completion),
            send_lag_ns: Latency::of(&window.send_lag),
            // The two sides' windows differ by some microseconds, so this is a quotient of rates and not of sums.
            server_cpu_ns_per_delivery: server_cpus_used.filter(|_| delivered > 0).map(|cpus| cpus * 1e9 / deliveries_per_s),
            server_cpus_used,
            server_cpus_waited,
        }
    }
}

/// What arrived at the server between two samples, and how long it took.
fn at_server(before: &Sample, after: &Sample) -> (u64, u64, Option<Latency>) {
    let same_clock = after.boot_id == boot_id() && after.boot_id != 0;
    let latency = same_clock.then(|| Latency::new(after.latency)).filter(|latency| latency.max > 0);
    let delivered = after.tally.delivered.saturating_sub(before.tally.delivered);
    (after.clock_ns.saturating_sub(before.clock_ns), delivered, latency)
}

/// How many processors the server kept busy between two samples, and how many it waited for; nothing where its machine keeps no account.
fn cpus_used(before: &Sample, after: &Sample) -> Option<(f64, f64)> {
    let clock = after.clock_ns.checked_sub(before.clock_ns).filter(|clock| *clock > 0)? as f64;
    let ran = after.cpu.ran_ns.checked_sub(before.cpu.ran_ns).filter(|ran| *ran > 0)? as f64;
    let waited = after.cpu.waited_ns.saturating_sub(before.cpu.waited_ns) as f64;
    Some((ran / clock, waited / clock))
}

fn per_second(count: u64, elapsed_ns: u64) -> f64 {
    if elapsed_ns == 0 { 0.0 } else { count as f64 * 1e9 / elapsed_ns as f64 }
}
