//! The thread around a shard: the only code that names mio, sockets and threads.
//!
//! The reactor moves bytes and tells the shard what happened; it takes no decisions about peers. One turn of its loop is
//!
//! ```text
//! 1 wait     poll, without waiting while there is work; else spin for a while, then sleep until the next deadline
//! 2 clock    the read that decides the turn
//! 3 inbox    control first, then mail and commands, to a budget
//! 4 sockets  mark what is readable and writable, finish connects, accept to a budget
//! 5 read     each ready peer to its budget; who is not at its end stays on the list
//! 6 timers   and what the application is still to be told
//! 7 actions  connect, hand over, close; mail for other cores
//! 8 flush    who has something to receive, to a budget; the rest stays dirty
//! 9 actions  once more; then free what has ended
//! ```
//!
//! With `Metrics::time` the clock is read after 4, 5, 7 and 9 as well: see `accounts`.
//!
//! Sockets are edge-triggered and registered once for both directions, so the loop remembers what it has not finished. A read that is
//! shorter than the buffer, and a write that is shorter than what was offered, have met the end of what the kernel has (epoll(7), question
//! 9).

mod accept;
mod accounts;
pub(crate) mod affinity;
mod alarm;
pub(crate) mod bound;
mod connections;
mod entropy;
pub(crate) mod files;
pub(crate) mod host;
pub(crate) mod inbox;
mod latch;
pub(crate) mod listener;
mod observed;
mod socket;
mod socket_file;
mod spin;
mod sync;
mod turn;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use mio::{Events, Poll, Token};

use crate::handler::Handler;
use crate::metrics::Counter;
use crate::shard::{Control, Shard, Supervised};
use crate::time::Timestamp;
use accounts::Accounts;
use alarm::Alarm;
use connections::Connections;
use inbox::{Fabric, Inbox, PeerTo, ReplyTo, ReportTo};
use listener::{Bound, Listener};
use observed::Observed;
use spin::Spinner;

/// The waker's token, and the alarm's. Others carry the connection: see `connections`.
pub(crate) const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);

/// Reads the clock, counted from one origin that all cores share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now() }
    }

    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// What a core left behind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Farewell {
    pub(crate) unsent_messages: u64,
    pub(crate) unsent_bytes: u64,
    /// Connections that were still there when the time was up.
    pub(crate) cut: usize,
}

/// What was taken from the queues of the inbox so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    cores: u64,
    handles: u64,
}

impl Taken {
    fn is_reached(&self, taken: &Taken) -> bool {
        self.cores <= taken.cores && self.handles <= taken.handles
    }
}

/// A control message that ends something, and what has to be taken from the inbox before it.
#[derive(Debug)]
struct Ending {
    after: Taken,
    control: Control,
    /// It holds credit of `Inbox::outside_credit`.
    from_outside: bool,
}

/// One core's loop and everything in it.
pub(crate) struct Reactor<H: Handler> {
    shard: Shard,
    handler: Supervised<Observed<H>>,
    fabric: Arc<Fabric<H::Command>>,
    clock: Clock,
    poll: Poll,
    alarm: Alarm,
    connections: Connections,
    listeners: Vec<Listener>,
    /// What the kernel has for us is read into here, whichever peer it is from, and is gone through in place.
    buffer: Vec<u8>,
    spinner: Spinner,
    /// Threads that wait for a response, by the number that the shard knows them by.
    waiters: HashMap<u64, ReplyTo>,
    /// Threads that wait for acknowledgements, likewise.
    receipts: HashMap<u64, ReportTo>,
    /// Threads that wait for a connection of the pool, likewise.
    connects: HashMap<u64, PeerTo>,
    next_waiter: u64,
    /// Held while somebody waits for the last peer to go.
    landing: Option<Sender<()>>,
    /// When the next turn was to begin at the latest.
    meant: Timestamp,
    /// When the clock was last read.
    looked_at: Timestamp,
    /// Messages and commands so far: who brings more opens the spin window.
    stirred: u64,
    taken: Taken,
    /// Which of the inbox's queues was first this turn.
    handles_first: bool,
    /// Closing and shutting down that wait for what was sent before.
    endings: VecDeque<Ending>,
    accounts: Accounts,
    cpu_read_at: Timestamp,
    published_at: Timestamp,
    /// Set when a shutdown begins: the latest end of it.
    stop_at: Option<Timestamp>,
}

/// How often the thread's processor time is read at most: it is a syscall.
const CPU_INTERVAL: Duration = Duration::from_millis(1);
/// How often a core that never sleeps publishes its counters.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(1);

impl<H: Handler> Reactor<H> {
    pub(crate) fn new(
        shard: Shard,
        factory: impl Fn(usize) -> H + 'static,
        fabric: Arc<Fabric<H::Command>>,
        poll: Poll,
        may_spin: bool,
    ) -> Self {
        let io = &fabric.shared.config.io;
        let spinner = Spinner::new(io.spin, may_spin);
        let buffer = vec![0; io.receive_buffer];
        let metrics = fabric.shared.config.metrics;
        let core = shard.core();
        let watch = metrics.handler_budget.map(|_| Arc::clone(&fabric.inboxes[core].watch));
        let clock = fabric.clock;
        let now = clock.now();
        Self {
            shard,
            handler: Supervised::new(core, move |core| Observed::new(factory(core), clock, watch.clone())),
            fabric,
            clock,
            alarm: Alarm::new(poll.registry()),
            poll,
            connections: Connections::default(),
            listeners: Vec::new(),
            buffer,
            spinner,
            waiters: HashMap::new(),
            receipts: HashMap::new(),
            connects: HashMap::new(),
            next_waiter: 0,
            landing: None,
            meant: now,
            looked_at: now,
            stirred: 0,
            taken: Taken::default(),
            handles_first: false,
            endings: VecDeque::new(),
            accounts: Accounts::new(metrics.time, &clock),
            cpu_read_at: now,
            published_at: now,
            stop_at: None,
        }
    }

    /// Takes over listening sockets.
    pub(crate) fn listen(&mut self, sockets: Vec<Bound>) -> io::Result<()> {
        for (index, socket) in sockets.into_iter().enumerate() {
            let mut listener = Listener::new(socket);
            listener.register(self.poll.registry(), connections::listener_token(index))?;
            self.listeners.push(listener);
        }
        Ok(())
    }

    /// Runs until the engine is shut down, or until something panics that is not caught further in (`shard::supervised`).
    pub(crate) fn run(mut self) -> Farewell {
        let mut events = Events::with_capacity(self.fabric.shared.config.io.events);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.shard.start(&mut self.handler);
            // It may have taken long, and the first sleep goes by this.
            self.look();
            while !self.is_done() {
                self.turn(&mut events);
            }
        }));
        // Everything is let go of out here: what the application drops may panic, and during a panic that would end the process.
        let farewell = catch_unwind(AssertUnwindSafe(|| self.leave()));
        match (ran, farewell) {
            (Ok(()), Ok(farewell)) => farewell,
            (Err(panic), _) | (Ok(()), Err(panic)) => resume_unwind(panic),
        }
    }

    fn is_done(&self) -> bool {
        match self.stop_at {
            Some(stop_at) => self.shard.is_shut_down() || self.shard.now() >= stop_at,
            None => false,
        }
    }

    fn leave(mut self) -> Farewell {
        self.publish(self.shard.now());
        let Self { mut shard, handler, fabric, connections, .. } = self;
        shard.drop_users();
        handler.retire(&mut shard);
        fabric.inboxes[shard.core()].published.publish(shard.stats());
        let unsent_messages = shard.stats().get(Counter::MessagesDropped);
        Farewell { unsent_messages, unsent_bytes: shard.unsent_bytes(), cut: connections.open() }
    }

    fn inbox(&self) -> &Inbox<H::Command> {
        &self.fabric.inboxes[self.shard.core()]
    }

    /// Makes the counters visible to other threads.
    fn publish(&mut self, now: Timestamp) {
        self.published_at = now;
        self.shard.trim_queues();
        if now - self.cpu_read_at >= CPU_INTERVAL {
            self.cpu_read_at = now;
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            self.shard.stats_mut().set(Counter::CpuNanos, time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
        }
        self.accounts.settle(self.shard.stats_mut());
        let core = self.shard.core();
        self.fabric.inboxes[core].published.publish(self.shard.stats());
    }
}
