//! Sink: messages are counted and dropped, but for every 64th of a peer, which goes back, so that the sender can keep a window.

use super::peer::{Ending, Peer};
use super::scan::{Item, Scanner};
use crate::client::SINK_ANSWERS_EVERY;
use crate::wire::{self, Header};

impl Peer {
    /// Takes every message in `bytes`, answers with one `send` where there is something to answer, and says how many bytes whole
    /// frames had. Messages are single frames: the client sends no others to a sink.
    pub(super) fn sink(&mut self, bytes: &[u8], scratch: &mut Vec<u8>) -> Result<usize, Ending> {
        let mut scanner = Scanner::new(bytes);
        scratch.clear();
        let outcome = loop {
            match scanner.next() {
                Ok(Some(Item::Messages(run))) => self.take(run, scratch),
                Ok(Some(Item::Ping(nonce))) => scratch.extend_from_slice(&wire::control(wire::PONG, nonce)),
                Ok(Some(Item::Goodbye)) => break Err(Ending::Goodbye),
                Ok(None) => break Ok(()),
                Err(rule) => break Err(rule.into()),
            }
        };
        self.send_own(scratch)?;
        outcome.map(|()| scanner.consumed())
    }

    fn take(&mut self, mut run: &[u8], answers: &mut Vec<u8>) {
        while let Some(header) = Header::read(run) {
            let (frame, rest) = run.split_at(wire::HEADER_LEN + header.length());
            self.taken += 1;
            if self.taken.is_multiple_of(SINK_ANSWERS_EVERY) {
                answers.extend_from_slice(frame);
            }
            run = rest;
        }
    }
}
