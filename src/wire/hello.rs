//! What is exchanged before and around messages: preamble, hello, refusal, and the payloads of control frames.

use super::{GO_AWAY_LEN, HEADER_LEN, HELLO_LEN, Header, Kind, PREAMBLE_LEN, PROVED_HELLO_LEN, REFUSAL_LEN, VERSION};
use crate::id::{NetworkId, NodeId};

const PLAINTEXT_MAGIC: [u8; 4] = [0xCC, b'C', b'R', b'P'];
const NOISE_MAGIC: [u8; 4] = [0xCC, b'C', b'R', b'S'];
const SUITE_PLAINTEXT: u8 = 0;
const REFUSAL_MARKER: u8 = 0xFF;

/// The feature bit of a side that understands `GoAway`.
pub(crate) const FEATURE_GO_AWAY: u64 = 1;
/// What this side says that it understands.
pub(crate) const FEATURES: u64 = FEATURE_GO_AWAY;

/// The first eight bytes of each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preamble {
    /// Zero: plaintext. What encrypts otherwise.
    suite: u8,
}

/// What the first eight bytes of the other side turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Preamble,
    /// The first half of a refusal; eight more bytes follow.
    Refusal,
    /// Not this protocol at all: answered with silence.
    WrongMagic,
    /// This protocol, but not as this side speaks it.
    Refused(RefusalCode),
}

impl Preamble {
    pub(crate) const PLAINTEXT: Self = Self { suite: SUITE_PLAINTEXT };

    /// That of an encrypted suite, 1 to 254.
    pub(crate) const fn encrypted(suite: u8) -> Self {
        Self { suite }
    }

    const fn magic(self) -> [u8; 4] {
        if self.suite == SUITE_PLAINTEXT { PLAINTEXT_MAGIC } else { NOISE_MAGIC }
    }

    pub(crate) fn encode(self) -> [u8; PREAMBLE_LEN] {
        let [a, b, c, d] = self.magic();
        [a, b, c, d, VERSION, self.suite, 0, 0]
    }

    /// What the other side's first bytes are to a side that has this preamble.
    pub(crate) fn judge(self, bytes: [u8; PREAMBLE_LEN]) -> Opening {
        let ours = bytes[..4] == self.magic();
        if !ours && bytes[..4] != PLAINTEXT_MAGIC && bytes[..4] != NOISE_MAGIC {
            Opening::WrongMagic
        } else if bytes[5] == REFUSAL_MARKER {
            // Whoever refuses repeats the magic.
            if ours { Opening::Refusal } else { Opening::WrongMagic }
        } else if bytes[4] != VERSION {
            Opening::Refused(RefusalCode::Version)
        } else if !ours || bytes[5] != self.suite {
            Opening::Refused(RefusalCode::Suite)
        } else if bytes[6..] != [0, 0] {
            Opening::Refused(RefusalCode::Malformed)
        } else {
            Opening::Preamble
        }
    }
}

/// Who a side is, and what it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) network: NetworkId,
    /// In plaintext a claim.
    pub(crate) node: NodeId,
    pub(crate) instance: u64,
    pub(crate) features: u64,
    pub(crate) max_message: u32,
    pub(crate) channel: u16,
}

impl Hello {
    pub(crate) fn encode(&self) -> [u8; HELLO_LEN] {
        let mut out = [0; HELLO_LEN];
        out[..32].copy_from_slice(self.network.as_bytes());
        out[32..64].copy_from_slice(self.node.as_bytes());
        out[64..72].copy_from_slice(&self.instance.to_le_bytes());
        out[72..80].copy_from_slice(&self.features.to_le_bytes());
        out[80..84].copy_from_slice(&self.max_message.to_le_bytes());
        out[84..86].copy_from_slice(&self.channel.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Self, RefusalCode> {
        let hello = Self {
            network: NetworkId(field(bytes, 0)),
            node: NodeId(field(bytes, 32)),
            instance: u64::from_le_bytes(field(bytes, 64)),
            features: u64::from_le_bytes(field(bytes, 72)),
            max_message: u32::from_le_bytes(field(bytes, 80)),
            channel: u16::from_le_bytes(field(bytes, 84)),
        };
        if bytes[86..] != [0, 0] || hello.max_message == 0 {
            return Err(RefusalCode::Malformed);
        }
        Ok(hello)
    }

    /// What an encrypted handshake has still to say: network and node are proved by it.
    pub(crate) fn encode_proved(&self) -> [u8; PROVED_HELLO_LEN] {
        *self.encode().last_chunk().expect("the shorter hello is the end of the longer")
    }

    /// From that, and from what the handshake has proved. `None` where a field cannot be.
    pub(crate) fn decode_proved(network: NetworkId, node: NodeId, bytes: &[u8; PROVED_HELLO_LEN]) -> Option<Self> {
        let mut whole = [0; HELLO_LEN];
        whole[HELLO_LEN - PROVED_HELLO_LEN..].copy_from_slice(bytes);
        Self::decode(&whole).ok().map(|hello| Self { network, node, ..hello })
    }
}

/// `N` bytes at a constant offset.
fn field<const N: usize>(bytes: &[u8; HELLO_LEN], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the offsets are constants inside the hello")
}

/// Why an acceptor would not have a dialler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum RefusalCode {
    /// The version is not spoken.
    Version = 1,
    /// The suite is not spoken.
    Suite = 2,
    /// A field that must be zero was not, or one that must not be was.
    Malformed = 3,
    /// The network ids differ.
    WrongNetwork = 4,
    /// The node id is the acceptor's own.
    SelfConnection = 5,
    /// There is already a connection for this node and channel.
    Duplicate = 6,
    /// No room for another peer.
    Full = 7,
    /// The acceptor is going away.
    ShuttingDown = 8,
    /// The first message of the encrypted handshake does not decrypt: another network id, network secret or static key.
    AuthFailed = 9,
    /// The dialler is not allowed there.
    NotAllowed = 10,
    /// A code that this version does not know.
    Unknown = 0xFFFF,
}

impl RefusalCode {
    pub(crate) const fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Suite,
            3 => Self::Malformed,
            4 => Self::WrongNetwork,
            5 => Self::SelfConnection,
            6 => Self::Duplicate,
            7 => Self::Full,
            8 => Self::ShuttingDown,
            9 => Self::AuthFailed,
            10 => Self::NotAllowed,
            _ => Self::Unknown,
        }
    }
}

/// The fixed answer of an acceptor that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: RefusalCode,
    /// Not to dial again sooner; zero: not said.
    pub(crate) delay_ms: u32,
}

impl Refusal {
    /// In answer to what came: with the magic of that, where it is one, so that whoever spoke it understands.
    pub(crate) fn answer(self, ours: Preamble, came: &[u8]) -> [u8; REFUSAL_LEN] {
        let known = came.first_chunk::<4>().filter(|magic| [PLAINTEXT_MAGIC, NOISE_MAGIC].contains(magic));
        self.encode(known.copied().unwrap_or(ours.magic()))
    }

    fn encode(self, magic: [u8; 4]) -> [u8; REFUSAL_LEN] {
        let mut out = [0; REFUSAL_LEN];
        out[..4].copy_from_slice(&magic);
        out[4] = VERSION;
        out[5] = REFUSAL_MARKER;
        out[6..8].copy_from_slice(&(self.code as u16).to_le_bytes());
        out[8] = VERSION;
        out[9] = VERSION;
        out[10..14].copy_from_slice(&self.delay_ms.to_le_bytes());
        out
    }

    /// From bytes whose first eight were recognised by [`Preamble::judge`].
    pub(crate) fn decode(bytes: &[u8; REFUSAL_LEN]) -> Self {
        let [.., c0, c1, _, _, d0, d1, d2, d3, _, _] = *bytes;
        Self { code: RefusalCode::from_wire(u16::from_le_bytes([c0, c1])), delay_ms: u32::from_le_bytes([d0, d1, d2, d3]) }
    }
}

/// Why a side says goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GoodbyeCode {
    /// The application closed the connection.
    Closed = 0,
    /// The engine is shutting down.
    ShuttingDown = 1,
    /// A newer connection took this one's place.
    Replaced = 2,
    /// There is already a connection for this node and channel.
    Duplicate = 3,
    /// The receiver of the goodbye reads too slowly.
    SlowPeer = 4,
    /// The receiver of the goodbye broke a rule; `detail` is its number.
    Violation = 5,
    /// No room for another peer.
    Full = 6,
    /// Nothing was received for the dead time.
    Unresponsive = 7,
    /// The receiver of the goodbye is not allowed there, or not any more.
    NotAllowed = 8,
    /// The two sides are one node.
    SelfConnection = 9,
    /// The receiver of the goodbye sends more than is allowed there.
    RateLimited = 10,
}

/// The last frame of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goodbye {
    pub(crate) code: GoodbyeCode,
    pub(crate) detail: u16,
    /// Not to dial again sooner; zero: not said.
    pub(crate) delay_ms: u32,
}

impl Goodbye {
    pub(crate) fn new(code: GoodbyeCode, detail: u16) -> Self {
        Self { code, detail, delay_ms: 0 }
    }

    pub(crate) fn with_delay(self, delay_ms: u32) -> Self {
        Self { delay_ms, ..self }
    }

    pub(crate) fn encode(self) -> [u8; HEADER_LEN + 8] {
        let mut payload = [0; 8];
        payload[..2].copy_from_slice(&(self.code as u16).to_le_bytes());
        payload[2..4].copy_from_slice(&self.detail.to_le_bytes());
        payload[4..].copy_from_slice(&self.delay_ms.to_le_bytes());
        control_frame(Kind::Goodbye, payload)
    }

    pub(crate) fn decode(payload: [u8; 8]) -> Self {
        let [c0, c1, d0, d1, m0, m1, m2, m3] = payload;
        let code = match u16::from_le_bytes([c0, c1]) {
            1 => GoodbyeCode::ShuttingDown,
            2 => GoodbyeCode::Replaced,
            3 => GoodbyeCode::Duplicate,
            4 => GoodbyeCode::SlowPeer,
            5 => GoodbyeCode::Violation,
            6 => GoodbyeCode::Full,
            7 => GoodbyeCode::Unresponsive,
            8 => GoodbyeCode::NotAllowed,
            9 => GoodbyeCode::SelfConnection,
            10 => GoodbyeCode::RateLimited,
            _ => GoodbyeCode::Closed,
        };
        Self { code, detail: u16::from_le_bytes([d0, d1]), delay_ms: u32::from_le_bytes([m0, m1, m2, m3]) }
    }
}

/// What a side says ahead of its goodbye, to those that understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    /// The goodbye comes after so long.
    pub(crate) within_ms: u32,
    /// Not to dial again sooner than so long after the connection's end; zero: not said.
    pub(crate) delay_ms: u32,
    /// The application's.
    pub(crate) reason: u16,
}

impl GoAway {
    pub(crate) fn encode(self) -> [u8; HEADER_LEN + GO_AWAY_LEN] {
        let mut out = [0; HEADER_LEN + GO_AWAY_LEN];
        out[..HEADER_LEN].copy_from_slice(&Header::control(Kind::GoAway).encode());
        out[8..12].copy_from_slice(&self.within_ms.to_le_bytes());
        out[12..16].copy_from_slice(&self.delay_ms.to_le_bytes());
        out[16..18].copy_from_slice(&self.reason.to_le_bytes());
        out
    }

    pub(crate) fn decode(payload: [u8; GO_AWAY_LEN]) -> Self {
        let [w0, w1, w2, w3, d0, d1, d2, d3, r0, r1, ..] = payload;
        Self {
            within_ms: u32::from_le_bytes([w0, w1, w2, w3]),
            delay_ms: u32::from_le_bytes([d0, d1, d2, d3]),
            reason: u16::from_le_bytes([r0, r1]),
        }
    }
}

/// A whole control frame of 16 bytes: ping, pong, goodbye.
pub(crate) fn control_frame(kind: Kind, payload: [u8; 8]) -> [u8; HEADER_LEN + 8] {
    let mut out = [0; HEADER_LEN + 8];
    out[..HEADER_LEN].copy_from_slice(&Header::control(kind).encode());
    out[HEADER_LEN..].copy_from_slice(&payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello { network: NetworkId([1; 32]), node: NodeId([2; 32]), instance: 3, features: 4, max_message: 5, channel: 6 }
    }

    #[test]
    fn hello_refusal_and_goodbye_survive_the_round_trip() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        assert_eq!(Hello::decode_proved(hello().network, hello().node, &hello().encode_proved()), Some(hello()));
        for code in 1..=10 {
            let refusal = Refusal { code: RefusalCode::from_wire(code), delay_ms: u32::from(code) << 24 | 5 };
            assert_eq!(Refusal::decode(&refusal.encode(PLAINTEXT_MAGIC)), refusal);
        }
        let goodbye = Goodbye { code: GoodbyeCode::Violation, detail: 7, delay_ms: 1000 };
        assert_eq!(Goodbye::decode(*goodbye.encode().last_chunk().unwrap()), goodbye);
        let away = GoAway { within_ms: 0x0403_0201, delay_ms: 0x0807_0605, reason: 0x0A09 };
        assert_eq!(away.encode()[8..], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0]);
        assert_eq!(GoAway::decode(*away.encode().last_chunk().unwrap()), away);
    }

    #[test]
    fn an_opening_is_told_apart_by_magic_then_version_then_suite() {
        let with = |at: usize, byte: u8| {
            let mut bytes = Preamble::PLAINTEXT.encode();
            bytes[at] = byte;
            Preamble::PLAINTEXT.judge(bytes)
        };
        assert_eq!(Preamble::PLAINTEXT.judge(Preamble::PLAINTEXT.encode()), Opening::Preamble);
        assert_eq!(with(0, 0), Opening::WrongMagic);
        assert_eq!(with(4, 2), Opening::Refused(RefusalCode::Version));
        assert_eq!(with(5, 1), Opening::Refused(RefusalCode::Suite));
        assert_eq!(with(5, 255), Opening::Refusal);
        assert_eq!(with(6, 1), Opening::Refused(RefusalCode::Malformed));
    }

    #[test]
    fn encrypted_and_plaintext_refuse_each_other_in_each_others_words() {
        let (open, sealed, other) = (Preamble::PLAINTEXT, Preamble::encrypted(1), Preamble::encrypted(2));
        for (ours, theirs) in [(open, sealed), (sealed, open), (sealed, other)] {
            assert_eq!(ours.judge(theirs.encode()), Opening::Refused(RefusalCode::Suite));
            let refusal = Refusal { code: RefusalCode::Suite, delay_ms: 0 }.answer(ours, &theirs.encode());
            assert_eq!(theirs.judge(*refusal.first_chunk().unwrap()), Opening::Refusal);
        }
        assert_eq!(sealed.judge(sealed.encode()), Opening::Preamble);
        let foreign = Refusal { code: RefusalCode::Suite, delay_ms: 0 }.answer(open, b"HTTP");
        assert_eq!(open.judge(*foreign.first_chunk().unwrap()), Opening::Refusal);
        assert_eq!(sealed.judge(*foreign.first_chunk().unwrap()), Opening::WrongMagic);
    }

    #[test]
    fn a_hello_with_reserved_bytes_or_no_message_length_is_malformed() {
        let mut bytes = hello().encode();
        bytes[87] = 1;
        assert_eq!(Hello::decode(&bytes), Err(RefusalCode::Malformed));
        assert_eq!(Hello::decode_proved(hello().network, hello().node, bytes.last_chunk().unwrap()), None);
        let bytes = Hello { max_message: 0, ..hello() }.encode();
        assert_eq!(Hello::decode(&bytes), Err(RefusalCode::Malformed));
    }
}
