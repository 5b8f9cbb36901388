//! How peers end, and what they give back.
//!
//! Whatever ends a peer, it goes through three steps, each in one function, so that no way of ending can leave something out. `close`: it
//! is nobody's peer any more, and gives back what has to do with receiving and with the application (what has arrived in part, requests,
//! subscriptions, what is to be acknowledged). `end`: nothing is written to it any more; what was queued is dropped and counted, the
//! directory gets its grant back, the driver closes the socket. `free_ended`, at the end of the turn: its slot, timer, ticket and user
//! value go. What the core shares out by amount (budgets, pools, logs, the wheel) can only be given back to the core, so it is not left
//! to `Drop`; that nothing of it is left is checked where the peer is dropped. Sockets, tickets and user values give themselves back.

use super::mail::Control;
use super::slots::{Mark, State};
use super::{Action, Conn, Event, Shard};
use crate::error::{CloseReason, RequestError};
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::proto::{Session, Timer};
use crate::wire::{Goodbye, GoodbyeCode};

impl Shard {
    /// The application wants a peer to end.
    pub(crate) fn close_peer(&mut self, peer: PeerId) {
        self.close_any(peer, CloseReason::Requested);
    }

    /// Ends a peer of this core or another.
    pub(super) fn close_any(&mut self, peer: PeerId, reason: CloseReason) {
        if self.slots.find(peer).is_some() {
            self.close(peer.slot(), reason);
        } else if peer.core() != self.core && peer.core() < self.cores() {
            self.out.control(peer.core(), Control::Close { peer, reason });
        }
    }

    /// Ends an established peer: to the application it is gone with this turn, on the wire as soon as what it is owed has left.
    pub(super) fn close(&mut self, slot: u32, reason: CloseReason) {
        if !self.slots.at(slot).is_established() {
            return;
        }
        let peer = self.slots.id(slot);
        if let CloseReason::SlowPeer(_) = reason {
            // Before what was queued is dropped, and before the application hears of the end.
            self.report_slow(slot);
        }
        self.note_reason(slot, reason);
        self.record_closed(slot, reason);
        let entry = self.slots.at(slot);
        let was_read = entry.is_read() && !entry.marks.has(Mark::Resuming);
        self.slots.unestablish();
        self.stats.count_close(reason);
        let node = self.slots.cold(slot).node;
        self.out.control(0, Control::Over { node, reason });
        self.give_ledger(slot);
        self.tell_closed(slot, reason);
        let entry = self.slots.at_mut(slot);
        self.parked -= super::receive::parked(entry.peer.decoder.held());
        for (origin, timer) in entry.peer.release(&mut self.budget, &mut self.buffers) {
            self.wheel.cancel(timer);
            self.requests -= 1;
            self.fail_request(peer, origin, RequestError::PeerClosed);
        }
        self.end_subscriptions(slot);
        if self.rates.is_some() {
            self.end_rates(slot);
        }
        self.events.push_back(Event::Closed { peer, reason });
        self.feed_starved();
        let entry = self.slots.at_mut(slot);
        if !was_read {
            // It was not read for a while, and from here on it is: into nothing, to its FIN.
            self.actions.push_back(Action::Read { slot });
        }
        entry.state = State::Farewell;
        entry.pressed = false;
        entry.peer.timers.keep_only(Timer::Linger);
        match reason {
            // The other side reads on, so it gets what it is owed.
            CloseReason::Requested
            | CloseReason::ShuttingDown
            | CloseReason::Replaced
            | CloseReason::Idle
            | CloseReason::Eof
            | CloseReason::HandlerPanicked => self.drain(slot, reason),
            // The other side reads no more.
            CloseReason::Io(_) | CloseReason::Goodbye(_) => self.end(slot),
            _ => self.cut_off(slot, reason),
        }
    }

    fn drain(&mut self, slot: u32, reason: CloseReason) {
        let deadline = self.now + self.shared.config.timeouts.drain;
        self.with_outbox(slot, |outbox, logs, pool| outbox.detach(logs, pool));
        let entry = self.slots.at_mut(slot);
        // None of the reasons that come here has a detail.
        let tell = reason.goodbye().map_or(GoodbyeCode::Closed, |(code, _)| code);
        entry.state = State::Draining { tell };
        entry.peer.timers.set(Timer::Linger, deadline);
        self.rearm(slot);
        if !self.slots.at(slot).peer.has_output(&self.logs) {
            self.drained_closing(slot);
        } else {
            self.mark_dirty(slot);
        }
    }

    /// Drops what is queued, says why, and leaves.
    fn cut_off(&mut self, slot: u32, reason: CloseReason) {
        let deadline = self.now + self.shared.config.timeouts.linger;
        let goodbye = reason.goodbye().filter(|_| !self.slots.at(slot).peer.outbox.is_mid_frame());
        self.drop_queued(slot);
        let entry = self.slots.at_mut(slot);
        if let Some((code, detail)) = goodbye {
            entry.state = State::Farewell;
            entry.peer.timers.set(Timer::Linger, deadline);
            self.rearm(slot);
            self.queue_goodbye(slot, code, detail);
        } else {
            self.end(slot);
        }
    }

    fn drop_queued(&mut self, slot: u32) {
        let dropped = self.with_outbox(slot, |outbox, logs, pool| outbox.clear(logs, pool));
        self.stats.add(Counter::MessagesDropped, dropped.messages);
    }

    pub(super) fn queue_goodbye(&mut self, slot: u32, code: GoodbyeCode, detail: u16) {
        let delay_ms = if code == GoodbyeCode::ShuttingDown { self.landing.delay_ms(self.now) } else { 0 };
        let goodbye = Goodbye::new(code, detail).with_delay(delay_ms).encode();
        self.with_outbox(slot, |outbox, _, pool| outbox.push_control(pool, &goodbye));
        self.mark_dirty(slot);
    }

    /// The socket goes now. The slot goes with the turn.
    pub(super) fn end(&mut self, slot: u32) {
        let entry = self.slots.at_mut(slot);
        if entry.is_ended() {
            return;
        }
        debug_assert!(!entry.is_established(), "close() comes first");
        entry.state = State::Ended;
        if self.shutting_down {
            self.unsent_bytes += (entry.peer.outbox.claimed(&self.logs) + entry.peer.unsent()) as u64;
        }
        self.drop_queued(slot);
        let entry = self.slots.at_mut(slot);
        if let Session::Noise(sealed) = &mut entry.peer.session {
            self.stats.add(Counter::MessagesDropped, sealed.drop_unsent(&mut self.buffers));
        }
        if entry.blocked {
            entry.blocked = false;
            self.blocked -= 1;
        }
        let grant = self.slots.cold(slot).grant;
        let parting = self.take_parting(slot);
        self.out.control(0, Control::Ended { grant, failed: None, parting });
        self.actions.push_back(Action::Close { conn: Conn::Peer(slot) });
        self.ended.push(slot);
    }

    /// The connection that has this grant. Looks at all of the core.
    fn granted_to(&self, grant: u64) -> Option<Conn> {
        self.slots.granted(grant).map(Conn::Peer).or_else(|| {
            let half = self.half_open.iter().find(|(_, half)| half.grant() == Some(grant));
            half.map(|(half, _)| Conn::Half(half as u32))
        })
    }

    /// A newer connection takes this one's place.
    pub(super) fn replace(&mut self, grant: u64) {
        match self.granted_to(grant) {
            Some(Conn::Peer(slot)) => self.close(slot, CloseReason::Replaced),
            Some(Conn::Half(half)) => self.withdraw_half(half, GoodbyeCode::Duplicate),
            None => {}
        }
        // After what it has left, and although there may be nothing to close any more: the successor waits.
        self.out.control(0, Control::Yielded { grant });
    }

    /// The node that this connection is with may not be a peer any more.
    pub(super) fn cut(&mut self, grant: u64) {
        match self.granted_to(grant) {
            Some(Conn::Peer(slot)) if self.slots.at(slot).is_established() => self.close(slot, CloseReason::NotAllowed),
            // It was being closed for another reason, and might still be written to for a while.
            Some(Conn::Peer(slot)) => self.end(slot),
            Some(Conn::Half(half)) => self.withdraw_half(half, GoodbyeCode::NotAllowed),
            None => {}
        }
    }

    /// Ends everything: no new peers, and the old ones get what they are owed until the drain deadline.
    pub(super) fn shut_down(&mut self) {
        if std::mem::replace(&mut self.shutting_down, true) {
            return;
        }
        self.stop_receipts();
        self.stop_watching();
        self.with_directory(|directory, means| directory.shut_down(means));
        self.end_landing();
        self.withdraw_all();
        self.close_all();
    }

    /// Whether a shutdown has nothing left to wait for.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.shutting_down && self.slots.is_empty() && self.half_open.is_empty() && self.events.is_empty() && self.out.control.is_empty()
    }

    pub(crate) fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    /// Frees what has ended. The driver has closed the sockets.
    pub(super) fn free_ended(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        for slot in ended.drain(..) {
            let (entry, mut cold) = self.slots.remove(slot);
            let given_back = entry.has_given_back() && cold.has_given_back();
            debug_assert!(given_back, "slot {slot} ended and has something of the core: {entry:?}, {cold:?}");
            self.wheel.clear(slot);
            if let Some(user) = cold.take_user() {
                self.drop_user(user);
            }
        }
        self.ended = ended;
        for half in self.ended_half.drain(..) {
            let open = self.half_open.remove(half as usize);
            debug_assert!(open.has_given_back(), "half-open connection {half} ended and has something of the core: {open:?}");
        }
    }
}
