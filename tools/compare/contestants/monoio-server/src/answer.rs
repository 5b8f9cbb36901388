//! Echo and sink: what goes back to its sender.
//!
//! Messages that stand next to each other are echoed from the buffer they were read into, with one write. The next read begins when that
//! has left: who does not read its answers is not answered further, and holds up no one else.

use std::io;
use std::ops::Range;

use contestant::session::Item;
use contestant::{Mode, frames, tally::Tally};
use monoio::buf::IoBuf;
use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;

use crate::Server;
use crate::input::{Input, Turn};

/// What goes back after a read.
#[derive(Default)]
struct Answer {
    /// Messages in the receive buffer, where nothing else is to be sent.
    in_place: Range<usize>,
    copied: Vec<u8>,
}

pub(crate) async fn run(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    let (mut input, mut tally, mut answer) = (Input::new(), Tally::default(), Answer::default());
    while input.read(&mut stream).await? {
        let turn = answer.collect(&mut input, &mut tally, server);
        if !answer.in_place.is_empty() {
            let in_place = std::mem::take(&mut answer.in_place);
            let (outcome, sent) = stream.write_all(std::mem::take(&mut input.buffer).slice(in_place)).await;
            input.buffer = sent.into_inner();
            outcome?;
        }
        if !answer.copied.is_empty() {
            let (outcome, sent) = stream.write_all(std::mem::take(&mut answer.copied)).await;
            answer.copied = sent;
            answer.copied.clear();
            outcome?;
        }
        if turn.ending.is_some() {
            return Ok(());
        }
        input.discard(turn.consumed);
    }
    Ok(())
}

impl Answer {
    /// Looks at all that was read, and gathers what it is answered with.
    fn collect(&mut self, input: &mut Input, tally: &mut Tally, server: &Server) -> Turn {
        let mut items = input.items(server);
        let ending = loop {
            match items.next() {
                Ok(Some(Item::Messages(run))) if server.mode == Mode::Echo => {
                    let end = items.consumed();
                    if self.in_place.is_empty() && self.copied.is_empty() {
                        self.in_place = end - run.len()..end;
                    } else {
                        self.copied.extend_from_slice(run);
                    }
                }
                Ok(Some(Item::Messages(run))) => {
                    frames::each(run).filter(|_| tally.count()).for_each(|frame| self.copied.extend_from_slice(frame));
                }
                Ok(Some(Item::Answer(bytes))) => self.copied.extend_from_slice(&bytes),
                Ok(Some(Item::Opened)) => {}
                Ok(None) => break None,
                Err(ending) => {
                    self.copied.extend_from_slice(ending.farewell());
                    break Some(ending);
                }
            }
        };
        Turn { consumed: items.consumed(), ending }
    }
}
