//! Calls of a handler that take too long.
//!
//! Set-up: engines with a budget for their handlers' calls; a handler that waits for the test, one that panics after it has, and one
//! without a budget. Claim: the call is counted once and named while it still runs, and it is the last one named until the next.

mod common;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::node::Node;
use common::{LIVENESS, eventually, eventually_counts, loopback};
use corecast::{Callback, Config, Context, Cores, Counter, Dial, Engine, Frame, Handler, Message, PeerId};

/// Waits in the middle of every message of type 7, and of every command, until it is let go.
struct Waiting {
    entered: SyncSender<()>,
    go_on: Arc<Mutex<Receiver<()>>>,
}

impl Waiting {
    fn wait(&self) {
        self.entered.send(()).unwrap();
        self.go_on.lock().unwrap().recv_timeout(LIVENESS).unwrap();
    }
}

impl Handler for Waiting {
    type Command = ();

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, message: Message<'_>) {
        if message.message_type() == 7 {
            self.wait();
        }
    }

    fn on_command(&mut self, _: &mut Context<'_>, (): ()) {
        self.wait();
    }
}

struct Watched {
    engine: Engine,
    entered: Receiver<()>,
    go_on: SyncSender<()>,
}

fn watched(config: Config) -> Watched {
    let (enter, entered) = sync_channel(16);
    let (go_on, wait) = sync_channel(16);
    let wait = Arc::new(Mutex::new(wait));
    let engine = Engine::start(config, move |_| Waiting { entered: enter.clone(), go_on: Arc::clone(&wait) }).unwrap();
    Watched { engine, entered, go_on }
}

#[test]
fn the_message_type_whose_handler_takes_too_long_is_named_while_it_runs() {
    let mut config = loopback();
    config.metrics.handler_budget = Some(Duration::from_millis(20));
    let server = watched(config);
    let handle = server.engine.handle();
    let mut client = Node::report(Config::plaintext());
    client.handle().dial(Dial::to(server.engine.local_addrs()[0])).unwrap();
    let (peer, _) = client.connected();
    for (number, message_type) in [3, 7, 3, 7].into_iter().enumerate() {
        client.handle().send(peer, Frame::new(message_type, b"something to do").unwrap()).unwrap();
        if message_type == 7 {
            server.entered.recv_timeout(LIVENESS).unwrap();
            let expected = number.div_ceil(2) as u64;
            eventually_counts(&handle, Counter::HandlerOverruns, expected);
            server.go_on.send(()).unwrap();
        }
    }
    let overrun = handle.stats().last_overrun().unwrap();
    assert_eq!((overrun.core, overrun.callback, overrun.message_type), (0, Callback::Message, Some(7)));
    eventually_counts(&handle, Counter::MessagesReceived, 4);
    assert_eq!(handle.stats().get(Counter::HandlerOverruns), 2, "each once");
}

#[test]
fn other_calls_and_other_cores_are_named_too() {
    let mut config = loopback().cores(Cores::Unpinned(2));
    config.metrics.handler_budget = Some(Duration::from_millis(20));
    let server = watched(config);
    let handle = server.engine.handle();
    handle.post(1, ()).unwrap();
    server.entered.recv_timeout(LIVENESS).unwrap();
    eventually_counts(&handle, Counter::HandlerOverruns, 1);
    assert_eq!(handle.core_stats(0).last_overrun(), None);
    let overrun = handle.core_stats(1).last_overrun().unwrap();
    assert_eq!((overrun.core, overrun.callback.to_string()), (1, "on_command".to_owned()));
    server.go_on.send(()).unwrap();
    assert!(server.engine.shutdown().panicked.is_empty());
    assert_eq!(handle.stats().last_overrun(), Some(overrun), "it outlives the engine");
}

#[test]
fn nobody_watches_without_a_budget() {
    let watchdogs = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| name.starts_with("corecast-watch")).count()
    };
    // In a process of its own: other tests have some.
    if std::env::args().any(|argument| argument == "--exact") {
        let server = watched(loopback());
        assert_eq!(watchdogs(), 0);
        drop(server);
        let mut config = loopback();
        config.metrics.handler_budget = Some(Duration::from_millis(20));
        let server = watched(config);
        // A thread gets its name after it has begun.
        eventually("one watches", || watchdogs() == 1);
        drop(server);
        assert_eq!(watchdogs(), 0);
        return;
    }
    let this = std::env::current_exe().unwrap();
    let status = std::process::Command::new(this).args(["--exact", "nobody_watches_without_a_budget"]).status().unwrap();
    assert!(status.success());
}
