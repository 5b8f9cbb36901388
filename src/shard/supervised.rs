//! The handler, and what happens when it panics.
//!
//! Each call to the application goes through [`Supervised::call`], which is the one place where a panic is caught: right at the call, so
//! that whatever the core has in hand around it (a decoder that was taken out of its peer, a message on loan, credit to be released) is
//! put back by the code that follows, panic or not. A panic costs the peer that the call was about, if any, and the handler: there and
//! then the factory makes a new one, which is told (`on_start`, `on_panic`) before anything else. So no call ever reaches a handler that
//! panicked, nothing waits for the new one, and what was queued for the old one (events, timers, responses, receipts) comes to the new.
//!
//! **The core ends**, by a panic that goes on, where rebuilding makes no sense: the new handler's factory, `on_start` or `on_panic` panics;
//! `on_panic` says so; there were more than [`crate::Restarts::most`] panics within [`crate::Restarts::within`]; or the panic is not the
//! handler's at all but came out of the core itself, by way of a [`Context`] (`Shard::broken`): what that has left behind is not to be
//! trusted.
//!
//! Bound: one handler, and the times of at most `Restarts::most` panics.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Shard;
use crate::config::Restarts;
use crate::error::CloseReason;
use crate::handler::{AfterPanic, Callback, Context, Handler, HandlerPanic};
use crate::id::{NodeId, PeerId};
use crate::metrics::Counter;
use crate::time::Timestamp;

/// What a call is about: for whom a panic in it has consequences.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    callback: Callback,
    peer: Option<PeerId>,
    node: Option<NodeId>,
    message_type: Option<u16>,
    /// The message asks for an acknowledgement.
    acked: Option<u64>,
}

impl Call {
    pub(super) fn new(callback: Callback) -> Self {
        Self { callback, peer: None, node: None, message_type: None, acked: None }
    }

    pub(super) fn of(callback: Callback, peer: PeerId) -> Self {
        Self { peer: Some(peer), ..Self::new(callback) }
    }

    pub(super) fn of_message(callback: Callback, peer: PeerId, message_type: u16) -> Self {
        Self::of(callback, peer).with_type(Some(message_type))
    }

    pub(super) fn with_type(self, message_type: Option<u16>) -> Self {
        Self { message_type, ..self }
    }

    pub(super) fn of_node(callback: Callback, node: NodeId) -> Self {
        Self { node: Some(node), ..Self::new(callback) }
    }

    pub(super) fn acked(self, id: u64) -> Self {
        Self { acked: Some(id), ..self }
    }
}

/// A core's handler, and how to make another.
pub(crate) struct Supervised<H> {
    handler: H,
    factory: Box<dyn Fn(usize) -> H>,
    /// When it panicked lately, the oldest first.
    recent: VecDeque<Timestamp>,
}

impl<H: Handler> Supervised<H> {
    /// Makes the first handler.
    pub(crate) fn new(core: usize, factory: impl Fn(usize) -> H + 'static) -> Self {
        Self { handler: factory(core), factory: Box::new(factory), recent: VecDeque::new() }
    }

    /// The handler, for what is no call of the application's.
    pub(crate) fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// Calls the handler; `None` where it panicked, and is another by now. `about` is asked only then.
    #[inline]
    pub(super) fn call<R>(
        &mut self,
        shard: &mut Shard,
        about: impl FnOnce() -> Call,
        call: impl FnOnce(&mut H, &mut Context<'_>) -> R,
    ) -> Option<R> {
        // Whatever is behind these references is either replaced (the handler), or was not being changed when the panic began (the shard).
        match catch_unwind(AssertUnwindSafe(|| call(&mut self.handler, &mut Context::new(shard)))) {
            Ok(value) => Some(value),
            Err(payload) => {
                self.handle_panic(shard, about(), payload);
                None
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn handle_panic(&mut self, shard: &mut Shard, about: Call, payload: Box<dyn Any + Send>) {
        shard.stats.count(Counter::HandlerPanics);
        let text = text_of(&*payload);
        if shard.broken || !self.is_to_restart(shard.now, &shard.shared.config.restarts) {
            resume_unwind(payload);
        }
        drop_quietly(payload);
        let node = about.node.or_else(|| about.peer.and_then(|peer| shard.node_of(peer)));
        if let Some(peer) = about.peer {
            shard.lose(peer, about.acked);
        }
        let fresh = (self.factory)(shard.core);
        let old = std::mem::replace(&mut self.handler, fresh);
        if !drop_quietly(old) {
            shard.stats.count(Counter::HandlerPanics);
        }
        let count = shard.stats.get(Counter::HandlerPanics);
        let Call { callback, peer, message_type, .. } = about;
        let panic = HandlerPanic { callback, peer, node, message_type, text, count };
        self.handler.on_start(&mut Context::new(shard));
        if self.handler.on_panic(&mut Context::new(shard), &panic) == AfterPanic::EndCore {
            let said = panic.text.unwrap_or_default();
            resume_unwind(Box::new(said));
        }
    }

    /// Whether one more panic is within what a handler may have.
    fn is_to_restart(&mut self, now: Timestamp, restarts: &Restarts) -> bool {
        while self.recent.front().is_some_and(|&at| now - at >= restarts.within) {
            self.recent.pop_front();
        }
        let restarts = self.recent.len() < restarts.most;
        if restarts {
            self.recent.push_back(now);
        }
        restarts
    }

    /// The core has ended: the handler goes, and may panic over it.
    pub(crate) fn retire(self, shard: &mut Shard) {
        let Self { handler, factory, .. } = self;
        for went_well in [drop_quietly(handler), drop_quietly(factory)] {
            if !went_well {
                shard.stats.count(Counter::HandlerPanics);
            }
        }
    }
}

/// What a panic said, if it was text.
fn text_of(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
}

/// Drops something of the application's. False: that panicked, and what is left of it is leaked, since it might again.
pub(crate) fn drop_quietly<T>(value: T) -> bool {
    match catch_unwind(AssertUnwindSafe(|| drop(value))) {
        Ok(()) => true,
        Err(payload) => {
            std::mem::forget(payload);
            false
        }
    }
}

/// The core does what a handler asks for.
struct Inside<'a>(&'a mut Shard);

impl Drop for Inside<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.broken = true;
    }
}

impl Shard {
    /// Does what a handler asks for: a panic in here is not the handler's.
    // Told by a guard that only a panic lets drop, so that a call without one has nothing to note.
    #[inline]
    pub(crate) fn enter<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R {
        let guard = Inside(self);
        let result = act(guard.0);
        std::mem::forget(guard);
        result
    }

    /// The handler has panicked in a call about this peer. `acked`: over a message that asks for an acknowledgement, and gets none.
    fn lose(&mut self, peer: PeerId, acked: Option<u64>) {
        if let Some(id) = acked
            && self.slots.find(peer).is_some()
            && let Some(exchange) = self.slots.cold_mut(peer.slot()).exchange_mut()
        {
            exchange.give_up(id);
        }
        self.close_any(peer, CloseReason::HandlerPanicked);
    }

    /// Lets go of what the application keeps with peers, when the core has ended.
    pub(crate) fn drop_users(&mut self) {
        let users: Vec<_> = self.slots.iter_cold_mut().filter_map(|(_, cold)| cold.take_user()).collect();
        users.into_iter().for_each(|user| self.drop_user(user));
    }

    /// Its `Drop` is the application's code, and panics by itself: no handler is lost over it.
    pub(super) fn drop_user(&mut self, user: Box<dyn Any>) {
        if !drop_quietly(user) {
            self.stats.count(Counter::HandlerPanics);
        }
    }
}
