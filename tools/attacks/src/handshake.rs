//! Handshakes that are nearly right: cut, flipped, of another network, with keys of small order, or with the wrong one.

use std::io;
use std::time::Duration;

use crate::link::{Answer, Link};
use crate::noise::{Keys, MESSAGE_2, Setup, random};
use crate::report::Report;
use crate::target::{Protection, Scale, Target, Who};
use crate::wire::{Hello, ready};

/// How far a dialler's handshake is gone through before it is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its first bytes: preamble and hello, or preamble and message 1.
    Opening,
    /// What follows the acceptor's answer: `Ready`, or message 3.
    Second,
    /// Encrypted alone: the record with `Ready`.
    Third,
}

impl Step {
    /// The steps that a dialler of this target has.
    #[must_use]
    pub fn of(target: &Target) -> &'static [Self] {
        if target.is_secure() { &[Self::Opening, Self::Second, Self::Third] } else { &[Self::Opening, Self::Second] }
    }

    /// Bytes that the dialler sends in it.
    #[must_use]
    pub fn len(self, target: &Target) -> usize {
        match (target.is_secure(), self) {
            (false, Self::Opening) => 96,
            (false, _) => 8,
            (true, Self::Opening) => 56,
            (true, Self::Second) => 88,
            (true, Self::Third) => 26,
        }
    }
}

/// A dialler that goes through an honest handshake up to one step, and then sends what `spoil` makes of that step's bytes, and nothing
/// more. Its connection is returned, with the acceptor's answers to the earlier steps taken off it.
pub fn spoiled(target: &Target, who: &Who, step: Step, spoil: impl FnOnce(&mut Vec<u8>)) -> io::Result<Link> {
    spoiled_with(target, who, &target.setup(who.keys), step, spoil)
}

/// The same with another handshake than the honest one.
pub fn spoiled_with(target: &Target, who: &Who, setup: &Setup, step: Step, spoil: impl FnOnce(&mut Vec<u8>)) -> io::Result<Link> {
    let mut link = Link::connect(who.source, target.address)?;
    let unexpected = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let hello = who.hello(target);
    let mut bytes;
    match target.protection {
        Protection::Plaintext => {
            bytes = hello.greeting();
            if step != Step::Opening {
                link.send(&bytes)?;
                link.read(96).map_err(|_| unexpected("no greeting"))?;
                bytes = ready();
            }
        }
        Protection::Noise { .. } => {
            let mut handshake = setup.dial(target.node);
            bytes = [&setup.preamble[..], &handshake.write(&[])].concat();
            if step != Step::Opening {
                link.send(&bytes)?;
                let answer = link.read(8 + MESSAGE_2).map_err(|_| unexpected("no message 2"))?;
                handshake.read(&answer[8..]).map_err(|_| unexpected("message 2"))?;
                bytes = handshake.write(&hello.encode_sealed());
            }
            if step == Step::Third {
                link.send(&bytes)?;
                let mut records = handshake.finish().map_err(|_| unexpected("the handshake has no end"))?;
                link.read(26).map_err(|_| unexpected("no Ready"))?;
                bytes = records.seal(&ready());
            }
        }
    }
    spoil(&mut bytes);
    // The other side may close before all of it has left.
    let _ = link.send(&bytes);
    Ok(link)
}

/// How a cut ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// In order.
    Fin,
    /// With a reset.
    Reset,
}

/// Cuts the handshake after `at` bytes of a step. What the other side still says, unless it was reset.
pub fn cut(target: &Target, who: &Who, step: Step, at: usize, how: Cut) -> io::Result<Option<Answer>> {
    let mut link = spoiled(target, who, step, |bytes| bytes.truncate(at))?;
    match how {
        Cut::Fin => {
            link.shut();
            Ok(Some(link.answer()))
        }
        Cut::Reset => {
            link.reset();
            Ok(None)
        }
    }
}

/// Flips one bit of a step; what the other side answers within `patience`.
pub fn flip(target: &Target, who: &Who, step: Step, bit: usize, patience: Duration) -> io::Result<Answer> {
    let mut link = spoiled(target, who, step, |bytes| bytes[bit / 8] ^= 1 << (bit % 8))?;
    Ok(link.read_to_end(patience))
}

/// Cuts every step after every byte, once in order and once with a reset.
#[must_use]
pub fn cut_everywhere(target: &Target, scale: &Scale) -> Report {
    let mut report = Report::default();
    for how in [Cut::Fin, Cut::Reset] {
        for &step in Step::of(target) {
            for at in 0..step.len(target) {
                report.attempts += 1;
                match cut(target, &Who::numbered(report.attempts, scale.sources.next()), step, at, how) {
                    Ok(answer) => {
                        report.connected += 1;
                        answer.iter().for_each(|answer| report.answer(answer));
                    }
                    Err(_) => report.connect_failures += 1,
                }
            }
        }
    }
    report
}

/// Flips every bit of every step.
#[must_use]
pub fn flip_everywhere(target: &Target, scale: &Scale) -> Report {
    let mut report = Report::default();
    for &step in Step::of(target) {
        for bit in 0..8 * step.len(target) {
            report.attempts += 1;
            match flip(target, &Who::numbered(report.attempts, scale.sources.next()), step, bit, scale.duration) {
                Ok(answer) => {
                    report.connected += 1;
                    report.answer(&answer);
                }
                Err(_) => report.connect_failures += 1,
            }
        }
    }
    report
}

/// What a stranger gets wrong about the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The network's id.
    Network,
    /// The version.
    Version,
    /// The suite, in preamble and handshake.
    Suite,
    /// Encrypted: the network's secret, or that there is one.
    Secret,
    /// Encrypted: the acceptor's key.
    Key,
    /// Plaintext to whom is encrypted, and the reverse.
    Protection,
}

/// The opening of a dialler that is wrong about this and right about everything else.
#[must_use]
pub fn wrong_opening(target: &Target, wrong: Wrong, number: u64) -> Vec<u8> {
    let other = |protection| crate::openers::good_opening(&Target { protection, ..*target }, number);
    let flip_suite = |suite| match suite {
        crate::Suite::AesGcm => crate::Suite::ChaChaPoly,
        crate::Suite::ChaChaPoly => crate::Suite::AesGcm,
    };
    let mut network = *target;
    match (wrong, target.protection) {
        (Wrong::Network, _) => network.network[0] ^= 1,
        (Wrong::Key, _) => network.node = Keys::numbered(u64::MAX).public,
        (Wrong::Version, protection) => {
            let mut bytes = other(protection);
            bytes[4] = 2;
            return bytes;
        }
        (Wrong::Suite, Protection::Plaintext) => {
            let mut bytes = other(Protection::Plaintext);
            bytes[5] = 1;
            return bytes;
        }
        (Wrong::Suite, Protection::Noise { suite, secret }) => return other(Protection::Noise { suite: flip_suite(suite), secret }),
        (Wrong::Secret, Protection::Noise { suite, secret }) => {
            let secret = secret.is_none().then_some([0x77; 32]);
            return other(Protection::Noise { suite, secret });
        }
        (Wrong::Protection, Protection::Noise { .. }) => return other(Protection::Plaintext),
        (Wrong::Protection | Wrong::Secret, Protection::Plaintext) => {
            return other(Protection::Noise { suite: crate::Suite::AesGcm, secret: None });
        }
    }
    crate::openers::good_opening(&network, number)
}

/// Connections whose opening is wrong in this way.
#[must_use]
pub fn wrong(target: &Target, scale: &Scale, wrong: Wrong) -> Report {
    let mut report = Report::default();
    for number in 0..scale.connections {
        match crate::openers::say(target, scale, &wrong_opening(target, wrong, number as u64)) {
            Ok(answer) => {
                report.connected += 1;
                report.answer(&answer);
            }
            Err(_) => report.connect_failures += 1,
        }
    }
    report
}

/// Encrypted: an opening whose ephemeral key is this point of small order; its tag is right for a shared secret of zero.
pub fn weak_ephemeral(target: &Target, who: &Who, point: [u8; 32]) -> io::Result<Answer> {
    let setup = Setup { ephemeral: Some(Keys::weak(point)), ..target.setup(who.keys) };
    Ok(spoiled_with(target, who, &setup, Step::Opening, |_| {})?.answer())
}

/// Encrypted: a dialler whose static key is this point of small order, in an otherwise good message 3.
pub fn weak_static(target: &Target, who: &Who, point: [u8; 32]) -> io::Result<Answer> {
    let setup = target.setup(Keys::weak(point));
    Ok(spoiled_with(target, who, &setup, Step::Second, |_| {})?.answer())
}

/// How an attacker answers a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impostor {
    /// With a message 2 made under its own key, for a message 1 that was never sent.
    OwnKey,
    /// With random bytes of the right length.
    Noise,
    /// As the right node, with an ephemeral key of small order.
    WeakEphemeral([u8; 32]),
}

/// Encrypted: answers one dial of an engine, and waits for the end. `network` says how the engine speaks, `keys` are the impostor's (for
/// [`Impostor::WeakEphemeral`], the right ones).
pub fn answer_dial(mut link: Link, network: &Target, keys: Keys, how: Impostor) -> io::Result<Answer> {
    let unexpected = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let one = link.read(56).map_err(|_| unexpected("no message 1"))?;
    let hello = Hello::node(0).encode_sealed();
    let mut setup = network.setup(keys);
    let preamble = setup.preamble;
    let two = match how {
        Impostor::Noise => random::<MESSAGE_2>().to_vec(),
        Impostor::OwnKey => {
            let mut acceptor = setup.accept();
            let of_nobody = network.setup(Keys::numbered(0)).dial(keys.public).write(&[]);
            acceptor.read(&of_nobody).map_err(|_| unexpected("our own message 1"))?;
            acceptor.write(&hello)
        }
        Impostor::WeakEphemeral(point) => {
            setup.ephemeral = Some(Keys::weak(point));
            let mut acceptor = setup.accept();
            acceptor.read(&one[8..]).map_err(|_| unexpected("message 1"))?;
            acceptor.write(&hello)
        }
    };
    link.send(&[&preamble[..], &two].concat())?;
    Ok(link.answer())
}
