//! Short stories about deadlines that follow the round trips, in virtual time: over links whose delay is given, grows, or ends.

use std::time::Duration;

use super::actor::Mood;
use super::oracle::Told;
use super::pace::Pace;
use super::pipe::Faults;
use super::scenarios::{META, config, nanos, pair};
use super::sim::{MILLI, SECOND, World};
use crate::config::{AdaptiveKeepalive, Config};
use crate::error::{CloseReason, RequestError};
use crate::metrics::Counter;
use crate::proto::RequestTimeout;
use crate::wire::{Kind, control_frame};

/// Both sides give a silent peer up sooner where they know its round trips.
fn adaptive() -> Config {
    let mut config = config();
    config.keepalive.adaptive = Some(AdaptiveKeepalive::default());
    config
}

/// After so many milliseconds, or a few later.
#[track_caller]
fn assert_took(begin: u64, at: u64, millis: u64) {
    let took = (at - begin) / MILLI;
    assert!((millis..millis + 5).contains(&took), "after {took} ms, not {millis}");
}

impl World {
    /// From now on, everything takes so long from one end to the other.
    fn set_latency(&mut self, millis: u64) {
        self.net.faults.latency = (millis * MILLI, millis * MILLI);
    }

    /// What became of the first node's requests: when, and whether there was a response.
    fn timed_answers(&self) -> Vec<(u64, Result<usize, RequestError>)> {
        self.told(0, |told| if let Told::Response { result, .. } = told { Some(*result) } else { None })
    }

    /// The first node asks the second something, and nothing else happens until that has ended. Returns how long it took, ms.
    fn time_request(&mut self, timeout: RequestTimeout) -> (u64, bool) {
        let (peer, before, begin) = (self.peer(0), self.timed_answers().len(), self.now);
        self.on(0, move |actor, cx| _ = actor.request(cx, peer, META, 100, timeout));
        assert!(self.run_until(60 * SECOND, |world| world.timed_answers().len() > before));
        let (at, result) = self.timed_answers()[before];
        (((at - begin) as f64 / MILLI as f64).round() as u64, result.is_ok())
    }
}

#[test]
fn sim_a_peer_whose_round_trips_are_known_is_given_up_after_the_last_ping_in_vain() {
    let mut world = pair(adaptive(), config());
    world.run(30 * SECOND);
    let rtt = world.nodes[0].cores[0].shard.snapshot().peers[0].rtt;
    assert!(rtt.is_some_and(|rtt| rtt < Duration::from_millis(4)), "{rtt:?}");
    let pings = world.count(0, Counter::PingsSent);
    world.net.vanish(0);
    let begin = world.now;
    world.run(20 * SECOND);
    let closed = world.closed(0);
    assert_eq!(closed.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [CloseReason::Unresponsive]);
    // The silence began within the last interval; three pings, the first of which waits a second, are seven.
    let took = closed[0].0 - begin;
    assert!((7 * SECOND..=12 * SECOND + 5 * MILLI).contains(&took), "{:?}", Duration::from_nanos(took));
    assert_eq!(world.count(0, Counter::PingsSent) - pings, 3);
    // The other side goes by the ceiling.
    assert!(world.closed(1)[0].0 - begin >= 10 * SECOND - 5 * MILLI);
}

#[test]
fn sim_silence_is_dated_from_the_last_byte_and_before_the_first_pong_the_ceiling_holds() {
    for known in [true, false] {
        let mut world = super::scenarios::world([adaptive()]);
        let (end, _) = world.raw_peer(0);
        let mut begin = world.now;
        if known {
            world.run(5 * SECOND + 4 * MILLI);
            assert_eq!(world.raw_read(end), control_frame(Kind::Ping, 1u64.to_le_bytes()));
            begin = world.now;
            world.raw_write(end, &control_frame(Kind::Pong, 1u64.to_le_bytes()));
        }
        world.run(30 * SECOND);
        // The pong took 4 ms to be answered, and one to come.
        let expected = if known { 5_000 + 7_000 + 1 } else { 15_000 };
        assert_took(begin, world.closed(0)[0].0, expected);
        // Every ping came when it should: after the interval, and each after twice the wait of the one before.
        let pings = world.raw_read(end).windows(8).filter(|frame| *frame == &control_frame(Kind::Ping, [0; 8])[..8]).count();
        assert_eq!(pings, if known { 3 } else { 1 });
    }
}

#[test]
fn sim_nobody_is_given_up_on_a_link_that_becomes_slower_and_slower() {
    let mut world = pair(adaptive(), adaptive());
    for millis in [1, 10, 100, 300, 600, 1_000, 1_500, 2_000, 2_500] {
        world.set_latency(millis);
        world.run(60 * SECOND);
        assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]), "{millis} ms");
        let rtt = world.nodes[0].cores[0].shard.snapshot().peers[0].rtt.expect("a ping was answered");
        assert!(rtt > Duration::from_millis(millis), "{rtt:?} at {millis} ms");
    }
    // It has got used to that: now three pings wait longer than the ceiling allows.
    world.net.vanish(0);
    let begin = world.now;
    world.run(30 * SECOND);
    assert!(world.closed(0)[0].0 - begin > 9 * SECOND);
    // And on one that jumps, it is enough that the last ping is answered.
    let mut world = pair(adaptive(), adaptive());
    world.run(60 * SECOND);
    world.set_latency(3_000);
    world.run(300 * SECOND);
    assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]));
}

#[test]
fn sim_pings_are_never_a_flood_to_the_other_side() {
    // As often as may be: a ping each quarter of a second while nothing is answered, and none of the others' limits is met.
    let mut eager = adaptive();
    eager.keepalive.interval = Duration::from_millis(250);
    let mut floor = AdaptiveKeepalive::default();
    (floor.floor, floor.probes) = (Duration::from_millis(250), 5);
    eager.keepalive.adaptive = Some(floor);
    let mut world = pair(eager.clone(), eager);
    world.run(10 * SECOND);
    for millis in [5, 900, 40, 1_900, 5, 3_000, 1, 400] {
        world.set_latency(millis);
        world.run(20 * SECOND);
        assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]), "{millis} ms");
    }
    assert_eq!((world.count(0, Counter::ViolationPingFlood), world.count(1, Counter::ViolationPingFlood)), (0, 0));
}

#[test]
fn sim_a_pause_does_not_look_like_a_long_way() {
    let mut world = pair(adaptive(), config());
    world.run(20 * SECOND);
    let rtt = |world: &World| world.nodes[0].cores[0].shard.snapshot().peers[0].rtt.expect("a ping was answered");
    let before = rtt(&world);
    // It stops reading while its ping is under way.
    let peer = world.peer(0);
    let pings = world.count(0, Counter::PingsSent);
    assert!(world.run_until(10 * SECOND, |world| world.count(0, Counter::PingsSent) > pings));
    world.on(0, move |_, cx| cx.pause_read(peer));
    world.run(5 * SECOND);
    world.on(0, move |actor, cx| actor.resume(cx, peer));
    world.run(30 * SECOND);
    assert!(rtt(&world) < before + Duration::from_millis(1), "{:?} after {before:?}", rtt(&world));
    assert_eq!(world.closed(0), vec![]);
}

#[test]
fn sim_requests_wait_for_as_long_as_responses_take_between_floor_and_ceiling() {
    const ADAPTIVE: RequestTimeout = RequestTimeout::Adaptive;
    let mut asking = config();
    asking.timeouts.request_floor = Duration::from_millis(50);
    let mut world = World::new(7, Faults::none(), Pace::prompt());
    world.oracle.borrow_mut().records_told = true;
    world.add_node(asking, &Mood::quiet());
    world.add_node(config(), &Mood::quiet());
    world.on(0, |actor, cx| actor.dial(cx, crate::dial::Dial::to(super::sim::address(1)).once()));
    world.run(100 * MILLI);
    let wait = |world: &World| world.nodes[0].cores[0].shard.snapshot().peers[0].response_time;
    assert_eq!(wait(&world), None);
    // Steady: the estimate is what a response takes, and what is waited for is the floor.
    world.set_latency(10);
    for _ in 0..50 {
        assert_eq!(world.time_request(ADAPTIVE), (20, true));
    }
    assert!(wait(&world).is_some_and(|time| time.abs_diff(Duration::from_millis(20)) < Duration::from_millis(2)));
    // The link becomes slower than the wait: each that is in vain doubles it, until one comes in time.
    world.set_latency(150);
    // Timers are to the millisecond, upwards.
    let mut waits = || (world.time_request(ADAPTIVE).0 / 10 * 10, world.timed_answers().last().is_some_and(|(_, result)| result.is_ok()));
    let waits: Vec<_> = std::iter::repeat_with(&mut waits).take(5).collect();
    assert_eq!(waits, [(50, false), (100, false), (200, false), (300, true), (300, true)]);
    assert_eq!(world.count(0, Counter::RequestsTimedOut), 3);
    world.run(SECOND);
    assert_eq!(world.count(0, Counter::LateResponses), 3);
    // An explicit wait is what it says, and its response a measure like any other.
    assert_eq!(world.time_request(Duration::from_millis(299).into()), (299, false));
    assert_eq!(world.time_request(Duration::from_secs(9).into()), (300, true));
}

#[test]
fn sim_requests_that_miss_together_double_the_wait_once_and_the_first_waits_for_the_ceiling() {
    let mut world = World::new(7, Faults::none(), Pace::prompt());
    world.oracle.borrow_mut().records_told = true;
    let mut patient = config();
    patient.timeouts.request_ceiling = Duration::from_secs(4);
    (patient.keepalive.interval, patient.keepalive.timeout) = (Duration::from_secs(1000), Duration::from_secs(3000));
    let deaf = Mood { answer: [0, 0, 0], ..Mood::quiet() };
    world.add_node(patient.clone(), &Mood::quiet());
    world.add_node(patient, &deaf);
    world.on(0, |actor, cx| actor.dial(cx, crate::dial::Dial::to(super::sim::address(1)).once()));
    world.run(100 * MILLI);
    // Nothing is known: the ceiling, again and again, since nothing was measured that could be doubled.
    assert_eq!(world.time_request(RequestTimeout::Adaptive), (4_000, false));
    assert_eq!(world.time_request(RequestTimeout::Adaptive), (4_000, false));
    world.end_nodes();
    // One that answers until it does not.
    let mut patient = config();
    (patient.keepalive.interval, patient.keepalive.timeout) = (Duration::from_secs(1000), Duration::from_secs(3000));
    let mut world = pair(patient.clone(), patient);
    assert_eq!(world.time_request(RequestTimeout::Adaptive), (2, true));
    world.net.vanish(0);
    let peer = world.peer(0);
    world.on(0, move |actor, cx| (0..20).for_each(|_| _ = actor.request(cx, peer, META, 100, RequestTimeout::Adaptive)));
    world.run(nanos(Duration::from_millis(1_100)));
    assert_eq!(world.count(0, Counter::RequestsTimedOut), 20);
    for expected in [2_000, 4_000, 8_000, 10_000, 10_000] {
        let (took, answered) = world.time_request(RequestTimeout::Adaptive);
        assert!(!answered && (expected..expected + 2).contains(&took), "{took} ms");
    }
    world.end_nodes();
}

impl World {
    fn end_nodes(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.shut_down(node));
        self.run(60 * SECOND);
        self.oracle.borrow().check_end();
        self.check_baseline();
    }
}
