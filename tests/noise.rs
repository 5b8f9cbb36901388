//! Engines that encrypt, over real sockets.
//!
//! Set-up: engines with a key each, that dial each other by node id. Claim: everything that holds in plaintext holds here; both sides know
//! who the other is; and nobody gets in who has another key, network, secret or cipher, or speaks in the clear.

mod common;

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};

use common::node::{Node, Seen};
use common::{LIVENESS, eventually, eventually_counts};
use corecast::{
    Admission, Cipher, CloseReason, Config, Context, Counter, Dial, DialError, Engine, GoodbyeCode, Handler, HandshakeError, Identity,
    Lane, Message, Meta, NetworkId, NetworkSecret, NodeId, Noise, PeerId, PeerInfo, RefusalCode, Security,
};

fn identity(name: u8) -> Identity {
    Identity::from_secret([name; 32])
}

fn secure(name: u8) -> Config {
    let mut config = Config::secure(identity(name), Admission::Open);
    config.addresses.exempt = vec!["127.0.0.0/8".parse().unwrap()];
    config
}

fn listening(name: u8) -> Config {
    secure(name).listen("127.0.0.1:0".parse().unwrap())
}

fn noise(config: &mut Config) -> &mut Noise {
    match &mut config.security {
        Security::Noise(noise) => noise,
        other => panic!("{other:?}"),
    }
}

/// Two that are connected, and each one's peer.
fn pair(ours: Config, theirs: Config) -> ((Node, PeerId), (Node, PeerId)) {
    let mut theirs = Node::report(theirs);
    let mut ours = Node::report(ours);
    ours.handle().dial(Dial::node(theirs.engine.node_id(), theirs.address())).unwrap();
    let (peer, _) = ours.connected();
    let (back, _) = theirs.connected();
    ((ours, peer), (theirs, back))
}

#[test]
fn each_side_knows_who_the_other_is() {
    let mut server = Node::report(listening(2));
    let mut client = Node::report(secure(1));
    assert_eq!(server.engine.node_id(), identity(2).node_id());
    let target = format!("{}@{}", identity(2).node_id(), server.address());
    let dial = client.handle().dial(target.parse::<Dial>().unwrap().channel(9)).unwrap();
    let (_, info) = client.connected();
    assert_eq!((info.node, info.authenticated, info.channel, info.dial), (identity(2).node_id(), true, 9, Some(dial)));
    let (_, info) = server.connected();
    assert_eq!((info.node, info.authenticated, info.channel, info.dial), (identity(1).node_id(), true, 9, None));
    assert_eq!(info.max_message, 1 << 20);
    assert!(client.engine.shutdown().drained);
    server.finish();
}

#[test]
fn a_dial_may_have_an_identity_of_its_own() {
    let mut server = Node::report(listening(2));
    let client = Node::report(secure(1));
    for name in 10..14 {
        let dial = Dial::node(identity(2).node_id(), server.address()).channel(name.into()).identity(identity(name));
        client.handle().dial(dial).unwrap();
        let (_, info) = server.connected();
        assert_eq!((info.node, info.authenticated), (identity(name).node_id(), true));
    }
    server.counts(Counter::Peers, 4);
}

/// Sends the first message, then each that comes back, with the next number: one record each way at a time.
struct PingPong {
    rounds: u32,
    report: Sender<u32>,
}

impl Handler for PingPong {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        cx.send(peer, 7, &0_u32.to_le_bytes()).unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let index = u32::from_le_bytes(*message.body.first_chunk().unwrap());
        if index == self.rounds {
            self.report.send(index).unwrap();
        } else {
            cx.send(peer, 7, &(index + 1).to_le_bytes()).unwrap();
        }
    }
}

#[test]
fn keys_change_while_messages_go_both_ways() {
    for cipher in [Cipher::AesGcm, Cipher::ChaChaPoly] {
        let with = |mut config: Config| {
            noise(&mut config).cipher = cipher;
            noise(&mut config).secret = Some(NetworkSecret::new([7; 32]));
            config
        };
        let server = Node::echo(with(listening(2)));
        let (report, done) = channel();
        let client = Engine::start(with(secure(1)), move |_| PingPong { rounds: 9000, report: report.clone() }).unwrap();
        client.handle().dial(Dial::node(server.engine.node_id(), server.address())).unwrap();
        assert_eq!(done.recv_timeout(LIVENESS).unwrap(), 9000);
        server.counts(Counter::MessagesReceived, 9001);
        assert!(client.shutdown().drained);
        server.finish();
    }
}

#[test]
fn long_messages_in_all_lanes_arrive_whole_and_in_order() {
    let ((ours, peer), (mut theirs, back)) = pair(secure(1), listening(2));
    let lanes = [Lane::High, Lane::Normal, Lane::Bulk];
    let body = |index: u32, lane: usize| {
        vec![(index * 3 + lane as u32) as u8; if index.is_multiple_of(4) { 1 << 20 } else { index as usize * 997 }]
    };
    for index in 0..12 {
        for (number, lane) in lanes.into_iter().enumerate() {
            let frame = ours.handle().frame(Meta::new(number as u16).lane(lane), &body(index, number)).unwrap();
            ours.handle().send(peer, frame).unwrap();
        }
    }
    let mut next = [0; 3];
    for _ in 0..36 {
        let (meta, bytes) = theirs.message(back);
        let lane = usize::from(meta.message_type);
        assert_eq!(meta.lane, lanes[lane]);
        assert!(bytes == body(next[lane], lane), "message {} of lane {lane}", next[lane]);
        next[lane] += 1;
    }
    ours.counts(Counter::MessagesSent, 36);
    assert_eq!(next, [12; 3]);
}

#[test]
fn short_messages_come_back_as_they_were() {
    let server = Node::echo(listening(2));
    let mut client = Node::report(secure(1));
    client.handle().dial(Dial::node(server.engine.node_id(), server.address())).unwrap();
    let (peer, _) = client.connected();
    for round in 0..200_u8 {
        let frame = client.handle().frame(u16::from(round), &[round; 32]).unwrap();
        client.handle().send(peer, frame).unwrap();
        let (meta, body) = client.message(peer);
        assert_eq!((meta.message_type, body), (u16::from(round), vec![round; 32]));
    }
    client.counts(Counter::MessagesSent, 200);
    server.counts(Counter::MessagesSent, 200);
}

/// Long messages in both directions at once: both sockets are full most of the time, and neither side may wait for the other.
#[test]
fn long_messages_go_both_ways_at_once() {
    const COUNT: u8 = 24;
    let ((mut ours, peer), (mut theirs, back)) = pair(secure(1), listening(2));
    for index in 0..COUNT {
        for (node, to) in [(&ours, peer), (&theirs, back)] {
            let frame = node.handle().frame(u16::from(index), &vec![index; 1 << 20]).unwrap();
            eventually("there is room in the inbox", || node.handle().send(to, frame.clone()).is_ok());
        }
        // Each has room for 16 MiB at most, and a core that is behind is not to be what is tested.
        if index >= 8 {
            for (node, from) in [(&mut ours, peer), (&mut theirs, back)] {
                let (meta, body) = node.message(from);
                assert_eq!(meta.message_type, u16::from(index - 8));
                assert!(body == vec![index - 8; 1 << 20]);
            }
        }
    }
    for (node, from) in [(&mut ours, peer), (&mut theirs, back)] {
        for index in COUNT - 8..COUNT {
            let (meta, body) = node.message(from);
            assert_eq!(meta.message_type, u16::from(index));
            assert!(body == vec![index; 1 << 20]);
        }
        node.counts(Counter::MessagesSent, COUNT.into());
    }
}

#[test]
fn a_broadcast_reaches_everybody() {
    let mut server = Node::report(listening(2));
    let mut clients: Vec<(Node, PeerId)> = (10..30)
        .map(|name| {
            let mut client = Node::report(secure(name));
            client.handle().dial(Dial::node(server.engine.node_id(), server.address())).unwrap();
            let (peer, _) = client.connected();
            (client, peer)
        })
        .collect();
    for _ in 0..clients.len() {
        server.connected();
    }
    for index in 0..200_u32 {
        let frame = server.handle().frame(3, &[&index.to_le_bytes()[..], &vec![1; index as usize * 100]].concat()).unwrap();
        server.handle().broadcast(frame).unwrap();
    }
    for (client, peer) in &mut clients {
        for index in 0..200_u32 {
            let (_, body) = client.message(*peer);
            assert_eq!(body[..4], index.to_le_bytes());
            assert_eq!(body.len(), 4 + index as usize * 100);
        }
    }
    server.counts(Counter::MessagesSent, 200 * 20);
}

/// A reader that stops, so that the sender's socket fills in the middle of a record, over and over.
#[test]
fn what_the_kernel_does_not_take_is_kept_and_sent_as_it_is() {
    let small = |mut config: Config| {
        config.io.send_buffer = Some(128 << 10);
        config.io.socket_receive_buffer = Some(128 << 10);
        config
    };
    let ((ours, peer), (mut theirs, back)) = pair(small(secure(1)), small(listening(2)));
    for round in 0..3_u8 {
        theirs.run(0, move |cx| cx.pause_read(back));
        for index in 0..100 {
            let frame = ours.handle().frame(u16::from(round), &vec![index; 30_000]).unwrap();
            ours.handle().send(peer, frame).unwrap();
        }
        let queued = || ours.handle().peers(LIVENESS).unwrap()[0].queued_bytes;
        eventually("the socket is full", || queued() > 1 << 20);
        theirs.run(0, move |cx| cx.resume_read(back));
        for index in 0..100 {
            let (meta, body) = theirs.message(back);
            assert_eq!(meta.message_type, u16::from(round));
            assert!(body == vec![index; 30_000], "message {index} of round {round}");
        }
    }
    ours.counts(Counter::MessagesSent, 300);
    assert_eq!(ours.count(Counter::MessagesDropped), 0);
    theirs.counts(Counter::ViolationRecordNotAuthentic, 0);
}

#[test]
fn what_is_queued_before_the_end_still_arrives() {
    let ((ours, peer), (mut theirs, back)) = pair(secure(1), listening(2));
    let frames: Vec<_> = (0..500).map(|index| ours.handle().frame(index as u16, &vec![0; 10_000]).unwrap()).collect();
    ours.handle().send_batch(peer, frames).unwrap();
    let report = ours.engine.shutdown();
    assert!(report.drained, "{report:?}");
    assert_eq!((report.unsent_messages, report.unsent_bytes), (0, 0));
    for index in 0..500 {
        assert_eq!(theirs.message(back).0.message_type, index);
    }
    assert_eq!(theirs.closed(back), CloseReason::Goodbye(GoodbyeCode::ShuttingDown));
    theirs.finish();
}

#[test]
fn a_dial_says_whom_it_means_and_does_not_mean_itself() {
    let mut node = Node::report(listening(2));
    let address = node.address();
    for (dial, told) in [
        (Dial::to(address), DialError::NodeRequired),
        (Dial::node(identity(2).node_id(), address), DialError::SelfConnection),
        (Dial::node(identity(3).node_id(), address).identity(identity(3)), DialError::SelfConnection),
    ] {
        let dial = node.handle().dial(dial).unwrap();
        assert_eq!(node.dial_failed(dial), (told, None), "without an attempt, and for good");
    }
    node.counts(Counter::DialAttempts, 0);
    // The engine reaches itself under a key of its own: two nodes in one.
    node.handle().dial(Dial::node(identity(2).node_id(), address).identity(identity(3))).unwrap();
    let mut met = [node.connected().1.node, node.connected().1.node];
    met.sort_unstable();
    let mut both = [identity(2).node_id(), identity(3).node_id()];
    both.sort_unstable();
    assert_eq!(met, both);
}

/// One step of a handshake a turn, on both sides: dials begin, and acceptors answer, one after the other, and none is forgotten.
#[test]
fn handshakes_that_a_turn_has_no_time_for_go_on_in_the_next() {
    let slow = |mut config: Config| {
        config.io.handshakes = 1;
        config
    };
    let mut server = Node::report(slow(listening(2)));
    let mut client = Node::report(slow(secure(1)));
    let (node, address) = (server.engine.node_id(), server.address());
    client.run(0, move |cx| {
        for channel in 0..60 {
            cx.dial(Dial::node(node, address).channel(channel));
        }
    });
    for _ in 0..60 {
        client.connected();
        server.connected();
    }
    client.counts(Counter::Established, 60);
    client.counts(Counter::DialFailures, 0);
    eventually("both have put steps off", || [&client, &server].iter().all(|node| node.count(Counter::HandshakesDeferred) > 0));
}

#[test]
fn a_node_whose_key_is_weak_is_given_up_at_once() {
    let server = Node::report(listening(2));
    let mut client = Node::report(secure(1));
    let dial = client.handle().dial(Dial::node(NodeId([0; 32]), server.address()).once()).unwrap();
    assert_eq!(client.dial_failed(dial), (DialError::Handshake(HandshakeError::WeakKey), None));
    client.counts(Counter::HandshakeWeakKey, 1);
    client.counts(Counter::HandshakeTimeout, 0);
}

/// A dial that must not succeed: what the dialler is told, and what the acceptor counts.
fn refused(dialler: Config, acceptor: Config, dial: impl FnOnce(SocketAddr) -> Dial, told: DialError, counted: Counter) {
    let mut server = Node::report(acceptor);
    let mut client = Node::report(dialler);
    let dial = client.handle().dial(dial(server.address()).once()).unwrap();
    assert_eq!(client.dial_failed(dial), (told, None));
    server.counts(counted, 1);
    assert_eq!((server.count(Counter::Established), client.count(Counter::Established)), (0, 0));
    server.counts(Counter::HalfOpen, 0);
    let connected = |node: &mut Node| node.leftovers().iter().any(|seen| matches!(seen, Seen::Connected { .. }));
    assert!(!connected(&mut server) && !connected(&mut client));
}

#[test]
fn who_has_another_key_network_or_secret_is_not_let_in() {
    let told = DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::AuthFailed));
    let to = |node: u8| move |address| Dial::node(identity(node).node_id(), address);
    let with = |mut config: Config, secret: u8| {
        noise(&mut config).secret = Some(NetworkSecret::new([secret; 32]));
        config
    };
    refused(secure(1), listening(2), to(3), told, Counter::HandshakeAuthFailed);
    refused(with(secure(1), 7), listening(2), to(2), told, Counter::HandshakeAuthFailed);
    refused(secure(1), with(listening(2), 7), to(2), told, Counter::HandshakeAuthFailed);
    refused(with(secure(1), 8), with(listening(2), 7), to(2), told, Counter::HandshakeAuthFailed);
    let mut elsewhere = secure(1);
    elsewhere.network = NetworkId([1; 32]);
    refused(elsewhere, listening(2), to(2), told, Counter::HandshakeAuthFailed);
}

#[test]
fn there_is_no_way_back_to_the_clear_nor_to_another_cipher() {
    let told = DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::Suite));
    let to = |address| Dial::node(identity(2).node_id(), address);
    let clear = || Config::plaintext().listen("127.0.0.1:0".parse().unwrap());
    refused(secure(1), clear(), to, told, Counter::HandshakeSuite);
    refused(Config::plaintext(), listening(2), Dial::to, told, Counter::HandshakeSuite);
    let mut other = secure(1);
    noise(&mut other).cipher = Cipher::ChaChaPoly;
    refused(other, listening(2), to, told, Counter::HandshakeSuite);
}

#[test]
fn a_peer_that_is_cut_off_is_told_in_private() {
    let mut theirs = listening(2);
    theirs.limits.max_message = 1000;
    theirs.acks.window = 1 << 12;
    let ((mut ours, peer), (mut theirs, back)) = pair(secure(1), theirs);
    // The handle does not know what the peer takes; its core does, and refuses.
    let frame = ours.handle().frame(1, &[0; 2000]).unwrap();
    ours.handle().send_notify(peer, frame, 5).unwrap();
    ours.wait("a refusal", |seen| matches!(seen, Seen::SendFailed { tag: 5, .. }).then_some(()));
    theirs.handle().close(back).unwrap();
    assert_eq!(ours.closed(peer), CloseReason::Goodbye(GoodbyeCode::Closed));
    assert_eq!(theirs.closed(back), CloseReason::Requested);
    eventually_counts(&ours.handle(), Counter::Peers, 0);
}
