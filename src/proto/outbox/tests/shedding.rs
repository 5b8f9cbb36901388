//! What is dropped for a peer that is too slow, and what is not.

use std::time::Duration;

use super::super::shedding::Dropped;
use super::super::*;
use super::{NOW, QUANTA, fresh, waiting};
use crate::wire::Meta;

const LANE: Lane = Lane::Normal;

/// A message of which `index` is the body's every byte.
fn message(index: u8, len: usize) -> Frame {
    Frame::encode(Draft::data(Meta::new(u16::from(index)).lane(LANE), &vec![index; len]), 1024).unwrap()
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn wire<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<u8> {
    frames.into_iter().flat_map(|frame| frame.as_bytes()).copied().collect()
}

/// A message in each of the places in which it may stand: a log that is implied, a log span, a tail, by reference.
fn each_place(act: impl Fn(&mut Outbox, &Logs, &mut QueuedPool, &[Frame])) {
    let frames: Vec<Frame> = (0..6).map(|index| message(index, 2500)).collect();
    for place in 0..5 {
        let (mut logs, mut pool, mut outbox) = fresh();
        for frame in &frames {
            match place {
                0 | 1 => logs.append(frame),
                2 => {
                    outbox.push_message(&logs, &mut pool, Draft::data(frame.meta(), &[frame.meta().message_type as u8; 2500]), 1024);
                }
                3 => {
                    outbox.push_frame(&logs, &mut pool, &frame.clone().with_key(1), NOW);
                }
                _ => {
                    outbox.push_frame(&logs, &mut pool, &frame.clone().with_ttl(Duration::from_nanos(100)), NOW);
                }
            }
        }
        if place == 1 {
            outbox.settle_lane(&logs, &mut pool, LANE);
        }
        assert_eq!(waiting(&outbox, &logs), wire(&frames));
        act(&mut outbox, &logs, &mut pool, &frames);
        outbox.assert_invariants(&logs);
    }
}

#[test]
fn a_message_that_has_begun_is_finished_wherever_it_was_cut() {
    let len = message(0, 2500).as_bytes().len();
    // Inside its frames, and just between two of them: there only the next header says so.
    for sent in [1, 7, 1000, 1032, 1033, 2064, 2065, len - 1] {
        for newest in [false, true] {
            each_place(|outbox, logs, pool, frames| {
                outbox.advance(logs, pool, &QUANTA, sent);
                let shed = if newest { Outbox::drop_newest } else { Outbox::drop_oldest };
                assert_eq!(shed(outbox, LANE, 0, logs, pool).messages, 5);
                assert_eq!(waiting(outbox, logs), frames[0].as_bytes()[sent..]);
                assert_eq!(shed(outbox, LANE, 0, logs, pool), Dropped::default());
                assert_eq!(outbox.expire(at(1000), logs, pool), Dropped::default());
                assert_eq!(outbox.advance(logs, pool, &QUANTA, len - sent).messages, 1);
                assert!(outbox.is_empty(logs) && outbox.private() == 0);
            });
        }
    }
}

#[test]
fn the_oldest_or_the_newest_go_until_the_rest_is_within_the_bound() {
    each_place(|outbox, logs, pool, frames| {
        let len = frames[0].as_bytes().len();
        outbox.advance(logs, pool, &QUANTA, 1500);
        let claimed = outbox.claimed(logs);
        assert_eq!(outbox.drop_oldest(LANE, claimed, logs, pool), Dropped::default());
        assert_eq!(outbox.drop_oldest(LANE, claimed - 1, logs, pool).messages, 1);
        assert_eq!(waiting(outbox, logs), wire([&frames[0], &frames[2], &frames[3], &frames[4], &frames[5]])[1500..]);
        let claimed = outbox.claimed(logs);
        assert_eq!(outbox.drop_newest(LANE, claimed - 1, logs, pool).messages, 1);
        assert_eq!(waiting(outbox, logs), wire([&frames[0], &frames[2], &frames[3], &frames[4]])[1500..]);
        let claimed = outbox.claimed(logs);
        assert_eq!(outbox.drop_oldest(LANE, claimed - len - SPAN_CHARGE - TERMS_CHARGE - 1, logs, pool).messages, 2);
        assert_eq!(waiting(outbox, logs), wire([&frames[0], &frames[4]])[1500..]);
    });
}

#[test]
fn what_was_dropped_pins_no_log() {
    for newest in [false, true] {
        let (mut logs, mut pool, mut outbox) = fresh();
        (0..100).for_each(|index| logs.append(&message(index, 5000)));
        let shed = if newest { Outbox::drop_newest } else { Outbox::drop_oldest };
        assert_eq!(shed(&mut outbox, LANE, 0, &logs, &mut pool).messages, 100);
        assert!(outbox.is_empty(&logs));
        logs.release(outbox.oldest(&logs));
        assert!(logs.is_empty());
    }
}

#[test]
fn a_frame_leaves_while_its_time_has_not_passed_and_never_after() {
    let (logs, mut pool, mut outbox) = fresh();
    let frames = [30, 0, 10, 20].map(|ttl| message(ttl, 10).with_ttl(Duration::from_nanos(u64::from(ttl))));
    for frame in &frames {
        outbox.push_frame(&logs, &mut pool, frame, at(100));
    }
    outbox.push_frame(&logs, &mut pool, &message(99, 10), at(100));
    assert_eq!(outbox.next_expiry(), Some(at(101)));
    assert_eq!(outbox.expire(at(100), &logs, &mut pool), Dropped::default());
    let len = frames[0].as_bytes().len();
    assert_eq!(outbox.expire(at(101), &logs, &mut pool), Dropped { messages: 1, freed: len });
    assert_eq!(outbox.next_expiry(), Some(at(111)));
    assert_eq!(outbox.expire(at(121), &logs, &mut pool), Dropped { messages: 2, freed: 2 * len });
    assert_eq!(outbox.next_expiry(), Some(at(131)));
    // The first is half out when its time comes.
    outbox.advance(&logs, &mut pool, &QUANTA, 5);
    assert_eq!(outbox.expire(at(1000), &logs, &mut pool), Dropped::default());
    assert_eq!(outbox.next_expiry(), None);
    assert_eq!(waiting(&outbox, &logs), wire([&frames[0], &message(99, 10)])[5..]);
}

#[test]
fn an_outbox_that_ran_empty_by_drops_gives_its_box_back() {
    let (logs, mut pool, mut outbox) = fresh();
    outbox.push_frame(&logs, &mut pool, &message(1, 10).with_ttl(Duration::ZERO), NOW);
    assert_eq!(outbox.expire(at(10), &logs, &mut pool).messages, 1);
    assert!(outbox.is_empty(&logs) && pool.free.len() == 1 && pool.free[0].expiry.is_none());
    outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(1), &[1; 10]), 1024);
    assert_eq!(outbox.drop_oldest(LANE, 0, &logs, &mut pool), Dropped { messages: 1, freed: 18 });
    assert!(outbox.is_empty(&logs) && pool.free.len() == 1);
}

#[test]
fn the_newest_value_of_a_key_stands_in_the_oldest_place() {
    // With and without an index.
    for keys in [4, 100] {
        let (logs, mut pool, mut outbox) = fresh();
        let value = |key: u8, value: usize| message(key, value).with_key(u64::from(key));
        let mut push = |outbox: &mut Outbox, frame: &Frame| outbox.push_conflated(&logs, &mut pool, frame, NOW).1;
        for key in 0..keys {
            assert_eq!(push(&mut outbox, &value(key, 10)), Dropped::default());
        }
        outbox.advance(&logs, &mut QueuedPool::new(8 << 20), &QUANTA, 5);
        for key in 1..keys {
            assert_eq!(push(&mut outbox, &value(key, 20 + usize::from(key))), Dropped { messages: 1, freed: 18 });
        }
        // The first has begun: its next value goes to the end, and from there it can be replaced.
        assert_eq!(push(&mut outbox, &value(0, 11)), Dropped::default());
        assert_eq!(push(&mut outbox, &value(0, 12)), Dropped { messages: 1, freed: 19 });
        let mut due = vec![value(0, 10)];
        due.extend((1..keys).map(|key| value(key, 20 + usize::from(key))));
        due.push(value(0, 12));
        outbox.assert_invariants(&logs);
        let mut left = Vec::new();
        while !outbox.is_empty(&logs) {
            let all = waiting(&outbox, &logs);
            outbox.advance(&logs, &mut QueuedPool::new(8 << 20), &QUANTA, all.len());
            left.extend(all);
        }
        assert_eq!(left, wire(&due)[5..]);
    }
}

#[test]
fn many_tiny_messages_with_terms_take_no_more_memory_than_twice_what_they_claim() {
    // The first part has left when the rest comes: then as many keys are known that nobody has any more.
    for (keyed, gone) in [(true, 0), (true, 3_000), (true, 9_990), (false, 0)] {
        let (logs, mut pool, mut outbox) = fresh();
        let push = |outbox: &mut Outbox, pool: &mut QueuedPool, number: u64| {
            let empty = message(1, 0);
            let frame = if keyed { empty.with_key(number) } else { empty.with_ttl(Duration::from_secs(1)) };
            let claimed = outbox.claimed(&logs);
            outbox.push_conflated(&logs, pool, &frame, NOW);
            assert!(outbox.claimed(&logs) - claimed <= SPANS_CHARGE + TERMS_CHARGE + frame.as_bytes().len());
        };
        (0..10_000).for_each(|number| push(&mut outbox, &mut pool, number));
        outbox.assert_invariants(&logs);
        outbox.advance(&logs, &mut pool, &QUANTA, gone * 8);
        outbox.assert_invariants(&logs);
        (10_000..12_000).for_each(|number| push(&mut outbox, &mut pool, number));
        outbox.assert_invariants(&logs);
    }
}

#[test]
fn keys_are_found_whatever_was_dropped_or_left_in_between() {
    let (logs, mut pool, mut outbox) = fresh();
    let mut rng = crate::rng::Rng::new(5);
    let len = message(0, 10).as_bytes().len();
    // Keys in order of their places, and until when they are good; all frames are equally long.
    let mut model = std::collections::VecDeque::new();
    for step in 1..20_000 {
        let (key, now) = (rng.below(120), at(step));
        let shed_target = |outbox: &Outbox, count: usize| outbox.claimed(&logs) - count * (len + SPAN_CHARGE + TERMS_CHARGE);
        let some = rng.below(3).min(model.len() as u64) as usize;
        match rng.below(100) {
            0..8 => {
                let count = (rng.below(30) as usize).min(model.len());
                outbox.advance(&logs, &mut pool, &QUANTA, count * len);
                model.drain(..count);
            }
            8..16 => {
                outbox.drop_oldest(LANE, shed_target(&outbox, some), &logs, &mut pool);
                model.drain(..some);
            }
            16..24 => {
                outbox.drop_newest(LANE, shed_target(&outbox, some), &logs, &mut pool);
                model.truncate(model.len() - some);
            }
            24..26 => {
                outbox.expire(now, &logs, &mut pool);
                model.retain(|&(_, good_until)| good_until >= step);
            }
            _ => {
                let (ttl, good_until) = if rng.chance(1, 8) { (60, step + 60) } else { (u64::MAX, u64::MAX) };
                let frame = message(key as u8, 10).with_key(key).with_ttl(Duration::from_nanos(ttl));
                let (_, dropped) = outbox.push_conflated(&logs, &mut pool, &frame, now);
                let older = model.iter().position(|&(older, _)| older == key);
                assert_eq!(dropped.messages == 1, older.is_some(), "key {key}");
                match older {
                    Some(older) => model[older].1 = good_until,
                    None => model.push_back((key, good_until)),
                }
                let queue = &outbox.queued.as_ref().unwrap().lanes[LANE.index() + 1];
                let indexed = queue.keys.as_ref().map_or(0, |keys| keys.len());
                assert!(older.is_some() || indexed <= 2 * model.len(), "{indexed} keys are remembered for {}", model.len());
            }
        }
        let queue = outbox.queued.as_ref().map(|queued| &queued.lanes[LANE.index() + 1]);
        let keys = queue.map(|queue| queue.spans.iter().filter_map(Span::key).collect::<Vec<_>>()).unwrap_or_default();
        assert!(model.iter().map(|(key, _)| key).eq(&keys));
        // Found at once, not by a search.
        if let Some((queue, index)) = queue.and_then(|queue| Some((queue, queue.keys.as_ref()?))) {
            assert!((queue.first..).zip(keys).all(|(number, key)| index.number(key) == Some(number)));
        }
    }
}

#[test]
fn an_outbox_that_was_emptied_by_drops_begins_its_rounds_afresh() {
    let (logs, mut pool, mut outbox) = fresh();
    let quanta = Quanta::new([1000, 1000, 1000]);
    let vote = Frame::new(Meta::new(1).lane(Lane::High), &[1; 992]).unwrap();
    let order = || Frame::new(Meta::new(2).lane(LANE), &[2; 92]).unwrap();
    outbox.push_frame(&logs, &mut pool, &vote, NOW);
    outbox.push_frame(&logs, &mut pool, &order(), NOW);
    // The high lane has no more allowance in this round.
    outbox.advance(&logs, &mut pool, &quanta, 1000);
    outbox.drop_oldest(LANE, 0, &logs, &mut pool);
    outbox.push_frame(&logs, &mut pool, &order(), NOW);
    outbox.push_frame(&logs, &mut pool, &vote, NOW);
    let mut slices = Slices::new(usize::MAX);
    outbox.gather(&logs, &quanta, &mut slices);
    assert_eq!(slices.as_slice()[0].len(), 1000);
}
