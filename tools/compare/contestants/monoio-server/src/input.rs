//! The receiving side of a connection. While the kernel reads it owns the buffer, so each connection needs one of its own; it begins small
//! and grows while reads fill it.

use std::io;

use contestant::frames;
use contestant::session::{Ending, Input as Items, Session};
use monoio::buf::IoBufMut;
use monoio::io::AsyncReadRent;

use crate::Server;

/// What an idle connection keeps.
const FIRST_LEN: usize = 2 << 10;
/// As many bytes as the bare loop asks for.
const LAST_LEN: usize = frames::MAX_LEN + (256 << 10);

/// The receiving side.
pub(crate) struct Input {
    session: Session,
    /// What was read and is not dealt with.
    pub(crate) buffer: Vec<u8>,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { session: Session::default(), buffer: Vec::with_capacity(FIRST_LEN) }
    }

    /// Reads all there is, as far as there is room for it; false at the end of the connection.
    pub(crate) async fn read(&mut self, reader: &mut impl AsyncReadRent) -> io::Result<bool> {
        let kept = self.buffer.len();
        if kept == self.buffer.capacity() {
            self.buffer.reserve_exact(kept);
        }
        let (outcome, buffer) = reader.read(std::mem::take(&mut self.buffer).slice_mut(kept..)).await;
        self.buffer = buffer.into_inner();
        outcome.map(|count| count > 0)
    }

    /// What is to be done with what was read. `consumed` says afterwards how much of it that was.
    pub(crate) fn items<'a>(&'a mut self, server: &'a Server) -> Items<'a> {
        self.session.input(&server.acceptor, &self.buffer)
    }

    /// Forgets what was dealt with, and makes more room where there was too little of it.
    pub(crate) fn discard(&mut self, consumed: usize) {
        let (filled, capacity) = (self.buffer.len(), self.buffer.capacity());
        if consumed == filled {
            self.buffer.clear();
        } else {
            self.buffer.drain(..consumed);
        }
        if filled == capacity && capacity < LAST_LEN {
            self.buffer.reserve_exact((capacity * 2).min(LAST_LEN) - self.buffer.len());
        }
    }
}

/// What became of the bytes of a read.
pub(crate) struct Turn {
    /// How many were dealt with.
    pub(crate) consumed: usize,
    /// It is over.
    pub(crate) ending: Option<Ending>,
}
