//! Typed messages.
//!
//! The engine moves bytes; a codec turns values into bytes and back. It never touches the framing, and every codec here has a size limit
//! and insists that all bytes are used.
//!
//! Two paths lead to bincode 2, the default: its own derive ([`Bincode`]) and serde ([`BincodeSerde`]). For collections of byte
//! vectors the derive path is about sixteen times faster (measured: 500 transactions of 200 B in 3.4 us against 56 us), because serde
//! visits every byte; `serde_bytes` closes the gap.
//!
//! **What is safe to decode from a stranger.** The limit bounds what a length prefix can allocate. It does not bound recursion (a deeply
//! nested type of 20 KB overflows a 2 MiB stack) nor collections of zero-sized elements (nine bytes can claim 2^60 of them):
//! do not put either into a message type.

use std::cell::RefCell;
use std::fmt;

use crate::wire::{Frame, FrameError, Lane, MAX_MESSAGE, Meta};

/// Why a value could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// The value cannot be encoded.
    Encode,
    /// The bytes are no such value, or would need more memory than the limit.
    Decode,
    /// The value ended before the bytes did.
    TrailingBytes {
        /// Bytes left over.
        left: usize,
    },
    /// The encoded value is too long.
    TooLong(FrameError),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encode => f.write_str("the value cannot be encoded"),
            Self::Decode => f.write_str("the bytes are not a value of this type"),
            Self::TrailingBytes { left } => write!(f, "{left} bytes follow the value"),
            Self::TooLong(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CodecError {}

/// Turns values of `T` into bytes and back.
pub trait Codec<T> {
    /// Appends the encoded value to `out`.
    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;
    /// The value that `bytes`, all of them, encode.
    fn decode(bytes: &[u8]) -> Result<T, CodecError>;
}

/// A type that is sent as a message: its type number, its lane, and its codec.
///
/// ```
/// use corecast::{Bincode, Frame, Lane, Typed};
///
/// #[derive(bincode::Encode, bincode::Decode)]
/// struct Vote { height: u64, hash: [u8; 32] }
///
/// impl Typed for Vote {
///     const TYPE: u16 = 7;
///     const LANE: Option<Lane> = Some(Lane::High);
///     type Codec = Bincode;
/// }
///
/// let frame = Frame::typed(&Vote { height: 1, hash: [0; 32] })?;
/// assert_eq!(frame.meta().message_type, 7);
/// # Ok::<(), corecast::CodecError>(())
/// ```
pub trait Typed: Sized {
    /// The message type on the wire.
    const TYPE: u16;
    /// The lane it is sent in. Default: `None`, the lane that [`crate::Lanes::types`] has for the type.
    const LANE: Option<Lane> = None;
    /// How it becomes bytes.
    type Codec: Codec<Self>;

    /// Type and lane.
    #[must_use]
    fn meta() -> Meta {
        let meta = Meta::new(Self::TYPE);
        Self::LANE.map_or(meta, |lane| meta.lane(lane))
    }

    /// The value that `bytes`, all of them, encode.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::Codec::decode(bytes)
    }
}

/// bincode 2 with its own derive, fixed-width little-endian integers, at most 16 MiB.
#[derive(Debug)]
pub struct Bincode;

/// bincode 2 through serde, fixed-width little-endian integers, at most 16 MiB.
#[derive(Debug)]
pub struct BincodeSerde;

/// Fixed-width integers: one encoding for each value, and half the time of variable ones.
const FORMAT: bincode::config::Configuration<bincode::config::LittleEndian, bincode::config::Fixint, bincode::config::Limit<MAX_MESSAGE>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX_MESSAGE>();

impl<T: bincode::Encode + bincode::Decode<()>> Codec<T> for Bincode {
    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        bincode::encode_into_std_write(value, out, FORMAT).map(drop).map_err(|_| CodecError::Encode)
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        whole(bytes, bincode::decode_from_slice(bytes, FORMAT))
    }
}

impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for BincodeSerde {
    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        bincode::serde::encode_into_std_write(value, out, FORMAT).map(drop).map_err(|_| CodecError::Encode)
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        whole(bytes, bincode::serde::decode_from_slice(bytes, FORMAT))
    }
}

fn whole<T>(bytes: &[u8], decoded: Result<(T, usize), bincode::error::DecodeError>) -> Result<T, CodecError> {
    match decoded {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(CodecError::TrailingBytes { left: bytes.len() - used }),
        Err(_) => Err(CodecError::Decode),
    }
}

thread_local! {
    /// Values are encoded here first, since their length is not known before; it grows once and stays.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Encodes a value and gives its bytes to `use_bytes`. Allocates nothing once warm.
pub(crate) fn encode_with<M: Typed, R>(message: &M, use_bytes: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
    // Taken out rather than borrowed: an encoder may itself encode.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let result = M::Codec::encode(message, &mut scratch).map(|()| use_bytes(&scratch));
    SCRATCH.set(scratch);
    result
}

impl Frame {
    /// Encodes a typed message once, to be sent many times. In the lane that the type chooses, or in the normal one:
    /// [`crate::Context::frame_typed`] and [`crate::Handle::frame_typed`] know what the configuration has for it.
    pub fn typed<M: Typed>(message: &M) -> Result<Self, CodecError> {
        encode_with(message, |body| Frame::new(M::meta(), body))?.map_err(CodecError::TooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize)]
    struct Block {
        height: u64,
        transactions: Vec<Vec<u8>>,
    }

    fn block() -> Block {
        Block { height: 7, transactions: vec![vec![1, 2, 3], vec![], vec![9; 200]] }
    }

    fn round_trip<C: Codec<Block>>() -> Vec<u8> {
        let mut bytes = Vec::new();
        C::encode(&block(), &mut bytes).unwrap();
        assert_eq!(C::decode(&bytes), Ok(block()));
        bytes.push(0);
        assert_eq!(C::decode(&bytes), Err(CodecError::TrailingBytes { left: 1 }));
        bytes.pop();
        assert_eq!(C::decode(&bytes[..bytes.len() - 1]), Err(CodecError::Decode));
        bytes
    }

    #[test]
    fn both_paths_round_trip_and_write_the_same_bytes() {
        assert_eq!(round_trip::<Bincode>(), round_trip::<BincodeSerde>());
    }

    #[test]
    fn a_lying_length_allocates_nothing() {
        let mut bytes = 7u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert_eq!(<Bincode as Codec<Block>>::decode(&bytes), Err(CodecError::Decode));
        assert_eq!(<BincodeSerde as Codec<Block>>::decode(&bytes), Err(CodecError::Decode));
    }
}
