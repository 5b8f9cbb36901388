//! What happens at the bounds of memory, in short stories with one outcome each, in virtual time.

use std::time::Duration;

use super::actor::Mood;
use super::oracle::Told;
use super::pace::Pace;
use super::pipe::{End, Faults};
use super::scenarios::{META, config, pair, world};
use super::sim::{MILLI, SECOND, World};
use crate::config::{Config, Cores};
use crate::error::{CloseReason, RequestError, SendError, Slow};
use crate::id::{NodeId, PeerId};
use crate::metrics::Counter;
use crate::receipt::{AckFailure, Target};
use crate::wire::{Draft, HEADER_LEN, Header, Kind, append_message};

const NEVER: Duration = Duration::from_secs(60);

fn two_cores() -> Config {
    config().cores(Cores::Unpinned(2))
}

impl World {
    /// How the requests of a node ended, in order.
    fn responses(&self, node: usize) -> Vec<Result<usize, RequestError>> {
        let responses = self.told(node, |told| if let Told::Response { result, .. } = told { Some(*result) } else { None });
        responses.into_iter().map(|(_, result)| result).collect()
    }

    /// Responses of so many bytes to the requests that came to a raw peer, one for each.
    fn raw_responses(&mut self, end: End, len: usize) -> Vec<Vec<u8>> {
        let bytes = self.raw_read(end);
        let (mut rest, mut responses) = (&bytes[..], Vec::new());
        while let Some(head) = rest.first_chunk::<HEADER_LEN>() {
            let header = Header::decode(*head).unwrap();
            let (payload, behind) = rest[HEADER_LEN..].split_at(header.len as usize);
            if header.kind == Kind::Request {
                // The oracle knows them by the first word of the body.
                let (correlation, request) = payload.split_first_chunk().unwrap();
                let body = [&request[..8], &vec![request[0]; len - 8]].concat();
                let mut response = Vec::new();
                append_message(&mut response, Draft::response(META, u64::from_le_bytes(*correlation), &body), 16 << 10);
                responses.push(response);
            }
            rest = behind;
        }
        responses
    }

    /// Uses up the budget for sends on a peer that reads nothing.
    fn hoard(&mut self, hoarder: PeerId, most: usize) {
        // Once more for what the kernel takes.
        for _ in 0..2 {
            self.on(0, move |actor, cx| {
                while cx.queued_bytes(hoarder) < most && actor.send(cx, hoarder, META, 100_000).is_ok() {}
                while cx.queued_bytes(hoarder) < most && actor.send(cx, hoarder, META, 24).is_ok() {}
            });
            self.run(MILLI);
        }
    }

    /// Asks a peer so often from a core.
    fn ask(&mut self, core: usize, peer: PeerId, count: usize) {
        self.task(0, core, move |actor, cx| (0..count).for_each(|_| _ = actor.request(cx, peer, META, 100, NEVER)));
        self.run(MILLI);
    }
}

#[test]
fn sim_responses_for_another_core_wait_under_its_credit_and_end_the_request_where_there_is_none() {
    let mut small = two_cores();
    small.limits.max_message = 10_000;
    small.limits.inbox_bytes = 25_000;
    let mut world = world([small]);
    let (end, peer) = world.raw_peer(0);
    for round in 1..4 {
        world.ask(1 - peer.core(), peer, 5);
        let responses = world.raw_responses(end, 10_000);
        assert_eq!(responses.len(), 5);
        world.raw_write(end, &responses.concat());
        world.run(SECOND);
        // All came in one turn, and two have room: that is free again for the next round.
        let full = Err(RequestError::Send(SendError::InboxFull { core: 1 - peer.core() }));
        assert_eq!(world.responses(0)[(round - 1) * 5..], [Ok(10_000), Ok(10_000), full, full, full]);
        assert_eq!(world.count(0, Counter::InboxRefused), 3 * round as u64);
    }
    assert_eq!(world.nodes[0].shared.credits[1 - peer.core()].used(), (0, 0));
}

#[test]
fn sim_one_request_more_than_a_core_may_have_is_refused_until_one_ends() {
    let mut small = two_cores();
    small.limits.max_requests = 3;
    let mut world = world([small]);
    let (first, peer) = world.raw_peer(0);
    // The second is on the other core, and the third on that of the first.
    let (_, other) = world.raw_peer(0);
    let (_, third) = world.raw_peer(0);
    assert_eq!((peer.core(), other.core(), third.core()), (0, 1, 0));
    world.ask(0, peer, 2);
    world.ask(1, third, 1);
    world.on(0, move |_, cx| {
        for peer in [peer, third] {
            assert_eq!(cx.request(peer, META, b"", NEVER, 1), Err(SendError::TooManyRequests));
        }
    });
    world.ask(0, other, 1);
    assert!(world.responses(0).is_empty());
    // The other core hears of it later, as an answer.
    world.ask(1, peer, 1);
    assert_eq!(world.responses(0), [Err(RequestError::Send(SendError::TooManyRequests))]);
    assert_eq!(world.count(0, Counter::SendsRefused), 3);
    let responses = world.raw_responses(first, 10);
    assert_eq!(responses.len(), 2);
    world.raw_write(first, &responses[0]);
    world.run(MILLI);
    world.ask(0, peer, 1);
    assert_eq!((world.responses(0).len(), world.raw_responses(first, 10).len()), (2, 1));
}

/// A peer that reads nothing is left out of every other broadcast, while another has used `hoarded` bytes of the budget for sends. How the
/// first one and the other end, after so many rounds at most.
fn overdrawn(hoarded: usize) -> ([Option<CloseReason>; 2], u64) {
    let mut small = config();
    small.limits.send_bytes = 2 << 20;
    small.limits.send_reserve = 1000;
    let mut world = pair(small, config());
    world.net.faults.capacity = (1000, 1000);
    let (_, slow) = world.raw_peer(0);
    let (_, hoarder) = world.raw_peer(0);
    world.hoard(hoarder, hoarded);
    let mut rounds = 0;
    while rounds < 200 && world.peers(0).contains(&slow) {
        world.on(0, move |actor, cx| {
            let frames = [actor.body(24), actor.body(24)].map(|body| cx.frame(META, &body).unwrap());
            assert_eq!(actor.broadcast(cx, &frames[..1], None), Ok(()));
            assert_eq!(actor.broadcast(cx, &frames[1..], Some(slow)), Ok(()));
        });
        world.run(MILLI);
        rounds += 1;
    }
    assert_eq!(world.messages(1), 2 * rounds, "whoever reads gets them all");
    let used = world.count(0, Counter::PrivateBytes) as usize;
    assert!(used <= (2 << 20) + 4 * 1000, "{used} bytes are used");
    ([slow, hoarder].map(|peer| world.oracle.borrow().reason(world.nodes[0].engine, peer)), rounds as u64)
}

#[test]
fn sim_who_is_left_out_of_broadcasts_when_the_budget_is_used_up_is_cut_off_at_its_reserve() {
    let (ends, rounds) = overdrawn(usize::MAX);
    assert_eq!(ends, [Some(CloseReason::SlowPeer(Slow::HardBound)), None]);
    // The kernel takes 30 rounds of 32 bytes. Then each has a span written down, until there are 1,000 bytes of them.
    assert!((50..65).contains(&rounds), "{rounds}");
    assert_eq!(overdrawn(1 << 20), ([None, None], 200));
}

#[test]
fn sim_the_room_of_queues_that_a_burst_has_filled_is_given_back() {
    let mut large = two_cores();
    large.limits.inbox_messages = 10_000;
    let mut world = world([large]);
    let (_, peer) = world.raw_peer(0);
    let (_, other) = world.raw_peer(0);
    for (core, mine, theirs) in [(0, peer, other), (1, other, peer)] {
        assert_eq!(mine.core(), core);
        let rest = world.nodes[0].cores[core].shard.queue_room();
        world.task(0, core, move |actor, cx| {
            (0..5_000).for_each(|_| _ = actor.send(cx, theirs, META, 24));
            (0..1_000).for_each(|_| _ = actor.request(cx, mine, META, 24, Duration::from_millis(5)));
            (0..5_000).for_each(|_| cx.cancel_dial(crate::id::DialId::new(0, 1)));
        });
        world.run(SECOND);
        assert_eq!(world.responses(0).len(), 1_000 * (core + 1));
        let shard = &mut world.nodes[0].cores[core].shard;
        let (burst, kept) = (shard.queue_room(), crate::shard::KEPT_QUEUE);
        assert!(burst[0] >= 5_000 && burst[3] >= 1_000, "{burst:?}");
        assert!(burst[1].max(burst[2]) >= 5_000, "{burst:?}");
        shard.trim_queues();
        assert!(shard.queue_room().iter().zip(rest).all(|(&room, rest)| room <= kept.max(rest)), "{:?}", shard.queue_room());
    }
}

#[test]
fn sim_acknowledgements_that_are_awaited_are_bounded_over_all_peers() {
    let mut small = two_cores();
    (small.limits.max_peers, small.limits.max_half_open, small.acks.answers) = (6, 2, 20);
    let mut world = world([small]);
    let peers = [world.raw_peer(0), world.raw_peer(0), world.raw_peer(0), world.raw_peer(0)];
    let broadcast = |world: &mut World, count: usize| {
        let done = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let taken = std::sync::Arc::clone(&done);
        world.on(0, move |actor, cx| {
            let sent = (0..count).take_while(|_| actor.send_acked(cx, None, META, 100, Duration::from_secs(5)).is_ok()).count();
            taken.store(sent, std::sync::atomic::Ordering::Relaxed);
        });
        world.run(MILLI);
        done.load(std::sync::atomic::Ordering::Relaxed)
    };
    // As if each went to eight, until the other core has said that it is four.
    assert_eq!([9; 4].map(|count| broadcast(&mut world, count)), [2, 1, 1, 0]);
    let single = move |world: &mut World, expected| {
        let target = Some(peers[0].1.into());
        world.on(0, move |actor, cx| assert_eq!(actor.send_acked(cx, target, META, 100, NEVER).map(drop), expected));
    };
    (0..4).for_each(|_| single(&mut world, Ok(())));
    single(&mut world, Err(SendError::TooManyUnacked));
    assert_eq!(world.count(0, Counter::AckedRefused), 5);
    // The deadline of the broadcasts gives their share back.
    world.run(6 * SECOND);
    assert_eq!(broadcast(&mut world, 9), 2);
}

#[test]
fn sim_one_broadcast_to_everybody_is_allowed_however_many_they_are() {
    let mut small = config();
    small.acks.answers = 1;
    let mut world = world([small]);
    let peers = [world.raw_peer(0), world.raw_peer(0), world.raw_peer(0)];
    world.on(0, move |actor, cx| {
        assert!(actor.send_acked(cx, None, META, 100, NEVER).is_ok());
        for target in [None, Some(peers[0].1.into())] {
            assert_eq!(actor.send_acked(cx, target, META, 100, NEVER), Err(SendError::TooManyUnacked));
        }
    });
}

#[test]
fn sim_unread_acknowledgements_take_no_memory_that_there_is_not() {
    for (hoards, most) in [(false, 100), (true, 10)] {
        let mut small = config();
        (small.acks.pending, small.acks.window) = (10, 100);
        (small.limits.send_bytes, small.limits.send_reserve) = (2 << 20, 0);
        let mut world = world([small]);
        world.net.faults.capacity = (1000, 1000);
        let (_, hoarder) = world.raw_peer(0);
        if hoards {
            world.hoard(hoarder, usize::MAX);
        }
        let (end, peer) = world.raw_peer(0);
        let mut sent = 0;
        while world.peers(0).contains(&peer) {
            assert!(sent < 300);
            sent += 1;
            let (mut message, body) = (Vec::new(), [sent + 1_000_000, 0, sent].map(u64::to_le_bytes).concat());
            append_message(&mut message, Draft::acked(META, sent, &body), 16 << 10);
            world.raw_write(end, &message);
            world.run(MILLI);
        }
        // What the kernel takes is some 60 more.
        assert_eq!(world.closed(0)[0].1, CloseReason::SlowPeer(Slow::HardBound));
        assert!((most..most + 70).contains(&sent), "{sent} were sent");
    }
}

#[test]
fn sim_messages_for_nodes_wait_for_the_directory_and_for_the_peers_core_under_credit() {
    let mut small = two_cores();
    (small.limits.inbox_messages, small.limits.max_message) = (16, 1000);
    let mut world = World::new(7, Faults::none(), Pace { mail: 10 * MILLI, ..Pace::prompt() });
    world.oracle.borrow_mut().records_told = true;
    world.add_node(small, &Mood::quiet());
    let nobody = Target::Node { node: NodeId([9; 32]), channel: 0 };
    let failures = |world: &World| {
        let receipts = world.told(0, |told| if let Told::Receipt(receipt) = told { Some(receipt.failed().to_vec()) } else { None });
        receipts.iter().flat_map(|(_, failed)| failed.iter().map(|(_, failure)| *failure)).collect::<Vec<_>>()
    };
    // From the core that is not the directory's, which has not looked into its inbox yet.
    world.task(0, 1, move |actor, cx| {
        for _ in 0..16 {
            assert!(actor.send_acked(cx, Some(nobody), META, 100, Duration::from_secs(1)).is_ok());
        }
        let refused = actor.send_acked(cx, Some(nobody), META, 100, NEVER);
        assert_eq!(refused, Err(SendError::InboxFull { core: 0 }));
    });
    world.run(3 * SECOND);
    assert_eq!((failures(&world), world.nodes[0].shared.credits[0].used()), (vec![AckFailure::Expired; 16], (0, 0)));
    // From the directory's core to a peer of the other.
    let (_, _) = world.raw_peer(0);
    let (_, peer) = world.raw_peer(0);
    assert_eq!(peer.core(), 1);
    let node = super::scenarios::raw_name(1);
    world.on(0, move |actor, cx| {
        for _ in 0..20 {
            assert!(actor.send_acked(cx, Some(node.into()), META, 100, Duration::from_secs(1)).is_ok());
        }
    });
    world.run(3 * SECOND);
    let refused = AckFailure::Refused(SendError::InboxFull { core: 1 });
    assert_eq!(failures(&world)[16..], [vec![refused; 4], vec![AckFailure::Expired; 16]].concat());
    assert_eq!((world.count(0, Counter::InboxRefused), world.nodes[0].shared.credits[1].used()), (5, (0, 0)));
}
