//! Acknowledged sends over sockets.
//!
//! Set-up: engines whose handlers report everything, and peers written by hand that acknowledge, or do not, as each test says. Claims:
//! every send has one outcome, told to the handler or to the thread that asked; a peer that comes back is sent again what it has not
//! acknowledged; it is handed over once; who acknowledges what was not sent is cut off by rule 16; a broadcast says when a quorum
//! has it.

mod common;

use std::time::Duration;

use common::node::{Mode, Node, Seen};
use common::raw::{ACK, Hello, Raw, acked, control};
use common::{LIVENESS, NEVER, eventually_stats, loopback};
use corecast::{AckFailure, CloseReason, Config, Cores, Counter, Dial, NodeId, PeerId, Receipt, ReceiptError, SendError, Violation};

const TYPE: u16 = 5;
const BY_HANDLER: u16 = 6;
/// Long enough for what is to happen before it, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// The same node, come back: another connection of it replaces one that the engine still has only after a second.
fn come_back(node: &mut Node, old: Raw, peer: PeerId) -> (Raw, PeerId) {
    let hello = old.hello;
    old.reset();
    node.closed(peer);
    node.raw_peer(hello)
}

fn nodes(receipt: &Receipt) -> Vec<NodeId> {
    receipt.acked().iter().map(|(node, _)| *node).collect()
}

#[test]
fn between_two_engines_a_send_ends_with_the_acknowledgement() {
    for cores in [1, 2] {
        let mut server = Node::report(loopback().cores(Cores::Unpinned(cores)));
        let mut client = Node::report(Config::plaintext().cores(Cores::Unpinned(cores)));
        client.handle().dial(Dial::to(server.address())).unwrap();
        let (to_server, _) = client.connected();
        let (from_client, _) = server.connected();
        // From each core, so that one of them is not the peer's.
        for core in 0..cores {
            let id = client.run(core, move |cx| cx.send_acked(to_server, TYPE, b"vote", NEVER, 7).unwrap());
            assert_eq!(server.message(from_client).1, b"vote");
            let receipt = client.receipt(7);
            assert_eq!((receipt.id(), id.core(), nodes(&receipt)), (id, core, vec![server.engine.node_id()]));
            assert!(receipt.is_complete() && receipt.is_acked() && receipt.kth(1).is_some_and(|after| after > Duration::ZERO));
        }
        // From a thread, to the peer, to the node, and to everybody.
        let (handle, node) = (client.handle(), server.engine.node_id());
        for mut pending in [
            handle.send_acked(to_server, TYPE, b"a", NEVER).unwrap(),
            handle.send_acked(node, TYPE, b"b", NEVER).unwrap(),
            handle.broadcast_acked(TYPE, b"c", NEVER).unwrap(),
        ] {
            assert!(pending.wait_for(1, LIVENESS).unwrap().is_some());
            let receipt = pending.wait(LIVENESS).unwrap();
            assert_eq!((receipt.expected(), nodes(&receipt)), (Some(1), vec![node]));
            assert_eq!(pending.wait_for(2, LIVENESS), Ok(None), "there was only one");
            server.message(from_client);
        }
        client.counts(Counter::Receipts, 0);
        server.counts(Counter::MessagesReceived, cores as u64 + 3);
        client.engine.shutdown();
        server.closed(from_client);
        server.finish();
    }
}

#[test]
fn who_never_acknowledges_lets_the_deadline_pass() {
    let mut node = Node::report(loopback());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    node.run(0, move |cx| cx.send_acked(peer, TYPE, b"x", SHORT, 1).unwrap());
    let mut pending = node.handle().send_acked(peer, TYPE, b"y", 2 * SHORT).unwrap();
    assert_eq!(pending.wait(Duration::ZERO), Err(ReceiptError::TimedOut), "it goes on");
    let (first, body) = raw.acked();
    assert_eq!(body, b"x");
    let expired = [(Some(NodeId(raw.hello.node)), AckFailure::Expired)];
    let receipt = node.receipt(1);
    assert_eq!((receipt.acked(), receipt.failed(), receipt.is_acked()), (&[][..], &expired[..], false));
    assert_eq!(pending.wait(LIVENESS).unwrap().failed(), expired);
    // Too late, which is no crime.
    raw.send(&control(ACK, first));
    node.counts(Counter::LateAcks, 1);
    node.counts(Counter::ReceiptsExpired, 2);
    node.counts(Counter::Receipts, 0);
    assert_eq!(node.count(Counter::Peers), 1);
}

#[test]
fn acknowledging_twice_is_late_and_once_more_than_there_were_messages_is_a_violation() {
    let mut node = Node::report(loopback());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    raw.send(&control(ACK, 1));
    raw.expect_goodbye(5, 16);
    assert_eq!(node.closed(peer), CloseReason::Violation(Violation::UnsolicitedAck));

    let (mut raw, peer) = node.raw_peer(Hello::node(2));
    for tag in [1, 2] {
        node.run(0, move |cx| cx.send_acked(peer, TYPE, b"x", NEVER, tag).unwrap());
    }
    let ids = [raw.acked().0, raw.acked().0];
    raw.send(&[control(ACK, ids[1]), control(ACK, ids[1])].concat());
    assert!(node.receipt(2).is_acked());
    node.counts(Counter::LateAcks, 1);
    raw.send(&control(ACK, ids[0]));
    raw.expect_goodbye(5, 16);
    assert_eq!(node.closed(peer), CloseReason::Violation(Violation::UnsolicitedAck));
    node.counts(Counter::ViolationUnsolicitedAck, 2);
    // The first is still to be acknowledged, by the next connection.
    node.counts(Counter::Receipts, 1);
}

#[test]
fn who_comes_back_is_sent_again_what_it_has_not_acknowledged() {
    let mut node = Node::report(loopback().cores(Cores::Unpinned(2)));
    let (mut raw, mut peer) = node.raw_peer(Hello::node(1));
    let mut pending: Vec<_> = (0..3u8).map(|number| node.handle().send_acked(peer, TYPE, &[number], NEVER).unwrap()).collect();
    let first: Vec<_> = (0..3).map(|_| raw.acked()).collect();
    raw.send(&control(ACK, first[1].0));
    assert!(pending[1].wait(LIVENESS).unwrap().is_acked());
    for _ in 0..3 {
        (raw, peer) = come_back(&mut node, raw, peer);
        assert_eq!([raw.acked(), raw.acked()], [first[0].clone(), first[2].clone()], "the same, in order");
    }
    raw.send(&[control(ACK, first[0].0), control(ACK, first[2].0)].concat());
    for pending in &mut pending {
        assert!(pending.wait(LIVENESS).unwrap().is_acked());
    }
    node.counts(Counter::AckedResent, 6);
    node.counts(Counter::AckedSent, 3);
}

#[test]
fn a_connection_that_takes_the_place_of_another_goes_on_where_that_was() {
    let mut node = Node::report(loopback().cores(Cores::Unpinned(3)));
    // Others, so that the cores take turns.
    let _others: Vec<_> = (10..12).map(|number| node.raw_peer(Hello::node(number))).collect();
    let (mut old, peer) = node.raw_peer(Hello::node(1));
    let mut pending = node.handle().send_acked(peer, TYPE, b"x", NEVER).unwrap();
    let sent = old.acked();
    old.send(&acked(TYPE, 77, b"taken"));
    assert_eq!(node.message(peer).1, b"taken");
    assert_eq!(old.read(16), control(ACK, 77));
    // A node replaces its own connection at most once a second.
    std::thread::sleep(Duration::from_millis(1100));
    let (mut new, successor) = node.raw_peer(Hello::node(1));
    assert_eq!(node.closed(peer), CloseReason::Replaced);
    assert_eq!(new.acked(), sent);
    new.send(&[acked(TYPE, 77, b"taken"), acked(TYPE, 78, b"new"), control(ACK, sent.0)].concat());
    assert_eq!(new.read(32), [control(ACK, 77), control(ACK, 78)].concat());
    assert_eq!(node.message(successor).1, b"new", "and not what was taken before");
    assert!(pending.wait(LIVENESS).unwrap().is_acked());
    node.counts(Counter::DuplicatesSuppressed, 1);
}

#[test]
fn a_broadcast_says_when_a_quorum_has_it() {
    let mut node = Node::report(loopback().cores(Cores::Unpinned(2)));
    let mut raws: Vec<_> = (0..4).map(|number| node.raw_peer(Hello::node(number)).0).collect();
    let mut pending = node.handle().broadcast_acked(TYPE, b"block", 4 * SHORT).unwrap();
    node.run(1, |cx| cx.broadcast_acked(TYPE, b"other", NEVER, 9).unwrap());
    let ids: Vec<_> = raws.iter_mut().map(|raw| [raw.acked(), raw.acked()]).collect();
    let id = |raw: usize, body: &[u8]| ids[raw].iter().find(|(_, got)| got == body).unwrap().0;
    assert!((1..4).all(|raw| id(raw, b"block") == id(0, b"block")), "encoded once");
    assert_eq!(pending.wait_for(1, Duration::ZERO), Err(ReceiptError::TimedOut));
    let mut times = Vec::new();
    for (k, raw) in [2, 0, 3].into_iter().enumerate() {
        raws[raw].send(&control(ACK, id(raw, b"block")));
        times.push(pending.wait_for(k + 1, LIVENESS).unwrap().unwrap());
    }
    assert!(times.is_sorted() && times[0] > Duration::ZERO);
    // The last never does.
    let receipt = pending.wait(LIVENESS).unwrap();
    assert_eq!(nodes(&receipt), [2, 0, 3].map(|raw: usize| NodeId(raws[raw].hello.node)));
    assert_eq!((receipt.expected(), receipt.failed()), (Some(4), &[(None, AckFailure::Expired)][..]));
    assert_eq!([receipt.kth(1), receipt.kth(2), receipt.kth(3)], [times[0], times[1], times[2]].map(Some));

    // And a handler sees each as it comes.
    for (count, raw) in raws.iter_mut().enumerate() {
        raw.send(&control(ACK, id(count, b"other")));
        let told = node.wait("the next acknowledgement", |seen| match seen {
            Seen::Acked { core: 1, tag: 9, count } => Some(*count),
            _ => None,
        });
        assert_eq!(told, count + 1);
    }
    assert!(node.receipt(9).is_acked());
}

#[test]
fn a_message_to_a_node_waits_for_its_connection() {
    let mut server = Node::report(loopback());
    let mut client = Node::report(Config::plaintext().cores(Cores::Unpinned(2)));
    let node = server.engine.node_id();
    client.run(1, move |cx| cx.send_acked(node, TYPE, b"early", NEVER, 1).unwrap());
    client.run(1, move |cx| cx.send_acked((node, 3), TYPE, b"elsewhere", SHORT, 2).unwrap());
    assert_eq!(client.receipt(2).failed(), [(Some(node), AckFailure::Expired)]);
    client.handle().dial(Dial::to(server.address())).unwrap();
    let (peer, _) = server.connected();
    assert_eq!(server.message(peer).1, b"early");
    assert!(client.receipt(1).is_acked());
    server.counts(Counter::MessagesReceived, 1);
}

#[test]
fn the_application_acknowledges_the_types_that_it_has_asked_for() {
    let mut config = loopback();
    config.acks.by_handler = vec![9, BY_HANDLER, 1];
    let mut node = Node::report(config);
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    raw.send(&[acked(BY_HANDLER, 1, b"a"), acked(BY_HANDLER, 2, b"b"), acked(TYPE, 3, b"c")].concat());
    assert_eq!(raw.read(16), control(ACK, 3), "only this one by itself");
    let (first, second) = (node.owed(), node.owed());
    assert_eq!((first.peer(), second.peer()), (peer, peer));
    // From a handler, and from any thread.
    node.run(0, move |cx| cx.ack(second).unwrap());
    assert_eq!(raw.read(16), control(ACK, 2));
    node.handle().ack(first).unwrap();
    assert_eq!(raw.read(16), control(ACK, 1));

    // One that was not acknowledged is handed over again on the next connection, and the old right is worth nothing.
    raw.send(&acked(BY_HANDLER, 4, b"d"));
    let old = node.owed();
    let (mut raw, _) = come_back(&mut node, raw, peer);
    raw.send(&[acked(BY_HANDLER, 4, b"d"), acked(BY_HANDLER, 2, b"b")].concat());
    assert_eq!(raw.read(16), control(ACK, 2), "that one was");
    let new = node.owed();
    assert_eq!(node.run(0, move |cx| cx.ack(old)), Err(SendError::NotConnected));
    node.run(0, move |cx| cx.ack(new).unwrap());
    assert_eq!(raw.read(16), control(ACK, 4));
    node.counts(Counter::DuplicatesSuppressed, 1);
    node.counts(Counter::MessagesReceived, 5);
}

#[test]
fn a_send_that_is_refused_says_so_and_has_no_receipt() {
    let mut config = loopback();
    config.acks.pending = 1;
    let mut node = Node::report(config);
    let (_raw, peer) = node.raw_peer(Hello::node(1));
    let handle = node.handle();
    let mut first = handle.send_acked(peer, TYPE, b"x", SHORT).unwrap();
    let mut second = handle.send_acked(peer, TYPE, b"x", SHORT).unwrap();
    assert_eq!(second.wait(LIVENESS), Err(ReceiptError::Send(SendError::TooManyUnacked)));
    assert_eq!(second.wait_for(1, LIVENESS), Err(ReceiptError::Send(SendError::TooManyUnacked)));
    assert_eq!(first.wait(LIVENESS).unwrap().acked(), []);
    let too_long = node.run(0, |cx| cx.broadcast_acked(TYPE, &vec![0; 2 << 20], NEVER, 1));
    assert_eq!(too_long, Err(SendError::TooLong { len: 2 << 20, max: 1 << 20 }));
    assert!(matches!(handle.broadcast_acked(TYPE, &vec![0; 2 << 20], NEVER), Err(SendError::TooLong { .. })));
    node.counts(Counter::AckedRefused, 2);
    assert_eq!(node.leftovers().len(), 0, "no receipt");
}

#[test]
fn waiting_on_a_core_would_wait_for_itself_and_a_stopped_engine_has_an_end_for_every_send() {
    let mut node = Node::start(loopback(), Mode::Report);
    let (_raw, peer) = node.raw_peer(Hello::node(1));
    let handle = node.handle();
    let on_core = node.run(0, {
        let mut pending = handle.send_acked(peer, TYPE, b"x", NEVER).unwrap();
        move |_| (pending.wait(NEVER), pending.wait_for(1, NEVER))
    });
    assert_eq!(on_core, (Err(ReceiptError::WouldDeadlock), Err(ReceiptError::WouldDeadlock)));
    let mut pending = handle.send_acked(NodeId([9; 32]), TYPE, b"x", NEVER).unwrap();
    eventually_stats(&handle, "both run", |stats| stats.get(Counter::Receipts) == 2);
    node.engine.shutdown();
    assert_eq!(pending.wait(LIVENESS).unwrap().failed(), [(Some(NodeId([9; 32])), AckFailure::Stopped)]);
    assert_eq!(handle.send_acked(peer, TYPE, b"x", NEVER).map(drop), Err(SendError::Stopped));
    assert_eq!(handle.broadcast_acked(TYPE, b"x", NEVER).map(drop), Err(SendError::Stopped));
}

#[test]
fn a_core_that_is_lost_leaves_no_send_without_an_end() {
    let mut node = Node::report(loopback().cores(Cores::Unpinned(2)));
    let (_first, one) = node.raw_peer(Hello::node(1));
    let (_second, two) = node.raw_peer(Hello::node(2));
    let (kept, lost) = if one.core() == 0 { (one, two) } else { (two, one) };
    assert_eq!((kept.core(), lost.core()), (0, 1));
    let mut gone = node.handle().send_acked(lost, TYPE, b"x", NEVER).unwrap();
    node.run(0, move |cx| cx.send_acked(lost, TYPE, b"x", SHORT, 1).unwrap());
    node.run(0, move |cx| cx.broadcast_acked(TYPE, b"x", SHORT, 2).unwrap());
    eventually_stats(&node.handle(), "all are on their way", |stats| stats.get(Counter::AckedSent) == 4);
    node.handle().post(1, Box::new(|_| panic!("on purpose"))).unwrap_or_else(|refused| panic!("{}", refused.reason));
    assert_eq!(gone.wait(LIVENESS), Err(ReceiptError::Stopped), "its receipt was on the core that is lost");
    assert_eq!(node.receipt(1).failed(), [(None, AckFailure::Expired)]);
    assert_eq!(node.receipt(2).failed(), [(None, AckFailure::Expired); 2]);
}

#[test]
fn a_core_that_is_lost_before_it_yields_lets_the_successor_begin() {
    let mut node = Node::report(loopback().cores(Cores::Unpinned(2)));
    let (_first, one) = node.raw_peer(Hello::node(1));
    let (_second, two) = node.raw_peer(Hello::node(2));
    assert_eq!((one.core(), two.core()), (0, 1));
    // A node replaces its own connection at most once a second.
    std::thread::sleep(Duration::from_millis(1100));
    let blocked = node.block(1);
    let mut raw = Raw::connect(node.address());
    raw.send(&Hello::node(2).greeting());
    // The directory has asked the blocked core to yield by now, or will: what it does next is to end.
    node.handle().post(1, Box::new(|_| panic!("on purpose"))).unwrap_or_else(|refused| panic!("{}", refused.reason));
    node.counts(Counter::HalfOpen, 1);
    drop(blocked);
    raw.read_greeting();
    raw.send(&common::raw::header(0, common::raw::READY, 0, 0));
    let (peer, info) = node.connected();
    assert_eq!((peer.core(), info.node.0), (0, Hello::node(2).node));
}
