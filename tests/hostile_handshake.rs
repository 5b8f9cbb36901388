//! Hostile peers whose encrypted handshake is nearly right.
//!
//! Set-up: an engine with its defaults and well-behaved peers at it (`canary`); strangers who know its key and spoil one thing: the bytes,
//! the network, the secret, the key, the order. Claim: each ends with its own answer and under its own reason, none is established, no
//! place is lost; the good peers notice nothing and somebody new gets in.

#[path = "common/canary.rs"]
mod canary;
mod common;

use canary::{Canary, SECRET};
use common::node::Node;
use common::{LIVENESS, NEVER, eventually_stats};
use corecast::{Admission, Cipher, Config, Counter, Dial, DialError, HandshakeError, Identity, NetworkSecret, NodeId, Security};
use corecast_attacks::handshake::{self, Cut, Impostor, Step, Wrong};
use corecast_attacks::link::PATIENCE;
use corecast_attacks::noise::low_order_points;
use corecast_attacks::{Answer, Ending, Failure, Keys, Link, Listener, Peer, Scale, Sources, Target, Who};

/// Nothing here is ended by time.
fn canary() -> Canary {
    Canary::secure(|config| config.timeouts.handshake = NEVER)
}

/// Strangers, each with keys and an address of its own.
struct Strangers {
    sources: Sources,
    number: u64,
}

impl Strangers {
    fn new() -> Self {
        Self { sources: Sources::everywhere(), number: 1000 }
    }

    fn next(&mut self) -> Who {
        self.number += 1;
        Who::numbered(self.number, self.sources.next())
    }
}

/// The canary's three, and nobody else, have ever got in.
fn assert_nobody_got_in(canary: &Canary) {
    assert_eq!((canary.count(Counter::Established), canary.count(Counter::Peers)), (3, 3));
}

#[test]
fn a_handshake_cut_after_any_byte_leaves_nothing() {
    let canary = canary();
    let target = canary.target();
    let mut strangers = Strangers::new();
    let mut cuts = 0;
    for how in [Cut::Fin, Cut::Reset] {
        for &step in Step::of(&target) {
            for at in 0..step.len(&target) {
                let answer = handshake::cut(&target, &strangers.next(), step, at, how).unwrap();
                assert!(answer.is_none_or(|answer| answer == Answer { bytes: Vec::new(), ending: Ending::Eof }), "{step:?} cut at {at}");
                cuts += 1;
            }
        }
        eventually_stats(&canary.server.handle(), "each cut is counted as what it is, and leaves nothing", |stats| {
            let ended = stats.get(Counter::HandshakeEof) + stats.get(Counter::HandshakeIo);
            (how == Cut::Reset || stats.get(Counter::HandshakeIo) == 0) && ended == cuts && stats.get(Counter::HalfOpen) == 0
        });
        canary.sings();
    }
    assert_eq!(cuts, 2 * (56 + 88 + 26));
    assert_eq!((canary.count(Counter::HandshakeAuthFailed), canary.count(Counter::HandshakeViolation)), (0, 0));
    assert_nobody_got_in(&canary);
    canary.finish();
}

#[test]
fn every_flipped_bit_is_seen() {
    const REFUSED: [(usize, Option<u16>, Counter); 5] = [
        (32, None, Counter::HandshakeWrongMagic),
        (8, Some(1), Counter::HandshakeVersion),
        (8, Some(2), Counter::HandshakeSuite),
        (16, Some(3), Counter::HandshakeMalformed),
        (8 * 48, Some(9), Counter::HandshakeAuthFailed),
    ];
    let canary = canary();
    let target = canary.target();
    let mut strangers = Strangers::new();
    let mut bits = 0..;
    for (count, code, counter) in REFUSED {
        for bit in bits.by_ref().take(count) {
            let answer = handshake::flip(&target, &strangers.next(), Step::Opening, bit, LIVENESS).unwrap();
            assert_eq!((answer.refusal(), answer.ending != Ending::Open), (code, true), "bit {bit}: {answer:?}");
            assert!(code.is_some() || answer.bytes.is_empty(), "bit {bit}: {answer:?}");
        }
        canary.counts(counter, count as u64);
    }
    canary.sings();
    // After message 1, nothing is said in the clear.
    for bit in 0..8 * Step::Second.len(&target) {
        let answer = handshake::flip(&target, &strangers.next(), Step::Second, bit, LIVENESS).unwrap();
        assert!(answer.is_silent_close(), "bit {bit}: {answer:?}");
    }
    canary.counts(Counter::HandshakeAuthFailed, 8 * (48 + 88));
    canary.sings();
    for bit in 0..8 * Step::Third.len(&target) {
        let answer = handshake::flip(&target, &strangers.next(), Step::Third, bit, LIVENESS).unwrap();
        // A length that neither Ready nor Goodbye has breaks a rule, and the dialler is told so, in a record with a goodbye.
        assert!(answer.ending != Ending::Open && answer.bytes.len() == if bit < 16 { 34 } else { 0 }, "bit {bit}: {answer:?}");
    }
    canary.counts(Counter::ViolationExpectedReady, 16);
    canary.counts(Counter::HandshakeViolation, 16);
    canary.counts(Counter::HandshakeAuthFailed, 8 * (48 + 88 + 24));
    assert_nobody_got_in(&canary);
    canary.finish();
}

/// Each way to be wrong about the network, and what it is answered.
fn wrong(canary: &Canary, cases: &[(Wrong, u16, Counter)]) {
    const EACH: usize = 5;
    for &(wrong, code, counter) in cases {
        let before = canary.count(counter);
        let report = handshake::wrong(&canary.target(), &Scale::new(EACH, 1).lasting(LIVENESS), wrong);
        assert_eq!((report.refused(code), report.connected), (EACH as u64, EACH as u64), "{wrong:?}: {report}");
        canary.counts(counter, before + EACH as u64);
    }
    assert_nobody_got_in(canary);
}

#[test]
fn what_is_wrong_about_the_network_is_refused() {
    let cases = [
        (Wrong::Network, 9, Counter::HandshakeAuthFailed),
        (Wrong::Secret, 9, Counter::HandshakeAuthFailed),
        (Wrong::Key, 9, Counter::HandshakeAuthFailed),
        (Wrong::Version, 1, Counter::HandshakeVersion),
        (Wrong::Suite, 2, Counter::HandshakeSuite),
        (Wrong::Protection, 2, Counter::HandshakeSuite),
    ];
    let canary = canary();
    wrong(&canary, &cases);
    canary.finish();
    // The other suite, with a secret that the strangers do not know.
    let canary = Canary::secure(|config| {
        let Security::Noise(noise) = &mut config.security else { unreachable!() };
        noise.cipher = Cipher::ChaChaPoly;
        noise.secret = Some(NetworkSecret::new(SECRET));
    });
    wrong(&canary, &cases);
    canary.finish();
}

#[test]
fn encrypted_openings_are_refused_in_plaintext() {
    let canary = Canary::plaintext(|_| {});
    wrong(&canary, &[(Wrong::Protection, 2, Counter::HandshakeSuite), (Wrong::Network, 4, Counter::HandshakeWrongNetwork)]);
    canary.finish();
}

#[test]
fn keys_of_small_order_are_refused_wherever_they_stand() {
    let canary = canary();
    let target = canary.target();
    let mut strangers = Strangers::new();
    let points = low_order_points();
    for (index, &point) in points.iter().enumerate() {
        let ephemeral = handshake::weak_ephemeral(&target, &strangers.next(), point).unwrap();
        assert_eq!(ephemeral.refusal(), Some(9), "{point:02x?}: {ephemeral:?}");
        let fixed = handshake::weak_static(&target, &strangers.next(), point).unwrap();
        assert!(fixed.is_silent_close(), "{point:02x?}: {fixed:?}");
        canary.counts(Counter::HandshakeWeakKey, 2 * index as u64 + 2);
    }
    assert_eq!((points.len(), canary.count(Counter::HandshakeAuthFailed)), (14, 0));
    assert_nobody_got_in(&canary);
    canary.finish();
}

/// The good peers' nodes are known, so that a list can have them.
#[test]
fn a_strangers_valid_key_is_not_on_the_list() {
    let friend = Keys::numbered(77);
    let canary = Canary::secure(|config| {
        let listed = canary::GOOD.iter().map(|&secret| Identity::from_secret(secret).node_id());
        config.admission = Some(Admission::AllowList(listed.chain([NodeId(friend.public)]).collect()));
    });
    let target = canary.target();
    let mut strangers = Strangers::new();
    for number in 1..=20 {
        match Peer::dial(&target, &strangers.next()) {
            Err(Failure::Goodbye(8, 0)) => {}
            other => panic!("{:?}", other.err()),
        }
        canary.counts(Counter::HandshakeNotAllowed, number);
    }
    assert_nobody_got_in(&canary);
    // Who is on it is let in: the key is what counts, not where it comes from.
    let mut peer = Peer::dial(&target, &Who { keys: friend, ..strangers.next() }).unwrap();
    peer.echo(1, b"known").unwrap();
    peer.leave();
    canary.finish();
}

/// An engine that dials whoever answers there, for that node, and what it learns.
fn dialled_by(node: &mut Node, expected: [u8; 32], answer: impl FnOnce(Link) -> Answer) -> DialError {
    let listener = Listener::bind([127, 66, 0, 1].into()).unwrap();
    let dial = Dial::node(NodeId(expected), listener.address().unwrap()).once();
    let dial = node.handle().dial(dial).unwrap();
    let answer = answer(listener.accept(PATIENCE).unwrap());
    assert!(answer.is_silent_close(), "{answer:?}");
    let (error, retry) = node.dial_failed(dial);
    assert_eq!(retry, None);
    error
}

#[test]
fn the_wrong_key_answers_a_dial() {
    let mut canary = canary();
    // It is only asked how it speaks.
    let network = Target { address: canary.server.address(), ..canary.target() };
    let (expected, other) = (Keys::numbered(1), Keys::numbered(2));
    let failed = DialError::Handshake(HandshakeError::AuthFailed);
    for (count, how) in [Impostor::OwnKey, Impostor::Noise].into_iter().enumerate() {
        let error = dialled_by(&mut canary.server, expected.public, |link| handshake::answer_dial(link, &network, other, how).unwrap());
        assert_eq!(error, failed, "{how:?}");
        canary.counts(Counter::HandshakeAuthFailed, count as u64 + 1);
    }
    // The right one, with ephemeral keys that it knows the outcome of.
    let weak = DialError::Handshake(HandshakeError::WeakKey);
    for (count, point) in low_order_points().into_iter().enumerate() {
        let how = Impostor::WeakEphemeral(point);
        let error = dialled_by(&mut canary.server, expected.public, |link| handshake::answer_dial(link, &network, expected, how).unwrap());
        assert_eq!(error, weak, "{point:02x?}");
        canary.counts(Counter::HandshakeWeakKey, count as u64 + 1);
    }
    assert_nobody_got_in(&canary);
    canary.finish();
}

#[test]
fn a_node_id_that_is_no_key_is_not_dialled() {
    let mut node = Node::report(Config::secure(Identity::generate().unwrap(), Admission::Open));
    for point in low_order_points() {
        let error = dialled_by(&mut node, point, |mut link| link.answer());
        assert_eq!(error, DialError::Handshake(HandshakeError::WeakKey), "{point:02x?}");
    }
    node.finish();
}
