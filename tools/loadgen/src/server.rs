//! The servers that are loaded: a handler with a few modes, and the engine around it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use clap::ValueEnum;
use corecast::{
    Config, Context, Engine, Handle, Handler, Message, PeerId, PeerInfo, Receipt, RequestError, Responder, Security, Sent, Stats,
};
use hdrhistogram::Histogram;

use crate::acked::{Settled, TERMS, Terms};
use crate::bulk::{PULL, Pull, Ring};
use crate::error::Error;
use crate::machine::{CpuMeter, CpuTime, boot_id};
use crate::measure::{new_histogram, percentiles};
use crate::probe::{Counters, DATA, Question, Sample, encode_counters};
use crate::security::Target;
use crate::verify::{Stream, Tally};
use crate::{clock, output, payload};

/// What a server does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Sends it back.
    Echo,
    /// Sends it to all other peers.
    Fanout,
    /// Counts and verifies it. Of another tool's messages, sends every 64th back.
    Sink,
    /// Sends it back in the lane it came in, and bulk messages to whom asks for them.
    Mixed,
    /// Publishes it to the topic that it names.
    Topics,
    /// Broadcasts it, to be acknowledged, and says to the sender what came of it.
    Receipts,
}

impl Mode {
    pub(crate) const ALL: [Mode; 6] = [Self::Echo, Self::Fanout, Self::Sink, Self::Mixed, Self::Topics, Self::Receipts];

    /// The mode in a [`Sample`].
    pub(crate) fn code(self) -> u64 {
        self as u64
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Echo => "echo",
            Self::Fanout => "fanout",
            Self::Sink => "sink",
            Self::Mixed => "mixed",
            Self::Topics => "topics",
            Self::Receipts => "receipts",
        })
    }
}

/// What the cores of a server have in common.
struct Shared {
    mode: Mode,
    max_message: usize,
    boot_id: u64,
    meter: CpuMeter,
    /// The engine itself, for its statistics; empty until it has started.
    handle: OnceLock<Handle<()>>,
    cores: Box<[CoreTally]>,
    refused: AtomicU64,
}

/// What one core of a sink received. Written by that core only; a cache line of its own.
#[repr(align(128))]
struct CoreTally {
    delivered: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    corrupt: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

impl CoreTally {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { delivered: zero(), duplicated: zero(), reordered: zero(), corrupt: zero(), latency: Mutex::new(new_histogram()) }
    }

    fn publish(&self, tally: &Tally) {
        self.delivered.store(tally.delivered, Relaxed);
        self.duplicated.store(tally.duplicated, Relaxed);
        self.reordered.store(tally.reordered, Relaxed);
        self.corrupt.store(tally.corrupt, Relaxed);
    }

    fn read(&self) -> Tally {
        Tally {
            delivered: self.delivered.load(Relaxed),
            duplicated: self.duplicated.load(Relaxed),
            reordered: self.reordered.load(Relaxed),
            corrupt: self.corrupt.load(Relaxed),
        }
    }
}

impl Shared {
    fn sample(&self) -> Sample {
        let mut sample =
            Sample { mode: self.mode.code(), boot_id: self.boot_id, clock_ns: clock::now_ns(), cpu: self.cpu(), ..Sample::default() };
        self.cores.iter().for_each(|core| sample.tally += core.read());
        if self.mode == Mode::Sink {
            let mut latency = new_histogram();
            for core in &self.cores {
                let part = core.latency.lock().unwrap_or_else(PoisonError::into_inner);
                latency.add(&*part).expect("histograms of one shape");
            }
            sample.latency = percentiles(&latency);
        }
        sample
    }

    fn cpu(&self) -> CpuTime {
        let counted = || Some(CpuTime { ran_ns: counter(&self.handle.get()?.stats(), "cpu_ns"), waited_ns: 0 });
        self.meter.read().or_else(counted).unwrap_or_default()
    }

    /// All counters that are not zero, by name; none before the engine has started.
    fn counters(&self) -> Counters {
        let stats = self.handle.get().map(Handle::stats).unwrap_or_default();
        stats.iter().filter(|(_, value)| *value > 0).map(|(counter, value)| (counter.name().to_owned(), value)).collect()
    }

    fn reset_latency(&self) {
        for core in &self.cores {
            core.latency.lock().unwrap_or_else(PoisonError::into_inner).reset();
        }
    }
}

/// The counter of this name, or zero.
pub(crate) fn counter(stats: &Stats, name: &str) -> u64 {
    stats.iter().find(|(counter, _)| counter.name() == name).map_or(0, |(_, value)| value)
}

/// One core of a server.
struct Core {
    shared: Arc<Shared>,
    index: usize,
    tally: Tally,
    bulk: Ring,
    orders: Orders,
}

/// Broadcasts that have no outcome yet, by tag. The engine bounds them.
#[derive(Default)]
struct Orders {
    next_tag: u64,
    running: HashMap<u64, Order>,
}

struct Order {
    peer: PeerId,
    seq: u64,
    quorum: u32,
}

impl Core {
    fn echo(&self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        match cx.send(peer, message.meta, message.body) {
            // More of its messages would only make the queue longer.
            Ok(Sent::Backpressure) => cx.pause_read(peer),
            Ok(_) => {}
            Err(_) => self.refuse(),
        }
    }

    fn fan_out(&self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let Ok(frame) = cx.frame(message.meta, message.body) else { return self.refuse() };
        if cx.broadcast_except(&frame, peer).is_err() {
            self.refuse();
        }
    }

    fn publish(&self, cx: &mut Context<'_>, message: Message<'_>) {
        let frame = cx.frame(message.meta, message.body).ok();
        let published = payload::topic_of(message.body).zip(frame).is_some_and(|(topic, frame)| cx.publish(topic, &frame).is_ok());
        if !published {
            self.refuse();
        }
    }

    fn count(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let slot = &self.shared.cores[self.index];
        match (payload::parse(message.body), cx.user_mut::<Received>(peer)) {
            (Some(header), Some(received)) => {
                let verdict = received.stream.accept(header.seq);
                received.tally.count(verdict);
                self.tally.count(verdict);
                let latency = clock::now_ns().saturating_sub(header.sent_at);
                slot.latency.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(latency);
            }
            (_, received) => {
                self.tally.corrupt += 1;
                if let Some(received) = received {
                    received.tally.corrupt += 1;
                }
            }
        }
        slot.publish(&self.tally);
    }

    /// Another tool's messages (corecast-compare) cannot be verified here. So that their sender can keep a window, and knows what
    /// arrived, every 64th of a peer goes back to it.
    fn drop_others(&self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        const ANSWERS_EVERY: u64 = 64;
        let Some(received) = cx.user_mut::<Received>(peer) else { return };
        received.others += 1;
        if received.others.is_multiple_of(ANSWERS_EVERY) && cx.send(peer, message.meta, message.body).is_err() {
            self.refuse();
        }
    }

    /// Nobody is held up here: who asks for more bulk than the outbox takes is refused it, and what is measured has to go through.
    fn mix(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let taken = match message.meta.message_type {
            DATA => cx.send(peer, message.meta, message.body).is_ok(),
            PULL => Pull::decode(message.body, self.shared.max_message).is_some_and(|pull| self.bulk.send(cx, peer, pull)),
            _ => false,
        };
        if !taken {
            self.refuse();
        }
    }

    fn broadcast(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        if message.meta.message_type == TERMS {
            if !Terms::decode(message.body).is_some_and(|terms| cx.set_user(peer, terms)) {
                self.refuse();
            }
            return;
        }
        let Some((Terms { quorum, deadline }, header)) = cx.user::<Terms>(peer).copied().zip(payload::parse(message.body)) else {
            return self.refuse();
        };
        let (tag, seq) = (self.orders.next_tag, header.seq);
        self.orders.next_tag += 1;
        match cx.broadcast_acked(message.meta, message.body, deadline, tag) {
            Ok(_) => {
                self.orders.running.insert(tag, Order { peer, seq, quorum });
            }
            Err(error) => {
                self.refuse();
                self.settle(cx, peer, &Settled::refused(seq, &error));
            }
        }
    }

    fn settle(&self, cx: &mut Context<'_>, peer: PeerId, settled: &Settled) {
        if cx.send(peer, Settled::meta(), &settled.encode()).is_err() {
            self.refuse();
        }
    }

    #[cold]
    fn refuse(&self) {
        self.shared.refused.fetch_add(1, Relaxed);
    }
}

/// What a sink received from one peer.
#[derive(Default)]
struct Received {
    stream: Stream,
    tally: Tally,
    /// Messages that are not this tool's.
    others: u64,
}

impl Handler for Core {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.index = cx.core();
        self.shared.meter.register();
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _info: &PeerInfo) {
        if self.shared.mode == Mode::Sink {
            cx.set_user(peer, Received::default());
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        match self.shared.mode {
            Mode::Echo => self.echo(cx, peer, message),
            Mode::Fanout => self.fan_out(cx, peer, message),
            Mode::Sink if message.meta.message_type == DATA => self.count(cx, peer, message),
            Mode::Sink => self.drop_others(cx, peer, message),
            Mode::Mixed => self.mix(cx, peer, message),
            Mode::Topics => self.publish(cx, message),
            Mode::Receipts => self.broadcast(cx, peer, message),
        }
    }

    fn on_request(&mut self, cx: &mut Context<'_>, peer: PeerId, request: Message<'_>, responder: Responder) {
        // A responder that is dropped leaves the request to its deadline, which is what an unknown question deserves.
        let Some(question) = Question::decode(request.meta, request.body) else { return };
        if question == Question::Counters {
            let counters = self.shared.counters();
            if cx.respond(responder, question.meta(), &encode_counters(&counters)).is_err() {
                self.refuse();
            }
            return;
        }
        let mut sample = self.shared.sample();
        match question {
            Question::Greet | Question::Sample | Question::Counters => {}
            Question::SampleAndReset => self.shared.reset_latency(),
            Question::Tally => sample.tally = cx.user::<Received>(peer).map_or(Tally::default(), |received| received.tally),
        }
        if cx.respond(responder, question.meta(), &sample.encode()).is_err() {
            self.refuse();
        }
    }

    fn on_response(&mut self, _cx: &mut Context<'_>, _peer: PeerId, _tag: u64, _result: Result<Message<'_>, RequestError>) {}

    fn on_receipt(&mut self, cx: &mut Context<'_>, receipt: Receipt) {
        if let Some(Order { peer, seq, quorum }) = self.orders.running.remove(&receipt.tag()) {
            self.settle(cx, peer, &Settled::of(&receipt, seq, quorum));
        }
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        if self.shared.mode == Mode::Echo {
            cx.resume_read(peer);
        }
    }
}

/// A running server.
pub(crate) struct Server {
    engine: Engine<()>,
    shared: Arc<Shared>,
    secure: bool,
}

impl Server {
    /// `config` says where to listen.
    pub(crate) fn start(config: Config, cores: usize, mode: Mode) -> Result<Self, Error> {
        let secure = matches!(config.security, Security::Noise(_));
        let tallies = (0..cores).map(|_| CoreTally::new()).collect();
        let shared = Arc::new(Shared {
            mode,
            max_message: config.limits.max_message,
            boot_id: boot_id(),
            meter: CpuMeter::default(),
            handle: OnceLock::new(),
            cores: tallies,
            refused: AtomicU64::new(0),
        });
        let for_cores = Arc::clone(&shared);
        let engine = Engine::start(config, move |index| Core {
            shared: Arc::clone(&for_cores),
            index,
            tally: Tally::default(),
            bulk: Ring::default(),
            orders: Orders::default(),
        });
        let engine = engine.map_err(|source| Error::Start { what: "server", source })?;
        let _ = shared.handle.set(engine.handle());
        for warning in engine.warnings() {
            output::remark(format_args!("server: warning: {warning}"));
        }
        Ok(Self { engine, shared, secure })
    }

    /// What a client dials.
    pub(crate) fn target(&self) -> Target {
        Target { address: self.engine.addresses()[0].clone(), node: self.secure.then(|| self.engine.node_id()) }
    }

    pub(crate) fn handle(&self) -> Handle<()> {
        self.engine.handle()
    }

    /// All counters that are not zero, by name.
    pub(crate) fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Messages that the server could not send on.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Relaxed)
    }

    pub(crate) fn shutdown(self) -> corecast::ShutdownReport {
        self.engine.shutdown()
    }
}
