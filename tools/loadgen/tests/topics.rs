//! The workload `topics` by the built binary: against the tool's own server, in the same process and in another, and against servers that
//! do one thing wrong, made here of the library. Each wrong is to be found, counted as what it is, and to fail the run.

mod common;

use std::process::Output;

use common::rogue::{Rogue, Server, TOPICS};
use common::{assert_measured, assert_verified, json, number, run, serve, show, text};
use corecast::{Context, Frame, Message, PeerId, Topic};
use serde_json::Value;

const SHORT: [&str; 8] = ["--duration", "0.3", "--warmup", "0.1", "--json", "-", "--drain", "3"];

/// What holds for every run of topics that went well, where all have the same number of subscribers.
fn assert_clean(report: &Value, peers: u64, topics: u64, per_peer: u64) {
    assert_verified(report, "topics", peers, 64);
    assert_measured(report);
    let figures = &report["topics"];
    assert_eq!((number(figures, "count"), number(figures, "per_peer")), (topics, per_peer), "{report:#}");
    let each = peers * per_peer / topics;
    assert_eq!((number(figures, "subscribers_min"), number(figures, "subscribers_max")), (each, each), "{report:#}");
    assert_eq!(number(report, "total_delivered"), number(report, "total_sent") * each, "{report:#}");
}

#[test]
fn every_subscriber_gets_its_topics_and_no_others() {
    let args = ["topics", "--peers", "12", "--topics", "6", "--per-peer", "2", "--in-flight", "8"];
    let report = json(&run(&[&args[..], &SHORT].concat()));
    assert_clean(&report, 12, 6, 2);
    assert!(number(&report["completion_ns"], "p50") >= number(&report["latency_ns"], "p50"), "{report:#}");
    let counters = &report["server_counters"];
    assert_eq!((number(counters, "subscriptions"), number(counters, "deliveries")), (24, number(&report, "total_delivered")), "{report:#}");
}

#[test]
fn topics_of_unlike_size_are_counted_exactly() {
    // Seven subscriptions among four topics: three of them have two subscribers, one has one.
    let args = ["topics", "--peers", "7", "--topics", "4", "--per-peer", "1", "--in-flight", "5"];
    let report = json(&run(&[&args[..], &SHORT].concat()));
    assert_verified(&report, "topics", 7, 64);
    let figures = &report["topics"];
    assert_eq!((number(figures, "subscribers_min"), number(figures, "subscribers_max")), (1, 2), "{report:#}");
    let (rounds, more) = (number(&report, "total_sent") / 4, number(&report, "total_sent") % 4);
    assert_eq!(number(&report, "total_delivered"), rounds * 7 + more * 2, "{report:#}");
}

#[test]
fn topics_in_another_process_over_several_cores_of_both_sides() {
    let (server, address) = serve("topics", &["--cores", "0,1"]);
    // The first engine has the publisher and two subscribers, which do not have all topics.
    let args = ["topics", "--target", &address, "--peers", "8", "--topics", "16", "--per-peer", "4", "--client-cores", "0,1,2"];
    assert_clean(&json(&run(&[&args[..], &SHORT, &["--in-flight", "20"]].concat())), 8, 16, 4);
    let report = json(&run(&[&args[..], &SHORT, &["--rate", "2000", "--lag-bound", "30"]].concat()));
    assert_clean(&report, 8, 16, 4);
    let sent = number(&report, "sent") as f64 / report["elapsed_s"].as_f64().expect("a time");
    assert!((1000.0..4000.0).contains(&sent) && report["send_lag_ns"]["max"].is_u64(), "{report:#}");
    drop(server);
}

#[test]
fn two_runs_at_one_server_do_not_get_each_others_topics() {
    let (server, address) = serve("topics", &[]);
    let args = ["topics", "--target", &address, "--peers", "6", "--topics", "3", "--per-peer", "1", "--duration", "0.6", "--json", "-"];
    let other = common::Process::start(&args);
    assert_clean(&json(&run(&args)), 6, 3, 1);
    assert_clean(&json(&other.finish()), 6, 3, 1);
    drop(server);
}

#[test]
fn the_table_says_what_was_subscribed_to() {
    let output = run(&["topics", "--peers", "30", "--topics", "20", "--per-peer", "4", "--duration", "0.2", "--warmup", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let table = text(&output.stdout);
    for part in
        ["topics: 30 subscribers", "20, 4 subscribed to by each peer, 6 subscribers each", "last of all  p50", "0 lost, 0 duplicated"]
    {
        assert!(table.contains(part), "{part:?} in {table}");
    }
}

/// Publishes to the topics that messages name, and does something else with one of them.
struct Publishing {
    wrong: Wrong,
    messages: u64,
    /// Not published yet.
    held: Option<(Topic, Frame)>,
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Lose,
    Repeat,
    /// After the next one of its topic.
    Delay,
    /// Published to the next topic as well.
    Stray,
    Damage,
}

/// The message with which something is wrong.
const AT: u64 = 20;

impl Rogue for Publishing {
    fn on_message(&mut self, cx: &mut Context<'_>, _peer: PeerId, message: Message<'_>) {
        let mut body = message.body.to_vec();
        // Sender and run of the message, in this order: the topic.
        let topic = Topic(u64::from_le_bytes(*body[16..].first_chunk().expect("a header")));
        let is_the_one = self.messages == AT;
        self.messages += 1;
        let mut times = 1;
        match self.wrong {
            Wrong::Lose if is_the_one => times = 0,
            Wrong::Repeat if is_the_one => times = 2,
            Wrong::Damage if is_the_one => body[40] ^= 1,
            _ => {}
        }
        let frame = cx.frame(message.meta, &body).expect("it has come here");
        if is_the_one {
            match self.wrong {
                Wrong::Delay => {
                    self.held = Some((topic, frame));
                    return;
                }
                Wrong::Stray => cx.publish(Topic(topic.0 ^ 1), &frame).expect("there is room"),
                _ => {}
            }
        }
        (0..times).for_each(|_| cx.publish(topic, &frame).expect("there is room"));
        if let Some((topic, frame)) = self.held.take_if(|(held, _)| *held == topic) {
            cx.publish(topic, &frame).expect("there is room");
        }
    }
}

/// A run at a server with which something is wrong. Each topic has one subscriber, so each wrong is one message.
fn run_at(wrong: Wrong) -> Output {
    let server = Server::start(TOPICS, move || Publishing { wrong, messages: 0, held: None });
    let args =
        ["topics", "--target", &server.address, "--peers", "4", "--topics", "4", "--per-peer", "1", "--rate", "500", "--lag-bound", "30"];
    run(&[&args[..], &["--duration", "0.3", "--warmup", "0", "--drain", "0.5", "--json", "-"]].concat())
}

#[test]
fn whatever_a_server_does_wrong_is_found_and_fails_the_run() {
    for (wrong, expected) in [
        (Wrong::Lose, [1, 0, 0, 0]),
        (Wrong::Repeat, [0, 1, 0, 0]),
        (Wrong::Delay, [0, 0, 1, 0]),
        (Wrong::Stray, [0, 0, 0, 1]),
        // It has not arrived either.
        (Wrong::Damage, [1, 0, 0, 1]),
    ] {
        let output = run_at(wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}: {}", show(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
        let counts = ["lost", "duplicated", "reordered", "corrupt"].map(|count| number(&report, count));
        assert_eq!(counts, expected, "{wrong:?}: {report:#}");
        assert!(number(&report, "total_sent") > AT + 8, "{report:#}");
    }
}
