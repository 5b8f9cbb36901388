//! Fan-out: one log, and one task that writes to everybody what they miss of it.
//!
//! The readers append and say that a flush is due. The task that flushes is behind them in the run queue, so it finds all that one turn of
//! the runtime brought, and each subscriber gets it with one write, directly from the log and without its own task being woken. Only
//! where a socket is full a task is spawned, which waits for it and ends when the subscriber has caught up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Poll, Waker};

use contestant::log::{self, Cursor, Log};
use contestant::session::Item;
use socket2::SockRef;
use tokio::net::tcp::OwnedWriteHalf;

use crate::Server;
use crate::input::{Input, Turn};

/// Pieces of the log for one vectored write.
const SLICES: usize = 16;
/// Pongs that may wait for one that does not read.
const OWN_LIMIT: usize = 64 << 10;

/// A subscriber. Its reading task owns its slot; the others only cut it off.
struct Peer {
    writer: Rc<OwnedWriteHalf>,
    /// Where it is in the log; nowhere before its handshake and after it was cut off.
    cursor: Option<Cursor>,
    /// What is for this peer alone.
    own: Vec<u8>,
    /// A write from the log was short: nothing of its own may come before the rest.
    mid_frame: bool,
    /// A task waits for its socket.
    waits: bool,
}

/// All subscribers, and what they have still to get.
#[derive(Default)]
struct Hub {
    log: Log,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
}

/// The hub, and whether there is something to send.
#[derive(Default)]
pub(crate) struct Fanout {
    hub: RefCell<Hub>,
    flush_due: Cell<bool>,
    flusher: Cell<Option<Waker>>,
}

impl Fanout {
    fn set_flush_due(&self) {
        self.flush_due.set(true);
        if let Some(flusher) = self.flusher.take() {
            flusher.wake();
        }
    }
}

/// Reads from one connection until it ends.
pub(crate) async fn run(mut input: Input, writer: OwnedWriteHalf, server: &Rc<Server>) -> io::Result<()> {
    let fanout = &server.fanout;
    let slot = fanout.hub.borrow_mut().add(writer);
    let ended = loop {
        let turn = input.turn(server, |item| {
            fanout.hub.borrow_mut().handle(slot, item)?;
            fanout.set_flush_due();
            Ok(())
        });
        match turn.await {
            Ok(Turn::Handled) => {}
            Ok(Turn::Ended(ending)) => break Ok(ending),
            Err(error) => break Err(error),
        }
    };
    let mut hub = fanout.hub.borrow_mut();
    if let Ok(Some(ending)) = &ended
        && let Some(peer) = &hub.peers[slot]
        && !peer.mid_frame
    {
        // If there is no room for it now, there is no one who reads it.
        let _ = peer.writer.try_write(ending.farewell());
    }
    hub.remove(slot);
    ended.map(|_| ())
}

/// Writes to all subscribers whenever something was appended.
pub(crate) async fn flush_when_due(server: Rc<Server>) {
    let fanout = &server.fanout;
    loop {
        poll_fn(|cx| {
            if fanout.flush_due.take() {
                return Poll::Ready(());
            }
            fanout.flusher.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        fanout.hub.borrow_mut().flush_all(&server);
    }
}

/// Waits for the socket of a subscriber that is behind, until it has caught up.
async fn catch_up(server: Rc<Server>, slot: usize, writer: Rc<OwnedWriteHalf>) {
    while writer.writable().await.is_ok() {
        let mut hub = server.fanout.hub.borrow_mut();
        let Hub { log, peers, .. } = &mut *hub;
        // The slot may have a new owner by now.
        let Some(peer) = peers[slot].as_mut().filter(|peer| Rc::ptr_eq(&peer.writer, &writer)) else { return };
        match peer.flush(log) {
            Ok(true) => return peer.waits = false,
            Ok(false) => {}
            Err(_) => return peer.cut_off(log),
        }
    }
}

impl Hub {
    fn add(&mut self, writer: OwnedWriteHalf) -> usize {
        let peer = Peer { writer: Rc::new(writer), cursor: None, own: Vec::new(), mid_frame: false, waits: false };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        self.peers[slot] = Some(peer);
        slot
    }

    fn remove(&mut self, slot: usize) {
        if let Some(cursor) = self.peers[slot].take().and_then(|peer| peer.cursor) {
            self.log.leave(cursor);
        }
        self.free.push(slot);
    }

    fn handle(&mut self, slot: usize, item: Item<'_>) -> io::Result<()> {
        let Some(peer) = &mut self.peers[slot] else { return Ok(()) };
        match item {
            Item::Messages(run) => self.log.append(slot, run),
            Item::Answer(answer) => peer.own.extend_from_slice(&answer),
            Item::Opened => peer.cursor = Some(self.log.join(slot)),
        }
        if peer.own.len() > OWN_LIMIT {
            return Err(io::Error::other("it asks and does not read the answers"));
        }
        Ok(())
    }

    fn flush_all(&mut self, server: &Rc<Server>) {
        self.log.seal();
        for (slot, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer.as_mut().filter(|peer| !peer.waits) else { continue };
            match peer.flush(&mut self.log) {
                Ok(true) => {}
                Ok(false) => {
                    peer.waits = true;
                    tokio::task::spawn_local(catch_up(server.clone(), slot, peer.writer.clone()));
                }
                Err(_) => peer.cut_off(&mut self.log),
            }
        }
        if self.log.waiting() > log::LIMIT {
            for peer in self.peers.iter_mut().flatten() {
                if peer.cursor.as_ref().is_some_and(|cursor| self.log.behind(cursor) > log::LIMIT / 2) {
                    peer.cut_off(&mut self.log);
                }
            }
        }
    }
}

impl Peer {
    /// Sends what there is for this subscriber; false where its socket is full.
    fn flush(&mut self, log: &mut Log) -> io::Result<bool> {
        if !self.own.is_empty() && !self.mid_frame && !self.flush_own()? {
            return Ok(false);
        }
        let Some(cursor) = &mut self.cursor else { return Ok(true) };
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = log.missing(cursor, &mut slices);
            let asked: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let sent = match &slices[..filled] {
                [] => break,
                [slice] => taken(self.writer.try_write(slice))?,
                slices => taken(self.writer.try_write_vectored(slices))?,
            };
            log.advance(cursor, sent);
            self.mid_frame = sent < asked;
            if self.mid_frame {
                return Ok(false);
            }
        }
        Ok(self.own.is_empty() || self.flush_own()?)
    }

    fn flush_own(&mut self) -> io::Result<bool> {
        let sent = taken(self.writer.try_write(&self.own))?;
        self.own.drain(..sent);
        Ok(self.own.is_empty())
    }

    /// Ends the connection from this side; its reading task sees the end of it, and removes it.
    fn cut_off(&mut self, log: &mut Log) {
        if let Some(cursor) = self.cursor.take() {
            log.leave(cursor);
        }
        // It fails where the connection is broken already: all the better.
        let stream: &tokio::net::TcpStream = (*self.writer).as_ref();
        let _ = SockRef::from(stream).shutdown(Shutdown::Both);
    }
}

/// Zero where the socket is full.
fn taken(outcome: io::Result<usize>) -> io::Result<usize> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}
