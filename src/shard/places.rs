//! How many connections there are, where, and who has them.
//!
//! Counting is by ticket: a connection holds one from accept or connect to its end, whichever way that comes and on whichever core, and
//! dropping it gives everything back: the core's load, the place among the half-open, and what its address and subnet had of it. The
//! counts are atomics, since tickets end on any core; only core 0 (`gate`) decides by them, so it alone counts up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

/// The counts that all cores share. None is on a message path.
#[derive(Debug)]
pub(crate) struct Places {
    /// Accepted connections in their handshake, without those that give way.
    half_open: AtomicUsize,
    /// Those that were told to give way and have not gone yet.
    leaving: AtomicUsize,
    /// Connections of each core, half-open ones included.
    loads: Box<[CachePadded<AtomicUsize>]>,
}

impl Places {
    pub(crate) fn new(cores: usize) -> Arc<Self> {
        let loads = (0..cores).map(|_| CachePadded::new(AtomicUsize::new(0))).collect();
        Arc::new(Self { half_open: AtomicUsize::new(0), leaving: AtomicUsize::new(0), loads })
    }

    /// A ticket for an accepted connection, on the core with the fewest. `crowds`: its address and its subnet, where they are counted.
    pub(super) fn accept(self: &Arc<Self>, crowds: Option<Crowds>) -> Ticket {
        let core = self.least_loaded();
        self.half_open.fetch_add(1, Ordering::Relaxed);
        if let Some(crowds) = &crowds {
            crowds.enter();
        }
        let seat = Seat { core, crowds, state: AtomicU8::new(HALF_OPEN), half: AtomicU32::new(u32::MAX) };
        self.ticket(core, Some(Arc::new(seat)))
    }

    /// A ticket for a connection that this side dials, on the core with the fewest. Taken before the core is told, so that many dials at
    /// once spread.
    pub(crate) fn dial(self: &Arc<Self>) -> Ticket {
        self.ticket(self.least_loaded(), None)
    }

    /// The core with the fewest connections.
    fn least_loaded(&self) -> usize {
        let load = |core: &usize| self.loads[*core].load(Ordering::Relaxed);
        (0..self.loads.len()).min_by_key(load).unwrap_or(0)
    }

    pub(super) fn half_open(&self) -> usize {
        self.half_open.load(Ordering::Relaxed)
    }

    pub(super) fn leaving(&self) -> usize {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Half-open connections, and all.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> (usize, usize) {
        let all = self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum();
        (self.half_open() + self.leaving(), all)
    }

    /// The core has ended: nobody is sent there any more.
    pub(crate) fn retire(&self, core: usize) {
        self.loads[core].fetch_add(usize::MAX / 2, Ordering::Relaxed);
    }

    fn ticket(self: &Arc<Self>, core: usize, seat: Option<Arc<Seat>>) -> Ticket {
        self.loads[core].fetch_add(1, Ordering::Relaxed);
        Ticket { places: Arc::clone(self), core, seat }
    }
}

/// What one address, or one subnet, has of accepted connections.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    half_open: AtomicU32,
    all: AtomicU32,
}

impl Crowd {
    /// Memory of one, with the counts of references before it.
    pub(super) const BYTES: usize = size_of::<Self>() + 2 * size_of::<usize>();

    /// Those in their handshake, without those that give way.
    pub(super) fn half_open(&self) -> usize {
        self.half_open.load(Ordering::Relaxed) as usize
    }

    /// Those and the established ones, until their sockets are closed.
    pub(super) fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed) as usize
    }
}

/// The address and the subnet of a connection.
#[derive(Clone, Debug)]
pub(super) struct Crowds {
    pub(super) address: Arc<Crowd>,
    pub(super) subnet: Arc<Crowd>,
}

impl Crowds {
    fn each(&self, act: impl Fn(&Crowd)) {
        act(&self.address);
        act(&self.subnet);
    }

    fn enter(&self) {
        self.each(|crowd| {
            crowd.half_open.fetch_add(1, Ordering::Relaxed);
            crowd.all.fetch_add(1, Ordering::Relaxed);
        });
    }
}

const HALF_OPEN: u8 = 0;
/// It counts as half-open no more, and is on its way out.
const LEAVING: u8 = 1;
const ESTABLISHED: u8 = 2;
const GONE: u8 = 3;

/// An accepted connection, as the gate and its core both see it.
#[derive(Debug)]
pub(crate) struct Seat {
    core: usize,
    crowds: Option<Crowds>,
    /// Core 0 moves it from `HALF_OPEN` to `LEAVING`, the connection's core from either to the others. Who moves it undoes what it stood
    /// for.
    state: AtomicU8,
    /// The core's index of the half-open connection.
    half: AtomicU32,
}

impl Seat {
    /// Memory of one, with the counts of references before it.
    pub(super) const BYTES: usize = size_of::<Self>() + 2 * size_of::<usize>();

    pub(super) fn core(&self) -> usize {
        self.core
    }

    /// The index of the half-open connection, once its core has it.
    pub(super) fn half(&self) -> u32 {
        self.half.load(Ordering::Relaxed)
    }

    pub(super) fn is_half_open(&self) -> bool {
        self.state.load(Ordering::Relaxed) == HALF_OPEN
    }

    pub(super) fn subnet(&self) -> Option<&Arc<Crowd>> {
        self.crowds.as_ref().map(|crowds| &crowds.subnet)
    }

    /// Its place is another's from here on. False: it is not half-open any more.
    pub(super) fn give_way(&self, places: &Places) -> bool {
        // First, so that the core never takes back what was not counted yet.
        places.leaving.fetch_add(1, Ordering::Relaxed);
        let moved = self.state.compare_exchange(HALF_OPEN, LEAVING, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if moved {
            self.leave_handshake(places);
        } else {
            places.leaving.fetch_sub(1, Ordering::Relaxed);
        }
        moved
    }

    /// The handshake is over: `state` is `ESTABLISHED` or `GONE`.
    fn settle(&self, state: u8, places: &Places) {
        match self.state.swap(state, Ordering::Relaxed) {
            HALF_OPEN => self.leave_handshake(places),
            LEAVING => _ = places.leaving.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }

    fn leave_handshake(&self, places: &Places) {
        places.half_open.fetch_sub(1, Ordering::Relaxed);
        if let Some(crowds) = &self.crowds {
            crowds.each(|crowd| _ = crowd.half_open.fetch_sub(1, Ordering::Relaxed));
        }
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Ticket {
    places: Arc<Places>,
    core: usize,
    /// Of accepted connections.
    seat: Option<Arc<Seat>>,
}

impl Ticket {
    /// The core that the connection belongs to.
    pub(crate) fn core(&self) -> usize {
        self.core
    }

    /// The core's index of the half-open connection that holds this ticket. False: it has been told to give way already.
    pub(super) fn sit(&self, half: u32) -> bool {
        self.seat.as_ref().is_none_or(|seat| {
            seat.half.store(half, Ordering::Relaxed);
            seat.is_half_open()
        })
    }

    pub(super) fn is_of(&self, seat: &Arc<Seat>) -> bool {
        self.seat.as_ref().is_some_and(|own| Arc::ptr_eq(own, seat))
    }

    pub(super) fn seat(&self) -> Option<&Arc<Seat>> {
        self.seat.as_ref()
    }

    /// The handshake is done: the connection does not count as half-open any more.
    pub(crate) fn establish(&mut self) {
        if let Some(seat) = &self.seat {
            seat.settle(ESTABLISHED, &self.places);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            seat.settle(GONE, &self.places);
            if let Some(crowds) = &seat.crowds {
                crowds.each(|crowd| _ = crowd.all.fetch_sub(1, Ordering::Relaxed));
            }
        }
        self.places.loads[self.core].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowds() -> Crowds {
        Crowds { address: Arc::default(), subnet: Arc::default() }
    }

    fn counts(crowds: &Crowds) -> [(usize, usize); 2] {
        [&crowds.address, &crowds.subnet].map(|crowd| (crowd.half_open(), crowd.all()))
    }

    #[test]
    fn tickets_spread_over_the_cores_and_come_back() {
        let places = Places::new(2);
        let mut tickets: Vec<_> = (0..3).map(|_| places.accept(None)).collect();
        tickets.push(places.dial());
        assert_eq!(tickets.iter().map(Ticket::core).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!(places.in_use(), (3, 4));
        tickets[1].establish();
        tickets[3].establish();
        assert_eq!(places.in_use(), (2, 4));
        drop(tickets);
        assert_eq!(places.in_use(), (0, 0));
    }

    #[test]
    fn however_a_connection_ends_its_address_gets_everything_back() {
        let (places, crowds) = (Places::new(1), crowds());
        let mut established = places.accept(Some(crowds.clone()));
        let broken = places.accept(Some(crowds.clone()));
        let evicted = places.accept(Some(crowds.clone()));
        assert_eq!((counts(&crowds), places.half_open()), ([(3, 3); 2], 3));
        established.establish();
        established.establish();
        assert_eq!((counts(&crowds), places.half_open()), ([(2, 3); 2], 2));
        drop(broken);
        assert_eq!((counts(&crowds), places.half_open()), ([(1, 2); 2], 1));
        assert!(evicted.seat().unwrap().give_way(&places));
        assert!(!evicted.seat().unwrap().give_way(&places), "once");
        assert_eq!((counts(&crowds), places.half_open(), places.leaving()), ([(0, 2); 2], 0, 1));
        drop(evicted);
        assert_eq!((counts(&crowds), places.leaving()), ([(0, 1); 2], 0));
        drop(established);
        assert_eq!((counts(&crowds), places.in_use()), ([(0, 0); 2], (0, 0)));
    }

    #[test]
    fn who_is_established_meanwhile_does_not_give_way() {
        let (places, crowds) = (Places::new(1), crowds());
        let mut ticket = places.accept(Some(crowds.clone()));
        ticket.establish();
        assert!(!ticket.seat().unwrap().give_way(&places));
        assert_eq!((counts(&crowds), places.half_open(), places.leaving()), ([(0, 1); 2], 0, 0));
        // And one that is told too late is established all the same.
        let mut told = places.accept(Some(crowds.clone()));
        assert!(told.sit(3) && told.seat().unwrap().half() == 3);
        assert!(told.seat().unwrap().give_way(&places) && !told.sit(3));
        told.establish();
        assert_eq!((counts(&crowds), places.half_open(), places.leaving()), ([(0, 2); 2], 0, 0));
    }
}
