//! Rounds of an undisturbed and a disturbed phase, one after the other in one run: whatever else the machine does meets both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{CONNECT_TIMEOUT, GLANCE, Run};
use crate::client::Command;
use crate::error::Error;
use crate::measure::Condition;
use crate::outcome::Samples;
use crate::probe::{Counters, Question, decode_counters};
use crate::serve::Stop;
use crate::spec::Spec;

/// After a change of condition, before anything is measured. With bulk: time for it to fill what there is to fill.
const SETTLE: Duration = Duration::from_millis(200);
/// How often the server is asked whom it has cut off.
const POLL: Duration = Duration::from_millis(100);

/// What the phases came to, besides what the client's cores have counted.
#[derive(Default)]
pub(crate) struct Phases {
    /// By condition, in the order of [`Condition::BOTH`].
    pub(crate) samples: [Vec<Samples>; 2],
    /// Subscribers that stopped reading, of all rounds.
    pub(crate) stopped: u64,
    /// Peers that the server cut off during disturbed phases, by its counter.
    pub(crate) cut_off: BTreeMap<String, u64>,
}

impl Run {
    /// All rounds. Ends early where a signal comes or a peer ends that should not.
    pub(super) fn alternate(&mut self, spec: &Spec, rounds: u32, stop: &Stop) -> Result<Phases, Error> {
        let mut phases = Phases::default();
        for round in 0..rounds {
            if round > 0 {
                self.calm(spec, stop)?;
            }
            if stop.requested() || self.failed() {
                break;
            }
            self.settle(spec, stop);
            self.measure_phase(spec, Condition::Undisturbed, &mut phases, stop, |_| false);
            if self.slow.is_some() {
                self.stop_readers(spec, &mut phases, stop);
            } else {
                self.tell_all(|| Command::Enter(Condition::Disturbed));
                self.settle(spec, stop);
                self.measure_phase(spec, Condition::Disturbed, &mut phases, stop, |_| false);
                self.tell_all(|| Command::Enter(Condition::Undisturbed));
            }
        }
        Ok(phases)
    }

    fn settle(&mut self, spec: &Spec, stop: &Stop) {
        self.wait("settling", spec, SETTLE.min(spec.phase()), stop, |_| false);
    }

    /// Until nothing is left of the last phase's disturbance, or nothing more will be measured.
    fn calm(&mut self, spec: &Spec, stop: &Stop) -> Result<(), Error> {
        self.wait("settling", spec, spec.load.drain, stop, |run| run.cohort.sum(|progress| &progress.outstanding) == 0);
        if let Some(slow) = &self.slow {
            slow.renew();
            self.connect_slow(spec, stop)?;
        }
        Ok(())
    }

    /// Until the subscribers that will stop are there, or there is no point in waiting for them.
    pub(super) fn connect_slow(&mut self, spec: &Spec, stop: &Stop) -> Result<(), Error> {
        let Some(slow) = &self.slow else { return Ok(()) };
        let (started, given_up_after) = (Instant::now(), spec.load.connect_timeout.unwrap_or(CONNECT_TIMEOUT));
        while slow.ready() < u64::from(slow.count) {
            if stop.requested() || self.failed() {
                return Ok(());
            }
            if started.elapsed() >= given_up_after {
                let reasons = slow.failure().map_or_else(String::new, |reason| format!("; {reason}"));
                let (target, ready, wanted, waited) = (self.targets.to_string(), slow.ready(), u64::from(slow.count), started.elapsed());
                return Err(Error::Connect { target, ready, wanted, waited, reasons });
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// One phase, at most as long as `spec` says: `done` may end it.
    fn measure_phase(&mut self, spec: &Spec, condition: Condition, phases: &mut Phases, stop: &Stop, done: impl FnMut(&Self) -> bool) {
        let name = match condition {
            Condition::Undisturbed => "undisturbed",
            Condition::Disturbed => "disturbed",
        };
        self.tell_all(|| Command::OpenWindow(condition));
        let before = self.sample(Question::Sample);
        self.timeline.begin(condition);
        self.wait(name, spec, spec.phase(), stop, done);
        self.tell_all(|| Command::CloseWindow);
        self.timeline.end();
        phases.samples[condition as usize].push(self.samples(before));
    }

    /// The disturbed phase of slow readers: it is over when the last of them was cut off, for then it is undisturbed again.
    fn stop_readers(&mut self, spec: &Spec, phases: &mut Phases, stop: &Stop) {
        let Some(slow) = &self.slow else { return };
        let count = u64::from(slow.count);
        let before = self.counters();
        slow.stop_reading();
        phases.stopped += count;
        let mut polled = Instant::now();
        self.measure_phase(spec, Condition::Disturbed, phases, stop, |run| {
            if polled.elapsed() < POLL {
                return false;
            }
            polled = Instant::now();
            cut_off(&before, &run.counters()).values().sum::<u64>() >= count
        });
        for (reason, more) in cut_off(&before, &self.counters()) {
            *phases.cut_off.entry(reason).or_default() += more;
        }
    }

    /// What the server has counted; nothing where it does not answer.
    fn counters(&self) -> Counters {
        if self.failed() {
            return Counters::new();
        }
        self.probe(0, Question::Counters).ok().and_then(|body| decode_counters(&body)).unwrap_or_default()
    }
}

/// Whom a server has cut off for not reading, between two readings of its counters.
fn cut_off(before: &Counters, after: &Counters) -> Counters {
    let not_reading = |name: &str| name.starts_with("closed_slow_") || name == "closed_unresponsive";
    let more = |(name, count): (&String, &u64)| (name.clone(), count.saturating_sub(before.get(name).copied().unwrap_or(0)));
    after.iter().filter(|(name, _)| not_reading(name)).map(more).filter(|(_, more)| *more > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_did_not_read_count_as_cut_off() {
        let counters = |list: &[(&str, u64)]| list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Counters>();
        let before = counters(&[("closed_slow_soft_mark", 2), ("closed_eof", 1), ("closed_slow_log_full", 1)]);
        let after = counters(&[("closed_slow_soft_mark", 5), ("closed_eof", 9), ("closed_slow_log_full", 1), ("closed_unresponsive", 1)]);
        assert_eq!(cut_off(&before, &after), counters(&[("closed_slow_soft_mark", 3), ("closed_unresponsive", 1)]));
    }
}
