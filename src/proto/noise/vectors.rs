//! What WIRE.md, 7.5, says of encrypted sessions, byte by byte.
//!
//! The vectors were computed by another implementation (`tests/python`). Both sides are played here, with the keys that the text gives, and
//! everything that either says is compared.

use std::sync::Arc;

use super::{Keys, Opened};
use crate::buffers::BufferPool;
use crate::config::{Cipher, Noise};
use crate::id::{NetworkId, NodeId};
use crate::identity::{Identity, NetworkSecret};
use crate::proto::handshake::{Handshake, Progress};
use crate::proto::session::{Sealed, Session};
use crate::wire::{Draft, Hello, Kind, Meta, append_message, control_frame};

/// The bytes of one vector.
fn vector(name: &str) -> Vec<u8> {
    let text = include_str!("../../wire/WIRE.md");
    let begin = format!("```noise {name}\n");
    let at = text.find(&begin).unwrap_or_else(|| panic!("WIRE.md has no vector {name}")) + begin.len();
    let body = text[at..].split("```").next().unwrap();
    body.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// 32 bytes that count on from `first`.
fn counting(first: u8) -> [u8; 32] {
    std::array::from_fn(|index| first + index as u8)
}

fn hello(node: NodeId, instance: u64, channel: u16) -> Hello {
    Hello { network: NetworkId(counting(0)), node, instance, features: 0, max_message: 65_536, channel }
}

/// Compares what `from` says with the vector, and hands it to `to`.
#[track_caller]
fn say(name: &str, from: &mut Handshake, to: &mut Handshake) -> Progress {
    let said = from.output().to_vec();
    assert_eq!(said, vector(name), "{name}");
    from.advance(said.len());
    let (mut rest, mut last) = (&said[..], Progress::Pending);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(to.wanted());
        last = to.handle_bytes(now).unwrap();
        rest = later;
    }
    last
}

/// Both sides of the session that the text has under this prefix, after the handshake.
fn play(prefix: &str, cipher: Cipher, secret: bool) -> (Box<Sealed>, Box<Sealed>) {
    let keys = |first| {
        let mut config = Noise::new(Identity::from_secret(counting(first)));
        config.cipher = cipher;
        config.secret = secret.then(|| NetworkSecret::new(counting(0xE0)));
        Arc::new(Keys::new(&config).unwrap())
    };
    let (a, b) = (keys(0x40), keys(0x80));
    let (node_a, node_b) = (a.identity.node_id(), b.identity.node_id());
    let ours = hello(node_a, 0x0807_0605_0403_0201, 7);
    let theirs = hello(node_b, 0x1817_1615_1413_1211, 0);
    let mut dialler = Handshake::dialled(Some(&a), ours, Some(node_b));
    dialler.connected(&counting(0xA0));
    dialler.begin().unwrap();
    let mut acceptor = Handshake::accepted(Some(&b), theirs);
    acceptor.connected(&counting(0xC0));
    let name = |what: &str| format!("{prefix}-{what}");
    assert_eq!(say(&name("message-1"), &mut dialler, &mut acceptor), Progress::Pending);
    assert_eq!(say(&name("message-2"), &mut acceptor, &mut dialler), Progress::Pending);
    assert_eq!(say(&name("message-3"), &mut dialler, &mut acceptor), Progress::Ask(ours));
    acceptor.grant(7);
    assert_eq!(say(&name("ready-b"), &mut acceptor, &mut dialler), Progress::Ask(Hello { channel: 7, ..theirs }));
    dialler.grant(7);
    assert_eq!(say(&name("ready-a"), &mut dialler, &mut acceptor), Progress::Established);
    let mut pool = BufferPool::new(0);
    match (dialler.take_session(&mut pool), acceptor.take_session(&mut pool)) {
        (Session::Noise(dialler), Session::Noise(acceptor)) => (dialler, acceptor),
        other => panic!("{other:?}"),
    }
}

/// One record: as in the text, and opened by the other side.
#[track_caller]
fn send(name: Option<&str>, frame: &[u8], from: &mut Sealed, to: &mut Sealed) {
    let mut record = vec![0; frame.len() + 18];
    let len = from.seal(frame, &mut record);
    assert_eq!(len, record.len());
    if let Some(name) = name {
        assert_eq!(record, vector(name), "{name}");
    }
    let mut opened = Opened::default();
    to.open(&mut BufferPool::new(0), &record, &mut opened).unwrap();
    assert_eq!(opened.as_slice(), frame);
}

#[test]
fn the_public_keys_follow_from_the_secret_ones() {
    for (name, first) in [("public-a", 0x40), ("public-b", 0x80), ("public-ephemeral-a", 0xA0), ("public-ephemeral-b", 0xC0)] {
        assert_eq!(Identity::from_secret(counting(first)).node_id().as_bytes()[..], vector(name), "{name}");
    }
}

#[test]
fn every_byte_of_a_session_is_as_the_text_says() {
    let mut data = Vec::new();
    append_message(&mut data, Draft::data(Meta::new(0x0102), b"hello"), 1024);
    for (prefix, cipher, secret) in [
        ("aes", Cipher::AesGcm, false),
        ("chacha", Cipher::ChaChaPoly, false),
        ("aes-secret", Cipher::AesGcm, true),
        ("chacha-secret", Cipher::ChaChaPoly, true),
    ] {
        let (mut a, mut b) = play(prefix, cipher, secret);
        send(Some(&format!("{prefix}-data-a")), &data, &mut a, &mut b);
        send(Some(&format!("{prefix}-data-b")), &data, &mut b, &mut a);
        if secret {
            continue;
        }
        for number in 2..4098_u64 {
            let ping = control_frame(Kind::Ping, number.to_le_bytes());
            let name = (number >= 4095).then(|| format!("{prefix}-record-{number}"));
            send(name.as_deref(), &ping, &mut a, &mut b);
        }
    }
}
