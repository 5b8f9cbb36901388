//! The workloads that measure in rounds of an undisturbed and a disturbed phase, by the built binary: mixed and slow readers, with the
//! server in the same process and in one of its own. What is asserted is what arrived and who was cut off, not how fast.

mod common;

use common::{assert_measured, assert_verified, json, number, ready, run, serve, show, text};
use serde_json::Value;

/// What holds for every mixed run that went well.
fn assert_mixed(report: &Value, peers: u64, rounds: u64, bulk_size: u64) {
    assert_verified(report, "mixed", peers, 128);
    assert_eq!(number(report, "rounds"), rounds);
    let (without, with, bulk) = (&report["without_bulk"], &report["with_bulk"], &report["bulk"]);
    assert_measured(without);
    assert_measured(with);
    assert_eq!(number(bulk, "size"), bulk_size);
    assert!(number(bulk, "delivered") > 0, "{report:#}");
    // Both lanes, and nothing missing in either.
    assert_eq!(number(report, "total_delivered"), number(report, "total_sent"), "{report:#}");
    let both = number(without, "delivered") + number(with, "delivered") + number(bulk, "delivered");
    assert!(number(report, "total_sent") >= both, "{report:#}");
}

/// What holds for every run of slow readers that went well, whether or not they were cut off.
fn assert_slow_readers(report: &Value, peers: u64, slow: u64, rounds: u64) {
    assert_verified(report, "slow-readers", peers, number(report, "size"));
    assert_measured(&report["undisturbed"]);
    assert_measured(&report["disturbed"]);
    assert!(report["rate_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{report:#}");
    assert_eq!((number(report, "rounds"), number(&report["slow"], "readers")), (rounds, slow));
    assert_eq!(number(&report["slow"], "stopped"), slow * rounds, "{report:#}");
    assert!(number(&report["slow"], "total_delivered") > 0, "{report:#}");
    // Those that read all the time have everything.
    assert_eq!(number(report, "total_delivered"), number(report, "total_sent") * (peers - slow), "{report:#}");
}

/// All that stopped were cut off, for not reading.
fn assert_all_cut_off(report: &Value) {
    let slow = &report["slow"];
    assert_eq!(number(slow, "cut_off"), number(slow, "stopped"), "{report:#}");
    let reasons = slow["cut_off_reasons"].as_object().expect("reasons by name");
    assert!(!reasons.is_empty() && reasons.keys().all(|reason| reason.starts_with("closed_slow_")), "{report:#}");
}

const MIXED: [&str; 11] = ["mixed", "--peers", "3", "--duration", "0.8", "--warmup", "0.1", "--bulk-size", "100k", "--json", "-"];

#[test]
fn mixed_has_both_lanes_and_the_latency_without_and_with_bulk() {
    let report = json(&run(&[&MIXED[..], &["--rounds", "2", "--bulk-ahead", "3"]].concat()));
    assert_mixed(&report, 3, 2, 100 << 10);
    assert_eq!(number(&report["bulk"], "ahead"), 3);
}

#[test]
fn mixed_against_a_server_in_another_process_and_several_client_cores() {
    let (server, address) = serve("mixed", &["--notsent-lowat", "16k", "--cores", "0,1"]);
    let more = ["--rounds", "1", "--target", &address, "--client-cores", "0,1", "--receive-buffer", "64k"];
    assert_mixed(&json(&run(&[&MIXED[..], &more].concat())), 3, 1, 100 << 10);
    // Another size of bulk, from the same server.
    let args = ["mixed", "--peers", "2", "--duration", "0.4", "--bulk-size", "1M", "--bulk-ahead", "64", "--rounds", "1", "--json", "-"];
    assert_mixed(&json(&run(&[&args[..], &["--target", &address]].concat())), 2, 1, 1 << 20);
    drop(server);
}

#[test]
fn bulk_that_the_server_refuses_is_lost_and_fails_the_run() {
    let (server, address) = serve("mixed", &["--outbox-hard", "3M", "--notsent-lowat", "16k"]);
    let args = ["mixed", "--target", &address, "--peers", "1", "--bulk-ahead", "64", "--receive-buffer", "64k"];
    let short = ["--duration", "0.4", "--rounds", "1", "--drain", "0.5", "--json", "-"];
    let output = run(&[&args[..], &short].concat());
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    assert!(number(&report, "lost") > 0, "{report:#}");
    drop(server);
}

#[test]
fn bulk_that_is_longer_than_the_server_sends_is_named() {
    let (server, address) = serve("mixed", &[]);
    let output = run(&["mixed", "--target", &address, "--peers", "2", "--bulk-size", "2M"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("--max-message"), "{}", show(&output));
    drop(server);
}

#[test]
fn slow_readers_are_cut_off_and_the_others_get_everything() {
    let args = ["slow-readers", "--peers", "20", "--slow", "3", "--size", "4k", "--rounds", "2", "--json", "-"];
    let report = json(&run(&[&args[..], &["--duration", "8", "--warmup", "0.1", "--soft-grace", "0.1"]].concat()));
    assert_slow_readers(&report, 20, 3, 2);
    assert_all_cut_off(&report);
    // The embedded server has counted the same, and nobody else.
    let counters = report["server_counters"].as_object().expect("the server is in the same process");
    let cut_off = counters.iter().filter(|(name, _)| name.starts_with("closed_slow_")).filter_map(|(_, count)| count.as_u64());
    assert_eq!(cut_off.sum::<u64>(), 6, "{report:#}");
}

#[test]
fn slow_readers_against_a_server_in_another_process() {
    let (server, address) = serve("fanout", &["--notsent-lowat", "16k", "--outbox-soft", "256k", "--soft-grace", "0.1"]);
    let args = ["slow-readers", "--target", &address, "--peers", "10", "--slow", "2", "--size", "4k", "--rounds", "1", "--json", "-"];
    let report = json(&run(&[&args[..], &["--duration", "6", "--warmup", "0.1"]].concat()));
    assert_slow_readers(&report, 10, 2, 1);
    assert_all_cut_off(&report);
    drop(server);
}

#[test]
fn slow_readers_that_are_let_be_make_room_for_fresh_ones() {
    // Too little for any mark, and nobody waits long enough.
    let args = ["slow-readers", "--peers", "9", "--slow", "4", "--rate", "500", "--rounds", "3", "--duration", "1.2", "--json", "-"];
    let report = json(&run(&[&args[..], &["--warmup", "0.1", "--outbox-soft", "1M"]].concat()));
    assert_slow_readers(&report, 9, 4, 3);
    assert_eq!(number(&report["slow"], "cut_off"), 0, "{report:#}");
    // Five that read, the publisher, and four fresh ones in each round.
    assert_eq!(number(&report["server_counters"], "established"), 5 + 1 + 3 * 4, "{report:#}");
}

#[test]
fn quick_runs_print_their_tables() {
    for (workload, parts) in [
        ("mixed", ["mixed: 8 peers", "without bulk p50", "with bulk    p50", "MB/s"]),
        ("slow-readers", ["slow-readers: 50", "undisturbed", "disturbed", "10 stopped"]),
    ] {
        let output = run(&[workload, "--quick"]);
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        let table = text(&output.stdout);
        for part in parts.into_iter().chain(["0 lost, 0 duplicated, 0 reordered, 0 corrupt"]) {
            assert!(table.contains(part), "{part:?} in {table}");
        }
    }
}

#[test]
fn sigint_ends_the_rounds_early_and_it_is_reported() {
    for args in [&["mixed", "--peers", "4"][..], &["slow-readers", "--peers", "4", "--slow", "1"]] {
        let mut process = ready(&[args, &["--duration", "600", "--json", "-"]].concat());
        // Something is to be delivered first.
        std::thread::sleep(std::time::Duration::from_millis(300));
        process.signal("INT");
        let report = json(&process.finish());
        assert_eq!(report["interrupted"], true);
        assert!(number(&report, "total_delivered") > 0, "{report:#}");
    }
}
