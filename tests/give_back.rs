//! Everything that a connection had is given back, whichever way it ends.
//!
//! Set-up: one test in a process of its own, so that its files can be counted; an engine whose peers are loaded with everything that a peer
//! can have: half a frame, half a message, subscriptions both ways, requests both ways, messages that nobody has acknowledged, a backlog, a
//! user value, a timer. They end in each way there is, in plaintext by the hand of a raw peer, encrypted by that of another engine. Claim:
//! after each, files, peers, and every level that is counted are what they were when nobody was there, the user value is gone, exactly
//! the counter of that ending has moved, and there is one ending for every peer that ever was, and one counter for every connection.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::node::{Node, PANIC};
use common::raw::{
    BULK, FRAGMENT, HIGH, Hello, NORMAL, PREAMBLE, REQUEST, Raw, SUBSCRIBE, acked, control, data, first, frame, goodbye, header,
};
use common::{LIVENESS, NEVER, Wire, eventually, eventually_counts, eventually_stats, loopback, open_files};
use corecast::{CloseReason, Config, Counter, GoodbyeCode, Handle, PeerId, PeerInfo, Stats, Target, Topic};

/// Everything that says how much there is now. What the pool of buffers keeps for the next is not a peer's, and has its own bound.
const LEVELS: &[Counter] = &[
    Counter::Peers,
    Counter::HalfOpen,
    Counter::Subscriptions,
    Counter::LogBytes,
    Counter::PrivateBytes,
    Counter::ReassemblyBytes,
    Counter::Timers,
    Counter::Receipts,
    Counter::ReceiptBytes,
];

/// A raw peer by this name is not wanted, and one by the other is panicked over.
const UNWANTED: u32 = 900;
const STUMBLED_OVER: u32 = 901;

fn config() -> Config {
    let mut config = loopback();
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config.timeouts.handshake = Duration::from_millis(150);
    config.timeouts.linger = Duration::from_millis(100);
    config.timeouts.drain = Duration::from_millis(300);
    config.timeouts.partial = NEVER;
    config.timeouts.pause = NEVER;
    config.restarts.most = 100;
    config.acks.retain = Duration::from_millis(10);
    // A place that is lost is missed at once.
    config.limits.max_peers = 4;
    config.limits.max_half_open = 4;
    config
}

/// The sum of the counters whose names begin like this.
fn sum(stats: &Stats, prefix: &str) -> u64 {
    stats.iter().filter(|(counter, _)| counter.name().starts_with(prefix)).map(|(_, count)| count).sum()
}

/// What there was when nobody was there.
struct Baseline {
    files: usize,
    levels: Vec<u64>,
}

impl Baseline {
    fn levels(stats: &Stats) -> Vec<u64> {
        LEVELS.iter().map(|&level| stats.get(level)).collect()
    }

    fn of<C: Send + 'static>(handle: &Handle<C>) -> Self {
        Self { files: open_files(), levels: Self::levels(&handle.stats()) }
    }

    /// That is how it is again, and every peer that ever was has ended once.
    fn is_back<C: Send + 'static>(&self, handle: &Handle<C>, way: &str, value: &Arc<()>) {
        eventually_stats(handle, &format!("{way}: every level is what it was"), |stats| Self::levels(stats) == self.levels);
        eventually(&format!("{way}: as many files are open as when nobody was there"), || open_files() == self.files);
        eventually(&format!("{way}: the value that was kept with the peer is gone"), || Arc::strong_count(value) == 1);
        assert!(handle.peers(LIVENESS).unwrap().is_empty(), "{way}");
        let stats = handle.stats();
        let ended = sum(&stats, "closed_");
        assert_eq!(stats.get(Counter::Established), ended, "{way}: one ending for each peer: {stats:?}");
        assert!(stats.get(Counter::BufferBytes) <= config().limits.buffer_pool as u64, "{way}: {stats:?}");
    }
}

/// Gives a peer of the node everything that one can have.
fn load(node: &Node, peer: PeerId, value: &Arc<()>) {
    let value = Arc::clone(value);
    node.run(peer.core(), move |cx| {
        assert!(cx.set_user(peer, value));
        assert_eq!(cx.subscribe(peer, Topic(5)), Ok(()));
        assert!(cx.request(peer, 1, b"?", NEVER, 1).is_ok());
        assert!(cx.send_acked(Target::Peer(peer), 1, b"!", Duration::from_millis(50), 2).is_ok());
        assert!(cx.set_timer(Duration::from_millis(50), 3).is_some());
        let shared = cx.frame(1, &[0; 10_000]).unwrap();
        assert_eq!(cx.broadcast(&shared), Ok(()));
        assert_eq!(cx.publish(Topic(7), &shared), Ok(()));
    });
}

/// The same, from the raw peer's side: in the end it is in the middle of a frame.
fn say_everything(raw: &mut Raw) {
    let mut said = control(SUBSCRIBE, 7);
    said.extend(frame(REQUEST, NORMAL, 1, &[1; 20]));
    said.extend(acked(1, 77, b"!"));
    said.extend(first(HIGH, 1, 30_000, &[1; 9000]));
    said.extend(first(BULK, 1, 200_000, &[1; 9000]));
    raw.send(&said);
}

/// How a raw peer ends, and as what that is counted.
type Way = (&'static str, Counter, fn(&mut Node, Raw, PeerId));

fn reason(node: &mut Node, peer: PeerId, expected: CloseReason) {
    assert_eq!(node.closed(peer), expected);
}

const WAYS: &[Way] = &[
    ("end of stream", Counter::ClosedEof, |node, raw, peer| {
        raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
        reason(node, peer, CloseReason::Eof);
    }),
    ("reset", Counter::ClosedIo, |node, raw, peer| {
        // With half a frame before, and a backlog.
        node.run(peer.core(), move |cx| (0..40).for_each(|_| assert!(cx.send(peer, 1, &[0; 100_000]).is_ok())));
        raw.reset();
        assert!(matches!(node.closed(peer), CloseReason::Io(_)));
    }),
    ("goodbye", Counter::ClosedGoodbye, |node, mut raw, peer| {
        raw.send(&goodbye(0, 0));
        reason(node, peer, CloseReason::Goodbye(GoodbyeCode::Closed));
    }),
    ("violation", Counter::ClosedViolation, |node, mut raw, peer| {
        raw.send(&header(0, 99, NORMAL, 0));
        assert!(matches!(node.closed(peer), CloseReason::Violation(_)));
        raw.read_to_end();
    }),
    ("close", Counter::ClosedRequested, |node, mut raw, peer| {
        raw.send(&data(1, &[0; 100])[..50]);
        node.run(peer.core(), move |cx| {
            (0..40).for_each(|_| assert!(cx.send(peer, 1, &[0; 100_000]).is_ok()));
            cx.close(peer);
        });
        reason(node, peer, CloseReason::Requested);
        raw.read_to_end();
    }),
    ("close of one that is paused", Counter::ClosedRequested, |node, mut raw, peer| {
        node.run(peer.core(), move |cx| cx.pause_read(peer));
        raw.send(&data(1, &[0; 20_000]));
        node.handle().close(peer).unwrap();
        reason(node, peer, CloseReason::Requested);
        raw.read_to_end();
    }),
    ("close of one that does not read", Counter::ClosedRequested, |node, raw, peer| {
        node.run(peer.core(), move |cx| {
            (0..100).for_each(|_| assert!(cx.send(peer, 1, &[0; 100_000]).is_ok()));
            cx.close(peer);
        });
        reason(node, peer, CloseReason::Requested);
        // Until the engine gives up on it.
        eventually_counts(&node.handle(), Counter::Peers, 0);
        eventually("its socket is closed", || node.handle().stats().get(Counter::PrivateBytes) == 0);
        drop(raw);
    }),
    ("panic", Counter::ClosedHandlerPanicked, |node, mut raw, peer| {
        raw.send(&[data(PANIC, b"x"), data(1, b"after it")].concat());
        reason(node, peer, CloseReason::HandlerPanicked);
        raw.read_to_end();
    }),
    ("panic over a message in pieces", Counter::ClosedHandlerPanicked, |node, mut raw, peer| {
        // In the lane that has nothing else unfinished.
        raw.send(&first(NORMAL, PANIC, 20_000, &[1; 10_000]));
        raw.send(&frame(FRAGMENT, NORMAL, PANIC, &[1; 10_000]));
        reason(node, peer, CloseReason::HandlerPanicked);
        raw.read_to_end();
    }),
    ("slow reader", Counter::SlowHardBound, |node, mut raw, peer| {
        let block = node.handle().frame(1, &[0; 1 << 20]).unwrap();
        let before = node.count(Counter::SlowHardBound);
        while node.count(Counter::SlowHardBound) == before {
            let _ = node.handle().broadcast(block.clone());
        }
        assert!(matches!(node.closed(peer), CloseReason::SlowPeer(_)));
        raw.read_to_end();
    }),
    ("replaced", Counter::ClosedReplaced, |node, mut raw, peer| {
        // A younger one stays.
        let age = |node: &Node| node.handle().peers(LIVENESS).unwrap()[0].age;
        eventually("a second has passed", || age(node) > Duration::from_secs(1));
        let hello = Hello { instance: raw.hello.instance + 1, ..raw.hello };
        let mut again = Raw::connect(node.address());
        again.send(&hello.greeting());
        reason(node, peer, CloseReason::Replaced);
        raw.read_to_end();
        drop(raw);
        again.read_greeting();
        // It goes while it is still in its handshake, and the next one is there for a moment.
        drop(again);
        let (mut last, id) = node.raw_peer(Hello { instance: hello.instance + 1, ..hello });
        last.send(&goodbye(0, 0));
        node.closed(id);
    }),
];

/// Connections that never become peers, and as what that is counted.
type Attempt = (&'static str, Counter, fn(&Node, Raw));

const ATTEMPTS: &[Attempt] = &[
    ("another protocol", Counter::HandshakeWrongMagic, |_, mut raw| {
        raw.try_send(b"SSH-2.0-x\r\n");
        raw.read_to_end();
    }),
    ("half a preamble and the end", Counter::HandshakeEof, |_, mut raw| {
        raw.send(&PREAMBLE[..5]);
        drop(raw);
    }),
    ("half a preamble and silence", Counter::HandshakeTimeout, |_, mut raw| {
        raw.send(&PREAMBLE[..5]);
        raw.read_to_end();
    }),
    ("reset in the handshake", Counter::HandshakeIo, |node, mut raw| {
        raw.send(&Hello::node(1).greeting()[..50]);
        eventually_counts(&node.handle(), Counter::HalfOpen, 1);
        raw.reset();
    }),
    ("another network", Counter::HandshakeWrongNetwork, |_, mut raw| {
        raw.send(&Hello { network: [9; 32], ..Hello::node(1) }.greeting());
        raw.read_to_end();
    }),
    ("end before the last word", Counter::HandshakeEof, |_, mut raw| {
        raw.send(&Hello::node(1).greeting());
        raw.read_greeting();
        drop(raw);
    }),
    ("not wanted", Counter::HandshakeNotAllowed, |_, mut raw| {
        raw.send(&Hello::node(UNWANTED).greeting());
        raw.read_to_end();
    }),
    ("panic over whether it is wanted", Counter::HandshakeNotAllowed, |_, mut raw| {
        raw.send(&Hello::node(STUMBLED_OVER).greeting());
        raw.read_to_end();
    }),
];

fn judge(PeerInfo { node, .. }: &PeerInfo) -> bool {
    if node.0 == Hello::node(STUMBLED_OVER).node {
        std::panic::resume_unwind(Box::new(common::node::MEANT));
    }
    node.0 != Hello::node(UNWANTED).node
}

fn raw_peers() {
    let before = open_files();
    let value = Arc::new(());
    let mut node = Node::judging(config(), judge);
    node.run(0, |_| true);
    let baseline = Baseline::of(&node.handle());
    let mut panics = 0;
    for round in 0..2 {
        for (number, &(way, counter, end)) in WAYS.iter().enumerate() {
            let endings = node.count(counter);
            let (mut raw, peer) = node.raw_peer(Hello { instance: 1 + 10 * round, ..Hello::node(number as u32) });
            load(&node, peer, &value);
            say_everything(&mut raw);
            node.counts(Counter::Subscriptions, 1);
            // It has taken everything that it was sent so far, but acknowledges nothing.
            eventually_stats(&node.handle(), "half a message in two lanes", |stats| stats.get(Counter::ReassemblyBytes) > 200_000);
            end(&mut node, raw, peer);
            baseline.is_back(&node.handle(), way, &value);
            assert_eq!(node.count(counter), endings + 1, "{way}");
            panics += u64::from(counter == Counter::ClosedHandlerPanicked);
        }
        for &(way, counter, attempt) in ATTEMPTS {
            let endings = node.count(counter);
            attempt(&node, Raw::connect(node.address()));
            node.counts(counter, endings + 1);
            baseline.is_back(&node.handle(), way, &value);
            panics += u64::from(way.starts_with("panic"));
        }
    }
    // Who was accepted has become a peer or failed in one way.
    let stats = node.handle().stats();
    let failed = sum(&stats, "handshake_") + sum(&stats, "refused_") + stats.get(Counter::HalfOpenEvicted);
    assert_eq!(stats.get(Counter::Accepted), stats.get(Counter::Established) + failed, "{stats:?}");
    assert_eq!(stats.get(Counter::HandlerPanics), panics);
    // All places are free, and a shutdown with everybody there gives all of it back.
    let raws: Vec<_> = (100..104).map(|number| node.raw_peer(Hello::node(number))).collect();
    for (raw, peer) in &raws {
        load(&node, *peer, &value);
        let mut raw = Raw { stream: raw.stream.try_clone().unwrap(), hello: raw.hello };
        say_everything(&mut raw);
    }
    let report = node.engine.shutdown();
    assert!(report.panicked.is_empty() && report.handler_panics == panics, "{report:?}");
    drop(raws);
    assert_eq!((open_files(), Arc::strong_count(&value)), (before, 1));
}

/// How a peer of another engine ends.
type Parting = (&'static str, Counter, fn(&mut Node, Node, PeerId, PeerId));

const PARTINGS: &[Parting] = &[
    ("close here", Counter::ClosedRequested, |server, client, here, there| {
        let mut client = client;
        server.handle().close(here).unwrap();
        assert_eq!(client.closed(there), CloseReason::Goodbye(GoodbyeCode::Closed));
        client.engine.shutdown();
    }),
    ("close there", Counter::ClosedGoodbye, |server, client, here, there| {
        client.handle().close(there).unwrap();
        reason(server, here, CloseReason::Goodbye(GoodbyeCode::Closed));
        client.engine.shutdown();
    }),
    ("shutdown there", Counter::ClosedGoodbye, |server, client, here, _| {
        client.engine.shutdown();
        reason(server, here, CloseReason::Goodbye(GoodbyeCode::ShuttingDown));
    }),
    ("panic here", Counter::ClosedHandlerPanicked, |server, client, here, there| {
        client.run(0, move |cx| assert!(cx.send(there, PANIC, b"x").is_ok()));
        reason(server, here, CloseReason::HandlerPanicked);
        client.engine.shutdown();
    }),
    ("panic there", Counter::ClosedGoodbye, |server, client, here, _| {
        server.run(0, move |cx| assert!(cx.send(here, PANIC, &[1; 50_000]).is_ok()));
        reason(server, here, CloseReason::Goodbye(GoodbyeCode::Closed));
        client.engine.shutdown();
    }),
];

fn engines(wire: Wire) {
    let before = open_files();
    let value = Arc::new(());
    let adjusted = |mut config: Config| {
        config.timeouts = self::config().timeouts;
        config.acks = self::config().acks;
        config.restarts = self::config().restarts;
        config
    };
    let mut server = Node::report(adjusted(wire.listening()));
    server.run(0, |_| true);
    let baseline = Baseline::of(&server.handle());
    for &(way, counter, part) in PARTINGS {
        let way = format!("{way}, {wire:?}");
        let endings = server.count(counter);
        let mut client = Node::report(adjusted(wire.dialling()));
        client.handle().dial(wire.dial(&server.engine).once()).unwrap();
        let ((here, _), (there, _)) = (server.connected(), client.connected());
        load(&server, here, &value);
        load(&client, there, &value);
        part(&mut server, client, here, there);
        baseline.is_back(&server.handle(), &way, &value);
        assert_eq!(server.count(counter), endings + 1, "{way}");
    }
    server.engine.shutdown();
    assert_eq!((open_files(), Arc::strong_count(&value)), (before, 1));
}

#[test]
fn whichever_way_a_connection_ends_everything_that_it_had_is_given_back() {
    raw_peers();
    for wire in Wire::BOTH {
        engines(wire);
    }
}
