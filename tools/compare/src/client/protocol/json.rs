//! One JSON object a line, as the naive server has it: `{"kind":"Data","sender":N,"sequence":N,"sent_at":N,"payload":[N,N,...]}`.
//!
//! The payload is a whole message of the client, byte by byte as numbers. It is written and read by hand and not by serde_json: the text
//! has one form only, so every byte of it is checked, and the client stays well ahead of a server that parses JSON in general.

use std::io::{self, Write};
use std::net::TcpStream;

use memchr::memchr;

use super::{Codec, Role, Scratch};
use crate::client::ClientConfig;
use crate::wire::{self, HEADER_LEN};

/// All but the numbers of the payload.
const MOST_OVERHEAD: usize = 256;
/// A byte as a number, and the comma after it.
const MOST_NUMBER: usize = 4;

/// The state of a connection: whose messages it sends.
pub(in crate::client) struct Json {
    pub(super) sender: usize,
}

impl Codec for Json {
    fn greet(_stream: &mut TcpStream, index: usize, _role: Role, _config: &ClientConfig) -> io::Result<Self> {
        Ok(Self { sender: index })
    }

    fn most_undecided(body_len: usize) -> usize {
        MOST_OVERHEAD + MOST_NUMBER * body_len
    }

    fn append(&self, frame: &[u8], out: &mut Vec<u8>) {
        let body = &frame[HEADER_LEN..];
        let (sequence, sent_at) = (wire::u64_at(body, 0), wire::u64_at(body, 8));
        out.reserve(Self::most_undecided(body.len()));
        write!(out, r#"{{"kind":"Data","sender":{},"sequence":{sequence},"sent_at":{sent_at},"payload":["#, self.sender)
            .expect("a Vec takes everything");
        for &byte in body {
            if byte >= 100 {
                out.push(b'0' + byte / 100);
            }
            if byte >= 10 {
                out.push(b'0' + byte / 10 % 10);
            }
            out.extend_from_slice(&[b'0' + byte % 10, b',']);
        }
        // No comma after the last one.
        out.pop();
        out.extend_from_slice(b"]}\n");
    }

    fn decode(&mut self, bytes: &[u8], scratch: &mut Scratch, mut deliver: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut at = 0;
        while let Some(line_len) = memchr(b'\n', &bytes[at..]) {
            let body = read_line(&bytes[at..at + line_len], &mut scratch.plain).unwrap_or_default();
            deliver(body);
            at += line_len + 1;
        }
        Ok(at)
    }
}

/// The payload of a line, if the line is as it should be and says the same as its payload.
fn read_line<'a>(line: &[u8], body: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let (_sender, rest) = read_number(line.strip_prefix(br#"{"kind":"Data","sender":"#)?)?;
    let (sequence, rest) = read_number(rest.strip_prefix(br#","sequence":"#)?)?;
    let (sent_at, rest) = read_number(rest.strip_prefix(br#","sent_at":"#)?)?;
    let numbers = rest.strip_prefix(br#","payload":["#)?.strip_suffix(b"]}")?;
    body.clear();
    read_bytes(numbers, body)?;
    let same = body.len() >= 16 && wire::u64_at(body, 0) == sequence && wire::u64_at(body, 8) == sent_at;
    same.then_some(body.as_slice())
}

/// A number, and what comes after it.
fn read_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    Some((str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// Numbers up to 255, with a comma between them.
fn read_bytes(numbers: &[u8], body: &mut Vec<u8>) -> Option<()> {
    let (mut value, mut digits) = (0_u16, 0);
    for &byte in numbers.iter().chain(b",") {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 && digits < 3 {
            value = value * 10 + u16::from(digit);
            digits += 1;
        } else if byte == b',' && digits > 0 {
            body.push(u8::try_from(value).ok()?);
            (value, digits) = (0, 0);
        } else {
            return None;
        }
    }
    Some(())
}
