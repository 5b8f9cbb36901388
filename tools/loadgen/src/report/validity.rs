//! Whether an open-loop run says something about the server: it does not where the load generator itself fell behind.

use serde::{Deserialize, Serialize};

use super::table::time;
use super::{Figures, Verified};
use crate::spec::Spec;

/// Response times count from when messages were due, so what the generator is late by is in them. Where that is more than this part of what
/// is reported at p99, the report is about the generator.
const SHARE: f64 = 0.5;
/// But no less than this, nanoseconds: what waking two threads takes. On a quiet server that is half of every response time.
const FLOOR_NS: u64 = 100_000;

/// What an open-loop run is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validity {
    pub(crate) valid: bool,
    /// How late the generator may have been at p99.
    pub(crate) lag_bound_ns: u64,
    /// Why it is not valid, and what to do.
    pub(crate) reasons: Vec<String>,
}

impl Validity {
    /// Nothing in a closed loop. Runs of several phases compare these with each other, and what the generator does meets all of them: such
    /// a run has a bound only where it was given one.
    pub(crate) fn of(spec: &Spec, verified: &Verified, figures: &Figures) -> Option<Self> {
        spec.pacing.offered()?;
        let given = spec.generator.lag_bound.map(|bound| u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX));
        if spec.rounds.is_some() && given.is_none() {
            return None;
        }
        let response = figures.measured().filter_map(|measured| measured.latency_ns).map(|latency| latency.p99).max();
        let lag = figures.measured().filter_map(|measured| measured.send_lag_ns).map(|lag| lag.p99).max();
        Some(Self::judge(given, response.unwrap_or(0), lag.unwrap_or(0), verified.unsent))
    }

    /// By the bound that was given, p99 of the response time and of the generator's lag, and what was due and not sent.
    fn judge(given: Option<u64>, response_ns: u64, lag_ns: u64, unsent: u64) -> Self {
        let lag_bound_ns = given.unwrap_or_else(|| FLOOR_NS.max((response_ns as f64 * SHARE) as u64));
        let mut reasons = Vec::new();
        if lag_ns > lag_bound_ns {
            let (late, bound) = (time(lag_ns), time(lag_bound_ns));
            let what_to_do = "give it processors (--client-cores), load by several and merge, or lower --rate";
            reasons.push(format!("the generator was {late} late at p99, over {bound}: {what_to_do}"));
        }
        if unsent > 0 {
            reasons.push(format!("{unsent} messages were due and never sent, so the worst response times are missing: lower --rate"));
        }
        Self { valid: reasons.is_empty(), lag_bound_ns, reasons }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_fell_behind_is_no_measurement() {
        let valid = |given, response, lag, unsent| Validity::judge(given, response, lag, unsent).valid;
        // Half of the response time, and never less than what waking a thread takes.
        assert!(valid(None, 1_000_000, 500_000, 0) && !valid(None, 1_000_000, 500_001, 0));
        assert!(valid(None, 50_000, 100_000, 0) && !valid(None, 50_000, 100_001, 0));
        // What the command line says counts instead.
        assert!(valid(Some(2_000_000), 0, 2_000_000, 0) && !valid(Some(1_000), 1_000_000, 1_001, 0));
        // What was never sent has no response time.
        let unsent = Validity::judge(None, 1_000_000, 0, 3);
        assert!(!unsent.valid && unsent.reasons.len() == 1 && unsent.reasons[0].contains("3 messages"), "{unsent:?}");
        assert_eq!(Validity::judge(None, 1_000, 200_000, 3).reasons.len(), 2);
    }
}
