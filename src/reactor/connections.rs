//! The sockets of a core, by the index that the shard gave them, and the lists of those to be read.

use std::collections::VecDeque;

use mio::Token;

use super::socket::Socket;
use crate::shard::Conn;

/// Tokens: slots and half-open indices are below 2^24 (`PeerId`), so the bits above tell the kinds apart.
const HALF: usize = 1 << 28;
const LISTENER: usize = 1 << 29;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Conn(Conn),
    Listener(usize),
}

pub(super) fn token(conn: Conn) -> Token {
    match conn {
        Conn::Peer(slot) => Token(slot as usize),
        Conn::Half(half) => Token(HALF | half as usize),
    }
}

pub(super) fn listener_token(index: usize) -> Token {
    Token(LISTENER | index)
}

pub(super) fn source(token: Token) -> Source {
    if token.0 & LISTENER != 0 {
        Source::Listener(token.0 & !LISTENER)
    } else if token.0 & HALF != 0 {
        Source::Conn(Conn::Half((token.0 & !HALF) as u32))
    } else {
        Source::Conn(Conn::Peer(token.0 as u32))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Connections {
    peers: Vec<Option<Socket>>,
    halves: Vec<Option<Socket>>,
    /// Sockets that may have something to read, in the order in which that was learned. Each is in it once.
    ready: VecDeque<Conn>,
    open: usize,
}

impl Connections {
    fn table(&mut self, conn: Conn) -> (&mut Vec<Option<Socket>>, usize) {
        match conn {
            Conn::Peer(slot) => (&mut self.peers, slot as usize),
            Conn::Half(half) => (&mut self.halves, half as usize),
        }
    }

    #[inline]
    pub(super) fn get(&mut self, conn: Conn) -> Option<&mut Socket> {
        let (table, index) = self.table(conn);
        table.get_mut(index)?.as_mut()
    }

    pub(super) fn insert(&mut self, conn: Conn, socket: Socket) {
        let (table, index) = self.table(conn);
        if table.len() <= index {
            table.resize_with(index + 1, || None);
        }
        debug_assert!(table[index].is_none(), "the shard frees an index after its socket was closed");
        table[index] = Some(socket);
        self.open += 1;
    }

    pub(super) fn remove(&mut self, conn: Conn) -> Option<Socket> {
        let (table, index) = self.table(conn);
        let socket = table.get_mut(index)?.take();
        self.open -= usize::from(socket.is_some());
        socket
    }

    /// Sockets that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Puts a socket on the list of those to be read.
    #[inline]
    pub(super) fn make_ready(&mut self, conn: Conn) {
        if let Some(socket) = self.get(conn)
            && !std::mem::replace(&mut socket.queued, true)
        {
            self.ready.push_back(conn);
        }
    }

    /// How many are on the list now: what one turn reads.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    #[inline]
    pub(super) fn pop_ready(&mut self) -> Option<Conn> {
        let conn = self.ready.pop_front()?;
        if let Some(socket) = self.get(conn) {
            socket.queued = false;
        }
        Some(conn)
    }
}
