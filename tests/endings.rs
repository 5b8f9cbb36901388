//! Endings do not overtake what was sent before them.
//!
//! Set-up: one engine of one or two cores with raw peers, spoken to through a handle. Claim: what the handle sent before it closed a peer,
//! or before the engine was shut down, arrives whole and in order, then the goodbye; commands that were posted before are carried out.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::loopback;
use common::node::Node;
use common::raw::Hello;
use corecast::{Context, Cores};

const ALL: u32 = 1000;
/// Codes of WIRE.md, 5.4.
const CLOSED: u16 = 0;
const SHUTTING_DOWN: u16 = 1;

#[test]
fn what_a_handle_sent_before_a_shutdown_arrives() {
    for cores in [1, 2] {
        let mut node = Node::report(loopback().cores(Cores::Unpinned(cores)));
        let (mut first, first_id) = node.raw_peer(Hello::node(1));
        let (mut second, _) = node.raw_peer(Hello::node(2));
        let handle = node.handle();
        let done = Arc::new(AtomicU32::new(0));
        for number in 0..ALL {
            let frame = handle.frame(1, &number.to_le_bytes()).unwrap();
            handle.broadcast(frame.clone()).unwrap();
            if number % 2 == 0 {
                handle.send(first_id, frame).unwrap();
            }
            let done = Arc::clone(&done);
            let count: Box<dyn FnOnce(&mut Context<'_>) + Send> = Box::new(move |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert!(handle.post(first_id.core(), count).is_ok());
        }
        let report = node.engine.shutdown();
        for number in 0..ALL {
            first.expect_data(1, &number.to_le_bytes());
            if number % 2 == 0 {
                first.expect_data(1, &number.to_le_bytes());
            }
            second.expect_data(1, &number.to_le_bytes());
        }
        first.expect_goodbye(SHUTTING_DOWN, 0);
        second.expect_goodbye(SHUTTING_DOWN, 0);
        assert_eq!(done.load(Ordering::Relaxed), ALL);
        assert_eq!((report.unsent_messages, report.unsent_bytes), (0, 0), "{report:?}");
    }
}

#[test]
fn what_a_handle_sent_before_a_close_arrives() {
    let mut node = Node::report(loopback());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let handle = node.handle();
    for number in 0..ALL {
        let frame = handle.frame(1, &number.to_le_bytes()).unwrap();
        if number % 2 == 0 { handle.send(peer, frame).unwrap() } else { handle.broadcast(frame).unwrap() }
    }
    handle.close(peer).unwrap();
    (0..ALL).for_each(|number| raw.expect_data(1, &number.to_le_bytes()));
    raw.expect_goodbye(CLOSED, 0);
    drop(raw);
    node.finish();
}

#[test]
fn what_a_core_sent_before_it_closed_a_peer_of_another_core_arrives() {
    let mut node = Node::report(loopback().cores(Cores::Unpinned(2)));
    let mut peers = [node.raw_peer(Hello::node(1)), node.raw_peer(Hello::node(2))];
    let at = peers.iter().position(|(_, id)| id.core() == 1).expect("peers are spread over the cores");
    let (raw, peer) = &mut peers[at];
    let peer = *peer;
    node.run(0, move |cx| {
        for number in 0..ALL {
            cx.send(peer, 1, &number.to_le_bytes()).unwrap();
        }
        cx.close(peer);
    });
    (0..ALL).for_each(|number| raw.expect_data(1, &number.to_le_bytes()));
    raw.expect_goodbye(CLOSED, 0);
    drop(peers);
    node.finish();
}
