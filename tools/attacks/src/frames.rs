//! Established peers that break the rules of frames, or keep to them beyond all measure.

use std::io;
use std::time::{Duration, Instant};

use crate::peer::{Failure, Peer};
use crate::report::Report;
use crate::target::{Scale, Target, Who};
use crate::wire::{
    DATA, FRAGMENT, MAX_FRAME, MORE, NORMAL, PING, PONG, READY, RESPONSE, acked, control, data, first, frame, header, ready,
};

/// What must not be said, each with the rule that it breaks (WIRE.md, 6).
pub fn forbidden() -> Vec<(&'static str, Vec<u8>, u16)> {
    let one = |text, bytes, rule| (text, bytes, rule);
    vec![
        one("a frame of 4 GiB", header(u32::MAX, DATA, NORMAL, 1), 1),
        one("a frame one byte too long", header(MAX_FRAME as u32 + 1, DATA, NORMAL, 1), 1),
        one("a kind that is none", header(0, 99, NORMAL, 1), 2),
        one("a flag that is none", header(0, DATA, 0x80 | NORMAL, 1), 3),
        one("a message in the control lane", header(0, DATA, 0, 1), 4),
        one("a ping in a message lane", frame(PING, NORMAL, 0, &[0; 8]), 4),
        one("a ping of seven bytes", header(7, PING, 0, 0), 5),
        one("a message of 4 GiB", first(NORMAL, 1, u32::MAX, &[0; 100]), 6),
        one("a message of one byte more than may be", first(NORMAL, 1, (1 << 20) + 1, &[0; 100]), 6),
        one("a fragment of nothing", frame(FRAGMENT, NORMAL, 1, &[0; 10]), 7),
        one("a message in the middle of another", [first(NORMAL, 1, 5000, &[0; 100]), data(1, b"x")].concat(), 8),
        one("a fragment too many", [first(NORMAL, 1, 150, &[0; 100]), frame(FRAGMENT, NORMAL, 1, &[0; 51])].concat(), 9),
        one("a fragment too few", [first(NORMAL, 1, 5000, &[0; 100]), frame(FRAGMENT, NORMAL, 1, &[0; 10])].concat(), 10),
        one("an empty fragment", [first(NORMAL, 1, 5000, &[0; 100]), frame(FRAGMENT, NORMAL | MORE, 1, &[])].concat(), 10),
        one("a pong to no ping", control(PONG, 7), 11),
        one("a response to no request", frame(RESPONSE, NORMAL, 1, &[0; 8]), 12),
        one("another Ready", ready(), 14),
        one("a Ready with something in it", header(1, READY, 0, 0), 5),
        one("an acknowledgement of nothing", control(crate::wire::ACK, 1), 16),
    ]
}

/// An established peer that says one thing and then reads to the end: what it was told.
pub fn say(target: &Target, who: &Who, bytes: &[u8]) -> Result<Failure, Failure> {
    let mut peer = Peer::dial(target, who)?;
    peer.send(bytes)?;
    Ok(peer.farewell())
}

/// Everything that is forbidden, by one peer after the other.
#[must_use]
pub fn forbidden_everything(target: &Target, scale: &Scale) -> Report {
    let mut report = Report::default();
    for round in 0..scale.count {
        for (index, (_, bytes, _)) in forbidden().into_iter().enumerate() {
            report.attempts += 1;
            let number = 10_000 + round * 100 + index as u64;
            match say(target, &Who::numbered(number, scale.sources.next()), &bytes) {
                Ok(failure) => {
                    report.established += 1;
                    report.failure(&failure);
                }
                Err(failure) => report.failure(&failure),
            }
        }
    }
    report
}

/// Pings, as many as `count`, as fast as they are taken. Returns how many were sent before the end, and what that was.
pub fn pings(peer: &mut Peer, count: u64) -> (u64, Failure) {
    let mut sent = 0;
    while sent < count {
        let batch: Vec<u8> = (sent..(sent + 1000).min(count)).flat_map(|nonce| control(PING, nonce)).collect();
        sent += 1000;
        // Cut off: what was said about it is read below.
        if peer.send(&batch).is_err() {
            break;
        }
    }
    (sent.min(count), peer.farewell())
}

/// Messages without a body, `count` of them, in as few writes as possible. What comes back is not read here.
pub fn empty_messages(peer: &mut Peer, message_type: u16, count: u64) -> io::Result<()> {
    let batch = data(message_type, b"").repeat(1000);
    for _ in 0..count / 1000 {
        peer.send(&batch)?;
    }
    peer.send(&data(message_type, b"").repeat((count % 1000) as usize))
}

/// The bytes of these frames, each in a segment of its own: no more than one byte is ever on its way to the kernel at once.
pub fn byte_by_byte(peer: &mut Peer, frames: &[u8]) -> io::Result<()> {
    let sealed = peer.seal(frames);
    for byte in sealed {
        peer.link.send(&[byte])?;
    }
    Ok(())
}

/// Peers that each begin a message and do not go on. They are held.
pub fn halves(target: &Target, scale: &Scale) -> (Vec<Peer>, Report) {
    let (mut held, mut report) = (Vec::new(), Report::default());
    for number in 0..scale.connections as u64 {
        match Peer::dial(target, &Who::numbered(20_000 + number, scale.sources.next())) {
            Ok(mut peer) => {
                report.established += 1;
                if peer.half_a_frame().is_ok() {
                    held.push(peer);
                }
            }
            Err(failure) => report.failure(&failure),
        }
    }
    (held, report)
}

/// Acknowledged messages with ids that were never there before, so that the other side has as much to remember as it wants to.
pub fn made_up_ids(peer: &mut Peer, count: u64) -> io::Result<()> {
    for begin in (0..count).step_by(500) {
        let batch: Vec<u8> = (begin..(begin + 500).min(count)).flat_map(|id| acked(1, id * 7919 + 1, b"")).collect();
        peer.send(&batch)?;
    }
    Ok(())
}

/// Subscribes to one topic after the other until it is cut off. What it was told.
pub fn topics_without_end(peer: &mut Peer, most: u64) -> Failure {
    for topic in 0..most {
        if peer.send(&control(crate::wire::SUBSCRIBE, topic)).is_err() {
            break;
        }
    }
    peer.farewell()
}

/// Peers that send messages of this length, again and again, and never read, for so long. Those that are cut off fall silent. Returns the
/// bytes that were taken.
pub fn send_and_never_read(peers: &mut [Peer], body: usize, lasting: Duration) -> u64 {
    let (deadline, mut taken) = (Instant::now() + lasting, 0);
    let message = long_message(body);
    let mut rests: Vec<Option<Vec<u8>>> = peers.iter().map(|_| Some(Vec::new())).collect();
    while Instant::now() < deadline {
        let before = taken;
        for (peer, rest) in peers.iter_mut().zip(&mut rests) {
            let Some(bytes) = rest else { continue };
            if bytes.is_empty() {
                *bytes = peer.seal(&message);
            }
            match peer.link.send_some(bytes) {
                Ok(some) => {
                    taken += some as u64;
                    bytes.drain(..some);
                }
                Err(_) => *rest = None,
            }
        }
        if taken == before {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    taken
}

/// A message of this length, in fragments of 16 KiB.
#[must_use]
pub fn long_message(body: usize) -> Vec<u8> {
    const CUT: usize = 16 << 10;
    if body <= CUT {
        return data(1, &vec![0; body]);
    }
    let mut out = first(NORMAL, 1, body as u32, &vec![0; CUT - 4]);
    let mut left = body - (CUT - 4);
    while left > 0 {
        let now = left.min(CUT);
        left -= now;
        out.extend(frame(FRAGMENT, if left > 0 { NORMAL | MORE } else { NORMAL }, 1, &vec![0; now]));
    }
    out
}
