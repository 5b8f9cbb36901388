//! Errors, by who must act.
//!
//! | error | whose | what to do |
//! |---|---|---|
//! | [`DecodeError`], [`Violation`] | the peer's | nothing: it was cut off; upgrade or block it |
//! | [`HandshakeError`], [`DialError`] | the network's or the operator's | check address, network id, versions |
//! | [`CloseReason`] | says how a peer ended, and by whom | |
//! | [`SendError`], [`RequestError`], [`AllowError`] | the caller's | slow down, retry, or drop |
//! | [`ConfigError`], [`StartError`] | the operator's | change the named field |
//!
//! Every rule that a peer can break has one variant, and each variant its own number on the wire and its own counter.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::address::{Address, UnixPath};
use crate::wire::{GoodbyeCode, RefusalCode};

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The length field is over 32,768.
    FrameTooLong {
        /// The length field.
        len: u32,
    },
    /// The kind is not in the table.
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// A flag that must be zero was set.
    UnknownFlags {
        /// The flags byte.
        flags: u8,
    },
    /// A message in the control lane, or a control frame outside it.
    WrongLane {
        /// The kind byte.
        kind: u8,
    },
    /// A length that this kind cannot have.
    WrongLength {
        /// The kind byte.
        kind: u8,
        /// The length field.
        len: u32,
    },
}

/// A rule of the protocol that the peer broke. The peer is told the rule's number and cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are no frame.
    Decode(DecodeError),
    /// A message longer than `Limits::max_message`; nothing was allocated for it.
    MessageTooLong {
        /// The length that the peer announced, in bytes.
        len: u32,
    },
    /// A fragment of a message that had not begun.
    UnexpectedFragment,
    /// A second message in a lane before the first had ended.
    Interleaved,
    /// More bytes than the message's first fragment announced.
    FragmentOverrun,
    /// Fewer bytes than announced, or a fragment without any.
    FragmentShort,
    /// A pong that answers no ping.
    UnsolicitedPong,
    /// A response to a request that was never made.
    UnsolicitedResponse,
    /// More pings than allowed.
    PingFlood,
    /// `Ready` after the handshake.
    UnexpectedReady,
    /// Another frame where the handshake needs `Ready`.
    ExpectedReady,
    /// More acknowledgements than messages that asked for one.
    UnsolicitedAck,
    /// A subscription to one more topic than `Limits::subscriptions`.
    TooManySubscriptions,
    /// A record that its key does not open: it was changed, repeated, left out or put elsewhere on its way.
    RecordNotAuthentic,
    /// A record too short to hold anything.
    RecordTooShort,
    /// A hello, inside an encrypted handshake, that cannot be.
    MalformedHello,
}

impl Violation {
    /// The rule's number in `WIRE.md`, section 6.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Decode(DecodeError::FrameTooLong { .. }) => 1,
            Self::Decode(DecodeError::UnknownKind { .. }) => 2,
            Self::Decode(DecodeError::UnknownFlags { .. }) => 3,
            Self::Decode(DecodeError::WrongLane { .. }) => 4,
            Self::Decode(DecodeError::WrongLength { .. }) => 5,
            Self::MessageTooLong { .. } => 6,
            Self::UnexpectedFragment => 7,
            Self::Interleaved => 8,
            Self::FragmentOverrun => 9,
            Self::FragmentShort => 10,
            Self::UnsolicitedPong => 11,
            Self::UnsolicitedResponse => 12,
            Self::PingFlood => 13,
            Self::UnexpectedReady => 14,
            Self::ExpectedReady => 15,
            Self::UnsolicitedAck => 16,
            Self::TooManySubscriptions => 17,
            Self::RecordNotAuthentic => 18,
            Self::RecordTooShort => 19,
            Self::MalformedHello => 20,
        }
    }
}

impl From<DecodeError> for Violation {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// Which side ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// This engine, its application or one of its limits.
    Local,
    /// The other side, or the network between.
    Remote,
}

/// What made a slow peer too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Slow {
    /// It had more than `Limits::outbox_hard` bytes still to receive; or its socket was full, and so was the core's part of
    /// `Limits::send_bytes`, when something was published for it.
    HardBound,
    /// It stayed over `Limits::outbox_soft` for `Limits::soft_grace`, draining slower than `Limits::min_drain_rate`.
    SoftMark,
    /// The kernel took no byte for it for `Timeouts::write_stall`.
    WriteStall,
    /// It was the one that kept the oldest part of the broadcast log alive when the log reached `Limits::log_bytes`.
    LogFull,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The application closed it.
    Requested,
    /// The engine is shutting down.
    ShuttingDown,
    /// A newer connection of the same node and channel took its place.
    Replaced,
    /// The other side said goodbye.
    Goodbye(GoodbyeCode),
    /// The other side closed its direction without a goodbye.
    Eof,
    /// The network or the kernel ended it.
    Io(io::ErrorKind),
    /// The other side broke a rule.
    Violation(Violation),
    /// The other side read too slowly.
    SlowPeer(Slow),
    /// Nothing was received for `Keepalive::timeout`, or sooner, where [`crate::Keepalive::adaptive`] says so.
    Unresponsive,
    /// A frame or a message began and was not finished in time.
    PartialTimeout,
    /// Reading was paused for longer than `Timeouts::pause`.
    PausedTooLong,
    /// The node was taken off the allow-list: see [`crate::Handle::disallow`].
    NotAllowed,
    /// The handler panicked in a call about it: see [`crate::Handler`]. What was queued for it leaves first.
    HandlerPanicked,
    /// The other side sent more than `Rates::receive` allows, and [`crate::WhenOver::Disconnect`] is what happens then.
    RateLimited,
    /// The pool has closed it: see [`crate::PoolConfig::max_idle`] and [`crate::PoolConfig::max_targets`].
    Idle,
}

impl CloseReason {
    /// Who ended it.
    #[must_use]
    pub const fn initiator(self) -> Initiator {
        match self {
            Self::Goodbye(_) | Self::Eof | Self::Io(_) => Initiator::Remote,
            _ => Initiator::Local,
        }
    }

    /// What the other side is told, and the detail; nothing where it cannot hear or ended it itself.
    pub(crate) const fn goodbye(self) -> Option<(GoodbyeCode, u16)> {
        Some(match self {
            Self::Requested | Self::PartialTimeout | Self::PausedTooLong | Self::Idle | Self::HandlerPanicked => (GoodbyeCode::Closed, 0),
            Self::ShuttingDown => (GoodbyeCode::ShuttingDown, 0),
            Self::Replaced => (GoodbyeCode::Replaced, 0),
            Self::NotAllowed => (GoodbyeCode::NotAllowed, 0),
            Self::RateLimited => (GoodbyeCode::RateLimited, 0),
            Self::Violation(violation) => (GoodbyeCode::Violation, violation.code()),
            Self::SlowPeer(_) => (GoodbyeCode::SlowPeer, 0),
            Self::Unresponsive => (GoodbyeCode::Unresponsive, 0),
            Self::Goodbye(_) | Self::Eof => (GoodbyeCode::Closed, 0),
            Self::Io(_) => return None,
        })
    }
}

/// Why a connection never became a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The other side does not speak this protocol.
    WrongMagic,
    /// This side refused the other.
    Refused(RefusalCode),
    /// The other side refused this one.
    RefusedByPeer(RefusalCode),
    /// The other side took its hello back.
    Goodbye(GoodbyeCode),
    /// The other side broke a rule in the last step.
    Violation(Violation),
    /// It was not finished within `Timeouts::handshake`.
    Timeout,
    /// The other side closed.
    Eof,
    /// The network or the kernel ended it.
    Io(io::ErrorKind),
    /// The node that answered is not the one that was dialled.
    WrongNode,
    /// What the other side sent does not decrypt: it has another network id, network secret or cipher, is not the node that was dialled, or
    /// somebody changed what it sent. These cannot be told apart.
    AuthFailed,
    /// The other side's key is one of the few with which every shared secret is zero. No honest key is.
    WeakKey,
}

/// Why a dial did not end in a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialError {
    /// The connection could not be made.
    Connect(io::ErrorKind),
    /// The connection was made, the handshake failed.
    Handshake(HandshakeError),
    /// There is a connection to that node and channel already; or another dial for that address, channel and identity, whichever node it
    /// means, whether it has led to a connection or still tries.
    Duplicate,
    /// `Limits::max_peers` are connected, the engine has no room for another dial, or the channel's number is not below `Limits::channels`,
    /// here or there.
    Full,
    /// The address is not on loopback, and plaintext is allowed there only.
    PlaintextRemote,
    /// The dial does not say which node it means, and with Noise it has to: see [`crate::Dial::node`].
    NodeRequired,
    /// The node is not on the allow-list, or [`crate::Handler::authorize`] or the other side did not want it.
    NotAllowed,
    /// The dial means the very node that makes it.
    SelfConnection,
    /// The target's circuit breaker is open: it has failed too often of late. See [`crate::BreakerConfig`].
    BreakerOpen {
        /// When it is worth trying again: the end of the cool-down, or the latest end of the probes that are under way.
        retry_in: Duration,
    },
    /// The pool is to connect to a node of which it has been told no address, or has forgotten it: see [`crate::Endpoint`].
    NoAddress,
    /// The pool has as many targets, or calls that wait, as `pool.max_targets`, `pool.waiting` or `pool.waiting_per_target` allows.
    PoolFull,
    /// It was cancelled.
    Cancelled,
    /// The engine is shutting down.
    ShuttingDown,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendError {
    /// No such peer, or not any more.
    NotConnected,
    /// The peer is being closed.
    Closing,
    /// The message is longer than this engine's or that peer's `max_message`.
    TooLong {
        /// Bytes of the body.
        len: usize,
        /// The most that is allowed towards this peer.
        max: usize,
    },
    /// The peer has `Limits::outbox_hard` bytes still to receive.
    OutboxFull,
    /// Broadcasts and publishes of this turn, or those that are not written yet, already take half of `Limits::outbox_hard`, or the copies
    /// of this turn's publishes a quarter of the core's part of `Limits::send_bytes`: nothing was sent to anyone. Go on in a later turn
    /// (a timer of zero length is one).
    LogFull,
    /// As many requests to this peer are pending as `Limits::pending_requests` allows.
    TooManyRequests,
    /// As many topics are subscribed to at this peer as `Limits::subscriptions` allows.
    TooManySubscriptions,
    /// As many acknowledged sends of this core wait for their outcome as `Acks::pending` allows, or their frames take `Acks::bytes`.
    TooManyUnacked,
    /// As many calls of [`crate::Context::connect`] on this core have no answer yet as `pool.waiting` allows.
    TooManyConnects,
    /// The inbox of a core has no room, in messages or in bytes.
    InboxFull {
        /// The core.
        core: usize,
    },
    /// The peer has been sent as much as `Rates::send` allows.
    RateLimited {
        /// After that long the same would be taken, if nothing else is sent meanwhile. [`Duration::MAX`]: never, since the batch costs more
        /// than a bucket holds.
        retry_in: Duration,
    },
    /// The engine has stopped.
    Stopped,
}

/// Why a request has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestError {
    /// It could not be sent, or, for `InboxFull`, the response could not: it came, and the core that had asked had no room for it.
    Send(SendError),
    /// No response came before the deadline.
    TimedOut,
    /// The peer ended before it responded. Whether the request reached it is not known.
    PeerClosed,
    /// A blocking call was made on a core thread, which would wait for itself.
    WouldDeadlock,
}

impl From<SendError> for RequestError {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}

/// Why the allow-list was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AllowError {
    /// The engine is open to everybody (`Admission::Open`): there is no list.
    Open,
    /// There are 1,048,576 nodes on the list.
    Full,
    /// The word did not reach the core that has the list: its inbox has no room, or the engine has stopped.
    Send(SendError),
}

/// Why a blocking question to the cores has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueryError {
    /// The call was made on a core thread, which would wait for itself.
    WouldDeadlock,
    /// A core did not answer in time.
    TimedOut,
    /// The engine has stopped.
    Stopped,
}

/// A configuration that cannot work: which field, which value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The field, as a path: `limits.outbox_hard`.
    pub field: &'static str,
    /// The value that was found; `None` where the field is not set, has to be left out, or is no number. Times are in whole
    /// milliseconds, rounded down.
    pub value: Option<u64>,
    /// What is allowed, and why.
    pub expected: &'static str,
    /// The bound that the value missed, where it is one number.
    pub bound: Option<u64>,
    /// What both are counted in, where `expected` does not say it: `ms` for times; empty otherwise.
    pub unit: &'static str,
}

/// Why an engine did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A field of the configuration cannot work.
    Config(ConfigError),
    /// A listening socket could not be opened.
    Listen {
        /// The address, from `Config::listen`.
        address: Address,
        /// What the kernel said. `AddrInUse`: somebody listens there.
        source: io::Error,
    },
    /// Where a Unix-domain socket was to be made is something that is none: a file, a directory, a symbolic link. It was not touched.
    NotASocket {
        /// The path, from `Config::listen`.
        path: UnixPath,
    },
    /// The process may open fewer files than `limits.max_peers`, `limits.max_half_open` and 64 others need, and its limit cannot be raised.
    FileLimit {
        /// How many it may open.
        limit: u64,
        /// How many are needed.
        needed: u64,
    },
    /// A thread, poll or waker could not be made.
    Core {
        /// The core.
        core: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameTooLong { len } => write!(f, "a frame of {len} bytes is longer than 32768"),
            Self::UnknownKind { kind } => write!(f, "frame kind {kind} is not known"),
            Self::UnknownFlags { flags } => write!(f, "frame flags {flags:#04x} are not known"),
            Self::WrongLane { kind } => write!(f, "a frame of kind {kind} does not belong in its lane"),
            Self::WrongLength { kind, len } => write!(f, "a frame of kind {kind} cannot have {len} bytes"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::MessageTooLong { len } => write!(f, "a message of {len} bytes is longer than this side accepts"),
            Self::UnexpectedFragment => f.write_str("a fragment came without a beginning"),
            Self::Interleaved => f.write_str("a message began before the one before it in its lane had ended"),
            Self::FragmentOverrun => f.write_str("fragments have more bytes than announced"),
            Self::FragmentShort => f.write_str("fragments have fewer bytes than announced"),
            Self::UnsolicitedPong => f.write_str("a pong came without a ping"),
            Self::UnsolicitedResponse => f.write_str("a response came without a request"),
            Self::PingFlood => f.write_str("too many pings"),
            Self::UnexpectedReady => f.write_str("a Ready frame came after the handshake"),
            Self::ExpectedReady => f.write_str("another frame came where Ready was expected"),
            Self::UnsolicitedAck => f.write_str("an acknowledgement came for nothing that was sent"),
            Self::TooManySubscriptions => f.write_str("more topics than limits.subscriptions"),
            Self::RecordNotAuthentic => f.write_str("a record was not sealed by the peer, or not as the next one"),
            Self::RecordTooShort => f.write_str("a record is too short to hold anything"),
            Self::MalformedHello => f.write_str("the hello has a field that cannot be"),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("closed by the application"),
            Self::ShuttingDown => f.write_str("the engine is shutting down"),
            Self::Replaced => f.write_str("replaced by a newer connection of the same node and channel"),
            Self::Goodbye(code) => write!(f, "the peer said goodbye: {code:?}"),
            Self::Eof => f.write_str("the peer closed without a goodbye"),
            Self::Io(kind) => write!(f, "connection lost: {kind}"),
            Self::Violation(violation) => write!(f, "the peer broke the protocol: {violation}"),
            Self::SlowPeer(slow) => write!(f, "the peer reads too slowly: {slow:?}"),
            Self::Unresponsive => {
                f.write_str("the peer sent nothing for keepalive.timeout, or did not answer keepalive.adaptive.probes pings")
            }
            Self::PartialTimeout => f.write_str("the peer began a message and did not finish it in time"),
            Self::PausedTooLong => f.write_str("reading was paused for longer than timeouts.pause"),
            Self::NotAllowed => f.write_str("the node was taken off the allow-list"),
            Self::HandlerPanicked => f.write_str("the handler panicked in a call about it"),
            Self::RateLimited => f.write_str("the peer sent more than rates.receive allows"),
            Self::Idle => f.write_str("closed by the pool, which did not need it any more"),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongMagic => f.write_str("the other side does not speak this protocol"),
            Self::Refused(code) => write!(f, "refused: {code:?}"),
            Self::RefusedByPeer(code) => write!(f, "the other side refused: {code:?}"),
            Self::Goodbye(code) => write!(f, "the other side withdrew: {code:?}"),
            Self::Violation(violation) => violation.fmt(f),
            Self::Timeout => f.write_str("not finished within timeouts.handshake"),
            Self::Eof => f.write_str("the other side closed"),
            Self::Io(kind) => write!(f, "connection lost: {kind}"),
            Self::WrongNode => f.write_str("another node answered than the one that was dialled"),
            Self::AuthFailed => f.write_str("not authentic: another node id, network id or network secret, or changed on the way"),
            Self::WeakKey => f.write_str("the other side's key makes every shared secret zero"),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(io::ErrorKind::NotFound) => f.write_str("could not connect: there is no such socket file"),
            Self::Connect(kind) => write!(f, "could not connect: {kind}"),
            Self::Handshake(error) => write!(f, "handshake failed: {error}"),
            Self::Duplicate => f.write_str("there is a connection to that node, or another dial for that address, on that channel already"),
            Self::Full => f.write_str("no room for another peer; raise limits.max_peers (or limits.channels, for a channel beyond those)"),
            Self::PlaintextRemote => {
                f.write_str("neither a loopback nor a unix: address: plaintext elsewhere needs Security::Plaintext { allow_remote: true }")
            }
            Self::NodeRequired => f.write_str(
                "which node is meant? with Noise a dial is NodeId@host:port or NodeId@unix:PATH (Dial::node), and the pool's too",
            ),
            Self::NotAllowed => f.write_str("the node is not allowed, on this side or on the other"),
            Self::SelfConnection => f.write_str("the node that is dialled is the one that dials"),
            Self::BreakerOpen { retry_in } => write!(f, "the target has failed too often of late; try again in {retry_in:?}"),
            Self::NoAddress => {
                f.write_str("where is that node? the pool has been told no address, or has forgotten it; connect to (node, address)")
            }
            Self::PoolFull => f.write_str("no room in the pool; raise pool.max_targets, pool.waiting or pool.waiting_per_target"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::ShuttingDown => f.write_str("the engine is shutting down"),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => f.write_str("no such peer, or not any more"),
            Self::Closing => f.write_str("the peer is being closed"),
            Self::TooLong { len, max } => write!(f, "a message of {len} bytes is longer than the {max} this peer takes"),
            Self::OutboxFull => f.write_str("the peer has limits.outbox_hard bytes still to receive"),
            Self::LogFull => {
                f.write_str("broadcasts and publishes of this turn, or not written yet, are as many as may be; go on in a later turn")
            }
            Self::TooManyRequests => f.write_str("limits.pending_requests requests to this peer are pending"),
            Self::TooManySubscriptions => f.write_str("limits.subscriptions topics are subscribed to at this peer"),
            Self::TooManyUnacked => {
                f.write_str("acks.pending sends, acks.answers of their peers or acks.bytes of their frames are not acknowledged yet")
            }
            Self::TooManyConnects => f.write_str("pool.waiting calls of connect on this core have no answer yet"),
            Self::InboxFull { core } => {
                write!(f, "the inbox of core {core} is full; slow down, or raise limits.inbox_messages or limits.inbox_bytes")
            }
            Self::RateLimited { retry_in: Duration::MAX } => f.write_str("the batch costs more than rates.send ever has at once"),
            Self::RateLimited { retry_in } => write!(f, "as much as rates.send allows was sent to this peer; again in {retry_in:?}"),
            Self::Stopped => f.write_str("the engine has stopped"),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => write!(f, "not sent: {error}"),
            Self::TimedOut => f.write_str("no response before the deadline"),
            Self::PeerClosed => f.write_str("the peer ended before it responded"),
            Self::WouldDeadlock => f.write_str("a blocking call on a core thread would wait for itself; use Context::request"),
        }
    }
}

impl fmt::Display for AllowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("the engine is open to everybody: start it with Admission::AllowList to have a list"),
            Self::Full => f.write_str("there are 1048576 nodes on the list; take some off"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldDeadlock => f.write_str("a blocking call on a core thread would wait for itself"),
            Self::TimedOut => f.write_str("a core did not answer in time"),
            Self::Stopped => f.write_str("the engine has stopped"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, expected, unit, .. } = self;
        let space = if unit.is_empty() { "" } else { " " };
        match self.value {
            Some(value) => write!(f, "{field} is {value}{space}{unit}, but must be {expected}")?,
            None => write!(f, "{field} must be {expected}")?,
        }
        match self.bound {
            Some(bound) => write!(f, " (the bound is {bound}{space}{unit})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Listen { address, source } => write!(f, "config.listen: cannot listen on {address}: {source}"),
            Self::NotASocket { path } => {
                write!(f, "config.listen: {path} exists and is not a socket, so it is not replaced; move it away, or listen elsewhere")
            }
            Self::FileLimit { limit, needed } => write!(
                f,
                "limits.max_peers and limits.max_half_open need {needed} files, but the process may open {limit}; \
                 raise that (ulimit -Hn, LimitNOFILE= of systemd) or lower them"
            ),
            Self::Core { core, source } => write!(f, "core {core} could not be set up: {source}"),
        }
    }
}

impl std::error::Error for DecodeError {}
impl std::error::Error for Violation {}
impl std::error::Error for CloseReason {}
impl std::error::Error for HandshakeError {}
impl std::error::Error for DialError {}
impl std::error::Error for SendError {}
impl std::error::Error for RequestError {}
impl std::error::Error for AllowError {}
impl std::error::Error for QueryError {}
impl std::error::Error for ConfigError {}
impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::NotASocket { .. } | Self::FileLimit { .. } => None,
            Self::Listen { source, .. } | Self::Core { source, .. } => Some(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_that_failed_says_what_to_do() {
        let says = |error: DialError, words: &[&str]| {
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        says(DialError::Duplicate, &["connection to that node", "another dial for that address", "channel"]);
        says(DialError::NoAddress, &["has forgotten it", "connect to (node, address)"]);
        says(DialError::NodeRequired, &["NodeId@host:port", "the pool's too"]);
        says(DialError::Connect(io::ErrorKind::NotFound), &["no such socket file"]);
        says(DialError::PoolFull, &["raise pool.max_targets, pool.waiting or pool.waiting_per_target"]);
    }
}
