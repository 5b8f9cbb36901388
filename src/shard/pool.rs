//! What the connection pool knows of its targets: who waits for a connection, what is pinned, whose turn it is.
//!
//! It has no connections of its own: which there are, and what is being dialled, the directory knows (`directory/pooling.rs`). A target is
//! in here while it has a connection that the pool has dialled, or somebody waits for one, or it is pinned.

use std::collections::{HashMap, VecDeque};

use crate::address::Address;
use crate::dial::Dial;
use crate::endpoint::Endpoint;
use crate::id::{DialId, NodeId};
use crate::proto::Origin;
use crate::time::Timestamp;

/// What the pool tells targets apart by: the node where it is known, else the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PoolKey {
    Node(NodeId),
    Address(Address),
}

impl PoolKey {
    /// Nothing where nobody is meant.
    pub(super) fn of(endpoint: &Endpoint) -> Option<Self> {
        endpoint.node.map(Self::Node).or_else(|| endpoint.address.clone().map(Self::Address))
    }

    /// The target that a dial leads to.
    pub(super) fn of_dial(dial: &Dial) -> Self {
        dial.expected.map_or_else(|| Self::Address(dial.address.clone()), Self::Node)
    }

    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(*node),
            Self::Address(_) => None,
        }
    }
}

/// One channel of a target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Channel {
    /// Over its soft mark.
    pub(super) pressed: bool,
    pub(super) handed_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Target {
    /// Where it is dialled, as it was last said.
    pub(super) address: Option<Address>,
    pub(super) pinned: bool,
    pub(super) waiters: VecDeque<Origin>,
    channels: Vec<Channel>,
    /// The channel whose turn it is.
    pub(super) turn: u16,
    /// Its place in the order of those that were asked for.
    asked: u64,
}

impl Target {
    pub(super) fn channel(&self, channel: u16) -> Channel {
        self.channels.get(usize::from(channel)).copied().unwrap_or_default()
    }

    pub(super) fn channel_mut(&mut self, channel: u16) -> &mut Channel {
        let index = usize::from(channel);
        if index >= self.channels.len() {
            self.channels.resize_with(index + 1, Channel::default);
        }
        &mut self.channels[index]
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pool {
    targets: HashMap<PoolKey, Target>,
    /// Calls that wait, of all targets.
    waiting: usize,
    asked: u64,
    dials: u64,
}

impl Pool {
    /// Memory of one target, without its channels; of one channel; and of a call that waits.
    pub(super) const TARGET: usize = 5 * size_of::<(PoolKey, Target)>();
    pub(super) const CHANNEL: usize = 2 * size_of::<Channel>();
    pub(super) const WAITER: usize = 2 * size_of::<Origin>();

    pub(super) fn get(&self, key: &PoolKey) -> Option<&Target> {
        self.targets.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &PoolKey) -> Option<&mut Target> {
        self.targets.get_mut(key)
    }

    /// The target, which is the last one that was asked for from now on.
    pub(super) fn ask(&mut self, key: PoolKey) -> &mut Target {
        self.asked += 1;
        let asked = self.asked;
        let new = || Target { address: None, pinned: false, waiters: VecDeque::new(), channels: Vec::new(), turn: 0, asked };
        let target = self.targets.entry(key).or_insert_with(new);
        target.asked = asked;
        target
    }

    /// The target that was asked for longest ago, of those that `may_go` lets. Looks at all of them.
    pub(super) fn oldest(&self, may_go: impl Fn(&PoolKey, &Target) -> bool) -> Option<PoolKey> {
        let targets = self.targets.iter().filter(|(key, target)| !target.pinned && target.waiters.is_empty() && may_go(key, target));
        targets.min_by_key(|(_, target)| target.asked).map(|(key, _)| key.clone())
    }

    pub(super) fn remove(&mut self, key: &PoolKey) {
        let removed = self.targets.remove(key);
        debug_assert!(removed.is_none_or(|target| target.waiters.is_empty()), "whoever waits gets an answer first");
    }

    pub(super) fn wait(&mut self, key: &PoolKey, origin: Origin) {
        if let Some(target) = self.targets.get_mut(key) {
            target.waiters.push_back(origin);
            self.waiting += 1;
        }
    }

    /// Who waits for this target, in the order in which they asked.
    pub(super) fn take_waiters(&mut self, key: &PoolKey) -> VecDeque<Origin> {
        let waiters = self.targets.get_mut(key).map(|target| std::mem::take(&mut target.waiters)).unwrap_or_default();
        self.waiting -= waiters.len();
        waiters
    }

    /// Forgets everything, and says who waited: in the order in which the targets were asked for.
    pub(super) fn clear(&mut self) -> Vec<Origin> {
        let mut targets: Vec<_> = self.targets.drain().map(|(_, target)| target).collect();
        targets.sort_unstable_by_key(|target| target.asked);
        self.waiting = 0;
        targets.into_iter().flat_map(|target| target.waiters).collect()
    }

    pub(super) fn next_dial(&mut self) -> DialId {
        self.dials += 1;
        DialId::of_pool(self.dials)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    #[cfg(test)]
    pub(super) fn count_waiters(&self) -> usize {
        self.targets.values().map(|target| target.waiters.len()).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }
}
