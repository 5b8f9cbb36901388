//! The encrypted handshake: WIRE.md, 3.2.

use std::fmt;
use std::sync::Arc;

use super::entropy::Entropy;
use super::{Exchange, Progress, refusal, withdrawal};
use crate::buffers::BufferPool;
use crate::error::{HandshakeError, Violation};
use crate::id::NodeId;
use crate::proto::noise::{Keys, MESSAGE_1, MESSAGE_2, MESSAGE_3, Prologue, Records, TAG, Xk};
use crate::proto::session::{Sealed, Session};
use crate::wire::{
    Goodbye, GoodbyeCode, HEADER_LEN, Header, Hello, Kind, Opening, PREAMBLE_LEN, PROVED_HELLO_LEN, Preamble, REFUSAL_LEN, Refusal,
    RefusalCode,
};

/// The two frames that may stand in the first record of a side.
const READY_LEN: usize = HEADER_LEN;
const GOODBYE_LEN: usize = HEADER_LEN + 8;
/// The length in front of a record.
const LEN: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The other side's preamble and message, or its refusal.
    Opening,
    /// The dialler's message 3.
    Third,
    /// The other side's first record.
    Ready,
    /// The directory's word.
    Grant,
    Done,
}

/// See the parent module.
pub(crate) struct Noise {
    state: State,
    pub(super) dialled: bool,
    keys: Arc<Keys>,
    pub(super) ours: Hello,
    expected: Option<NodeId>,
    theirs: Option<Hello>,
    /// For the ephemeral key, until that is made. A dialler has it from connect to its first message.
    entropy: Entropy,
    /// From this side's first message on, and an acceptor makes that only when a whole message 1 is there.
    xk: Option<Box<Xk>>,
    /// From message 3 on.
    records: Option<Records>,
    pub(super) exchange: Exchange,
}

/// How far it is, and nothing of what it is made from: the entropy is as good as a key.
impl fmt::Debug for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Noise").field("state", &self.state).field("dialled", &self.dialled).finish_non_exhaustive()
    }
}

impl Noise {
    pub(super) fn dialled(keys: Arc<Keys>, ours: Hello, expected: Option<NodeId>) -> Self {
        Self::new(true, keys, ours, expected)
    }

    pub(super) fn accepted(keys: Arc<Keys>, ours: Hello) -> Self {
        Self::new(false, keys, ours, None)
    }

    fn new(dialled: bool, keys: Arc<Keys>, ours: Hello, expected: Option<NodeId>) -> Self {
        let (exchange, entropy) = (Exchange::new(), Entropy::default());
        Self { state: State::Opening, dialled, keys, ours, expected, theirs: None, entropy, xk: None, records: None, exchange }
    }

    fn preamble(&self) -> Preamble {
        Preamble::encrypted(self.keys.suite())
    }

    fn prologue(&self) -> Prologue {
        Prologue::new(self.preamble().encode(), self.ours.network)
    }

    pub(super) fn connected(&mut self, entropy: &[u8; 32]) {
        self.entropy.put(entropy);
    }

    pub(super) fn is_to_begin(&self) -> bool {
        self.dialled && self.state == State::Opening && self.entropy.is_there()
    }

    pub(super) fn begin(&mut self) -> Result<(), HandshakeError> {
        let Some(expected) = self.expected else { return Ok(()) };
        let prologue = self.prologue();
        let made = self.entropy.spend(|entropy| Xk::dialler(&self.keys, expected, &prologue, entropy));
        let Some(mut xk) = made else { return Ok(()) };
        let mut message = [0; MESSAGE_1];
        // What can fail is a key of small order that was dialled: then nothing is sent.
        xk.write(&[], &mut message)?;
        self.exchange.send(&self.preamble().encode());
        self.exchange.send(&message);
        self.xk = Some(Box::new(xk));
        Ok(())
    }

    pub(super) fn wanted(&self) -> usize {
        let filled = self.exchange.filled;
        let whole = match self.state {
            // A dialler may get a refusal, which is shorter.
            State::Opening if self.is_to_begin() => return 0,
            State::Opening if self.dialled && filled < PREAMBLE_LEN => PREAMBLE_LEN,
            State::Opening if self.is_refusal() => REFUSAL_LEN,
            State::Opening if self.dialled => PREAMBLE_LEN + MESSAGE_2,
            State::Opening => PREAMBLE_LEN + MESSAGE_1,
            State::Third => MESSAGE_3,
            State::Ready => match self.exchange.received().first_chunk() {
                // Any other length ends the handshake before this is asked again.
                Some(&len) => LEN + u16::from_le_bytes(len) as usize,
                None => LEN,
            },
            State::Grant | State::Done => return 0,
        };
        whole - filled
    }

    pub(super) fn is_costly(&self) -> bool {
        match self.state {
            State::Opening => !self.dialled || self.exchange.filled >= PREAMBLE_LEN,
            State::Third => true,
            State::Ready | State::Grant | State::Done => false,
        }
    }

    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Progress, HandshakeError> {
        self.exchange.take(bytes);
        match self.state {
            State::Opening => self.handle_opening(),
            State::Third => self.handle_third(),
            State::Ready => self.handle_first_record(),
            State::Grant | State::Done => Ok(Progress::Pending),
        }
    }

    fn opening(&self) -> Opening {
        self.preamble().judge(*self.exchange.input.first_chunk().expect("the buffer is longer than a preamble"))
    }

    fn is_refusal(&self) -> bool {
        self.dialled && self.exchange.filled >= PREAMBLE_LEN && self.opening() == Opening::Refusal
    }

    fn handle_opening(&mut self) -> Result<Progress, HandshakeError> {
        if self.exchange.filled < PREAMBLE_LEN {
            return Ok(Progress::Pending);
        }
        match self.opening() {
            Opening::Preamble => {}
            Opening::Refusal if self.dialled => {
                let Some(refusal) = self.exchange.received().first_chunk::<REFUSAL_LEN>().map(Refusal::decode) else {
                    return Ok(Progress::Pending);
                };
                return Err(self.exchange.take_refusal(Refusal { code: in_the_clear(refusal.code), ..refusal }));
            }
            Opening::WrongMagic | Opening::Refusal => return Err(HandshakeError::WrongMagic),
            Opening::Refused(code) => return Err(self.refuse(code)),
        }
        if self.wanted() > 0 {
            return Ok(Progress::Pending);
        }
        self.check_order()?;
        if self.dialled { self.handle_second() } else { self.handle_first() }
    }

    /// An answer to what has not left whole: nobody who speaks this protocol gives it.
    fn check_order(&self) -> Result<(), HandshakeError> {
        if self.exchange.output().is_empty() { Ok(()) } else { Err(HandshakeError::AuthFailed) }
    }

    /// The acceptor has message 1.
    fn handle_first(&mut self) -> Result<Progress, HandshakeError> {
        let prologue = self.prologue();
        let made = self.entropy.spend(|entropy| Xk::acceptor(&self.keys, &prologue, entropy));
        let Some(mut xk) = made else { return Err(HandshakeError::AuthFailed) };
        if let Err(error) = xk.read(&self.exchange.received()[PREAMBLE_LEN..], &mut []) {
            self.refuse(RefusalCode::AuthFailed);
            return Err(error);
        }
        let mut message = [0; MESSAGE_2];
        xk.write(&Hello { channel: 0, ..self.ours }.encode_proved(), &mut message)?;
        self.exchange.clear();
        self.exchange.send(&self.preamble().encode());
        self.exchange.send(&message);
        self.xk = Some(Box::new(xk));
        self.state = State::Third;
        Ok(Progress::Pending)
    }

    /// The dialler has message 2, which proves who sent it.
    fn handle_second(&mut self) -> Result<Progress, HandshakeError> {
        let Some(mut xk) = self.xk.take() else { return Err(HandshakeError::AuthFailed) };
        let mut hello = [0; PROVED_HELLO_LEN];
        xk.read(&self.exchange.received()[PREAMBLE_LEN..], &mut hello)?;
        let mut message = [0; MESSAGE_3];
        xk.write(&self.ours.encode_proved(), &mut message)?;
        self.exchange.clear();
        self.exchange.send(&message);
        let node = xk.remote().ok_or(HandshakeError::AuthFailed)?;
        self.records = Some(xk.finish());
        self.state = State::Ready;
        let theirs = Hello::decode_proved(self.ours.network, node, &hello).ok_or_else(|| self.break_off(Violation::MalformedHello))?;
        self.theirs = Some(Hello { channel: self.ours.channel, ..theirs });
        Ok(Progress::Pending)
    }

    /// The acceptor has message 3, and knows who the dialler is.
    fn handle_third(&mut self) -> Result<Progress, HandshakeError> {
        if self.wanted() > 0 {
            return Ok(Progress::Pending);
        }
        self.check_order()?;
        let Some(mut xk) = self.xk.take() else { return Err(HandshakeError::AuthFailed) };
        let mut hello = [0; PROVED_HELLO_LEN];
        xk.read(self.exchange.received(), &mut hello)?;
        self.exchange.clear();
        let node = xk.remote().ok_or(HandshakeError::AuthFailed)?;
        self.records = Some(xk.finish());
        let theirs = Hello::decode_proved(self.ours.network, node, &hello).ok_or_else(|| self.break_off(Violation::MalformedHello))?;
        if node == self.ours.node {
            return Err(self.deny(RefusalCode::SelfConnection));
        }
        self.theirs = Some(theirs);
        self.state = State::Grant;
        Ok(Progress::Ask(theirs))
    }

    /// The other side's first record: its word on whether the connection may be.
    fn handle_first_record(&mut self) -> Result<Progress, HandshakeError> {
        let Some(&len) = self.exchange.received().first_chunk::<LEN>() else { return Ok(Progress::Pending) };
        let len = u16::from_le_bytes(len) as usize;
        if len != READY_LEN + TAG && len != GOODBYE_LEN + TAG {
            return Err(self.break_off(Violation::ExpectedReady));
        }
        if self.wanted() > 0 {
            return Ok(Progress::Pending);
        }
        self.check_order()?;
        let mut frame = [0; GOODBYE_LEN + TAG];
        let Some(records) = &mut self.records else { return Err(HandshakeError::AuthFailed) };
        if records.open_whole(&self.exchange.received()[LEN..], &mut frame).is_err() {
            self.state = State::Done;
            return Err(HandshakeError::AuthFailed);
        }
        self.exchange.clear();
        let header = Header::decode(*frame.first_chunk().expect("longer than a header")).map_err(|error| self.break_off(error.into()))?;
        match header.kind {
            Kind::Ready if len == READY_LEN + TAG => Ok(self.handle_ready()),
            Kind::Goodbye if len == GOODBYE_LEN + TAG => {
                self.state = State::Done;
                let payload = frame[HEADER_LEN..].first_chunk().expect("longer than a goodbye's payload");
                let code = self.exchange.take_goodbye(payload);
                Err(match refusal(code).filter(|_| self.dialled) {
                    Some(refused) => HandshakeError::RefusedByPeer(refused),
                    None => HandshakeError::Goodbye(code),
                })
            }
            _ => Err(self.break_off(Violation::ExpectedReady)),
        }
    }

    fn handle_ready(&mut self) -> Progress {
        match self.theirs.filter(|_| self.dialled) {
            Some(theirs) => {
                self.state = State::Grant;
                Progress::Ask(theirs)
            }
            None => {
                self.state = State::Done;
                Progress::Established
            }
        }
    }

    pub(super) fn grant(&mut self, _channel: u16) -> Progress {
        assert_eq!(self.state, State::Grant, "a grant answers a question");
        self.seal(&Header::control(Kind::Ready).encode());
        if self.dialled {
            self.state = State::Done;
            Progress::Established
        } else {
            self.state = State::Ready;
            Progress::Pending
        }
    }

    pub(super) fn deny(&mut self, code: RefusalCode) -> HandshakeError {
        if self.records.is_none() {
            return self.refuse(code);
        }
        let (goodbye, code) = withdrawal(code);
        self.withdraw(goodbye);
        HandshakeError::Refused(code)
    }

    pub(super) fn withdraw(&mut self, code: GoodbyeCode) {
        self.state = State::Done;
        self.seal(&self.exchange.goodbye(code).encode());
    }

    /// In the clear: an acceptor's answer to what came before it has said anything itself.
    fn refuse(&mut self, code: RefusalCode) -> HandshakeError {
        if !self.dialled && self.state == State::Opening {
            let refusal = self.exchange.refusal(code).answer(self.preamble(), self.exchange.received());
            self.exchange.send(&refusal);
        }
        self.state = State::Done;
        HandshakeError::Refused(code)
    }

    /// The other side broke a rule after it had proved who it is: it is told which.
    fn break_off(&mut self, violation: Violation) -> HandshakeError {
        self.state = State::Done;
        self.seal(&Goodbye::new(GoodbyeCode::Violation, violation.code()).encode());
        HandshakeError::Violation(violation)
    }

    /// Whether the other side has proved who it is.
    pub(super) fn is_proved(&self) -> bool {
        self.records.is_some()
    }

    /// One frame in a record of its own.
    fn seal(&mut self, frame: &[u8]) {
        if let Some(records) = &mut self.records {
            let mut record = [0; LEN + GOODBYE_LEN + TAG];
            let len = records.seal(frame, &mut record);
            self.exchange.send(&record[..len]);
        }
    }

    /// The session, with what has still to leave as its first bytes.
    pub(super) fn take_session(&mut self, pool: &mut BufferPool) -> Session {
        let records = self.records.take().expect("an established handshake has led to records, once");
        Session::Noise(Box::new(Sealed::new(records, self.exchange.output(), pool)))
    }
}

/// What a refusal in the clear may say, which anybody on the way can have written: why no handshake came about. What an acceptor thinks of
/// the node it says under the session's keys.
fn in_the_clear(code: RefusalCode) -> RefusalCode {
    match code {
        RefusalCode::Version | RefusalCode::Suite | RefusalCode::Malformed | RefusalCode::AuthFailed | RefusalCode::ShuttingDown => code,
        _ => RefusalCode::Unknown,
    }
}
