//! The application's side of a core: what it is told ([`Handler`]) and what it can do about it ([`Context`]).

mod panics;
mod told;

use std::any::Any;
use std::fmt;
use std::time::{Duration, Instant};

pub use panics::{AfterPanic, Callback, HandlerPanic};
pub use told::{Backlog, Direction, Message, PeerInfo, RateLimited, Responder, Sent, TimerId};

use crate::codec::{CodecError, Typed, encode_with};
use crate::dial::Dial;
use crate::endpoint::{BreakerState, Endpoint};
use crate::error::{CloseReason, DialError, RequestError, SendError};
use crate::flight::FlightRecord;
use crate::id::{DialId, PeerId, Topic};
use crate::notice::Notice;
use crate::proto::RequestTimeout;
use crate::receipt::Receipt;
use crate::shard::{Payload, Shard};
use crate::time::Timestamp;
use crate::wire::{Frame, FrameError, Meta};

/// The application on one core.
///
/// A handler is made on its core by the factory given to [`crate::Engine::start`], stays there, and needs no locks. Its methods are called
/// one at a time, never from within each other. While one runs, nothing else happens on its core: do not block and do not compute for
/// long. What a call sends leaves together at the end of the turn.
///
/// # When a method panics
///
/// The panic is caught, and costs the handler and the peer that the call was about; the core goes on. In this order:
///
/// 1. The peer that the method got is closed (`HandlerPanicked`): it is sent what was queued for it, then a goodbye (`Closed`). What it had
///    sent and was not handled yet is dropped with it. A panic in `authorize` refuses that connection (`NotAllowed`); in a method without
///    a peer it costs nobody a connection. In `on_response` the peer may be another core's, and is closed there.
/// 2. The factory makes a new handler on the same core, and then the old one is dropped.
/// 3. The new one is told: `on_start`, then [`Handler::on_panic`] with what is known of the panic.
/// 4. Everything that was still to be told, the end of that peer included, is told to the new one, in its order. Only the call that
///    panicked is not made again: the event, command, response or receipt that it was about is lost with the old handler. A message
///    that asks for an acknowledgement gets none, nor is it handed over again on the next connection, which it would cost too: its
///    sender's receipt says `Expired`. (The last four of a node and channel are remembered, for as long as [`crate::Acks::retain`].)
///
/// What is not the handler's stays as it is: all other peers and the values kept with them ([`Context::user`]), requests, timers,
/// acknowledged sends, subscriptions, dials. What becomes of those comes to the new handler, with the tags that the old one gave. Peers
/// are not announced again: [`Context::peers`] says who is there, and those whose `on_connected` is still to come are among them. What
/// handlers share with other threads is as the panic left it (a `Mutex` may be poisoned).
///
/// The core itself ends, with all of its peers, if the factory panics, or `on_start` or `on_panic` of the handler that was made anew; if
/// `on_panic` says so; if handlers panic more often than [`crate::Restarts`] allows; or if the panic came out of this crate. That is
/// reported by [`crate::ShutdownReport::panicked`].
///
/// A panic in the `Drop` of a handler, or of a value kept with a peer, is caught too, and costs nothing. All of them are counted
/// (`handler_panics`). Under `panic = "abort"` nothing is caught: the first panic ends the process.
pub trait Handler: Sized + 'static {
    /// What [`crate::Handle::post`] sends to this handler from other threads.
    type Command: Send + 'static;

    /// The core runs, or has a new handler after a panic. Called once for each handler, before anything else.
    fn on_start(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// The handler before this one has panicked, and this one is in its place. Called once, after `on_start`. Says whether the core goes on
    /// with it: by default it does.
    ///
    /// ```
    /// # use std::collections::HashSet;
    /// # use corecast::{AfterPanic, Context, Handler, HandlerPanic, Message, PeerId};
    /// struct Relay {
    ///     peers: HashSet<PeerId>,
    /// }
    ///
    /// impl Handler for Relay {
    ///     type Command = ();
    ///
    ///     fn on_panic(&mut self, cx: &mut Context<'_>, panic: &HandlerPanic) -> AfterPanic {
    ///         eprintln!("core {}: {} panicked over {:?}: {:?}", cx.core(), panic.callback, panic.node, panic.text);
    ///         // What the old handler had been told; those that it had not been told of are told to this one.
    ///         self.peers.extend(cx.peers());
    ///         AfterPanic::Continue
    ///     }
    ///     // ...
    /// #   fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {}
    /// }
    /// ```
    fn on_panic(&mut self, cx: &mut Context<'_>, panic: &HandlerPanic) -> AfterPanic {
        let _ = (cx, panic);
        AfterPanic::Continue
    }

    /// Whether this node may be a peer. Asked once for each connection, on the core that will have it, when the other side has said who it
    /// is (with Noise: has proved it) and before the application hears anything else of it: by its name, its address, the user that it
    /// runs as ([`PeerInfo::credentials`]), and whatever else its handshake says. False refuses it (`NotAllowed`,
    /// `handshake_not_allowed`); a dial goes on with its backoff.
    ///
    /// The allow-list, where there is one, is looked at afterwards: both have to want the node.
    fn authorize(&mut self, info: &PeerInfo) -> bool {
        let _ = info;
        true
    }

    /// A peer is established. From here on it takes part in broadcasts.
    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        let _ = (cx, peer, info);
    }

    /// A message came.
    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>);

    /// A request came. Answer with [`Context::respond`] or [`crate::Handle::respond`], now or later; one that is never answered times out
    /// at the other side.
    fn on_request(&mut self, cx: &mut Context<'_>, peer: PeerId, request: Message<'_>, responder: Responder) {
        let _ = (cx, peer, request, responder);
    }

    /// A request that this core's handler made has ended: with the response, or without.
    fn on_response(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, result: Result<Message<'_>, RequestError>) {
        let _ = (cx, peer, tag, result);
    }

    /// A peer's outbox was over `Limits::outbox_soft` and is below half of it again.
    fn on_drained(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        let _ = (cx, peer);
    }

    /// A peer has more than `Limits::outbox_soft` bytes still to receive. Called when it comes over the mark, again after each
    /// `Limits::soft_grace` that it stays there, and last when it is cut off for it, before `on_closed`. `on_drained` ends it otherwise,
    /// after one more report if messages were dropped since the last. Where lanes drop, that keeps the peer under the mark: it is called
    /// the same, from where it would have gone over it.
    fn on_slow(&mut self, cx: &mut Context<'_>, peer: PeerId, backlog: Backlog) {
        let _ = (cx, peer, backlog);
    }

    /// A peer has sent more than [`crate::Rates::receive`] allows, and this much of it was dropped since the last call. Called only where
    /// [`crate::Rates::report`] asks for it, and not more often than that says; and a last time before `on_closed`, so that all calls
    /// together say all.
    fn on_rate_limited(&mut self, cx: &mut Context<'_>, peer: PeerId, dropped: RateLimited) {
        let _ = (cx, peer, dropped);
    }

    /// A peer has subscribed to a topic here: what is published on it from now on reaches the peer. What it should know before that, a
    /// snapshot say, is best sent now, in the lane of the publishes: then it comes before them.
    ///
    /// Once for each topic, until the peer unsubscribes. A peer can do that without end; what is sent each time is bounded by its outbox.
    fn on_subscribed(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        let _ = (cx, peer, topic);
    }

    /// A peer has unsubscribed. Not called when it ends: `on_closed` says that.
    fn on_unsubscribed(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        let _ = (cx, peer, topic);
    }

    /// A message that a handle sent with a tag was refused by this core.
    fn on_send_failed(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, reason: SendError) {
        let _ = (cx, peer, tag, reason);
    }

    /// An attempt to connect failed. The next comes after `retry_in`; `None`: there is no next one. `BreakerOpen`: it was not made, because
    /// the target has failed too often of late.
    fn on_dial_failed(&mut self, cx: &mut Context<'_>, dial: DialId, error: DialError, retry_in: Option<Duration>) {
        let _ = (cx, dial, error, retry_in);
    }

    /// What became of a [`Context::connect`] or [`Context::pin`] of this core's handler: once for each. The peer may be of any core, and
    /// gone when this is called: see there.
    fn on_pooled(&mut self, cx: &mut Context<'_>, tag: u64, result: Result<PeerId, DialError>) {
        let _ = (cx, tag, result);
    }

    /// The circuit breaker of a target has come into another state: see [`crate::BreakerConfig`]. Told to the core whose dial or connect
    /// made it so (what handles dial and connect is told to core 0), and to nobody where that was cancelled meanwhile.
    fn on_breaker(&mut self, cx: &mut Context<'_>, target: Endpoint, state: BreakerState) {
        let _ = (cx, target, state);
    }

    /// A peer says that it is about to go. Until `notice.period` is over the connection is as before, so that what is under way can end:
    /// ask somebody else for what is new, and close the peer when nothing more is awaited from it. A dial that led to it waits as long as
    /// `notice.retry_after` says before it is made again ([`crate::BackoffConfig::max_asked`] is the bound).
    ///
    /// A peer can say it as often as it likes; each time is one call.
    fn on_going_away(&mut self, cx: &mut Context<'_>, peer: PeerId, notice: Notice) {
        let _ = (cx, peer, notice);
    }

    /// A peer is gone. Its id means nobody from here on, but in [`Context::flight`]: what led to it is there for as long as this call.
    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        let _ = (cx, peer, reason);
    }

    /// A command came from [`crate::Handle::post`].
    fn on_command(&mut self, cx: &mut Context<'_>, command: Self::Command) {
        let _ = (cx, command);
    }

    /// Somebody has acknowledged what this core's handler sent with [`Context::send_acked`] or [`Context::broadcast_acked`]: a quorum can
    /// be seen here as soon as it is there. Those that came in one turn are told together.
    fn on_acked(&mut self, cx: &mut Context<'_>, receipt: &Receipt) {
        let _ = (cx, receipt);
    }

    /// An acknowledged send of this core's handler has ended: everybody has answered, its deadline came, or the engine stops. Once for
    /// each, and the last word on it.
    fn on_receipt(&mut self, cx: &mut Context<'_>, receipt: Receipt) {
        let _ = (cx, receipt);
    }

    /// A timer that was set with this tag has come.
    fn on_timer(&mut self, cx: &mut Context<'_>, tag: u64) {
        let _ = (cx, tag);
    }
}

/// What a handler can do, on its core, during a call.
pub struct Context<'a> {
    pub(crate) shard: &'a mut Shard,
}

impl<'a> Context<'a> {
    pub(crate) fn new(shard: &'a mut Shard) -> Self {
        Self { shard }
    }

    /// A send begins. In one read batch of many it is measured, and only then is the clock read.
    #[inline]
    fn begin_encoding(&self) -> Option<Instant> {
        self.shard.notes_encoding().then(Instant::now)
    }

    /// What a send takes counts as encoding.
    // Always: it is nothing but a few branches around the call.
    #[inline(always)]
    fn encode<R>(&mut self, send: impl FnOnce(&mut Shard) -> R) -> R {
        let began = self.begin_encoding();
        let result = self.shard.enter(send);
        self.end_encoding(began);
        result
    }

    #[inline]
    fn end_encoding(&self, began: Option<Instant>) {
        if let Some(began) = began {
            self.shard.note_encoding(began.elapsed());
        }
    }

    /// [`Context::encode`] for one message, many times a turn: what is not measured, as nearly nothing is, costs one branch.
    #[inline]
    fn send_payload(&mut self, peer: PeerId, payload: Payload<'_>) -> Result<Sent, SendError> {
        if self.shard.notes_encoding() {
            return self.send_measured(peer, payload);
        }
        self.shard.enter(|shard| shard.send(peer, payload))
    }

    /// Apart, so that no other send keeps room for a time.
    #[cold]
    #[inline(never)]
    fn send_measured(&mut self, peer: PeerId, payload: Payload<'_>) -> Result<Sent, SendError> {
        self.encode(|shard| shard.send(peer, payload))
    }

    /// This core, from 0.
    #[must_use]
    pub fn core(&self) -> usize {
        self.shard.core()
    }

    /// How many cores the engine has.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.shard.cores()
    }

    /// The time of this turn. Reading it costs nothing; it does not advance during a call.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shard.now()
    }

    /// Sends a message to one peer: copied once, into what leaves at the end of the turn. No allocation.
    ///
    /// The answer is about the peer's outbox. For a peer of another core it is [`Sent::Forwarded`], and costs an allocation.
    pub fn send(&mut self, peer: PeerId, meta: impl Into<Meta>, body: &[u8]) -> Result<Sent, SendError> {
        let meta = self.shard.resolve(meta.into());
        self.send_payload(peer, Payload::data(meta, body))
    }

    /// Sends an encoded message: by reference where it is large.
    pub fn send_frame(&mut self, peer: PeerId, frame: &Frame) -> Result<Sent, SendError> {
        self.send_payload(peer, Payload::Frame(frame))
    }

    /// Sends all of these, in order, or none.
    pub fn send_batch(&mut self, peer: PeerId, frames: &[Frame]) -> Result<Sent, SendError> {
        self.encode(|shard| shard.send_batch(peer, frames))
    }

    /// Encodes a typed message and sends it.
    pub fn send_typed<M: Typed>(&mut self, peer: PeerId, message: &M) -> Result<Sent, TypedSendError> {
        let meta = self.shard.resolve(M::meta());
        let began = self.begin_encoding();
        // Only what is the core's is entered: the codec is the application's, and may panic as its handler may.
        let sent = encode_with(message, |body| self.shard.enter(|shard| shard.send(peer, Payload::data(meta, body))));
        self.end_encoding(began);
        sent?.map_err(TypedSendError::Send)
    }

    /// Encodes a message once, to be sent many times, cut into fragments as this engine's configuration says.
    pub fn frame(&self, meta: impl Into<Meta>, body: &[u8]) -> Result<Frame, FrameError> {
        let began = self.begin_encoding();
        let result = self.shard.frame(meta.into(), body);
        self.end_encoding(began);
        result
    }

    /// Encodes a typed message once, to be sent many times.
    pub fn frame_typed<M: Typed>(&self, message: &M) -> Result<Frame, CodecError> {
        let began = self.begin_encoding();
        let frame = encode_with(message, |body| self.shard.frame(M::meta(), body));
        self.end_encoding(began);
        frame?.map_err(CodecError::TooLong)
    }

    /// Sends to every established peer of every core, or, on error, to none. A peer that has said that it takes only shorter messages is
    /// passed by, which is counted (`sends_refused`); so is one that was sent as much as [`crate::Rates::send`] allows
    /// (`deliveries_refused`, `sends_rate_limited`).
    pub fn broadcast(&mut self, frame: &Frame) -> Result<(), SendError> {
        self.encode(|shard| shard.broadcast(frame, None))
    }

    /// Sends to every established peer of every core but one: the one it came from, say.
    pub fn broadcast_except(&mut self, frame: &Frame, except: PeerId) -> Result<(), SendError> {
        self.encode(|shard| shard.broadcast(frame, Some(except)))
    }

    /// Sends all of these, in order, to every established peer of every core, or, on error, none to anyone: one reservation, one queue
    /// operation and at most one wake for each other core, however many there are. More bytes than a turn may broadcast, half of
    /// `Limits::outbox_hard`, are refused (`LogFull`).
    pub fn broadcast_batch(&mut self, frames: &[Frame]) -> Result<(), SendError> {
        self.encode(|shard| shard.broadcast_batch(frames))
    }

    /// Sends to every peer, of every core, that has subscribed to the topic, or, on error, to none. The frame is encoded once; small
    /// ones (under 4 KiB) are copied for each subscriber, larger ones are not. No allocation.
    ///
    /// Subscribers get what one core publishes in order, within a lane. A subscriber whose socket is full and whose outbox has no room
    /// left (`Limits::outbox_hard`, `Limits::send_bytes`) is cut off, `SlowPeer(HardBound)`. One that takes only shorter messages, that was
    /// sent as much as [`crate::Rates::send`] allows, or for which the core has no memory left, is passed by, which is counted
    /// (`deliveries_refused`).
    ///
    /// `LogFull`: this turn's publishes and broadcasts take half of `Limits::outbox_hard`, or their copies a quarter of this core's part
    /// of `Limits::send_bytes`, or what was published before is not written yet. Go on in a later turn.
    pub fn publish(&mut self, topic: Topic, frame: &Frame) -> Result<(), SendError> {
        self.encode(|shard| shard.publish(topic, frame))
    }

    /// How many peers of this core have subscribed to a topic. Takes as long as there are some: to be asked before something is encoded,
    /// not for each message.
    #[must_use]
    pub fn subscribers(&self, topic: Topic) -> usize {
        self.shard.subscribers(topic)
    }

    /// Who was passed by since this was asked last.
    #[cfg(test)]
    pub(crate) fn take_passed_by(&mut self) -> Vec<PeerId> {
        self.shard.take_passed_by()
    }

    /// Asks a peer for what it publishes on a topic from now on: it comes as ordinary messages. Having subscribed already is no error.
    ///
    /// A subscription ends with the connection: subscribe in `on_connected`. The request travels in the control lane, so it may overtake
    /// messages that were sent to the peer before.
    ///
    /// `TooManySubscriptions`: `Limits::subscriptions` topics are subscribed to at this peer; more would break a rule there. `OutboxFull`:
    /// the peer has too much to receive already. For a peer of another core, `Ok` says that the request is on its way there; if it is
    /// refused then, that is counted (`subscriptions_refused`).
    pub fn subscribe(&mut self, peer: PeerId, topic: Topic) -> Result<(), SendError> {
        self.shard.enter(|shard| shard.subscribe(peer, topic, true))
    }

    /// Takes a subscription back. What was published before the peer reads that still comes. Not having subscribed is no error.
    pub fn unsubscribe(&mut self, peer: PeerId, topic: Topic) -> Result<(), SendError> {
        self.shard.enter(|shard| shard.subscribe(peer, topic, false))
    }

    /// Asks a peer something. [`Handler::on_response`] is called on this core, exactly once, with `tag`: with the response, or with the
    /// reason why there is none. Only where the peer is another core's, and that core ends by a panic, it is not called.
    ///
    /// `timeout`: a [`Duration`], or [`RequestTimeout::Adaptive`], which follows how long this peer's responses take.
    pub fn request(
        &mut self,
        peer: PeerId,
        meta: impl Into<Meta>,
        body: &[u8],
        timeout: impl Into<RequestTimeout>,
        tag: u64,
    ) -> Result<Sent, SendError> {
        let (core, meta) = (self.shard.core(), self.shard.resolve(meta.into()));
        let timeout = timeout.into();
        self.encode(|shard| shard.request(peer, meta, body, timeout, crate::proto::Origin::Handler { core, tag }))
    }

    /// Answers a request.
    pub fn respond(&mut self, responder: Responder, meta: impl Into<Meta>, body: &[u8]) -> Result<Sent, SendError> {
        let meta = self.shard.resolve(meta.into());
        self.send_payload(responder.peer, Payload::response(meta, responder.correlation, body))
    }

    /// Ends a peer: what is queued leaves first, then a goodbye.
    pub fn close(&mut self, peer: PeerId) {
        self.shard.enter(|shard| shard.close_peer(peer));
    }

    /// Connects to an address. The outcome is `on_connected` on the core that gets the peer (`info.dial` is this id), or `on_dial_failed`
    /// here.
    pub fn dial(&mut self, dial: Dial) -> DialId {
        self.shard.enter(|shard| shard.dial(dial))
    }

    /// Ends a dial. A connection that it led to stays.
    pub fn cancel_dial(&mut self, dial: DialId) {
        self.shard.enter(|shard| shard.cancel_dial(dial));
    }

    /// Asks the pool for a connection to a target: an established one at once (a hit, `pool_hits`), else one that is dialled for it
    /// (`pool_misses`); all who ask meanwhile wait for the same attempt. What becomes of it is told to [`Handler::on_pooled`] with `tag`,
    /// in a later part of the turn at the earliest. See [`crate::PoolConfig`] for what the pool keeps, and for how long.
    ///
    /// There is one attempt, without a second: where it fails, so does the call, and the next call makes another. What holds back a program
    /// that goes on asking for a dead target is its circuit breaker ([`DialError::BreakerOpen`]). Where the target is pinned or otherwise
    /// dialled all the time, the call waits for the next attempt of that.
    ///
    /// A connection is nobody's: it is handed out to all who ask, need not be given back, and may end at any time, also between the answer
    /// and its use. One whose other side has said that it will go ([`Handler::on_going_away`]) is handed out until it has; after that a
    /// call is an attempt, however long the other side has asked to be left alone: only dials that are kept up, and pins, wait for that.
    /// Where it has ended, the peer's id means nobody, and what is sent to it is refused ([`SendError::NotConnected`], or
    /// [`SendError::Closing`] while it ends) or, on another core, counted (`sends_refused`). Ask again.
    ///
    /// Errors: `TooManyConnects`, and `InboxFull` or `Stopped` where the first core's inbox has no room, or it has ended.
    pub fn connect(&mut self, target: impl Into<Endpoint>, tag: u64) -> Result<(), SendError> {
        let target = Box::new(target.into());
        self.shard.enter(|shard| shard.connect(target, tag, false))
    }

    /// The same, and the target is kept connected from now on: its connections are not closed for being idle, and when it has none, it is
    /// dialled, with backoff, until it is unpinned. The answer is that of the first attempt, and if that fails, the others go on; only
    /// where they cannot (the node is not allowed, there is no room, ...) there is no pin, which the answer says. Pinning twice is pinning
    /// once.
    ///
    /// A node whose address the pool does not know is not dialled (`NoAddress`), but what it has dialled itself is kept.
    pub fn pin(&mut self, target: impl Into<Endpoint>, tag: u64) -> Result<(), SendError> {
        let target = Box::new(target.into());
        self.shard.enter(|shard| shard.connect(target, tag, true))
    }

    /// The target need not be kept connected any more: its connections stay until they are idle for [`crate::PoolConfig::max_idle`]. A
    /// target that was not pinned stays as it is.
    pub fn unpin(&mut self, target: impl Into<Endpoint>) -> Result<(), SendError> {
        let target = Box::new(target.into());
        self.shard.enter(|shard| shard.unpin(target))
    }

    /// Calls `on_timer` with `tag` once, not sooner than `after` from now (to the millisecond). `None`: `Limits::max_timers` are set.
    pub fn set_timer(&mut self, after: Duration, tag: u64) -> Option<TimerId> {
        let core = self.core();
        self.shard.enter(|shard| shard.set_timer(after, tag)).map(|key| TimerId { core, key })
    }

    /// Takes a timer back. False: it has come already, or is another core's.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        timer.core == self.core() && self.shard.enter(|shard| shard.cancel_timer(timer.key))
    }

    /// Reads nothing more from a peer of this core, so that TCP slows it down. Ends by `resume_read`, or, after `Timeouts::pause`, with the
    /// peer.
    pub fn pause_read(&mut self, peer: PeerId) {
        self.shard.enter(|shard| shard.pause_read(peer));
    }

    /// Reads from the peer again.
    pub fn resume_read(&mut self, peer: PeerId) {
        self.shard.enter(|shard| shard.resume_read(peer));
    }

    /// Keeps a value with a peer of this core until it is gone. False: no such peer. A value that was there is dropped.
    pub fn set_user<T: 'static>(&mut self, peer: PeerId, value: T) -> bool {
        let value = Box::new(value);
        // What was there is dropped here and not in the core, since that is the application's code.
        self.shard.enter(|shard| shard.set_user(peer, value)).is_ok()
    }

    /// The value kept with a peer.
    #[must_use]
    pub fn user<T: 'static>(&self, peer: PeerId) -> Option<&T> {
        self.shard.user(peer).and_then(<dyn Any>::downcast_ref)
    }

    /// The value kept with a peer.
    pub fn user_mut<T: 'static>(&mut self, peer: PeerId) -> Option<&mut T> {
        self.shard.user_mut(peer).and_then(<dyn Any>::downcast_mut)
    }

    /// The established peers of this core.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.shard.peers()
    }

    /// Bytes that a peer of this core has still to receive, and a few for keeping track of them; zero where there is no such peer.
    #[must_use]
    pub fn queued_bytes(&self, peer: PeerId) -> usize {
        self.shard.queued_bytes(peer)
    }

    /// The last events of a peer of this core, where [`crate::Config::recorder`] asks for that; `None` where it does not, or there is no
    /// such peer. In [`Handler::on_closed`] it is there for the last time, and ends with the reason. Copies the events.
    #[must_use]
    pub fn flight(&self, peer: PeerId) -> Option<FlightRecord> {
        self.shard.flight(peer)
    }

    /// What is known about a peer of this core. Put together when it is asked for: whoever needs a part of it with each message keeps that
    /// ([`Context::set_user`]).
    #[must_use]
    pub fn peer_info(&self, peer: PeerId) -> Option<PeerInfo> {
        self.shard.peer_info(peer)
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("core", &self.core()).finish_non_exhaustive()
    }
}

/// Why a typed message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypedSendError {
    /// It could not be encoded.
    Codec(CodecError),
    /// It could not be sent.
    Send(SendError),
}

impl From<CodecError> for TypedSendError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl fmt::Display for TypedSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TypedSendError {}
