//! Frames with a time to live.
//!
//! Set-up: an engine with small socket buffers, a peer that stops reading for longer than frames live, and one that reads. Claim: what is
//! stale does not leave, whole messages and no parts of them, and is counted; what had begun is finished; what has no time to live, and who
//! reads, lose nothing; and what is stale stands in nobody's way.

mod common;

use std::time::Duration;

use common::node::{Node, Seen};
use common::raw::{Hello, Raw};
use common::{NEVER, loopback};
use corecast::{CloseReason, Config, Counter, Frame, PeerId, SendError};

const TTL: Duration = Duration::from_millis(100);
const COUNT: u32 = 100;

fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut body = vec![number as u8; len];
    body[..4].copy_from_slice(&number.to_le_bytes());
    body
}

fn config() -> Config {
    let mut config = loopback();
    config.limits.max_message = 64 << 10;
    config.limits.fragment = 4096;
    config.limits.outbox_hard = 1 << 20;
    config.limits.outbox_soft = 1 << 20;
    config.timeouts.write_stall = NEVER;
    config.timeouts.drain = NEVER;
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config.io.send_buffer = Some(16 << 10);
    config
}

fn narrow_peer(node: &mut Node) -> (Raw, PeerId) {
    let raw = Raw::connect_narrow(node.address()).shake(Hello::node(100));
    (raw, node.connected().0)
}

/// Every other one is of use for [`TTL`].
fn frame(node: &Node, number: u32, len: usize) -> Frame {
    let frame = node.handle().frame(1, &numbered(number, len)).unwrap();
    if number % 2 == 1 { frame.with_ttl(TTL) } else { frame }
}

/// Lets what was sent so far grow stale.
fn outlive(node: &mut Node) {
    node.run(0, |cx| cx.set_timer(3 * TTL, 77)).expect("there is room for a timer");
    node.wait("the timer", |seen| matches!(seen, Seen::Timer { tag: 77, .. }).then_some(()));
}

/// Reads as many as the counters say that have not expired, and nothing else may come. Returns how many came in a row.
fn check_rest(node: &Node, raw: &mut Raw, peer: PeerId, len: usize) -> u32 {
    let mut got = Vec::new();
    node.run(0, move |cx| cx.send(peer, 9, b"marker")).unwrap();
    loop {
        let (message_type, _, body) = raw.message().expect("a message, not the end");
        if message_type == 9 {
            break;
        }
        let number = u32::from_le_bytes(body[..4].try_into().unwrap());
        assert!(body == numbered(number, len), "message {number} is not what it was");
        got.push(number);
    }
    let left = (0..).zip(&got).take_while(|(expected, number)| expected == *number).count() as u32;
    assert!(left > 0, "the kernel took some");
    let expected: Vec<u32> = (0..COUNT).filter(|&number| number < left || number % 2 == 0).collect();
    assert_eq!(got, expected);
    node.counts(Counter::MessagesExpired, u64::from(COUNT) - got.len() as u64);
    left
}

#[test]
fn what_is_stale_is_not_sent_and_what_had_begun_is_finished() {
    // In one frame, and in several fragments.
    for len in [1000, 10_000] {
        let mut node = Node::report(config());
        let (mut raw, peer) = narrow_peer(&mut node);
        let frames: Vec<_> = (0..COUNT).map(|number| frame(&node, number, len)).collect();
        node.run(0, move |cx| frames.iter().for_each(|frame| assert!(cx.send_frame(peer, frame).is_ok())));
        outlive(&mut node);
        let left = check_rest(&node, &mut raw, peer, len);
        assert!(left < COUNT, "the kernel took everything");
        drop(raw);
        node.finish();
    }
}

#[test]
fn a_broadcast_expires_for_who_does_not_read_and_for_nobody_else() {
    let mut node = Node::report(config());
    let (mut reader, _) = node.raw_peer(Hello::node(1));
    let (mut raw, peer) = narrow_peer(&mut node);
    for number in 0..COUNT {
        node.handle().broadcast(frame(&node, number, 4000)).unwrap();
        reader.expect_data(1, &numbered(number, 4000));
    }
    outlive(&mut node);
    check_rest(&node, &mut raw, peer, 4000);
    drop((raw, reader));
    node.finish();
}

#[test]
fn a_message_of_no_duration_reaches_who_reads() {
    let mut node = Node::report(config());
    let (mut reader, reading) = node.raw_peer(Hello::node(1));
    let (raw, stopped) = narrow_peer(&mut node);
    node.run(0, move |cx| (0..10).for_each(|number| assert!(cx.send(stopped, 1, &numbered(number, 64 << 10)).is_ok())));
    for number in 0..10 {
        let frame = node.handle().frame(1, &numbered(number, 1000)).unwrap().with_ttl(Duration::ZERO);
        node.run(0, move |cx| {
            assert!(cx.send_frame(reading, &frame).is_ok());
            assert!(cx.send_frame(stopped, &frame).is_ok());
        });
        reader.expect_data(1, &numbered(number, 1000));
    }
    let mut raw = raw;
    (0..10).for_each(|number| raw.expect_data(1, &numbered(number, 64 << 10)));
    node.run(0, move |cx| cx.send(stopped, 9, b"marker")).unwrap();
    raw.expect_data(9, b"marker");
    node.counts(Counter::MessagesExpired, 10);
    drop((raw, reader));
    node.finish();
}

#[test]
fn what_has_expired_makes_room() {
    let mut node = Node::report(config());
    let (mut raw, peer) = narrow_peer(&mut node);
    let frame = node.handle().frame(1, &numbered(1, 32 << 10)).unwrap().with_ttl(TTL);
    let again = frame.clone();
    // What leaves, leaves with the first turn.
    node.run(0, move |cx| (0..3).for_each(|_| assert!(cx.send_frame(peer, &frame).is_ok())));
    let refused = node.run(0, move |cx| {
        (0..100).find_map(|_| cx.send_frame(peer, &again).err()).map(|error| (error, cx.send(peer, 2, &[0; 32 << 10]).unwrap_err()))
    });
    assert_eq!(refused, Some((SendError::OutboxFull, SendError::OutboxFull)), "1 MiB has room for 31");
    outlive(&mut node);
    node.run(0, move |cx| cx.send(peer, 2, &[7; 32 << 10])).expect("the stale ones have made room");
    loop {
        let (message_type, _, body) = raw.message().expect("a message, not the end");
        if message_type == 2 {
            assert!(body == [7; 32 << 10]);
            break;
        }
        assert!(body == numbered(1, 32 << 10));
    }
    common::eventually("the stale ones are counted", || node.count(Counter::MessagesExpired) > 25);
    drop(raw);
    node.finish();
}

#[test]
fn a_peer_that_is_closed_and_whose_messages_expire_is_told_goodbye() {
    let mut node = Node::report(config());
    let (mut raw, peer) = narrow_peer(&mut node);
    let frames: Vec<_> = (0..COUNT / 2).map(|number| frame(&node, 2 * number + 1, 4000)).collect();
    node.run(0, move |cx| {
        frames.iter().for_each(|frame| assert!(cx.send_frame(peer, frame).is_ok()));
        cx.close(peer);
    });
    assert_eq!(node.closed(peer), CloseReason::Requested);
    outlive(&mut node);
    raw.expect_goodbye(0, 0);
    drop(raw);
    common::eventually("the stale ones are counted", || node.count(Counter::MessagesExpired) > 0);
    node.finish();
}
