//! The application of the simulated nodes: does what it is told, and now and then something of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::oracle::{Item, Oracle, STAMP, Told};
use super::panics::Injected;
use crate::dial::Dial;
use crate::endpoint::{BreakerState, Endpoint};
use crate::error::{CloseReason, DialError, RequestError, SendError};
use crate::flight::{FlightEvent, FlightRecord};
use crate::handler::{
    AfterPanic, Backlog, Callback, Context, Handler, HandlerPanic, Message, PeerInfo, RateLimited, Responder, Sent, TimerId,
};
use crate::id::{DialId, NodeId, PeerId, Topic};
use crate::notice::Notice;
use crate::proto::RequestTimeout;
use crate::receipt::{AckId, Receipt};
use crate::rng::Rng;
use crate::shard::Supervised;
use crate::wire::{Frame, Kind, Lane, Meta};

/// Something for a handler to do, on its core.
pub(super) type Task = Box<dyn FnOnce(&mut Actor, &mut Context<'_>) + Send>;

/// What an actor does by itself.
#[derive(Clone, Debug)]
pub(super) struct Mood {
    /// Per mille of received messages that are answered, paused on, closed on.
    pub(super) reply: u64,
    pub(super) pause: u64,
    pub(super) close: u64,
    /// Per cent of what it does that is a broadcast, beyond the share of everything else.
    pub(super) broadcasts: u64,
    /// Per cent of what it does that is about topics, beyond everything else.
    pub(super) topics: u64,
    /// Per cent of what it does that is about the pool, beyond everything else.
    pub(super) pool: u64,
    /// Per cent of frames that have a time to live, and that have a key.
    pub(super) terms: u64,
    /// Per cent of requests that are answered at once, later, from anywhere; the rest never.
    pub(super) answer: [u64; 3],
    /// Per cent of what it does that has to do with acknowledged sends.
    pub(super) acked: u64,
    /// Per cent of messages that the application acknowledges for which it does so at once, later, from anywhere; the rest never.
    pub(super) ack: [u64; 3],
    pub(super) longest_body: usize,
    pub(super) fragment: usize,
}

impl Mood {
    /// Answers requests and does nothing else.
    pub(super) fn quiet() -> Self {
        Self {
            reply: 0,
            pause: 0,
            close: 0,
            broadcasts: 0,
            topics: 0,
            pool: 0,
            terms: 0,
            answer: [100, 0, 0],
            acked: 0,
            ack: [100, 0, 0],
            longest_body: 1 << 20,
            fragment: 16 << 10,
        }
    }
}

/// What a timer is for.
#[derive(Debug)]
enum Later {
    Resume(PeerId),
    Answer(Responder, u64),
    Ack(AckId),
    Nothing,
}

/// What any core of an engine may go on with.
#[derive(Clone, Debug, Default)]
pub(super) struct Pools {
    /// Requests to be answered.
    requests: Rc<RefCell<Vec<(Responder, u64)>>>,
    /// Messages to be acknowledged.
    owed: Rc<RefCell<Vec<AckId>>>,
}

/// What outlives a core's handler.
#[derive(Debug, Default)]
struct Kept {
    sent: Cell<u32>,
    dials: RefCell<Vec<DialId>>,
    /// What it has pinned.
    pins: RefCell<Vec<Endpoint>>,
}

/// One core's handler.
pub(super) struct Actor {
    pub(super) oracle: Rc<RefCell<Oracle>>,
    /// The engine, by the number of its start.
    pub(super) engine: usize,
    pub(super) core: usize,
    pub(super) rng: Rng,
    pub(super) mood: Mood,
    pub(super) pool: Rc<RefCell<Vec<(Responder, u64)>>>,
    pub(super) owed: Rc<RefCell<Vec<AckId>>>,
    kept: Rc<Kept>,
    timers: BTreeMap<u64, (Later, Option<TimerId>)>,
    /// Nodes that it does not authorize.
    pub(super) unwanted: Vec<NodeId>,
}

impl Actor {
    /// A core's first actor, and the way to make others.
    pub(super) fn supervised(
        oracle: &Rc<RefCell<Oracle>>,
        engine: usize,
        core: usize,
        seed: u64,
        mood: Mood,
        pools: &Pools,
    ) -> Supervised<Self> {
        let (oracle, pools, kept) = (Rc::clone(oracle), pools.clone(), Rc::<Kept>::default());
        let made = Cell::new(0);
        Supervised::new(core, move |core| Self {
            oracle: Rc::clone(&oracle),
            engine,
            core,
            rng: Rng::new(seed.wrapping_add(made.replace(made.get() + 1))),
            mood: mood.clone(),
            pool: Rc::clone(&pools.requests),
            owed: Rc::clone(&pools.owed),
            kept: Rc::clone(&kept),
            timers: BTreeMap::new(),
            unwanted: Vec::new(),
        })
    }

    /// Every now and then, if this is a world in which handlers panic. What the oracle has to know of the call it knows by now.
    fn stumble(&mut self, callback: Callback, peer: Option<PeerId>) {
        let (chance, next) = (self.oracle.borrow().panics.chance, self.oracle.borrow().panics.next);
        if next == Some(callback) {
            self.oracle.borrow_mut().panics.next = None;
            self.panic(callback, peer);
        }
        if chance > 0 && self.rng.chance(chance, 10_000) {
            self.panic(callback, peer);
        }
    }

    fn panic(&mut self, callback: Callback, peer: Option<PeerId>) {
        self.oracle.borrow_mut().panics.begin(self.engine, self.core, callback, peer);
        // No hook is called, so that tests do not print what they mean to happen.
        std::panic::resume_unwind(Box::new(Injected));
    }

    pub(super) fn take_dials(&mut self) -> Vec<DialId> {
        self.kept.dials.take()
    }

    pub(super) fn pop_dial(&mut self) -> Option<DialId> {
        self.kept.dials.borrow_mut().pop()
    }

    /// Takes back what it has pinned. Returns how many there was no room to take back.
    pub(super) fn unpin_all(&mut self, cx: &mut Context<'_>) -> usize {
        let mut pins = self.kept.pins.borrow_mut();
        pins.retain(|pin| cx.unpin(pin).is_err());
        pins.len()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.oracle.borrow_mut().next_id()
    }

    /// A body that says which it is, where it is long enough for that.
    pub(super) fn body(&mut self, len: usize) -> Vec<u8> {
        let sent = self.kept.sent.get() + 1;
        self.kept.sent.set(sent);
        let id = self.next_id();
        let mut body = vec![id as u8; len];
        if len >= STAMP {
            body[..8].copy_from_slice(&id.to_le_bytes());
            body[8..16].copy_from_slice(&(self.core as u64).to_le_bytes());
            body[16..24].copy_from_slice(&u64::from(sent).to_le_bytes());
        }
        body
    }

    fn len(&mut self) -> usize {
        let longest = match self.rng.below(4) {
            0 => 40,
            1 | 2 => 2 * self.mood.fragment,
            _ => self.mood.longest_body,
        };
        self.rng.below(longest.min(self.mood.longest_body) as u64 + 1) as usize
    }

    fn meta(&mut self) -> Meta {
        let lane = Lane::ALL[self.rng.below(3) as usize];
        Meta::new(self.rng.below(1 << 16) as u16).lane(lane)
    }

    pub(super) fn frame(&mut self, cx: &Context<'_>) -> Frame {
        let (len, meta) = (self.len(), self.meta());
        let body = self.body(len);
        let frame = cx.frame(meta, &body).expect("within the limits");
        self.with_terms(frame, len)
    }

    /// Some frames are of use for a while only, or until the next of their kind.
    fn with_terms(&mut self, mut frame: Frame, len: usize) -> Frame {
        if self.rng.chance(self.mood.terms, 100) {
            frame = frame.with_ttl(self.rng.duration_below(Duration::from_secs(1)));
        }
        // What takes another's place has to be told from it.
        if len >= STAMP && self.rng.chance(self.mood.terms, 100) {
            frame = frame.with_key(self.rng.below(3));
        }
        frame
    }

    /// The oracle hears of what this core's shard has taken. What goes to other cores it hears of there.
    pub(super) fn taken(&mut self, peer: PeerId, result: &Result<Sent, SendError>, meta: Meta, item: Item) {
        let mut oracle = self.oracle.borrow_mut();
        oracle.note(&[1, peer.to_u64(), result.as_ref().map_or(9, |sent| *sent as u64)]);
        if matches!(result, Ok(Sent::Queued | Sent::Backpressure)) {
            oracle.taken(self.engine, peer, meta.lane, item);
        }
    }

    fn broadcast_taken(&mut self, cx: &mut Context<'_>, result: &Result<(), SendError>, frames: &[Frame], except: Option<PeerId>) {
        let passed_by = cx.take_passed_by();
        let mut oracle = self.oracle.borrow_mut();
        oracle.note(&[2, u64::from(result.is_ok())]);
        if result.is_ok() {
            for frame in frames {
                let item = Item::sent(frame);
                for peer in cx.peers().filter(|peer| Some(*peer) != except) {
                    let item = if passed_by.contains(&peer) { item.unsure() } else { item };
                    oracle.taken(self.engine, peer, frame.lane(), item);
                }
            }
        }
    }

    pub(super) fn send(&mut self, cx: &mut Context<'_>, peer: PeerId, meta: Meta, len: usize) -> Result<Sent, SendError> {
        self.sync(cx);
        let body = self.body(len);
        let result = cx.send(peer, meta, &body);
        self.taken(peer, &result, meta, Item::new(Kind::Data, meta, &body));
        result
    }

    pub(super) fn broadcast(&mut self, cx: &mut Context<'_>, frames: &[Frame], except: Option<PeerId>) -> Result<(), SendError> {
        self.sync(cx);
        let result = match (frames, except) {
            ([frame], Some(except)) => cx.broadcast_except(frame, except),
            ([frame], None) if self.rng.chance(1, 2) => cx.broadcast(frame),
            _ => cx.broadcast_batch(frames),
        };
        self.broadcast_taken(cx, &result, frames, except);
        result
    }

    pub(super) fn request(
        &mut self,
        cx: &mut Context<'_>,
        peer: PeerId,
        meta: Meta,
        len: usize,
        timeout: impl Into<RequestTimeout>,
    ) -> u64 {
        self.sync(cx);
        let body = self.body(len.max(STAMP));
        let tag = super::oracle::word(&body, 0);
        let result = cx.request(peer, meta, &body, timeout, tag);
        if result.is_ok() {
            self.oracle.borrow_mut().requested(self.engine, tag);
        }
        self.taken(peer, &result, meta, Item::new(Kind::Request, meta, &body));
        tag
    }

    fn respond(&mut self, cx: &mut Context<'_>, responder: Responder, id: u64) {
        let (len, meta) = (self.len().max(8), self.meta());
        let mut body = vec![id as u8; len];
        body[..8].copy_from_slice(&id.to_le_bytes());
        let result = cx.respond(responder, meta, &body);
        self.oracle.borrow_mut().note(&[3, id, result.map_or(9, |sent| sent as u64)]);
    }

    fn later(&mut self, cx: &mut Context<'_>, longest: Duration, what: Later) {
        let after = self.rng.duration_below(longest);
        let tag = self.next_id();
        if let Some(timer) = cx.set_timer(after, tag) {
            self.timers.insert(tag, (what, Some(timer)));
        }
    }

    pub(super) fn dial(&mut self, cx: &mut Context<'_>, dial: Dial) {
        let id = cx.dial(dial);
        self.kept.dials.borrow_mut().push(id);
    }

    /// One of the things that an application can do, drawn.
    pub(super) fn act(&mut self, cx: &mut Context<'_>, targets: &[Dial]) {
        let peers = self.oracle.borrow().connected(self.engine);
        let peer = (!peers.is_empty()).then(|| peers[self.rng.below(peers.len() as u64) as usize]);
        if self.mood.topics > 0 && self.rng.chance(self.mood.topics, 100) {
            return self.act_on_topics(cx, peer);
        }
        if self.mood.pool > 0 && self.rng.chance(self.mood.pool, 100) && !targets.is_empty() {
            return self.act_on_pool(cx, targets);
        }
        if self.rng.chance(self.mood.acked, 100) {
            return self.act_acked(cx, peer);
        }
        let draw = if self.rng.chance(self.mood.broadcasts, 100) { 46 + self.rng.below(24) } else { self.rng.below(100) };
        match (draw, peer) {
            (0..30, Some(peer)) => {
                let (meta, len) = (self.meta(), self.len());
                let _ = self.send(cx, peer, meta, len);
            }
            (30..38, Some(peer)) => {
                let frame = self.frame(cx);
                let result = cx.send_frame(peer, &frame);
                self.taken(peer, &result, frame.meta(), Item::sent(&frame));
            }
            (38..46, Some(peer)) => {
                let count = self.rng.below(5);
                let frames: Vec<_> = (0..count).map(|_| self.frame(cx)).collect();
                let result = cx.send_batch(peer, &frames);
                for frame in &frames {
                    self.taken(peer, &result, frame.meta(), Item::sent(frame));
                }
            }
            (46..58, _) => {
                let frame = self.frame(cx);
                let _ = self.broadcast(cx, &[frame], None);
            }
            (58..64, Some(peer)) => {
                let frame = self.frame(cx);
                let _ = self.broadcast(cx, &[frame], Some(peer));
            }
            (64..70, _) => {
                let count = self.rng.below(4);
                let frames: Vec<_> = (0..count).map(|_| self.frame(cx)).collect();
                let _ = self.broadcast(cx, &frames, None);
            }
            (70..80, Some(peer)) => {
                let (meta, len) = (self.meta(), self.len());
                let timeout = self.rng.duration_below(Duration::from_secs(2));
                // Not drawn, so that what older seeds draw stays as it is.
                let timeout = if len.is_multiple_of(3) { RequestTimeout::Adaptive } else { timeout.into() };
                self.request(cx, peer, meta, len, timeout);
            }
            (80..84, Some(peer)) => self.pause(cx, peer),
            (84..86, Some(peer)) => cx.close(peer),
            (86..90, _) if !targets.is_empty() => {
                let dial = targets[self.rng.below(targets.len() as u64) as usize].clone();
                let dial = if self.rng.chance(1, 4) { dial.once() } else { dial };
                self.dial(cx, dial);
            }
            (90..92, _) if !self.kept.dials.borrow().is_empty() => {
                let mut dials = self.kept.dials.borrow_mut();
                let index = self.rng.below(dials.len() as u64) as usize;
                cx.cancel_dial(dials.swap_remove(index));
            }
            (92..95, _) => self.later(cx, Duration::from_secs(1), Later::Nothing),
            (95..97, _) => {
                if let Some((tag, (Later::Nothing, Some(timer)))) = self.timers.pop_first() {
                    let was_there = cx.cancel_timer(timer);
                    self.oracle.borrow_mut().note(&[4, tag, u64::from(was_there)]);
                }
            }
            _ => {
                let waiting = self.pool.borrow_mut().pop();
                if let Some((responder, id)) = waiting {
                    self.respond(cx, responder, id);
                }
            }
        }
    }

    /// Asks the pool for a connection. Returns the tag of the answer.
    pub(super) fn connect(&mut self, cx: &mut Context<'_>, target: impl Into<Endpoint>, pin: bool) -> Result<u64, SendError> {
        let (target, tag) = (target.into(), self.next_id());
        let result = if pin { cx.pin(&target, tag) } else { cx.connect(&target, tag) };
        if result.is_ok() {
            self.oracle.borrow_mut().connects(self.engine, tag);
            self.kept.pins.borrow_mut().extend(pin.then_some(target));
        }
        result.map(|()| tag)
    }

    fn act_on_pool(&mut self, cx: &mut Context<'_>, targets: &[Dial]) {
        let dial = &targets[self.rng.below(targets.len() as u64) as usize];
        let target = match (self.rng.below(4), dial.expected) {
            (0, Some(node)) => Endpoint::from(node),
            _ => Endpoint::from(dial),
        };
        match self.rng.below(10) {
            0 => _ = self.connect(cx, target, true),
            1 => _ = cx.unpin(target),
            _ => _ = self.connect(cx, target, false),
        }
    }

    pub(super) fn resume(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        cx.resume_read(peer);
        self.oracle.borrow_mut().pauses(self.engine, peer, false);
    }

    fn pause(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        if peer.core() == self.core {
            cx.pause_read(peer);
            self.oracle.borrow_mut().pauses(self.engine, peer, true);
            self.later(cx, Duration::from_millis(800), Later::Resume(peer));
        }
    }
}

/// What was noted of a peer, where it was, begins with its beginning, ends with its end, and is in order.
fn check_flight(record: &FlightRecord, reason: CloseReason) {
    assert!(record.entries.is_sorted_by_key(|entry| entry.at), "{record}");
    assert_eq!(record.entries.last().map(|entry| entry.event), Some(FlightEvent::Closed(reason)), "{record}");
    let begins = matches!(record.entries[0].event, FlightEvent::Connected { .. });
    assert_eq!(begins, record.earlier == 0, "{record}");
}

impl Handler for Actor {
    type Command = Task;

    fn on_panic(&mut self, cx: &mut Context<'_>, panic: &HandlerPanic) -> AfterPanic {
        self.sync(cx);
        if panic.text.is_some() {
            // The oracle's, or a test's own: that is how it fails.
            return AfterPanic::EndCore;
        }
        let mut oracle = self.oracle.borrow_mut();
        oracle.panics.end(self.engine, self.core, panic);
        assert!(panic.peer.is_none_or(|peer| cx.peers().all(|there| there != peer)), "{panic:?}: the peer is still there");
        oracle.tell(self.engine, panic.peer, Told::Panicked(panic.callback));
        AfterPanic::Continue
    }

    fn authorize(&mut self, info: &PeerInfo) -> bool {
        let PeerInfo { node, direction, .. } = *info;
        self.oracle.borrow_mut().tell(self.engine, None, Told::Asked { node, direction });
        self.stumble(Callback::Authorize, None);
        !self.unwanted.contains(&node)
    }

    fn on_connected(&mut self, _cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        self.oracle.borrow_mut().on_connected(self.engine, peer, info);
        self.stumble(Callback::Connected, Some(peer));
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        self.sync(cx);
        let kind = if message.requires_ack() { Kind::Acked } else { Kind::Data };
        self.oracle.borrow_mut().on_received(self.engine, peer, kind, message.meta, message.body);
        self.stumble(Callback::Message, Some(peer));
        if let Some(ack) = message.ack_id() {
            let [now, later, anywhere] = self.mood.ack;
            let draw = self.rng.below(100);
            if draw < now {
                self.ack(cx, ack);
            } else if draw < now + later {
                self.later(cx, Duration::from_secs(3), Later::Ack(ack));
            } else if draw < now + later + anywhere {
                self.owed.borrow_mut().push(ack);
            }
        }
        if self.rng.chance(self.mood.reply, 1000) {
            let (meta, len) = (self.meta(), self.len());
            let _ = self.send(cx, peer, meta, len);
        }
        if self.rng.chance(self.mood.pause, 1000) {
            self.pause(cx, peer);
        }
        if self.rng.chance(self.mood.close, 1000) {
            cx.close(peer);
        }
    }

    fn on_request(&mut self, cx: &mut Context<'_>, peer: PeerId, request: Message<'_>, responder: Responder) {
        self.sync(cx);
        self.oracle.borrow_mut().on_received(self.engine, peer, Kind::Request, request.meta, request.body);
        self.stumble(Callback::Request, Some(peer));
        let id = super::oracle::word(request.body, 0);
        let [now, later, anywhere] = self.mood.answer;
        let draw = self.rng.below(100);
        if draw < now {
            self.respond(cx, responder, id);
        } else if draw < now + later {
            self.later(cx, Duration::from_secs(3), Later::Answer(responder, id));
        } else if draw < now + later + anywhere {
            self.pool.borrow_mut().push((responder, id));
        }
    }

    fn on_response(&mut self, _cx: &mut Context<'_>, peer: PeerId, tag: u64, result: Result<Message<'_>, RequestError>) {
        self.oracle.borrow_mut().on_response(self.engine, peer, tag, result.map(|message| message.body));
        self.stumble(Callback::Response, Some(peer));
    }

    fn on_drained(&mut self, _cx: &mut Context<'_>, peer: PeerId) {
        self.oracle.borrow_mut().tell(self.engine, Some(peer), Told::Drained);
        self.stumble(Callback::Drained, Some(peer));
    }

    fn on_slow(&mut self, _cx: &mut Context<'_>, peer: PeerId, backlog: Backlog) {
        self.oracle.borrow_mut().tell(self.engine, Some(peer), Told::Slow(backlog));
        self.stumble(Callback::Slow, Some(peer));
    }

    fn on_rate_limited(&mut self, _cx: &mut Context<'_>, peer: PeerId, dropped: RateLimited) {
        self.oracle.borrow_mut().tell(self.engine, Some(peer), Told::RateLimited(dropped));
        self.stumble(Callback::RateLimited, Some(peer));
    }

    fn on_subscribed(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.oracle.borrow_mut().on_subscribed(self.engine, peer, topic);
        self.stumble(Callback::Subscribed, Some(peer));
        if self.rng.chance(self.mood.reply, 1000) {
            let (meta, len) = (self.meta(), self.len());
            let _ = self.send(cx, peer, meta, len);
        }
    }

    fn on_unsubscribed(&mut self, _cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.oracle.borrow_mut().on_unsubscribed(self.engine, peer, topic);
        self.stumble(Callback::Unsubscribed, Some(peer));
    }

    fn on_send_failed(&mut self, _cx: &mut Context<'_>, peer: PeerId, _tag: u64, reason: SendError) {
        self.oracle.borrow_mut().tell(self.engine, Some(peer), Told::SendFailed(reason));
        self.stumble(Callback::SendFailed, Some(peer));
    }

    fn on_dial_failed(&mut self, _cx: &mut Context<'_>, _dial: DialId, error: DialError, retry_in: Option<Duration>) {
        self.oracle.borrow_mut().tell(self.engine, None, Told::DialFailed { error, retry_in });
        self.stumble(Callback::DialFailed, None);
    }

    fn on_going_away(&mut self, _cx: &mut Context<'_>, peer: PeerId, notice: Notice) {
        self.oracle.borrow_mut().tell(self.engine, Some(peer), Told::GoingAway(notice));
        self.stumble(Callback::GoingAway, Some(peer));
    }

    fn on_pooled(&mut self, _cx: &mut Context<'_>, tag: u64, result: Result<PeerId, DialError>) {
        self.oracle.borrow_mut().on_pooled(self.engine, tag, result);
        self.stumble(Callback::Pooled, None);
    }

    fn on_breaker(&mut self, _cx: &mut Context<'_>, _target: Endpoint, state: BreakerState) {
        self.oracle.borrow_mut().tell(self.engine, None, Told::Breaker(state));
        self.stumble(Callback::Breaker, None);
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        self.sync(cx);
        if let Some(record) = cx.flight(peer) {
            check_flight(&record, reason);
            let mut oracle = self.oracle.borrow_mut();
            oracle.note(&[5, record.earlier, record.entries.len() as u64]);
            if oracle.records_told {
                oracle.flights.push(record);
            }
        }
        self.oracle.borrow_mut().on_closed(self.engine, peer, reason);
        self.stumble(Callback::Closed, Some(peer));
    }

    fn on_acked(&mut self, _cx: &mut Context<'_>, receipt: &Receipt) {
        self.oracle.borrow_mut().on_acked(self.engine, receipt);
        self.stumble(Callback::Acked, None);
    }

    fn on_receipt(&mut self, _cx: &mut Context<'_>, receipt: Receipt) {
        self.oracle.borrow_mut().on_receipt(self.engine, receipt);
        self.stumble(Callback::Receipt, None);
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Task) {
        self.sync(cx);
        command(self, cx);
        self.stumble(Callback::Command, None);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, tag: u64) {
        self.sync(cx);
        self.oracle.borrow_mut().tell(self.engine, None, Told::Timer(tag));
        self.stumble(Callback::Timer, None);
        match self.timers.remove(&tag) {
            Some((Later::Resume(peer), _)) => self.resume(cx, peer),
            Some((Later::Answer(responder, id), _)) => self.respond(cx, responder, id),
            Some((Later::Ack(ack), _)) => self.ack(cx, ack),
            Some((Later::Nothing, _)) | None => {}
        }
    }
}
