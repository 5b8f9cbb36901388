//! `WIRE.md` by hand: greetings, refusals and frames, right or wrong.

/// Kind of a message.
pub const DATA: u8 = 1;
/// Kind of a request.
pub const REQUEST: u8 = 2;
/// Kind of a response.
pub const RESPONSE: u8 = 3;
/// Kind of a later fragment.
pub const FRAGMENT: u8 = 4;
/// Kind of a message that asks for an acknowledgement.
pub const ACKED: u8 = 5;
/// Kind of the frame that ends the handshake.
pub const READY: u8 = 16;
/// Kind of a ping.
pub const PING: u8 = 17;
/// Kind of its answer.
pub const PONG: u8 = 18;
/// Kind of a farewell.
pub const GOODBYE: u8 = 19;
/// Kind of an acknowledgement.
pub const ACK: u8 = 20;
/// Kind of a wish for a topic.
pub const SUBSCRIBE: u8 = 21;
/// Kind of its end.
pub const UNSUBSCRIBE: u8 = 22;

/// Lane for what is urgent.
pub const HIGH: u8 = 1;
/// Lane for messages.
pub const NORMAL: u8 = 2;
/// Lane for large messages.
pub const BULK: u8 = 3;
/// Flag: more fragments follow.
pub const MORE: u8 = 4;

/// Code of a farewell: a rule was broken, its number is the detail.
pub const VIOLATION: u16 = 5;

/// Longest frame, after its header.
pub const MAX_FRAME: usize = 32_768;

/// Magic of plaintext.
pub const MAGIC_PLAINTEXT: [u8; 4] = [0xCC, 0x43, 0x52, 0x50];
/// Magic of encrypted connections.
pub const MAGIC_NOISE: [u8; 4] = [0xCC, 0x43, 0x52, 0x53];

/// The first eight bytes in plaintext.
pub const PREAMBLE: [u8; 8] = [0xCC, 0x43, 0x52, 0x50, 1, 0, 0, 0];

/// What a side says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Both sides must have the same.
    pub network: [u8; 32],
    /// Who it says it is; encrypted, it is the key that says so.
    pub node: [u8; 32],
    /// Drawn at its start.
    pub instance: u64,
    /// Longest message it takes.
    pub max_message: u32,
    /// Which of several connections.
    pub channel: u16,
}

impl Hello {
    /// A node whose id begins with this number.
    #[must_use]
    pub fn node(number: u32) -> Self {
        let mut node = [0xA5; 32];
        node[..4].copy_from_slice(&number.to_be_bytes());
        Self { network: [0; 32], node, instance: 7, max_message: 1 << 20, channel: 0 }
    }

    /// The 88 bytes of plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.network[..], &self.node, &self.encode_sealed()].concat()
    }

    /// The 24 bytes of it that an encrypted handshake has.
    #[must_use]
    pub fn encode_sealed(&self) -> [u8; 24] {
        let mut out = [0; 24];
        out[..8].copy_from_slice(&self.instance.to_le_bytes());
        out[16..20].copy_from_slice(&self.max_message.to_le_bytes());
        out[20..22].copy_from_slice(&self.channel.to_le_bytes());
        out
    }

    /// Preamble and hello of plaintext, 96 bytes.
    #[must_use]
    pub fn greeting(&self) -> Vec<u8> {
        [&PREAMBLE[..], &self.encode()].concat()
    }

    /// From 88 bytes; `None` where what must be zero is not.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let network = bytes.get(..32)?.try_into().ok()?;
        let node = bytes.get(32..64)?.try_into().ok()?;
        Some(Self { network, node, ..Self::decode_sealed(bytes.get(64..)?)? })
    }

    /// From 24 bytes; network and node are left zero.
    #[must_use]
    pub fn decode_sealed(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 24] = bytes.try_into().ok()?;
        (bytes[22..] == [0, 0]).then_some(Self {
            network: [0; 32],
            node: [0; 32],
            instance: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            max_message: u32::from_le_bytes(bytes[16..20].try_into().ok()?),
            channel: u16::from_le_bytes([bytes[20], bytes[21]]),
        })
    }
}

/// The 16 bytes with which an acceptor of plaintext refuses.
#[must_use]
pub fn refusal(code: u16) -> [u8; 16] {
    refusal_with(MAGIC_PLAINTEXT, code)
}

/// The same with either magic.
#[must_use]
pub fn refusal_with(magic: [u8; 4], code: u16) -> [u8; 16] {
    let [low, high] = code.to_le_bytes();
    let [m0, m1, m2, m3] = magic;
    [m0, m1, m2, m3, 1, 255, low, high, 1, 1, 0, 0, 0, 0, 0, 0]
}

/// The code of a refusal, if these bytes are one.
#[must_use]
pub fn refusal_code(bytes: &[u8]) -> Option<u16> {
    let known = bytes.len() == 16 && (bytes[..4] == MAGIC_PLAINTEXT || bytes[..4] == MAGIC_NOISE) && bytes[5] == 255;
    known.then(|| u16::from_le_bytes([bytes[6], bytes[7]]))
}

/// The eight bytes before a frame; the length is whatever is claimed.
#[must_use]
pub fn header(len: u32, kind: u8, flags: u8, message_type: u16) -> Vec<u8> {
    let mut out = len.to_le_bytes().to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&message_type.to_le_bytes());
    out
}

/// One frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, message_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = header(payload.len() as u32, kind, flags, message_type);
    out.extend_from_slice(payload);
    out
}

/// The frame that ends the handshake.
#[must_use]
pub fn ready() -> Vec<u8> {
    header(0, READY, 0, 0)
}

/// A message in the normal lane, in one frame.
#[must_use]
pub fn data(message_type: u16, body: &[u8]) -> Vec<u8> {
    frame(DATA, NORMAL, message_type, body)
}

/// The first fragment of a longer message.
#[must_use]
pub fn first(lane: u8, message_type: u16, total: u32, body: &[u8]) -> Vec<u8> {
    frame(DATA, lane | MORE, message_type, &[&total.to_le_bytes(), body].concat())
}

/// A control frame with eight bytes of payload.
#[must_use]
pub fn control(kind: u8, payload: u64) -> Vec<u8> {
    frame(kind, 0, 0, &payload.to_le_bytes())
}

/// A farewell.
#[must_use]
pub fn goodbye(code: u16, detail: u16) -> Vec<u8> {
    let [c0, c1] = code.to_le_bytes();
    let [d0, d1] = detail.to_le_bytes();
    frame(GOODBYE, 0, 0, &[c0, c1, d0, d1, 0, 0, 0, 0])
}

/// A message to be acknowledged, in the normal lane.
#[must_use]
pub fn acked(message_type: u16, id: u64, body: &[u8]) -> Vec<u8> {
    frame(ACKED, NORMAL, message_type, &[&id.to_le_bytes(), body].concat())
}
