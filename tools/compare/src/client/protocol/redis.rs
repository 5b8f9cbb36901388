//! RESP, the protocol of Redis: `SUBSCRIBE` and `PUBLISH` for a fan-out, `ECHO` for an echo.
//!
//! All messages of a run have one length, so what stands in front of one is always the same bytes: it is compared, not parsed.

use std::io::{self, Write};
use std::net::TcpStream;

use memchr::memchr;

use super::{Codec, Role, Scratch, read_line};
use crate::client::ClientConfig;
use crate::client::connection::invalid;
use crate::wire::HEADER_LEN;

const CHANNEL: &str = "corecast";
const MOST_HEAD: usize = 256;

/// The state of a connection.
pub(in crate::client) struct Redis {
    role: Role,
    /// What stands in front of a message that is sent, and of one that comes.
    request: Vec<u8>,
    reply: Vec<u8>,
    body_len: usize,
}

impl Codec for Redis {
    fn greet(stream: &mut TcpStream, _index: usize, role: Role, config: &ClientConfig) -> io::Result<Self> {
        // Commands may be written as a line, too.
        let (hello, expected) = match role {
            Role::Subscriber => {
                let confirmed = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{CHANNEL}\r\n:1\r\n", CHANNEL.len());
                (format!("SUBSCRIBE {CHANNEL}\r\n"), confirmed)
            }
            Role::Caller | Role::Publisher => ("PING\r\n".into(), "+PONG\r\n".into()),
        };
        stream.write_all(hello.as_bytes())?;
        for line in expected.split_inclusive('\n') {
            let answer = read_line(stream)?;
            if answer != line.as_bytes() {
                return Err(invalid(format!("the server answered {:?} instead of {line:?}", String::from_utf8_lossy(&answer))));
            }
        }
        Ok(Self::new(role, config.body_len))
    }

    fn most_undecided(body_len: usize) -> usize {
        MOST_HEAD + body_len
    }

    fn append(&self, frame: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request);
        out.extend_from_slice(&frame[HEADER_LEN..]);
        out.extend_from_slice(b"\r\n");
    }

    fn decode(&mut self, bytes: &[u8], _scratch: &mut Scratch, mut deliver: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut at = 0;
        if self.role == Role::Publisher {
            while let Some(line_len) = memchr(b'\n', &bytes[at..]) {
                check_count(&bytes[at..=at + line_len])?;
                at += line_len + 1;
            }
            return Ok(at);
        }
        let (head, whole) = (self.reply.len(), self.reply.len() + self.body_len + 2);
        while let Some(message) = bytes[at..].get(..whole) {
            if message[..head] != self.reply {
                return Err(unexpected(message));
            }
            let (body, end) = message[head..].split_at(self.body_len);
            deliver(if end == b"\r\n" { body } else { &[] });
            at += whole;
        }
        // An error is shorter than a message, so it would be waited for in vain.
        let rest = &bytes[at..];
        let expected = &self.reply[..head.min(rest.len())];
        if rest.starts_with(expected) { Ok(at) } else { Err(unexpected(rest)) }
    }
}

impl Redis {
    pub(super) fn new(role: Role, body_len: usize) -> Self {
        let (request, reply) = match role {
            Role::Caller => (format!("*2\r\n$4\r\nECHO\r\n${body_len}\r\n"), format!("${body_len}\r\n")),
            Role::Subscriber | Role::Publisher => (
                format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{CHANNEL}\r\n${body_len}\r\n", CHANNEL.len()),
                format!("*3\r\n$7\r\nmessage\r\n${}\r\n{CHANNEL}\r\n${body_len}\r\n", CHANNEL.len()),
            ),
        };
        Self { role, request: request.into_bytes(), reply: reply.into_bytes(), body_len }
    }
}

/// To `PUBLISH` the server answers to how many it goes; those who get it say so themselves.
fn check_count(line: &[u8]) -> io::Result<()> {
    if line.starts_with(b":") { Ok(()) } else { Err(unexpected(line)) }
}

fn unexpected(bytes: &[u8]) -> io::Error {
    let line = &bytes[..memchr(b'\r', bytes).unwrap_or(bytes.len()).min(MOST_HEAD)];
    invalid(format!("the server sent {:?}", String::from_utf8_lossy(line)))
}
