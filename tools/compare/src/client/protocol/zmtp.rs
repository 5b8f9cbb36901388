//! ZMTP 3.0 with the NULL mechanism, from its specification (rfc.zeromq.org/spec/23).
//!
//! The peer says which kind of socket it is, and the client is one that goes with it: a DEALER before a ROUTER, a PUSH before a PULL, a
//! PUB before a XSUB; a subscriber is a SUB. A message is one frame, without the empty delimiter that only REQ sockets need.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::{Codec, Role, Scratch};
use crate::client::ClientConfig;
use crate::client::connection::invalid;
use crate::wire::HEADER_LEN;

const GREETING_LEN: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
/// Flags and an 8-byte length.
const MOST_HEAD: usize = 9;
/// Commands are small: `READY` with its properties, `PING` with up to 16 bytes.
const MOST_COMMAND: usize = 1024;

/// The state of a connection.
pub(in crate::client) struct Zmtp {
    /// A PUB: what comes to it are the subscriptions of a XSUB, which need no filter here.
    pub(super) publishes: bool,
}

impl Codec for Zmtp {
    fn greet(stream: &mut TcpStream, _index: usize, role: Role, _config: &ClientConfig) -> io::Result<Self> {
        stream.write_all(&greeting())?;
        let mut theirs = [0; GREETING_LEN];
        stream.read_exact(&mut theirs)?;
        check_greeting(&theirs)?;
        let server = read_ready(stream)?;
        let ours = socket_type(role, &server).ok_or_else(|| {
            let server = String::from_utf8_lossy(&server);
            invalid(format!("the server's socket is a {server}, which is of no use to a {role:?}"))
        })?;
        stream.write_all(&ready(ours))?;
        if role == Role::Subscriber {
            // A message with the one byte 1 subscribes to everything.
            stream.write_all(&[0, 1, 1])?;
        }
        Ok(Self { publishes: ours == "PUB" })
    }

    fn most_undecided(body_len: usize) -> usize {
        MOST_HEAD + body_len.max(MOST_COMMAND)
    }

    fn append(&self, frame: &[u8], out: &mut Vec<u8>) {
        let body = &frame[HEADER_LEN..];
        append_head(0, body.len(), out);
        out.extend_from_slice(body);
    }

    fn decode(&mut self, bytes: &[u8], scratch: &mut Scratch, mut deliver: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut at = 0;
        while let Some((head_len, flags, length)) = read_head(&bytes[at..])? {
            let Some(body) = bytes[at + head_len..].get(..length) else { break };
            if flags & COMMAND != 0 {
                answer_command(body, scratch)?;
            } else if !self.publishes {
                deliver(if flags & MORE == 0 { body } else { &[] });
            }
            at += head_len + length;
        }
        Ok(at)
    }
}

/// Signature, version 3.0, mechanism, not a server; the rest is zero.
fn greeting() -> [u8; GREETING_LEN] {
    let mut bytes = [0; GREETING_LEN];
    (bytes[0], bytes[9], bytes[10]) = (0xFF, 0x7F, 3);
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

fn check_greeting(bytes: &[u8; GREETING_LEN]) -> io::Result<()> {
    if bytes[0] != 0xFF || bytes[9] & 1 == 0 || bytes[10] < 3 {
        return Err(invalid("the server does not speak ZMTP 3"));
    }
    let mechanism = bytes[12..32].strip_prefix(b"NULL").filter(|rest| rest.iter().all(|&byte| byte == 0));
    mechanism.map(|_| ()).ok_or_else(|| invalid("the server wants another mechanism than NULL"))
}

/// Reads the server's `READY`, and the type of its socket in it.
fn read_ready(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let [flags, length] = head;
    let mut body = vec![0; usize::from(length)];
    stream.read_exact(&mut body)?;
    let properties = body.strip_prefix(b"\x05READY").filter(|_| flags == COMMAND).ok_or_else(|| invalid("the server sent no READY"))?;
    property(properties, b"Socket-Type").ok_or_else(|| invalid("the server's READY does not say what kind of socket it is"))
}

/// Properties: a name with its length in one byte, a value with its length in four. Names are not case-sensitive.
fn property(mut properties: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    while let Some((&name_len, rest)) = properties.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_len) as usize)?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value.to_vec());
        }
        properties = rest;
    }
    None
}

/// What we are, before a server's socket of this type.
fn socket_type(role: Role, server: &[u8]) -> Option<&'static str> {
    match (role, server) {
        (Role::Subscriber, b"PUB" | b"XPUB") => Some("SUB"),
        (Role::Caller | Role::Publisher, b"ROUTER" | b"DEALER") => Some("DEALER"),
        (Role::Caller | Role::Publisher, b"PULL") => Some("PUSH"),
        (Role::Publisher, b"XSUB" | b"SUB") => Some("PUB"),
        _ => None,
    }
}

fn ready(socket_type: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x0BSocket-Type".to_vec();
    body.extend_from_slice(&(socket_type.len() as u32).to_be_bytes());
    body.extend_from_slice(socket_type.as_bytes());
    let mut frame = Vec::new();
    append_head(COMMAND, body.len(), &mut frame);
    frame.extend_from_slice(&body);
    frame
}

fn append_head(flags: u8, length: usize, out: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(short) => out.extend_from_slice(&[flags, short]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// How many bytes the head has, its flags, and the length that it announces, if all of it is there.
fn read_head(bytes: &[u8]) -> io::Result<Option<(usize, u8, usize)>> {
    match bytes {
        [flags, ..] if flags & !(MORE | LONG | COMMAND) != 0 => {
            Err(invalid(format!("the server sent a frame with the flags {flags:#04x}")))
        }
        [flags, rest @ ..] if flags & LONG != 0 => {
            Ok(rest.first_chunk().map(|length| (MOST_HEAD, *flags, u64::from_be_bytes(*length) as usize)))
        }
        [flags, length, ..] => Ok(Some((2, *flags, usize::from(*length)))),
        _ => Ok(None),
    }
}

/// `PING` has a time to live in two bytes and a context, which `PONG` repeats; `ERROR` a reason. Others are of no interest here.
fn answer_command(body: &[u8], scratch: &mut Scratch) -> io::Result<()> {
    if let Some(reason) = body.strip_prefix(b"\x05ERROR") {
        return Err(invalid(format!("the server sent an error: {}", String::from_utf8_lossy(reason.get(1..).unwrap_or_default()))));
    }
    if let Some(context) = body.strip_prefix(b"\x04PING").and_then(|rest| rest.get(2..)) {
        append_head(COMMAND, 5 + context.len(), &mut scratch.replies);
        scratch.replies.extend_from_slice(b"\x04PONG");
        scratch.replies.extend_from_slice(context);
    }
    Ok(())
}
