//! The golden vectors of `WIRE.md`, byte for byte.
//!
//! Set-up: the vectors are read out of the specification's own text; an engine over a real socket, once as node A (it dials) and once
//! as node B (it accepts); the other side plays the text back. Claim: an engine sends exactly these bytes and understands them. The one
//! thing that is masked is the instance number, which an engine draws at each start. Nothing here writes vectors: where a test fails,
//! either the engine is wrong or the protocol has changed, and that is decided by a person.

mod common;

use std::time::Duration;

use common::node::Node;
use common::raw::{Hello, Raw, RawListener};
use common::{NEVER, loopback};
use corecast::{CloseReason, Config, Counter, Dial, Frame, Lane, Meta, NetworkId, NodeId, Notice, Topic, Violation};

const WIRE: &str = include_str!("../src/wire/WIRE.md");
/// Every vector that is checked here; a vector that nothing checks is an error too.
const CHECKED: [&str; 23] = [
    "preamble",
    "hello",
    "refusal",
    "refusal-delay",
    "ready",
    "ping",
    "pong",
    "goodbye",
    "go-away",
    "goodbye-delay",
    "ack",
    "subscribe",
    "unsubscribe",
    "frame-too-long",
    "goodbye-violation",
    "data",
    "data-empty",
    "request",
    "response",
    "fragments",
    "request-fragments",
    "acked",
    "acked-fragments",
];

const TYPE: u16 = 0x0102;
/// Where the instance stands in a greeting: after preamble, network id and node id.
const INSTANCE: std::ops::Range<usize> = 72..80;

/// The names of all vectors, in order.
fn names() -> Vec<&'static str> {
    WIRE.lines().filter_map(|line| line.strip_prefix("```golden ")).collect()
}

/// The lines of one vector, without comments.
fn lines(name: &str) -> impl Iterator<Item = &'static str> {
    let fence = format!("```golden {name}");
    let mut block = WIRE.lines().skip_while(move |line| *line != fence);
    assert!(block.next().is_some(), "WIRE.md has no vector `{name}`");
    block.take_while(|line| *line != "```").map(|line| line.split('#').next().unwrap().trim())
}

/// The body of the long messages, by the rule in the text.
fn long_body() -> Vec<u8> {
    (0..2500).map(|index| (index % 251) as u8).collect()
}

fn append(line: &str, bytes: &mut Vec<u8>) {
    if let Some(range) = line.strip_prefix("body[").and_then(|rest| rest.strip_suffix(']')) {
        let (from, to) = range.split_once("..").unwrap();
        bytes.extend_from_slice(&long_body()[from.parse().unwrap()..to.parse().unwrap()]);
    } else {
        bytes.extend(line.split_whitespace().map(|byte| {
            assert_eq!(byte.len(), 2, "`{byte}` in `{line}`");
            u8::from_str_radix(byte, 16).unwrap()
        }));
    }
}

/// The bytes of a vector; its length and checksum are checked where the text gives them.
fn golden(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines(name) {
        match line.strip_prefix("= ") {
            Some(sum) => assert_eq!(sum, format!("{} bytes, CRC-32 {:08x}", bytes.len(), crc32(&bytes)), "{name}"),
            None => append(line, &mut bytes),
        }
    }
    assert!(!bytes.is_empty(), "the vector `{name}` is empty");
    bytes
}

/// IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    A,
    B,
}

/// The session as alternating runs of bytes, each from one side.
fn session() -> Vec<(Side, Vec<u8>)> {
    let mut runs: Vec<(Side, Vec<u8>)> = Vec::new();
    for line in lines("session") {
        let side = if line.starts_with('>') { Side::A } else { Side::B };
        if runs.last().is_none_or(|(last, _)| *last != side) {
            runs.push((side, Vec::new()));
        }
        append(line[1..].trim(), &mut runs.last_mut().unwrap().1);
    }
    runs
}

fn id(first: u8) -> [u8; 32] {
    std::array::from_fn(|index| first + index as u8)
}

/// What node A or B is configured with.
fn config(side: Side) -> Config {
    let mut config = if side == Side::B { loopback() } else { Config::plaintext() };
    config.network = NetworkId(id(0));
    config.node = Some(NodeId(if side == Side::A { id(0x40) } else { id(0x80) }));
    config.limits.max_message = 65_536;
    config.limits.fragment = 1024;
    config.keepalive.interval = NEVER / 2;
    config.keepalive.timeout = NEVER;
    config
}

/// A raw node A that is established with an engine.
fn hello_of_a() -> Hello {
    Hello { network: id(0), node: id(0x40), instance: 0x0807_0605_0403_0201, features: 1, max_message: 65_536, channel: 7 }
}

fn expect(raw: &mut Raw, name: &str) {
    assert_bytes(&raw.read(golden(name).len()), &golden(name), name);
}

#[track_caller]
fn assert_bytes(sent: &[u8], wanted: &[u8], what: &str) {
    let differs = sent.iter().zip(wanted).position(|(a, b)| a != b);
    assert!(sent == wanted, "{what}: from byte {differs:?} on not what WIRE.md says\n  sent {sent:02x?}\n  text {wanted:02x?}");
}

/// The same, but for the instance in the first run of a side: it only has to be there.
fn assert_run(sent: &[u8], wanted: &[u8], greets: bool, what: &str) {
    let mut sent = sent.to_vec();
    if greets {
        assert_ne!(sent[INSTANCE], [0; 8], "an instance is drawn");
        sent[INSTANCE].copy_from_slice(&wanted[INSTANCE]);
    }
    assert_bytes(&sent, wanted, what);
}

/// Plays the other side of the session over `raw`; what the engine sends has to be its side of the text.
fn play(raw: &mut Raw, engine: Side, mut between: impl FnMut(usize)) {
    let mut greeted = false;
    for (index, (side, bytes)) in session().iter().enumerate() {
        between(index);
        if *side == engine {
            let sent = raw.read(bytes.len());
            assert_run(&sent, bytes, !std::mem::replace(&mut greeted, true), &format!("run {index} of the session"));
        } else {
            raw.send(bytes);
        }
    }
}

#[test]
fn every_vector_is_checked() {
    let mut checked = CHECKED.to_vec();
    checked.push("session");
    assert_eq!(names(), checked);
}

#[test]
fn the_vectors_agree_with_each_other() {
    let runs = session();
    let greeting = [golden("preamble"), golden("hello")].concat();
    assert_eq!(runs.iter().map(|(side, _)| *side).collect::<Vec<_>>(), [Side::A, Side::B, Side::A, Side::B, Side::A]);
    assert_bytes(&runs[0].1, &greeting, "A's greeting");
    assert_bytes(&runs[2].1, &[golden("ready"), golden("data")].concat(), "A's message");
    assert_bytes(&runs[3].1, &golden("data"), "B's message");
    assert_bytes(&runs[4].1, &golden("goodbye"), "A's goodbye");
    // The test's own peer, which is used to get past the handshake, speaks as the text does.
    assert_bytes(&hello_of_a().greeting(), &greeting, "the raw peer's greeting");
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

#[test]
fn an_engine_that_dials_speaks_as_a_does() {
    let mut node = Node::report(config(Side::A));
    let listener = RawListener::bind();
    node.handle().dial(Dial::to(listener.address()).channel(7).once()).unwrap();
    let mut raw = listener.accept();
    let mut peer = None;
    play(&mut raw, Side::A, |run| match run {
        2 => {
            let (connected, info) = node.connected();
            assert_eq!((info.node, info.instance, info.channel), (NodeId(id(0x80)), 0x1817_1615_1413_1211, 7));
            node.handle().send(connected, node.handle().frame(TYPE, b"hello").unwrap()).unwrap();
            peer = Some(connected);
        }
        4 => {
            assert_eq!(node.message(peer.unwrap()), (Meta::new(TYPE), b"hello".to_vec()));
            node.handle().close(peer.unwrap()).unwrap();
        }
        _ => {}
    });
    raw.expect_eof();
    assert_eq!(node.closed(peer.unwrap()), CloseReason::Requested);
}

#[test]
fn an_engine_that_accepts_speaks_as_b_does() {
    let mut node = Node::echo(config(Side::B));
    let mut raw = Raw::connect(node.address());
    play(&mut raw, Side::B, |_| {});
    raw.shut();
    raw.expect_eof();
    let (peer, info) = node.connected();
    assert_eq!((info.node, info.instance, info.channel), (NodeId(id(0x40)), 0x0807_0605_0403_0201, 7));
    assert_eq!(info.max_message, 65_536);
    assert!(matches!(node.closed(peer), CloseReason::Goodbye(_)));
}

#[test]
fn another_network_is_refused_in_these_words() {
    let node = Node::echo(config(Side::B));
    let mut raw = Raw::connect(node.address());
    let mut greeting = [golden("preamble"), golden("hello")].concat();
    greeting[8] ^= 1;
    raw.send(&greeting);
    expect(&mut raw, "refusal");
    raw.expect_eof();
}

#[test]
fn pings_are_sent_and_answered_in_these_words() {
    let mut config = config(Side::B);
    config.keepalive.interval = Duration::from_millis(20);
    config.keepalive.max_pings_per_second = 50;
    let mut node = Node::echo(config);
    let (mut raw, _) = node.raw_peer(hello_of_a());
    expect(&mut raw, "ping");
    raw.send(&golden("pong"));
    // It was understood, since the next ping follows, with the next nonce.
    let mut next = golden("ping");
    next[8] += 1;
    assert_bytes(&raw.read(16), &next, "the second ping");

    let mut node = Node::echo(self::config(Side::B));
    let (mut raw, _) = node.raw_peer(hello_of_a());
    raw.send(&golden("ping"));
    expect(&mut raw, "pong");
}

#[test]
fn goodbyes_are_said_in_these_words() {
    let mut node = Node::echo(config(Side::B));
    let (mut raw, peer) = node.raw_peer(hello_of_a());
    node.handle().close(peer).unwrap();
    expect(&mut raw, "goodbye");
    raw.expect_eof();

    let (mut raw, peer) = node.raw_peer(Hello { channel: 8, ..hello_of_a() });
    raw.send(&golden("frame-too-long"));
    expect(&mut raw, "goodbye-violation");
    raw.expect_eof();
    assert!(matches!(node.closed(peer), CloseReason::Violation(Violation::Decode(_))));
}

#[test]
fn a_side_that_goes_says_so_in_these_words_and_understands_them() {
    let mut node = Node::echo(config(Side::B));
    let (mut raw, _) = node.raw_peer(hello_of_a());
    let notice = Notice::new(Duration::from_secs(10)).retry_after(Duration::from_secs(30)).reason(0x0102);
    raw.send(&golden("go-away"));
    assert_eq!(node.going_away(), notice);
    node.handle().drain(notice).unwrap();
    expect(&mut raw, "go-away");
    let waiting = std::thread::spawn(move || node.engine.shutdown());
    expect(&mut raw, "goodbye-delay");
    raw.expect_eof();
    drop(raw);
    assert!(waiting.join().unwrap().drained);
}

#[test]
fn whoever_comes_after_that_is_refused_in_these_words() {
    let node = Node::echo(config(Side::B));
    node.handle().drain(Notice::new(Duration::ZERO).retry_after(Duration::from_secs(30))).unwrap();
    node.counts(Counter::Landing, 1);
    let mut raw = Raw::connect(node.address());
    raw.send(&[golden("preamble"), golden("hello")].concat());
    expect(&mut raw, "refusal-delay");
    raw.expect_eof();
}

#[test]
fn topics_are_subscribed_to_in_these_words() {
    const TOPIC: Topic = Topic(0x0102_0304_0506_0708);
    let mut node = Node::report(config(Side::B));
    let (mut raw, peer) = node.raw_peer(hello_of_a());
    node.run(0, move |cx| cx.subscribe(peer, TOPIC)).unwrap();
    expect(&mut raw, "subscribe");
    node.run(0, move |cx| cx.unsubscribe(peer, TOPIC)).unwrap();
    expect(&mut raw, "unsubscribe");
    raw.send(&golden("subscribe"));
    node.subscribed(peer, TOPIC, true);
    node.handle().publish(TOPIC, node.handle().frame(TYPE, b"hello").unwrap()).unwrap();
    expect(&mut raw, "data");
    raw.send(&golden("unsubscribe"));
    node.subscribed(peer, TOPIC, false);
}

#[test]
fn frames_are_encoded_to_these_bytes() {
    let node = Node::echo(config(Side::B));
    let handle = node.handle();
    assert_bytes(handle.frame(TYPE, b"hello").unwrap().as_bytes(), &golden("data"), "data");
    assert_bytes(Frame::new(TYPE, b"hello").unwrap().as_bytes(), &golden("data"), "data without an engine");
    let high = Meta::new(TYPE).lane(Lane::High);
    assert_bytes(handle.frame(high, b"").unwrap().as_bytes(), &golden("data-empty"), "data-empty");
    assert_bytes(handle.frame(TYPE, &long_body()).unwrap().as_bytes(), &golden("fragments"), "fragments");
}

#[test]
fn messages_are_taken_and_sent_back_as_these_bytes() {
    let mut node = Node::echo(config(Side::B));
    let (mut raw, _) = node.raw_peer(hello_of_a());
    for name in ["data", "data-empty", "fragments"] {
        raw.send(&golden(name));
        expect(&mut raw, name);
    }
    raw.send(&golden("request"));
    expect(&mut raw, "response");
}

#[test]
fn requests_are_made_as_these_bytes() {
    let mut node = Node::report(config(Side::B));
    let (mut raw, peer) = node.raw_peer(hello_of_a());
    node.run(0, move |cx| cx.request(peer, TYPE, b"hello", NEVER, 5).unwrap());
    expect(&mut raw, "request");
    raw.send(&golden("response"));
    assert_eq!(node.response(5), (0, Ok((Meta::new(TYPE), b"hello".to_vec()))));
    node.run(0, move |cx| cx.request(peer, TYPE, &long_body(), NEVER, 6).unwrap());
    expect(&mut raw, "request-fragments");

    // And understood: the same two, from the other side.
    raw.send(&golden("request"));
    raw.send(&golden("request-fragments"));
    for body in [b"hello".to_vec(), long_body()] {
        let (_, meta, received, _) = node.request();
        assert_eq!((meta, received), (Meta::new(TYPE), body));
    }
}

#[test]
fn acknowledged_messages_are_sent_and_taken_as_these_bytes() {
    let mut node = Node::report(config(Side::B));
    let (mut raw, peer) = node.raw_peer(hello_of_a());
    node.run(0, move |cx| cx.send_acked(peer, TYPE, b"hello", NEVER, 5).unwrap());
    expect(&mut raw, "acked");
    raw.send(&golden("ack"));
    let receipt = node.receipt(5);
    assert_eq!((receipt.acked()[0].0, receipt.is_acked()), (NodeId(id(0x40)), true));
    node.run(0, move |cx| cx.send_acked(peer, TYPE, &long_body(), NEVER, 6).unwrap());
    expect(&mut raw, "acked-fragments");

    // And understood: the same two, from the other side.
    raw.send(&golden("acked"));
    assert_eq!(node.message(peer), (Meta::new(TYPE), b"hello".to_vec()));
    expect(&mut raw, "ack");
    raw.send(&golden("acked-fragments"));
    assert_eq!(node.message(peer), (Meta::new(TYPE), long_body()));
    let mut second = golden("ack");
    second[8] = 2;
    assert_bytes(&raw.read(16), &second, "the second acknowledgement");
}
