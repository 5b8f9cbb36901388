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
use common::LIVENESS;
use corecast::Counter;
use corecast_attacks::openers::{self, Garbage};
use corecast_attacks::{Report, Scale};

/// From as many addresses as there are connections, so that no limit by address is met.
fn strangers(connections: usize) -> Scale {
    Scale::new(connections, 1).lasting(LIVENESS)
}

fn garbage(canary: Canary) {
    const EACH: usize = 8;
    let target = canary.target();
    for (index, garbage) in Garbage::ALL.into_iter().enumerate() {
        for round in 0..EACH {
            let answer = openers::say(&target, &strangers(1), &garbage.bytes()).unwrap();
            assert!(answer.is_silent_close(), "{garbage:?}: {answer:?}");
            canary.counts(Counter::HandshakeWrongMagic, (index * EACH + round) as u64 + 1);
        }
        canary.sings();
    }
    canary.finish();
}

#[test]
fn garbage_is_closed_in_silence() {
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
    silence(Canary::plaintext(|config| config.timeouts.handshake = Duration::from_millis(300)));
}
