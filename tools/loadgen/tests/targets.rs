//! Several `--target`: the peers of a run are dealt to servers in processes of their own, and each has its account. What is asserted is
//! who got what, not how fast.

mod common;

use std::net::TcpListener;

use common::{Process, assert_measured, assert_verified, json, number, ready, run, serve, serve_at, show, text};
use serde_json::Value;

const SHORT: [&str; 8] = ["--duration", "0.3", "--warmup", "0.1", "--json", "-", "--drain", "5"];

/// What holds for a run against these targets that went well.
fn assert_dealt(report: &Value, workload: &str, addresses: &[&str], peers: &[u64]) {
    assert_verified(report, workload, peers.iter().sum(), 64);
    assert_measured(report);
    assert_eq!(report["server"], addresses.join(", "));
    let targets = report["targets"].as_array().expect("a list");
    assert_eq!(targets.len(), addresses.len(), "{report:#}");
    for ((target, address), peers) in targets.iter().zip(addresses).zip(peers) {
        assert_eq!((target["target"].as_str(), number(target, "peers")), (Some(*address), *peers), "{report:#}");
        let sent = number(target, "total_sent");
        assert!(sent > 0 && sent == number(target, "total_delivered"), "{report:#}");
        assert!(number(&target["latency_ns"], "p50") > 0, "{report:#}");
        assert!(target["server_cpus_used"].as_f64().is_some_and(|used| used > 0.0), "{report:#}");
    }
    for count in ["total_sent", "total_delivered"] {
        let sum: u64 = targets.iter().map(|target| number(target, count)).sum();
        assert_eq!(sum, number(report, count), "{report:#}");
    }
}

#[test]
fn peers_are_dealt_to_the_servers_in_turn() {
    let path = std::env::temp_dir().join(format!("corecast-loadgen-targets-{}.sock", std::process::id()));
    let (_a, a) = serve("echo", &[]);
    let (_b, b) = serve("echo", &[]);
    let (mut c, at_a_path) = serve_at(&format!("unix:{}", path.display()), "echo", &[]);
    let addresses = [a.as_str(), b.as_str(), at_a_path.as_str()];
    let targets = ["--target", addresses[0], "--target", addresses[1], "--target", addresses[2]];
    for more in [&["--in-flight", "3"][..], &["--rate", "600", "--lag-bound", "30", "--client-cores", "0,1"]] {
        let report = json(&run(&[&["echo", "--peers", "10"][..], &targets, &SHORT, more].concat()));
        assert_dealt(&report, "echo", &addresses, &[4, 3, 3]);
    }
    let output = run(&[&["echo", "--peers", "3", "--closed", "--duration", "0.2"][..], &targets].concat());
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(text(&output.stdout).matches("  target       ").count(), 3, "{}", show(&output));
    c.signal("TERM");
    c.finish();
}

#[test]
fn requests_and_floods_have_an_account_of_each_server() {
    for (workload, mode) in [("request", "request"), ("flood", "sink")] {
        let (_a, a) = serve(mode, &[]);
        let (_b, b) = serve(mode, &[]);
        let args = [workload, "--peers", "5", "--in-flight", "4", "--target", &a, "--target", &b];
        let report = json(&run(&[&args[..], &SHORT].concat()));
        let targets = report["targets"].as_array().expect("a list");
        assert_eq!(targets.iter().map(|target| number(target, "peers")).collect::<Vec<_>>(), [3, 2], "{report:#}");
        for target in targets {
            assert!(number(target, "total_sent") > 0, "{report:#}");
            assert_eq!(number(target, "total_sent"), number(target, "total_delivered"), "{report:#}");
        }
        assert!(number(&report, "delivered") > 0, "{report:#}");
    }
}

#[test]
fn a_target_that_is_not_there_is_named() {
    let listen = ["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--plaintext"];
    let mut server = Process::start(&listen);
    let there = server.says().strip_prefix("listening on ").expect("it says where").to_owned();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").to_string();
    let args = ["echo", "--plaintext", "--peers", "4", "--target", &there, "--target", &nobody];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let error = text(&output.stderr);
    // Those at the other server are there, and what is said of the rest says where they were to go.
    assert!(error.contains("only 2 of 4 peers connected") && error.contains(&format!("{nobody}: could not connect")), "{error}");
}

#[test]
fn a_target_of_another_mode_is_named() {
    let (_a, a) = serve("echo", &[]);
    let (_b, b) = serve("sink", &[]);
    let output = run(&["echo", "--peers", "4", "--target", &a, "--target", &b]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let error = text(&output.stderr);
    assert!(error.contains(&format!("the server at {b} runs in sink mode")) && error.contains("serve --mode echo"), "{error}");
}

#[test]
fn a_target_that_dies_is_named_among_the_reasons() {
    let (_a, a) = serve("echo", &[]);
    let (mut b, dies) = serve("echo", &[]);
    let process = ready(&["echo", "--closed", "--peers", "4", "--target", &a, "--target", &dies, "--duration", "15", "--json", "-"]);
    b.signal("KILL");
    let output = process.finish();
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    let address = dies.split_once('@').expect("a node and an address").1;
    let reasons = report["disconnect_reasons"].as_object().expect("reasons by name");
    assert!(number(&report, "disconnected") == 2 && reasons.keys().all(|reason| reason.starts_with(address)), "{report:#}");
}

#[test]
fn targets_that_make_no_sense_are_answered_with_two() {
    let two = ["--plaintext", "--target", "127.0.0.1:1", "--target", "127.0.0.1:2"];
    for (args, part) in [
        (&["fanout"][..], "fanout needs one --target"),
        (&["all-to-all"], "all-to-all needs one --target"),
        (&["topics"], "topics needs one --target"),
        (&["receipts"], "receipts needs one --target"),
        (&["slow-readers"], "slow-readers needs one --target"),
        (&["echo", "--peers", "1"], "fewer than there are targets"),
        (&["echo", "--target", "127.0.0.1:1"], "is there twice"),
        (&["echo", "--target", "ab@127.0.0.1:3"], "64 hexadecimal digits"),
    ] {
        let output = run(&[args, &two].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", show(&output));
        assert!(text(&output.stderr).contains(part), "{part:?} for {args:?}: {}", show(&output));
    }
}
