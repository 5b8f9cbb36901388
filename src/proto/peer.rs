//! One established peer, dialled or accepted: the same from here on.

use std::time::Duration;

use super::budget::Budget;
use super::keepalive::{Keepalive, Life};
use super::log::Logs;
use super::outbox::{Outbox, QueuedPool};
use super::reassembly::{Assembled, Piece, Reassembly, announced, split_correlation};
use super::requests::{Origin, Requests};
use super::session::Session;
use super::timers::{Timer, Timers};
use crate::buffers::BufferPool;
use crate::config::{Config, Timeouts};
use crate::error::Violation;
use crate::id::Topic;
use crate::time::Timestamp;
use crate::wheel::TimerKey;
use crate::wire::{FrameDecoder, FrameRef, GoAway, Goodbye, Kind, Lane, Meta, control_frame};

/// Bytes a second below which an unfinished frame or message takes too long.
const SLOWEST_ARRIVAL: u64 = 64 << 10;

/// When what is unfinished now has to be whole.
fn arrival(now: Timestamp, config: &Config, missing: usize) -> Timestamp {
    let nanos = (missing as u64).saturating_mul(1_000_000_000 / SLOWEST_ARRIVAL);
    now + config.timeouts.partial + Duration::from_nanos(nanos)
}

/// What a received frame means for the core.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    /// Nothing: it was the peer's own business, or a piece of something.
    Handled,
    /// An answer of so many bytes was queued.
    Queued(usize),
    Message(Whole<'a>),
    /// A message that came in pieces is whole: see [`Peer::take_whole`].
    Assembled,
    /// A message begins that the core has no room for now: give the frame again later.
    NoRoom,
    /// The other side subscribes to a topic, or does so no more.
    Subscribe(Topic),
    Unsubscribe(Topic),
    /// The other side has taken the message with this id.
    Ack(u64),
    /// The other side will leave.
    GoAway(GoAway),
    /// The other side has answered a ping; after so long, where that is a measure of the way.
    Pong(Option<Duration>),
    /// The other side leaves.
    Goodbye(Goodbye),
}

/// A whole message, still in the receive buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole<'a> {
    pub(crate) kind: Kind,
    pub(crate) meta: Meta,
    pub(crate) correlation: u64,
    pub(crate) body: &'a [u8],
}

/// What a deadline of this peer means for the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing to do, or done.
    Handled,
    /// A ping of so many bytes was queued.
    Queued(usize),
    Unresponsive,
    WriteStall,
    Partial,
    SoftGrace,
    Pause,
    Linger,
}

/// The protocol's state of one established peer: first what a write needs.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Peer {
    pub(crate) outbox: Outbox,
    pub(crate) session: Session,
    pub(crate) decoder: FrameDecoder,
    /// Most peers never send a message in pieces, or are asked anything.
    reassembly: Option<Box<Reassembly>>,
    pub(crate) timers: Timers,
    pub(crate) keepalive: Keepalive,
    requests: Option<Box<Requests>>,
}

impl Peer {
    #[cfg(test)]
    pub(crate) const DECODER: usize = std::mem::offset_of!(Self, decoder);

    pub(crate) fn new(config: &Config, logs: &Logs, session: Session, now: Timestamp) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Keepalive, now + config.keepalive.interval);
        Self {
            outbox: Outbox::new(logs),
            decoder: FrameDecoder::default(),
            timers,
            keepalive: Keepalive::new(now),
            reassembly: None,
            requests: None,
            session,
        }
    }

    /// Whether something is to be written: what waits in the outbox, or the rest of a record.
    // Always: asked once or twice for each write, and for plaintext it is one more comparison.
    #[inline(always)]
    pub(crate) fn has_output(&self, logs: &Logs) -> bool {
        !self.outbox.is_empty(logs) || matches!(&self.session, Session::Noise(sealed) if sealed.has_unsent())
    }

    /// Bytes of a sealed record that have still to leave.
    pub(crate) fn unsent(&self) -> usize {
        match &self.session {
            Session::Plaintext => 0,
            Session::Noise(sealed) => sealed.unsent().len(),
        }
    }

    /// Whether a frame, or a record, has begun to arrive and has not ended.
    #[inline]
    fn is_partial(&self) -> bool {
        self.decoder.is_partial() || matches!(&self.session, Session::Noise(sealed) if sealed.partial_len() > 0)
    }

    /// How long that is. Of a frame, the rest is in records that have not come.
    fn partial_len(&self) -> usize {
        let frame = if self.decoder.is_partial() { self.decoder.partial_len() } else { 0 };
        match &self.session {
            Session::Plaintext => frame,
            Session::Noise(sealed) => frame + sealed.partial_len(),
        }
    }

    /// Takes one frame. `budget`, `buffers` and `pool` are the core's.
    #[inline]
    pub(crate) fn handle_frame<'a>(
        &mut self,
        now: Timestamp,
        frame: FrameRef<'a>,
        config: &Config,
        budget: &mut Budget,
        buffers: &mut BufferPool,
        pool: &mut QueuedPool,
    ) -> Result<Received<'a>, Violation> {
        let header = frame.header;
        if header.kind.is_control() {
            return self.handle_control(now, header.kind, frame.payload, config, pool);
        }
        if header.more || header.kind == Kind::Fragment {
            return self.handle_piece(now, frame, config, budget, buffers);
        }
        self.handle_whole(frame, config).map(Received::Message)
    }

    /// Takes a frame that is a whole message.
    // Always, as what gives the frame.
    #[inline(always)]
    pub(crate) fn handle_whole<'a>(&self, frame: FrameRef<'a>, config: &Config) -> Result<Whole<'a>, Violation> {
        let header = frame.header;
        let lane = header.lane.unwrap_or_default();
        let (correlation, body) = split_correlation(header.kind, frame.payload);
        if body.len() > config.limits.max_message {
            return Err(Violation::MessageTooLong { len: body.len() as u32 });
        }
        if self.reassembly.as_ref().is_some_and(|reassembly| reassembly.is_busy(lane)) {
            return Err(Violation::Interleaved);
        }
        Ok(Whole { kind: header.kind, meta: Meta::new(header.message_type).lane(lane), correlation, body })
    }

    fn handle_control<'a>(
        &mut self,
        now: Timestamp,
        kind: Kind,
        payload: &[u8],
        config: &Config,
        pool: &mut QueuedPool,
    ) -> Result<Received<'a>, Violation> {
        if let (Kind::GoAway, Some(payload)) = (kind, payload.first_chunk()) {
            return Ok(Received::GoAway(GoAway::decode(*payload)));
        }
        let payload = payload.first_chunk::<8>();
        match (kind, payload) {
            (Kind::Ping, Some(nonce)) => {
                self.keepalive.handle_ping(now, &config.keepalive)?;
                // A peer has one ping outstanding, so it waits for the pong that is still queued, if one is.
                if self.outbox.has_pong() {
                    return Ok(Received::Handled);
                }
                Ok(Received::Queued(self.queue_control(pool, &control_frame(Kind::Pong, *nonce))))
            }
            (Kind::Pong, Some(nonce)) => Ok(Received::Pong(self.keepalive.handle_pong(now, u64::from_le_bytes(*nonce))?)),
            (Kind::Subscribe, Some(topic)) => Ok(Received::Subscribe(Topic(u64::from_le_bytes(*topic)))),
            (Kind::Unsubscribe, Some(topic)) => Ok(Received::Unsubscribe(Topic(u64::from_le_bytes(*topic)))),
            (Kind::Ack, Some(id)) => Ok(Received::Ack(u64::from_le_bytes(*id))),
            (Kind::Goodbye, Some(goodbye)) => Ok(Received::Goodbye(Goodbye::decode(*goodbye))),
            _ => Err(Violation::UnexpectedReady),
        }
    }

    /// Returns what this uses of the core's budget.
    fn queue_control(&mut self, pool: &mut QueuedPool, frame: &[u8]) -> usize {
        let before = self.outbox.used();
        self.outbox.push_control(pool, frame);
        self.outbox.used() - before
    }

    fn handle_piece<'a>(
        &mut self,
        now: Timestamp,
        frame: FrameRef<'a>,
        config: &Config,
        budget: &mut Budget,
        buffers: &mut BufferPool,
    ) -> Result<Received<'a>, Violation> {
        let reassembly = self.reassembly.get_or_insert_default();
        let before = reassembly.taken();
        let piece = if frame.header.kind == Kind::Fragment {
            reassembly.go_on(frame.header, frame.payload, buffers)
        } else {
            let fits = |more| budget.fits(before, before + more);
            let deadline = |missing| arrival(now, config, missing);
            reassembly.begin(frame.header, frame.payload, config.limits.max_message, buffers, fits, deadline)
        };
        budget.settle(before, reassembly.taken());
        if reassembly.is_empty() {
            self.reassembly = None;
        }
        Ok(match piece? {
            Piece::Taken => Received::Handled,
            Piece::Whole => Received::Assembled,
            Piece::NoRoom => Received::NoRoom,
        })
    }

    /// The message that the last frame made whole. Its memory is the core's pool's.
    pub(crate) fn take_whole(&mut self) -> Option<Assembled> {
        let reassembly = self.reassembly.as_mut()?;
        let whole = reassembly.take_whole();
        if reassembly.is_empty() {
            self.reassembly = None;
        }
        whole
    }

    /// After a batch of bytes: sets or clears the deadlines for what is unfinished. `frame_ended`: one did in this batch, so the frame that
    /// is unfinished now began after it.
    #[inline]
    pub(crate) fn watch_partial(&mut self, now: Timestamp, config: &Config, frame_ended: bool) {
        if !self.is_partial() {
            self.timers.clear(Timer::PartialFrame);
        } else if frame_ended || !self.timers.is_set(Timer::PartialFrame) {
            self.timers.set(Timer::PartialFrame, arrival(now, config, self.partial_len()));
        }
        match self.reassembly.as_ref().and_then(|reassembly| reassembly.deadline()) {
            Some(deadline) => self.timers.set(Timer::PartialMessage, deadline),
            None => self.timers.clear(Timer::PartialMessage),
        }
    }

    /// The application did not read the peer for a while: what is unfinished has its time from now on.
    pub(crate) fn restart_partial(&mut self, now: Timestamp, config: &Config) {
        if let Some(reassembly) = &mut self.reassembly {
            reassembly.restart(|missing| arrival(now, config, missing));
        }
    }

    /// The core did not read the peer for so long.
    pub(crate) fn postpone_partial(&mut self, by: Duration) {
        if let Some(reassembly) = &mut self.reassembly {
            reassembly.postpone(by);
        }
    }

    /// How many bytes of its body are still to come of a message that begins with this frame and is not taken. What would be a violation
    /// in one that is taken is one.
    pub(crate) fn missing(&self, frame: FrameRef<'_>, config: &Config) -> Result<usize, Violation> {
        let (header, most) = (frame.header, config.limits.max_message);
        if self.reassembly.as_ref().is_some_and(|reassembly| reassembly.is_busy(header.lane.unwrap_or_default())) {
            return Err(Violation::Interleaved);
        }
        if header.more {
            return announced(header, frame.payload, most).map(|(total, _, body)| total - body.len());
        }
        let (_, body) = split_correlation(header.kind, frame.payload);
        if body.len() > most { Err(Violation::MessageTooLong { len: body.len() as u32 }) } else { Ok(0) }
    }

    /// Gives up a message that has begun to arrive in a lane: its type, and how many bytes of its body have still to come.
    pub(crate) fn abandon_message(&mut self, lane: Lane, budget: &mut Budget, buffers: &mut BufferPool) -> Option<(u16, usize)> {
        let reassembly = self.reassembly.as_mut()?;
        let before = reassembly.taken();
        let abandoned = reassembly.abandon_lane(lane, buffers);
        budget.settle(before, reassembly.taken());
        if reassembly.is_empty() {
            self.reassembly = None;
        }
        abandoned
    }

    /// Queues a ping as a sign of life, of so many bytes, whatever the other side has sent.
    pub(crate) fn reassure(&mut self, pool: &mut QueuedPool) -> usize {
        let nonce = self.keepalive.reassure();
        self.queue_control(pool, &control_frame(Kind::Ping, nonce.to_le_bytes()))
    }

    /// Bytes taken from the core's budget for messages that have not arrived whole.
    pub(crate) fn reassembling(&self) -> usize {
        self.reassembly.as_ref().map_or(0, |reassembly| reassembly.taken())
    }

    /// Whether it has nothing of the core's any more: neither buffers nor a part of a budget, nor requests, which have timers.
    pub(crate) fn has_given_back(&self) -> bool {
        self.borrowed() == 0 && self.reassembling() == 0 && self.requests.is_none() && self.outbox.used() == 0
    }

    /// Bytes of buffers that the core's pool has lent this peer.
    pub(crate) fn borrowed(&self) -> usize {
        self.sealed() + self.decoder.held() + self.reassembly.as_ref().map_or(0, |reassembly| reassembly.held())
    }

    /// Those of them that have records in them.
    pub(crate) fn sealed(&self) -> usize {
        if let Session::Noise(sealed) = &self.session { sealed.held() } else { 0 }
    }

    pub(crate) fn pending_requests(&self) -> usize {
        self.requests.as_ref().map_or(0, |requests| requests.len())
    }

    /// A new request's correlation id; `set_timer` is given it.
    pub(crate) fn begin_request(&mut self, now: Timestamp, origin: Origin, set_timer: impl FnOnce(u64) -> TimerKey) -> u64 {
        self.requests.get_or_insert_default().insert(now, origin, set_timer)
    }

    /// How long a request waits for its response that leaves it to the peer's response times.
    pub(crate) fn response_timeout(&self, timeouts: &Timeouts) -> Duration {
        let (floor, ceiling) = (timeouts.request_floor, timeouts.request_ceiling);
        self.requests.as_ref().map_or(ceiling, |requests| requests.times.timeout(floor, ceiling))
    }

    /// How long responses take, smoothed.
    pub(crate) fn response_time(&self) -> Option<Duration> {
        self.requests.as_ref()?.times.smoothed()
    }

    /// The response to `correlation` came.
    pub(crate) fn answer(&mut self, now: Timestamp, correlation: u64) -> Result<Option<(Origin, TimerKey)>, Violation> {
        self.requests.as_mut().map_or(Err(Violation::UnsolicitedResponse), |requests| requests.answer(now, correlation))
    }

    pub(crate) fn expire_request(&mut self, now: Timestamp, correlation: u64, timeouts: &Timeouts) -> Option<Origin> {
        self.requests.as_mut()?.expire(now, correlation, (timeouts.request_floor, timeouts.request_ceiling))
    }

    /// The next of this peer's deadlines that has come, and what it means. `None` when there is no other.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, config: &Config, pool: &mut QueuedPool) -> Option<Due> {
        let Some(due) = self.timers.pop_expired(now) else {
            self.tidy();
            return None;
        };
        Some(match due {
            Timer::Keepalive => match self.keepalive.poll(now, &config.keepalive) {
                Life::Dead => Due::Unresponsive,
                Life::Alive { look_again } => {
                    self.timers.set(Timer::Keepalive, look_again);
                    Due::Handled
                }
                Life::Probe { nonce, look_again } => {
                    self.timers.set(Timer::Keepalive, look_again);
                    Due::Queued(self.queue_control(pool, &control_frame(Kind::Ping, nonce.to_le_bytes())))
                }
            },
            Timer::WriteStall => Due::WriteStall,
            Timer::PartialFrame | Timer::PartialMessage => Due::Partial,
            Timer::SoftGrace => Due::SoftGrace,
            Timer::Pause => Due::Pause,
            Timer::Linger => Due::Linger,
        })
    }

    /// Gives back memory that nothing is in. A peer that is idle comes here with each look at its signs of life.
    fn tidy(&mut self) {
        self.timers.tidy();
        self.decoder.tidy();
    }

    /// The peer leaves: gives back what it had of the core, and says who still waits for a response.
    pub(crate) fn release(&mut self, budget: &mut Budget, buffers: &mut BufferPool) -> Vec<(Origin, TimerKey)> {
        if let Some(reassembly) = self.reassembly.take() {
            budget.settle(reassembly.taken(), 0);
            reassembly.abandon(buffers);
        }
        self.decoder.release(buffers);
        if let Session::Noise(sealed) = &mut self.session {
            sealed.stop_reading(buffers);
        }
        self.requests.take().map(|requests| requests.abandon()).unwrap_or_default()
    }
}
