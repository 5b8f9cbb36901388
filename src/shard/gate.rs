//! Who may begin a handshake: decided on core 0 for each accepted connection, by its address, before anything is read from it.
//!
//! An *address* is an IPv4 address or an IPv6 /64, a *subnet* a /24 or a /48; IPv4 that is mapped into IPv6 counts as IPv4. Each has an
//! entry in one table while there is something to remember of it: connections, or handshakes of the last seconds. An entry about which
//! there is nothing to say any more makes room: each accept looks at the next four entries, at the bound of the table at the next 64, so
//! that clearing away costs each accept the same, whatever the table holds.
//!
//! Where as many as `limits.max_half_open` are in their handshake, the oldest of the subnet that has most of them gives way, the newcomer
//! counted with its own. Only there does an accept cost more the more there are: it looks at each half-open connection, 1 us for 256 of
//! them. Established peers never give way, and neither do addresses that are exempt.
//!
//! Who comes by a Unix-domain socket has no address: there is no entry for it and no limit of its own, but together they are a subnet as
//! far as giving way goes.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::places::{Crowd, Places, Seat, Ticket};
use crate::address::Address;
use crate::config::{Config, Rate};
use crate::metrics::Counter;
use crate::rate::TokenBucket;
use crate::time::Timestamp;

/// Most connections that are on their way out at a time because others took their places. They are closed within a turn of their core;
/// where that takes longer, newcomers are refused, so that what is open has a bound.
pub(crate) const MAX_LEAVING: usize = 32;
/// Entries of the table that an accept looks at: twice as many as it may add, so that at rest half of them are of use.
const LOOKS: usize = 4;
/// The same where the table is full: they are read in a row, and cost about as much as the accept itself.
const LOOKS_AT_BOUND: usize = 64;
/// A table or list of so few keeps its memory.
const SMALL: usize = 64;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    V4Subnet(u32),
    V6(u64),
    V6Subnet(u64),
}

impl Key {
    fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(Ipv4Addr::to_bits(address)),
            IpAddr::V6(address) => Self::V6((Ipv6Addr::to_bits(address) >> 64) as u64),
        }
    }

    fn subnet(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4Subnet(Ipv4Addr::to_bits(address) >> 8),
            IpAddr::V6(address) => Self::V6Subnet((Ipv6Addr::to_bits(address) >> 80) as u64),
        }
    }
}

/// What is remembered of an address or a subnet.
#[derive(Debug)]
struct Entry {
    key: Key,
    handshakes: TokenBucket,
    crowd: Arc<Crowd>,
}

impl Entry {
    /// A new one would be the same.
    fn says_nothing(&self, now: Timestamp) -> bool {
        self.crowd.all() == 0 && self.handshakes.is_full(now)
    }
}

/// Entries in no particular order, the places of each, and where the next look is.
#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    index: HashMap<Key, u32>,
    hand: usize,
}

impl Table {
    fn find(&self, key: Key) -> Option<&Entry> {
        self.index.get(&key).map(|&at| &self.entries[at as usize])
    }

    fn enter(&mut self, key: Key, rate: Rate) -> &mut Entry {
        let entries = &mut self.entries;
        let at = *self.index.entry(key).or_insert_with(|| {
            entries.push(Entry { key, handshakes: TokenBucket::new(rate.per_second, rate.burst), crowd: Arc::default() });
            entries.len() as u32 - 1
        });
        &mut self.entries[at as usize]
    }

    /// Looks at the next few entries and lets go of those that say nothing.
    fn tidy(&mut self, looks: usize, now: Timestamp) {
        for _ in 0..looks {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let Some(entry) = self.entries.get(self.hand) else { break };
            if entry.says_nothing(now) {
                self.remove(self.hand);
            }
            // What was moved there is one of the newest.
            self.hand += 1;
        }
        let capacity = self.entries.capacity();
        if capacity > SMALL && self.entries.len() < capacity / 4 {
            // At least as many were let go as are moved now.
            self.entries.shrink_to(self.entries.len() * 2);
            self.index.shrink_to(self.entries.len() * 2);
        }
    }

    fn remove(&mut self, at: usize) {
        self.index.remove(&self.entries.swap_remove(at).key);
        if let Some(moved) = self.entries.get(at) {
            self.index.insert(moved.key, at as u32);
        }
    }
}

/// A connection that may begin its handshake.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) ticket: Ticket,
    /// Whose place it has: to be closed.
    pub(super) evicted: Option<Arc<Seat>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    config: Arc<Config>,
    table: Table,
    /// Connections by Unix-domain sockets.
    local: Arc<Crowd>,
    /// Connections that may have to give way, in the order in which they came. Some are not in their handshake any more.
    seats: VecDeque<Arc<Seat>>,
    /// At this length, those are let go of.
    prune_at: usize,
}

impl Gate {
    /// Memory of an entry of the table, while that grows; and of the crowd of its subnet, whose own entry may have gone before.
    pub(super) const ENTRY: usize = 2 * size_of::<Entry>() + 5 * size_of::<(Key, u32)>() + 2 * Crowd::BYTES;
    /// Memory of a half-open connection: see `seats`.
    pub(super) const HALF_OPEN: usize = 2 * (Seat::BYTES + 2 * size_of::<Arc<Seat>>());

    pub(super) fn new(config: Arc<Config>) -> Self {
        let local = Crowd::within(Arc::default());
        Self { config, table: Table::default(), local, seats: VecDeque::new(), prune_at: SMALL }
    }

    /// A connection came from this address. Its ticket, or the reason why it is to be closed at once.
    pub(super) fn admit(&mut self, address: &Address, places: &Arc<Places>, now: Timestamp) -> Result<Admitted, Counter> {
        let Address::Tcp(address) = address else {
            let local = Arc::clone(&self.local);
            let evicted = self.make_way(local.subnet(), places)?;
            return Ok(self.seat(local, evicted, places));
        };
        let (address, limits) = (address.ip(), &self.config.addresses);
        if limits.exempt.iter().any(|subnet| subnet.contains(address)) {
            let evicted = self.make_way(None, places)?;
            return Ok(Admitted { ticket: places.accept(None), evicted });
        }
        let (address, subnet) = (Key::address(address), Key::subnet(address));
        let most = limits.table;
        let is_full = self.table.entries.len() + 2 > most;
        self.table.tidy(if is_full { LOOKS_AT_BOUND } else { LOOKS }, now);
        let (known_address, known_subnet) = (self.table.find(address), self.table.find(subnet));
        let missing = usize::from(known_address.is_none()) + usize::from(known_subnet.is_none());
        self.check(known_address, known_subnet, now)?;
        if self.table.entries.len() + missing > most {
            return Err(Counter::RefusedTable);
        }
        let own = known_subnet.map(|entry| Arc::clone(&entry.crowd));
        let evicted = self.make_way(own.as_ref(), places)?;
        let crowd = self.enter(address, subnet, now);
        Ok(self.seat(crowd, evicted, places))
    }

    /// A connection that is counted, and may have to give way.
    fn seat(&mut self, crowd: Arc<Crowd>, evicted: Option<Arc<Seat>>, places: &Arc<Places>) -> Admitted {
        let ticket = places.accept(Some(crowd));
        self.seats.extend(ticket.seat().cloned());
        if self.seats.len() >= self.prune_at {
            self.prune();
        }
        Admitted { ticket, evicted }
    }

    /// Whether what the address and its subnet have already leaves room for one more.
    fn check(&self, address: Option<&Entry>, subnet: Option<&Entry>, now: Timestamp) -> Result<(), Counter> {
        let limits = &self.config.addresses;
        let over = |entry: Option<&Entry>, count: fn(&Crowd) -> usize, most| entry.is_some_and(|entry| count(&entry.crowd) >= most);
        let too_fast = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.handshakes.ready_at(now, 1) > now);
        let reasons = [
            (over(address, Crowd::half_open, limits.half_open_per_ip), Counter::RefusedIpHalfOpen),
            (over(address, Crowd::all, limits.peers_per_ip), Counter::RefusedIpPeers),
            (over(subnet, Crowd::all, limits.peers_per_subnet), Counter::RefusedSubnetPeers),
            (too_fast(address), Counter::RefusedIpRate),
            (too_fast(subnet), Counter::RefusedSubnetRate),
        ];
        reasons.into_iter().find(|(refused, _)| *refused).map_or(Ok(()), |(_, counter)| Err(counter))
    }

    /// One more of both, which have room for it.
    fn enter(&mut self, address: Key, subnet: Key, now: Timestamp) -> Arc<Crowd> {
        let limits = &self.config.addresses;
        let take = |entry: &mut Entry| {
            let taken = entry.handshakes.take(now, 1);
            debug_assert!(taken, "{:?} was looked at before", entry.key);
        };
        let entry = self.table.enter(subnet, limits.handshakes_per_subnet);
        take(entry);
        let subnet = Arc::clone(&entry.crowd);
        let entry = self.table.enter(address, limits.handshakes_per_ip);
        take(entry);
        if !entry.crowd.is_within(&subnet) {
            // A new address; or there was nobody in the whole subnet for a while, and its entry is a new one.
            entry.crowd = Crowd::within(subnet);
        }
        Arc::clone(&entry.crowd)
    }

    /// Room among the half-open, where somebody has to go for it that one. `own`: the subnet of the newcomer.
    fn make_way(&mut self, own: Option<&Arc<Crowd>>, places: &Places) -> Result<Option<Arc<Seat>>, Counter> {
        while places.half_open() >= self.config.limits.max_half_open {
            if places.leaving() >= MAX_LEAVING {
                return Err(Counter::RefusedHalfOpen);
            }
            self.prune();
            let seat = self.oldest_of_the_busiest(own).ok_or(Counter::RefusedHalfOpen)?;
            if seat.give_way(places) {
                return Ok(Some(seat));
            }
            // Established, or gone, this very moment: another one, if that is still needed.
        }
        Ok(None)
    }

    fn oldest_of_the_busiest(&self, own: Option<&Arc<Crowd>>) -> Option<Arc<Seat>> {
        let (mut busiest, mut most) = (None, 0);
        for seat in self.seats.iter().filter(|seat| seat.is_half_open()) {
            let Some(subnet) = seat.subnet() else { continue };
            let count = subnet.half_open() + usize::from(own.is_some_and(|own| Arc::ptr_eq(own, subnet)));
            if count > most {
                (busiest, most) = (Some(seat), count);
            }
        }
        busiest.cloned()
    }

    fn prune(&mut self) {
        self.seats.retain(|seat| seat.is_half_open());
        // As many come as were looked at before it is done again.
        self.prune_at = (2 * self.seats.len()).max(SMALL);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::places::Place;
    use super::*;
    use crate::rng::Rng;

    /// A gate, its clock, and who has come in.
    struct Door {
        gate: Gate,
        places: Arc<Places>,
        now: Timestamp,
    }

    impl Door {
        fn new(change: impl FnOnce(&mut Config)) -> Self {
            let mut config = Config::plaintext();
            change(&mut config);
            Self { gate: Gate::new(Arc::new(config)), places: Places::new(2), now: Timestamp::from_nanos(1 << 40) }
        }

        /// Without limits on rates.
        fn unhurried(change: impl FnOnce(&mut Config)) -> Self {
            Self::new(|config| {
                config.addresses.handshakes_per_ip = Rate { per_second: 1000, burst: 1000 };
                config.addresses.handshakes_per_subnet = Rate { per_second: 1000, burst: 1000 };
                change(config);
            })
        }

        fn admit(&mut self, address: &str) -> Result<Admitted, Counter> {
            let address = match address.parse::<IpAddr>() {
                Ok(ip) => std::net::SocketAddr::new(ip, 40_000).into(),
                Err(_) => address.parse().unwrap(),
            };
            self.gate.admit(&address, &self.places, self.now)
        }

        /// Where nobody has to give way.
        fn knock(&mut self, address: &str) -> Result<Ticket, Counter> {
            self.admit(address).map(|admitted| {
                assert!(admitted.evicted.is_none(), "somebody gave way to {address}");
                admitted.ticket
            })
        }

        fn refused(&mut self, address: &str) -> Option<Counter> {
            self.admit(address).err()
        }

        fn established(&mut self, address: &str) -> Place {
            self.knock(address).unwrap_or_else(|reason| panic!("{address}: {reason:?}")).establish()
        }

        fn wait(&mut self, millis: u64) {
            self.now = self.now + Duration::from_millis(millis);
        }

        fn entries(&self) -> usize {
            self.gate.table.entries.len()
        }
    }

    #[test]
    fn an_address_has_so_many_in_their_handshake() {
        let mut door = Door::new(|_| ());
        let mut open: Vec<_> = (0..8).map(|_| door.knock("10.0.0.1").unwrap()).collect();
        assert_eq!(door.refused("10.0.0.1"), Some(Counter::RefusedIpHalfOpen));
        open.push(door.knock("10.0.0.2").unwrap());
        // One that is established and one that has gone make room for two.
        let _peer = open.remove(0).establish();
        open.remove(0);
        open.extend((0..2).map(|_| door.knock("10.0.0.1").unwrap()));
        assert_eq!(door.refused("10.0.0.1"), Some(Counter::RefusedIpHalfOpen));
    }

    #[test]
    fn who_comes_by_a_path_has_no_limit_of_his_own_and_no_entry() {
        let mut door = Door::new(|config| (config.addresses.table, config.addresses.peers_per_subnet) = (16, 1));
        let open: Vec<_> = (0..200).map(|_| door.knock("unix:/run/node.sock").unwrap()).collect();
        let established: Vec<_> = (0..100).map(|_| door.established("unix:/run/node.sock")).collect();
        assert_eq!((door.places.in_use().0, door.entries()), (200, 0));
        drop((open, established));
        assert_eq!(door.gate.local.subnet().unwrap().all(), 0);
    }

    #[test]
    fn neither_paths_nor_addresses_push_the_others_out() {
        let four = |config: &mut Config| config.limits.max_half_open = 4;
        let mut door = Door::unhurried(four);
        let mut local: Vec<_> = (0..2).map(|_| door.knock("unix:/a").unwrap()).collect();
        let mut remote: Vec<_> = (0..2).map(|_| door.knock("10.0.0.1").unwrap()).collect();
        // Whoever comes takes the place of his own kind: they are as many as the others, and one more.
        for _ in 0..3 {
            for (address, own) in [("unix:/b", &mut local), ("10.0.0.2", &mut remote)] {
                let Admitted { ticket, evicted } = door.admit(address).unwrap();
                assert!(own[0].is_of(&evicted.expect("somebody gives way")), "{address}");
                own.remove(0);
                own.push(ticket);
            }
        }
        // A few of many subnets push out those of the path as the most, down to their own number.
        let few: Vec<_> = (1..3).map(|number| door.admit(&format!("10.0.{number}.1")).unwrap()).collect();
        assert!(few.iter().all(|admitted| admitted.evicted.is_some()));
        assert_eq!((door.gate.local.subnet().unwrap().half_open(), door.places.half_open()), (1, 4));
    }

    #[test]
    fn an_address_begins_so_many_a_second_and_a_refusal_costs_nothing() {
        let mut door = Door::new(|_| ());
        for _ in 0..16 {
            drop(door.knock("10.0.0.1").unwrap());
        }
        for millis in [0, 100, 149] {
            door.wait(millis);
            assert_eq!(door.refused("10.0.0.1"), Some(Counter::RefusedIpRate));
        }
        door.wait(1);
        drop(door.knock("10.0.0.1").unwrap());
        assert_eq!(door.refused("10.0.0.1"), Some(Counter::RefusedIpRate));
        drop(door.knock("10.0.0.2").unwrap());
        door.wait(4000);
        assert_eq!((0..100).filter(|_| door.refused("10.0.0.1").is_none()).count(), 16);
    }

    #[test]
    fn a_subnet_begins_so_many_a_second_and_one_address_does_not_use_that_up() {
        for (addresses, beside) in [("10.0.0.", "10.0.1.1"), ("2001:db8:1:", "2001:db8:2::1")] {
            let address =
                |number: usize| if addresses.contains(':') { format!("{addresses}{number:x}::1") } else { format!("{addresses}{number}") };
            let mut door = Door::new(|_| ());
            // What is refused to one address is not taken from the others.
            assert_eq!((0..1000).filter(|_| door.refused(&address(200)).is_none()).count(), 16);
            assert_eq!((1..=48).filter(|&number| door.refused(&address(number)).is_none()).count(), 48);
            assert_eq!(door.refused(&address(60)), Some(Counter::RefusedSubnetRate));
            assert_eq!(door.refused(beside), None);
            door.wait(16);
            assert_eq!((door.refused(&address(61)), door.refused(&address(62))), (None, Some(Counter::RefusedSubnetRate)));
        }
    }

    #[test]
    fn an_address_and_a_subnet_have_so_many_connections() {
        let mut door = Door::unhurried(|config| {
            config.addresses.peers_per_ip = 3;
            config.addresses.peers_per_subnet = 5;
        });
        let mut open: Vec<_> = (0..2).map(|_| door.established("10.0.0.1")).collect();
        let half = door.knock("10.0.0.1").unwrap();
        assert_eq!(door.refused("10.0.0.1"), Some(Counter::RefusedIpPeers));
        open.extend((0..2).map(|_| door.established("10.0.0.2")));
        assert_eq!(door.refused("10.0.0.2"), Some(Counter::RefusedSubnetPeers));
        assert_eq!(door.refused("10.0.0.3"), Some(Counter::RefusedSubnetPeers));
        drop(door.knock("10.0.1.1").unwrap());
        open.swap_remove(0);
        open.push(door.established("10.0.0.3"));
        assert_eq!(door.refused("10.0.0.1"), Some(Counter::RefusedSubnetPeers));
        drop((open, half));
        drop((0..3).map(|_| door.established("10.0.0.1")).collect::<Vec<_>>());
    }

    #[test]
    fn what_one_customer_has_is_one_address() {
        let mut door = Door::new(|_| ());
        let mut open: Vec<_> = (0..4).map(|_| door.knock("10.0.0.1").unwrap()).collect();
        open.extend((0..4).map(|_| door.knock("::ffff:10.0.0.1").unwrap()));
        assert_eq!(door.refused("::ffff:a00:1"), Some(Counter::RefusedIpHalfOpen));
        open.extend((0..8).map(|number| door.knock(&format!("2001:db8:0:7::{number}")).unwrap()));
        assert_eq!(door.refused("2001:db8:0:7:ffff::"), Some(Counter::RefusedIpHalfOpen));
        open.push(door.knock("2001:db8:0:8::").unwrap());
        // An address and its subnet each, whatever their numbers: 10.0.0.1, 2001:db8:0:7 and :8, and two subnets; and one that is 10.0.0.
        drop(door.knock("0.10.0.0").unwrap());
        assert_eq!(door.entries(), 7);
    }

    #[test]
    fn exempt_addresses_count_in_the_whole_only() {
        let mut door = Door::new(|config| {
            config.limits.max_half_open = 100;
            config.addresses.exempt = vec!["10.0.0.0/24".parse().unwrap()];
        });
        let open: Vec<_> = (0..100).map(|_| door.knock("10.0.0.1").unwrap()).collect();
        assert_eq!((door.entries(), door.places.half_open()), (0, 100));
        // They do not give way, neither to each other nor to strangers.
        assert_eq!(door.refused("10.0.0.2"), Some(Counter::RefusedHalfOpen));
        assert_eq!(door.refused("10.9.0.1"), Some(Counter::RefusedHalfOpen));
        assert_eq!(door.entries(), 0, "who is refused is not remembered");
        drop(open);
        // But strangers give way to them.
        let strangers: Vec<_> = (0..100).map(|number| door.knock(&format!("10.9.{number}.1")).unwrap()).collect();
        let admitted = door.admit("10.0.0.1").unwrap();
        assert!(Arc::ptr_eq(&admitted.evicted.unwrap(), strangers[0].seat().unwrap()));
    }

    #[test]
    fn a_full_table_refuses_new_addresses_until_there_is_nothing_to_say_of_an_old_one() {
        let mut door = Door::new(|config| config.addresses.table = 16);
        let mut open: Vec<_> = (0..8).map(|number| door.established(&format!("10.0.{number}.1"))).collect();
        assert_eq!(door.refused("10.0.8.1"), Some(Counter::RefusedTable));
        // Of a known subnet it is the address alone that has no room.
        assert_eq!(door.refused("10.0.0.2"), Some(Counter::RefusedTable));
        drop(door.knock("10.0.0.1").unwrap());
        // That somebody was there is still to be said for as long as its rate remembers it.
        let first = open.remove(1);
        drop(first);
        assert_eq!(door.refused("10.0.8.1"), Some(Counter::RefusedTable));
        door.wait(249);
        assert_eq!(door.refused("10.0.8.1"), Some(Counter::RefusedTable));
        door.wait(1);
        open.push(door.established("10.0.8.1"));
        assert_eq!((door.entries(), door.refused("10.0.9.1")), (16, Some(Counter::RefusedTable)));
        drop(open);
        door.wait(60_000);
        drop((0..8).map(|number| door.established(&format!("10.1.{number}.1"))).collect::<Vec<_>>());
    }

    #[test]
    fn the_table_forgets_who_has_gone_and_gives_its_memory_back() {
        let mut door = Door::new(|_| ());
        let address = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number << 8)).to_string();
        for number in 0..20_000 {
            drop(door.knock(&address(number)).unwrap());
        }
        let at_most = door.entries();
        assert!(at_most > 30_000 && door.gate.table.entries.capacity() >= at_most);
        // Each of these is of use for a quarter of a second, or 25 others.
        for number in 20_000..60_000 {
            door.wait(10);
            drop(door.knock(&address(number)).unwrap());
        }
        assert!(door.entries() < 4 * 25, "{} entries", door.entries());
        let table = &door.gate.table;
        assert!(
            table.entries.capacity() < 1000 && table.index.capacity() < 1000,
            "{} {}",
            table.entries.capacity(),
            table.index.capacity()
        );
        assert_eq!(table.entries.len(), table.index.len());
    }

    /// Keeps tickets by the name of who has them, and takes out those that have to give way.
    fn evict(door: &mut Door, open: &mut Vec<(String, Ticket)>, address: &str) -> Option<String> {
        let admitted = door.admit(address).unwrap_or_else(|reason| panic!("{address}: {reason:?}"));
        let evicted = admitted.evicted.map(|seat| {
            let at = open.iter().position(|(_, ticket)| ticket.is_of(&seat)).expect("it is open");
            assert_eq!(seat.core(), open[at].1.core());
            open.remove(at).0
        });
        let number = open.len();
        open.push((format!("{address} {number}"), admitted.ticket));
        evicted
    }

    #[test]
    fn the_oldest_of_the_busiest_subnet_gives_way_and_never_a_peer() {
        let mut door = Door::new(|config| config.limits.max_half_open = 6);
        let mut peers: Vec<_> = (0..9).map(|_| door.established("10.0.1.1")).collect();
        let mut open = Vec::new();
        for address in ["10.0.2.1", "10.0.1.1", "10.0.1.2", "10.0.2.2", "10.0.1.3", "10.0.1.1"] {
            assert_eq!(evict(&mut door, &mut open, address), None);
        }
        // Four of 10.0.1, two of 10.0.2.
        assert_eq!(evict(&mut door, &mut open, "10.0.3.1"), Some("10.0.1.1 1".into()));
        assert_eq!(evict(&mut door, &mut open, "10.0.4.1"), Some("10.0.1.2 2".into()));
        // Two of 10.0.1, two of 10.0.2, one of 10.0.3 and 10.0.4: a newcomer counts with its own.
        assert_eq!(evict(&mut door, &mut open, "10.0.1.4"), Some("10.0.1.3 4".into()));
        // Where two are as busy, the oldest of both.
        assert_eq!(evict(&mut door, &mut open, "10.0.5.1"), Some("10.0.2.1 0".into()));
        assert_eq!((open.len(), door.places.half_open(), door.places.leaving()), (6, 6, 0));
        // One that is established gives way no more, and makes room.
        let at = open.iter().position(|(name, _)| name.starts_with("10.0.1.1")).unwrap();
        peers.push(open.remove(at).1.establish());
        assert_eq!(evict(&mut door, &mut open, "10.0.1.5"), None);
        drop((open, peers));
        assert_eq!(door.places.in_use(), (0, 0));
    }

    #[test]
    fn a_flood_from_one_subnet_does_not_touch_another() {
        let mut door = Door::unhurried(|config| config.limits.max_half_open = 64);
        let mut open = Vec::new();
        for number in 0..8 {
            assert_eq!(evict(&mut door, &mut open, &format!("10.1.0.{number}")), None);
        }
        for number in 0..2000 {
            door.wait(1);
            let evicted = evict(&mut door, &mut open, &format!("10.66.0.{}", number % 250));
            assert!(evicted.is_none_or(|name| name.starts_with("10.66.0.")), "{number}");
        }
        assert_eq!((open.len(), open.iter().filter(|(name, _)| name.starts_with("10.1.0.")).count()), (64, 8));
    }

    #[test]
    fn no_more_than_a_few_are_on_their_way_out() {
        let mut door = Door::unhurried(|config| config.limits.max_half_open = 64);
        let mut open: Vec<_> = (0..64).map(|number| door.knock(&format!("10.0.0.{number}")).unwrap()).collect();
        for number in 0..MAX_LEAVING {
            let admitted = door.admit(&format!("10.1.0.{number}")).unwrap();
            assert!(Arc::ptr_eq(&admitted.evicted.unwrap(), open[number].seat().unwrap()));
            open.push(admitted.ticket);
        }
        assert_eq!(door.refused("10.2.0.1"), Some(Counter::RefusedHalfOpen));
        assert_eq!((door.places.half_open(), door.places.leaving()), (64, MAX_LEAVING));
        // One of them was faster, one has gone: two may be told.
        let peer = open.remove(3).establish();
        drop(open.remove(3));
        let two: Vec<_> = (0..2).map(|_| door.admit("10.2.0.1").unwrap()).collect();
        assert_eq!(door.refused("10.2.0.1"), Some(Counter::RefusedHalfOpen));
        drop((open, two, peer));
        assert_eq!(door.places.in_use(), (0, 0));
    }

    #[test]
    fn who_has_gone_is_not_kept_in_mind() {
        let mut door = Door::unhurried(|_| ());
        for number in 0..10_000 {
            door.wait(1);
            drop(door.knock(&format!("10.0.{}.1", number % 250)).unwrap());
            assert!(door.gate.seats.len() < SMALL);
        }
    }

    /// What should have come out: counts kept by hand, and everything looked at each time.
    #[derive(Default)]
    struct Model {
        rates: HashMap<String, TokenBucket>,
        /// Address, subnet, whether it is half-open.
        open: Vec<(String, String, bool)>,
    }

    impl Model {
        fn knock(&mut self, address: &str, subnet: &str, config: &Config, now: Timestamp) -> Result<Option<usize>, Counter> {
            let limits = &config.addresses;
            let count = |is: &dyn Fn(&(String, String, bool)) -> bool| self.open.iter().filter(|open| is(open)).count();
            for (full, counter) in [
                (count(&|open| open.0 == address && open.2) >= limits.half_open_per_ip, Counter::RefusedIpHalfOpen),
                (count(&|open| open.0 == address) >= limits.peers_per_ip, Counter::RefusedIpPeers),
                (count(&|open| open.1 == subnet) >= limits.peers_per_subnet, Counter::RefusedSubnetPeers),
            ] {
                if full {
                    return Err(counter);
                }
            }
            let rates = [
                (address, limits.handshakes_per_ip, Counter::RefusedIpRate),
                (subnet, limits.handshakes_per_subnet, Counter::RefusedSubnetRate),
            ];
            for (name, rate, counter) in rates {
                let bucket = self.rates.entry(name.into()).or_insert(TokenBucket::new(rate.per_second, rate.burst));
                if !bucket.clone().take(now, 1) {
                    return Err(counter);
                }
            }
            rates.iter().for_each(|(name, ..)| assert!(self.rates.get_mut(*name).unwrap().take(now, 1)));
            let mut evicted = None;
            if count(&|open| open.2) >= config.limits.max_half_open {
                let busy = |subnet: &str| count(&|open| open.2 && open.1 == subnet);
                let own = |name: &str| usize::from(name == subnet);
                let most = self.open.iter().filter(|open| open.2).map(|open| busy(&open.1) + own(&open.1)).max();
                evicted = self.open.iter().position(|open| open.2 && Some(busy(&open.1) + own(&open.1)) == most);
                self.open.remove(evicted.expect("nobody is exempt"));
            }
            self.open.push((address.into(), subnet.into(), true));
            Ok(evicted)
        }
    }

    #[test]
    fn every_answer_is_the_one_that_counting_everything_gives() {
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let mut door = Door::new(|config| {
                config.limits.max_half_open = 1 + rng.below(20) as usize;
                let addresses = &mut config.addresses;
                addresses.half_open_per_ip = 1 + rng.below(8) as usize;
                addresses.peers_per_ip = 1 + rng.below(12) as usize;
                addresses.peers_per_subnet = 1 + rng.below(40) as usize;
                addresses.handshakes_per_ip = Rate { per_second: 1 + rng.below(8) as u32, burst: 1 + rng.below(16) as u32 };
                addresses.handshakes_per_subnet = Rate { per_second: 1 + rng.below(64) as u32, burst: 1 + rng.below(64) as u32 };
            });
            let config = Arc::clone(&door.gate.config);
            let (mut model, mut open) = (Model::default(), Vec::<(Option<Ticket>, Option<Place>)>::new());
            let is_of = |open: &(Option<Ticket>, _), seat: &Arc<Seat>| open.0.as_ref().is_some_and(|ticket| ticket.is_of(seat));
            for _ in 0..2000 {
                door.now = door.now + rng.duration_below(Duration::from_millis(100));
                let index = rng.below(open.len().max(1) as u64) as usize;
                match rng.below(5) {
                    0 if !open.is_empty() => {
                        open.remove(index);
                        model.open.remove(index);
                    }
                    1 if !open.is_empty() => {
                        let place = open[index].0.take().map(Ticket::establish);
                        open[index].1 = open[index].1.take().or(place);
                        model.open[index].2 = false;
                    }
                    _ => {
                        let subnet = format!("10.0.{}.", rng.below(5));
                        let address = format!("{subnet}{}", rng.below(4));
                        let expected = model.knock(&address, &subnet, &config, door.now);
                        let found = door.admit(&address);
                        match (&expected, &found) {
                            (Ok(evicted), Ok(admitted)) => assert_eq!(
                                admitted.evicted.as_ref().and_then(|seat| open.iter().position(|open| is_of(open, seat))),
                                *evicted,
                                "seed {seed}"
                            ),
                            _ => assert_eq!(found.as_ref().err(), expected.as_ref().err(), "seed {seed}"),
                        }
                        if let Ok(admitted) = found {
                            expected.unwrap().map(|index| open.remove(index));
                            open.push((Some(admitted.ticket), None));
                        }
                    }
                }
                let half_open = model.open.iter().filter(|open| open.2).count();
                assert_eq!((door.places.in_use()), (half_open, open.len()), "seed {seed}");
            }
            drop(open);
            door.wait(100_000);
            (0..100).for_each(|_| _ = door.refused("10.9.9.9"));
            assert_eq!((door.places.in_use(), door.entries()), ((0, 0), 2), "seed {seed}");
        }
    }
}
