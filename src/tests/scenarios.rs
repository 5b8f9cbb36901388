//! Short stories with one outcome each, in virtual time, without faults but those that the story is about.

use std::io::IoSlice;
use std::time::Duration;

use super::actor::{Actor, Mood};
use super::oracle::Told;
use super::pace::Pace;
use super::pipe::{End, Faults, Read};
use super::sim::{MILLI, SECOND, World, address};
use crate::config::{Config, Cores};
use crate::dial::Dial;
use crate::error::{CloseReason, DialError, RequestError, SendError, Slow};
use crate::handler::{Context, Direction, Sent};
use crate::id::{NodeId, PeerId};
use crate::metrics::Counter;
use crate::shard::Control;
use crate::wire::{Draft, GoodbyeCode, Header, Hello, Kind, Lane, Meta, Preamble, append_message, control_frame};

pub(super) const META: Meta = Meta::new(7);

pub(super) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// With addresses that all come from one subnet, and are exempt.
pub(super) fn config() -> Config {
    let mut config = Config::plaintext();
    config.addresses.exempt = super::loopback();
    config
}

/// The same, with a name: the order of the names decides who wins.
pub(super) fn named(name: u8) -> Config {
    Config { node: Some(NodeId([name; 32])), ..config() }
}

/// Nodes of one core each, if their configurations do not say otherwise.
pub(super) fn world(configs: impl IntoIterator<Item = Config>) -> World {
    let mut world = World::new(7, Faults::none(), Pace::prompt());
    world.oracle.borrow_mut().records_told = true;
    for config in configs {
        world.add_node(config, &Mood::quiet());
    }
    world
}

/// Two nodes, the first of which has dialled the second, once.
pub(super) fn pair(first: Config, second: Config) -> World {
    let mut world = world([first, second]);
    world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1)).once()));
    assert!(world.run_until(SECOND, |world| world.peers(0).len() == 1 && world.peers(1).len() == 1));
    world
}

impl World {
    pub(super) fn peers(&self, node: usize) -> Vec<PeerId> {
        self.oracle.borrow().connected(self.nodes[node].engine)
    }

    /// The node's only peer.
    pub(super) fn peer(&self, node: usize) -> PeerId {
        let peers = self.peers(node);
        assert_eq!(peers.len(), 1, "node {node} has {peers:?}");
        peers[0]
    }

    /// When each thing was told that is of interest, and what of it.
    pub(super) fn told<T>(&self, node: usize, of_interest: impl Fn(&Told) -> Option<T>) -> Vec<(u64, T)> {
        let oracle = self.oracle.borrow();
        let engine = self.nodes[node].engine;
        let told = oracle.told.iter().filter(|(_, owner, ..)| *owner == engine);
        told.filter_map(|(at, _, _, told)| Some((*at, of_interest(told)?))).collect()
    }

    pub(super) fn closed(&self, node: usize) -> Vec<(u64, CloseReason)> {
        self.told(node, |told| if let Told::Closed(reason) = told { Some(*reason) } else { None })
    }

    pub(super) fn messages(&self, node: usize) -> usize {
        self.told(node, |told| matches!(told, Told::Message { .. }).then_some(())).len()
    }

    pub(super) fn count(&mut self, node: usize, counter: Counter) -> u64 {
        self.nodes[node].cores.iter_mut().map(|core| core.shard.stats().get(counter)).sum()
    }

    /// Runs something on the node's first core, at once.
    pub(super) fn on(&mut self, node: usize, task: impl FnOnce(&mut Actor, &mut Context<'_>) + Send + 'static) {
        self.task(node, 0, task);
        self.run(0);
    }

    pub(super) fn raw_write(&mut self, end: End, bytes: &[u8]) {
        assert_eq!(self.net.write(self.now, end, &[IoSlice::new(bytes)]), Ok(bytes.len()));
    }

    /// Everything that has arrived.
    pub(super) fn raw_read(&mut self, end: End) -> Vec<u8> {
        let mut all = Vec::new();
        while let Read::Bytes(bytes) = self.net.read(self.now, end, usize::MAX) {
            all.extend(bytes);
        }
        all
    }

    /// A connection to a node that no engine stands behind, after its handshake: the test is the other side. `peer` is its id there.
    pub(super) fn raw_peer(&mut self, node: usize) -> (End, PeerId) {
        let before = self.peers(node);
        let end = self.net.connect(self.now, node);
        self.say_hello(node, end, end.link, 1);
        self.await_greeting(end);
        (end, self.make_ready(node, end, &before))
    }

    /// The same, by the name that the raw peer of link `namesake` had: that node, come back as this instance.
    pub(super) fn raw_peer_named(&mut self, node: usize, namesake: u32, instance: u64) -> (End, PeerId) {
        let before = self.peers(node);
        let end = self.greet(node, namesake, instance);
        (end, self.make_ready(node, end, &before))
    }

    /// A connection with the name that the raw peer of link `namesake` had, and its hello on the way.
    pub(super) fn connect_as(&mut self, node: usize, namesake: u32, instance: u64) -> End {
        let end = self.net.connect(self.now, node);
        self.say_hello(node, end, namesake, instance);
        end
    }

    /// The same, and the engine has answered.
    pub(super) fn greet(&mut self, node: usize, namesake: u32, instance: u64) -> End {
        let end = self.connect_as(node, namesake, instance);
        self.await_greeting(end);
        end
    }

    fn say_hello(&mut self, node: usize, end: End, namesake: u32, instance: u64) {
        self.run(2 * MILLI);
        let config = &self.nodes[node].config;
        let hello = Hello { network: config.network, node: raw_name(namesake), instance, features: 0, max_message: 1 << 20, channel: 0 };
        self.raw_write(end, &[&Preamble::PLAINTEXT.encode()[..], &hello.encode()].concat());
    }

    fn await_greeting(&mut self, end: End) {
        let (mut greeting, deadline) = (Vec::new(), self.now + 20 * SECOND);
        while greeting.len() < 96 {
            assert!(self.now < deadline, "no greeting");
            self.run(4 * MILLI);
            greeting.extend(self.raw_read(end));
        }
        assert_eq!(greeting.len(), 96);
    }

    fn make_ready(&mut self, node: usize, end: End, before: &[PeerId]) -> PeerId {
        self.raw_write(end, &Header::control(Kind::Ready).encode());
        let is_new = |peer: &PeerId| !before.contains(peer);
        assert!(self.run_until(20 * SECOND, |world| world.peers(node).iter().any(is_new)));
        self.peers(node).into_iter().find(is_new).expect("there is one more")
    }
}

/// The name of the raw peer of a link.
pub(super) fn raw_name(link: u32) -> NodeId {
    let mut name = NodeId([200; 32]);
    name.0[..8].copy_from_slice(&u64::from(link).to_le_bytes());
    name
}

/// At `after`, or less than a tick and a turn later.
#[track_caller]
fn assert_at(at: u64, begin: u64, after: Duration) {
    let took = at - begin;
    assert!((nanos(after)..nanos(after) + 2 * MILLI).contains(&took), "after {:?} instead of {after:?}", Duration::from_nanos(took));
}

#[test]
fn sim_a_silent_peer_is_pinged_at_the_interval_and_cut_off_at_the_timeout() {
    let mut world = world([config()]);
    let (end, _) = world.raw_peer(0);
    let (keepalive, begin) = (world.nodes[0].config.keepalive, world.now);
    world.run(nanos(keepalive.interval) - MILLI);
    assert_eq!(world.raw_read(end), [0; 0]);
    world.run(4 * MILLI);
    assert_eq!(world.raw_read(end), control_frame(Kind::Ping, 1u64.to_le_bytes()));
    world.run(60 * SECOND);
    let closed = world.closed(0);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].1, CloseReason::Unresponsive);
    assert_at(closed[0].0, begin, keepalive.timeout);
}

#[test]
fn sim_an_idle_pair_stays_connected() {
    let mut world = pair(config(), config());
    world.run(600 * SECOND);
    assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]));
    assert!(world.count(0, Counter::PingsSent) > 50);
}

#[test]
fn sim_a_pong_is_not_forgotten_because_a_ping_is_queued() {
    let mut world = world([config()]);
    world.net.faults.capacity = (10_000, 10_000);
    let (end, peer) = world.raw_peer(0);
    // The socket is full before the ping of this side is due, so that stands in the queue when theirs comes.
    world.on(0, move |actor, cx| assert_eq!(actor.send(cx, peer, META, 100_000), Ok(Sent::Queued)));
    world.run(5500 * MILLI);
    world.raw_write(end, &control_frame(Kind::Ping, 77u64.to_le_bytes()));
    let mut got = Vec::new();
    for _ in 0..40 {
        world.run(10 * MILLI);
        got.extend(world.raw_read(end));
    }
    let pong = control_frame(Kind::Pong, 77u64.to_le_bytes());
    assert!(got.windows(pong.len()).any(|window| window == pong), "the ping was not answered");
}

#[test]
fn sim_a_peer_that_takes_nothing_is_cut_off_after_the_write_stall() {
    let mut world = world([config()]);
    world.net.faults.capacity = (10_000, 10_000);
    let (end, peer) = world.raw_peer(0);
    let begin = world.now;
    world.on(0, move |actor, cx| assert_eq!(actor.send(cx, peer, META, 50_000), Ok(Sent::Queued)));
    // It is alive, and says so, but reads nothing.
    for _ in 0..30 {
        world.run(SECOND);
        if world.closed(0).is_empty() {
            world.raw_write(end, &control_frame(Kind::Ping, [0; 8]));
        }
    }
    let closed = world.closed(0);
    assert_eq!(closed[0].1, CloseReason::SlowPeer(Slow::WriteStall));
    assert_at(closed[0].0, begin, world.nodes[0].config.timeouts.write_stall);
}

#[test]
fn sim_broadcasts_cut_off_who_is_past_the_hard_bound_and_nobody_else() {
    let mut small = config();
    small.limits.max_message = 20_000;
    small.limits.outbox_hard = 100_000;
    small.limits.outbox_soft = 100_000;
    let mut world = pair(small, config());
    let fast = world.peer(0);
    world.net.faults.capacity = (10_000, 10_000);
    let (_, slow) = world.raw_peer(0);
    for _ in 0..30 {
        world.on(0, |actor, cx| {
            let body = actor.body(10_000);
            let frame = cx.frame(META, &body).unwrap();
            assert_eq!(actor.broadcast(cx, &[frame], None), Ok(()));
        });
        world.run(20 * MILLI);
    }
    assert_eq!(world.closed(0).iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [CloseReason::SlowPeer(Slow::HardBound)]);
    assert_eq!((world.messages(1), world.peers(0)), (30, vec![fast]));
    assert_eq!(world.oracle.borrow().reason(world.nodes[0].engine, slow), Some(CloseReason::SlowPeer(Slow::HardBound)));
}

#[test]
fn sim_a_direct_send_past_the_hard_bound_is_refused_and_nobody_is_cut_off() {
    let mut world = world([config()]);
    world.net.faults.capacity = (10_000, 10_000);
    let (_, peer) = world.raw_peer(0);
    let hard = world.nodes[0].config.limits.outbox_hard;
    world.on(0, move |actor, cx| {
        let mut taken = 0;
        while actor.send(cx, peer, META, 1 << 20).is_ok() {
            taken += 1 << 20;
        }
        assert!(taken <= hard && taken > hard - (2 << 20));
        assert_eq!(actor.send(cx, peer, META, 1 << 20), Err(SendError::OutboxFull));
    });
    world.run(SECOND);
    assert_eq!(world.closed(0), []);
}

/// A reader of so many bytes every 10 ms, behind a full socket and over the soft mark: how it ends in 30 s, and when it was drained.
fn read_at(bytes: usize) -> (Vec<(u64, CloseReason)>, usize) {
    let mut config = config();
    config.limits.outbox_soft = 1 << 20;
    let mut world = world([config]);
    world.net.faults.capacity = (20_000, 20_000);
    let (end, peer) = world.raw_peer(0);
    world.on(0, move |actor, cx| {
        let results: Vec<_> = (0..4).map(|_| actor.send(cx, peer, META, 1 << 20)).collect();
        assert_eq!(results[..], [Ok(Sent::Backpressure); 4]);
    });
    let begin = world.now;
    for step in 0..3000 {
        world.run(10 * MILLI);
        let _ = world.net.read(world.now, end, bytes);
        // It is alive, and says so where it still can.
        if step % 100 == 0 {
            let _ = world.net.write(world.now, end, &[IoSlice::new(&control_frame(Kind::Ping, [0; 8]))]);
        }
    }
    let closed = world.closed(0).into_iter().map(|(at, reason)| (at - begin, reason)).collect();
    (closed, world.told(0, |told| (*told == Told::Drained).then_some(())).len())
}

#[test]
fn sim_the_soft_mark_cuts_off_who_drains_slowly_and_spares_who_is_only_behind() {
    // 64 KiB/s are 655 bytes in 10 ms. Freed room is told of late, so neither case is near the line.
    let (closed, drained) = read_at(300);
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].1, drained), (CloseReason::SlowPeer(Slow::SoftMark), 0));
    assert_at(closed[0].0, 0, Duration::from_secs(5));
    // Three of four mebibytes take it longer than the grace time.
    let (closed, drained) = read_at(4000);
    assert!(closed.is_empty(), "{closed:?}");
    assert_eq!(drained, 1);
}

#[test]
fn sim_an_unfinished_frame_or_message_has_a_deadline() {
    let mut message = Vec::new();
    append_message(&mut message, Draft::data(META, &[1; 40_000]), 16 << 10);
    let per_byte = 1_000_000_000 / (64 << 10);
    for (sent, missing) in [(3, 8), (1000, 8 + (16 << 10)), (8 + (16 << 10), 40_000 - (16 << 10) + 4)] {
        let mut world = world([config()]);
        let (end, _) = world.raw_peer(0);
        world.raw_write(end, &message[..sent]);
        world.run(MILLI);
        let begin = world.now;
        world.run(14 * SECOND);
        let closed = world.closed(0);
        assert_eq!(closed.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [CloseReason::PartialTimeout], "{sent} bytes");
        assert_at(closed[0].0, begin, world.nodes[0].config.timeouts.partial + Duration::from_nanos(missing as u64 * per_byte));
    }
}

#[test]
fn sim_a_paused_peer_is_given_up_at_its_own_deadline_and_not_for_its_silence() {
    let mut world = world([config()]);
    let (_, peer) = world.raw_peer(0);
    let begin = world.now;
    world.on(0, move |_, cx| cx.pause_read(peer));
    world.run(100 * SECOND);
    let closed = world.closed(0);
    assert_eq!(closed[0].1, CloseReason::PausedTooLong);
    assert_at(closed[0].0, begin, world.nodes[0].config.timeouts.pause);
}

#[test]
fn sim_nothing_is_lost_or_doubled_by_pauses() {
    let mut world = World::new(7, Faults { short_read: 300, ..Faults::none() }, Pace::prompt());
    world.oracle.borrow_mut().records_told = true;
    world.add_node(config(), &Mood::quiet());
    world.add_node(config(), &Mood { pause: 30, ..Mood::quiet() });
    world.dial(0, 1);
    world.run(100 * MILLI);
    let (sender, receiver) = (world.peer(0), world.peer(1));
    for number in 0..2000 {
        // Bytes and the word to go on reading come in the same turn; what was put aside has to come before the bytes.
        world.on(0, move |actor, cx| (0..3).for_each(|len| assert!(actor.send(cx, sender, META, 900 * len + number % 100).is_ok())));
        world.task_in(MILLI, 1, 0, move |actor, cx| {
            if number % 2 == 0 {
                cx.pause_read(receiver);
            }
            actor.resume(cx, receiver);
        });
        world.run(MILLI);
    }
    world.run(600 * SECOND);
    assert_eq!((world.messages(1), world.closed(1)), (6000, vec![]));
}

#[test]
fn sim_trickled_bytes_do_not_extend_a_handshake() {
    let mut world = world([config()]);
    let end = world.net.connect(world.now, 0);
    world.run(MILLI);
    let begin = world.now;
    for byte in Preamble::PLAINTEXT.encode().into_iter().chain([0; 72]) {
        if world.count(0, Counter::HandshakeTimeout) > 0 {
            break;
        }
        world.raw_write(end, &[byte]);
        world.run(100 * MILLI);
    }
    assert_eq!(world.count(0, Counter::HandshakeTimeout), 1);
    let timeout = nanos(world.nodes[0].config.timeouts.handshake);
    assert!(world.now - begin >= timeout && world.now - begin < timeout + 200 * MILLI);
    assert_eq!(world.count(0, Counter::HalfOpen), 0);
}

#[test]
fn sim_a_request_that_is_not_answered_times_out_once_and_the_late_response_is_ignored() {
    let mut world = World::new(7, Faults::none(), Pace::prompt());
    world.oracle.borrow_mut().records_told = true;
    world.add_node(config(), &Mood::quiet());
    world.add_node(config(), &Mood { answer: [0, 100, 0], ..Mood::quiet() });
    world.dial(0, 1);
    world.run(100 * MILLI);
    let (peer, begin) = (world.peer(0), world.now);
    // The answer comes within three seconds, and later than 3 ms.
    world.on(0, move |actor, cx| _ = actor.request(cx, peer, META, 100, Duration::from_millis(3)));
    world.run(10 * SECOND);
    let responses = world.told(0, |told| if let Told::Response { result, .. } = told { Some(*result) } else { None });
    assert_eq!(responses.iter().map(|(_, result)| *result).collect::<Vec<_>>(), [Err(RequestError::TimedOut)]);
    assert_at(responses[0].0, begin, Duration::from_millis(3));
    assert_eq!((world.count(0, Counter::LateResponses), world.closed(0)), (1, vec![]));
}

#[test]
fn sim_requests_to_a_peer_that_ends_are_answered_with_that() {
    let mut world = pair(config(), config());
    let peer = world.peer(0);
    world.on(0, move |actor, cx| {
        actor.request(cx, peer, META, 100, Duration::from_secs(9));
        actor.request(cx, peer, META, 100, Duration::from_secs(9));
        cx.close(peer);
    });
    world.run(20 * SECOND);
    let responses = world.told(0, |told| if let Told::Response { result, .. } = told { Some(*result) } else { None });
    assert_eq!(responses.iter().map(|(_, result)| *result).collect::<Vec<_>>(), [Err(RequestError::PeerClosed); 2]);
    assert_eq!(world.count(0, Counter::Timers), 0);
}

#[test]
fn sim_a_node_that_has_restarted_takes_the_place_of_its_old_connection() {
    let mut world = pair(named(1), named(2));
    let old = world.peer(1);
    world.restart(0, &Mood::quiet());
    // Whether the old connection vanished or was reset, the new one stands.
    world.dial(0, 1);
    world.run(3 * SECOND);
    let reason = world.oracle.borrow().reason(world.nodes[1].engine, old).expect("the old one has ended");
    assert!(matches!(reason, CloseReason::Replaced | CloseReason::Io(_)), "{reason:?}");
    assert_ne!(world.peer(1), old);
    world.oracle.borrow().check_agreement();
}

#[test]
fn sim_simultaneous_dials_end_in_one_connection() {
    for seed in 0..60 {
        let mut world =
            World::new(seed, Faults { latency: (MILLI, 3 * MILLI), ..Faults::none() }, Pace { mail: 2 * MILLI, ..Pace::prompt() });
        world.oracle.borrow_mut().records_told = true;
        for name in [2, 1] {
            world.add_node(named(name).cores(Cores::Unpinned(2)), &Mood::quiet());
        }
        world.dial(0, 1);
        world.run(world.rng.clone().below(8 * MILLI));
        world.dial(1, 0);
        world.run(20 * SECOND);
        // Both keep the one that the smaller has dialled, which is the second node.
        let _ = (world.peer(0), world.peer(1));
        world.oracle.borrow().check_agreement();
        let last = |node: usize| {
            let connected = world.told(node, |told| if let Told::Connected { info } = told { Some(info.direction) } else { None });
            connected.last().expect("connected").1
        };
        assert_eq!((last(0), last(1)), (Direction::Accepted, Direction::Dialled), "seed {seed}");
    }
}

#[test]
fn sim_one_peer_too_many_is_refused_as_full() {
    let mut full = config();
    full.limits.max_peers = 1;
    let mut world = world([full, config(), config()]);
    world.dial(1, 0);
    world.run(100 * MILLI);
    world.on(2, |actor, cx| actor.dial(cx, Dial::to(address(0)).once()));
    world.run(SECOND);
    assert_eq!((world.peers(0).len(), world.peers(2).len()), (1, 0));
    let failed = world.told(2, |told| if let Told::DialFailed { error, retry_in } = told { Some((*error, *retry_in)) } else { None });
    let code = crate::wire::RefusalCode::Full;
    let expected = (DialError::Handshake(crate::error::HandshakeError::RefusedByPeer(code)), None);
    assert_eq!(failed.iter().map(|(_, failed)| *failed).collect::<Vec<_>>(), [expected]);
}

/// How often a node connects in 20 s to one that closes at once, having sent something first or not.
fn connects(useful: bool) -> u64 {
    let mut world = world([config(), config()]);
    world.dial(0, 1);
    let end = world.now + 20 * SECOND;
    while world.now < end {
        if world.run_until(end - world.now, |world| !world.peers(1).is_empty() && !world.peers(0).is_empty()) {
            let peer = world.peer(1);
            world.on(1, move |actor, cx| {
                if useful {
                    let _ = actor.send(cx, peer, META, 10);
                }
                cx.close(peer);
            });
            world.run(10 * MILLI);
        } else {
            world.run(end.saturating_sub(world.now));
        }
    }
    world.count(0, Counter::Established)
}

#[test]
fn sim_backoff_begins_anew_only_after_a_message() {
    let (useless, useful) = (connects(false), connects(true));
    assert!(useless < 25 && useful > 100, "{useless} connects without a message, {useful} with one");
}

#[test]
fn sim_a_dial_that_times_out_while_the_directory_is_asked_goes_on_once() {
    // The directory takes about as long to answer as a handshake may, so that grants cross with the news that it is too late.
    let mut hasty = config().cores(Cores::Unpinned(2));
    hasty.timeouts.handshake = Duration::from_millis(45);
    hasty.backoff.max = Duration::from_millis(100);
    let mut world = World::new(7, Faults::none(), Pace { mail: 40 * MILLI, ..Pace::prompt() });
    for _ in 0..3 {
        world.add_node(hasty.clone(), &Mood::quiet());
    }
    // The first connection is core 0's, so the second is core 1's, which has to ask.
    world.dial(0, 1);
    world.run(10 * SECOND);
    world.dial(0, 2);
    for _ in 0..20_000 {
        world.run(MILLI);
        let attempts: usize = world.nodes[0].cores.iter().map(|core| core.shard.half_open()).sum();
        assert!(attempts <= 1, "one dial makes {attempts} attempts at once");
        if let Some(&peer) = world.peers(0).iter().find(|peer| peer.core() == 1) {
            world.task(0, 1, move |_, cx| cx.close(peer));
        }
    }
    assert!(world.count(0, Counter::HandshakeTimeout) > 5);
}

#[test]
fn sim_a_close_delivers_what_was_queued() {
    let mut world = pair(config(), config());
    world.net.faults.latency = (20 * MILLI, 20 * MILLI);
    let peer = world.peer(0);
    world.on(0, move |actor, cx| {
        for number in 0..100 {
            let lane = Lane::ALL[number % 3];
            actor.send(cx, peer, META.lane(lane), number * 300).unwrap();
        }
        cx.close(peer);
        assert_eq!(actor.send(cx, peer, META, 1), Err(SendError::Closing));
    });
    world.run(10 * SECOND);
    assert_eq!(world.messages(1), 100);
    let reasons = |node| world.closed(node).iter().map(|(_, reason)| *reason).collect::<Vec<_>>();
    assert_eq!((reasons(0), reasons(1)), (vec![CloseReason::Requested], vec![CloseReason::Goodbye(GoodbyeCode::Closed)]));
}

#[test]
fn sim_a_shutdown_drains_and_then_says_what_did_not_leave() {
    let mut world = pair(config(), config());
    let peer = world.peer(0);
    world.net.faults.capacity = (10_000, 10_000);
    let (_, stuck) = world.raw_peer(0);
    world.on(0, move |actor, cx| {
        for _ in 0..50 {
            actor.send(cx, peer, META, 10_000).unwrap();
        }
        actor.send(cx, stuck, META, 100_000).unwrap();
    });
    world.shut_down(0);
    let down = |world: &mut World| world.nodes[0].cores[0].shard.is_shut_down();
    assert!(!down(&mut world));
    let begin = world.now;
    assert!(world.run_until(20 * SECOND, down));
    assert_eq!(world.messages(1), 50);
    let unsent = world.nodes[0].cores[0].shard.unsent_bytes();
    assert!((90_000..101_000).contains(&unsent), "{unsent}");
    assert_at(world.now, begin, world.nodes[0].config.timeouts.drain);
}

#[test]
fn sim_a_shutdown_ends_although_one_core_hears_of_it_late() {
    for seed in 0..20 {
        let mut world = World::new(seed, Faults::none(), Pace { mail: 30 * MILLI, ..Pace::prompt() });
        for _ in 0..4 {
            world.add_node(config().cores(Cores::Unpinned(2)), &Mood::quiet());
        }
        for target in 1..4 {
            world.dial(0, target);
        }
        world.run(world.rng.clone().below(100 * MILLI));
        world.control(0, 1, Control::Shutdown);
        world.run(SECOND);
        world.control(0, 0, Control::Shutdown);
        world.run(20 * SECOND);
        assert!(world.nodes[0].cores.iter().all(|core| core.shard.is_shut_down()), "seed {seed}");
        assert_eq!(world.peers(0), []);
    }
}

#[test]
fn sim_without_memory_for_a_message_its_peer_waits_and_then_goes_on() {
    let mut small = config();
    small.limits.max_message = 100_000;
    small.limits.reassembly_bytes = 100_000;
    small.limits.reassembly_reserve = 0;
    let mut world = world([small]);
    let (first, _) = world.raw_peer(0);
    let (second, _) = world.raw_peer(0);
    let mut message = Vec::new();
    append_message(&mut message, Draft::data(META, &[1; 60_000]), 16 << 10);
    append_message(&mut message, Draft::data(META, &[2; 10]), 16 << 10);
    world.raw_write(first, &message[..20_000]);
    world.run(10 * MILLI);
    world.raw_write(second, &message);
    world.run(SECOND);
    assert_eq!((world.messages(0), world.count(0, Counter::ReassemblyWaits)), (0, 1));
    world.raw_write(first, &message[20_000..]);
    world.run(SECOND);
    assert_eq!((world.messages(0), world.count(0, Counter::ReassemblyBytes)), (4, 0));
}

#[test]
fn sim_hoarders_of_unfinished_messages_do_not_make_a_modest_peer_wait() {
    let mut small = config();
    small.limits.max_message = 100_000;
    small.limits.reassembly_bytes = 200_000;
    small.limits.reassembly_reserve = 68 << 10;
    let mut world = world([small]);
    let mut long = Vec::new();
    append_message(&mut long, Draft::data(META, &[1; 100_000]), 16 << 10);
    // Each is charged 100,000 bytes, of which 30,368 are shared: six have room.
    for _ in 0..7 {
        let (hoarder, _) = world.raw_peer(0);
        world.raw_write(hoarder, &long[..20_000]);
        world.run(10 * MILLI);
    }
    assert_eq!(world.count(0, Counter::ReassemblyWaits), 1);
    let (modest, _) = world.raw_peer(0);
    let mut medium = Vec::new();
    append_message(&mut medium, Draft::data(META, &[2; 60_000]), 16 << 10);
    world.raw_write(modest, &medium);
    world.run(SECOND);
    // Its reserve was there. The one that waits has tried once more, since a message was finished.
    assert_eq!((world.messages(0), world.count(0, Counter::ReassemblyWaits)), (1, 2));
    assert!(world.count(0, Counter::BufferHits) > 0, "the modest peer's message grew in buffers that were used before");
}

#[test]
fn sim_hoarders_of_the_send_budget_do_not_keep_a_modest_peer_from_being_sent_to() {
    let mut small = config();
    small.limits.send_bytes = 2 << 20;
    small.limits.send_reserve = 10_000;
    let mut world = world([small]);
    world.net.faults.capacity = (1000, 1000);
    let (_, hoarder) = world.raw_peer(0);
    let (_, modest) = world.raw_peer(0);
    world.on(0, move |actor, cx| {
        while actor.send(cx, hoarder, META, 100_000).is_ok() {}
        while actor.send(cx, hoarder, META, 100).is_ok() {}
        assert_eq!(actor.send(cx, hoarder, META, 1000), Err(SendError::OutboxFull));
        assert_eq!(actor.send(cx, modest, META, 20_000), Err(SendError::OutboxFull), "beyond its reserve there is nothing");
        let sent = (0..20).take_while(|_| actor.send(cx, modest, META, 1000).is_ok()).count();
        assert!((8..10).contains(&sent), "{sent} messages of 1,000 bytes fit 10,000");
    });
    let private = world.count(0, Counter::PrivateBytes) as usize;
    assert!(private > 2 << 20 && private <= (2 << 20) + 20_000, "{private}");
}

/// A peer that reads nothing gets `first` bytes by broadcast and is left out of what follows, which fills the log. How it ends.
fn left_out(first: usize) -> (World, PeerId) {
    let mut small = config();
    small.limits.outbox_hard = 3 << 20;
    small.limits.log_bytes = 6 << 20;
    let mut world = pair(small, config());
    world.net.faults.capacity = (1000, 1000);
    let (_, slow) = world.raw_peer(0);
    world.on(0, move |actor, cx| {
        let body = actor.body(first);
        let frame = cx.frame(META, &body).unwrap();
        assert_eq!(actor.broadcast(cx, &[frame], None), Ok(()));
    });
    for _ in 0..900 {
        world.on(0, move |actor, cx| {
            let body = actor.body(10_000);
            let frame = cx.frame(META, &body).unwrap();
            assert_eq!(actor.broadcast(cx, &[frame], Some(slow)), Ok(()));
        });
        world.run(5 * MILLI);
        assert!(world.count(0, Counter::LogBytes) <= 7 << 20);
    }
    assert_eq!(world.messages(1), 901);
    (world, slow)
}

#[test]
fn sim_a_peer_that_is_left_out_of_broadcasts_does_not_keep_the_log() {
    let (mut world, slow) = left_out(2000);
    assert!(world.count(0, Counter::LogEvacuations) >= 1);
    assert!(world.peers(0).contains(&slow), "what it needs is little, and was copied");
    let (world, slow) = left_out(100_000);
    let reason = world.oracle.borrow().reason(world.nodes[0].engine, slow);
    assert_eq!(reason, Some(CloseReason::SlowPeer(Slow::LogFull)));
}
