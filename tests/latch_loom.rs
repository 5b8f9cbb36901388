//! The wake latch, in every interleaving.
//!
//! Set-up: `src/reactor/latch.rs` itself, with loom's atomics in one module and the standard library's in another. A model of the core's
//! loop (take one message a turn, look again, sleep) and of producers (push, notify, wake). Claim: a core never sleeps on while a message
//! is in its queues. To show that the model can tell, the same claim is put to a latch of plain loads and stores, and to a core that does
//! not look again, and fails. Loom knows no crossbeam, so the real queue is stressed with the real latch on real threads at the end.
//!
//! The model's queue tells as little as the real one: whether it is empty is an acquire load, which may be stale unless the latch says
//! otherwise. A queue under a lock alone would order the two sides by itself, and forgive any latch.

#![allow(clippy::duplicate_mod, reason = "the latch is compiled twice on purpose, with other atomics each time")]

use std::collections::VecDeque;
use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// What `super::sync` is to the latch below.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
}

#[path = "../src/reactor/latch.rs"]
mod latch;

trait Awake: 'static {
    fn new() -> Self;
    fn notify(&self) -> bool;
    fn fall_asleep(&self);
    fn wake_up(&self);
}

impl Awake for latch::Latch {
    fn new() -> Self {
        Self::new()
    }

    fn notify(&self) -> bool {
        self.notify()
    }

    fn fall_asleep(&self) {
        self.fall_asleep();
    }

    fn wake_up(&self) {
        self.wake_up();
    }
}

/// What the latch must not be: no operation reads and writes at once.
struct LoadsAndStores(AtomicBool);

impl Awake for LoadsAndStores {
    fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    fn notify(&self) -> bool {
        let wake = !self.0.load(Ordering::Acquire);
        if wake {
            self.0.store(true, Ordering::Release);
        }
        wake
    }

    fn fall_asleep(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn wake_up(&self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Mail,
    Stop,
}

#[derive(Default)]
struct Queue {
    messages: Mutex<VecDeque<Message>>,
    /// Grows after the message is in place.
    pushed: AtomicUsize,
}

impl Queue {
    fn push(&self, message: Message) {
        self.messages.lock().unwrap().push_back(message);
        self.pushed.fetch_add(1, Ordering::Release);
    }

    fn is_empty(&self, popped: usize) -> bool {
        self.pushed.load(Ordering::Acquire) <= popped
    }

    fn pop(&self) -> Option<Message> {
        self.messages.lock().unwrap().pop_front()
    }
}

/// The kernel's part: an event that a poll waits for and consumes.
#[derive(Default)]
struct Event {
    state: Mutex<Raised>,
    changed: Condvar,
}

#[derive(Default)]
struct Raised {
    raised: bool,
    /// Producers that will never wake anybody again.
    ended: usize,
}

const PRODUCERS: usize = 2;

impl Event {
    fn wake(&self) {
        self.state.lock().unwrap().raised = true;
        self.changed.notify_one();
    }

    fn end(&self) {
        self.state.lock().unwrap().ended += 1;
        self.changed.notify_one();
    }

    fn poll(&self) {
        self.state.lock().unwrap().raised = false;
    }

    /// Returns false where the sleep would last for ever.
    fn sleep(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        while !state.raised && state.ended < PRODUCERS {
            state = self.changed.wait(state).unwrap();
        }
        std::mem::take(&mut state.raised)
    }
}

struct Inbox<L> {
    control: Queue,
    mail: Queue,
    latch: L,
    event: Event,
}

impl<L: Awake> Inbox<L> {
    fn new() -> Arc<Self> {
        Arc::new(Self { control: Queue::default(), mail: Queue::default(), latch: L::new(), event: Event::default() })
    }

    fn send(&self, queue: &Queue, message: Message) {
        queue.push(message);
        if self.latch.notify() {
            self.event.wake();
        }
    }
}

/// The loop of `reactor::turn`, with a budget of one message for each queue.
struct Core<L> {
    inbox: Arc<Inbox<L>>,
    looks_again: bool,
    control: usize,
    mail: usize,
    stopped: bool,
}

impl<L: Awake> Core<L> {
    fn new(inbox: &Arc<Inbox<L>>, looks_again: bool) -> Self {
        Self { inbox: Arc::clone(inbox), looks_again, control: 0, mail: 0, stopped: false }
    }

    fn is_empty(&self) -> bool {
        self.inbox.control.is_empty(self.control) && self.inbox.mail.is_empty(self.mail)
    }

    fn turn(&mut self) {
        self.wait();
        if let Some(message) = self.inbox.control.pop() {
            self.control += 1;
            self.stopped |= message == Message::Stop;
        }
        if self.inbox.mail.pop().is_some() {
            self.mail += 1;
        }
    }

    fn wait(&self) {
        if !self.is_empty() {
            return self.inbox.event.poll();
        }
        self.inbox.latch.fall_asleep();
        if self.looks_again && !self.is_empty() {
            self.inbox.event.poll();
        } else {
            assert!(self.inbox.event.sleep(), "nobody woke the core");
        }
        self.inbox.latch.wake_up();
    }
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // Two switches at ill times are what the broken forms below need. Three hold as well, and take a minute: LOOM_MAX_PREEMPTIONS=3.
    builder.preemption_bound.get_or_insert(2);
    builder.check(model);
}

/// Two producers, one for each queue, so that looking at the queues is not one act. The core ends when it has seen everything.
fn everything_is_seen<L: Awake + Send + Sync>(looks_again: bool) {
    explore(move || {
        let inbox = Inbox::<L>::new();
        let producers: [_; PRODUCERS] = [1, 2].map(|messages| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let queue = if messages == 1 { &inbox.control } else { &inbox.mail };
                (0..messages).for_each(|_| inbox.send(queue, Message::Mail));
                inbox.event.end();
            })
        });
        let mut core = Core::new(&inbox, looks_again);
        while core.control + core.mail < 3 {
            core.turn();
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
    });
}

#[test]
fn no_message_waits_for_a_core_that_sleeps() {
    everything_is_seen::<latch::Latch>(true);
}

#[test]
#[should_panic(expected = "nobody woke the core")]
fn loads_and_stores_lose_a_wakeup() {
    everything_is_seen::<LoadsAndStores>(true);
}

#[test]
#[should_panic(expected = "nobody woke the core")]
fn a_core_that_does_not_look_again_loses_a_wakeup() {
    everything_is_seen::<latch::Latch>(false);
}

/// Two producers to one queue. The core is told to stop, and whoever sends to a core that is gone neither waits nor loses count.
#[test]
fn a_core_that_is_told_to_stop_stops() {
    explore(|| {
        let inbox = Inbox::<latch::Latch>::new();
        let producers: [_; PRODUCERS] = [Some(Message::Stop), None].map(|last| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                inbox.send(&inbox.mail, Message::Mail);
                if let Some(last) = last {
                    inbox.send(&inbox.control, last);
                }
                inbox.event.end();
            })
        });
        let mut core = Core::new(&inbox, true);
        while !core.stopped {
            core.turn();
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        let mut left = 0;
        while inbox.mail.pop().is_some() {
            left += 1;
        }
        assert_eq!(core.mail + left, 2);
    });
}

/// The real queue, the real latch, real threads.
#[path = "."]
mod stress {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Condvar, Mutex};
    use std::thread;
    use std::time::Duration;

    use crossbeam::queue::ArrayQueue;

    mod sync {
        pub(super) use std::sync::atomic::{AtomicBool, Ordering};
    }

    #[path = "../src/reactor/latch.rs"]
    mod latch;

    const PRODUCERS: usize = 4;
    const MESSAGES: usize = 50_000;
    const BUDGET: usize = 8;

    #[derive(Default)]
    struct Event {
        raised: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        fn wake(&self) {
            *self.raised.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn sleep(&self) {
            let raised = self.raised.lock().unwrap();
            let (mut raised, waited) = self.changed.wait_timeout_while(raised, Duration::from_secs(10), |raised| !*raised).unwrap();
            assert!(!waited.timed_out(), "nobody woke the core");
            *raised = false;
        }
    }

    #[test]
    fn no_wakeup_is_lost_by_the_real_queue() {
        let queue = ArrayQueue::new(64);
        let latch = latch::Latch::new();
        let event = Event::default();
        let sleeps = AtomicUsize::new(0);
        thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (queue, latch, event) = (&queue, &latch, &event);
                scope.spawn(move || {
                    for number in 0..MESSAGES {
                        let mut message = (producer, number);
                        while let Err(refused) = queue.push(message) {
                            message = refused;
                            thread::yield_now();
                        }
                        if latch.notify() {
                            event.wake();
                        }
                        // Leaves the core the time to fall asleep, now and then, and a different one each time.
                        if number % 7 == 0 {
                            (0..number % 5 * 50).for_each(|_| std::hint::spin_loop());
                            thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0; PRODUCERS];
            while next.iter().sum::<usize>() < PRODUCERS * MESSAGES {
                if queue.is_empty() {
                    latch.fall_asleep();
                    if queue.is_empty() {
                        sleeps.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        event.sleep();
                    }
                    latch.wake_up();
                }
                for _ in 0..BUDGET {
                    let Some((producer, number)) = queue.pop() else { break };
                    assert_eq!(number, next[producer]);
                    next[producer] += 1;
                }
            }
        });
        assert!(sleeps.into_inner() > 100, "the core hardly slept, so this says little");
    }
}
