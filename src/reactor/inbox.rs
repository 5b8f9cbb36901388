//! What other threads have for a core.
//!
//! Three queues. *Control* keeps connections in order and is never refused: what it can hold is bounded by connections, dials, requests and
//! the credit of those who close and dial from outside. *Cores* and *handles* carry messages under credit. They are apart because
//! `ArrayQueue::pop` spins while a producer is between claiming a slot and filling it: a pinned core is there for nanoseconds, an unpinned
//! thread that is preempted there would hold up the other cores' mail as well.

use crossbeam::channel::Sender;
use crossbeam::queue::{ArrayQueue, SegQueue};
use crossbeam::utils::CachePadded;
use mio::Waker;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Clock;
use super::latch::Latch;
use super::socket::Socket;
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::{DialError, RequestError, SendError};
use crate::id::{NodeId, PeerId};
use crate::metrics::{Counter, Histograms, Published, Stats};
use crate::proto::RequestTimeout;
use crate::receipt::{Receipt, Target};
use crate::shard::{Control, Credit, Mail, Owned, Shared, Snapshot, Ticket, drop_quietly, reserve_all};
use crate::time::Timestamp;
use crate::watchdog::Watch;
use crate::wire::Meta;

/// A thread that waits for a response gets it here.
pub(crate) type ReplyTo = Sender<Result<Owned, RequestError>>;
/// A thread that waits for acknowledgements hears of them here. As many as there are peers, and an end.
pub(crate) type ReportTo = Sender<Report>;

/// A thread that waits for a connection of the pool gets it here.
pub(crate) type PeerTo = Sender<Result<PeerId, DialError>>;

/// What becomes of an acknowledged send.
#[derive(Debug)]
pub(crate) enum Report {
    Acked { node: NodeId, after: Duration },
    Ended(Receipt),
    Refused(SendError),
}

/// What handles ask of a core, under credit.
#[derive(Debug)]
pub(crate) enum Command<C> {
    Mail(Mail),
    Request {
        peer: PeerId,
        meta: Meta,
        body: Box<[u8]>,
        timeout: RequestTimeout,
        reply: ReplyTo,
    },
    /// To be acknowledged: to one target, or to everybody.
    Acked {
        target: Option<Target>,
        meta: Meta,
        body: Box<[u8]>,
        deadline: Duration,
        reply: ReportTo,
    },
    /// To core 0: a connection of the pool is wanted.
    Connect {
        endpoint: Box<Endpoint>,
        pin: bool,
        reply: PeerTo,
    },
    User(C),
}

impl<C> Command<C> {
    /// Bytes that the command is charged while it is queued.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Mail(mail) => mail.cost(),
            Self::Request { body, .. } | Self::Acked { body, .. } => body.len(),
            Self::Connect { endpoint, .. } => endpoint.memory(),
            Self::User(_) => size_of::<C>(),
        }
    }
}

/// What is never refused.
#[derive(Debug)]
pub(crate) enum Signal {
    Shard(Control),
    /// The same, sent by a handle under the credit for such.
    Outside(Control),
    /// A connection that another core has accepted. It has not been read from, and no poll knows it.
    Accepted {
        socket: Socket,
        address: Address,
        ticket: Ticket,
    },
    Snapshot(Sender<Snapshot>),
    Histograms(Sender<Box<Histograms>>),
    /// A thread waits until this core's peers have gone: it hears of that by the end of this sender.
    Landing(Sender<()>),
}

/// Of what each thread pushes, one in so many says since when it waits. A read of the clock takes as long as a push; a prime, so that
/// batches of a round number do not have the same one of theirs measured each time.
const STAMPED: u32 = 13;

thread_local! {
    static UNTIL_STAMP: Cell<u32> = const { Cell::new(0) };
}

/// What waits in a queue, and for some since when.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    pub(crate) what: T,
    pub(crate) since: Option<Timestamp>,
}

/// One core's queues, as everybody sees them.
#[derive(Debug)]
pub(crate) struct Inbox<C> {
    pub(crate) control: SegQueue<Signal>,
    pub(crate) cores: ArrayQueue<Queued<Mail>>,
    pub(crate) handles: ArrayQueue<Queued<Command<C>>>,
    pub(crate) handle_credit: Credit,
    /// Room for close and dial from outside.
    pub(crate) outside_credit: Credit,
    pub(crate) latch: CachePadded<Latch>,
    pub(crate) published: CachePadded<Published>,
    /// What producers were refused. They count it, so it is not among what the core publishes.
    refused: CachePadded<AtomicU64>,
    /// What the core says of its handler, and the watchdog of that.
    pub(crate) watch: Arc<Watch>,
    waker: Waker,
}

impl<C> Inbox<C> {
    pub(crate) fn new(shared: &Shared, waker: Waker) -> Self {
        let limits = &shared.config.limits;
        Self {
            control: SegQueue::new(),
            cores: ArrayQueue::new(limits.inbox_messages),
            handles: ArrayQueue::new(limits.inbox_messages),
            handle_credit: Credit::new(limits.inbox_messages, limits.inbox_bytes),
            outside_credit: Credit::new(limits.max_peers + limits.max_dials.min(1 << 20), limits.inbox_bytes),
            latch: CachePadded::new(Latch::new()),
            published: CachePadded::new(Published::new()),
            refused: CachePadded::new(AtomicU64::new(0)),
            watch: Arc::default(),
            waker,
        }
    }

    /// The counters of this core as it last published them, with what others count for it.
    pub(crate) fn stats(&self, core: usize) -> Stats {
        let mut stats = self.published.read();
        stats.add(Counter::InboxRefused, self.refused.load(Ordering::Relaxed));
        stats.add(Counter::HandlerOverruns, self.watch.overruns());
        stats.set_last_overrun(self.watch.last(core));
        stats
    }

    fn full(&self, core: usize) -> SendError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        SendError::InboxFull { core }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.cores.is_empty() && self.handles.is_empty()
    }

    /// After a push. A syscall only if the core sleeps.
    #[inline]
    pub(crate) fn notify(&self) {
        if self.latch.notify() {
            // A wake can fail only for lack of memory in the kernel; the core then finds the push at its next timer.
            let _ = self.waker.wake();
        }
    }
}

/// All inboxes of an engine, and what its cores share: what a handle holds on to.
#[derive(Debug)]
pub(crate) struct Fabric<C> {
    pub(crate) shared: Shared,
    pub(crate) clock: Clock,
    pub(crate) inboxes: Box<[Inbox<C>]>,
}

impl<C> Fabric<C> {
    /// Since when what is pushed now waits, where it is one of those that are measured.
    #[inline]
    fn stamp(&self) -> Option<Timestamp> {
        if !self.shared.config.metrics.histograms {
            return None;
        }
        let left = UNTIL_STAMP.get();
        UNTIL_STAMP.set(left.checked_sub(1).unwrap_or(STAMPED - 1));
        (left == 0).then(|| self.clock.now())
    }

    pub(crate) fn signal(&self, core: usize, signal: Signal) {
        self.inboxes[core].control.push(signal);
        self.inboxes[core].notify();
        if self.shared.credits[core].is_closed() {
            self.abandon(core);
        }
    }

    /// A core's thread has ended. Nobody sends to it any more, and what is queued for it is dropped: connections close, and threads that
    /// wait for its answer are let go.
    pub(crate) fn retire(&self, core: usize) {
        self.shared.places.retire(core);
        self.shared.credits[core].close();
        self.abandon(core);
        if std::thread::panicking() {
            self.signal(0, Signal::Shard(Control::CoreLost { core }));
        }
    }

    fn abandon(&self, core: usize) {
        while self.inboxes[core].control.pop().is_some() {}
        // A command's `Drop` is the application's code, and this may be another core's thread, or one that panics already.
        while let Some(command) = self.inboxes[core].handles.pop() {
            drop_quietly(command);
        }
    }

    /// A control message from outside: bounded, since nothing else bounds how often a program calls.
    pub(crate) fn outside(&self, core: usize, control: Control) -> Result<(), SendError> {
        let inbox = self.inboxes.get(core).ok_or(SendError::NotConnected)?;
        self.check_alive(core)?;
        if !inbox.outside_credit.reserve(0) {
            return Err(inbox.full(core));
        }
        self.signal(core, Signal::Outside(control));
        Ok(())
    }

    fn check_alive(&self, core: usize) -> Result<(), SendError> {
        if self.shared.credits[core].is_closed() { Err(SendError::Stopped) } else { Ok(()) }
    }

    /// Mail from core to core: its room is reserved.
    pub(crate) fn deliver(&self, core: usize, mail: Mail) {
        let inbox = &self.inboxes[core];
        let refused = inbox.cores.push(Queued { what: mail, since: self.stamp() });
        assert!(refused.is_ok(), "the credit is never more than the queue holds");
        inbox.notify();
    }

    /// A command from a handle, to one core.
    pub(crate) fn command(&self, core: usize, command: Command<C>) -> Result<(), (Command<C>, SendError)> {
        let Some(inbox) = self.inboxes.get(core) else { return Err((command, SendError::NotConnected)) };
        if let Err(error) = self.check_alive(core) {
            return Err((command, error));
        }
        if !inbox.handle_credit.reserve(command.cost()) {
            return Err((command, inbox.full(core)));
        }
        self.push(core, command, self.stamp());
        Ok(())
    }

    fn push(&self, core: usize, command: Command<C>, since: Option<Timestamp>) {
        let inbox = &self.inboxes[core];
        let refused = inbox.handles.push(Queued { what: command, since });
        assert!(refused.is_ok(), "the credit is never more than the queue holds");
        inbox.notify();
        if self.shared.credits[core].is_closed() {
            self.abandon(core);
        }
    }

    /// The same mail from a handle to every core, or to none.
    pub(crate) fn command_all(&self, cost: usize, make: impl Fn() -> Mail) -> Result<(), SendError> {
        let alive = || (0..self.inboxes.len()).filter(|&core| !self.shared.credits[core].is_closed());
        if alive().next().is_none() {
            return Err(SendError::Stopped);
        }
        let credits = alive().map(|core| (core, &self.inboxes[core].handle_credit)).collect::<CoreList<'_>>();
        reserve_all(credits.iter(), cost).map_err(|core| self.inboxes[core].full(core))?;
        let since = self.stamp();
        for (core, _) in credits.iter() {
            self.push(core, Command::Mail(make()), since);
        }
        Ok(())
    }
}

/// The cores of one call, noted once so that what is reserved and what is pushed to are the same. Eight without an allocation.
struct CoreList<'a> {
    few: [Option<(usize, &'a Credit)>; 8],
    more: Vec<(usize, &'a Credit)>,
}

impl<'a> CoreList<'a> {
    fn iter(&self) -> impl Iterator<Item = (usize, &'a Credit)> + Clone + '_ {
        self.few.iter().flatten().copied().chain(self.more.iter().copied())
    }
}

impl<'a> FromIterator<(usize, &'a Credit)> for CoreList<'a> {
    fn from_iter<I: IntoIterator<Item = (usize, &'a Credit)>>(items: I) -> Self {
        let mut items = items.into_iter();
        let few = std::array::from_fn(|_| items.next());
        Self { few, more: items.collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;
    use crate::config::{Config, Cores};
    use crate::handle::Handle;
    use crate::reactor::WAKER;
    use crate::rng::Rng;
    use crate::wire::Frame;

    const ROOM: usize = 16;

    /// Inboxes of so many cores that nobody empties, and the polls that they wake.
    fn fabric(cores: usize) -> (Arc<Fabric<()>>, Vec<Poll>) {
        let mut config = Config::plaintext().cores(Cores::Unpinned(cores));
        config.limits.inbox_messages = ROOM;
        let shared = Shared::new(Arc::new(config), &mut Rng::new(1));
        let make = |_| {
            let poll = Poll::new().unwrap();
            (Inbox::new(&shared, Waker::new(poll.registry(), WAKER).unwrap()), poll)
        };
        let (inboxes, polls): (Vec<_>, Vec<_>) = (0..cores).map(make).unzip();
        (Arc::new(Fabric { shared, clock: Clock::new(), inboxes: inboxes.into() }), polls)
    }

    fn batch(count: usize) -> Vec<Frame> {
        (0..count).map(|number| Frame::new(1, &[number as u8; 100]).unwrap()).collect()
    }

    fn cost(frames: &[Frame]) -> usize {
        frames.iter().map(|frame| frame.as_bytes().len() + size_of::<Frame>()).sum()
    }

    /// Whether the core was woken since it was asked last.
    fn was_woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    /// Commands in each queue, and what is reserved for them.
    fn queued(fabric: &Fabric<()>) -> Vec<(usize, (usize, usize))> {
        fabric.inboxes.iter().map(|inbox| (inbox.handles.len(), inbox.handle_credit.used())).collect()
    }

    #[test]
    fn a_batch_is_one_command_for_each_core_and_one_wake_for_each_that_sleeps() {
        let (fabric, mut polls) = fabric(4);
        let handle = Handle::new(Arc::clone(&fabric));
        [1, 3].into_iter().for_each(|core| fabric.inboxes[core].latch.fall_asleep());
        handle.broadcast_batch(batch(50)).unwrap();
        assert_eq!(queued(&fabric), [(1, (1, cost(&batch(50)))); 4]);
        let woken: Vec<bool> = polls.iter_mut().map(was_woken).collect();
        assert_eq!(woken, [false, true, false, true]);
        // They are awake now, and are not woken again.
        handle.broadcast_batch(batch(50)).unwrap();
        handle.send_batch(crate::id::PeerId::new(3, 1, 1), batch(20)).unwrap();
        assert!(!polls.iter_mut().any(was_woken));
        let (twice, more) = (2 * cost(&batch(50)), cost(&batch(20)));
        assert_eq!(queued(&fabric), [(2, (2, twice)), (2, (2, twice)), (2, (2, twice)), (3, (3, twice + more))]);
        let commands: Vec<_> = std::iter::from_fn(|| fabric.inboxes[3].handles.pop()).map(|queued| queued.what).collect();
        assert!(commands.iter().map(Command::cost).sum::<usize>() == twice + more, "what is given back is what was reserved");
    }

    #[test]
    fn where_one_core_has_no_room_a_batch_reserves_queues_and_wakes_nothing() {
        let (fabric, mut polls) = fabric(4);
        let handle = Handle::new(Arc::clone(&fabric));
        (0..ROOM).for_each(|_| fabric.command(2, Command::User(())).unwrap());
        (0..4).for_each(|core| fabric.inboxes[core].latch.fall_asleep());
        let before = queued(&fabric);
        let refused = handle.broadcast_batch(batch(50)).unwrap_err();
        assert_eq!((refused.reason, refused.value.len()), (SendError::InboxFull { core: 2 }, 50));
        let refused = handle.send_batch(crate::id::PeerId::new(2, 1, 1), batch(20)).unwrap_err();
        assert_eq!((refused.reason, refused.value.len()), (SendError::InboxFull { core: 2 }, 20));
        assert_eq!(queued(&fabric), before);
        assert!(!polls.iter_mut().any(was_woken));
        assert_eq!(fabric.inboxes[2].stats(2).get(Counter::InboxRefused), 2);
    }
}
