//! Every protocol's messages: what is appended, byte for byte, and what is found in them again, however the bytes are cut.

use super::nats::Nats;
use super::redis::Redis;
use super::zmtp::Zmtp;
use super::*;
use crate::client::message::{Stamp, Template};
use crate::wire::{self, HEADER_LEN};

/// A codec, fed in pieces, and what came out of it.
struct Feed<C> {
    codec: C,
    kept: Vec<u8>,
    scratch: Scratch,
    bodies: Vec<Vec<u8>>,
}

impl<C: Codec> Feed<C> {
    fn new(codec: C) -> Self {
        Self { codec, kept: Vec::new(), scratch: Scratch::default(), bodies: Vec::new() }
    }

    fn feed(&mut self, piece: &[u8]) -> io::Result<()> {
        self.kept.extend_from_slice(piece);
        let used = self.codec.decode(&self.kept, &mut self.scratch, |body| self.bodies.push(body.to_vec()))?;
        self.kept.drain(..used);
        Ok(())
    }
}

/// Feeds the bytes in one piece, in two and three cut everywhere, and in pieces of every length; the outcome is the same each time.
fn in_all_pieces<C: Codec>(make: impl Fn() -> C, bytes: &[u8], bodies: &[&[u8]], replies: &[u8]) {
    let check = |pieces: &[&[u8]]| {
        let mut feed = Feed::new(make());
        pieces.iter().for_each(|piece| feed.feed(piece).unwrap());
        let lengths: Vec<_> = pieces.iter().map(|piece| piece.len()).collect();
        assert_eq!(feed.bodies, bodies, "{lengths:?}");
        assert_eq!(feed.scratch.replies, replies, "{lengths:?}");
        assert!(feed.kept.is_empty(), "{lengths:?}");
    };
    check(&[bytes]);
    for first in 0..bytes.len() {
        // Every second cut where the input is short, some where it is long.
        for second in (first..bytes.len()).step_by(bytes.len() / 300 + 1) {
            check(&[&bytes[..first], &bytes[first..second], &bytes[second..]]);
        }
    }
    for length in 1..bytes.len() {
        check(&bytes.chunks(length).collect::<Vec<_>>());
    }
}

fn frames(body_len: usize) -> [Vec<u8>; 2] {
    let mut template = Template::new(body_len);
    [7, 8].map(|sequence| template.stamp(3, Stamp { sequence, sent_at: 1_000_000 + sequence }).to_vec())
}

/// What a codec appends, it finds again.
fn comes_back<C: Codec>(make: impl Fn() -> C, body_len: usize) {
    let frames = frames(body_len);
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| make().append(frame, &mut bytes));
    in_all_pieces(make, &bytes, &[&frames[0][HEADER_LEN..], &frames[1][HEADER_LEN..]], &[]);
}

fn appended<C: Codec>(codec: &C, frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.append(frame, &mut bytes);
    bytes
}

fn fails<C: Codec>(codec: C, bytes: &[u8]) -> String {
    Feed::new(codec).feed(bytes).unwrap_err().to_string()
}

#[test]
fn what_is_appended_comes_back() {
    for body_len in [24, 100, 255, 256, 300] {
        comes_back(Wire::default, body_len);
        comes_back(|| MessageIo, body_len);
        comes_back(|| Zmtp { publishes: false }, body_len);
    }
    comes_back(|| Json { sender: 4 }, 64);
}

#[test]
fn wire_puts_long_messages_together_around_pings() {
    let [frame, _] = frames(40_000);
    let bytes = appended(&Wire::default(), &frame);
    // 16,380 bytes behind the total, 16,384, and 7,236.
    let ends = [HEADER_LEN + 16_384, 2 * (HEADER_LEN + 16_384), 3 * HEADER_LEN + 40_004];
    assert_eq!(bytes.len(), ends[2]);
    assert_eq!(bytes[8..12], 40_000_u32.to_le_bytes());
    let kinds = [0, ends[0], ends[1]].map(|at| (bytes[at + 4], bytes[at + 5] & wire::MORE));
    assert_eq!(kinds, [(wire::DATA, wire::MORE), (wire::FRAGMENT, wire::MORE), (wire::FRAGMENT, 0)]);

    let mut feed = Feed::new(Wire::default());
    for piece in [&bytes[..ends[0]], &wire::control(wire::PING, [9; 8]), &bytes[ends[0]..ends[1]], &bytes[ends[1]..]] {
        feed.feed(piece).unwrap();
    }
    assert!(feed.bodies == [&frame[HEADER_LEN..]]);
    assert_eq!(feed.scratch.replies, wire::control(wire::PONG, [9; 8]));

    let mut short = Feed::new(Wire::default());
    short.feed(&[&bytes[..ends[0]], &bytes[ends[1]..]].concat()).unwrap();
    assert_eq!(short.bodies, [b""], "a message that is not as long as announced is nobody's");
}

#[test]
fn a_goodbye_is_an_error_until_one_leaves() {
    let goodbye = wire::goodbye(wire::VIOLATION, 3);
    assert!(fails(Wire::default(), &goodbye).contains("code 5, detail 3"));
    let mut leaving = Feed::new(Wire::default());
    assert_eq!(leaving.codec.farewell(), wire::goodbye(wire::CLOSED, 0));
    leaving.feed(&goodbye).unwrap();
}

#[test]
fn nats_has_lines_and_bodies() {
    let make = || Nats { publish: b"PUB corecast.3 24\r\n".to_vec(), leaving: false };
    let [frame, other] = frames(24);
    let (body, other) = (&frame[HEADER_LEN..], &other[HEADER_LEN..]);
    assert_eq!(appended(&make(), &frame), [b"PUB corecast.3 24\r\n", body, b"\r\n"].concat());
    let bytes = [
        b"INFO {\"server_id\":\"x\"}\r\nMSG corecast.3 1 24\r\n",
        body,
        b"\r\nPING\r\n+OK\r\nMSG corecast.3 1 _INBOX.x 24\r\n",
        other,
        b"\r\n",
    ];
    in_all_pieces(make, &bytes.concat(), &[body, other], b"PONG\r\n");
    assert!(fails(make(), b"-ERR 'Slow Consumer'\r\n").contains("Slow Consumer"));
    assert!(fails(make(), b"MSG corecast.3 1 x\r\n").contains("without a length"));
    in_all_pieces(make, &[b"MSG a 1 24\r\n", body, b"xx"].concat(), &[b""], b"");
}

#[test]
fn redis_has_one_form_of_each_message() {
    let [frame, other] = frames(24);
    let (body, other) = (&frame[HEADER_LEN..], &other[HEADER_LEN..]);
    let caller = || Redis::new(Role::Caller, 24);
    assert_eq!(appended(&caller(), &frame), [b"*2\r\n$4\r\nECHO\r\n$24\r\n", body, b"\r\n"].concat());
    in_all_pieces(caller, &[b"$24\r\n", body, b"\r\n$24\r\n", other, b"\r\n"].concat(), &[body, other], b"");

    let (publisher, subscriber) = (|| Redis::new(Role::Publisher, 24), || Redis::new(Role::Subscriber, 24));
    assert_eq!(appended(&publisher(), &frame), [b"*3\r\n$7\r\nPUBLISH\r\n$8\r\ncorecast\r\n$24\r\n", body, b"\r\n"].concat());
    let message = |body: &[u8]| [b"*3\r\n$7\r\nmessage\r\n$8\r\ncorecast\r\n$24\r\n", body, b"\r\n"].concat();
    in_all_pieces(subscriber, &[message(body), message(other)].concat(), &[body, other], b"");
    in_all_pieces(publisher, b":50\r\n:0\r\n", &[], b"");

    assert!(fails(publisher(), b"-NOAUTH Authentication required.\r\n").contains("NOAUTH"));
    assert!(fails(caller(), b"-ERR no\r\n").contains("-ERR no"), "though it is shorter than an answer");
    assert!(fails(caller(), &[b"$25\r\n", body, b"x\r\n"].concat()).contains("$25"));
}

#[test]
fn message_io_has_a_varint_before_each_message() {
    let [frame, _] = frames(300);
    assert_eq!(appended(&MessageIo, &frame), [&[0xAC, 0x02], &frame[HEADER_LEN..]].concat());
    let [frame, _] = frames(100 << 10);
    assert_eq!(appended(&MessageIo, &frame)[..3], [0x80, 0xA0, 0x06]);
    assert!(fails(MessageIo, &[0xFF; 10]).contains("does not end"));
}

#[test]
fn zmtp_has_short_and_long_frames_and_commands() {
    let make = || Zmtp { publishes: false };
    let [frame, _] = frames(255);
    assert_eq!(appended(&make(), &frame), [&[0, 255], &frame[HEADER_LEN..]].concat());
    let [frame, _] = frames(256);
    assert_eq!(appended(&make(), &frame), [&[2, 0, 0, 0, 0, 0, 0, 1, 0], &frame[HEADER_LEN..]].concat());
    // A ping of ZMTP 3.1, with a context that comes back, between two messages; then a part of a message of several.
    in_all_pieces(make, b"\0\x02ab\x04\x09\x04PING\0\x0Axy\0\x01c\x01\x01d", &[b"ab", b"c", b""], b"\x04\x07\x04PONGxy");
    assert!(fails(make(), &[8, 0]).contains("0x08"));
    assert!(fails(make(), b"\x04\x09\x05ERROR\x02no").contains("error: no"));
    // The subscriptions that come to a PUB.
    in_all_pieces(|| Zmtp { publishes: true }, b"\0\x01\x01\0\x01\x01", &[], b"");
}

#[test]
fn json_has_one_form() {
    let [frame, _] = frames(24);
    let body = &frame[HEADER_LEN..];
    let line = appended(&Json { sender: 4 }, &frame);
    let numbers: Vec<_> = body.iter().map(u8::to_string).collect();
    let payload = numbers.join(",");
    let expected = format!("{{\"kind\":\"Data\",\"sender\":4,\"sequence\":7,\"sent_at\":1000007,\"payload\":[{payload}]}}\n");
    assert_eq!(String::from_utf8(line).unwrap(), expected);

    for (whole, changed) in [
        ("\"Data\"", "\"Gone\""),
        ("\"sequence\":7", "\"sequence\":8"),
        ("\"sent_at\":1000007", "\"sent_at\":x"),
        (payload.as_str(), "256"),
        (payload.as_str(), "1,,2"),
        (payload.as_str(), ""),
        ("]}", "]"),
    ] {
        let mut feed = Feed::new(Json { sender: 4 });
        feed.feed(expected.replacen(whole, changed, 1).as_bytes()).unwrap();
        assert_eq!(feed.bodies, [b""], "{changed} instead of {whole} is nobody's message");
    }
}

/// What the naive server does with a message: serde_json reads and writes the same text.
#[test]
fn json_is_what_serde_json_writes() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Message {
        kind: String,
        sender: u64,
        sequence: u64,
        sent_at: u64,
        payload: Vec<u8>,
    }
    let [frame, _] = frames(300);
    let line = appended(&Json { sender: 12 }, &frame);
    let message: Message = serde_json::from_slice(&line).unwrap();
    assert_eq!((message.sender, message.sequence, &message.payload[..]), (12, 7, &frame[HEADER_LEN..]));
    assert_eq!([serde_json::to_vec(&message).unwrap(), b"\n".to_vec()].concat(), line);
}
