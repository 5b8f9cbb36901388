//! A sink before messages that are not this tool's own.
//!
//! Set-up: the built binary as a sink, and a peer made of the library that sends 256 numbered messages of another type. Claim: each 64th
//! of them comes back, and no other.

mod common;

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};

use common::{LIMIT, serve};
use corecast::{Config, Context, Dial, Engine, Handler, Message, PeerId, PeerInfo};

const OTHER_TYPE: u16 = 0x4D43;

struct Peer {
    answers: Sender<u32>,
}

impl Handler for Peer {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        for number in 1..=256_u32 {
            cx.send(peer, OTHER_TYPE, &number.to_le_bytes()).unwrap();
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, message: Message<'_>) {
        self.answers.send(u32::from_le_bytes(message.body.try_into().unwrap())).unwrap();
    }
}

#[test]
fn a_sink_sends_every_64th_message_of_another_tool_back() {
    let (_server, address) = serve("sink", &["--plaintext"]);
    let address: SocketAddr = address.parse().unwrap();
    let (answers, answered) = channel();
    let peer = Engine::start(Config::plaintext(), move |_| Peer { answers: answers.clone() }).unwrap();
    peer.handle().dial(Dial::to(address)).unwrap();
    for expected in [64, 128, 192, 256] {
        assert_eq!(answered.recv_timeout(LIMIT).unwrap(), expected);
    }
    assert!(peer.shutdown().drained);
}
