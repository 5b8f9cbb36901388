//! Several client processes at one server: each has exact counts of its own messages, they begin together where they are told to, and where
//! the server cannot tell them apart they are refused. What is asserted is what arrived and who was refused, not how fast.

mod common;

use common::{Process, json, number, ready, run, serve, show, text};
use serde_json::Value;

const PAIR: [&str; 10] = ["--duration", "1", "--warmup", "0.2", "--json", "-", "--drain", "10", "--connect-timeout", "15"];

/// Two client processes that begin when the server has all their peers.
fn pair(args: &[&str], address: &str, all: &str) -> [Value; 2] {
    let args = [args, &["--target", address, "--server-peers", all], &PAIR].concat();
    let [first, second] = [Process::start(&args), Process::start(&args)];
    let first = std::thread::spawn(move || first.finish());
    let second = second.finish();
    [first.join().expect("it was waited for"), second].map(|output| json(&output))
}

/// Each has its own messages and no others, and the other was there.
fn assert_apart(reports: &[Value; 2], copies: u64, others: u64) {
    for report in reports {
        assert!(number(report, "total_sent") > 0, "{report:#}");
        assert_eq!(number(report, "total_delivered"), number(report, "total_sent") * copies, "{report:#}");
        assert_eq!(["lost", "duplicated", "reordered", "corrupt", "disconnected"].map(|wrong| number(report, wrong)), [0; 5], "{report:#}");
        assert_eq!(number(report, "other_peers"), others, "{report:#}");
        assert!(number(report, "delivered") <= number(report, "total_delivered"), "{report:#}");
    }
    assert_ne!(reports[0]["run_id"], reports[1]["run_id"]);
}

#[test]
fn fan_outs_of_two_processes_have_exact_counts() {
    let (_server, address) = serve("fanout", &[]);
    let reports = pair(&["fanout", "--peers", "5", "--in-flight", "4"], &address, "12");
    assert_apart(&reports, 5, 6);
    // What the other published came here as well.
    assert!(reports.iter().any(|report| number(report, "foreign") > 0), "{reports:#?}");
}

#[test]
fn everybody_to_everybody_of_two_processes_has_exact_counts() {
    let (_server, address) = serve("fanout", &["--cores", "0,1"]);
    let reports = pair(&["all-to-all", "--peers", "4", "--in-flight", "2", "--client-cores", "0,1"], &address, "8");
    assert_apart(&reports, 3, 4);
    assert!(reports.iter().all(|report| number(&report["pairs"], "complete") == 12), "{reports:#?}");
}

#[test]
fn a_sink_tells_each_process_of_its_own_messages() {
    let (_server, address) = serve("sink", &["--cores", "0,1"]);
    let reports = pair(&["flood", "--peers", "3", "--in-flight", "50"], &address, "6");
    // `delivered` is the server's count of the measured time: with the other's messages it would be more than were sent.
    assert_apart(&reports, 1, 3);
    assert!(reports.iter().all(|report| number(report, "delivered") > 0 && report["latency_ns"]["p50"].is_u64()), "{reports:#?}");
}

#[test]
fn requests_of_two_processes_are_told_apart() {
    let (_server, address) = serve("request", &[]);
    assert_apart(&pair(&["request", "--peers", "3", "--in-flight", "4", "--deadline", "10"], &address, "6"), 1, 3);
}

#[test]
fn two_processes_that_begin_together_can_be_merged() {
    let (_server, address) = serve("echo", &[]);
    let folder = std::env::temp_dir().join(format!("corecast-loadgen-pair-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let files = ["a.json", "b.json"].map(|name| folder.join(name).to_str().expect("our names are ASCII").to_owned());
    let args = ["echo", "--peers", "3", "--in-flight", "2", "--target", &address, "--server-peers", "6", "--duration", "1"];
    let processes = files.each_ref().map(|file| Process::start(&[&args[..], &["--connect-timeout", "15", "--json", file]].concat()));
    for process in processes {
        let output = process.finish();
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        assert!(text(&output.stdout).contains("OTHERS       3 peers of other clients"), "{}", show(&output));
    }
    let merged = json(&run(&["merge", &files[0], &files[1], "--json", "-"]));
    assert_eq!((number(&merged, "peers"), merged["other_peers"].is_null()), (6, true), "{merged:#}");
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn what_is_about_all_peers_needs_a_server_of_its_own() {
    for (workload, mode) in [("receipts", "receipts"), ("slow-readers", "fanout")] {
        let (_server, address) = serve(mode, &[]);
        // The first is alone and may begin; it is there for longer than the second takes to be refused.
        let mut first = ready(&[workload, "--peers", "3", "--target", &address, "--duration", "60", "--json", "-"]);
        let output = run(&[workload, "--peers", "3", "--target", &address, "--duration", "1"]);
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        assert!(text(&output.stderr).contains("needs a server of its own"), "{}", show(&output));
        first.signal("KILL");
    }
}

#[test]
fn those_that_do_not_come_are_waited_for_and_given_up() {
    let (_server, address) = serve("echo", &[]);
    let args = ["echo", "--peers", "2", "--target", &address, "--connect-timeout", "0.5"];
    let output = run(&[&args[..], &["--server-peers", "5"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("only 2 of --server-peers 5"), "{}", show(&output));
    for (more, part) in [(&["--server-peers", "1"][..], "this process alone has 2"), (&["--server-peers", "x"], "--server-peers")] {
        let output = run(&[&args[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", show(&output));
        assert!(text(&output.stderr).contains(part), "{}", show(&output));
    }
    let output = run(&["echo", "--server-peers", "5", "--peers", "2"]);
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
}
