//! The eight bytes in front of every frame.

use super::{HEADER_LEN, MAX_FRAME_PAYLOAD};
use crate::error::DecodeError;

/// A priority class inside a peer's outbox. Order is kept within a lane, not between lanes.
///
/// Where several lanes have something to send, they take turns by deficit round robin: the most urgent first, each up to a quantum of bytes
/// a round. So a message in a lane that was idle leaves after the fragment that is under way, and a lane that never runs empty
/// delays the others without starving them. The engine's own control frames go before all of them.
///
/// The lane travels in the frame, so a relay can keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// First in each round: votes, orders, anything small that must not wait.
    High = 1,
    /// What is not marked otherwise.
    #[default]
    Normal = 2,
    /// Last in each round, and never without its share: blocks, snapshots, history.
    Bulk = 3,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Lane; 3] = [Lane::High, Lane::Normal, Lane::Bulk];

    /// Position in per-lane tables: 0 to 2.
    pub(crate) const fn index(self) -> usize {
        self as usize - 1
    }
}

/// What the sender says about a message besides its body: the application's type, and the lane.
///
/// A plain `u16` converts into the metadata of a message of that type.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The application's message type. corecast gives it no meaning.
    pub message_type: u16,
    /// The lane that the message takes at the sender, and that the receiver is told.
    pub lane: Lane,
    /// Whether `lane` was chosen. Where not, the engine that encodes the message takes the lane that its configuration has for the type.
    chosen: bool,
}

/// Two are equal that mean the same message: how the lane came about is not part of it.
impl PartialEq for Meta {
    fn eq(&self, other: &Self) -> bool {
        (self.message_type, self.lane) == (other.message_type, other.lane)
    }
}

impl Eq for Meta {}

impl std::hash::Hash for Meta {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.message_type, self.lane).hash(state);
    }
}

impl Meta {
    /// A message of `message_type` in the lane that [`crate::Lanes::types`] has for the type: normal, if none.
    #[must_use]
    pub const fn new(message_type: u16) -> Self {
        Self { message_type, lane: Lane::Normal, chosen: false }
    }

    /// The same in this lane, whatever the configuration says.
    #[must_use]
    pub const fn lane(self, lane: Lane) -> Self {
        Self { lane, chosen: true, ..self }
    }

    /// Whether somebody has said which lane it is to be.
    #[inline]
    pub(crate) const fn is_lane_chosen(self) -> bool {
        self.chosen
    }
}

impl From<u16> for Meta {
    fn from(message_type: u16) -> Self {
        Self::new(message_type)
    }
}

/// What a frame is: its number on the wire. Those from 16 on are the engine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// A message, or its first fragment.
    Data = 1,
    /// A request, or its first fragment.
    Request = 2,
    /// A response, or its first fragment.
    Response = 3,
    /// A message goes on.
    Fragment = 4,
    /// A message that is to be acknowledged, or its first fragment.
    Acked = 5,
    /// The end of a handshake.
    Ready = 16,
    /// Whether the other side is there.
    Ping = 17,
    /// It is.
    Pong = 18,
    /// The last frame of a direction.
    Goodbye = 19,
    /// A message was taken.
    Ack = 20,
    /// The sender wants what is published on a topic.
    Subscribe = 21,
    /// It wants that no more.
    Unsubscribe = 22,
    /// The sender will go.
    GoAway = 23,
}

impl Kind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Data,
            2 => Self::Request,
            3 => Self::Response,
            4 => Self::Fragment,
            5 => Self::Acked,
            16 => Self::Ready,
            17 => Self::Ping,
            18 => Self::Pong,
            19 => Self::Goodbye,
            20 => Self::Ack,
            21 => Self::Subscribe,
            22 => Self::Unsubscribe,
            23 => Self::GoAway,
            _ => return None,
        })
    }

    /// Frames of the engine itself: lane 0, no type, a fixed length.
    pub(crate) const fn is_control(self) -> bool {
        self as u8 >= 16
    }

    /// Whether eight bytes stand before the body: a correlation id, or the id of a message that is to be acknowledged.
    pub(crate) const fn has_correlation(self) -> bool {
        matches!(self, Self::Request | Self::Response | Self::Acked)
    }

    /// The shortest payload of a frame that carries (a piece of) a message.
    const fn least_len(self, more: bool) -> u32 {
        let total = if more && !matches!(self, Self::Fragment) { super::TOTAL_LEN } else { 0 };
        let correlation = if self.has_correlation() { super::CORRELATION_LEN } else { 0 };
        (total + correlation) as u32
    }

    const fn control_len(self) -> u32 {
        match self {
            Self::Ping | Self::Pong | Self::Goodbye | Self::Ack | Self::Subscribe | Self::Unsubscribe => 8,
            Self::GoAway => super::GO_AWAY_LEN as u32,
            _ => 0,
        }
    }
}

const LANE_MASK: u8 = 0b11;
const MORE: u8 = 0b100;

/// The shortest payload of a whole message, by kind and lane: more than any frame has where they make none.
const WHOLE: [[u32; 4]; 6] = {
    let mut least = [[u32::MAX; 4]; 6];
    let kinds = [Kind::Data, Kind::Request, Kind::Response, Kind::Acked];
    let mut cell = 0;
    while cell < kinds.len() * Lane::ALL.len() {
        let (kind, lane) = (kinds[cell / Lane::ALL.len()], Lane::ALL[cell % Lane::ALL.len()]);
        least[kind as usize][lane as usize] = kind.least_len(false);
        cell += 1;
    }
    least
};

#[inline]
const fn lane(flags: u8) -> Option<Lane> {
    match flags & LANE_MASK {
        1 => Some(Lane::High),
        2 => Some(Lane::Normal),
        3 => Some(Lane::Bulk),
        _ => None,
    }
}

/// A decoded and checked frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes after the header.
    pub(crate) len: u32,
    pub(crate) kind: Kind,
    /// `None` is the control lane.
    pub(crate) lane: Option<Lane>,
    pub(crate) more: bool,
    pub(crate) message_type: u16,
}

impl Header {
    /// The header of a frame that carries (a piece of) a message.
    pub(crate) fn message(kind: Kind, meta: Meta, more: bool, len: usize) -> Self {
        debug_assert!(!kind.is_control() && len <= MAX_FRAME_PAYLOAD);
        Self { len: len as u32, kind, lane: Some(meta.lane), more, message_type: meta.message_type }
    }

    /// The header of a control frame.
    pub(crate) fn control(kind: Kind) -> Self {
        debug_assert!(kind.is_control());
        Self { len: kind.control_len(), kind, lane: None, more: false, message_type: 0 }
    }

    #[inline]
    pub(crate) fn encode(self) -> [u8; HEADER_LEN] {
        let len = self.len.to_le_bytes();
        let [low, high] = self.message_type.to_le_bytes();
        let flags = self.lane.map_or(0, |lane| lane as u8) | if self.more { MORE } else { 0 };
        [len[0], len[1], len[2], len[3], self.kind as u8, flags, low, high]
    }

    /// The header of a whole message that breaks no rule, which nearly every frame is: one look into a table. Nothing where it is another.
    // Always: nothing is left of the struct where this is.
    #[inline(always)]
    pub(crate) fn decode_whole(bytes: [u8; HEADER_LEN]) -> Option<Self> {
        let [l0, l1, l2, l3, kind, flags, t0, t1] = bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let least = *WHOLE.get(kind as usize)?.get(flags as usize)?;
        if !(least..=MAX_FRAME_PAYLOAD as u32).contains(&len) {
            return None;
        }
        let (kind, lane) = (Kind::from_byte(kind)?, lane(flags));
        Some(Self { len, kind, lane, more: false, message_type: u16::from_le_bytes([t0, t1]) })
    }

    /// Checks everything that a header alone can break, the length first.
    #[inline]
    pub(crate) fn decode(bytes: [u8; HEADER_LEN]) -> Result<Self, DecodeError> {
        let [l0, l1, l2, l3, kind, flags, t0, t1] = bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > MAX_FRAME_PAYLOAD {
            return Err(DecodeError::FrameTooLong { len });
        }
        let kind = Kind::from_byte(kind).ok_or(DecodeError::UnknownKind { kind })?;
        if flags & !(LANE_MASK | MORE) != 0 {
            return Err(DecodeError::UnknownFlags { flags });
        }
        let header = Self { len, kind, lane: lane(flags), more: flags & MORE != 0, message_type: u16::from_le_bytes([t0, t1]) };
        if kind.is_control() { header.check_control() } else { header.check_message() }
    }

    fn check_control(self) -> Result<Self, DecodeError> {
        if self.lane.is_some() || self.more || self.message_type != 0 {
            return Err(DecodeError::WrongLane { kind: self.kind as u8 });
        }
        if self.len != self.kind.control_len() {
            return Err(DecodeError::WrongLength { kind: self.kind as u8, len: self.len });
        }
        Ok(self)
    }

    fn check_message(self) -> Result<Self, DecodeError> {
        if self.lane.is_none() {
            return Err(DecodeError::WrongLane { kind: self.kind as u8 });
        }
        if self.len < self.kind.least_len(self.more) {
            return Err(DecodeError::WrongLength { kind: self.kind as u8, len: self.len });
        }
        Ok(self)
    }

    /// How many bytes the whole frame has, from a header that this side encoded or checked before.
    #[inline]
    pub(crate) fn frame_len(header: &[u8]) -> usize {
        HEADER_LEN + u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_header_survives_the_round_trip() {
        for kind in [Kind::Data, Kind::Request, Kind::Response, Kind::Fragment, Kind::Acked] {
            for lane in Lane::ALL {
                for more in [false, true] {
                    let header = Header::message(kind, Meta::new(0xBEEF).lane(lane), more, 1234);
                    assert_eq!(Header::decode(header.encode()), Ok(header));
                }
            }
        }
        for kind in [Kind::Ready, Kind::Ping, Kind::Pong, Kind::Goodbye, Kind::Ack, Kind::Subscribe, Kind::Unsubscribe, Kind::GoAway] {
            assert_eq!(Header::decode(Header::control(kind).encode()), Ok(Header::control(kind)));
        }
    }

    #[test]
    fn the_table_has_whole_messages_that_break_no_rule_and_nothing_else() {
        for (kind, flags) in (0..=255).flat_map(|kind| (0..=255).map(move |flags| (kind, flags))) {
            for len in [0, 3, 4, 7, 8, 11, 12, 16, MAX_FRAME_PAYLOAD as u32, MAX_FRAME_PAYLOAD as u32 + 1, u32::MAX] {
                for message_type in [0_u16, 0xBEEF] {
                    let ([l0, l1, l2, l3], [t0, t1]) = (len.to_le_bytes(), message_type.to_le_bytes());
                    let bytes = [l0, l1, l2, l3, kind, flags, t0, t1];
                    let by_rule = Header::decode(bytes).ok();
                    let whole = by_rule.filter(|header| !header.kind.is_control() && !header.more && header.kind != Kind::Fragment);
                    assert_eq!(Header::decode_whole(bytes), whole, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn each_broken_rule_has_its_own_error() {
        let good = Header::message(Kind::Request, Meta::new(1), false, 8).encode();
        let broken = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            Header::decode(bytes)
        };
        assert_eq!(broken(3, 1), Err(DecodeError::FrameTooLong { len: 0x0100_0008 }));
        assert_eq!(broken(4, 6), Err(DecodeError::UnknownKind { kind: 6 }));
        assert_eq!(broken(5, 0x0A), Err(DecodeError::UnknownFlags { flags: 0x0A }));
        assert_eq!(broken(5, 0), Err(DecodeError::WrongLane { kind: 2 }));
        assert_eq!(broken(0, 7), Err(DecodeError::WrongLength { kind: 2, len: 7 }));
        let mut ping = Header::control(Kind::Ping).encode();
        ping[0] = 9;
        assert_eq!(Header::decode(ping), Err(DecodeError::WrongLength { kind: 17, len: 9 }));
        ping[0] = 8;
        ping[6] = 1;
        assert_eq!(Header::decode(ping), Err(DecodeError::WrongLane { kind: 17 }));
    }

    #[test]
    fn the_longest_frame_is_accepted_and_one_byte_more_is_not() {
        let mut bytes = Header::message(Kind::Data, Meta::new(0), false, MAX_FRAME_PAYLOAD).encode();
        assert!(Header::decode(bytes).is_ok());
        bytes[0] = 1;
        assert_eq!(Header::decode(bytes), Err(DecodeError::FrameTooLong { len: 32769 }));
    }
}
