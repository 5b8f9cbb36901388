//! Connecting to others.
//!
//! Set-up: engines that dial ports that refuse, acceptors written by hand that hang up or are somebody else, and each other. Claim:
//! each attempt that fails is told with its reason and the time of the next one; a dial goes on until it is cancelled, and one that is
//! to be made once is made once; a connection knows the dial that it comes from.

mod common;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::time::Duration;

use common::node::{Node, Seen};
use common::raw::{GOODBYE, Hello, RawListener, data, goodbye};
use common::{LIVENESS, NEVER, eventually_idle, loopback};
use corecast::{
    Address, CloseReason, Config, Cores, Counter, Dial, DialError, DialId, Direction, GoodbyeCode, HandshakeError, NodeId, RefusalCode,
};

/// Dials again soon.
fn config() -> Config {
    let mut config = Config::plaintext();
    config.backoff.min = Duration::from_millis(5);
    config.backoff.max = Duration::from_millis(40);
    // That belongs to `pool.rs`.
    config.breaker.failures = 0;
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config
}

const REFUSED: DialError = DialError::Connect(ErrorKind::ConnectionRefused);

#[test]
fn a_dial_goes_on_until_somebody_listens() {
    let (socket, address) = RawListener::deaf();
    let mut node = Node::report(config());
    let dial = node.handle().dial(Dial::to(address).channel(9)).unwrap();
    for attempt in 0..6 {
        let (error, retry_in) = node.dial_failed(dial);
        assert_eq!(error, REFUSED);
        // Doubling up to the cap, jittered below it.
        let longest = Duration::from_millis(5 << attempt).min(Duration::from_millis(40));
        assert!(retry_in.unwrap() <= longest, "attempt {attempt}: {retry_in:?}");
    }
    let listener = RawListener::listen(socket);
    let raw = listener.establish(Hello::node(1));
    let (_, info) = node.connected();
    assert_eq!((info.dial, info.direction, info.channel, info.address), (Some(dial), Direction::Dialled, 9, address.into()));
    assert_eq!(info.node, NodeId(raw.hello.node));
    common::eventually_stats(&node.handle(), "all attempts but the last have failed", |stats| {
        stats.get(Counter::DialFailures) >= 6 && stats.get(Counter::DialAttempts) == stats.get(Counter::DialFailures) + 1
    });
    drop(raw);
    node.engine.shutdown();
}

#[test]
fn once_is_once() {
    let (_socket, address) = RawListener::deaf();
    let mut node = Node::report(config());
    for _ in 0..3 {
        let dial = node.handle().dial(Dial::to(address).once()).unwrap();
        assert_eq!(node.dial_failed(dial), (REFUSED, None));
    }
    node.counts(Counter::DialAttempts, 3);
    assert!(node.leftovers().is_empty());
    // Also where it has led to a peer that ends.
    let listener = RawListener::bind();
    let dial = node.handle().dial(Dial::to(listener.address()).once()).unwrap();
    let raw = listener.establish(Hello::node(1));
    let (peer, info) = node.connected();
    assert_eq!(info.dial, Some(dial));
    drop(raw);
    assert_eq!(node.closed(peer), CloseReason::Eof);
    eventually_idle(&node.handle());
    // The target is free for another dial, so the first one is over.
    let dial = node.handle().dial(Dial::to(listener.address()).once()).unwrap();
    let raw = listener.establish(Hello::node(1));
    assert_eq!(node.connected().1.dial, Some(dial));
    node.counts(Counter::DialAttempts, 5);
    drop(raw);
    node.finish();
}

#[test]
fn a_dial_comes_back_after_the_peer_ends_however_it_ends() {
    let listener = RawListener::bind();
    let mut node = Node::report(config());
    let dial = node.handle().dial(Dial::to(listener.address())).unwrap();
    for round in 0..8u32 {
        let mut raw = listener.establish(Hello { instance: u64::from(round), ..Hello::node(1) });
        let (peer, info) = node.connected();
        assert_eq!((info.dial, info.instance), (Some(dial), u64::from(round)));
        raw.send(&data(1, b"useful"));
        assert_eq!(node.message(peer).1, b"useful");
        match round % 4 {
            0 => {
                raw.send(&goodbye(1, 0));
                assert_eq!(node.closed(peer), CloseReason::Goodbye(GoodbyeCode::ShuttingDown));
            }
            1 => {
                drop(raw);
                assert_eq!(node.closed(peer), CloseReason::Eof);
            }
            2 => {
                raw.reset();
                assert!(matches!(node.closed(peer), CloseReason::Io(_)));
            }
            // Even if this side has ended it: the wish to be connected stands.
            _ => {
                node.handle().close(peer).unwrap();
                raw.expect_goodbye(0, 0);
                drop(raw);
                assert_eq!(node.closed(peer), CloseReason::Requested);
            }
        }
    }
    let raw = listener.establish(Hello::node(1));
    node.connected();
    node.counts(Counter::Established, 9);
    assert!(node.leftovers().is_empty(), "an end is not a failed dial");
    node.handle().cancel_dial(dial).unwrap();
    drop(raw);
    node.finish();
}

#[test]
fn a_cancelled_dial_is_over_in_whatever_state_it_was() {
    // Waiting for the next attempt.
    let (_socket, address) = RawListener::deaf();
    let mut slow = config();
    slow.backoff.min = NEVER;
    slow.backoff.max = NEVER;
    let mut node = Node::report(slow);
    let dial = node.handle().dial(Dial::to(address)).unwrap();
    assert!(node.dial_failed(dial).1.is_some());
    node.handle().cancel_dial(dial).unwrap();
    assert_eq!(node.dial_failed(dial), (DialError::Cancelled, None));
    // In its handshake, which goes nowhere.
    let listener = RawListener::bind();
    let dial = node.handle().dial(Dial::to(listener.address())).unwrap();
    let mut raw = listener.accept();
    raw.read_greeting();
    node.handle().cancel_dial(dial).unwrap();
    assert_eq!(node.dial_failed(dial), (DialError::Cancelled, None));
    // What comes of it is not wanted any more.
    raw.send(&Hello::node(1).greeting());
    raw.expect_goodbye(3, 0);
    drop(raw);
    eventually_idle(&node.handle());
    // Connected: the connection stays, and is the last.
    let dial = node.handle().dial(Dial::to(listener.address())).unwrap();
    let mut raw = listener.establish(Hello::node(1));
    let (peer, _) = node.connected();
    node.handle().cancel_dial(dial).unwrap();
    raw.send(&data(1, b"still here"));
    assert_eq!(node.message(peer).1, b"still here");
    drop(raw);
    assert_eq!(node.closed(peer), CloseReason::Eof);
    eventually_idle(&node.handle());
    assert_eq!(node.count(Counter::DialAttempts), 3);
    // Cancelling what is over changes nothing.
    node.handle().cancel_dial(dial).unwrap();
    assert!(node.leftovers().is_empty());
    node.finish();
}

#[test]
fn another_node_than_expected_is_not_connected_to() {
    let mut server_config = loopback();
    server_config.node = Some(NodeId([7; 32]));
    let server = Node::report(server_config);
    let mut node = Node::report(config());
    let dial = node.handle().dial(Dial::to(server.address()).expect(NodeId([8; 32])).once()).unwrap();
    assert_eq!(node.dial_failed(dial), (DialError::Handshake(HandshakeError::WrongNode), None));
    node.counts(Counter::HandshakeWrongNode, 1);
    let dial = node.handle().dial(Dial::to(server.address()).expect(NodeId([7; 32]))).unwrap();
    assert_eq!(node.connected().1.dial, Some(dial));
    node.engine.shutdown();
    server.finish();
}

#[test]
fn plaintext_does_not_leave_the_machine_unasked() {
    let mut node = Node::report(config());
    for address in ["192.0.2.1:9", "[2001:db8::1]:9", "[::ffff:192.0.2.1]:9", "0.0.0.0:9"] {
        let dial = node.handle().dial(Dial::to(address.parse::<Address>().unwrap())).unwrap();
        assert_eq!(node.dial_failed(dial), (DialError::PlaintextRemote, None));
    }
    assert_eq!(node.count(Counter::DialAttempts), 0);
    node.finish();
}

#[test]
fn the_same_target_is_dialled_by_one_dial_at_a_time() {
    let mut config = config();
    config.limits.max_dials = 2;
    let (_socket, address) = RawListener::deaf();
    let mut node = Node::report(config);
    let first = node.handle().dial(Dial::to(address)).unwrap();
    let same = node.handle().dial(Dial::to(address)).unwrap();
    assert_eq!(node.dial_failed(same), (DialError::Duplicate, None));
    let other_channel = node.handle().dial(Dial::to(address).channel(1)).unwrap();
    let one_too_many = node.handle().dial(Dial::to(address).channel(2)).unwrap();
    assert_eq!(node.dial_failed(one_too_many), (DialError::Full, None));
    for dial in [first, other_channel] {
        assert_eq!(node.dial_failed(dial).0, REFUSED);
    }
    node.handle().cancel_dial(first).unwrap();
    node.wait("the end of the first", |seen| match seen {
        Seen::DialFailed { dial, error: DialError::Cancelled, retry_in: None, .. } if *dial == first => Some(()),
        _ => None,
    });
    let again = node.handle().dial(Dial::to(address)).unwrap();
    assert_eq!(node.dial_failed(again).0, REFUSED);
    node.engine.shutdown();
}

#[test]
fn two_dials_to_one_node_on_one_channel_end_with_one_connection() {
    let server = Node::report(loopback().listen("127.0.0.1:0".parse().unwrap()));
    let [first, second] = *server.engine.local_addrs() else { panic!("two listeners") };
    let mut node = Node::report(config());
    node.handle().dial(Dial::to(first)).unwrap();
    node.connected();
    let dial = node.handle().dial(Dial::to(second).once()).unwrap();
    let outcome = node.wait("an outcome", |seen| match seen {
        Seen::DialFailed { dial: failed, error, retry_in, .. } if *failed == dial => Some(Ok((*error, *retry_in))),
        // This machine took longer than the second in which it is a duplicate.
        Seen::Connected { info, .. } if info.dial == Some(dial) => Some(Err(())),
        _ => None,
    });
    if let Ok(failed) = outcome {
        assert_eq!(failed, (DialError::Duplicate, None));
    }
    assert_eq!(node.handle().peers(LIVENESS).unwrap().len(), 1);
    node.engine.shutdown();
    server.finish();
}

#[test]
fn a_handler_may_dial_from_any_core_and_hears_of_it_there() {
    let (_socket, address) = RawListener::deaf();
    let mut node = Node::report(config().cores(Cores::Unpinned(3)));
    let mut dials: Vec<DialId> = Vec::new();
    for core in 0..3 {
        let dial = node.run(core, move |cx| cx.dial(Dial::to(address).channel(core as u16).once()));
        let told = node.wait("a failed dial", |seen| match seen {
            Seen::DialFailed { core, dial: failed, error, retry_in } if *failed == dial => Some((*core, *error, *retry_in)),
            _ => None,
        });
        assert_eq!(told, (core, REFUSED, None));
        assert!(!dials.contains(&dial), "each dial has its own id");
        dials.push(dial);
    }
    let dial = node.run(2, move |cx| cx.dial(Dial::to(address)));
    node.dial_failed(dial);
    node.run(1, move |cx| cx.cancel_dial(dial));
    let told = node.wait("the end of the dial", |seen| match seen {
        Seen::DialFailed { core, dial: failed, error: DialError::Cancelled, .. } if *failed == dial => Some(*core),
        _ => None,
    });
    assert_eq!(told, 2);
    node.finish();
}

#[test]
fn dialled_peers_are_spread_over_the_cores_also_when_all_are_dialled_at_once() {
    let server = Node::report(loopback().cores(Cores::Unpinned(2)));
    let mut node = Node::report(config().cores(Cores::Unpinned(4)));
    let mut cores = [0; 4];
    for channels in [0..12, 12..24] {
        let address = server.address();
        match channels.start {
            0 => channels.for_each(|channel| assert!(node.handle().dial(Dial::to(address).channel(channel)).is_ok())),
            _ => node.run(2, move |cx| {
                let dials: HashSet<DialId> = channels.map(|channel| cx.dial(Dial::to(address).channel(channel))).collect();
                assert_eq!(dials.len(), 12);
            }),
        }
        (0..12).for_each(|_| cores[node.connected().0.core()] += 1);
    }
    assert_eq!(cores, [6; 4]);
    server.counts(Counter::Peers, 24);
    node.engine.shutdown();
    server.finish();
}

#[test]
fn a_refusal_is_told_as_it_is_and_dialling_goes_on() {
    let listener = RawListener::bind();
    let mut node = Node::report(config());
    let dial = node.handle().dial(Dial::to(listener.address())).unwrap();
    let codes = [
        (1, DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::Version))),
        (3, DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::Malformed))),
        (6, DialError::Duplicate),
        (7, DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::Full))),
        (4321, DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::Unknown))),
    ];
    for (code, expected) in codes {
        let mut raw = listener.accept();
        raw.read_greeting();
        raw.send(&common::raw::refusal(code));
        let (error, retry_in) = node.dial_failed(dial);
        assert_eq!(error, expected);
        assert!(retry_in.is_some());
        raw.expect_eof();
    }
    // An acceptor that speaks something else, one that hangs up, and one that repeats another channel.
    let mut raw = listener.accept();
    raw.read_greeting();
    raw.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(node.dial_failed(dial).0, DialError::Handshake(HandshakeError::WrongMagic));
    let mut raw = listener.accept();
    raw.read_greeting();
    drop(raw);
    assert_eq!(node.dial_failed(dial).0, DialError::Handshake(HandshakeError::Eof));
    let mut raw = listener.accept();
    raw.read_greeting();
    raw.send(&Hello { channel: 5, ..Hello::node(1) }.greeting());
    assert_eq!(node.dial_failed(dial).0, DialError::Handshake(HandshakeError::Refused(RefusalCode::Malformed)));
    node.counts(Counter::DialFailures, 8);
    node.engine.shutdown();
}

#[test]
fn a_shutdown_ends_dials_and_says_goodbye_to_those_that_got_through() {
    let (_socket, address) = RawListener::deaf();
    let listener = RawListener::bind();
    let mut node = Node::report(config());
    node.handle().dial(Dial::to(address)).unwrap();
    node.handle().dial(Dial::to(listener.address())).unwrap();
    node.handle().dial(Dial::to(listener.address()).channel(1)).unwrap();
    let mut raw = listener.establish(Hello::node(1));
    node.connected();
    // The other one is left hanging in its handshake.
    let mut hanging = listener.accept();
    hanging.read_greeting();
    let reader = std::thread::spawn(move || {
        let last = raw.message_frame().unwrap();
        assert_eq!((last.kind, last.payload[0]), (GOODBYE, 1));
        raw.expect_eof();
    });
    let report = node.engine.shutdown();
    assert!(report.drained && report.cut == 0, "{report:?}");
    reader.join().unwrap();
    hanging.read_to_end();
}

#[test]
fn a_dial_comes_from_the_address_that_it_names() {
    let mut server = Node::report(loopback());
    let mut node = Node::report(config());
    let source = "127.1.2.3".parse().unwrap();
    let dial = node.handle().dial(Dial::to(server.address()).source(source)).unwrap();
    assert_eq!(server.connected().1.address.ip(), Some(source));
    assert_eq!(node.connected().1.dial, Some(dial));
    // An address of another family, and one that is not ours.
    for (source, error) in [("::1", ErrorKind::InvalidInput), ("192.0.2.1", ErrorKind::AddrNotAvailable)] {
        let dial = node.handle().dial(Dial::to(server.address()).source(source.parse().unwrap()).channel(1).once()).unwrap();
        assert_eq!(node.dial_failed(dial), (DialError::Connect(error), None));
    }
    assert!(node.engine.shutdown().panicked.is_empty());
    server.finish();
}
