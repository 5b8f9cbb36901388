//! The engine from any thread.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};

use crate::codec::{CodecError, Typed, encode_with};
use crate::config::Admission;
use crate::dial::Dial;
use crate::error::{AllowError, CloseReason, QueryError, RequestError, SendError};
use crate::handler::Responder;
use crate::id::{DialId, NodeId, PeerId, Topic};
use crate::metrics::{Counter, Histograms, Stats, prometheus_text};
use crate::notice::Notice;
use crate::proto::RequestTimeout;
use crate::reactor::inbox::{Command, Fabric, Signal};
use crate::shard::{Control, Mail, PeerSnapshot};
use crate::wire::{Draft, Frame, FrameError, Meta};

/// Longer waits count as this.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);

thread_local! {
    static ON_CORE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is a core.
pub(crate) fn is_core_thread() -> bool {
    ON_CORE.get()
}

/// Marks the calling thread as a core: blocking calls on it would wait for themselves.
pub(crate) fn mark_core_thread() {
    ON_CORE.set(true);
}

/// What was not taken, given back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected<T> {
    /// What was to be sent.
    pub value: T,
    /// Why it was not taken.
    pub reason: SendError,
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Rejected<T> {}

/// The response to a blocking request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// Type and lane, as the responder gave them.
    pub meta: Meta,
    /// The body.
    pub body: Vec<u8>,
}

/// The engine, for any thread. Cheap to clone.
///
/// A handle answers for the *inbox* of the core that it sends to: `Ok` says that the core will see the message, not that the peer's outbox
/// takes it. What is refused later is counted (`sends_refused`), and reported to the core's handler where that was asked for
/// ([`Handle::send_notify`]). No call blocks unless its name or its documentation says so.
pub struct Handle<C: Send + 'static = ()> {
    pub(crate) fabric: Arc<Fabric<C>>,
    next_dial: Arc<AtomicU64>,
}

impl<C: Send + 'static> Clone for Handle<C> {
    fn clone(&self) -> Self {
        Self { fabric: Arc::clone(&self.fabric), next_dial: Arc::clone(&self.next_dial) }
    }
}

impl<C: Send + 'static> fmt::Debug for Handle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("cores", &self.cores()).finish_non_exhaustive()
    }
}

impl<C: Send + 'static> Handle<C> {
    pub(crate) fn new(fabric: Arc<Fabric<C>>) -> Self {
        Self { fabric, next_dial: Arc::new(AtomicU64::new(1)) }
    }

    /// How many cores the engine has.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.fabric.inboxes.len()
    }

    /// The metadata with the lane that is meant.
    fn resolve(&self, meta: impl Into<Meta>) -> Meta {
        self.fabric.shared.config.lanes.resolve(meta.into())
    }

    /// Encodes a message once, cut into fragments as the engine's configuration says. One allocation.
    pub fn frame(&self, meta: impl Into<Meta>, body: &[u8]) -> Result<Frame, FrameError> {
        let limits = &self.fabric.shared.config.limits;
        if body.len() > limits.max_message {
            return Err(FrameError::TooLong { len: body.len(), max: limits.max_message });
        }
        Frame::encode(Draft::data(self.resolve(meta), body), limits.fragment)
    }

    /// Encodes a typed message once. No allocation beside the frame's.
    pub fn frame_typed<M: Typed>(&self, message: &M) -> Result<Frame, CodecError> {
        encode_with(message, |body| self.frame(M::meta(), body))?.map_err(CodecError::TooLong)
    }

    /// Sends a message to one peer.
    pub fn send(&self, peer: PeerId, frame: Frame) -> Result<(), Rejected<Frame>> {
        self.send_mail(peer, frame, None)
    }

    /// Sends a message to one peer; if its core refuses it later, `on_send_failed` is called there with `tag`.
    pub fn send_notify(&self, peer: PeerId, frame: Frame, tag: u64) -> Result<(), Rejected<Frame>> {
        self.send_mail(peer, frame, Some(tag))
    }

    fn send_mail(&self, peer: PeerId, frame: Frame, notify: Option<u64>) -> Result<(), Rejected<Frame>> {
        self.fabric.command(peer.core(), Command::Mail(Mail::Send { peer, frame, notify })).map_err(|(command, reason)| match command {
            Command::Mail(Mail::Send { frame, .. }) => Rejected { value: frame, reason },
            _ => unreachable!("a refused command comes back as it was"),
        })
    }

    /// Sends all of these to one peer, in order, as one command. The core takes them all or none.
    pub fn send_batch(&self, peer: PeerId, frames: Vec<Frame>) -> Result<(), Rejected<Vec<Frame>>> {
        let mail = Mail::SendBatch { peer, frames: frames.into() };
        self.fabric.command(peer.core(), Command::Mail(mail)).map_err(|(command, reason)| match command {
            Command::Mail(Mail::SendBatch { frames, .. }) => Rejected { value: frames.into(), reason },
            _ => unreachable!("a refused command comes back as it was"),
        })
    }

    /// Sends to every established peer of every core, or, on error, to none. A peer that has said that it takes only shorter messages is
    /// passed by, which is counted (`sends_refused`); so is one that was sent as much as [`crate::Rates::send`] allows
    /// (`deliveries_refused`, `sends_rate_limited`).
    ///
    /// One atomic increment and one queue operation for each core; the frame is not copied.
    pub fn broadcast(&self, frame: Frame) -> Result<(), Rejected<Frame>> {
        self.broadcast_mail(frame, None)
    }

    /// Sends to every established peer of every core but one.
    pub fn broadcast_except(&self, frame: Frame, except: PeerId) -> Result<(), Rejected<Frame>> {
        self.broadcast_mail(frame, Some(except))
    }

    fn broadcast_mail(&self, frame: Frame, except: Option<PeerId>) -> Result<(), Rejected<Frame>> {
        let sent = self
            .check_length(&frame)
            .and_then(|()| self.fabric.command_all(frame.as_bytes().len(), || Mail::Broadcast { frame: frame.clone(), except }));
        sent.map_err(|reason| Rejected { value: frame, reason })
    }

    /// Sends to every peer, of every core, that has subscribed to the topic, or, on error, to none. See
    /// [`Context::publish`](crate::Context::publish) for what happens to subscribers that have no room.
    ///
    /// One atomic increment and one queue operation for each core, whoever has subscribed there.
    pub fn publish(&self, topic: Topic, frame: Frame) -> Result<(), Rejected<Frame>> {
        let sent = self
            .check_length(&frame)
            .and_then(|()| self.fabric.command_all(frame.as_bytes().len(), || Mail::Publish { topic, frame: frame.clone() }));
        sent.map_err(|reason| Rejected { value: frame, reason })
    }

    /// Asks a peer for what it publishes on a topic: see [`Context::subscribe`](crate::Context::subscribe). What its core refuses is
    /// counted there (`subscriptions_refused`).
    pub fn subscribe(&self, peer: PeerId, topic: Topic) -> Result<(), SendError> {
        self.subscribe_mail(peer, topic, true)
    }

    /// Takes a subscription back.
    pub fn unsubscribe(&self, peer: PeerId, topic: Topic) -> Result<(), SendError> {
        self.subscribe_mail(peer, topic, false)
    }

    fn subscribe_mail(&self, peer: PeerId, topic: Topic, wanted: bool) -> Result<(), SendError> {
        let mail = Mail::Subscribe { peer, topic, wanted };
        self.fabric.command(peer.core(), Command::Mail(mail)).map_err(|(_, reason)| reason)
    }

    fn check_length(&self, frame: &Frame) -> Result<(), SendError> {
        let (len, max) = (frame.body_len(), self.fabric.shared.config.limits.max_message);
        if len <= max { Ok(()) } else { Err(SendError::TooLong { len, max }) }
    }

    /// Sends all of these, in order, to every established peer of every core, or, on error, none to anyone. One queue operation and one
    /// wake for each core. A batch of more than half of `Limits::outbox_hard` never fits (`LogFull`).
    pub fn broadcast_batch(&self, frames: Vec<Frame>) -> Result<(), Rejected<Vec<Frame>>> {
        if let Err(reason) = frames.iter().try_for_each(|frame| self.check_length(frame)) {
            return Err(Rejected { value: frames, reason });
        }
        let bytes: usize = frames.iter().map(|frame| frame.as_bytes().len()).sum();
        if bytes > self.fabric.shared.config.limits.outbox_hard / 2 {
            return Err(Rejected { value: frames, reason: SendError::LogFull });
        }
        let batch: Arc<[Frame]> = frames.into();
        let cost = Mail::BroadcastBatch { frames: Arc::clone(&batch) }.cost();
        self.fabric
            .command_all(cost, || Mail::BroadcastBatch { frames: Arc::clone(&batch) })
            .map_err(|reason| Rejected { value: batch.to_vec(), reason })
    }

    /// Answers a request that a handler has passed on.
    pub fn respond(&self, responder: Responder, meta: impl Into<Meta>, body: &[u8]) -> Result<(), Rejected<Responder>> {
        let Responder { peer, correlation } = responder;
        let mail = Mail::Respond { peer, correlation, meta: self.resolve(meta), body: body.into() };
        self.fabric
            .command(peer.core(), Command::Mail(mail))
            .map_err(|(_, reason)| Rejected { value: Responder { peer, correlation }, reason })
    }

    /// Asks a peer something and waits for the response, at most for `timeout`: a [`Duration`], or [`RequestTimeout::Adaptive`], which
    /// follows how long this peer's responses take. Blocks; on a core thread it answers `WouldDeadlock` instead.
    pub fn request_blocking(
        &self,
        peer: PeerId,
        meta: impl Into<Meta>,
        body: &[u8],
        timeout: impl Into<RequestTimeout>,
    ) -> Result<Response, RequestError> {
        if ON_CORE.get() {
            return Err(RequestError::WouldDeadlock);
        }
        let (reply, answer) = bounded(1);
        let timeout = timeout.into();
        let longest = match timeout {
            RequestTimeout::After(timeout) => timeout,
            RequestTimeout::Adaptive => self.fabric.shared.config.timeouts.request_ceiling,
        };
        let command = Command::Request { peer, meta: self.resolve(meta), body: body.into(), timeout, reply };
        self.fabric.command(peer.core(), command).map_err(|(_, reason)| RequestError::Send(reason))?;
        // The core keeps the deadline; this one only ends the wait if the core is gone.
        match answer.recv_timeout(longest.saturating_add(Duration::from_secs(1))) {
            Ok(Ok(owned)) => Ok(Response { meta: owned.meta, body: owned.body }),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Err(RequestError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(RequestError::Send(SendError::Stopped)),
        }
    }

    /// Gives the handler of a core a command. `NotConnected`: there is no core of that number.
    pub fn post(&self, core: usize, command: C) -> Result<(), Rejected<C>> {
        self.fabric.command(core, Command::User(command)).map_err(|(command, reason)| match command {
            Command::User(value) => Rejected { value, reason },
            _ => unreachable!("a refused command comes back as it was"),
        })
    }

    /// Ends a peer: what is queued leaves first, then a goodbye.
    pub fn close(&self, peer: PeerId) -> Result<(), SendError> {
        self.fabric.outside(peer.core(), Control::Close { peer, reason: CloseReason::Requested })
    }

    /// Connects to an address. The outcome is `on_connected` on the core that gets the peer (`info.dial` is this id), or `on_dial_failed`
    /// on core 0.
    pub fn dial(&self, dial: Dial) -> Result<DialId, SendError> {
        let id = DialId::new(0, self.next_dial.fetch_add(1, Ordering::Relaxed));
        self.fabric.outside(0, Control::Dial { id, dial, home: 0 })?;
        Ok(id)
    }

    /// Ends a dial. A connection that it led to stays.
    pub fn cancel_dial(&self, dial: DialId) -> Result<(), SendError> {
        self.fabric.outside(0, Control::CancelDial { id: dial })
    }

    /// Puts a node on the allow-list: it may be a peer from now on. One that is on it already stays there. Dials that ended because it was
    /// not on it do not begin anew.
    pub fn allow(&self, node: NodeId) -> Result<(), AllowError> {
        self.check_list()?;
        if !self.fabric.shared.listed.reserve() {
            return Err(AllowError::Full);
        }
        self.fabric.outside(0, Control::Allow { node }).map_err(|reason| {
            self.fabric.shared.listed.release();
            AllowError::Send(reason)
        })
    }

    /// Takes a node off the allow-list, and cuts what it has: its connections end within a turn of their cores (`NotAllowed`; what was
    /// queued for it is dropped), so do its handshakes, and dialling it fails with `NotAllowed`, for good. Taking off one that is not on it
    /// changes nothing.
    ///
    /// Messages that wait to be acknowledged by it are kept until their deadlines, in case that it is allowed again.
    pub fn disallow(&self, node: NodeId) -> Result<(), AllowError> {
        self.check_list()?;
        self.fabric.outside(0, Control::Disallow { node }).map_err(AllowError::Send)
    }

    fn check_list(&self) -> Result<(), AllowError> {
        match self.fabric.shared.config.admission {
            Some(Admission::AllowList(_)) => Ok(()),
            _ => Err(AllowError::Open),
        }
    }

    /// Tells the engine to land: that it will go, after a time in which what is under way can end. For a restart, or to move the load
    /// elsewhere. From here on, until [`Engine::shutdown`](crate::Engine::shutdown) or [`Engine::drain`](crate::Engine::drain):
    ///
    /// * Nobody more is let in: who connects is refused (`ShuttingDown`, `handshake_shutting_down`), and asked to stay away until
    ///   `notice.retry_after` has passed from the end of the period. Nobody is dialled: all dials end (`DialError::ShuttingDown`).
    /// * Each peer is told (`notices_sent`), with what it is to do: its handler's [`Handler::on_going_away`](crate::Handler::on_going_away)
    ///   is called. Peers of a version that does not understand it ([`crate::PeerInfo::takes_notice`]) hear of it with the goodbye. In all
    ///   other respects established peers go on as before, for `notice.period`.
    /// * Who has not gone by then is closed (`ShuttingDown`), with the goodbye that asks it to stay away for `notice.retry_after`.
    ///
    /// How far it is can be asked for: [`Handle::stats`] has the cores that land (`landing`) and the peers that are left (`peers`). Telling
    /// an engine again changes nothing: the first notice holds. There is no way back but a new engine.
    ///
    /// `InboxFull`, `Stopped`: core 0 was not told.
    pub fn drain(&self, notice: Notice) -> Result<(), SendError> {
        self.fabric.outside(0, Control::Drain { notice })
    }

    /// The established peers of all cores. Blocks until every core has answered, at most for `timeout`; on a core thread it answers
    /// `WouldDeadlock` instead.
    pub fn peers(&self, timeout: Duration) -> Result<Vec<PeerSnapshot>, QueryError> {
        let parts = self.ask(0..self.cores(), timeout, Signal::Snapshot)?;
        let reasons: HashMap<NodeId, CloseReason> = parts.iter().flat_map(|part| &part.endings).copied().collect();
        let mut peers: Vec<PeerSnapshot> = parts.into_iter().flat_map(|part| part.peers).collect();
        peers.iter_mut().for_each(|peer| peer.last_reason = reasons.get(&peer.info.node).copied());
        Ok(peers)
    }

    /// Requests to peers that wait for a response, of all cores, as each last published it ([`Counter::PendingRequests`]). Takes no lock,
    /// disturbs no core. [`Handle::peers`] says to whom.
    #[must_use]
    pub fn pending_requests(&self) -> u64 {
        self.stats().get(Counter::PendingRequests)
    }

    /// The histograms of all cores together, since the start; two readings say what was between them. Blocks until every core has answered,
    /// at most for `timeout`; on a core thread it answers `WouldDeadlock` instead. Nothing is in them where [`crate::Metrics::histograms`]
    /// is off.
    ///
    /// Each core copies its own, which takes it about 30 us: for every few seconds, not for every few turns.
    pub fn histograms(&self, timeout: Duration) -> Result<Histograms, QueryError> {
        let parts = self.ask(0..self.cores(), timeout, Signal::Histograms)?;
        let mut sum = Histograms::default();
        parts.iter().for_each(|part| sum.merge(part));
        Ok(sum)
    }

    /// The same of one core. `Stopped` for one that has ended, or that there is not.
    pub fn core_histograms(&self, core: usize, timeout: Duration) -> Result<Histograms, QueryError> {
        let mut parts = self.ask(core..core.saturating_add(1).min(self.cores()), timeout, Signal::Histograms)?;
        parts.pop().map(|part| *part).ok_or(QueryError::Stopped)
    }

    /// Everything that is counted and measured in Prometheus's text format, for an endpoint of the application's own: see
    /// [`prometheus_text`], and the feature `prometheus` for an endpoint that is there. Blocks as [`Handle::histograms`] does; but a core
    /// that does not answer in time, or has ended, has empty histograms, and its counters as it last published them. So the only error is
    /// `WouldDeadlock`.
    pub fn prometheus_text(&self, timeout: Duration) -> Result<String, QueryError> {
        if ON_CORE.get() {
            return Err(QueryError::WouldDeadlock);
        }
        let mut histograms = vec![Histograms::default(); self.cores()];
        self.read_histograms(timeout, &mut histograms);
        Ok(self.exposition(&histograms))
    }

    /// Reads the histograms of all cores that answer; those of the others stay as they are.
    pub(crate) fn read_histograms(&self, timeout: Duration, histograms: &mut [Histograms]) {
        let deadline = Instant::now() + timeout.min(LONGEST_WAIT);
        for (core, histograms) in histograms.iter_mut().enumerate() {
            if let Ok(read) = self.core_histograms(core, deadline.saturating_duration_since(Instant::now())) {
                *histograms = read;
            }
        }
    }

    pub(crate) fn exposition(&self, histograms: &[Histograms]) -> String {
        let stats: Vec<Stats> = (0..self.cores()).map(|core| self.core_stats(core)).collect();
        prometheus_text(&stats, histograms)
    }

    /// What each of these cores answers, those left out that have ended.
    fn ask<T>(&self, cores: Range<usize>, timeout: Duration, question: impl Fn(Sender<T>) -> Signal) -> Result<Vec<T>, QueryError> {
        if ON_CORE.get() {
            return Err(QueryError::WouldDeadlock);
        }
        let deadline = Instant::now() + timeout.min(LONGEST_WAIT);
        let (reply, answers) = bounded(cores.len());
        let alive: Vec<usize> = cores.filter(|&core| !self.fabric.shared.credits[core].is_closed()).collect();
        if alive.is_empty() {
            return Err(QueryError::Stopped);
        }
        alive.iter().for_each(|&core| self.fabric.signal(core, question(reply.clone())));
        drop(reply);
        let answer = |_| {
            answers.recv_deadline(deadline).map_err(|error| match error {
                RecvTimeoutError::Timeout => QueryError::TimedOut,
                RecvTimeoutError::Disconnected => QueryError::Stopped,
            })
        };
        alive.iter().map(answer).collect()
    }

    /// The counters of all cores together, as each last published them. Takes no lock.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        (0..self.cores()).for_each(|core| sum.merge(&self.core_stats(core)));
        sum
    }

    /// The counters of one core; all zero for one that there is not.
    #[must_use]
    pub fn core_stats(&self, core: usize) -> Stats {
        self.fabric.inboxes.get(core).map(|inbox| inbox.stats(core)).unwrap_or_default()
    }
}
