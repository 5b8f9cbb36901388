//! Who leaves when several lanes wait.

use super::super::*;
use super::{NOW, QUANTA, frame, fresh, pong, waiting};
use crate::rng::Rng;
use crate::wire::Meta;

/// Takes `most` bytes at most; says how many each lane had of them. No frame is to be begun by them that another one is inside of.
fn take(outbox: &mut Outbox, logs: &Logs, pool: &mut QueuedPool, quanta: &Quanta, most: usize) -> [usize; LANES] {
    let before = outbox.waiting(logs);
    let mut slices = Slices::new(most);
    outbox.gather(logs, quanta, &mut slices);
    let taken = slices.bytes();
    outbox.advance(logs, pool, quanta, taken);
    let after = outbox.waiting(logs);
    std::array::from_fn(|lane| before[lane] - after[lane])
}

/// A high lane that never runs empty, bulk that waits, and a kernel that takes as much as `most` says of the bytes of the high lane.
fn bulk_has_its_share(most: impl Fn(&mut Rng, usize) -> usize) {
    const FRAGMENT: usize = 1024;
    for (high, bulk) in [(64, 64), (4096, 1024), (1024, 4096), (1, 1), (1000, 300)] {
        let (mut logs, mut pool, mut outbox) = fresh();
        let quanta = Quanta::new([high, 1, bulk]);
        let snapshot = Frame::encode(Draft::data(Meta::new(1).lane(Lane::Bulk), &[1; 32 * 1024]), FRAGMENT).unwrap();
        logs.append(&snapshot);
        let vote = frame(Lane::High, 64);
        let mut rng = Rng::new(u64::from(high));
        let (mut votes, mut bulks) = (0, 0);
        while bulks < 8 * FRAGMENT {
            // Refilled before each write: there is always more than a round takes.
            while outbox.waiting(&logs)[1] < 2 * (high as usize + FRAGMENT) {
                outbox.push_frame(&logs, &mut pool, &vote, NOW);
            }
            let waiting = outbox.waiting(&logs)[1];
            let [_, high_taken, _, bulk_taken] = take(&mut outbox, &logs, &mut pool, &quanta, most(&mut rng, waiting).min(waiting));
            votes += high_taken;
            bulks += bulk_taken;
            // After as many rounds as the high lane's bytes are worth, each lane is within a round and a frame of its share.
            let rounds = |bytes: usize, quantum: u32| bytes as f64 / f64::from(quantum);
            let (frame, fragment) = (rounds(72, high), rounds(FRAGMENT + HEADER_LEN, bulk));
            let ahead = rounds(votes, high) - rounds(bulks, bulk);
            assert!(ahead <= 1.0 + frame, "the high lane is {ahead} rounds ahead after {votes} bytes");
            assert!(-ahead <= 1.0 + fragment, "bulk is {} rounds ahead after {bulks} bytes", -ahead);
        }
    }
}

#[test]
fn bulk_has_its_share_while_the_high_lane_never_runs_empty() {
    for most in [1, 7, 8, 71, 72, 73, 1000, 1032, 1033, 5000] {
        bulk_has_its_share(|_, _| most);
    }
    bulk_has_its_share(|rng, _| 1 + rng.below(3000) as usize);
}

#[test]
fn bulk_has_its_share_though_each_write_takes_just_what_the_high_lane_has() {
    bulk_has_its_share(|_, high| high);
}

#[test]
fn a_lane_that_is_refilled_each_time_that_it_ran_empty_keeps_bulk_waiting_for_one_quantum() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let quanta = Quanta::new([1000, 1000, 1000]);
    logs.append(&frame(Lane::Bulk, 10_000));
    let vote = frame(Lane::High, 92);
    let mut votes = 0;
    loop {
        outbox.push_frame(&logs, &mut pool, &vote, NOW);
        if take(&mut outbox, &logs, &mut pool, &quanta, 100)[1] == 0 {
            break;
        }
        assert_eq!(outbox.waiting(&logs)[1], 0);
        votes += 1;
    }
    assert_eq!(votes, 10);
}

#[test]
fn a_vote_has_at_most_the_rest_of_one_fragment_before_it_wherever_the_write_was_cut() {
    const FRAGMENT: usize = 16 * 1024 + HEADER_LEN;
    let block = Frame::new(Meta::new(1).lane(Lane::Bulk), &vec![1; 8 << 20]).unwrap();
    let vote = frame(Lane::High, 100);
    let mut rng = Rng::new(3);
    for by_reference in [false, true] {
        let (mut logs, mut pool, mut outbox) = fresh();
        if by_reference {
            outbox.push_frame(&logs, &mut pool, &block, NOW);
        } else {
            logs.append(&block);
        }
        let mut out = 0;
        loop {
            let cut = [rng.below(3 * FRAGMENT as u64) as usize, FRAGMENT - out % FRAGMENT][rng.below(2) as usize];
            if out + cut >= block.as_bytes().len() {
                break;
            }
            let taken = take(&mut outbox, &logs, &mut pool, &QUANTA, cut);
            assert_eq!(taken[3], cut);
            out += cut;
            let (_, rest) = block.as_bytes()[..out.next_multiple_of(FRAGMENT)].split_at(out);
            outbox.push_frame(&logs, &mut pool, &vote, NOW);
            let mut slices = Slices::new(FRAGMENT + 1000);
            outbox.gather(&logs, &QUANTA, &mut slices);
            let listed = slices.as_slice().iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
            assert!(listed.starts_with(&[rest, vote.as_bytes()].concat()), "after {out} bytes");
            // What is under way and the vote leave, together or not.
            let together = take(&mut outbox, &logs, &mut pool, &QUANTA, rest.len() + vote.as_bytes().len());
            assert_eq!(together, [0, vote.as_bytes().len(), 0, rest.len()]);
            out += rest.len();
        }
    }
}

#[test]
fn rounds_go_by_frames_and_what_went_beyond_a_quantum_is_missing_in_the_next() {
    let (mut logs, _, outbox) = fresh();
    // Frames of 108 bytes: after the first two rounds of 100 the high lane owes 16 of the third.
    let quanta = Quanta::new([100, 1, 300]);
    let (vote, block) = (frame(Lane::High, 100), frame(Lane::Bulk, 42));
    (0..20).for_each(|_| logs.append(&vote));
    (0..20).for_each(|_| logs.append(&block));
    let mut slices = Slices::new(usize::MAX);
    outbox.gather(&logs, &quanta, &mut slices);
    let lens: Vec<usize> = slices.as_slice().iter().map(|slice| slice.len()).collect();
    // Six blocks are 300 bytes.
    assert_eq!(lens[..6], [108, 300, 108, 300, 108, 300]);
    assert_eq!(lens.iter().sum::<usize>(), 20 * (108 + 50));
}

#[test]
fn control_goes_before_every_round() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let quanta = Quanta::new([50, 50, 50]);
    let (vote, block) = (frame(Lane::High, 42), frame(Lane::Bulk, 42));
    for _ in 0..3 {
        logs.append(&vote);
        logs.append(&block);
    }
    outbox.advance(&logs, &mut pool, &quanta, 60);
    outbox.push_control(&mut pool, &pong());
    let mut slices = Slices::new(usize::MAX);
    outbox.gather(&logs, &quanta, &mut slices);
    let listed = slices.as_slice().iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
    let (vote, block) = (vote.as_bytes(), block.as_bytes());
    assert_eq!(listed, [&block[10..], &pong(), vote, block, vote, block].concat());
}

#[test]
fn an_outbox_that_ran_empty_begins_afresh() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let (vote, block) = (frame(Lane::High, 60_000), frame(Lane::Bulk, 100));
    logs.append(&vote);
    logs.append(&block);
    outbox.advance(&logs, &mut pool, &QUANTA, outbox.claimed(&logs));
    logs.append(&vote);
    logs.append(&block);
    assert_eq!(waiting(&outbox, &logs), [vote.as_bytes(), block.as_bytes()].concat());
}
