//! Hostile peers that are established and tamper with records.
//!
//! Set-up: an engine with its defaults and well-behaved peers at it (`canary`); peers written by hand that have ended their handshake
//! well, dialled and dialling, in both suites. Claim: records that are flipped, repeated, swapped, left out, cut, of another session, of
//! the other direction, or under another key end the connection under their rule, and nothing that came in or after them is delivered;
//! records in their turn go on past every rekey.

#[path = "common/canary.rs"]
mod canary;
mod common;

use canary::{Canary, SECRET};
use common::node::Node;
use corecast::{Cipher, CloseReason, Counter, Dial, NetworkSecret, NodeId, Security, Violation};
use corecast_attacks::link::PATIENCE;
use corecast_attacks::noise::REKEY_EVERY;
use corecast_attacks::records::{FORGED, Tamper, tamper};
use corecast_attacks::{Failure, Keys, Listener, Peer, Sources, Target, Who};

fn tampered(canary: Canary) {
    let target = canary.target();
    let sources = Sources::everywhere();
    let (mut number, mut not_authentic, mut too_short) = (100, 0, 0);
    let mut dial = || {
        number += 1;
        let mut peer = Peer::dial(&target, &Who::numbered(number, sources.next())).unwrap();
        peer.echo(9, b"honest").unwrap();
        peer
    };
    for how in Tamper::all() {
        let (mut peer, mut other) = (dial(), dial());
        tamper(&mut peer, how, Some(&mut other)).unwrap();
        let (before, failure) = peer.until_farewell();
        assert!(matches!(failure, Failure::Goodbye(5, rule) if rule == how.rule()), "{how:?}: {failure:?}");
        // What came in order may have been answered; whoever breaks a rule is not waited for.
        assert!(before.len() as u64 <= how.harmless(), "{how:?}: {before:?}");
        assert!(before.iter().all(|frame| frame.payload == FORGED), "{how:?}");
        *if how.rule() == 18 { &mut not_authentic } else { &mut too_short } += 1;
        canary.counts(Counter::ViolationRecordNotAuthentic, not_authentic);
        canary.counts(Counter::ViolationRecordTooShort, too_short);
        canary.counts(Counter::ClosedViolation, not_authentic + too_short);
        // Nobody else is concerned, not even the one from whom a record was taken.
        other.echo(9, b"still here").unwrap();
        other.leave();
        canary.sings();
    }
    assert_eq!((not_authentic, too_short), (12, 4));
    canary.finish();
}

#[test]
fn tampered_records_end_the_connection_with_aes_gcm() {
    tampered(Canary::secure(|_| {}));
}

#[test]
fn tampered_records_end_the_connection_with_chachapoly_and_a_secret() {
    tampered(Canary::secure(|config| {
        let Security::Noise(noise) = &mut config.security else { unreachable!() };
        noise.cipher = Cipher::ChaChaPoly;
        noise.secret = Some(NetworkSecret::new(SECRET));
    }));
}

/// Every bit of a small record, one connection each.
#[test]
fn every_flipped_bit_of_a_record_is_seen() {
    let canary = Canary::secure(|_| {});
    let target = canary.target();
    let sources = Sources::everywhere();
    let bits = 8 * (8 + FORGED.len() + 16);
    for bit in 0..bits {
        let mut peer = Peer::dial(&target, &Who::numbered(1000 + bit as u64, sources.next())).unwrap();
        tamper(&mut peer, Tamper::Flip(bit), None).unwrap();
        let (before, failure) = peer.until_farewell();
        assert!(before.is_empty() && matches!(failure, Failure::Goodbye(5, 18)), "bit {bit}: {failure:?}");
    }
    canary.counts(Counter::ViolationRecordNotAuthentic, bits as u64);
    canary.finish();
}

/// Dials a listener of the attacker's, for the node that it is.
fn dialled(node: &mut Node, network: &Target, keys: Keys) -> (Peer, corecast::PeerId) {
    let listener = Listener::bind([127, 66, 0, 1].into()).unwrap();
    node.handle().dial(Dial::node(NodeId(keys.public), listener.address().unwrap()).once()).unwrap();
    let who = Who { keys, ..Who::numbered(0, [127, 66, 0, 1].into()) };
    let peer = Peer::accept(listener.accept(PATIENCE).unwrap(), network, &who).unwrap();
    (peer, node.connected().0)
}

#[test]
fn whoever_was_dialled_may_not_tamper_either() {
    let mut canary = Canary::secure(|_| {});
    let network = canary.target();
    for (number, how) in Tamper::all().into_iter().enumerate() {
        let (mut peer, id) = dialled(&mut canary.server, &network, Keys::numbered(500 + 2 * number as u64));
        let (mut other, _) = dialled(&mut canary.server, &network, Keys::numbered(501 + 2 * number as u64));
        tamper(&mut peer, how, Some(&mut other)).unwrap();
        assert!(matches!(peer.farewell(), Failure::Goodbye(5, rule) if rule == how.rule()), "{how:?}");
        let violation = if how.rule() == 18 { Violation::RecordNotAuthentic } else { Violation::RecordTooShort };
        assert_eq!(canary.server.closed(id), CloseReason::Violation(violation), "{how:?}");
        other.leave();
    }
    canary.finish();
}

#[test]
fn records_in_their_turn_go_on_past_every_rekey() {
    let canary = Canary::secure(|_| {});
    let sources = Sources::everywhere();
    let mut peer = Peer::dial(&canary.target(), &Who::numbered(1, sources.next())).unwrap();
    // A batch of records of one message each is one write; the echoes come in as few records as the engine likes.
    let batch = 512;
    for begin in (0..2 * REKEY_EVERY + batch).step_by(batch as usize) {
        let records: Vec<u8> =
            (begin..begin + batch).flat_map(|number| peer.seal(&corecast_attacks::wire::data(1, &number.to_le_bytes()))).collect();
        peer.link.send(&records).unwrap();
        for number in begin..begin + batch {
            assert_eq!(peer.message().unwrap(), (1, number.to_le_bytes().to_vec()));
        }
    }
    assert!(peer.records().sent() > 2 * REKEY_EVERY);
    // And the other direction: one message in each record, since each is awaited.
    while peer.records().received() <= REKEY_EVERY {
        peer.echo(2, b"one at a time").unwrap();
    }
    peer.leave();
    canary.finish();
}
