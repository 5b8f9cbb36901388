//! Panics of the simulated nodes' handlers, and what must be true of them.
//!
//! Each is told to the handler that follows, before anything else, with what the call was about; the peer that it was about ends, and for
//! that reason unless it had ended already; and no peer ends for that reason without one.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::CloseReason;
use crate::handler::{Callback, HandlerPanic};
use crate::id::PeerId;

/// What a panic carries that is meant to happen.
#[derive(Debug)]
pub(super) struct Injected;

/// What the oracle knows of them.
#[derive(Debug, Default)]
pub(super) struct Panics {
    /// Per 10,000 calls. Zero: none happens by itself.
    pub(super) chance: u64,
    /// The next call of this kind panics.
    pub(super) next: Option<Callback>,
    /// How many there were, and in which calls.
    pub(super) count: u64,
    pub(super) callbacks: BTreeSet<&'static str>,
    /// By engine and core: the call that panicked, until the next handler is told of it.
    under_way: BTreeMap<(usize, usize), (Callback, Option<PeerId>)>,
    counts: BTreeMap<(usize, usize), u64>,
    /// Peers that calls panicked over, by engine, until they have ended; all of them; and all that have ended.
    open: BTreeSet<(usize, PeerId)>,
    about: BTreeSet<(usize, PeerId)>,
    ended: BTreeSet<(usize, PeerId)>,
}

impl Panics {
    /// A handler is about to panic.
    pub(super) fn begin(&mut self, engine: usize, core: usize, callback: Callback, peer: Option<PeerId>) {
        self.count += 1;
        self.callbacks.insert(callback.name());
        *self.counts.entry((engine, core)).or_default() += 1;
        assert!(self.under_way.insert((engine, core), (callback, peer)).is_none(), "a handler is called that has panicked");
        let name = peer.map(|peer| (engine, peer));
        self.about.extend(name);
        self.open.extend(name.filter(|name| !self.ended.contains(name)));
    }

    /// The next handler is told.
    pub(super) fn end(&mut self, engine: usize, core: usize, panic: &HandlerPanic) {
        let began = self.under_way.remove(&(engine, core));
        assert_eq!(began, Some((panic.callback, panic.peer)), "another panic is told of than happened");
        assert_eq!(panic.count, self.counts[&(engine, core)], "{panic:?}");
    }

    /// A peer has ended.
    pub(super) fn closed(&mut self, engine: usize, peer: PeerId, reason: CloseReason) {
        let over_it = reason == CloseReason::HandlerPanicked;
        assert!(!over_it || self.about.contains(&(engine, peer)), "{peer} was cut off for a panic that there was not");
        self.open.remove(&(engine, peer));
        self.ended.insert((engine, peer));
    }

    /// An engine was stopped without a word.
    pub(super) fn forget(&mut self, engine: usize) {
        self.open.retain(|(owner, _)| *owner != engine);
    }

    pub(super) fn check_end(&self) {
        assert!(self.under_way.is_empty(), "nobody was told of a panic: {:?}", self.under_way);
        assert!(self.open.is_empty(), "peers that handlers panicked over are there still: {:?}", self.open);
    }
}
