//! What a sink has received, by run: several clients may load one server, and each is told of its own messages.
//!
//! A run has an account on each core that has one of its peers: opened by the first that says which run it is of, closed by the end of the
//! last. So there are no more accounts than peers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::measure::new_histogram;
use crate::verify::{Stream, Tally, Verdict};

/// What came from one peer.
#[derive(Default)]
pub(crate) struct Received {
    /// The run that the peer is of, once it has said so.
    pub(crate) run: Option<u32>,
    pub(crate) stream: Stream,
    pub(crate) tally: Tally,
}

/// What came to one core of one run's peers.
struct Account {
    peers: u32,
    tally: Tally,
    latency: Histogram<u64>,
}

/// One core's accounts. Written by that core, read by all; a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Accounts(Mutex<BTreeMap<u32, Account>>);

impl Accounts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer of this run has come.
    pub(crate) fn open(&self, run: u32) {
        let new = || Account { peers: 0, tally: Tally::default(), latency: new_histogram() };
        self.lock().entry(run).or_insert_with(new).peers += 1;
    }

    /// A peer of this run has gone.
    pub(crate) fn close(&self, run: u32) {
        let mut accounts = self.lock();
        if let Some(account) = accounts.get_mut(&run) {
            account.peers -= 1;
            if account.peers == 0 {
                accounts.remove(&run);
            }
        }
    }

    /// A message of this run has come, and took so long.
    pub(crate) fn count(&self, run: u32, verdict: Verdict, latency: u64) {
        if let Some(account) = self.lock().get_mut(&run) {
            account.tally.count(verdict);
            account.latency.saturating_record(latency);
        }
    }

    /// A damaged one has, or one that is of another run than its peer.
    pub(crate) fn count_corrupt(&self, run: u32) {
        if let Some(account) = self.lock().get_mut(&run) {
            account.tally.corrupt += 1;
        }
    }

    /// Adds what has come of this run.
    pub(crate) fn add_to(&self, run: u32, tally: &mut Tally, latency: &mut Histogram<u64>) {
        if let Some(account) = self.lock().get(&run) {
            *tally += account.tally;
            latency.add(&account.latency).expect("histograms of one shape");
        }
    }

    pub(crate) fn reset_latency(&self, run: u32) {
        if let Some(account) = self.lock().get_mut(&run) {
            account.latency.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_its_own_account_while_it_has_peers() {
        let accounts = Accounts::default();
        let read = |run| {
            let (mut tally, mut latency) = (Tally::default(), new_histogram());
            accounts.add_to(run, &mut tally, &mut latency);
            (tally.delivered, tally.corrupt, latency.max())
        };
        accounts.count(1, Verdict::New, 5);
        assert_eq!(read(1), (0, 0, 0));
        [1, 1, 2].into_iter().for_each(|run| accounts.open(run));
        accounts.count(1, Verdict::New, 5);
        accounts.count(2, Verdict::New, 7);
        accounts.count(2, Verdict::New, 6);
        accounts.count_corrupt(2);
        assert_eq!((read(1), read(2)), ((1, 0, 5), (2, 1, 7)));
        accounts.reset_latency(2);
        accounts.close(1);
        assert_eq!((read(1), read(2)), ((1, 0, 5), (2, 1, 0)));
        accounts.close(1);
        assert_eq!((read(1), accounts.lock().len()), ((0, 0, 0), 1));
    }
}
