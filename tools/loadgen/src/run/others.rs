//! Other client processes at the same servers: they are waited for where they are meant to be there, and refused where what they do cannot
//! be told from what this one does.

use std::time::{Duration, Instant};

use super::{CONNECT_TIMEOUT, Run};
use crate::error::Error;
use crate::probe::{Question, decode_counters};
use crate::serve::Stop;
use crate::spec::Spec;

/// How often the servers are asked.
const POLL: Duration = Duration::from_millis(20);
/// How long a server may take to notice that the peers of an earlier run have gone.
const PARTING: Duration = Duration::from_secs(2);

impl Run {
    /// Peers that all targets have, of this run and of others. Nothing where one of them does not say.
    fn peers_there(&self) -> Option<u64> {
        let of = |target| decode_counters(&self.probe(target, Question::Counters).ok()?)?.get("peers").copied();
        (0..self.targets.len()).map(of).sum()
    }

    /// Peers of other runs.
    fn others(&self, spec: &Spec) -> Option<u64> {
        let own = self.connections + u64::from(spec.slow);
        self.peers_there().map(|all| all.saturating_sub(own))
    }

    /// Waits for those that are to be there besides, and says how many others there are when this run begins. A server in this process has
    /// nobody else.
    pub(super) fn meet_others(&mut self, spec: &Spec, stop: &Stop) -> Result<Option<u64>, Error> {
        if spec.load.target.is_empty() {
            return Ok(None);
        }
        if spec.kind.has_to_be_alone() {
            self.check_alone(spec)?;
        }
        if let Some(wanted) = spec.load.server_peers {
            self.await_peers(spec, u64::from(wanted), stop)?;
        }
        Ok(self.others(spec))
    }

    fn await_peers(&mut self, spec: &Spec, wanted: u64, stop: &Stop) -> Result<(), Error> {
        let (started, given_up_after) = (Instant::now(), spec.load.connect_timeout.unwrap_or(CONNECT_TIMEOUT));
        loop {
            let there = self.peers_there().unwrap_or(0);
            self.line.show("waiting", there, "peers");
            if there >= wanted {
                return Ok(());
            }
            if stop.requested() {
                return Err(Error::Interrupted);
            }
            if started.elapsed() >= given_up_after || self.failed() {
                return Err(Error::TooFewPeers { targets: self.targets.to_string(), there, wanted, waited: started.elapsed() });
            }
            std::thread::sleep(POLL);
        }
    }

    fn check_alone(&self, spec: &Spec) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            let others = self.others(spec).unwrap_or(0);
            if others == 0 {
                return Ok(());
            }
            if started.elapsed() >= PARTING {
                return Err(Error::NotAlone { targets: self.targets.to_string(), others, workload: spec.kind.name() });
            }
            std::thread::sleep(POLL);
        }
    }
}
