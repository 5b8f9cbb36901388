//! From the first byte to `Ready`.
//!
//! ```text
//! dialler:   Hello --(preamble + hello)--> Grant --(granted: send Ready)--> done
//! acceptor:  Hello --(preamble + hello)--> Grant --(granted: send ours)--> Ready --(Ready)--> done
//! ```
//!
//! In `Grant` the directory is asked whether this connection may be. The machine asks for exactly the bytes that it needs next, so nothing
//! that belongs to the message loop is ever read here, and the bytes it keeps fit an inline buffer.

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
pub(crate) struct Handshake {
    state: State,
    dialled: bool,
    ours: Hello,
    /// The node that was dialled, where that was said.
    expected: Option<NodeId>,
    input: [u8; GREETING_LEN],
    filled: usize,
    output: [u8; GREETING_LEN],
    /// `output[written..to_write]` has still to leave.
    written: usize,
    to_write: usize,
}

impl Handshake {
    /// A connection that this side dialled: it speaks first.
    pub(crate) fn dialled(ours: Hello, expected: Option<NodeId>) -> Self {
        let mut handshake = Self::new(true, ours, expected);
        handshake.send_greeting();
        handshake
    }

    /// A connection that this side accepted.
    pub(crate) fn accepted(ours: Hello) -> Self {
        Self::new(false, ours, None)
    }

    fn new(dialled: bool, ours: Hello, expected: Option<NodeId>) -> Self {
        Self {
            state: State::Hello,
            dialled,
            ours,
            expected,
            input: [0; GREETING_LEN],
            filled: 0,
            output: [0; GREETING_LEN],
            written: 0,
            to_write: 0,
        }
    }

    /// How many bytes to read next, at most; zero while the directory is asked and after the end.
    pub(crate) fn wanted(&self) -> usize {
        let whole = match self.state {
            // A dialler may get a refusal, which is shorter than a greeting.
            State::Hello if self.dialled && self.filled < PREAMBLE_LEN => PREAMBLE_LEN,
            State::Hello if self.is_refusal() => REFUSAL_LEN,
            State::Hello => GREETING_LEN,
            State::Ready if self.filled < HEADER_LEN => HEADER_LEN,
            State::Ready => GOODBYE_LEN,
            State::Grant | State::Done => return 0,
        };
        whole - self.filled
    }

    /// Takes at most `wanted` bytes.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Progress, HandshakeError> {
        assert!(bytes.len() <= self.wanted(), "the caller reads no more than is wanted");
        self.input[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
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
        Preamble::decode(*self.input.first_chunk().expect("the buffer is longer than a preamble"))
    }

    fn handle_greeting(&mut self) -> Result<Progress, HandshakeError> {
        if self.filled < PREAMBLE_LEN {
            return Ok(Progress::Pending);
        }
        match self.opening() {
            Opening::Preamble => {}
            Opening::Refusal if self.dialled => {
                let Some(refusal) = self.input[..self.filled].first_chunk::<REFUSAL_LEN>() else {
                    return Ok(Progress::Pending);
                };
                return Err(HandshakeError::RefusedByPeer(Refusal::decode(refusal).code));
            }
            Opening::WrongMagic | Opening::Refusal => return Err(HandshakeError::WrongMagic),
            Opening::Refused(code) => return Err(self.refuse(code)),
        }
        if self.filled < GREETING_LEN {
            return Ok(Progress::Pending);
        }
        if !self.output().is_empty() {
            // An answer to a hello that has not left whole: nobody who speaks this protocol gives it.
            return Err(HandshakeError::Violation(Violation::ExpectedReady));
        }
        let bytes = self.input.last_chunk().expect("the buffer is a preamble and a hello");
        let theirs = Hello::decode(bytes).map_err(|code| self.refuse(code))?;
        self.check(&theirs)?;
        self.state = State::Grant;
        self.filled = 0;
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

    /// The directory's word: this connection may be. Says whether the message loop may begin.
    pub(crate) fn grant(&mut self, channel: u16) -> Progress {
        assert_eq!(self.state, State::Grant, "a grant answers a question");
        if self.dialled {
            self.send(&Header::control(Kind::Ready).encode());
            self.state = State::Done;
            Progress::Established
        } else {
            self.ours.channel = channel;
            self.send_greeting();
            self.state = State::Ready;
            Progress::Pending
        }
    }

    /// The directory's word: this connection must not be. What is to be written is the last.
    pub(crate) fn deny(&mut self, code: RefusalCode) -> HandshakeError {
        if self.dialled {
            let code = match code {
                RefusalCode::Full => GoodbyeCode::Full,
                RefusalCode::ShuttingDown => GoodbyeCode::ShuttingDown,
                _ => GoodbyeCode::Duplicate,
            };
            self.withdraw(code);
            return HandshakeError::Refused(match code {
                GoodbyeCode::Full => RefusalCode::Full,
                GoodbyeCode::ShuttingDown => RefusalCode::ShuttingDown,
                _ => RefusalCode::Duplicate,
            });
        }
        self.refuse(code)
    }

    /// Ends a handshake in which this side has already greeted.
    pub(crate) fn withdraw(&mut self, code: GoodbyeCode) {
        self.state = State::Done;
        self.send(&Goodbye::new(code, 0).encode());
    }

    fn refuse(&mut self, code: RefusalCode) -> HandshakeError {
        self.state = State::Done;
        if !self.dialled {
            self.send(&Refusal { code }.encode());
        }
        HandshakeError::Refused(code)
    }

    fn handle_ready(&mut self) -> Result<Progress, HandshakeError> {
        let Some(header) = self.input[..self.filled].first_chunk::<HEADER_LEN>() else {
            return Ok(Progress::Pending);
        };
        let header = Header::decode(*header).map_err(|error| self.break_off(error.into()))?;
        match header.kind {
            Kind::Ready => {
                self.state = State::Done;
                Ok(Progress::Established)
            }
            Kind::Goodbye if self.filled < GOODBYE_LEN => Ok(Progress::Pending),
            Kind::Goodbye => {
                let payload = self.input[HEADER_LEN..].first_chunk().expect("the buffer is longer than a goodbye");
                Err(HandshakeError::Goodbye(Goodbye::decode(*payload).code))
            }
            _ => Err(self.break_off(Violation::ExpectedReady)),
        }
    }

    /// The dialler broke a rule after both had greeted: it is told which.
    fn break_off(&mut self, violation: Violation) -> HandshakeError {
        self.state = State::Done;
        self.send(&Goodbye::new(GoodbyeCode::Violation, violation.code()).encode());
        HandshakeError::Violation(violation)
    }

    fn send_greeting(&mut self) {
        let mut greeting = [0; GREETING_LEN];
        greeting[..PREAMBLE_LEN].copy_from_slice(&Preamble::encode());
        greeting[PREAMBLE_LEN..].copy_from_slice(&self.ours.encode());
        self.send(&greeting);
    }

    fn send(&mut self, bytes: &[u8]) {
        // What is still unsent goes first. It fits: nothing is sent in answer to a greeting before that greeting was read.
        let unsent = self.to_write - self.written;
        self.output.copy_within(self.written..self.to_write, 0);
        let len = bytes.len().min(GREETING_LEN - unsent);
        self.output[unsent..unsent + len].copy_from_slice(&bytes[..len]);
        self.written = 0;
        self.to_write = unsent + len;
    }

    /// Bytes that have still to leave.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output[self.written..self.to_write]
    }

    pub(crate) fn advance(&mut self, taken: usize) {
        self.written += taken;
        assert!(self.written <= self.to_write, "the kernel took more than was offered");
    }

    /// Whether this side dialled.
    pub(crate) fn is_dialled(&self) -> bool {
        self.dialled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NetworkId;

    fn hello(node: u8) -> Hello {
        Hello { network: NetworkId([9; 32]), node: NodeId([node; 32]), instance: node as u64, features: 0, max_message: 100, channel: 7 }
    }

    /// Moves bytes from one side to the other in steps of `step` until nothing moves; grants every question.
    fn run(dialler: &mut Handshake, acceptor: &mut Handshake, step: usize) -> [Result<Progress, HandshakeError>; 2] {
        let mut last = [Ok(Progress::Pending), Ok(Progress::Pending)];
        loop {
            let mut moved = false;
            for side in 0..2 {
                let (from, to) = if side == 0 { (&mut *dialler, &mut *acceptor) } else { (&mut *acceptor, &mut *dialler) };
                let len = from.output().len().min(to.wanted()).min(step);
                if len == 0 || last[1 - side].is_err() {
                    continue;
                }
                moved = true;
                let bytes = from.output()[..len].to_vec();
                from.advance(len);
                last[1 - side] = match to.handle_bytes(&bytes) {
                    Ok(Progress::Ask(theirs)) => Ok(to.grant(theirs.channel)),
                    Ok(Progress::Pending) => last[1 - side],
                    other => other,
                };
            }
            if !moved {
                return last;
            }
        }
    }

    #[test]
    fn both_sides_agree_however_the_bytes_are_cut() {
        for step in [1, 3, 8, 95, 96, 1000] {
            let mut dialler = Handshake::dialled(hello(1), Some(NodeId([2; 32])));
            let mut acceptor = Handshake::accepted(Hello { channel: 0, ..hello(2) });
            assert_eq!(run(&mut dialler, &mut acceptor, step), [Ok(Progress::Established); 2], "in steps of {step}");
            assert_eq!((dialler.wanted(), acceptor.wanted()), (0, 0));
        }
    }

    #[test]
    fn another_network_is_refused_by_name_on_both_sides() {
        let mut dialler = Handshake::dialled(Hello { network: NetworkId([8; 32]), ..hello(1) }, None);
        let mut acceptor = Handshake::accepted(hello(2));
        let ends = run(&mut dialler, &mut acceptor, 1000);
        assert_eq!(
            ends,
            [Err(HandshakeError::RefusedByPeer(RefusalCode::WrongNetwork)), Err(HandshakeError::Refused(RefusalCode::WrongNetwork))]
        );
    }

    #[test]
    fn oneself_and_another_node_than_dialled_are_refused() {
        let ends = run(&mut Handshake::dialled(hello(1), None), &mut Handshake::accepted(hello(1)), 1000);
        assert_eq!(ends[1], Err(HandshakeError::Refused(RefusalCode::SelfConnection)));
        let ends = run(&mut Handshake::dialled(hello(1), Some(NodeId([3; 32]))), &mut Handshake::accepted(hello(2)), 1000);
        assert_eq!(ends[0], Err(HandshakeError::WrongNode));
    }

    #[test]
    fn wrong_magic_is_answered_with_silence_and_wrong_version_with_a_refusal() {
        let mut acceptor = Handshake::accepted(hello(2));
        assert_eq!(acceptor.handle_bytes(b"GET / HT"), Err(HandshakeError::WrongMagic));
        assert!(acceptor.output().is_empty());
        let mut acceptor = Handshake::accepted(hello(2));
        let mut preamble = Preamble::encode();
        preamble[4] = 2;
        assert_eq!(acceptor.handle_bytes(&preamble), Err(HandshakeError::Refused(RefusalCode::Version)));
        assert_eq!(acceptor.output(), Refusal { code: RefusalCode::Version }.encode());
    }

    #[test]
    fn a_denied_dialler_withdraws_and_the_acceptor_hears_why() {
        let mut dialler = Handshake::dialled(hello(1), None);
        let mut acceptor = Handshake::accepted(hello(2));
        let greeting = dialler.output().to_vec();
        dialler.advance(greeting.len());
        assert_eq!(acceptor.handle_bytes(&greeting[..8]), Ok(Progress::Pending));
        assert!(matches!(acceptor.handle_bytes(&greeting[8..]), Ok(Progress::Ask(_))));
        acceptor.grant(7);
        let answer = acceptor.output().to_vec();
        acceptor.advance(answer.len());
        dialler.handle_bytes(&answer[..8]).unwrap();
        assert!(matches!(dialler.handle_bytes(&answer[8..]), Ok(Progress::Ask(_))));
        assert_eq!(dialler.deny(RefusalCode::Duplicate), HandshakeError::Refused(RefusalCode::Duplicate));
        let goodbye = dialler.output().to_vec();
        assert_eq!(acceptor.handle_bytes(&goodbye[..8]), Ok(Progress::Pending));
        assert_eq!(acceptor.handle_bytes(&goodbye[8..]), Err(HandshakeError::Goodbye(GoodbyeCode::Duplicate)));
    }

    #[test]
    fn a_message_instead_of_ready_is_a_violation() {
        let mut acceptor = Handshake::accepted(hello(2));
        let greeting = Handshake::dialled(hello(1), None).output().to_vec();
        acceptor.handle_bytes(&greeting[..8]).unwrap();
        acceptor.handle_bytes(&greeting[8..]).unwrap();
        acceptor.grant(7);
        let ping = Header::control(Kind::Ping).encode();
        assert_eq!(acceptor.handle_bytes(&ping), Err(HandshakeError::Violation(Violation::ExpectedReady)));
    }
}
