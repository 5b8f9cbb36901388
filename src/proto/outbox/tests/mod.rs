//! Outboxes without sockets: against a model, and case by case.

mod lanes;
mod model;
mod queueing;
mod shedding;

use super::*;
use crate::wire::{Meta, control_frame};

const NOW: Timestamp = Timestamp::ORIGIN;
const QUANTA: Quanta = Quanta::new([64 * 1024, 32 * 1024, 16 * 1024]);

fn frame(lane: Lane, len: usize) -> Frame {
    Frame::new(Meta::new(len as u16).lane(lane), &vec![len as u8; len]).unwrap()
}

fn pong() -> [u8; 16] {
    control_frame(Kind::Pong, [7; 8])
}

/// Logs, a pool, and an outbox that is up to date.
fn fresh() -> (Logs, QueuedPool, Outbox) {
    let logs = Logs::new();
    let outbox = Outbox::new(&logs);
    (logs, QueuedPool::new(8 << 20), outbox)
}

/// Everything that is waiting, in the order in which it leaves.
fn waiting(outbox: &Outbox, logs: &Logs) -> Vec<u8> {
    let mut slices = Slices::new(usize::MAX);
    outbox.gather(logs, &QUANTA, &mut slices);
    slices.as_slice().iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat()
}
