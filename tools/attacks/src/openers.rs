//! Openings that are none: garbage, other protocols, silence, a byte now and then.

use std::time::{Duration, Instant};

use crate::link::{Answer, Link};
use crate::noise::{Keys, random};
use crate::report::Report;
use crate::target::{Scale, Target, Who};

/// Something else than this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// Bytes that never begin like either magic.
    Random,
    /// A request of a web browser.
    Http,
    /// A TLS 1.3 client's first message.
    Tls,
    /// A secure shell's banner.
    Ssh,
    /// Zeros.
    Zeros,
}

impl Garbage {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Random, Self::Http, Self::Tls, Self::Ssh, Self::Zeros];

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Random => {
                let mut bytes: Vec<u8> = (0..128).flat_map(|_| random::<32>()).collect();
                // Each magic begins with this byte: one in 256 would wait for more.
                bytes[0] &= 0x7F;
                bytes
            }
            Self::Http => b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(),
            Self::Tls => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &random::<501>()].concat(),
            Self::Ssh => b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
            Self::Zeros => vec![0; 4096],
        }
    }
}

/// One connection that says this and nothing else; what it is answered.
pub fn say(target: &Target, scale: &Scale, bytes: &[u8]) -> Result<Answer, std::io::Error> {
    let mut link = Link::connect(scale.sources.next(), target.address)?;
    // The other side may close before all of it has left.
    let _ = link.send(bytes);
    Ok(link.read_to_end(scale.duration))
}

/// Each connection sends one kind of garbage in turn.
#[must_use]
pub fn garbage(target: &Target, scale: &Scale) -> Report {
    let mut report = Report::default();
    for garbage in Garbage::ALL.into_iter().cycle().take(scale.connections) {
        let bytes = garbage.bytes();
        match say(target, scale, &bytes) {
            Ok(answer) => {
                report.connected += 1;
                report.bytes_sent += bytes.len() as u64;
                report.answer(&answer);
            }
            Err(_) => report.connect_failures += 1,
        }
    }
    report
}

/// Connections that are held open in their handshake.
#[derive(Debug, Default)]
pub struct Held {
    /// Those that are.
    pub links: Vec<Link>,
    /// Connections that were not granted.
    pub failures: u64,
}

impl Held {
    /// Connects so often, and sends this on each.
    #[must_use]
    pub fn open(target: &Target, scale: &Scale, opening: &[u8]) -> Self {
        let mut held = Self::default();
        for _ in 0..scale.connections {
            match Link::connect(scale.sources.next(), target.address) {
                Ok(mut link) => {
                    if !opening.is_empty() {
                        let _ = link.send(opening);
                    }
                    held.links.push(link);
                }
                Err(_) => held.failures += 1,
            }
        }
        held
    }

    /// How many of them the other side has not ended.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.links.iter().filter(|link| !link.is_over()).count()
    }

    /// Waits so long, for all of them together, for what they are told.
    #[must_use]
    pub fn finish(mut self, patience: Duration) -> Report {
        let deadline = Instant::now() + patience;
        let mut report = Report { connected: self.links.len() as u64, connect_failures: self.failures, ..Report::default() };
        for link in &mut self.links {
            report.bytes_sent += link.sent();
            report.answer(&link.read_to_end(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))));
        }
        report
    }
}

/// Connections that say nothing at all, until the other side ends them.
#[must_use]
pub fn silence(target: &Target, scale: &Scale) -> Report {
    Held::open(target, scale, &[]).finish(scale.duration)
}

/// The first bytes of a handshake that would be a good one.
#[must_use]
pub fn good_opening(target: &Target, number: u64) -> Vec<u8> {
    let who = Who::numbered(number, [127, 0, 0, 1].into());
    match target.protection {
        crate::Protection::Plaintext => who.hello(target).greeting(),
        crate::Protection::Noise { suite, .. } => {
            [&suite.preamble()[..], &target.setup(Keys::numbered(number)).dial(target.node).write(&[])].concat()
        }
    }
}

/// Connections that send a good opening one byte at a time, `pause` between two, until the other side ends them or `scale.duration` is
/// over.
#[must_use]
pub fn trickle(target: &Target, scale: &Scale, pause: Duration) -> Report {
    let deadline = Instant::now() + scale.duration;
    let opening = good_opening(target, 1);
    let mut held = Held::open(target, scale, &[]);
    // All but the last byte: a whole one is answered, and then it is not the trickle that is tested.
    for byte in &opening[..opening.len() - 1] {
        if held.alive() == 0 || Instant::now() >= deadline {
            break;
        }
        for link in &mut held.links {
            let _ = link.send(&[*byte]);
        }
        std::thread::sleep(pause);
    }
    held.finish(deadline.saturating_duration_since(Instant::now()))
}
