//! Why connections have ended, for whoever asks about the ones that came after them.
//!
//! On core 0, which is told of every end. It remembers the last one of each node, of `Limits::max_peers` nodes: one more puts out the node
//! whose last connection ended first. It decides nothing.

use std::collections::{BTreeMap, HashMap};

use crate::error::CloseReason;
use crate::id::NodeId;

/// See the module.
#[derive(Debug)]
pub(super) struct Endings {
    /// With the number of the end, by which the oldest is found.
    last: HashMap<NodeId, (u64, CloseReason)>,
    order: BTreeMap<u64, NodeId>,
    ended: u64,
    most: usize,
}

impl Endings {
    /// Memory of one: in a hash table that has just grown, and in a tree whose nodes are half full.
    pub(super) const ENTRY: usize = 5 * size_of::<(NodeId, (u64, CloseReason))>() + 2 * size_of::<(u64, NodeId)>() + 16;

    pub(super) fn new(most: usize) -> Self {
        Self { last: HashMap::new(), order: BTreeMap::new(), ended: 0, most }
    }

    pub(super) fn note(&mut self, node: NodeId, reason: CloseReason) {
        self.ended += 1;
        if let Some((before, _)) = self.last.insert(node, (self.ended, reason)) {
            self.order.remove(&before);
        }
        self.order.insert(self.ended, node);
        if self.last.len() > self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.last.remove(&oldest);
        }
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, CloseReason)> + '_ {
        self.order.values().filter_map(|node| self.last.get(node).map(|&(_, reason)| (*node, reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_of_each_node_is_kept_and_the_oldest_gives_way() {
        let mut endings = Endings::new(2);
        let node = |name| NodeId([name; 32]);
        endings.note(node(1), CloseReason::Eof);
        endings.note(node(2), CloseReason::Requested);
        endings.note(node(1), CloseReason::Unresponsive);
        assert_eq!(Vec::from_iter(endings.iter()), [(node(2), CloseReason::Requested), (node(1), CloseReason::Unresponsive)]);
        endings.note(node(3), CloseReason::Eof);
        assert_eq!(Vec::from_iter(endings.iter()), [(node(1), CloseReason::Unresponsive), (node(3), CloseReason::Eof)]);
        assert_eq!((endings.last.len(), endings.order.len()), (2, 2));
    }
}
