//! Hostile peers that send and do not read.
//!
//! Set-up: an engine that returns every message, with well-behaved peers at it (`canary`); peers written by hand that send long messages as
//! fast as they are taken, and read nothing of what comes back, alone and a hundred at once. Claim: what the engine keeps for them stays
//! within its limits, they are cut off as slow peers or as unresponsive ones, and the good peers notice nothing.

#[path = "common/canary.rs"]
mod canary;
mod common;

use std::time::Duration;

use canary::Canary;
use common::eventually_stats;
use corecast::{Config, Counter};
use corecast_attacks::frames::{long_message, send_and_never_read};
use corecast_attacks::{Peer, Sources, Who};

/// What each may leave unread. A hundred times that is less than `send_bytes`: where hoarders can use that up together, everybody else is
/// left with the reserve of a peer, and is refused what goes beyond it.
const HARD: usize = 1 << 20;
/// What all of them may have in memory together, and what each has of its own.
const SHARED: usize = 256 << 20;
const RESERVE: usize = 64 << 10;

/// Small enough that the limits are met in a moment.
fn tight(config: &mut Config) {
    config.limits.max_message = 256 << 10;
    config.limits.outbox_hard = HARD;
    (config.limits.send_bytes, config.limits.send_reserve) = (SHARED, RESERVE);
    config.limits.outbox_soft = 256 << 10;
    config.limits.soft_grace = Duration::from_millis(500);
    config.timeouts.write_stall = Duration::from_secs(2);
    config.keepalive.interval = Duration::from_millis(500);
    config.keepalive.timeout = Duration::from_secs(3);
}

/// In so many rounds: what the engine keeps after the first is enough for the others.
fn never_readers(canary: Canary, count: u64, rounds: u64) {
    for round in 1..=rounds {
        never_read(&canary, count, round * count);
        canary.counts(Counter::Peers, 3);
    }
    canary.finish();
}

/// So many more, and `ended` in all when they have been cut off.
fn never_read(canary: &Canary, count: u64, ended: u64) {
    let sources = Sources::everywhere();
    let mut peers: Vec<Peer> =
        (0..count).map(|number| Peer::dial(&canary.target(), &Who::numbered(500 + number, sources.next())).unwrap()).collect();
    // All at once, until long after the engine has had enough of them.
    send_and_never_read(&mut peers, 200_000, Duration::from_secs(2));
    eventually_stats(&canary.server.handle(), "all of them are cut off", |stats| {
        let private = stats.get(Counter::PrivateBytes);
        let most = SHARED as u64 + (count + 3) * RESERVE as u64;
        assert!(private <= most, "{private} bytes are kept for them, and {most} may be");
        // Who reads nothing answers no ping either: that is what ends those for whom nothing waits.
        let slow = [Counter::SlowHardBound, Counter::SlowSoftMark, Counter::SlowWriteStall, Counter::ClosedUnresponsive];
        slow.iter().map(|&reason| stats.get(reason)).sum::<u64>() == ended
    });
    canary.sings();
}

#[test]
fn one_that_never_reads() {
    never_readers(Canary::secure(tight), 1, 1);
    never_readers(Canary::plaintext(tight), 1, 1);
}

#[test]
fn a_hundred_that_never_read() {
    never_readers(Canary::secure(tight), 100, 3);
    never_readers(Canary::plaintext(tight), 100, 1);
}

/// The defaults, and 64 MiB that are sent before the first byte is read: more than the outbox may have.
#[test]
fn sixty_four_mebibytes_there_before_any_is_read() {
    for canary in [Canary::secure as fn(fn(&mut Config)) -> Canary, Canary::plaintext] {
        let canary = canary(|config| config.limits.soft_grace = Duration::from_millis(500));
        let mut peer = Peer::dial(&canary.target(), &Who::numbered(500, Sources::everywhere().next())).unwrap();
        let message = long_message(1 << 20);
        for _ in 0..64 {
            // Once it is cut off, nothing more is taken.
            if peer.send(&message).is_err() {
                break;
            }
        }
        // What was kept for it came, or it was cut off: its answer has an end either way.
        canary.sings();
        eventually_stats(&canary.server.handle(), "it is cut off, or all that may be is kept", |stats| {
            assert!(stats.get(Counter::PrivateBytes) <= (16 << 20) + (256 << 10));
            stats.get(Counter::SlowSoftMark) == 1
        });
        drop(peer);
        canary.finish();
    }
}
