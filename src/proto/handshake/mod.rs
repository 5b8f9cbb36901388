//! From the first byte to `Ready`.
//!
//! ```text
//! plaintext
//! dialler:   Hello --(preamble + hello)--> Grant --(granted: send Ready)--> done
//! acceptor:  Hello --(preamble + hello)--> Grant --(granted: send ours)--> Ready --(Ready)--> done
//!
//! encrypted
//! dialler:   Opening --(preamble + message 2: send message 3)--> Ready --(Ready)--> Grant --(granted: send Ready)--> done
//! acceptor:  Opening --(preamble + message 1: send message 2)--> Third --(message 3)--> Grant
//!            --(granted: send Ready)--> Ready --(Ready)--> done
//! ```
//!
//! In `Grant` the directory is asked whether this connection may be: in both kinds the acceptor's first, then the dialler's. The machines
//! ask for exactly the bytes that they need next, so nothing that belongs to the message loop is ever read here, and the bytes they keep
//! fit an inline buffer.

mod entropy;
mod noise;
mod plaintext;

use std::sync::Arc;

use self::noise::Noise;
use self::plaintext::Plaintext;
use super::noise::{Keys, TAG};
use super::session::Session;
use crate::buffers::BufferPool;
use crate::error::HandshakeError;
use crate::id::NodeId;
use crate::wire::{Goodbye, GoodbyeCode, HEADER_LEN, HELLO_LEN, Hello, PREAMBLE_LEN, Refusal, RefusalCode};

/// The longest thing that either side sends at once.
const LONGEST: usize = PREAMBLE_LEN + HELLO_LEN;
/// What it may say after that before any of it has left: that the other broke a rule, in the longest record of a handshake.
const LAST: usize = 2 + HEADER_LEN + 8 + TAG;

/// What received bytes led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed.
    Pending,
    /// The other side has said who it is: ask the directory, then call `grant`.
    Ask(Hello),
    /// Both sides agree: the message loop may begin.
    Established,
}

/// The handshake of one connection.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "strangers get no heap of their own before they have proved something")]
pub(crate) enum Handshake {
    Plaintext(Plaintext),
    Noise(Noise),
}

/// The same call, whichever it is.
macro_rules! both {
    ($self:expr, $machine:ident => $call:expr) => {
        match $self {
            Handshake::Plaintext($machine) => $call,
            Handshake::Noise($machine) => $call,
        }
    };
}

impl Handshake {
    /// A connection that this side dials: it speaks first, once it is connected and `begin` is called. With keys, and without the node that
    /// is meant, it has nothing to say.
    pub(crate) fn dialled(keys: Option<&Arc<Keys>>, ours: Hello, expected: Option<NodeId>) -> Self {
        match keys {
            Some(keys) => Self::Noise(Noise::dialled(Arc::clone(keys), ours, expected)),
            None => Self::Plaintext(Plaintext::dialled(ours, expected)),
        }
    }

    /// A connection that this side accepted.
    pub(crate) fn accepted(keys: Option<&Arc<Keys>>, ours: Hello) -> Self {
        match keys {
            Some(keys) => Self::Noise(Noise::accepted(Arc::clone(keys), ours)),
            None => Self::Plaintext(Plaintext::accepted(ours)),
        }
    }

    /// The connection is there, and this stands where it will stay: who dialled may `begin`. `entropy`: 32 random bytes, for this
    /// handshake alone.
    pub(crate) fn connected(&mut self, entropy: &[u8; 32]) {
        if let Self::Noise(noise) = self {
            noise.connected(entropy);
        }
    }

    /// Says the first word. Fails where the node that is meant has a weak key.
    pub(crate) fn begin(&mut self) -> Result<(), HandshakeError> {
        match self {
            Self::Plaintext(plaintext) => plaintext.begin(),
            Self::Noise(noise) => return noise.begin(),
        }
        Ok(())
    }

    /// Whether `begin` is due, and costs what a step does.
    pub(crate) fn is_to_begin(&self) -> bool {
        matches!(self, Self::Noise(noise) if noise.is_to_begin())
    }

    /// How many bytes to read next, at most; zero while the directory is asked and after the end.
    pub(crate) fn wanted(&self) -> usize {
        both!(self, machine => machine.wanted())
    }

    /// Takes at most `wanted` bytes.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Progress, HandshakeError> {
        assert!(bytes.len() <= self.wanted(), "the caller reads no more than is wanted");
        both!(self, machine => machine.handle_bytes(bytes))
    }

    /// Whether the bytes that are wanted next will cost what the cryptography of a step costs: about a hundred microseconds.
    pub(crate) fn is_costly(&self) -> bool {
        matches!(self, Self::Noise(noise) if noise.is_costly())
    }

    /// The directory's word: this connection may be. Says whether the message loop may begin.
    pub(crate) fn grant(&mut self, channel: u16) -> Progress {
        both!(self, machine => machine.grant(channel))
    }

    /// The directory's word: this connection must not be. What is to be written is the last.
    pub(crate) fn deny(&mut self, code: RefusalCode) -> HandshakeError {
        both!(self, machine => machine.deny(code))
    }

    /// Ends a handshake in which this side has already agreed.
    pub(crate) fn withdraw(&mut self, code: GoodbyeCode) {
        both!(self, machine => machine.withdraw(code));
    }

    /// Where the last word of this side is that it shuts down, it asks not to be dialled again sooner. Zero: it does not ask.
    pub(crate) fn ask_delay(&mut self, delay_ms: u32) {
        both!(self, machine => machine.exchange.asks_ms = delay_ms);
    }

    /// What the other side has asked for in its last word. Zero: nothing. With Noise, what is said in the clear, which anybody on the way
    /// can have written, counts as no more than `unproved_ms`.
    pub(crate) fn asked_delay(&self, unproved_ms: u32) -> u32 {
        match self {
            Self::Noise(noise) if !noise.is_proved() => noise.exchange.asked_ms.min(unproved_ms),
            _ => both!(self, machine => machine.exchange.asked_ms),
        }
    }

    /// Bytes that have still to leave.
    pub(crate) fn output(&self) -> &[u8] {
        both!(self, machine => machine.exchange.output())
    }

    pub(crate) fn advance(&mut self, taken: usize) {
        both!(self, machine => machine.exchange.advance(taken));
    }

    /// Whether this side dialled.
    pub(crate) fn is_dialled(&self) -> bool {
        both!(self, machine => machine.dialled)
    }

    /// Which node this side says it is.
    pub(crate) fn node(&self) -> NodeId {
        both!(self, machine => machine.ours.node)
    }

    /// What an established connection goes on with. In plaintext, what has still to leave is left to the caller: it is a frame.
    pub(crate) fn take_session(&mut self, pool: &mut BufferPool) -> Session {
        match self {
            Self::Plaintext(_) => Session::Plaintext,
            Self::Noise(noise) => noise.take_session(pool),
        }
    }
}

/// What has come and is not complete, and what has still to leave.
#[derive(Debug)]
struct Exchange {
    input: [u8; LONGEST],
    filled: usize,
    output: [u8; LONGEST + LAST],
    /// `output[written..to_write]` has still to leave.
    written: usize,
    to_write: usize,
    /// The delay that a last word of this side asks for, and that one of the other side has asked for.
    asks_ms: u32,
    asked_ms: u32,
}

impl Exchange {
    fn new() -> Self {
        Self { input: [0; LONGEST], filled: 0, output: [0; LONGEST + LAST], written: 0, to_write: 0, asks_ms: 0, asked_ms: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.input[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    fn received(&self) -> &[u8] {
        &self.input[..self.filled]
    }

    /// What was received has been understood.
    fn clear(&mut self) {
        self.filled = 0;
    }

    /// What is still unsent goes first. It fits: nothing is sent in answer to what did not have all that was sent before it, but for one
    /// last record.
    fn send(&mut self, bytes: &[u8]) {
        let unsent = self.to_write - self.written;
        self.output.copy_within(self.written..self.to_write, 0);
        self.output[unsent..unsent + bytes.len()].copy_from_slice(bytes);
        self.written = 0;
        self.to_write = unsent + bytes.len();
    }

    /// A goodbye without a detail.
    fn goodbye(&self, code: GoodbyeCode) -> Goodbye {
        let delay_ms = if code == GoodbyeCode::ShuttingDown { self.asks_ms } else { 0 };
        Goodbye::new(code, 0).with_delay(delay_ms)
    }

    fn refusal(&self, code: RefusalCode) -> Refusal {
        Refusal { code, delay_ms: if code == RefusalCode::ShuttingDown { self.asks_ms } else { 0 } }
    }

    /// The other side's last word, in a refusal or in a goodbye.
    fn take_refusal(&mut self, refusal: Refusal) -> HandshakeError {
        self.asked_ms = refusal.delay_ms;
        HandshakeError::RefusedByPeer(refusal.code)
    }

    fn take_goodbye(&mut self, payload: &[u8; 8]) -> GoodbyeCode {
        let goodbye = Goodbye::decode(*payload);
        self.asked_ms = goodbye.delay_ms;
        goodbye.code
    }

    fn output(&self) -> &[u8] {
        &self.output[self.written..self.to_write]
    }

    fn advance(&mut self, taken: usize) {
        self.written += taken;
        assert!(self.written <= self.to_write, "the kernel took more than was offered");
    }
}

/// What a dialler says instead of `Ready`, and what that is called on its own side.
fn withdrawal(code: RefusalCode) -> (GoodbyeCode, RefusalCode) {
    match code {
        RefusalCode::Full => (GoodbyeCode::Full, code),
        RefusalCode::ShuttingDown => (GoodbyeCode::ShuttingDown, code),
        RefusalCode::NotAllowed => (GoodbyeCode::NotAllowed, code),
        RefusalCode::SelfConnection => (GoodbyeCode::SelfConnection, code),
        _ => (GoodbyeCode::Duplicate, RefusalCode::Duplicate),
    }
}

/// The other way round: what an acceptor meant with a goodbye instead of `Ready`.
fn refusal(code: GoodbyeCode) -> Option<RefusalCode> {
    Some(match code {
        GoodbyeCode::Full => RefusalCode::Full,
        GoodbyeCode::ShuttingDown => RefusalCode::ShuttingDown,
        GoodbyeCode::NotAllowed => RefusalCode::NotAllowed,
        GoodbyeCode::SelfConnection => RefusalCode::SelfConnection,
        GoodbyeCode::Duplicate => RefusalCode::Duplicate,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
