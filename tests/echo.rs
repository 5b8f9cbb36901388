//! Two engines on loopback: what one sends, the other returns.
//!
//! Set-up: a server engine that echoes, a client engine that dials it on several channels. Claim: every message comes back once, in
//! order, whole, from every channel, and both engines end with nothing left.

mod common;

use std::sync::mpsc::{Sender, channel};

use common::node::Node;
use common::{LIVENESS, Wire, loopback};
use corecast::{Config, Context, Counter, Dial, Engine, Handler, Message, PeerId, PeerInfo};

/// Sends numbered messages of growing size and reports each that comes back.
struct Client {
    count: u32,
    report: Sender<(PeerId, u32, usize)>,
}

fn body(index: u32) -> Vec<u8> {
    let mut body = vec![index as u8; index as usize * 37 % 40_000];
    body.splice(0..0, index.to_le_bytes());
    body
}

impl Handler for Client {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        for index in 0..self.count {
            cx.send(peer, 7, &body(index)).unwrap();
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let index = u32::from_le_bytes(*message.body.first_chunk().unwrap());
        assert_eq!(message.message_type(), 7);
        assert!(message.body == body(index));
        self.report.send((peer, index, message.body.len())).unwrap();
    }
}

#[test]
fn every_message_comes_back_once_and_in_order() {
    const CHANNELS: u16 = 5;
    const MESSAGES: u32 = 400;
    let server = Node::echo(loopback());
    let (report, replies) = channel();
    let client = Engine::start(Config::plaintext(), move |_| Client { count: MESSAGES, report: report.clone() }).unwrap();
    for channel in 0..CHANNELS {
        client.handle().dial(Dial::to(server.address()).channel(channel)).unwrap();
    }
    let mut next = std::collections::HashMap::new();
    for _ in 0..MESSAGES * u32::from(CHANNELS) {
        let (peer, index, _) = replies.recv_timeout(LIVENESS).unwrap();
        let expected = next.entry(peer).or_insert(0);
        assert_eq!(index, *expected);
        *expected += 1;
    }
    server.counts(Counter::Peers, u64::from(CHANNELS));
    server.counts(Counter::MessagesReceived, u64::from(CHANNELS) * u64::from(MESSAGES));
    server.counts(Counter::MessagesSent, u64::from(CHANNELS) * u64::from(MESSAGES));
    assert!(client.shutdown().drained);
    server.finish();
}

/// Neither side waits for the other to read before it reads itself.
#[test]
fn sixty_four_mebibytes_both_ways_at_once() {
    const MESSAGES: u8 = 64;
    for wire in Wire::BOTH {
        let roomy = |mut config: Config| {
            (config.limits.outbox_hard, config.limits.outbox_soft) = (160 << 20, 160 << 20);
            (config.limits.log_bytes, config.limits.send_bytes, config.limits.inbox_bytes) = (320 << 20, 320 << 20, 160 << 20);
            config
        };
        let mut server = Node::report(roomy(wire.listening()));
        let mut client = Node::report(roomy(wire.dialling()));
        client.handle().dial(wire.dial(&server.engine)).unwrap();
        let (there, back) = (client.connected().0, server.connected().0);
        for number in 0..MESSAGES {
            for (node, peer) in [(&client, there), (&server, back)] {
                node.handle().send(peer, node.handle().frame(1, &vec![number; 1 << 20]).unwrap()).unwrap();
            }
        }
        for number in 0..MESSAGES {
            for (node, peer) in [(&mut client, there), (&mut server, back)] {
                assert!(node.message(peer).1 == vec![number; 1 << 20], "message {number}");
            }
        }
        client.counts(Counter::MessagesSent, u64::from(MESSAGES));
        server.counts(Counter::MessagesSent, u64::from(MESSAGES));
        assert!(client.engine.shutdown().drained);
        server.finish();
    }
}
