//! Records of an established peer that are not what they should be. Encrypted sessions only.

use std::io;

use crate::peer::{Failure, Peer};
use crate::report::Report;
use crate::target::{Scale, Target, Who};
use crate::wire::data;

/// What is done to the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// This bit of the record after its length is flipped.
    Flip(usize),
    /// One comes twice.
    Repeat,
    /// Two come in the wrong order.
    Swap,
    /// One is left out.
    Skip,
    /// One ends early, and another follows.
    Cut,
    /// The length says one byte less than there is.
    Short,
    /// A length under 17.
    TooShort(u16),
    /// The key is changed before it is time.
    EarlyRekey,
    /// A record of another session with the same engine, in its turn.
    Foreign,
    /// A record that the engine itself sent, back to it.
    Reflect,
}

/// The body of the message that a tampered record would have carried: it must not arrive.
pub const FORGED: &[u8] = b"forged";

impl Tamper {
    /// All of them; flips of the first and last bit of the ciphertext and of the tag.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let bits = 8 * (8 + FORGED.len());
        let mut all: Vec<Self> = [0, bits - 1, bits, bits + 127].map(Self::Flip).to_vec();
        all.extend([Self::Repeat, Self::Swap, Self::Skip, Self::Cut, Self::Short, Self::EarlyRekey, Self::Foreign, Self::Reflect]);
        all.extend([0, 1, 15, 16].map(Self::TooShort));
        all
    }

    /// The rule that it breaks.
    #[must_use]
    pub fn rule(self) -> u16 {
        if matches!(self, Self::TooShort(_)) { 19 } else { 18 }
    }

    /// How many messages arrive before the engine sees it.
    #[must_use]
    pub fn harmless(self) -> u64 {
        u64::from(matches!(self, Self::Repeat))
    }
}

/// Tampers with what an established peer sends next. `other` is another session with the same engine, for [`Tamper::Foreign`]; the peer
/// must have had one echo for [`Tamper::Reflect`].
pub fn tamper(peer: &mut Peer, how: Tamper, other: Option<&mut Peer>) -> io::Result<()> {
    let message = data(1, FORGED);
    let bytes = match how {
        Tamper::Flip(bit) => {
            let mut record = peer.seal(&message);
            record[2 + bit / 8] ^= 1 << (bit % 8);
            record
        }
        Tamper::Repeat => peer.seal(&message).repeat(2),
        Tamper::Swap => {
            let first = peer.seal(&message);
            [peer.seal(&message), first].concat()
        }
        Tamper::Skip => {
            peer.records().skip();
            peer.seal(&message)
        }
        Tamper::Cut => {
            let mut first = peer.seal(&message);
            // Eight bytes: of one, the byte that moves up is the one that was cut once in 256 times.
            first.truncate(first.len() - 8);
            [first, peer.seal(&message)].concat()
        }
        Tamper::Short => {
            let mut record = peer.seal(&message);
            record[0] -= 1;
            record
        }
        Tamper::TooShort(len) => [&len.to_le_bytes()[..], &[0; 16]].concat(),
        Tamper::EarlyRekey => {
            peer.records().rekey_too_early();
            peer.seal(&message)
        }
        Tamper::Foreign => match other {
            Some(other) => {
                let nonce = peer.records().sent();
                other.records().seal_at(nonce, &message)
            }
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a foreign record needs another session")),
        },
        Tamper::Reflect => {
            // Our own seal with their key is what they sent: the same plaintext, the other direction.
            peer.send(&message)?;
            let prefix = peer.link.read(2).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let len = usize::from(u16::from_le_bytes([prefix[0], prefix[1]]));
            let body = peer.link.read(len).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            // So that what follows still opens.
            peer.records().open(&body).map_err(|_| io::ErrorKind::InvalidData)?;
            [prefix, body].concat()
        }
    };
    peer.link.send(&bytes)
}

/// Establishes a peer for each way of tampering, and counts what it is told.
#[must_use]
pub fn tamper_every_way(target: &Target, scale: &Scale) -> Report {
    let mut report = Report::default();
    let mut number = 0;
    let mut dial = |report: &mut Report| {
        number += 1;
        match Peer::dial(target, &Who::numbered(1 << 20 | number, scale.sources.next())) {
            Ok(peer) => {
                report.connected += 1;
                report.established += 1;
                Some(peer)
            }
            Err(failure) => {
                report.failure(&failure);
                None
            }
        }
    };
    for how in Tamper::all().into_iter().cycle().take(scale.connections) {
        let Some(mut peer) = dial(&mut report) else { continue };
        let mut other = if how == Tamper::Foreign { dial(&mut report) } else { None };
        report.attempts += 1;
        match tamper(&mut peer, how, other.as_mut()) {
            Ok(()) => report.failure(&peer.farewell()),
            Err(error) => report.failure(&Failure::from(error)),
        }
        if let Some(other) = other {
            other.leave();
        }
    }
    report
}
