//! From the first byte to `Ready`: who gets in, and what the others are told.
//!
//! Set-up: an engine that echoes, and strangers written by hand who do it right, wrong, slowly, or stop in the middle; then engines
//! among themselves. Claim: each wrong opening has its own answer, byte for byte, and its own counter; whatever a stranger does, its
//! place comes back and the next one gets in.

mod common;

use std::time::{Duration, Instant};

use common::node::{Mode, Node};
use common::raw::{DATA, GOODBYE, Hello, NORMAL, PING, PREAMBLE, READY, Raw, data, frame, goodbye, header, refusal};
use common::{LIVENESS, NEVER, eventually, eventually_counts, eventually_idle, eventually_stats, loopback};
use corecast::{
    CloseReason, Config, Cores, Counter, Dial, DialError, Direction, GoodbyeCode, HandshakeError, NetworkId, NodeId, RefusalCode,
};

/// A handshake deadline that a test can wait for.
fn short_handshake() -> Config {
    let mut config = loopback();
    config.timeouts.handshake = Duration::from_millis(300);
    config
}

/// A handshake deadline that nothing here meets.
fn patient() -> Config {
    let mut config = loopback();
    config.timeouts.handshake = NEVER;
    config
}

/// A well-behaved peer gets in and gets its messages back.
fn assert_open(node: &Node, number: u32) {
    Raw::establish(node.address(), Hello::node(number)).echo(3, b"still open");
}

#[test]
fn a_good_handshake_says_the_same_on_both_sides() {
    let mut config = patient();
    config.limits.max_message = 1000;
    config.limits.fragment = 1024;
    config.limits.channels = 514;
    config.network = NetworkId([9; 32]);
    config.node = Some(NodeId([7; 32]));
    let mut node = Node::echo(config);
    let hello = Hello { network: [9; 32], channel: 513, max_message: 77, instance: u64::MAX - 1, ..Hello::node(1) };
    let mut raw = Raw::connect(node.address());
    raw.send(&hello.greeting());
    let theirs = raw.read_greeting();
    assert_eq!((theirs.network, theirs.node, theirs.channel, theirs.max_message), ([9; 32], [7; 32], 513, 1000));
    raw.send(&header(0, READY, 0, 0));
    let (_, info) = node.connected();
    assert_eq!((info.node, info.instance, info.channel), (NodeId(hello.node), hello.instance, 513));
    assert_eq!((info.max_message, info.direction, info.dial, info.authenticated), (77, Direction::Accepted, None, false));
    assert_eq!(info.address, raw.stream.local_addr().unwrap());
    raw.echo(1, b"x");
    drop(raw);
    node.finish();
}

#[test]
fn messages_may_follow_ready_in_the_same_segment() {
    let node = Node::echo(patient());
    let mut raw = Raw::connect(node.address());
    raw.send(&Hello::node(1).greeting());
    raw.read_greeting();
    raw.send(&[header(0, READY, 0, 0), data(1, b"a"), data(2, b"b")].concat());
    raw.expect_data(1, b"a");
    raw.expect_data(2, b"b");
    drop(raw);
    node.finish();
}

#[test]
fn what_is_not_this_protocol_is_closed_in_silence() {
    let node = Node::echo(patient());
    let tls: Vec<u8> = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &[0x5A; 500]].concat();
    let garbage: Vec<u8> = (0..4096u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let openings: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &tls,
        &garbage,
        &[0; 8],
        &[0xCC, 0x43, 0x52, 0x51, 1, 0, 0, 0],
        // A refusal is what an acceptor says, not what it is told.
        &refusal(1),
    ];
    for (index, opening) in openings.iter().enumerate() {
        let mut raw = Raw::connect(node.address());
        raw.try_send(opening);
        raw.expect_silent_close();
        node.counts(Counter::HandshakeWrongMagic, index as u64 + 1);
    }
    assert_open(&node, 1);
    node.finish();
}

#[test]
fn what_cannot_be_agreed_on_is_refused_byte_for_byte() {
    let mut config = patient();
    config.node = Some(NodeId(Hello::node(99).node));
    let node = Node::echo(config);
    let with = |at: usize, byte: u8| {
        let mut greeting = Hello::node(1).greeting();
        greeting[at] = byte;
        greeting
    };
    let cases = [
        (with(4, 2), 1, Counter::HandshakeVersion, 1),
        (with(4, 0), 1, Counter::HandshakeVersion, 2),
        (with(5, 1), 2, Counter::HandshakeSuite, 1),
        (with(5, 254), 2, Counter::HandshakeSuite, 2),
        (with(6, 1), 3, Counter::HandshakeMalformed, 1),
        (with(7, 0x80), 3, Counter::HandshakeMalformed, 2),
        (with(94, 1), 3, Counter::HandshakeMalformed, 3),
        (with(95, 1), 3, Counter::HandshakeMalformed, 4),
        (Hello { max_message: 0, ..Hello::node(1) }.greeting(), 3, Counter::HandshakeMalformed, 5),
        (Hello { network: [1; 32], ..Hello::node(1) }.greeting(), 4, Counter::HandshakeWrongNetwork, 1),
        (Hello::node(99).greeting(), 5, Counter::HandshakeSelf, 1),
    ];
    for (greeting, code, counter, count) in cases {
        let mut raw = Raw::connect(node.address());
        raw.send(&greeting);
        assert_eq!(raw.read(16), refusal(code));
        raw.expect_eof();
        node.counts(counter, count);
    }
    // An opening is judged when it is there, not when the rest is.
    let mut raw = Raw::connect(node.address());
    raw.send(&[&PREAMBLE[..4], &[2, 0, 0, 0]].concat());
    assert_eq!(raw.read(16), refusal(1));
    raw.expect_eof();
    drop(raw);
    // Features that nobody has defined are no reason.
    let mut unknown_features = Hello::node(2).greeting();
    unknown_features[8 + 72..8 + 80].fill(0xFF);
    let mut raw = Raw::connect(node.address());
    raw.send(&unknown_features);
    raw.read_greeting();
    raw.send(&header(0, READY, 0, 0));
    raw.echo(1, b"in");
    drop(raw);
    node.finish();
}

#[test]
fn an_engine_of_another_network_is_told_so() {
    let server = Node::echo(patient());
    let mut config = Config::plaintext();
    config.network = NetworkId([1; 32]);
    let mut client = Node::report(config);
    let dial = client.handle().dial(Dial::to(server.address()).once()).unwrap();
    let error = DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::WrongNetwork));
    assert_eq!(client.dial_failed(dial), (error, None));
    server.counts(Counter::HandshakeWrongNetwork, 1);
    client.counts(Counter::HandshakeRefusedByPeer, 1);
    client.counts(Counter::DialFailures, 1);
    client.finish();
    server.finish();
}

#[test]
fn an_engine_that_dials_itself_is_told_so() {
    let mut node = Node::report(patient());
    let dial = node.handle().dial(Dial::to(node.address()).once()).unwrap();
    assert_eq!(node.dial_failed(dial), (DialError::SelfConnection, None));
    node.counts(Counter::HandshakeSelf, 1);
    node.finish();
}

#[test]
fn no_byte_extends_the_handshake() {
    let node = Node::echo(short_handshake());
    // Silence, a trickle, and a greeting without Ready, all at once.
    let silent = Raw::connect(node.address());
    let mut trickle = Raw::connect(node.address());
    let mut greeted = Raw::connect(node.address());
    greeted.send(&Hello::node(1).greeting());
    greeted.read_greeting();
    let began = Instant::now();
    for byte in Hello::node(2).greeting() {
        if node.count(Counter::HandshakeTimeout) == 3 {
            break;
        }
        trickle.try_send(&[byte]);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() < LIVENESS, "bytes have kept the handshake alive");
    node.counts(Counter::HandshakeTimeout, 3);
    silent.expect_silent_close();
    trickle.expect_silent_close();
    greeted.expect_silent_close();
    eventually_idle(&node.handle());
    assert_open(&node, 3);
    node.finish();
}

#[test]
fn a_dialler_does_not_wait_for_ever_either() {
    let listener = common::raw::RawListener::bind();
    let mut config = Config::plaintext();
    config.timeouts.handshake = Duration::from_millis(300);
    let mut node = Node::report(config);
    let dial = node.handle().dial(Dial::to(listener.address()).once()).unwrap();
    let mut raw = listener.accept();
    assert_eq!(node.dial_failed(dial), (DialError::Handshake(HandshakeError::Timeout), None));
    raw.read_greeting();
    raw.expect_eof();
    node.counts(Counter::HandshakeTimeout, 1);
    node.finish();
}

/// The bytes of a whole handshake and one message, of which the acceptor's answer comes after the first 96.
fn opening(number: u32) -> Vec<u8> {
    [Hello::node(number).greeting(), header(0, READY, 0, 0)].concat()
}

#[test]
fn a_handshake_cut_after_any_byte_leaves_nothing() {
    const ALL: usize = 96 + 8;
    let mut config = patient();
    // One that is not given back would be missed.
    config.limits.max_half_open = 4;
    config.limits.max_peers = 2;
    let node = Node::echo(config);
    for cut in 0..ALL {
        let mut raw = Raw::connect(node.address());
        raw.send(&opening(cut as u32)[..cut]);
        raw.shut();
        let (answer, _) = raw.read_to_end();
        assert!(answer.is_empty() || cut >= 96 && answer.len() == 96, "cut at {cut}: {answer:?}");
        eventually_counts(&node.handle(), Counter::HandshakeEof, cut as u64 + 1);
    }
    eventually_idle(&node.handle());
    for cut in 0..ALL {
        let mut raw = Raw::connect(node.address());
        raw.send(&opening(1000 + cut as u32)[..cut]);
        raw.reset();
        eventually_stats(&node.handle(), "one more has ended", |stats| {
            stats.get(Counter::HandshakeEof) + stats.get(Counter::HandshakeIo) == (ALL + cut) as u64 + 1
        });
    }
    eventually_idle(&node.handle());
    let stats = node.handle().stats();
    assert_eq!((stats.get(Counter::Established), stats.get(Counter::RefusedHalfOpen), stats.get(Counter::HandshakeFull)), (0, 0, 0));
    let mut peers = [1, 2].map(|number| Raw::establish(node.address(), Hello::node(5000 + number)));
    peers.iter_mut().for_each(|raw| raw.echo(1, b"both places are free"));
    drop(peers);
    node.finish();
}

#[test]
fn the_whole_handshake_may_come_in_single_bytes() {
    let node = Node::echo(patient());
    let mut raw = Raw::connect(node.address());
    for byte in Hello::node(1).greeting() {
        raw.send(&[byte]);
    }
    raw.read_greeting();
    for byte in [header(0, READY, 0, 0), data(4, b"bytes")].concat() {
        raw.send(&[byte]);
    }
    raw.expect_data(4, b"bytes");
    drop(raw);
    node.finish();
}

#[test]
fn another_frame_than_ready_is_named_and_counted() {
    let node = Node::echo(patient());
    let greeted = |number| {
        let mut raw = Raw::connect(node.address());
        raw.send(&Hello::node(number).greeting());
        raw.read_greeting();
        raw
    };
    let frames = [frame(DATA, NORMAL, 1, b"too early"), frame(PING, 0, 0, &[0; 8]), frame(DATA, NORMAL, 0, b"")];
    for (index, early) in frames.iter().enumerate() {
        let mut raw = greeted(index as u32);
        raw.send(early);
        raw.expect_goodbye(5, 15);
        node.counts(Counter::ViolationExpectedReady, index as u64 + 1);
        node.counts(Counter::HandshakeViolation, index as u64 + 1);
    }
    // A frame that is none breaks its own rule.
    let mut raw = greeted(10);
    raw.send(&header(32_769, DATA, NORMAL, 1));
    raw.expect_goodbye(5, 1);
    node.counts(Counter::ViolationFrameTooLong, 1);
    drop(raw);
    // A goodbye is a frame that may come here.
    let mut raw = greeted(11);
    raw.send(&goodbye(3, 0));
    raw.expect_silent_close();
    node.counts(Counter::HandshakeGoodbye, 1);
    assert_eq!(node.count(Counter::HandshakeViolation), 4);
    assert_open(&node, 12);
    node.finish();
}

#[test]
fn half_open_connections_have_a_bound_and_come_back() {
    let mut config = patient();
    config.limits.max_half_open = 3;
    let node = Node::echo(config);
    let mut waiting: Vec<Raw> = (0..3).map(|_| Raw::connect(node.address())).collect();
    node.counts(Counter::HalfOpen, 3);
    for refused in 1..=4 {
        Raw::connect(node.address()).expect_silent_close();
        node.counts(Counter::RefusedHalfOpen, refused);
    }
    // One that ends its handshake, and one that leaves, each make room.
    let established = waiting.pop().unwrap().shake(Hello::node(1));
    drop(waiting.pop());
    node.counts(Counter::HalfOpen, 1);
    let mut others: Vec<Raw> = (2..4).map(|number| Raw::connect(node.address()).shake(Hello::node(number))).collect();
    others.push(established);
    others.iter_mut().for_each(|raw| raw.echo(1, b"in"));
    assert_eq!(node.count(Counter::RefusedHalfOpen), 4);
    drop((others, waiting));
    node.finish();
}

#[test]
fn one_peer_too_many_is_refused_until_another_leaves() {
    let mut config = patient();
    config.limits.max_peers = 2;
    let mut node = Node::echo(config);
    let (first, first_id) = node.raw_peer(Hello::node(1));
    let (mut second, _) = node.raw_peer(Hello::node(2));
    for refused in 1..=3 {
        let mut raw = Raw::connect(node.address());
        raw.send(&Hello::node(3).greeting());
        assert_eq!(raw.read(16), refusal(7));
        raw.expect_eof();
        node.counts(Counter::HandshakeFull, refused);
    }
    second.echo(1, b"undisturbed");
    drop(first);
    assert_eq!(node.closed(first_id), CloseReason::Eof);
    node.counts(Counter::Peers, 1);
    // The place is the directory's to give, and it hears of the end with the socket's.
    eventually("the place is free", || {
        let mut raw = Raw::connect(node.address());
        raw.send(&Hello::node(3).greeting());
        let answer = raw.read(8);
        if answer[5] == 255 {
            return false;
        }
        assert_eq!(answer, PREAMBLE);
        raw.read(88);
        raw.send(&header(0, READY, 0, 0));
        raw.echo(1, b"in");
        true
    });
    drop(second);
    node.finish();
}

#[test]
fn a_node_has_so_many_channels_and_no_more() {
    let mut config = patient();
    config.limits.channels = 2;
    let mut node = Node::echo(config.clone());
    let peers = [0, 1].map(|channel| node.raw_peer(Hello { channel, ..Hello::node(1) }).0);
    for (refused, channel) in [2, 100, u16::MAX].into_iter().enumerate() {
        let mut raw = Raw::connect(node.address());
        raw.send(&Hello { channel, ..Hello::node(1) }.greeting());
        assert_eq!(raw.read(16), refusal(7));
        raw.expect_eof();
        node.counts(Counter::HandshakeFull, refused as u64 + 1);
    }
    // There is room for others, and nobody is dialled on a channel that would not be taken from him.
    let (mut other, _) = node.raw_peer(Hello::node(2));
    other.echo(1, b"in");
    let mut client = Node::report(config);
    let dial = client.handle().dial(Dial::to(node.address()).channel(2)).unwrap();
    assert_eq!(client.dial_failed(dial), (DialError::Full, None));
    assert_eq!(client.count(Counter::DialAttempts), 0);
    client.engine.shutdown();
    drop((peers, other));
    node.finish();
}

#[test]
fn an_engine_that_is_full_says_so_to_whom_it_dials() {
    let server = Node::echo(patient());
    let other = Node::echo(patient());
    let mut config = Config::plaintext();
    config.limits.max_peers = 1;
    let mut client = Node::report(config);
    client.handle().dial(Dial::to(server.address())).unwrap();
    client.connected();
    let dial = client.handle().dial(Dial::to(other.address()).once()).unwrap();
    assert_eq!(client.dial_failed(dial), (DialError::Full, None));
    client.counts(Counter::HandshakeFull, 1);
    other.counts(Counter::HandshakeGoodbye, 1);
    eventually_idle(&other.handle());
    client.engine.shutdown();
    server.finish();
    other.finish();
}

/// Dials with `hello` again and again until the engine does not call it a duplicate any more.
fn replace(node: &Node, hello: Hello) -> Raw {
    let mut new = None;
    eventually("the second is over", || {
        let mut raw = Raw::connect(node.address());
        raw.send(&hello.greeting());
        let answer = raw.read(8);
        if answer[5] != 255 {
            raw.read(88);
            raw.send(&header(0, READY, 0, 0));
            new = Some(raw);
        }
        new.is_some()
    });
    new.unwrap()
}

#[test]
fn a_restarted_node_replaces_its_own_connection_and_no_other() {
    let mut node = Node::echo(patient());
    let (mut old, old_id) = node.raw_peer(Hello::node(1));
    let restarted = Hello { instance: 8, ..Hello::node(1) };
    let mut new = replace(&node, restarted);
    assert_eq!(node.closed(old_id), CloseReason::Replaced);
    old.expect_goodbye(2, 0);
    new.echo(1, b"the new one");
    node.counts(Counter::ClosedReplaced, 1);
    node.counts(Counter::Peers, 1);
    // Another channel is another connection.
    let (mut channel, _) = node.raw_peer(Hello { channel: 1, ..restarted });
    channel.echo(1, b"a");
    new.echo(1, b"b");
    assert_eq!(node.count(Counter::ClosedReplaced), 1);
    drop((old, new, channel));
    node.finish();
}

#[test]
fn the_same_node_is_a_duplicate_for_a_second_and_then_a_replacement() {
    let mut node = Node::echo(patient());
    let mut number = 0;
    // The rule speaks of a second: a round in which this machine took longer shows nothing.
    let (hello, mut old, old_id) = loop {
        number += 1;
        assert!(number < 20, "this machine never does two handshakes in a second");
        let hello = Hello::node(number);
        let began = Instant::now();
        let (old, old_id) = node.raw_peer(hello);
        let mut raw = Raw::connect(node.address());
        raw.send(&hello.greeting());
        let answer = raw.read(16);
        if began.elapsed() < Duration::from_secs(1) {
            assert_eq!(answer, refusal(6));
            raw.expect_eof();
            break (hello, old, old_id);
        }
    };
    eventually_stats(&node.handle(), "the duplicate is counted", |stats| stats.get(Counter::HandshakeDuplicate) >= 1);
    old.echo(1, b"the old one stays");
    let mut new = replace(&node, hello);
    assert_eq!(node.closed(old_id), CloseReason::Replaced);
    old.expect_goodbye(2, 0);
    new.echo(1, b"the new one");
    node.counts(Counter::ClosedReplaced, 1);
    drop((old, new));
    node.engine.shutdown();
}

#[test]
fn two_engines_that_dial_each_other_end_with_one_connection() {
    for round in 0..6u8 {
        // Either side is the smaller one in turn, and both have one core or two.
        let name = |first: u8| NodeId([first; 32]);
        let config = |node| {
            let mut config = patient().cores(Cores::Unpinned(1 + usize::from(round / 3)));
            config.node = Some(node);
            config
        };
        let (small, large) = (name(round), name(0xF0));
        let (a, b) = (Node::report(config(small)), Node::report(config(large)));
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        first.handle().dial(Dial::to(second.address())).unwrap();
        second.handle().dial(Dial::to(first.address())).unwrap();
        let stands = |node: &Node, dialled_by_me: bool| {
            let peers = node.handle().peers(LIVENESS).unwrap();
            let direction = if dialled_by_me { Direction::Dialled } else { Direction::Accepted };
            peers.len() == 1 && peers[0].info.direction == direction
        };
        eventually("both keep the connection that the smaller node dialled", || stands(&a, true) && stands(&b, false));
        for node in [&a, &b] {
            eventually_stats(&node.handle(), "one peer, of at most two that were established", |stats| {
                stats.get(Counter::Established) <= 2 && stats.get(Counter::Peers) == 1
            });
        }
        // The larger one goes on trying, and is told each time.
        let before = b.count(Counter::DialAttempts);
        eventually_stats(&b.handle(), "another attempt is over", |stats| {
            let settled = stats.get(Counter::Peers) == 1 && stats.get(Counter::Established) - stats.get(Counter::ClosedReplaced) <= 1;
            settled && (stats.get(Counter::DialAttempts) >= before + 2 || stats.get(Counter::DialFailures) >= 2)
        });
        assert!(stands(&a, true) && stands(&b, false));
        for node in [a, b] {
            assert!(node.engine.shutdown().panicked.is_empty());
        }
    }
}

#[test]
fn many_strangers_at_once_leave_the_established_alone() {
    let mut node = Node::start(patient().cores(Cores::Unpinned(2)), Mode::Echo);
    let (mut good, _) = node.raw_peer(Hello::node(1));
    let mut strangers: Vec<Raw> = (0..60).map(|_| Raw::connect(node.address())).collect();
    for (index, raw) in strangers.iter_mut().enumerate() {
        match index % 4 {
            0 => raw.try_send(b"GET / HTTP/1.1\r\n\r\n"),
            1 => raw.try_send(&PREAMBLE[..5]),
            2 => raw.try_send(&Hello { network: [3; 32], ..Hello::node(77) }.greeting()),
            _ => raw.try_send(&frame(GOODBYE, 0, 0, &[0; 8])),
        }
        good.echo(index as u16, b"undisturbed");
    }
    drop(strangers);
    node.counts(Counter::Accepted, 61);
    node.counts(Counter::HalfOpen, 0);
    assert_eq!((node.count(Counter::Peers), node.count(Counter::Established)), (1, 1));
    drop(good);
    node.finish();
}

#[test]
fn a_refusal_and_a_goodbye_reach_the_dialler_as_they_are() {
    let listener = common::raw::RawListener::bind();
    let mut node = Node::report(Config::plaintext());
    let dial = node.handle().dial(Dial::to(listener.address()).once()).unwrap();
    let mut raw = listener.accept();
    raw.read_greeting();
    raw.send(&refusal(8));
    assert_eq!(node.dial_failed(dial), (DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::ShuttingDown)), None));
    raw.expect_eof();
    // Once both have greeted, a goodbye ends the peer.
    let dial = node.handle().dial(Dial::to(listener.address()).once()).unwrap();
    let mut raw = listener.establish(Hello::node(1));
    let (peer, info) = node.connected();
    assert_eq!(info.dial, Some(dial));
    raw.send(&goodbye(1, 0));
    assert_eq!(node.closed(peer), CloseReason::Goodbye(GoodbyeCode::ShuttingDown));
    raw.expect_eof();
    node.finish();
}
