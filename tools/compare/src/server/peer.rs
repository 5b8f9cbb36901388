//! One connection as the bare server sees it: handshake, what it still has to send, how it ends.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};

use super::scan::{Item, Scanner};
use crate::wire::{self, Header, Hello, OpeningError, RefusalCode, Rule};

/// Bytes that may wait for a peer that sends but does not read; then it is not read from either.
const CLOGGED_AT: usize = 256 << 10;

/// Where a connection stands. `Hello -> Ready -> Open -> Closing`, and from each of them to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for preamble and hello.
    Hello,
    /// Has answered, waits for the dialler's `Ready`.
    Ready,
    Open,
    /// Has said goodbye and shut its sending direction; discards input until the other side has closed too. A close with
    /// unread input would destroy what was sent before.
    Closing,
}

/// Why a connection stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The peer closed.
    Eof,
    /// A socket error, or input that deserves no answer.
    Broken,
    Refused(RefusalCode),
    Violation(Rule),
    /// The peer said goodbye.
    Goodbye,
}

impl From<Rule> for Ending {
    fn from(rule: Rule) -> Self {
        Ending::Violation(rule)
    }
}

/// A connection.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) state: State,
    /// False from a refused or short write until the next writable edge.
    pub(super) writable: bool,
    /// Fan-out: the last write from the log was short, so nothing of our own may come before its rest.
    pub(super) mid_frame: bool,
    /// Fan-out: position in the log of the next byte to send.
    pub(super) cursor: u64,
    /// Fan-out: end of the last log run that this peer sent itself.
    pub(super) own_end: u64,
    /// Sink: messages taken so far.
    pub(super) taken: u64,
    /// The start of an unfinished frame.
    pub(super) partial: Vec<u8>,
    /// What the kernel did not take of the bytes that are for this peer alone.
    out: Vec<u8>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            state: State::Hello,
            writable: true,
            mid_frame: false,
            cursor: 0,
            own_end: 0,
            taken: 0,
            partial: Vec::new(),
            out: Vec::new(),
        }
    }

    pub(super) fn takes_log(&self) -> bool {
        self.state == State::Open
    }

    pub(super) fn is_clogged(&self) -> bool {
        self.out.len() > CLOGGED_AT
    }

    pub(super) fn has_own(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes the handshake as far as the bytes go, and returns how many it used. `log_end` is where an opened peer starts.
    pub(super) fn handshake(&mut self, bytes: &[u8], ours: &Hello, log_end: u64) -> Result<usize, Ending> {
        let mut used = 0;
        if self.state == State::Hello {
            used = self.answer_hello(bytes, ours)?;
        }
        if self.state == State::Ready
            && let Some(header) = Header::read(&bytes[used..])
        {
            if header != Header::new(0, wire::READY, 0, 0) {
                return Err(if header.kind() == wire::GOODBYE { Ending::Goodbye } else { wire::EXPECTED_READY.into() });
            }
            used += wire::HEADER_LEN;
            self.state = State::Open;
            self.cursor = log_end;
        }
        Ok(used)
    }

    fn answer_hello(&mut self, bytes: &[u8], ours: &Hello) -> Result<usize, Ending> {
        let refuse = |error| match error {
            OpeningError::Magic => Ending::Broken,
            OpeningError::Refuse(code) => Ending::Refused(code),
        };
        if bytes.len() >= wire::PREAMBLE_LEN {
            wire::parse_preamble(bytes).map_err(refuse)?;
        }
        let Some(opening) = bytes.first_chunk() else { return Ok(0) };
        let theirs = wire::parse_opening(opening).map_err(refuse)?;
        if theirs.network != ours.network {
            return Err(Ending::Refused(RefusalCode::WRONG_NETWORK));
        }
        self.send_own(&wire::opening(&Hello { channel: theirs.channel, ..*ours }))?;
        self.state = State::Ready;
        Ok(opening.len())
    }

    /// Returns every message in `bytes` to its sender, all with one `send`, and says how many bytes whole frames had. In
    /// the usual case, nothing but messages, they leave from the receive buffer as they are.
    pub(super) fn echo(&mut self, bytes: &[u8], scratch: &mut Vec<u8>) -> Result<usize, Ending> {
        let mut scanner = Scanner::new(bytes);
        let mut in_place: &[u8] = &[];
        scratch.clear();
        let outcome = loop {
            match scanner.next() {
                Ok(Some(Item::Messages(run))) if in_place.is_empty() && scratch.is_empty() => in_place = run,
                Ok(Some(item)) => {
                    scratch.extend_from_slice(std::mem::take(&mut in_place));
                    match item {
                        Item::Messages(run) => scratch.extend_from_slice(run),
                        Item::Ping(nonce) => scratch.extend_from_slice(&wire::control(wire::PONG, nonce)),
                        Item::Goodbye => break Err(Ending::Goodbye),
                    }
                }
                Ok(None) => break Ok(()),
                Err(rule) => break Err(rule.into()),
            }
        };
        self.send_own(if scratch.is_empty() { in_place } else { scratch })?;
        outcome.map(|()| scanner.consumed())
    }

    /// Sends bytes for this peer alone, or keeps what the kernel does not take.
    pub(super) fn send_own(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        let waits = self.has_own() || !self.writable;
        let sent = if waits || bytes.is_empty() { 0 } else { self.send(bytes)? };
        self.out.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Sends what was kept, unless it would fall into the middle of a frame.
    pub(super) fn flush_own(&mut self) -> Result<(), Ending> {
        if self.has_own() && !self.mid_frame {
            let kept = std::mem::take(&mut self.out);
            let sent = self.send(&kept)?;
            if sent < kept.len() {
                self.out.extend_from_slice(&kept[sent..]);
            } else if self.state == State::Closing {
                self.shut()?;
            }
        }
        Ok(())
    }

    /// One `send`. After a short or refused one the peer is not writable until the kernel says so.
    #[inline]
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, Ending> {
        loop {
            match (&self.stream).write(bytes) {
                Ok(0) => return Err(Ending::Broken),
                Ok(count) => {
                    self.writable = count == bytes.len();
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Broken),
            }
        }
    }

    /// The peer will send no more. It may still read what is on its way to it.
    pub(super) fn handle_eof(&mut self) -> Result<(), Ending> {
        if self.has_own() && !self.mid_frame {
            self.state = State::Closing;
            Ok(())
        } else {
            Err(Ending::Eof)
        }
    }

    /// Says what there is to say at the end, and starts closing. An error means that there is no one to say it to.
    pub(super) fn end(&mut self, ending: Ending) -> Result<(), Ending> {
        match ending {
            Ending::Eof | Ending::Broken => return Err(ending),
            Ending::Refused(code) => self.send_own(&wire::refusal(code))?,
            // A goodbye inside a frame would be read as part of it.
            Ending::Violation(_) | Ending::Goodbye if self.mid_frame => {}
            Ending::Violation(rule) => self.send_own(&wire::goodbye(wire::VIOLATION, rule.0))?,
            Ending::Goodbye => self.send_own(&wire::goodbye(wire::CLOSED, 0))?,
        }
        self.state = State::Closing;
        self.partial.clear();
        if self.has_own() && !self.mid_frame { Ok(()) } else { self.shut() }
    }

    fn shut(&self) -> Result<(), Ending> {
        self.stream.shutdown(Shutdown::Write).map_err(|_| Ending::Broken)
    }
}
