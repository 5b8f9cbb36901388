//! What is pushed, where it stands, and what is given back when it has left.

use super::super::queue::KEPT_TAIL;
use super::super::*;
use super::{NOW, QUANTA, frame, fresh, pong, waiting};
use crate::wire::{Meta, message_wire_len};

#[test]
fn a_pong_overtakes_broadcasts_but_not_the_frame_that_has_begun() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let frames = [10, 20, 30].map(|len| frame(Lane::High, len));
    frames.iter().for_each(|frame| logs.append(frame));
    let [first, second, third] = frames.each_ref().map(Frame::as_bytes);
    outbox.push_control(&mut pool, &pong());
    assert_eq!(waiting(&outbox, &logs), [&pong(), first, second, third].concat());
    outbox.advance(&logs, &mut pool, &QUANTA, 16 + 5);
    assert!(outbox.is_mid_frame());
    outbox.push_control(&mut pool, &pong());
    assert_eq!(waiting(&outbox, &logs), [&first[5..], &pong(), second, third].concat());
}

#[test]
fn a_pong_waits_for_a_fragment_not_for_the_message() {
    for len in [3000, 5000] {
        let (mut logs, mut pool, mut outbox) = fresh();
        let frame = Frame::encode(Draft::data(Meta::new(1), &vec![1; len]), 1024).unwrap();
        logs.append(&frame);
        outbox.advance(&logs, &mut pool, &QUANTA, 10);
        outbox.push_control(&mut pool, &pong());
        let (fragment, rest) = frame.as_bytes().split_at(1032);
        assert_eq!(waiting(&outbox, &logs), [&fragment[10..], &pong(), rest].concat(), "{len}");
    }
}

#[test]
fn a_write_of_nothing_keeps_the_frame_that_has_begun() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let (bulk, high) = (frame(Lane::Bulk, 100), frame(Lane::High, 10));
    logs.append(&bulk);
    outbox.advance(&logs, &mut pool, &QUANTA, 50);
    logs.append(&high);
    assert_eq!(outbox.advance(&logs, &mut pool, &QUANTA, 0), Advanced::default());
    assert_eq!(waiting(&outbox, &logs), [&bulk.as_bytes()[50..], high.as_bytes()].concat());
}

#[test]
fn the_last_broadcast_has_ended_though_a_pong_waits() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let (first, second) = (frame(Lane::Normal, 100), frame(Lane::Normal, 20));
    logs.append(&first);
    outbox.advance(&logs, &mut pool, &QUANTA, 50);
    outbox.push_control(&mut pool, &pong());
    assert_eq!(outbox.advance(&logs, &mut pool, &QUANTA, 58).messages, 1);
    assert!(!outbox.is_mid_frame());
    logs.append(&second);
    assert_eq!(waiting(&outbox, &logs), [&pong(), second.as_bytes()].concat());
}

#[test]
fn broadcasts_and_direct_sends_of_a_lane_leave_in_the_order_of_the_calls() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let mut sent = Vec::new();
    for len in [1, 2, 5000, 3, 6000] {
        let (cast, direct) = (frame(Lane::Normal, len), frame(Lane::Normal, len + 10));
        logs.append(&cast);
        outbox.push_frame(&logs, &mut pool, &direct, NOW);
        outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(len as u16), &[9; 40]), 1024);
        sent.extend_from_slice(cast.as_bytes());
        sent.extend_from_slice(direct.as_bytes());
        append_message(&mut sent, Draft::data(Meta::new(len as u16), &[9; 40]), 1024);
    }
    let urgent = frame(Lane::High, 4);
    logs.append(&urgent);
    assert_eq!(waiting(&outbox, &logs), [urgent.as_bytes(), &sent].concat());
}

#[test]
fn many_tiny_alternating_sends_take_no_more_memory_than_twice_what_they_claim() {
    const BOUND: usize = 256 * 1024;
    let (mut logs, mut pool, mut outbox) = fresh();
    let empty = frame(Lane::Normal, 0);
    let mut pairs = 0;
    while outbox.claimed(&logs) + SPANS_CHARGE + message_wire_len(false, 0, 1024) <= BOUND {
        outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(0), &[]), 1024);
        logs.append(&empty);
        pairs += 1;
    }
    assert!(pairs >= BOUND / (2 * 8 + 2 * SPAN_CHARGE + 8), "{pairs}");
    let queue = &outbox.queued.as_ref().unwrap().lanes[2];
    assert!(queue.spans.capacity() * size_of::<Span>() + queue.tail.capacity() <= 2 * BOUND);
    assert!(outbox.claimed(&logs) <= BOUND + empty.as_bytes().len());
}

#[test]
fn a_large_frame_is_not_copied_and_a_small_one_is() {
    for (len, copied) in [(BY_REFERENCE - 8, false), (BY_REFERENCE - 9, true)] {
        let frame = frame(Lane::Bulk, len);
        let (mut logs, mut pool, mut cast) = fresh();
        let mut direct = Outbox::new(&logs);
        logs.append(&frame);
        direct.skip_to_end(&logs, Lane::Bulk);
        direct.push_frame(&logs, &mut pool, &frame, NOW);
        for outbox in [&mut cast, &mut direct] {
            let mut slices = Slices::new(usize::MAX);
            outbox.gather(&logs, &QUANTA, &mut slices);
            assert_eq!(slices.as_slice().len(), 1);
            assert_eq!(slices.as_slice()[0].as_ptr() != frame.as_bytes().as_ptr(), copied, "{len}");
        }
    }
}

#[test]
fn an_idle_outbox_is_small_and_broadcasts_need_no_box() {
    assert!(size_of::<Outbox>() <= 80);
    assert_eq!(size_of::<Span>(), 40);
    let (mut logs, mut pool, mut outbox) = fresh();
    for len in [0, 100, 5000] {
        logs.append(&frame(Lane::Normal, len));
        logs.append(&frame(Lane::High, len));
        assert!(outbox.claimed(&logs) >= 2 * len + 16);
        outbox.advance(&logs, &mut pool, &QUANTA, 7);
        outbox.advance(&logs, &mut pool, &QUANTA, 2 * len + 16 - 7);
        assert!(outbox.is_empty(&logs) && outbox.queued.is_none());
    }
    assert!(pool.free.is_empty(), "a box was made");
}

#[test]
fn an_emptied_box_goes_back_to_the_pool_with_its_small_tails_only() {
    let (logs, mut pool, mut outbox) = fresh();
    let long = outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(1), &vec![1; 2 * KEPT_TAIL]), 1024);
    let short = outbox.push_control(&mut pool, &pong());
    assert!(pool.free.is_empty());
    assert_eq!(outbox.advance(&logs, &mut pool, &QUANTA, long + short), Advanced { messages: 1, freed: long + short });
    assert_eq!(pool.free.len(), 1);
    let [control, _, normal, _] = &pool.free[0].lanes;
    assert_eq!(normal.tail.capacity(), 0);
    assert!((short..=KEPT_TAIL).contains(&control.tail.capacity()));
    let memory = control.tail.as_ptr();
    outbox.push_control(&mut pool, &pong());
    assert!(pool.free.is_empty());
    assert_eq!(outbox.contiguous(&logs).unwrap().as_ptr(), memory);
}

#[test]
fn a_message_is_counted_when_its_last_byte_leaves_or_when_it_is_dropped() {
    for stop in 0.. {
        let (mut logs, mut pool, mut outbox) = fresh();
        let fragments = Frame::encode(Draft::data(Meta::new(1), &[1; 1500]), 1024).unwrap();
        let mut ends = Vec::new();
        let mut total = 0;
        for frame in [&frame(Lane::Normal, 3), &fragments, &frame(Lane::Normal, 4088)] {
            logs.append(frame);
            outbox.push_frame(&logs, &mut pool, frame, NOW);
            logs.append(frame);
            ends.extend([1, 2, 3].map(|times| total + times * frame.as_bytes().len()));
            total = *ends.last().unwrap();
        }
        let stop = stop * 61;
        if stop > total {
            return;
        }
        let mut left = 0;
        for taken in 1..=stop {
            let advanced = outbox.advance(&logs, &mut pool, &QUANTA, 1);
            assert_eq!(advanced.messages, ends.iter().filter(|&&end| end == taken).count() as u64, "at {taken}");
            left += advanced.messages;
        }
        if stop % 2 == 0 {
            outbox.evacuate(&logs, &mut pool);
        }
        let dropped = outbox.clear(&logs, &mut pool).messages;
        assert_eq!((left + dropped, dropped), (9, ends.iter().filter(|&&end| end > stop).count() as u64), "at {stop}");
    }
}

#[test]
fn an_excluded_outbox_misses_that_broadcast_only() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let frames = [1, 2, 3].map(|len| frame(Lane::Normal, len));
    logs.append(&frames[0]);
    outbox.advance(&logs, &mut pool, &QUANTA, 4);
    outbox.settle_lane(&logs, &mut pool, Lane::Normal);
    logs.append(&frames[1]);
    outbox.skip_to_end(&logs, Lane::Normal);
    logs.append(&frames[2]);
    assert_eq!(waiting(&outbox, &logs), [&frames[0].as_bytes()[4..], frames[2].as_bytes()].concat());
    assert_eq!(outbox.advance(&logs, &mut pool, &QUANTA, 5 + 11).messages, 2);
}

#[test]
fn an_evacuated_outbox_lets_the_log_go_and_loses_nothing() {
    let (mut logs, mut pool, mut outbox) = fresh();
    for len in [100, 5000, 300] {
        logs.append(&frame(Lane::Normal, len));
        outbox.push_frame(&logs, &mut pool, &frame(Lane::Normal, len), NOW);
        logs.append(&frame(Lane::Bulk, len));
    }
    outbox.advance(&logs, &mut pool, &QUANTA, 50);
    let (before, private) = (waiting(&outbox, &logs), outbox.private());
    outbox.evacuate(&logs, &mut pool);
    assert!(outbox.private() > private);
    assert_eq!(outbox.private(), before.len());
    logs.release(outbox.oldest(&logs));
    assert!(logs.is_empty());
    outbox.push_control(&mut pool, &pong());
    assert_eq!(waiting(&outbox, &logs), [&before[..58], &pong(), &before[58..]].concat());
    assert_eq!(outbox.advance(&logs, &mut pool, &QUANTA, before.len() + 16).messages, 9);
}

#[test]
fn a_burst_of_broadcasts_or_of_replies_is_one_run_and_both_together_are_not() {
    let (mut logs, mut pool, mut outbox) = fresh();
    assert!(outbox.contiguous(&logs).is_none());
    (0..50).for_each(|len| logs.append(&frame(Lane::Normal, len)));
    assert_eq!(outbox.contiguous(&logs).unwrap(), waiting(&outbox, &logs));
    outbox.advance(&logs, &mut pool, &QUANTA, outbox.claimed(&logs));
    for _ in 0..50 {
        outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(1), &[1]), 1024);
    }
    assert_eq!(outbox.contiguous(&logs).unwrap(), waiting(&outbox, &logs));
    logs.append(&frame(Lane::Normal, 1));
    assert!(outbox.contiguous(&logs).is_none());
}
