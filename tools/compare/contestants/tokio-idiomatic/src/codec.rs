//! The frames of WIRE.md for tokio-util's `Framed`.

use std::io;

use bytes::{Bytes, BytesMut};
use contestant::frames::{self, Kind};
use contestant::session::Ending;
use tokio_util::codec::{Decoder, Encoder};

/// A whole frame, with its header.
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) bytes: Bytes,
}

/// Why a connection ends.
pub(crate) enum Error {
    Io(io::Error),
    /// With last words for the peer.
    Protocol(Ending),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

impl From<Ending> for Error {
    fn from(ending: Ending) -> Self {
        Error::Protocol(ending)
    }
}

pub(crate) struct WireCodec;

impl Decoder for WireCodec {
    type Item = Frame;
    type Error = Error;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Error> {
        let Some((len, kind)) = frames::first(input)? else { return Ok(None) };
        Ok(Some(Frame { kind, bytes: input.split_to(len).freeze() }))
    }
}

impl Encoder<Bytes> for WireCodec {
    type Error = Error;

    fn encode(&mut self, frame: Bytes, output: &mut BytesMut) -> Result<(), Error> {
        output.extend_from_slice(&frame);
        Ok(())
    }
}
