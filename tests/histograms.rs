//! What cores measure, as any thread reads it.
//!
//! Set-up: two engines that send to each other, one of them on two cores. Claim: every turn and every write is in the histograms, one in 13
//! of what is queued is, and nothing where they are off.

mod common;

use std::time::{Duration, Instant};

use common::node::Node;
use common::{LIVENESS, Wire, eventually, loopback};
use corecast::{Config, Cores, Counter, Dial, Frame, Histograms, Measure, QueryError};

/// What the server has measured, as soon as `done` says that it is enough.
fn measured(node: &Node, what: &str, done: impl Fn(&Histograms) -> bool) -> Histograms {
    let deadline = Instant::now() + LIVENESS;
    loop {
        let histograms = node.handle().histograms(LIVENESS).unwrap();
        if done(&histograms) {
            return histograms;
        }
        assert!(Instant::now() < deadline, "not within {LIVENESS:?}: {what}: {histograms:?}");
    }
}

#[test]
fn turns_writes_and_waiting_are_measured_on_every_core() {
    for wire in Wire::BOTH {
        let mut server = Node::report(wire.listening().cores(Cores::Unpinned(2)));
        let mut client = Node::report(wire.dialling());
        client.handle().dial(wire.dial(&server.engine)).unwrap();
        let (peer, _) = server.connected();
        client.connected();
        let frame = Frame::new(1, &[7; 1000]).unwrap();
        const SENDS: u64 = 130;
        (0..SENDS).for_each(|_| server.handle().send(peer, frame.clone()).unwrap());
        (0..SENDS).for_each(|_| client.wait("a message", |seen| matches!(seen, common::node::Seen::Message { .. }).then_some(())));
        let enough = |histograms: &Histograms| {
            histograms.get(Measure::Batch).sum() >= SENDS * 1000 && histograms.get(Measure::Queueing).count() >= SENDS / 13
        };
        let histograms = measured(&server, "all of it is measured", enough);
        let batch = histograms.get(Measure::Batch);
        assert!(batch.max() >= 1000 && batch.count() <= SENDS + 10, "{batch:?}");
        // From this thread alone; dials and closes are not in it.
        let queueing = histograms.get(Measure::Queueing);
        assert!(queueing.count() <= SENDS / 13 + 1, "{queueing:?}");
        assert!(Duration::from_nanos(queueing.max()) < LIVENESS, "{queueing:?}");
        // What the turns count and what they measure is the same, but for the turns since.
        let turns = histograms.get(Measure::Turn).count();
        eventually("turns are counted", || server.count(Counter::Turns) >= turns);
        let each: u64 = (0..2).map(|core| server.handle().core_histograms(core, LIVENESS).unwrap().get(Measure::Turn).count()).sum();
        assert!(each >= turns);
    }
}

#[test]
fn nothing_is_measured_where_it_is_off() {
    let mut config = loopback();
    config.metrics.histograms = false;
    let mut server = Node::report(config);
    let mut client = Node::report(Config::plaintext());
    client.handle().dial(Dial::to(server.address())).unwrap();
    let (peer, _) = server.connected();
    (0..100).for_each(|_| server.handle().send(peer, Frame::new(1, b"hello").unwrap()).unwrap());
    client.connected();
    client.wait("a message", |seen| matches!(seen, common::node::Seen::Message { .. }).then_some(()));
    assert!(server.handle().histograms(LIVENESS).unwrap() == Histograms::default());
}

#[test]
fn who_cannot_be_asked_is_an_error() {
    let node = Node::report(Config::plaintext());
    let handle = node.handle();
    assert_eq!(handle.core_histograms(1, LIVENESS).unwrap_err(), QueryError::Stopped);
    let asked = handle.clone();
    assert_eq!(node.run(0, move |_| asked.histograms(LIVENESS).unwrap_err()), QueryError::WouldDeadlock);
    node.engine.shutdown();
    assert_eq!(handle.histograms(LIVENESS).unwrap_err(), QueryError::Stopped);
}
