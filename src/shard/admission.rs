//! How many connections there are, and where.
//!
//! Counting is by ticket: a connection holds one from accept or connect to its end, whichever way that comes and on whichever core, and
//! dropping it gives the place back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

/// The counts that all cores share. None is on a message path.
#[derive(Debug)]
pub(crate) struct Admission {
    half_open: AtomicUsize,
    max_half_open: usize,
    /// Connections of each core, half-open ones included.
    loads: Box<[CachePadded<AtomicUsize>]>,
}

impl Admission {
    pub(crate) fn new(cores: usize, max_half_open: usize) -> Arc<Self> {
        let loads = (0..cores).map(|_| CachePadded::new(AtomicUsize::new(0))).collect();
        Arc::new(Self { half_open: AtomicUsize::new(0), max_half_open, loads })
    }

    /// A ticket for an accepted connection, on the core with the fewest. `None` when too many are half-open.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Ticket> {
        let more = |half_open| (half_open < self.max_half_open).then_some(half_open + 1);
        self.half_open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(self.ticket(self.least_loaded(), true))
    }

    /// A ticket for a connection that this side dials, on the core with the fewest. Taken before the core is told, so that many dials at
    /// once spread.
    pub(crate) fn dial(self: &Arc<Self>) -> Ticket {
        self.ticket(self.least_loaded(), false)
    }

    /// The core with the fewest connections.
    fn least_loaded(&self) -> usize {
        let load = |core: &usize| self.loads[*core].load(Ordering::Relaxed);
        (0..self.loads.len()).min_by_key(load).unwrap_or(0)
    }

    /// Half-open connections, and all.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> (usize, usize) {
        let all = self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum();
        (self.half_open.load(Ordering::Relaxed), all)
    }

    /// The core has ended: nobody is sent there any more.
    pub(crate) fn retire(&self, core: usize) {
        self.loads[core].fetch_add(usize::MAX / 2, Ordering::Relaxed);
    }

    fn ticket(self: &Arc<Self>, core: usize, half_open: bool) -> Ticket {
        self.loads[core].fetch_add(1, Ordering::Relaxed);
        Ticket { admission: Arc::clone(self), core, half_open }
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    core: usize,
    half_open: bool,
}

impl Ticket {
    /// The core that the connection belongs to.
    pub(crate) fn core(&self) -> usize {
        self.core
    }

    /// The handshake is done: the connection does not count as half-open any more.
    pub(crate) fn establish(&mut self) {
        if std::mem::take(&mut self.half_open) {
            self.admission.half_open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.establish();
        self.admission.loads[self.core].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_spread_over_the_cores_and_come_back() {
        let admission = Admission::new(2, 3);
        let mut tickets: Vec<_> = (0..3).map(|_| admission.admit().unwrap()).collect();
        assert_eq!(tickets.iter().map(Ticket::core).collect::<Vec<_>>(), [0, 1, 0]);
        assert!(admission.admit().is_none());
        tickets[1].establish();
        assert_eq!(admission.admit().map(|ticket| ticket.core()), Some(1));
        drop(tickets);
        assert_eq!(admission.half_open.load(Ordering::Relaxed), 0);
        assert!(admission.loads.iter().all(|load| load.load(Ordering::Relaxed) == 0));
    }
}
