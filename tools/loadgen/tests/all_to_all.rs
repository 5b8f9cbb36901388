//! The workload `all-to-all` by the built binary: against the tool's own server, in the same process and in another, and against servers
//! that do one thing wrong, made here of the library. What is asserted is who has how much of whom, not how fast.

mod common;

use common::rogue::{FANOUT, Rogue, Server};
use common::{assert_measured, assert_verified, json, number, run, serve, show, text};
use corecast::{Context, Message, PeerId};
use serde_json::Value;

const SHORT: [&str; 8] = ["--duration", "0.3", "--warmup", "0.1", "--json", "-", "--drain", "10"];

/// What holds for every run of all-to-all that went well.
fn assert_clean(report: &Value, peers: u64) {
    assert_verified(report, "all-to-all", peers, 64);
    assert_measured(report);
    assert_eq!(number(report, "total_delivered"), number(report, "total_sent") * (peers - 1), "{report:#}");
    let pairs = &report["pairs"];
    let all = peers * (peers - 1);
    assert_eq!((number(pairs, "pairs"), number(pairs, "complete")), (all, all), "{report:#}");
    // Nobody is left out, of sending or of receiving.
    assert!(number(pairs, "sent_min") > 0 && number(pairs, "delivered_min") > 0, "{report:#}");
    assert_eq!(pairs["incomplete"].as_array().map(Vec::len), Some(0), "{report:#}");
}

#[test]
fn everybody_gets_everything_of_everybody_else() {
    for (peers, in_flight) in [("2", "1"), ("7", "3"), ("30", "1")] {
        let report = json(&run(&[&["all-to-all", "--peers", peers, "--in-flight", in_flight][..], &SHORT].concat()));
        assert_clean(&report, peers.parse().expect("a number"));
        assert!(number(&report["completion_ns"], "p50") >= number(&report["latency_ns"], "p50"), "{report:#}");
    }
}

#[test]
fn in_another_process_over_several_cores_of_both_sides() {
    let (server, address) = serve("fanout", &["--cores", "0,1"]);
    // Five peers on three engines, one of which has one peer only; and three on three.
    for peers in ["5", "3"] {
        let args = ["all-to-all", "--target", &address, "--peers", peers, "--client-cores", "0,1,2"];
        assert_clean(&json(&run(&[&args[..], &SHORT, &["--in-flight", "4"]].concat())), peers.parse().expect("a number"));
    }
    let args = ["all-to-all", "--target", &address, "--peers", "6", "--client-cores", "0,1", "--rate", "600", "--lag-bound", "10"];
    let report = json(&run(&[&args[..], &SHORT].concat()));
    assert_clean(&report, 6);
    assert!(report["send_lag_ns"]["max"].is_u64(), "{report:#}");
    drop(server);
}

#[test]
fn the_table_accounts_for_the_pairs() {
    let output = run(&["all-to-all", "--closed", "--peers", "4", "--duration", "0.2", "--warmup", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let table = text(&output.stdout);
    for part in ["all-to-all: 4 peers", "12 of 12 complete", "last of all  p50", "0 lost, 0 duplicated"] {
        assert!(table.contains(part), "{part:?} in {table}");
    }
}

/// Sends what comes to all others, but one message of the peer 0 not, twice, or damaged, to one of them.
struct Unfair {
    wrong: Wrong,
    /// In the order in which they have sent their first.
    peers: Vec<(u32, PeerId)>,
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Lose,
    Repeat,
    Damage,
    /// To its sender, too.
    Return,
}

/// The message with which something is wrong: by then everybody has sent something.
const AT: u64 = 20;

impl Rogue for Unfair {
    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let seq = u64::from_le_bytes(*message.body.first_chunk().expect("a header"));
        let sender = u32::from_le_bytes(*message.body[16..].first_chunk().expect("a header"));
        if !self.peers.iter().any(|(_, known)| *known == peer) {
            self.peers.push((sender, peer));
        }
        let is_the_one = (sender, seq) == (0, AT);
        let one = self.peers.iter().find(|(number, _)| *number == 1).map(|(_, peer)| *peer);
        let others: Vec<_> = cx.peers().filter(|other| *other != peer).collect();
        for other in others {
            let mut body = message.body.to_vec();
            let mut times = 1;
            if is_the_one && Some(other) == one {
                match self.wrong {
                    Wrong::Lose => times = 0,
                    Wrong::Repeat => times = 2,
                    Wrong::Damage => body[40] ^= 1,
                    Wrong::Return => _ = cx.send(peer, message.meta, message.body),
                }
            }
            (0..times).for_each(|_| _ = cx.send(other, message.meta, &body));
        }
    }
}

#[test]
fn whatever_a_server_does_wrong_is_found_and_the_pair_is_named() {
    // Lost, duplicated, reordered, corrupt.
    for (wrong, expected) in
        [(Wrong::Lose, [1, 0, 0, 0]), (Wrong::Repeat, [0, 1, 0, 0]), (Wrong::Damage, [1, 0, 0, 1]), (Wrong::Return, [0, 0, 0, 1])]
    {
        let server = Server::start(FANOUT, move || Unfair { wrong, peers: Vec::new() });
        let args = ["all-to-all", "--target", &server.address, "--peers", "3", "--rate", "600", "--lag-bound", "10"];
        let output = run(&[&args[..], &["--duration", "0.4", "--warmup", "0", "--drain", "0.5", "--json", "-"]].concat());
        assert_eq!(output.status.code(), Some(1), "{wrong:?}: {}", show(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
        let counts = ["lost", "duplicated", "reordered", "corrupt"].map(|count| number(&report, count));
        assert_eq!(counts, expected, "{wrong:?}: {report:#}");
        let incomplete = report["pairs"]["incomplete"].as_array().expect("a list");
        assert_eq!(incomplete.len() as u64, expected[0], "{report:#}");
        for pair in incomplete {
            assert_eq!((number(pair, "sender"), number(pair, "receiver")), (0, 1), "{report:#}");
            assert_eq!(number(pair, "sent"), number(pair, "delivered") + 1, "{report:#}");
        }
    }
}
