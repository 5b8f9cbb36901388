//! What an idle established peer has on the heap: its state, and no buffer.
//!
//! Set-up: a plaintext engine on one core, an allocator that knows how much is live, and peers written by hand that shake hands, one after
//! the other, and say no more. Looked at twice, at numbers of peers that are powers of two, where lists that grow by doubling are full.
//! Claim: each peer between the two has cost no more than `BOUND`, also those that had more to say before: what a peer needs only while
//! something is under way it has only then.
//!
//! The core keeps no memory for later use. What the process needs besides (pages of code, the allocator's own, what handshakes leave
//! behind) is not in it: `corecast-loadgen idle` measures that.

mod common;
#[path = "common/heap.rs"]
mod heap;

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use common::raw::{Hello, PING, Raw, data};
use common::{LIVENESS, NEVER, eventually_stats, loopback};
use corecast::{Config, Context, Cores, Counter, Engine, Handle, Handler, Message, PeerId};

/// Bytes: 406 for slot, cold part, deadline, generation, socket and grant, and some for queues of the core that a burst has made larger.
const BOUND: usize = 424;
const FEWER: u32 = 1024;
const MORE: u32 = 2 * FEWER;

/// Says from its core, between two turns of its peers, how much is live. The channel has its room already.
struct Quiet;

impl Handler for Quiet {
    type Command = SyncSender<usize>;

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let _ = cx.send(peer, message.message_type(), message.body);
    }

    fn on_command(&mut self, _: &mut Context<'_>, answer: SyncSender<usize>) {
        answer.try_send(heap::live()).unwrap();
    }
}

fn config() -> Config {
    let mut config = loopback().cores(Cores::Unpinned(1));
    config.limits.max_peers = MORE as usize;
    // How much of it there is depends on how many were busy at once.
    config.limits.buffer_pool = 0;
    config.keepalive.timeout = 2 * NEVER;
    config
}

/// Has so many peers connected, and `talk` with the new ones; returns what is live then.
fn live_with(
    peers: u32,
    raws: &mut Vec<Raw>,
    engine: &Engine<SyncSender<usize>>,
    talk: impl Fn(&Handle<SyncSender<usize>>, &mut [Raw]),
) -> usize {
    let handle = engine.handle();
    let known = raws.len();
    while raws.len() < peers as usize {
        raws.push(Raw::establish(engine.local_addrs()[0], Hello::node(raws.len() as u32)));
    }
    talk(&handle, &mut raws[known..]);
    eventually_stats(&handle, "all are established", |stats| {
        (stats.get(Counter::Peers), stats.get(Counter::HalfOpen)) == (peers.into(), 0)
    });
    let (answer, live) = sync_channel(1);
    handle.post(0, answer).unwrap();
    live.recv_timeout(LIVENESS).unwrap()
}

/// Bytes that each of the later half of the peers has cost.
fn each(config: Config, talk: impl Fn(&Handle<SyncSender<usize>>, &mut [Raw])) -> usize {
    let engine = Engine::start(config, |_| Quiet).unwrap();
    let mut raws = Vec::with_capacity(MORE as usize);
    let before = live_with(FEWER, &mut raws, &engine, &talk);
    let after = live_with(MORE, &mut raws, &engine, &talk);
    drop(raws);
    engine.shutdown();
    (after - before) / (MORE - FEWER) as usize
}

/// Sends a message whose first half arrives by itself, takes what comes back, and waits until the engine has looked at the peer again,
/// because it is silent.
fn say_something(handle: &Handle<SyncSender<usize>>, raws: &mut [Raw]) {
    let message = data(1, &[7; 100]);
    let (first, rest) = message.split_at(message.len() / 2);
    let received = handle.stats().get(Counter::BytesReceived);
    raws.iter_mut().for_each(|raw| raw.send(first));
    let halves = received + (raws.len() * first.len()) as u64;
    eventually_stats(handle, "half of each message is there", |stats| stats.get(Counter::BytesReceived) >= halves);
    for raw in raws.iter_mut() {
        raw.send(rest);
        raw.expect_data(1, &[7; 100]);
    }
    for raw in raws {
        assert_eq!(raw.frame().map(|frame| frame.kind), Some(PING));
    }
}

#[test]
fn an_idle_peer_has_its_state_and_nothing_else() {
    let silent = each(config(), |_, _| ());
    let mut watchful = config();
    watchful.keepalive.interval = Duration::from_millis(500);
    let talked = each(watchful, say_something);
    println!("a peer that never said anything: {silent} bytes; one that has: {talked}");
    assert!(silent <= BOUND && talked <= BOUND, "{silent} and {talked} bytes");
}
