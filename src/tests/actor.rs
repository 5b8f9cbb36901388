//! The application of the simulated nodes: does what it is told, and now and then something of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::oracle::{Item, Oracle, STAMP, Told};
use crate::dial::Dial;
use crate::error::{CloseReason, DialError, RequestError, SendError};
use crate::handler::{Backlog, Context, Handler, Message, PeerInfo, Responder, Sent, TimerId};
use crate::id::{DialId, NodeId, PeerId, Topic};
use crate::receipt::{AckId, Receipt};
use crate::rng::Rng;
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

/// Requests that any core of an engine may answer.
pub(super) type Pool = Rc<RefCell<Vec<(Responder, u64)>>>;
/// Messages that any core of an engine may acknowledge.
pub(super) type Owed = Rc<RefCell<Vec<AckId>>>;

/// One core's handler.
pub(super) struct Actor {
    pub(super) oracle: Rc<RefCell<Oracle>>,
    /// The engine, by the number of its start.
    pub(super) engine: usize,
    pub(super) core: usize,
    pub(super) rng: Rng,
    pub(super) mood: Mood,
    pub(super) pool: Pool,
    pub(super) owed: Owed,
    timers: BTreeMap<u64, (Later, Option<TimerId>)>,
    pub(super) dials: Vec<DialId>,
    /// Nodes that it does not authorize.
    pub(super) unwanted: Vec<NodeId>,
    sent: u32,
}

impl Actor {
    pub(super) fn new(oracle: &Rc<RefCell<Oracle>>, engine: usize, core: usize, seed: u64, mood: Mood, pools: &(Pool, Owed)) -> Self {
        Self {
            oracle: Rc::clone(oracle),
            engine,
            core,
            rng: Rng::new(seed),
            mood,
            pool: Rc::clone(&pools.0),
            owed: Rc::clone(&pools.1),
            timers: BTreeMap::new(),
            dials: Vec::new(),
            unwanted: Vec::new(),
            sent: 0,
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.oracle.borrow_mut().next_id()
    }

    /// A body that says which it is, where it is long enough for that.
    pub(super) fn body(&mut self, len: usize) -> Vec<u8> {
        self.sent += 1;
        let id = self.next_id();
        let mut body = vec![id as u8; len];
        if len >= STAMP {
            body[..8].copy_from_slice(&id.to_le_bytes());
            body[8..16].copy_from_slice(&(self.core as u64).to_le_bytes());
            body[16..24].copy_from_slice(&u64::from(self.sent).to_le_bytes());
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

    pub(super) fn request(&mut self, cx: &mut Context<'_>, peer: PeerId, meta: Meta, len: usize, timeout: Duration) -> u64 {
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
        self.dials.push(id);
    }

    /// One of the things that an application can do, drawn.
    pub(super) fn act(&mut self, cx: &mut Context<'_>, targets: &[Dial]) {
        let peers = self.oracle.borrow().connected(self.engine);
        let peer = (!peers.is_empty()).then(|| peers[self.rng.below(peers.len() as u64) as usize]);
        if self.mood.topics > 0 && self.rng.chance(self.mood.topics, 100) {
            return self.act_on_topics(cx, peer);
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
                self.request(cx, peer, meta, len, timeout);
            }
            (80..84, Some(peer)) => self.pause(cx, peer),
            (84..86, Some(peer)) => cx.close(peer),
            (86..90, _) if !targets.is_empty() => {
                let dial = targets[self.rng.below(targets.len() as u64) as usize].clone();
                let dial = if self.rng.chance(1, 4) { dial.once() } else { dial };
                self.dial(cx, dial);
            }
            (90..92, _) if !self.dials.is_empty() => {
                let index = self.rng.below(self.dials.len() as u64) as usize;
                cx.cancel_dial(self.dials.swap_remove(index));
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

impl Handler for Actor {
    type Command = Task;

    fn authorize(&mut self, info: &PeerInfo) -> bool {
        let PeerInfo { node, direction, .. } = *info;
        self.oracle.borrow_mut().tell(self.engine, None, Told::Asked { node, direction });
        !self.unwanted.contains(&node)
    }

    fn on_connected(&mut self, _cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        self.oracle.borrow_mut().on_connected(self.engine, peer, info);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        self.sync(cx);
        let kind = if message.requires_ack() { Kind::Acked } else { Kind::Data };
        self.oracle.borrow_mut().on_received(self.engine, peer, kind, message.meta, message.body);
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
    }

    fn on_drained(&mut self, _cx: &mut Context<'_>, peer: PeerId) {
        self.oracle.borrow_mut().tell(self.engine, Some(peer), Told::Drained);
    }

    fn on_slow(&mut self, _cx: &mut Context<'_>, peer: PeerId, backlog: Backlog) {
        self.oracle.borrow_mut().tell(self.engine, Some(peer), Told::Slow(backlog));
    }

    fn on_subscribed(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.oracle.borrow_mut().on_subscribed(self.engine, peer, topic);
        if self.rng.chance(self.mood.reply, 1000) {
            let (meta, len) = (self.meta(), self.len());
            let _ = self.send(cx, peer, meta, len);
        }
    }

    fn on_unsubscribed(&mut self, _cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.oracle.borrow_mut().on_unsubscribed(self.engine, peer, topic);
    }

    fn on_send_failed(&mut self, _cx: &mut Context<'_>, peer: PeerId, _tag: u64, reason: SendError) {
        self.oracle.borrow_mut().tell(self.engine, Some(peer), Told::SendFailed(reason));
    }

    fn on_dial_failed(&mut self, _cx: &mut Context<'_>, _dial: DialId, error: DialError, retry_in: Option<Duration>) {
        self.oracle.borrow_mut().tell(self.engine, None, Told::DialFailed { error, retry_in });
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        self.sync(cx);
        self.oracle.borrow_mut().on_closed(self.engine, peer, reason);
    }

    fn on_acked(&mut self, _cx: &mut Context<'_>, receipt: &Receipt) {
        self.oracle.borrow_mut().on_acked(self.engine, receipt);
    }

    fn on_receipt(&mut self, _cx: &mut Context<'_>, receipt: Receipt) {
        self.oracle.borrow_mut().on_receipt(self.engine, receipt);
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Task) {
        self.sync(cx);
        command(self, cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, tag: u64) {
        self.sync(cx);
        self.oracle.borrow_mut().tell(self.engine, None, Told::Timer(tag));
        match self.timers.remove(&tag) {
            Some((Later::Resume(peer), _)) => self.resume(cx, peer),
            Some((Later::Answer(responder, id), _)) => self.respond(cx, responder, id),
            Some((Later::Ack(ack), _)) => self.ack(cx, ack),
            Some((Later::Nothing, _)) | None => {}
        }
    }
}
