//! Short stories about what a core measures, in virtual time, where every length is known.

use std::time::Duration;

use super::scenarios::{config, nanos, pair};
use super::sim::SECOND;
use crate::metrics::{Histograms, Measure};

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
