//! The part of `src/wire/WIRE.md` that a peer without requests needs, written from that text alone.

use std::fs::File;
use std::io::{self, Read};

pub(crate) const MAGIC: [u8; 4] = [0xCC, 0x43, 0x52, 0x50];
pub(crate) const VERSION: u8 = 1;
const PLAINTEXT: u8 = 0;
pub(crate) const REFUSAL_MARKER: u8 = 255;

pub(crate) const PREAMBLE_LEN: usize = 8;
pub(crate) const HELLO_LEN: usize = 88;
/// Preamble and hello: what each side sends first.
pub(crate) const OPENING_LEN: usize = PREAMBLE_LEN + HELLO_LEN;
pub(crate) const REFUSAL_LEN: usize = 16;
pub(crate) const HEADER_LEN: usize = 8;
/// The most bytes that may follow a header.
pub(crate) const MAX_FRAME_LEN: usize = 32_768;
/// What a sender puts into one frame by default; a longer message is cut.
pub(crate) const FRAGMENT_LEN: usize = 16_384;
pub(crate) const MAX_MESSAGE: u32 = 1 << 20;

pub(crate) const DATA: u8 = 1;
pub(crate) const REQUEST: u8 = 2;
pub(crate) const RESPONSE: u8 = 3;
pub(crate) const FRAGMENT: u8 = 4;
pub(crate) const READY: u8 = 16;
pub(crate) const PING: u8 = 17;
pub(crate) const PONG: u8 = 18;
pub(crate) const GOODBYE: u8 = 19;

/// Flags of a whole message in the normal lane.
pub(crate) const NORMAL_LANE: u8 = 2;
/// Flag: the message goes on in the next frame of its lane.
pub(crate) const MORE: u8 = 0b100;
const LANE_BITS: u8 = 0b011;
const KNOWN_FLAGS: u8 = 0b111;

/// Goodbye code: ended by its sender, nothing wrong.
pub(crate) const CLOSED: u16 = 0;
/// Goodbye code: a rule was broken; the detail is its number.
pub(crate) const VIOLATION: u16 = 5;

/// The broken rule, by its number in WIRE.md, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule(pub(crate) u16);

pub(crate) const FRAME_TOO_LONG: Rule = Rule(1);
pub(crate) const UNKNOWN_KIND: Rule = Rule(2);
pub(crate) const UNKNOWN_FLAGS: Rule = Rule(3);
pub(crate) const WRONG_LANE: Rule = Rule(4);
pub(crate) const WRONG_LENGTH: Rule = Rule(5);
pub(crate) const UNSOLICITED_PONG: Rule = Rule(11);
pub(crate) const UNEXPECTED_READY: Rule = Rule(14);
pub(crate) const EXPECTED_READY: Rule = Rule(15);

/// Why an acceptor turns a dialler away, by its number in WIRE.md, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefusalCode(pub(crate) u16);

impl RefusalCode {
    pub(crate) const VERSION: Self = Self(1);
    pub(crate) const SUITE: Self = Self(2);
    pub(crate) const MALFORMED: Self = Self(3);
    pub(crate) const WRONG_NETWORK: Self = Self(4);

    pub(crate) fn name(self) -> &'static str {
        const NAMES: [&str; 8] = ["Version", "Suite", "Malformed", "WrongNetwork", "SelfConnection", "Duplicate", "Full", "ShuttingDown"];
        (self.0 as usize).checked_sub(1).and_then(|index| NAMES.get(index)).copied().unwrap_or("unknown code")
    }
}

pub(crate) fn refusal(code: RefusalCode) -> [u8; REFUSAL_LEN] {
    let mut bytes = [0; REFUSAL_LEN];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = VERSION;
    bytes[5] = REFUSAL_MARKER;
    bytes[6..8].copy_from_slice(&code.0.to_le_bytes());
    bytes[8] = VERSION;
    bytes[9] = VERSION;
    bytes
}

/// Reads the code if these bytes are a refusal; the first 8 are enough.
pub(crate) fn refusal_code(bytes: &[u8]) -> Option<RefusalCode> {
    let refused = bytes.len() >= PREAMBLE_LEN && bytes[..4] == MAGIC && bytes[5] == REFUSAL_MARKER;
    refused.then(|| RefusalCode(u16_at(bytes, 6)))
}

/// The fields of a hello that differ between peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) network: [u8; 32],
    pub(crate) node: [u8; 32],
    pub(crate) instance: u64,
    pub(crate) max_message: u32,
    pub(crate) channel: u16,
}

/// What is wrong with the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpeningError {
    /// Not this protocol: close and say nothing.
    Magic,
    Refuse(RefusalCode),
}

/// Preamble and hello as one side sends them.
pub(crate) fn opening(hello: &Hello) -> [u8; OPENING_LEN] {
    let mut bytes = [0; OPENING_LEN];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = VERSION;
    bytes[5] = PLAINTEXT;
    let body = &mut bytes[PREAMBLE_LEN..];
    body[..32].copy_from_slice(&hello.network);
    body[32..64].copy_from_slice(&hello.node);
    body[64..72].copy_from_slice(&hello.instance.to_le_bytes());
    body[80..84].copy_from_slice(&hello.max_message.to_le_bytes());
    body[84..86].copy_from_slice(&hello.channel.to_le_bytes());
    bytes
}

/// Checks the other side's preamble and hello. The network is left to the caller.
pub(crate) fn parse_opening(bytes: &[u8; OPENING_LEN]) -> Result<Hello, OpeningError> {
    parse_preamble(&bytes[..PREAMBLE_LEN])?;
    let body = &bytes[PREAMBLE_LEN..];
    let hello = Hello {
        network: body[..32].try_into().expect("32 bytes"),
        node: body[32..64].try_into().expect("32 bytes"),
        instance: u64_at(body, 64),
        max_message: u32_at(body, 80),
        channel: u16_at(body, 84),
    };
    if u16_at(body, 86) != 0 || hello.max_message == 0 {
        return Err(OpeningError::Refuse(RefusalCode::MALFORMED));
    }
    Ok(hello)
}

/// Checks a preamble alone, so that a wrong one is answered before the hello has come.
pub(crate) fn parse_preamble(bytes: &[u8]) -> Result<(), OpeningError> {
    if bytes[..4] != MAGIC {
        Err(OpeningError::Magic)
    } else if bytes[4] != VERSION {
        Err(OpeningError::Refuse(RefusalCode::VERSION))
    } else if bytes[5] != PLAINTEXT {
        Err(OpeningError::Refuse(RefusalCode::SUITE))
    } else if bytes[6..8] != [0, 0] {
        Err(OpeningError::Refuse(RefusalCode::MALFORMED))
    } else {
        Ok(())
    }
}

/// The 8 bytes in front of every frame, as one little-endian word: one load reads them, one store writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header(u64);

impl Header {
    pub(crate) fn new(length: usize, kind: u8, flags: u8, message_type: u16) -> Self {
        debug_assert!(length <= MAX_FRAME_LEN);
        Self(length as u64 | (kind as u64) << 32 | (flags as u64) << 40 | (message_type as u64) << 48)
    }

    /// Reads the header at the start of `bytes`, if it is whole.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<HEADER_LEN>().map(|chunk| Self(u64::from_le_bytes(*chunk)))
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        self.0.to_le_bytes()
    }

    #[inline]
    pub(crate) fn length(self) -> usize {
        self.0 as u32 as usize
    }

    #[inline]
    pub(crate) fn kind(self) -> u8 {
        (self.0 >> 32) as u8
    }

    #[inline]
    pub(crate) fn flags(self) -> u8 {
        (self.0 >> 40) as u8
    }

    #[inline]
    pub(crate) fn message_type(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline]
    pub(crate) fn more(self) -> bool {
        self.flags() & MORE != 0
    }

    /// Whether this is a message of this type, all of it in one frame.
    #[inline]
    pub(crate) fn is_whole_data(self, message_type: u16) -> bool {
        const LOOKED_AT: u64 = 0xFF << 32 | (MORE as u64) << 40 | 0xFFFF << 48;
        self.0 & LOOKED_AT == u64::from(DATA) << 32 | u64::from(message_type) << 48
    }

    /// The rules that a header alone can break.
    #[inline]
    pub(crate) fn check(self) -> Result<(), Rule> {
        if self.length() > MAX_FRAME_LEN {
            return Err(FRAME_TOO_LONG);
        }
        if self.flags() & !KNOWN_FLAGS != 0 {
            return Err(UNKNOWN_FLAGS);
        }
        match self.kind() {
            DATA | FRAGMENT | REQUEST | RESPONSE if self.flags() & LANE_BITS != 0 => Ok(()),
            DATA | FRAGMENT | REQUEST | RESPONSE => Err(WRONG_LANE),
            READY | PING | PONG | GOODBYE => self.check_control(),
            _ => Err(UNKNOWN_KIND),
        }
    }

    fn check_control(self) -> Result<(), Rule> {
        if self.flags() != 0 || self.message_type() != 0 {
            return Err(WRONG_LANE);
        }
        let expected = if self.kind() == READY { 0 } else { 8 };
        if self.length() == expected { Ok(()) } else { Err(WRONG_LENGTH) }
    }
}

/// A control frame with 8 bytes after its header.
pub(crate) fn control(kind: u8, body: [u8; 8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..HEADER_LEN].copy_from_slice(&Header::new(8, kind, 0, 0).to_bytes());
    bytes[HEADER_LEN..].copy_from_slice(&body);
    bytes
}

pub(crate) fn ready() -> [u8; HEADER_LEN] {
    Header::new(0, READY, 0, 0).to_bytes()
}

pub(crate) fn goodbye(code: u16, detail: u16) -> [u8; 16] {
    let mut body = [0; 8];
    body[..2].copy_from_slice(&code.to_le_bytes());
    body[2..4].copy_from_slice(&detail.to_le_bytes());
    control(GOODBYE, body)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// A node id and an instance number for one start of one peer.
pub(crate) fn random_identity() -> io::Result<([u8; 32], u64)> {
    let mut bytes = [0; 40];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok((bytes[..32].try_into().expect("32 bytes"), u64_at(&bytes, 32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_survives_the_wire() {
        let hello = Hello { network: [1; 32], node: [2; 32], instance: 3, max_message: 4, channel: 5 };
        assert_eq!(parse_opening(&opening(&hello)), Ok(hello));
    }

    #[test]
    fn a_wrong_opening_has_its_own_answer() {
        let hello = Hello { network: [0; 32], node: [2; 32], instance: 3, max_message: 4, channel: 5 };
        let with = |at: usize, value: u8| {
            let mut bytes = opening(&hello);
            bytes[at] = value;
            parse_opening(&bytes)
        };
        assert_eq!(with(0, 0), Err(OpeningError::Magic));
        assert_eq!(with(4, 2), Err(OpeningError::Refuse(RefusalCode::VERSION)));
        assert_eq!(with(5, 1), Err(OpeningError::Refuse(RefusalCode::SUITE)));
        assert_eq!(with(6, 1), Err(OpeningError::Refuse(RefusalCode::MALFORMED)));
        assert_eq!(with(PREAMBLE_LEN + 80, 0), Err(OpeningError::Refuse(RefusalCode::MALFORMED)));
        assert_eq!(with(PREAMBLE_LEN + 86, 1), Err(OpeningError::Refuse(RefusalCode::MALFORMED)));
        assert_eq!(refusal_code(&refusal(RefusalCode::SUITE)), Some(RefusalCode::SUITE));
    }

    #[test]
    fn a_whole_message_has_its_type_and_no_more_flag() {
        let is_whole = |kind, flags, message_type| Header::new(32, kind, flags, message_type).is_whole_data(7);
        assert!(is_whole(DATA, NORMAL_LANE, 7) && is_whole(DATA, 1, 7));
        assert!(!is_whole(DATA, NORMAL_LANE | MORE, 7) && !is_whole(DATA, NORMAL_LANE, 8) && !is_whole(FRAGMENT, NORMAL_LANE, 7));
    }

    #[test]
    fn a_header_breaks_one_rule_at_a_time() {
        let check = |length, kind, flags, message_type| Header::new(length, kind, flags, message_type).check();
        assert_eq!(check(32, DATA, NORMAL_LANE, 7), Ok(()));
        assert_eq!(check(8, PING, 0, 0), Ok(()));
        assert_eq!(check(32, 9, NORMAL_LANE, 7), Err(UNKNOWN_KIND));
        assert_eq!(check(32, DATA, 8, 7), Err(UNKNOWN_FLAGS));
        assert_eq!(check(32, DATA, 0, 7), Err(WRONG_LANE));
        assert_eq!(check(8, PING, 1, 0), Err(WRONG_LANE));
        assert_eq!(check(7, PING, 0, 0), Err(WRONG_LENGTH));
        assert_eq!(Header((MAX_FRAME_LEN as u64 + 1) | (1 << 32) | (2 << 40)).check(), Err(FRAME_TOO_LONG));
    }
}
