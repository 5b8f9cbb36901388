//! The workload `request` by the built binary: against the tool's own server, and against servers that do one thing wrong, made here of the
//! library. What is asserted is what became of the requests, not how fast.

mod common;

use std::process::Output;

use common::rogue::{REQUEST, Rogue, Server};
use common::{assert_measured, assert_verified, json, number, run, serve, show, text};
use corecast::{Context, Message, PeerId, Responder};
use serde_json::Value;

const SHORT: [&str; 8] = ["--duration", "0.3", "--warmup", "0.1", "--json", "-", "--deadline", "10"];

/// What holds for every run of requests that went well.
fn assert_clean(report: &Value, peers: u64, size: u64) {
    assert_verified(report, "request", peers, size);
    assert_measured(report);
    let requests = &report["requests"];
    assert_eq!(number(requests, "answered"), number(report, "total_sent"), "{report:#}");
    assert_eq!(["timed_out", "failed", "late_answers"].map(|end| number(requests, end)), [0; 3], "{report:#}");
}

#[test]
fn every_request_is_answered() {
    let report = json(&run(&[&["request", "--peers", "7", "--in-flight", "3", "--size", "40k"][..], &SHORT].concat()));
    assert_clean(&report, 7, 40 << 10);
    // More than the library's own choice of requests without an answer.
    let report = json(&run(&[&["request", "--peers", "2", "--in-flight", "3000"][..], &SHORT].concat()));
    assert_clean(&report, 2, 64);
}

#[test]
fn requests_in_another_process_over_several_cores_of_both_sides_and_at_a_rate() {
    let (server, address) = serve("request", &["--cores", "0,1"]);
    let args = ["request", "--target", &address, "--peers", "9", "--client-cores", "0,1,2"];
    assert_clean(&json(&run(&[&args[..], &SHORT, &["--in-flight", "8"]].concat())), 9, 64);
    let report = json(&run(&[&args[..], &SHORT, &["--rate", "2000", "--lag-bound", "10"]].concat()));
    assert_clean(&report, 9, 64);
    assert!(report["send_lag_ns"]["max"].is_u64() && report["in_flight"].is_null(), "{report:#}");
    drop(server);
}

#[test]
fn the_table_says_what_became_of_them() {
    let output = run(&["request", "--closed", "--peers", "3", "--duration", "0.2", "--warmup", "0", "--deadline", "10"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let table = text(&output.stdout);
    for part in ["request: 3 peers", "answered, 0 timed out after 10 s", "latency      p50", "0 lost"] {
        assert!(table.contains(part), "{part:?} in {table}");
    }
}

/// Answers requests, and does something else with one.
struct Answering {
    wrong: Wrong,
    /// Asked and not answered yet.
    held: Option<(Responder, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// Nothing is: it is answered after the next one.
    Overtaken,
    Silence,
    /// With its answer damaged.
    Damage,
    /// With what another one asked.
    Swap,
    /// Sends a message besides.
    Message,
}

/// The request with which something is wrong.
const AT: u64 = 20;

impl Rogue for Answering {
    fn on_message(&mut self, _cx: &mut Context<'_>, _peer: PeerId, _message: Message<'_>) {}

    fn on_request(&mut self, cx: &mut Context<'_>, peer: PeerId, request: Message<'_>, responder: Responder) {
        let seq = u64::from_le_bytes(*request.body.first_chunk().expect("a header"));
        let mut body = request.body.to_vec();
        if seq == AT {
            match self.wrong {
                Wrong::Silence => return,
                Wrong::Damage => body[40] ^= 1,
                Wrong::Message => _ = cx.send(peer, request.meta, request.body),
                Wrong::Overtaken | Wrong::Swap => {
                    self.held = Some((responder, body));
                    return;
                }
            }
        }
        if let Some((held, mut other)) = self.held.take() {
            if matches!(self.wrong, Wrong::Swap) {
                std::mem::swap(&mut body, &mut other);
            }
            cx.respond(responder, request.meta, &body).expect("there is room");
            cx.respond(held, request.meta, &other).expect("there is room");
            return;
        }
        cx.respond(responder, request.meta, &body).expect("there is room");
    }
}

fn run_at(wrong: Wrong, more: &[&str]) -> Output {
    let server = Server::start(REQUEST, move || Answering { wrong, held: None });
    let args = [
        "request",
        "--target",
        &server.address,
        "--peers",
        "1",
        "--rate",
        "300",
        "--lag-bound",
        "10",
        "--deadline",
        "0.5",
        "--drain",
        "0.1",
    ];
    run(&[&args[..], &["--duration", "0.4", "--warmup", "0", "--json", "-"], more].concat())
}

#[test]
fn whatever_a_server_does_wrong_is_found_and_fails_the_run() {
    // Lost, duplicated, reordered, corrupt, timed out.
    for (wrong, expected) in [
        (Wrong::Overtaken, [0; 5]),
        (Wrong::Silence, [0, 0, 0, 0, 1]),
        // It has come to its end, but nobody has its answer.
        (Wrong::Damage, [1, 0, 0, 1, 0]),
        (Wrong::Swap, [2, 0, 0, 2, 0]),
        (Wrong::Message, [0, 0, 0, 1, 0]),
    ] {
        let output = run_at(wrong, &[]);
        let fails = expected != [0; 5];
        assert_eq!(output.status.code(), Some(i32::from(fails)), "{wrong:?}: {}", show(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
        let [lost, duplicated, reordered, corrupt] = ["lost", "duplicated", "reordered", "corrupt"].map(|count| number(&report, count));
        let counts = [lost, duplicated, reordered, corrupt, number(&report["requests"], "timed_out")];
        assert_eq!(counts, expected, "{wrong:?}: {report:#}");
        assert!(number(&report, "total_sent") > AT + 8, "{report:#}");
    }
}

#[test]
fn timeouts_may_be_allowed() {
    let report = json(&run_at(Wrong::Silence, &["--timeouts-allowed", "1"]));
    assert_eq!((number(&report["requests"], "timed_out"), number(&report, "lost")), (1, 0), "{report:#}");
}
