//! From one broadcast to the bytes of every peer's write, on one core without sockets. What the kernel does is not in it.

mod harness;

use std::hint::black_box;

use corecast::bench::Core;
use corecast::{Frame, Meta};
use harness::Bench;

/// A turn with `frames` broadcasts of `size` bytes to `peers`.
fn cast(bench: &Bench, peers: usize, frames: u64, size: usize) {
    let name = format!("{frames} x {size} B to {peers}-peers");
    if !bench.wants(&name) {
        return;
    }
    let mut core = Core::new(peers);
    let frame = Frame::new(1, &vec![7; size]).unwrap();
    let bytes = frame.as_bytes().len() * peers * frames as usize;
    bench.case(&name, peers as u64 * frames, "delivery", || {
        core.begin();
        for _ in 0..frames {
            core.broadcast(black_box(&frame));
        }
        assert_eq!(core.flush(usize::MAX), bytes);
        core.end();
    });
}

/// The same, and each peer is sent something of its own in between, so that nothing is in one piece.
fn cast_and_send(bench: &Bench, peers: usize, frames: u64, size: usize) {
    let name = format!("{frames} x {size} B, and one send each, to {peers}-peers");
    if !bench.wants(&name) {
        return;
    }
    let mut core = Core::new(peers);
    let frame = Frame::new(1, &vec![7; size]).unwrap();
    bench.case(&name, peers as u64 * (frames + 1), "delivery", || {
        core.begin();
        for number in 0..frames {
            core.broadcast(black_box(&frame));
            if number == frames / 2 {
                (0..peers).for_each(|peer| core.send(peer, Meta::new(2), &[7; 64]));
            }
        }
        black_box(core.flush(usize::MAX));
        core.end();
    });
}

fn main() {
    let bench = Bench::new("fanout: one core, no sockets");
    cast(&bench, 50, 1, 128);
    cast(&bench, 50, 64, 128);
    cast(&bench, 1000, 1, 128);
    cast(&bench, 1000, 64, 128);
    cast(&bench, 1000, 4, 8 << 10);
    cast(&bench, 1000, 1, 1 << 20);
    cast(&bench, 10_000, 1, 128);
    cast_and_send(&bench, 1000, 16, 128);
    // What encoding once costs, whoever it goes to.
    let body = vec![7; 128];
    bench.case("encode a frame of 128 B", 1, "frame", || drop(black_box(Frame::new(1, black_box(&body)).unwrap())));
    let body = vec![7; 1 << 20];
    bench.case("encode a frame of 1 MiB", 1, "frame", || drop(black_box(Frame::new(1, black_box(&body)).unwrap())));
}
