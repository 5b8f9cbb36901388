//! The world: nodes of several cores, without threads, sockets and clock.
//!
//! A [`World`] does what the reactor does, in the order that `src/reactor/turn.rs` has, but moves time itself: from one thing that happens
//! to the next. Everything that the kernel and the scheduler are free to do (when a core runs, how long mail takes, how much a
//! read gives) is drawn from one seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::actor::{Actor, Mood, Pools, Task};
pub(super) use super::addresses::address;
use super::addresses::{dialler_address, node_at};
use super::keys::{dial_to, entropy, identity, write_sealed};
use super::nonces;
use super::oracle::{Item, Oracle};
use super::pace::Pace;
use super::pipe::{Edge, End, Faults, Net, Read};
use crate::config::{Config, Noise, Security, WhenSlow};
use crate::handler::Context;
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::proto::Slices;
use crate::rng::Rng;
use crate::shard::{Action, Conn, Control, Mail, ReadOutcome, Shard, Shared, Supervised, Ticket};
use crate::time::Timestamp;
use crate::wire::{Kind, Lane};

pub(super) const MILLI: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MILLI;
/// Most that one read gives.
pub(super) const RECEIVE_BUFFER: usize = 64 << 10;

/// A socket, as a core knows it.
#[derive(Debug)]
struct Socket {
    end: End,
    /// In the core's list of those to be read.
    queued: bool,
    connecting: bool,
    /// How the connect ended, until the core has heard of it.
    connected: Option<bool>,
}

/// Something that is under way to a core, and when it is there.
type Queue<T> = VecDeque<(u64, T)>;

/// The first of a queue, if it has arrived.
fn arrived<T>(queue: &mut Queue<T>, now: u64) -> Option<T> {
    if queue.front()?.0 > now {
        return None;
    }
    queue.pop_front().map(|(_, item)| item)
}

pub(super) struct Core {
    pub(super) shard: Shard,
    actor: Supervised<Actor>,
    halves: BTreeMap<u32, Socket>,
    peers: BTreeMap<u32, Socket>,
    ready: VecDeque<Conn>,
    /// By the core that they come from; the last is the outside.
    control: Vec<Queue<Control>>,
    mail: Vec<Queue<Mail>>,
    accepted: Queue<(End, Ticket)>,
    tasks: Queue<Task>,
    /// Edges that have come: of sockets that can be written to, and of connects that have ended.
    writable: VecDeque<Conn>,
    /// When the next turn is, and when it was meant to be.
    wake_at: u64,
    meant: u64,
}

pub(super) struct Node {
    pub(super) config: Arc<Config>,
    pub(super) shared: Shared,
    pub(super) cores: Vec<Core>,
    /// The number of this start: names the engine in the oracle.
    pub(super) engine: usize,
    backlog: VecDeque<End>,
    pub(super) listening: bool,
}

/// What the kernel took of one offer, and in which turn of the core.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) turn: u64,
    pub(super) bytes: Vec<u8>,
}

/// See the module.
pub(super) struct World {
    pub(super) now: u64,
    pub(super) net: Net,
    pub(super) nodes: Vec<Node>,
    pub(super) oracle: Rc<RefCell<Oracle>>,
    pub(super) pace: Pace,
    pub(super) rng: Rng,
    engines: usize,
    /// Everything that the kernel takes at these ends is written down.
    pub(super) taps: BTreeMap<End, Vec<Taken>>,
    owners: BTreeMap<End, (usize, usize, Conn)>,
    buffer: usize,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults, pace: Pace) -> Self {
        let mut rng = Rng::new(seed);
        nonces::begin();
        let net = Net::new(faults, rng.next_u64());
        let mut oracle = Oracle::default();
        oracle.traces = std::env::var_os("CORECAST_SIM_TRACE").is_some();
        Self {
            now: MILLI,
            net,
            nodes: Vec::new(),
            oracle: Rc::new(RefCell::new(oracle)),
            pace,
            rng,
            engines: 0,
            taps: BTreeMap::new(),
            owners: BTreeMap::new(),
            buffer: RECEIVE_BUFFER,
        }
    }

    pub(super) fn add_node(&mut self, config: Config, mood: &Mood) -> usize {
        let node = self.start(self.nodes.len(), config, mood);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn start(&mut self, node: usize, mut config: Config, mood: &Mood) -> Node {
        if let Security::Noise(noise) = &mut config.security {
            *noise = Noise::new(identity(node));
        }
        let config = Arc::new(config);
        let shared = Shared::new(Arc::clone(&config), &mut self.rng);
        let count = config.cores.count();
        let engine = self.engines;
        self.engines += 1;
        let drops = |lane: Lane| config.lanes.get(lane).when_slow != WhenSlow::Disconnect;
        self.oracle.borrow_mut().lossy.insert(engine, Lane::ALL.map(drops));
        self.oracle.borrow_mut().named(engine, shared.node);
        let pools = Pools::default();
        let now = Timestamp::from_nanos(self.now);
        let cores = (0..count).map(|core| Core {
            shard: Shard::new(core, shared.clone(), self.rng.next_u64(), now),
            actor: Actor::supervised(&self.oracle, engine, core, self.rng.next_u64(), mood.clone(), &pools),
            halves: BTreeMap::new(),
            peers: BTreeMap::new(),
            ready: VecDeque::new(),
            control: (0..=count).map(|_| Queue::new()).collect(),
            mail: (0..count).map(|_| Queue::new()).collect(),
            accepted: Queue::new(),
            tasks: Queue::new(),
            writable: VecDeque::new(),
            wake_at: self.now,
            meant: self.now,
        });
        let cores = cores.collect();
        Node { config, shared, cores, engine, backlog: VecDeque::new(), listening: true }
    }

    /// A node's process ends without a word and starts again. Its connections are reset, or, worse, not even that.
    pub(super) fn restart(&mut self, node: usize, mood: &Mood) {
        let ends: Vec<End> = self.owners.iter().filter(|(_, owner)| owner.0 == node).map(|(end, _)| *end).collect();
        let quietly = self.rng.chance(1, 2);
        for end in ends {
            self.owners.remove(&end);
            if quietly {
                self.net.vanish(end.link);
            } else {
                self.net.reset(self.now, end.link);
            }
        }
        let mut config = (*self.nodes[node].config).clone();
        if let Security::Plaintext { .. } = config.security {
            config.node = Some(self.nodes[node].shared.node);
        }
        self.oracle.borrow_mut().forget(self.nodes[node].engine);
        self.nodes[node] = self.start(node, config, mood);
    }

    /// Gives a core's handler something to do.
    pub(super) fn task(&mut self, node: usize, core: usize, task: impl FnOnce(&mut Actor, &mut Context<'_>) + Send + 'static) {
        self.task_in(0, node, core, task);
    }

    /// The same, in so many nanoseconds. Not before what the core was given already.
    pub(super) fn task_in(
        &mut self,
        nanos: u64,
        node: usize,
        core: usize,
        task: impl FnOnce(&mut Actor, &mut Context<'_>) + Send + 'static,
    ) {
        let at = self.now + nanos;
        self.nodes[node].cores[core].tasks.push_back((at, Box::new(task)));
        self.wake(node, core, at);
    }

    /// Says something to a core from outside.
    pub(super) fn control(&mut self, node: usize, core: usize, control: Control) {
        let at = self.now + self.delay(self.pace.mail);
        let outside = self.nodes[node].cores.len();
        self.nodes[node].cores[core].control[outside].push_back((at, control));
        self.wake(node, core, at);
    }

    pub(super) fn dial(&mut self, node: usize, target: usize) {
        let dial = dial_to(&self.nodes[node].config, target);
        self.task(node, 0, move |actor, cx| actor.dial(cx, dial));
    }

    pub(super) fn shut_down(&mut self, node: usize) {
        self.nodes[node].listening = false;
        for core in 0..self.nodes[node].cores.len() {
            self.control(node, core, Control::Shutdown);
        }
    }

    fn delay(&mut self, most: u64) -> u64 {
        if most == 0 { 0 } else { self.rng.below(most) }
    }

    fn wake(&mut self, node: usize, core: usize, reason: u64) {
        let at = reason.max(self.now) + self.delay(self.pace.wake);
        let core = &mut self.nodes[node].cores[core];
        if at < core.wake_at {
            core.wake_at = at;
            core.meant = at;
        }
    }

    fn next(&self) -> Option<u64> {
        let turns = self.nodes.iter().flat_map(|node| &node.cores).map(|core| core.wake_at);
        turns.chain(self.net.next_edge()).min().filter(|&at| at < u64::MAX)
    }

    /// Lets things happen for so many nanoseconds.
    pub(super) fn run(&mut self, nanos: u64) {
        let end = self.now + nanos;
        while let Some(at) = self.next().filter(|&at| at <= end) {
            self.step(at);
        }
        self.now = end;
    }

    /// Lets things happen until `done`, or for so many nanoseconds; says whether it is done.
    pub(super) fn run_until(&mut self, nanos: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + nanos;
        while !done(self) {
            match self.next().filter(|&at| at <= end) {
                Some(at) => self.step(at),
                None => return false,
            }
        }
        true
    }

    fn step(&mut self, at: u64) {
        self.now = self.now.max(at);
        self.oracle.borrow_mut().now = self.now;
        while let Some((end, edge)) = self.net.pop(self.now) {
            self.edge(end, edge);
        }
        for node in 0..self.nodes.len() {
            for core in 0..self.nodes[node].cores.len() {
                if self.nodes[node].cores[core].wake_at <= self.now {
                    self.turn(node, core);
                }
            }
        }
    }

    fn edge(&mut self, end: End, edge: Edge) {
        if edge == Edge::Connected && end.side == 0 {
            let target = self.net.target(end);
            if self.nodes.get(target).is_some_and(|node| node.listening) {
                self.nodes[target].backlog.push_back(end.other());
                self.wake(target, 0, self.now);
            } else {
                return self.connect_ended(end, false);
            }
        }
        match edge {
            Edge::Connected | Edge::Refused => self.connect_ended(end, edge == Edge::Connected),
            Edge::Readable | Edge::Writable => {
                let Some(&(node, core, conn)) = self.owners.get(&end) else { return };
                let this = &mut self.nodes[node].cores[core];
                if edge == Edge::Readable {
                    this.make_ready(conn);
                } else {
                    this.writable.push_back(conn);
                }
                self.wake(node, core, self.now);
            }
        }
    }

    fn connect_ended(&mut self, end: End, connected: bool) {
        let Some(&(node, core, Conn::Half(half))) = self.owners.get(&end) else { return };
        let this = &mut self.nodes[node].cores[core];
        if let Some(socket) = this.halves.get_mut(&half) {
            socket.connected = Some(connected);
            this.writable.push_back(Conn::Half(half));
            self.wake(node, core, self.now);
        }
    }

    /// One turn of one core, in the order of the reactor's.
    fn turn(&mut self, node: usize, core: usize) {
        if self.pace.freeze > 0 && self.rng.chance(self.pace.freeze, 100_000) {
            let frozen = self.rng.below(self.pace.longest_freeze);
            self.nodes[node].cores[core].wake_at = self.now + frozen;
            return;
        }
        let this = &mut self.nodes[node].cores[core];
        this.wake_at = u64::MAX;
        this.shard.begin_turn(Timestamp::from_nanos(self.now), Timestamp::from_nanos(this.meant));
        self.drain_inbox(node, core);
        self.accept_all(node, core);
        self.mark_writable(node, core);
        self.read_ready(node, core);
        let this = &mut self.nodes[node].cores[core];
        this.shard.handle_timeouts();
        this.shard.settle(&mut this.actor);
        self.send_mail(node, core);
        self.act(node, core);
        self.flush(node, core);
        self.act(node, core);
        self.send_mail(node, core);
        let this = &mut self.nodes[node].cores[core];
        this.shard.finish_turn();
        this.shard.assert_invariants();
        self.plan(node, core);
    }

    /// When the core runs next.
    fn plan(&mut self, node: usize, core: usize) {
        let this = &self.nodes[node].cores[core];
        let heads = this.control.iter().filter_map(|queue| queue.front().map(|(at, _)| *at));
        let heads = heads.chain(this.mail.iter().filter_map(|queue| queue.front().map(|(at, _)| *at)));
        let heads = heads.chain(this.tasks.front().map(|(at, _)| *at)).chain(this.accepted.front().map(|(at, _)| *at));
        let deadline = this.shard.next_deadline().map(Timestamp::as_nanos);
        let queued = heads.chain(deadline).min();
        if this.shard.has_work() || !this.ready.is_empty() || (core == 0 && !self.nodes[node].backlog.is_empty()) {
            // A turn takes some time, or the world would stand still.
            self.wake(node, core, self.now + 1000);
        }
        if let Some(at) = queued {
            self.wake(node, core, at.max(self.now + 1000));
        }
    }

    fn drain_inbox(&mut self, node: usize, core: usize) {
        let now = self.now;
        let this = &mut self.nodes[node].cores[core];
        for queue in &mut this.control {
            while let Some(control) = arrived(queue, now) {
                this.shard.handle_control(control);
            }
        }
        for from in 0..self.nodes[node].cores.len() {
            loop {
                let this = &mut self.nodes[node].cores[core];
                if !this.shard.wants_mail() {
                    break;
                }
                let Some(mail) = arrived(&mut this.mail[from], now) else { break };
                self.nodes[node].shared.credits[core].release(mail.cost());
                self.handle_mail(node, core, mail);
            }
        }
        let this = &mut self.nodes[node].cores[core];
        while let Some(task) = arrived(&mut this.tasks, now) {
            this.shard.handle_command(&mut this.actor, task);
        }
    }

    /// Gives mail to a shard, and tells the oracle what the shard took.
    fn handle_mail(&mut self, node: usize, core: usize, mail: Mail) {
        let engine = self.nodes[node].engine;
        let shard = &mut self.nodes[node].cores[core].shard;
        self.oracle.borrow_mut().taken_acked(engine, shard.take_queued_acked());
        if matches!(mail, Mail::Publish { .. } | Mail::Subscribe { .. }) {
            return self.handle_topic_mail(node, core, mail);
        }
        let frame = |frame: &crate::wire::Frame| (frame.lane(), Item::sent(frame));
        let (one, items, except): (Option<PeerId>, Vec<_>, _) = match &mail {
            Mail::Send { peer, frame: sent, .. } => (Some(*peer), vec![frame(sent)], None),
            Mail::SendBatch { peer, frames } => (Some(*peer), frames.iter().map(frame).collect(), None),
            Mail::Broadcast { frame: sent, except } => (None, vec![frame(sent)], *except),
            Mail::BroadcastBatch { frames } => (None, frames.iter().map(frame).collect(), None),
            Mail::Request { peer, meta, body, .. } => (Some(*peer), vec![(meta.lane, Item::new(Kind::Request, *meta, body))], None),
            Mail::Respond { .. } | Mail::Publish { .. } | Mail::Subscribe { .. } => (None, Vec::new(), None),
            // What is to be acknowledged, the shard notes itself.
            Mail::SendAcked { .. } | Mail::BroadcastAcked { .. } | Mail::Ack(_) => (None, Vec::new(), None),
            Mail::Route { .. } | Mail::Connect { .. } | Mail::Unpin { .. } => (None, Vec::new(), None),
        };
        let peers: Vec<PeerId> = match one {
            Some(peer) => vec![peer],
            None => shard.peers().filter(|peer| Some(*peer) != except).collect(),
        };
        let refused = shard.stats().get(Counter::SendsRefused);
        shard.handle_mail(mail);
        self.oracle.borrow_mut().taken_acked(engine, shard.take_queued_acked());
        let passed_by = shard.take_passed_by();
        if shard.stats().get(Counter::SendsRefused) == refused {
            let mut oracle = self.oracle.borrow_mut();
            for (lane, item) in items {
                for peer in &peers {
                    let item = if passed_by.contains(peer) { item.unsure() } else { item };
                    oracle.taken(engine, *peer, lane, item);
                }
            }
        }
    }

    fn accept_all(&mut self, node: usize, core: usize) {
        if core == 0 {
            while let Some(end) = self.nodes[node].backlog.pop_front() {
                let ticket = self.nodes[node].listening.then(|| self.nodes[node].cores[0].shard.admit(&dialler_address(end)));
                match ticket.flatten() {
                    None => self.net.close(self.now, end),
                    Some(ticket) => {
                        let to = ticket.core();
                        let at = self.now + if to == core { 0 } else { self.delay(self.pace.mail) };
                        self.nodes[node].cores[to].accepted.push_back((at, (end, ticket)));
                        self.wake(node, to, at);
                    }
                }
            }
        }
        let now = self.now;
        while let Some((end, ticket)) = arrived(&mut self.nodes[node].cores[core].accepted, now) {
            let entropy = entropy(&self.nodes[node].shared, &mut self.rng);
            let half = self.nodes[node].cores[core].shard.handle_accepted(dialler_address(end), ticket, &entropy);
            self.register(node, core, half, end, false);
        }
    }

    fn register(&mut self, node: usize, core: usize, half: u32, end: End, connecting: bool) {
        self.owners.insert(end, (node, core, Conn::Half(half)));
        let this = &mut self.nodes[node].cores[core];
        assert!(
            this.halves.insert(half, Socket { end, queued: false, connecting, connected: None }).is_none(),
            "a half-open index is used twice"
        );
        if !connecting {
            this.make_ready(Conn::Half(half));
        }
    }

    fn mark_writable(&mut self, node: usize, core: usize) {
        while let Some(conn) = self.nodes[node].cores[core].writable.pop_front() {
            let entropy = entropy(&self.nodes[node].shared, &mut self.rng);
            let this = &mut self.nodes[node].cores[core];
            match conn {
                Conn::Peer(slot) if this.peers.contains_key(&slot) => this.shard.handle_writable(slot),
                Conn::Half(half) => {
                    let Some(socket) = this.halves.get_mut(&half) else { continue };
                    match socket.connected.take() {
                        Some(true) => {
                            socket.connecting = false;
                            this.shard.handle_connected(half, &entropy);
                        }
                        Some(false) => this.shard.handle_half_error(half, self.net.refusal),
                        None => {}
                    }
                    self.write_half(node, core, half);
                }
                Conn::Peer(_) => {}
            }
        }
    }

    fn read_ready(&mut self, node: usize, core: usize) {
        for _ in 0..self.nodes[node].cores[core].ready.len() {
            let Some(conn) = self.nodes[node].cores[core].pop_ready() else { return };
            match conn {
                Conn::Peer(slot) => self.read_peer(node, core, slot),
                Conn::Half(half) => self.read_half(node, core, half),
            }
        }
    }

    fn read_peer(&mut self, node: usize, core: usize, slot: u32) {
        let this = &mut self.nodes[node].cores[core];
        let Some(end) = this.peers.get(&slot).map(|socket| socket.end) else { return };
        let mut budget = self.pace.read_budget;
        while this.shard.wants_read(slot) {
            match self.net.read(self.now, end, self.buffer.min(this.shard.read_limit(slot))) {
                Read::Bytes(bytes) => {
                    if this.shard.handle_read(&mut this.actor, slot, &bytes) == ReadOutcome::Stop {
                        return;
                    }
                    budget = budget.saturating_sub(bytes.len());
                    if budget == 0 {
                        return this.make_ready(Conn::Peer(slot));
                    }
                }
                Read::Eof => return this.shard.handle_eof(slot),
                Read::WouldBlock => return,
                Read::Failed(kind) => return this.shard.handle_error(slot, kind),
            }
        }
    }

    fn read_half(&mut self, node: usize, core: usize, half: u32) {
        let this = &mut self.nodes[node].cores[core];
        let Some((end, connecting)) = this.halves.get(&half).map(|socket| (socket.end, socket.connecting)) else { return };
        for _ in 0..8 {
            if this.shard.half_is_deferred(half) {
                break;
            }
            let wanted = this.shard.half_wanted(half).min(self.buffer);
            if wanted == 0 || connecting {
                return;
            }
            match self.net.read(self.now, end, wanted) {
                Read::Bytes(bytes) => this.shard.handle_half_read(&mut this.actor, half, &bytes),
                Read::Eof => return this.shard.handle_half_eof(half),
                Read::WouldBlock => return,
                Read::Failed(kind) => return this.shard.handle_half_error(half, kind),
            }
        }
        this.make_ready(Conn::Half(half));
    }

    fn write_half(&mut self, node: usize, core: usize, half: u32) {
        let this = &mut self.nodes[node].cores[core];
        let Some(socket) = this.halves.get(&half).filter(|socket| !socket.connecting) else { return };
        let output = this.shard.half_output(half);
        if output.is_empty() {
            return;
        }
        match self.net.write(self.now, socket.end, &[std::io::IoSlice::new(output)]) {
            Ok(taken) => this.shard.half_advance(half, taken),
            Err(kind) => this.shard.handle_half_error(half, kind),
        }
    }

    fn send_mail(&mut self, node: usize, core: usize) {
        while let Some((to, mail)) = self.nodes[node].cores[core].shard.poll_mail() {
            let at = self.now + self.delay(self.pace.mail);
            let queue = &mut self.nodes[node].cores[to].mail[core];
            let at = queue.back().map_or(at, |(last, _)| at.max(*last));
            queue.push_back((at, mail));
            self.wake(node, to, at);
        }
        while let Some((to, control)) = self.nodes[node].cores[core].shard.poll_control() {
            let at = self.now + self.delay(self.pace.mail);
            let queue = &mut self.nodes[node].cores[to].control[core];
            let at = queue.back().map_or(at, |(last, _)| at.max(*last));
            queue.push_back((at, control));
            self.wake(node, to, at);
        }
    }

    fn flush(&mut self, node: usize, core: usize) {
        let engine = self.nodes[node].engine;
        let this = &mut self.nodes[node].cores[core];
        self.oracle.borrow_mut().taken_acked(engine, this.shard.take_queued_acked());
        this.shard.begin_flush();
        for _ in 0..self.pace.flush_peers {
            let Some(slot) = this.shard.pop_dirty() else { return };
            let end = this.peers.get(&slot).unwrap_or_else(|| panic!("slot {slot} is dirty and has no socket")).end;
            if this.shard.is_sealed(slot) {
                write_sealed(self.now, &mut self.net, this, slot, end, self.pace.write_budget);
                continue;
            }
            let turn = this.shard.stats_mut().get(Counter::Turns);
            let mut slices = Slices::new(self.pace.write_budget);
            this.shard.gather(slot, &mut slices);
            if let Some(whole) = this.shard.contiguous(slot) {
                let gathered: Vec<u8> = slices.as_slice().iter().flat_map(|slice| slice.iter().copied()).collect();
                assert_eq!(&whole[..whole.len().min(self.pace.write_budget)], gathered, "the short way lists what the long one does");
            }
            let offered = slices.bytes();
            assert!(offered > 0, "a dirty peer has something to write");
            match self.net.write(self.now, end, slices.as_slice()) {
                Ok(taken) => {
                    if let Some(tap) = self.taps.get_mut(&end) {
                        let bytes = slices.as_slice().iter().flat_map(|slice| slice.iter().copied()).take(taken).collect();
                        tap.push(Taken { turn, bytes });
                    }
                    this.shard.advance(slot, taken, taken < offered);
                }
                Err(kind) => this.shard.handle_error(slot, kind),
            }
        }
    }

    fn act(&mut self, node: usize, core: usize) {
        let engine = self.nodes[node].engine;
        while let Some(action) = self.nodes[node].cores[core].shard.poll_action() {
            let this = &mut self.nodes[node].cores[core];
            match action {
                Action::Connect { half, address, .. } => {
                    let end = self.net.connect(self.now, node_at(&address));
                    self.register(node, core, half, end, true);
                }
                Action::Promote { half, slot } => {
                    let Some(socket) = this.halves.remove(&half) else { panic!("a half-open connection without a socket is promoted") };
                    self.owners.insert(socket.end, (node, core, Conn::Peer(slot)));
                    self.oracle.borrow_mut().bind(engine, this.shard.peer_id(slot), socket.end);
                    assert!(this.peers.insert(slot, Socket { queued: false, ..socket }).is_none(), "a slot is used twice");
                    this.make_ready(Conn::Peer(slot));
                }
                Action::Read { slot } => this.make_ready(Conn::Peer(slot)),
                Action::ReadHalf { half } => this.make_ready(Conn::Half(half)),
                Action::WriteHalf { half } => self.write_half(node, core, half),
                Action::ShutdownWrite { conn } => {
                    if let Some(end) = this.end(conn) {
                        self.net.shutdown_write(self.now, end);
                    }
                    this.make_ready(conn);
                }
                Action::Close { conn } => {
                    let socket = match conn {
                        Conn::Peer(slot) => this.peers.remove(&slot),
                        Conn::Half(half) => this.halves.remove(&half),
                    };
                    let end = socket.unwrap_or_else(|| panic!("{conn:?} is closed twice")).end;
                    self.owners.remove(&end);
                    self.net.close(self.now, end);
                }
                // An answer for somebody.
                _ => panic!("nobody waits on a thread"),
            }
        }
    }

    /// Everything that was taken was given back.
    pub(super) fn check_baseline(&mut self) {
        for node in &mut self.nodes {
            let engine = node.engine;
            for (index, core) in node.cores.iter_mut().enumerate() {
                for counter in [
                    Counter::Peers,
                    Counter::HalfOpen,
                    Counter::Subscriptions,
                    Counter::LogBytes,
                    Counter::PrivateBytes,
                    Counter::ReassemblyBytes,
                    Counter::Timers,
                ] {
                    assert_eq!(core.shard.stats().get(counter), 0, "engine {engine}, core {index}: {}", counter.name());
                }
                core.shard.assert_released();
                assert!(core.peers.is_empty() && core.halves.is_empty(), "engine {engine}, core {index}: sockets are left");
                assert_eq!(node.shared.credits[index].used(), (0, 0), "engine {engine}: credit of core {index}");
            }
            assert_eq!(node.shared.places.in_use(), (0, 0), "engine {engine}: tickets");
        }
    }
}

impl Core {
    fn end(&self, conn: Conn) -> Option<End> {
        match conn {
            Conn::Peer(slot) => self.peers.get(&slot).map(|socket| socket.end),
            Conn::Half(half) => self.halves.get(&half).map(|socket| socket.end),
        }
    }

    fn socket(&mut self, conn: Conn) -> Option<&mut Socket> {
        match conn {
            Conn::Peer(slot) => self.peers.get_mut(&slot),
            Conn::Half(half) => self.halves.get_mut(&half),
        }
    }

    fn make_ready(&mut self, conn: Conn) {
        if let Some(socket) = self.socket(conn)
            && !std::mem::replace(&mut socket.queued, true)
        {
            self.ready.push_back(conn);
        }
    }

    fn pop_ready(&mut self) -> Option<Conn> {
        let conn = self.ready.pop_front()?;
        if let Some(socket) = self.socket(conn) {
            socket.queued = false;
        }
        Some(conn)
    }
}
