//! The workload `receipts` by the built binary: against the tool's own server, in the same process and in another, and against servers that
//! do one thing wrong, made here of the library. What is asserted is who acknowledged what, and the order of the times, not how long.

mod common;

use std::process::Output;

use common::rogue::{RECEIPTS, Rogue, Server};
use common::{assert_measured, assert_verified, json, number, run, serve, show, text};
use corecast::{Context, Message, Meta, PeerId, Receipt};
use serde_json::Value;

const SHORT: [&str; 8] = ["--duration", "0.3", "--warmup", "0.1", "--json", "-", "--drain", "3"];

/// What holds for every run of receipts that went well.
fn assert_clean(report: &Value, peers: u64, quorum: u64) {
    assert_verified(report, "receipts", peers, 64);
    assert_measured(report);
    assert_eq!(number(report, "total_delivered"), number(report, "total_sent") * peers, "{report:#}");
    let receipts = &report["receipts"];
    assert_eq!(number(receipts, "quorum"), quorum, "{report:#}");
    assert_eq!((number(receipts, "complete"), number(receipts, "incomplete")), (number(report, "total_sent"), 0), "{report:#}");
    for percentile in ["p50", "p90", "p99", "p999", "max"] {
        let times = ["first_ns", "quorum_ns", "last_ns"].map(|after| number(&receipts[after], percentile));
        assert!(times[0] > 0 && times.is_sorted(), "{percentile} in {report:#}");
    }
}

#[test]
fn every_broadcast_is_acknowledged_by_all() {
    let report = json(&run(&[&["receipts", "--peers", "7", "--in-flight", "3"][..], &SHORT].concat()));
    assert_clean(&report, 7, 5);
    let counters = &report["server_counters"];
    assert_eq!(number(counters, "acks_received"), number(&report, "total_delivered"), "{report:#}");
    assert!(counters["acked_resent"].is_null() && counters["late_acks"].is_null(), "{report:#}");
}

#[test]
fn a_quorum_of_one_is_the_first_and_one_of_all_is_the_last() {
    for (quorum, same) in [("1", "first_ns"), ("4", "last_ns")] {
        let report = json(&run(&[&["receipts", "--peers", "4", "--quorum", quorum][..], &SHORT].concat()));
        assert_clean(&report, 4, quorum.parse().expect("a number"));
        assert_eq!(report["receipts"]["quorum_ns"], report["receipts"][same], "{report:#}");
    }
}

#[test]
fn receipts_in_another_process_over_several_cores_of_both_sides() {
    let (server, address) = serve("receipts", &["--cores", "0,1"]);
    let args = ["receipts", "--target", &address, "--peers", "9", "--client-cores", "0,1,2"];
    assert_clean(&json(&run(&[&args[..], &SHORT, &["--in-flight", "8"]].concat())), 9, 7);
    let report = json(&run(&[&args[..], &SHORT, &["--rate", "500", "--lag-bound", "30"]].concat()));
    assert_clean(&report, 9, 7);
    let sent = number(&report, "sent") as f64 / report["elapsed_s"].as_f64().expect("a time");
    assert!((250.0..1000.0).contains(&sent) && report["send_lag_ns"]["max"].is_u64(), "{report:#}");
    drop(server);
}

#[test]
fn as_many_as_are_allowed_to_be_in_flight_have_room() {
    // More than the library's own choice of pending sends.
    let report = json(&run(&[&["receipts", "--peers", "2", "--in-flight", "3000"][..], &SHORT].concat()));
    assert_clean(&report, 2, 2);
}

#[test]
fn more_than_the_server_has_room_for_are_refused_with_the_reason() {
    let (server, address) = serve("receipts", &[]);
    let args = ["receipts", "--target", &address, "--peers", "2", "--in-flight", "3000", "--drain", "1"];
    let output = run(&[&args[..], &["--duration", "0.2", "--warmup", "0"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let table = text(&output.stdout);
    assert!(table.contains("not broadcast: ") && table.contains("FAILED"), "{table}");
    drop(server);
}

#[test]
fn the_table_has_the_first_the_quorum_and_the_last() {
    let output = run(&["receipts", "--peers", "3", "--duration", "0.2", "--warmup", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let table = text(&output.stdout);
    for part in
        ["receipts: 3 subscribers", "first ack    p50", "quorum       p50", "last ack     p50", "0 incomplete, quorum of 3", "0 lost"]
    {
        assert!(table.contains(part), "{part:?} in {table}");
    }
}

/// Broadcasts what comes and says what came of it, and does something else with one of them.
struct Broadcasting {
    wrong: Wrong,
    /// Who has broadcasts made.
    peer: Option<PeerId>,
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// Nothing is.
    Nothing,
    /// Broadcasts it to be acknowledged by nobody.
    Plain,
    /// Broadcasts it a second time, of which it says nothing.
    Repeat,
    /// Says nothing of it.
    Silence,
    /// Says it twice.
    SayTwice,
    /// Says that one peer less has acknowledged it.
    OneLess,
    /// Says that all have and one failed.
    OneFailed,
    /// Broadcasts it to be acknowledged by nobody, and not to the one it came from.
    Except,
}

/// The message with which something is wrong.
const AT: u64 = 20;
const PEERS: u64 = 3;
/// Type of what a message is called that says what came of a broadcast.
const SETTLED: u16 = 6;
/// Type of the terms.
const TERMS: u16 = 5;
/// Tag of a second broadcast.
const SECOND: u64 = u64::MAX;

impl Broadcasting {
    fn say(&self, cx: &mut Context<'_>, seq: u64, [expected, acked, failed]: [u64; 3]) {
        let words = [seq, expected, acked, failed, 1, 2, 3];
        let body: Vec<_> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        cx.send(self.peer.expect("it has sent something"), Meta::new(SETTLED), &body).expect("there is room");
    }
}

impl Rogue for Broadcasting {
    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        if message.meta.message_type == TERMS {
            return;
        }
        self.peer = Some(peer);
        let seq = u64::from_le_bytes(*message.body.first_chunk().expect("a header"));
        let mut broadcast = |tag| {
            cx.broadcast_acked(message.meta, message.body, std::time::Duration::from_secs(5), tag).expect("there is room");
        };
        match self.wrong {
            Wrong::Repeat if seq == AT => {
                broadcast(seq);
                broadcast(SECOND);
            }
            Wrong::Plain | Wrong::Except if seq == AT => {
                let frame = cx.frame(message.meta, message.body).expect("it has come here");
                let sent = if matches!(self.wrong, Wrong::Plain) { cx.broadcast(&frame) } else { cx.broadcast_except(&frame, peer) };
                sent.expect("there is room");
                self.say(cx, seq, [PEERS, PEERS, 0]);
            }
            _ => broadcast(seq),
        }
    }

    fn on_receipt(&mut self, cx: &mut Context<'_>, receipt: Receipt) {
        let (seq, whole) = (receipt.tag(), [PEERS, PEERS, 0]);
        assert!(receipt.is_acked() || cx.peers().count() < PEERS as usize, "{receipt:?}");
        match self.wrong {
            _ if seq == SECOND => {}
            Wrong::Silence if seq == AT => {}
            Wrong::SayTwice if seq == AT => (0..2).for_each(|_| self.say(cx, seq, whole)),
            Wrong::OneLess if seq == AT => self.say(cx, seq, [PEERS, PEERS - 1, 0]),
            Wrong::OneFailed if seq == AT => self.say(cx, seq, [PEERS + 1, PEERS, 1]),
            _ => self.say(cx, seq, whole),
        }
    }
}

fn run_at(wrong: Wrong) -> Output {
    let server = Server::start(RECEIPTS, move || Broadcasting { wrong, peer: None });
    let args = ["receipts", "--target", &server.address, "--peers", "3", "--rate", "500", "--lag-bound", "30"];
    run(&[&args[..], &["--duration", "0.3", "--warmup", "0", "--drain", "0.5", "--json", "-"]].concat())
}

#[test]
fn whatever_a_server_does_wrong_is_found_and_fails_the_run() {
    // Lost, duplicated, reordered, corrupt, incomplete.
    for (wrong, expected) in [
        (Wrong::Nothing, [0; 5]),
        // Nobody counts what does not ask to be acknowledged.
        (Wrong::Plain, [3, 0, 0, 3, 0]),
        (Wrong::Repeat, [0, 3, 0, 0, 0]),
        (Wrong::Silence, [0, 0, 0, 0, 1]),
        (Wrong::SayTwice, [0, 1, 0, 0, 0]),
        (Wrong::OneLess, [0, 0, 0, 0, 1]),
        (Wrong::OneFailed, [0, 0, 0, 0, 1]),
        (Wrong::Except, [3, 0, 0, 2, 0]),
    ] {
        let output = run_at(wrong);
        let fails = expected != [0; 5];
        assert_eq!(output.status.code(), Some(i32::from(fails)), "{wrong:?}: {}", show(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
        let [lost, duplicated, reordered, corrupt] = ["lost", "duplicated", "reordered", "corrupt"].map(|count| number(&report, count));
        let counts = [lost, duplicated, reordered, corrupt, number(&report["receipts"], "incomplete")];
        assert_eq!(counts, expected, "{wrong:?}: {report:#}");
        assert!(number(&report, "total_sent") > AT + 8, "{report:#}");
    }
}
