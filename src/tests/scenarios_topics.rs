//! Short stories about topics, in virtual time: subscribers that read nothing, a core without memory, a flood.

use super::actor::{Actor, Mood};
use super::oracle::Told;
use super::pace::Pace;
use super::pipe::{End, Faults};
use super::scenarios::{META, config, pair, world};
use super::sim::{MILLI, SECOND, World};
use crate::config::Cores;
use crate::error::{CloseReason, SendError, Slow};
use crate::handler::Context;
use crate::id::{NodeId, PeerId, Topic};
use crate::metrics::Counter;
use crate::wire::{Header, Hello, Kind, Preamble, control_frame};

pub(super) const TOPIC: Topic = Topic(7);

pub(super) fn subscription(topic: u64) -> [u8; 16] {
    control_frame(Kind::Subscribe, topic.to_le_bytes())
}

pub(super) fn publish(actor: &mut Actor, cx: &mut Context<'_>, topic: Topic, len: usize) -> Result<(), SendError> {
    let body = actor.body(len);
    let frame = cx.frame(META, &body).unwrap();
    actor.publish(cx, topic, &frame)
}

/// The second node of a pair subscribes to [`TOPIC`] at the first.
pub(super) fn subscribe(world: &mut World) -> PeerId {
    let (subscriber, publisher) = (world.peer(0), world.peer(1));
    world.on(1, move |actor, cx| assert_eq!(actor.subscribe(cx, publisher, TOPIC, true), Ok(())));
    assert!(world.run_until(SECOND, |world| world.count(0, Counter::Subscriptions) == 1));
    subscriber
}

/// So many peers of the first node that no engine stands behind, after their handshakes, which take messages of so many bytes.
fn crowd(world: &mut World, count: u64, max_message: u32) -> Vec<End> {
    let ends: Vec<End> = (0..count).map(|_| world.net.connect(world.now, 0)).collect();
    world.run(2 * MILLI);
    for end in &ends {
        let mut node = NodeId([200; 32]);
        node.0[..4].copy_from_slice(&end.link.to_le_bytes());
        let network = world.nodes[0].config.network;
        let hello = Hello { network, node, instance: 1, features: 0, max_message, channel: 0 };
        world.raw_write(*end, &[&Preamble::PLAINTEXT.encode()[..], &hello.encode()].concat());
    }
    world.run(4 * MILLI);
    for end in &ends {
        assert_eq!(world.raw_read(*end).len(), 96);
        world.raw_write(*end, &Header::control(Kind::Ready).encode());
    }
    world.run(4 * MILLI);
    ends
}

#[test]
fn sim_stuck_subscribers_of_quiet_topics_do_not_keep_the_log() {
    const STUCK: u64 = 1000;
    let mut world = pair(config(), config());
    let reader = subscribe(&mut world);
    world.oracle.borrow_mut().records_told = false;
    world.net.faults.capacity = (1000, 1000);
    // Broadcasts pass them by, being too long for them.
    let ends: Vec<End> = (0..5).flat_map(|_| crowd(&mut world, STUCK / 5, 500)).collect();
    ends.iter().zip(1000..).for_each(|(end, topic)| world.raw_write(*end, &subscription(topic)));
    world.run(10 * MILLI);
    assert_eq!(world.count(0, Counter::Subscriptions), STUCK + 1);
    for _ in 0..5 {
        world.on(0, |actor, cx| (0..STUCK).for_each(|topic| assert_eq!(publish(actor, cx, Topic(1000 + topic), 500), Ok(()))));
    }
    world.run(100 * MILLI);
    assert_eq!(world.count(0, Counter::Deliveries), 5 * STUCK);
    assert_eq!(world.count(0, Counter::LogBytes), 0, "what is published is in no log");
    assert!(world.count(0, Counter::PrivateBytes) > STUCK * 1000, "all of them are stuck");
    // Twenty times the step at which the log is looked at.
    for number in 0..200 {
        world.on(0, move |actor, cx| {
            let body = actor.body(30_000);
            let frame = cx.frame(META, &body).unwrap();
            // The oracle counts for the reader alone.
            assert_eq!(cx.broadcast(&frame), Ok(()));
            actor.taken(reader, &Ok(crate::handler::Sent::Queued), META, super::oracle::Item::of_frame(META, frame.as_bytes()));
            if number % 10 == 0 {
                assert_eq!(publish(actor, cx, TOPIC, 100), Ok(()));
            }
        });
        world.run(MILLI);
        assert!(world.count(0, Counter::LogBytes) <= 512 << 10, "the stuck ones keep {} bytes", world.count(0, Counter::LogBytes));
    }
    assert_eq!(world.count(1, Counter::MessagesReceived), 220);
    assert_eq!((world.count(0, Counter::LogEvacuations), world.count(0, Counter::SlowLogFull)), (0, 0));
    assert_eq!(world.count(0, Counter::Peers), STUCK + 1);
}

#[test]
fn sim_a_stuck_subscriber_is_cut_off_at_the_hard_bound_and_the_others_get_everything() {
    let mut small = config();
    small.limits.outbox_hard = 3 << 20;
    let mut world = pair(small, config());
    subscribe(&mut world);
    world.net.faults.capacity = (10_000, 10_000);
    let (end, stuck) = world.raw_peer(0);
    world.raw_write(end, &subscription(TOPIC.0));
    world.run(MILLI);
    for number in 0..700 {
        world.on(0, |actor, cx| assert_eq!(publish(actor, cx, TOPIC, 5000), Ok(())));
        world.run(MILLI);
        let closed = world.closed(0).iter().map(|(_, reason)| *reason).collect::<Vec<_>>();
        // What its socket took, and 3 MiB of 5,008 bytes and, by the large ones, a span for each.
        if number < 580 {
            assert_eq!(closed, [], "after {number}");
        } else if number > 640 {
            assert_eq!(closed, [CloseReason::SlowPeer(Slow::HardBound)]);
        }
    }
    world.run(10 * SECOND);
    assert!(!world.peers(0).contains(&stuck));
    assert_eq!((world.messages(1), world.count(0, Counter::Subscriptions)), (700, 1));
    assert_eq!((world.count(0, Counter::DeliveriesRefused), world.count(0, Counter::PrivateBytes)), (0, 0));
}

#[test]
fn sim_a_core_that_is_behind_refuses_publishes_and_cuts_nobody_off() {
    let mut small = config();
    small.limits.outbox_hard = 3 << 20;
    let mut world = pair(small, config());
    subscribe(&mut world);
    world.pace.write_budget = 33_000;
    let mut turns = Vec::new();
    for _ in 0..3 {
        let before = world.count(0, Counter::Publishes);
        world.on(0, |actor, cx| while publish(actor, cx, TOPIC, 10_000).is_ok() {});
        turns.push(world.count(0, Counter::Publishes) - before);
    }
    // Half of the hard bound in one turn, and nothing while more than half is not written. A turn writes 33,000 bytes.
    assert_eq!(turns, [157, 157, 0]);
    assert_eq!(world.count(0, Counter::PublishesRefused), 3);
    world.run(10 * SECOND);
    world.on(0, |actor, cx| assert_eq!(publish(actor, cx, TOPIC, 10_000), Ok(())));
    world.run(SECOND);
    assert_eq!((world.messages(1) as u64, world.closed(0)), (2 * 157 + 1, vec![]));
    assert_eq!(world.count(0, Counter::DeliveriesRefused), 0);
}

#[test]
fn sim_publishes_wait_for_memory_that_the_core_itself_has_not_written() {
    let mut small = config();
    small.limits.send_bytes = 4 << 20;
    let mut world = world([small]);
    for _ in 0..100 {
        let (end, _) = world.raw_peer(0);
        world.raw_write(end, &subscription(TOPIC.0));
    }
    world.run(MILLI);
    world.on(0, |actor, cx| {
        let taken = (0..100).take_while(|_| publish(actor, cx, TOPIC, 1000) == Ok(())).count();
        // 1 MiB in hundreds of 1,008 bytes, and one goes past it.
        assert_eq!(taken, 11);
    });
    // Hardly anything is written, and the next turns publish as long as half of the memory is free.
    world.pace.flush_peers = 1;
    let turns: Vec<u64> = (0..10)
        .map(|_| {
            let before = world.count(0, Counter::Publishes);
            world.on(0, |actor, cx| while publish(actor, cx, TOPIC, 1000).is_ok() {});
            world.count(0, Counter::Publishes) - before
        })
        .collect();
    assert_eq!((turns[0], turns[9]), (11, 0), "{turns:?}");
    let taken = 11 + turns.iter().sum::<u64>();
    world.run(SECOND);
    assert!(taken >= 22 && world.count(0, Counter::Deliveries) == 100 * taken && world.count(0, Counter::PrivateBytes) == 0);
    assert_eq!((world.count(0, Counter::DeliveriesRefused), world.closed(0)), (0, vec![]));
}

/// Memory for 2 MiB, nearly all of it for a peer that reads nothing, and a publish that does not fit beside. Says what became of both.
fn without_memory(stuck_subscribes: bool) -> (World, PeerId) {
    let mut small = config();
    small.limits.send_bytes = 2 << 20;
    small.limits.send_reserve = 0;
    let mut world = pair(small, config());
    subscribe(&mut world);
    world.net.faults.capacity = (10_000, 10_000);
    let (end, stuck) = world.raw_peer(0);
    if stuck_subscribes {
        world.raw_write(end, &subscription(TOPIC.0));
    }
    world.run(MILLI);
    world.on(0, move |actor, cx| (0..20).for_each(|_| assert!(actor.send(cx, stuck, META, 100_000).is_ok())));
    world.run(MILLI);
    world.on(0, |actor, cx| assert_eq!(publish(actor, cx, TOPIC, 200_000), Ok(())));
    world.run(SECOND);
    (world, stuck)
}

#[test]
fn sim_without_memory_who_reads_is_passed_by_and_who_does_not_is_cut_off() {
    let (mut world, stuck) = without_memory(false);
    assert!(world.peers(0).contains(&stuck) && world.closed(0).is_empty());
    assert_eq!((world.messages(1), world.count(0, Counter::DeliveriesRefused), world.count(0, Counter::Deliveries)), (0, 1, 0));
    // The next that fits arrives.
    world.on(0, |actor, cx| assert_eq!(publish(actor, cx, TOPIC, 100), Ok(())));
    world.run(SECOND);
    assert_eq!(world.messages(1), 1);

    // What the stuck one lets go is there for the other in the same publish.
    let (mut world, stuck) = without_memory(true);
    assert_eq!(world.oracle.borrow().reason(world.nodes[0].engine, stuck), Some(CloseReason::SlowPeer(Slow::HardBound)));
    assert_eq!((world.messages(1), world.count(0, Counter::DeliveriesRefused), world.count(0, Counter::Deliveries)), (1, 0, 1));
}

#[test]
fn sim_one_topic_too_many_is_refused_at_its_source() {
    let mut few = config();
    few.limits.subscriptions = 3;
    let mut world = pair(few.clone(), few);
    let publisher = world.peer(1);
    world.on(1, move |actor, cx| {
        for topic in [1, 2, 3, 2, 1] {
            assert_eq!(actor.subscribe(cx, publisher, Topic(topic), true), Ok(()));
        }
        assert_eq!(actor.subscribe(cx, publisher, Topic(4), true), Err(SendError::TooManySubscriptions));
        assert_eq!(actor.subscribe(cx, publisher, Topic(9), false), Ok(()), "it never had that");
        assert_eq!(actor.subscribe(cx, publisher, Topic(2), false), Ok(()));
        assert_eq!(actor.subscribe(cx, publisher, Topic(4), true), Ok(()));
    });
    world.run(SECOND);
    let told = world.told(0, |told| match told {
        Told::Subscribed(topic) => Some((true, topic.0)),
        Told::Unsubscribed(topic) => Some((false, topic.0)),
        _ => None,
    });
    let told: Vec<_> = told.into_iter().map(|(_, told)| told).collect();
    assert_eq!(told, [(true, 1), (true, 2), (true, 3), (false, 2), (true, 4)], "what is said twice is sent once");
    assert_eq!((world.count(1, Counter::SubscriptionsRefused), world.count(0, Counter::Subscriptions)), (1, 3));
    world.oracle.borrow().check_agreement();
}

#[test]
fn sim_changing_ones_mind_fills_no_memory() {
    let mut small = config();
    small.limits.outbox_hard = 3 << 20;
    let mut world = world([small]);
    world.net.faults.capacity = (1000, 1000);
    let (_, peer) = world.raw_peer(0);
    world.on(0, move |actor, cx| {
        let taken = (0..1_000_000).take_while(|number| actor.subscribe(cx, peer, TOPIC, number % 2 == 0) == Ok(())).count();
        assert!((190_000..200_000).contains(&taken), "{taken} frames of 16 bytes in 3 MiB");
    });
    assert!(world.count(0, Counter::PrivateBytes) <= 3 << 20);
    assert_eq!(world.count(0, Counter::SubscriptionsRefused), 1);
}

#[test]
fn sim_who_publishes_until_it_is_refused_comes_to_an_end_also_without_subscribers() {
    let mut world = world([config()]);
    world.on(0, |_, cx| {
        let frame = cx.frame(META, &[1; 1 << 20]).unwrap();
        let taken = (0..100).take_while(|_| cx.publish(TOPIC, &frame) == Ok(())).count();
        assert_eq!(taken, 7, "half of 16 MiB, with headers");
    });
    world.on(0, |_, cx| assert_eq!(cx.publish(TOPIC, &cx.frame(META, b"later").unwrap()), Ok(())));
}

#[test]
fn sim_a_flood_of_subscriptions_is_bounded_by_the_read_budget() {
    let mut world = World::new(7, Faults::none(), Pace { read_budget: 1, ..Pace::prompt() });
    world.oracle.borrow_mut().records_told = true;
    world.add_node(config(), &Mood::quiet());
    let (flood, _) = world.raw_peer(0);
    let (other, _) = world.raw_peer(0);
    let change = |topic: u64| [subscription(topic), control_frame(Kind::Unsubscribe, topic.to_le_bytes())].concat();
    world.raw_write(flood, &(0..32_768).flat_map(change).collect::<Vec<u8>>());
    let mut message = Vec::new();
    crate::wire::append_message(&mut message, crate::wire::Draft::data(META, b"me too"), 16 << 10);
    world.raw_write(other, &message);
    world.run(SECOND);
    let told = world.told(0, |told| match told {
        Told::Subscribed(_) | Told::Unsubscribed(_) => Some(true),
        Told::Message { .. } => Some(false),
        _ => None,
    });
    // One read in a turn, of 64 KiB.
    let turns: Vec<usize> = told.chunk_by(|a, b| a.0 == b.0).map(|turn| turn.iter().filter(|(_, change)| *change).count()).collect();
    assert_eq!((turns.iter().sum::<usize>(), turns.iter().max()), (65_536, Some(&4096)));
    let before = told.iter().position(|(_, change)| !change).expect("the other's message came");
    assert!(before <= 2 * 4096, "{before} changes before the message of another peer");
    assert_eq!((world.count(0, Counter::Subscriptions), world.closed(0)), (0, vec![]));
}

#[test]
fn sim_subscriptions_and_publishes_of_other_cores_find_their_way() {
    let mut world = World::new(7, Faults::none(), Pace { mail: MILLI, ..Pace::prompt() });
    world.oracle.borrow_mut().records_told = true;
    for _ in 0..4 {
        world.add_node(config().cores(Cores::Unpinned(2)), &Mood::quiet());
    }
    (1..4).for_each(|node| world.dial(node, 0));
    assert!(world.run_until(SECOND, |world| (1..4).all(|node| world.peers(node).len() == 1) && world.peers(0).len() == 3));
    for node in 1..4 {
        let publisher = world.peer(node);
        // From the core that does not have the peer.
        world.task(node, 1 - publisher.core(), move |actor, cx| assert_eq!(actor.subscribe(cx, publisher, TOPIC, true), Ok(())));
    }
    assert!(world.run_until(SECOND, |world| world.count(0, Counter::Subscriptions) == 3));
    assert!(world.nodes[0].cores.iter_mut().all(|core| core.shard.stats().get(Counter::Subscriptions) > 0), "on both cores");
    for core in [0, 1] {
        world.task(0, core, |actor, cx| (0..50).for_each(|len| assert_eq!(publish(actor, cx, TOPIC, 300 * len), Ok(()))));
        world.run(100 * MILLI);
    }
    assert_eq!((1..4).map(|node| world.messages(node)).collect::<Vec<_>>(), [100; 3]);
    let leaver = world.peer(1);
    world.task(1, leaver.core(), move |_, cx| cx.close(leaver));
    world.run(SECOND);
    assert_eq!(world.count(0, Counter::Subscriptions), 2, "a subscription ends with its connection");
    world.oracle.borrow().check_agreement();
}
