//! What is known about peers at a moment, as any thread asks for it.
//!
//! Set-up: a server on two cores and peers that come, ask, and are closed. Claim: what waits is where it waits, the requests that have no
//! response yet are counted, and a node that comes again is shown with the reason why it had gone.

mod common;

use std::time::Duration;

use common::node::{Node, Seen};
use common::{LIVENESS, NEVER, Wire, eventually};
use corecast::{CloseReason, Cores, Counter, PeerSnapshot};

fn only_peer(node: &Node) -> Option<PeerSnapshot> {
    let mut peers = node.handle().peers(LIVENESS).unwrap();
    assert!(peers.len() <= 1);
    peers.pop()
}

#[test]
fn a_node_that_comes_again_is_shown_with_why_it_had_gone() {
    for wire in Wire::BOTH {
        let mut server = Node::report(wire.listening().cores(Cores::Unpinned(2)));
        let mut client = Node::report(wire.dialling());
        client.handle().dial(wire.dial(&server.engine)).unwrap();
        let (peer, _) = server.connected();
        let first = only_peer(&server).unwrap();
        assert_eq!((first.id, first.last_reason, first.lanes), (peer, None, Default::default()));
        server.handle().close(peer).unwrap();
        assert_eq!(server.closed(peer), CloseReason::Requested);
        // The dial goes on.
        let (again, _) = server.connected();
        let second = only_peer(&server).unwrap();
        assert_eq!((second.id, second.last_reason), (again, Some(CloseReason::Requested)), "{wire:?}");
        client.connected();
        client.connected();
        let theirs = only_peer(&client).unwrap();
        assert!(matches!(theirs.last_reason, Some(CloseReason::Goodbye(_))), "{theirs:?}");
    }
}

#[test]
fn requests_without_a_response_are_counted_and_memory_is_given_back() {
    let wire = Wire::Plaintext;
    let mut server = Node::report(wire.listening());
    let mut client = Node::report(wire.dialling());
    client.handle().dial(wire.dial(&server.engine)).unwrap();
    let (peer, _) = client.connected();
    client.run(0, move |cx| (0..5).for_each(|tag| assert!(cx.request(peer, 1, b"what?", NEVER, tag).is_ok())));
    eventually("the requests are counted", || client.handle().pending_requests() == 5);
    let snapshot = only_peer(&client).unwrap();
    assert_eq!(snapshot.pending_requests, 5);
    let responders: Vec<_> = (0..5).map(|_| server.request().3).collect();
    for responder in responders {
        server.handle().respond(responder, 1, b"that").unwrap();
    }
    (0..5).for_each(|_| client.wait("a response", |seen| matches!(seen, Seen::Response { .. }).then_some(())));
    client.counts(Counter::PendingRequests, 0);
    assert_eq!(client.handle().pending_requests(), 0);
    // Large enough to come in pieces, in a buffer of the pool; the second finds the memory of the first.
    assert_eq!(server.handle().stats().buffer_hit_rate(), None);
    let large = client.handle().frame(2, &[1; 50_000]).unwrap();
    for _ in 0..4 {
        client.handle().send(peer, large.clone()).unwrap();
        server.wait("the large one", |seen| matches!(seen, Seen::Message { .. }).then_some(()));
    }
    eventually("most buffers are memory used before", || server.handle().stats().buffer_hit_rate().is_some_and(|rate| rate >= 0.25));
    let held = server.handle().stats().memory_held();
    assert!((1..10 << 20).contains(&held), "{held} bytes");
    assert!(only_peer(&server).unwrap().age < Duration::from_secs(3600));
}
