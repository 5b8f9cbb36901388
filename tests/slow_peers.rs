//! Peers that read slowly, or not at all.
//!
//! Set-up: an engine with small outboxes and small socket buffers, two peers that read, and one that does not. Claim: the slow one is
//! cut off for exactly the reason that its limit says; the others get every message once and in order all the while; what was queued
//! for the slow one is given back; a sender is told when to wait and when to go on.

mod common;

use std::time::Duration;

use common::node::{Node, Seen};
use common::raw::{Hello, Raw};
use common::{NEVER, eventually, eventually_idle, loopback};
use corecast::{CloseReason, Config, Counter, PeerId, SendError, Sent, Slow};

/// 4 KiB and a number.
fn numbered(number: u32) -> Vec<u8> {
    let mut body = vec![number as u8; 4096];
    body[..4].copy_from_slice(&number.to_le_bytes());
    body
}

/// Nothing but the limit under test ends a peer.
fn config() -> Config {
    let mut config = loopback();
    config.limits.max_message = 64 << 10;
    config.limits.outbox_hard = 256 << 10;
    config.limits.outbox_soft = 64 << 10;
    config.limits.log_bytes = 1 << 20;
    config.limits.soft_grace = NEVER;
    config.timeouts.write_stall = NEVER;
    config.timeouts.linger = Duration::from_millis(100);
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config.io.send_buffer = Some(16 << 10);
    config
}

/// A peer whose kernel takes little, and who reads nothing.
fn narrow_peer(node: &mut Node, number: u32) -> (Raw, PeerId) {
    let hello = Hello::node(number);
    let raw = Raw::connect_narrow(node.address()).shake(hello);
    let (peer, info) = node.connected();
    assert_eq!(info.node.0, hello.node);
    (raw, peer)
}

/// Broadcasts until the slow peer is gone; those who read get each message before the next leaves. Returns how many there were.
fn broadcast_until_closed(node: &mut Node, slow: PeerId, readers: &mut [Raw]) -> (u32, CloseReason) {
    let mut reports = 0;
    for number in 0..2000 {
        let body = numbered(number);
        let frame = node.handle().frame(1, &body).unwrap();
        node.handle().broadcast(frame).unwrap();
        readers.iter_mut().for_each(|raw| raw.expect_data(1, &body));
        for seen in node.leftovers() {
            match seen {
                Seen::Closed { peer, reason } if peer == slow => {
                    assert!(reports > 1, "over the soft mark, and before the end");
                    return (number + 1, reason);
                }
                Seen::Slow { peer, backlog } if peer == slow => {
                    assert!(backlog.bytes >= 64 << 10 && backlog.dropped == 0, "{backlog:?}");
                    reports += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("2,000 messages of 4 KiB were queued for a peer that may have 256 KiB: {:?}", node.handle().stats());
}

/// What a peer that was cut off finds when it reads at last: whole messages from the first on, then perhaps half of one.
fn count_prefix(mut raw: Raw) -> u32 {
    let (bytes, _) = raw.read_to_end();
    let mut rest = &bytes[..];
    let mut count = 0;
    while rest.len() >= 8 + 4096 && rest[4] == 1 {
        assert_eq!(rest[8..8 + 4096], numbered(count));
        rest = &rest[8 + 4096..];
        count += 1;
    }
    count
}

#[test]
fn a_peer_that_never_reads_is_cut_off_at_the_hard_bound() {
    let mut node = Node::report(config());
    let mut readers = [1, 2].map(|number| node.raw_peer(Hello::node(number)).0);
    let (slow, slow_id) = narrow_peer(&mut node, 3);
    let (sent, reason) = broadcast_until_closed(&mut node, slow_id, &mut readers);
    assert_eq!(reason, CloseReason::SlowPeer(Slow::HardBound));
    // It may have 256 KiB, that is 64 messages, and the kernel took some as well.
    assert!(sent > 60, "cut off after {sent} messages");
    node.counts(Counter::SlowHardBound, 1);
    let got = count_prefix(slow);
    assert!(got < sent);
    for number in sent..sent + 50 {
        let frame = node.handle().frame(1, &numbered(number)).unwrap();
        node.handle().broadcast(frame).unwrap();
        readers.iter_mut().for_each(|raw| raw.expect_data(1, &numbered(number)));
    }
    node.counts(Counter::Broadcasts, u64::from(sent) + 50);
    node.counts(Counter::Peers, 2);
    let delivered = 2 * (u64::from(sent) + 50);
    // Each message of the slow peer was either taken whole by its kernel or dropped, and is counted as the one or the other. The last
    // one may have come after its end.
    common::eventually_stats(&node.handle(), "sent and dropped add up", |stats| {
        let for_slow = stats.get(Counter::MessagesSent) + stats.get(Counter::MessagesDropped) - delivered;
        for_slow == u64::from(sent) || for_slow == u64::from(sent) - 1
    });
    drop(readers);
    node.finish();
}

#[test]
fn a_peer_that_takes_nothing_for_too_long_is_cut_off() {
    let mut config = config();
    config.timeouts.write_stall = Duration::from_millis(200);
    let mut node = Node::report(config);
    let (mut reader, reader_id) = node.raw_peer(Hello::node(1));
    let (slow, slow_id) = narrow_peer(&mut node, 2);
    // More than its kernel takes, less than the hard bound, and then nothing: no later send is needed to notice.
    let queued = node.run(0, move |cx| (0..50).map_while(|number| cx.send(slow_id, 1, &numbered(number)).ok()).count());
    assert_eq!(queued, 50);
    let backlog = node.slow(slow_id);
    assert_eq!(backlog.age, Duration::ZERO, "nothing was written yet: {backlog:?}");
    let backlog = node.slow(slow_id);
    assert!(backlog.age >= Duration::from_millis(200) && backlog.bytes > 0, "{backlog:?}");
    assert_eq!(node.closed(slow_id), CloseReason::SlowPeer(Slow::WriteStall));
    node.counts(Counter::SlowWriteStall, 1);
    assert!(count_prefix(slow) < 50);
    for number in 0..20 {
        node.run(0, move |cx| cx.send(reader_id, 1, &numbered(number))).unwrap();
        reader.expect_data(1, &numbered(number));
    }
    node.counts(Counter::Peers, 1);
    drop(reader);
    node.finish();
}

#[test]
fn a_peer_that_stays_over_the_soft_mark_and_drains_too_slowly_is_cut_off() {
    let mut config = config();
    config.limits.soft_grace = Duration::from_millis(200);
    let mut node = Node::report(config);
    let (mut reader, _) = node.raw_peer(Hello::node(1));
    let (slow, slow_id) = narrow_peer(&mut node, 2);
    // Over the soft mark by direct sends.
    let queued = node.run(0, move |cx| {
        let mut backpressure = 0;
        for number in 0..50 {
            backpressure += u32::from(cx.send(slow_id, 1, &numbered(number)).unwrap() == Sent::Backpressure);
        }
        backpressure
    });
    assert!(queued > 0);
    assert_eq!(node.closed(slow_id), CloseReason::SlowPeer(Slow::SoftMark));
    drop(slow);
    // And by broadcasts.
    let (slow, slow_id) = narrow_peer(&mut node, 3);
    for number in 0..40 {
        let frame = node.handle().frame(1, &numbered(number)).unwrap();
        node.handle().broadcast(frame).unwrap();
        reader.expect_data(1, &numbered(number));
    }
    assert_eq!(node.closed(slow_id), CloseReason::SlowPeer(Slow::SoftMark));
    node.counts(Counter::SlowSoftMark, 2);
    node.counts(Counter::Peers, 1);
    drop((slow, reader));
    node.finish();
}

#[test]
fn the_grace_of_the_soft_mark_is_for_those_who_read() {
    let mut config = config();
    config.limits.soft_grace = Duration::from_millis(50);
    // Whoever reads a byte in a grace time is quick enough.
    config.limits.min_drain_rate = 1;
    let mut node = Node::report(config);
    let (mut raw, peer) = narrow_peer(&mut node, 1);
    let outcome = node.run(0, move |cx| (0..45).map(|number| cx.send(peer, 1, &numbered(number))).collect::<Vec<_>>());
    assert!(outcome.contains(&Ok(Sent::Backpressure)));
    for number in 0..45 {
        raw.expect_data(1, &numbered(number));
    }
    node.wait("the peer has drained", |seen| matches!(seen, Seen::Drained(drained) if *drained == peer).then_some(()));
    assert_eq!(node.count(Counter::SlowSoftMark), 0);
    drop(raw);
    node.finish();
}

#[test]
fn after_backpressure_a_sender_hears_when_to_go_on_and_nothing_is_lost() {
    const ALL: u32 = 400;
    let mut node = Node::report(config());
    let (mut raw, peer) = narrow_peer(&mut node, 1);
    let reader = std::thread::spawn(move || {
        (0..ALL).for_each(|number| raw.expect_data(1, &numbered(number)));
        raw
    });
    let mut next = 0;
    let mut pauses = 0;
    while next < ALL {
        let from = next;
        let (sent, pressed) = node.run(0, move |cx| {
            for number in from..ALL {
                match cx.send(peer, 1, &numbered(number)).unwrap() {
                    Sent::Queued => {}
                    Sent::Backpressure => return (number + 1, true),
                    Sent::Forwarded => unreachable!("the peer is of this core"),
                }
            }
            (ALL, false)
        });
        next = sent;
        if pressed {
            pauses += 1;
            node.wait("the peer has drained", |seen| matches!(seen, Seen::Drained(drained) if *drained == peer).then_some(()));
        }
    }
    assert!(pauses > 1, "1.6 MB never stood over a mark of 64 KiB");
    drop(reader.join().unwrap());
    assert_eq!(node.closed(peer), CloseReason::Eof);
    let reports = node.leftovers();
    assert!(reports.iter().all(|seen| matches!(seen, Seen::Slow { .. })), "one on_drained for each time over the mark: {reports:?}");
    assert_eq!(reports.len(), pauses, "and one report");
    node.finish();
}

#[test]
fn a_send_over_the_hard_bound_is_refused_and_the_peer_stays() {
    let mut node = Node::report(config());
    let (mut raw, peer) = narrow_peer(&mut node, 1);
    let frames: Vec<_> = (0..2).map(|number| node.handle().frame(9, &numbered(number)).unwrap()).collect();
    let (accepted, error, batch) = node.run(0, move |cx| {
        let mut number = 0;
        loop {
            match cx.send(peer, 1, &numbered(number)) {
                Ok(_) => number += 1,
                Err(error) => return (number, error, cx.send_batch(peer, &frames)),
            }
        }
    });
    assert_eq!(error, SendError::OutboxFull);
    // 256 KiB of 4,104 bytes, give or take what bookkeeping is charged.
    assert!((50..=64).contains(&accepted), "{accepted} messages were accepted");
    // All of a batch or none of it.
    assert_eq!(batch, Err(SendError::OutboxFull));
    node.counts(Counter::SendsRefused, 3);
    for number in 0..accepted {
        raw.expect_data(1, &numbered(number));
    }
    // And now there is room.
    node.run(0, move |cx| cx.send(peer, 2, b"after")).unwrap();
    raw.expect_data(2, b"after");
    drop(raw);
    node.finish();
}

#[test]
fn a_full_log_costs_the_slow_peer_and_not_the_others() {
    let mut config = config();
    // Each peer may have more to receive than the log can hold for two laggards at different places.
    config.limits.outbox_hard = 512 << 10;
    config.limits.outbox_soft = 512 << 10;
    let mut node = Node::report(config);
    let (mut reader, _) = node.raw_peer(Hello::node(1));
    let slow: Vec<_> = (2..6).map(|number| narrow_peer(&mut node, number)).collect();
    for number in 0..600 {
        let frame = node.handle().frame(1, &numbered(number)).unwrap();
        node.handle().broadcast(frame).unwrap();
        reader.expect_data(1, &numbered(number));
        assert!(node.count(Counter::LogBytes) <= 2 << 20, "the log has a bound");
    }
    for (raw, peer) in slow {
        assert!(matches!(node.closed(peer), CloseReason::SlowPeer(Slow::HardBound | Slow::LogFull)));
        count_prefix(raw);
    }
    eventually("only the reader is left", || node.count(Counter::Peers) == 1);
    drop(reader);
    eventually_idle(&node.handle());
    node.finish();
}
