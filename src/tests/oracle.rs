//! What must be true of every run, whatever the network did.
//!
//! The oracle is told of every message that a shard has taken and of every call to a handler, and panics at the first contradiction. Per
//! connection, direction and lane it keeps what was taken and has not arrived: what arrives must be the first of it, byte for byte.
//! That is "at most once, never duplicated, never reordered", and more: nothing is left out. It also hashes everything it is told, so
//! that two runs of one seed can be compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::acks::Sends;
use super::panics::Panics;
use super::pipe::End;
use crate::error::{CloseReason, RequestError};
use crate::flight::FlightRecord;
use crate::handler::{Callback, Direction, PeerInfo};
use crate::id::{NodeId, PeerId, Topic};
use crate::receipt::Receipt;
use crate::wire::{Frame, GoodbyeCode, HEADER_LEN, Header, Kind, Lane, Meta};

/// Bytes of a body's own description: id, origin, order. Shorter bodies have none.
pub(super) const STAMP: usize = 24;

/// A message as the oracle compares it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) message_type: u16,
    len: usize,
    hash: u64,
    /// Which message this is, for whoever reads a failure.
    pub(super) id: u64,
    /// Core and number of the sender, where the body has room to say.
    origin: Option<(u32, u32)>,
    /// It may be left out: its time was up, or its lane drops what a slow peer does not take.
    may_drop: bool,
    /// A later one with the same key may take its place.
    key: Option<u64>,
}

impl Item {
    pub(super) fn new(kind: Kind, meta: Meta, body: &[u8]) -> Self {
        let origin = (body.len() >= STAMP).then(|| (word(body, 8) as u32, word(body, 16) as u32));
        let id = if body.len() >= STAMP { word(body, 0) } else { 0 };
        Self { kind, message_type: meta.message_type, len: body.len(), hash: hash(body), id, origin, may_drop: false, key: None }
    }

    /// What a frame says that was taken for a peer, and what it says of its own worth.
    pub(super) fn sent(frame: &Frame) -> Self {
        Self::of_frame(frame.meta(), frame.as_bytes()).with_terms(frame)
    }

    /// The same, of a frame that says how long it is of use and what takes its place.
    fn with_terms(self, frame: &Frame) -> Self {
        Self { may_drop: frame.ttl().is_some(), key: frame.key(), ..self }
    }

    /// The same, but its core had no memory for it at all: it may come or not.
    pub(super) fn unsure(self) -> Self {
        Self { may_drop: true, ..self }
    }

    /// Whether the two are one message.
    fn is(&self, other: &Self) -> bool {
        let parts = |item: &Self| (item.kind, item.message_type, item.len, item.hash, item.id, item.origin);
        parts(self) == parts(other)
    }

    /// What an encoded frame says, read from its wire bytes.
    pub(super) fn of_frame(meta: Meta, mut bytes: &[u8]) -> Self {
        let mut body = Vec::new();
        let mut prefix = usize::MAX;
        let mut kind = Kind::Data;
        while let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
            let header = Header::decode(*head).expect("this side encoded it");
            if prefix == usize::MAX {
                kind = header.kind;
                prefix = if header.more { 4 } else { 0 } + if kind.has_correlation() { 8 } else { 0 };
            }
            let end = HEADER_LEN + header.len as usize;
            body.extend_from_slice(&bytes[HEADER_LEN + prefix..end]);
            prefix = 0;
            bytes = &bytes[end..];
        }
        Self::new(kind, meta, &body)
    }
}

/// The little-endian word at `at`.
pub(super) fn word(body: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*body[at..].first_chunk().expect("the caller checked the length"))
}

fn mix(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

fn hash(body: &[u8]) -> u64 {
    let mut state = body.len() as u64;
    let mut chunks = body.chunks_exact(8);
    for chunk in &mut chunks {
        state = mix(state, word(chunk, 0));
    }
    chunks.remainder().iter().fold(state, |state, &byte| mix(state, u64::from(byte)))
}

/// Takes what came out of what is owed, with those before it that were left out. Says whether it came at its place, and how many were
/// left out; else what should have come.
fn take_next(queue: &mut VecDeque<Item>, item: &Item, is_suppressed: impl Fn(&Item) -> bool) -> Result<(bool, u64), Option<Item>> {
    let mut dropped = 0;
    if let Some(at) = queue.iter().position(|owed| owed.key.is_some() && owed.is(item)) {
        // It took the place of the first of its key; what else is before it comes later.
        let (key, before) = (queue[at].key, queue.len());
        let mut index = 0;
        queue.retain(|owed| {
            index += 1;
            index > at + 1 || owed.key != key
        });
        dropped += (before - queue.len()) as u64 - 1;
        return Ok((false, dropped));
    }
    while let Some(owed) = queue.pop_front() {
        if owed.is(item) {
            return Ok((true, dropped));
        }
        if is_suppressed(&owed) {
            continue;
        }
        if !owed.may_drop {
            return Err(Some(owed));
        }
        dropped += 1;
    }
    Err(None)
}

/// What a handler was told, for scenarios to look at.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// The application was asked whether it wants a node.
    Asked {
        node: NodeId,
        direction: Direction,
    },
    Connected {
        info: PeerInfo,
    },
    Closed(CloseReason),
    Message {
        message_type: u16,
        len: usize,
    },
    Response {
        tag: u64,
        result: Result<usize, RequestError>,
    },
    Drained,
    Slow(crate::handler::Backlog),
    GoingAway(crate::notice::Notice),
    RateLimited(crate::handler::RateLimited),
    Subscribed(Topic),
    Unsubscribed(Topic),
    DialFailed {
        error: crate::error::DialError,
        retry_in: Option<std::time::Duration>,
    },
    SendFailed(crate::error::SendError),
    Pooled {
        tag: u64,
        result: Result<PeerId, crate::error::DialError>,
    },
    Breaker(crate::endpoint::BreakerState),
    Timer(u64),
    /// How many have acknowledged so far.
    Acked(usize),
    Receipt(Receipt),
    /// The handler before this one panicked there.
    Panicked(Callback),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Messages may be queued for it, but the application has not heard of it.
    #[default]
    New,
    Connected,
    Closed,
}

/// One engine's side of one connection.
#[derive(Debug, Default)]
struct Record {
    stage: Stage,
    info: Option<PeerInfo>,
    end: Option<End>,
    /// Taken for this peer, not yet received by the other side.
    sent: [VecDeque<Item>; Lane::ALL.len()],
    reason: Option<CloseReason>,
    closed_at: u64,
    /// The application does not want to read it now; or did not at some time.
    paused: bool,
    was_paused: bool,
    /// What the other side had still to give when this one closed.
    missing: usize,
    /// What the other side has subscribed to here, as the application was told; and this side there, as the shard has taken it.
    theirs: BTreeSet<Topic>,
    ours: BTreeSet<Topic>,
    /// The last number that came from each core of the other side, in each lane.
    numbers: BTreeMap<(u32, usize), u32>,
}

/// An engine, by the number of its start, and a peer of it.
type Name = (usize, PeerId);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) now: u64,
    digest: u64,
    /// Everything that was told, in order, where a scenario wants to know.
    pub(super) told: Vec<(u64, usize, Option<PeerId>, Told)>,
    pub(super) records_told: bool,
    /// What had been noted of peers that ended, in that order, likewise.
    pub(super) flights: Vec<FlightRecord>,
    /// Neither the network nor the scheduler do anything but delay a little.
    pub(super) calm: bool,
    /// The shortest time after which a close may give up, nanoseconds.
    pub(super) patience: u64,
    /// Print everything that is told: `CORECAST_SIM_TRACE`.
    pub(super) traces: bool,
    peers: BTreeMap<Name, Record>,
    by_end: BTreeMap<End, Name>,
    requests: BTreeMap<u64, usize>,
    /// Connects that have no answer yet.
    connects: BTreeMap<u64, usize>,
    /// The engines' lanes that drop what a slow peer does not take.
    pub(super) lossy: BTreeMap<usize, [bool; Lane::ALL.len()]>,
    /// Messages that were left out although later ones came.
    pub(super) dropped: u64,
    gone: BTreeSet<usize>,
    pub(super) sends: Sends,
    pub(super) panics: Panics,
    next_id: u64,
}

impl Oracle {
    /// A number that nothing else in this run has.
    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Takes something into the digest.
    pub(super) fn note(&mut self, words: &[u64]) {
        self.digest = words.iter().fold(mix(self.digest, self.now), |state, &word| mix(state, word));
        if self.traces {
            eprintln!("{:>14} {words:?}", self.now);
        }
    }

    pub(super) fn tell(&mut self, engine: usize, peer: Option<PeerId>, told: Told) {
        let text = format!("{told:?}");
        self.note(&[engine as u64, peer.map_or(0, PeerId::to_u64), hash(text.as_bytes())]);
        if self.traces {
            eprintln!("{:>14} engine {engine} {peer:?} {text}", self.now);
        }
        if self.records_told {
            self.told.push((self.now, engine, peer, told));
        }
    }

    /// A shard has taken a message for a peer.
    pub(super) fn taken(&mut self, engine: usize, peer: PeerId, lane: Lane, item: Item) {
        let lossy = self.lossy.get(&engine).is_some_and(|lanes| lanes[lane.index()]);
        let item = Item { may_drop: item.may_drop || lossy, ..item };
        let record = self.peers.entry((engine, peer)).or_default();
        assert_ne!(record.stage, Stage::Closed, "engine {engine} took a message for {peer} after on_closed");
        record.sent[lane.index()].push_back(item);
    }

    /// A shard has published a message. `there`: its established peers, without those that it passed by.
    pub(super) fn published(&mut self, engine: usize, there: impl Iterator<Item = PeerId>, topic: Topic, lane: Lane, item: Item) {
        for peer in there {
            if self.peers.get(&(engine, peer)).is_some_and(|record| record.theirs.contains(&topic)) {
                self.taken(engine, peer, lane, item);
            }
        }
    }

    /// A shard has subscribed at a peer, or unsubscribed.
    pub(super) fn subscribes(&mut self, engine: usize, peer: PeerId, topic: Topic, wanted: bool) {
        let ours = &mut self.peers.get_mut(&(engine, peer)).expect("a peer that takes a subscription is known").ours;
        let _changed = if wanted { ours.insert(topic) } else { ours.remove(&topic) };
    }

    pub(super) fn on_subscribed(&mut self, engine: usize, peer: PeerId, topic: Topic) {
        let record = self.peers.get_mut(&(engine, peer)).unwrap_or_else(|| panic!("{peer} subscribes, of whom nobody knows"));
        assert_eq!(record.stage, Stage::Connected, "on_subscribed of {peer} outside its connection");
        assert!(record.theirs.insert(topic), "{peer} subscribes to {topic} twice");
        self.tell(engine, Some(peer), Told::Subscribed(topic));
    }

    pub(super) fn on_unsubscribed(&mut self, engine: usize, peer: PeerId, topic: Topic) {
        let record = self.peers.get_mut(&(engine, peer)).unwrap_or_else(|| panic!("{peer} unsubscribes, of whom nobody knows"));
        assert_eq!(record.stage, Stage::Connected, "on_unsubscribed of {peer} outside its connection");
        assert!(record.theirs.remove(&topic), "{peer} unsubscribes from {topic}, which it has not");
        self.tell(engine, Some(peer), Told::Unsubscribed(topic));
    }

    /// A peer has this end of a connection.
    pub(super) fn bind(&mut self, engine: usize, peer: PeerId, end: End) {
        let record = self.peers.entry((engine, peer)).or_default();
        assert!(record.end.replace(end).is_none(), "{peer} was promoted twice");
        assert!(self.by_end.insert(end, (engine, peer)).is_none(), "{end:?} was promoted twice");
    }

    pub(super) fn on_connected(&mut self, engine: usize, peer: PeerId, info: &PeerInfo) {
        let record = self.peers.entry((engine, peer)).or_default();
        assert_eq!(record.stage, Stage::New, "on_connected twice, or after on_closed, for {peer}");
        record.stage = Stage::Connected;
        record.info = Some(info.clone());
        self.tell(engine, Some(peer), Told::Connected { info: info.clone() });
    }

    pub(super) fn on_received(&mut self, engine: usize, peer: PeerId, kind: Kind, meta: Meta, body: &[u8]) {
        let name = (engine, peer);
        let item = Item::new(kind, meta, body);
        let record = self.peers.get_mut(&name).unwrap_or_else(|| panic!("a message from {peer}, of whom nobody knows"));
        assert_eq!(record.stage, Stage::Connected, "a message from {peer} outside its connection");
        assert!(!record.paused, "a message from {peer}, which is paused");
        let channel = record.info.as_ref().map_or(0, |info| info.channel);
        let end = record.end.expect("a peer is promoted before it is read");
        let mut in_order = true;
        if let Some(sender) = self.by_end.get(&end.other()) {
            let queue = &mut self.peers.get_mut(sender).expect("ends are of peers").sent[meta.lane.index()];
            let sends = &self.sends;
            match take_next(queue, &item, |owed| sends.may_be_suppressed(owed, engine, channel)) {
                Ok((kept_its_place, dropped)) => (in_order, self.dropped) = (kept_its_place, self.dropped + dropped),
                Err(expected) => {
                    panic!("engine {engine}, {peer}, {:?}: {item:?} is not the next in its lane: {expected:?}", meta.lane)
                }
            }
        }
        // What is sent again, or comes by way of the directory, keeps the order in which it was queued, not that in which it was made.
        if let Some((core, number)) = item.origin.filter(|_| in_order && kind != Kind::Acked) {
            let numbers = &mut self.peers.get_mut(&name).expect("looked up above").numbers;
            let last = numbers.insert((core, meta.lane.index()), number);
            assert!(last < Some(number), "{peer} got number {number} of core {core} after {last:?}: {item:?}");
        }
        if kind == Kind::Acked {
            self.delivered(engine, channel, meta, body);
        }
        self.tell(engine, Some(peer), Told::Message { message_type: meta.message_type, len: body.len() });
    }

    pub(super) fn on_closed(&mut self, engine: usize, peer: PeerId, reason: CloseReason) {
        let record = self.peers.get_mut(&(engine, peer)).unwrap_or_else(|| panic!("{peer} closed, of whom nobody knows"));
        assert_eq!(record.stage, Stage::Connected, "on_closed of {peer} without on_connected, or twice");
        record.stage = Stage::Closed;
        record.reason = Some(reason);
        self.panics.closed(engine, peer, reason);
        record.closed_at = self.now;
        let end = record.end;
        assert!(
            !matches!(reason, CloseReason::Violation(_)) || end.is_some_and(|end| !self.by_end.contains_key(&end.other())),
            "engine {engine}: {peer} broke a rule: {reason:?}, and both sides are ours; {end:?}, other side {:?}",
            end.and_then(|end| self.by_end.get(&end.other()))
        );
        self.tell(engine, Some(peer), Told::Closed(reason));
        let Some(other) = end.and_then(|end| self.by_end.get(&end.other()).copied()) else { return };
        let missing = self.missing(&self.peers[&other], engine);
        self.peers.get_mut(&(engine, peer)).expect("looked up above").missing = missing;
        self.check_owed((engine, peer), other);
        self.check_owed(other, (engine, peer));
        if self.calm && !self.peers[&other].was_paused {
            assert_ne!(reason, CloseReason::Unresponsive, "{peer} is well, and so is the network");
        }
    }

    /// What the receiver has still to get of what was sent.
    fn missing(&self, from: &Record, receiver: usize) -> usize {
        let channel = from.info.as_ref().map_or(0, |info| info.channel);
        from.sent.iter().flatten().filter(|item| !item.may_drop && !self.sends.may_be_suppressed(item, receiver, channel)).count()
    }

    /// The application stops reading a peer, or goes on.
    pub(super) fn pauses(&mut self, engine: usize, peer: PeerId, paused: bool) {
        if let Some(record) = self.peers.get_mut(&(engine, peer)) {
            record.paused = paused;
            record.was_paused |= paused;
        }
    }

    /// Whoever closes decently delivers everything first, then says so.
    fn check_owed(&self, receiver: Name, closer: Name) {
        use CloseReason::{Eof, Goodbye, HandlerPanicked, Io, Replaced, Requested, ShuttingDown};
        let (from, to) = (&self.peers[&closer], &self.peers[&receiver]);
        let (Some(theirs), Some(own)) = (from.reason, to.reason) else { return };
        if !matches!(theirs, Requested | ShuttingDown | Replaced | Eof | HandlerPanicked) {
            return;
        }
        let case = format!("{closer:?} closed ({theirs:?}) at {}, {receiver:?} ({own:?}) at {}", from.closed_at, to.closed_at);
        if matches!(own, Goodbye(GoodbyeCode::Closed | GoodbyeCode::ShuttingDown | GoodbyeCode::Replaced)) {
            assert_eq!(to.missing, 0, "{case}, with messages missing");
        }
        // Where the network is well, nothing but a deadline keeps the goodbye from arriving.
        if self.calm && theirs != Eof && matches!(own, Io(_) | Eof) && from.closed_at <= to.closed_at {
            assert!(to.closed_at - from.closed_at >= self.patience, "{case}, without a goodbye");
        }
    }

    pub(super) fn requested(&mut self, engine: usize, tag: u64) {
        assert!(self.requests.insert(tag, engine).is_none());
    }

    pub(super) fn on_response(&mut self, engine: usize, peer: PeerId, tag: u64, result: Result<&[u8], RequestError>) {
        assert_eq!(self.requests.remove(&tag), Some(engine), "a response to request {tag}, which nobody waits for");
        if let Ok(body) = result {
            assert_eq!(body.get(..8).map(|body| word(body, 0)), Some(tag), "the response to another request");
            assert!(body[8..].iter().all(|&byte| byte == tag as u8), "a damaged response");
        }
        self.tell(engine, Some(peer), Told::Response { tag, result: result.map(<[u8]>::len) });
    }

    /// An engine was stopped without a word: nobody hears of what it had.
    pub(super) fn forget(&mut self, engine: usize) {
        self.gone.insert(engine);
        self.requests.retain(|_, owner| *owner != engine);
        self.connects.retain(|_, owner| *owner != engine);
        self.sends.forget(engine);
        self.panics.forget(engine);
    }

    /// A handler has asked for a connection of the pool.
    pub(super) fn connects(&mut self, engine: usize, tag: u64) {
        assert!(self.connects.insert(tag, engine).is_none(), "tags are told once");
    }

    pub(super) fn on_pooled(&mut self, engine: usize, tag: u64, result: Result<PeerId, crate::error::DialError>) {
        assert_eq!(self.connects.remove(&tag), Some(engine), "an answer to a connect that nobody waits for");
        if let Ok(peer) = result {
            let record = self.peers.get(&(engine, peer));
            assert!(record.is_some_and(|record| record.stage != Stage::New), "{peer} is handed out and was never established");
        }
        self.tell(engine, result.ok(), Told::Pooled { tag, result });
    }

    /// The peers of an engine that its application believes in.
    pub(super) fn connected(&self, engine: usize) -> Vec<PeerId> {
        let of_engine = self.peers.range((engine, PeerId::new(0, 0, 1))..).take_while(|((owner, _), _)| *owner == engine);
        let mut peers: Vec<_> = of_engine.filter(|(_, record)| record.stage == Stage::Connected).map(|((_, peer), _)| *peer).collect();
        peers.sort_unstable();
        peers
    }

    /// The end of the connection that a peer is reached by.
    pub(super) fn end(&self, engine: usize, peer: PeerId) -> Option<End> {
        self.peers.get(&(engine, peer))?.end
    }

    pub(super) fn reason(&self, engine: usize, peer: PeerId) -> Option<CloseReason> {
        self.peers.get(&(engine, peer))?.reason
    }

    /// Nothing is under way any more: both ends of each connection are there, once for each node and channel.
    pub(super) fn check_agreement(&self) {
        let mut seen: BTreeSet<(usize, NodeId, u16)> = BTreeSet::new();
        for (&(engine, peer), record) in self.live() {
            let info = record.info.as_ref().expect("a connected peer has one");
            assert!(seen.insert((engine, info.node, info.channel)), "engine {engine} has two connections to {:?}", info.node);
            let end = record.end.expect("a connected peer is promoted");
            let other = self.by_end.get(&end.other()).unwrap_or_else(|| panic!("engine {engine}, {peer}: the other side never had it"));
            assert_eq!(self.peers[other].stage, Stage::Connected, "engine {engine} has {peer}, and {other:?} does not");
            assert_eq!(record.ours, self.peers[other].theirs, "engine {engine}, {peer}: what one side wants the other gives");
            let missing = self.missing(record, other.0);
            assert_eq!(missing, 0, "engine {engine}, {peer}: messages are neither lost nor received");
        }
    }

    fn live(&self) -> impl Iterator<Item = (&Name, &Record)> {
        self.peers.iter().filter(|((engine, _), record)| record.stage == Stage::Connected && !self.gone.contains(engine))
    }

    /// All is over: everybody was told of every end, and every request was answered.
    pub(super) fn check_end(&self) {
        let open: Vec<_> = self.live().map(|(name, _)| name).collect();
        assert!(open.is_empty(), "on_closed is missing: {open:?}");
        assert!(self.requests.is_empty(), "requests without on_response: {:?}", self.requests);
        assert!(self.connects.is_empty(), "connects without on_pooled: {:?}", self.connects);
        self.sends.check_end();
        self.panics.check_end();
    }
}
