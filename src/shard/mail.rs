//! What cores and threads say to a core.

use std::sync::Arc;
use std::time::Duration;

use super::blame::Fault;
use super::parting::Parting;
use super::places::{Seat, Ticket};
use crate::dial::Dial;
use crate::endpoint::{BreakerState, Endpoint};
use crate::error::{CloseReason, DialError, RequestError};
use crate::id::{DialId, NodeId, PeerId, Topic};
use crate::notice::Notice;
use crate::proto::{Delivery, Ledger, Origin, RequestTimeout};
use crate::receipt::{AckFailure, AckId};
use crate::time::Timestamp;
use crate::wire::{Frame, Meta, RefusalCode};

/// Messages on their way: bounded by credit, refused at the source.
#[derive(Debug)]
pub(crate) enum Mail {
    Send {
        peer: PeerId,
        frame: Frame,
        notify: Option<u64>,
    },
    SendBatch {
        peer: PeerId,
        frames: Box<[Frame]>,
    },
    Broadcast {
        frame: Frame,
        except: Option<PeerId>,
    },
    BroadcastBatch {
        frames: Arc<[Frame]>,
    },
    Publish {
        topic: Topic,
        frame: Frame,
    },
    /// Subscribe at a peer, or (`wanted` is false) unsubscribe.
    Subscribe {
        peer: PeerId,
        topic: Topic,
        wanted: bool,
    },
    Request {
        peer: PeerId,
        meta: Meta,
        body: Box<[u8]>,
        timeout: RequestTimeout,
        origin: Origin,
    },
    Respond {
        peer: PeerId,
        correlation: u64,
        meta: Meta,
        body: Box<[u8]>,
    },
    SendAcked {
        peer: PeerId,
        delivery: Delivery,
    },
    BroadcastAcked {
        delivery: Delivery,
    },
    Ack(AckId),
    /// To the directory: a connection of the pool is wanted, and, if `pin`, to be kept.
    Connect {
        endpoint: Box<Endpoint>,
        origin: Origin,
        pin: bool,
    },
    /// To the directory: the pool need not keep connections to this target any more.
    Unpin {
        endpoint: Box<Endpoint>,
    },
    /// To the directory: a message for a node, connected or not.
    Route {
        node: NodeId,
        channel: u16,
        delivery: Delivery,
    },
}

impl Mail {
    /// Bytes that the mail is charged while it is queued.
    pub(crate) fn cost(&self) -> usize {
        let frames = |frames: &[Frame]| frames.iter().map(|frame| frame.as_bytes().len() + size_of::<Frame>()).sum();
        match self {
            Self::Send { frame, .. } | Self::Broadcast { frame, .. } | Self::Publish { frame, .. } => frame.as_bytes().len(),
            Self::SendBatch { frames: batch, .. } => frames(batch),
            Self::BroadcastBatch { frames: batch } => frames(batch),
            Self::Subscribe { .. } => size_of::<Topic>(),
            Self::SendAcked { delivery, .. } | Self::BroadcastAcked { delivery } => delivery.frame.as_bytes().len(),
            Self::Route { delivery, .. } => delivery.frame.as_bytes().len(),
            Self::Connect { endpoint, .. } | Self::Unpin { endpoint } => endpoint.memory(),
            Self::Ack(_) => 0,
            Self::Request { body, .. } | Self::Respond { body, .. } => body.len(),
        }
    }
}

/// A half-open connection of some core. The serial number makes it harmless after the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfRef {
    pub(crate) core: usize,
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

/// A connection that asks the directory whether it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) half: HalfRef,
    /// Which node this side is on it: a dial may have an identity of its own.
    pub(crate) ours: NodeId,
    pub(crate) node: NodeId,
    pub(crate) instance: u64,
    pub(crate) channel: u16,
    /// The dial that this connection comes from; `None` where the other side dialled.
    pub(crate) dial: Option<DialId>,
}

/// A message that has left the receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) meta: Meta,
    pub(crate) body: Vec<u8>,
}

impl Control {
    /// Whether it ends a peer or the engine: then what was sent before it goes first.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self, Self::Close { .. } | Self::Shutdown)
    }
}

/// What keeps connections in order. Never refused: each is bounded by connections, dials, pending requests, or acknowledged sends
/// times the peers that they went to.
#[derive(Debug)]
pub(crate) enum Control {
    // To the directory.
    Ask(Ask),
    /// The connection that had this grant is over. `failed`: it never became a peer.
    Ended {
        grant: u64,
        failed: Option<(DialError, Fault)>,
        parting: Parting,
    },
    /// The connection that has this grant is this peer. Said anew where the pool's wish to close it comes when it is in use again.
    Established {
        grant: u64,
        peer: PeerId,
    },
    /// The peer that has this grant is being closed: nobody is to be sent there any more. `fruitless`: it has proved nothing, and that is
    /// its own fault.
    Closing {
        grant: u64,
        fruitless: bool,
    },
    /// The first message has come from the peer that has this grant, its first ping, or its first answer to one. Of those that this side
    /// has dialled.
    Proven {
        grant: u64,
    },
    /// No message has come from, or gone to, the peer that has this grant and that the pool has dialled for `pool.max_idle`.
    Idle {
        grant: u64,
    },
    /// A peer that the pool has dialled is over its soft mark; or below it again.
    Pressed {
        grant: u64,
        pressed: bool,
    },
    /// A connection of the pool is wanted; see [`Mail::Connect`].
    Connect {
        endpoint: Box<Endpoint>,
        origin: Origin,
        pin: bool,
    },
    /// See [`Mail::Unpin`].
    Unpin {
        endpoint: Box<Endpoint>,
    },
    /// A connection with this node has ended, for this reason.
    Over {
        node: NodeId,
        reason: CloseReason,
    },
    /// What is open of the connection that has this grant and is over, or could not begin: it is for the next one.
    Ledger {
        grant: u64,
        ledger: Box<Ledger>,
    },
    /// The connection that had this grant takes nothing any more: its successor may begin.
    Yielded {
        grant: u64,
    },
    /// See [`Mail::Route`]: within the directory's own core.
    Route {
        node: NodeId,
        channel: u16,
        delivery: Delivery,
    },
    /// The connection that has this grant took nothing any more when `Deliver` came.
    Undelivered {
        grant: u64,
        node: NodeId,
        channel: u16,
        delivery: Delivery,
    },
    /// An attempt failed before it had a grant. `asked_ms`: the other side asked for so long until the next one; zero: it did not.
    AttemptFailed {
        dial: DialId,
        error: DialError,
        fault: Fault,
        parting: Parting,
    },
    Dial {
        id: DialId,
        dial: Dial,
        home: usize,
    },
    CancelDial {
        id: DialId,
    },
    /// The node may be a peer from now on; or not any more.
    Allow {
        node: NodeId,
    },
    Disallow {
        node: NodeId,
    },
    /// The core's thread has ended before its time.
    CoreLost {
        core: usize,
    },

    // From the directory.
    Granted {
        half: HalfRef,
        grant: u64,
        /// What the connections before it have left.
        ledger: Option<Box<Ledger>>,
    },
    Denied {
        half: HalfRef,
        code: RefusalCode,
    },
    /// Close the connection that has this grant: another one takes its place, as soon as this is answered with `Yielded`.
    Replace {
        grant: u64,
    },
    /// Cut the connection that has this grant: its node may not be a peer any more.
    Cut {
        grant: u64,
    },
    /// Give up the attempt that is made for this dial: the node that it means may not be a peer any more; or (`expired`) it was a probe and
    /// has taken too long.
    EndAttempt {
        dial: DialId,
        expired: bool,
    },
    /// Close a peer that the pool does not need any more: unless it is in use again, or `at_once`.
    CloseIdle {
        grant: u64,
        peer: PeerId,
        at_once: bool,
    },
    /// What became of a connect.
    Pooled {
        origin: Origin,
        result: Result<PeerId, DialError>,
    },
    /// The breaker of a target has come into another state.
    Breaker {
        endpoint: Box<Endpoint>,
        state: BreakerState,
    },
    /// Send this to the peer that has this grant. It has taken room in the core's inbox.
    Deliver {
        grant: u64,
        node: NodeId,
        channel: u16,
        delivery: Delivery,
    },
    /// Boxed, since it would make all others longer.
    Attempt {
        id: DialId,
        dial: Box<Dial>,
        ticket: Ticket,
    },
    DialFailed {
        id: DialId,
        error: DialError,
        retry_in: Option<Duration>,
    },

    // From the gate.
    /// Close this connection if it is still in its handshake: its place is another's.
    Evict {
        seat: Arc<Seat>,
    },

    // From any core or handle.
    Close {
        peer: PeerId,
        reason: CloseReason,
    },
    /// The outcome of a request that a handler of this core made to a peer of another.
    Answer {
        peer: PeerId,
        tag: u64,
        result: Result<Owned, RequestError>,
    },
    /// An answer to an acknowledged send of that core. `at`: when it came.
    Answered {
        id: u64,
        node: Option<NodeId>,
        at: Timestamp,
        result: Result<(), AckFailure>,
    },
    /// A core has sent a broadcast that is to be acknowledged to so many of its peers.
    Reached {
        id: u64,
        peers: usize,
    },
    /// To core 0: the engine is to go.
    Drain {
        notice: Notice,
    },
    /// From there: it goes, at the latest at that time.
    Land {
        notice: Notice,
        at: Timestamp,
    },
    Shutdown,
}
