//! The books of an engine: what it has counted, and what that has to come to.
//!
//! Every counter is in one of four kinds of account, and one that is in none and not zero is an entry of its own, which does not balance:
//! what was *done* to the engine says how often it happened; two groups of counters *balance*, whatever was done; a *level* has to be back
//! where it was; a *volume* is as much as there was to do, which nobody knows beforehand.

use std::collections::HashSet;

use corecast::{Counter, Stats};
use serde::Serialize;

/// One line of the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    engine: &'static str,
    what: String,
    counted: u64,
    expected: u64,
}

impl Entry {
    pub(crate) fn balances(&self) -> bool {
        self.counted == self.expected
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { engine, what, counted, expected } = self;
        if self.balances() {
            write!(f, "{engine:8} {counted:>10}              {what}")
        } else {
            write!(f, "{engine:8} {counted:>10} NOT {expected:>8} {what}")
        }
    }
}

/// Every counter whose name begins like this.
pub(crate) fn named(begin: &str) -> Vec<Counter> {
    Counter::ALL.iter().copied().filter(|counter| counter.name().starts_with(begin)).collect()
}

/// See the module.
pub(crate) struct Books<'a> {
    engine: &'static str,
    stats: &'a Stats,
    explained: HashSet<Counter>,
    entries: Vec<Entry>,
}

impl<'a> Books<'a> {
    pub(crate) fn open(engine: &'static str, stats: &'a Stats) -> Self {
        Self { engine, stats, explained: HashSet::new(), entries: Vec::new() }
    }

    fn sum(&self, counters: &[Counter]) -> u64 {
        counters.iter().map(|&counter| self.stats.get(counter)).sum()
    }

    fn enter(&mut self, what: String, counted: u64, expected: u64) {
        self.entries.push(Entry { engine: self.engine, what, counted, expected });
    }

    /// These counters come to what was done, together: where one event may be seen in several ways, they are named in one account.
    pub(crate) fn done(&mut self, what: &str, counters: &[Counter], expected: u64) {
        self.explained.extend(counters);
        let seen: Vec<_> = counters.iter().filter(|&&counter| self.stats.get(counter) > 0).map(|counter| counter.name()).collect();
        let what = if seen.is_empty() { what.to_owned() } else { format!("{what}: {}", seen.join(" + ")) };
        self.enter(what, self.sum(counters), expected);
    }

    /// The two groups come to the same. That explains none of them.
    pub(crate) fn balance(&mut self, what: &str, left: &[Counter], right: &[Counter]) {
        self.enter(what.to_owned(), self.sum(left), self.sum(right));
    }

    /// These are back where they were.
    pub(crate) fn levels(&mut self, before: &Stats, counters: &[Counter]) {
        self.explained.extend(counters);
        for &counter in counters {
            self.enter(format!("{} as before", counter.name()), self.stats.get(counter), before.get(counter));
        }
    }

    /// As much as there was to do.
    pub(crate) fn volumes(&mut self, counters: &[Counter]) {
        self.explained.extend(counters);
    }

    /// What no engine counts: what it is, how much, and how much it should be.
    pub(crate) fn facts<const N: usize>(facts: [(&str, u64, u64); N]) -> Vec<Entry> {
        facts.map(|(what, counted, expected)| Entry { engine: "both", what: what.to_owned(), counted, expected }).into()
    }

    /// All entries. What is in no account and not zero is one that does not balance.
    pub(crate) fn close(mut self) -> Vec<Entry> {
        let unexplained: Vec<_> = self.stats.iter().filter(|(counter, value)| *value > 0 && !self.explained.contains(counter)).collect();
        for (counter, value) in unexplained {
            self.enter(format!("{} is explained by nothing", counter.name()), value, 0);
        }
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_account_does_not_balance() {
        let engine = corecast::Engine::start(corecast::Config::plaintext(), |_| Idle).unwrap();
        let handle = engine.handle();
        // The answer takes a turn, and its count is published when the core goes to sleep again.
        while handle.stats().get(Counter::Turns) == 0 {
            assert!(handle.peers(std::time::Duration::from_secs(10)).is_ok_and(|peers| peers.is_empty()));
        }
        let stats = handle.stats();
        let entries = Books::open("idle", &stats).close();
        assert!(entries.iter().any(|entry| entry.what.starts_with("turns ") && !entry.balances()), "{entries:?}");
        let mut books = Books::open("idle", &stats);
        books.volumes(Counter::ALL);
        books.done("nobody came", &[Counter::Accepted], 0);
        books.done("somebody came", &[Counter::Accepted], 1);
        books.balance("nobody was, nobody ended", &[Counter::Established], &named("closed_"));
        let balances: Vec<_> = books.close().iter().map(Entry::balances).collect();
        assert_eq!(balances, [true, false, true]);
        engine.shutdown();
    }

    struct Idle;

    impl corecast::Handler for Idle {
        type Command = ();

        fn on_message(&mut self, _: &mut corecast::Context<'_>, _: corecast::PeerId, _: corecast::Message<'_>) {}
    }
}
