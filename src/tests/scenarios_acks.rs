//! Acknowledged sends in short stories with one outcome each, in virtual time.

use std::time::Duration;

use super::acks::BY_HANDLER;
use super::actor::Mood;
use super::oracle::Told;
use super::pace::Pace;
use super::pipe::{End, Faults};
use super::scenarios::{META, config, named, nanos, pair, raw_name, world};
use super::sim::{MILLI, SECOND, World, address};
use crate::config::Cores;
use crate::dial::Dial;
use crate::error::{CloseReason, SendError, Slow, Violation};
use crate::id::{NodeId, PeerId};
use crate::metrics::Counter;
use crate::receipt::{AckFailure, Receipt, ReceiptId, Target};
use crate::wire::{Draft, HEADER_LEN, Header, Kind, Meta, append_message, control_frame};

const DEADLINE: Duration = Duration::from_secs(20);

impl World {
    /// When each acknowledged send of the node ended, and how.
    fn receipts(&self, node: usize) -> Vec<(u64, Receipt)> {
        self.told(node, |told| if let Told::Receipt(receipt) = told { Some(receipt.clone()) } else { None })
    }

    /// The node's only receipt.
    #[track_caller]
    fn only_receipt(&self, node: usize) -> Receipt {
        let receipts = self.receipts(node);
        assert_eq!(receipts.len(), 1, "{receipts:?}");
        receipts[0].1.clone()
    }

    /// The first core of a node sends something to be acknowledged.
    pub(super) fn send_acked(&mut self, node: usize, target: impl Into<Target>, meta: Meta) {
        let target = target.into();
        self.on(node, move |actor, cx| assert!(actor.send_acked(cx, Some(target), meta, 100, DEADLINE).is_ok()));
    }

    fn name(&self, node: usize) -> NodeId {
        self.nodes[node].shared.node
    }

    /// The ids of the messages that came to a raw peer and ask for an acknowledgement. Nothing comes in pieces.
    pub(super) fn raw_acked(&mut self, end: End) -> Vec<u64> {
        let bytes = self.raw_read(end);
        let (mut rest, mut ids) = (&bytes[..], Vec::new());
        while let Some(head) = rest.first_chunk::<HEADER_LEN>() {
            let header = Header::decode(*head).unwrap();
            if header.kind == Kind::Acked {
                ids.push(u64::from_le_bytes(*rest[HEADER_LEN..].first_chunk().unwrap()));
            }
            rest = &rest[HEADER_LEN + header.len as usize..];
        }
        ids
    }

    /// The ids that were acknowledged to a raw peer.
    fn raw_acks(&mut self, end: End) -> Vec<u64> {
        let bytes = self.raw_read(end);
        let acks = bytes.chunks_exact(16).filter(|frame| frame[4] == Kind::Ack as u8);
        acks.map(|frame| u64::from_le_bytes(*frame[HEADER_LEN..].first_chunk().unwrap())).collect()
    }
}

fn ack(id: u64) -> Vec<u8> {
    control_frame(Kind::Ack, id.to_le_bytes()).to_vec()
}

/// A message to be acknowledged, as another engine would send it, with a body that names it to the oracle.
fn message(id: u64, meta: Meta) -> Vec<u8> {
    let mut out = Vec::new();
    let body = [id + 1_000_000, 0, id].map(u64::to_le_bytes).concat();
    append_message(&mut out, Draft::acked(meta, id, &body), 16 << 10);
    out
}

fn ids(failed: &[(Option<NodeId>, AckFailure)]) -> Vec<AckFailure> {
    failed.iter().map(|(_, failure)| *failure).collect()
}

#[test]
fn sim_an_acknowledged_send_ends_with_the_receivers_acknowledgement() {
    let mut world = pair(config(), config());
    world.net.faults.latency = (10 * MILLI, 10 * MILLI);
    let (peer, name) = (world.peer(0), world.name(1));
    world.send_acked(0, peer, META);
    world.run(SECOND);
    let receipt = world.only_receipt(0);
    assert_eq!((receipt.expected(), receipt.is_acked(), receipt.failed()), (Some(1), true, &[][..]));
    let (node, after) = receipt.acked()[0];
    assert!(node == name && (20..25).contains(&after.as_millis()), "{receipt:?}");
    assert_eq!((world.count(0, Counter::Receipts), world.count(0, Counter::ReceiptBytes)), (0, 0));
    assert_eq!((world.count(1, Counter::AcksSent), world.count(0, Counter::AcksReceived)), (1, 1));
}

#[test]
fn sim_a_broadcast_is_told_at_each_acknowledgement_and_ends_with_the_last() {
    let mut world = world([config().cores(Cores::Unpinned(3)), config(), config(), config()]);
    for node in 1..4 {
        world.dial(node, 0);
    }
    assert!(world.run_until(SECOND, |world| world.peers(0).len() == 3));
    // One on each core, so that both the number of peers and the acknowledgements come from other cores.
    assert_eq!(world.peers(0).iter().map(|peer| peer.core()).collect::<Vec<_>>(), [0, 1, 2]);
    world.net.faults.latency = (MILLI, 50 * MILLI);
    world.on(0, |actor, cx| assert!(actor.send_acked(cx, None, META, 100, DEADLINE).is_ok()));
    world.run(SECOND);
    let receipt = world.only_receipt(0);
    assert_eq!((receipt.expected(), receipt.acked().len(), receipt.is_acked()), (Some(3), 3, true));
    assert!(receipt.kth(1) < receipt.kth(3) && receipt.kth(4).is_none(), "{receipt:?}");
    let told = world.told(0, |told| if let Told::Acked(count) = told { Some(*count) } else { None });
    assert_eq!(told.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 2, 3]);
    // And to nobody at all.
    for node in 1..4 {
        world.restart(node, &Mood::quiet());
    }
    world.run(30 * SECOND);
    world.on(0, |actor, cx| assert!(actor.send_acked(cx, None, META, 100, DEADLINE).is_ok()));
    world.run(SECOND);
    assert_eq!(world.receipts(0)[1].1.expected(), Some(0));
}

#[test]
fn sim_a_new_connection_is_sent_again_what_the_old_one_has_not_acknowledged() {
    let mut world = world([config()]);
    let (end, peer) = world.raw_peer(0);
    for _ in 0..3 {
        world.send_acked(0, peer, META);
    }
    world.run(10 * MILLI);
    let ids = world.raw_acked(end);
    assert_eq!(ids.len(), 3);
    world.raw_write(end, &ack(ids[1]));
    world.run(10 * MILLI);
    world.net.reset(world.now, end.link);
    world.run(2 * SECOND);
    assert_eq!(world.receipts(0).len(), 1);
    let (again, _) = world.raw_peer_named(0, end.link, 1);
    world.run(10 * MILLI);
    assert_eq!(world.raw_acked(again), [ids[0], ids[2]], "in order");
    world.raw_write(again, &[ack(ids[2]), ack(ids[0])].concat());
    world.run(10 * MILLI);
    assert_eq!(world.receipts(0).iter().filter(|(_, receipt)| receipt.is_acked()).count(), 3);
    assert_eq!(world.count(0, Counter::AckedResent), 2);
    // Once more: nothing is left to be repeated.
    world.net.reset(world.now, again.link);
    world.run(2 * SECOND);
    let (end, _) = world.raw_peer_named(0, end.link, 1);
    world.run(SECOND);
    assert_eq!(world.raw_acked(end), [0; 0]);
}

#[test]
fn sim_a_message_to_a_node_waits_until_that_is_connected() {
    for cores in [1, 3] {
        let mut world = world([named(1).cores(Cores::Unpinned(cores)), named(2).cores(Cores::Unpinned(cores))]);
        let name = world.name(1);
        world.send_acked(0, name, META);
        world.send_acked(0, (name, 5), META);
        world.run(10 * SECOND);
        world.dial(1, 0);
        world.run(2 * SECOND);
        assert!(world.only_receipt(0).is_acked(), "the one on the channel that there is");
        // Connected by now, with a look for its connection.
        world.task(0, cores - 1, move |actor, cx| assert!(actor.send_acked(cx, Some(name.into()), META, 100, DEADLINE).is_ok()));
        world.run(SECOND);
        assert!(world.receipts(0)[1].1.is_acked());
        world.run(nanos(DEADLINE));
        let (at, last) = &world.receipts(0)[2];
        assert_eq!(last.failed(), [(Some(name), AckFailure::Expired)]);
        assert!(*at <= 30 * SECOND, "{at}");
        assert_eq!(world.messages(1), 2);
    }
}

#[test]
fn sim_the_deadline_ends_a_send_while_nobody_is_connected() {
    let mut world = world([config()]);
    let (end, peer) = world.raw_peer(0);
    let begin = world.now;
    world.send_acked(0, peer, META);
    world.run(10 * MILLI);
    world.net.reset(world.now, end.link);
    world.run(nanos(DEADLINE));
    let (at, receipt) = world.receipts(0)[0].clone();
    assert!((nanos(DEADLINE)..nanos(DEADLINE) + 2 * MILLI).contains(&(at - begin)), "{at}");
    assert_eq!(ids(receipt.failed()), [AckFailure::Expired]);
    assert_eq!(world.count(0, Counter::ReceiptsExpired), 1);
    // And is not sent again.
    let (end, _) = world.raw_peer_named(0, end.link, 1);
    world.run(SECOND);
    assert_eq!(world.raw_acked(end), [0; 0]);
    assert_eq!(world.count(0, Counter::AckedResent), 0);
}

#[test]
fn sim_a_deadline_that_comes_during_the_handshake_ends_the_repetition_too() {
    let mut world = world([config()]);
    let (end, peer) = world.raw_peer(0);
    world.send_acked(0, peer, META);
    world.net.reset(world.now, end.link);
    world.run(nanos(DEADLINE) - SECOND);
    // Granted before, and established after.
    let again = world.greet(0, end.link, 1);
    world.run(2 * SECOND);
    world.raw_write(again, &Header::control(Kind::Ready).encode());
    world.run(SECOND);
    assert_eq!((world.peers(0).len(), world.raw_acked(again), world.count(0, Counter::AckedResent)), (1, vec![], 0));
}

#[test]
fn sim_a_message_to_a_node_whose_connection_is_just_closing_waits_for_the_next() {
    for seed in 0..20 {
        let mut world = World::new(seed, Faults::none(), Pace { mail: 30 * MILLI, ..Pace::prompt() });
        world.oracle.borrow_mut().records_told = true;
        world.add_node(config().cores(Cores::Unpinned(2)), &Mood::quiet());
        // The second is core 1's, so that the directory hears later that it is over.
        world.raw_peer(0);
        let (end, peer) = world.raw_peer(0);
        assert_eq!(peer.core(), 1);
        let name = raw_name(end.link);
        world.task(0, 1, move |_, cx| cx.close(peer));
        world.task(0, 0, move |actor, cx| assert!(actor.send_acked(cx, Some(name.into()), META, 100, DEADLINE).is_ok()));
        world.run(5 * SECOND);
        let (again, _) = world.raw_peer_named(0, end.link, 1);
        world.run(SECOND);
        assert_eq!(world.raw_acked(again).len(), 1, "seed {seed}");
    }
}

#[test]
fn sim_who_waits_for_a_predecessor_and_is_overtaken_is_refused_at_once() {
    let mut overtaken = 0;
    for seed in 0..20 {
        let mut slow = config().cores(Cores::Unpinned(3));
        slow.timeouts.handshake = Duration::from_secs(60);
        (slow.keepalive.interval, slow.keepalive.timeout) = (Duration::from_secs(300), Duration::from_secs(600));
        let mut world = World::new(seed, Faults::none(), Pace { mail: 3 * SECOND, ..Pace::prompt() });
        world.oracle.borrow_mut().records_told = true;
        world.add_node(slow, &Mood::quiet());
        world.raw_peer(0);
        let (first, _) = world.raw_peer(0);
        world.run(2 * SECOND);
        let second = world.connect_as(0, first.link, 1);
        world.run(4 * SECOND);
        let third = world.connect_as(0, first.link, 1);
        world.run(20 * SECOND);
        let greeted = [second, third].map(|end| world.raw_read(end).len() >= 96);
        let ready = Header::control(Kind::Ready).encode();
        [second, third].into_iter().zip(greeted).filter(|(_, greeted)| *greeted).for_each(|(end, _)| world.raw_write(end, &ready));
        world.run(10 * SECOND);
        // Whoever was not let in was told so, and nobody is left in a handshake.
        assert_eq!((world.peers(0).len(), world.count(0, Counter::HalfOpen)), (2, 0), "seed {seed}: {greeted:?}");
        overtaken += u32::from(greeted == [false, true]);
    }
    assert!(overtaken > 0);
}

#[test]
fn sim_a_message_whose_acknowledgement_was_lost_is_suppressed_and_acknowledged_again() {
    let mut world = world([config()]);
    let (end, _) = world.raw_peer(0);
    world.raw_write(end, &[message(1, META), message(2, META)].concat());
    world.run(10 * MILLI);
    assert_eq!((world.raw_acks(end), world.messages(0)), (vec![1, 2], 2));
    // On the same connection, and on the next.
    world.raw_write(end, &message(1, META));
    world.run(10 * MILLI);
    assert_eq!((world.raw_acks(end), world.messages(0)), (vec![1], 2));
    world.net.reset(world.now, end.link);
    world.run(2 * SECOND);
    let (again, _) = world.raw_peer_named(0, end.link, 1);
    world.raw_write(again, &[message(2, META), message(3, META)].concat());
    world.run(10 * MILLI);
    assert_eq!((world.raw_acks(again), world.messages(0)), (vec![2, 3], 3));
    assert_eq!(world.count(0, Counter::DuplicatesSuppressed), 2);
}

#[test]
fn sim_a_sender_that_has_restarted_is_not_suppressed() {
    let mut world = world([config()]);
    world.oracle.borrow_mut().sends.may_repeat = true;
    let (end, _) = world.raw_peer(0);
    world.raw_write(end, &message(1, META));
    world.run(10 * MILLI);
    world.net.reset(world.now, end.link);
    world.run(2 * SECOND);
    let (again, _) = world.raw_peer_named(0, end.link, 2);
    world.raw_write(again, &message(1, META));
    world.run(10 * MILLI);
    assert_eq!((world.raw_acks(again), world.messages(0)), (vec![1], 2));
    assert_eq!(world.count(0, Counter::DuplicatesSuppressed), 0);
}

#[test]
fn sim_a_window_is_forgotten_when_it_was_kept_long_enough() {
    let mut short = config();
    short.acks.retain = Duration::from_secs(3);
    let mut world = world([short]);
    world.oracle.borrow_mut().sends.may_repeat = true;
    let (mut end, _) = world.raw_peer(0);
    let link = end.link;
    for (away, messages) in [(2, 1), (5, 2)] {
        world.raw_write(end, &message(1, META));
        world.run(10 * MILLI);
        world.net.reset(world.now, end.link);
        world.run(away * SECOND);
        (end, _) = world.raw_peer_named(0, link, 1);
        world.raw_write(end, &message(1, META));
        world.run(10 * MILLI);
        assert_eq!(world.messages(0), messages, "after {away} s");
    }
}

#[test]
fn sim_a_connection_that_is_replaced_hands_over_what_it_has() {
    for seed in 0..40 {
        // The old connection is on one core, the new one on another, and the directory on a third.
        let mut world = World::new(seed, Faults::none(), Pace { mail: 30 * MILLI, ..Pace::prompt() });
        world.oracle.borrow_mut().records_told = true;
        world.add_node(config().cores(Cores::Unpinned(3)), &Mood::quiet());
        for _ in 0..1 + seed % 3 {
            world.raw_peer(0);
        }
        let (end, peer) = world.raw_peer(0);
        world.task(0, 0, move |actor, cx| assert!(actor.send_acked(cx, Some(peer.into()), META, 100, DEADLINE).is_ok()));
        world.raw_write(end, &message(1, META));
        world.run(2 * SECOND);
        let sent = world.raw_acked(end);
        assert_eq!((sent.len(), world.messages(0)), (1, 1));
        let (again, new) = world.raw_peer_named(0, end.link, 1);
        assert_eq!(world.oracle.borrow().reason(world.nodes[0].engine, peer), Some(CloseReason::Replaced));
        // What it had been sent before, at once after the handshake: the window is there already.
        world.raw_write(again, &message(1, META));
        world.run(SECOND);
        assert_eq!((world.messages(0), world.count(0, Counter::DuplicatesSuppressed)), (1, 1), "seed {seed}");
        assert_eq!(world.raw_acked(again), sent, "seed {seed}: {peer} to {new}");
        world.raw_write(again, &ack(sent[0]));
        world.run(SECOND);
        assert!(world.only_receipt(0).is_acked());
    }
}

#[test]
fn sim_a_message_in_the_middle_of_replacements_is_not_lost() {
    // Both sides dial at once, again and again, and the two connections replace each other on changing cores.
    for seed in 0..60 {
        let mut world =
            World::new(seed, Faults { latency: (MILLI, 3 * MILLI), ..Faults::none() }, Pace { mail: 2 * MILLI, ..Pace::prompt() });
        world.oracle.borrow_mut().records_told = true;
        for name in [2, 1] {
            world.add_node(named(name).cores(Cores::Unpinned(3)), &Mood::quiet());
        }
        let name = world.name(1);
        world.send_acked(0, name, META);
        world.dial(0, 1);
        world.run(world.rng.clone().below(12 * MILLI));
        world.send_acked(0, name, META);
        world.dial(1, 0);
        world.run(world.rng.clone().below(12 * MILLI));
        world.send_acked(0, name, META);
        world.run(15 * SECOND);
        let acked = world.receipts(0).iter().filter(|(_, receipt)| receipt.is_acked()).count();
        assert_eq!((acked, world.messages(1)), (3, 3), "seed {seed}");
    }
}

#[test]
fn sim_types_that_the_application_acknowledges_wait_for_it() {
    let mut config = config();
    config.acks.by_handler = vec![BY_HANDLER];
    config.acks.pending = 2;
    let mut world = World::new(7, Faults::none(), Pace::prompt());
    world.oracle.borrow_mut().records_told = true;
    // Left to whoever takes it out of the pool.
    world.add_node(config, &Mood { ack: [0, 0, 100], ..Mood::quiet() });
    let (end, _) = world.raw_peer(0);
    let by_handler = Meta::new(BY_HANDLER);
    world.raw_write(end, &[message(1, by_handler), message(2, by_handler), message(1, by_handler), message(3, by_handler)].concat());
    world.run(SECOND);
    assert_eq!((world.raw_acks(end), world.messages(0)), (vec![], 2));
    assert_eq!((world.count(0, Counter::DuplicatesSuppressed), world.count(0, Counter::AckedDropped)), (1, 1));
    world.on(0, |actor, cx| {
        let owed = actor.owed.borrow_mut().pop();
        actor.ack(cx, owed.unwrap());
    });
    world.run(10 * MILLI);
    assert_eq!(world.raw_acks(end), [2]);
    // What was not acknowledged comes again with the next connection; what was does not.
    world.net.reset(world.now, end.link);
    world.run(2 * SECOND);
    let (again, _) = world.raw_peer_named(0, end.link, 1);
    world.raw_write(again, &[message(1, by_handler), message(2, by_handler)].concat());
    world.run(10 * MILLI);
    assert_eq!((world.raw_acks(again), world.messages(0)), (vec![2], 3));
    // The right to acknowledge ends with its connection.
    world.on(0, |actor, cx| {
        let [old, new]: [_; 2] = actor.owed.take().try_into().unwrap();
        assert_eq!(cx.ack(old), Err(SendError::NotConnected));
        assert!(cx.ack(new).is_ok());
    });
    world.run(10 * MILLI);
    assert_eq!(world.raw_acks(again), [1]);
}

#[test]
fn sim_more_acknowledgements_than_messages_are_a_violation_and_others_are_late() {
    let mut world = world([config()]);
    let (end, peer) = world.raw_peer(0);
    world.send_acked(0, peer, META);
    world.send_acked(0, peer, META);
    world.run(10 * MILLI);
    let ids = world.raw_acked(end);
    world.raw_write(end, &[ack(ids[0]), ack(ids[0])].concat());
    world.run(10 * MILLI);
    assert_eq!((world.count(0, Counter::LateAcks), world.receipts(0).len(), world.peers(0)), (1, 1, vec![peer]));
    world.raw_write(end, &ack(ids[1]));
    world.run(10 * MILLI);
    assert_eq!(world.closed(0)[0].1, CloseReason::Violation(Violation::UnsolicitedAck));
    assert_eq!(world.count(0, Counter::ViolationUnsolicitedAck), 1);
}

#[test]
fn sim_a_peer_that_does_not_read_its_acknowledgements_is_cut_off() {
    let mut small = config();
    (small.acks.pending, small.acks.window) = (10, 100);
    let mut world = world([small]);
    world.net.faults.capacity = (1000, 1000);
    let (end, _) = world.raw_peer(0);
    let mut sent = 0;
    while world.closed(0).is_empty() {
        assert!(sent < 300);
        sent += 1;
        world.raw_write(end, &message(sent, META));
        world.run(MILLI);
        // And one goodbye.
        assert!(world.count(0, Counter::PrivateBytes) <= (101 * 16 + crate::proto::SPANS_CHARGE) as u64);
    }
    assert_eq!(world.closed(0)[0].1, CloseReason::SlowPeer(Slow::HardBound));
    assert!(sent >= 100);
}

#[test]
fn sim_bounds_refuse_and_leave_nothing_behind() {
    let mut small = config();
    (small.acks.pending, small.acks.bytes) = (3, 2 << 20);
    let mut world = world([small]);
    let (_, peer) = world.raw_peer(0);
    world.on(0, move |actor, cx| {
        for target in [Some(peer.into()), Some(NodeId([9; 32]).into()), None] {
            assert!(actor.send_acked(cx, target, META, 100, DEADLINE).is_ok());
        }
        for target in [Some(peer.into()), Some(NodeId([9; 32]).into()), None] {
            assert_eq!(actor.send_acked(cx, target, META, 100, DEADLINE), Err(SendError::TooManyUnacked));
        }
    });
    assert_eq!((world.count(0, Counter::AckedRefused), world.count(0, Counter::AckedSent)), (3, 2));
    world.run(nanos(DEADLINE) + SECOND);
    assert_eq!((world.receipts(0).len(), world.count(0, Counter::Receipts), world.count(0, Counter::ReceiptBytes)), (3, 0, 0));
    // By bytes, and to a peer that there is not.
    let (_, peer) = world.raw_peer(0);
    world.on(0, move |actor, cx| {
        let target = Some(Target::Node { node: NodeId([9; 32]), channel: 0 });
        let mut send = |len| actor.send_acked(cx, target, META, len, DEADLINE).map(|_: ReceiptId| ());
        assert_eq!([send(1 << 20), send(1 << 20), send(100)], [Ok(()), Err(SendError::TooManyUnacked), Ok(())]);
        assert_eq!(cx.send_acked(PeerId::new(0, 99, 1), META, b"x", DEADLINE, 0), Err(SendError::NotConnected));
        cx.close(peer);
        assert_eq!(cx.send_acked(peer, META, b"x", DEADLINE, 0), Err(SendError::Closing));
    });
}

#[test]
fn sim_a_shutdown_ends_every_send() {
    let mut world = world([config().cores(Cores::Unpinned(2))]);
    let peers = [world.raw_peer(0).1, world.raw_peer(0).1];
    for core in 0..2 {
        world.task(0, core, move |actor, cx| {
            for target in [Some(peers[0].into()), Some(peers[1].into()), Some(NodeId([9; 32]).into()), None] {
                assert!(actor.send_acked(cx, target, META, 100, DEADLINE).is_ok());
            }
        });
    }
    world.run(10 * MILLI);
    world.shut_down(0);
    world.run(10 * MILLI);
    let receipts = world.receipts(0);
    assert_eq!(receipts.len(), 8);
    assert!(receipts.iter().all(|(_, receipt)| ids(receipt.failed()).iter().all(|failure| *failure == AckFailure::Stopped)));
    world.on(0, |_, cx| assert_eq!(cx.broadcast_acked(META, b"x", DEADLINE, 0), Err(SendError::Stopped)));
    world.run(20 * SECOND);
    world.oracle.borrow().check_end();
    world.check_baseline();
}

#[test]
fn sim_a_node_that_takes_only_shorter_messages_is_passed_by_or_refuses() {
    let mut short = named(2);
    short.limits.max_message = 50;
    let mut world = world([named(1).cores(Cores::Unpinned(2)), short, named(3)]);
    world.dial(1, 0);
    world.dial(2, 0);
    assert!(world.run_until(SECOND, |world| world.peers(0).len() == 2));
    let name = world.name(1);
    world.on(0, |actor, cx| assert!(actor.send_acked(cx, None, META, 100, DEADLINE).is_ok()));
    world.run(SECOND);
    let receipt = world.only_receipt(0);
    assert_eq!((receipt.expected(), receipt.is_acked()), (Some(1), true));
    world.send_acked(0, name, META);
    world.run(SECOND);
    let refused = AckFailure::Refused(SendError::TooLong { len: 100, max: 50 });
    assert_eq!(world.receipts(0)[1].1.failed(), [(Some(name), refused)]);
}

#[test]
fn sim_a_dial_that_is_refused_while_it_waits_for_its_predecessor_goes_on() {
    // The old connection's core hears late that it has to yield, so that the new one gives up before.
    let mut hasty = config().cores(Cores::Unpinned(2));
    hasty.timeouts.handshake = Duration::from_millis(45);
    for seed in 0..30 {
        let mut world = World::new(seed, Faults::none(), Pace { mail: 40 * MILLI, ..Pace::prompt() });
        world.oracle.borrow_mut().records_told = true;
        let (a, b) = (world.add_node(hasty.clone(), &Mood::quiet()), world.add_node(hasty.clone(), &Mood::quiet()));
        world.on(a, move |actor, cx| actor.dial(cx, Dial::to(address(b))));
        world.run(3 * SECOND);
        let name = world.name(b);
        world.send_acked(a, name, META);
        world.restart(b, &Mood::quiet());
        world.on(b, move |actor, cx| actor.dial(cx, Dial::to(address(a))));
        world.run(15 * SECOND);
        assert!(world.only_receipt(a).is_acked(), "seed {seed}: {:?}", world.receipts(a));
    }
}
