//! Hostile peers that take places of the handshake: thousands of connections that go no further, storms of resets, floods of valid first
//! messages.
//!
//! Set-up: an engine with its defaults and well-behaved peers at it (`canary`); strangers from a few addresses, and from hundreds of
//! subnets. Claim: the places are never more than allowed, each address and subnet gets what it may have and no more, every connection that
//! is not let in is counted under its reason; the good peers notice nothing, somebody new gets in *meanwhile*, and all places come back.

#[path = "common/canary.rs"]
mod canary;
mod common;

use canary::Canary;
use common::{NEVER, eventually, eventually_stats};
use corecast::{Counter, Stats};
use corecast_attacks::openers::Held;
use corecast_attacks::{Scale, floods};

/// Why a connection that was accepted is not half-open any more, or never was.
const REASONS: [Counter; 9] = [
    Counter::RefusedHalfOpen,
    Counter::HalfOpenEvicted,
    Counter::RefusedIpHalfOpen,
    Counter::RefusedIpRate,
    Counter::RefusedSubnetRate,
    Counter::RefusedIpPeers,
    Counter::RefusedSubnetPeers,
    Counter::HandshakeEof,
    Counter::HandshakeIo,
];

fn reasons(stats: &Stats) -> u64 {
    REASONS.iter().map(|&reason| stats.get(reason)).sum()
}

/// A canary whose strangers have all the time that they want: only the caps end them.
fn patient(secure: bool) -> Canary {
    if secure {
        Canary::secure(|config| config.timeouts.handshake = NEVER)
    } else {
        Canary::plaintext(|config| config.timeouts.handshake = NEVER)
    }
}

/// Those who have no place have been closed, and the others have not.
#[test]
fn who_has_no_place_is_closed() {
    let canary = patient(true);
    let held = floods::half_open(&canary.target(), &Scale::new(1000, 1));
    eventually("all but those who have a place are closed", || held.alive() == 256);
    leave(canary, held, 1000);
}

/// They leave, and every place comes back.
fn leave(canary: Canary, held: Held, connections: u64) {
    drop(held);
    eventually_stats(&canary.server.handle(), "every stranger has an end", |stats| reasons(stats) == connections);
    canary.finish();
}

/// Thousands, from more subnets than there are places.
fn thousands(mut canary: Canary, open: impl FnOnce(&corecast_attacks::Target, &Scale) -> Held) {
    const STRANGERS: usize = 3000;
    let held = open(&canary.target(), &Scale::new(STRANGERS, 1));
    assert_eq!((held.links.len(), held.failures), (STRANGERS, 0));
    eventually_stats(&canary.server.handle(), "all places are taken, and each of the others is accounted for", |stats| {
        assert!(stats.get(Counter::HalfOpen) <= 256, "{stats:?}");
        stats.get(Counter::HalfOpen) == 256 && reasons(stats) == STRANGERS as u64 - 256
    });
    canary.sings();
    canary.lets_somebody_in();
    leave(canary, held, STRANGERS as u64);
}

#[test]
fn thousands_of_half_open_connections_from_everywhere() {
    thousands(patient(true), floods::half_open);
    thousands(patient(false), floods::half_open);
}

/// Each costs the engine two exponentiations, and it has those of its peers before.
#[test]
fn thousands_of_valid_first_messages() {
    thousands(patient(true), floods::first_messages);
}

#[test]
fn a_storm_of_resets() {
    const STORM: usize = 3000;
    let canary = patient(true);
    let report = floods::reset_storm(&canary.target(), &Scale::new(STORM, 1));
    assert_eq!((report.connected, report.connect_failures), (STORM as u64, 0));
    // Those that had gone before they were accepted never came.
    eventually_stats(&canary.server.handle(), "none is left", |stats| {
        stats.get(Counter::HalfOpen) == 0 && reasons(stats) + stats.get(Counter::Established) == stats.get(Counter::Accepted)
    });
    canary.finish();
}
