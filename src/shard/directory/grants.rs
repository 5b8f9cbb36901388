//! Which connections may be, or are: by the number of their grant, and the newest of each key.
//!
//! There is one entry for each connection, and a long-lived engine has many, so what is known of one is in one place: a slab, whose index
//! is in the grant's number, and chains through it by the hash of the key. A second table with its keys would take as much again. The
//! table does not know what a grant is good for, nor when one may be replaced.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::time::Duration;

use slab::Slab;

use super::super::mail::HalfRef;
use super::Key;
use crate::id::{DialId, NodeId, PeerId};
use crate::time::Timestamp;

/// The end of a chain.
const NIL: u32 = u32::MAX;
/// Chains at the start.
const FEWEST: usize = 16;
/// Of the time when a grant was given.
const TICK: Duration = Duration::from_millis(10);

/// A connection that may be, or is.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) node: NodeId,
    pub(super) instance: u64,
    /// Where this side has dialled.
    pub(super) dial: Option<DialId>,
    /// The peer that its connection is; nothing before it is established, nor when it is being closed.
    pub(super) peer: Option<PeerId>,
    /// Upper half of its number.
    generation: u32,
    /// The next in its chain. Of meaning while it is its key's newest.
    next: u32,
    /// The tick in which it was given, modulo 2^32: see [`Grant::is_older`].
    given_in: u32,
    pub(super) channel: u16,
    core: u8,
    /// There is more to say of it: see [`Rest`].
    has_rest: bool,
}

/// What few grants have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rest {
    /// The name of our own that it goes by, as keys have it: zero for the engine's.
    ours: [u8; 8],
    waiting: Option<Waiting>,
}

/// The grant whose connection a new one replaces and that has not yielded yet, and who is told then.
pub(super) type Waiting = (u64, HalfRef);

impl Grant {
    pub(super) fn core(&self) -> usize {
        self.core.into()
    }

    /// Whether it was given so long ago, or up to a tick less. What is 497 days old is taken for new once more, for as long.
    pub(super) fn is_older(&self, than: Duration, now: Timestamp) -> bool {
        let ticks = than.as_nanos().div_ceil(TICK.as_nanos()) as u32;
        ticks_before(now).wrapping_sub(self.given_in) >= ticks
    }
}

/// Whole ticks that have passed at `at`.
fn ticks_before(at: Timestamp) -> u32 {
    (at.as_nanos() / TICK.as_nanos() as u64) as u32
}

/// See the module. An entry is there until its core says that the connection is over: one that was replaced outlives its place as its
/// key's newest.
#[derive(Debug)]
pub(super) struct Grants {
    slab: Slab<Grant>,
    /// By index.
    rest: HashMap<u32, Rest>,
    /// The first of each chain. A power of two, and at least half as many as there are keys, so that a chain has one to three entries.
    chains: Vec<u32>,
    /// Always empty, and here for its hasher, which is keyed as in every map of the standard library: whoever connects chooses his names.
    /// Nothing that is seen depends on it.
    hashed: HashSet<Key>,
    keys: usize,
    granted: u32,
}

/// What is granted.
pub(super) struct New {
    pub(super) key: Key,
    pub(super) core: usize,
    pub(super) instance: u64,
    pub(super) dial: Option<DialId>,
    pub(super) waiting: Option<Waiting>,
}

impl Grants {
    /// Memory of one: in a slab that grows by doubling, and of chains that do, while the ones before are still there.
    pub(super) const BYTES: usize = 2 * size_of::<Grant>() + 4 * size_of::<(u32, Rest)>() + 3 * size_of::<u32>();

    /// `room`: for so many from the start.
    pub(super) fn new(room: usize) -> Self {
        let chains = vec![NIL; FEWEST];
        Self { slab: Slab::with_capacity(room), rest: HashMap::new(), chains, hashed: HashSet::new(), keys: 0, granted: 0 }
    }

    /// All of them, those that were replaced too.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// How many keys there is one of.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// Adds one: it is its key's newest from here on. Returns its number. Numbers grow, for four billion grants; one that is over means
    /// nothing for as long.
    pub(super) fn insert(&mut self, New { key, core, instance, dial, waiting }: New, now: Timestamp) -> u64 {
        self.granted = self.granted.wrapping_add(1);
        if let Some(before) = self.index_of(&key) {
            self.unlink(before);
        }
        let Key { ours, node, channel } = key;
        let given_in = ticks_before(now);
        let (generation, core) = (self.granted, core as u8);
        let grant = Grant { node, instance, dial, peer: None, generation, next: NIL, given_in, channel, core, has_rest: false };
        let index = self.slab.insert(grant) as u32;
        self.note(index, Rest { ours, waiting });
        if self.keys >= 2 * self.chains.len() {
            self.grow();
        }
        self.link(index);
        self.keys += 1;
        number(generation, index)
    }

    /// Takes one out, with its key.
    pub(super) fn remove(&mut self, number: u64) -> Option<(Key, Grant)> {
        let index = self.find(number)?;
        let key = self.key_at(index);
        if self.index_of(&key) == Some(index) {
            self.unlink(index);
        }
        self.note(index, Rest::default());
        Some((key, self.slab.remove(index as usize)))
    }

    pub(super) fn get(&self, number: u64) -> Option<&Grant> {
        self.find(number).map(|index| &self.slab[index as usize])
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Grant> {
        self.find(number).map(|index| &mut self.slab[index as usize])
    }

    pub(super) fn key(&self, number: u64) -> Option<Key> {
        self.find(number).map(|index| self.key_at(index))
    }

    /// Whom a grant waits for, if it does.
    pub(super) fn waiting(&self, number: u64) -> Option<Waiting> {
        self.rest_at(self.find(number)?)?.waiting
    }

    /// The connection with the grant `before` has yielded. Returns who is to be told, if this grant has waited for that.
    pub(super) fn stop_waiting(&mut self, number: u64, before: u64) -> Option<HalfRef> {
        let index = self.find(number)?;
        let rest = self.rest_at(index)?;
        let (_, half) = rest.waiting.filter(|waiting| waiting.0 == before)?;
        let rest = Rest { waiting: None, ..*rest };
        self.note(index, rest);
        Some(half)
    }

    /// Keeps what there is to say of a grant besides, where that is anything.
    fn note(&mut self, index: u32, rest: Rest) {
        let has_rest = rest != Rest::default();
        if has_rest {
            self.rest.insert(index, rest);
        } else if self.slab[index as usize].has_rest {
            self.rest.remove(&index);
            if self.rest.is_empty() {
                self.rest = HashMap::new();
            }
        }
        self.slab[index as usize].has_rest = has_rest;
    }

    /// A key's newest, with its number.
    pub(super) fn newest(&self, key: &Key) -> Option<(u64, &Grant)> {
        let index = self.index_of(key)?;
        let grant = &self.slab[index as usize];
        Some((number(grant.generation, index), grant))
    }

    /// The same, if it waits for no other to yield.
    pub(super) fn current(&self, key: &Key) -> Option<(u64, &Grant)> {
        self.newest(key).filter(|&(number, _)| self.waiting(number).is_none())
    }

    /// In no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Grant)> {
        self.slab.iter().map(|(index, grant)| (number(grant.generation, index as u32), grant))
    }

    fn find(&self, number: u64) -> Option<u32> {
        let (generation, index) = ((number >> 32) as u32, number as u32);
        self.slab.get(index as usize).filter(|grant| grant.generation == generation).map(|_| index)
    }

    fn rest_at(&self, index: u32) -> Option<&Rest> {
        if self.slab[index as usize].has_rest { self.rest.get(&index) } else { None }
    }

    fn key_at(&self, index: u32) -> Key {
        let grant = &self.slab[index as usize];
        let own = Key::own(grant.node, grant.channel);
        self.rest_at(index).map_or(own, |rest| Key { ours: rest.ours, ..own })
    }

    fn chain(&self, key: &Key) -> usize {
        self.hashed.hasher().hash_one(key) as usize & (self.chains.len() - 1)
    }

    fn index_of(&self, key: &Key) -> Option<u32> {
        let mut index = self.chains[self.chain(key)];
        while index != NIL {
            let grant = &self.slab[index as usize];
            if grant.node == key.node && self.key_at(index) == *key {
                return Some(index);
            }
            index = grant.next;
        }
        None
    }

    fn link(&mut self, index: u32) {
        let chain = self.chain(&self.key_at(index));
        self.slab[index as usize].next = std::mem::replace(&mut self.chains[chain], index);
    }

    fn unlink(&mut self, index: u32) {
        let (chain, next) = (self.chain(&self.key_at(index)), self.slab[index as usize].next);
        let (mut before, mut at) = (None, self.chains[chain]);
        while at != index {
            (before, at) = (Some(at), self.slab[at as usize].next);
        }
        match before {
            None => self.chains[chain] = next,
            Some(before) => self.slab[before as usize].next = next,
        }
        self.keys -= 1;
    }

    fn grow(&mut self) {
        let chains = vec![NIL; 2 * self.chains.len()];
        for mut index in std::mem::replace(&mut self.chains, chains) {
            while index != NIL {
                let next = self.slab[index as usize].next;
                self.link(index);
                index = next;
            }
        }
    }
}

fn number(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::NodeId;
    use crate::rng::Rng;

    fn key(name: u64) -> Key {
        let mut node = [0; 32];
        node[..8].copy_from_slice(&name.to_le_bytes());
        Key::own(NodeId(node), 0)
    }

    /// Some go by another of our names, and some wait.
    fn grant(name: u64, instance: u64) -> New {
        let ours = if name.is_multiple_of(7) { [7; 8] } else { [0; 8] };
        let half = HalfRef { core: 1, index: 2, serial: 3 };
        let waiting = instance.is_multiple_of(5).then_some((instance, half));
        New { key: Key { ours, ..key(name) }, core: 255, instance, dial: None, waiting }
    }

    /// There is one for each peer.
    #[test]
    fn is_small() {
        assert_eq!((size_of::<Grant>(), size_of::<Slab<Grant>>(), Grants::BYTES), (72, 40, 2 * 72 + 4 * 48 + 12));
        // What the slab keeps of one it is in the same place: see `has_rest`.
        let mut slab = Slab::with_capacity(2);
        for instance in 0..2 {
            let mut grants = Grants::new(0);
            let number = grants.insert(grant(1, instance), Timestamp::ORIGIN);
            slab.insert(grants.remove(number).map(|(_, grant)| grant).expect("it is there"));
        }
        assert_eq!(std::ptr::from_ref(&slab[1]).addr() - std::ptr::from_ref(&slab[0]).addr(), 72);
    }

    #[test]
    fn none_is_taken_to_be_younger_than_it_is_nor_much_older() {
        let second = Duration::from_secs(1);
        for nanos in [0, 1, 9_999_999, 10_000_000, 10_000_001, u64::from(u32::MAX) * 10_000_000 - 1] {
            let (mut grants, given) = (Grants::new(0), Timestamp::from_nanos(nanos));
            let number = grants.insert(grant(1, 1), given);
            let settled = |after: u64| grants.get(number).unwrap().is_older(second, given + Duration::from_millis(after));
            assert!(!settled(0) && !settled(989) && settled(1_000) && settled(400 * 24 * 3_600_000), "{nanos}");
        }
    }

    #[test]
    fn finds_by_number_and_by_key_whatever_comes_and_goes() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut grants = Grants::new(0);
            // By number; the newest of each key, unless that has gone; and what is over.
            let (mut all, mut newest, mut over) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
            for instance in 0..2_000 {
                if rng.below(5) < 3 {
                    let name = rng.below(200);
                    let number = grants.insert(grant(name, instance), Timestamp::ORIGIN);
                    assert!(all.last_key_value().is_none_or(|(last, _)| *last < number), "numbers grow");
                    all.insert(number, (name, instance));
                    newest.insert(name, number);
                } else if !all.is_empty() {
                    let (&number, &(name, instance)) = all.iter().nth(rng.below(all.len() as u64) as usize).unwrap();
                    let removed = grants.remove(number).map(|(key, grant)| (key, grant.instance));
                    assert_eq!(removed, Some((grant(name, instance).key, instance)));
                    all.remove(&number);
                    if newest.get(&name) == Some(&number) {
                        newest.remove(&name);
                    }
                    over.push(number);
                }
                assert_eq!((grants.len(), grants.keys()), (all.len(), newest.len()), "seed {seed}");
            }
            for (&number, &(name, instance)) in &all {
                let New { key, waiting, .. } = grant(name, instance);
                assert_eq!(grants.get(number).map(|grant| (grant.instance, grant.core())), Some((instance, 255)), "seed {seed}");
                assert_eq!((grants.key(number), grants.waiting(number)), (Some(key), waiting), "seed {seed}");
                let is_newest = newest.get(&name) == Some(&number);
                let current = grants.current(&key).is_some_and(|(current, _)| current == number);
                assert_eq!(current, is_newest && waiting.is_none(), "seed {seed}");
            }
            for name in 0..200 {
                let found = grants.newest(&grant(name, 1).key).map(|(number, _)| number);
                assert_eq!(found, newest.get(&name).copied(), "seed {seed}");
            }
            for (&number, &(name, instance)) in &all {
                let waited = grant(name, instance).waiting;
                assert_eq!(grants.stop_waiting(number, instance + 1), None);
                assert_eq!(grants.stop_waiting(number, instance), waited.map(|(_, half)| half));
                assert_eq!((grants.waiting(number), grants.key(number)), (None, Some(grant(name, instance).key)));
            }
            assert_eq!(grants.rest.len(), all.values().filter(|(name, _)| name.is_multiple_of(7)).count());
            assert!(over.iter().all(|&number| grants.get(number).is_none() && grants.remove(number).is_none()));
            let mut numbers: Vec<u64> = grants.iter().map(|(number, _)| number).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, Vec::from_iter(all.keys().copied()));
        }
    }
}
