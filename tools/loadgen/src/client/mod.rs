//! The client side of a run: one engine with one core for each client processor, and on each a [`Driver`].
//!
//! The driver connects its share of the peers, keeps the run's phases, and leaves what is sent when to a [`Workload`]. What every workload
//! needs (peers, payloads, verification, the measured window) is in [`Core`].

pub(crate) mod connect;

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use corecast::{
    CloseReason, Context, DialError, DialId, Handle, Handler, Lane, Message, Meta, PeerId, PeerInfo, RequestError, SendError, Sent,
};

use crate::acked::{Settled, Terms};
use crate::answers::Unanswered;
use crate::bulk::Pull;
use crate::clock;
use crate::flamegraph::enter_thread;
use crate::measure::{Condition, Slice, Window};
use crate::pairs::Pairs;
use crate::payload::{self, Header};
use crate::probe::{DATA, Question, Sample};
use crate::progress::Progress;
use crate::reason::{Dialling, Ending};
use crate::security::Goal;
use crate::targets::Exchanges;
use crate::verify::{Tally, Verdict};
use crate::workload::Workload;

use connect::Connector;

/// How often dials are tried again, and what was refused is.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// What a greeting or a sample may take.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const TICK_TAG: u64 = 0;
/// Tags of requests: the low byte says which, the rest tells samples apart.
const GREET_TAG: u64 = 1;
const SAMPLE_TAG: u64 = 2;
const TALLY_TAG: u64 = 3;
const ACKNOWLEDGE_TAG: u64 = 4;
/// The rest is the request's number in its peer's stream.
const REQUEST_TAG: u64 = 5;
/// What an acknowledgement may take. Far beyond what a server takes that is merely slow.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// One engine's part of a run's peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Position of the engine among the run's client engines.
    pub(crate) engine: usize,
    pub(crate) engines: usize,
    /// The run's number of the engine's first peer; the engine's channel 0.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// All peers of the run.
    pub(crate) total: u32,
}

impl Share {
    /// How so many peers are divided among so many engines.
    pub(crate) fn split(total: u32, engines: usize) -> Vec<Self> {
        let among = engines as u32;
        let mut first = 0;
        let share = |engine: u32| {
            let count = total / among + u32::from(engine < total % among);
            let share = Self { engine: engine as usize, engines, first, count, total };
            first += count;
            share
        };
        (0..among).map(share).collect()
    }

    /// Whether this peer of the run is one of the engine's.
    pub(crate) fn contains(&self, number: u32) -> bool {
        number.checked_sub(self.first).is_some_and(|index| index < self.count)
    }
}

/// What the main thread, the pacer and other drivers tell a driver.
pub(crate) enum Command {
    /// All peers of the run are ready: send, from this time on.
    Begin { at: u64 },
    /// Something may be due.
    Pace,
    /// The condition changes: begin, or end, what disturbs.
    Enter(Condition),
    /// The condition's measured window opens.
    OpenWindow(Condition),
    /// It closes.
    CloseWindow,
    /// Hand over what was counted since the last cut, and count in `fresh` from here on.
    Cut { fresh: Box<Slice>, answer: Sender<(Condition, Box<Slice>)> },
    /// Send nothing new.
    Stop,
    /// Fan-out, all-to-all and topics: this peer's message with this number has reached all that are to get it of one engine.
    Reached { sender: u32, number: u64 },
    /// Ask the server of this peer of the engine.
    Probe { index: usize, question: Question, answer: Sender<Result<Vec<u8>, RequestError>> },
    /// Say what came of it.
    Report { answer: Sender<Outcome> },
}

/// What came of a run on one core.
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    /// Open loop: messages that were due and could not be sent.
    pub(crate) unsent: u64,
    /// Messages of other runs.
    pub(crate) foreign: u64,
    pub(crate) tally: Tally,
    pub(crate) receipts: Receipts,
    pub(crate) unanswered: Unanswered,
    pub(crate) pairs: Option<Pairs>,
    pub(crate) exchanges: Exchanges,
    /// In the order of [`Condition::BOTH`].
    pub(crate) windows: [Window; 2],
    /// Why connecting failed, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Why peers ended during the run, and how often.
    pub(crate) endings: BTreeMap<String, u64>,
}

/// What became of acknowledged broadcasts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipts {
    /// All peers of the run have acknowledged so many.
    pub(crate) complete: u64,
    /// What was wrong with the others, and how often.
    pub(crate) incomplete: BTreeMap<String, u64>,
}

/// What the drivers of a run share.
pub(crate) struct Common {
    /// Every client engine, in order; set before `Begin`.
    pub(crate) handles: OnceLock<Vec<Handle<Command>>>,
}

/// Whether a message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// Send more if you like.
    Taken,
    /// Taken, and the next one should wait for `on_drained`.
    TakenSlow,
    /// Not taken.
    Refused,
}

/// What every workload of a core needs.
pub(crate) struct Core {
    pub(crate) share: Share,
    pub(crate) common: Arc<Common>,
    /// In the order of [`Condition::BOTH`].
    windows: [Window; 2],
    /// Whose window was opened last.
    condition: Condition,
    pub(crate) tally: Tally,
    foreign: u64,
    receipts: Receipts,
    unanswered: Unanswered,
    exchanges: Exchanges,
    /// Type and lane of the messages.
    meta: Meta,
    /// Whether messages are sent when they are due, and not when others have come.
    open_loop: bool,
    /// When the last message was given to the engine. Open loop only.
    departed: u64,
    /// Open loop: messages that were due and had not been sent when sending stopped.
    pub(crate) unsent: u64,
    /// Between `Begin` and `Stop`.
    pub(crate) sending: bool,
    /// What the drain may take, for requests that end it.
    pub(crate) drain: Duration,
    /// Bytes of the longest message of the workload, in either direction.
    longest: usize,
    builder: payload::Builder,
    peers: Box<[Option<PeerId>]>,
    sent: u64,
    progress: Arc<Progress>,
}

impl Core {
    pub(crate) fn new(
        share: Share,
        common: Arc<Common>,
        progress: Arc<Progress>,
        builder: payload::Builder,
        longest: usize,
        drain: Duration,
        open_loop: bool,
    ) -> Self {
        let peers = vec![None; share.count as usize].into();
        Self {
            share,
            common,
            windows: [Window::new(), Window::new()],
            condition: Condition::Undisturbed,
            tally: Tally::default(),
            foreign: 0,
            receipts: Receipts::default(),
            unanswered: Unanswered::default(),
            exchanges: Exchanges::default(),
            meta: Meta::new(DATA),
            open_loop,
            departed: 0,
            unsent: 0,
            sending: false,
            drain,
            longest,
            builder,
            peers,
            sent: 0,
            progress,
        }
    }

    /// The same, whose peers go to so many targets.
    pub(crate) fn to(self, targets: usize) -> Self {
        Self { exchanges: Exchanges::new(targets), ..self }
    }

    /// The same, sending its messages in `lane`.
    pub(crate) fn in_lane(self, lane: Lane) -> Self {
        Self { meta: self.meta.lane(lane), ..self }
    }

    /// Where what happens now is counted.
    #[inline]
    pub(crate) fn window(&mut self) -> &mut Window {
        &mut self.windows[self.condition as usize]
    }

    /// Peers of this core, by their position in its share.
    pub(crate) fn count(&self) -> usize {
        self.peers.len()
    }

    /// The run's number of peer `index`.
    #[inline]
    pub(crate) fn number(&self, index: usize) -> u32 {
        self.share.first + index as u32
    }

    /// The position of this peer of the run, where it is one of this core's.
    #[inline]
    pub(crate) fn index(&self, number: u32) -> Option<usize> {
        self.share.contains(number).then(|| (number - self.share.first) as usize)
    }

    /// Subscribes peer `index` to a topic of this run.
    pub(crate) fn subscribe(&self, cx: &mut Context<'_>, index: usize, topic: u32) -> Result<(), SendError> {
        let peer = self.peers[index].ok_or(SendError::NotConnected)?;
        cx.subscribe(peer, payload::topic(self.builder.run(), topic))
    }

    /// Tells the server on what terms it is to broadcast what peer `index` sends.
    pub(crate) fn say_terms(&self, cx: &mut Context<'_>, index: usize, terms: Terms) -> Result<(), SendError> {
        let peer = self.peers[index].ok_or(SendError::NotConnected)?;
        cx.send(peer, Terms::meta(), &terms.encode()).map(|_| ())
    }

    /// Tells an engine that a message of one of its peers has reached all that are to get it of this one.
    pub(crate) fn say_reached(&self, engine: usize, sender: u32, number: u64) {
        if let Some(engine) = self.common.handles.get().and_then(|handles| handles.get(engine)) {
            // As many are under way as messages, and the inbox was made to hold those.
            let _ = engine.post(0, Command::Reached { sender, number });
        }
    }

    /// Sends the message `seq` of the stream of peer `index`.
    #[inline]
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, index: usize, seq: u64, sent_at: u64) -> Push {
        self.send_as(cx, index, self.number(index), seq, sent_at)
    }

    /// Sends, by peer `index`, the message `seq` of the stream of `sender`. Open loop: `sent_at` is when it was due.
    #[inline]
    pub(crate) fn send_as(&mut self, cx: &mut Context<'_>, index: usize, sender: u32, seq: u64, sent_at: u64) -> Push {
        let Some(peer) = self.peers[index] else { return Push::Refused };
        self.departed = if self.open_loop { clock::now_ns() } else { sent_at };
        let body = self.builder.build_late(seq, sender, sent_at, self.departed);
        let sent = cx.send(peer, self.meta, body);
        self.pushed(sender, sent)
    }

    /// Makes the request `seq` of the stream of peer `index`; `Workload::on_answer` is told what came of it.
    pub(crate) fn request(&mut self, cx: &mut Context<'_>, index: usize, seq: u64, sent_at: u64, deadline: Duration) -> Push {
        let Some(peer) = self.peers[index] else { return Push::Refused };
        self.departed = if self.open_loop { clock::now_ns() } else { sent_at };
        let number = self.share.first + index as u32;
        let body = self.builder.build_late(seq, number, sent_at, self.departed);
        let sent = cx.request(peer, self.meta, body, deadline, REQUEST_TAG | seq << 8);
        self.pushed(number, sent)
    }

    /// Counts a message where it was taken.
    #[inline]
    fn pushed(&mut self, number: u32, sent: Result<Sent, SendError>) -> Push {
        let push = match sent {
            Ok(Sent::Backpressure) => Push::TakenSlow,
            Ok(_) => Push::Taken,
            Err(_) => return Push::Refused,
        };
        self.count_sent(number);
        self.window().sent();
        push
    }

    /// When the last message was given to the engine.
    pub(crate) fn departed(&self) -> u64 {
        self.departed
    }

    /// Asks for the bulk message `seq` of the stream of peer `index`. Returns whether that was taken.
    pub(crate) fn pull(&mut self, cx: &mut Context<'_>, index: usize, seq: u64, size: usize) -> bool {
        let pull = Pull { seq, size };
        let taken = self.peers[index].is_some_and(|peer| cx.send(peer, Pull::meta(), &pull.encode()).is_ok());
        if taken {
            self.count_sent(self.number(index));
        }
        taken
    }

    fn count_sent(&mut self, number: u32) {
        self.exchanges.sent(number);
        self.sent += 1;
        self.progress.sent.store(self.sent, Relaxed);
    }

    /// The header of a message of this run; nothing where it is damaged, which is counted, or another run's.
    #[inline]
    pub(crate) fn parse(&mut self, message: &Message<'_>) -> Option<Header> {
        let header = payload::parse(message.body);
        match header {
            Some(header) if header.run != self.builder.run() => {
                self.foreign += 1;
                None
            }
            Some(_) if message.body.len() == self.builder.size() && message.meta == self.meta => header,
            _ => {
                self.tally.corrupt += 1;
                None
            }
        }
    }

    /// Counts a message that arrived in a measured window, and its latency: in the closed loop if it arrived in the window, in the open
    /// one if it was due there, however late it is.
    #[inline]
    pub(crate) fn arrived(&mut self, verdict: Verdict, header: &Header, now: u64) {
        if !self.count_arrived(header.sender, verdict) {
            return;
        }
        let latency = now.saturating_sub(header.sent_at);
        let mut measured = false;
        if self.open_loop {
            self.window().received();
            for window in &mut self.windows {
                measured |= window.responded(header, now);
            }
        } else {
            measured = self.window().delivered(latency);
        }
        if measured {
            self.exchanges.measured(header.sender, latency);
        }
    }

    /// Counts a message that arrived, and its latency in the window in which it was due.
    pub(crate) fn answered(&mut self, verdict: Verdict, header: &Header, now: u64) {
        if self.count_arrived(header.sender, verdict) {
            let measured = self.windows.iter_mut().map(|window| window.answered(header, now)).fold(false, |any, one| any | one);
            if measured {
                self.exchanges.measured(header.sender, now.saturating_sub(header.sent_at));
            }
        }
    }

    /// The server has said what came of a broadcast to all peers of the run.
    pub(crate) fn settled(&mut self, settled: &Settled) {
        if settled.is_complete(self.share.total.into()) {
            self.receipts.complete += 1;
            self.window().acked(settled.after_ns);
        } else {
            let Settled { expected, acked, failed, reason, .. } = settled;
            let reason = if reason.is_empty() { "nothing failed, but somebody is missing or too many" } else { reason };
            let reason = format!("{acked} of {expected} acknowledgements, {failed} failed: {reason}");
            *self.receipts.incomplete.entry(reason).or_default() += 1;
        }
    }

    /// The server has answered the request `seq` of peer `index`, for the first time.
    pub(crate) fn responded(&mut self, index: usize, seq: u64, message: &Message<'_>) {
        let number = self.number(index);
        match self.parse(message) {
            Some(header) if header.sender == number && header.seq == seq => {
                self.arrived(Verdict::New, &header, clock::now_ns());
            }
            // Another one's answer. A damaged one is counted already, another run's is none of this run's requests either.
            Some(_) => self.tally.corrupt += 1,
            None => {}
        }
    }

    /// A request has come to its end without an answer.
    pub(crate) fn unanswered(&mut self, error: RequestError) {
        match error {
            RequestError::TimedOut => self.unanswered.timed_out += 1,
            other => *self.unanswered.failed.entry(other.to_string()).or_default() += 1,
        }
        self.progress.unanswered.store(self.unanswered.count(), Relaxed);
    }

    /// Counts a bulk message that arrived.
    pub(crate) fn bulk_arrived(&mut self, index: usize, verdict: Verdict) {
        if self.count_arrived(self.number(index), verdict) {
            self.window().bulk_arrived();
        }
    }

    /// What the server owes besides: bulk messages that were asked for, word of broadcasts that were sent.
    pub(crate) fn outstanding(&self, count: u64) {
        self.progress.outstanding.store(count, Relaxed);
    }

    /// Returns whether it had not come before.
    #[inline]
    fn count_arrived(&mut self, number: u32, verdict: Verdict) -> bool {
        self.exchanges.delivered(number, u64::from(verdict != Verdict::Duplicate));
        self.tally.count(verdict);
        self.progress.received.store(self.tally.delivered, Relaxed);
        verdict != Verdict::Duplicate
    }

    /// Adds what arrived at the server of peer `index`.
    pub(crate) fn arrived_at_server(&mut self, index: usize, tally: Tally) {
        self.exchanges.delivered(self.number(index), tally.delivered);
        self.tally += tally;
        self.progress.received.store(self.tally.delivered, Relaxed);
    }

    /// Asks the server what has come from peer `index` until then; `Workload::on_acknowledged` is told. Returns whether it was asked.
    pub(crate) fn ask_for_acknowledgement(&mut self, cx: &mut Context<'_>, index: usize) -> bool {
        let (meta, body) = (Question::Tally.meta(), Question::Tally.encode(self.builder.run()));
        self.peers[index].is_some_and(|peer| cx.request(peer, meta, &body, ACKNOWLEDGE_TIMEOUT, ACKNOWLEDGE_TAG).is_ok())
    }

    /// Asks the server what came from peer `index` in all; `Workload::on_tally` is told.
    pub(crate) fn ask_for_tally(&mut self, cx: &mut Context<'_>, index: usize) {
        if let Some(peer) = self.peers[index] {
            // A refusal shows as lost messages: nobody says that they arrived.
            let _ = cx.request(peer, Question::Tally.meta(), &Question::Tally.encode(self.builder.run()), self.drain, TALLY_TAG);
        }
    }
}

/// The handler of a client core.
pub(crate) struct Driver<W> {
    core: Core,
    workload: W,
    connector: Connector,
    /// Which peers the server has answered.
    ready: Box<[bool]>,
    endings: BTreeMap<String, u64>,
    probe: Option<Sender<Result<Vec<u8>, RequestError>>>,
    probes: u64,
}

impl<W: Workload> Driver<W> {
    pub(crate) fn new(core: Core, workload: W, goal: Goal) -> Self {
        let channels = (0..core.share.count).map(|channel| u16::try_from(channel).expect("an engine has 65,536 channels at most"));
        let connector = Connector::new(goal, channels, core.share.engines, Arc::clone(&core.progress));
        let ready = vec![false; core.count()].into();
        Self { core, workload, connector, ready, endings: BTreeMap::new(), probe: None, probes: 0 }
    }

    /// Only peers of this driver have a user value, set when they connected.
    fn index(cx: &Context<'_>, peer: PeerId) -> Option<usize> {
        cx.user::<u32>(peer).map(|index| *index as usize)
    }

    fn greeted(&mut self, cx: &mut Context<'_>, peer: PeerId, result: Result<Message<'_>, RequestError>) {
        let Some(index) = Self::index(cx, peer) else { return };
        match result {
            Ok(_) => {
                self.ready[index] = true;
                add(&self.core.progress.ready);
                self.connector.greeted();
                self.connector.refill(cx);
            }
            // `on_closed` says why.
            Err(RequestError::PeerClosed) => {}
            Err(error) => {
                self.connector.note(index as u16, format_args!("the server did not answer the greeting: {error}"));
                cx.close(peer);
            }
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, index: usize, question: Question, answer: Sender<Result<Vec<u8>, RequestError>>) {
        let Some(peer) = self.core.peers.get(index).copied().flatten() else {
            let _ = answer.send(Err(RequestError::PeerClosed));
            return;
        };
        self.probes += 1;
        match cx.request(peer, question.meta(), &question.encode(self.core.builder.run()), PROBE_TIMEOUT, SAMPLE_TAG | self.probes << 8) {
            Ok(_) => self.probe = Some(answer),
            Err(error) => {
                let _ = answer.send(Err(error.into()));
            }
        }
    }

    fn report(&mut self) -> Outcome {
        Outcome {
            sent: self.core.sent,
            unsent: self.core.unsent,
            foreign: self.core.foreign,
            tally: self.core.tally,
            receipts: self.core.receipts.clone(),
            unanswered: self.core.unanswered.clone(),
            exchanges: self.core.exchanges.clone(),
            pairs: self.workload.pairs(&self.core),
            windows: std::mem::replace(&mut self.core.windows, [Window::new(), Window::new()]),
            failures: self.connector.failures().clone(),
            endings: self.endings.clone(),
        }
    }
}

fn add(counter: &AtomicU64) {
    // One writer: no read-modify-write is needed.
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

impl<W: Workload> Handler for Driver<W> {
    type Command = Command;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        enter_thread("client", self.core.share.engine);
        self.connector.refill(cx);
        cx.set_timer(TICK, TICK_TAG);
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        let index = u32::from(info.channel);
        self.core.progress.answered(self.connector.target(info.channel));
        self.connector.connected(info.dial);
        self.core.peers[index as usize] = Some(peer);
        cx.set_user(peer, index);
        if info.max_message < self.core.longest {
            let most = format_args!("the server takes messages of {} bytes at most, see its --max-message", info.max_message).to_string();
            self.connector.note(info.channel, most);
            add(&self.core.progress.fatal);
            return;
        }
        let joined = self.workload.on_connected(cx, &mut self.core, index as usize);
        let greet =
            |()| cx.request(peer, Question::Greet.meta(), &Question::Greet.encode(self.core.builder.run()), PROBE_TIMEOUT, GREET_TAG);
        if let Err(error) = joined.and_then(greet) {
            self.connector.note(info.channel, error);
            cx.close(peer);
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        if let Some(index) = Self::index(cx, peer) {
            self.workload.on_message(cx, &mut self.core, index, message);
        }
    }

    fn on_response(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, result: Result<Message<'_>, RequestError>) {
        match tag & 0xff {
            GREET_TAG => self.greeted(cx, peer, result),
            REQUEST_TAG => {
                if let Some(index) = Self::index(cx, peer) {
                    self.workload.on_answer(cx, &mut self.core, index, tag >> 8, result);
                }
            }
            TALLY_TAG => {
                let sample = result.ok().and_then(|message| Sample::decode(message.body));
                if let (Some(sample), Some(index)) = (sample, Self::index(cx, peer)) {
                    self.workload.on_tally(cx, &mut self.core, index, &sample);
                }
            }
            ACKNOWLEDGE_TAG => {
                let sample = result.ok().and_then(|message| Sample::decode(message.body));
                if let Some(index) = Self::index(cx, peer) {
                    self.workload.on_acknowledged(cx, &mut self.core, index, sample.as_ref());
                }
            }
            // An older sample's answer has nobody waiting for it any more.
            SAMPLE_TAG if tag >> 8 == self.probes => {
                if let Some(answer) = self.probe.take() {
                    let _ = answer.send(result.map(|message| message.body.to_vec()));
                }
            }
            _ => {}
        }
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        if let Some(index) = Self::index(cx, peer) {
            self.workload.on_drained(cx, &mut self.core, index);
        }
    }

    fn on_dial_failed(&mut self, _cx: &mut Context<'_>, dial: DialId, error: DialError, _retry_in: Option<Duration>) {
        // Cancelled dials and full engines say nothing about the target.
        if let (DialError::Handshake(_), Some(target)) = (&error, self.connector.target_of(dial)) {
            self.core.progress.answered(target);
        }
        self.connector.dial_failed(dial, Dialling(error));
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        let Some(index) = Self::index(cx, peer) else { return };
        if self.core.peers[index] != Some(peer) {
            return;
        }
        self.core.peers[index] = None;
        if std::mem::take(&mut self.ready[index]) {
            let reason = self.connector.explain(index as u16, Ending(reason));
            *self.endings.entry(reason).or_default() += 1;
            add(&self.core.progress.ended);
        } else {
            self.connector.greeting_failed(index as u16, Ending(reason));
        }
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Begin { at } => {
                self.core.sending = true;
                self.workload.begin(cx, &mut self.core, at);
            }
            Command::Pace => {
                // First, so that what becomes due from here on is announced again.
                self.core.progress.paced.store(false, Release);
                self.workload.on_pace(cx, &mut self.core);
            }
            Command::Enter(condition) => self.workload.enter(cx, &mut self.core, condition),
            Command::OpenWindow(condition) => {
                self.core.condition = condition;
                self.core.window().open();
            }
            Command::CloseWindow => self.core.window().close(),
            Command::Cut { fresh, answer } => {
                let slice = self.core.window().cut(fresh);
                let _ = answer.send((self.core.condition, slice));
            }
            Command::Stop => {
                // What has become due since the last look is sent too, or is said to be unsent.
                self.workload.on_pace(cx, &mut self.core);
                self.core.sending = false;
                self.workload.on_stop(cx, &mut self.core);
            }
            Command::Reached { sender, number } => self.workload.on_reached(cx, &mut self.core, sender, number),
            Command::Probe { index, question, answer } => self.ask(cx, index, question, answer),
            Command::Report { answer } => {
                let _ = answer.send(self.report());
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _tag: u64) {
        self.connector.refill(cx);
        self.workload.on_tick(cx, &mut self.core);
        cx.set_timer(TICK, TICK_TAG);
    }
}
