//! Who may be a peer, where not everybody may.
//!
//! The directory has the list; handles change it by message. What they count beforehand keeps it within its bound, so that they can say at
//! once that it is full.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Admission;
use crate::id::NodeId;

/// How many nodes are on the list, or on their way there. Shared with handles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed(Arc<AtomicUsize>);

impl Listed {
    /// Room for one more. False: there is none.
    pub(crate) fn reserve(&self) -> bool {
        let more = |count| (count < Admission::MAX_LISTED).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn release(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Allowed {
    /// `None`: everybody may.
    nodes: Option<HashSet<NodeId>>,
    listed: Listed,
}

impl Allowed {
    pub(super) fn new(admission: Option<&Admission>, listed: Listed) -> Self {
        let nodes = match admission {
            Some(Admission::AllowList(list)) => Some(list.iter().copied().collect::<HashSet<_>>()),
            Some(Admission::Open) | None => None,
        };
        listed.0.store(nodes.as_ref().map_or(0, HashSet::len), Ordering::Relaxed);
        Self { nodes, listed }
    }

    pub(super) fn has(&self, node: &NodeId) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// Whether it is on a list, which says more than that everybody may.
    pub(super) fn names(&self, node: &NodeId) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.contains(node))
    }

    /// Room for it was reserved.
    pub(super) fn add(&mut self, node: NodeId) {
        if !self.nodes.as_mut().is_some_and(|nodes| nodes.insert(node)) {
            self.listed.release();
        }
    }

    /// Says whether it was on the list.
    pub(super) fn remove(&mut self, node: &NodeId) -> bool {
        let removed = self.nodes.as_mut().is_some_and(|nodes| nodes.remove(node));
        if removed {
            self.listed.release();
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn what_is_counted_is_what_is_listed() {
        let listed = Listed::default();
        let count = || listed.0.load(Ordering::Relaxed);
        let mut allowed = Allowed::new(Some(&Admission::AllowList(vec![node(1), node(2), node(1)])), listed.clone());
        assert_eq!(count(), 2);
        for _ in 0..2 {
            assert!(listed.reserve());
            allowed.add(node(3));
            assert_eq!(count(), 3);
        }
        assert!(allowed.has(&node(3)) && allowed.names(&node(3)) && !allowed.has(&node(4)));
        assert!(allowed.remove(&node(3)) && !allowed.remove(&node(3)) && !allowed.has(&node(3)));
        assert_eq!(count(), 2);
        // At the bound it is the handle that is told.
        (2..Admission::MAX_LISTED).for_each(|_| assert!(listed.reserve()));
        assert!(!listed.reserve());
        listed.release();
        assert!(listed.reserve());
    }

    #[test]
    fn without_a_list_everybody_may_and_nobody_is_named() {
        let mut allowed = Allowed::new(Some(&Admission::Open), Listed::default());
        assert!(allowed.has(&node(1)) && !allowed.names(&node(1)) && !allowed.remove(&node(1)));
    }
}
