//! What a reader that stops and goes on has missed.
//!
//! Set-up: an engine with small outboxes and small socket buffers, peers that read, and some that stop for a while; each policy, for
//! direct sends, broadcasts, broadcasts of frames with terms, and publishes. Claim: who stopped gets what had left, then exactly what the
//! policy keeps; the others get every message once and in order; what is missing is counted, and was reported to the handler.

mod common;

use std::time::Duration;

use common::node::{Node, Seen};
use common::raw::{Hello, Raw, SUBSCRIBE, control};
use common::{NEVER, loopback};
use corecast::{Config, Counter, Frame, PeerId, Topic, WhenSlow};

const TOPIC: Topic = Topic(5);
const MARKER: u16 = 9;
const COUNT: u32 = 400;
const KEYS: u32 = 4;
const SOFT: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Send,
    Broadcast,
    Apart,
    Publish,
}

const WAYS: [Way; 4] = [Way::Send, Way::Broadcast, Way::Apart, Way::Publish];

fn numbered(number: u32) -> Vec<u8> {
    let mut body = vec![number as u8; 4096];
    body[..4].copy_from_slice(&number.to_le_bytes());
    body
}

/// Nothing ends a peer but the hard bound, and that is far.
fn config(when: WhenSlow) -> Config {
    let mut config = loopback();
    config.lanes.normal.when_slow = when;
    config.limits.max_message = SOFT;
    config.limits.outbox_soft = SOFT;
    config.limits.outbox_hard = 4 << 20;
    config.limits.log_bytes = 8 << 20;
    config.limits.soft_grace = NEVER;
    config.timeouts.write_stall = NEVER;
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config.io.send_buffer = Some(16 << 10);
    config
}

/// A subscriber whose kernel takes little. It reads nothing until it is asked to.
fn stopped_peer(node: &mut Node, number: u32) -> (Raw, PeerId) {
    let mut raw = Raw::connect_narrow(node.address()).shake(Hello::node(number));
    let (peer, _) = node.connected();
    raw.send(&control(SUBSCRIBE, TOPIC.0));
    node.subscribed(peer, TOPIC, true);
    (raw, peer)
}

fn reading_peer(node: &mut Node, number: u32) -> (Raw, PeerId) {
    let (mut raw, peer) = node.raw_peer(Hello::node(number));
    raw.send(&control(SUBSCRIBE, TOPIC.0));
    node.subscribed(peer, TOPIC, true);
    (raw, peer)
}

fn frame(node: &Node, when: WhenSlow, way: Way, number: u32) -> Frame {
    let frame = node.handle().frame(1, &numbered(number)).unwrap();
    match way {
        _ if when == WhenSlow::Conflate => frame.with_key(u64::from(number % KEYS)),
        Way::Apart => frame.with_ttl(NEVER),
        _ => frame,
    }
}

fn give(node: &Node, way: Way, frame: Frame, peers: [PeerId; 2]) {
    match way {
        Way::Send => node.run(0, move |cx| peers.into_iter().for_each(|peer| _ = cx.send_frame(peer, &frame))),
        Way::Broadcast | Way::Apart => node.handle().broadcast(frame).unwrap(),
        Way::Publish => node.handle().publish(TOPIC, frame).unwrap(),
    }
}

/// The numbers of what comes up to the marker.
fn read_to_marker(mut raw: Raw) -> std::thread::JoinHandle<(Raw, Vec<u32>)> {
    std::thread::spawn(move || {
        let mut numbers = Vec::new();
        loop {
            let (message_type, _, body) = raw.message().expect("a message, not the end");
            if message_type == MARKER {
                return (raw, numbers);
            }
            let number = u32::from_le_bytes(body[..4].try_into().unwrap());
            assert!(body == numbered(number), "message {number} is not what it was");
            numbers.push(number);
        }
    })
}

/// How many come in a row from the first on.
fn prefix(numbers: &[u32]) -> u32 {
    (0..).zip(numbers).take_while(|(expected, number)| expected == *number).count() as u32
}

/// The peer goes on and reads everything. Returns the numbers, and what the reports said was dropped.
fn go_on(node: &mut Node, raw: Raw, peer: PeerId, is_pressed: bool) -> (Raw, Vec<u32>, u64) {
    let reader = read_to_marker(raw);
    let mut reported = 0;
    if is_pressed {
        node.wait("the peer has drained", |seen| match seen {
            Seen::Slow { peer: of, backlog } if *of == peer => {
                reported += backlog.dropped;
                None
            }
            Seen::Drained(of) => (*of == peer).then_some(()),
            _ => None,
        });
    }
    node.run(0, move |cx| cx.send(peer, MARKER, b"marker")).unwrap();
    let (raw, numbers) = reader.join().unwrap();
    (raw, numbers, reported)
}

fn check(when: WhenSlow, way: Way) {
    let story = format!("{when:?} by {way:?}");
    let mut node = Node::report(config(when));
    let (mut reader, reading) = reading_peer(&mut node, 1);
    let (raw, slow) = stopped_peer(&mut node, 2);
    for number in 0..COUNT {
        give(&node, way, frame(&node, when, way, number), [slow, reading]);
        reader.expect_data(1, &numbered(number));
    }
    let (raw, got, reported) = go_on(&mut node, raw, slow, when != WhenSlow::Conflate);
    let left = prefix(&got);
    assert!(left > 0, "{story}: the kernel took some");
    let missing = u64::from(COUNT) - got.len() as u64;
    let (kept, counter) = match when {
        WhenSlow::DropOldest => {
            let kept = got.len() as u32 - left;
            assert!((8..=16).contains(&kept), "{story}: 64 KiB are sixteen messages, and {kept} were kept");
            ((COUNT - kept..COUNT).collect(), Some(Counter::DroppedOldest))
        }
        WhenSlow::DropNewest => (Vec::new(), Some(Counter::DroppedNewest)),
        WhenSlow::Conflate => ((left..left + KEYS).map(|place| COUNT - KEYS + place % KEYS).collect(), Some(Counter::Conflated)),
        _ => (Vec::new(), None),
    };
    assert_eq!(got[left as usize..], kept, "{story}");
    assert!(missing > 200 || (when == WhenSlow::Disconnect && missing == 0), "{story}: {missing} are missing");
    for of in [Counter::DroppedOldest, Counter::DroppedNewest, Counter::Conflated] {
        node.counts(of, if Some(of) == counter { missing } else { 0 });
    }
    assert_eq!(reported, if when == WhenSlow::Conflate { 0 } else { missing }, "{story}: what was reported as dropped");
    assert_eq!(node.count(Counter::MessagesExpired), 0);
    node.counts(Counter::Peers, 2);
    drop((raw, reader));
    node.finish();
}

#[test]
fn who_is_not_to_lose_anything_gets_everything_later() {
    WAYS.into_iter().for_each(|way| check(WhenSlow::Disconnect, way));
}

#[test]
fn the_oldest_make_room() {
    WAYS.into_iter().for_each(|way| check(WhenSlow::DropOldest, way));
}

#[test]
fn the_newest_are_not_taken() {
    WAYS.into_iter().for_each(|way| check(WhenSlow::DropNewest, way));
}

#[test]
fn the_last_of_each_key_is_kept_at_the_place_of_the_first() {
    WAYS.into_iter().for_each(|way| check(WhenSlow::Conflate, way));
}

#[test]
fn while_the_socket_takes_nothing_the_write_stall_runs_also_where_lanes_drop() {
    let mut config = config(WhenSlow::DropOldest);
    config.timeouts.write_stall = Duration::from_millis(300);
    config.timeouts.linger = Duration::from_millis(100);
    let mut node = Node::report(config);
    let (raw, _) = stopped_peer(&mut node, 1);
    let mut number = 0;
    let reason = loop {
        // Something new comes all the time, and does not set the clock back.
        node.handle().broadcast(node.handle().frame(1, &numbered(number)).unwrap()).unwrap();
        number += 1;
        node.run_when_there_is_room(0);
        if let Some(Seen::Closed { reason, .. }) = node.leftovers().into_iter().find(|seen| matches!(seen, Seen::Closed { .. })) {
            break reason;
        }
    };
    assert_eq!(reason, corecast::CloseReason::SlowPeer(corecast::Slow::WriteStall));
    common::eventually("the slow one drops", || node.count(Counter::DroppedOldest) > 0);
    drop(raw);
    node.finish();
}

#[test]
fn with_ten_of_a_hundred_subscribers_stopped_the_others_get_every_message_in_order() {
    const READING: u32 = 90;
    const STOPPED: u32 = 10;
    const MESSAGES: u32 = 200;
    let mut node = Node::report(config(WhenSlow::DropOldest));
    let mut readers: Vec<Raw> = (0..READING).map(|number| reading_peer(&mut node, number).0).collect();
    let stopped: Vec<_> = (READING..READING + STOPPED).map(|number| stopped_peer(&mut node, number)).collect();
    for number in 0..MESSAGES {
        node.handle().publish(TOPIC, node.handle().frame(1, &numbered(number)).unwrap()).unwrap();
        if number % 4 == 3 {
            for raw in &mut readers {
                (number - 3..=number).for_each(|number| raw.expect_data(1, &numbered(number)));
            }
        }
    }
    // Nobody was cut off.
    node.counts(Counter::Peers, u64::from(READING + STOPPED));
    let mut missing = 0;
    let mut raws = Vec::new();
    for (raw, peer) in stopped {
        let (raw, got, reported) = go_on(&mut node, raw, peer, true);
        let kept = got.len() as u32 - prefix(&got);
        assert_eq!(got[got.len() - kept as usize..], (MESSAGES - kept..MESSAGES).collect::<Vec<_>>());
        let of_this = u64::from(MESSAGES) - got.len() as u64;
        assert!(of_this > 50 && reported == of_this, "{of_this} are missing, {reported} reported");
        missing += of_this;
        raws.push(raw);
    }
    node.counts(Counter::DroppedOldest, missing);
    node.counts(Counter::DeliveriesRefused, 0);
    drop((raws, readers));
    node.finish();
}
