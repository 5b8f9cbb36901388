//! The receiving side of a connection.
//!
//! `poll_read` instead of `readable` and `try_read`: after a read that does not fill the buffer it knows that the socket is empty, which
//! saves the second `recv` that would only say so. The buffer belongs to the process; a connection keeps nothing but the start of an
//! unfinished frame.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use contestant::frames;
use contestant::session::{Ending, Item, Session};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

use crate::Server;

/// Bytes asked of one read, on top of the room for the start of an unfinished frame. As many as the bare loop asks for.
const READ_LEN: usize = 256 << 10;

/// What all connections read into.
pub(crate) struct ReadBuffer(Box<[u8]>);

impl Default for ReadBuffer {
    fn default() -> Self {
        Self(vec![0; frames::MAX_LEN + READ_LEN].into_boxed_slice())
    }
}

/// What became of a read.
pub(crate) enum Turn {
    Handled,
    /// The connection ends, with last words if there is someone to hear them.
    Ended(Option<Ending>),
}

/// The receiving side.
pub(crate) struct Input {
    reader: OwnedReadHalf,
    session: Session,
    partial: Vec<u8>,
}

impl Input {
    pub(crate) fn new(reader: OwnedReadHalf) -> Self {
        Self { reader, session: Session::default(), partial: Vec::new() }
    }

    /// Waits for input, reads all there is, and hands over what is in it.
    pub(crate) async fn turn(&mut self, server: &Server, mut handle: impl FnMut(Item<'_>) -> io::Result<()>) -> io::Result<Turn> {
        poll_fn(|cx| self.poll_turn(cx, server, &mut handle)).await
    }

    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        server: &Server,
        handle: &mut impl FnMut(Item<'_>) -> io::Result<()>,
    ) -> Poll<io::Result<Turn>> {
        let ReadBuffer(buffer) = &mut *server.buffer.borrow_mut();
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        let mut room = ReadBuf::new(&mut buffer[kept..]);
        ready!(Pin::new(&mut self.reader).poll_read(cx, &mut room))?;
        let filled = room.filled().len();
        if filled == 0 {
            return Poll::Ready(Ok(Turn::Ended(None)));
        }
        let bytes = &buffer[..kept + filled];
        let mut input = self.session.input(&server.acceptor, bytes);
        loop {
            match input.next() {
                Ok(Some(item)) => handle(item)?,
                Ok(None) => break,
                Err(ending) => return Poll::Ready(Ok(Turn::Ended(Some(ending)))),
            }
        }
        let consumed = input.consumed();
        self.partial.clear();
        self.partial.extend_from_slice(&bytes[consumed..]);
        Poll::Ready(Ok(Turn::Handled))
    }
}
