//! From what each core saw to one report.

use std::collections::BTreeMap;

use crate::answers::{RequestFigures, Unanswered};
use crate::client::{Outcome, Receipts};
use crate::machine::boot_id;
use crate::measure::{Condition, Slice, Window};
use crate::pairs::PairFigures;
use crate::probe::Sample;
use crate::report::{Histograms, Latency, Measured, Verified};
use crate::run::Phases;
use crate::spec::{Requests, Spec};
use crate::targets::{Exchanges, OfServer, TargetFigures, Targets};
use crate::verify::Tally;
use crate::workload::{Kind, slow_readers};

/// What each target said at the two ends of a measured phase.
pub(crate) type Samples = Vec<[Option<Sample>; 2]>;

/// All cores' outcomes in one.
pub(crate) struct Total {
    sent: u64,
    unsent: u64,
    foreign: u64,
    tally: Tally,
    /// In the order of [`Condition::BOTH`].
    windows: [Window; 2],
    pub(crate) failures: BTreeMap<String, u64>,
    endings: BTreeMap<String, u64>,
    receipts: Receipts,
    unanswered: Unanswered,
    /// Answers that came after their deadline.
    pub(crate) late_answers: u64,
    pairs: Option<PairFigures>,
    exchanges: Exchanges,
    /// What the subscribers that stop received while they read.
    slow: Tally,
}

impl Total {
    pub(crate) fn of(outcomes: Vec<Outcome>) -> Self {
        let mut outcomes = outcomes.into_iter();
        let first = outcomes.next().expect("a run has an engine");
        let Outcome { sent, unsent, foreign, tally, receipts, unanswered, pairs, exchanges, windows, failures, endings } = first;
        let mut engines: Vec<_> = pairs.into_iter().collect();
        let (late_answers, pairs, slow) = (0, None, Tally::default());
        let mut total =
            Self { sent, unsent, foreign, tally, windows, failures, endings, receipts, unanswered, late_answers, pairs, exchanges, slow };
        for outcome in outcomes {
            engines.extend(outcome.pairs);
            total.exchanges.add(&outcome.exchanges);
            total.unanswered.timed_out += outcome.unanswered.timed_out;
            total.sent += outcome.sent;
            total.unsent += outcome.unsent;
            total.foreign += outcome.foreign;
            total.tally += outcome.tally;
            total.windows.iter_mut().zip(&outcome.windows).for_each(|(window, other)| window.add(other));
            total.receipts.complete += outcome.receipts.complete;
            for (reasons, more) in [
                (&mut total.failures, outcome.failures),
                (&mut total.endings, outcome.endings),
                (&mut total.receipts.incomplete, outcome.receipts.incomplete),
                (&mut total.unanswered.failed, outcome.unanswered.failed),
            ] {
                more.into_iter().for_each(|(reason, count)| *reasons.entry(reason).or_default() += count);
            }
        }
        total.pairs = PairFigures::of(engines);
        total
    }

    /// What was cut off of the windows while they were open, in the order of [`Condition::BOTH`].
    pub(crate) fn add_slices(&mut self, slices: &[Slice; 2]) {
        self.windows.iter_mut().zip(slices).for_each(|(window, slice)| window.add_slice(slice));
    }

    /// What became of requests.
    pub(crate) fn requests(&self, requests: Requests) -> RequestFigures {
        RequestFigures::new(requests, self.tally.delivered, &self.unanswered, self.late_answers)
    }

    /// Each target, where there are several.
    pub(crate) fn targets(&self, targets: &Targets, spec: &Spec, phases: &Phases) -> Vec<TargetFigures> {
        let samples = phases.samples.concat();
        self.exchanges.figures(targets, spec.connections(), |target| {
            let ends = samples.first().and_then(|targets| targets.get(target)).filter(|_| spec.kind.counted_at_server());
            let latency = ends.and_then(|[before, after]| at_server(before.as_ref()?, after.as_ref()?).2);
            OfServer { latency, cpus: cpus_used(&samples, target) }
        })
    }

    /// Who has how much of whom.
    pub(crate) fn pairs(&self) -> Option<PairFigures> {
        self.pairs.clone()
    }

    /// The subscribers that stop: whatever went wrong with them counts, but nobody knows how much they should have received.
    pub(crate) fn add_slow(&mut self, outcome: slow_readers::Outcome) {
        self.slow = outcome.tally;
        outcome.endings.into_iter().for_each(|(reason, count)| *self.endings.entry(reason).or_default() += count);
    }

    /// Broadcasts that all peers have acknowledged; what was wrong with the others, and how often: those that nobody has said anything of
    /// are among them.
    pub(crate) fn receipts(&self) -> (u64, BTreeMap<String, u64>) {
        let Receipts { complete, mut incomplete } = self.receipts.clone();
        let silent = self.sent.saturating_sub(complete + incomplete.values().sum::<u64>());
        if silent > 0 {
            incomplete.insert("the server has said nothing of it".into(), silent);
        }
        (complete, incomplete)
    }

    /// Broadcast to the first acknowledgement, to that which made the quorum, to the last.
    pub(crate) fn acked(&self) -> [Option<Latency>; 3] {
        self.windows[Condition::Undisturbed as usize].slice().acked.each_ref().map(Latency::of)
    }

    /// Messages that the subscribers that stop received while they read.
    pub(crate) fn slow_delivered(&self) -> u64 {
        self.slow.delivered
    }

    /// Bulk messages that arrived in the disturbed phases, and how long those were.
    pub(crate) fn bulk(&self) -> (u64, u64) {
        let window = &self.windows[Condition::Disturbed as usize];
        (window.slice().bulk, window.elapsed_ns())
    }

    /// `deliveries`: of so many messages, as far as they are known to lead to some.
    pub(crate) fn verified(&self, deliveries: impl Fn(u64) -> u64) -> Verified {
        Verified {
            total_sent: self.sent,
            unsent: self.unsent,
            total_delivered: self.tally.delivered,
            lost: deliveries(self.sent).saturating_sub(self.tally.delivered + self.unanswered.count()),
            duplicated: self.tally.duplicated + self.slow.duplicated,
            reordered: self.tally.reordered + self.slow.reordered,
            corrupt: self.tally.corrupt + self.slow.corrupt,
            foreign: self.foreign,
            disconnected: self.endings.values().sum(),
            disconnect_reasons: self.endings.clone(),
        }
    }

    /// What was measured under one condition, in all of its phases.
    pub(crate) fn measured(&self, kind: Kind, condition: Condition, phases: &Phases) -> Measured {
        let window = &self.windows[condition as usize];
        let slice = window.slice();
        let samples = &phases.samples[condition as usize];
        let (elapsed_ns, delivered, latency) = match samples.first() {
            _ if !kind.counted_at_server() => (window.elapsed_ns(), slice.delivered, Latency::of(&slice.latency)),
            Some(targets) => at_servers(targets).unwrap_or((window.elapsed_ns(), 0, None)),
            None => (window.elapsed_ns(), 0, None),
        };
        let deliveries_per_s = per_second(delivered, elapsed_ns);
        let targets = 0..samples.first().map_or(0, Vec::len);
        let cpus = targets.map(|target| cpus_used(samples, target)).try_fold((0.0, 0.0), |sum, cpus| {
            let (used, waited) = cpus?;
            Some((sum.0 + used, sum.1 + waited))
        });
        let (server_cpus_used, server_cpus_waited) = cpus.filter(|_| !samples.is_empty()).unzip();
        Measured {
            elapsed_s: elapsed_ns as f64 / 1e9,
            sent: slice.sent,
            delivered,
            msgs_per_s: per_second(slice.sent, elapsed_ns),
            deliveries_per_s,
            latency_ns: latency,
            service_ns: Latency::of(&slice.service),
            completion_ns: Latency::of(&slice.completion),
            send_lag_ns: Latency::of(&slice.send_lag),
            // The two sides' windows differ by some microseconds, so this is a quotient of rates and not of sums.
            server_cpu_ns_per_delivery: server_cpus_used.filter(|_| delivered > 0).map(|cpus| cpus * 1e9 / deliveries_per_s),
            server_cpus_used,
            server_cpus_waited,
            histograms: Histograms::of(slice),
        }
    }
}

/// What arrived at all servers. Percentiles of several cannot be added up.
fn at_servers(targets: &Samples) -> Option<(u64, u64, Option<Latency>)> {
    let each = targets.iter().map(|[before, after]| Some(at_server(before.as_ref()?, after.as_ref()?)));
    let all = each.collect::<Option<Vec<_>>>()?;
    if let [one] = all[..] {
        return Some(one);
    }
    Some((all.iter().map(|(elapsed, ..)| *elapsed).max()?, all.iter().map(|(_, delivered, _)| delivered).sum(), None))
}

/// What arrived at the server between two samples, and how long it took.
fn at_server(before: &Sample, after: &Sample) -> (u64, u64, Option<Latency>) {
    let same_clock = after.boot_id == boot_id() && after.boot_id != 0;
    let latency = same_clock.then(|| Latency::new(after.latency)).filter(|latency| latency.max > 0);
    let delivered = after.tally.delivered.saturating_sub(before.tally.delivered);
    (after.clock_ns.saturating_sub(before.clock_ns), delivered, latency)
}

/// How many processors a target kept busy between the two samples of each phase, and how many it waited for; nothing where its machine
/// keeps no account.
fn cpus_used(phases: &[Samples], target: usize) -> Option<(f64, f64)> {
    let [mut clock, mut ran, mut waited] = [0; 3];
    for samples in phases {
        let [Some(before), Some(after)] = samples.get(target)? else { return None };
        clock += after.clock_ns.checked_sub(before.clock_ns)?;
        ran += after.cpu.ran_ns.checked_sub(before.cpu.ran_ns)?;
        waited += after.cpu.waited_ns.saturating_sub(before.cpu.waited_ns);
    }
    (clock > 0 && ran > 0).then(|| (ran as f64 / clock as f64, waited as f64 / clock as f64))
}

pub(crate) fn per_second(count: u64, elapsed_ns: u64) -> f64 {
    if elapsed_ns == 0 { 0.0 } else { count as f64 * 1e9 / elapsed_ns as f64 }
}
