//! Whatever its peers and the application do, an engine has no more on the heap than `Config::memory_bound` says.
//!
//! Set-up: an engine on two cores with small limits, an allocator that knows how much is live and how much was at most, and 1,000 peers
//! written by hand that never read. Each leaves a frame half sent; among them are peers half-way through a message of 1 MiB in either
//! direction, peers that are paused with input put aside, peers that take only short messages, peers that have subscribed to 1,000 topics
//! together, and peers that send what is to be acknowledged. Meanwhile the application publishes to all those topics, from a thread, and
//! broadcasts, sends (with keys and times to live, and to be acknowledged, which nobody does) and asks, from its cores and from another
//! thread, until it is refused. Claim: at no time is more live than the bound allows; the load presses, so that the test could fail; and
//! when the peers have gone, and the engine, everything is given back.

mod common;
#[path = "common/heap.rs"]
mod heap;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use common::raw::{self, Hello, MORE, NORMAL, Raw};
use common::{LIVENESS, NEVER, eventually, eventually_idle, eventually_stats, loopback};
use corecast::{Config, Context, Cores, Counter, Engine, Handle, Handler, Lane, Message, Meta, NodeId, PeerId, Topic, WhenSlow};
use heap::peak_beyond;

const PEERS: usize = 1_000;
const CORES: usize = 2;
const LONG: usize = 1 << 20;
/// What the process keeps when the engine has gone: names of threads, tables of the standard library.
const SLACK: usize = 64 << 10;

/// Each of these peers has this many topics of its own.
const SUBSCRIBERS: usize = PEERS / 10;
const TOPICS: usize = 10;
/// Messages that some peers send and ask to be acknowledged, of each kind.
const ACKED: u64 = 100;

/// A peer that sends this is not read until it has gone.
const PAUSE: u16 = 2;
/// The application never acknowledges these.
const OWED: u16 = 3;

fn config() -> Config {
    let mut config = loopback().cores(Cores::Unpinned(CORES));
    let limits = &mut config.limits;
    limits.max_peers = PEERS;
    limits.max_half_open = 16;
    limits.max_dials = 16;
    limits.max_timers = 16;
    limits.subscriptions = 16;
    limits.max_message = LONG;
    limits.outbox_hard = 9 << 18;
    limits.outbox_soft = limits.outbox_hard;
    limits.soft_grace = NEVER;
    limits.log_bytes = 2 * limits.outbox_hard;
    limits.send_bytes = 8 << 20;
    limits.send_reserve = 8 << 10;
    limits.reassembly_bytes = 4 << 20;
    limits.reassembly_reserve = 8 << 10;
    limits.buffer_pool = 1 << 20;
    limits.inbox_messages = 256;
    limits.inbox_bytes = 5 << 18;
    limits.max_requests = 2_000;
    let acks = &mut config.acks;
    (acks.pending, acks.answers, acks.bytes, acks.window) = (64, 4_000, 2 << 20, 128);
    acks.by_handler = vec![OWED];
    config.lanes.bulk.when_slow = WhenSlow::Conflate;
    config.io.receive_buffer = 128 << 10;
    config.io.send_buffer = Some(4 << 10);
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config.timeouts.write_stall = NEVER;
    config.timeouts.partial = NEVER;
    config.timeouts.pause = NEVER;
    config
}

/// What a core's handler is to do until it is refused, and how often it was not.
enum Order {
    SendLong(SyncSender<usize>),
    SendShort(SyncSender<usize>),
    Ask(SyncSender<usize>),
    SendKeyed(SyncSender<usize>),
    BroadcastAcked(SyncSender<usize>),
    Broadcast { bytes: usize, done: SyncSender<usize> },
}

struct Press {
    body: Arc<[u8]>,
}

impl Press {
    /// One after the other to each peer of this core, until none takes more.
    fn each_peer(cx: &mut Context<'_>, most: usize, mut act: impl FnMut(&mut Context<'_>, PeerId) -> bool) -> usize {
        let mut peers: Vec<PeerId> = cx.peers().collect();
        let mut taken = 0;
        for _ in 0..most {
            peers.retain(|&peer| act(cx, peer));
            taken += peers.len();
        }
        taken
    }
}

impl Handler for Press {
    type Command = Order;

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        if message.message_type() == PAUSE {
            cx.pause_read(peer);
        }
        // The right to acknowledge it is let go of.
        let _ = message.ack_id();
    }

    fn on_command(&mut self, cx: &mut Context<'_>, order: Order) {
        let body = Arc::clone(&self.body);
        let (taken, done) = match order {
            Order::SendLong(done) => (Self::each_peer(cx, 1, |cx, peer| cx.send(peer, 1, &body).is_ok()), done),
            // In lanes by turns, so that each peer has several tails; not in the one that drops.
            Order::SendShort(done) => {
                let lanes = |turn: &mut usize| Lane::ALL[(*turn, *turn += 1).0 % 2];
                let mut turn = 0;
                let send = |cx: &mut Context<'_>, peer| cx.send(peer, Meta::new(1).lane(lanes(&mut turn)), &body[..700]).is_ok();
                (Self::each_peer(cx, 1_000, send), done)
            }
            Order::Ask(done) => (Self::each_peer(cx, 10, |cx, peer| cx.request(peer, 1, &body[..10], NEVER, 7).is_ok()), done),
            // As small as they can be, each with a key of its own, or with a time after which nobody wants it.
            Order::SendKeyed(done) => {
                let empty = cx.frame(Meta::new(1).lane(Lane::Bulk), &[]).unwrap();
                let mut key: u64 = 0;
                let send = |cx: &mut Context<'_>, peer: PeerId| {
                    key += 1;
                    let frame = if key.is_multiple_of(3) { empty.clone().with_ttl(NEVER) } else { empty.clone().with_key(key) };
                    peer.to_u64().is_multiple_of(4) && cx.send_frame(peer, &frame).is_ok()
                };
                (Self::each_peer(cx, 2_000, send), done)
            }
            Order::BroadcastAcked(done) => ((0..1_000).take_while(|_| cx.broadcast_acked(1, &body[..40], NEVER, 1).is_ok()).count(), done),
            Order::Broadcast { bytes, done } => {
                let mut taken = 0;
                while taken < bytes {
                    // Too long for some peers and not for others, by turns: for those that are left out it is noted.
                    let frame = cx.frame(1, &body[..if taken.is_multiple_of(2) { 101 } else { 3 }]).unwrap();
                    if cx.broadcast(&frame).is_err() {
                        break;
                    }
                    taken += frame.as_bytes().len();
                }
                (taken, done)
            }
        };
        let _ = done.send(taken);
    }
}

fn ask(engine: &Engine<Order>, order: impl Fn(SyncSender<usize>) -> Order) -> usize {
    let (done, taken) = sync_channel(CORES);
    for core in 0..CORES {
        let mut command = order(done.clone());
        eventually("a core takes a command", || match engine.handle().post(core, std::mem::replace(&mut command, order(done.clone()))) {
            Ok(()) => true,
            Err(rejected) => {
                command = rejected.value;
                false
            }
        });
    }
    (0..CORES).map(|_| taken.recv_timeout(LIVENESS).unwrap()).sum()
}

/// A peer that has said what it leaves the engine with. By its number: half-way through a message of 1 MiB, paused, or with half a frame.
fn stuck_peer(engine: &Engine<Order>, number: usize, body: &[u8]) -> Raw {
    // A third takes only short messages, and is left out of the others.
    let max_message = if number.is_multiple_of(3) { 50 } else { LONG as u32 };
    let hello = Hello { max_message, ..Hello::node(number as u32) };
    let mut raw = Raw::connect_narrow(engine.local_addrs()[0]).shake(hello);
    raw.stream.set_nonblocking(true).unwrap();
    if number.is_multiple_of(PEERS / SUBSCRIBERS) {
        let topics = (number / (PEERS / SUBSCRIBERS) * TOPICS..).take(TOPICS);
        write(&mut raw, &topics.flat_map(|topic| raw::control(raw::SUBSCRIBE, topic as u64)).collect::<Vec<_>>());
    }
    match number % 11 {
        0 => {
            write(&mut raw, &raw::first(NORMAL, 1, LONG as u32, &body[..16_000]));
            (0..5).for_each(|_| write(&mut raw, &raw::frame(raw::FRAGMENT, NORMAL | MORE, 1, &body[..16_000])));
        }
        1 => {
            write(&mut raw, &raw::data(PAUSE, &[]));
            (0..20).for_each(|_| write(&mut raw, &raw::data(1, &body[..10_000])));
        }
        2 | 3 => {
            let acked = |id| [raw::acked(1, id, &[]), raw::acked(OWED, ACKED + id, &[])].concat();
            write(&mut raw, &(0..ACKED).flat_map(acked).collect::<Vec<_>>());
        }
        _ => {}
    }
    write(&mut raw, &raw::header(32_000, raw::DATA, NORMAL, 1));
    write(&mut raw, &body[..20_000]);
    raw
}

/// As much as the kernel takes.
fn write(raw: &mut Raw, bytes: &[u8]) {
    let _ = raw.stream.write(bytes);
}

/// From a thread: to all, and to single peers, until it is refused.
fn press_from_outside(engine: &Engine<Order>, peers: &[PeerId], body: &[u8]) -> usize {
    let handle = engine.handle();
    let mut refused = 0;
    for round in 0..2_000_usize {
        let frame = handle.frame(1, &body[..if round.is_multiple_of(100) { LONG } else { 600 }]).unwrap();
        refused += usize::from(handle.send(peers[round % peers.len()], frame).is_err());
    }
    refused
}

/// To one topic after the other, until `done`. Returns how many publishes were taken.
fn publish_until(done: &AtomicBool, handle: &Handle<Order>, body: &[u8]) -> usize {
    let mut taken = 0;
    while !done.load(Ordering::Relaxed) {
        for topic in 0..SUBSCRIBERS * TOPICS {
            // The peers of some take only short messages.
            let frame = handle.frame(1, &body[..if topic.is_multiple_of(7) { 6_000 } else { 40 }]).unwrap();
            taken += usize::from(handle.publish(Topic(topic as u64), frame).is_ok());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    taken
}

/// To a node that never comes, so that the directory keeps it; until it is refused.
fn send_to_nobody(handle: &Handle<Order>, body: &[u8]) -> usize {
    let mut refused = 0;
    for number in 0..500_u16 {
        let node = NodeId([number as u8; 32]);
        refused += usize::from(handle.send_acked((node, number), 1, &body[..100_000], NEVER).is_err());
    }
    refused
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = (2 * PEERS + 200) as u64;
    let current = limit.current.map_or(wanted, |current| current.max(wanted));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(limit.maximum.map_or(current, |most| current.min(most))), ..limit });
}

#[test]
fn a_thousand_stuck_peers_and_a_pushing_application_stay_within_the_bound() {
    raise_file_limit();
    let body: Arc<[u8]> = vec![7; LONG].into();
    let mut raws = Vec::with_capacity(PEERS);
    let bound = config().memory_bound();
    let baseline = heap::live();
    peak_beyond(baseline);

    let engine = Engine::start(config(), {
        let body = Arc::clone(&body);
        move |_| Press { body: Arc::clone(&body) }
    })
    .unwrap();
    let handle = engine.handle();
    raws.extend((0..PEERS).map(|number| stuck_peer(&engine, number, &body)));
    eventually_stats(&handle, "every peer has left something unfinished", |stats| {
        stats.get(Counter::Peers) == PEERS as u64 && stats.get(Counter::BufferBytes) >= (PEERS * 60) as u64 * 1024
    });
    let arrived = peak_beyond(baseline);
    assert!(handle.stats().get(Counter::ReassemblyWaits) > 0, "nobody had to wait for memory");

    let taken = |counter| handle.stats().get(counter);
    assert_eq!(taken(Counter::Subscriptions), (SUBSCRIBERS * TOPICS) as u64);
    assert!(taken(Counter::AcksSent) > 0 && taken(Counter::AckedDropped) > 0, "nobody is owed what he asks for");

    let done = Arc::new(AtomicBool::new(false));
    let publisher = std::thread::spawn({
        let (done, handle, body) = (Arc::clone(&done), handle.clone(), Arc::clone(&body));
        move || publish_until(&done, &handle, &body)
    });
    let long = ask(&engine, Order::SendLong);
    let (mut acked, mut keyed, mut short) = (0, 0, 0);
    // Again and again, for what the publishes have left.
    for _ in 0..3 {
        acked += ask(&engine, Order::BroadcastAcked);
        keyed += ask(&engine, Order::SendKeyed);
        short += ask(&engine, Order::SendShort);
    }
    let asked = ask(&engine, Order::Ask);
    assert!(long > 2 && short > 3 * PEERS && asked > 0, "{long} long, {short} short ones sent, {asked} requests");
    assert!(acked >= CORES * 3 && keyed > 10 * PEERS, "{acked} broadcasts to be acknowledged, {keyed} with terms");
    send_to_nobody(&handle, &body);
    eventually_stats(&handle, "sends to be acknowledged are refused", |stats| stats.get(Counter::AckedRefused) > 0);
    let peers: Vec<PeerId> = handle.peers(LIVENESS).unwrap().iter().map(|peer| peer.id).collect();
    assert!(peers.len() >= PEERS - SUBSCRIBERS, "nobody but subscribers is cut off for what others have: {}", peers.len());
    let refused = press_from_outside(&engine, &peers, &body);
    assert!(refused > 0 || handle.stats().get(Counter::SendsRefused) > 0, "the application was never refused");
    let sent = peak_beyond(baseline);

    // Up to the hard bound of each peer and beyond: all are cut off.
    let broadcast = ask(&engine, |done| Order::Broadcast { bytes: 1 << 20, done });
    assert!(broadcast > 0);
    let noted = peak_beyond(baseline);
    eventually("all peers are cut off", || {
        // For those that take long ones, and for those that do not.
        let _ = handle.broadcast(handle.frame(1, &body[..100_000]).unwrap());
        let _ = handle.broadcast_batch(vec![handle.frame(1, &body[..40]).unwrap(); 5_000]);
        handle.stats().get(Counter::Peers) == 0
    });
    done.store(true, Ordering::Relaxed);
    let published = publisher.join().unwrap();
    let delivered = handle.stats().get(Counter::Deliveries);
    assert!(published > SUBSCRIBERS * TOPICS && delivered > 1_000, "{published} were published, {delivered} delivered");
    let cut_off = peak_beyond(baseline);
    eprintln!("bound {bound}: arrived {arrived}, sent {sent}, noted {noted}, cut off {cut_off}");
    eprintln!("{long} long, {short} short, {keyed} with terms, {asked} asked, {acked} acked, {published} published, {delivered} delivered");
    for (what, peak) in [("arrived", arrived), ("sent", sent), ("noted", noted), ("cut off", cut_off)] {
        assert!(peak <= bound, "{what}: {peak} bytes were live, and {bound} may be");
    }
    // Who gets how much of the budget differs from run to run, and with it how much memory its bytes take: 37 to 45 % of the bound.
    assert!(sent.max(noted).max(cut_off) > bound / 3, "the load does not press: {sent} of {bound} bytes");

    drop(raws);
    eventually_idle(&handle);
    let kept = handle.stats().get(Counter::BufferBytes) as usize;
    assert!(kept <= CORES * config().limits.buffer_pool, "{kept} bytes of buffers are kept");
    drop(handle);
    engine.shutdown();
    let left = heap::live().saturating_sub(baseline);
    assert!(left <= SLACK + PEERS * size_of::<PeerId>(), "{left} bytes were not given back");
}
