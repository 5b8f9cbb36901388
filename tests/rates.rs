//! What a peer may send, and be sent.
//!
//! Set-up: engines with limits, a peer that floods (written by hand, or an engine), and one beside it that behaves. The buckets are such
//! that no token comes back during a test where it must not: they are filled with one token a second, of which a message takes ten
//! thousand. Claim: whichever the policy, the flood gets what its bucket has and no more, exactly, the rest is read later, dropped whole
//! or the end, each with its own counter, and nobody beside it notices; what is sent over the limit is refused, or passes by, and says so.

mod common;

use std::time::{Duration, Instant};

use common::node::{Node, Seen};
use common::raw::{HIGH, Hello, MORE, PING, Raw, control, data, first, frame};
use common::{NEVER, Wire, eventually, loopback};
use corecast::{CloseReason, Config, Counter, PeerId, Rate, RateLimit, Rates, SendError, WhenOver};

/// A bucket has this many messages of [`DEAR`], and as good as no more come.
const BURST: u32 = 100;
const DEAR: u16 = 1;
const COST: u32 = 10_000;
/// Costs nothing.
const FREE: u16 = 9;

fn scarce() -> Option<RateLimit> {
    Some(RateLimit { messages: Some(Rate { per_second: 1, burst: BURST * COST }), bytes: None })
}

fn rated(mut config: Config, change: impl FnOnce(&mut Rates)) -> Config {
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    let mut rates = Rates::default();
    rates.costs = [(DEAR, COST), (FREE, 0)].into();
    change(&mut rates);
    config.rates = Some(rates);
    config
}

fn receiving(when_over: WhenOver) -> Config {
    rated(loopback(), |rates| (rates.receive, rates.when_over) = (scarce(), when_over))
}

fn flood(count: u32) -> Vec<u8> {
    (0..count).flat_map(|number| data(DEAR, &number.to_le_bytes())).collect()
}

/// A node that echoes, and a raw peer that behaves.
struct Beside {
    node: Node,
    good: Raw,
    next: u32,
}

impl Beside {
    fn start(config: Config) -> Self {
        let mut node = Node::echo(config);
        let (good, _) = node.raw_peer(Hello::node(1));
        Self { node, good, next: 0 }
    }

    fn flooder(&mut self) -> (Raw, PeerId) {
        self.node.raw_peer(Hello::node(2))
    }

    /// Nothing happened to the peer beside.
    fn prove_unhurt(&mut self) {
        for _ in 0..20 {
            self.next += 1;
            self.good.echo(FREE, &self.next.to_le_bytes());
        }
        self.good.echo(DEAR, b"within its own limit");
    }

    fn end(self) {
        drop(self.good);
        self.node.finish();
    }
}

#[test]
fn a_flood_over_its_limit_is_dropped_and_counted_to_the_message() {
    let mut beside = Beside::start(rated(loopback(), |rates| {
        (rates.receive, rates.when_over, rates.report) = (scarce(), WhenOver::Drop, Some(Duration::from_millis(1)));
    }));
    let (mut raw, peer) = beside.flooder();
    raw.send(&flood(5 * BURST));
    (0..BURST).for_each(|number| raw.expect_data(DEAR, &number.to_le_bytes()));
    beside.prove_unhurt();
    // One in pieces is one message. What is free passes, before it and after it, in another lane even between its pieces.
    let pieces = [first(3, DEAR, 3000, &[1; 1000]), frame(4, 3 | MORE, DEAR, &[2; 1000]), frame(4, 3, DEAR, &[3; 1000])];
    raw.send(&[&pieces[0][..], &data(FREE, b"a"), &pieces[1], &frame(1, HIGH, FREE, b"b"), &pieces[2], &data(FREE, b"c")].concat());
    // The one in the high lane may come first.
    let mut free: Vec<Vec<u8>> = (0..3).map(|_| raw.message().expect("a message, not the end").2).collect();
    free.sort_unstable();
    assert_eq!(free, [b"a", b"b", b"c"]);
    beside.node.counts(Counter::RateLimitedMessages, u64::from(4 * BURST) + 1);
    let bytes = u64::from(4 * BURST) * 12 + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
    beside.node.counts(Counter::RateLimitedBytes, bytes);
    let (mut messages, mut told) = (0, 0);
    while (messages, told) != (u64::from(4 * BURST) + 1, bytes) {
        let dropped = beside.node.wait("a report of what was dropped", |seen| match seen {
            Seen::RateLimited { peer: from, dropped } if *from == peer => Some(*dropped),
            _ => None,
        });
        (messages, told) = (messages + dropped.messages, told + dropped.bytes);
    }
    for counter in [Counter::RateDelays, Counter::ClosedRateLimited, Counter::SendsRateLimited] {
        assert_eq!(beside.node.count(counter), 0, "{}", counter.name());
    }
    beside.prove_unhurt();
    drop(raw);
    beside.end();
}

#[test]
fn a_flood_over_its_limit_is_cut_off_with_its_own_reason() {
    let mut beside = Beside::start(receiving(WhenOver::Disconnect));
    let (mut raw, peer) = beside.flooder();
    raw.send(&flood(BURST));
    (0..BURST).for_each(|number| raw.expect_data(DEAR, &number.to_le_bytes()));
    raw.send(&data(FREE, b"free"));
    raw.expect_data(FREE, b"free");
    raw.send(&flood(2));
    raw.expect_goodbye(10, 0);
    assert_eq!(beside.node.closed(peer), CloseReason::RateLimited);
    beside.node.counts(Counter::ClosedRateLimited, 1);
    assert_eq!(beside.node.count(Counter::ClosedViolation), 0);
    beside.prove_unhurt();
    drop(raw);
    beside.end();
}

#[test]
fn a_flood_over_its_limit_is_read_later_whole_and_in_order() {
    const COUNT: u32 = 4000;
    let mut config = rated(loopback(), |rates| {
        rates.receive = Some(RateLimit { messages: Some(Rate { per_second: 1000, burst: 100 }), bytes: None });
        rates.costs = [(FREE, 0)].into();
    });
    config.keepalive.interval = Duration::from_millis(500);
    config.keepalive.timeout = Duration::from_secs(3);
    // A pause may not be so long, and this is none.
    config.timeouts.pause = Duration::from_millis(500);
    let mut beside = Beside::start(config);
    let (mut raw, peer) = beside.flooder();
    let begin = Instant::now();
    raw.send(&flood(COUNT));
    let (mut next, mut pings) = (0, 0);
    while next < COUNT {
        let frame = raw.frame().expect("a frame, not the end");
        if frame.kind == PING {
            pings += 1;
            raw.send(&common::raw::frame(18, 0, 0, &frame.payload));
        } else {
            assert_eq!(frame.payload, next.to_le_bytes());
            next += 1;
        }
    }
    // It cannot have been faster: the bucket had a hundred, and got a thousand a second.
    assert!(begin.elapsed() >= Duration::from_millis(3900), "{:?}", begin.elapsed());
    assert!(pings > 0, "a peer that is delayed hears that this side lives");
    assert!(beside.node.count(Counter::RateDelays) > 10);
    assert_eq!((beside.node.count(Counter::RateLimitedMessages), beside.node.count(Counter::ClosedRateLimited)), (0, 0));
    // It is as good as any other peer again.
    raw.send(&control(PING, 7));
    while raw.frame().expect("a frame, not the end").kind != 18 {}
    raw.echo(FREE, b"at once");
    beside.node.handle().close(peer).unwrap();
    beside.node.closed(peer);
    drop(raw);
    beside.end();
}

#[test]
fn limits_hold_between_engines_in_plaintext_and_encrypted() {
    for wire in Wire::BOTH {
        let config = rated(wire.listening(), |rates| (rates.receive, rates.when_over) = (scarce(), WhenOver::Drop));
        let mut server = Node::report(config);
        let mut client = Node::report(wire.dialling());
        client.handle().dial(wire.dial(&server.engine).once()).unwrap();
        let (there, _) = client.connected();
        let (here, _) = server.connected();
        client.run(there.core(), move |cx| {
            for number in 0..3 * BURST {
                cx.send(there, DEAR, &number.to_le_bytes()).unwrap();
            }
            cx.send(there, FREE, b"end").unwrap();
        });
        for number in 0..BURST {
            assert_eq!(server.message(here).1, number.to_le_bytes());
        }
        assert_eq!(server.message(here).1, b"end", "{wire:?}: and nothing in between");
        server.counts(Counter::RateLimitedMessages, u64::from(2 * BURST));
        server.counts(Counter::RateLimitedBytes, u64::from(2 * BURST) * 12);
        client.handle().close(there).unwrap();
        server.closed(here);
        client.finish();
        server.finish();
    }
}

#[test]
fn what_is_sent_over_the_limit_is_refused_or_passes_by_and_is_counted() {
    let mut node = Node::report(rated(loopback(), |rates| rates.send = scarce()));
    let (mut full, peer) = node.raw_peer(Hello::node(1));
    let (mut other, _) = node.raw_peer(Hello::node(2));
    let limited = |result: Result<(), SendError>| match result {
        Err(SendError::RateLimited { retry_in }) => assert!(retry_in > Duration::from_secs(1000) && retry_in < NEVER * 1000),
        other => panic!("{other:?}"),
    };
    let (sent, batch, request) = node.run(peer.core(), move |cx| {
        (0..BURST).for_each(|number| assert!(cx.send(peer, DEAR, &number.to_le_bytes()).is_ok()));
        let frame = cx.frame(DEAR, b"batch").unwrap();
        let batch = cx.send_batch(peer, &[cx.frame(FREE, b"not alone").unwrap(), frame]).map(drop);
        (cx.send(peer, DEAR, b"more").map(drop), batch, cx.request(peer, DEAR, b"?", NEVER, 1).map(drop))
    });
    [sent, batch, request].into_iter().for_each(limited);
    node.handle().send_notify(peer, node.handle().frame(DEAR, b"later").unwrap(), 77).unwrap();
    limited(Err(node.wait("the refusal", |seen| match seen {
        Seen::SendFailed { tag: 77, reason, .. } => Some(*reason),
        _ => None,
    })));
    node.handle().broadcast(node.handle().frame(DEAR, b"to all").unwrap()).unwrap();
    node.handle().broadcast(node.handle().frame(FREE, b"end").unwrap()).unwrap();
    (0..BURST).for_each(|number| full.expect_data(DEAR, &number.to_le_bytes()));
    full.expect_data(FREE, b"end");
    other.expect_data(DEAR, b"to all");
    other.expect_data(FREE, b"end");
    // A batch counts with all its messages.
    node.counts(Counter::SendsRateLimited, 1 + 2 + 1 + 1 + 1);
    node.counts(Counter::SendsRefused, 1 + 2 + 1 + 1);
    node.counts(Counter::DeliveriesRefused, 1);
    drop((full, other));
    node.finish();
}

#[test]
fn a_flooder_leaves_nothing_behind_whichever_the_policy() {
    for when_over in [WhenOver::Delay, WhenOver::Drop, WhenOver::Disconnect] {
        let mut node = Node::report(receiving(when_over));
        let (mut raw, peer) = node.raw_peer(Hello::node(1));
        // It goes in the middle of a message, delayed, dropped or cut off.
        raw.try_send(&[flood(2 * BURST), first(2, DEAR, 5000, &[1; 1000])].concat());
        eventually("the limit is met", || {
            let met = [Counter::RateDelays, Counter::RateLimitedMessages, Counter::ClosedRateLimited];
            met.iter().any(|&counter| node.count(counter) > 0)
        });
        if when_over == WhenOver::Delay {
            // It is not read, and can be closed all the same.
            node.handle().close(peer).unwrap();
        }
        drop(raw);
        node.closed(peer);
        node.finish();
    }
}
