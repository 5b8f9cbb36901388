//! What became of requests: answered, timed out, or failed otherwise.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::{group, row};
use crate::spec::Requests;

/// Requests that came to their end without an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// At their deadline.
    pub(crate) timed_out: u64,
    /// Before it, and why.
    pub(crate) failed: BTreeMap<String, u64>,
}

impl Unanswered {
    pub(crate) fn count(&self) -> u64 {
        self.timed_out + self.failed.values().sum::<u64>()
    }
}

/// What became of all requests of a run, warm-up and drain included.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestFigures {
    pub(crate) deadline_s: f64,
    pub(crate) answered: u64,
    /// At their deadline, without an answer.
    pub(crate) timed_out: u64,
    /// So many may have.
    pub(crate) timeouts_allowed: u64,
    /// Ended otherwise.
    pub(crate) failed: u64,
    pub(crate) failed_reasons: BTreeMap<String, u64>,
    /// Answers that came after their deadline.
    pub(crate) late_answers: u64,
}

impl RequestFigures {
    pub(crate) fn new(requests: Requests, answered: u64, unanswered: &Unanswered, late_answers: u64) -> Self {
        Self {
            deadline_s: requests.deadline.as_secs_f64(),
            answered,
            timed_out: unanswered.timed_out,
            timeouts_allowed: requests.timeouts_allowed,
            failed: unanswered.failed.values().sum(),
            failed_reasons: unanswered.failed.clone(),
            late_answers,
        }
    }

    /// Whether no more have timed out than may have, and nothing has failed.
    pub(crate) fn are_answered(&self) -> bool {
        self.timed_out <= self.timeouts_allowed && self.failed == 0
    }
}

impl fmt::Display for RequestFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [answered, timed_out] = [self.answered, self.timed_out].map(group);
        let end = if self.are_answered() { "" } else { "   FAILED" };
        let allowed = if self.timeouts_allowed > 0 { format!(" ({} may)", group(self.timeouts_allowed)) } else { String::new() };
        row(f, "requests", &format!("{answered} answered, {timed_out} timed out after {} s{allowed}{end}", self.deadline_s))?;
        self.failed_reasons.iter().try_for_each(|(reason, count)| row(f, "failed", &format!("{count} x {reason}")))?;
        if self.late_answers > 0 {
            row(f, "late answers", &format!("{}, after their deadline", group(self.late_answers)))?;
        }
        Ok(())
    }
}
