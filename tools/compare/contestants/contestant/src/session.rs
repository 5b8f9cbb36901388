//! One connection of WIRE.md in plaintext, as an acceptor sees it: its bytes go in, and what is to be done with them comes out. No socket.

use std::io;

use crate::frames::{self, Kind};
use crate::wire::{self, Hello, OpeningError, RefusalCode, Rule};

/// Why a connection ends, with the last words to its peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    farewell: Vec<u8>,
}

impl Ending {
    /// What is to be sent before the connection is closed; nothing, to one that does not speak this protocol.
    pub fn farewell(&self) -> &[u8] {
        &self.farewell
    }

    /// The answer to a peer that said goodbye.
    pub fn goodbye() -> Self {
        Self { farewell: wire::goodbye(wire::CLOSED, 0).to_vec() }
    }

    /// The answer to another frame than `Ready` where that was expected.
    pub fn expected_ready() -> Self {
        wire::EXPECTED_READY.into()
    }

    /// The answer to a second `Ready`.
    pub fn unexpected_ready() -> Self {
        wire::UNEXPECTED_READY.into()
    }

    fn refused(code: RefusalCode) -> Self {
        Self { farewell: wire::refusal(code).to_vec() }
    }
}

impl From<Rule> for Ending {
    fn from(rule: Rule) -> Self {
        Self { farewell: wire::goodbye(wire::VIOLATION, rule.0).to_vec() }
    }
}

impl From<OpeningError> for Ending {
    fn from(error: OpeningError) -> Self {
        match error {
            OpeningError::Magic => Self { farewell: Vec::new() },
            OpeningError::Refuse(code) => Self::refused(code),
        }
    }
}

/// Bytes of a dialler's opening, and of the answer to it.
pub const OPENING_LEN: usize = wire::OPENING_LEN;

/// Who this process says it is. The network is the one of all zeros.
#[derive(Debug)]
pub struct Acceptor {
    hello: Hello,
}

impl Acceptor {
    /// An acceptor with an identity of its own.
    pub fn new() -> io::Result<Self> {
        let (node, instance) = wire::random_identity()?;
        Ok(Self { hello: Hello { network: [0; 32], node, instance, max_message: wire::MAX_MESSAGE, channel: 0 } })
    }

    /// The answer to a dialler's preamble and hello.
    pub fn answer(&self, opening: &[u8; OPENING_LEN]) -> Result<[u8; OPENING_LEN], Ending> {
        let theirs = wire::parse_opening(opening)?;
        if theirs.network != self.hello.network {
            return Err(Ending::refused(RefusalCode::WRONG_NETWORK));
        }
        Ok(wire::opening(&Hello { channel: theirs.channel, ..self.hello }))
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// One or more whole message frames, to be passed on as they are.
    Messages(&'a [u8]),
    /// Send this to the peer, and to no one else.
    Answer(Vec<u8>),
    /// The handshake is over: the peer takes messages from here on.
    Opened,
}

/// Where a connection stands: it waits for the dialler's opening, then for its `Ready`, and then there are frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Opening,
    Ready,
    Open,
}

/// A connection.
#[derive(Debug, Default)]
pub struct Session {
    state: State,
}

impl Session {
    /// Reads what lies in `bytes`; those that [`Input::consumed`] does not count belong in front of the next ones.
    pub fn input<'a>(&'a mut self, acceptor: &'a Acceptor, bytes: &'a [u8]) -> Input<'a> {
        Input { session: self, acceptor, bytes, at: 0 }
    }
}

/// A cursor over received bytes.
#[derive(Debug)]
pub struct Input<'a> {
    session: &'a mut Session,
    acceptor: &'a Acceptor,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// Bytes that are dealt with.
    pub fn consumed(&self) -> usize {
        self.at
    }

    /// What is to be done next, or none if what is left is not a whole frame.
    #[inline]
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item<'a>>, Ending> {
        match self.session.state {
            State::Open => self.next_frames(),
            State::Opening => self.answer_opening(),
            State::Ready => self.expect_ready(),
        }
    }

    fn next_frames(&mut self) -> Result<Option<Item<'a>>, Ending> {
        let mut start = self.at;
        while let Some((len, kind)) = frames::first(&self.bytes[self.at..])? {
            if kind != Kind::Message && self.at > start {
                break;
            }
            let frame = &self.bytes[self.at..self.at + len];
            self.at += len;
            match kind {
                Kind::Message => {}
                Kind::Skipped => start = self.at,
                Kind::Ping => return Ok(Some(Item::Answer(frames::pong(frame)))),
                Kind::Ready => return Err(Ending::unexpected_ready()),
                Kind::Goodbye => return Err(Ending::goodbye()),
            }
        }
        Ok((self.at > start).then(|| Item::Messages(&self.bytes[start..self.at])))
    }

    fn answer_opening(&mut self) -> Result<Option<Item<'a>>, Ending> {
        if let Some(preamble) = self.bytes.first_chunk::<{ wire::PREAMBLE_LEN }>() {
            // A wrong one is answered before the rest is there: another suite's hello may be of another length.
            wire::parse_preamble(preamble)?;
        }
        let Some(opening) = self.bytes.first_chunk() else { return Ok(None) };
        let answer = self.acceptor.answer(opening)?;
        self.at = OPENING_LEN;
        self.session.state = State::Ready;
        Ok(Some(Item::Answer(answer.to_vec())))
    }

    fn expect_ready(&mut self) -> Result<Option<Item<'a>>, Ending> {
        match frames::first(&self.bytes[self.at..])? {
            None => Ok(None),
            Some((len, Kind::Ready)) => {
                self.at += len;
                self.session.state = State::Open;
                Ok(Some(Item::Opened))
            }
            Some((_, Kind::Goodbye)) => Err(Ending::goodbye()),
            Some(_) => Err(Ending::expected_ready()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Header;

    fn opening() -> [u8; OPENING_LEN] {
        wire::opening(&Hello { network: [0; 32], node: [7; 32], instance: 1, max_message: 1, channel: 9 })
    }

    fn data(body: &[u8]) -> Vec<u8> {
        [Header::new(body.len(), wire::DATA, wire::NORMAL_LANE, 7).to_bytes().as_slice(), body].concat()
    }

    /// The items of some input in slices of `slice` bytes, each as text, and how the session ended.
    fn run(input: &[u8], slice: usize) -> (Vec<String>, Option<Ending>) {
        let acceptor = Acceptor::new().unwrap();
        let (mut session, mut kept, mut items) = (Session::default(), Vec::new(), Vec::new());
        for bytes in input.chunks(slice) {
            kept.extend_from_slice(bytes);
            let mut input = session.input(&acceptor, &kept);
            loop {
                match input.next() {
                    Ok(None) => break,
                    Ok(Some(Item::Messages(run))) => items.extend(frames::each(run).map(|frame| format!("{:?}", &frame[8..]))),
                    Ok(Some(Item::Answer(answer))) => items.push(format!("answer of {}", answer.len())),
                    Ok(Some(Item::Opened)) => items.push("opened".into()),
                    Err(ending) => return (items, Some(ending)),
                }
            }
            let consumed = input.consumed();
            kept.drain(..consumed);
        }
        assert!(kept.is_empty());
        (items, None)
    }

    #[test]
    fn a_session_says_the_same_however_its_bytes_come() {
        let skipped = [Header::new(8, wire::REQUEST, wire::NORMAL_LANE, 1).to_bytes(), [0; 8]].concat();
        let frames = [data(&[1]), skipped, data(&[2]), wire::control(wire::PING, [3; 8]).to_vec(), data(&[4])].concat();
        let input = [opening().as_slice(), &wire::ready(), &frames].concat();
        let expected = (["answer of 96", "opened", "[1]", "[2]", "answer of 16", "[4]"].map(String::from).to_vec(), None);
        for slice in [1, 2, 7, 50, 96, 104, input.len()] {
            assert_eq!(run(&input, slice), expected, "in slices of {slice}");
        }
    }

    #[test]
    fn what_is_not_right_has_its_answer() {
        let ended = |bytes: &[&[u8]]| run(&bytes.concat(), 4096).1.expect("it ends").farewell;
        let open = [opening().as_slice(), &wire::ready()].concat();
        assert_eq!(ended(&[b"GET / HTTP/1.1"]), b"");
        assert_eq!(ended(&[&[0xCC, 0x43, 0x52, 0x50, 1, 1, 0, 0]]), wire::refusal(RefusalCode::SUITE));
        assert_eq!(ended(&[&opening(), &data(b"early")]), wire::goodbye(wire::VIOLATION, wire::EXPECTED_READY.0));
        assert_eq!(ended(&[&open, &wire::ready()]), wire::goodbye(wire::VIOLATION, wire::UNEXPECTED_READY.0));
        assert_eq!(ended(&[&open, &[0xFF; 8]]), wire::goodbye(wire::VIOLATION, wire::FRAME_TOO_LONG.0));
        assert_eq!(ended(&[&open, &wire::goodbye(wire::CLOSED, 0), b"discarded"]), wire::goodbye(wire::CLOSED, 0));
        let mut other_network = opening();
        other_network[8] = 1;
        assert_eq!(ended(&[&other_network]), wire::refusal(RefusalCode::WRONG_NETWORK));
    }
}
