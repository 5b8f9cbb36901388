//! What peers send.

use super::mail::{Control, Owned};
use super::rates::Verdict;
use super::slots::{Mark, State};
use super::supervised::{Call, Supervised};
use super::{Action, Event, Shard};
use crate::buffers::{MEDIUM, capacity_for};
use crate::config::{Config, Security};
use crate::error::{CloseReason, RequestError, SendError, Violation};
use crate::flight::FlightEvent;
use crate::handler::{Callback, Handler, Message, Responder};
use crate::id::PeerId;
use crate::metrics::{Counter, Measure};
use crate::proto::{Opened, Origin, Received, Timer, Whole};
use crate::wire::{FrameDecoder, FrameRef, HEADER_LEN, Kind, MAX_FRAME_PAYLOAD};

/// Whole reads that a core may have put aside for peers that are not read for now, in buffers made to measure. Beyond that, reads are
/// short: what one leaves behind fits a buffer of the middle class.
pub(crate) const PARKED_READS: usize = 16;
/// A short read. With a frame that was unfinished before it, it fits a buffer of the middle class.
const SHORT_READ: usize = MAX_FRAME_PAYLOAD;
const _: () = assert!(HEADER_LEN + MAX_FRAME_PAYLOAD + SHORT_READ <= MEDIUM);

/// The buffer that what a whole read brings needs, with a frame that was unfinished before it, when it is put aside.
pub(crate) fn parked_read(config: &Config) -> usize {
    capacity_for(brings(config, config.io.receive_buffer) + HEADER_LEN + MAX_FRAME_PAYLOAD)
}

/// The same for a short read. In plaintext that is a buffer of the middle class; a record that a short read completes may be longer.
pub(crate) fn parked_short_read(config: &Config) -> usize {
    capacity_for(brings(config, SHORT_READ) + HEADER_LEN + MAX_FRAME_PAYLOAD).max(MEDIUM)
}

/// What a read of so many bytes may bring.
fn brings(config: &Config, read: usize) -> usize {
    match config.security {
        Security::Plaintext { .. } => read,
        Security::Noise(_) => Opened::most(read),
    }
}

/// What a parked buffer counts: nothing, where it is one that every peer may have.
pub(super) fn parked(capacity: usize) -> usize {
    if capacity > MEDIUM { capacity } else { 0 }
}

/// Whether the driver should go on reading this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    Continue,
    /// Paused or closed. `Action::Read` says when to go on.
    Stop,
}

impl Shard {
    /// Bytes came from a peer. Messages among them go to the handler at once, still in place.
    #[inline]
    pub(crate) fn handle_read<H: Handler>(&mut self, handler: &mut Supervised<H>, slot: u32, input: &[u8]) -> ReadOutcome {
        let entry = self.slots.at_mut(slot);
        match entry.state {
            State::Established => {}
            // Read on, into nothing, so that the other side's FIN is seen and what it still has to read is not destroyed.
            State::Draining { .. } | State::Farewell | State::HalfClosed => return ReadOutcome::Continue,
            State::Ended => return ReadOutcome::Stop,
        }
        self.stats.add(Counter::BytesReceived, input.len() as u64);
        entry.peer.keepalive.handle_bytes(self.now);
        if entry.peer.session.is_authenticated() { self.read_sealed(handler, slot, input) } else { self.read_batch(handler, slot, input) }
    }

    /// Whether a read is to be made at all.
    pub(crate) fn wants_read(&self, slot: u32) -> bool {
        self.slots.get(slot).is_some_and(|entry| match entry.state {
            State::Established => entry.is_read() && !entry.marks.has(Mark::Resuming),
            State::Ended => false,
            _ => !entry.marks.has(Mark::Eof),
        })
    }

    /// How much is to be read from a peer at a time at most: less while much input is put aside, or may have to be.
    #[inline]
    pub(crate) fn read_limit(&mut self, slot: u32) -> usize {
        let most = if self.parked < self.most_parked { usize::MAX } else { SHORT_READ };
        if self.rates.is_some() { most.min(self.rated_read(slot)) } else { most }
    }

    pub(super) fn read_batch<H: Handler>(&mut self, handler: &mut Supervised<H>, slot: u32, input: &[u8]) -> ReadOutcome {
        // Taken out, so that a frame that was completed in it can be lent to the handler while the handler has the shard.
        let mut decoder = std::mem::take(&mut self.slots.at_mut(slot).peer.decoder);
        let mut frame_ended = false;
        let result = self.read_frames(handler, slot, &mut decoder, input, &mut frame_ended);
        if let Err(violation) = result {
            self.close(slot, CloseReason::Violation(violation));
        }
        let entry = self.slots.at_mut(slot);
        if !entry.is_established() {
            decoder.release(&mut self.buffers);
            // Closed by what came, or by the handler: read on for the other side's FIN, since no edge will tell of what is there already.
            return if entry.is_ended() { ReadOutcome::Stop } else { ReadOutcome::Continue };
        }
        if !entry.is_read() {
            self.parked += parked(decoder.held());
            entry.peer.decoder = decoder;
            return ReadOutcome::Stop;
        }
        entry.peer.decoder = decoder;
        entry.peer.watch_partial(self.now, &self.shared.config, frame_ended);
        self.rearm(slot);
        ReadOutcome::Continue
    }

    fn read_frames<H: Handler>(
        &mut self,
        handler: &mut Supervised<H>,
        slot: u32,
        decoder: &mut FrameDecoder,
        input: &[u8],
        frame_ended: &mut bool,
    ) -> Result<(), Violation> {
        let peer = self.slots.id(slot);
        let mut at = 0;
        loop {
            // What nearly every frame is, on the shortest way.
            if !self.inspects
                && let Some(frame) = decoder.next_whole(input, &mut at)
            {
                let message = self.slots.at(slot).peer.handle_whole(frame, &self.shared.config)?;
                self.deliver(handler, peer, message)?;
                *frame_ended = true;
                if !self.slots.at(slot).is_read() {
                    decoder.park(&mut self.buffers, &input[at..]);
                    return Ok(());
                }
                continue;
            }
            let begin = at;
            let Some(frame) = decoder.next(&mut self.buffers, input, &mut at)? else { return Ok(()) };
            if self.inspects {
                match self.inspect(slot, frame)? {
                    Verdict::Take => {}
                    Verdict::Drop => {
                        *frame_ended = true;
                        continue;
                    }
                    Verdict::Wait => {
                        decoder.park_again(&mut self.buffers, &input[begin..at], &input[at..]);
                        return Ok(());
                    }
                    Verdict::End => {
                        self.close(slot, CloseReason::RateLimited);
                        return Ok(());
                    }
                }
            }
            let entry = self.slots.at_mut(slot);
            match entry.peer.handle_frame(self.now, frame, &self.shared.config, &mut self.budget, &mut self.buffers, &mut self.pool)? {
                Received::Message(message) => self.deliver_apart(handler, peer, message)?,
                Received::Assembled => self.deliver_assembled(handler, peer)?,
                Received::Handled => {}
                // A ping came, and this is its pong. Who pings is alive, and where its interval is the shorter one this side never does.
                Received::Queued(bytes) => {
                    self.note_proof(slot);
                    self.record_control(slot, Kind::Pong, HEADER_LEN + 8);
                    self.control_queued(slot, bytes);
                }
                Received::Ack(id) => self.handle_ack(slot, id)?,
                Received::Subscribe(topic) => self.handle_subscribe(handler, peer, topic)?,
                Received::Unsubscribe(topic) => self.handle_unsubscribe(handler, peer, topic),
                Received::GoAway(frame) => self.handle_go_away(handler, peer, frame),
                Received::Pong(after) => {
                    self.note_life(slot);
                    if let Some(after) = after {
                        self.measure(Measure::RoundTrip, after.as_nanos() as u64);
                    }
                }
                Received::Goodbye(goodbye) => {
                    self.note_goodbye(slot, goodbye);
                    self.close(slot, CloseReason::Goodbye(goodbye.code));
                    return Ok(());
                }
                Received::NoRoom => {
                    self.take_back(slot);
                    decoder.park_again(&mut self.buffers, &input[begin..at], &input[at..]);
                    self.starve(slot);
                    return Ok(());
                }
            }
            *frame_ended = true;
            if !self.slots.at(slot).is_read() {
                decoder.park(&mut self.buffers, &input[at..]);
                return Ok(());
            }
        }
    }

    /// A frame came, to a core that notes or weighs what comes.
    #[cold]
    #[inline(never)]
    fn inspect(&mut self, slot: u32, frame: FrameRef<'_>) -> Result<Verdict, Violation> {
        if self.recorder.is_on() {
            self.record_received(slot, frame);
        }
        self.judge(slot, frame)
    }

    /// One whole message.
    // Always: on the shortest way its parts are in registers.
    #[inline(always)]
    fn deliver<H: Handler>(
        &mut self,
        handler: &mut Supervised<H>,
        peer: PeerId,
        Whole { kind, meta, correlation, body }: Whole<'_>,
    ) -> Result<(), Violation> {
        if !self.slots.at(peer.slot()).used {
            self.note_use(peer.slot());
        }
        let message = Message::new(kind, meta, body);
        match kind {
            Kind::Data => {
                self.stats.count(Counter::MessagesReceived);
                let about = || Call::of_message(Callback::Message, peer, meta.message_type);
                handler.call(self, about, |handler, cx| handler.on_message(cx, peer, message));
            }
            Kind::Acked => self.deliver_acked(handler, peer, meta, correlation, body),
            Kind::Request => {
                self.stats.count(Counter::MessagesReceived);
                let about = || Call::of_message(Callback::Request, peer, meta.message_type);
                let responder = Responder { peer, correlation };
                handler.call(self, about, |handler, cx| handler.on_request(cx, peer, message, responder));
            }
            _ => self.deliver_response(handler, peer, correlation, message)?,
        }
        Ok(())
    }

    /// The same, on any other way.
    #[inline(never)]
    fn deliver_apart<H: Handler>(&mut self, handler: &mut Supervised<H>, peer: PeerId, message: Whole<'_>) -> Result<(), Violation> {
        self.deliver(handler, peer, message)
    }

    /// A message that came in pieces. Its memory goes back as soon as the handler has seen it.
    #[cold]
    fn deliver_assembled<H: Handler>(&mut self, handler: &mut Supervised<H>, peer: PeerId) -> Result<(), Violation> {
        let Some(message) = self.slots.at_mut(peer.slot()).peer.take_whole() else { return Ok(()) };
        let delivered = self.deliver_apart(handler, peer, message.whole());
        self.buffers.give_back(message.body);
        self.feed_starved();
        delivered
    }

    fn deliver_response<H: Handler>(
        &mut self,
        handler: &mut Supervised<H>,
        peer: PeerId,
        correlation: u64,
        message: Message<'_>,
    ) -> Result<(), Violation> {
        let owned = || Owned { meta: message.meta, body: message.body.to_vec() };
        let answered = self.slots.at_mut(peer.slot()).peer.answer(self.now, correlation)?;
        let origin = answered.map(|(origin, timer)| {
            self.wheel.cancel(timer);
            self.requests -= 1;
            origin
        });
        // What nobody has asked for, or waits for any more, is handed to nobody.
        self.stats.add(Counter::MessagesReceived, u64::from(origin.is_some()));
        match origin {
            None => self.stats.count(Counter::LateResponses),
            Some(Origin::Handler { core, tag }) if core == self.core => self.respond_to_handler(handler, peer, tag, Ok(message)),
            Some(Origin::Handler { core, tag }) => self.answer_core(core, peer, tag, message),
            Some(Origin::Waiter(waiter)) => self.actions.push_back(Action::Answer { waiter, result: Ok(owned()) }),
        }
        Ok(())
    }

    /// A response for the handler of another core. Its body waits there as mail does, under the same credit.
    fn answer_core(&mut self, core: usize, peer: PeerId, tag: u64, message: Message<'_>) {
        let charge = message.body.len();
        let result = if self.shared.credits[core].reserve(charge) {
            Ok(Owned { meta: message.meta, body: message.body.to_vec() })
        } else {
            self.stats.count(Counter::InboxRefused);
            Err(RequestError::Send(SendError::InboxFull { core }))
        };
        self.out.control(core, Control::Answer { peer, tag, result });
    }

    pub(super) fn respond_to_handler<H: Handler>(
        &mut self,
        handler: &mut Supervised<H>,
        peer: PeerId,
        tag: u64,
        result: Result<Message<'_>, RequestError>,
    ) {
        let message_type = result.as_ref().ok().map(Message::message_type);
        let about = || Call::of(Callback::Response, peer).with_type(message_type);
        handler.call(self, about, |handler, cx| handler.on_response(cx, peer, tag, result));
    }

    /// A request has ended without a response.
    pub(super) fn fail_request(&mut self, peer: PeerId, origin: Origin, error: RequestError) {
        match origin {
            Origin::Handler { core, tag } if core == self.core => self.events.push_back(Event::Response { peer, tag, result: Err(error) }),
            Origin::Handler { core, tag } => self.out.control(core, Control::Answer { peer, tag, result: Err(error) }),
            Origin::Waiter(waiter) => self.actions.push_back(Action::Answer { waiter, result: Err(error) }),
        }
    }

    /// The other side has closed its direction.
    pub(crate) fn handle_eof(&mut self, slot: u32) {
        self.slots.at_mut(slot).marks.set(Mark::Eof);
        match self.slots.at(slot).state {
            State::Established => self.close(slot, CloseReason::Eof),
            State::HalfClosed => self.end(slot),
            _ => {}
        }
    }

    /// The kernel says that the connection is lost.
    pub(crate) fn handle_error(&mut self, slot: u32, kind: std::io::ErrorKind) {
        if self.slots.at(slot).is_established() {
            self.close(slot, CloseReason::Io(kind));
        } else {
            self.end(slot);
        }
    }

    pub(crate) fn pause_read(&mut self, peer: PeerId) {
        if let Some(entry) = self.slots.find_mut(peer).filter(|entry| entry.is_established()) {
            if !entry.marks.set(Mark::Paused) {
                self.record(peer.slot(), FlightEvent::Paused);
            }
            self.stop_reading(peer.slot());
        }
    }

    pub(crate) fn resume_read(&mut self, peer: PeerId) {
        if let Some(entry) = self.slots.find_mut(peer).filter(|entry| entry.marks.has(Mark::Paused)) {
            entry.marks.clear(Mark::Paused);
            if !entry.marks.has(Mark::Starved) {
                entry.peer.timers.clear(Timer::Pause);
            }
            entry.peer.restart_partial(self.now, &self.shared.config);
            self.go_on_reading(peer.slot());
        }
    }

    /// There is no memory for what the peer has begun to send.
    fn starve(&mut self, slot: u32) {
        self.stats.count(Counter::ReassemblyWaits);
        self.record(slot, FlightEvent::Starved);
        self.slots.at_mut(slot).marks.set(Mark::Starved);
        self.stop_reading(slot);
        self.starved.push_back(self.slots.id(slot));
    }

    /// Memory for messages in pieces has come back: whoever waits for it tries again.
    pub(super) fn feed_starved(&mut self) {
        for peer in std::mem::take(&mut self.starved) {
            if let Some(entry) = self.slots.find_mut(peer) {
                entry.marks.clear(Mark::Starved);
                self.go_on_reading(peer.slot());
            }
        }
    }

    /// A peer that is not read cannot be late with anything, nor be heard. It has one deadline instead.
    fn stop_reading(&mut self, slot: u32) {
        let deadline = self.now + self.shared.config.timeouts.pause;
        let peer = &mut self.slots.at_mut(slot).peer;
        let timers = &mut peer.timers;
        timers.clear(Timer::PartialFrame);
        timers.clear(Timer::PartialMessage);
        timers.clear(Timer::Keepalive);
        // Its pong would be late because of this.
        peer.keepalive.forget_sample();
        if !timers.is_set(Timer::Pause) {
            timers.set(Timer::Pause, deadline);
        }
        self.rearm(slot);
    }

    /// One reason not to read a peer is gone.
    pub(super) fn go_on_reading(&mut self, slot: u32) {
        let probe = self.now + self.shared.config.keepalive.interval;
        let entry = self.slots.at_mut(slot);
        if !entry.is_established() || entry.marks.has(Mark::Paused) || entry.marks.has(Mark::Starved) {
            return;
        }
        // Also where it is still delayed: this side says then that it lives (`reassure`).
        if !entry.peer.timers.is_set(Timer::Keepalive) {
            entry.peer.timers.set(Timer::Keepalive, probe);
        }
        if !entry.marks.has(Mark::Delayed) {
            // Whatever it has sent meanwhile is not read yet.
            entry.peer.keepalive.handle_bytes(self.now);
            if !entry.marks.set(Mark::Resuming) {
                self.resuming.push(slot);
            }
            self.record(slot, FlightEvent::Resumed);
        }
        self.rearm(slot);
    }

    /// Goes on with the peers whose reading was resumed: first with what was put aside.
    pub(super) fn resume<H: Handler>(&mut self, handler: &mut Supervised<H>) {
        for slot in std::mem::take(&mut self.resuming) {
            let Some(entry) = self.slots.get_mut(slot) else { continue };
            entry.marks.clear(Mark::Resuming);
            if !entry.is_read() {
                continue;
            }
            let input = entry.peer.decoder.unpark();
            if self.read_batch(handler, slot, &input) == ReadOutcome::Continue {
                self.actions.push_back(Action::Read { slot });
            }
            self.parked -= parked(input.capacity());
            self.buffers.give_back(input);
            // Only now: one that starves again at once has been waiting all along.
            let entry = self.slots.at_mut(slot);
            if entry.is_read() {
                entry.peer.timers.clear(Timer::Pause);
            }
        }
    }
}
