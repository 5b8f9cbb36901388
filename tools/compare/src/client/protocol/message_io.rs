//! FramedTcp of message-io: the length as an unsigned varint (seven bits a byte, the lowest first), then the bytes. No greeting.

use std::io;
use std::net::TcpStream;

use super::{Codec, Role, Scratch};
use crate::client::ClientConfig;
use crate::client::connection::invalid;
use crate::wire::HEADER_LEN;

/// What seven bits a byte need for 64.
const MOST_LENGTH_BYTES: usize = 10;

/// The state of a connection: none.
pub(in crate::client) struct MessageIo;

impl Codec for MessageIo {
    fn greet(_stream: &mut TcpStream, _index: usize, _role: Role, _config: &ClientConfig) -> io::Result<Self> {
        Ok(Self)
    }

    fn most_undecided(body_len: usize) -> usize {
        MOST_LENGTH_BYTES + body_len
    }

    fn append(&self, frame: &[u8], out: &mut Vec<u8>) {
        let body = &frame[HEADER_LEN..];
        let mut left = body.len();
        while left >= 0x80 {
            out.push(left as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
        out.extend_from_slice(body);
    }

    fn decode(&mut self, bytes: &[u8], _scratch: &mut Scratch, mut deliver: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut at = 0;
        while let Some((length_len, length)) = read_length(&bytes[at..])? {
            let Some(body) = bytes[at + length_len..].get(..length) else { break };
            deliver(body);
            at += length_len + length;
        }
        Ok(at)
    }
}

/// How many bytes the length has, and the length, if all of it is there.
fn read_length(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (index, &byte) in bytes.iter().take(MOST_LENGTH_BYTES).enumerate() {
        length |= u64::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((index + 1, length as usize)));
        }
    }
    if bytes.len() < MOST_LENGTH_BYTES { Ok(None) } else { Err(invalid("the server sent a length that does not end")) }
}
