//! What the application sends.

use std::any::Any;
use std::sync::Arc;

use super::mail::{Control, Mail};
use super::slow::Wanted;
use super::{Deadline, Event, Shard, reserve_all};
use crate::dial::Dial;
use crate::error::{CloseReason, RequestError, SendError, Slow};
use crate::handler::{PeerInfo, Sent};
use crate::id::{DialId, NodeId, PeerId};
use crate::metrics::Counter;
use crate::proto::{Logs, Origin, Outbox, QueuedPool, RequestTimeout, SPANS_CHARGE, TERMS_CHARGE};
use crate::wire::{Draft, Frame, Lane, MAX_MESSAGE, Meta, message_wire_len};

/// A message to be sent: to be encoded in place, or encoded already.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    Draft(Draft<'a>),
    Frame(&'a Frame),
}

impl<'a> Payload<'a> {
    pub(crate) fn data(meta: Meta, body: &'a [u8]) -> Self {
        Self::Draft(Draft::data(meta, body))
    }

    pub(crate) fn response(meta: Meta, correlation: u64, body: &'a [u8]) -> Self {
        Self::Draft(Draft::response(meta, correlation, body))
    }

    #[inline]
    pub(super) fn lane(&self) -> Lane {
        match self {
            Self::Draft(draft) => draft.meta.lane,
            Self::Frame(frame) => frame.lane(),
        }
    }

    #[inline]
    pub(super) fn meta(&self) -> Meta {
        match self {
            Self::Draft(draft) => draft.meta,
            Self::Frame(frame) => frame.meta(),
        }
    }

    /// Bytes on the wire.
    pub(super) fn wire_len(&self, cut: usize) -> usize {
        match self {
            Self::Draft(draft) => message_wire_len(draft.correlation.is_some(), draft.body.len(), cut),
            Self::Frame(frame) => frame.as_bytes().len(),
        }
    }

    #[inline]
    pub(super) fn body_len(&self) -> usize {
        match self {
            Self::Draft(draft) => draft.body.len(),
            Self::Frame(frame) => frame.body_len(),
        }
    }

    /// Most that the message adds to what the peer has still to receive.
    #[inline]
    pub(super) fn charge(&self, cut: usize) -> usize {
        SPANS_CHARGE
            + match self {
                Self::Draft(draft) => message_wire_len(draft.correlation.is_some(), draft.body.len(), cut),
                Self::Frame(frame) => frame.as_bytes().len() + if frame.has_terms() { TERMS_CHARGE } else { 0 },
            }
    }
}

impl Shard {
    /// To one peer, of this core or another.
    #[inline]
    pub(crate) fn send(&mut self, peer: PeerId, payload: Payload<'_>) -> Result<Sent, SendError> {
        if peer.core() != self.core {
            return self.forward(peer, payload);
        }
        let (body, charge) = (payload.body_len(), payload.charge(self.shared.config.limits.fragment));
        if self.rates.is_some() {
            self.charge_one(peer, payload)?;
        }
        match self.room(peer, body, charge, || (payload.lane(), 1)) {
            Ok(claimed) => {
                self.push(peer.slot(), payload);
                Ok(self.after_push(peer.slot(), claimed))
            }
            Err(error) => {
                self.stats.count(Counter::SendsRefused);
                self.refund(peer, self.cost_of(std::iter::once(payload)));
                Err(error)
            }
        }
    }

    /// All of these, or none.
    pub(crate) fn send_batch(&mut self, peer: PeerId, frames: &[Frame]) -> Result<Sent, SendError> {
        if peer.core() != self.core {
            self.forward_mail(peer.core(), Mail::SendBatch { peer, frames: frames.into() })?;
            return Ok(Sent::Forwarded);
        }
        let longest = frames.iter().map(Frame::body_len).max().unwrap_or(0);
        let charge = frames.iter().map(|frame| Payload::Frame(frame).charge(0)).sum();
        // The policy of the first one's lane makes room: batches of several lanes are rare, and the marks are for all lanes together.
        let messages = frames.len() as u64;
        let whose = || (frames.first().map_or(Lane::Normal, Frame::lane), messages);
        let cost = self.cost_of(frames.iter().map(Payload::Frame));
        if self.rates.is_some() {
            self.charge_send(peer, cost, messages)?;
        }
        let claimed = self.room(peer, longest, charge, whose).inspect_err(|_| {
            self.stats.add(Counter::SendsRefused, messages);
            self.refund(peer, cost);
        })?;
        for frame in frames {
            self.push(peer.slot(), Payload::Frame(frame));
        }
        Ok(self.after_push(peer.slot(), claimed))
    }

    /// The same as [`Shard::check_room`], after making room where there is none and what waits may go.
    #[inline]
    pub(super) fn room(&mut self, peer: PeerId, body: usize, charge: usize, whose: impl Fn() -> (Lane, u64)) -> Result<usize, SendError> {
        let result = self.check_room(peer, body, charge);
        match result {
            Ok(_) if !self.drops => result,
            Ok(_) | Err(SendError::OutboxFull) => {
                let (lane, messages) = whose();
                let made = self.make_room(peer, Wanted { lane, messages, longest: body, charge });
                made.and_then(|claimed| claimed.ok_or(SendError::OutboxFull))
            }
            Err(_) => result,
        }
    }

    /// Whether a message may be queued for a peer of this core. Returns how much that peer has to receive then, at most.
    #[inline]
    pub(super) fn check_room(&self, peer: PeerId, body: usize, charge: usize) -> Result<usize, SendError> {
        let limits = &self.shared.config.limits;
        let entry = self.slots.find(peer).ok_or(SendError::NotConnected)?;
        if !entry.is_established() {
            return Err(SendError::Closing);
        }
        let max = limits.max_message.min(entry.max_message as usize);
        if body > max {
            return Err(SendError::TooLong { len: body, max });
        }
        let (claimed, used) = (entry.peer.outbox.claimed(&self.logs) + charge, entry.peer.outbox.used());
        if claimed > limits.outbox_hard || !self.sends.fits(used, used + charge) {
            return Err(SendError::OutboxFull);
        }
        Ok(claimed)
    }

    /// Changes what a peer has to receive, and what the core's budget knows of it.
    pub(super) fn with_outbox<R>(&mut self, slot: u32, act: impl FnOnce(&mut Outbox, &Logs, &mut QueuedPool) -> R) -> R {
        let outbox = &mut self.slots.at_mut(slot).peer.outbox;
        let before = outbox.used();
        let result = act(outbox, &self.logs, &mut self.pool);
        self.sends.settle(before, outbox.used());
        result
    }

    /// A peer has queued a control frame for itself, for which its outbox took so many bytes.
    pub(super) fn control_queued(&mut self, slot: u32, bytes: usize) {
        self.sends.grow(bytes, self.slots.at(slot).peer.outbox.used());
        self.mark_dirty(slot);
    }

    // Always: nothing is left of the payload where this is.
    #[inline(always)]
    pub(super) fn push(&mut self, slot: u32, payload: Payload<'_>) {
        if self.recorder.is_on() {
            self.record_queued(slot, payload);
        }
        let outbox = &mut self.slots.at_mut(slot).peer.outbox;
        let before = outbox.used();
        match payload {
            Payload::Draft(draft) => outbox.push_message(&self.logs, &mut self.pool, draft, self.shared.config.limits.fragment),
            Payload::Frame(frame) if frame.key().is_some() => return self.push_keyed(slot, frame),
            Payload::Frame(frame) => outbox.push_frame(&self.logs, &mut self.pool, frame, self.now),
        };
        let after = outbox.used();
        self.sends.grow(after - before, after);
    }

    /// Something was queued for a peer, which has no more than `claimed` bytes to receive now.
    #[inline]
    pub(super) fn after_push(&mut self, slot: u32, claimed: usize) -> Sent {
        self.mark_dirty(slot);
        if claimed < self.shared.config.limits.outbox_soft { Sent::Queued } else { self.weigh(slot) }
    }

    /// Looks closely at what is about enough to be too much.
    #[cold]
    fn weigh(&mut self, slot: u32) -> Sent {
        if self.slots.at(slot).peer.outbox.claimed(&self.logs) < self.shared.config.limits.outbox_soft {
            return Sent::Queued;
        }
        self.press(slot);
        Sent::Backpressure
    }

    fn forward(&mut self, peer: PeerId, payload: Payload<'_>) -> Result<Sent, SendError> {
        let mail = match payload {
            Payload::Frame(frame) => Mail::Send { peer, frame: frame.clone(), notify: None },
            Payload::Draft(Draft { correlation: Some(correlation), meta, body, .. }) => {
                Mail::Respond { peer, correlation, meta, body: body.into() }
            }
            Payload::Draft(draft) => {
                let too_long = SendError::TooLong { len: draft.body.len(), max: MAX_MESSAGE };
                let frame = Frame::encode(draft, self.config().limits.fragment).map_err(|_| too_long)?;
                Mail::Send { peer, frame, notify: None }
            }
        };
        self.forward_mail(peer.core(), mail)?;
        Ok(Sent::Forwarded)
    }

    pub(super) fn forward_mail(&mut self, core: usize, mail: Mail) -> Result<(), SendError> {
        let credit = self.shared.credits.get(core).ok_or(SendError::NotConnected)?;
        let taken = credit.take(core, mail.cost());
        match taken {
            Ok(()) => self.out.mail.push_back((core, mail)),
            Err(SendError::InboxFull { .. }) => self.stats.count(Counter::InboxRefused),
            Err(_) => {}
        }
        taken
    }

    /// To every established peer of every core, or to none.
    pub(crate) fn broadcast(&mut self, frame: &Frame, except: Option<PeerId>) -> Result<(), SendError> {
        self.reserve_broadcast(std::slice::from_ref(frame))?;
        for core in self.other_cores() {
            self.out.mail.push_back((core, Mail::Broadcast { frame: frame.clone(), except }));
        }
        self.append(frame, except);
        Ok(())
    }

    /// All of these to every established peer of every core, or none to any.
    pub(crate) fn broadcast_batch(&mut self, frames: &[Frame]) -> Result<(), SendError> {
        if let [frame] = frames {
            // What is reserved for one frame is what `Mail::Broadcast` costs.
            return self.broadcast(frame, None);
        }
        self.reserve_broadcast(frames)?;
        if self.cores() > 1 {
            let batch: Arc<[Frame]> = frames.into();
            for core in self.other_cores() {
                self.out.mail.push_back((core, Mail::BroadcastBatch { frames: Arc::clone(&batch) }));
            }
        }
        frames.iter().for_each(|frame| self.append(frame, None));
        Ok(())
    }

    /// The cores that were just reserved: a core that has ended since drops what it gets.
    pub(super) fn other_cores(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.core;
        let credits = Arc::clone(&self.shared.credits);
        (0..credits.len()).filter(move |&core| core != own && !credits[core].is_closed())
    }

    /// Makes sure that the frames fit the log of this core and the inboxes of the others.
    pub(super) fn reserve_broadcast(&mut self, frames: &[Frame]) -> Result<(), SendError> {
        let result = self.try_reserve_broadcast(frames);
        if result.is_err() {
            self.stats.add(Counter::BroadcastsRefused, frames.len() as u64);
        }
        result
    }

    /// In its callers, so that the loops over a single frame fold away.
    #[inline(always)]
    pub(super) fn try_reserve_broadcast(&mut self, frames: &[Frame]) -> Result<(), SendError> {
        let max = self.config().limits.max_message;
        if let Some(len) = frames.iter().map(Frame::body_len).find(|&len| len > max) {
            return Err(SendError::TooLong { len, max });
        }
        let bytes: usize = frames.iter().map(|frame| frame.as_bytes().len()).sum();
        let is_full = self.behind || self.appended + bytes > self.append_budget();
        if is_full || (frames.iter().any(Frame::has_terms) && !self.has_room_apart(frames, bytes)) {
            return Err(SendError::LogFull);
        }
        let cost = if frames.len() == 1 { bytes } else { bytes + std::mem::size_of_val(frames) };
        let own = self.core;
        let others = self.shared.credits.iter().enumerate().filter(|&(core, credit)| core != own && !credit.is_closed());
        reserve_all(others, cost).map_err(|core| SendError::InboxFull { core })
    }

    /// Whether this turn has room for frames with terms, which each peer is charged. One always goes if anything does, as a publish does.
    #[cold]
    fn has_room_apart(&self, frames: &[Frame], bytes: usize) -> bool {
        self.wants_publishes() && (frames.len() == 1 || bytes * self.slots.established() <= self.sends.shared() / 4)
    }

    /// Bytes that may be broadcast in one turn: half of what a peer may have to receive, so that a burst alone cuts nobody off who
    /// had caught up before it.
    pub(super) fn append_budget(&self) -> usize {
        self.config().limits.outbox_hard / 2
    }

    /// Whether mail is to be taken in now: not while this turn's broadcasts or publishes are at their bound, or those of earlier turns are
    /// not written.
    pub(crate) fn wants_mail(&self) -> bool {
        !self.behind && self.appended < self.append_budget() && self.wants_publishes()
    }

    pub(super) fn append(&mut self, frame: &Frame, except: Option<PeerId>) {
        if self.shutting_down {
            // There is nobody left for it.
            self.stats.count(Counter::BroadcastsRefused);
            return;
        }
        self.stats.count(Counter::Broadcasts);
        if frame.has_terms() {
            return self.append_apart(frame, except);
        }
        self.appended += frame.as_bytes().len();
        let lane = frame.lane();
        let excluded = except.filter(|peer| self.slots.find(*peer).is_some_and(|entry| entry.is_established()));
        if let Some(peer) = excluded {
            self.with_outbox(peer.slot(), |outbox, logs, pool| outbox.settle_lane(logs, pool, lane));
        }
        // Most cores have no such peers, and need not know how long the message is.
        let len = if self.narrow.is_empty() { 0 } else { frame.body_len() };
        if len > 0 {
            self.each_narrow(len, |outbox, logs, pool| outbox.settle_lane(logs, pool, lane));
        }
        if self.rates.is_some() {
            self.charge_all(frame, except);
        }
        self.logs.append(frame);
        if self.rates.is_some() {
            self.pass_by_all(lane);
        }
        if let Some(peer) = excluded {
            self.slots.at_mut(peer.slot()).peer.outbox.skip_to_end(&self.logs, lane);
        }
        if len > 0 {
            let refused = self.each_narrow(len, |outbox, logs, _| outbox.skip_to_end(logs, lane));
            self.stats.add(Counter::SendsRefused, refused);
        }
        if self.sends.is_overdrawn() {
            self.cut_overdrawn(excluded);
        }
    }

    /// What peers are left out of is noted in their outboxes, and cannot be refused: with the budget used up, whoever is beyond its reserve
    /// is cut off.
    #[cold]
    fn cut_overdrawn(&mut self, excluded: Option<PeerId>) {
        let over: Vec<PeerId> = self.passed_by().iter().map(|&slot| self.slots.id(slot)).collect();
        for peer in excluded.into_iter().chain(self.narrow.clone()).chain(over) {
            let private = self.slots.find(peer).map_or(0, |entry| entry.peer.outbox.used());
            if self.sends.is_overdrawn() && self.sends.beyond(private) > 0 {
                self.close(peer.slot(), CloseReason::SlowPeer(Slow::HardBound));
            }
        }
    }

    /// The outboxes of the peers that have said that they take only messages shorter than this: to them it would be a violation. Returns
    /// how many there are.
    fn each_narrow(&mut self, len: usize, mut act: impl FnMut(&mut Outbox, &Logs, &mut QueuedPool)) -> u64 {
        let mut found = 0;
        self.narrow.retain(|&peer| {
            let Some(entry) = self.slots.find_mut(peer).filter(|entry| entry.is_established()) else { return false };
            if (entry.max_message as usize) < len {
                let before = entry.peer.outbox.used();
                act(&mut entry.peer.outbox, &self.logs, &mut self.pool);
                self.sends.settle(before, entry.peer.outbox.used());
                found += 1;
            }
            true
        });
        found
    }

    /// Asks a peer something.
    pub(crate) fn request(
        &mut self,
        peer: PeerId,
        meta: Meta,
        body: &[u8],
        timeout: RequestTimeout,
        origin: Origin,
    ) -> Result<Sent, SendError> {
        if peer.core() != self.core {
            self.forward_mail(peer.core(), Mail::Request { peer, meta, body: body.into(), timeout, origin })?;
            return Ok(Sent::Forwarded);
        }
        let cut = self.shared.config.limits.fragment;
        let charge = SPANS_CHARGE + message_wire_len(true, body.len(), cut);
        let payload = Payload::Draft(Draft::request(meta, 0, body));
        let claimed = self.room(peer, body.len(), charge, || (meta.lane, 1)).inspect_err(|_| self.stats.count(Counter::SendsRefused))?;
        let limits = &self.shared.config.limits;
        let pending = self.slots.at(peer.slot()).peer.pending_requests();
        if pending >= limits.pending_requests || self.requests >= limits.max_requests {
            self.stats.count(Counter::SendsRefused);
            return Err(SendError::TooManyRequests);
        }
        if self.rates.is_some() {
            self.charge_one(peer, payload)?;
        }
        let entry = self.slots.at_mut(peer.slot());
        let now = self.now;
        let deadline = now
            + match timeout {
                RequestTimeout::After(timeout) => timeout,
                RequestTimeout::Adaptive => entry.peer.response_timeout(&self.shared.config.timeouts),
            };
        let wheel = &mut self.wheel;
        let correlation = entry
            .peer
            .begin_request(now, origin, |correlation| wheel.insert(deadline, Deadline::Request { slot: peer.slot(), correlation }));
        self.requests += 1;
        self.stats.count(Counter::RequestsSent);
        self.push(peer.slot(), Payload::Draft(Draft::request(meta, correlation, body)));
        Ok(self.after_push(peer.slot(), claimed))
    }

    /// A message from another core or a handle.
    pub(crate) fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Send { peer, frame, notify } => {
                let result = self.send(peer, Payload::Frame(&frame));
                if let (Err(reason), Some(tag)) = (result, notify) {
                    self.events.push_back(Event::SendFailed { peer, tag, reason });
                }
            }
            // Refusals are counted where they are made.
            Mail::SendBatch { peer, frames } => drop(self.send_batch(peer, &frames)),
            Mail::Broadcast { frame, except } => self.append(&frame, except),
            Mail::BroadcastBatch { frames } => frames.iter().for_each(|frame| self.append(frame, None)),
            Mail::Publish { topic, frame } => self.fan_out(topic, &frame),
            Mail::Subscribe { peer, topic, wanted } => drop(self.subscribe(peer, topic, wanted)),
            Mail::Request { peer, meta, body, timeout, origin } => {
                if let Err(error) = self.request(peer, meta, &body, timeout, origin) {
                    self.fail_request(peer, origin, RequestError::Send(error));
                }
            }
            Mail::Respond { peer, correlation, meta, body } => drop(self.send(peer, Payload::response(meta, correlation, &body))),
            Mail::SendAcked { peer, delivery } => self.deliver_mail(peer, &delivery),
            Mail::BroadcastAcked { delivery } => self.append_mail(&delivery),
            Mail::Ack(ack) => drop(self.ack(ack)),
            Mail::Route { node, channel, delivery } => self.route(node, channel, delivery, None),
            Mail::Connect { endpoint, origin, pin } => self.connect_for(endpoint, origin, pin),
            Mail::Unpin { endpoint } => self.unpin_for(endpoint),
        }
    }

    /// Mail for other cores: its room is reserved, so delivering it cannot fail.
    pub(crate) fn poll_mail(&mut self) -> Option<(usize, Mail)> {
        self.out.mail.pop_front()
    }

    /// Control messages for other cores.
    pub(crate) fn poll_control(&mut self) -> Option<(usize, Control)> {
        self.out.control.pop_front()
    }

    pub(crate) fn dial(&mut self, dial: Dial) -> DialId {
        self.next_dial += 1;
        let id = DialId::new(self.core + 1, self.next_dial);
        self.out.control(0, Control::Dial { id, dial, home: self.core });
        id
    }

    pub(crate) fn cancel_dial(&mut self, id: DialId) {
        self.out.control(0, Control::CancelDial { id });
    }

    pub(crate) fn set_user(&mut self, peer: PeerId, value: Box<dyn Any>) -> Result<Option<Box<dyn Any>>, Box<dyn Any>> {
        match self.slots.find(peer).filter(|entry| !entry.is_ended()) {
            Some(_) => Ok(self.slots.cold_mut(peer.slot()).set_user(value)),
            None => Err(value),
        }
    }

    pub(crate) fn user(&self, peer: PeerId) -> Option<&dyn Any> {
        self.slots.find(peer)?;
        self.slots.cold(peer.slot()).user()
    }

    pub(crate) fn user_mut(&mut self, peer: PeerId) -> Option<&mut dyn Any> {
        self.slots.find(peer)?;
        self.slots.cold_mut(peer.slot()).user_mut()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.slots.iter().filter(|(_, entry)| entry.is_established()).map(|(slot, _)| self.slots.id(slot))
    }

    pub(crate) fn queued_bytes(&self, peer: PeerId) -> usize {
        self.slots.find(peer).map_or(0, |entry| entry.peer.outbox.claimed(&self.logs))
    }

    pub(crate) fn peer_info(&self, peer: PeerId) -> Option<PeerInfo> {
        self.slots.find(peer).map(|_| self.slots.info(peer.slot()))
    }

    pub(super) fn node_of(&self, peer: PeerId) -> Option<NodeId> {
        self.slots.find(peer).map(|_| self.slots.cold(peer.slot()).node)
    }
}
