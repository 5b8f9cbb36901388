//! A session that was recorded, sent again: whole, and from each boundary.

use std::io;

use crate::link::{Answer, Link};
use crate::peer::{Failure, Peer};
use crate::report::Report;
use crate::target::{Scale, Target, Who};

/// All that a dialler sent in a session, one entry for each write: the opening, message 3, `Ready`, and each message.
pub type Recording = Vec<Vec<u8>>;

/// Has an honest session with an engine that echoes, of so many messages, and writes down what the dialler sends.
pub fn record(target: &Target, who: &Who, messages: u16) -> Result<Recording, Failure> {
    let mut link = Link::connect(who.source, target.address).map_err(Failure::Connect)?;
    link.record();
    let mut peer = Peer::shake(link, target, who)?;
    for number in 0..messages {
        peer.echo(number, &number.to_le_bytes())?;
    }
    let recording = peer.link.recorded();
    peer.leave();
    Ok(recording)
}

/// Sends a recording from one of its writes on, all at once, and waits for the end.
pub fn replay(target: &Target, scale: &Scale, recording: &[Vec<u8>], from: usize) -> io::Result<Answer> {
    crate::openers::say(target, scale, &recording[from..].concat())
}

/// Replays a recording from each boundary, the first of which is the whole of it.
#[must_use]
pub fn from_everywhere(target: &Target, scale: &Scale, recording: &[Vec<u8>]) -> Report {
    let mut report = Report::default();
    for from in 0..recording.len() {
        report.attempts += 1;
        match replay(target, scale, recording, from) {
            Ok(answer) => {
                report.connected += 1;
                report.answer(&answer);
            }
            Err(_) => report.connect_failures += 1,
        }
    }
    report
}

/// A good opening, and after its answer something that was recorded; what that is answered. Encrypted targets only.
pub fn after_opening(target: &Target, who: &Who, recorded: &[u8]) -> io::Result<Answer> {
    let mut link = crate::handshake::spoiled(target, who, crate::handshake::Step::Second, |bytes| *bytes = recorded.to_vec())?;
    // Less than a message 3 would be waited for.
    link.shut();
    Ok(link.answer())
}
