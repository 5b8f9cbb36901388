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
use common::node::Node;
use common::{Wire, eventually_stats};
use corecast::{Config, Counter};
use corecast_attacks::frames::{long_message, send_and_never_read};
use corecast_attacks::{Peer, Sources, Who};

const SEND_BYTES: usize = 64 << 20;

/// Small enough that the limits are met in a moment.
fn tight(config: &mut Config) {
    config.limits.max_message = 256 << 10;
    config.limits.outbox_hard = 4 << 20;
    config.limits.outbox_soft = 256 << 10;
    config.limits.soft_grace = Duration::from_millis(500);
    config.limits.send_bytes = SEND_BYTES;
    config.timeouts.write_stall = Duration::from_secs(2);
    config.keepalive.interval = Duration::from_millis(500);
    config.keepalive.timeout = Duration::from_secs(3);
}

/// Twice: what the first round has left with the allocator is enough for the second, or something leaks.
fn never_readers(mut canary: Canary, count: u64) {
    never_read(&canary, count, count);
    canary.counts(Counter::Peers, 3);
    canary.forget_memory();
    never_read(&canary, count, 2 * count);
    canary.finish();
}

/// So many more, and `ended` in all when they have been cut off.
fn never_read(canary: &Canary, count: u64, ended: u64) {
    let sources = Sources::everywhere();
    let mut peers: Vec<Peer> =
        (0..count).map(|number| Peer::dial(&canary.target(), &Who::numbered(500 + number, sources.next())).unwrap()).collect();
    std::thread::scope(|scope| {
        // All at once, until long after the engine has had enough of them.
        peers.iter_mut().for_each(|peer| drop(scope.spawn(move || send_and_never_read(peer, 200_000, Duration::from_secs(2)))));
    });
    eventually_stats(&canary.server.handle(), "all of them are cut off", |stats| {
        let private = stats.get(Counter::PrivateBytes);
        let most = (SEND_BYTES + (count as usize + 3) * (64 << 10)) as u64;
        assert!(private <= most, "{private} bytes are kept for them, and {most} may be");
        // Who reads nothing answers no ping either: that is what ends those for whom nothing waits.
        let slow = [Counter::SlowHardBound, Counter::SlowSoftMark, Counter::SlowWriteStall, Counter::ClosedUnresponsive];
        slow.iter().map(|&reason| stats.get(reason)).sum::<u64>() == ended
    });
    canary.sings();
}

#[test]
fn one_that_never_reads() {
    never_readers(Canary::secure(tight), 1);
    never_readers(Canary::plaintext(tight), 1);
}

#[test]
fn a_hundred_that_never_read() {
    never_readers(Canary::secure(tight), 100);
    never_readers(Canary::plaintext(tight), 100);
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

/// Neither side waits for the other to read before it reads itself.
#[test]
fn sixty_four_mebibytes_both_ways_at_once() {
    const MESSAGES: u8 = 64;
    for wire in Wire::BOTH {
        let roomy = |mut config: Config| {
            (config.limits.outbox_hard, config.limits.outbox_soft) = (160 << 20, 160 << 20);
            (config.limits.log_bytes, config.limits.send_bytes, config.limits.inbox_bytes) = (320 << 20, 320 << 20, 160 << 20);
            config
        };
        let mut server = Node::report(roomy(wire.listening()));
        let mut client = Node::report(roomy(wire.dialling()));
        client.handle().dial(wire.dial(&server.engine)).unwrap();
        let (there, back) = (client.connected().0, server.connected().0);
        for number in 0..MESSAGES {
            for (node, peer) in [(&client, there), (&server, back)] {
                node.handle().send(peer, node.handle().frame(1, &vec![number; 1 << 20]).unwrap()).unwrap();
            }
        }
        for number in 0..MESSAGES {
            for (node, peer) in [(&mut client, there), (&mut server, back)] {
                assert!(node.message(peer).1 == vec![number; 1 << 20], "message {number}");
            }
        }
        client.counts(Counter::MessagesSent, u64::from(MESSAGES));
        server.counts(Counter::MessagesSent, u64::from(MESSAGES));
        assert!(client.engine.shutdown().drained);
        server.finish();
    }
}
