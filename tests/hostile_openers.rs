//! Hostile peers that never begin: other protocols, garbage, silence, a byte now and then.
//!
//! Set-up: an engine with its defaults and well-behaved peers at it (`canary`); strangers from 127.66.0.0/16 that connect and say something
//! else than this protocol, or nothing. Claim: each is closed in silence or at the handshake's deadline, whatever it sends, and counted
//! under its reason; the good peers notice nothing, somebody new gets in, and nothing of the strangers is left.

#[path = "common/canary.rs"]
mod canary;
mod common;

use std::time::{Duration, Instant};

use canary::Canary;
use common::{LIVENESS, eventually_stats};
use corecast::Counter;
use corecast_attacks::openers::{self, Garbage};
use corecast_attacks::{Report, Scale, Sources};

/// From as many addresses as there are connections, so that no limit by address is met.
fn strangers(connections: usize) -> Scale {
    Scale::new(connections, 1).lasting(LIVENESS)
}

fn garbage(canary: Canary) {
    const EACH: usize = 8;
    let target = canary.target();
    let strangers = strangers(1);
    for (index, garbage) in Garbage::ALL.into_iter().enumerate() {
        for round in 0..EACH {
            let answer = openers::say(&target, &strangers, &garbage.bytes()).unwrap();
            assert!(answer.is_silent_close(), "{garbage:?}: {answer:?}");
            canary.counts(Counter::HandshakeWrongMagic, (index * EACH + round) as u64 + 1);
        }
        canary.sings();
    }
    canary.finish();
}

#[test]
fn garbage_is_closed_in_silence() {
    garbage(Canary::secure(|_| {}));
    garbage(Canary::plaintext(|_| {}));
}

/// Every stranger has been closed without a word.
fn assert_all_closed(report: &Report, connections: usize) {
    assert_eq!((report.connected, report.eofs + report.resets), (connections as u64, connections as u64), "{report}");
}

fn silence(canary: Canary) {
    const SILENT: usize = 50;
    let began = Instant::now();
    let report = openers::silence(&canary.target(), &strangers(SILENT));
    assert_all_closed(&report, SILENT);
    assert!(began.elapsed() >= Duration::from_millis(300), "they had their time");
    canary.counts(Counter::HandshakeTimeout, SILENT as u64);
    canary.finish();
}

#[test]
fn silence_ends_at_the_deadline() {
    silence(Canary::secure(|config| config.timeouts.handshake = Duration::from_millis(300)));
    silence(Canary::plaintext(|config| config.timeouts.handshake = Duration::from_millis(300)));
}

/// Some fifty bytes, one each 100 ms: it would take five seconds.
fn trickle(canary: Canary) {
    const TRICKLES: usize = 20;
    let report = openers::trickle(&canary.target(), &strangers(TRICKLES), Duration::from_millis(100));
    assert_all_closed(&report, TRICKLES);
    canary.counts(Counter::HandshakeTimeout, TRICKLES as u64);
    canary.finish();
}

#[test]
fn a_byte_now_and_then_does_not_stretch_the_deadline() {
    trickle(Canary::secure(|config| config.timeouts.handshake = Duration::from_millis(600)));
    trickle(Canary::plaintext(|config| config.timeouts.handshake = Duration::from_millis(600)));
}

/// The limits by address, with strangers from one: what is too much is closed at once, and another address is let in meanwhile.
#[test]
fn one_address_gets_what_one_address_may_have() {
    let mut canary = Canary::secure(|_| {});
    let one = Scale::new(40, 1).from(Sources::single());
    let held = openers::Held::open(&canary.target(), &one, &[]);
    assert_eq!((held.links.len(), held.failures), (40, 0));
    // Sixteen handshakes at once, of which eight may be half-open; the rate is looked at first.
    canary.counts(Counter::HalfOpen, 8);
    eventually_stats(&canary.server.handle(), "the others are counted", |stats| {
        stats.get(Counter::RefusedIpHalfOpen) + stats.get(Counter::RefusedIpRate) == 32
    });
    assert!(canary.count(Counter::RefusedIpHalfOpen) > 0, "some came while the rate allowed it");
    assert_eq!(held.alive(), 8);
    canary.sings();
    canary.lets_somebody_in();
    drop(held);
    canary.counts(Counter::HalfOpen, 0);
    canary.finish();
}
