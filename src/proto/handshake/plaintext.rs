//! The handshake in plaintext: WIRE.md, 3.1.

use super::{Exchange, Progress, withdrawal};
use crate::error::{HandshakeError, Violation};
use crate::id::NodeId;
use crate::wire::{
    Goodbye, GoodbyeCode, HEADER_LEN, HELLO_LEN, Header, Hello, Kind, Opening, PREAMBLE_LEN, Preamble, REFUSAL_LEN, Refusal, RefusalCode,
};

const GREETING_LEN: usize = PREAMBLE_LEN + HELLO_LEN;
const GOODBYE_LEN: usize = HEADER_LEN + 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The other side's preamble and hello, or its refusal.
    Hello,
    /// The directory's word.
    Grant,
    /// The dialler's `Ready`.
    Ready,
    Done,
}

/// See the parent module.
#[derive(Debug)]
pub(crate) struct Plaintext {
    state: State,
    pub(super) dialled: bool,
    pub(super) ours: Hello,
    /// The node that was dialled, where that was said.
    expected: Option<NodeId>,
    pub(super) exchange: Exchange,
}

impl Plaintext {
    pub(super) fn dialled(ours: Hello, expected: Option<NodeId>) -> Self {
        Self::new(true, ours, expected)
    }

    pub(super) fn begin(&mut self) {
        self.send_greeting();
    }

    pub(super) fn accepted(ours: Hello) -> Self {
        Self::new(false, ours, None)
    }

    fn new(dialled: bool, ours: Hello, expected: Option<NodeId>) -> Self {
        Self { state: State::Hello, dialled, ours, expected, exchange: Exchange::new() }
    }

    pub(super) fn wanted(&self) -> usize {
        let whole = match self.state {
            // A dialler may get a refusal, which is shorter than a greeting.
            State::Hello if self.dialled && self.exchange.filled < PREAMBLE_LEN => PREAMBLE_LEN,
            State::Hello if self.is_refusal() => REFUSAL_LEN,
            State::Hello => GREETING_LEN,
            State::Ready if self.exchange.filled < HEADER_LEN => HEADER_LEN,
            State::Ready => GOODBYE_LEN,
            State::Grant | State::Done => return 0,
        };
        whole - self.exchange.filled
    }

    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Progress, HandshakeError> {
        self.exchange.take(bytes);
        match self.state {
            State::Hello => self.handle_greeting(),
            State::Ready => self.handle_ready(),
            State::Grant | State::Done => Ok(Progress::Pending),
        }
    }

    fn is_refusal(&self) -> bool {
        self.dialled && self.opening() == Opening::Refusal
    }

    fn opening(&self) -> Opening {
        Preamble::PLAINTEXT.judge(*self.exchange.input.first_chunk().expect("the buffer is longer than a preamble"))
    }

    fn handle_greeting(&mut self) -> Result<Progress, HandshakeError> {
        if self.exchange.filled < PREAMBLE_LEN {
            return Ok(Progress::Pending);
        }
        match self.opening() {
            Opening::Preamble => {}
            Opening::Refusal if self.dialled => {
                let Some(refusal) = self.exchange.received().first_chunk::<REFUSAL_LEN>().map(Refusal::decode) else {
                    return Ok(Progress::Pending);
                };
                return Err(self.exchange.take_refusal(refusal));
            }
            Opening::WrongMagic | Opening::Refusal => return Err(HandshakeError::WrongMagic),
            Opening::Refused(code) => return Err(self.refuse(code)),
        }
        if self.exchange.filled < GREETING_LEN {
            return Ok(Progress::Pending);
        }
        if !self.exchange.output().is_empty() {
            // An answer to a hello that has not left whole: nobody who speaks this protocol gives it.
            return Err(HandshakeError::Violation(Violation::ExpectedReady));
        }
        let bytes = self.exchange.input.last_chunk().expect("the buffer is a preamble and a hello");
        let theirs = Hello::decode(bytes).map_err(|code| self.refuse(code))?;
        self.check(&theirs)?;
        self.state = State::Grant;
        self.exchange.clear();
        Ok(Progress::Ask(theirs))
    }

    fn check(&mut self, theirs: &Hello) -> Result<(), HandshakeError> {
        if theirs.network != self.ours.network {
            return Err(self.refuse(RefusalCode::WrongNetwork));
        }
        if theirs.node == self.ours.node {
            return Err(self.refuse(RefusalCode::SelfConnection));
        }
        if self.dialled {
            if self.expected.is_some_and(|expected| expected != theirs.node) {
                return Err(HandshakeError::WrongNode);
            }
            if theirs.channel != self.ours.channel {
                return Err(self.refuse(RefusalCode::Malformed));
            }
        }
        Ok(())
    }

    pub(super) fn grant(&mut self, channel: u16) -> Progress {
        assert_eq!(self.state, State::Grant, "a grant answers a question");
        if self.dialled {
            self.exchange.send(&Header::control(Kind::Ready).encode());
            self.state = State::Done;
            Progress::Established
        } else {
            self.ours.channel = channel;
            self.send_greeting();
            self.state = State::Ready;
            Progress::Pending
        }
    }

    pub(super) fn deny(&mut self, code: RefusalCode) -> HandshakeError {
        if self.dialled {
            let (goodbye, code) = withdrawal(code);
            self.withdraw(goodbye);
            return HandshakeError::Refused(code);
        }
        self.refuse(code)
    }

    pub(super) fn withdraw(&mut self, code: GoodbyeCode) {
        self.state = State::Done;
        self.exchange.send(&self.exchange.goodbye(code).encode());
    }

    fn refuse(&mut self, code: RefusalCode) -> HandshakeError {
        self.state = State::Done;
        if !self.dialled {
            let refusal = self.exchange.refusal(code).answer(Preamble::PLAINTEXT, self.exchange.received());
            self.exchange.send(&refusal);
        }
        HandshakeError::Refused(code)
    }

    fn handle_ready(&mut self) -> Result<Progress, HandshakeError> {
        let Some(header) = self.exchange.received().first_chunk::<HEADER_LEN>() else {
            return Ok(Progress::Pending);
        };
        let header = Header::decode(*header).map_err(|error| self.break_off(error.into()))?;
        match header.kind {
            Kind::Ready => {
                self.state = State::Done;
                Ok(Progress::Established)
            }
            Kind::Goodbye if self.exchange.filled < GOODBYE_LEN => Ok(Progress::Pending),
            Kind::Goodbye => {
                let payload = *self.exchange.input[HEADER_LEN..].first_chunk().expect("the buffer is longer than a goodbye");
                Err(HandshakeError::Goodbye(self.exchange.take_goodbye(&payload)))
            }
            _ => Err(self.break_off(Violation::ExpectedReady)),
        }
    }

    /// The dialler broke a rule after both had greeted: it is told which.
    fn break_off(&mut self, violation: Violation) -> HandshakeError {
        self.state = State::Done;
        self.exchange.send(&Goodbye::new(GoodbyeCode::Violation, violation.code()).encode());
        HandshakeError::Violation(violation)
    }

    fn send_greeting(&mut self) {
        let mut greeting = [0; GREETING_LEN];
        greeting[..PREAMBLE_LEN].copy_from_slice(&Preamble::PLAINTEXT.encode());
        greeting[PREAMBLE_LEN..].copy_from_slice(&self.ours.encode());
        self.exchange.send(&greeting);
    }
}
