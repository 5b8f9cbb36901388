//! Frames of WIRE.md: how long the next one is, and what it is. Messages are passed on as they came, so nobody looks into them.

use crate::session::Ending;
use crate::wire::{self, Header};

/// What a whole frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message, or a part of one.
    Message,
    /// The last word of the dialler's handshake.
    Ready,
    /// To be answered with [`pong`].
    Ping,
    /// Its sender is going; what comes after it does not count.
    Goodbye,
    /// A request or a response: no one here answers them.
    Skipped,
}

/// The most bytes that a frame has, with its header.
pub const MAX_LEN: usize = wire::HEADER_LEN + wire::MAX_FRAME_LEN;

/// The first frame in `bytes`, if it is whole: how many bytes it has, header included, and what it is.
#[inline]
pub fn first(bytes: &[u8]) -> Result<Option<(usize, Kind)>, Ending> {
    let Some(header) = Header::read(bytes) else { return Ok(None) };
    header.check()?;
    let len = wire::HEADER_LEN + header.length();
    if len > bytes.len() {
        return Ok(None);
    }
    let kind = match header.kind() {
        wire::DATA | wire::FRAGMENT => Kind::Message,
        wire::READY => Kind::Ready,
        wire::PING => Kind::Ping,
        wire::GOODBYE => Kind::Goodbye,
        // No one here sends a ping.
        wire::PONG => return Err(wire::UNSOLICITED_PONG.into()),
        _ => Kind::Skipped,
    };
    Ok(Some((len, kind)))
}

/// The answer to a whole ping.
pub fn pong(ping: &[u8]) -> Vec<u8> {
    let nonce = ping[wire::HEADER_LEN..].try_into().expect("the length of a ping was checked");
    wire::control(wire::PONG, nonce).to_vec()
}

/// The frames of a run, which has nothing but whole ones in it.
pub fn each(run: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = run;
    std::iter::from_fn(move || {
        let len = wire::HEADER_LEN + Header::read(rest)?.length();
        let (frame, after) = rest.split_at(len);
        rest = after;
        Some(frame)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_when_it_is_whole() {
        let frame = [Header::new(3, wire::DATA, wire::NORMAL_LANE, 7).to_bytes().as_slice(), b"abc"].concat();
        for cut in 0..frame.len() {
            assert!(first(&frame[..cut]).unwrap().is_none(), "{cut} bytes");
        }
        assert_eq!(first(&[frame.as_slice(), b"more"].concat()).unwrap(), Some((frame.len(), Kind::Message)));
        assert_eq!(first(&wire::ready()).unwrap(), Some((8, Kind::Ready)));
        assert!(first(&wire::control(wire::PONG, [0; 8])).is_err());
        assert!(first(&[0xFF; 8]).is_err(), "too long, and said before the rest is there");
    }

    #[test]
    fn a_run_falls_into_its_frames() {
        let frame = |body: &[u8]| [Header::new(body.len(), wire::DATA, wire::NORMAL_LANE, 7).to_bytes().as_slice(), body].concat();
        let run = [frame(b"one"), frame(b""), frame(b"three")].concat();
        assert_eq!(each(&run).collect::<Vec<_>>(), [frame(b"one"), frame(b""), frame(b"three")]);
    }
}
