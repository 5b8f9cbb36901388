//! Fan-out: one log, and one task that drives a writer for each subscriber.
//!
//! The writers are futures of that one task and not tasks of their own: a broadcast wakes it once, and so do all completions of one turn.
//! Over io_uring a broadcast is then one system call that submits a send for each subscriber; over epoll each writer sends at its first poll.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use contestant::log::{self, Cursor, Log};
use contestant::session::Item;
use monoio::io::{AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf};
use monoio::net::TcpStream;

use crate::Server;
use crate::input::{Input, Turn};

/// Pongs that may wait for one that does not read.
const OWN_LIMIT: usize = 64 << 10;

/// A subscriber. Its reading task owns its slot.
#[derive(Default)]
struct Peer {
    /// Where it is in the log; nowhere before its handshake.
    cursor: Option<Cursor>,
    /// What is for this peer alone.
    own: Vec<u8>,
    /// A write has begun and not ended, or was short: nothing else may come before the rest of it.
    unfinished: bool,
    /// It did not keep up, or is broken: its reading task is to end it.
    cut_off: bool,
    reading_task: Option<Waker>,
}

/// All subscribers, and what they have still to get.
#[derive(Default)]
struct Hub {
    log: Log,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
}

type Writer = Pin<Box<dyn Future<Output = ()>>>;

/// The hub, and the writers of its peers by slot.
#[derive(Default)]
pub(crate) struct Fanout {
    hub: RefCell<Hub>,
    writers: RefCell<Vec<Option<Writer>>>,
    driver: Cell<Option<Waker>>,
}

/// What a writer sends next.
enum Next {
    Own(Vec<u8>),
    FromLog(Bytes),
}

/// Reads from one connection until it ends.
pub(crate) async fn run(reader: OwnedReadHalf<TcpStream>, writer: OwnedWriteHalf<TcpStream>, server: &Rc<Server>) -> io::Result<()> {
    let (fanout, farewell_writer) = (&server.fanout, OwnedWriteHalf(writer.0.clone()));
    let slot = fanout.add(writer, server);
    let ended = monoio::select! {
        ended = read(reader, slot, server) => ended,
        () = fanout.cut_off(slot) => Err(io::Error::other("it does not keep up")),
    };
    let unfinished = fanout.remove(slot);
    let farewell = ended?;
    if !unfinished {
        let mut writer = farewell_writer;
        writer.write_all(farewell).await.0?;
    }
    Ok(())
}

/// Reads to the end of a connection, and returns its last words.
async fn read(mut reader: OwnedReadHalf<TcpStream>, slot: usize, server: &Server) -> io::Result<Vec<u8>> {
    let mut input = Input::new();
    while input.read(&mut reader).await? {
        let Turn { consumed, ending } = server.fanout.hub.borrow_mut().handle(&mut input, slot, server)?;
        server.fanout.wake_driver();
        if let Some(ending) = ending {
            return Ok(ending.farewell().to_vec());
        }
        input.discard(consumed);
    }
    Ok(Vec::new())
}

/// Drives all writers, whenever something was appended and whenever one of them can go on.
pub(crate) async fn drive_writers(server: Rc<Server>) {
    let fanout = &server.fanout;
    poll_fn(|cx| {
        fanout.driver.set(Some(cx.waker().clone()));
        fanout.hub.borrow_mut().log.seal();
        for (slot, writer) in fanout.writers.borrow_mut().iter_mut().enumerate() {
            if let Some(running) = writer
                && running.as_mut().poll(cx).is_ready()
            {
                *writer = None;
                fanout.hub.borrow_mut().mark_cut_off(slot);
            }
        }
        fanout.hub.borrow_mut().cut_off_slow_peers();
        Poll::<()>::Pending
    })
    .await;
}

/// Sends a subscriber what there is for it, for as long as that works.
async fn write(mut writer: OwnedWriteHalf<TcpStream>, slot: usize, server: Rc<Server>) {
    let hub = &server.fanout.hub;
    loop {
        let next = poll_fn(|_| hub.borrow_mut().poll_next(slot)).await;
        let outcome = match next {
            Next::Own(own) => {
                let outcome = writer.write_all(own).await.0;
                outcome.map(|_| hub.borrow_mut().finish_own(slot))
            }
            Next::FromLog(bytes) => {
                let asked = bytes.len();
                let outcome = writer.write(bytes).await.0;
                outcome.map(|sent| hub.borrow_mut().advance(slot, sent, asked))
            }
        };
        if outcome.is_err() {
            return;
        }
    }
}

impl Fanout {
    fn add(&self, writer: OwnedWriteHalf<TcpStream>, server: &Rc<Server>) -> usize {
        let slot = self.hub.borrow_mut().add();
        let mut writers = self.writers.borrow_mut();
        if slot == writers.len() {
            writers.push(None);
        }
        writers[slot] = Some(Box::pin(write(writer, slot, server.clone())));
        slot
    }

    /// Forgets a peer; true if something was half sent to it.
    fn remove(&self, slot: usize) -> bool {
        self.writers.borrow_mut()[slot] = None;
        self.hub.borrow_mut().remove(slot)
    }

    fn wake_driver(&self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Waits until this peer is cut off.
    async fn cut_off(&self, slot: usize) {
        poll_fn(|cx| {
            let mut hub = self.hub.borrow_mut();
            match &mut hub.peers[slot] {
                Some(peer) if !peer.cut_off => {
                    peer.reading_task.get_or_insert_with(|| cx.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
}

impl Hub {
    fn add(&mut self) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        self.peers[slot] = Some(Peer::default());
        slot
    }

    fn remove(&mut self, slot: usize) -> bool {
        self.free.push(slot);
        let Some(peer) = self.peers[slot].take() else { return false };
        if let Some(cursor) = peer.cursor {
            self.log.leave(cursor);
        }
        peer.unfinished
    }

    fn handle(&mut self, input: &mut Input, slot: usize, server: &Server) -> io::Result<Turn> {
        let peer = self.peers[slot].as_mut().expect("its reading task removes it");
        let mut items = input.items(server);
        let ending = loop {
            match items.next() {
                Ok(Some(Item::Messages(run))) => self.log.append(slot, run),
                Ok(Some(Item::Answer(answer))) => peer.own.extend_from_slice(&answer),
                Ok(Some(Item::Opened)) => peer.cursor = Some(self.log.join(slot)),
                Ok(None) => break None,
                Err(ending) => break Some(ending),
            }
        };
        if peer.own.len() > OWN_LIMIT {
            return Err(io::Error::other("it asks and does not read the answers"));
        }
        Ok(Turn { consumed: items.consumed(), ending })
    }

    fn poll_next(&mut self, slot: usize) -> Poll<Next> {
        let Some(peer) = &mut self.peers[slot] else { return Poll::Pending };
        let next = if !peer.own.is_empty() && !peer.unfinished {
            Some(Next::Own(std::mem::take(&mut peer.own)))
        } else {
            peer.cursor.as_mut().and_then(|cursor| self.log.next(cursor)).map(Next::FromLog)
        };
        match next {
            Some(next) => {
                peer.unfinished = true;
                Poll::Ready(next)
            }
            None => Poll::Pending,
        }
    }

    fn finish_own(&mut self, slot: usize) {
        if let Some(peer) = &mut self.peers[slot] {
            peer.unfinished = false;
        }
    }

    fn advance(&mut self, slot: usize, sent: usize, asked: usize) {
        if let Some(Peer { cursor: Some(cursor), unfinished, .. }) = &mut self.peers[slot] {
            self.log.advance(cursor, sent);
            *unfinished = sent < asked;
        }
    }

    fn mark_cut_off(&mut self, slot: usize) {
        if let Some(peer) = &mut self.peers[slot] {
            peer.cut_off = true;
            peer.reading_task.take().into_iter().for_each(Waker::wake);
        }
    }

    fn cut_off_slow_peers(&mut self) {
        if self.log.waiting() <= log::LIMIT {
            return;
        }
        for slot in 0..self.peers.len() {
            let cursor = self.peers[slot].as_ref().and_then(|peer| peer.cursor.as_ref());
            if cursor.is_some_and(|cursor| self.log.behind(cursor) > log::LIMIT / 2) {
                self.mark_cut_off(slot);
            }
        }
    }
}
