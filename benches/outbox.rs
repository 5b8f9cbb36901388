//! From `send` to the bytes of a write, and from received bytes to an echo, on one core without sockets. What the kernel does is not in it.

mod harness;

use std::hint::black_box;

use corecast::bench::{Backlog, Core};
use corecast::{Frame, Lane, Meta};
use harness::Bench;

/// A turn in which one peer is sent `messages` of `size` bytes, written in pieces of at most `most` bytes.
fn send(bench: &Bench, name: &str, messages: u64, size: usize, most: usize) {
    let mut core = Core::new(1);
    let body = vec![7; size];
    bench.case(name, messages, "message", || {
        core.begin();
        for _ in 0..messages {
            core.send(0, Meta::new(1), black_box(&body));
        }
        black_box(core.flush(most));
        core.end();
    });
}

/// The same in all lanes by turns.
fn send_lanes(bench: &Bench, name: &str, messages: u64, size: usize, most: usize) {
    let mut core = Core::new(1);
    let body = vec![7; size];
    bench.case(name, messages, "message", || {
        core.begin();
        for lane in Lane::ALL.into_iter().cycle().take(messages as usize) {
            core.send(0, Meta::new(1).lane(lane), black_box(&body));
        }
        black_box(core.flush(most));
        core.end();
    });
}

/// The same in the two urgent lanes by turns, while 7 MiB of bulk wait, by reference.
fn send_beside_bulk(bench: &Bench, name: &str, messages: u64, size: usize, most: usize) {
    let mut core = Core::new(1);
    let body = vec![7; size];
    let block = Frame::new(Meta::new(2).lane(Lane::Bulk), &vec![7; 1 << 20]).unwrap();
    bench.case(name, messages, "message", || {
        core.begin();
        (0..7).for_each(|_| core.broadcast(black_box(&block)));
        for lane in [Lane::High, Lane::Normal].into_iter().cycle().take(messages as usize) {
            core.send(0, Meta::new(1).lane(lane), black_box(&body));
        }
        black_box(core.flush(most));
        core.end();
    });
}

/// A turn in which each of `peers` has sent `messages` of `size` bytes, and gets them back.
fn echo(bench: &Bench, name: &str, peers: usize, messages: u64, size: usize) {
    let mut core = Core::new(peers);
    let input = Frame::new(1, &vec![7; size]).unwrap().as_bytes().repeat(messages as usize);
    bench.case(name, peers as u64 * messages, "message", || {
        core.begin();
        for peer in 0..peers {
            core.receive(peer, black_box(&input));
        }
        assert_eq!(core.flush(usize::MAX), peers * input.len());
        core.end();
    });
}

/// `rounds` frames of each of `keys` keys, of which one of each is left in the end.
fn conflate(bench: &Bench, name: &str, keys: u64, rounds: u64) {
    let mut backlog = Backlog::new();
    let frames: Vec<Frame> = (0..keys).map(|key| Frame::new(1, &[7; 64]).unwrap().with_key(key)).collect();
    bench.case(name, keys * rounds, "frame", || {
        for round in 0..rounds {
            for frame in &frames {
                assert_eq!(backlog.conflate(black_box(frame)), round > 0);
            }
        }
        assert_eq!(backlog.clear(), keys);
    });
}

fn main() {
    let bench = Bench::new("outbox: one core, no sockets");
    send(&bench, "send 1 x 64 B", 1, 64, usize::MAX);
    send(&bench, "send 64 x 64 B", 64, 64, usize::MAX);
    send(&bench, "send 64 x 64 B, writes of 1,000 B", 64, 64, 1000);
    send(&bench, "send 64 x 1,000 B", 64, 1000, usize::MAX);
    send(&bench, "send 16 x 16,000 B", 16, 16_000, usize::MAX);
    send(&bench, "send 4 x 256 KiB, writes of 64 KiB", 4, 256 << 10, 64 << 10);
    send_lanes(&bench, "send 63 x 64 B, three lanes", 63, 64, usize::MAX);
    send_lanes(&bench, "send 63 x 64 B, three lanes, writes of 1,000 B", 63, 64, 1000);
    send_beside_bulk(&bench, "send 2,048 x 64 B beside 7 MiB of bulk, writes of 64 KiB", 2048, 64, 64 << 10);
    echo(&bench, "echo 1 x 64 B", 1, 1, 64);
    echo(&bench, "echo 64 x 64 B", 1, 64, 64);
    echo(&bench, "echo 1 x 64 B, 1000-peers", 1000, 1, 64);
    echo(&bench, "echo 64 x 1,000 B", 1, 64, 1000);
    conflate(&bench, "conflate 10 keys", 10, 4);
    conflate(&bench, "conflate 1,000 keys", 1000, 4);
}
