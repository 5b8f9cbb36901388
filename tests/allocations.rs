//! A warm engine allocates nothing for a message.
//!
//! Set-up: real engines on loopback, and an allocator that counts for each thread by itself. A core answers [`Ask`] with the count of its
//! own thread, so what is compared is one core's allocations before and after `MESSAGES` messages. Claim: none for what a handler sends,
//! responds, requests, broadcasts or publishes, none for what is received or delivered, and one, the frame, for what a handle sends.
//! `SLACK` is for what does not grow with the messages: a frame that the receive buffer ends in, a queue that meets its first burst.

mod common;
#[path = "common/heap.rs"]
mod heap;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use common::{LIVENESS, Wire, eventually, loopback};
use corecast::{
    Bincode, Config, Context, Cores, Counter, Dial, Direction, Engine, Handler, Message, PeerId, PeerInfo, RequestError, Responder, Topic,
    Typed,
};
use heap::allocations;

const WARM_UP: u64 = 2_000;
const MESSAGES: u64 = 10_000;
const SLACK: u64 = 50;

/// Has a core report how often its thread has allocated. The channel has its room already, so the answer costs nothing.
struct Ask(SyncSender<u64>);

impl Ask {
    fn answer(&self) {
        self.0.try_send(allocations()).unwrap();
    }
}

#[derive(bincode::Encode, bincode::Decode)]
struct Vote {
    height: u64,
    hash: [u8; 32],
    signatures: Vec<u8>,
}

impl Typed for Vote {
    const TYPE: u16 = 9;
    type Codec = Bincode;
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Send,
    SendTyped,
    Request,
}

enum Order {
    Ask(Ask),
    /// Exchange so many messages of `size` bytes, `window` at a time, and say when the last has come back.
    Run {
        call: Call,
        size: usize,
        window: u64,
        messages: u64,
        done: SyncSender<()>,
    },
}

/// Sends on order, and as often as something comes back.
struct Client {
    connected: SyncSender<()>,
    server: Option<PeerId>,
    call: Call,
    body: Vec<u8>,
    vote: Vote,
    to_send: u64,
    to_come: u64,
    done: Option<SyncSender<()>>,
}

impl Client {
    fn new(connected: SyncSender<()>) -> Self {
        let vote = Vote { height: 1, hash: [7; 32], signatures: vec![9; 500] };
        Self { connected, server: None, call: Call::Send, body: Vec::new(), vote, to_send: 0, to_come: 0, done: None }
    }

    fn send(&mut self, cx: &mut Context<'_>) {
        if self.to_send == 0 {
            return;
        }
        self.to_send -= 1;
        let server = self.server.unwrap();
        match self.call {
            Call::Send => drop(cx.send(server, 7, &self.body).unwrap()),
            Call::SendTyped => drop(cx.send_typed(server, &self.vote).unwrap()),
            Call::Request => drop(cx.request(server, 7, &self.body, LIVENESS, 1).unwrap()),
        }
    }

    fn came(&mut self, cx: &mut Context<'_>) {
        self.send(cx);
        self.to_come -= 1;
        if self.to_come == 0 {
            self.done.take().unwrap().try_send(()).unwrap();
        }
    }
}

impl Handler for Client {
    type Command = Order;

    fn on_connected(&mut self, _: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        self.server = Some(peer);
        self.connected.try_send(()).unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, _: PeerId, _: Message<'_>) {
        self.came(cx);
    }

    fn on_response(&mut self, cx: &mut Context<'_>, _: PeerId, _: u64, result: Result<Message<'_>, RequestError>) {
        assert_eq!(result.unwrap().body.len(), self.body.len());
        self.came(cx);
    }

    fn on_command(&mut self, cx: &mut Context<'_>, order: Order) {
        match order {
            Order::Ask(ask) => ask.answer(),
            Order::Run { call, size, window, messages, done } => {
                (self.call, self.to_send, self.to_come, self.done) = (call, messages, messages, Some(done));
                self.body = vec![1; size];
                (0..window).for_each(|_| self.send(cx));
            }
        }
    }
}

/// Returns what it gets.
struct Server;

impl Handler for Server {
    type Command = Ask;

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        cx.send(peer, message.meta, message.body).unwrap();
    }

    fn on_request(&mut self, cx: &mut Context<'_>, _: PeerId, request: Message<'_>, responder: Responder) {
        cx.respond(responder, request.meta, request.body).unwrap();
    }

    fn on_command(&mut self, _: &mut Context<'_>, ask: Ask) {
        ask.answer();
    }
}

/// The allocations that a core's thread has made so far.
fn asked<C: Send + 'static>(engine: &Engine<C>, core: usize, order: impl FnOnce(Ask) -> C) -> u64 {
    let (tell, told) = sync_channel(1);
    assert!(engine.handle().post(core, order(Ask(tell))).is_ok());
    told.recv_timeout(LIVENESS).unwrap()
}

fn assert_flat(what: &str, before: u64, after: u64) {
    let made = after - before;
    assert!(made <= SLACK, "{what}: {made} allocations in {MESSAGES} messages, more than {SLACK}");
}

/// A server, a client that is connected to it.
fn echo_pair(wire: Wire, recorder: usize) -> (Engine<Ask>, Engine<Order>) {
    let recording = |mut config: Config| {
        config.recorder = recorder;
        config
    };
    let server = Engine::start(recording(wire.listening()), |_| Server).unwrap();
    let (connected, ready) = sync_channel(1);
    let client = Engine::start(recording(wire.dialling()), move |_| Client::new(connected.clone())).unwrap();
    client.handle().dial(wire.dial(&server)).unwrap();
    ready.recv_timeout(LIVENESS).unwrap();
    (server, client)
}

fn exchange(client: &Engine<Order>, call: Call, size: usize, window: u64, messages: u64) {
    let (done, ended) = sync_channel(1);
    assert!(client.handle().post(0, Order::Run { call, size, window, messages, done }).is_ok());
    ended.recv_timeout(2 * LIVENESS).unwrap();
}

fn check_exchange(call: Call, size: usize, window: u64) {
    Wire::BOTH.into_iter().for_each(|wire| check_exchange_over(wire, 0, call, size, window));
}

fn check_exchange_over(wire: Wire, recorder: usize, call: Call, size: usize, window: u64) {
    let (server, client) = echo_pair(wire, recorder);
    exchange(&client, call, size, window, WARM_UP);
    let before = (asked(&server, 0, |ask| ask), asked(&client, 0, Order::Ask));
    exchange(&client, call, size, window, MESSAGES);
    let after = (asked(&server, 0, |ask| ask), asked(&client, 0, Order::Ask));
    assert_flat(&format!("answering {call:?} of {size} B, {wire:?}"), before.0, after.0);
    assert_flat(&format!("{call:?} of {size} B, {wire:?}"), before.1, after.1);
}

#[test]
fn what_is_allocated_is_counted() {
    let before = allocations();
    drop(std::hint::black_box(Box::new(1)));
    drop(std::hint::black_box(vec![0; 100]));
    assert_eq!(allocations() - before, 2);
}

#[test]
fn sending_and_answering_small_messages() {
    check_exchange(Call::Send, 64, 64);
}

#[test]
fn sending_and_answering_large_messages() {
    check_exchange(Call::Send, 12_000, 2);
}

/// A ring is taken whole.
#[test]
fn noting_what_happens() {
    check_exchange_over(Wire::Plaintext, 100, Call::Send, 64, 16);
}

#[test]
fn sending_typed_messages() {
    check_exchange(Call::SendTyped, 0, 32);
}

#[test]
fn requesting_and_responding() {
    check_exchange(Call::Request, 64, 64);
}

/// What every dialling peer subscribes to.
const TOPIC: Topic = Topic(7);

/// Counts what it receives; broadcasts and publishes on command.
struct Relay {
    received: Arc<AtomicU64>,
}

enum Cast {
    Ask(Ask),
    /// Encode one frame and broadcast it so many times.
    Now(u64),
    /// The same, published on [`TOPIC`].
    Publish(u64),
}

impl Handler for Relay {
    type Command = Cast;

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        if info.direction == Direction::Dialled {
            cx.subscribe(peer, TOPIC).unwrap();
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Cast) {
        match command {
            Cast::Ask(ask) => ask.answer(),
            Cast::Now(times) => {
                let frame = cx.frame(7, &[5; 128]).unwrap();
                (0..times).for_each(|_| cx.broadcast(&frame).unwrap());
            }
            Cast::Publish(times) => {
                let frame = cx.frame(7, &[5; 128]).unwrap();
                (0..times).for_each(|_| cx.publish(TOPIC, &frame).unwrap());
            }
        }
    }
}

const PEERS: u64 = 16;
/// Broadcasts under way at a time: few enough for every queue and socket on the way.
const BURST: u64 = 50;

/// One engine that broadcasts to `PEERS` connections, one that they end in.
struct Broadcast {
    sender: Engine<Cast>,
    receiver: Engine<Cast>,
    received: Arc<AtomicU64>,
}

impl Broadcast {
    fn start(wire: Wire, cores: usize) -> Self {
        let received = Arc::new(AtomicU64::new(0));
        let relay = |received: &Arc<AtomicU64>| {
            let received = Arc::clone(received);
            move |_| Relay { received: Arc::clone(&received) }
        };
        let sender = Engine::start(wire.listening().cores(Cores::Unpinned(cores)), relay(&received)).unwrap();
        let receiver = Engine::start(wire.dialling(), relay(&received)).unwrap();
        for channel in 0..PEERS as u16 {
            receiver.handle().dial(wire.dial(&sender).channel(channel)).unwrap();
        }
        eventually("everybody connected", || sender.handle().stats().get(Counter::Peers) == PEERS);
        eventually("everybody subscribed", || sender.handle().stats().get(Counter::Subscriptions) == PEERS);
        Self { sender, receiver, received }
    }

    /// Calls `send` for every burst, and waits until everybody has it.
    fn run(&self, messages: u64, mut send: impl FnMut(u64)) {
        for _ in 0..messages / BURST {
            let expected = self.received.load(Ordering::Relaxed) + BURST * PEERS;
            send(BURST);
            eventually("everybody has the burst", || self.received.load(Ordering::Relaxed) == expected);
        }
    }

    fn cores(&self) -> Vec<u64> {
        let sending = (0..self.sender.handle().cores()).map(|core| asked(&self.sender, core, Cast::Ask));
        sending.chain([asked(&self.receiver, 0, Cast::Ask)]).collect()
    }

    /// Checks that no core allocates for what `send` does; returns what the calling thread allocated.
    fn check(&self, what: &str, mut send: impl FnMut(u64)) -> u64 {
        self.run(WARM_UP, &mut send);
        let (mut here, cores) = (0, self.cores());
        self.run(MESSAGES, |burst| {
            let before = allocations();
            send(burst);
            here += allocations() - before;
        });
        for (core, (before, after)) in cores.into_iter().zip(self.cores()).enumerate() {
            assert_flat(&format!("{what}, core {core} of the sender or, last, the receiver"), before, after);
        }
        here
    }
}

#[test]
fn broadcasting_from_a_handle() {
    for (cores, wire) in [1, 2].into_iter().flat_map(|cores| Wire::BOTH.map(|wire| (cores, wire))) {
        let broadcast = Broadcast::start(wire, cores);
        let handle = broadcast.sender.handle();
        let here = broadcast.check("handle broadcast", |burst| {
            for _ in 0..burst {
                handle.broadcast(handle.frame(7, &[3; 128]).unwrap()).unwrap();
            }
        });
        assert!(here <= MESSAGES + SLACK, "{here} allocations for {MESSAGES} broadcasts from a handle");
    }
}

#[test]
fn publishing_from_a_handle() {
    for (cores, wire) in [1, 2].into_iter().flat_map(|cores| Wire::BOTH.map(|wire| (cores, wire))) {
        let broadcast = Broadcast::start(wire, cores);
        let handle = broadcast.sender.handle();
        let here = broadcast.check("handle publish", |burst| {
            for _ in 0..burst {
                handle.publish(TOPIC, handle.frame(7, &[3; 128]).unwrap()).unwrap();
            }
        });
        assert!(here <= MESSAGES + SLACK, "{here} allocations for {MESSAGES} publishes from a handle");
    }
}

#[test]
fn broadcasting_and_publishing_from_a_handler() {
    let orders: [fn(u64) -> Cast; 2] = [Cast::Now, Cast::Publish];
    for (cores, order) in [1, 2].into_iter().flat_map(|cores| orders.map(|order| (cores, order))) {
        let broadcast = Broadcast::start(Wire::Plaintext, cores);
        let handle = broadcast.sender.handle();
        // One frame for each burst: the handler encodes it once and sends it `burst` times.
        let frames = MESSAGES / BURST;
        broadcast.run(WARM_UP, |burst| assert!(handle.post(0, order(burst)).is_ok()));
        let before = broadcast.cores();
        broadcast.run(MESSAGES, |burst| assert!(handle.post(0, order(burst)).is_ok()));
        for (core, (before, after)) in before.into_iter().zip(broadcast.cores()).enumerate() {
            let encoded = if core == 0 { frames } else { 0 };
            assert_flat(&format!("handler broadcast or publish, core {core}"), before + encoded, after.max(before + encoded));
        }
    }
}

#[test]
fn sending_from_a_handle() {
    let received = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&received);
    let (peers, connected) = sync_channel::<PeerId>(1);
    let receiver = Engine::start(loopback(), move |_| Relay { received: Arc::clone(&counted) }).unwrap();
    let sender = Engine::start(Config::plaintext(), move |_| Sender { peers: peers.clone() }).unwrap();
    sender.handle().dial(Dial::to(receiver.local_addrs()[0])).unwrap();
    let peer = connected.recv_timeout(LIVENESS).unwrap();
    let handle = sender.handle();
    let send = |messages: u64| {
        let mut here = 0;
        for _ in 0..messages / BURST {
            let expected = received.load(Ordering::Relaxed) + BURST;
            let before = allocations();
            for _ in 0..BURST {
                handle.send(peer, handle.frame(7, &[3; 128]).unwrap()).unwrap();
            }
            here += allocations() - before;
            eventually("the burst has arrived", || received.load(Ordering::Relaxed) == expected);
        }
        here
    };
    send(WARM_UP);
    let before = (asked(&sender, 0, |ask| ask), asked(&receiver, 0, Cast::Ask));
    let here = send(MESSAGES);
    assert!(here <= MESSAGES + SLACK, "{here} allocations for {MESSAGES} sends from a handle");
    assert_flat("sending for a handle", before.0, asked(&sender, 0, |ask| ask));
    assert_flat("receiving", before.1, asked(&receiver, 0, Cast::Ask));
}

/// Tells who is connected.
struct Sender {
    peers: SyncSender<PeerId>,
}

impl Handler for Sender {
    type Command = Ask;

    fn on_connected(&mut self, _: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        self.peers.try_send(peer).unwrap();
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {}

    fn on_command(&mut self, _: &mut Context<'_>, ask: Ask) {
        ask.answer();
    }
}
