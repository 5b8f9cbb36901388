//! Bytes to frames and back.
//!
//! This module owns the format that [`WIRE.md`](https://docs.rs/crate/corecast/latest/source/src/wire/WIRE.md) specifies: the
//! fixed header, control payloads, preamble and hello, the shared [`Frame`] and the decoder. It knows no peers and no time: what a
//! frame *means* is decided in `proto`.

mod decoder;
mod frame;
mod header;
mod hello;

pub(crate) use decoder::{FrameDecoder, FrameRef};
pub(crate) use frame::{Draft, append_message, frame_left, message_wire_len};
pub use frame::{Frame, FrameError};
pub(crate) use header::Header;
pub use header::{Kind, Lane, Meta};
pub(crate) use hello::{FEATURE_GO_AWAY, FEATURES, GoAway, Goodbye, Hello, Opening, Preamble, Refusal, control_frame};
pub use hello::{GoodbyeCode, RefusalCode};
pub(crate) use limits::*;

/// The numbers of the format, and the relations between them.
mod limits {
    /// Bytes of a frame header.
    pub(crate) const HEADER_LEN: usize = 8;
    /// Most bytes that may follow a header. Two default fragments, so that a peer may tune its cut without asking.
    pub(crate) const MAX_FRAME_PAYLOAD: usize = 32 * 1024;
    /// Where a sender cuts by default, in bytes after the header.
    pub(crate) const DEFAULT_FRAGMENT: usize = 16 * 1024;
    /// The smallest cut that `Config` allows: below it the headers weigh more than a percent.
    pub(crate) const MIN_FRAGMENT: usize = 1024;
    /// The longest message there is, whatever the configuration says.
    pub(crate) const MAX_MESSAGE: usize = 16 * 1024 * 1024;
    /// The `total` that stands before the first fragment's body.
    pub(crate) const TOTAL_LEN: usize = 4;
    /// The correlation id of requests and responses, and the id of messages that are acknowledged.
    pub(crate) const CORRELATION_LEN: usize = 8;
    /// Version, spoken and accepted.
    pub(crate) const VERSION: u8 = 1;
    pub(crate) const PREAMBLE_LEN: usize = 8;
    pub(crate) const HELLO_LEN: usize = 88;
    /// What an encrypted handshake does not prove of a hello.
    pub(crate) const PROVED_HELLO_LEN: usize = 24;
    pub(crate) const REFUSAL_LEN: usize = 16;
    /// What is in a `GoAway` frame.
    pub(crate) const GO_AWAY_LEN: usize = 12;

    const _: () = assert!(DEFAULT_FRAGMENT <= MAX_FRAME_PAYLOAD);
    const _: () = assert!(MIN_FRAGMENT > TOTAL_LEN + CORRELATION_LEN);
    const _: () = assert!(MAX_MESSAGE <= u32::MAX as usize);
    // A handshake never needs more than this, whoever sends it.
    const _: () = assert!(PREAMBLE_LEN + HELLO_LEN <= 512);
}
