//! Which connections may be, or are: by the number of their grant, and the newest of each key.
//!
//! There is one entry for each connection, and a long-lived engine has many, so what is known of one is in one place: a slab, whose index
//! is in the grant's number, and chains through it by the hash of the key. A second table with its keys would take as much again. The
//! table does not know what a grant is good for, nor when one may be replaced.

use std::collections::HashSet;
use std::hash::BuildHasher;

use slab::Slab;

use super::super::mail::HalfRef;
use super::Key;
use crate::id::{DialId, PeerId};
use crate::time::Timestamp;

/// The end of a chain.
const NIL: u32 = u32::MAX;
/// Chains at the start.
const FEWEST: usize = 16;

/// A connection that may be, or is.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) key: Key,
    pub(super) core: u16,
    pub(super) instance: u64,
    /// Where this side has dialled.
    pub(super) dial: Option<DialId>,
    pub(super) granted_at: Timestamp,
    /// The grant whose connection it replaces and that has not yielded yet, and who is told then. Boxed, since few wait.
    pub(super) waiting: Option<Box<(u64, HalfRef)>>,
    /// The peer that its connection is; nothing before it is established, nor when it is being closed.
    pub(super) peer: Option<PeerId>,
}

#[derive(Debug)]
struct Numbered {
    grant: Grant,
    generation: u32,
    /// The next in its chain. Of meaning while it is its key's newest.
    next: u32,
}

/// See the module. An entry is there until its core says that the connection is over: one that was replaced outlives its place as its
/// key's newest.
#[derive(Debug)]
pub(super) struct Grants {
    slab: Slab<Numbered>,
    /// The first of each chain. A power of two, and at least as many as there are keys, so that a chain has one or two entries.
    chains: Vec<u32>,
    /// Always empty, and here for its hasher, which is keyed as in every map of the standard library: whoever connects chooses his names.
    /// Nothing that is seen depends on it.
    hashed: HashSet<Key>,
    keys: usize,
    granted: u32,
}

impl Grants {
    /// Memory of one: in a slab that grows by doubling, and of chains that do, while the ones before are still there.
    pub(super) const BYTES: usize = 2 * size_of::<Numbered>() + size_of::<(u64, HalfRef)>() + 3 * size_of::<u32>();

    pub(super) fn new() -> Self {
        Self { slab: Slab::new(), chains: vec![NIL; FEWEST], hashed: HashSet::new(), keys: 0, granted: 0 }
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
    pub(super) fn insert(&mut self, grant: Grant) -> u64 {
        self.granted = self.granted.wrapping_add(1);
        if let Some(before) = self.index_of(&grant.key) {
            self.unlink(before);
        }
        let generation = self.granted;
        let index = self.slab.insert(Numbered { grant, generation, next: NIL }) as u32;
        if self.keys >= self.chains.len() {
            self.grow();
        }
        self.link(index);
        self.keys += 1;
        number(generation, index)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Grant> {
        let index = self.find(number)?;
        if self.index_of(&self.slab[index as usize].grant.key) == Some(index) {
            self.unlink(index);
        }
        Some(self.slab.remove(index as usize).grant)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Grant> {
        self.find(number).map(|index| &self.slab[index as usize].grant)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Grant> {
        self.find(number).map(|index| &mut self.slab[index as usize].grant)
    }

    /// A key's newest, with its number.
    pub(super) fn newest(&self, key: &Key) -> Option<(u64, &Grant)> {
        let index = self.index_of(key)?;
        let Numbered { grant, generation, .. } = &self.slab[index as usize];
        Some((number(*generation, index), grant))
    }

    /// The same, if it waits for no other to yield.
    pub(super) fn current(&self, key: &Key) -> Option<(u64, &Grant)> {
        self.newest(key).filter(|(_, grant)| grant.waiting.is_none())
    }

    /// In no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Grant)> {
        self.slab.iter().map(|(index, numbered)| (number(numbered.generation, index as u32), &numbered.grant))
    }

    fn find(&self, number: u64) -> Option<u32> {
        let (generation, index) = ((number >> 32) as u32, number as u32);
        self.slab.get(index as usize).filter(|numbered| numbered.generation == generation).map(|_| index)
    }

    fn chain(&self, key: &Key) -> usize {
        self.hashed.hasher().hash_one(key) as usize & (self.chains.len() - 1)
    }

    fn index_of(&self, key: &Key) -> Option<u32> {
        let mut index = self.chains[self.chain(key)];
        while index != NIL {
            let numbered = &self.slab[index as usize];
            if numbered.grant.key == *key {
                return Some(index);
            }
            index = numbered.next;
        }
        None
    }

    fn link(&mut self, index: u32) {
        let chain = self.chain(&self.slab[index as usize].grant.key);
        self.slab[index as usize].next = std::mem::replace(&mut self.chains[chain], index);
    }

    fn unlink(&mut self, index: u32) {
        let Numbered { grant, next, .. } = &self.slab[index as usize];
        let (chain, next) = (self.chain(&grant.key), *next);
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

    fn grant(key: Key, instance: u64) -> Grant {
        Grant { key, core: 0, instance, dial: None, granted_at: Timestamp::ORIGIN, waiting: None, peer: None }
    }

    /// There is one for each peer.
    #[test]
    fn is_small() {
        assert_eq!((size_of::<Slab<Numbered>>(), Grants::BYTES), (40, 2 * 96 + 24 + 12));
    }

    #[test]
    fn finds_by_number_and_by_key_whatever_comes_and_goes() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut grants = Grants::new();
            // By number; the newest of each key, unless that has gone; and what is over.
            let (mut all, mut newest, mut over) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
            for instance in 0..2_000 {
                if rng.below(5) < 3 {
                    let name = rng.below(200);
                    let number = grants.insert(grant(key(name), instance));
                    assert!(all.last_key_value().is_none_or(|(last, _)| *last < number), "numbers grow");
                    all.insert(number, (name, instance));
                    newest.insert(name, number);
                } else if !all.is_empty() {
                    let (&number, &(name, instance)) = all.iter().nth(rng.below(all.len() as u64) as usize).unwrap();
                    assert_eq!(grants.remove(number).map(|grant| grant.instance), Some(instance));
                    all.remove(&number);
                    if newest.get(&name) == Some(&number) {
                        newest.remove(&name);
                    }
                    over.push(number);
                }
                assert_eq!((grants.len(), grants.keys()), (all.len(), newest.len()), "seed {seed}");
            }
            for (&number, &(name, instance)) in &all {
                assert_eq!(grants.get(number).map(|grant| (grant.key, grant.instance)), Some((key(name), instance)), "seed {seed}");
            }
            for name in 0..200 {
                let found = grants.newest(&key(name)).map(|(number, _)| number);
                assert_eq!(found, newest.get(&name).copied(), "seed {seed}");
            }
            assert!(over.iter().all(|&number| grants.get(number).is_none() && grants.remove(number).is_none()));
            let mut numbers: Vec<u64> = grants.iter().map(|(number, _)| number).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, Vec::from_iter(all.keys().copied()));
        }
    }
}
