//! Typed messages over sockets.
//!
//! Set-up: a server that decodes two types, one by bincode's own derive and one by serde, and answers with the other; a client that
//! sends them by every call that takes one; and a peer written by hand that sends bytes that are no such value. Claim: values arrive
//! as they were, in the lane and under the type number that they have; both codecs write the bytes that bincode's format says; what is
//! no value is an error and not a panic.

mod common;

use std::sync::mpsc::{Sender, channel};

use common::raw::{BULK, HIGH, Hello, NORMAL, Raw, frame};
use common::{LIVENESS, eventually_idle, loopback};
use corecast::{
    Bincode, BincodeSerde, CodecError, Config, Context, Dial, Engine, Frame, Handler, Lane, Message, PeerId, PeerInfo, SendError, Typed,
    TypedSendError,
};

#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
struct Block {
    height: u64,
    transactions: Vec<Vec<u8>>,
}

impl Typed for Block {
    const TYPE: u16 = 7;
    const LANE: Option<Lane> = Some(Lane::Bulk);
    type Codec = Bincode;
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum Vote {
    For { height: u64, by: String },
    Against(Option<u32>),
}

impl Typed for Vote {
    const TYPE: u16 = 8;
    const LANE: Option<Lane> = Some(Lane::High);
    type Codec = BincodeSerde;
}

fn block(height: u64) -> Block {
    Block { height, transactions: (0..height as usize % 50).map(|len| vec![len as u8; len * 40]).collect() }
}

fn vote(height: u64) -> Vote {
    match height % 3 {
        0 => Vote::Against(None),
        1 => Vote::Against(Some(height as u32)),
        _ => Vote::For { height, by: "wählerin".repeat(height as usize % 9) },
    }
}

#[derive(Debug, PartialEq)]
enum Got {
    Block(Block),
    Vote(Vote),
    Bad(u16, CodecError),
}

fn decode(message: &Message<'_>) -> Got {
    match message.message_type() {
        Block::TYPE => message.decode().map_or_else(|error| Got::Bad(Block::TYPE, error), Got::Block),
        _ => message.decode().map_or_else(|error| Got::Bad(Vote::TYPE, error), Got::Vote),
    }
}

/// Reports what it gets, and returns it.
struct Server(Sender<Got>);

impl Handler for Server {
    type Command = ();

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let got = decode(&message);
        match &got {
            Got::Block(block) => {
                assert_eq!(message.meta, Block::meta());
                cx.send_typed(peer, block).unwrap();
            }
            Got::Vote(vote) => {
                assert_eq!(message.meta, Vote::meta());
                cx.broadcast(&Frame::typed(vote).unwrap()).unwrap();
            }
            Got::Bad(..) => {}
        }
        self.0.send(got).unwrap();
    }
}

/// Sends a hundred of each, by turns.
struct Client(Sender<Got>);

impl Handler for Client {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        for height in 0..100 {
            cx.send_typed(peer, &block(height)).unwrap();
            if height % 2 == 0 {
                cx.send_typed(peer, &vote(height)).unwrap();
            } else {
                cx.send_frame(peer, &Frame::typed(&vote(height)).unwrap()).unwrap();
            }
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, message: Message<'_>) {
        self.0.send(decode(&message)).unwrap();
    }
}

#[test]
fn values_arrive_as_they_were() {
    let (give, at_server) = channel();
    let server = Engine::start(loopback(), move |_| Server(give.clone())).unwrap();
    let (give, at_client) = channel();
    let client = Engine::start(Config::plaintext(), move |_| Client(give.clone())).unwrap();
    client.handle().dial(Dial::to(server.local_addrs()[0])).unwrap();
    for side in [at_server, at_client] {
        // Order holds within a lane, and each type has its own.
        let (mut blocks, mut votes) = (0, 0);
        for _ in 0..200 {
            match side.recv_timeout(LIVENESS).unwrap() {
                Got::Block(got) => {
                    assert_eq!(got, block(blocks));
                    blocks += 1;
                }
                Got::Vote(got) => {
                    assert_eq!(got, vote(votes));
                    votes += 1;
                }
                Got::Bad(message_type, error) => panic!("type {message_type}: {error}"),
            }
        }
        assert_eq!((blocks, votes), (100, 100));
    }
    client.shutdown();
    eventually_idle(&server.handle());
    server.shutdown();
}

#[test]
fn the_bytes_are_those_of_the_format_and_no_others_are_taken() {
    let (give, take) = channel();
    let engine = Engine::start(loopback(), move |_| Server(give.clone())).unwrap();
    let mut raw = Raw::establish(engine.local_addrs()[0], Hello::node(1));
    // height u64, then each length as u64, little-endian.
    let mut bytes = 5u64.to_le_bytes().to_vec();
    bytes.extend_from_slice(&2u64.to_le_bytes());
    for transaction in [&b"abc"[..], b""] {
        bytes.extend_from_slice(&(transaction.len() as u64).to_le_bytes());
        bytes.extend_from_slice(transaction);
    }
    raw.send(&frame(1, BULK, Block::TYPE, &bytes));
    let value = Block { height: 5, transactions: vec![b"abc".to_vec(), vec![]] };
    assert_eq!(take.recv_timeout(LIVENESS).unwrap(), Got::Block(value));
    assert_eq!(raw.message().unwrap(), (Block::TYPE, BULK, bytes.clone()));
    // The variant as u32, Some as one byte.
    let encoded = [&1u32.to_le_bytes()[..], &[1], &77u32.to_le_bytes()].concat();
    raw.send(&frame(1, HIGH, Vote::TYPE, &encoded));
    assert_eq!(take.recv_timeout(LIVENESS).unwrap(), Got::Vote(Vote::Against(Some(77))));
    assert_eq!(raw.message().unwrap(), (Vote::TYPE, HIGH, encoded.clone()));
    // Too short, too long, a length that lies, an unknown variant: errors, and the peer stays.
    let mut trailing = bytes.clone();
    trailing.push(0);
    let lying = [&5u64.to_le_bytes()[..], &(1u64 << 40).to_le_bytes()].concat();
    let cases = [
        (Block::TYPE, &bytes[..bytes.len() - 1], CodecError::Decode),
        (Block::TYPE, &trailing, CodecError::TrailingBytes { left: 1 }),
        (Block::TYPE, &lying, CodecError::Decode),
        (Block::TYPE, b"", CodecError::Decode),
        (Vote::TYPE, &9u32.to_le_bytes(), CodecError::Decode),
        (Vote::TYPE, &[&encoded[..], b"x"].concat(), CodecError::TrailingBytes { left: 1 }),
    ];
    for (message_type, bytes, error) in cases {
        raw.send(&frame(1, NORMAL, message_type, bytes));
        assert_eq!(take.recv_timeout(LIVENESS).unwrap(), Got::Bad(message_type, error));
    }
    raw.send(&frame(1, HIGH, Vote::TYPE, &encoded));
    assert_eq!(raw.message().unwrap(), (Vote::TYPE, HIGH, encoded));
    drop(raw);
    eventually_idle(&engine.handle());
    engine.shutdown();
}

/// Tries to send a block to whoever connects, and reports the outcome.
struct Sending(u64, Sender<Result<(), TypedSendError>>);

impl Handler for Sending {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        self.1.send(cx.send_typed(peer, &block(self.0)).map(drop_sent)).unwrap();
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {}
}

fn drop_sent(_: corecast::Sent) {}

#[test]
fn a_value_that_is_too_long_for_the_peer_is_not_sent() {
    let (give, take) = channel();
    let engine = Engine::start(loopback(), move |_| Sending(49, give.clone())).unwrap();
    let raw = Raw::establish(engine.local_addrs()[0], Hello { max_message: 1000, ..Hello::node(1) });
    let error = take.recv_timeout(LIVENESS).unwrap().unwrap_err();
    assert!(matches!(error, TypedSendError::Send(SendError::TooLong { max: 1000, .. })), "{error:?}");
    drop(raw);
    eventually_idle(&engine.handle());
    engine.shutdown();
}
