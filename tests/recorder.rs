//! The flight recorder.
//!
//! Set-up: an engine that keeps the last events of each peer, and peers written by hand that talk, break a rule, or are cut off. Claim:
//! `on_closed` is handed what led to it, in order and with the reason at its end; a live peer's can be read; there are never more than were
//! asked for; and an engine that was not asked has none.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};

use common::node::Node;
use common::raw::{FRAGMENT, Hello, MORE, NORMAL, PONG, Raw, control, first, frame};
use common::{LIVENESS, Wire, eventually_idle, loopback};
use corecast::{
    CloseReason, Config, Context, Direction, Engine, FlightEvent, FlightRecord, FrameKind, Handler, Message, PeerId, Violation,
};

/// Returns every message, and tells how each peer ended and what was noted of it.
struct Black {
    ended: Sender<(PeerId, CloseReason, Option<FlightRecord>)>,
}

impl Handler for Black {
    type Command = ();

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let _ = cx.send(peer, message.meta, message.body);
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        let _ = self.ended.send((peer, reason, cx.flight(peer)));
    }
}

type Ends = Receiver<(PeerId, CloseReason, Option<FlightRecord>)>;

fn start(events: usize) -> (Engine, Ends) {
    let mut config = loopback();
    config.recorder = events;
    let (ended, ends) = channel();
    (Engine::start(config, move |_| Black { ended: ended.clone() }).unwrap(), ends)
}

fn events(record: &FlightRecord) -> Vec<FlightEvent> {
    record.entries.iter().map(|entry| entry.event).collect()
}

fn finish(engine: Engine) {
    eventually_idle(&engine.handle());
    assert!(engine.shutdown().drained);
}

#[test]
fn the_end_of_a_peer_comes_with_what_led_to_it() {
    let (engine, ends) = start(50);
    let mut raw = Raw::establish(engine.local_addrs()[0], Hello::node(1));
    raw.echo(7, b"hello");
    raw.echo(8, b"");
    // Nobody has asked.
    raw.send(&control(PONG, 5));
    raw.expect_goodbye(5, 11);
    drop(raw);
    let (peer, reason, record) = ends.recv_timeout(LIVENESS).unwrap();
    let record = record.expect("it was asked for");
    assert_eq!(reason, CloseReason::Violation(Violation::UnsolicitedPong));
    let received = |kind, message_type, len| FlightEvent::Received { kind, message_type, len };
    let expected = [
        FlightEvent::Connected { direction: Direction::Accepted },
        received(FrameKind::Data, 7, 5),
        FlightEvent::Queued { kind: FrameKind::Data, message_type: 7, len: 5 },
        FlightEvent::Written { bytes: 13 },
        received(FrameKind::Data, 8, 0),
        FlightEvent::Queued { kind: FrameKind::Data, message_type: 8, len: 0 },
        FlightEvent::Written { bytes: 8 },
        received(FrameKind::Pong, 0, 8),
        FlightEvent::Closed(reason),
    ];
    assert_eq!(events(&record), expected, "{record}");
    assert_eq!((record.peer, record.earlier), (peer, 0));
    assert!(record.entries.is_sorted_by_key(|entry| entry.at) && record.since <= record.entries[0].at);
    // One line for the peer, one for each event.
    assert_eq!(record.to_string().lines().count(), 1 + expected.len(), "{record}");
    assert!(record.to_string().ends_with("closed     the peer broke the protocol: a pong came without a ping"), "{record}");
    finish(engine);
}

#[test]
fn the_last_events_are_kept_and_no_more() {
    let (engine, ends) = start(3);
    let mut raw = Raw::establish(engine.local_addrs()[0], Hello::node(1));
    for number in 0..100u16 {
        raw.echo(number, b"x");
    }
    drop(raw);
    let (_, reason, record) = ends.recv_timeout(LIVENESS).unwrap();
    let record = record.unwrap();
    let last = FlightEvent::Queued { kind: FrameKind::Data, message_type: 99, len: 1 };
    assert_eq!(events(&record), [last, FlightEvent::Written { bytes: 9 }, FlightEvent::Closed(reason)], "{record}");
    // Each message came, was answered, and left; one that came and one that went.
    assert_eq!(record.earlier, 3 * 100 + 2 - 3);
    finish(engine);
}

#[test]
fn without_being_asked_nothing_is_noted() {
    let (engine, ends) = start(0);
    let mut raw = Raw::establish(engine.local_addrs()[0], Hello::node(1));
    raw.echo(1, b"x");
    drop(raw);
    assert_eq!(ends.recv_timeout(LIVENESS).unwrap().2, None);
    finish(engine);
}

/// What encryption adds is in the bytes that leave, and nowhere else.
#[test]
fn a_live_peer_can_be_read_in_plaintext_and_encrypted() {
    for wire in Wire::BOTH {
        let recording = |mut config: Config| {
            config.recorder = 20;
            config
        };
        let mut server = Node::report(recording(wire.listening()));
        let mut client = Node::report(recording(wire.dialling()));
        client.handle().dial(wire.dial(&server.engine)).unwrap();
        let ((near, _), (far, _)) = (client.connected(), server.connected());
        client.run(0, move |cx| cx.send(near, 3, b"12345")).unwrap();
        server.message(far);
        let seen = events(&server.run(0, move |cx| cx.flight(far)).unwrap());
        assert_eq!(seen.first(), Some(&FlightEvent::Connected { direction: Direction::Accepted }));
        assert_eq!(seen.last(), Some(&FlightEvent::Received { kind: FrameKind::Data, message_type: 3, len: 5 }), "{wire:?}");
        let sent = events(&client.run(0, move |cx| cx.flight(near)).unwrap());
        let at = sent.iter().position(|event| *event == FlightEvent::Queued { kind: FrameKind::Data, message_type: 3, len: 5 });
        let left: u32 = sent[at.unwrap()..].iter().map(|event| if let FlightEvent::Written { bytes } = event { *bytes } else { 0 }).sum();
        let record = if wire == Wire::Noise { 18 } else { 0 };
        assert_eq!(left, 13 + record, "{wire:?}: {sent:?}");
        client.engine.shutdown();
        server.closed(far);
        assert_eq!(server.run(0, move |cx| cx.flight(far)), None, "it was handed out");
        server.finish();
    }
}

#[test]
fn a_message_of_many_frames_is_received_frame_by_frame() {
    let (engine, ends) = start(10);
    let mut raw = Raw::establish(engine.local_addrs()[0], Hello::node(1));
    raw.send(&first(NORMAL, 1, 3000, &[1; 1000]));
    raw.send(&[frame(FRAGMENT, NORMAL | MORE, 1, &[1; 1500]), frame(FRAGMENT, NORMAL, 1, &[1; 500])].concat());
    raw.expect_data(1, &[1; 3000]);
    drop(raw);
    let record = ends.recv_timeout(LIVENESS).unwrap().2.unwrap();
    let received = |kind, len| FlightEvent::Received { kind, message_type: 1, len };
    let came = [received(FrameKind::Data, 1004), received(FrameKind::Fragment, 1500), received(FrameKind::Fragment, 500)];
    // The answer is one message, and queued as such.
    let answer = FlightEvent::Queued { kind: FrameKind::Data, message_type: 1, len: 3000 };
    assert_eq!(events(&record)[1..5], [&came[..], &[answer]].concat(), "{record}");
    finish(engine);
}
