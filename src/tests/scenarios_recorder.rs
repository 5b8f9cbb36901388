//! The flight recorder, in virtual time: what is noted of a peer, in which order, how much of it is kept, and for how long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::actor::Actor;
use super::scenarios::{META, config, nanos, pair, world};
use super::sim::{MILLI, SECOND, World};
use crate::config::{Config, Rate, RateLimit, Rates, WhenOver, WhenSlow};
use crate::error::CloseReason;
use crate::flight::{FlightEvent, FlightRecord};
use crate::handler::{Context, Direction};
use crate::id::{PeerId, Topic};
use crate::metrics::Counter;
use crate::wire::{Draft, GoodbyeCode, Kind, append_message, control_frame};

fn recording(events: usize) -> Config {
    Config { recorder: events, ..config() }
}

impl World {
    /// What the node's first core has noted of a peer.
    fn flight(&mut self, node: usize, peer: PeerId) -> Option<FlightRecord> {
        self.look(node, move |_, cx| cx.flight(peer))
    }

    /// What a handler finds out.
    fn look<T: Send + 'static>(&mut self, node: usize, look: impl FnOnce(&mut Actor, &mut Context<'_>) -> T + Send + 'static) -> T {
        let found = Arc::new(Mutex::new(None));
        let give = Arc::clone(&found);
        self.on(node, move |actor, cx| *give.lock().unwrap() = Some(look(actor, cx)));
        self.run(MILLI);
        found.lock().unwrap().take().expect("the core ran")
    }

    fn rings(&self, node: usize) -> (usize, usize, usize) {
        self.nodes[node].cores[0].shard.rings()
    }
}

fn events(record: Option<FlightRecord>) -> Vec<FlightEvent> {
    record.expect("it is recorded").entries.iter().map(|entry| entry.event).collect()
}

fn data(len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_message(&mut bytes, Draft::data(META, &vec![1; len]), 16 << 10);
    bytes
}

#[test]
fn sim_what_happens_to_a_peer_is_noted_in_order() {
    let mut world = world([recording(100)]);
    let (end, peer) = world.raw_peer(0);
    let begin = world.now;
    world.raw_write(end, &data(120));
    world.run(10 * MILLI);
    world.on(0, move |actor, cx| assert!(actor.send(cx, peer, META, 40).is_ok()));
    world.on(0, move |_, cx| {
        cx.subscribe(peer, Topic(3)).unwrap();
        cx.pause_read(peer);
        cx.pause_read(peer);
    });
    world.run(10 * MILLI);
    world.on(0, move |_, cx| cx.resume_read(peer));
    world.raw_write(end, &control_frame(Kind::Ping, [9; 8]));
    world.run(10 * MILLI);
    // Its own ping is answered after 300 ms.
    world.run(nanos(world.nodes[0].config.keepalive.interval));
    world.run(300 * MILLI);
    world.raw_write(end, &control_frame(Kind::Pong, 1u64.to_le_bytes()));
    world.run(10 * MILLI);
    let kind = |kind, len| FlightEvent::Received { kind, message_type: 0, len };
    let queued = |kind, len| FlightEvent::Queued { kind, message_type: 0, len };
    let written = |bytes| FlightEvent::Written { bytes };
    let record = world.flight(0, peer).unwrap();
    let events: Vec<_> = record.entries.iter().map(|entry| entry.event).collect();
    let Some(FlightEvent::Rtt { nanos: rtt }) = events.last().copied() else { panic!("{record}") };
    assert!((300 * MILLI..320 * MILLI).contains(&rtt), "{record}");
    let expected = [
        FlightEvent::Connected { direction: Direction::Accepted },
        FlightEvent::Received { kind: Kind::Data, message_type: 7, len: 120 },
        FlightEvent::Queued { kind: Kind::Data, message_type: 7, len: 40 },
        written(48),
        queued(Kind::Subscribe, 8),
        FlightEvent::Paused,
        written(16),
        FlightEvent::Resumed,
        kind(Kind::Ping, 8),
        queued(Kind::Pong, 8),
        written(16),
        queued(Kind::Ping, 8),
        written(16),
        kind(Kind::Pong, 8),
        FlightEvent::Rtt { nanos: rtt },
    ];
    assert_eq!(events, expected, "{record}");
    assert_eq!((record.peer, record.earlier, record.since.as_nanos() <= begin), (peer, 0, true));
    assert!(record.entries.is_sorted_by_key(|entry| entry.at));
    let at = record.entries.last().unwrap().at.as_nanos();
    assert!(at > begin + nanos(world.nodes[0].config.keepalive.interval), "each has its time");
}

#[test]
fn sim_a_slow_peer_leaves_its_marks() {
    let mut slow = recording(1000);
    slow.limits.outbox_soft = 50_000;
    slow.lanes.normal.when_slow = WhenSlow::DropOldest;
    let mut world = world([slow]);
    world.net.faults.capacity = (10_000, 10_000);
    let (end, peer) = world.raw_peer(0);
    // The first fills the socket.
    for _ in 0..10 {
        world.on(0, move |actor, cx| {
            let _ = actor.send(cx, peer, META, 20_000);
        });
        world.run(10 * MILLI);
    }
    for _ in 0..100 {
        let _ = world.raw_read(end);
        world.run(10 * MILLI);
    }
    let record = world.flight(0, peer);
    let text = record.as_ref().unwrap().to_string();
    let events = events(record);
    let first = |wanted: fn(&FlightEvent) -> bool| events.iter().position(wanted).unwrap_or_else(|| panic!("{text}"));
    let blocked = first(|event| *event == FlightEvent::Blocked);
    let slow = first(|event| matches!(event, FlightEvent::Slow { .. }));
    let dropped = first(|event| matches!(event, FlightEvent::Dropped { why: Counter::DroppedOldest, .. }));
    let writable = first(|event| *event == FlightEvent::Writable);
    let drained = first(|event| *event == FlightEvent::Drained);
    assert!(blocked < slow && slow < dropped && dropped < writable && writable < drained, "{text}");
    let lost: u64 =
        events.iter().map(|event| if let FlightEvent::Dropped { messages, .. } = event { u64::from(*messages) } else { 0 }).sum();
    assert_eq!(lost, world.count(0, Counter::DroppedOldest));
}

#[test]
fn sim_what_is_over_a_limit_leaves_its_marks() {
    let received = FlightEvent::Received { kind: Kind::Data, message_type: 7, len: 20 };
    let limited = |when_over| {
        let limit = RateLimit { messages: Some(Rate { per_second: 1, burst: 1 }), bytes: None };
        Config { rates: Some(Rates { receive: Some(limit), when_over, ..Rates::default() }), ..recording(100) }
    };
    // It waits longer than this side keeps still.
    let mut delaying = limited(WhenOver::Delay);
    delaying.keepalive.interval = Duration::from_millis(300);
    delaying.keepalive.timeout = Duration::from_millis(900);
    let mut world = world([delaying]);
    let (end, peer) = world.raw_peer(0);
    world.raw_write(end, &[data(20), data(20)].concat());
    world.run(1010 * MILLI);
    let record = world.flight(0, peer);
    let text = record.as_ref().unwrap().to_string();
    let events = events(record);
    let wanted: Vec<_> = events.iter().filter(|event| !matches!(event, FlightEvent::Written { .. })).copied().collect();
    let ping = FlightEvent::Queued { kind: Kind::Ping, message_type: 0, len: 8 };
    let connected = FlightEvent::Connected { direction: Direction::Accepted };
    let expected = [connected, received, received, FlightEvent::Delayed, ping, ping, ping, FlightEvent::Resumed, received];
    assert_eq!(wanted, expected, "{text}");
    assert!(text.contains("delayed"), "{text}");

    let mut world = self::world([limited(WhenOver::Drop)]);
    let (end, peer) = world.raw_peer(0);
    world.raw_write(end, &[data(20), data(20)].concat());
    world.run(MILLI);
    let events = self::events(world.flight(0, peer));
    assert_eq!(events[2..], [received, FlightEvent::Dropped { why: Counter::RateLimitedMessages, messages: 1 }]);
}

#[test]
fn sim_the_last_events_are_kept_and_no_more() {
    let mut world = world([recording(4)]);
    let (end, peer) = world.raw_peer(0);
    for len in 0..20 {
        world.raw_write(end, &data(len));
        world.run(2 * MILLI);
    }
    world.run(10 * MILLI);
    let record = world.flight(0, peer).unwrap();
    assert_eq!((record.entries.len(), record.earlier), (4, 17), "{record}");
    let expected: Vec<_> = (16..20).map(|len| FlightEvent::Received { kind: Kind::Data, message_type: 7, len }).collect();
    assert_eq!(events(Some(record)), expected);
}

#[test]
fn sim_a_record_comes_with_the_close_reason_and_goes_with_it() {
    let mut world = pair(recording(10), config());
    let (peer, far) = (world.peer(0), world.peer(1));
    assert_eq!((world.rings(0).0, world.rings(0).1), (1, 0));
    // The actor asks for it in `on_closed`, and looks at its ends.
    world.on(1, move |_, cx| cx.close(far));
    world.run(SECOND);
    assert_eq!(world.closed(0)[0].1, CloseReason::Goodbye(GoodbyeCode::Closed));
    assert_eq!((world.rings(0).0, world.rings(0).1), (0, 0));
    assert_eq!(world.flight(0, peer), None);
    // Until it is forgotten that the target hung up without a word: `breaker.expire`.
    world.run(20 * 60 * SECOND);
    world.check_baseline();
}

#[test]
fn sim_a_peer_that_breaks_a_rule_is_found_with_the_frame_that_did_it() {
    let mut world = world([recording(3)]);
    let (end, peer) = world.raw_peer(0);
    world.raw_write(end, &control_frame(Kind::Pong, [9; 8]));
    world.run(SECOND);
    let last = world.oracle.borrow().flights.last().cloned();
    assert_eq!(last.as_ref().map(|record| record.peer), Some(peer));
    let events = events(last);
    assert_eq!(events[1], FlightEvent::Received { kind: Kind::Pong, message_type: 0, len: 8 });
    assert!(matches!(events[2], FlightEvent::Closed(CloseReason::Violation(_))));
}

#[test]
fn sim_what_is_off_costs_a_peer_nothing() {
    let mut world = pair(config(), config());
    let peer = world.peer(0);
    world.on(0, move |actor, cx| assert!(actor.send(cx, peer, META, 100).is_ok()));
    world.run(SECOND);
    assert_eq!(world.rings(0), (0, 0, 0));
    assert_eq!(world.flight(0, peer), None);
}

#[test]
fn sim_a_stranger_has_no_record() {
    let mut world = pair(recording(10), config());
    let peer = world.peer(0);
    let stranger = PeerId::new(0, peer.slot(), peer.generation() + 1);
    assert_eq!(world.flight(0, stranger), None);
    assert_eq!(world.flight(0, PeerId::new(1, peer.slot(), peer.generation())), None);
    world.run(nanos(Duration::from_secs(1)));
    assert!(world.flight(0, peer).is_some());
}
