//! What an application is told of its peers and their messages, and what it gets in hand: what [`Handler`](crate::Handler) is called with.

use std::time::Duration;

use crate::address::{Address, Credentials};
use crate::codec::{CodecError, Typed};
use crate::id::{DialId, NodeId, PeerId};
use crate::receipt::AckId;
use crate::wheel::TimerKey;
use crate::wire::{Kind, Lane, Meta};

/// A received message. The body is still in the core's receive buffer: copy what has to outlive the call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Message<'a> {
    /// Type and lane, as the sender gave them.
    pub meta: Meta,
    /// The bytes between the headers: what the sender handed over.
    pub body: &'a [u8],
    kind: Kind,
    /// Who is to be sent which acknowledgement, where the application says when.
    ack: Option<(PeerId, u64)>,
}

impl<'a> Message<'a> {
    #[inline]
    pub(crate) fn new(kind: Kind, meta: Meta, body: &'a [u8]) -> Self {
        Self { meta, body, kind, ack: None }
    }

    pub(crate) fn with_ack(self, peer: PeerId, id: Option<u64>) -> Self {
        Self { ack: id.map(|id| (peer, id)), ..self }
    }

    /// Whether the sender is told that this message was taken: by itself when `on_message` has returned, unless there is an `ack_id`.
    #[must_use]
    pub fn requires_ack(&self) -> bool {
        self.kind == Kind::Acked
    }

    /// What to acknowledge it with, for the types in [`crate::Acks::by_handler`]; `None` for all others.
    #[must_use]
    pub fn ack_id(&self) -> Option<AckId> {
        self.ack.map(|(peer, id)| AckId { peer, id })
    }

    /// Whether it answers a request.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.kind == Kind::Response
    }

    /// Whether it came in the high lane.
    #[must_use]
    pub fn is_high_priority(&self) -> bool {
        self.meta.lane == Lane::High
    }

    /// The application's message type.
    #[must_use]
    pub fn message_type(&self) -> u16 {
        self.meta.message_type
    }

    /// Decodes the body with the codec of `M`. Does not look at the message type: match on that first.
    pub fn decode<M: Typed>(&self) -> Result<M, CodecError> {
        M::decode(self.body)
    }
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// This engine.
    Dialled,
    /// The other side.
    Accepted,
}

/// What is known about a peer from its handshake on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Who the other side says it is: proved if `authenticated`, a mere claim otherwise.
    pub node: NodeId,
    /// Whether the claim was proved. Never in plaintext.
    pub authenticated: bool,
    /// A number that the other side drew when it started: it changes when the node restarts.
    pub instance: u64,
    /// The channel that the dialler chose: a node can have one connection on each.
    pub channel: u16,
    /// Where it is: the other end's IP address and port. The dialling end of a Unix-domain socket has no address of its own, so on both
    /// sides it is the path of the socket that was dialled.
    pub address: Address,
    /// Who opened the connection.
    pub direction: Direction,
    /// The dial that led to it.
    pub dial: Option<DialId>,
    /// The longest message that the other side takes, bytes.
    pub max_message: usize,
    /// Whether the other side can be told ahead that this one will go ([`crate::Handle::drain`]).
    pub takes_notice: bool,
    /// In a box, since most peers have none.
    pub(crate) credentials: Option<Box<Credentials>>,
}

impl PeerInfo {
    /// Whose process opened the other end of a Unix-domain socket, as the kernel says. `None` for TCP, and on systems other than Linux.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        self.credentials.as_deref().copied()
    }
}

/// The right to answer one request, once. Keep it as long as needed; the requester's deadline is running.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the requester waits for the response until its deadline"]
pub struct Responder {
    pub(crate) peer: PeerId,
    pub(crate) correlation: u64,
}

impl Responder {
    /// Who asked.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

/// Where a message stands that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// In the peer's outbox; it leaves at the end of the turn.
    Queued,
    /// In the peer's outbox, which now has more than `Limits::outbox_soft` bytes: wait for `on_drained` before sending much more.
    Backpressure,
    /// On its way to the peer's core, where it may still be refused; that is counted there.
    Forwarded,
}

/// How far a slow peer is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Bytes that it has still to receive.
    pub bytes: usize,
    /// For how long there has been something that its socket did not take at once. Zero: it takes what it is given, and what waits has
    /// only just been sent to it.
    pub age: Duration,
    /// Messages that its lanes' [`crate::WhenSlow`] dropped since the last report: all reports of a time over the mark together say all.
    pub dropped: u64,
}

/// What a peer sent beyond [`crate::Rates::receive`] and was dropped for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimited {
    /// Messages, each counted once, whatever its type costs.
    pub messages: u64,
    /// Bytes of the frames that came over the limit, headers included.
    pub bytes: u64,
}

/// A timer of this core's handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    pub(super) core: usize,
    pub(super) key: TimerKey,
}
