//! Echo and sink: what goes back to its sender.
//!
//! Messages that stand next to each other are echoed with one write, from where they were read. What the socket does not take is kept, and
//! no more is read until it has left: who does not read its answers is not answered further, and holds up no one else.

use std::io;

use contestant::frames;
use contestant::session::Item;
use contestant::{Mode, tally::Tally};
use tokio::net::tcp::OwnedWriteHalf;

use crate::Server;
use crate::input::{Input, Turn};

/// The sending side.
pub(crate) struct Answerer {
    writer: OwnedWriteHalf,
    mode: Mode,
    tally: Tally,
    /// What is still to be sent.
    out: Vec<u8>,
}

impl Answerer {
    pub(crate) fn new(writer: OwnedWriteHalf, mode: Mode) -> Self {
        Self { writer, mode, tally: Tally::default(), out: Vec::new() }
    }

    pub(crate) async fn run(mut self, mut input: Input, server: &Server) -> io::Result<()> {
        loop {
            let turn = input.turn(server, |item| self.handle(item)).await?;
            if let Turn::Ended(Some(ending)) = &turn {
                self.out.extend_from_slice(ending.farewell());
            }
            self.flush().await?;
            if let Turn::Ended(_) = turn {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, item: Item<'_>) -> io::Result<()> {
        match item {
            Item::Messages(run) if self.mode == Mode::Echo && self.out.is_empty() => {
                let sent = self.try_write(run)?;
                self.out.extend_from_slice(&run[sent..]);
            }
            Item::Messages(run) if self.mode == Mode::Echo => self.out.extend_from_slice(run),
            Item::Messages(run) => frames::each(run).filter(|_| self.tally.count()).for_each(|frame| self.out.extend_from_slice(frame)),
            Item::Answer(answer) => self.out.extend_from_slice(&answer),
            Item::Opened => {}
        }
        Ok(())
    }

    /// Sends what was kept.
    async fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() {
            let count = self.try_write(&self.out[sent..])?;
            if count == 0 {
                self.writer.writable().await?;
            }
            sent += count;
        }
        self.out.clear();
        Ok(())
    }

    /// Zero where the socket is full.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.writer.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            outcome => outcome,
        }
    }
}
