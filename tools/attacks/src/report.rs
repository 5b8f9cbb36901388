//! What an attack did, and what it saw.

use std::collections::BTreeMap;
use std::fmt;

use crate::link::{Answer, Ending};
use crate::peer::Failure;

/// What came of an attack, from the attacker's side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections that TCP granted.
    pub connected: u64,
    /// Connections that it did not.
    pub connect_failures: u64,
    /// Handshakes that came to their end.
    pub established: u64,
    /// Bytes that were sent.
    pub bytes_sent: u64,
    /// What was attempted, in the attack's own unit: pings, records, bit flips.
    pub attempts: u64,
    /// Refusals, by code.
    pub refusals: BTreeMap<u16, u64>,
    /// Farewells, by code and detail.
    pub goodbyes: BTreeMap<(u16, u16), u64>,
    /// Ends without a word.
    pub eofs: u64,
    /// Resets.
    pub resets: u64,
    /// What was still open at the end.
    pub open: u64,
    /// Answers that were none of these, and dialogues that should not have succeeded.
    pub unexpected: u64,
}

impl Report {
    /// Counts what a connection was answered before its handshake was over.
    pub fn answer(&mut self, answer: &Answer) {
        match (answer.refusal(), answer.bytes.is_empty(), answer.ending) {
            (Some(code), _, _) => *self.refusals.entry(code).or_default() += 1,
            (None, true, Ending::Eof) => self.eofs += 1,
            (None, true, Ending::Reset) => self.resets += 1,
            (None, true, Ending::Open) => self.open += 1,
            (None, false, _) => self.unexpected += 1,
        }
    }

    /// Counts how a dialogue failed.
    pub fn failure(&mut self, failure: &Failure) {
        match failure {
            Failure::Connect(_) => self.connect_failures += 1,
            Failure::Refused(code) => *self.refusals.entry(*code).or_default() += 1,
            Failure::Goodbye(code, detail) => *self.goodbyes.entry((*code, *detail)).or_default() += 1,
            Failure::Ended(Ending::Eof) => self.eofs += 1,
            Failure::Ended(Ending::Reset) => self.resets += 1,
            Failure::Ended(Ending::Open) => self.open += 1,
            Failure::Nonsense(_) => self.unexpected += 1,
        }
    }

    /// Refusals with this code.
    #[must_use]
    pub fn refused(&self, code: u16) -> u64 {
        self.refusals.get(&code).copied().unwrap_or(0)
    }

    /// Farewells for this rule.
    #[must_use]
    pub fn violations(&self, rule: u16) -> u64 {
        self.goodbyes.get(&(crate::wire::VIOLATION, rule)).copied().unwrap_or(0)
    }

    /// Connections that have ended, in whatever way.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.refusals.values().sum::<u64>() + self.goodbyes.values().sum::<u64>() + self.eofs + self.resets
    }

    /// Adds another.
    pub fn merge(&mut self, other: &Self) {
        self.connected += other.connected;
        self.connect_failures += other.connect_failures;
        self.established += other.established;
        self.bytes_sent += other.bytes_sent;
        self.attempts += other.attempts;
        self.eofs += other.eofs;
        self.resets += other.resets;
        self.open += other.open;
        self.unexpected += other.unexpected;
        for (&code, &count) in &other.refusals {
            *self.refusals.entry(code).or_default() += count;
        }
        for (&said, &count) in &other.goodbyes {
            *self.goodbyes.entry(said).or_default() += count;
        }
    }
}

/// One line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections", self.connected)?;
        let counts = [
            (self.connect_failures, "not granted"),
            (self.established, "established"),
            (self.attempts, "attempts"),
            (self.eofs, "closed"),
            (self.resets, "reset"),
            (self.open, "left open"),
            (self.unexpected, "UNEXPECTED"),
            (self.bytes_sent, "bytes sent"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        for (code, count) in &self.refusals {
            write!(f, ", {count} refused ({code})")?;
        }
        for ((code, detail), count) in &self.goodbyes {
            write!(f, ", {count} told goodbye ({code}/{detail})")?;
        }
        Ok(())
    }
}
