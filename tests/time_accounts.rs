//! Where a core says that its time goes.
//!
//! Set-up: an engine whose handler takes long for each message, and one that is told not to keep accounts. Claim: all times together are
//! no more than there was, the handler's part is the handler's, and what is off stays zero.

mod common;

use std::time::{Duration, Instant};

use common::node::{Node, Seen};
use common::{eventually_stats, loopback};
use corecast::{Config, Context, Counter, Dial, Engine, Frame, Handler, Message, PeerId, Stats};

const TIMES: [Counter; 9] = [
    Counter::TimePoll,
    Counter::TimeIdle,
    Counter::TimeInbox,
    Counter::TimeRead,
    Counter::TimeDecode,
    Counter::TimeHandler,
    Counter::TimeEncode,
    Counter::TimeEvents,
    Counter::TimeWrite,
];

/// Takes so long for each message, and answers it.
struct Slow(Duration);

impl Handler for Slow {
    type Command = ();

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let end = Instant::now() + self.0;
        while Instant::now() < end {}
        let _ = cx.send(peer, message.meta, message.body);
    }
}

fn all(stats: &Stats) -> Duration {
    Duration::from_nanos(TIMES.iter().map(|&counter| stats.get(counter)).sum())
}

/// The server's counters after so many answers of a handler that takes 5 ms for each.
fn after(config: Config, messages: u64) -> (Stats, Duration) {
    let began = Instant::now();
    let server = Engine::start(config, |_| Slow(Duration::from_millis(5))).unwrap();
    let mut client = Node::report(Config::plaintext());
    client.handle().dial(Dial::to(server.local_addrs()[0])).unwrap();
    let (peer, _) = client.connected();
    for _ in 0..messages {
        client.handle().send(peer, Frame::new(1, b"take your time").unwrap()).unwrap();
        client.wait("an answer", |seen| matches!(seen, Seen::Message { .. }).then_some(()));
    }
    eventually_stats(&server.handle(), "the answers are counted", |stats| stats.get(Counter::MessagesSent) == messages);
    (server.handle().stats(), began.elapsed())
}

#[test]
fn a_slow_handlers_time_is_the_handlers() {
    let (stats, elapsed) = after(loopback(), 40);
    let handler = Duration::from_nanos(stats.get(Counter::TimeHandler));
    // 200 ms were spent in it. How the phase is divided is what one sampled batch says, in which anything may have been preempted.
    assert!(handler >= Duration::from_millis(50), "{handler:?}: {stats:?}");
    assert!(all(&stats) >= Duration::from_millis(200) && all(&stats) <= elapsed, "{:?} of {elapsed:?}: {stats:?}", all(&stats));
    assert!(stats.get(Counter::TimeIdle) > 0 && stats.get(Counter::TimeWrite) > 0, "{stats:?}");
}

#[test]
fn no_accounts_are_kept_where_they_are_off() {
    let mut config = loopback();
    config.metrics.time = false;
    let (stats, _) = after(config, 3);
    assert_eq!(all(&stats), Duration::ZERO, "{stats:?}");
}
