//! WIRE.md in plaintext, written from that text alone.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::{Codec, Role, Scratch};
use crate::client::ClientConfig;
use crate::client::connection::invalid;
use crate::client::message::MESSAGE_TYPE;
use crate::wire::{self, HEADER_LEN, Header, Hello};

/// What leads a message of several frames: the number of its bytes.
const TOTAL_LEN: usize = 4;

/// The state of a connection.
#[derive(Default)]
pub(in crate::client) struct Wire {
    /// The fragments of a message that is not whole yet, and how long it will be.
    assembly: Vec<u8>,
    total: usize,
    /// From here on a goodbye is an answer.
    leaving: bool,
}

impl Codec for Wire {
    fn greet(stream: &mut TcpStream, _index: usize, _role: Role, config: &ClientConfig) -> io::Result<Self> {
        let (node, instance) = wire::random_identity()?;
        let ours = Hello { network: config.network, node, instance, max_message: wire::MAX_MESSAGE, channel: 0 };
        stream.write_all(&wire::opening(&ours))?;
        let mut answer = [0; wire::OPENING_LEN];
        stream.read_exact(&mut answer[..wire::PREAMBLE_LEN])?;
        if let Some(code) = wire::refusal_code(&answer) {
            return Err(io::Error::other(format!("the server refused the handshake: {}", code.name())));
        }
        stream.read_exact(&mut answer[wire::PREAMBLE_LEN..])?;
        match wire::parse_opening(&answer) {
            Ok(theirs) if theirs.network != ours.network => return Err(invalid("the server's hello names another network")),
            Ok(theirs) if theirs.channel != ours.channel => return Err(invalid("the server's hello names another channel")),
            Ok(_) => {}
            Err(error) => return Err(invalid(format!("the server's hello is malformed: {error:?}"))),
        }
        stream.write_all(&wire::ready())?;
        Ok(Self::default())
    }

    fn most_undecided(_body_len: usize) -> usize {
        HEADER_LEN + wire::MAX_FRAME_LEN
    }

    #[inline(always)]
    fn append(&self, frame: &[u8], out: &mut Vec<u8>) {
        if frame.len() <= HEADER_LEN + wire::FRAGMENT_LEN {
            out.extend_from_slice(frame);
        } else {
            append_fragments(&frame[HEADER_LEN..], out);
        }
    }

    #[inline(always)]
    fn decode(&mut self, bytes: &[u8], scratch: &mut Scratch, mut deliver: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(header) = Header::read(rest) {
            header.check().map_err(|rule| invalid(format!("the server broke rule {}", rule.0)))?;
            let end = HEADER_LEN + header.length();
            if end > rest.len() {
                break;
            }
            let body = &rest[HEADER_LEN..end];
            let is_whole = header.is_whole_data(MESSAGE_TYPE);
            // One place where it is delivered: with two it would not be compiled into this loop.
            if let Some(message) = if is_whole { Some(body) } else { self.decode_other(header, body, scratch)? } {
                deliver(message);
            }
            rest = &rest[end..];
        }
        Ok(bytes.len() - rest.len())
    }

    fn farewell(&mut self) -> Vec<u8> {
        self.leaving = true;
        wire::goodbye(wire::CLOSED, 0).to_vec()
    }
}

impl Wire {
    /// Everything but a message that came in one frame. Returns the message that ends here, or nothing's body for what is no message.
    #[cold]
    fn decode_other<'a>(&'a mut self, header: Header, body: &'a [u8], scratch: &mut Scratch) -> io::Result<Option<&'a [u8]>> {
        match header.kind() {
            wire::DATA if header.more() && header.message_type() == MESSAGE_TYPE && body.len() >= TOTAL_LEN => {
                self.total = wire::u32_at(body, 0) as usize;
                self.assembly.clear();
                self.assembly.extend_from_slice(&body[TOTAL_LEN..]);
            }
            wire::FRAGMENT if header.message_type() == MESSAGE_TYPE && self.total > 0 => {
                self.assembly.extend_from_slice(body);
                if !header.more() {
                    let as_announced = self.assembly.len() == std::mem::take(&mut self.total);
                    return Ok(Some(if as_announced { &self.assembly } else { &[] }));
                }
            }
            wire::DATA | wire::FRAGMENT | wire::REQUEST | wire::RESPONSE => return Ok(Some(&[])),
            wire::PING => scratch.replies.extend_from_slice(&wire::control(wire::PONG, body.try_into().expect("its length was checked"))),
            wire::GOODBYE if self.leaving => {}
            wire::GOODBYE => {
                let (code, detail) = (wire::u16_at(body, 0), wire::u16_at(body, 2));
                return Err(invalid(format!("the server said goodbye: code {code}, detail {detail}")));
            }
            kind => return Err(invalid(format!("the server sent a control frame of kind {kind}"))),
        }
        Ok(None)
    }
}

/// Cuts a body into frames, as a message is that does not fit into one.
fn append_fragments(body: &[u8], out: &mut Vec<u8>) {
    let (first, rest) = body.split_at(wire::FRAGMENT_LEN - TOTAL_LEN);
    let begun = Header::new(wire::FRAGMENT_LEN, wire::DATA, wire::NORMAL_LANE | wire::MORE, MESSAGE_TYPE);
    out.extend_from_slice(&begun.to_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(first);
    let mut chunks = rest.chunks(wire::FRAGMENT_LEN).peekable();
    while let Some(chunk) = chunks.next() {
        let more = if chunks.peek().is_some() { wire::MORE } else { 0 };
        out.extend_from_slice(&Header::new(chunk.len(), wire::FRAGMENT, wire::NORMAL_LANE | more, MESSAGE_TYPE).to_bytes());
        out.extend_from_slice(chunk);
    }
}
