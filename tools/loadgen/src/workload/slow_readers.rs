//! Slow readers: a fan-out of which some subscribers stop reading, in half of the phases.
//!
//! The publisher and the subscribers that always read are [`super::Fanout`]'s. Those that stop have an engine of their own, which is here:
//! with little room in their sockets, and with deadlines that let them be until the server has had enough of them. Each time, they
//! are fresh connections that have read everything up to the moment when they stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use corecast::{CloseReason, Config, Context, DialError, DialId, Engine, Handle, Handler, Message, PeerId, PeerInfo, RequestError, Spin};

use crate::client::connect::Connector;
use crate::client::{PROBE_TIMEOUT, TICK};
use crate::error::Error;
use crate::flamegraph::enter_thread;
use crate::payload;
use crate::probe::{DATA, Question};
use crate::progress::Progress;
use crate::reason::{Dialling, Ending};
use crate::security::Goal;
use crate::verify::{Stream, Tally};

/// Receive buffer of their sockets: when they stop, the server is to notice soon. The kernel takes it twice.
const RECEIVE_BUFFER: usize = 64 << 10;
/// They go when the server or the run ends them, not by a deadline of their own.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// What the goodbye of one that is renewed may take: the server may not be reading what it sends any more.
const LINGER: Duration = Duration::from_millis(50);
/// The sender of every message: the fan-out's publisher.
const PUBLISHER: u32 = 0;

/// What the subscribers that stop are told.
pub(crate) enum Command {
    /// Read nothing more.
    Stop,
    /// Go, and come again.
    Renew,
    /// Say what came of it.
    Report { answer: Sender<Outcome> },
}

/// What came of them.
pub(crate) struct Outcome {
    /// What they received while they read.
    pub(crate) tally: Tally,
    /// Why those ended that read, and how often: none should.
    pub(crate) endings: BTreeMap<String, u64>,
}

/// The subscribers that stop.
pub(crate) struct SlowReaders {
    engine: Engine<Command>,
    handle: Handle<Command>,
    /// How many are ready, and how many of those that read have ended.
    progress: Arc<Progress>,
    pub(crate) count: u32,
}

impl SlowReaders {
    /// `config` is a client engine's; `run` and `size` tell the messages of this run.
    pub(crate) fn start(mut config: Config, goal: Goal, count: u32, run: u32, size: usize) -> Result<Self, Error> {
        config.io.socket_receive_buffer = Some(RECEIVE_BUFFER);
        // They share their processor with those that are measured.
        config.io.spin = Spin { window: Duration::ZERO, forced: false };
        config.timeouts.pause = NEVER;
        config.timeouts.linger = LINGER;
        config.keepalive.interval = NEVER;
        config.keepalive.timeout = 2 * NEVER;
        let progress = Arc::<Progress>::default();
        let for_core = Arc::clone(&progress);
        let engine = Engine::start(config, move |_| Stopper::new(goal.clone(), count, run, size, Arc::clone(&for_core)));
        let engine = engine.map_err(|source| Error::Start { what: "client of the slow readers", source })?;
        Ok(Self { handle: engine.handle(), engine, progress, count })
    }

    /// How many are connected and known to the server.
    pub(crate) fn ready(&self) -> u64 {
        self.progress.ready.load(Relaxed)
    }

    /// How many have ended that should not have.
    pub(crate) fn ended(&self) -> u64 {
        self.progress.ended.load(Relaxed)
    }

    /// Why the latest attempt to connect failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.progress.failure()
    }

    pub(crate) fn stop_reading(&self) {
        let _ = self.handle.post(0, Command::Stop);
    }

    /// They are not ready from here on, until they are again.
    pub(crate) fn renew(&self) {
        self.progress.ready.store(0, Relaxed);
        let _ = self.handle.post(0, Command::Renew);
    }

    pub(crate) fn outcome(&self) -> Result<Outcome, Error> {
        let (answer, answered) = mpsc::channel();
        let _ = self.handle.post(0, Command::Report { answer });
        answered.recv_timeout(PROBE_TIMEOUT).map_err(|_| Error::SlowReadersSilent)
    }

    /// Nobody is waited for: those that do not read will not take a goodbye either.
    pub(crate) fn shutdown(self) {
        self.engine.shutdown();
    }
}

/// One subscriber.
struct Reader {
    generation: u64,
    channel: u16,
    /// The server has answered it.
    ready: bool,
    /// From its first message on.
    stream: Option<Stream>,
}

/// The handler of the subscribers that stop.
struct Stopper {
    goal: Goal,
    count: u32,
    run: u32,
    size: usize,
    progress: Arc<Progress>,
    connector: Connector,
    /// How often all of them were renewed.
    generation: u64,
    stopped: bool,
    tally: Tally,
    endings: BTreeMap<String, u64>,
}

impl Stopper {
    fn new(goal: Goal, count: u32, run: u32, size: usize, progress: Arc<Progress>) -> Self {
        let connector = connector(goal.clone(), count, 0, &progress);
        let (tally, endings) = (Tally::default(), BTreeMap::new());
        Self { goal, count, run, size, progress, connector, generation: 0, stopped: false, tally, endings }
    }

    fn add_ready(&self, more: i64) {
        // One writer besides the main thread, which writes only between the phases, before it says so.
        self.progress.ready.store(self.progress.ready.load(Relaxed).saturating_add_signed(more), Relaxed);
    }

    fn renew(&mut self, cx: &mut Context<'_>) {
        self.generation += 1;
        self.stopped = false;
        let old: Vec<_> = cx.peers().collect();
        old.into_iter().for_each(|peer| cx.close(peer));
        self.progress.ready.store(0, Relaxed);
        self.connector = connector(self.goal.clone(), self.count, self.generation, &self.progress);
        self.connector.refill(cx);
    }

    /// Whether this one belongs to the latest that came.
    fn is_current(&self, reader: &Reader) -> bool {
        reader.generation == self.generation
    }
}

/// Every generation has channels of its own: the server may not have let go of the last one's yet.
fn connector(goal: Goal, count: u32, generation: u64, progress: &Arc<Progress>) -> Connector {
    let first = generation.wrapping_mul(u64::from(count));
    let channels = (0..u64::from(count)).map(move |position| (first + position) as u16);
    Connector::new(goal, channels, 1, Arc::clone(progress))
}

impl Handler for Stopper {
    type Command = Command;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        enter_thread("slow-readers", cx.core());
        self.connector.refill(cx);
        cx.set_timer(TICK, 0);
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        self.progress.answered(0);
        self.connector.connected(info.dial);
        cx.set_user(peer, Reader { generation: self.generation, channel: info.channel, ready: false, stream: None });
        if cx.request(peer, Question::Greet.meta(), &Question::Greet.encode(self.run), PROBE_TIMEOUT, 0).is_err() {
            cx.close(peer);
        }
    }

    fn on_response(&mut self, cx: &mut Context<'_>, peer: PeerId, _tag: u64, result: Result<Message<'_>, RequestError>) {
        let Some(reader) = cx.user_mut::<Reader>(peer) else { return };
        if result.is_err() {
            return cx.close(peer);
        }
        reader.ready = true;
        if reader.generation == self.generation {
            self.connector.greeted();
            self.connector.refill(cx);
            self.add_ready(1);
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let Some(reader) = cx.user_mut::<Reader>(peer) else { return };
        let header = payload::parse(message.body);
        if header.is_some_and(|header| header.run != self.run) {
            return;
        }
        let whole = message.body.len() == self.size && message.meta.message_type == DATA;
        match header.filter(|header| whole && header.sender == PUBLISHER) {
            Some(header) => {
                let stream = reader.stream.get_or_insert_with(|| Stream::starting_at(header.seq));
                // A gap is as much against the promise here as a message that comes late.
                self.tally.reordered += u64::from(header.seq > stream.next());
                self.tally.count(stream.accept(header.seq));
            }
            None => self.tally.corrupt += 1,
        }
    }

    fn on_dial_failed(&mut self, _cx: &mut Context<'_>, dial: DialId, error: DialError, _retry_in: Option<Duration>) {
        self.connector.dial_failed(dial, Dialling(error));
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        let Some(reader) = cx.user::<Reader>(peer).filter(|reader| self.is_current(reader)) else { return };
        if !reader.ready {
            return self.connector.greeting_failed(reader.channel, Ending(reason));
        }
        self.add_ready(-1);
        if !self.stopped {
            *self.endings.entry(Ending(reason).to_string()).or_default() += 1;
            self.progress.ended.store(self.progress.ended.load(Relaxed) + 1, Relaxed);
        }
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Stop => {
                self.stopped = true;
                let all: Vec<_> = cx.peers().collect();
                all.into_iter().for_each(|peer| cx.pause_read(peer));
            }
            Command::Renew => self.renew(cx),
            Command::Report { answer } => {
                let _ = answer.send(Outcome { tally: self.tally, endings: self.endings.clone() });
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _tag: u64) {
        self.connector.refill(cx);
        cx.set_timer(TICK, 0);
    }
}
