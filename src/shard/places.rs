//! How many connections there are, where, and who has them.
//!
//! Counting is by what connections hold: a [`Ticket`] from accept or connect to the end of the handshake, and the [`Place`] that this
//! leaves to the peer. Dropping either, whichever way the end comes and on whichever core, gives back what it stood for: the core's load,
//! the place among the half-open, and what its address and subnet had of it. The counts are atomics, since connections end on any core;
//! only core 0 (`gate`) decides by them, so it alone counts up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

/// The connections of one core, half-open ones included.
type Load = Arc<CachePadded<AtomicUsize>>;

/// The counts that all cores share. None is on a message path.
#[derive(Debug)]
pub(crate) struct Places {
    /// Accepted connections in their handshake, without those that give way.
    half_open: AtomicUsize,
    /// Those that were told to give way and have not gone yet.
    leaving: AtomicUsize,
    loads: Box<[Load]>,
}

impl Places {
    pub(crate) fn new(cores: usize) -> Arc<Self> {
        let loads = (0..cores).map(|_| Load::default()).collect();
        Arc::new(Self { half_open: AtomicUsize::new(0), leaving: AtomicUsize::new(0), loads })
    }

    /// A ticket for an accepted connection, on the core with the fewest. `crowd`: of its address, where that is counted.
    pub(super) fn accept(self: &Arc<Self>, crowd: Option<Arc<Crowd>>) -> Ticket {
        let core = self.least_loaded();
        self.half_open.fetch_add(1, Ordering::Relaxed);
        if let Some(crowd) = &crowd {
            crowd.enter();
        }
        let seat = Seat { core, crowd: crowd.clone(), state: AtomicU8::new(HALF_OPEN), half: AtomicU32::new(u32::MAX) };
        let sitting = Sitting { places: Arc::clone(self), seat: Arc::new(seat) };
        Ticket { core, sitting: Some(sitting), place: self.place(core, crowd) }
    }

    /// The same, past the gate, for a bench.
    #[cfg(any(test, feature = "bench-internals"))]
    pub(crate) fn accept_any(self: &Arc<Self>) -> Ticket {
        self.accept(None)
    }

    /// A ticket for a connection that this side dials, on the core with the fewest. Taken before the core is told, so that many dials at
    /// once spread.
    pub(crate) fn dial(self: &Arc<Self>) -> Ticket {
        let core = self.least_loaded();
        Ticket { core, sitting: None, place: self.place(core, None) }
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

    fn place(&self, core: usize, crowd: Option<Arc<Crowd>>) -> Place {
        self.loads[core].fetch_add(1, Ordering::Relaxed);
        Place { load: Arc::clone(&self.loads[core]), crowd }
    }
}

/// What one address, or one subnet, has of accepted connections.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    half_open: AtomicU32,
    all: AtomicU32,
    /// Of an address: its subnet.
    subnet: Option<Arc<Crowd>>,
}

impl Crowd {
    /// Memory of one, with the counts of references before it.
    pub(super) const BYTES: usize = size_of::<Self>() + 2 * size_of::<usize>();

    /// A new one, of an address in this subnet.
    pub(super) fn within(subnet: Arc<Crowd>) -> Arc<Self> {
        Arc::new(Self { subnet: Some(subnet), ..Self::default() })
    }

    pub(super) fn is_within(&self, subnet: &Arc<Crowd>) -> bool {
        self.subnet().is_some_and(|own| Arc::ptr_eq(own, subnet))
    }

    pub(super) fn subnet(&self) -> Option<&Arc<Crowd>> {
        self.subnet.as_ref()
    }

    /// It, and what it is within.
    fn each(&self, act: impl Fn(&Crowd)) {
        act(self);
        self.subnet.as_deref().into_iter().for_each(act);
    }

    fn enter(&self) {
        self.each(|crowd| {
            crowd.half_open.fetch_add(1, Ordering::Relaxed);
            crowd.all.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// Those in their handshake, without those that give way.
    pub(super) fn half_open(&self) -> usize {
        self.half_open.load(Ordering::Relaxed) as usize
    }

    /// Those and the established ones, until their sockets are closed.
    pub(super) fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed) as usize
    }
}

const HALF_OPEN: u8 = 0;
/// It counts as half-open no more, and is on its way out.
const LEAVING: u8 = 1;
const ESTABLISHED: u8 = 2;
const GONE: u8 = 3;

/// An accepted connection in its handshake, as the gate and its core both see it.
#[derive(Debug)]
pub(crate) struct Seat {
    core: usize,
    crowd: Option<Arc<Crowd>>,
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
        self.crowd.as_ref()?.subnet()
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
        if let Some(crowd) = &self.crowd {
            crowd.each(|crowd| _ = crowd.half_open.fetch_sub(1, Ordering::Relaxed));
        }
    }
}

/// A connection's share in its seat: it counts as half-open, or as leaving, until this is dropped.
#[derive(Debug)]
struct Sitting {
    places: Arc<Places>,
    seat: Arc<Seat>,
}

impl Drop for Sitting {
    fn drop(&mut self) {
        // Nothing, where it is established.
        self.seat.settle(GONE, &self.places);
    }
}

/// What one connection takes of its core, its address and its subnet, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Place {
    load: Load,
    crowd: Option<Arc<Crowd>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(crowd) = &self.crowd {
            crowd.each(|crowd| _ = crowd.all.fetch_sub(1, Ordering::Relaxed));
        }
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of a connection in its handshake.
#[derive(Debug)]
pub(crate) struct Ticket {
    core: usize,
    /// Of accepted connections.
    sitting: Option<Sitting>,
    place: Place,
}

impl Ticket {
    /// The core that the connection belongs to.
    pub(crate) fn core(&self) -> usize {
        self.core
    }

    /// The core's index of the half-open connection that holds this ticket. False: it has been told to give way already.
    pub(super) fn sit(&self, half: u32) -> bool {
        self.seat().is_none_or(|seat| {
            seat.half.store(half, Ordering::Relaxed);
            seat.is_half_open()
        })
    }

    pub(super) fn is_of(&self, seat: &Arc<Seat>) -> bool {
        self.seat().is_some_and(|own| Arc::ptr_eq(own, seat))
    }

    pub(super) fn seat(&self) -> Option<&Arc<Seat>> {
        self.sitting.as_ref().map(|sitting| &sitting.seat)
    }

    /// The handshake is done: the connection does not count as half-open any more. The rest of what it holds is the peer's.
    pub(crate) fn establish(self) -> Place {
        if let Some(sitting) = &self.sitting {
            sitting.seat.settle(ESTABLISHED, &sitting.places);
        }
        self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd() -> Arc<Crowd> {
        Crowd::within(Arc::default())
    }

    /// Of an address and its subnet.
    fn counts(crowd: &Crowd) -> [(usize, usize); 2] {
        [crowd, crowd.subnet().unwrap()].map(|crowd| (crowd.half_open(), crowd.all()))
    }

    #[test]
    fn tickets_spread_over_the_cores_and_come_back() {
        let places = Places::new(2);
        let mut tickets: Vec<_> = (0..3).map(|_| places.accept(None)).collect();
        tickets.push(places.dial());
        assert_eq!(tickets.iter().map(Ticket::core).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!(places.in_use(), (3, 4));
        let peers = [tickets.remove(3).establish(), tickets.remove(1).establish()];
        assert_eq!(places.in_use(), (2, 4));
        drop(tickets);
        assert_eq!(places.in_use(), (0, 2));
        drop(peers);
        assert_eq!(places.in_use(), (0, 0));
    }

    #[test]
    fn however_a_connection_ends_its_address_gets_everything_back() {
        let (places, crowd) = (Places::new(1), crowd());
        let established = places.accept(Some(Arc::clone(&crowd)));
        let broken = places.accept(Some(Arc::clone(&crowd)));
        let evicted = places.accept(Some(Arc::clone(&crowd)));
        assert_eq!((counts(&crowd), places.half_open()), ([(3, 3); 2], 3));
        let established = established.establish();
        assert_eq!((counts(&crowd), places.half_open()), ([(2, 3); 2], 2));
        drop(broken);
        assert_eq!((counts(&crowd), places.half_open()), ([(1, 2); 2], 1));
        assert!(evicted.seat().unwrap().give_way(&places));
        assert!(!evicted.seat().unwrap().give_way(&places), "once");
        assert_eq!((counts(&crowd), places.half_open(), places.leaving()), ([(0, 2); 2], 0, 1));
        drop(evicted);
        assert_eq!((counts(&crowd), places.leaving()), ([(0, 1); 2], 0));
        drop(established);
        assert_eq!((counts(&crowd), places.in_use()), ([(0, 0); 2], (0, 0)));
    }

    #[test]
    fn who_is_established_meanwhile_does_not_give_way() {
        let (places, crowd) = (Places::new(1), crowd());
        let ticket = places.accept(Some(Arc::clone(&crowd)));
        let seat = Arc::clone(ticket.seat().unwrap());
        let peer = ticket.establish();
        assert!(!seat.give_way(&places));
        assert_eq!((counts(&crowd), places.half_open(), places.leaving()), ([(0, 1); 2], 0, 0));
        // And one that is told too late is established all the same.
        let told = places.accept(Some(Arc::clone(&crowd)));
        assert!(told.sit(3) && told.seat().unwrap().half() == 3);
        assert!(told.seat().unwrap().give_way(&places) && !told.sit(3));
        let other = told.establish();
        assert_eq!((counts(&crowd), places.half_open(), places.leaving()), ([(0, 2); 2], 0, 0));
        drop((peer, other));
        assert_eq!((counts(&crowd), places.in_use()), ([(0, 0); 2], (0, 0)));
    }
}
