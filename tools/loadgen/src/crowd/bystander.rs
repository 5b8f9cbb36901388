//! One peer that stands by: it asks the server questions, and has small messages returned to see how the server is doing meanwhile.
//!
//! The messages are due at fixed times, and their round trips count from then: a server that stands still for half a second is late for
//! all that were due in it, not for one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corecast::{CloseReason, Config, Context, Dial, DialError, DialId, Engine, Handle, Handler, Message, PeerId, PeerInfo, RequestError};
use hdrhistogram::Histogram;

use crate::client::PROBE_TIMEOUT;
use crate::clock;
use crate::error::Error;
use crate::measure::new_histogram;
use crate::probe::{Counters, DATA, Question, Sample, decode_counters};
use crate::reason::Dialling;
use crate::security::Target;
use crate::server::Mode;
use crate::verify::{Stream, Tally};

/// From one message to the next.
pub(crate) const EVERY: Duration = Duration::from_millis(2);
/// Requests: the low byte says what for.
const ASKED: u64 = 1;

/// What it is told.
enum Command {
    /// Ask the server.
    Ask { question: Question, answer: Sender<Result<Vec<u8>, RequestError>> },
    /// Send messages from here on, or none any more.
    Send(bool),
    /// Say what came of those that were sent since it was last asked.
    Take { answer: Sender<Trips> },
}

/// What came of its messages.
pub(crate) struct Trips {
    /// When it was due to its arrival, of each message that came back.
    pub(crate) latency: Histogram<u64>,
    pub(crate) sent: u64,
    /// Messages that were due while there was no connection, or that the server did not take.
    pub(crate) unsent: u64,
    pub(crate) tally: Tally,
    /// How often the connection ended.
    pub(crate) ended: u64,
}

impl Trips {
    fn new() -> Self {
        Self { latency: new_histogram(), sent: 0, unsent: 0, tally: Tally::default(), ended: 0 }
    }
}

/// What the main thread looks at.
#[derive(Default)]
struct Seen {
    connected: AtomicBool,
    /// Why the latest attempt to connect failed.
    failure: Mutex<Option<String>>,
    /// Messages on their way.
    under_way: AtomicU64,
}

/// The bystander's engine.
pub(crate) struct Bystander {
    engine: Engine<Command>,
    handle: Handle<Command>,
    seen: Arc<Seen>,
    target: Target,
}

impl Bystander {
    /// It is kept connected, whatever happens.
    pub(crate) fn start(config: Config, target: &Target) -> Result<Self, Error> {
        let seen = Arc::<Seen>::default();
        let (for_core, dial) = (Arc::clone(&seen), target.dial());
        let engine = Engine::start(config, move |_| Standing::new(dial.clone(), Arc::clone(&for_core)));
        let engine = engine.map_err(|source| Error::Start { what: "bystander", source })?;
        Ok(Self { handle: engine.handle(), engine, seen, target: target.clone() })
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.seen.connected.load(Relaxed)
    }

    /// Why the latest attempt to connect failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.seen.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ask(&self, question: Question) -> Result<Vec<u8>, Error> {
        let (answer, answered) = mpsc::channel();
        let _ = self.handle.post(0, Command::Ask { question, answer });
        let result = answered.recv_timeout(PROBE_TIMEOUT + Duration::from_secs(1)).unwrap_or(Err(RequestError::TimedOut));
        result.map_err(|source| Error::Probe { target: self.target.clone(), source })
    }

    pub(crate) fn sample(&self) -> Result<Sample, Error> {
        Sample::decode(&self.ask(Question::Sample)?).ok_or_else(|| Error::NotALoadgen { target: self.target.clone() })
    }

    /// Everything that the server has counted, whatever is not zero.
    pub(crate) fn counters(&self) -> Result<Counters, Error> {
        decode_counters(&self.ask(Question::Counters)?).ok_or_else(|| Error::NotALoadgen { target: self.target.clone() })
    }

    /// Bytes of memory that the server's process has; nothing where its system does not say.
    pub(crate) fn memory(&self) -> Result<Option<u64>, Error> {
        let answer = self.ask(Question::Memory)?;
        let bytes = <[u8; 8]>::try_from(answer.as_slice()).map_err(|_| Error::NotALoadgen { target: self.target.clone() })?;
        Ok(Some(u64::from_le_bytes(bytes)).filter(|bytes| *bytes > 0))
    }

    /// Whether the server sends back what it gets.
    pub(crate) fn check_mode(&self) -> Result<(), Error> {
        let target = self.target.clone();
        match self.sample()?.mode() {
            Some(Mode::Echo) => Ok(()),
            Some(is) => Err(Error::WrongMode { target, is, needed: Mode::Echo }),
            None => Err(Error::NotALoadgen { target }),
        }
    }

    pub(crate) fn send(&self, whether: bool) {
        let _ = self.handle.post(0, Command::Send(whether));
    }

    /// Messages that have not come back, of a connection that has not ended.
    pub(crate) fn under_way(&self) -> u64 {
        self.seen.under_way.load(Relaxed)
    }

    /// What came of the messages that were sent since the last time.
    pub(crate) fn trips(&self) -> Result<Trips, Error> {
        let (answer, answered) = mpsc::channel();
        let _ = self.handle.post(0, Command::Take { answer });
        answered.recv_timeout(PROBE_TIMEOUT).map_err(|_| Error::BystanderSilent)
    }

    pub(crate) fn shutdown(self) {
        self.engine.shutdown();
    }
}

/// The bystander's handler.
struct Standing {
    dial: Dial,
    seen: Arc<Seen>,
    peer: Option<PeerId>,
    answer: Option<Sender<Result<Vec<u8>, RequestError>>>,
    asked: u64,
    /// When the next message is due.
    due: Option<u64>,
    next_seq: u64,
    stream: Stream,
    trips: Trips,
}

impl Standing {
    fn new(dial: Dial, seen: Arc<Seen>) -> Self {
        let (stream, trips) = (Stream::default(), Trips::new());
        Self { dial, seen, peer: None, answer: None, asked: 0, due: None, next_seq: 0, stream, trips }
    }

    fn ask(&mut self, cx: &mut Context<'_>, question: Question, answer: Sender<Result<Vec<u8>, RequestError>>) {
        self.asked += 1;
        let peer = self.peer.ok_or(RequestError::PeerClosed);
        let tag = ASKED | self.asked << 8;
        let asked = peer.and_then(|peer| Ok(cx.request(peer, question.meta(), &question.encode(0), PROBE_TIMEOUT, tag)?));
        match asked {
            Ok(_) => self.answer = Some(answer),
            Err(error) => _ = answer.send(Err(error)),
        }
    }

    /// Sends what is due.
    fn send(&mut self, cx: &mut Context<'_>) {
        let Some(mut due) = self.due else { return };
        let now = clock::now_ns();
        while due <= now {
            let body = [self.next_seq.to_le_bytes(), due.to_le_bytes()].concat();
            if self.peer.is_some_and(|peer| cx.send(peer, DATA, &body).is_ok()) {
                self.next_seq += 1;
                self.trips.sent += 1;
            } else {
                self.trips.unsent += 1;
            }
            due += EVERY.as_nanos() as u64;
        }
        self.due = Some(due);
        self.publish();
        cx.set_timer(Duration::from_nanos(due - now), 0);
    }

    fn publish(&self) {
        self.seen.under_way.store(self.next_seq.saturating_sub(self.stream.next()), Relaxed);
    }
}

impl Handler for Standing {
    type Command = Command;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        cx.dial(self.dial.clone());
    }

    fn on_connected(&mut self, _cx: &mut Context<'_>, peer: PeerId, _info: &PeerInfo) {
        self.peer = Some(peer);
        self.seen.connected.store(true, Relaxed);
    }

    fn on_dial_failed(&mut self, _cx: &mut Context<'_>, _dial: DialId, error: DialError, _retry_in: Option<Duration>) {
        *self.seen.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(Dialling(error).to_string());
    }

    fn on_response(&mut self, _cx: &mut Context<'_>, _peer: PeerId, tag: u64, result: Result<Message<'_>, RequestError>) {
        if let Some(answer) = self.answer.take_if(|_| tag == ASKED | self.asked << 8) {
            let _ = answer.send(result.map(|message| message.body.to_vec()));
        }
    }

    fn on_message(&mut self, _cx: &mut Context<'_>, _peer: PeerId, message: Message<'_>) {
        let Some((seq, due)) = message.body.first_chunk().zip(message.body.last_chunk()).filter(|_| message.body.len() == 16) else {
            self.trips.tally.corrupt += 1;
            return;
        };
        self.trips.tally.count(self.stream.accept(u64::from_le_bytes(*seq)));
        self.trips.latency.saturating_record(clock::now_ns().saturating_sub(u64::from_le_bytes(*due)));
        self.publish();
    }

    fn on_closed(&mut self, _cx: &mut Context<'_>, peer: PeerId, _reason: CloseReason) {
        if self.peer.take_if(|own| *own == peer).is_some() {
            self.seen.connected.store(false, Relaxed);
            self.trips.ended += 1;
            // What was on its way has gone with the connection.
            self.stream = Stream::starting_at(self.next_seq);
            self.publish();
        }
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Ask { question, answer } => self.ask(cx, question, answer),
            Command::Send(false) => self.due = None,
            Command::Send(true) => {
                self.due = Some(clock::now_ns());
                self.send(cx);
            }
            Command::Take { answer } => {
                let _ = answer.send(std::mem::replace(&mut self.trips, Trips::new()));
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _tag: u64) {
        self.send(cx);
    }
}
