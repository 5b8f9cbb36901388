//! What the engine logs.
//!
//! Set-up: a logger that keeps every line of every level, an echoing engine, a peer that sends ten thousand messages, and strangers
//! who do it wrong. Claim: there are lines for starting and stopping, and none per message, whatever the level; a stranger cannot make
//! the log grow without end.

mod common;

use std::sync::Mutex;

use common::node::Node;
use common::raw::{Hello, Raw, data};
use common::{eventually_idle, loopback};
use corecast::Counter;
use log::{Level, LevelFilter, Log, Metadata, Record};

struct Keep(Mutex<Vec<(Level, String)>>);

impl Log for Keep {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0.lock().unwrap().push((record.level(), format!("{}: {}", record.target(), record.args())));
    }

    fn flush(&self) {}
}

static LOG: Keep = Keep(Mutex::new(Vec::new()));

/// What was logged since the last look, by the library or on behalf of it.
fn lines() -> Vec<(Level, String)> {
    std::mem::take(&mut *LOG.0.lock().unwrap())
}

#[test]
fn no_line_per_message_and_few_per_connection() {
    const MESSAGES: u32 = 10_000;
    log::set_logger(&LOG).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let mut node = Node::echo(loopback());
    let (mut raw, _) = node.raw_peer(Hello::node(1));
    let started = lines();
    assert!(started.iter().any(|(level, line)| *level == Level::Info && line.contains("started")), "{started:?}");
    let mut writer = raw.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            std::io::Write::write_all(&mut writer, &data(1, &number.to_le_bytes())).unwrap();
        }
    });
    for number in 0..MESSAGES {
        raw.expect_data(1, &number.to_le_bytes());
    }
    sender.join().unwrap();
    node.counts(Counter::MessagesReceived, u64::from(MESSAGES));
    let during = lines();
    assert!(during.len() < 20, "{} lines: {:?}", during.len(), &during[..20]);
    drop(raw);
    // Two hundred strangers.
    for number in 0..200u32 {
        let mut stranger = Raw::connect(node.address());
        stranger.try_send(if number % 2 == 0 { b"GET / HTTP/1.1\r\n\r\n" } else { b"\xCCCRP\x09\0\0\0" });
        stranger.read_to_end();
    }
    eventually_idle(&node.handle());
    node.finish();
    let after = lines();
    let own = after.iter().filter(|(_, line)| line.starts_with("corecast")).count();
    assert!(own < 100, "{own} lines for 200 strangers: {:?}", &after[..20]);
    assert!(after.iter().any(|(_, line)| line.contains("stopped")), "{after:?}");
    assert!(after.iter().all(|(level, line)| *level != Level::Error || !line.starts_with("corecast")), "{after:?}");
}
