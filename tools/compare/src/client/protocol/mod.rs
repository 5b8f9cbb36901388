//! The protocols that the client speaks: how each one greets, frames a message, and finds the messages in what came.
//!
//! The client's loop is compiled once for each of them, so that a protocol is chosen once a run and costs nothing at a message.

mod json;
mod message_io;
mod nats;
mod noise;
mod redis;
#[cfg(test)]
mod tests;
pub(super) mod wire;
mod zmtp;

use std::io::{self, Read};
use std::net::TcpStream;

use memchr::memchr;

use super::ClientConfig;
use super::connection::invalid;

pub(super) use json::Json;
pub(super) use message_io::MessageIo;
pub(super) use nats::Nats;
pub(super) use noise::Noise;
pub(super) use redis::Redis;
pub(super) use wire::Wire;
pub(super) use zmtp::Zmtp;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It sends, and what comes back is its own.
    Caller,
    /// It gets what the publisher sends.
    Subscriber,
    /// It sends to the subscribers, and gets nothing.
    Publisher,
}

/// Buffers that all connections share, while one of them is read.
#[derive(Default)]
pub(super) struct Scratch {
    /// What has to be sent in answer to control messages.
    pub(super) replies: Vec<u8>,
    /// Where a message is put together that did not come as it was sent: sealed, or as text.
    pub(super) plain: Vec<u8>,
}

/// One protocol, and the state of one connection in it.
pub(super) trait Codec: Sized {
    /// Greets over a stream that still blocks, and returns when the server has answered, if it ever does. What the server sends next is
    /// not read.
    fn greet(stream: &mut TcpStream, index: usize, role: Role, config: &ClientConfig) -> io::Result<Self>;

    /// The most bytes of which [`Codec::decode`] may take none, because they are a part of something larger.
    fn most_undecided(body_len: usize) -> usize;

    /// Appends a message. `frame` is what [`super::message::Template`] makes: a header of WIRE.md, and the body.
    fn append(&self, frame: &[u8], out: &mut Vec<u8>);

    /// Makes what was appended ready for the wire, where that is a step of its own.
    fn seal<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
    }

    /// Gives the body of each whole message in `bytes` to `deliver`, in their order, and returns how many bytes are done with. An
    /// envelope that is not as it was sent is delivered as a body of no bytes, which is nobody's.
    fn decode(&mut self, bytes: &[u8], scratch: &mut Scratch, deliver: impl FnMut(&[u8])) -> io::Result<usize>;

    /// What is said before the connection is shut, not sealed yet.
    fn farewell(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// Reads a line with its end from a stream that still blocks, and nothing of what comes after it.
fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    const MOST: usize = 16 << 10;
    let mut line = Vec::new();
    let mut waiting = [0; 1024];
    loop {
        let there = stream.peek(&mut waiting)?;
        let end = memchr(b'\n', &waiting[..there]);
        let wanted = end.map_or(there, |at| at + 1);
        if there == 0 || line.len() + wanted > MOST {
            return Err(invalid(format!("the server's greeting ended in the middle of a line: {:?}", String::from_utf8_lossy(&line))));
        }
        stream.read_exact(&mut waiting[..wanted])?;
        line.extend_from_slice(&waiting[..wanted]);
        if end.is_some() {
            return Ok(line);
        }
    }
}
