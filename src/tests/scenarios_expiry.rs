//! Short stories about frames with a time to live, in virtual time: what is dropped, when, and whom that concerns.

use std::time::Duration;

use super::actor::Actor;
use super::oracle::Item;
use super::scenarios::{META, pair};
use super::scenarios_slow::{Reader, SOFT, frame, send, slow_config};
use super::sim::{MILLI, SECOND, World};
use crate::config::{Config, WhenSlow};
use crate::error::{CloseReason, SendError, Slow};
use crate::handler::Context;
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::wire::{HEADER_LEN, Kind};

/// One that is of use for so many milliseconds, to the peer.
fn send_for(actor: &mut Actor, cx: &mut Context<'_>, peer: PeerId, len: usize, ttl: u64) -> Result<(), SendError> {
    let frame = frame(actor, cx, len).with_ttl(Duration::from_millis(ttl));
    send(actor, cx, peer, &frame)
}

/// A node that reads, and a raw peer with so much room before it.
fn stopped(capacity: usize, change: impl FnOnce(&mut Config)) -> (World, PeerId, Reader) {
    let mut config = slow_config(WhenSlow::Disconnect);
    change(&mut config);
    let other = Config { keepalive: config.keepalive, ..super::scenarios::config() };
    let mut world = pair(config, other);
    let reader = Reader::new(&mut world, capacity);
    let peer = reader.peer;
    (world, peer, reader)
}

#[test]
fn sim_what_is_stale_is_dropped_whole_and_what_has_begun_is_finished() {
    // The room ends in a frame, and between two fragments.
    for capacity in [10_000, 10 * (HEADER_LEN + 1024)] {
        let (mut world, peer, mut reader) = stopped(capacity, |_| ());
        let base = world.base();
        world.on(0, move |actor, cx| {
            // Half of it leaves; the others wait behind it, and two of them for too long.
            for ttl in [10, 10, 50, 10, 1000] {
                assert_eq!(send_for(actor, cx, peer, 20_000, ttl), Ok(()));
            }
            let frame = frame(actor, cx, 20_000);
            assert_eq!(send(actor, cx, peer, &frame), Ok(()));
        });
        world.run(20 * MILLI);
        reader.go_on(&mut world);
        assert_eq!(reader.since(base), [0, 2, 4, 5], "into {capacity}");
        assert_eq!(world.dropped(), [0, 0, 0, 2]);
        assert_eq!((world.count(0, Counter::PrivateBytes), world.count(0, Counter::MessagesSent)), (0, 4));
    }
}

#[test]
fn sim_a_message_leaves_up_to_the_moment_in_which_its_time_is_up() {
    for (late, left) in [(0, vec![0, 1]), (1, vec![0])] {
        let (mut world, peer, mut reader) = stopped(2 * 1008, |_| ());
        let base = world.base();
        world.on(0, move |actor, cx| {
            let frame = frame(actor, cx, 2 * 1008 - HEADER_LEN);
            assert_eq!(send(actor, cx, peer, &frame), Ok(()));
            assert_eq!(send_for(actor, cx, peer, 1000, 10), Ok(()));
        });
        // The room comes back with the read, after a millisecond of latency.
        world.run(9 * MILLI + late);
        reader.read(&mut world);
        reader.go_on(&mut world);
        assert_eq!((reader.since(base), world.dropped()[3]), (left, late), "{late} ns late");
    }
}

#[test]
fn sim_a_message_of_no_duration_leaves_in_its_turn_or_not_at_all() {
    let (mut world, peer, mut reader) = stopped(10_000, |_| ());
    let base = world.base();
    let now = move |world: &mut World, len: usize| world.on(0, move |actor, cx| assert_eq!(send_for(actor, cx, peer, len, 0), Ok(())));
    now(&mut world, 1000);
    // This one is begun, and so it is finished; of the next nothing leaves in its turn.
    now(&mut world, 20_000);
    now(&mut world, 1000);
    world.run(MILLI);
    reader.go_on(&mut world);
    now(&mut world, 1000);
    reader.go_on(&mut world);
    assert_eq!((reader.since(base), world.dropped()), (vec![0, 1, 3], [0, 0, 0, 1]));
}

#[test]
fn sim_a_broadcast_expires_for_who_is_slow_alone() {
    let (mut world, slow, mut reader) = stopped(10_000, |_| ());
    let base = world.base();
    for number in 0..40 {
        world.on(0, move |actor, cx| {
            let frame = frame(actor, cx, 1000);
            let frame = if number % 2 == 1 { frame.with_ttl(Duration::from_millis(20)) } else { frame };
            assert_eq!(actor.broadcast(cx, &[frame], None), Ok(()));
        });
        world.run(MILLI);
    }
    world.run(MILLI);
    reader.go_on(&mut world);
    // The kernel took nine, and the tenth had begun. The last ones have not waited for too long, when after 42 ms it takes more.
    let got = reader.since(base);
    let expected: Vec<u64> = (0..40).filter(|&number| number < 10 || number % 2 == 0 || number + 20 >= 42).collect();
    assert_eq!((got.len() as u64 + world.dropped()[3], got), (40, expected));
    assert_eq!((world.messages(1), world.closed(0)), (40, vec![]), "the other one has them all");
    assert_eq!(world.slowness(slow), []);
    assert_eq!([Counter::PrivateBytes, Counter::LogBytes].map(|level| world.count(0, level)), [0, 0]);
}

/// Fills an outbox with what is of use for 10 ms, to where the next message is refused, lets that expire and sends one more.
fn refused_then_taken(change: impl FnOnce(&mut Config)) -> (u64, World) {
    let (mut world, peer, mut reader) = stopped(10_000, change);
    let base = world.base();
    world.on(0, move |actor, cx| (0..3).for_each(|_| assert_eq!(send_for(actor, cx, peer, 5000, 10), Ok(()))));
    // Now its socket takes nothing more.
    world.on(0, move |actor, cx| {
        while send_for(actor, cx, peer, 5000, 10) == Ok(()) {}
        let frame = frame(actor, cx, 5000);
        assert_eq!(send(actor, cx, peer, &frame), Err(SendError::OutboxFull));
    });
    let queued = world.count(0, Counter::MessagesSent) + world.nodes[0].cores[0].shard.queued_bytes(peer) as u64 / 5080;
    world.run(11 * MILLI);
    world.on(0, move |actor, cx| {
        let frame = frame(actor, cx, 5000);
        assert_eq!(send(actor, cx, peer, &frame), Ok(()), "what has expired makes room");
    });
    reader.go_on(&mut world);
    let (got, expired) = (reader.since(base), world.dropped()[3]);
    // One had left, one had begun, and the last one came after two that were refused.
    assert_eq!(got, [0, 1, 2 + expired + 2]);
    (queued, world)
}

#[test]
fn sim_what_has_expired_makes_room_for_what_would_be_refused() {
    let (queued, mut world) = refused_then_taken(|_| ());
    assert!((36..=41).contains(&queued), "{queued} are 200 KB");
    assert_eq!(world.count(0, Counter::SendsRefused), 2);
    // The same for the memory of the core.
    let (queued, mut world) = refused_then_taken(|config| {
        config.limits.send_bytes = 60_000;
        config.limits.outbox_soft = config.limits.outbox_hard;
    });
    assert!((9..30).contains(&queued), "{queued} are 60 KB and the reserve of a peer");
    assert_eq!(world.count(0, Counter::SendsRefused), 2);
}

#[test]
fn sim_who_is_over_the_mark_with_what_expires_has_drained_when_that_is_gone() {
    // Nothing has begun, so nothing that leaves says it.
    let (mut world, peer, mut reader) = stopped(2 * 1008, |_| ());
    world.on(0, move |actor, cx| (0..60).for_each(|_| assert_eq!(send_for(actor, cx, peer, 1000, 10), Ok(()))));
    world.run(20 * MILLI);
    assert!(matches!(world.slowness(peer)[..], [(_, Some(report))] if report.bytes >= SOFT));
    let resumed = world.now;
    reader.go_on(&mut world);
    let told = world.slowness(peer);
    assert!(matches!(told[..], [_, (at, None)] if at < resumed + 5 * MILLI), "{told:?} after {resumed}");
    assert_eq!(world.dropped(), [0, 0, 0, 58]);
}

#[test]
fn sim_a_closing_peer_whose_last_messages_expire_is_told_goodbye() {
    for len in [1000, 5000] {
        let (mut world, peer, mut reader) = stopped(2 * (len + HEADER_LEN), |_| ());
        let base = world.base();
        world.on(0, move |actor, cx| {
            (0..5).for_each(|_| assert_eq!(send_for(actor, cx, peer, len, 10), Ok(())));
        });
        world.on(0, move |_, cx| cx.close(peer));
        world.run(20 * MILLI);
        reader.go_on(&mut world);
        let (_, told) = reader.messages();
        assert_eq!((reader.since(base), told, world.dropped()[3]), (vec![0, 1], Some(Kind::Goodbye), 3), "{len}");
        world.net.close(world.now, reader.end);
        world.run(SECOND);
        assert_eq!(world.count(0, Counter::PrivateBytes), 0);
        assert_eq!(world.closed(0).iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [CloseReason::Requested]);
    }
}

#[test]
fn sim_a_full_socket_for_which_nothing_waits_is_no_stall() {
    let stall = Duration::from_secs(10);
    let (mut world, peer, mut reader) = stopped(2 * 1008, |config| config.timeouts.write_stall = stall);
    let base = world.base();
    let fill = move |actor: &mut Actor, cx: &mut Context<'_>| (0..3).for_each(|_| assert_eq!(send_for(actor, cx, peer, 1000, 10), Ok(())));
    world.on(0, fill);
    world.run(60 * SECOND);
    assert_eq!((world.closed(0), world.dropped()[3]), (vec![], 1), "two are in the kernel, and one is stale");
    reader.go_on(&mut world);
    world.on(0, fill);
    reader.go_on(&mut world);
    assert_eq!(reader.since(base), [0, 1, 3, 4, 5]);
    // And where something waits it is one.
    world.on(0, fill);
    world.run(60 * SECOND);
    world.on(0, move |actor, cx| {
        let frame = frame(actor, cx, 1000);
        let result = cx.send_frame(peer, &frame);
        actor.taken(peer, &result, META, Item::sent(&frame));
        assert!(result.is_ok());
    });
    let begin = world.now;
    world.run(60 * SECOND);
    let closed = world.closed(0);
    assert_eq!((closed.len(), closed[0].1), (1, CloseReason::SlowPeer(Slow::WriteStall)));
    assert!((10 * SECOND..11 * SECOND).contains(&(closed[0].0 - begin)), "after {}", closed[0].0 - begin);
}
