//! Batches, to the reservation and the queue operation: what a core puts on its way to the others for one, and that all of it or none is.

use std::sync::Arc;

use super::oracle::Item;
use super::scenarios::{META, config, world};
use super::sim::{MILLI, SECOND};
use crate::config::{Config, Cores};
use crate::error::SendError;
use crate::metrics::Counter;
use crate::rng::Rng;
use crate::shard::{Mail, Shard, Shared};
use crate::time::Timestamp;
use crate::wire::Frame;

const CORES: usize = 4;

/// The second of four cores, in a turn, and what it shares with the others.
fn shard(change: impl FnOnce(&mut Config)) -> (Shard, Shared) {
    let mut config = config().cores(Cores::Unpinned(CORES));
    change(&mut config);
    let shared = Shared::new(Arc::new(config), &mut Rng::new(1));
    let now = Timestamp::from_nanos(1);
    let mut shard = Shard::new(1, shared.clone(), 7, now);
    shard.begin_turn(now, now);
    (shard, shared)
}

fn frames(count: usize, len: usize) -> Vec<Frame> {
    (0..count).map(|number| Frame::new(META, &vec![number as u8; len]).unwrap()).collect()
}

/// What is reserved on each core.
fn reserved(shared: &Shared) -> Vec<(usize, usize)> {
    shared.credits.iter().map(|credit| credit.used()).collect()
}

#[test]
fn a_batch_is_one_reservation_and_one_mail_for_each_other_core() {
    let (mut shard, shared) = shard(|_| ());
    let batch = frames(50, 100);
    assert_eq!(shard.broadcast_batch(&batch), Ok(()));
    let cost = batch.iter().map(|frame| frame.as_bytes().len() + size_of::<Frame>()).sum();
    assert_eq!(reserved(&shared), [(1, cost), (0, 0), (1, cost), (1, cost)]);
    for to in [0, 2, 3] {
        let Some((core, mail @ Mail::BroadcastBatch { .. })) = shard.poll_mail() else { panic!("no batch for core {to}") };
        assert_eq!((core, mail.cost()), (to, cost), "what is given back is what was reserved");
        let Mail::BroadcastBatch { frames } = mail else { unreachable!() };
        let same = |(left, right): (&Frame, &Frame)| std::ptr::eq(left.as_bytes(), right.as_bytes());
        assert!(frames.len() == 50 && frames.iter().zip(&batch).all(same), "nothing is copied");
    }
    assert!(shard.poll_mail().is_none());
    assert_eq!(shard.stats().get(Counter::Broadcasts), 50);
    // To one peer of another core it is one mail too.
    let peer = crate::id::PeerId::new(2, 5, 1);
    assert_eq!(shard.send_batch(peer, &batch), Ok(crate::handler::Sent::Forwarded));
    assert_eq!(reserved(&shared)[2], (2, 2 * cost));
    assert!(matches!(shard.poll_mail(), Some((2, Mail::SendBatch { frames, .. })) if frames.len() == 50));
    assert!(shard.poll_mail().is_none());
}

#[test]
fn where_a_batch_is_refused_nothing_is_reserved_appended_or_on_its_way() {
    let refused = |expected: SendError, prepare: &dyn Fn(&mut Shard, &Shared), batch: &[Frame]| {
        let (mut shard, shared) = shard(|config| {
            config.limits.inbox_messages = 16;
            config.limits.outbox_hard = 4 << 20;
        });
        prepare(&mut shard, &shared);
        while shard.poll_mail().is_some() {}
        let (before, log) = (reserved(&shared), shard.stats().get(Counter::LogBytes));
        assert_eq!(shard.broadcast_batch(batch), Err(expected));
        assert_eq!((reserved(&shared), shard.stats().get(Counter::LogBytes)), (before, log));
        assert!(shard.poll_mail().is_none());
        assert_eq!(shard.stats().get(Counter::BroadcastsRefused), batch.len() as u64);
    };
    let small = frames(10, 100);
    // The last core's inbox is full, of messages or of bytes.
    refused(SendError::InboxFull { core: 3 }, &|_, shared| while shared.credits[3].reserve(1) {}, &small);
    refused(
        SendError::InboxFull { core: 3 },
        &|_, shared| assert!(shared.credits[3].reserve(shared.config.limits.inbox_bytes - 1000)),
        &small,
    );
    // More than a turn may broadcast, alone and after others.
    refused(SendError::LogFull, &|_, _| (), &frames(9, 256 << 10));
    refused(SendError::LogFull, &|shard, _| assert_eq!(shard.broadcast_batch(&frames(7, 256 << 10)), Ok(())), &frames(2, 128 << 10));
    // One of them is too long.
    let len = (1 << 20) + 1;
    let batch = [small.clone(), frames(1, len)].concat();
    refused(SendError::TooLong { len, max: 1 << 20 }, &|_, _| (), &batch);
}

#[test]
fn sim_a_peer_that_has_room_for_a_part_of_a_batch_gets_none_of_it() {
    let mut small = config();
    small.limits.max_message = 20_000;
    small.limits.outbox_hard = 60_000;
    small.limits.outbox_soft = 60_000;
    let mut world = world([small]);
    world.net.faults.capacity = (10_000, 10_000);
    let (end, peer) = world.raw_peer(0);
    world.on(0, move |actor, cx| assert!(actor.send(cx, peer, META, 20_000).is_ok()));
    let before = world.nodes[0].cores[0].shard.queued_bytes(peer);
    world.on(0, move |actor, cx| {
        let mut give = |count: usize| {
            let result = cx.send_batch(peer, &frames(count, 10_000));
            frames(count, 10_000).iter().for_each(|frame| actor.taken(peer, &result, META, Item::sent(frame)));
            result.map(drop)
        };
        assert_eq!([give(6), give(4)], [Err(SendError::OutboxFull), Ok(())]);
        assert_eq!(give(1), Err(SendError::OutboxFull));
    });
    assert_eq!(world.count(0, Counter::SendsRefused), 7);
    let queued = world.nodes[0].cores[0].shard.queued_bytes(peer) - before;
    assert!((40_000..41_000).contains(&queued), "{queued} bytes are four");
    for _ in 0..20 {
        world.raw_read(end);
        world.run(3 * MILLI);
    }
    world.run(SECOND);
    assert_eq!(world.count(0, Counter::MessagesSent), 5);
}
