//! Type and lane go from the sender to the receiver, with what kind of message it is.
//!
//! Set-up: engines on two cores that know a lane for some types, a peer written by hand that sees the lanes on the wire, and an engine
//! whose handler reports what it can read of each message. Claims: whichever way a message is sent, it goes in the lane that the sender
//! chose, or else in that of its type, or else in the normal one; frames and messages say type, lane and kind, whole or in pieces; and what
//! is passed on with the metadata that it came with keeps its lane.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};

use common::node::{Act, Node};
use common::raw::{self, Hello, Raw};
use common::{LIVENESS, NEVER, eventually, loopback};
use corecast::{
    Bincode, Config, Context, Cores, Dial, Engine, Frame, Handle, Handler, Lane, Message, Meta, PeerId, RequestError, Responder, Target,
    Topic, Typed,
};

/// Types with a lane of their own, and one without.
const URGENT: u16 = 7;
const LARGE: u16 = 8;
const PLAIN: u16 = 9;
const TOPIC: Topic = Topic(1);

#[derive(bincode::Encode, bincode::Decode)]
struct Vote(u8);

impl Typed for Vote {
    const TYPE: u16 = URGENT;
    type Codec = Bincode;
}

/// The same type in a lane that it chooses.
#[derive(bincode::Encode, bincode::Decode)]
struct Late(u8);

impl Typed for Late {
    const TYPE: u16 = URGENT;
    const LANE: Option<Lane> = Some(Lane::Bulk);
    type Codec = Bincode;
}

fn config() -> Config {
    let mut config = loopback().cores(Cores::Unpinned(2));
    config.lanes.types = [(URGENT, Lane::High), (LARGE, Lane::Bulk)].into();
    config
}

/// What may be said of a message, and the lane that it has to go in.
fn metas() -> [(Meta, u8); 8] {
    let chosen = |message_type, lane| Meta::new(message_type).lane(lane);
    [
        (Meta::new(URGENT), raw::HIGH),
        (Meta::new(LARGE), raw::BULK),
        (Meta::new(PLAIN), raw::NORMAL),
        (PLAIN.into(), raw::NORMAL),
        (URGENT.into(), raw::HIGH),
        (chosen(URGENT, Lane::Normal), raw::NORMAL),
        (chosen(URGENT, Lane::Bulk), raw::BULK),
        (chosen(LARGE, Lane::High), raw::HIGH),
    ]
}

/// An engine, a raw peer of it, the peer's id, and the core that it is not on.
fn node_and_peer() -> (Node, Raw, PeerId, usize) {
    let mut node = Node::report(config());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    raw.send(&raw::control(raw::SUBSCRIBE, TOPIC.0));
    node.subscribed(peer, TOPIC, true);
    (node, raw, peer, 1 - peer.core())
}

/// The next message on the wire is of this kind and type, and in this lane.
#[track_caller]
fn expect(raw: &mut Raw, kind: u8, meta: Meta, lane: u8) -> raw::RawFrame {
    let frame = raw.message_frame().expect("a message, not the end");
    assert_eq!((frame.kind, frame.message_type, frame.flags), (kind, meta.message_type, lane), "{meta:?}");
    frame
}

/// The peer asks something, and the engine's handler gets the right to answer it.
fn asked(node: &mut Node, raw: &mut Raw) -> Responder {
    raw.send(&raw::frame(raw::REQUEST, raw::NORMAL, PLAIN, &1_u64.to_le_bytes()));
    node.request().3
}

/// It was taken.
fn done<T, E: std::fmt::Debug>(result: Result<T, E>) {
    result.unwrap();
}

type Way = fn(&mut Context<'_>, PeerId, Meta);

/// The ways in which a handler sends, and the kind that the message has on the wire.
const WAYS: [(u8, Way); 9] = [
    (raw::DATA, |cx, peer, meta| done(cx.send(peer, meta, b"x"))),
    (raw::DATA, |cx, peer, meta| done(cx.send_frame(peer, &cx.frame(meta, b"x").unwrap()))),
    (raw::DATA, |cx, peer, meta| done(cx.send_batch(peer, &[cx.frame(meta, b"x").unwrap()]))),
    (raw::DATA, |cx, _, meta| cx.broadcast(&cx.frame(meta, b"x").unwrap()).unwrap()),
    (raw::DATA, |cx, _, meta| cx.publish(TOPIC, &cx.frame(meta, b"x").unwrap()).unwrap()),
    (raw::REQUEST, |cx, peer, meta| done(cx.request(peer, meta, b"x", NEVER, 1))),
    (raw::ACKED, |cx, peer, meta| done(cx.send_acked(peer, meta, b"x", NEVER, 1))),
    (raw::ACKED, |cx, peer, meta| {
        let node = cx.peer_info(peer).map(|info| info.node).unwrap_or_else(node_of_raw);
        done(cx.send_acked(Target::from(node), meta, b"x", NEVER, 1));
    }),
    (raw::ACKED, |cx, _, meta| done(cx.broadcast_acked(meta, b"x", NEVER, 1))),
];

fn node_of_raw() -> corecast::NodeId {
    corecast::NodeId(Hello::node(1).node)
}

#[test]
fn whichever_way_a_handler_sends_the_lane_is_that_of_the_choice_or_of_the_type() {
    let (mut node, mut raw, peer, other) = node_and_peer();
    for core in [peer.core(), other] {
        for (kind, way) in WAYS {
            for (meta, lane) in metas() {
                node.run(core, move |cx| way(cx, peer, meta));
                expect(&mut raw, kind, meta, lane);
            }
        }
        for (meta, lane) in metas() {
            let responder = asked(&mut node, &mut raw);
            node.run(core, move |cx| done(cx.respond(responder, meta, b"x")));
            expect(&mut raw, raw::RESPONSE, meta, lane);
        }
        node.run(core, move |cx| {
            done(cx.send_typed(peer, &Vote(1)));
            done(cx.frame_typed(&Vote(2)).map(|frame| cx.broadcast(&frame)));
        });
        expect(&mut raw, raw::DATA, Meta::new(URGENT), raw::HIGH);
        expect(&mut raw, raw::DATA, Meta::new(URGENT), raw::HIGH);
        node.run(core, move |cx| {
            done(cx.send_typed(peer, &Late(1)));
            done(cx.frame_typed(&Late(2)).map(|frame| cx.broadcast(&frame)));
        });
        expect(&mut raw, raw::DATA, Meta::new(URGENT), raw::BULK);
        expect(&mut raw, raw::DATA, Meta::new(URGENT), raw::BULK);
    }
}

type Call = fn(&Handle<Act>, PeerId, Meta);

/// The ways in which a thread sends.
const CALLS: [(u8, Call); 8] = [
    (raw::DATA, |handle, peer, meta| handle.send(peer, handle.frame(meta, b"x").unwrap()).unwrap()),
    (raw::DATA, |handle, peer, meta| handle.send_batch(peer, vec![handle.frame(meta, b"x").unwrap()]).unwrap()),
    (raw::DATA, |handle, _, meta| handle.broadcast(handle.frame(meta, b"x").unwrap()).unwrap()),
    (raw::DATA, |handle, _, meta| handle.publish(TOPIC, handle.frame(meta, b"x").unwrap()).unwrap()),
    (raw::REQUEST, |handle, peer, meta| {
        // Long enough to be sent; nobody answers.
        let handle = handle.clone();
        std::thread::spawn(move || handle.request_blocking(peer, meta, b"x", NEVER));
    }),
    (raw::ACKED, |handle, peer, meta| drop(handle.send_acked(peer, meta, b"x", NEVER).unwrap())),
    (raw::ACKED, |handle, _, meta| drop(handle.send_acked(node_of_raw(), meta, b"x", NEVER).unwrap())),
    (raw::ACKED, |handle, _, meta| drop(handle.broadcast_acked(meta, b"x", NEVER).unwrap())),
];

#[test]
fn whichever_way_a_thread_sends_the_lane_is_that_of_the_choice_or_of_the_type() {
    let (mut node, mut raw, peer, _) = node_and_peer();
    let handle = node.handle();
    for (meta, lane) in metas() {
        for (kind, call) in CALLS {
            call(&handle, peer, meta);
            expect(&mut raw, kind, meta, lane);
        }
        handle.respond(asked(&mut node, &mut raw), meta, b"x").unwrap();
        expect(&mut raw, raw::RESPONSE, meta, lane);
    }
}

#[test]
fn what_is_passed_on_with_its_metadata_keeps_the_lane_that_it_came_in() {
    let mut node = Node::echo(config());
    let (mut raw, _) = node.raw_peer(Hello::node(1));
    for message_type in [URGENT, LARGE, PLAIN] {
        for lane in [raw::HIGH, raw::NORMAL, raw::BULK] {
            raw.send(&raw::frame(raw::DATA, lane, message_type, b"x"));
            expect(&mut raw, raw::DATA, Meta::new(message_type), lane);
            raw.send(&raw::frame(raw::REQUEST, lane, message_type, &[5; 9]));
            expect(&mut raw, raw::RESPONSE, Meta::new(message_type), lane);
            // In pieces, and to be acknowledged.
            let total = 20_000_u32;
            raw.send(&raw::first(lane, message_type, total, &[1; 15_000]));
            raw.send(&raw::frame(raw::FRAGMENT, lane, message_type, &[1; 5_000]));
            assert_eq!(raw.message(), Some((message_type, lane, vec![1; total as usize])));
            let id = u64::from(message_type) << 8 | u64::from(lane);
            raw.send(&raw::frame(raw::ACKED, lane, message_type, &id.to_le_bytes()));
            let mut frames = [raw.message_frame().unwrap(), raw.message_frame().unwrap()];
            frames.sort_by_key(|frame| frame.kind);
            assert_eq!((frames[0].kind, frames[0].flags, frames[1].kind), (raw::DATA, lane, raw::ACK));
        }
    }
}

#[test]
fn a_frame_says_what_it_was_made_for() {
    let node = Node::report(config());
    let handle = node.handle();
    for (meta, lane) in metas() {
        let lane = [Lane::High, Lane::Normal, Lane::Bulk][usize::from(lane) - 1];
        for body in [&[][..], &[1; 100_000]] {
            let frames = [handle.frame(meta, body).unwrap(), node.run(0, move |cx| cx.frame(meta, body).unwrap())];
            // What knows no configuration takes the lane that the metadata has.
            let free = Frame::new(meta, body).unwrap();
            for (frame, lane) in frames.iter().map(|frame| (frame, lane)).chain([(&free, meta.lane)]) {
                assert_eq!((frame.meta().message_type, frame.meta().lane, frame.lane()), (meta.message_type, lane, lane));
                assert_eq!((frame.body_len(), frame.is_high_priority()), (body.len(), lane == Lane::High));
                assert!(!frame.requires_ack() && !frame.is_response());
                let with_terms = frame.clone().with_key(1).with_ttl(NEVER);
                assert_eq!((with_terms.meta(), with_terms.is_high_priority()), (frame.meta(), frame.is_high_priority()));
            }
        }
    }
    assert_eq!((handle.frame_typed(&Vote(1)).unwrap().lane(), handle.frame_typed(&Late(1)).unwrap().lane()), (Lane::High, Lane::Bulk));
    assert_eq!(Frame::typed(&Vote(1)).unwrap().lane(), Lane::Normal);
    assert_eq!(Frame::typed(&Late(1)).unwrap().lane(), Lane::Bulk);
    assert_eq!(Frame::typed(&Vote(1)).unwrap().meta().message_type, URGENT);
}

/// All that a handler can read of a message but its body.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    by: &'static str,
    message_type: u16,
    lane: Lane,
    requires_ack: bool,
    is_response: bool,
    is_high_priority: bool,
    len: usize,
}

struct Reader {
    tell: Sender<Read>,
}

impl Reader {
    fn tell(&self, by: &'static str, message: &Message<'_>) {
        assert_eq!(message.meta.message_type, message.message_type());
        let _ = self.tell.send(Read {
            by,
            message_type: message.message_type(),
            lane: message.meta.lane,
            requires_ack: message.requires_ack(),
            is_response: message.is_response(),
            is_high_priority: message.is_high_priority(),
            len: message.body.len(),
        });
    }
}

impl Handler for Reader {
    type Command = Act;

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, message: Message<'_>) {
        self.tell("message", &message);
    }

    fn on_request(&mut self, cx: &mut Context<'_>, _: PeerId, request: Message<'_>, responder: Responder) {
        self.tell("request", &request);
        cx.respond(responder, request.meta, request.body).unwrap();
    }

    fn on_response(&mut self, _: &mut Context<'_>, _: PeerId, _: u64, result: Result<Message<'_>, RequestError>) {
        self.tell("response", &result.unwrap());
    }

    fn on_command(&mut self, cx: &mut Context<'_>, act: Act) {
        act(cx);
    }
}

fn reader(config: Config) -> (Engine<Act>, Receiver<Read>) {
    let (tell, told) = channel();
    (Engine::start(config, move |_| Reader { tell: tell.clone() }).unwrap(), told)
}

#[test]
fn the_handler_reads_type_lane_and_kind_of_every_message() {
    let (server, by_server) = reader(loopback());
    let (client, by_client) = reader(Config::plaintext().cores(Cores::Unpinned(2)));
    let handle = client.handle();
    handle.dial(Dial::to(server.local_addrs()[0])).unwrap();
    let mut peer = None;
    eventually("the client has its peer", || {
        peer = handle.peers(LIVENESS).unwrap().first().map(|snapshot| snapshot.id);
        peer.is_some()
    });
    let peer = peer.unwrap();
    for lane in Lane::ALL {
        // In one frame, and in pieces.
        for len in [0, 3, 100_000] {
            // On the peer's core and on the other, which gets the response from there.
            for core in 0..2 {
                let (give, taken) = channel();
                let act: Act = Box::new(move |cx| {
                    let (meta, body) = (Meta::new(PLAIN).lane(lane), vec![1; len]);
                    cx.send(peer, meta, &body).unwrap();
                    cx.send_acked(peer, meta, &body, NEVER, 1).unwrap();
                    cx.request(peer, meta, &body, NEVER, 1).unwrap();
                    let _ = give.send(());
                });
                handle.post(core, act).unwrap_or_else(|refused| panic!("{}", refused.reason));
                taken.recv_timeout(LIVENESS).unwrap();
                let read = |by, requires_ack, is_response| Read {
                    by,
                    message_type: PLAIN,
                    lane,
                    requires_ack,
                    is_response,
                    is_high_priority: lane == Lane::High,
                    len,
                };
                for expected in [read("message", false, false), read("message", true, false), read("request", false, false)] {
                    assert_eq!(by_server.recv_timeout(LIVENESS).unwrap(), expected);
                }
                assert_eq!(by_client.recv_timeout(LIVENESS).unwrap(), read("response", false, true));
            }
            let response = handle.request_blocking(peer, Meta::new(PLAIN).lane(lane), &vec![1; len], LIVENESS).unwrap();
            assert_eq!((response.meta.message_type, response.meta.lane, response.body.len()), (PLAIN, lane, len));
            by_server.recv_timeout(LIVENESS).unwrap();
        }
    }
}
