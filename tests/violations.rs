//! Peers that break the rules of `WIRE.md`, section 6.
//!
//! Set-up: an echoing engine, a peer that behaves, and one after another peers written by hand that each break one rule after a good
//! handshake. Claim: the offender is told the rule's number and nothing else, then its connection ends in order; the rule's own
//! counter and reason are given; the peer that behaves gets every message back, in order, all the while. Rule 15 belongs to the
//! handshake: see `handshake.rs`.

mod common;

use common::node::Node;
use common::raw::{
    ACK, ACKED, BULK, DATA, FRAGMENT, GO_AWAY, GOODBYE, HIGH, Hello, MORE, NORMAL, PING, PONG, READY, REQUEST, RESPONSE, Raw, SUBSCRIBE,
    UNSUBSCRIBE, control, data, first, frame, header,
};
use common::{NEVER, eventually_idle, eventually_stats, loopback};
use corecast::{CloseReason, Config, Counter, PeerId};

const MAX_MESSAGE: u32 = 50_000;

fn config() -> Config {
    let mut config = loopback();
    config.limits.max_message = MAX_MESSAGE as usize;
    config.limits.subscriptions = 3;
    // Only the offence ends a peer here, and only its own pings reach it.
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config.timeouts.partial = NEVER;
    config
}

/// The rules by number, and the counter of each.
const RULES: &[(u16, Counter)] = &[
    (1, Counter::ViolationFrameTooLong),
    (2, Counter::ViolationUnknownKind),
    (3, Counter::ViolationUnknownFlags),
    (4, Counter::ViolationWrongLane),
    (5, Counter::ViolationWrongLength),
    (6, Counter::ViolationMessageTooLong),
    (7, Counter::ViolationUnexpectedFragment),
    (8, Counter::ViolationInterleaved),
    (9, Counter::ViolationFragmentOverrun),
    (10, Counter::ViolationFragmentShort),
    (11, Counter::ViolationUnsolicitedPong),
    (12, Counter::ViolationUnsolicitedResponse),
    (13, Counter::ViolationPingFlood),
    (14, Counter::ViolationUnexpectedReady),
    (15, Counter::ViolationExpectedReady),
    (16, Counter::ViolationUnsolicitedAck),
    (17, Counter::ViolationTooManySubscriptions),
];

/// A peer that behaves, and proves after each offence that nothing happened to it.
struct Bystander {
    raw: Raw,
    next: u32,
}

impl Bystander {
    fn go_on(&mut self) {
        let range = self.next..self.next + 5;
        let batch: Vec<u8> = range.clone().flat_map(|number| data(9, &number.to_le_bytes())).collect();
        self.raw.send(&batch);
        range.clone().for_each(|number| self.raw.expect_data(9, &number.to_le_bytes()));
        self.next = range.end;
    }
}

struct Court {
    node: Node,
    bystander: Bystander,
    offenders: u32,
    /// How often each was broken, in the order of [`RULES`].
    expected: Vec<u64>,
}

impl Court {
    fn open() -> Self {
        let mut node = Node::echo(config());
        let (raw, _) = node.raw_peer(Hello::node(1));
        Self { node, bystander: Bystander { raw, next: 0 }, offenders: 1, expected: vec![0; RULES.len()] }
    }

    fn offender(&mut self) -> (Raw, PeerId) {
        self.offenders += 1;
        self.node.raw_peer(Hello::node(self.offenders))
    }

    /// One peer sends this, is judged by `rule`, and nobody else is concerned.
    fn try_case(&mut self, rule: u16, bytes: &[u8]) {
        let (mut raw, peer) = self.offender();
        raw.send(bytes);
        self.judge(rule, raw, peer);
    }

    fn judge(&mut self, rule: u16, mut raw: Raw, peer: PeerId) {
        self.bystander.go_on();
        raw.expect_goodbye(5, rule);
        match self.node.closed(peer) {
            CloseReason::Violation(violation) => assert_eq!(violation.code(), rule, "{violation}"),
            reason => panic!("rule {rule}: closed because of {reason:?}"),
        }
        let index = RULES.iter().position(|(number, _)| *number == rule).expect("a rule has a counter");
        self.expected[index] += 1;
        self.node.counts(Counter::ClosedViolation, self.expected.iter().sum());
        let expected = &self.expected;
        eventually_stats(&self.node.handle(), "this rule is counted and no other", |stats| {
            RULES.iter().map(|&(_, counter)| stats.get(counter)).eq(expected.iter().copied())
        });
        self.bystander.go_on();
    }

    fn close(self) {
        let stats = self.node.handle().stats();
        assert_eq!((stats.get(Counter::Peers), stats.get(Counter::Established)), (1, u64::from(self.offenders)));
        eventually_stats(
            &self.node.handle(),
            "what was handed over was returned, what was asked has left, or was lost with its peer",
            |stats| {
                let returned = [Counter::MessagesSent, Counter::MessagesDropped, Counter::SendsRefused].map(|counter| stats.get(counter));
                stats.get(Counter::MessagesReceived) + stats.get(Counter::RequestsSent) == returned.iter().sum::<u64>()
            },
        );
        drop(self.bystander.raw);
        self.node.finish();
    }
}

#[test]
fn rule_1_a_frame_too_long_is_refused_from_its_header_alone() {
    let mut court = Court::open();
    for len in [32_769, 65_536, 1 << 24, 1 << 31, u32::MAX] {
        court.try_case(1, &header(len, DATA, NORMAL, 1));
    }
    // The length is looked at before anything else.
    court.try_case(1, &header(32_769, 99, 0xFF, 1));
    // The longest is none.
    let (mut raw, _) = court.offender();
    raw.echo(1, &[7; 16_384]);
    raw.send(&data(1, &[8; 32_768]));
    raw.expect_data(1, &[8; 32_768]);
    court.try_case(1, &[data(1, &[8; 32_768]), header(32_769, DATA, NORMAL, 1)].concat());
    drop(raw);
    court.node.counts(Counter::ClosedEof, 1);
    court.close();
}

#[test]
fn rule_2_unknown_kinds() {
    let mut court = Court::open();
    for kind in [0, 6, 15, 24, 128, 255] {
        court.try_case(2, &frame(kind, NORMAL, 1, b"what"));
    }
    court.close();
}

#[test]
fn rule_3_unknown_flags() {
    let mut court = Court::open();
    for flag in [0x08, 0x10, 0x20, 0x40, 0x80] {
        court.try_case(3, &frame(DATA, NORMAL | flag, 1, b"what"));
        court.try_case(3, &frame(PING, flag, 0, &[0; 8]));
    }
    court.close();
}

#[test]
fn rule_4_wrong_lanes() {
    let mut court = Court::open();
    for kind in [DATA, REQUEST, RESPONSE, FRAGMENT] {
        court.try_case(4, &frame(kind, 0, 1, &[0; 20]));
    }
    let eight = [PING, PONG, GOODBYE, SUBSCRIBE, UNSUBSCRIBE].map(|kind| (kind, &[0; 8][..]));
    for (kind, payload) in [(READY, &[][..]), (GO_AWAY, &[0; 12])].into_iter().chain(eight) {
        for lane in [HIGH, NORMAL, BULK, MORE] {
            court.try_case(4, &frame(kind, lane, 0, payload));
        }
        court.try_case(4, &frame(kind, 0, 1, payload));
    }
    court.close();
}

#[test]
fn rule_5_wrong_lengths() {
    let mut court = Court::open();
    for kind in [PING, PONG, GOODBYE, SUBSCRIBE, UNSUBSCRIBE] {
        for len in [0, 7, 9] {
            court.try_case(5, &frame(kind, 0, 0, &vec![0; len]));
        }
    }
    for len in [0, 8, 11, 13, 16] {
        court.try_case(5, &frame(GO_AWAY, 0, 0, &vec![0; len]));
    }
    court.try_case(5, &frame(READY, 0, 0, &[0]));
    for kind in [REQUEST, RESPONSE] {
        court.try_case(5, &frame(kind, NORMAL, 1, &[0; 7]));
        court.try_case(5, &frame(kind, NORMAL | MORE, 1, &[0; 11]));
    }
    court.try_case(5, &frame(DATA, NORMAL | MORE, 1, &[0; 3]));
    court.close();
}

#[test]
fn rule_6_messages_too_long() {
    let mut court = Court::open();
    for total in [MAX_MESSAGE + 1, 1 << 24, u32::MAX] {
        court.try_case(6, &first(NORMAL, 1, total, b"x"));
    }
    court.close();
    // Where a single frame can hold too much.
    let mut config = config();
    config.limits.max_message = 100;
    let node = Node::echo(config);
    let mut raw = Raw::establish(node.address(), Hello::node(1));
    raw.echo(1, &[1; 100]);
    raw.send(&data(1, &[1; 101]));
    raw.expect_goodbye(5, 6);
    node.counts(Counter::ViolationMessageTooLong, 1);
    drop(raw);
    node.finish();
}

#[test]
fn rule_7_fragments_of_nothing() {
    let mut court = Court::open();
    for flags in [HIGH, NORMAL, BULK, NORMAL | MORE] {
        court.try_case(7, &frame(FRAGMENT, flags, 1, b"more"));
    }
    // Of another type, of another lane, after the last.
    court.try_case(7, &[first(NORMAL, 1, 8, b"begi"), frame(FRAGMENT, NORMAL, 2, b"n..1")].concat());
    court.try_case(7, &[first(NORMAL, 1, 8, b"begi"), frame(FRAGMENT, HIGH, 1, b"n..1")].concat());
    let whole = [first(NORMAL, 1, 8, b"begi"), frame(FRAGMENT, NORMAL, 1, b"n..1")].concat();
    court.try_case(7, &[whole, frame(FRAGMENT, NORMAL, 1, b"more")].concat());
    court.close();
}

#[test]
fn rule_8_interleaved_messages() {
    let mut court = Court::open();
    for lane in [HIGH, NORMAL, BULK] {
        court.try_case(8, &[first(lane, 1, 8, b"begi"), first(lane, 1, 8, b"begi")].concat());
        court.try_case(8, &[first(lane, 1, 8, b"begi"), frame(DATA, lane, 1, b"whole")].concat());
        court.try_case(8, &[first(lane, 1, 8, b"begi"), frame(REQUEST, lane, 1, &[0; 8])].concat());
    }
    // Between lanes it is allowed.
    let (mut raw, _) = court.offender();
    raw.send(&[first(NORMAL, 1, 8, b"begi"), first(BULK, 2, 6, b"abc")].concat());
    raw.send(&[frame(DATA, HIGH, 3, b"high"), frame(FRAGMENT, BULK, 2, b"def"), frame(FRAGMENT, NORMAL, 1, b"n..1")].concat());
    let mut got: Vec<_> = (0..3).map(|_| raw.message().unwrap()).collect();
    got.sort();
    assert_eq!(got, [(1, NORMAL, b"begin..1".to_vec()), (2, BULK, b"abcdef".to_vec()), (3, HIGH, b"high".to_vec())]);
    drop(raw);
    court.node.counts(Counter::ClosedEof, 1);
    court.close();
}

#[test]
fn rule_9_more_than_announced() {
    let mut court = Court::open();
    for flags in [NORMAL, NORMAL | MORE] {
        court.try_case(9, &[first(NORMAL, 1, 8, b"begi"), frame(FRAGMENT, flags, 1, b"n..12")].concat());
    }
    court.close();
}

#[test]
fn rule_10_less_than_announced() {
    let mut court = Court::open();
    let begin = || first(NORMAL, 1, 8, b"begi");
    court.try_case(10, &[begin(), frame(FRAGMENT, NORMAL, 1, b"n..")].concat());
    court.try_case(10, &[begin(), frame(FRAGMENT, NORMAL, 1, b"")].concat());
    court.try_case(10, &[begin(), frame(FRAGMENT, NORMAL | MORE, 1, b"")].concat());
    // Everything has come, and more is announced.
    court.try_case(10, &[begin(), frame(FRAGMENT, NORMAL | MORE, 1, b"n..1")].concat());
    for (total, body) in [(0, &b""[..]), (1, b""), (1, b"x"), (3, b"x..x"), (0, b"x")] {
        court.try_case(10, &first(NORMAL, 1, total, body));
    }
    court.close();
}

#[test]
fn rule_11_a_pong_that_nobody_asked_for() {
    let mut court = Court::open();
    for nonce in [0, 1, u64::MAX] {
        court.try_case(11, &control(PONG, nonce));
    }
    court.close();
}

#[test]
fn rule_12_a_response_that_nobody_asked_for() {
    let mut court = Court::open();
    for correlation in [0u64, 1, u64::MAX] {
        court.try_case(12, &frame(RESPONSE, NORMAL, 1, &correlation.to_le_bytes()));
    }
    // Asked for one, answered another.
    let (mut raw, peer) = court.offender();
    court.node.run(peer.core(), move |cx| cx.request(peer, 5, b"?", NEVER, 1)).unwrap();
    let request = raw.message_frame().unwrap();
    assert_eq!((request.kind, request.message_type, request.payload), (REQUEST, 5, [&1u64.to_le_bytes()[..], b"?"].concat()));
    raw.send(&frame(RESPONSE, NORMAL, 1, &2u64.to_le_bytes()));
    court.judge(12, raw, peer);
    court.close();
}

#[test]
fn rule_13_too_many_pings() {
    let mut court = Court::open();
    // The default burst is eight, and four more a second: no machine is so slow that a hundred in one piece are within it.
    court.try_case(13, &control(PING, 1).repeat(100));
    // A burst is allowed, each ping after the pong of the one before.
    let (mut raw, _) = court.offender();
    for nonce in 0..8u64 {
        raw.send(&control(PING, nonce));
        assert_eq!(raw.frame().unwrap().payload, nonce.to_le_bytes());
    }
    raw.echo(1, b"still there");
    drop(raw);
    court.node.counts(Counter::ClosedEof, 1);
    court.close();
}

#[test]
fn rule_14_ready_twice() {
    let mut court = Court::open();
    court.try_case(14, &header(0, READY, 0, 0));
    court.try_case(14, &[data(1, b"message"), header(0, READY, 0, 0)].concat());
    court.close();
}

#[test]
fn rule_16_more_acknowledgements_than_messages() {
    let mut court = Court::open();
    for id in [0, 1, u64::MAX] {
        court.try_case(16, &control(ACK, id));
    }
    // What is no acknowledgement at all, and what asks for one in the wrong way.
    court.try_case(5, &frame(ACK, 0, 0, &[0; 7]));
    court.try_case(4, &frame(ACK, HIGH, 0, &[0; 8]));
    court.try_case(4, &frame(ACKED, 0, 1, &[0; 8]));
    court.try_case(5, &frame(ACKED, NORMAL, 1, &[0; 7]));
    court.close();
}

#[test]
fn rule_17_more_topics_than_allowed() {
    let mut court = Court::open();
    let subscribe = |topic: u64| control(SUBSCRIBE, topic);
    court.try_case(17, &[subscribe(1), subscribe(2), subscribe(3), subscribe(4)].concat());
    court.try_case(17, &[subscribe(0), subscribe(0), subscribe(1), subscribe(u64::MAX), subscribe(0), subscribe(2)].concat());
    // So many at a time are allowed, however often, and nothing is wrong with what changes nothing.
    let (mut raw, _) = court.offender();
    let change = |topic: u64| [subscribe(topic), subscribe(topic), control(UNSUBSCRIBE, topic), control(UNSUBSCRIBE, topic)].concat();
    raw.send(&(0..100).flat_map(change).collect::<Vec<u8>>());
    raw.send(&[subscribe(7), subscribe(8), subscribe(9), control(UNSUBSCRIBE, 7), subscribe(10)].concat());
    raw.echo(1, b"still there");
    court.node.counts(Counter::Subscriptions, 3);
    drop(raw);
    court.node.counts(Counter::ClosedEof, 1);
    court.node.counts(Counter::Subscriptions, 0);
    court.close();
}

#[test]
fn what_came_before_the_offence_is_delivered_and_what_comes_after_is_not() {
    let mut node = Node::report(config());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let bytes = [data(1, b"first"), data(2, b"second"), header(0, 99, NORMAL, 0), data(3, b"third")].concat();
    raw.send(&bytes);
    // A lot that comes after it neither disturbs the goodbye nor is kept.
    raw.try_send(&data(3, &[3; 30_000]).repeat(10));
    raw.expect_goodbye(5, 2);
    drop(raw);
    assert_eq!(node.message(peer).1, b"first");
    assert_eq!(node.message(peer).1, b"second");
    assert!(matches!(node.closed(peer), CloseReason::Violation(violation) if violation.code() == 2));
    eventually_idle(&node.handle());
    assert!(node.leftovers().is_empty());
    assert_eq!(node.count(Counter::MessagesReceived), 2);
    node.finish();
}

#[test]
fn offences_in_single_bytes_are_seen_all_the_same() {
    let mut court = Court::open();
    for (rule, bytes) in [(2, frame(200, NORMAL, 1, b"")), (4, frame(DATA, 0, 1, b"")), (1, header(40_000, DATA, NORMAL, 1))] {
        let (mut raw, peer) = court.offender();
        for byte in bytes {
            raw.send(&[byte]);
        }
        court.judge(rule, raw, peer);
    }
    court.close();
}
