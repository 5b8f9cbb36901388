//! Two engines in this process, connected over loopback: echo and fan-out, kernel and both ends included.
//!
//! One core each, and whatever else the machine does: rates here say what to expect, not whether a change was good. The load generator in
//! `tools/loadgen` measures the same from outside, with latencies.

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use corecast::{Config, Context, Counter, Dial, Engine, Frame, Handle, Handler, Message, PeerId};
use harness::{Bench, human};

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns every message.
struct Echo;

impl Handler for Echo {
    type Command = ();

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        cx.send(peer, message.meta, message.body).expect("the outbox has room for what was under way");
    }
}

/// So many messages, `window` under way at a time.
struct Order {
    messages: u64,
    window: u64,
    body: Vec<u8>,
    done: SyncSender<Duration>,
}

/// Sends on order to its one peer, and counts what comes.
struct Client {
    received: Arc<AtomicU64>,
    order: Option<(Order, Instant)>,
    to_send: u64,
    to_come: u64,
}

impl Client {
    fn new(received: &Arc<AtomicU64>) -> Self {
        Self { received: Arc::clone(received), order: None, to_send: 0, to_come: 0 }
    }

    fn send(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        if let Some((order, _)) = &self.order
            && self.to_send > 0
        {
            self.to_send -= 1;
            cx.send(peer, 1, &order.body).expect("the outbox has room for a window");
        }
    }
}

impl Handler for Client {
    type Command = Order;

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, _: Message<'_>) {
        if self.order.is_none() {
            self.received.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.send(cx, peer);
        self.to_come -= 1;
        if self.to_come == 0
            && let Some((order, began)) = self.order.take()
        {
            order.done.send(began.elapsed()).expect("somebody waits for the end");
        }
    }

    fn on_command(&mut self, cx: &mut Context<'_>, order: Order) {
        (self.to_send, self.to_come) = (order.messages, order.messages);
        let (window, peer) = (order.window, cx.peers().next().expect("connected before the order"));
        self.order = Some((order, Instant::now()));
        (0..window).for_each(|_| self.send(cx, peer));
    }
}

/// A server, a client with so many connections to it, and the messages that came to the client outside of an order.
struct Pair {
    server: Engine<()>,
    client: Engine<Order>,
    received: Arc<AtomicU64>,
}

impl Pair {
    fn new(peers: u64) -> Self {
        let mut config = Config::plaintext().listen("127.0.0.1:0".parse().expect("an address"));
        config.addresses.exempt = vec!["127.0.0.0/8".parse().expect("a subnet")];
        config.limits.channels = peers as usize;
        let mut dialling = Config::plaintext();
        dialling.limits.channels = peers as usize;
        let server = Engine::start(config, |_| Echo).expect("a server");
        let received = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&received);
        let client = Engine::start(dialling, move |_| Client::new(&counted)).expect("a client");
        for channel in 0..peers as u16 {
            client.handle().dial(Dial::to(server.local_addrs()[0]).channel(channel)).expect("a dial is taken");
        }
        wait(|| server.handle().stats().get(Counter::Peers) == peers && client.handle().stats().get(Counter::Peers) == peers);
        Self { server, client, received }
    }

    fn echo(&self, messages: u64, window: u64, size: usize) -> Duration {
        let (done, ended): (_, Receiver<Duration>) = sync_channel(1);
        let order = Order { messages, window, body: vec![7; size], done };
        assert!(self.client.handle().post(0, order).is_ok());
        ended.recv_timeout(PATIENCE).expect("everything comes back")
    }

    /// Broadcasts from this thread, at most `window` of them under way.
    fn fanout(&self, messages: u64, window: u64, size: usize, peers: u64) -> Duration {
        let handle = self.server.handle();
        let body = vec![7; size];
        let before = self.received.load(Ordering::Relaxed);
        let came = || self.received.load(Ordering::Relaxed) - before;
        let began = Instant::now();
        for sent in 0..messages {
            while sent >= window && came() < (sent - window) * peers {
                std::thread::yield_now();
            }
            broadcast(&handle, handle.frame(1, &body).expect("it is short"));
        }
        wait(|| came() == messages * peers);
        began.elapsed()
    }
}

fn broadcast(handle: &Handle<()>, frame: Frame) {
    assert!(handle.broadcast(frame).is_ok(), "the inbox has room for a window");
}

fn wait(done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "nothing happens");
        std::thread::yield_now();
    }
}

/// Prints the median of some samples of `run`, which moves `messages` and says how long that took.
fn report(bench: &Bench, name: &str, messages: u64, mut run: impl FnMut() -> Duration) {
    run();
    let samples = if bench.is_quick() { 3 } else { 15 };
    let mut nanos: Vec<f64> = (0..samples).map(|_| run().as_nanos() as f64 / messages as f64).collect();
    nanos.sort_by(f64::total_cmp);
    let (median, fastest) = (nanos[nanos.len() / 2], nanos[0]);
    println!("  {name:<48} {:>10} each, {:>12.0} a second (fastest {})", human(median), 1e9 / median, human(fastest));
}

fn main() {
    let bench = Bench::new("loopback: two engines, one core each");
    let scale = if bench.is_quick() { 1 } else { 10 };
    for (name, messages, window, size) in [
        ("echo 64 B, 1 under way", 2_000, 1, 64),
        ("echo 64 B, 64 under way", 20_000, 64, 64),
        ("echo 1,000 B, 64 under way", 10_000, 64, 1000),
        ("echo 64 KiB, 8 under way", 500, 8, 64 << 10),
    ] {
        if bench.wants(name) {
            let pair = Pair::new(1);
            report(&bench, name, messages * scale, || pair.echo(messages * scale, window, size));
        }
    }
    for (name, peers, messages, window, size) in [
        ("fanout 128 B to 50-peers, 64 under way", 50, 1_000, 64, 128),
        ("fanout 128 B to 500-peers, 64 under way", 500, 200, 64, 128),
        ("fanout 16,000 B to 50-peers, 4 under way", 50, 100, 4, 16_000),
    ] {
        if bench.wants(name) {
            let pair = Pair::new(peers);
            let messages = messages * scale;
            report(&bench, name, messages * peers, || pair.fanout(messages, window, size, peers));
        }
    }
}
