//! Short stories about peers that send too much, and about sending too much, in virtual time: what each policy does to the flood, and that
//! nobody beside it notices.
//!
//! The flood comes from a raw end, so that it is known to the byte; where it must not be taken for dead, from a node.

use std::cell::Cell;
use std::time::Duration;

use super::actor::Actor;
use super::oracle::{Item, Told};
use super::pipe::End;
use super::scenarios::{META, config, pair};
use super::scenarios_slow::{frame, send};
use super::scenarios_topics::{TOPIC, subscribe, subscription};
use super::sim::{MILLI, SECOND, World, address};
use crate::config::{Config, Rate, RateLimit, Rates, WhenOver};
use crate::dial::Dial;
use crate::error::{CloseReason, SendError, Violation};
use crate::handler::{Context, RateLimited, Sent};
use crate::id::{PeerId, Topic};
use crate::metrics::Counter;
use crate::wire::{Draft, Frame, Goodbye, GoodbyeCode, HEADER_LEN, Kind, Meta, append_message, control_frame, message_wire_len};

/// Of the raw end's messages: too short for a number, with what stands before it.
const BODY: usize = 16;
const FRAME: usize = HEADER_LEN + BODY;
const LONGEST: usize = 50_000;
const FRAGMENT: usize = 1024;

fn messages(per_second: u32, burst: u32) -> Option<RateLimit> {
    Some(RateLimit { messages: Some(Rate { per_second, burst }), bytes: None })
}

/// With the smallest burst that there may be.
fn bytes(per_second: u32) -> Option<RateLimit> {
    let burst = message_wire_len(true, LONGEST, FRAGMENT) as u32;
    Some(RateLimit { messages: None, bytes: Some(Rate { per_second, burst }) })
}

fn rated(rates: Rates) -> Config {
    let mut config = Config { rates: Some(rates), ..config() };
    config.limits.max_message = LONGEST;
    config.limits.fragment = FRAGMENT;
    config.limits.outbox_soft = 100_000;
    config.limits.outbox_hard = 200_000;
    config
}

fn receiving(when_over: WhenOver, receive: Option<RateLimit>) -> Config {
    rated(Rates { receive, when_over, ..Rates::default() })
}

/// So many messages of one frame.
fn flood(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..count).for_each(|number| append_message(&mut bytes, Draft::data(META, &[number as u8; BODY]), FRAGMENT));
    bytes
}

thread_local! {
    static NUMBER: Cell<u8> = const { Cell::new(0) };
}

/// One message in pieces. The oracle looks at the numbers in bodies: they grow from call to call.
fn long(message_type: u16, len: usize) -> Vec<u8> {
    let number = NUMBER.get() + 1;
    NUMBER.set(number);
    let (mut bytes, mut body) = (Vec::new(), vec![0; len]);
    body[16] = number;
    append_message(&mut bytes, Draft::data(Meta::new(message_type), &body), FRAGMENT);
    bytes
}

/// A node with a well-behaved one beside it, and a raw end that is not.
fn beside(config: Config) -> (World, End, PeerId) {
    let mut world = pair(config, Config { limits: rated(Rates::default()).limits, ..super::scenarios::config() });
    let (end, peer) = world.raw_peer(0);
    (world, end, peer)
}

impl World {
    /// What the first node was handed, with when.
    fn handed(&self) -> Vec<(u64, (u16, usize))> {
        self.told(0, |told| if let Told::Message { message_type, len } = told { Some((*message_type, *len)) } else { None })
    }

    /// How many messages of the raw end that were.
    fn of_the_flood(&self) -> usize {
        self.handed().iter().filter(|(_, (_, len))| *len == BODY).count()
    }

    fn limited(&self) -> RateLimited {
        let reports = self.told(0, |told| if let Told::RateLimited(dropped) = told { Some(*dropped) } else { None });
        reports.into_iter().fold(RateLimited::default(), |sum, (_, dropped)| RateLimited {
            messages: sum.messages + dropped.messages,
            bytes: sum.bytes + dropped.bytes,
        })
    }

    /// Messages and bytes that were dropped.
    fn counted(&mut self) -> (u64, u64) {
        (self.count(0, Counter::RateLimitedMessages), self.count(0, Counter::RateLimitedBytes))
    }

    /// The second node sends the first a message, which is there after a millisecond.
    fn prove_unhurt(&mut self) {
        let (peer, before) = (self.peer(1), self.handed().len());
        self.on(1, move |actor, cx| assert_eq!(actor.send(cx, peer, META, 24), Ok(Sent::Queued)));
        self.run(MILLI + MILLI / 10);
        let handed = self.handed();
        assert!(handed[before..].iter().any(|(_, (_, len))| *len == 24), "{:?}", &handed[before..]);
    }

    /// Everybody leaves, and nothing stays.
    fn end_well(&mut self) {
        let peers = self.peers(0);
        self.on(0, move |_, cx| peers.iter().for_each(|peer| cx.close(*peer)));
        self.run(90 * SECOND);
        self.oracle.borrow().check_end();
        self.check_baseline();
    }
}

#[test]
fn sim_a_flood_is_read_at_its_limit_in_order_and_whole() {
    let (mut world, end, _) = beside(receiving(WhenOver::Delay, messages(100, 10)));
    let begin = world.now;
    world.raw_write(end, &flood(2_000));
    let mut pings = 0;
    for second in 1..20u64 {
        world.run(SECOND - 2 * MILLI);
        world.prove_unhurt();
        let (got, allowed) = (world.of_the_flood() as u64, 10 + (world.now - begin) / (10 * MILLI));
        assert!(got <= allowed && got + 5 >= allowed, "{got} of {allowed} after {second} s");
        pings += world.raw_read(end).chunks(16).filter(|frame| frame[..8] == control_frame(Kind::Ping, [0; 8])[..8]).count();
    }
    // The end says nothing but the flood, and is pinged all the same: it could not tell that this side lives.
    assert_eq!(pings, 3);
    world.run(2 * SECOND);
    assert_eq!((world.of_the_flood(), world.closed(0)), (2_000, vec![]));
    // Not one look for each message: each waits for a step's worth.
    let delays = world.count(0, Counter::RateDelays);
    assert!((790..=1_000).contains(&delays), "{delays} delays");
    assert_eq!(world.counted(), (0, 0));
    // After a pause there is a burst again.
    world.raw_write(end, &flood(10));
    world.run(2 * MILLI);
    assert_eq!(world.of_the_flood(), 2_010);
    world.end_well();
}

#[test]
fn sim_neither_side_takes_the_other_for_dead_while_one_delays() {
    // A minute's worth is on its way at once, so every ping of the sender comes a minute late.
    let (first, second) = (receiving(WhenOver::Delay, bytes(10_000)), Config { limits: rated(Rates::default()).limits, ..config() });
    let mut world = pair(first, second);
    let peer = world.peer(1);
    for part in 0..6u64 {
        world.task_in(part * 10 * MILLI, 1, 0, move |actor: &mut Actor, cx: &mut Context<'_>| {
            (0..100).for_each(|_| assert!(actor.send(cx, peer, META, 1_000).is_ok()));
        });
    }
    world.run(50 * SECOND);
    let got = world.messages(0);
    assert!((540..=560).contains(&got), "{got} messages after 50 s, of a burst and 50 s worth");
    world.run(30 * SECOND);
    assert_eq!((world.messages(0), world.closed(0), world.closed(1)), (600, vec![], vec![]));
    // When it is over, silence is judged as ever.
    world.net.vanish(0);
    world.run(16 * SECOND);
    assert_eq!(world.closed(0).iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [CloseReason::Unresponsive]);
}

#[test]
fn sim_a_delay_longer_than_a_pause_may_be_ends_nobody_and_what_is_unfinished_waits() {
    let rates = Rates { receive: messages(1, 30), costs: [(9, 30)].into(), ..Rates::default() };
    let (mut world, end, _) = beside(rated(rates));
    // The first takes the whole bucket while another is unfinished; the second waits for half a minute, and the rest with it.
    let whole = long(8, 3_000);
    world.raw_write(end, &whole[..1032]);
    world.run(SECOND + 2 * MILLI);
    for _ in 0..2 {
        let mut dear = Vec::new();
        append_message(&mut dear, Draft::data(Meta::new(9).lane(crate::wire::Lane::High), b"dear"), FRAGMENT);
        world.raw_write(end, &dear);
    }
    world.raw_write(end, &whole[1032..]);
    world.run(29 * SECOND);
    assert_eq!(world.handed().len(), 1);
    world.prove_unhurt();
    world.run(2 * SECOND);
    let types: Vec<u16> = world.handed().iter().map(|(_, (message_type, _))| *message_type).collect();
    assert_eq!(types, [9, 7, 9, 8]);
    assert_eq!((world.closed(0), world.count(0, Counter::RateDelays)), (vec![], 1));
    world.end_well();
}

#[test]
fn sim_a_delayed_peer_that_is_paused_too_is_read_when_both_are_over() {
    let (mut world, end, peer) = beside(receiving(WhenOver::Delay, messages(1, 3)));
    world.raw_write(end, &flood(6));
    world.run(2 * MILLI);
    assert_eq!(world.of_the_flood(), 3);
    world.on(0, move |_, cx| cx.pause_read(peer));
    world.run(5 * SECOND);
    assert_eq!(world.of_the_flood(), 3, "the delay is over, the pause is not");
    world.on(0, move |actor, cx| actor.resume(cx, peer));
    world.run(2 * MILLI);
    assert_eq!(world.of_the_flood(), 6);
    world.raw_write(end, &flood(4));
    world.run(2 * MILLI);
    world.on(0, move |_, cx| cx.pause_read(peer));
    world.run(11 * SECOND);
    let closed: Vec<CloseReason> = world.closed(0).into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(closed, [CloseReason::PausedTooLong], "a pause is one although there is a delay");
    world.end_well();
}

#[test]
fn sim_a_pause_that_ends_during_a_long_delay_does_not_silence_this_side() {
    let rates = Rates { receive: messages(1, 40), costs: [(9, 40)].into(), ..Rates::default() };
    let mut world = pair(rated(rates), Config { limits: rated(Rates::default()).limits, ..config() });
    let (peer, to) = (world.peer(0), world.peer(1));
    // The second of them waits for forty seconds, and what the sender asks for in the meantime waits behind it.
    world.on(1, move |actor, cx| (0..2).for_each(|_| assert!(actor.send(cx, to, Meta::new(9), 24).is_ok())));
    world.run(SECOND);
    world.on(0, move |_, cx| cx.pause_read(peer));
    world.run(SECOND);
    world.on(0, move |actor, cx| actor.resume(cx, peer));
    world.run(50 * SECOND);
    assert_eq!((world.messages(0), world.closed(0), world.closed(1)), (2, vec![], vec![]));
}

#[test]
fn sim_what_is_over_the_limit_is_dropped_whole_counted_and_reported() {
    let rates = Rates {
        receive: messages(10, 10),
        when_over: WhenOver::Drop,
        report: Some(Duration::from_secs(1)),
        costs: [(9, 10), (6, 0)].into(),
        ..Rates::default()
    };
    let (mut world, end, _) = beside(rated(rates));
    world.raw_write(end, &flood(50));
    world.run(2 * MILLI);
    assert_eq!(world.of_the_flood(), 10);
    assert_eq!(world.counted(), (40, 40 * FRAME as u64));
    assert_eq!(world.limited(), RateLimited::default(), "not before a second is over");
    world.prove_unhurt();
    // One in pieces whose beginning is too much goes with all its pieces; what costs nothing passes.
    let (dropped, free) = (long(7, 5_000), long(6, 5_000));
    world.raw_write(end, &[&dropped[..], &free[..], &flood(1)[..]].concat());
    world.run(2 * MILLI);
    assert_eq!(world.handed().last().map(|(_, what)| *what), Some((6, 5_000)));
    let gone = (42, 41 * FRAME as u64 + dropped.len() as u64);
    assert_eq!(world.counted(), gone);
    world.run(SECOND);
    assert_eq!((world.limited().messages, world.limited().bytes), gone);
    // A dear one takes all that has come in the meantime.
    world.raw_write(end, &long(9, 100));
    world.raw_write(end, &flood(1));
    world.run(2 * MILLI);
    assert_eq!(world.handed().last().map(|(_, what)| *what), Some((9, 100)));
    // What was dropped last is said before the end.
    world.on(0, |_, cx| cx.peers().collect::<Vec<_>>().into_iter().for_each(|peer| cx.close(peer)));
    let told = world.told(0, |told| match told {
        Told::RateLimited(dropped) => Some(Ok(dropped.messages)),
        Told::Closed(reason) => Some(Err(*reason)),
        _ => None,
    });
    let told: Vec<_> = told.into_iter().map(|(_, told)| told).collect();
    assert_eq!(told, [Ok(42), Err(CloseReason::Requested), Ok(1), Err(CloseReason::Requested)]);
    assert_eq!(world.counted().0, world.limited().messages);
    world.end_well();
}

#[test]
fn sim_a_message_that_runs_into_the_limit_is_dropped_whole_and_dropping_hides_no_violation() {
    let (mut world, end, _) = beside(receiving(WhenOver::Drop, bytes(1_000)));
    let full = message_wire_len(true, LONGEST, FRAGMENT);
    // The second begins within the limit, and ends beyond it.
    let (first, second) = (long(7, 40_000), long(7, 40_000));
    world.raw_write(end, &[&first[..], &second[..]].concat());
    world.run(2 * MILLI);
    assert_eq!(world.handed().iter().map(|(_, what)| *what).collect::<Vec<_>>(), [(7, 40_000)]);
    let taken = (full - first.len()) / 1032 * 1032;
    assert_eq!(world.counted(), (1, (second.len() - taken) as u64));
    assert_eq!(world.count(0, Counter::ReassemblyBytes), 0, "what had come of it is given back");
    world.prove_unhurt();
    // The lane is free again; the smallest message passes.
    world.run(SECOND);
    world.raw_write(end, &flood(1));
    world.run(2 * MILLI);
    assert_eq!((world.of_the_flood(), world.closed(0)), (1, vec![]));

    let cases: [(&[&[u8]], Violation); 5] = [
        (&[&second[..1032], &flood(1)], Violation::Interleaved),
        (&[&second[..1032], &long(8, 5_000)[1032..]], Violation::UnexpectedFragment),
        (&[&second[..1032], &second[second.len() - 76..]], Violation::FragmentShort),
        (&[&long(7, 1_100)[..1032], &second[1032..2064]], Violation::FragmentOverrun),
        (&[&long(7, 60_000)[..1032]], Violation::MessageTooLong { len: 60_000 }),
    ];
    for (parts, violation) in cases {
        let (end, peer) = world.raw_peer(0);
        world.raw_write(end, &[&first[..], &first[..40_000 - 30_000]].concat());
        world.run(2 * MILLI);
        let rest = &first[10_000..];
        world.raw_write(end, &[&[rest][..], parts].concat().concat());
        world.run(2 * MILLI);
        let reason = world.oracle.borrow().reason(world.nodes[0].engine, peer);
        assert_eq!(reason, Some(CloseReason::Violation(violation)));
    }
    world.end_well();
}

#[test]
fn sim_a_flood_is_cut_off_where_that_is_the_policy() {
    let (mut world, end, peer) = beside(receiving(WhenOver::Disconnect, messages(10, 10)));
    world.raw_write(end, &flood(10));
    world.run(SECOND);
    world.raw_write(end, &flood(10));
    world.run(2 * MILLI);
    assert_eq!((world.of_the_flood(), world.closed(0)), (20, vec![]), "within the limit");
    world.raw_write(end, &flood(1));
    world.run(2 * MILLI);
    assert_eq!(world.oracle.borrow().reason(world.nodes[0].engine, peer), Some(CloseReason::RateLimited));
    assert_eq!((world.of_the_flood(), world.count(0, Counter::ClosedRateLimited)), (20, 1));
    assert_eq!(world.raw_read(end), Goodbye::new(GoodbyeCode::RateLimited, 0).encode());
    world.prove_unhurt();
    world.end_well();
}

#[test]
fn sim_subscribing_costs_and_is_never_dropped_and_pings_and_acks_cost_nothing() {
    for when_over in [WhenOver::Delay, WhenOver::Drop, WhenOver::Disconnect] {
        let rates = Rates { receive: messages(1, 5), when_over, subscribe: 2, ..Rates::default() };
        let (mut world, end, _) = beside(rated(rates));
        (0..8).for_each(|_| world.raw_write(end, &control_frame(Kind::Ping, [1; 8])));
        (0..2).for_each(|topic| world.raw_write(end, &subscription(topic)));
        world.raw_write(end, &flood(1));
        world.run(2 * MILLI);
        assert_eq!((world.of_the_flood(), world.count(0, Counter::Subscriptions)), (1, 2), "{when_over:?}");
        world.raw_write(end, &subscription(2));
        world.run(2 * MILLI);
        let topics = world.count(0, Counter::Subscriptions);
        match when_over {
            WhenOver::Delay => {
                assert_eq!(topics, 2);
                world.run(2 * SECOND);
                assert_eq!(world.count(0, Counter::Subscriptions), 3);
            }
            WhenOver::Drop => assert_eq!((topics, world.counted()), (3, (0, 0))),
            WhenOver::Disconnect => assert_eq!((topics, world.count(0, Counter::ClosedRateLimited)), (0, 1)),
        }
        world.end_well();
    }
}

#[test]
fn sim_what_is_sent_over_the_limit_is_refused_with_the_time_when_it_is_not() {
    let rates = Rates { send: messages(10, 5), costs: [(9, 3)].into(), ..Rates::default() };
    let mut world = pair(rated(rates), config());
    let peer = world.peer(0);
    let refused = |millis| Err(SendError::RateLimited { retry_in: Duration::from_millis(millis) });
    world.on(0, move |actor, cx| {
        assert_eq!(actor.send(cx, peer, Meta::new(9), 24), Ok(Sent::Queued));
        // Refused for another reason, it costs nothing.
        assert!(matches!(cx.send(peer, META, &[0; LONGEST + 1]), Err(SendError::TooLong { .. })));
        let two: Vec<Frame> = (0..2).map(|_| frame(actor, cx, 24)).collect();
        assert_eq!(cx.send_batch(peer, &[&two[..], &two[..1]].concat()).map(drop), refused(100));
        let result = cx.send_batch(peer, &two);
        two.iter().for_each(|frame| actor.taken(peer, &result, frame.meta(), Item::sent(frame)));
        assert_eq!(result, Ok(Sent::Queued));
        let six: Vec<Frame> = (0..6).map(|_| frame(actor, cx, 24)).collect();
        assert_eq!(cx.send_batch(peer, &six).map(drop), Err(SendError::RateLimited { retry_in: Duration::MAX }));
        assert_eq!(cx.send(peer, META, b"x").map(drop), refused(100));
        assert_eq!(cx.send(peer, Meta::new(9), b"x").map(drop), refused(300));
        assert_eq!(send(actor, cx, peer, &six[0]), refused(100).map(|_: ()| ()));
        assert_eq!(cx.request(peer, META, b"x", Duration::from_secs(1), 1).map(drop), refused(100));
        assert_eq!(cx.subscribe(peer, TOPIC), refused(100).map(|_: ()| ()));
    });
    assert_eq!(world.count(0, Counter::SendsRateLimited), 3 + 6 + 5);
    assert_eq!((world.count(0, Counter::SendsRefused), world.count(0, Counter::SubscriptionsRefused)), (3 + 6 + 4 + 1, 1));
    world.run(100 * MILLI);
    world.on(0, move |actor, cx| {
        assert_eq!(actor.send(cx, peer, META, 24), Ok(Sent::Queued));
        assert_eq!(cx.send(peer, META, b"x").map(drop), refused(100));
    });
    world.run(SECOND);
    assert_eq!(world.messages(1), 4);
    world.end_well();
}

#[test]
fn sim_broadcasts_and_publishes_pass_by_who_was_sent_enough_and_nobody_else() {
    let mut world = pair(rated(Rates { send: messages(1, 3), ..Rates::default() }), config());
    let full = world.peer(0);
    subscribe(&mut world);
    let other = world.add_node(config(), &super::actor::Mood::quiet());
    world.on(other, |actor, cx| actor.dial(cx, Dial::to(address(0)).once()));
    world.run(100 * MILLI);
    let publisher = world.peer(other);
    world.on(other, move |actor, cx| assert_eq!(actor.subscribe(cx, publisher, TOPIC, true), Ok(())));
    world.run(10 * MILLI);
    world.on(0, move |actor, cx| {
        // The one has nothing left, the other all of it.
        (0..3).for_each(|_| assert_eq!(actor.send(cx, full, META, 24), Ok(Sent::Queued)));
        let one = frame(actor, cx, 100);
        assert_eq!(actor.broadcast(cx, &[one], None), Ok(()));
        let apart = frame(actor, cx, 101).with_ttl(Duration::from_secs(9));
        assert_eq!(actor.broadcast(cx, &[apart], None), Ok(()));
        let published = frame(actor, cx, 102);
        assert_eq!(actor.publish(cx, TOPIC, &published), Ok(()));
        // Now neither has.
        let last = frame(actor, cx, 103);
        assert_eq!(actor.broadcast(cx, &[last], None), Ok(()));
    });
    world.run(10 * MILLI);
    let got = |world: &World, node| {
        let lens = world.told(node, |told| if let Told::Message { len, .. } = told { Some(*len) } else { None });
        lens.into_iter().map(|(_, len)| len).collect::<Vec<_>>()
    };
    assert_eq!(got(&world, 1), [24, 24, 24]);
    assert_eq!(got(&world, other), [100, 101, 102]);
    assert_eq!((world.count(0, Counter::SendsRateLimited), world.count(0, Counter::DeliveriesRefused)), (5, 5));
    assert_eq!(world.count(0, Counter::SendsRefused), 0);
    // A broadcast to be acknowledged does not wait for those that it passed by.
    world.run(SECOND);
    world.on(0, move |actor, cx| {
        assert_eq!(actor.send(cx, full, META, 24), Ok(Sent::Queued));
        assert!(actor.send_acked(cx, None, META, 104, Duration::from_secs(5)).is_ok());
    });
    world.run(100 * MILLI);
    let receipts = world.told(0, |told| if let Told::Receipt(receipt) = told { Some(receipt.clone()) } else { None });
    assert_eq!(receipts.iter().map(|(_, receipt)| receipt.acked().len()).collect::<Vec<_>>(), [1]);
    assert_eq!(got(&world, other).last(), Some(&104));
    world.run(3 * SECOND);
    world.on(0, |actor, cx| {
        let frame = frame(actor, cx, 105);
        assert_eq!(actor.broadcast(cx, &[frame], None), Ok(()));
    });
    world.run(10 * MILLI);
    assert_eq!((got(&world, 1).last(), got(&world, other).last()), (Some(&105), Some(&105)), "back to normal");
    assert_eq!(world.count(0, Counter::LogBytes), 0);
    world.end_well();
}

#[test]
fn sim_a_message_that_waits_for_memory_is_charged_once() {
    let mut config = receiving(WhenOver::Drop, messages(1, 2));
    config.limits.reassembly_bytes = crate::proto::reassembly_charge(LONGEST);
    config.limits.reassembly_reserve = 0;
    let mut world = pair(config, Config { limits: rated(Rates::default()).limits, ..super::scenarios::config() });
    let (hoarder, modest) = (world.raw_peer(0).0, world.raw_peer(0).0);
    let (held, waits) = (long(7, LONGEST), long(8, 5_000));
    world.raw_write(hoarder, &held[..1032]);
    world.run(2 * MILLI);
    world.raw_write(modest, &waits);
    world.run(5 * MILLI);
    assert_eq!((world.count(0, Counter::ReassemblyWaits), world.handed().len()), (1, 0));
    world.raw_write(hoarder, &held[1032..]);
    world.run(5 * MILLI);
    world.raw_write(modest, &flood(2));
    world.run(2 * MILLI);
    let types: Vec<u16> = world.handed().iter().map(|(_, (message_type, _))| *message_type).collect();
    assert_eq!((types, world.counted().0), (vec![7, 8, 7], 1), "one of the two tokens was left");
    world.end_well();
}

#[test]
fn sim_a_topic_is_not_asked_for_where_it_costs_too_much_and_then_is() {
    let mut world = pair(rated(Rates { send: messages(1, 2), subscribe: 2, ..Rates::default() }), config());
    let peer = world.peer(0);
    let wait = Err(SendError::RateLimited { retry_in: Duration::from_secs(2) });
    world.on(0, move |actor, cx| {
        assert_eq!(actor.subscribe(cx, peer, Topic(1), true), Ok(()));
        assert_eq!(actor.subscribe(cx, peer, Topic(2), true), wait);
        assert_eq!(actor.subscribe(cx, peer, Topic(1), true), Ok(()), "has it already: nothing is sent");
    });
    world.run(2 * SECOND);
    world.on(0, move |actor, cx| assert_eq!(actor.subscribe(cx, peer, Topic(2), true), Ok(())));
    world.run(10 * MILLI);
    assert_eq!(world.count(1, Counter::Subscriptions), 2);
    world.end_well();
}
