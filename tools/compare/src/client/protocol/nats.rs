//! The text protocol of NATS, as its documentation has it (docs.nats.io, "Client Protocol").
//!
//! A fan-out goes over one subject, to which the subscribers subscribe. Echo is a connection that publishes to a subject of its own,
//! to which nobody else has subscribed: `echo: true` lets it have its own messages, `verbose: false` keeps the server from an `+OK` for
//! each. A subscription is confirmed by a `PONG` to the `PING` behind it.

use std::io::{self, Write};
use std::net::TcpStream;

use memchr::memchr;

use super::{Codec, Role, Scratch, read_line};
use crate::client::ClientConfig;
use crate::client::connection::invalid;
use crate::wire::HEADER_LEN;

const BROADCAST: &str = "corecast";
const CONNECT: &str = concat!(
    r#"CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"echo":true,"lang":"rust","version":"1","protocol":0,"#,
    r#""name":"corecast-compare"}"#,
    "\r\n"
);
/// Above any line but `INFO`, which the server sends again when its cluster changes.
const MOST_LINE: usize = 16 << 10;

/// The state of a connection: what stands in front of a message that it sends.
pub(in crate::client) struct Nats {
    pub(super) publish: Vec<u8>,
    pub(super) leaving: bool,
}

impl Codec for Nats {
    fn greet(stream: &mut TcpStream, index: usize, role: Role, config: &ClientConfig) -> io::Result<Self> {
        let info = read_line(stream)?;
        if !info.starts_with(b"INFO ") {
            return Err(invalid(format!("a NATS server begins with INFO, not with {:?}", String::from_utf8_lossy(&info))));
        }
        let own = format!("{BROADCAST}.{index}");
        let subject = if role == Role::Caller { &own } else { BROADCAST };
        let subscribe = if role == Role::Publisher { String::new() } else { format!("SUB {subject} 1\r\n") };
        stream.write_all(format!("{CONNECT}{subscribe}PING\r\n").as_bytes())?;
        loop {
            match read_line(stream)?.as_slice() {
                b"PONG\r\n" => break,
                b"PING\r\n" => stream.write_all(b"PONG\r\n")?,
                line if line.starts_with(b"INFO ") => {}
                line => return Err(invalid(format!("the server answered {:?}", String::from_utf8_lossy(line)))),
            }
        }
        Ok(Self { publish: format!("PUB {subject} {}\r\n", config.body_len).into_bytes(), leaving: false })
    }

    fn most_undecided(body_len: usize) -> usize {
        MOST_LINE + body_len
    }

    fn append(&self, frame: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.publish);
        out.extend_from_slice(&frame[HEADER_LEN..]);
        out.extend_from_slice(b"\r\n");
    }

    fn decode(&mut self, bytes: &[u8], scratch: &mut Scratch, mut deliver: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut at = 0;
        while let Some(line_len) = memchr(b'\n', &bytes[at..]) {
            let (line, rest) = bytes[at..].split_at(line_len + 1);
            at += if line.starts_with(b"MSG ") {
                let length = message_length(line)?;
                let Some(ended) = rest.get(..length + 2) else { break };
                let (body, end) = ended.split_at(length);
                deliver(if end == b"\r\n" { body } else { &[] });
                line.len() + ended.len()
            } else {
                self.decode_control(line, scratch)?;
                line.len()
            };
        }
        Ok(at)
    }

    fn farewell(&mut self) -> Vec<u8> {
        self.leaving = true;
        Vec::new()
    }
}

impl Nats {
    #[cold]
    fn decode_control(&self, line: &[u8], scratch: &mut Scratch) -> io::Result<()> {
        match line {
            b"PING\r\n" => scratch.replies.extend_from_slice(b"PONG\r\n"),
            b"PONG\r\n" | b"+OK\r\n" => {}
            line if line.starts_with(b"INFO ") || self.leaving => {}
            line => return Err(invalid(format!("the server sent {:?}", String::from_utf8_lossy(line)))),
        }
        Ok(())
    }
}

/// `MSG subject sid [reply-to] #bytes`, of which only the last field differs from message to message.
fn message_length(line: &[u8]) -> io::Result<usize> {
    let mut length = 0;
    let digits = line.strip_suffix(b"\r\n").and_then(|line| Some(&line[line.iter().rposition(|&byte| byte == b' ')? + 1..]));
    for &byte in digits.filter(|digits| (1..=7).contains(&digits.len())).unwrap_or(b"?") {
        if !byte.is_ascii_digit() {
            return Err(invalid(format!("the server sent a message without a length: {:?}", String::from_utf8_lossy(line))));
        }
        length = length * 10 + usize::from(byte - b'0');
    }
    Ok(length)
}
