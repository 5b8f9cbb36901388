//! Connections that are not peers yet.
//!
//! They have a slab of their own, small fixed buffers, one deadline from connect or accept to the end of the handshake, and no slot, no
//! outbox and no word with the application before the directory has granted them.

use std::io;
use std::sync::Arc;

use super::blame::Fault;
use super::cold::Cold;
use super::gate::Admitted;
use super::mail::{Ask, Control, HalfRef};
use super::parting::Parting;
use super::places::{Seat, Ticket};
use super::slots::Entry;
use super::supervised::{Call, Supervised};
use super::{Action, Conn, Deadline, Event, Shard};
use crate::address::{Address, Credentials};
use crate::dial::Dial;
use crate::error::{DialError, HandshakeError};
use crate::handler::{Callback, Direction, Handler, PeerInfo};
use crate::id::DialId;
use crate::metrics::Counter;
use crate::notice::millis;
use crate::proto::{Delivery, Handshake, Ledger, Peer, Progress};
use crate::wheel::TimerKey;
use crate::wire::{FEATURE_GO_AWAY, GoodbyeCode, Hello, RefusalCode};

/// What is read at a time from a connection that was refused.
const DISCARDED: usize = 4096;

/// How far a half-open connection is.
///
/// ```text
/// Connecting --connected--> Shaking --granted, and Ready--> (a peer)
///                              |
///                              +--refused--> Leaving --FIN both ways, or linger--> (gone)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Shaking,
    /// The last word is on its way; `told`: it has left.
    Leaving {
        told: bool,
    },
    Ended,
}

/// One connection in its handshake.
#[derive(Debug)]
pub(super) struct HalfOpen {
    state: State,
    handshake: Handshake,
    serial: u32,
    address: Address,
    /// Of Unix-domain sockets.
    credentials: Option<Box<Credentials>>,
    dial: Option<DialId>,
    timer: TimerKey,
    /// Taken by the peer that this becomes.
    ticket: Option<Ticket>,
    theirs: Option<Hello>,
    grant: Option<u64>,
    /// What the connections before this one have left.
    ledger: Option<Box<Ledger>>,
}

impl HalfOpen {
    pub(super) fn grant(&self) -> Option<u64> {
        self.grant
    }

    /// What is known of the other side, when it has said its part.
    fn info(&self, theirs: Hello, authenticated: bool) -> PeerInfo {
        PeerInfo {
            node: theirs.node,
            authenticated,
            instance: theirs.instance,
            channel: theirs.channel,
            address: self.address.clone(),
            direction: if self.handshake.is_dialled() { Direction::Dialled } else { Direction::Accepted },
            dial: self.dial,
            max_message: theirs.max_message as usize,
            takes_notice: theirs.features & FEATURE_GO_AWAY != 0,
            credentials: self.credentials.clone(),
        }
    }

    /// Whether it holds nothing any more that only the core can take back; its ticket is gone too, or its peer's.
    pub(super) fn has_given_back(&self) -> bool {
        self.state == State::Ended && self.ticket.is_none() && self.grant.is_none() && self.ledger.is_none()
    }

    #[cfg(test)]
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }
}

impl Shard {
    /// A connection was taken from a listener: its ticket, or nothing where it is to be closed at once. On core 0 only.
    pub(crate) fn admit(&mut self, address: &Address) -> Option<Ticket> {
        self.stats.count(Counter::Accepted);
        match self.gate.as_mut()?.admit(address, &self.shared.places, self.now) {
            Ok(Admitted { ticket, evicted }) => {
                if let Some(seat) = evicted {
                    self.out.control(seat.core(), Control::Evict { seat });
                }
                Some(ticket)
            }
            Err(reason) => {
                self.stats.count(reason);
                None
            }
        }
    }

    /// A connection was accepted for this core. `entropy`: 32 random bytes, for its handshake alone.
    pub(crate) fn handle_accepted(&mut self, address: Address, ticket: Ticket, entropy: &[u8; 32]) -> u32 {
        let handshake = Handshake::accepted(self.shared.keys.as_ref(), self.hello);
        let half = self.open_half(handshake, State::Shaking, address, None, ticket);
        let open = &mut self.half_open[half as usize];
        open.handshake.connected(entropy);
        let stays = open.ticket.as_ref().is_some_and(|ticket| ticket.sit(half));
        if self.shutting_down || self.landing.has_begun() {
            open.handshake.ask_delay(self.landing.delay_ms(self.now));
            let error = open.handshake.deny(RefusalCode::ShuttingDown);
            self.fail_half(half, error);
        } else if !stays {
            self.give_way(half);
        }
        half
    }

    pub(super) fn attempt(&mut self, id: DialId, dial: Dial, ticket: Ticket) {
        if self.shutting_down || self.landing.has_begun() {
            // The directory did not know yet when it asked for this.
            let error = DialError::ShuttingDown;
            self.out.control(0, Control::AttemptFailed { dial: id, error, fault: Fault::Local, parting: Parting::new(error, 0) });
            return;
        }
        self.stats.count(Counter::DialAttempts);
        let mut hello = Hello { channel: dial.channel, ..self.hello };
        let mut keys = self.shared.keys.clone();
        if let Some(identity) = dial.identity {
            hello.node = identity.node_id();
            keys = keys.map(|keys| Arc::new(keys.with_identity(identity)));
        }
        let handshake = Handshake::dialled(keys.as_ref(), hello, dial.expected);
        let half = self.open_half(handshake, State::Connecting, dial.address.clone(), Some(id), ticket);
        self.actions.push_back(Action::Connect { half, address: dial.address, source: dial.source });
    }

    fn open_half(&mut self, handshake: Handshake, state: State, address: Address, dial: Option<DialId>, ticket: Ticket) -> u32 {
        let timeouts = &self.shared.config.timeouts;
        let limit = if state == State::Connecting { timeouts.connect } else { timeouts.handshake };
        let vacant = self.half_open.vacant_entry();
        let index = vacant.key() as u32;
        let timer = self.wheel.insert(self.now + limit, Deadline::Half(index));
        self.next_serial = self.next_serial.wrapping_add(1);
        let serial = self.next_serial;
        vacant.insert(HalfOpen {
            state,
            handshake,
            serial,
            address,
            credentials: None,
            dial,
            timer,
            ticket: Some(ticket),
            theirs: None,
            grant: None,
            ledger: None,
        });
        index
    }

    /// What the system says of who is at the other end, before its first byte is read.
    pub(crate) fn handle_credentials(&mut self, half: u32, credentials: Credentials) {
        self.half_open[half as usize].credentials = Some(Box::new(credentials));
    }

    /// The connection that `Action::Connect` asked for is there: the handshake begins. `entropy`: 32 random bytes, for it alone.
    pub(crate) fn handle_connected(&mut self, half: u32, entropy: &[u8; 32]) {
        let deadline = self.now + self.shared.config.timeouts.handshake;
        let open = &mut self.half_open[half as usize];
        if open.state == State::Connecting {
            open.state = State::Shaking;
            open.handshake.connected(entropy);
            self.wheel.cancel(open.timer);
            open.timer = self.wheel.insert(deadline, Deadline::Half(half));
            if !open.handshake.is_to_begin() {
                self.begin_half(half);
            } else if self.half_is_deferred(half) {
                // The first word waits for another turn: until the driver comes back to read.
                self.actions.push_back(Action::ReadHalf { half });
            }
        }
    }

    fn begin_half(&mut self, half: u32) {
        let handshake = &mut self.half_open[half as usize].handshake;
        self.steps += usize::from(handshake.is_to_begin());
        match handshake.begin() {
            Ok(()) => self.actions.push_back(Action::WriteHalf { half }),
            Err(error) => self.fail_half(half, error),
        }
    }

    /// How many bytes to read at most; none while the directory is asked.
    pub(crate) fn half_wanted(&self, half: u32) -> usize {
        match self.half_open.get(half as usize) {
            Some(open) if open.state == State::Shaking => open.handshake.wanted(),
            // What a connection sends that was refused is read and ignored.
            Some(HalfOpen { state: State::Leaving { .. }, .. }) => DISCARDED,
            _ => 0,
        }
    }

    /// Before a half-open connection is read: whether that has to wait for another turn, because this one has computed as many steps of
    /// handshakes as a turn may. Established peers do not wait for strangers. A dial whose first word had to wait says it now.
    pub(crate) fn half_is_deferred(&mut self, half: u32) -> bool {
        let Some(open) = self.half_open.get(half as usize).filter(|open| open.state == State::Shaking) else { return false };
        let begins = open.handshake.is_to_begin();
        let deferred = self.steps >= self.shared.config.io.handshakes && (begins || open.handshake.is_costly());
        if deferred {
            self.stats.count(Counter::HandshakesDeferred);
        } else if begins {
            self.begin_half(half);
        }
        deferred
    }

    /// Bytes of a handshake came, no more than were wanted.
    pub(crate) fn handle_half_read<H: Handler>(&mut self, handler: &mut Supervised<H>, half: u32, bytes: &[u8]) {
        let open = &mut self.half_open[half as usize];
        if open.state != State::Shaking {
            return;
        }
        if open.handshake.is_costly() && bytes.len() == open.handshake.wanted() {
            self.steps += 1;
        }
        match open.handshake.handle_bytes(bytes) {
            Ok(Progress::Pending) if open.handshake.output().is_empty() => {}
            Ok(Progress::Pending) => self.actions.push_back(Action::WriteHalf { half }),
            Ok(Progress::Ask(theirs)) => {
                open.theirs = Some(theirs);
                let info = open.info(theirs, self.shared.keys.is_some());
                let about = || Call::of_node(Callback::Authorize, theirs.node);
                let wanted = handler.call(self, about, |handler, _| handler.authorize(&info));
                let open = &mut self.half_open[half as usize];
                // Who cannot be judged without a panic is not let in.
                if wanted != Some(true) {
                    let error = open.handshake.deny(RefusalCode::NotAllowed);
                    return self.fail_half(half, error);
                }
                let half = HalfRef { core: self.core, index: half, serial: open.serial };
                let (ours, dial) = (open.handshake.node(), open.dial);
                let ask = Ask { half, ours, node: theirs.node, instance: theirs.instance, channel: theirs.channel, dial };
                self.out.control(0, Control::Ask(ask));
            }
            Ok(Progress::Established) => self.promote(half),
            Err(error) => self.fail_half(half, error),
        }
    }

    pub(crate) fn half_output(&self, half: u32) -> &[u8] {
        match &self.half_open[half as usize] {
            HalfOpen { state: State::Connecting | State::Ended, .. } => &[],
            open => open.handshake.output(),
        }
    }

    pub(crate) fn half_advance(&mut self, half: u32, taken: usize) {
        let open = &mut self.half_open[half as usize];
        open.handshake.advance(taken);
        if open.state == (State::Leaving { told: false }) && open.handshake.output().is_empty() {
            open.state = State::Leaving { told: true };
            self.actions.push_back(Action::ShutdownWrite { conn: Conn::Half(half) });
        }
    }

    pub(crate) fn handle_half_eof(&mut self, half: u32) {
        self.fail_or_end(half, HandshakeError::Eof);
    }

    pub(crate) fn handle_half_error(&mut self, half: u32, kind: io::ErrorKind) {
        self.fail_or_end(half, HandshakeError::Io(kind));
    }

    pub(super) fn half_timeout(&mut self, half: u32) {
        self.fail_or_end(half, HandshakeError::Timeout);
    }

    fn fail_or_end(&mut self, half: u32, error: HandshakeError) {
        match self.half_open[half as usize].state {
            State::Connecting => {
                let kind = match error {
                    HandshakeError::Io(kind) => kind,
                    _ => io::ErrorKind::TimedOut,
                };
                self.report_half(half, DialError::Connect(kind), Fault::of_io(kind));
                self.end_half(half);
            }
            State::Shaking => self.fail_half(half, error),
            State::Leaving { .. } => self.end_half(half),
            State::Ended => {}
        }
    }

    /// The handshake is over without a peer. What it has still to say is said.
    fn fail_half(&mut self, half: u32, error: HandshakeError) {
        self.stats.count_handshake(error);
        self.report_half(half, dial_error(error), Fault::of_handshake(error));
        let says = match error {
            HandshakeError::Refused(_) | HandshakeError::WrongNode | HandshakeError::Violation(_) => true,
            // Said in the clear, by an acceptor, of a message 1 that it cannot make sense of.
            HandshakeError::AuthFailed | HandshakeError::WeakKey => true,
            _ => false,
        };
        let open = &mut self.half_open[half as usize];
        if says && !open.handshake.output().is_empty() {
            self.leave_half(half);
        } else {
            self.end_half(half);
        }
    }

    fn leave_half(&mut self, half: u32) {
        let linger = self.now + self.shared.config.timeouts.linger;
        let open = &mut self.half_open[half as usize];
        open.state = State::Leaving { told: false };
        self.wheel.cancel(open.timer);
        open.timer = self.wheel.insert(linger, Deadline::Half(half));
        self.actions.push_back(Action::WriteHalf { half });
        self.actions.push_back(Action::ReadHalf { half });
    }

    /// Tells the directory how an attempt or a grant ended.
    fn report_half(&mut self, half: u32, error: DialError, fault: Fault) {
        let open = &mut self.half_open[half as usize];
        let (dial, grant, ledger) = (open.dial.take(), open.grant.take(), open.ledger.take());
        let asked_ms = open.handshake.asked_delay(millis(self.shared.config.backoff.max));
        if dial.is_some() {
            self.stats.count(Counter::DialFailures);
        }
        match (grant, dial) {
            (Some(grant), _) => {
                if let Some(ledger) = ledger {
                    self.return_ledger(grant, ledger);
                }
                self.out.control(0, Control::Ended { grant, failed: Some((error, fault)), parting: Parting::new(error, asked_ms) });
            }
            (None, Some(dial)) => {
                let parting = Parting::new(error, asked_ms);
                self.out.control(0, Control::AttemptFailed { dial, error, fault, parting });
            }
            (None, None) => {}
        }
    }

    /// This side takes its hello back: another connection is kept, or the engine is going away.
    pub(super) fn withdraw_half(&mut self, half: u32, code: GoodbyeCode) {
        let open = &mut self.half_open[half as usize];
        open.handshake.ask_delay(self.landing.delay_ms(self.now));
        let error = match code {
            GoodbyeCode::ShuttingDown => RefusalCode::ShuttingDown,
            GoodbyeCode::NotAllowed => RefusalCode::NotAllowed,
            _ => RefusalCode::Duplicate,
        };
        match open.state {
            State::Shaking => {
                if open.grant.is_some() {
                    open.handshake.withdraw(code);
                } else if self.landing.has_begun() && !self.shutting_down && !open.handshake.is_dialled() {
                    // There is time to say so. A shutdown does not wait for strangers.
                    open.handshake.deny(error);
                }
                self.fail_half(half, HandshakeError::Refused(error));
            }
            State::Connecting => {
                self.report_half(half, DialError::ShuttingDown, Fault::Local);
                self.end_half(half);
            }
            State::Leaving { .. } | State::Ended => {}
        }
    }

    /// The node that this dial means may not be a peer any more, or (`expired`) it takes too long.
    pub(super) fn end_attempt(&mut self, dial: DialId, expired: bool) {
        let half = self.half_open.iter().find(|(_, open)| open.dial == Some(dial)).map(|(half, _)| half as u32);
        match half {
            Some(half) if expired => self.fail_or_end(half, HandshakeError::Timeout),
            Some(half) => self.withdraw_half(half, GoodbyeCode::NotAllowed),
            None => {}
        }
    }

    fn end_half(&mut self, half: u32) {
        let open = &mut self.half_open[half as usize];
        if open.state != State::Ended {
            open.state = State::Ended;
            open.ticket = None;
            self.wheel.cancel(open.timer);
            self.actions.push_back(Action::Close { conn: Conn::Half(half) });
            self.ended_half.push(half);
        }
    }

    /// A newer connection has this one's place, unless it is a peer by now, or gone.
    pub(super) fn evict_half(&mut self, seat: &Arc<Seat>) {
        let half = seat.half();
        let open = self.half_open.get(half as usize);
        if open.and_then(|open| open.ticket.as_ref()).is_some_and(|ticket| ticket.is_of(seat)) {
            self.give_way(half);
        }
    }

    /// Without a word: there may be hundreds a second of these.
    fn give_way(&mut self, half: u32) {
        self.stats.count(Counter::HalfOpenEvicted);
        self.report_half(half, DialError::Full, Fault::Local);
        self.end_half(half);
    }

    fn find_half(&mut self, half: HalfRef) -> Option<&mut HalfOpen> {
        self.half_open.get_mut(half.index as usize).filter(|open| open.serial == half.serial && open.state == State::Shaking)
    }

    /// The directory's word: this connection may be.
    pub(super) fn granted(&mut self, half: HalfRef, grant: u64, ledger: Option<Box<Ledger>>) {
        let Some(open) = self.find_half(half) else {
            // It ended while the directory was asked.
            if let Some(ledger) = ledger {
                self.return_ledger(grant, ledger);
            }
            self.out.control(0, Control::Ended { grant, failed: None, parting: Parting::default() });
            return;
        };
        open.grant = Some(grant);
        open.ledger = ledger;
        let channel = open.theirs.map_or(0, |theirs| theirs.channel);
        match open.handshake.grant(channel) {
            Progress::Established => self.promote(half.index),
            _ => {
                self.actions.push_back(Action::WriteHalf { half: half.index });
                self.actions.push_back(Action::ReadHalf { half: half.index });
            }
        }
    }

    /// A message for the peer that the connection with this grant will become. Given back where there is none.
    pub(super) fn keep_for_half(&mut self, grant: u64, delivery: Delivery) -> Option<Delivery> {
        match self.half_open.iter_mut().find(|(_, open)| open.grant == Some(grant)) {
            Some((_, open)) => {
                let deliveries = &mut open.ledger.get_or_insert_default().deliveries;
                if deliveries.len() == deliveries.capacity() {
                    // So that those that are over do not pile up while the handshake lasts.
                    deliveries.retain(|delivery| !delivery.is_over(self.now));
                }
                deliveries.push(delivery);
                None
            }
            None => Some(delivery),
        }
    }

    /// The directory's word: this connection must not be.
    pub(super) fn denied(&mut self, half: HalfRef, code: RefusalCode) {
        let delay_ms = self.landing.delay_ms(self.now);
        if let Some(open) = self.find_half(half) {
            open.handshake.ask_delay(delay_ms);
            let error = open.handshake.deny(code);
            self.fail_half(half.index, error);
        }
    }

    /// Both sides agree: the connection becomes a peer.
    fn promote(&mut self, half: u32) {
        let open = &mut self.half_open[half as usize];
        open.state = State::Ended;
        self.wheel.cancel(open.timer);
        let (Some(theirs), Some(grant), Some(ticket)) = (open.theirs, open.grant, open.ticket.take()) else {
            unreachable!("a handshake ends after hello and grant");
        };
        let place = ticket.establish();
        let session = open.handshake.take_session(&mut self.buffers);
        let mut peer = Peer::new(&self.shared.config, &self.logs, session, self.now);
        // A dialler's Ready is a frame, and the first that leaves; or it is sealed already, and the session has it.
        let ready = open.handshake.output();
        if !ready.is_empty() && !peer.session.is_authenticated() {
            peer.outbox.push_control(&mut self.pool, ready);
            self.sends.settle(0, peer.outbox.used());
        }
        let info = open.info(theirs, peer.session.is_authenticated());
        let ledger = open.ledger.take();
        open.grant = None;
        let direction = info.direction;
        let cold = Cold::new(info, grant, place, self.now);
        let id = self.slots.insert(Entry::new(peer, theirs.max_message), cold);
        self.record_connected(id, direction);
        self.begin_rates(id.slot());
        if (theirs.max_message as usize) < self.shared.config.limits.max_message {
            if self.narrow.len() == self.narrow.capacity() {
                // Broadcasts take out who has gone; where there are none, this does.
                self.narrow.retain(|&peer| self.slots.find(peer).is_some());
            }
            self.narrow.push(id);
        }
        self.ended_half.push(half);
        self.stats.count(Counter::Established);
        self.out.control(0, Control::Established { grant, peer: id });
        self.watch_idle(id);
        self.rearm(id.slot());
        self.mark_dirty(id.slot());
        if let Some(ledger) = ledger {
            self.take_ledger(id, *ledger);
        }
        self.actions.push_back(Action::Promote { half, slot: id.slot() });
        self.events.push_back(Event::Connected(id));
    }

    /// Connections in their handshake.
    #[cfg(test)]
    pub(crate) fn half_open(&self) -> usize {
        self.half_open.len()
    }
}

/// How a dial ended, for whoever asked for it.
fn dial_error(error: HandshakeError) -> DialError {
    use HandshakeError::{Refused, RefusedByPeer};
    match error {
        Refused(RefusalCode::Duplicate) | RefusedByPeer(RefusalCode::Duplicate) => DialError::Duplicate,
        Refused(RefusalCode::NotAllowed) | RefusedByPeer(RefusalCode::NotAllowed) => DialError::NotAllowed,
        Refused(RefusalCode::SelfConnection) | RefusedByPeer(RefusalCode::SelfConnection) => DialError::SelfConnection,
        Refused(RefusalCode::Full) => DialError::Full,
        Refused(RefusalCode::ShuttingDown) => DialError::ShuttingDown,
        _ => DialError::Handshake(error),
    }
}
