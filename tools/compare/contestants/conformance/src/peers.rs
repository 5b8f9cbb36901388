//! The other end of a contestant, on a blocking socket: one way to say a message in each protocol.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde::{Deserialize, Serialize};

use crate::program::DEADLINE;
use crate::wire::{self, Header, Hello};

/// One connection.
pub trait Peer: Sized + Send {
    /// Connects; the server may still have to notice it, unless the protocol tells.
    fn connect(address: SocketAddr) -> Self;

    /// The bytes of a message.
    fn encode(body: &[u8]) -> Vec<u8>;

    /// Where the bytes go and come from.
    fn socket(&mut self) -> &mut Socket;

    /// The body of the first message in `bytes`, and how many bytes it took, if all of it is there. Something else than a message is an
    /// empty body.
    fn decode(bytes: &[u8]) -> Option<(Vec<u8>, usize)>;

    /// Sends a message.
    fn send(&mut self, body: &[u8]) {
        self.socket().write(&Self::encode(body));
    }

    /// The body of the next message, or none at the end of the connection.
    fn receive(&mut self) -> Option<Vec<u8>> {
        self.receive_or_stall().expect("the message does not come")
    }

    /// The same; an error if nothing comes for as long as the socket waits.
    fn receive_or_stall(&mut self) -> Result<Option<Vec<u8>>, Stalled> {
        loop {
            if let Some((body, used)) = Self::decode(self.socket().received.as_slices().0) {
                self.socket().received.drain(..used);
                return Ok(Some(body));
            }
            if !self.socket().read()? {
                return Ok(None);
            }
        }
    }
}

/// Nothing came, or nothing could be sent.
#[derive(Debug)]
pub struct Stalled;

/// A socket, and what came that is not decoded yet.
pub struct Socket {
    /// The socket.
    pub stream: TcpStream,
    received: VecDeque<u8>,
}

impl Socket {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { stream, received: VecDeque::new() }
    }

    /// Writes all of it.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads what there is; false at the end.
    fn read(&mut self) -> Result<bool, Stalled> {
        let mut buffer = [0; 64 << 10];
        let outcome = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.received.extend(&buffer[..count]);
                self.received.make_contiguous();
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Stalled),
            // It was cut off with something still on its way.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => panic!("{error}"),
        }
    }
}

/// WIRE.md in plaintext.
pub struct WirePeer(Socket);

const NONCE: [u8; 8] = [0xA5; 8];

impl Peer for WirePeer {
    /// Returns when the server counts it as established: it has answered a ping.
    fn connect(address: SocketAddr) -> Self {
        let mut socket = Socket::connect(address);
        let hello = Hello { network: [0; 32], node: [7; 32], instance: 1, max_message: wire::MAX_MESSAGE, channel: 9 };
        socket.write(&[wire::opening(&hello).as_slice(), &wire::ready(), &wire::control(wire::PING, NONCE)].concat());
        let mut answer = [0; wire::OPENING_LEN + 16];
        socket.stream.read_exact(&mut answer).unwrap();
        let theirs = wire::parse_opening(answer.first_chunk().unwrap()).unwrap();
        assert_eq!((theirs.network, theirs.channel), ([0; 32], 9), "the channel is repeated");
        assert_eq!(answer[wire::OPENING_LEN..], wire::control(wire::PONG, NONCE));
        Self(socket)
    }

    fn encode(body: &[u8]) -> Vec<u8> {
        let mut frame = Header::new(body.len(), wire::DATA, wire::NORMAL_LANE, 3).to_bytes().to_vec();
        frame.extend_from_slice(body);
        frame
    }

    fn socket(&mut self) -> &mut Socket {
        &mut self.0
    }

    fn decode(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let header = Header::read(bytes)?;
        let end = wire::HEADER_LEN + header.length();
        let body = bytes.get(wire::HEADER_LEN..end)?;
        let is_message = header.kind() == wire::DATA;
        assert!(!is_message || (header.message_type(), header.flags()) == (3, wire::NORMAL_LANE), "the header is passed on as it was");
        Some((if is_message { body.to_vec() } else { Vec::new() }, end))
    }
}

impl WirePeer {
    /// Says goodbye, and returns everything that comes until the server closes.
    pub fn say_goodbye(mut self) -> Vec<u8> {
        self.0.write(&wire::goodbye(wire::CLOSED, 0));
        self.0.stream.shutdown(std::net::Shutdown::Write).unwrap();
        while self.0.read().expect("the server closes") {}
        self.0.received.into()
    }

    /// The last words of a server to a peer that said goodbye.
    pub fn farewell() -> Vec<u8> {
        wire::goodbye(wire::CLOSED, 0).to_vec()
    }
}

/// message-io's `FramedTcp`: the length as a variable-length integer, seven bits a byte, least significant first.
pub struct MessageIoPeer(Socket);

impl Peer for MessageIoPeer {
    fn connect(address: SocketAddr) -> Self {
        Self(Socket::connect(address))
    }

    fn encode(body: &[u8]) -> Vec<u8> {
        let (mut bytes, mut length) = (Vec::new(), body.len());
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(body);
        bytes
    }

    fn socket(&mut self) -> &mut Socket {
        &mut self.0
    }

    fn decode(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let prefix = bytes.iter().position(|byte| byte & 0x80 == 0)? + 1;
        let length = bytes[..prefix].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7F));
        let body = bytes.get(prefix..prefix + length)?;
        Some((body.to_vec(), prefix + length))
    }
}

/// A JSON object a line.
pub struct JsonPeer(Socket);

#[derive(Serialize, Deserialize)]
struct Line {
    kind: String,
    sender: u64,
    sequence: u64,
    sent_at: u64,
    payload: Vec<u8>,
}

impl Peer for JsonPeer {
    fn connect(address: SocketAddr) -> Self {
        Self(Socket::connect(address))
    }

    fn encode(body: &[u8]) -> Vec<u8> {
        let line = Line { kind: "Data".into(), sender: 1, sequence: 2, sent_at: 3, payload: body.to_vec() };
        let mut bytes = serde_json::to_vec(&line).unwrap();
        bytes.push(b'\n');
        bytes
    }

    fn socket(&mut self) -> &mut Socket {
        &mut self.0
    }

    fn decode(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let end = bytes.iter().position(|&byte| byte == b'\n')?;
        let line: Line = serde_json::from_slice(&bytes[..end]).expect("a line is an object");
        assert_eq!((line.kind.as_str(), line.sender, line.sequence, line.sent_at), ("Data", 1, 2, 3), "passed on as it was");
        Some((line.payload, end + 1))
    }
}

/// ZMTP 3.0 without security, as a DEALER: what libzmq speaks.
pub struct DealerPeer(Socket);

const GREETING_LEN: usize = 64;
const COMMAND: u8 = 4;
const LONG: u8 = 2;

impl Peer for DealerPeer {
    fn connect(address: SocketAddr) -> Self {
        let mut socket = Socket::connect(address);
        let mut greeting = [0; GREETING_LEN];
        // Signature, version 3.0, mechanism, not the server of it.
        (greeting[0], greeting[9], greeting[10]) = (0xFF, 0x7F, 3);
        greeting[12..16].copy_from_slice(b"NULL");
        let properties = [b"\x05READY\x0BSocket-Type".as_slice(), &6_u32.to_be_bytes(), b"DEALER"].concat();
        socket.write(&[greeting.as_slice(), &[COMMAND, properties.len() as u8], &properties].concat());
        let mut theirs = [0; GREETING_LEN + 2];
        socket.stream.read_exact(&mut theirs).unwrap();
        assert_eq!((theirs[0], theirs[9], theirs[10], theirs[GREETING_LEN]), (0xFF, 0x7F, 3, COMMAND));
        let mut ready = vec![0; usize::from(theirs[GREETING_LEN + 1])];
        socket.stream.read_exact(&mut ready).unwrap();
        assert!(ready.starts_with(b"\x05READY"));
        Self(socket)
    }

    fn encode(body: &[u8]) -> Vec<u8> {
        let mut bytes = match u8::try_from(body.len()) {
            Ok(length) => vec![0, length],
            Err(_) => [[LONG].as_slice(), &(body.len() as u64).to_be_bytes()].concat(),
        };
        bytes.extend_from_slice(body);
        bytes
    }

    fn socket(&mut self) -> &mut Socket {
        &mut self.0
    }

    fn decode(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let (start, length) = match bytes.first()? {
            0 => (2, usize::from(*bytes.get(1)?)),
            &LONG => (9, u64::from_be_bytes(bytes.get(1..9)?.try_into().expect("eight")) as usize),
            flags => panic!("a frame with the flags {flags}"),
        };
        let body = bytes.get(start..start + length)?;
        Some((body.to_vec(), start + length))
    }
}
