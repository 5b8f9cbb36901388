//! What an engine is told before it starts.
//!
//! Every field says what it means, its unit, its default and why, and what happens at the limit. [`Config::validate`] checks the
//! relations between them; [`crate::Engine::start`] calls it and names the field that cannot work.

mod adaptive;
mod addresses;
mod breaker;
mod lanes;
mod limits;
mod metrics;
mod pool;
mod rates;
mod restarts;
mod security;

use std::time::Duration;

pub use adaptive::AdaptiveKeepalive;
pub use addresses::{Addresses, ParseSubnetError, Rate, Subnet};
pub use breaker::BreakerConfig;
pub use lanes::{LaneConfig, Lanes, WhenSlow};
pub use limits::Limits;
pub use metrics::Metrics;
pub use pool::PoolConfig;
pub use rates::{RateLimit, Rates, WhenOver};
pub use restarts::Restarts;
pub use security::{Admission, Cipher, Noise, Security};

use crate::address::Address;
use crate::error::ConfigError;
use crate::id::{NetworkId, NodeId, PeerId};
use crate::identity::Identity;
use crate::proto::reassembly_charge;
use crate::wire::{HEADER_LEN, MAX_FRAME_PAYLOAD, MAX_MESSAGE, MIN_FRAGMENT, message_wire_len};

/// Everything an engine is told. Begin with [`Config::secure`] and change fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How connections are protected. Default: Noise, which needs our key pair. Plaintext has to be asked for.
    pub security: Security,
    /// Who may connect. There is no default: it has to be said, or the engine does not start.
    pub admission: Option<Admission>,
    /// What each source address may ask for before anybody has proved anything.
    pub addresses: Addresses,
    /// Both sides of a connection must have the same. Default: all zero.
    pub network: NetworkId,
    /// The name that this engine claims in plaintext, where nobody can check it. Default: drawn at random at each start. With Noise it has
    /// to be left out, since the name is the public key.
    pub node: Option<NodeId>,
    /// Where to listen. Port 0 takes a free one: see [`crate::Engine::local_addrs`]. Default: nowhere, the engine only dials.
    ///
    /// A Unix-domain socket is a file with the mode [`Io::unix_mode`], which is removed when the engine stops listening. One that is left
    /// from a process that is gone is replaced. Where somebody listens already, or where something is that is no socket (a symbolic link,
    /// too), the engine does not start ([`crate::StartError::Listen`], [`crate::StartError::NotASocket`]) and touches nothing.
    pub listen: Vec<Address>,
    /// How many cores, and whether they are pinned. Default: one, not pinned.
    pub cores: Cores,
    /// Bounds on messages, peers and memory.
    pub limits: Limits,
    /// How the lanes share a connection, which types go into which, and what a slow reader loses.
    pub lanes: Lanes,
    /// How silence is told from death.
    pub keepalive: Keepalive,
    /// How long each thing may take.
    pub timeouts: Timeouts,
    /// How dialling is retried.
    pub backoff: BackoffConfig,
    /// When a target is not dialled any more for a while.
    pub breaker: BreakerConfig,
    /// The connection pool.
    pub pool: PoolConfig,
    /// Acknowledged sends.
    pub acks: Acks,
    /// How often a handler may panic.
    pub restarts: Restarts,
    /// The flight recorder: how many of the last events of each peer its core keeps, for [`crate::Context::flight`]. Default 0: none, at no
    /// cost but a comparison for each message and each write. One more puts out the oldest. Each takes 24 bytes, all of them from
    /// when the peer is established: noting one allocates nothing. At most 65,536.
    pub recorder: usize,
    /// How much each peer may send and be sent. Default: none, as much as the other limits allow.
    pub rates: Option<Rates>,
    /// Sockets, buffers and waiting.
    pub io: Io,
    /// What each core measures of itself.
    pub metrics: Metrics,
    /// Where the engine's randomness begins (jitter, instance number, node id). Default: drawn from the system. Set it to replay a run.
    pub seed: Option<u64>,
}

/// The threads of the engine. Each core is one thread with its own event loop, peers and memory.
///
/// More than there are processors, two on one processor or on two hyperthreads of one, and a limit on processor time are warned of:
/// [`crate::Warning`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// So many threads, placed by the kernel's scheduler. The default is one: an embedding program should decide on pinning itself,
    /// and two engines that pin themselves to the same processor halve each other.
    Unpinned(usize),
    /// One thread on each of these processors (the kernel's numbers). A processor that cannot be had is reported by
    /// [`crate::Engine::warnings`], and its core runs unpinned.
    Pinned(Vec<usize>),
}

impl Cores {
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Unpinned(count) => *count,
            Self::Pinned(list) => list.len(),
        }
    }
}

/// How silence is told from death. Both sides of a connection do this, each by its own configuration.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Keepalive {
    /// A ping is sent to a peer from which nothing came for so long. Default 5 s. Not shorter than `max_pings_per_second` allows: the other
    /// side is taken to allow the same, and would cut this one off.
    pub interval: Duration,
    /// A peer from which nothing came for so long is cut off (`Unresponsive`). Default 15 s. At least twice `interval`.
    pub timeout: Duration,
    /// Pings that a peer may send, a second. Default 4. More, past the burst, is a violation (`PingFlood`).
    pub max_pings_per_second: u32,
    /// Pings that may come at once. Default 8.
    pub ping_burst: u32,
    /// Give a silent peer up sooner than at `timeout` where its round trips are known. Default: none, only at `timeout`. A peer may stand
    /// still for as long as its application pauses reading, 10 s by default: who knows that none does for so long loses nothing by this.
    pub adaptive: Option<AdaptiveKeepalive>,
}

/// How long each thing may take. Each has an end, so that nothing is held for ever.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// From connect or accept to an established peer. Default 5 s, and no byte extends it.
    pub handshake: Duration,
    /// A dial's TCP connect. Default 5 s.
    pub connect: Duration,
    /// Bytes are waiting for a peer and the kernel took none. Default 10 s, then `SlowPeer(WriteStall)`.
    pub write_stall: Duration,
    /// A frame or message that began, plus the time its length takes at 64 KiB/s. Default 10 s, then `PartialTimeout`.
    pub partial: Duration,
    /// Reading paused by the handler or for lack of memory. Default 10 s, then `PausedTooLong`: two sides that have both stopped reading
    /// would otherwise hold each other for ever. A side that does not read answers no pings, so a longer pause has to fit into the
    /// other side's `Keepalive::timeout`.
    pub pause: Duration,
    /// From goodbye to the end of the socket: the other side's chance to read what was sent. Default 2 s.
    pub linger: Duration,
    /// What a shutdown gives the outboxes. Default 5 s.
    pub drain: Duration,
    /// Shortest wait of requests with [`crate::RequestTimeout::Adaptive`]. Default 1 s, as RFC 6298 (2.4) has it; lower where a retry costs
    /// less than the wait. At least 10 ms.
    pub request_floor: Duration,
    /// Their longest, and as long as the peer has not responded to anything yet. Default 10 s. At least `request_floor`.
    pub request_ceiling: Duration,
}

/// How dialling is retried: the wait doubles from `min` to `max`, and the actual wait is uniform in between ("full jitter"). It is back at
/// `min` when the other side's first message, ping, or answer to one has come: not when it has merely accepted.
///
/// By why the connection ended or was refused, by either side, the first step is longer than `min`, but never than `max`: 1 s where the
/// other side shuts down, or there is another connection of this node and channel; 5 s where the other side is full, one was too slow for
/// the other or sent it too much, or this side's handler panicked over the peer; and `max` at once where nothing will change by itself, as
/// with a violation, another network, or a node that is not allowed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackoffConfig {
    /// First wait. Default 50 ms.
    pub min: Duration,
    /// Longest wait. Default 30 s.
    pub max: Duration,
    /// Longest wait for nodes on the allow-list, which are meant to be there. Default 1 s. Not longer than `max`, nor shorter than
    /// `min`, whatever it says.
    pub max_allowed: Duration,
    /// Longest time for which the other side may ask not to be dialled again, when it goes ([`crate::Handle::drain`]) or refuses. Default
    /// 60 s: a restart fits into it, and nobody is sent away for ever by a word. What is asked for beyond it counts as that (`delays_cut`).
    /// An attempt that it delays (`delays_heeded`) comes after once to twice as long, and not sooner than it would come anyway. Zero: what
    /// the other side asks for is not heeded. With Noise, what is asked for in the clear, before anybody has proved anything, counts as
    /// `max` at most.
    pub max_asked: Duration,
}

/// Acknowledged sends, from both sides: what this engine sends, and what it takes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Acks {
    /// Acknowledged sends of each core that have no outcome yet. Default 1,024. One more is refused (`TooManyUnacked`). Also how many
    /// acknowledgements the application may owe one peer (see `by_handler`): what comes beyond that is neither handed over nor
    /// acknowledged (`acked_dropped`), so that it expires at the sender instead of waiting here without a bound. Reading goes on.
    pub pending: usize,
    /// Acknowledgements that those sends await or have, of each core: one for a single target, for a broadcast as many as it goes to.
    /// Default 65,536: 64 broadcasts to 1,000 peers. One more is refused (`TooManyUnacked`); a broadcast alone never is. On several
    /// cores a broadcast counts as one to `Limits::max_peers` and `max_half_open` together, until the others have said to how many it
    /// went, a turn later. Each costs about a kilobyte at the worst: half of it while its acknowledgement is on its way between cores.
    pub answers: usize,
    /// Frames of those sends, each core, bytes. Default 16 MiB + 64 KiB: the longest message that there is, with its headers. At least one
    /// of `Limits::max_message`. One more is refused (`TooManyUnacked`). They
    /// are kept, wherever they are, until the outcome is known.
    pub bytes: usize,
    /// Ids of messages that are remembered for each connection, so that one that comes again is not handed over again. Default 4,096;
    /// 16 bytes each while the connection lives, 8 while it is gone. It suppresses every repetition as long as the *other* side has
    /// no more than this outstanding towards this node: its `pending`, times its cores if all of them send here. Not less than this
    /// side's `pending`. A peer that leaves so many acknowledgements unread is cut off (`SlowPeer(HardBound)`), or, while there is no
    /// memory for more (`Limits::send_bytes`), one that leaves `pending` unread. At most 1,048,576: ids that a peer makes up cost a move
    /// of half of them.
    pub window: usize,
    /// How long that is remembered after the connection has ended. Default 60 s. Messages that are not acknowledged are kept until their
    /// own deadline. Of at most `Limits::max_peers` ended connections; one more puts out the oldest, those first that keep no message.
    pub retain: Duration,
    /// Message types that the application acknowledges itself, with `Context::ack`: at once, later, or never. All others are acknowledged
    /// when `on_message` has returned. Default: none.
    pub by_handler: Vec<u16>,
}

/// How long a core looks for work before it goes to sleep.
///
/// A core that sleeps is woken by the kernel, which takes 10 to 20 us; one that still looks is there at once. Looking costs the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spin {
    /// How long, from when the last message and what it has set off are done. Zero: not at all. Default 100 us.
    pub window: Duration,
    /// Spin although there are fewer processors than cores + 1, or a CPU quota, and do not shrink the window when looking was in vain.
    /// Default false.
    pub forced: bool,
}

/// Sockets, buffers and waiting.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Io {
    /// How long a core looks for work before it sleeps.
    pub spin: Spin,
    /// The receive buffer of each core, bytes. Default 256 KiB: one read of a fast peer. 64 KiB measured worst for 16 KiB messages.
    pub receive_buffer: usize,
    /// Most that is read from one peer in one turn before the others have theirs, bytes. Default 256 KiB.
    pub read_budget: usize,
    /// Most that is written to one peer in one turn, bytes. Default 256 KiB.
    pub write_budget: usize,
    /// Peers that are written to before the core looks for input again. Default 512.
    pub flush_peers: usize,
    /// Time that writing may take before the core looks for input again. Default 1 ms.
    pub flush_time: Duration,
    /// Readiness events taken from the kernel at once. Default 1,024.
    pub events: usize,
    /// Connections accepted in one turn. Default 16.
    pub accepts: usize,
    /// Steps of encrypted handshakes that a core computes in one turn. Default 8. One takes about 100 us, so that established peers wait
    /// for strangers for less than a millisecond. What comes beyond that waits for the next turn (`handshakes_deferred`).
    pub handshakes: usize,
    /// `SO_SNDBUF` of each connection, bytes. Default: the kernel's own tuning; for Unix-domain sockets, `net.core.wmem_default`.
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF` of each connection, bytes. Default: the kernel's own tuning.
    pub socket_receive_buffer: Option<usize>,
    /// `TCP_NOTSENT_LOWAT`, bytes: how much the kernel takes beyond what is in flight. Less keeps more of the order in the engine's lanes.
    /// Default: not set. Linux only, and TCP only.
    pub notsent_lowat: Option<u32>,
    /// The mode of the files of listening Unix-domain sockets: who may write to one may connect. Default 0o600, the user of this process.
    /// It is what the file has whatever the process's umask says, and at no time can anybody connect whom it leaves out: the socket
    /// listens only when the file has it. The directory's mode counts as well.
    pub unix_mode: u32,
}

impl Config {
    /// A configuration for encrypted connections, with our key pair and who may connect, and the defaults that each field documents.
    #[must_use]
    pub fn secure(identity: Identity, admission: Admission) -> Self {
        Self { security: Security::Noise(Noise::new(identity)), admission: Some(admission), ..Self::default() }
    }

    /// A configuration for plaintext connections on loopback, open to whoever is there, with the defaults that each field documents.
    #[must_use]
    pub fn plaintext() -> Self {
        Self { security: Security::Plaintext { allow_remote: false }, admission: Some(Admission::Open), ..Self::default() }
    }

    /// The same, listening on `address` as well: `"127.0.0.1:7000".parse()?`, `"unix:/run/node.sock".parse()?`, or a
    /// [`std::net::SocketAddr`] with `.into()`.
    #[must_use]
    pub fn listen(mut self, address: Address) -> Self {
        self.listen.push(address);
        self
    }

    /// The same, on these cores.
    #[must_use]
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = cores;
        self
    }

    /// Whether the security allows this address to be listened on or dialled.
    pub(crate) fn allows(&self, address: &Address) -> bool {
        match self.security {
            Security::Noise(_) => true,
            Security::Plaintext { allow_remote } => allow_remote || address.is_local(),
        }
    }

    /// Checks every field and the relations between them; the error names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.security.check(self)?;
        self.check_cores()?;
        self.addresses.validate()?;
        self.check_messages()?;
        self.check_memory()?;
        self.lanes.validate()?;
        self.check_acks()?;
        self.check_times()?;
        self.restarts.validate()?;
        within("recorder", self.recorder, 0, 1 << 16, "at most 65536 events")?;
        self.rates.as_ref().map_or(Ok(()), |rates| rates.validate(self))?;
        self.breaker.validate()?;
        self.pool.validate(self.limits.channels)?;
        self.metrics.validate()?;
        self.check_io()
    }

    fn check_cores(&self) -> Result<(), ConfigError> {
        let count = self.cores.count();
        within("cores", count, 1, PeerId::MAX_CORES, "1 to 256 threads")?;
        within("limits.max_peers", self.limits.max_peers, 1, PeerId::MAX_SLOTS / 2, "1 to 8388608 peers")?;
        within("limits.channels", self.limits.channels, 1, 1 << 16, "1 to 65536 channels")?;
        within("limits.max_half_open", self.limits.max_half_open, 1, PeerId::MAX_SLOTS / 2, "1 to 8388608 connections")?;
        for address in &self.listen {
            if !self.allows(address) {
                return Err(ConfigError {
                    field: "listen",
                    value: None,
                    expected: "loopback and unix: addresses: plaintext elsewhere needs Security::Plaintext { allow_remote: true }",
                    bound: None,
                    unit: "",
                });
            }
        }
        Ok(())
    }

    fn check_messages(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        within("limits.max_message", limits.max_message, 1, MAX_MESSAGE, "1 byte to 16 MiB")?;
        within("limits.fragment", limits.fragment, MIN_FRAGMENT, MAX_FRAME_PAYLOAD, "1 KiB to 32 KiB")?;
        at_least("limits.pending_requests", limits.pending_requests, 1, "at least 1")?;
        within("limits.subscriptions", limits.subscriptions, 0, 1 << 20, "at most 1048576 topics")?;
        at_least("limits.max_requests", limits.max_requests, 1, "at least 1")?;
        let twice = 2 * message_wire_len(true, limits.max_message, limits.fragment);
        at_least("limits.outbox_hard", limits.outbox_hard, twice, "at least twice max_message with its fragment headers")?;
        within("limits.outbox_soft", limits.outbox_soft, 1, limits.outbox_hard, "1 byte to outbox_hard")
    }

    fn check_memory(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let message = message_wire_len(true, limits.max_message, limits.fragment.max(HEADER_LEN));
        at_least("limits.log_bytes", limits.log_bytes, 2 * limits.outbox_hard, "at least twice outbox_hard")?;
        at_least("limits.send_bytes", limits.send_bytes / self.cores.count(), message, "at least one max_message for each core")?;
        within("limits.send_reserve", limits.send_reserve, 0, limits.outbox_hard, "0 bytes to outbox_hard")?;
        let largest = reassembly_charge(limits.max_message);
        at_least("limits.reassembly_bytes", limits.reassembly_bytes, largest, "at least the buffer that a max_message needs")?;
        within("limits.reassembly_reserve", limits.reassembly_reserve, 0, limits.reassembly_bytes, "0 bytes to reassembly_bytes")?;
        within("limits.inbox_messages", limits.inbox_messages, 16, (1 << 24) - 1, "16 to 16777215 commands")?;
        within(
            "limits.inbox_bytes",
            limits.inbox_bytes,
            message,
            u32::MAX as usize,
            "at least one max_message with its headers, under 4 GiB",
        )?;
        at_least("limits.max_dials", limits.max_dials, 1, "at least 1")
    }

    fn check_acks(&self) -> Result<(), ConfigError> {
        let (acks, limits) = (&self.acks, &self.limits);
        within("acks.pending", acks.pending, 1, 1 << 20, "1 to 1048576 sends")?;
        let message = message_wire_len(true, limits.max_message, limits.fragment.max(HEADER_LEN));
        at_least("acks.bytes", acks.bytes, message, "at least one max_message with its headers")?;
        at_least("acks.answers", acks.answers, 1, "at least 1")?;
        within("acks.window", acks.window, acks.pending, 1 << 20, "acks.pending to 1048576 ids")?;
        at_least_time("acks.retain", acks.retain, Duration::ZERO)
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        let keepalive = &self.keepalive;
        at_least_time("keepalive.interval", keepalive.interval, Duration::from_millis(10))?;
        at_least_as_long("keepalive.timeout", keepalive.timeout, 2 * keepalive.interval, "at least twice keepalive.interval")?;
        at_least("keepalive.ping_burst", keepalive.ping_burst as usize, 1, "at least 1")?;
        at_least("keepalive.max_pings_per_second", keepalive.max_pings_per_second as usize, 1, "at least 1")?;
        let fastest = Duration::from_secs(1) / keepalive.max_pings_per_second;
        at_least_as_long("keepalive.interval", keepalive.interval, fastest, "a second over keepalive.max_pings_per_second, or longer")?;
        keepalive.adaptive.map_or(Ok(()), |adaptive| adaptive.validate(keepalive))?;
        let timeouts = &self.timeouts;
        let shortest = Duration::from_millis(10);
        for (field, value) in [
            ("timeouts.handshake", timeouts.handshake),
            ("timeouts.connect", timeouts.connect),
            ("timeouts.write_stall", timeouts.write_stall),
            ("timeouts.partial", timeouts.partial),
            ("timeouts.pause", timeouts.pause),
            ("timeouts.linger", timeouts.linger),
            ("timeouts.request_floor", timeouts.request_floor),
            ("limits.soft_grace", self.limits.soft_grace),
        ] {
            at_least_time(field, value, shortest)?;
        }
        let (floor, ceiling) = (timeouts.request_floor, timeouts.request_ceiling);
        at_least_as_long("timeouts.request_ceiling", ceiling, floor, "not shorter than timeouts.request_floor")?;
        at_least_time("timeouts.drain", timeouts.drain, Duration::ZERO)?;
        at_least_time("backoff.min", self.backoff.min, Duration::from_millis(1))?;
        at_least_as_long("backoff.max", self.backoff.max, self.backoff.min, "not shorter than backoff.min")?;
        at_least_time("backoff.max_allowed", self.backoff.max_allowed, Duration::from_millis(1))?;
        at_least_time("backoff.max_asked", self.backoff.max_asked, Duration::ZERO)
    }

    fn check_io(&self) -> Result<(), ConfigError> {
        let io = &self.io;
        within("io.receive_buffer", io.receive_buffer, 4096, 64 << 20, "4 KiB to 64 MiB")?;
        at_least("io.read_budget", io.read_budget, 1, "at least 1 byte")?;
        at_least("io.write_budget", io.write_budget, HEADER_LEN + MAX_FRAME_PAYLOAD, "at least one frame of 32 KiB")?;
        at_least("io.flush_peers", io.flush_peers, 1, "at least 1")?;
        within("io.events", io.events, 1, 1 << 16, "1 to 65536")?;
        at_least("io.handshakes", io.handshakes, 1, "at least 1")?;
        at_least("io.accepts", io.accepts, 1, "at least 1")?;
        within("io.unix_mode", io.unix_mode as usize, 0, 0o777, "0 to 511, which is 0o777: read, write and execute bits")
    }
}

/// Noise without a key pair, and without a word on who may connect: an engine does not start with it until both are there.
impl Default for Config {
    fn default() -> Self {
        Self {
            security: Security::Noise(Noise::default()),
            admission: None,
            addresses: Addresses::default(),
            network: NetworkId::default(),
            node: None,
            listen: Vec::new(),
            cores: Cores::Unpinned(1),
            limits: Limits::default(),
            lanes: Lanes::default(),
            keepalive: Keepalive::default(),
            timeouts: Timeouts::default(),
            backoff: BackoffConfig::default(),
            breaker: BreakerConfig::default(),
            pool: PoolConfig::default(),
            acks: Acks::default(),
            restarts: Restarts::default(),
            recorder: 0,
            rates: None,
            io: Io::default(),
            metrics: Metrics::default(),
            seed: None,
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(15), max_pings_per_second: 4, ping_burst: 8, adaptive: None }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            write_stall: Duration::from_secs(10),
            partial: Duration::from_secs(10),
            pause: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            drain: Duration::from_secs(5),
            request_floor: Duration::from_secs(1),
            request_ceiling: Duration::from_secs(10),
        }
    }
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(50),
            max: Duration::from_secs(30),
            max_allowed: Duration::from_secs(1),
            max_asked: Duration::from_secs(60),
        }
    }
}

impl Default for Acks {
    fn default() -> Self {
        Self {
            pending: 1024,
            answers: 1 << 16,
            bytes: (16 << 20) + (64 << 10),
            window: 4096,
            retain: Duration::from_secs(60),
            by_handler: Vec::new(),
        }
    }
}

impl Default for Spin {
    fn default() -> Self {
        Self { window: Duration::from_micros(100), forced: false }
    }
}

impl Default for Io {
    fn default() -> Self {
        Self {
            spin: Spin::default(),
            receive_buffer: 256 << 10,
            read_budget: 256 << 10,
            write_budget: 256 << 10,
            flush_peers: 512,
            flush_time: Duration::from_millis(1),
            events: 1024,
            accepts: 16,
            handshakes: 8,
            send_buffer: None,
            socket_receive_buffer: None,
            notsent_lowat: None,
            unix_mode: 0o600,
        }
    }
}

/// The longest time that a field may name: sums of a few still fit everywhere.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

fn at_least(field: &'static str, value: usize, min: usize, expected: &'static str) -> Result<(), ConfigError> {
    if value >= min { Ok(()) } else { Err(ConfigError { field, value: Some(value as u64), expected, bound: Some(min as u64), unit: "" }) }
}

fn within(field: &'static str, value: usize, min: usize, max: usize, expected: &'static str) -> Result<(), ConfigError> {
    at_least(field, value, min, expected)?;
    if value <= max { Ok(()) } else { Err(ConfigError { field, value: Some(value as u64), expected, bound: Some(max as u64), unit: "" }) }
}

fn at_least_time(field: &'static str, value: Duration, min: Duration) -> Result<(), ConfigError> {
    at_least_as_long(field, value, min, "longer")
}

/// As `at_least_time`, for a bound that comes from another field.
fn at_least_as_long(field: &'static str, value: Duration, min: Duration, expected: &'static str) -> Result<(), ConfigError> {
    let error = |expected, bound| Err(ConfigError { field, value: Some(millis(value)), expected, bound: Some(millis(bound)), unit: "ms" });
    if value < min {
        error(expected, min)
    } else if value > LONGEST {
        error("shorter; a year is for ever", LONGEST)
    } else {
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_on_one_core_and_on_sixteen() {
        for count in [1, 16] {
            assert_eq!(Config::plaintext().cores(Cores::Unpinned(count)).validate(), Ok(()));
        }
    }

    #[test]
    fn nothing_starts_without_a_key_and_a_word_on_who_may_connect() {
        let refused = |config: &Config| config.validate().unwrap_err().field;
        let mut config = Config::default();
        assert_eq!(refused(&config), "security.identity");
        config.security = Security::Noise(Noise::new(Identity::from_secret([1; 32])));
        assert_eq!(refused(&config), "admission");
        config.admission = Some(Admission::Open);
        assert_eq!(config.validate(), Ok(()));
        config.node = Some(NodeId([1; 32]));
        assert_eq!(refused(&config), "node");
        let mut config = Config::plaintext();
        config.admission = Some(Admission::AllowList(Vec::new()));
        assert_eq!(refused(&config), "admission");
    }

    #[test]
    fn an_impossible_relation_names_its_field_and_bound() {
        let field = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::plaintext();
            change(&mut config);
            config.validate().unwrap_err().field
        };
        assert_eq!(field(&|c| c.cores = Cores::Unpinned(0)), "cores");
        assert_eq!(field(&|c| c.limits.max_message = 17 << 20), "limits.max_message");
        assert_eq!(field(&|c| c.limits.channels = 0), "limits.channels");
        assert_eq!(field(&|c| c.limits.subscriptions = (1 << 20) + 1), "limits.subscriptions");
        assert_eq!(field(&|c| c.limits.outbox_hard = 2 << 20), "limits.outbox_hard");
        assert_eq!(field(&|c| c.limits.outbox_soft = 17 << 20), "limits.outbox_soft");
        assert_eq!(field(&|c| c.limits.log_bytes = 31 << 20), "limits.log_bytes");
        assert_eq!(field(&|c| c.keepalive.timeout = Duration::from_secs(9)), "keepalive.timeout");
        assert_eq!(field(&|c| c.timeouts.request_floor = Duration::from_secs(11)), "timeouts.request_ceiling");
        assert_eq!(field(&|c| c.timeouts.request_floor = Duration::ZERO), "timeouts.request_floor");
        assert_eq!(field(&|c| c.listen.push("10.0.0.1:1".parse().unwrap())), "listen");
        assert_eq!(field(&|c| c.io.write_budget = 1000), "io.write_budget");
        assert_eq!(field(&|c| c.metrics.handler_budget = Some(Duration::from_micros(999))), "metrics.handler_budget");
        assert_eq!(field(&|c| c.acks.bytes = 1 << 20), "acks.bytes");
        assert_eq!(field(&|c| c.acks.window = 1023), "acks.window");
        assert_eq!(field(&|c| c.restarts.most = 4097), "restarts.most");
        assert_eq!(field(&|c| c.restarts.within = Duration::ZERO), "restarts.within");
        assert_eq!(field(&|c| c.recorder = (1 << 16) + 1), "recorder");
        assert_eq!(field(&|c| c.breaker.probes = 0), "breaker.probes");
        assert_eq!(field(&|c| c.breaker.max_cool_down = Duration::from_millis(999)), "breaker.max_cool_down");
        assert_eq!(field(&|c| c.pool.max_channels = 65), "pool.max_channels");
        assert_eq!(field(&|c| (c.pool.max_channels, c.limits.channels) = (9, 8)), "pool.max_channels");
        assert_eq!(field(&|c| c.pool.max_idle = Duration::ZERO), "pool.max_idle");
    }

    #[test]
    fn an_error_says_what_to_change_and_in_which_unit() {
        let text = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::plaintext();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert_eq!(text(&|c| c.pool.max_idle = Duration::ZERO), "pool.max_idle is 0 ms, but must be longer (the bound is 10 ms)");
        assert_eq!(
            text(&|c| c.keepalive.timeout = Duration::from_secs(9)),
            "keepalive.timeout is 9000 ms, but must be at least twice keepalive.interval (the bound is 10000 ms)"
        );
        assert!(
            text(&|c| c.acks.retain = Duration::MAX).ends_with("but must be shorter; a year is for ever (the bound is 31622400000 ms)")
        );
        assert!(text(&|c| c.keepalive.interval = Duration::from_millis(100)).contains("keepalive.max_pings_per_second"));
        assert_eq!(text(&|c| c.cores = Cores::Unpinned(0)), "cores is 0, but must be 1 to 256 threads (the bound is 1)");
        assert!(text(&|c| c.io.unix_mode = 0o1000).starts_with("io.unix_mode is 512, but must be 0 to 511, which is 0o777"));
        assert!(text(&|c| c.listen.push("10.0.0.1:1".parse().unwrap())).starts_with("listen must be loopback and unix: addresses: "));
    }

    #[test]
    fn mapped_loopback_is_loopback() {
        assert!(Config::plaintext().allows(&"[::ffff:127.0.0.1]:1".parse().unwrap()));
        assert!(!Config::plaintext().allows(&"[::ffff:10.0.0.1]:1".parse().unwrap()));
    }
}
