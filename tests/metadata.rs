//! What a message says of itself besides its body.
//!
//! Set-up: two engines, of which one maps message types to lanes, and a third that relays. Claim: type, lane, and whether a message asks
//! for an acknowledgement, answers a request, or is urgent can be read on frames and in the handler; a type's lane holds for every way of
//! sending that does not choose one, and not for those that do; a relay keeps the lane in which a message came.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::{LIVENESS, loopback};
use corecast::{Config, Context, Dial, Engine, Frame, Handler, Lane, Message, Meta, PeerId, PeerInfo, RequestError, Responder};

/// Types that the configuration puts into a lane, and one that it does not know.
const VOTE: u16 = 1;
const BLOCK: u16 = 2;
const OTHER: u16 = 3;

/// What a message said: type, lane, requires_ack, is_response, is_high_priority.
type Said = (u16, Lane, bool, bool, bool);

enum Told {
    Connected(PeerId),
    Message(Said),
    Request(Said),
    Response(Said),
}

type Act = Box<dyn FnOnce(&mut Context<'_>) + Send>;

struct Probe(Sender<Told>);

fn said(message: &Message<'_>) -> Said {
    let meta = message.meta;
    (message.message_type(), meta.lane, message.requires_ack(), message.is_response(), message.is_high_priority())
}

impl Probe {
    fn tell(&self, told: Told) {
        // A test that has ended listens to nobody.
        let _ = self.0.send(told);
    }
}

impl Handler for Probe {
    type Command = Act;

    fn on_connected(&mut self, _: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        self.tell(Told::Connected(peer));
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, message: Message<'_>) {
        self.tell(Told::Message(said(&message)));
    }

    fn on_request(&mut self, cx: &mut Context<'_>, _: PeerId, request: Message<'_>, responder: Responder) {
        self.tell(Told::Request(said(&request)));
        // As a relay does: in the lane in which the request came.
        cx.respond(responder, request.meta, b"answer").unwrap();
    }

    fn on_response(&mut self, _: &mut Context<'_>, _: PeerId, _: u64, result: Result<Message<'_>, RequestError>) {
        self.tell(Told::Response(said(&result.unwrap())));
    }

    fn on_command(&mut self, cx: &mut Context<'_>, act: Act) {
        act(cx);
    }
}

struct Pair {
    sender: Engine<Act>,
    receiver: Engine<Act>,
    /// The receiver, as the sender knows it.
    peer: PeerId,
    sent: Receiver<Told>,
    received: Receiver<Told>,
}

fn next(told: &Receiver<Told>) -> Told {
    told.recv_timeout(LIVENESS).expect("something is told")
}

fn pair() -> Pair {
    let (tell, received) = channel();
    let receiver = Engine::start(loopback(), move |_| Probe(tell.clone())).unwrap();
    let mut config = Config::plaintext();
    config.lanes.types.insert(VOTE, Lane::High);
    config.lanes.types.insert(BLOCK, Lane::Bulk);
    let (tell, sent) = channel();
    let sender = Engine::start(config, move |_| Probe(tell.clone())).unwrap();
    sender.handle().dial(Dial::to(receiver.local_addrs()[0])).unwrap();
    let Told::Connected(peer) = next(&sent) else { panic!("a message before its connection") };
    assert!(matches!(next(&received), Told::Connected(_)));
    Pair { sender, receiver, peer, sent, received }
}

impl Pair {
    fn run(&self, act: impl FnOnce(&mut Context<'_>) + Send + 'static) {
        self.sender.handle().post(0, Box::new(act)).unwrap_or_else(|refused| panic!("{}", refused.reason));
    }

    fn message(&self) -> Said {
        match next(&self.received) {
            Told::Message(said) => said,
            _ => panic!("not a message"),
        }
    }

    fn end(self) {
        self.sender.shutdown();
        self.receiver.shutdown();
    }
}

/// An ordinary message of a type in a lane.
fn plain(message_type: u16, lane: Lane) -> Said {
    (message_type, lane, false, false, lane == Lane::High)
}

#[test]
fn a_frame_says_what_it_is() {
    for (lane, urgent) in [(Lane::High, true), (Lane::Normal, false), (Lane::Bulk, false)] {
        let frame = Frame::new(Meta::new(7).lane(lane), b"body").unwrap();
        assert_eq!((frame.meta(), frame.lane(), frame.body_len()), (Meta::new(7).lane(lane), lane, 4));
        assert_eq!((frame.requires_ack(), frame.is_response(), frame.is_high_priority()), (false, false, urgent));
    }
}

#[test]
fn a_types_lane_holds_where_none_is_chosen() {
    let pair = pair();
    let peer = pair.peer;
    for (message_type, lane) in [(VOTE, Lane::High), (BLOCK, Lane::Bulk), (OTHER, Lane::Normal)] {
        // One at a time: what is sent together in several lanes comes in the order of the lanes.
        pair.run(move |cx| {
            let _ = cx.send(peer, message_type, b"sent").unwrap();
        });
        assert_eq!(pair.message(), plain(message_type, lane));
        pair.run(move |cx| {
            let frame = cx.frame(message_type, b"framed").unwrap();
            assert_eq!(frame.lane(), lane);
            cx.send_frame(peer, &frame).unwrap();
        });
        assert_eq!(pair.message(), plain(message_type, lane));
        pair.run(move |cx| {
            let frame = cx.frame(message_type, b"to all").unwrap();
            cx.broadcast(&frame).unwrap();
        });
        assert_eq!(pair.message(), plain(message_type, lane));
        let handle = pair.sender.handle();
        handle.send(peer, handle.frame(message_type, b"from a thread").unwrap()).unwrap();
        assert_eq!(pair.message(), plain(message_type, lane));
        // Whoever chooses a lane has it.
        pair.run(move |cx| {
            let _ = cx.send(peer, Meta::new(message_type).lane(Lane::Normal), b"chosen").unwrap();
        });
        assert_eq!(pair.message(), plain(message_type, Lane::Normal));
    }
    pair.end();
}

#[test]
fn a_message_that_asks_for_an_acknowledgement_says_so() {
    let pair = pair();
    let peer = pair.peer;
    pair.run(move |cx| {
        let _ = cx.send_acked(peer, VOTE, b"to one", LIVENESS, 1).unwrap();
    });
    assert_eq!(pair.message(), (VOTE, Lane::High, true, false, true));
    pair.run(move |cx| {
        let _ = cx.broadcast_acked(BLOCK, b"to all", LIVENESS, 2).unwrap();
    });
    assert_eq!(pair.message(), (BLOCK, Lane::Bulk, true, false, false));
    pair.run(move |cx| {
        let _ = cx.send_acked(peer, Meta::new(VOTE).lane(Lane::Bulk), b"chosen", LIVENESS, 3).unwrap();
    });
    assert_eq!(pair.message(), (VOTE, Lane::Bulk, true, false, false));
    pair.end();
}

#[test]
fn a_response_says_so_and_has_the_lane_that_the_responder_gave_it() {
    let pair = pair();
    let peer = pair.peer;
    for (message_type, lane) in [(VOTE, Lane::High), (BLOCK, Lane::Bulk), (OTHER, Lane::Normal)] {
        pair.run(move |cx| {
            let _ = cx.request(peer, message_type, b"question", LIVENESS, 1).unwrap();
        });
        let Told::Request(request) = next(&pair.received) else { panic!("not a request") };
        assert_eq!(request, plain(message_type, lane));
        let Told::Response(response) = next(&pair.sent) else { panic!("not a response") };
        assert_eq!(response, (message_type, lane, false, true, lane == Lane::High));
        let response = pair.sender.handle().request_blocking(peer, message_type, b"from a thread", Duration::from_secs(5)).unwrap();
        assert_eq!((response.meta.message_type, response.meta.lane), (message_type, lane));
        assert!(matches!(next(&pair.received), Told::Request(_)));
    }
    pair.end();
}
