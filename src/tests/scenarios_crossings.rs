//! Short stories in which one feature meets another: the pool and what is slow, breakers and several dials, publishes and limits.

use std::time::Duration;

use super::keys::identity;
use super::oracle::Told;
use super::scenarios::{META, config, pair, world};
use super::scenarios_pool::{answers, ask, end, hasty, pin, sealed, states, strict};
use super::scenarios_topics::{TOPIC, publish, subscribe};
use super::sim::{MILLI, SECOND, address};
use crate::config::{Config, Rate, RateLimit, Rates};
use crate::dial::Dial;
use crate::endpoint::BreakerState::{HalfOpen, Open};
use crate::error::CloseReason;
use crate::metrics::Counter;

#[test]
fn sim_connections_that_come_and_go_between_two_looks_do_not_pile_up() {
    let mut keen = config();
    keen.pool.max_idle = Duration::from_secs(3600);
    keen.backoff.max = Duration::from_millis(100);
    let mut world = world([keen, config()]);
    pin(&mut world, address(1));
    for _ in 0..100 {
        assert!(world.run_until(SECOND, |world| world.peers(1).len() == 1));
        let theirs = world.peer(1);
        // The room that is kept for them is looked at after each turn.
        world.on(1, move |actor, cx| {
            assert!(actor.send(cx, theirs, META, 10).is_ok());
            cx.close(theirs);
        });
        world.run(50 * MILLI);
    }
    assert!(world.count(0, Counter::Established) >= 100);
}

#[test]
fn sim_a_connection_on_which_a_long_message_arrives_is_in_use() {
    let mut slow = hasty();
    slow.timeouts.partial = Duration::from_secs(60);
    let mut world = world([slow, config()]);
    world.net.faults.capacity = (4000, 4000);
    world.net.faults.latency = (500 * MILLI, 500 * MILLI);
    let peer = ask(&mut world, address(1)).unwrap();
    world.run(SECOND);
    let other = world.peer(1);
    world.on(1, move |actor, cx| assert!(actor.send(cx, other, META, 20_000).is_ok()));
    world.run(60 * SECOND);
    let (at, _) = world.told(0, |told| matches!(told, Told::Message { .. }).then_some(()))[0];
    let (closed, reason) = world.closed(0)[0];
    assert_eq!((reason, closed >= at + 2 * SECOND), (CloseReason::Idle, true), "{peer} came to its end in the middle of a message");
}

#[test]
fn sim_a_probe_that_succeeds_makes_room_for_the_next_before_it_is_enough() {
    let mut wary = strict();
    wary.breaker.successes = 2;
    wary.backoff.max = Duration::from_millis(50);
    let mut world = world([wary, config()]);
    world.nodes[1].listening = false;
    world.on(0, |actor, cx| (0..2).for_each(|channel| actor.dial(cx, Dial::to(address(1)).channel(channel))));
    world.run(500 * MILLI);
    world.nodes[1].listening = true;
    assert!(world.run_until(5 * SECOND, |world| world.peers(1).len() == 1));
    let peer = world.peer(1);
    world.on(1, move |actor, cx| assert!(actor.send(cx, peer, META, 10).is_ok()));
    // Long before the time of a probe is over.
    assert!(world.run_until(SECOND, |world| world.peers(1).len() == 2), "the other channel waits for nothing");
    assert_eq!(states(&world, 0), [Open, HalfOpen]);
    end(&mut world);
}

#[test]
fn sim_a_publish_for_which_there_is_no_memory_costs_a_subscriber_nothing() {
    let limit = RateLimit { messages: Some(Rate { per_second: 1, burst: 25 }), bytes: None };
    let mut small = Config { rates: Some(Rates { send: Some(limit), ..Rates::default() }), ..config() };
    small.limits.send_bytes = 2 << 20;
    small.limits.send_reserve = 0;
    small.timeouts.write_stall = Duration::from_secs(60);
    let mut world = pair(small, config());
    subscribe(&mut world);
    world.net.faults.capacity = (10_000, 10_000);
    let (_, stuck) = world.raw_peer(0);
    world.on(0, move |actor, cx| (0..20).for_each(|_| assert!(actor.send(cx, stuck, META, 100_000).is_ok())));
    world.run(MILLI);
    for _ in 0..30 {
        world.on(0, |actor, cx| assert_eq!(publish(actor, cx, TOPIC, 200_000), Ok(())));
        world.run(MILLI);
    }
    world.on(0, |actor, cx| assert_eq!(publish(actor, cx, TOPIC, 100), Ok(())));
    world.run(SECOND);
    let counts = [Counter::DeliveriesRefused, Counter::SendsRateLimited, Counter::Deliveries].map(|counter| world.count(0, counter));
    assert_eq!((world.messages(1), counts), (1, [30, 0, 1]));
}

#[test]
fn sim_what_was_taken_once_is_sent_again_whatever_the_limit() {
    let mut limited = config();
    let send = Some(RateLimit { messages: Some(Rate { per_second: 1, burst: 2 }), bytes: None });
    limited.rates = Some(Rates { send, ..Rates::default() });
    let mut world = world([limited]);
    let (end, peer) = world.raw_peer(0);
    for _ in 0..4 {
        world.send_acked(0, peer, META);
        world.run(SECOND);
    }
    world.net.reset(world.now, end.link);
    world.run(SECOND);
    let (again, _) = world.raw_peer_named(0, end.link, 1);
    world.run(SECOND);
    assert_eq!(world.raw_acked(again).len(), 4);
    assert_eq!((world.count(0, Counter::AckedResent), world.count(0, Counter::SendsRateLimited)), (4, 0));
}

#[test]
fn sim_a_wrong_address_does_not_take_the_place_of_one_that_is_connected() {
    let mut world = world([sealed(config()), sealed(config())]);
    let node = identity(1).node_id();
    let peer = ask(&mut world, (node, address(1))).unwrap();
    assert_eq!(ask(&mut world, (node, address(7))), Ok(peer), "a hit");
    // Whoever asks while it ends waits for that, and then for a new one.
    world.on(0, move |actor, cx| {
        cx.close(peer);
        assert!(actor.connect(cx, node, false).is_ok());
    });
    assert!(world.run_until(10 * SECOND, |world| answers(world, 0).len() == 3));
    assert!(answers(&world, 0)[2].is_ok(), "{:?}", answers(&world, 0));
    end(&mut world);
}
