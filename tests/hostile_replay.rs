//! Hostile peers that have recorded a good session and send it again.
//!
//! Set-up: an engine with its defaults and well-behaved peers at it (`canary`); all that a good peer sent in one session, taken from the
//! wire. Claim: sent again, whole or from any of its boundaries, in order or out of it, it establishes nothing and delivers nothing: each
//! attempt ends in the handshake, under its reason; the peer that was recorded can come back.

#[path = "common/canary.rs"]
mod canary;
mod common;

use canary::Canary;
use common::LIVENESS;
use corecast::Counter;
use corecast_attacks::noise::{MESSAGE_2, MESSAGE_3};
use corecast_attacks::{Peer, Scale, Sources, Who, replay};

const MESSAGES: u16 = 5;

#[test]
fn a_recorded_session_is_worth_nothing() {
    let canary = Canary::secure(|_| {});
    let target = canary.target();
    let sources = Sources::everywhere();
    let victim = Who::numbered(1, sources.next());
    let recording = replay::record(&target, &victim, MESSAGES).unwrap();
    // Opening, message 3, Ready, and each message.
    assert_eq!(recording.len(), 3 + usize::from(MESSAGES));
    // The canary's three, and the one that was recorded, which has left.
    canary.counts(Counter::Established, 4);
    canary.counts(Counter::Peers, 3);
    let scale = Scale::new(1, 1).lasting(LIVENESS).from(sources);
    for from in 0..recording.len() {
        let answer = replay::replay(&target, &scale, &recording, from).unwrap();
        if from == 0 {
            // The opening is as good as ever, and is answered with another ephemeral key, to which the rest says nothing.
            assert_eq!(answer.bytes.len(), 8 + MESSAGE_2, "{answer:?}");
            canary.counts(Counter::HandshakeAuthFailed, 1);
        } else {
            assert!(answer.is_silent_close(), "from {from}: {answer:?}");
            canary.counts(Counter::HandshakeWrongMagic, from as u64);
        }
    }
    // A fresh opening, and then what was recorded: it fails, or is less than a message 3.
    let (mut failed, mut cut) = (1, 0);
    for from in 1..recording.len() {
        let who = Who::numbered(1, scale.sources.next());
        let recorded = recording[from..].concat();
        let answer = replay::after_opening(&target, &who, &recorded).unwrap();
        assert!(answer.is_silent_close(), "from {from}: {answer:?}");
        *if recorded.len() < MESSAGE_3 { &mut cut } else { &mut failed } += 1;
        canary.counts(Counter::HandshakeEof, cut);
        canary.counts(Counter::HandshakeAuthFailed, failed);
    }
    assert_eq!((canary.count(Counter::Established), canary.count(Counter::Peers)), (4, 3));
    let mut back = Peer::dial(&target, &Who { source: scale.sources.next(), ..victim }).unwrap();
    back.echo(1, b"back").unwrap();
    back.leave();
    canary.finish();
}

#[test]
fn recorded_records_are_worth_nothing_in_a_new_session_of_the_same_peer() {
    let canary = Canary::secure(|_| {});
    let target = canary.target();
    let sources = Sources::everywhere();
    let victim = Who::numbered(1, sources.next());
    let recording = replay::record(&target, &victim, MESSAGES).unwrap();
    for from in 2..recording.len() {
        // Another channel: a node that comes back at once would be a duplicate for a second.
        let mut who = Who { source: sources.next(), ..victim };
        who.hello.channel = from as u16;
        let mut peer = Peer::dial(&target, &who).unwrap();
        peer.link.send(&recording[from..].concat()).unwrap();
        let (before, failure) = peer.until_farewell();
        assert!(before.is_empty() && matches!(failure, corecast_attacks::Failure::Goodbye(5, 18)), "from {from}: {failure:?}");
        canary.counts(Counter::ViolationRecordNotAuthentic, from as u64 - 1);
    }
    canary.finish();
}
