//! The order of a turn, as far as it is the shard's.

use std::collections::VecDeque;

use super::directory::{Directory, Key, Means};
use super::mail::Control;
use super::supervised::{Call, Supervised};
use super::{Action, Event, Shard};
use crate::handler::{Callback, Handler, Message};
use crate::id::NodeId;
use crate::metrics::Counter;
use crate::proto::Delivery;
use crate::time::Timestamp;
use crate::wire::Kind;

/// Entries for which a queue keeps its room.
pub(crate) const KEPT_QUEUE: usize = 256;

impl Shard {
    /// The application's first word.
    pub(crate) fn start<H: Handler>(&mut self, handler: &mut Supervised<H>) {
        handler.call(self, || Call::new(Callback::Start), |handler, cx| handler.on_start(cx));
    }

    /// A turn begins. `meant`: when it was to begin at the latest, as the driver had planned it; what goes
    /// beyond is time in which this process did not run.
    pub(crate) fn begin_turn(&mut self, now: Timestamp, meant: Timestamp) {
        self.stats.count(Counter::Turns);
        self.forgive_freeze(now, meant.max(self.now));
        self.now = now.max(self.now);
        self.appended = 0;
        self.steps = 0;
        self.published.begin_turn();
    }

    /// A command came for the handler.
    pub(crate) fn handle_command<H: Handler>(&mut self, handler: &mut Supervised<H>, command: H::Command) {
        handler.call(self, || Call::new(Callback::Command), |handler, cx| handler.on_command(cx, command));
    }

    /// A control message came.
    pub(crate) fn handle_control(&mut self, control: Control) {
        match control {
            Control::Ask(ask) => self.with_directory(|directory, means| directory.ask(ask, means)),
            Control::Ended { grant, failed, parting } => {
                self.with_directory(|directory, means| directory.ended(grant, failed, parting, means));
            }
            Control::Established { grant, peer } => self.with_directory(|directory, means| directory.established(grant, peer, means)),
            Control::Closing { grant, fruitless } => self.with_directory(|directory, means| directory.closing(grant, fruitless, means)),
            Control::Proven { grant } => self.with_directory(|directory, means| directory.proven(grant, means)),
            Control::Idle { grant } => self.with_directory(|directory, means| directory.idle(grant, means)),
            Control::Pressed { grant, pressed } => self.with_directory(|directory, _| directory.pressed(grant, pressed)),
            Control::Connect { endpoint, origin, pin } => {
                self.with_directory(|directory, means| directory.pool_connect(*endpoint, origin, pin, means));
            }
            Control::Unpin { endpoint } => self.with_directory(|directory, means| directory.unpin(*endpoint, means)),
            Control::AttemptFailed { dial, error, fault, parting } => {
                self.with_directory(|directory, means| directory.attempt_failed(dial, error, fault, parting, means));
            }
            Control::Over { node, reason } => {
                if let Some(endings) = &mut self.endings {
                    endings.note(node, reason);
                }
            }
            Control::Dial { id, dial, home } => self.with_directory(|directory, means| directory.dial(id, dial, home, means)),
            Control::CancelDial { id } => self.with_directory(|directory, means| directory.cancel(id, means)),
            Control::Allow { node } => self.with_directory(|directory, _| directory.allow(node)),
            Control::Disallow { node } => self.with_directory(|directory, means| directory.disallow(node, means)),
            Control::CoreLost { core } => self.with_directory(|directory, means| directory.core_lost(core, means)),
            Control::Ledger { grant, ledger } => self.with_directory(|directory, means| directory.keep(grant, ledger, means)),
            Control::Yielded { grant } => self.with_directory(|directory, means| directory.yielded(grant, means)),
            Control::Route { node, channel, delivery } => self.route(node, channel, delivery, None),
            Control::Undelivered { grant, node, channel, delivery } => self.route(node, channel, delivery, Some(grant)),
            Control::Granted { half, grant, ledger } => self.granted(half, grant, ledger),
            Control::Denied { half, code } => self.denied(half, code),
            Control::Replace { grant } => self.replace(grant),
            Control::Cut { grant } => self.cut(grant),
            Control::EndAttempt { dial, expired } => self.end_attempt(dial, expired),
            Control::CloseIdle { grant, peer, at_once } => self.close_idle(grant, peer, at_once),
            Control::Pooled { origin, result } => self.pooled(origin, result),
            Control::Breaker { endpoint, state } => self.events.push_back(Event::Breaker(Box::new((*endpoint, state)))),
            Control::Deliver { grant, node, channel, delivery } => {
                self.shared.credits[self.core].release(delivery.frame.as_bytes().len());
                self.deliver_by_grant(grant, node, channel, delivery);
            }
            Control::Answered { id, node, at, result } => self.answered(id, node, at, result),
            Control::Reached { id, peers } => self.reached(id, peers),
            Control::Attempt { id, dial, ticket } => self.attempt(id, *dial, ticket),
            Control::DialFailed { id, error, retry_in } => self.events.push_back(Event::DialFailed { dial: id, error, retry_in }),
            Control::Evict { seat } => self.evict_half(&seat),
            Control::Close { peer, reason } => self.close_any(peer, reason),
            Control::Answer { peer, tag, result } => self.events.push_back(Event::Response { peer, tag, result }),
            Control::Drain { notice } => self.begin_landing(notice),
            Control::Land { notice, at } => self.land(notice, at),
            Control::Shutdown => self.shut_down(),
        }
    }

    pub(super) fn route(&mut self, node: NodeId, channel: u16, delivery: Delivery, not_by: Option<u64>) {
        self.with_directory(|directory, means| directory.route(Key::own(node, channel), delivery, not_by, means));
    }

    pub(super) fn with_directory(&mut self, act: impl FnOnce(&mut Directory, &mut Means<'_>)) {
        if let Some(directory) = &mut self.directory {
            let places = &self.shared.places;
            let (out, wheel) = (&mut self.out, &mut self.wheel);
            let (stats, credits) = (&mut self.stats, &*self.shared.credits);
            let mut means = Means { now: self.now, out, wheel, rng: &mut self.rng, places, stats, credits };
            act(directory, &mut means);
        }
    }

    /// Does what was put off during the turn: what this core told itself, and what the application is still to be told.
    ///
    /// Only what was there at the beginning: what a handler sets off now waits for the next turn, so that a turn ends. Says whether there
    /// was anything.
    pub(crate) fn settle<H: Handler>(&mut self, handler: &mut Supervised<H>) -> bool {
        let any = self.has_news();
        while let Some(control) = self.out.local.pop_front() {
            self.handle_control(control);
        }
        self.resume(handler);
        for _ in 0..self.events.len() {
            if let Some(event) = self.events.pop_front() {
                self.tell(handler, event);
            }
        }
        any
    }

    fn tell<H: Handler>(&mut self, handler: &mut Supervised<H>, event: Event) {
        match event {
            Event::Connected(peer) => {
                if let Some(info) = self.peer_info(peer) {
                    handler.call(self, || Call::of(Callback::Connected, peer), |handler, cx| handler.on_connected(cx, peer, &info));
                }
            }
            Event::Response { peer, tag, result } => {
                // Only what came from another core has a body of its own, and has taken room for it.
                let charge = result.as_ref().ok().map(|owned| owned.body.len());
                let result = result.as_ref().map(|owned| Message::new(Kind::Response, owned.meta, &owned.body)).map_err(|error| *error);
                self.respond_to_handler(handler, peer, tag, result);
                if let Some(charge) = charge {
                    self.shared.credits[self.core].release(charge);
                }
            }
            Event::Drained(peer) => {
                if self.slots.find(peer).is_some_and(|entry| entry.is_established()) {
                    handler.call(self, || Call::of(Callback::Drained, peer), |handler, cx| handler.on_drained(cx, peer));
                }
            }
            Event::Slow { peer, backlog } => {
                handler.call(self, || Call::of(Callback::Slow, peer), |handler, cx| handler.on_slow(cx, peer, backlog));
            }
            Event::RateLimited { peer, dropped } => {
                handler.call(self, || Call::of(Callback::RateLimited, peer), |handler, cx| handler.on_rate_limited(cx, peer, dropped));
            }
            Event::SendFailed { peer, tag, reason } => {
                handler.call(self, || Call::of(Callback::SendFailed, peer), |handler, cx| handler.on_send_failed(cx, peer, tag, reason));
            }
            Event::DialFailed { dial, error, retry_in } => {
                handler.call(self, || Call::new(Callback::DialFailed), |handler, cx| handler.on_dial_failed(cx, dial, error, retry_in));
            }
            Event::Closed { peer, reason } => {
                handler.call(self, || Call::of(Callback::Closed, peer), |handler, cx| handler.on_closed(cx, peer, reason));
                self.recorder.forget(peer);
            }
            Event::Timer { tag } => {
                handler.call(self, || Call::new(Callback::Timer), |handler, cx| handler.on_timer(cx, tag));
            }
            Event::Acked(id) => self.tell_acked(handler, id),
            Event::Receipt(id) => self.tell_receipt(handler, id),
            Event::Pooled { tag, result } => {
                self.connects -= 1;
                handler.call(self, || Call::new(Callback::Pooled), |handler, cx| handler.on_pooled(cx, tag, result));
            }
            Event::Breaker(change) => {
                handler.call(self, || Call::new(Callback::Breaker), |handler, cx| handler.on_breaker(cx, change.0, change.1));
            }
        }
    }

    /// What the driver is to do next.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Gives back the room of queues that a burst has filled: what they hold at rest is next to nothing.
    pub(crate) fn trim_queues(&mut self) {
        fn trim<T>(queue: &mut VecDeque<T>) {
            if queue.capacity() > KEPT_QUEUE {
                queue.shrink_to(KEPT_QUEUE);
            }
        }
        trim(&mut self.out.mail);
        trim(&mut self.out.control);
        trim(&mut self.out.local);
        trim(&mut self.events);
        trim(&mut self.actions);
    }

    /// Whether there is work left that needs no event from outside.
    pub(crate) fn has_work(&self) -> bool {
        self.is_dirty() || self.has_news() || !self.actions.is_empty()
    }

    /// Whether there is something for `settle`.
    fn has_news(&self) -> bool {
        !self.events.is_empty() || !self.resuming.is_empty() || !self.out.local.is_empty()
    }

    /// The turn is over and the driver has done all actions: frees what has ended.
    pub(crate) fn finish_turn(&mut self) {
        self.free_ended();
        self.reclaim();
        self.look_behind();
    }
}
