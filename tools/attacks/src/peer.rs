//! A peer by hand: a connection with an established session on it, whichever kind, in either role.

use std::fmt;
use std::io;
use std::time::Instant;

use crate::link::{Answer, Ending, Link, PATIENCE};
use crate::noise::{MAX_RECORD, MESSAGE_1, MESSAGE_2, MESSAGE_3, Records};
use crate::target::{Protection, Target, Who};
use crate::wire::{
    DATA, FRAGMENT, GOODBYE, Hello, MAX_FRAME, MORE, PING, PONG, PREAMBLE, READY, control, data, frame, header, ready, refusal_code,
};

/// Why a dialogue did not go on.
#[derive(Debug)]
pub enum Failure {
    /// TCP did not grant the connection.
    Connect(io::Error),
    /// The acceptor refused, with this code.
    Refused(u16),
    /// The other side said goodbye: code and detail.
    Goodbye(u16, u16),
    /// It ended without a word.
    Ended(Ending),
    /// The other side said what it should not have.
    Nonsense(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Failure {}

impl From<Answer> for Failure {
    fn from(answer: Answer) -> Self {
        match answer.refusal() {
            Some(code) => Self::Refused(code),
            None if answer.bytes.is_empty() => Self::Ended(answer.ending),
            None => Self::Nonsense("it ends in the middle"),
        }
    }
}

/// Writing failed: the other side has gone.
impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Ended(Ending::Reset)
    }
}

/// A received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// See `WIRE.md` 5.
    pub kind: u8,
    /// Lane, and whether more follows.
    pub flags: u8,
    /// The application's.
    pub message_type: u16,
    /// What comes after the header.
    pub payload: Vec<u8>,
}

/// What is between frames and the wire.
pub enum Session {
    /// Nothing.
    Plaintext,
    /// Records.
    Noise(Box<Records>),
}

/// An established peer.
pub struct Peer {
    /// The connection. Bytes that are sent here are not sealed.
    pub link: Link,
    /// What seals.
    pub session: Session,
    /// What the other side said of itself.
    pub theirs: Hello,
    /// Opened, and not yet taken.
    unread: Vec<u8>,
}

impl Peer {
    /// Dials and ends the handshake well.
    pub fn dial(target: &Target, who: &Who) -> Result<Self, Failure> {
        let link = Link::connect(who.source, target.address).map_err(Failure::Connect)?;
        Self::shake(link, target, who)
    }

    /// The dialler's whole handshake.
    pub fn shake(link: Link, target: &Target, who: &Who) -> Result<Self, Failure> {
        let mut peer = Self::greet(link, target, who)?;
        peer.send(&ready())?;
        Ok(peer)
    }

    /// The dialler's handshake up to and without its `Ready`. Encrypted, the acceptor's `Ready` has come.
    pub fn greet(mut link: Link, target: &Target, who: &Who) -> Result<Self, Failure> {
        let hello = who.hello(target);
        match target.protection {
            Protection::Plaintext => {
                link.send(&hello.greeting())?;
                let theirs = Hello::decode(&read_greeting(&mut link, &PREAMBLE, 88)?).ok_or(Failure::Nonsense("its hello"))?;
                Ok(Self { link, session: Session::Plaintext, theirs, unread: Vec::new() })
            }
            Protection::Noise { suite, .. } => {
                let mut handshake = target.setup(who.keys).dial(target.node);
                link.send(&[&suite.preamble()[..], &handshake.write(&[])].concat())?;
                let two = read_greeting(&mut link, &suite.preamble(), MESSAGE_2)?;
                let payload = handshake.read(&two).map_err(|_| Failure::Nonsense("message 2"))?;
                let theirs = Hello::decode_sealed(&payload).ok_or(Failure::Nonsense("its hello"))?;
                link.send(&handshake.write(&hello.encode_sealed()))?;
                let records = handshake.finish().map_err(|_| Failure::Nonsense("the handshake has no end"))?;
                let theirs = Hello { network: target.network, node: target.node, ..theirs };
                let mut peer = Self { link, session: Session::Noise(Box::new(records)), theirs, unread: Vec::new() };
                peer.expect_ready()?;
                Ok(peer)
            }
        }
    }

    /// The acceptor's whole handshake, on the network of `network`, whose address and node are not looked at.
    pub fn accept(mut link: Link, network: &Target, who: &Who) -> Result<Self, Failure> {
        match network.protection {
            Protection::Plaintext => {
                let theirs = Hello::decode(&read_greeting(&mut link, &PREAMBLE, 88)?).ok_or(Failure::Nonsense("its hello"))?;
                link.send(&Hello { channel: theirs.channel, ..who.hello(network) }.greeting())?;
                let mut peer = Self { link, session: Session::Plaintext, theirs, unread: Vec::new() };
                peer.expect_ready()?;
                Ok(peer)
            }
            Protection::Noise { suite, .. } => {
                let mut handshake = network.setup(who.keys).accept();
                handshake.read(&read_greeting(&mut link, &suite.preamble(), MESSAGE_1)?).map_err(|_| Failure::Nonsense("message 1"))?;
                let hello = Hello { channel: 0, ..who.hello(network) };
                link.send(&[&suite.preamble()[..], &handshake.write(&hello.encode_sealed())].concat())?;
                let three = handshake.read(&link.read(MESSAGE_3)?).map_err(|_| Failure::Nonsense("message 3"))?;
                let theirs = Hello::decode_sealed(&three).ok_or(Failure::Nonsense("its hello"))?;
                let node = handshake.remote().ok_or(Failure::Nonsense("it has no key"))?;
                let theirs = Hello { network: network.network, node, ..theirs };
                let records = handshake.finish().map_err(|_| Failure::Nonsense("the handshake has no end"))?;
                let mut peer = Self { link, session: Session::Noise(Box::new(records)), theirs, unread: Vec::new() };
                peer.send(&ready())?;
                peer.expect_ready()?;
                Ok(peer)
            }
        }
    }

    fn expect_ready(&mut self) -> Result<(), Failure> {
        match self.frame()? {
            Some(Frame { kind: READY, .. }) => Ok(()),
            Some(frame) => Err(farewell(&frame).unwrap_or(Failure::Nonsense("another frame than Ready"))),
            None => Err(Failure::Ended(Ending::Eof)),
        }
    }

    /// The records of an encrypted session. Panics in plaintext, which has none.
    pub fn records(&mut self) -> &mut Records {
        match &mut self.session {
            Session::Noise(records) => records,
            Session::Plaintext => panic!("plaintext has no records"),
        }
    }

    /// These bytes as they go out: sealed, in as few records as they fit into, or as they are.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        match &mut self.session {
            Session::Plaintext => bytes.to_vec(),
            Session::Noise(records) => bytes.chunks(MAX_RECORD).flat_map(|chunk| records.seal(chunk)).collect(),
        }
    }

    /// Sends frames, whole or not.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sealed = self.seal(bytes);
        self.link.send(&sealed)
    }

    /// So many bytes of frames; `None` at an end between two frames.
    fn take(&mut self, len: usize, may_end: bool) -> Result<Option<Vec<u8>>, Failure> {
        while self.unread.len() < len {
            let between = may_end && self.unread.is_empty();
            let more = match &mut self.session {
                Session::Plaintext => self.link.read(len - self.unread.len()),
                Session::Noise(records) => match self.link.read(2) {
                    Err(answer) => Err(answer),
                    Ok(prefix) => {
                        let record = self.link.read(usize::from(u16::from_le_bytes([prefix[0], prefix[1]])))?;
                        Ok(records.open(&record).map_err(|_| Failure::Nonsense("a record that does not open"))?)
                    }
                },
            };
            match more {
                Ok(bytes) => self.unread.extend_from_slice(&bytes),
                Err(Answer { bytes, ending: Ending::Eof }) if between && bytes.is_empty() => return Ok(None),
                Err(answer) => return Err(Failure::from(answer)),
            }
        }
        Ok(Some(self.unread.drain(..len).collect()))
    }

    /// So many bytes of frames, whatever they are.
    pub fn bytes(&mut self, len: usize) -> Result<Vec<u8>, Failure> {
        Ok(self.take(len, false)?.unwrap_or_default())
    }

    /// The next frame; `None` at the end.
    pub fn frame(&mut self) -> Result<Option<Frame>, Failure> {
        let Some(head) = self.take(8, true)? else { return Ok(None) };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if len > MAX_FRAME {
            return Err(Failure::Nonsense("a frame too long"));
        }
        let payload = self.take(len, false)?.unwrap_or_default();
        Ok(Some(Frame { kind: head[4], flags: head[5], message_type: u16::from_le_bytes([head[6], head[7]]), payload }))
    }

    /// The next frame that is no keepalive; pings are answered. `None` at the end. Who sends nothing but pings has not ended.
    pub fn message_frame(&mut self) -> Result<Option<Frame>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.frame()? {
                // Whoever has said goodbye does not care.
                Some(ping) if ping.kind == PING => drop(self.send(&frame(PONG, 0, 0, &ping.payload))),
                Some(pong) if pong.kind == PONG => {}
                other => return Ok(other),
            }
        }
        Err(Failure::Ended(Ending::Open))
    }

    /// The next message, put together where it came in pieces: its type and body. A farewell is a failure, and so is the end.
    pub fn message(&mut self) -> Result<(u16, Vec<u8>), Failure> {
        let begin = self.message_frame()?.ok_or(Failure::Ended(Ending::Eof))?;
        if let Some(failure) = farewell(&begin) {
            return Err(failure);
        }
        if begin.kind != DATA {
            return Err(Failure::Nonsense("another frame than a message"));
        }
        if begin.flags & MORE == 0 {
            return Ok((begin.message_type, begin.payload));
        }
        let mut body = begin.payload.get(4..).ok_or(Failure::Nonsense("a fragment without total"))?.to_vec();
        loop {
            let next = self.message_frame()?.ok_or(Failure::Ended(Ending::Eof))?;
            if next.kind != FRAGMENT {
                return Err(farewell(&next).unwrap_or(Failure::Nonsense("another frame than the fragment")));
            }
            body.extend_from_slice(&next.payload);
            if next.flags & MORE == 0 {
                return Ok((begin.message_type, body));
            }
        }
    }

    /// Sends a message to an engine that echoes, and gets it back.
    pub fn echo(&mut self, message_type: u16, body: &[u8]) -> Result<(), Failure> {
        self.send(&data(message_type, body))?;
        match self.message()? {
            (got, back) if got == message_type && back == body => Ok(()),
            _ => Err(Failure::Nonsense("another message than was sent")),
        }
    }

    /// Reads on until the other side ends it: its farewell, or how it ended without one.
    pub fn farewell(&mut self) -> Failure {
        self.until_farewell().1
    }

    /// The same, and the frames that came before.
    pub fn until_farewell(&mut self) -> (Vec<Frame>, Failure) {
        let mut before = Vec::new();
        let mut said = None;
        let failure = loop {
            match self.message_frame() {
                Ok(Some(frame)) => match farewell(&frame) {
                    Some(failure) => said = said.or(Some(failure)),
                    None => before.push(frame),
                },
                Ok(None) => break Failure::Ended(Ending::Eof),
                Err(failure) => break failure,
            }
        };
        (before, said.unwrap_or(failure))
    }

    /// Says goodbye, in order.
    pub fn leave(mut self) {
        let _ = self.send(&crate::wire::goodbye(0, 0));
        self.link.shut();
        let _ = self.link.answer();
    }

    /// One ping, and its answer.
    pub fn ping(&mut self, nonce: u64) -> Result<(), Failure> {
        self.send(&control(PING, nonce))?;
        match self.frame()? {
            Some(pong) if pong.kind == PONG && pong.payload == nonce.to_le_bytes() => Ok(()),
            Some(frame) => Err(farewell(&frame).unwrap_or(Failure::Nonsense("another frame than the pong"))),
            None => Err(Failure::Ended(Ending::Eof)),
        }
    }

    /// The begin of a message of which nothing more comes.
    pub fn half_a_frame(&mut self) -> io::Result<()> {
        let mut bytes = header(1000, DATA, crate::wire::NORMAL, 1);
        bytes.extend_from_slice(&[0; 500]);
        self.send(&bytes)
    }
}

/// What a frame says, if it is a farewell.
fn farewell(frame: &Frame) -> Option<Failure> {
    let word = |at: usize| u16::from_le_bytes([frame.payload[at], frame.payload[at + 1]]);
    (frame.kind == GOODBYE && frame.payload.len() == 8).then(|| Failure::Goodbye(word(0), word(2)))
}

/// So many bytes after a preamble that has to be this one; a refusal instead is a failure.
fn read_greeting(link: &mut Link, preamble: &[u8; 8], len: usize) -> Result<Vec<u8>, Failure> {
    let begin = link.read(8)?;
    if begin != preamble {
        let rest = link.read(8).map_err(|_| Failure::Nonsense("its preamble"))?;
        return Err(refusal_code(&[begin, rest].concat()).map_or(Failure::Nonsense("its preamble"), Failure::Refused));
    }
    Ok(link.read(len)?)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::link::Listener;
    use crate::noise::{Keys, Suite};
    use crate::wire::MAX_FRAME;

    const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 66, 0, 1));

    /// Both roles of this library, against each other.
    fn pair(protection: Protection) -> (Peer, Peer) {
        let listener = Listener::bind(ATTACKER).unwrap();
        let target = Target { protection, ..Target::secure(listener.address().unwrap(), Keys::numbered(2).public) };
        let acceptor = std::thread::spawn(move || {
            let link = listener.accept(PATIENCE).unwrap();
            assert_eq!(link.stream().peer_addr().unwrap().ip(), ATTACKER);
            Peer::accept(link, &target, &Who::numbered(2, ATTACKER)).unwrap()
        });
        let mut who = Who::numbered(1, ATTACKER);
        who.hello.channel = 5;
        let ours = Peer::dial(&target, &who).unwrap();
        let theirs = acceptor.join().unwrap();
        assert_eq!((theirs.theirs.node, theirs.theirs.channel), (Keys::numbered(1).public, 5));
        (ours, theirs)
    }

    #[test]
    fn the_two_roles_understand_each_other() {
        let noise = |suite, secret| Protection::Noise { suite, secret };
        for protection in [Protection::Plaintext, noise(Suite::AesGcm, None), noise(Suite::ChaChaPoly, Some([3; 32]))] {
            let (mut ours, mut theirs) = pair(protection);
            ours.send(&data(7, &[1; MAX_FRAME]).repeat(3)).unwrap();
            (0..3).for_each(|_| assert_eq!(theirs.message().unwrap(), (7, vec![1; MAX_FRAME])));
            theirs.send(&[control(PING, 9), data(8, b"back")].concat()).unwrap();
            assert_eq!(ours.message().unwrap(), (8, b"back".to_vec()));
            assert_eq!(
                theirs.frame().unwrap().unwrap(),
                Frame { kind: PONG, flags: 0, message_type: 0, payload: 9u64.to_le_bytes().into() }
            );
            ours.send(&crate::wire::goodbye(5, 18)).unwrap();
            drop(ours);
            assert!(matches!(theirs.farewell(), Failure::Goodbye(5, 18)));
        }
    }
}
