//! What a panic in a handler costs.
//!
//! Set-up: an engine of one core with peers written by hand, whose handler panics in the call that it is told to: in each of its methods,
//! one after the other. Claim: the peer that the call was about is closed, the node that it asked about is refused, and nobody else
//! notices more than a new handler, which is told of the panic before anything else; what must not go on ends the core, and is reported.
//!
//! Nothing is said by the panic hook: most of these panics do not go through it (`resume_unwind`).

mod common;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::raw::{ACK, BULK, Hello, NORMAL, REQUEST, RESPONSE, Raw, RawListener, SUBSCRIBE, UNSUBSCRIBE};
use common::raw::{control, data, first, frame, go_away};
use common::{LIVENESS, NEVER, eventually, eventually_counts, eventually_idle, eventually_stats, loopback};
use corecast::{
    AfterPanic, Backlog, BreakerState, Callback, CloseReason, Config, Context, Counter, Dial, DialError, DialId, Endpoint, Engine, Frame,
    Handler, HandlerPanic, Message, NodeId, Notice, PeerId, PeerInfo, Rate, RateLimit, RateLimited, Rates, Receipt, RequestError,
    Responder, Restarts, SendError, Target, Topic, WhenOver,
};

/// A code of WIRE.md.
const NOT_ALLOWED: u16 = 10;
const TEXT: &str = "this panic is part of the test";
/// Over `outbox_soft`, and with what the kernel takes not over `outbox_hard`.
/// A message of this type takes all that a peer may send at once.
const DEAR: u16 = 77;
const SOFT: usize = 1 << 20;
const LOAD: usize = 12 << 20;

/// What a handler was told, or had happen to it.
#[derive(Debug, PartialEq)]
enum Told {
    Made(usize),
    Started,
    Panicked(HandlerPanic),
    Connected(PeerId, NodeId),
    Message(PeerId, Vec<u8>),
    Closed(PeerId, CloseReason),
    /// Any other call.
    Called(Callback),
}

/// What all handlers of an engine share.
#[derive(Clone)]
struct Rig {
    /// The next call of this kind panics.
    trap: Arc<Mutex<Option<Callback>>>,
    /// What `on_panic` says; `None`: it panics itself.
    verdict: Arc<Mutex<Option<AfterPanic>>>,
    made: Arc<AtomicUsize>,
    /// Handlers from this one on panic when they are made, or when they start.
    fails_to: Fails,
    drops: Arc<AtomicUsize>,
    report: Sender<Told>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    Nothing,
    Make,
    Start,
    /// It panics when it is dropped, each of them.
    Drop,
}

/// Echoes, and reports.
struct Fragile {
    rig: Rig,
    number: usize,
}

type Act = Box<dyn FnOnce(&mut Context<'_>) + Send>;

impl Rig {
    fn make(&self) -> Fragile {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        if self.fails_to == Fails::Make && number > 0 {
            resume_unwind(Box::new(TEXT));
        }
        let _ = self.report.send(Told::Made(number));
        Fragile { rig: self.clone(), number }
    }

    fn meet(&self, callback: Callback, told: Told) {
        // A test that has ended listens to nobody.
        let _ = self.report.send(told);
        let mut trap = self.trap.lock().unwrap();
        if *trap == Some(callback) {
            *trap = None;
            drop(trap);
            resume_unwind(Box::new(TEXT));
        }
    }

    fn call(&self, callback: Callback) {
        self.meet(callback, Told::Called(callback));
    }
}

impl Handler for Fragile {
    type Command = Act;

    fn on_start(&mut self, _: &mut Context<'_>) {
        if self.rig.fails_to == Fails::Start && self.number > 0 {
            resume_unwind(Box::new(TEXT));
        }
        self.rig.meet(Callback::Start, Told::Started);
    }

    fn on_panic(&mut self, _: &mut Context<'_>, panic: &HandlerPanic) -> AfterPanic {
        let _ = self.rig.report.send(Told::Panicked(panic.clone()));
        self.rig.verdict.lock().unwrap().unwrap_or_else(|| resume_unwind(Box::new(TEXT)))
    }

    fn authorize(&mut self, _: &PeerInfo) -> bool {
        self.rig.call(Callback::Authorize);
        true
    }

    fn on_connected(&mut self, _: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        self.rig.meet(Callback::Connected, Told::Connected(peer, info.node));
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        self.rig.meet(Callback::Message, Told::Message(peer, message.body.to_vec()));
        let _ = cx.send(peer, message.meta, message.body);
    }

    fn on_request(&mut self, cx: &mut Context<'_>, _: PeerId, request: Message<'_>, responder: Responder) {
        self.rig.call(Callback::Request);
        let _ = cx.respond(responder, request.meta, request.body);
    }

    fn on_response(&mut self, _: &mut Context<'_>, _: PeerId, _: u64, _: Result<Message<'_>, RequestError>) {
        self.rig.call(Callback::Response);
    }

    fn on_drained(&mut self, _: &mut Context<'_>, _: PeerId) {
        self.rig.call(Callback::Drained);
    }

    fn on_slow(&mut self, _: &mut Context<'_>, _: PeerId, _: Backlog) {
        self.rig.call(Callback::Slow);
    }

    fn on_subscribed(&mut self, _: &mut Context<'_>, _: PeerId, _: Topic) {
        self.rig.call(Callback::Subscribed);
    }

    fn on_unsubscribed(&mut self, _: &mut Context<'_>, _: PeerId, _: Topic) {
        self.rig.call(Callback::Unsubscribed);
    }

    fn on_send_failed(&mut self, _: &mut Context<'_>, _: PeerId, _: u64, _: SendError) {
        self.rig.call(Callback::SendFailed);
    }

    fn on_dial_failed(&mut self, _: &mut Context<'_>, _: DialId, _: DialError, _: Option<Duration>) {
        self.rig.call(Callback::DialFailed);
    }

    fn on_rate_limited(&mut self, _: &mut Context<'_>, _: PeerId, _: RateLimited) {
        self.rig.call(Callback::RateLimited);
    }

    fn on_pooled(&mut self, _: &mut Context<'_>, _: u64, _: Result<PeerId, DialError>) {
        self.rig.call(Callback::Pooled);
    }

    fn on_breaker(&mut self, _: &mut Context<'_>, _: Endpoint, _: BreakerState) {
        self.rig.call(Callback::Breaker);
    }

    fn on_going_away(&mut self, _: &mut Context<'_>, _: PeerId, _: Notice) {
        self.rig.call(Callback::GoingAway);
    }

    fn on_closed(&mut self, _: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        self.rig.meet(Callback::Closed, Told::Closed(peer, reason));
    }

    fn on_command(&mut self, cx: &mut Context<'_>, act: Act) {
        act(cx);
        self.rig.call(Callback::Command);
    }

    fn on_acked(&mut self, _: &mut Context<'_>, _: &Receipt) {
        self.rig.call(Callback::Acked);
    }

    fn on_receipt(&mut self, _: &mut Context<'_>, _: Receipt) {
        self.rig.call(Callback::Receipt);
    }

    fn on_timer(&mut self, _: &mut Context<'_>, _: u64) {
        self.rig.call(Callback::Timer);
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.rig.drops.fetch_add(1, Ordering::SeqCst);
        if self.rig.fails_to == Fails::Drop {
            resume_unwind(Box::new(TEXT));
        }
    }
}

struct Node {
    engine: Engine<Act>,
    rig: Rig,
    told: Receiver<Told>,
}

fn config() -> Config {
    let mut config = loopback();
    config.restarts = Restarts::default();
    config.breaker.failures = 1;
    config.limits.outbox_soft = SOFT;
    config.limits.soft_grace = NEVER;
    config.timeouts.write_stall = NEVER;
    config.timeouts.drain = Duration::from_millis(200);
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    let mut rates = Rates::default();
    rates.receive = Some(RateLimit { messages: Some(Rate { per_second: 1000, burst: 1000 }), bytes: None });
    (rates.when_over, rates.report) = (WhenOver::Drop, Some(Duration::from_millis(1)));
    rates.costs.insert(DEAR, 1000);
    config.rates = Some(rates);
    // What is too much is not in the kernel.
    config.io.send_buffer = Some(64 << 10);
    config
}

impl Node {
    fn start(config: Config) -> Self {
        Self::failing(config, Fails::Nothing, None)
    }

    fn failing(config: Config, fails_to: Fails, trap: Option<Callback>) -> Self {
        let (report, told) = channel();
        let rig = Rig {
            trap: Arc::new(Mutex::new(trap)),
            verdict: Arc::new(Mutex::new(Some(AfterPanic::Continue))),
            made: Arc::default(),
            fails_to,
            drops: Arc::default(),
            report,
        };
        let factory = rig.clone();
        Self { engine: Engine::start(config, move |_| factory.make()).unwrap(), rig, told }
    }

    fn panic_in(&self, callback: Callback) {
        *self.rig.trap.lock().unwrap() = Some(callback);
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(LIVENESS).unwrap_or_else(|error| panic!("{error}: {:?}", self.engine.handle().stats()))
    }

    /// What is told up to and with the first that `pick` wants.
    fn until<T>(&self, mut pick: impl FnMut(&Told) -> Option<T>) -> T {
        let deadline = Instant::now() + LIVENESS;
        loop {
            let told = self.next();
            if let Some(picked) = pick(&told) {
                return picked;
            }
            assert!(Instant::now() < deadline, "the last was {told:?}");
        }
    }

    fn peer(&self, hello: Hello) -> (Raw, PeerId) {
        let raw = Raw::establish(self.engine.local_addrs()[0], hello);
        (raw, self.connected(hello))
    }

    fn connected(&self, hello: Hello) -> PeerId {
        self.until(|told| match told {
            Told::Connected(peer, node) if node.0 == hello.node => Some(*peer),
            _ => None,
        })
    }

    fn post(&self, act: impl FnOnce(&mut Context<'_>) + Send + 'static) {
        self.engine.handle().post(0, Box::new(act)).unwrap_or_else(|refused| panic!("{}", refused.reason));
    }

    /// The panic that comes next, after the handler that is told of it was made and started; and nothing between.
    fn panicked(&self, callback: Callback) -> HandlerPanic {
        self.until(|told| matches!(told, Told::Made(number) if *number > 0).then_some(()));
        assert_eq!(self.next(), Told::Started);
        let Told::Panicked(panic) = self.next() else { panic!("the panic is told before anything else") };
        assert_eq!((panic.callback, panic.text.as_deref()), (callback, Some(TEXT)));
        panic
    }

    fn counts(&self, counter: Counter, value: u64) {
        eventually_counts(&self.engine.handle(), counter, value);
    }
}

/// What a panic costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// The peer that the call was about.
    Peer,
    /// The connection that was asked about.
    Connection,
    /// It had ended already.
    Gone,
    Nobody,
}

/// Has the engine call a method, by what this peer does or has done to it.
type Provoke = fn(&Node, &mut Raw, PeerId);

fn load(node: &Node, peer: PeerId, bytes: usize) {
    node.post(move |cx| (0..bytes >> 18).for_each(|_| assert!(cx.send(peer, 1, &[0; 1 << 18]).is_ok())));
}

fn say(raw: &mut Raw, bytes: &[u8]) {
    raw.send(bytes);
}

fn send_acked(node: &Node, raw: &mut Raw, peer: PeerId) {
    node.post(move |cx| assert!(cx.send_acked(Target::Peer(peer), 1, b"?", NEVER, 1).is_ok()));
    let (id, _) = raw.acked();
    raw.send(&control(ACK, id));
}

const CALLS: &[(Callback, Cost, Provoke)] = &[
    (Callback::Authorize, Cost::Connection, |_, _, _| {}),
    (Callback::Connected, Cost::Peer, |_, _, _| {}),
    (Callback::Message, Cost::Peer, |_, raw, _| say(raw, &data(9, b"x"))),
    (Callback::Request, Cost::Peer, |_, raw, _| say(raw, &frame(REQUEST, NORMAL, 9, &[1; 20]))),
    (Callback::Response, Cost::Peer, |node, raw, peer| {
        node.post(move |cx| assert!(cx.request(peer, 9, b"?", NEVER, 1).is_ok()));
        let request = raw.message_frame().unwrap();
        raw.send(&frame(RESPONSE, NORMAL, 9, &request.payload[..8]));
    }),
    (Callback::Drained, Cost::Peer, |node, raw, peer| {
        load(node, peer, LOAD);
        (0..LOAD >> 18).for_each(|_| raw.expect_data(1, &[0; 1 << 18]));
    }),
    (Callback::Slow, Cost::Peer, |node, _, peer| load(node, peer, LOAD)),
    (Callback::Subscribed, Cost::Peer, |_, raw, _| say(raw, &control(SUBSCRIBE, 7))),
    (Callback::Unsubscribed, Cost::Peer, |_, raw, _| say(raw, &[control(SUBSCRIBE, 7), control(UNSUBSCRIBE, 7)].concat())),
    (Callback::SendFailed, Cost::Peer, |node, _, peer| {
        load(node, peer, LOAD);
        let frame = Frame::new(1, &[0; 1 << 20]).unwrap();
        (0..8)
            .for_each(|_| node.engine.handle().send_notify(peer, frame.clone(), 5).unwrap_or_else(|refused| panic!("{}", refused.reason)));
    }),
    (Callback::DialFailed, Cost::Nobody, |node, _, _| {
        let (_deaf, address) = RawListener::deaf();
        node.engine.handle().dial(Dial::to(address).once()).unwrap();
    }),
    (Callback::RateLimited, Cost::Peer, |_, raw, _| say(raw, &data(DEAR, b"").repeat(2))),
    (Callback::Pooled, Cost::Nobody, |node, _, _| {
        let (_deaf, address) = RawListener::deaf();
        node.post(move |cx| assert_eq!(cx.connect(address, 5), Ok(())));
    }),
    (Callback::Breaker, Cost::Nobody, |node, _, _| {
        let (_deaf, address) = RawListener::deaf();
        node.engine.handle().dial(Dial::to(address).once()).unwrap();
    }),
    (Callback::GoingAway, Cost::Peer, |_, raw, _| say(raw, &go_away(1000, 1000, 0))),
    (Callback::Closed, Cost::Gone, |_, raw, _| raw.shut()),
    (Callback::Command, Cost::Nobody, |node, _, _| node.post(|_| {})),
    (Callback::Acked, Cost::Nobody, send_acked),
    (Callback::Receipt, Cost::Nobody, send_acked),
    (Callback::Timer, Cost::Nobody, |node, _, _| node.post(|cx| assert!(cx.set_timer(Duration::ZERO, 1).is_some()))),
];

#[test]
fn a_panic_in_any_call_costs_at_most_the_peer_that_it_was_about() {
    let mut config = config();
    config.restarts.most = 2 * CALLS.len();
    let node = Node::start(config);
    let (mut kept, kept_id) = node.peer(Hello::node(1000));
    let mut lost = 0;
    for (index, &(callback, cost, provoke)) in CALLS.iter().enumerate() {
        let hello = Hello::node(index as u32);
        let address = node.engine.local_addrs()[0];
        let (raw, peer) = if matches!(callback, Callback::Authorize | Callback::Connected) {
            node.panic_in(callback);
            let mut raw = Raw::connect(address);
            raw.send(&hello.greeting());
            if callback == Callback::Connected {
                raw.read_greeting();
                raw.send(&frame(common::raw::READY, 0, 0, b""));
            }
            (raw, None)
        } else {
            let (mut raw, peer) = node.peer(hello);
            node.panic_in(callback);
            provoke(&node, &mut raw, peer);
            (raw, Some(peer))
        };
        let panic = node.panicked(callback);
        assert_eq!(panic.count, index as u64 + 1, "{callback}");
        let named = (panic.node == Some(NodeId(hello.node)), panic.peer.is_some());
        let about_type = matches!(callback, Callback::Message | Callback::Request | Callback::Response);
        assert_eq!(panic.message_type, about_type.then_some(9), "{callback}");
        let mut raw = raw;
        match cost {
            Cost::Peer => {
                assert_eq!(named, (true, true), "{callback}");
                assert!(peer.is_none_or(|peer| panic.peer == Some(peer)));
                let peer = panic.peer.unwrap();
                let reason = node.until(|told| if let Told::Closed(id, reason) = told { (*id == peer).then_some(*reason) } else { None });
                assert_eq!(reason, CloseReason::HandlerPanicked, "{callback}");
                lost += 1;
                // It gets what it was owed, as long as it takes it.
                if !matches!(callback, Callback::Slow | Callback::SendFailed) {
                    raw.expect_goodbye(0, 0);
                }
            }
            Cost::Connection => {
                assert_eq!(named, (true, false));
                // Refused as somebody who is not wanted.
                assert_eq!(raw.read(16), common::raw::refusal(NOT_ALLOWED));
                raw.expect_eof();
                node.counts(Counter::HandshakeNotAllowed, 1);
            }
            Cost::Gone => assert_eq!(panic.peer, peer),
            Cost::Nobody => {
                assert_eq!((panic.peer, panic.node), (None, None), "{callback}");
                // Its peer may go on; it has nothing to do with it.
                raw.send(&data(3, b"still there"));
                node.until(|told| (*told == Told::Message(peer.unwrap(), b"still there".to_vec())).then_some(()));
            }
        }
        drop(raw);
        node.counts(Counter::ClosedHandlerPanicked, lost);
        // Who was there before is there, on the same core, and so is who comes now.
        kept.echo(1, b"undisturbed");
        let (mut new, new_id) = node.peer(Hello::node(500 + index as u32));
        assert_eq!((new_id.core(), kept_id.core()), (0, 0));
        new.echo(2, b"new");
        drop(new);
        eventually_counts(&node.engine.handle(), Counter::Peers, 1);
        assert_eq!(node.rig.made.load(Ordering::SeqCst), index + 2, "one handler for each panic, and the first");
    }
    drop(kept);
    eventually_idle(&node.engine.handle());
    let all = CALLS.len();
    node.counts(Counter::HandlerPanics, all as u64);
    let report = node.engine.shutdown();
    assert_eq!((report.panicked, report.handler_panics, report.cut), (vec![], all as u64, 0));
    assert_eq!(node.rig.drops.load(Ordering::SeqCst), all + 1);
}

#[test]
fn the_table_has_every_call() {
    // By their names: each method that the engine calls, but `on_start` and `on_panic`, which have tests of their own.
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/handler.rs")).unwrap();
    let interface = source.split_once("pub trait Handler").unwrap().1.split_once("\n}\n").unwrap().0;
    let methods = interface.lines().filter_map(|line| line.trim().strip_prefix("fn ")?.split_once('(').map(|(name, _)| name));
    let mut methods: Vec<_> = methods.filter(|name| !["on_start", "on_panic"].contains(name)).collect();
    let mut table: Vec<_> = CALLS.iter().map(|(callback, ..)| callback.name()).collect();
    methods.sort_unstable();
    table.sort_unstable();
    assert_eq!(table, methods);
}

#[test]
fn a_first_handler_that_panics_when_it_starts_is_made_again() {
    let node = Node::failing(config(), Fails::Nothing, Some(Callback::Start));
    let panic = node.panicked(Callback::Start);
    assert_eq!((panic.peer, panic.node, panic.count), (None, None, 1));
    let (mut raw, _) = node.peer(Hello::node(1));
    raw.echo(1, b"x");
    drop(raw);
    eventually_idle(&node.engine.handle());
    assert!(node.engine.shutdown().drained);
}

#[test]
fn a_message_in_pieces_and_what_came_after_it_is_given_back() {
    let node = Node::start(config());
    let (mut raw, peer) = node.peer(Hello::node(1));
    // One that has ended, one that is unfinished in another lane, one that is not handled any more, and half a frame.
    let body = vec![7; 40_000];
    let mut said = first(NORMAL, 9, 40_000, &body[..20_000]);
    said.extend(first(BULK, 9, 300_000, &body[..20_000]));
    said.extend(frame(common::raw::FRAGMENT, NORMAL, 9, &body[20_000..]));
    said.extend(data(9, b"after it"));
    said.extend(&data(9, b"half a frame")[..12]);
    node.panic_in(Callback::Message);
    raw.send(&said);
    assert_eq!(node.panicked(Callback::Message).peer, Some(peer));
    assert_eq!(node.next(), Told::Closed(peer, CloseReason::HandlerPanicked));
    raw.expect_goodbye(0, 0);
    drop(raw);
    eventually_idle(&node.engine.handle());
    node.counts(Counter::MessagesReceived, 1);
    assert!(node.told.try_iter().next().is_none(), "nothing of that peer is told any more");
    // Nothing but what the pool keeps for the next.
    let (mut raw, _) = node.peer(Hello::node(2));
    raw.echo(1, &body[..1000]);
    drop(raw);
    eventually_idle(&node.engine.handle());
    assert!(node.engine.shutdown().drained);
}

/// The core ends, is reported, and takes nobody else's with it.
fn ends(node: Node, panics: u64) {
    let handle = node.engine.handle();
    eventually("the core ends", || handle.frame(1, b"x").is_ok_and(|frame| handle.broadcast(frame).is_err()));
    eventually_stats(&handle, "counted", |stats| stats.get(Counter::HandlerPanics) == panics);
    let report = node.engine.shutdown();
    assert_eq!((report.panicked, report.handler_panics, report.drained), (vec![0], panics, false));
}

#[test]
fn what_does_not_start_again_ends_the_core() {
    for fails_to in [Fails::Make, Fails::Start] {
        let node = Node::failing(config(), fails_to, None);
        let (mut raw, _) = node.peer(Hello::node(1));
        node.panic_in(Callback::Message);
        raw.send(&data(1, b"x"));
        raw.read_to_end();
        ends(node, 1);
    }
}

#[test]
fn the_next_handler_may_end_the_core_or_panic_over_the_panic() {
    for verdict in [Some(AfterPanic::EndCore), None] {
        let node = Node::start(config());
        *node.rig.verdict.lock().unwrap() = verdict;
        node.panic_in(Callback::Command);
        node.post(|_| {});
        node.panicked(Callback::Command);
        ends(node, 1);
    }
}

#[test]
fn one_panic_too_many_ends_the_core() {
    let mut config = config();
    config.restarts.most = 3;
    config.restarts.within = NEVER;
    let node = Node::start(config);
    for count in 1..4 {
        node.panic_in(Callback::Command);
        node.post(|_| {});
        assert_eq!(node.panicked(Callback::Command).count, count);
    }
    node.panic_in(Callback::Command);
    node.post(|_| {});
    ends(node, 4);
}

/// Panics when it is dropped.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        resume_unwind(Box::new(TEXT));
    }
}

#[test]
fn whatever_panics_when_it_is_dropped_takes_nothing_with_it() {
    let node = Node::failing(config(), Fails::Drop, None);
    // Of a peer that ends; of one that is there to the end and does not let go; and of the handlers.
    let (raw, peer) = node.peer(Hello::node(1));
    node.post(move |cx| assert!(cx.set_user(peer, Brittle)));
    drop(raw);
    node.counts(Counter::HandlerPanics, 1);
    let (mut raw, peer) = node.peer(Hello::node(2));
    node.post(move |cx| assert!(cx.set_user(peer, Brittle)));
    node.panic_in(Callback::Command);
    node.post(|_| {});
    assert_eq!(node.panicked(Callback::Command).count, 3, "and the handler that went for it");
    raw.echo(1, b"x");
    let report = node.engine.shutdown();
    assert_eq!((report.panicked, report.handler_panics), (vec![], 5));
}

#[test]
fn a_handler_that_panics_when_its_core_ends_by_a_panic_does_not_end_the_process() {
    let mut config = config();
    config.restarts.most = 0;
    let node = Node::failing(config, Fails::Drop, Some(Callback::Command));
    let (release, released) = channel();
    node.post(move |_| released.recv_timeout(LIVENESS).unwrap());
    // Nor does a command that it has not taken by then.
    let brittle = Brittle;
    node.post(move |_| drop(brittle));
    release.send(()).unwrap();
    ends(node, 2);
}

#[test]
fn the_report_says_what_the_panic_said() {
    let node = Node::start(config());
    let panics: [fn(&mut Context<'_>); 3] = [
        |_| panic!("this panic is part of the test"),
        |cx| panic!("this panic of core {} is part of the test", cx.core()),
        |_| std::panic::panic_any(7),
    ];
    let mut said = Vec::new();
    for panic in panics {
        node.post(panic);
        said.push(node.until(|told| if let Told::Panicked(panic) = told { Some(panic.text.clone()) } else { None }));
    }
    assert_eq!(said, [Some(TEXT.to_owned()), Some("this panic of core 0 is part of the test".to_owned()), None]);
    assert!(node.engine.shutdown().panicked.is_empty());
}
