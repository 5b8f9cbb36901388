//! An engine whose handler reports all that it is told, and does on its core what a test asks for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use corecast::{
    AckId, AfterPanic, Backlog, BreakerState, CloseReason, Config, Context, Counter, DialError, DialId, Endpoint, Engine, Frame, Handle,
    Handler, HandlerPanic, Message, Meta, Notice, PeerId, PeerInfo, RateLimited, Receipt, RequestError, Responder, SendError,
    ShutdownReport, Topic,
};

use super::raw::{Hello, Raw};
use super::{LIVENESS, eventually, eventually_counts, eventually_idle};

/// Something to be done on a core.
pub(crate) type Act = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// What a handler was told.
#[derive(Debug)]
pub(crate) enum Seen {
    Connected {
        peer: PeerId,
        info: PeerInfo,
    },
    Message {
        peer: PeerId,
        meta: Meta,
        body: Vec<u8>,
    },
    Request {
        peer: PeerId,
        meta: Meta,
        body: Vec<u8>,
        responder: Responder,
    },
    Response {
        core: usize,
        peer: PeerId,
        tag: u64,
        result: Result<(Meta, Vec<u8>), RequestError>,
    },
    Drained(PeerId),
    Slow {
        peer: PeerId,
        backlog: Backlog,
    },
    GoingAway {
        peer: PeerId,
        notice: Notice,
    },
    RateLimited {
        peer: PeerId,
        dropped: RateLimited,
    },
    Subscribed {
        peer: PeerId,
        topic: Topic,
    },
    Unsubscribed {
        peer: PeerId,
        topic: Topic,
    },
    SendFailed {
        core: usize,
        peer: PeerId,
        tag: u64,
        reason: SendError,
    },
    DialFailed {
        core: usize,
        dial: DialId,
        error: DialError,
        retry_in: Option<Duration>,
    },
    Closed {
        peer: PeerId,
        reason: CloseReason,
    },
    Timer {
        core: usize,
        tag: u64,
    },
    Pooled {
        core: usize,
        tag: u64,
        result: Result<PeerId, DialError>,
    },
    Breaker {
        core: usize,
        target: Endpoint,
        state: BreakerState,
    },
    /// The application is to acknowledge the message that follows.
    Owed(AckId),
    Acked {
        core: usize,
        tag: u64,
        count: usize,
    },
    Receipt {
        core: usize,
        receipt: Receipt,
    },
}

/// See [`Mode::Serve`]. Not a type that a test would choose for itself.
pub(crate) const PUBLISHED: u16 = 60_000;
/// See [`Mode::Serve`].
pub(crate) const TOPIC: Topic = Topic(7);

/// What is done with messages and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are reported.
    Report,
    /// They are sent back, unreported.
    Echo,
    /// The same, but messages of type [`PUBLISHED`] are published on [`TOPIC`].
    Serve,
}

/// The handler panics over a message of this type, whatever its mode; the next one goes on.
pub(crate) const PANIC: u16 = 60_001;
/// A panic that says this is survived.
pub(crate) const MEANT: &str = "this panic is meant to be survived";

/// The timer for it.
const AGAIN: u64 = u64::MAX;

/// Whether a node is wanted: `Handler::authorize`.
pub(crate) type Judge = Arc<dyn Fn(&PeerInfo) -> bool + Send + Sync>;

pub(crate) struct Probe {
    mode: Mode,
    /// See [`Mode::Serve`].
    unpublished: VecDeque<Frame>,
    judge: Option<Judge>,
    report: Sender<Seen>,
}

impl Probe {
    /// Publishes what is to be published, in order. What is refused because the core is behind is not lost: it is tried again.
    fn publish(&mut self, cx: &mut Context<'_>) {
        while let Some(frame) = self.unpublished.front() {
            if cx.publish(TOPIC, frame).is_err() {
                cx.set_timer(Duration::from_millis(1), AGAIN);
                return;
            }
            self.unpublished.pop_front();
        }
    }

    fn tell(&self, seen: Seen) {
        // A test that has ended listens to nobody.
        let _ = self.report.send(seen);
    }
}

impl Handler for Probe {
    type Command = Act;

    /// A test that fails on a core is not to go on there.
    fn on_panic(&mut self, _: &mut Context<'_>, panic: &HandlerPanic) -> AfterPanic {
        if panic.text.as_deref() == Some(MEANT) { AfterPanic::Continue } else { AfterPanic::EndCore }
    }

    fn authorize(&mut self, info: &PeerInfo) -> bool {
        self.judge.as_ref().is_none_or(|judge| judge(info))
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        assert_eq!(peer.core(), cx.core());
        self.tell(Seen::Connected { peer, info: info.clone() });
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        if message.message_type() == PANIC {
            std::panic::resume_unwind(Box::new(MEANT));
        }
        if let Some(ack) = message.ack_id() {
            assert!(message.requires_ack());
            self.tell(Seen::Owed(ack));
        }
        match self.mode {
            Mode::Report => self.tell(Seen::Message { peer, meta: message.meta, body: message.body.to_vec() }),
            Mode::Serve if message.message_type() == PUBLISHED => {
                self.unpublished.push_back(cx.frame(message.meta, message.body).expect("it came as a message"));
                self.publish(cx);
            }
            Mode::Echo | Mode::Serve => drop(cx.send(peer, message.meta, message.body)),
        }
    }

    fn on_request(&mut self, cx: &mut Context<'_>, peer: PeerId, request: Message<'_>, responder: Responder) {
        assert_eq!(responder.peer(), peer);
        match self.mode {
            Mode::Report => self.tell(Seen::Request { peer, meta: request.meta, body: request.body.to_vec(), responder }),
            Mode::Echo | Mode::Serve => drop(cx.respond(responder, request.meta, request.body)),
        }
    }

    fn on_response(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, result: Result<Message<'_>, RequestError>) {
        let result = result.map(|message| (message.meta, message.body.to_vec()));
        self.tell(Seen::Response { core: cx.core(), peer, tag, result });
    }

    fn on_drained(&mut self, _: &mut Context<'_>, peer: PeerId) {
        self.tell(Seen::Drained(peer));
    }

    fn on_slow(&mut self, _: &mut Context<'_>, peer: PeerId, backlog: Backlog) {
        self.tell(Seen::Slow { peer, backlog });
    }

    fn on_rate_limited(&mut self, _: &mut Context<'_>, peer: PeerId, dropped: RateLimited) {
        self.tell(Seen::RateLimited { peer, dropped });
    }

    fn on_subscribed(&mut self, _: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.tell(Seen::Subscribed { peer, topic });
    }

    fn on_unsubscribed(&mut self, _: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.tell(Seen::Unsubscribed { peer, topic });
    }

    fn on_send_failed(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, reason: SendError) {
        self.tell(Seen::SendFailed { core: cx.core(), peer, tag, reason });
    }

    fn on_dial_failed(&mut self, cx: &mut Context<'_>, dial: DialId, error: DialError, retry_in: Option<Duration>) {
        self.tell(Seen::DialFailed { core: cx.core(), dial, error, retry_in });
    }

    fn on_going_away(&mut self, _: &mut Context<'_>, peer: PeerId, notice: Notice) {
        self.tell(Seen::GoingAway { peer, notice });
    }

    fn on_pooled(&mut self, cx: &mut Context<'_>, tag: u64, result: Result<PeerId, DialError>) {
        self.tell(Seen::Pooled { core: cx.core(), tag, result });
    }

    fn on_breaker(&mut self, cx: &mut Context<'_>, target: Endpoint, state: BreakerState) {
        self.tell(Seen::Breaker { core: cx.core(), target, state });
    }

    fn on_closed(&mut self, _: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        self.tell(Seen::Closed { peer, reason });
    }

    fn on_command(&mut self, cx: &mut Context<'_>, act: Act) {
        act(cx);
    }

    fn on_acked(&mut self, cx: &mut Context<'_>, receipt: &Receipt) {
        self.tell(Seen::Acked { core: cx.core(), tag: receipt.tag(), count: receipt.acked().len() });
    }

    fn on_receipt(&mut self, cx: &mut Context<'_>, receipt: Receipt) {
        self.tell(Seen::Receipt { core: cx.core(), receipt });
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, tag: u64) {
        if tag == AGAIN {
            return self.publish(cx);
        }
        self.tell(Seen::Timer { core: cx.core(), tag });
    }
}

/// A running engine with [`Probe`] handlers.
pub(crate) struct Node {
    pub(crate) engine: Engine<Act>,
    seen: Receiver<Seen>,
    /// What was seen while something else was waited for.
    passed: VecDeque<Seen>,
}

impl Node {
    pub(crate) fn start(config: Config, mode: Mode) -> Self {
        Self::with(config, mode, None)
    }

    fn with(config: Config, mode: Mode, judge: Option<Judge>) -> Self {
        let (report, seen) = channel();
        let engine =
            Engine::start(config, move |_| Probe { mode, unpublished: VecDeque::new(), judge: judge.clone(), report: report.clone() })
                .unwrap();
        Self { engine, seen, passed: VecDeque::new() }
    }

    /// Reports every message, and lets in whom the judge wants.
    pub(crate) fn judging(config: Config, judge: impl Fn(&PeerInfo) -> bool + Send + Sync + 'static) -> Self {
        Self::with(config, Mode::Report, Some(Arc::new(judge)))
    }

    /// Reports every message.
    pub(crate) fn report(config: Config) -> Self {
        Self::start(config, Mode::Report)
    }

    /// Returns every message.
    pub(crate) fn echo(config: Config) -> Self {
        Self::start(config, Mode::Echo)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.engine.local_addrs()[0]
    }

    pub(crate) fn handle(&self) -> Handle<Act> {
        self.engine.handle()
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.handle().stats().get(counter)
    }

    pub(crate) fn counts(&self, counter: Counter, value: u64) {
        eventually_counts(&self.handle(), counter, value);
    }

    /// The first thing seen, of those that nobody has waited for yet, that `pick` wants.
    pub(crate) fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Seen) -> Option<T>) -> T {
        for index in 0..self.passed.len() {
            if let Some(picked) = pick(&self.passed[index]) {
                self.passed.remove(index);
                return picked;
            }
        }
        let deadline = Instant::now() + LIVENESS;
        loop {
            match self.seen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(seen) => match pick(&seen) {
                    Some(picked) => return picked,
                    None => self.passed.push_back(seen),
                },
                Err(error) => panic!("{error} while waiting for {what}; seen: {:?}; {:?}", self.passed, self.handle().stats()),
            }
        }
    }

    /// The next thing seen.
    pub(crate) fn next(&mut self) -> Seen {
        match self.passed.pop_front() {
            Some(seen) => seen,
            None => self.seen.recv_timeout(LIVENESS).unwrap_or_else(|error| panic!("{error}: {:?}", self.handle().stats())),
        }
    }

    /// What has been seen so far and nobody has waited for.
    pub(crate) fn leftovers(&mut self) -> Vec<Seen> {
        self.passed.extend(self.seen.try_iter());
        self.passed.drain(..).collect()
    }

    pub(crate) fn connected(&mut self) -> (PeerId, PeerInfo) {
        self.wait("a peer", |seen| match seen {
            Seen::Connected { peer, info } => Some((*peer, info.clone())),
            _ => None,
        })
    }

    pub(crate) fn closed(&mut self, peer: PeerId) -> CloseReason {
        self.wait("the end of a peer", |seen| match seen {
            Seen::Closed { peer: closed, reason } if *closed == peer => Some(*reason),
            _ => None,
        })
    }

    /// The next word of a peer that it will go.
    pub(crate) fn going_away(&mut self) -> Notice {
        self.wait("a notice", |seen| match seen {
            Seen::GoingAway { notice, .. } => Some(*notice),
            _ => None,
        })
    }

    /// The next report of how far a peer is behind.
    pub(crate) fn slow(&mut self, peer: PeerId) -> Backlog {
        self.wait("a report of a slow peer", |seen| match seen {
            Seen::Slow { peer: slow, backlog } if *slow == peer => Some(*backlog),
            _ => None,
        })
    }

    pub(crate) fn message(&mut self, peer: PeerId) -> (Meta, Vec<u8>) {
        self.wait("a message", |seen| match seen {
            Seen::Message { peer: from, meta, body } if *from == peer => Some((*meta, body.clone())),
            _ => None,
        })
    }

    /// A peer has subscribed (`true`) to this topic, or unsubscribed.
    pub(crate) fn subscribed(&mut self, peer: PeerId, topic: Topic, wanted: bool) {
        self.wait("a subscription, or its end", |seen| match seen {
            Seen::Subscribed { peer: from, topic: to } => ((*from, *to, true) == (peer, topic, wanted)).then_some(()),
            Seen::Unsubscribed { peer: from, topic: to } => ((*from, *to, false) == (peer, topic, wanted)).then_some(()),
            _ => None,
        });
    }

    pub(crate) fn dial_failed(&mut self, dial: DialId) -> (DialError, Option<Duration>) {
        self.wait("a failed dial", |seen| match seen {
            Seen::DialFailed { dial: failed, error, retry_in, .. } if *failed == dial => Some((*error, *retry_in)),
            _ => None,
        })
    }

    /// The core that was told what became of a connect, and that.
    pub(crate) fn pooled(&mut self, tag: u64) -> (usize, Result<PeerId, DialError>) {
        self.wait("an answer of the pool", |seen| match seen {
            Seen::Pooled { core, tag: answered, result } if *answered == tag => Some((*core, *result)),
            _ => None,
        })
    }

    /// The next state that a breaker came into, and the core that was told.
    pub(crate) fn breaker(&mut self) -> (usize, Endpoint, BreakerState) {
        self.wait("another state of a breaker", |seen| match seen {
            Seen::Breaker { core, target, state } => Some((*core, target.clone(), *state)),
            _ => None,
        })
    }

    pub(crate) fn response(&mut self, tag: u64) -> (usize, Result<(Meta, Vec<u8>), RequestError>) {
        self.wait("a response", |seen| match seen {
            Seen::Response { core, tag: answered, result, .. } if *answered == tag => Some((*core, result.clone())),
            _ => None,
        })
    }

    pub(crate) fn receipt(&mut self, tag: u64) -> Receipt {
        self.wait("a receipt", |seen| match seen {
            Seen::Receipt { receipt, .. } if receipt.tag() == tag => Some(receipt.clone()),
            _ => None,
        })
    }

    pub(crate) fn owed(&mut self) -> AckId {
        let is_owed = |seen: &Seen| matches!(seen, Seen::Owed(_));
        loop {
            if let Some(at) = self.passed.iter().position(is_owed) {
                match self.passed.remove(at) {
                    Some(Seen::Owed(ack)) => return ack,
                    _ => unreachable!(),
                }
            }
            let seen = self.seen.recv_timeout(LIVENESS).unwrap();
            self.passed.push_back(seen);
        }
    }

    pub(crate) fn request(&mut self) -> (PeerId, Meta, Vec<u8>, Responder) {
        let is_request = |seen: &Seen| matches!(seen, Seen::Request { .. });
        loop {
            if let Some(at) = self.passed.iter().position(is_request) {
                match self.passed.remove(at) {
                    Some(Seen::Request { peer, meta, body, responder }) => return (peer, meta, body, responder),
                    _ => unreachable!(),
                }
            }
            let seen = self.seen.recv_timeout(LIVENESS).unwrap();
            self.passed.push_back(seen);
        }
    }

    /// A raw peer, and its id here.
    pub(crate) fn raw_peer(&mut self, hello: Hello) -> (Raw, PeerId) {
        let raw = Raw::establish(self.address(), hello);
        let node = hello.node;
        let peer = self.wait("the raw peer", |seen| match seen {
            Seen::Connected { peer, info } if info.node.0 == node && info.channel == hello.channel => Some(*peer),
            _ => None,
        });
        (raw, peer)
    }

    /// Does something on a core and waits for what comes out.
    pub(crate) fn run<R: Send + 'static>(&self, core: usize, act: impl FnOnce(&mut Context<'_>) -> R + Send + 'static) -> R {
        let (give, take) = channel();
        self.handle().post(core, Box::new(move |cx| drop(give.send(act(cx))))).unwrap_or_else(|refused| panic!("{}", refused.reason));
        take.recv_timeout(LIVENESS).expect("the core does what it is asked for")
    }

    /// Waits until a core has taken what was queued for it.
    pub(crate) fn run_when_there_is_room(&self, core: usize) {
        let (give, take) = channel();
        eventually("the core takes commands again", || {
            let give = give.clone();
            self.handle().post(core, Box::new(move |_| give.send(()).unwrap_or(()))).is_ok()
        });
        take.recv_timeout(LIVENESS).expect("the core does what it is asked for");
    }

    /// Keeps a core busy until the returned sender is dropped or used. Returns when the core is in it.
    pub(crate) fn block(&self, core: usize) -> Sender<()> {
        let (release, released) = channel::<()>();
        let (entered, inside) = channel();
        self.handle()
            .post(
                core,
                Box::new(move |_| {
                    let _ = entered.send(());
                    let _ = released.recv_timeout(LIVENESS);
                }),
            )
            .unwrap_or_else(|refused| panic!("{}", refused.reason));
        inside.recv_timeout(LIVENESS).expect("the core takes the command");
        release
    }

    /// Nothing is left of anybody, and the engine stops cleanly.
    pub(crate) fn finish(self) -> ShutdownReport {
        eventually_idle(&self.handle());
        let report = self.engine.shutdown();
        assert!(report.drained && report.panicked.is_empty() && report.cut == 0, "{report:?}");
        report
    }
}
