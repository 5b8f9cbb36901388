//! One core, without its thread: every peer of it, their timers, the broadcasts.
//!
//! A [`Shard`] is a state machine. It is told what happened (bytes came, a socket can be written, a message came from another core, time
//! passed) and says what is to be done: by return value where it is hot, by [`Shard::poll_action`] and the outgoing queues where it is
//! rare. It has no socket, no thread and no clock, so the simulator in `src/tests` runs twenty of them in one thread, from a seed.
//!
//! A turn, in the order in which its driver calls: `begin_turn`, `handle_control` / `handle_mail` / `handle_command`, the half-open
//! connections' and peers' `handle_*`, `handle_timeouts`, `settle`, then `begin_flush` and for each `pop_dirty` `gather` and `advance`,
//! then `poll_action` to the end, then `finish_turn`. Nothing is freed before `finish_turn`, so an index stays what it was for a whole
//! turn.

mod account;
mod acks;
mod allowed;
mod backoff;
mod blame;
pub(crate) mod bound;
mod breaker;
#[cfg(test)]
mod check;
mod close;
mod cold;
mod credit;
mod directory;
mod endings;
mod flush;
mod gate;
mod half_open;
mod idle;
mod landing;
mod ledgers;
mod mail;
mod parting;
mod places;
mod pool;
mod publish;
mod rates;
mod receipts;
mod receive;
mod recorder;
mod sealed;
mod send;
mod slots;
mod slow;
mod supervised;
mod timeouts;
mod topics;
mod turn;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use account::Snapshot;
pub use account::{LaneBytes, PeerSnapshot};
pub(crate) use allowed::Listed;
pub(crate) use credit::{Credit, reserve_all};
pub(crate) use mail::{Control, Mail, Owned};
pub(crate) use places::{Places, Ticket};
pub(crate) use receipts::Asker;
pub(crate) use receive::ReadOutcome;
pub(crate) use send::Payload;
pub(crate) use supervised::{Supervised, drop_quietly};
#[cfg(test)]
pub(crate) use turn::KEPT_QUEUE;

use crate::address::Address;
use crate::buffers::BufferPool;
use crate::config::{Config, Security};
use crate::endpoint::{BreakerState, Endpoint};
use crate::error::{CloseReason, DialError, RequestError, SendError};
use crate::handler::{Backlog, RateLimited};
use crate::id::{DialId, NodeId, PeerId};
use crate::metrics::{Histograms, Stats};
use crate::proto::{Budget, Keys, Logs, Quanta, QueuedPool};
use crate::receipt::Receipt;
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::wheel::TimerWheel;
use crate::wire::{Draft, FEATURES, Frame, FrameError, Hello, Meta};
use directory::Directory;
use gate::Gate;
use half_open::HalfOpen;
use slots::Slots;

/// A connection of this core, as its driver names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Conn {
    /// In its handshake. A space of its own, so that strangers take no peer's slot.
    Half(u32),
    Peer(u32),
}

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Open a connection, from this address if one is given, and report with `handle_connected` or `handle_half_error`.
    Connect { half: u32, address: Address, source: Option<IpAddr> },
    /// The half-open connection's socket is the peer's from now on. It may be readable.
    Promote { half: u32, slot: u32 },
    /// Look whether the peer is readable: it was not read for a while.
    Read { slot: u32 },
    /// Write to the half-open connection what `half_output` says.
    WriteHalf { half: u32 },
    /// The half-open connection may be readable: the directory has answered.
    ReadHalf { half: u32 },
    /// Send FIN; go on reading.
    ShutdownWrite { conn: Conn },
    /// Close the socket.
    Close { conn: Conn },
    /// A waiting thread's request has ended.
    Answer { waiter: u64, result: Result<Owned, RequestError> },
    /// One more node has acknowledged a waiting thread's send.
    Acked { waiter: u64, node: NodeId, after: Duration },
    /// A waiting thread's acknowledged send has ended.
    Receipt { waiter: u64, receipt: Receipt },
    /// What became of a waiting thread's connect.
    Pooled { waiter: u64, result: Result<PeerId, DialError> },
}

/// What the application is still to be told: everything but messages and commands, which it gets at once.
#[derive(Debug)]
enum Event {
    Connected(PeerId),
    Response {
        peer: PeerId,
        tag: u64,
        result: Result<Owned, RequestError>,
    },
    Drained(PeerId),
    Slow {
        peer: PeerId,
        backlog: Backlog,
    },
    RateLimited {
        peer: PeerId,
        dropped: RateLimited,
    },
    SendFailed {
        peer: PeerId,
        tag: u64,
        reason: SendError,
    },
    DialFailed {
        dial: DialId,
        error: DialError,
        retry_in: Option<Duration>,
    },
    Closed {
        peer: PeerId,
        reason: CloseReason,
    },
    Timer {
        tag: u64,
    },
    /// There are new acknowledgements of this send.
    Acked(u64),
    /// This send has its outcome.
    Receipt(u64),
    Pooled {
        tag: u64,
        result: Result<PeerId, DialError>,
    },
    /// Boxed, since it is rare and would make all others longer.
    Breaker(Box<(Endpoint, BreakerState)>),
}

/// What a deadline in the wheel is for, where it is not a peer's.
#[derive(Clone, Copy, Debug)]
enum Deadline {
    Half(u32),
    /// By slot: it is cancelled before another peer has that.
    Request {
        slot: u32,
        correlation: u64,
    },
    User {
        tag: u64,
    },
    Redial(DialId),
    /// A peer that sends too much: read it again, or report what was dropped.
    Rated(PeerId),
    /// A probe has had its time.
    Probe(DialId),
    /// The directory looks through what it holds against targets.
    Breakers,
    /// The core looks which of the pool's connections are idle.
    Idle,
    /// The end of an acknowledged send, where it was asked for, and where its peers are.
    Receipt(u64),
    Acked(u64),
    /// The directory looks through what it keeps of connections that are over.
    Ledgers,
    /// The period between the notice that this engine goes and its goodbye is over.
    Landed,
}

/// What is on its way to other cores, and to this core itself.
#[derive(Debug, Default)]
struct Outgoing {
    core: usize,
    control: VecDeque<(usize, Control)>,
    local: VecDeque<Control>,
    mail: VecDeque<(usize, Mail)>,
}

impl Outgoing {
    fn control(&mut self, core: usize, control: Control) {
        if core == self.core { self.local.push_back(control) } else { self.control.push_back((core, control)) }
    }
}

/// What the cores of an engine share, besides messages.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    /// The node, and the number drawn at this start.
    pub(crate) node: NodeId,
    pub(crate) instance: u64,
    /// With Noise: what this side brings to a handshake.
    pub(crate) keys: Option<Arc<Keys>>,
    pub(crate) places: Arc<Places>,
    pub(crate) listed: Listed,
    /// The room for mail from core to core, by target.
    pub(crate) credits: Arc<[Credit]>,
}

impl Shared {
    pub(crate) fn new(config: Arc<Config>, rng: &mut Rng) -> Self {
        let cores = config.cores.count();
        let limits = &config.limits;
        let mut random = [0; 32];
        rng.fill(&mut random);
        Self {
            node: config.security.identity().map(|identity| identity.node_id()).or(config.node).unwrap_or(NodeId(random)),
            instance: rng.next_u64(),
            keys: match &config.security {
                Security::Noise(noise) => Keys::new(noise).map(Arc::new),
                Security::Plaintext { .. } => None,
            },
            places: Places::new(cores),
            listed: Listed::default(),
            credits: (0..cores).map(|_| Credit::new(limits.inbox_messages, limits.inbox_bytes)).collect(),
            config,
        }
    }
}

/// Peers that a core has room for from the start, where it may have so many.
const ROOM: usize = 1024;

fn room(config: &Config) -> usize {
    ROOM.min(config.limits.max_peers / config.cores.count())
}

/// All state of one core.
pub(crate) struct Shard {
    core: usize,
    shared: Shared,
    /// What this side says of itself; the channel is the dial's.
    hello: Hello,
    now: Timestamp,
    rng: Rng,

    slots: Slots,
    /// Peers that take only shorter messages than this side sends: broadcasts that are too long pass them by.
    narrow: Vec<PeerId>,
    topics: topics::Topics,
    /// What peers may send and be sent, where that is limited.
    rates: Option<Box<rates::Table>>,
    /// There are such limits, or a recorder: what comes is looked at frame by frame. One branch for both where there is neither.
    inspects: bool,
    published: publish::Published,
    half_open: slab::Slab<HalfOpen>,
    next_serial: u32,
    /// Steps of handshakes that were computed in this turn.
    steps: usize,

    logs: Logs,
    /// What each lane may send of a peer's bytes before the next one has its turn.
    quanta: Quanta,
    /// Some lane drops what a slow peer does not take.
    drops: bool,
    pool: QueuedPool,
    /// For what arrives, and how much of it may be memory.
    buffers: BufferPool,
    budget: Budget,
    /// Bytes of whole reads that were put aside, and from where on reads are short.
    parked: usize,
    most_parked: usize,
    /// For what is sealed and opened.
    scratch: sealed::Scratch,
    /// Bytes that single peers keep in memory to be sent.
    sends: Budget,
    /// Bytes that were appended to the logs in this turn, and of frames that were published in it.
    appended: usize,
    /// Some peer whose socket takes what it is given has half of its hard bound to be written, or all of these have half of the memory:
    /// this core is behind, not the peer.
    behind: bool,
    /// When the logs grow to so many bytes, look what can be released.
    reclaim_at: usize,

    /// Peers' timers are set for their slots.
    wheel: TimerWheel<Deadline>,
    user_timers: usize,
    /// Requests that wait for a response.
    requests: usize,

    /// Peers with something to write and a socket that may take it. Each is in it once (`Entry::dirty`).
    dirty: VecDeque<u32>,
    /// Peers whose socket takes nothing for now.
    blocked: usize,
    /// How many of them are for the flush that is under way.
    flush_left: usize,
    /// The pass over all peers that broadcasts need, and the ends of the logs when it began.
    sweep: flush::Sweep,
    swept: [u64; 3],
    /// Peers to be read again because they were paused.
    resuming: Vec<u32>,
    /// Peers that wait for memory to receive a message in pieces.
    starved: VecDeque<PeerId>,
    /// To be freed at the end of the turn.
    ended: Vec<u32>,
    ended_half: Vec<u32>,

    events: VecDeque<Event>,
    actions: VecDeque<Action>,
    out: Outgoing,
    /// On core 0 only, as the directory.
    endings: Option<endings::Endings>,
    gate: Option<Gate>,
    directory: Option<Directory>,
    next_dial: u64,
    /// The pool's connections of this core.
    idle: idle::Watch,
    /// Connects of the handler that have no answer yet.
    connects: usize,
    receipts: receipts::Receipts,
    unacked: acks::Unacked,
    /// Message types that the application acknowledges, in order.
    by_handler: Box<[u16]>,
    /// What was queued to be acknowledged, and for whom: the simulator's oracle wants to know.
    #[cfg(test)]
    queued_acked: Vec<(PeerId, Frame)>,
    /// A panic came out of the core itself, by way of a handler's call: see `supervised`.
    broken: bool,
    landing: landing::Landing,
    recorder: recorder::Recorder,
    shutting_down: bool,
    /// Bytes that were still queued for peers that ended during the shutdown.
    unsent_bytes: u64,
    stats: Stats,
    /// None where they are off.
    histograms: Option<Box<Histograms>>,
    /// What sends take, while the driver wants to know.
    encoding: account::Encoding,
}

impl Shard {
    pub(crate) fn new(core: usize, shared: Shared, seed: u64, now: Timestamp) -> Self {
        let config = &shared.config;
        let mut by_handler = config.acks.by_handler.clone();
        by_handler.sort_unstable();
        let by_handler = by_handler.into_boxed_slice();
        let hello = Hello {
            network: config.network,
            node: shared.node,
            instance: shared.instance,
            features: FEATURES,
            max_message: config.limits.max_message as u32,
            channel: 0,
        };
        Self {
            core,
            hello,
            now,
            rng: Rng::new(seed),
            slots: Slots::new(core, room(config)),
            narrow: Vec::new(),
            topics: topics::Topics::default(),
            rates: rates::Table::new(config),
            inspects: config.rates.is_some() || config.recorder > 0,
            published: publish::Published::default(),
            half_open: slab::Slab::new(),
            next_serial: 0,
            steps: 0,
            logs: Logs::new(),
            drops: config.lanes.drops(),
            quanta: Quanta::new(config.lanes.quanta(config.limits.fragment)),
            pool: QueuedPool::new(config.limits.buffer_pool),
            buffers: BufferPool::new(config.limits.buffer_pool),
            budget: Budget::new(config.limits.reassembly_bytes, config.limits.reassembly_reserve),
            parked: 0,
            most_parked: (receive::PARKED_READS - 1) * receive::parked_read(config),
            sends: Budget::new(config.limits.send_bytes / config.cores.count(), config.limits.send_reserve),
            scratch: sealed::Scratch::default(),
            appended: 0,
            behind: false,
            reclaim_at: flush::RECLAIM_STEP,
            wheel: TimerWheel::new(now),
            user_timers: 0,
            requests: 0,
            dirty: VecDeque::new(),
            blocked: 0,
            flush_left: 0,
            sweep: flush::Sweep::default(),
            swept: [0; 3],
            resuming: Vec::new(),
            starved: VecDeque::new(),
            ended: Vec::new(),
            ended_half: Vec::new(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            out: Outgoing { core, ..Outgoing::default() },
            endings: (core == 0).then(|| endings::Endings::new(config.limits.max_peers)),
            gate: (core == 0).then(|| Gate::new(Arc::clone(config))),
            directory: (core == 0).then(|| Directory::new(Arc::clone(config), shared.node, shared.listed.clone())),
            next_dial: 0,
            idle: idle::Watch::default(),
            connects: 0,
            receipts: receipts::Receipts::default(),
            unacked: acks::Unacked::default(),
            by_handler,
            #[cfg(test)]
            queued_acked: Vec::new(),
            broken: false,
            landing: landing::Landing::default(),
            recorder: recorder::Recorder::new(config),
            shutting_down: false,
            unsent_bytes: 0,
            stats: Stats::default(),
            histograms: config.metrics.histograms.then(Box::default),
            encoding: account::Encoding::default(),
            shared,
        }
    }

    pub(crate) fn core(&self) -> usize {
        self.core
    }

    pub(crate) fn cores(&self) -> usize {
        self.shared.credits.len()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn frame(&self, meta: Meta, body: &[u8]) -> Result<Frame, FrameError> {
        let limits = &self.config().limits;
        if body.len() > limits.max_message {
            return Err(FrameError::TooLong { len: body.len(), max: limits.max_message });
        }
        Frame::encode(Draft::data(self.resolve(meta), body), limits.fragment)
    }

    /// The metadata with the lane that is meant: the sender's choice, or what the configuration has for the type.
    #[inline]
    pub(crate) fn resolve(&self, meta: Meta) -> Meta {
        self.config().lanes.resolve(meta)
    }
}
