//! The order of a turn, as far as it is the shard's.

use std::collections::VecDeque;

use super::directory::{Directory, Key, Means};
use super::mail::Control;
use super::{Action, Event, Shard};
use crate::handler::{Context, Handler, Message};
use crate::id::NodeId;
use crate::metrics::Counter;
use crate::proto::Delivery;
use crate::time::Timestamp;
use crate::wire::Kind;

/// Entries for which a queue keeps its room.
pub(crate) const KEPT_QUEUE: usize = 256;

impl Shard {
    /// The application's first word.
    pub(crate) fn start<H: Handler>(&mut self, handler: &mut H) {
        handler.on_start(&mut Context::new(self));
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
    pub(crate) fn handle_command<H: Handler>(&mut self, handler: &mut H, command: H::Command) {
        handler.on_command(&mut Context::new(self), command);
    }

    /// A control message came.
    pub(crate) fn handle_control(&mut self, control: Control) {
        match control {
            Control::Ask(ask) => self.with_directory(|directory, means| directory.ask(ask, means)),
            Control::Ended { grant, received } => self.with_directory(|directory, means| directory.ended(grant, received, means)),
            Control::Over { node, reason } => {
                if let Some(endings) = &mut self.endings {
                    endings.note(node, reason);
                }
            }
            Control::AttemptFailed { dial, error } => self.with_directory(|directory, means| directory.attempt_failed(dial, error, means)),
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
            Control::EndAttempt { dial } => self.end_attempt(dial),
            Control::Deliver { grant, node, channel, delivery } => {
                self.shared.credits[self.core].release(delivery.frame.as_bytes().len());
                self.deliver_by_grant(grant, node, channel, delivery);
            }
            Control::Answered { id, node, at, result } => self.answered(id, node, at, result),
            Control::Reached { id, peers } => self.reached(id, peers),
            Control::Connect { id, dial, ticket } => self.connect(id, dial, ticket),
            Control::DialFailed { id, error, retry_in } => self.events.push_back(Event::DialFailed { dial: id, error, retry_in }),
            Control::Evict { seat } => self.evict_half(&seat),
            Control::Close { peer } => self.close_peer(peer),
            Control::Answer { peer, tag, result } => self.events.push_back(Event::Response { peer, tag, result }),
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
    /// Only what was there at the beginning: what a handler sets off now waits for the next turn, so that a turn ends.
    pub(crate) fn settle<H: Handler>(&mut self, handler: &mut H) {
        while let Some(control) = self.out.local.pop_front() {
            self.handle_control(control);
        }
        self.resume(handler);
        for _ in 0..self.events.len() {
            if let Some(event) = self.events.pop_front() {
                self.tell(handler, event);
            }
        }
    }

    fn tell<H: Handler>(&mut self, handler: &mut H, event: Event) {
        match event {
            Event::Connected(peer) => {
                // A copy, since the handler gets the shard too; once per connection.
                if let Some(info) = self.peer_info(peer).cloned() {
                    handler.on_connected(&mut Context::new(self), peer, &info);
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
                    handler.on_drained(&mut Context::new(self), peer);
                }
            }
            Event::Slow { peer, backlog } => handler.on_slow(&mut Context::new(self), peer, backlog),
            Event::SendFailed { peer, tag, reason } => handler.on_send_failed(&mut Context::new(self), peer, tag, reason),
            Event::DialFailed { dial, error, retry_in } => handler.on_dial_failed(&mut Context::new(self), dial, error, retry_in),
            Event::Closed { peer, reason } => handler.on_closed(&mut Context::new(self), peer, reason),
            Event::Timer { tag } => handler.on_timer(&mut Context::new(self), tag),
            Event::Acked(id) => self.tell_acked(handler, id),
            Event::Receipt(id) => self.tell_receipt(handler, id),
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
        self.is_dirty() || !self.events.is_empty() || !self.resuming.is_empty() || !self.out.local.is_empty() || !self.actions.is_empty()
    }

    /// The turn is over and the driver has done all actions: frees what has ended.
    pub(crate) fn finish_turn(&mut self) {
        self.free_ended();
        self.reclaim();
        self.look_behind();
    }
}
