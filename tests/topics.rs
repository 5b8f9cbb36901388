//! What is published goes to who has subscribed.
//!
//! Set-up: engines on one core and on several, peers that are engines and peers written by hand from `WIRE.md`, publishes from handles and
//! from handlers of every core. Claim: who has subscribed gets everything on its topics from then on, once and in order, beside direct
//! sends and broadcasts; who has not, or not any more, or not on this connection, gets nothing; the publisher is told; a program is
//! refused one topic too many before the other side would cut it off; and a thousand subscribers that read nothing, each of a topic of
//! its own, keep nothing in the broadcast log and disturb nobody.

mod common;

use common::node::{Mode, Node, Seen};
use common::raw::{Hello, Raw, SUBSCRIBE, UNSUBSCRIBE, control};
use common::{NEVER, eventually, loopback};
use corecast::{CloseReason, Config, Cores, Counter, Dial, Frame, Lane, Meta, PeerId, SendError, Slow, Topic};

const TOPIC: Topic = Topic(7);
const OTHER: Topic = Topic(u64::MAX);

fn config(cores: usize) -> Config {
    quiet(loopback().cores(Cores::Unpinned(cores)))
}

fn quiet(mut config: Config) -> Config {
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config
}

/// Some small, some by reference, some in fragments.
fn body(number: u32) -> Vec<u8> {
    let len = match number % 20 {
        18 => 6000,
        19 => 40_000,
        _ => number as usize % 300,
    };
    [&number.to_le_bytes()[..], &vec![number as u8; len]].concat()
}

fn frame(node: &Node, number: u32) -> Frame {
    node.handle().frame(1, &body(number)).unwrap()
}

/// A raw peer that has subscribed to these.
fn subscriber(node: &mut Node, number: u32, topics: &[Topic]) -> (Raw, PeerId) {
    let (mut raw, peer) = node.raw_peer(Hello::node(number));
    for topic in topics {
        raw.send(&control(SUBSCRIBE, topic.0));
        node.subscribed(peer, *topic, true);
    }
    (raw, peer)
}

#[test]
fn subscribers_of_every_core_get_their_topics_once_and_in_order_and_nobody_else_does() {
    for cores in [1, 3] {
        let mut node = Node::report(config(cores));
        let mut both: Vec<_> = (0..9).map(|number| subscriber(&mut node, number, &[TOPIC, OTHER]).0).collect();
        let mut one: Vec<_> = (10..19).map(|number| subscriber(&mut node, number, &[OTHER]).0).collect();
        let mut none: Vec<_> = (20..29).map(|number| subscriber(&mut node, number, &[]).0).collect();
        node.counts(Counter::Subscriptions, 27);
        for number in 0..300 {
            let frame = frame(&node, number);
            let topic = if number % 3 == 0 { OTHER } else { TOPIC };
            match number as usize % (cores + 1) {
                0 => node.handle().publish(topic, frame).unwrap(),
                core => node.run(core - 1, move |cx| cx.publish(topic, &frame)).unwrap(),
            }
            if number % 30 == 29 {
                // One at a time, since different cores publish: what one of them does is in order, not what two do.
                both.iter_mut().for_each(|raw| expect_all(raw, (number - 29..=number).collect(), cores));
                one.iter_mut().for_each(|raw| expect_all(raw, (number - 29..=number).filter(|number| number % 3 == 0).collect(), cores));
            }
        }
        let marker = node.handle().frame(77, b"marker").unwrap();
        node.handle().broadcast(marker).unwrap();
        both.iter_mut().chain(&mut one).chain(&mut none).for_each(|raw| raw.expect_data(77, b"marker"));
        // Each frame once on each core, and once for each subscriber.
        node.counts(Counter::Publishes, 300 * cores as u64);
        node.counts(Counter::Deliveries, 200 * 9 + 100 * 18);
        node.counts(Counter::Broadcasts, cores as u64);
        assert_eq!(node.count(Counter::DeliveriesRefused), 0);
        drop((both, one, none));
        node.finish();
    }
}

/// All of these come next; those of one origin in order.
fn expect_all(raw: &mut Raw, numbers: Vec<u32>, cores: usize) {
    let mut came = Vec::new();
    for _ in &numbers {
        let (_, _, got) = raw.message().unwrap();
        let number = u32::from_le_bytes(got[..4].try_into().unwrap());
        assert!(got == body(number), "message {number} is damaged");
        came.push(number);
    }
    for origin in 0..=cores {
        let of = |all: &[u32]| all.iter().copied().filter(|number| *number as usize % (cores + 1) == origin).collect::<Vec<_>>();
        assert_eq!(of(&came), of(&numbers), "what origin {origin} has published");
    }
    came.sort_unstable();
    assert_eq!(came, numbers);
}

#[test]
fn a_subscriber_gets_publishes_broadcasts_and_sends_of_one_core_in_one_order() {
    let mut node = Node::report(config(2));
    let (mut raw, peer) = subscriber(&mut node, 1, &[TOPIC]);
    let frames: Vec<_> = (0..200).map(|number| frame(&node, number)).collect();
    node.run(peer.core(), move |cx| {
        for (number, frame) in frames.iter().enumerate() {
            match number % 3 {
                0 => cx.publish(TOPIC, frame).unwrap(),
                1 => cx.broadcast(frame).unwrap(),
                _ => drop(cx.send_frame(peer, frame).unwrap()),
            }
        }
    });
    (0..200).for_each(|number| raw.expect_data(1, &body(number)));
    drop(raw);
    node.finish();
}

#[test]
fn engines_subscribe_at_each_other_from_both_sides_and_any_core() {
    let mut server = Node::report(config(2));
    let mut client = Node::report(quiet(Config::plaintext().cores(Cores::Unpinned(2))));
    client.handle().dial(Dial::to(server.address())).unwrap();
    let (there, here) = (client.connected().0, server.connected().0);
    // By the core that has the peer, by one that has not, by a handle.
    client.run(there.core(), move |cx| cx.subscribe(there, TOPIC)).unwrap();
    client.run(1 - there.core(), move |cx| cx.subscribe(there, OTHER)).unwrap();
    client.handle().subscribe(there, Topic(9)).unwrap();
    [TOPIC, OTHER, Topic(9)].iter().for_each(|topic| server.subscribed(here, *topic, true));
    server.handle().subscribe(here, TOPIC).unwrap();
    client.subscribed(there, TOPIC, true);
    assert_eq!(server.handle().peers(common::LIVENESS).unwrap()[0].subscriptions, 3);
    assert_eq!(client.handle().peers(common::LIVENESS).unwrap()[0].subscriptions, 1);
    assert_eq!(server.run(here.core(), move |cx| (cx.subscribers(TOPIC), cx.subscribers(Topic(8)))), (1, 0));

    for number in 0..100 {
        let topic = [TOPIC, OTHER, Topic(9)][number as usize % 3];
        server.handle().publish(topic, frame(&server, number)).unwrap();
        client.handle().publish(TOPIC, frame(&client, number)).unwrap();
    }
    for number in 0..100 {
        assert_eq!(client.message(there), (Meta::new(1), body(number)));
        assert_eq!(server.message(here), (Meta::new(1), body(number)));
    }
    // Unsubscribed from one, the others go on. Twice is as good as once.
    client.run(there.core(), move |cx| cx.unsubscribe(there, TOPIC).and(cx.unsubscribe(there, TOPIC))).unwrap();
    client.handle().unsubscribe(there, Topic(10)).unwrap();
    server.subscribed(here, TOPIC, false);
    server.handle().publish(TOPIC, frame(&server, 100)).unwrap();
    server.handle().publish(OTHER, frame(&server, 101)).unwrap();
    assert_eq!(client.message(there).1, body(101));
    client.counts(Counter::MessagesReceived, 101);
    server.counts(Counter::Subscriptions, 2);
    client.engine.shutdown();
    assert!(matches!(server.closed(here), CloseReason::Goodbye(_)));
    assert!(server.leftovers().is_empty(), "nobody unsubscribes by leaving");
    server.finish();
}

#[test]
fn a_new_connection_begins_without_subscriptions() {
    let mut server = Node::report(config(1));
    let mut client = Node::report(quiet(Config::plaintext()));
    client.handle().dial(Dial::to(server.address())).unwrap();
    let (there, here) = (client.connected().0, server.connected().0);
    client.run(0, move |cx| cx.subscribe(there, TOPIC)).unwrap();
    server.subscribed(here, TOPIC, true);
    server.handle().close(here).unwrap();
    let (again, here) = (client.connected().0, server.connected().0);
    assert_eq!(client.run(0, move |cx| (cx.subscribe(there, TOPIC), cx.unsubscribe(there, TOPIC))).0, Err(SendError::NotConnected));
    server.counts(Counter::Subscriptions, 0);
    server.handle().publish(TOPIC, frame(&server, 1)).unwrap();
    server.handle().send(here, frame(&server, 2)).unwrap();
    assert_eq!(client.message(again).1, body(2), "and not what was published");
    client.run(0, move |cx| cx.subscribe(again, TOPIC)).unwrap();
    server.subscribed(here, TOPIC, true);
    server.handle().publish(TOPIC, frame(&server, 3)).unwrap();
    assert_eq!(client.message(again).1, body(3));
    client.engine.shutdown();
    server.closed(here);
    server.finish();
}

#[test]
fn one_topic_too_many_is_refused_here_and_cuts_off_nobody() {
    let limited = |mut config: Config| {
        config.limits.subscriptions = 3;
        config
    };
    let mut server = Node::report(limited(config(1)));
    let mut client = Node::report(limited(quiet(Config::plaintext())));
    client.handle().dial(Dial::to(server.address())).unwrap();
    let (there, here) = (client.connected().0, server.connected().0);
    let results = client.run(0, move |cx| [1, 2, 3, 3, 4].map(|topic| cx.subscribe(there, Topic(topic))));
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), Ok(()), Err(SendError::TooManySubscriptions)]);
    // Through a handle the refusal can only be counted.
    client.handle().subscribe(there, Topic(5)).unwrap();
    client.counts(Counter::SubscriptionsRefused, 2);
    let results = client.run(0, move |cx| [cx.unsubscribe(there, Topic(1)), cx.subscribe(there, Topic(4))]);
    assert_eq!(results, [Ok(()), Ok(())]);
    server.subscribed(here, Topic(4), true);
    server.counts(Counter::Subscriptions, 3);
    assert_eq!((server.count(Counter::Peers), server.count(Counter::ViolationTooManySubscriptions)), (1, 0));
    client.engine.shutdown();
    server.closed(here);
    server.finish();
}

#[test]
fn whoever_subscribed_is_known_before_the_next_publish() {
    // A snapshot that is sent from `on_subscribed` comes before what is published afterwards: the probe cannot send one, so the test does
    // in the order that a handler would.
    let mut node = Node::report(config(1));
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    raw.send(&[control(SUBSCRIBE, TOPIC.0), control(UNSUBSCRIBE, TOPIC.0), control(SUBSCRIBE, TOPIC.0), control(SUBSCRIBE, 8)].concat());
    let mut told = Vec::new();
    while told.len() < 4 {
        match node.next() {
            Seen::Subscribed { peer: from, topic } if from == peer => told.push((true, topic)),
            Seen::Unsubscribed { peer: from, topic } if from == peer => told.push((false, topic)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, [(true, TOPIC), (false, TOPIC), (true, TOPIC), (true, Topic(8))]);
    let frame = frame(&node, 1);
    node.run(0, move |cx| {
        cx.send(peer, 2, b"snapshot").unwrap();
        cx.publish(TOPIC, &frame).unwrap();
    });
    raw.expect_data(2, b"snapshot");
    raw.expect_data(1, &body(1));
    drop(raw);
    node.finish();
}

#[test]
fn the_lane_of_a_publish_is_the_frames_own_and_one_too_long_passes_by() {
    let mut node = Node::report(config(1));
    let (mut narrow, peer) = node.raw_peer(Hello { max_message: 100, ..Hello::node(1) });
    narrow.send(&control(SUBSCRIBE, TOPIC.0));
    node.subscribed(peer, TOPIC, true);
    let (mut wide, _) = subscriber(&mut node, 2, &[TOPIC]);
    for (lane, len) in [(Lane::High, 101), (Lane::Bulk, 100)] {
        let frame = node.handle().frame(Meta::new(1).lane(lane), &vec![1; len]).unwrap();
        node.handle().publish(TOPIC, frame).unwrap();
    }
    assert_eq!(wide.message().unwrap(), (1, Lane::High as u8, vec![1; 101]));
    assert_eq!(wide.message().unwrap(), (1, Lane::Bulk as u8, vec![1; 100]));
    assert_eq!(narrow.message().unwrap(), (1, Lane::Bulk as u8, vec![1; 100]));
    node.counts(Counter::DeliveriesRefused, 1);
    drop((narrow, wide));
    node.finish();
}

#[test]
fn where_one_core_has_no_room_nobody_gets_anything() {
    let mut config = config(2);
    config.limits.inbox_messages = 16;
    let mut node = Node::report(config);
    let (mut a, first) = subscriber(&mut node, 1, &[TOPIC]);
    let (mut b, second) = subscriber(&mut node, 2, &[TOPIC]);
    assert_ne!(first.core(), second.core());
    let release = node.block(1);
    let mut taken = 0;
    let refused = loop {
        match node.handle().publish(TOPIC, frame(&node, taken)) {
            Ok(()) => taken += 1,
            // The core that is not held up may be late as well.
            Err(refused) if refused.reason == SendError::InboxFull { core: 0 } => std::thread::yield_now(),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.reason, refused.value.as_bytes()), (SendError::InboxFull { core: 1 }, frame(&node, taken).as_bytes()));
    drop(release);
    let others = node.handle().frame(77, b"marker").unwrap();
    node.run_when_there_is_room(1);
    eventually("the publish is taken", || node.handle().publish(TOPIC, others.clone()).is_ok());
    for raw in [&mut a, &mut b] {
        (0..taken).for_each(|number| raw.expect_data(1, &body(number)));
        raw.expect_data(77, b"marker");
    }
    drop((a, b));
    node.finish();
}

#[test]
fn a_stuck_subscriber_is_cut_off_at_its_bound_and_the_others_get_everything() {
    let mut config = config(1);
    config.limits.max_message = 64 << 10;
    config.limits.outbox_hard = 256 << 10;
    config.limits.outbox_soft = 256 << 10;
    config.timeouts.write_stall = NEVER;
    config.io.send_buffer = Some(16 << 10);
    let mut node = Node::report(config);
    let (mut reader, _) = subscriber(&mut node, 1, &[TOPIC]);
    let mut slow = Raw::connect_narrow(node.address()).shake(Hello::node(2));
    let (peer, _) = node.connected();
    slow.send(&control(SUBSCRIBE, TOPIC.0));
    node.subscribed(peer, TOPIC, true);
    node.counts(Counter::Subscriptions, 2);
    let mut number = 0;
    while node.count(Counter::Peers) == 2 {
        assert!(number < 2000, "never cut off: {:?}", node.handle().stats());
        node.handle().publish(TOPIC, node.handle().frame(1, &[number as u8; 3000]).unwrap()).unwrap();
        reader.expect_data(1, &[number as u8; 3000]);
        number += 1;
    }
    assert!(number > 80, "256 KiB are more than {number} messages of 3,000 bytes");
    assert_eq!(node.closed(peer), CloseReason::SlowPeer(Slow::HardBound));
    node.counts(Counter::SlowHardBound, 1);
    node.counts(Counter::Subscriptions, 1);
    drop((reader, slow));
    node.finish();
}

#[test]
fn a_thousand_stuck_subscribers_of_a_thousand_topics_keep_nothing_in_the_log() {
    const STUCK: u32 = 1000;
    // Broadcasts of 600 bytes pass them by, so that only topics could hold the log for them.
    const LONGEST: u32 = 500;
    let mut config = config(2);
    config.limits.max_peers = 2000;
    config.timeouts.write_stall = NEVER;
    config.io.send_buffer = Some(4 << 10);
    let mut node = Node::start(config, Mode::Report);
    let (mut reader, _) = subscriber(&mut node, 5000, &[TOPIC]);
    let mut stuck = Vec::new();
    for number in 0..STUCK {
        let mut raw = Raw::connect_narrow(node.address()).shake(Hello { max_message: LONGEST, ..Hello::node(number) });
        raw.send(&control(SUBSCRIBE, 1000 + u64::from(number)));
        stuck.push(raw);
    }
    node.counts(Counter::Subscriptions, u64::from(STUCK) + 1);
    let frame = node.handle().frame(1, &[1; LONGEST as usize]).unwrap();
    let publish = |topic: Topic, frame: &Frame| eventually("the publish is taken", || node.handle().publish(topic, frame.clone()).is_ok());
    for _ in 0..60 {
        (0..STUCK).for_each(|number| publish(Topic(1000 + u64::from(number)), &frame));
    }
    node.counts(Counter::Deliveries, 60 * u64::from(STUCK));
    let queued = |node: &Node| node.handle().peers(common::LIVENESS).unwrap();
    eventually("all of them are stuck", || {
        queued(&node).iter().filter(|peer| peer.blocked && peer.queued_bytes > 5000).count() == STUCK as usize
    });
    assert_eq!(node.count(Counter::LogBytes), 0, "what is published is in no log");

    // Meanwhile the others are served, and what they have is released: 3 MB of broadcasts on each core.
    for number in 0..10_000u32 {
        let body = [&number.to_le_bytes()[..], &[2; 600]].concat();
        if number % 2 == 0 {
            publish(TOPIC, &node.handle().frame(1, &body).unwrap());
        } else {
            // The core that has none of the readers may be behind: nobody waits for it.
            let frame = node.handle().frame(1, &body).unwrap();
            eventually("the broadcast is taken", || node.handle().broadcast(frame.clone()).is_ok());
        }
        if number % 100 == 99 {
            (number - 99..=number).for_each(|number| reader.expect_data(1, &[&number.to_le_bytes()[..], &[2; 600]].concat()));
            let held = node.count(Counter::LogBytes);
            assert!(held <= 2 * (512 << 10), "the logs hold {held} bytes while one peer reads");
        }
    }
    assert_eq!((node.count(Counter::LogEvacuations), node.count(Counter::SlowLogFull)), (0, 0));
    assert_eq!(node.count(Counter::Peers), u64::from(STUCK) + 1);
    drop((reader, stuck));
    node.finish();
}
