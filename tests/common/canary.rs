//! An engine to be attacked, and three well-behaved peers at it, to whom nothing must happen meanwhile.
//!
//! One good peer has numbered messages returned to it, one has numbered messages published, and one is subscribed to those. They are
//! engines of their own and dial from 127.1.0.0/16, which the attacked engine exempts from its limits by address; attackers come from
//! 127.66.0.0/16, which it does not.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part")]

#[path = "heap.rs"]
pub(crate) mod heap;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use corecast::{
    Admission, Cipher, CloseReason, Config, Context, Counter, Dial, DialError, DialId, Engine, Handler, Identity, Message, PeerId,
    PeerInfo, Security,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use corecast_attacks::{Protection, Suite, Target};

use crate::common::node::{Mode, Node, PUBLISHED, TOPIC};
use crate::common::{LIVENESS, eventually, open_files};

/// The secret of a network that has one.
pub(crate) const SECRET: [u8; 32] = [0x5E; 32];
/// The keys of the good peers, and of one who comes new.
pub(crate) const GOOD: [[u8; 32]; 4] = [[0x61; 32], [0x62; 32], [0x63; 32], [0x64; 32]];
/// Type of what is returned.
const RETURNED: u16 = 1;

/// Between two messages of a good peer. Often enough to be in the middle of everything, seldom enough to leave the machine to the attack.
const PACE: Duration = Duration::from_millis(2);
/// What a good peer has under way at most, in messages.
const WINDOW: u64 = 64;
/// How many more bytes may be live after an attack than before, besides what the engine's pool of buffers keeps by right: for tables that
/// have grown to as many peers as there were.
const TABLES: usize = 4 << 20;

/// Levels that have to come back to where they were.
const LEVELS: [Counter; 7] = [
    Counter::Peers,
    Counter::HalfOpen,
    Counter::Subscriptions,
    Counter::PrivateBytes,
    Counter::LogBytes,
    Counter::ReassemblyBytes,
    Counter::Timers,
];

/// Files and memory are counted for the whole process: whoever counts them has it alone.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits until the process counts for nobody else.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Has its messages returned.
    Returned,
    /// Has its messages published.
    Publisher,
    /// Hears what is published.
    Subscriber,
    /// Has its messages returned, and may have to dial more than once.
    Newcomer,
}

/// What a good peer has done and seen.
#[derive(Debug, Default)]
struct Progress {
    connected: AtomicBool,
    /// It may send.
    going: AtomicBool,
    /// It is about to be shut down: what happens to it now means nothing.
    leaving: AtomicBool,
    sent: AtomicU64,
    heard: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Progress {
    fn complain(&self, what: String) {
        if !self.leaving.load(Ordering::Relaxed) {
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        }
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

struct Good {
    role: Role,
    server: Option<PeerId>,
    progress: Arc<Progress>,
}

/// The message of this number. Every 64th is in several fragments.
fn body(number: u64) -> Vec<u8> {
    let len = if number % 64 == 63 { 40_000 } else { 32 };
    let mut body = number.to_le_bytes().to_vec();
    body.resize(len, number as u8);
    body
}

impl Handler for Good {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        if self.progress.connected.swap(true, Ordering::Relaxed) {
            self.progress.complain("connected again".to_owned());
        }
        self.server = Some(peer);
        if self.role == Role::Subscriber {
            cx.subscribe(peer, TOPIC).unwrap_or_else(|error| self.progress.complain(format!("subscribe: {error}")));
        } else {
            cx.set_timer(PACE, 0);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: u64) {
        cx.set_timer(PACE, 0);
        let Some(server) = self.server.filter(|_| self.progress.going.load(Ordering::Relaxed)) else { return };
        let number = self.progress.sent();
        let (message_type, open) = match self.role {
            Role::Returned | Role::Newcomer => (RETURNED, number - self.progress.heard()),
            Role::Publisher | Role::Subscriber => (PUBLISHED, 0),
        };
        if open < WINDOW {
            match cx.send(server, message_type, &body(number)) {
                Ok(_) => drop(self.progress.sent.fetch_add(1, Ordering::Relaxed)),
                Err(error) => self.progress.complain(format!("send {number}: {error}")),
            }
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, message: Message<'_>) {
        let number = self.progress.heard.fetch_add(1, Ordering::Relaxed);
        if message.body != body(number) {
            let got = message.body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            self.progress.complain(format!("message {got:?} of {} bytes came where {number} was to come", message.body.len()));
        }
    }

    fn on_dial_failed(&mut self, _: &mut Context<'_>, _: DialId, error: DialError, _: Option<Duration>) {
        if self.role != Role::Newcomer {
            self.progress.complain(format!("dial: {error}"));
        }
    }

    fn on_closed(&mut self, _: &mut Context<'_>, _: PeerId, reason: CloseReason) {
        self.progress.complain(format!("closed: {reason:?}"));
    }
}

/// A good peer: an engine with one connection.
struct GoodPeer {
    role: Role,
    engine: Engine<()>,
    progress: Arc<Progress>,
}

impl GoodPeer {
    fn dial(role: Role, like: &Config, server: &Node, source: IpAddr) -> Self {
        let progress = Arc::<Progress>::default();
        let report = progress.clone();
        let engine = Engine::start(config_like(like, role), move |_| Good { role, server: None, progress: report.clone() }).unwrap();
        engine.handle().dial(Dial::node(server.engine.node_id(), server.address()).source(source)).unwrap();
        let peer = Self { role, engine, progress };
        eventually("a good peer is in", || peer.is_in());
        peer
    }

    fn is_in(&self) -> bool {
        let wrong = self.wrong();
        assert!(wrong.is_empty(), "{:?}: {wrong:?}", self.role);
        self.progress.connected.load(Ordering::Relaxed)
    }

    fn wrong(&self) -> Vec<String> {
        self.progress.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn go(&self, going: bool) {
        self.progress.going.store(going, Ordering::Relaxed);
    }

    fn leave(self) {
        self.progress.leaving.store(true, Ordering::Relaxed);
        let report = self.engine.shutdown();
        assert!(report.drained && report.panicked.is_empty(), "{:?}: {report:?}", self.role);
    }
}

/// A good peer's configuration on the server's network.
fn config_like(server: &Config, role: Role) -> Config {
    let mut config = match &server.security {
        Security::Noise(noise) => {
            let mut mine = noise.clone();
            mine.identity = Some(Identity::from_secret(GOOD[role as usize]));
            let mut config = Config::default();
            (config.security, config.admission) = (Security::Noise(mine), Some(Admission::Open));
            config
        }
        _ => Config::plaintext(),
    };
    config.network = server.network;
    config.restarts.most = 0;
    config
}

/// What there was before an attack.
#[derive(Clone, Debug)]
struct Baseline {
    files: usize,
    memory: usize,
    levels: [u64; LEVELS.len()],
}

impl Baseline {
    fn levels(server: &Node) -> [u64; LEVELS.len()] {
        let stats = server.handle().stats();
        LEVELS.map(|level| stats.get(level))
    }

    fn of(server: &Node) -> Self {
        Self { files: open_files(), memory: heap::live(), levels: Self::levels(server) }
    }
}

/// The attacked engine with its good peers. It counts what the whole process has, so there is one at a time.
pub(crate) struct Canary {
    /// The attacked engine. It returns messages, and publishes those of type [`PUBLISHED`].
    pub(crate) server: Node,
    config: Config,
    good: Vec<GoodPeer>,
    newcomers: u8,
    baseline: Baseline,
    _alone: MutexGuard<'static, ()>,
}

impl Canary {
    /// Attacked with the defaults of an encrypted engine that lets everybody in, but for what `tune` changes.
    pub(crate) fn secure(tune: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::secure(Identity::generate().unwrap(), Admission::Open);
        tune(&mut config);
        Self::start(config)
    }

    /// The same in plaintext.
    pub(crate) fn plaintext(tune: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::plaintext();
        tune(&mut config);
        Self::start(config)
    }

    fn start(config: Config) -> Self {
        let alone = alone();
        raise_file_limit();
        let mut config = config.listen("127.0.0.1:0".parse().unwrap());
        // What is held against attackers that are dialled is to be given back while the test waits.
        config.breaker.expire = Duration::from_secs(1);
        config.addresses.exempt.push("127.1.0.0/16".parse().unwrap());
        config.restarts.most = 0;
        let mut server = Node::start(config.clone(), Mode::Serve);
        let mut good = Vec::new();
        for (role, source) in [(Role::Returned, "127.1.0.1"), (Role::Publisher, "127.1.0.2"), (Role::Subscriber, "127.1.1.1")] {
            let source: IpAddr = source.parse().unwrap();
            good.push(GoodPeer::dial(role, &config, &server, source));
            assert_eq!(server.connected().1.address.ip(), Some(source));
        }
        server.counts(Counter::Subscriptions, 1);
        let baseline = Baseline::of(&server);
        good.iter().for_each(|peer| peer.go(true));
        let mut canary = Self { server, config, good, newcomers: 0, baseline, _alone: alone };
        canary.sings();
        canary.rest();
        canary.baseline = Baseline::of(&canary.server);
        canary.good.iter().for_each(|peer| peer.go(true));
        canary
    }

    /// What the attackers know of it.
    pub(crate) fn target(&self) -> Target {
        let protection = match &self.config.security {
            Security::Noise(noise) => {
                let suite = match noise.cipher {
                    Cipher::AesGcm => Suite::AesGcm,
                    Cipher::ChaChaPoly => Suite::ChaChaPoly,
                };
                Protection::Noise { suite, secret: noise.secret.as_ref().map(|_| SECRET) }
            }
            _ => Protection::Plaintext,
        };
        Target { address: self.server.address(), node: self.server.engine.node_id().0, network: self.config.network.0, protection }
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.server.count(counter)
    }

    pub(crate) fn counts(&self, counter: Counter, value: u64) {
        self.server.counts(counter, value);
    }

    fn peer(&self, role: Role) -> &Progress {
        &self.good.iter().find(|peer| peer.role == role).expect("there is one of each").progress
    }

    /// Everybody is still connected, and nobody has heard anything wrong.
    pub(crate) fn is_well(&self) {
        assert!(self.good.iter().all(GoodPeer::is_in));
    }

    /// From now on, messages are returned and what is published is heard.
    pub(crate) fn sings(&self) {
        let heard = || [self.peer(Role::Returned).heard(), self.peer(Role::Subscriber).heard()];
        let before = heard();
        eventually("the good peers hear more", || {
            self.is_well();
            heard().into_iter().zip(before).all(|(now, before)| now >= before + 5)
        });
    }

    /// The good peers send no more, and everything that they have sent has come: nothing is lost.
    fn rest(&self) {
        self.good.iter().for_each(|peer| peer.go(false));
        let sent = || [self.peer(Role::Returned).sent(), self.peer(Role::Publisher).sent()];
        let mut last = sent();
        eventually("all that was sent has come", || {
            let heard = [self.peer(Role::Returned).heard(), self.peer(Role::Subscriber).heard()];
            // The one that was on its way to being sent.
            let before = std::mem::replace(&mut last, sent());
            self.is_well();
            before == last && heard == last
        });
    }

    /// Bytes that are live and were not before the attack. The attackers' are among them.
    pub(crate) fn memory_more(&self) -> usize {
        heap::live().saturating_sub(self.baseline.memory)
    }

    /// A good peer that was not there yet gets in and has a message returned, within [`LIVENESS`].
    pub(crate) fn lets_somebody_in(&mut self) {
        self.newcomers += 1;
        let began = Instant::now();
        let source = IpAddr::from([127, 1, 2, self.newcomers]);
        let newcomer = GoodPeer::dial(Role::Newcomer, &self.config, &self.server, source);
        newcomer.go(true);
        eventually("the new peer's messages are returned", || newcomer.is_in() && newcomer.progress.heard() > 0);
        assert!(began.elapsed() < LIVENESS);
        newcomer.leave();
    }

    /// The attack is over: the good peers have noticed nothing, somebody new gets in, and everything is as it was before.
    pub(crate) fn finish(mut self) {
        self.sings();
        self.lets_somebody_in();
        self.rest();
        let Baseline { files, memory, levels } = self.baseline.clone();
        let deadline = Instant::now() + LIVENESS;
        while Baseline::levels(&self.server) != levels || open_files() != files {
            assert!(
                Instant::now() < deadline,
                "{} files and {:?}, before it were {files} and {levels:?}, of {:?}",
                open_files(),
                Baseline::levels(&self.server),
                LEVELS.map(Counter::name)
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        let may = self.config.limits.buffer_pool + TABLES;
        assert!(self.memory_more() <= may, "{} bytes more than the {memory} before, and {may} may be", self.memory_more());
        self.is_well();
        self.good.into_iter().for_each(GoodPeer::leave);
        self.server.finish();
    }
}

/// Attackers have their sockets in this process too.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.map(|most| most.min(1 << 16)), ..limit }).unwrap();
}
