//! Short stories about what a core measures, in virtual time, where every length is known.

use std::time::Duration;

use super::scenarios::{config, nanos, pair, raw_name, world};
use super::sim::{SECOND, World};
use crate::config::Cores;
use crate::error::CloseReason;
use crate::id::Topic;
use crate::metrics::{Histograms, Measure};
use crate::shard::LaneBytes;
use crate::wire::{Frame, HEADER_LEN, Lane, Meta};

#[test]
fn sim_a_round_trip_is_measured_where_histograms_are_kept() {
    let mut off = config();
    off.metrics.histograms = false;
    let mut world = pair(config(), off);
    let keepalive = world.nodes[0].config.keepalive;
    world.run(nanos(keepalive.interval) + SECOND);
    let histograms = world.nodes[0].cores[0].shard.histograms();
    let round_trip = histograms.get(Measure::RoundTrip);
    assert_eq!(round_trip.count(), 1, "silence is probed once");
    // A millisecond there and one back, and to the turns' ends.
    let took = Duration::from_nanos(round_trip.max());
    assert!((Duration::from_millis(2)..Duration::from_millis(10)).contains(&took), "{took:?}");
    assert!(*world.nodes[1].cores[0].shard.histograms() == Histograms::default());
    let bound = |node: usize| world.nodes[node].config.memory_bound();
    assert!(bound(0) > bound(1), "what is off takes no memory");
}

#[test]
fn sim_a_snapshot_has_what_waits_in_each_lane() {
    let mut world = world([config()]);
    let (_, peer) = world.raw_peer(0);
    world.on(0, move |_, cx| {
        let lanes = [(Lane::High, 100), (Lane::Normal, 1000), (Lane::Normal, 1000), (Lane::Bulk, 10_000)];
        for (lane, len) in lanes {
            cx.send(peer, Meta::new(1).lane(lane), &vec![0; len]).unwrap();
        }
        cx.broadcast(&Frame::new(Meta::new(2).lane(Lane::High), &[0; 10]).unwrap()).unwrap();
        cx.subscribe(peer, Topic(7)).unwrap();
        let snapshot = &cx.shard.snapshot().peers[0];
        let lanes = snapshot.lanes;
        let expected = (2 * HEADER_LEN, 100 + 10 + 2 * HEADER_LEN, 2 * (1000 + HEADER_LEN), 10_000 + HEADER_LEN);
        assert_eq!((lanes.control, lanes.high, lanes.normal, lanes.bulk), expected);
        assert!(snapshot.queued_bytes >= lanes.control + lanes.high + lanes.normal + lanes.bulk);
    });
    world.run(SECOND);
    assert_eq!(world.nodes[0].cores[0].shard.snapshot().peers[0].lanes, LaneBytes::default(), "everything has left");
}

#[test]
fn sim_core_0_knows_why_each_nodes_last_connection_has_ended() {
    let mut two = config();
    two.cores = Cores::Unpinned(2);
    two.limits.max_peers = 3;
    let mut world = world([two]);
    let endings = |world: &World| world.nodes[0].cores[0].shard.snapshot().endings;
    let mut expected = Vec::new();
    for number in 0..5 {
        let (end, peer) = world.raw_peer(0);
        // On either core: whichever has fewer peers.
        world.task(0, peer.core(), move |_, cx| cx.close(peer));
        world.run(SECOND / 10);
        expected.push((raw_name(end.link), CloseReason::Requested));
        let kept = expected.len().saturating_sub(3);
        assert_eq!(endings(&world), expected[kept..], "after {number}");
        world.run(10 * SECOND);
    }
    // The last one comes again, and breaks a rule.
    let last = expected.pop().unwrap().0;
    let link = (0..100).find(|&link| raw_name(link) == last).unwrap();
    let (end, _) = world.raw_peer_named(0, link, 2);
    world.raw_write(end, &[0xFF; 64]);
    world.run(SECOND);
    let (node, reason) = *endings(&world).last().unwrap();
    assert!(node == last && matches!(reason, CloseReason::Violation(_)), "{reason:?}");
    assert_eq!(endings(&world).len(), 3);
    assert!(world.nodes[0].cores[1].shard.snapshot().endings.is_empty(), "the other core is not asked");
}
