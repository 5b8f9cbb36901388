//! From one broadcast to the bytes of every peer's write, on one core without sockets. What the kernel does is not in it.

mod harness;

use std::hint::black_box;

use corecast::bench::Core;
use corecast::{Frame, Meta, Topic};
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

/// A turn with `frames` publishes of `size` bytes to a topic that all peers have, beside as many others as asked for.
fn publish(bench: &Bench, peers: usize, frames: u64, size: usize, others: u64) {
    let beside = if others > 0 { format!(", beside {others} other topics") } else { String::new() };
    let name = format!("publish {frames} x {size} B on a topic of {peers}-peers{beside}");
    if !bench.wants(&name) {
        return;
    }
    let mut core = Core::new(peers);
    (0..peers).for_each(|peer| core.subscribe(peer, Topic(7)));
    (0..others).for_each(|other| core.subscribe((other % peers as u64) as usize, Topic(other * 1_000_003 + 8)));
    let frame = Frame::new(1, &vec![7; size]).unwrap();
    let bytes = frame.as_bytes().len() * peers * frames as usize;
    bench.case(&name, peers as u64 * frames, "delivery", || {
        core.begin();
        for _ in 0..frames {
            core.publish(Topic(7), black_box(&frame));
        }
        assert_eq!(core.flush(usize::MAX), bytes);
        core.end();
    });
}

/// The same by direct sends of the encoded frame: what a publish is measured against.
fn send_each(bench: &Bench, peers: usize, frames: u64, size: usize) {
    let name = format!("send {frames} x {size} B to each of {peers}-peers");
    if !bench.wants(&name) {
        return;
    }
    let mut core = Core::new(peers);
    let frame = Frame::new(1, &vec![7; size]).unwrap();
    bench.case(&name, peers as u64 * frames, "delivery", || {
        core.begin();
        for _ in 0..frames {
            (0..peers).for_each(|peer| core.send_frame(peer, black_box(&frame)));
        }
        black_box(core.flush(usize::MAX));
        core.end();
    });
}

/// A publish to the one subscriber of each of so many topics.
fn publish_quiet(bench: &Bench, topics: usize) {
    let name = format!("publish 128 B on each of {topics} topics with one subscriber");
    if !bench.wants(&name) {
        return;
    }
    let mut core = Core::new(topics);
    let topic = |number: usize| Topic(number as u64 * 1_000_003);
    (0..topics).for_each(|number| core.subscribe(number, topic(number)));
    let frame = Frame::new(1, &[7; 128]).unwrap();
    bench.case(&name, topics as u64, "delivery", || {
        core.begin();
        (0..topics).for_each(|number| core.publish(topic(number), black_box(&frame)));
        black_box(core.flush(usize::MAX));
        core.end();
    });
}

/// A peer that changes its mind: what a flood of that costs.
fn subscribe(bench: &Bench, topics: u64) {
    let name = format!("subscribe to {topics} topics and unsubscribe");
    if !bench.wants(&name) {
        return;
    }
    let mut core = Core::new(1000);
    let topic = |number: u64| Topic((number * 1_000_003).rotate_left(40));
    // A thousand others have as many.
    (1..1000).for_each(|peer| (0..topics).for_each(|number| core.subscribe(peer, topic(number + peer as u64))));
    let frames = |wanted| (0..topics).flat_map(move |number| Core::subscription(topic(number), wanted));
    let frames: Vec<u8> = frames(true).chain(frames(false)).collect();
    bench.case(&name, 2 * topics, "frame", || {
        core.begin();
        core.receive(0, black_box(&frames));
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
    send_each(&bench, 1000, 1, 128);
    send_each(&bench, 1000, 64, 128);
    publish(&bench, 1000, 1, 128, 0);
    publish(&bench, 1000, 64, 128, 0);
    publish(&bench, 1000, 64, 128, 10_000);
    publish(&bench, 100, 1, 1 << 20, 0);
    publish_quiet(&bench, 1000);
    subscribe(&bench, 256);
    // What encoding once costs, whoever it goes to.
    let body = vec![7; 128];
    bench.case("encode a frame of 128 B", 1, "frame", || drop(black_box(Frame::new(1, black_box(&body)).unwrap())));
    let body = vec![7; 1 << 20];
    bench.case("encode a frame of 1 MiB", 1, "frame", || drop(black_box(Frame::new(1, black_box(&body)).unwrap())));
}
