//! The open loop, by the built binary: it is what echo and fan-out do by default, whatever the arrivals everything arrives, and a run whose
//! generator fell behind is INVALID. How late it is depends on the machine, so the bound is set where the outcome is asserted.

mod common;

use std::path::PathBuf;

use common::{assert_measured, assert_verified, json, number, run, serve, show, text};
use serde_json::Value;

const SHORT: [&str; 8] = ["--duration", "0.4", "--warmup", "0.1", "--json", "-", "--drain", "5"];
/// No machine is so busy.
const PATIENT: [&str; 2] = ["--lag-bound", "30"];

fn report(args: &[&str]) -> Value {
    json(&run(&[args, &SHORT, &PATIENT].concat()))
}

#[test]
fn echo_and_fanout_are_open_loops_unless_they_are_told_otherwise() {
    for workload in ["echo", "fanout"] {
        let open = report(&[workload, "--peers", "5"]);
        assert_verified(&open, workload, 5, 64);
        assert_measured(&open);
        assert_eq!((open["rate"].as_f64(), &open["arrivals"], &open["in_flight"]), (Some(1000.0), &"constant".into(), &Value::Null));
        // The service time is a part of the response time, message by message.
        for at in ["p50", "p99", "max"] {
            assert!(number(&open["service_ns"], at) <= number(&open["latency_ns"], at), "{open:#}");
        }
        assert_eq!(open["validity"]["valid"], true, "{open:#}");
        for closed in [&["--closed"][..], &["--in-flight", "3"]] {
            let args = [&[workload, "--peers", "5"][..], closed, &SHORT].concat();
            let report = json(&run(&args));
            assert_eq!((&report["rate"], &report["validity"], &report["service_ns"]), (&Value::Null, &Value::Null, &Value::Null));
            assert_eq!(number(&report, "in_flight"), if closed.len() == 1 { 1 } else { 3 });
        }
    }
    // A thousand subscribers get fifty thousand deliveries a second and not a million.
    let many = report(&["fanout", "--peers", "200"]);
    assert_eq!(many["rate"].as_f64(), Some(250.0));
}

#[test]
fn whatever_the_arrivals_all_that_is_due_is_sent_and_arrives() {
    for arrivals in ["constant", "poisson", "burst", "burst:50"] {
        for args in [&["echo", "--client-cores", "0,1"][..], &["fanout"]] {
            let report = report(&[args, &["--peers", "4", "--rate", "1500", "--arrivals", arrivals]].concat());
            assert_verified(&report, args[0], 4, 64);
            assert_eq!(report["arrivals"], if arrivals == "burst" { "burst:10" } else { arrivals });
            assert_eq!((report["arrival_seed"].as_u64(), number(&report, "unsent")), ((arrivals == "poisson").then_some(1), 0));
            assert!(number(&report, "total_sent") > 0, "{report:#}");
            assert_eq!(number(&report, "total_delivered"), number(&report, "total_sent") * if args[0] == "fanout" { 4 } else { 1 });
        }
    }
}

#[test]
fn a_generator_may_spin_or_sleep() {
    for pace in ["spin", "sleep"] {
        let report = report(&["echo", "--peers", "3", "--pace", pace]);
        assert_verified(&report, "echo", 3, 64);
        assert_eq!(report["pace"], pace);
        assert!(report["send_lag_ns"]["max"].is_u64(), "{report:#}");
    }
}

#[test]
fn a_server_in_another_process_is_timed_too() {
    let (server, address) = serve("fanout", &[]);
    // Messages without any room besides what is said about them.
    let report = report(&["fanout", "--target", &address, "--peers", "3", "--size", "32", "--rate", "500", "--arrivals", "poisson"]);
    assert_verified(&report, "fanout", 3, 32);
    assert!(number(&report["service_ns"], "p50") > 0, "{report:#}");
    drop(server);
}

#[test]
fn a_run_whose_generator_fell_behind_is_invalid() {
    // A nanosecond late is late.
    let output = run(&[&["echo", "--peers", "3", "--lag-bound", "0.000000001"][..], &SHORT].concat());
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    assert_verified(&report, "echo", 3, 64);
    assert_eq!((&report["validity"]["valid"], number(&report["validity"], "lag_bound_ns")), (&Value::from(false), 1));
    // The table says so, and what to do.
    let output = run(&["fanout", "--peers", "3", "--lag-bound", "0.000000001", "--duration", "0.3", "--warmup", "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let table = text(&output.stdout);
    assert!(table.contains("INVALID") && table.contains("--rate") && table.contains("response"), "{table}");
}

#[test]
fn a_comparison_of_phases_has_a_bound_only_where_it_is_given_one() {
    let quick = ["mixed", "--quick", "--json", "-"];
    let report = json(&run(&quick));
    assert!(report["validity"].is_null() && report["with_bulk"]["service_ns"]["p50"].is_u64(), "{report:#}");
    let output = run(&[&quick[..], &["--lag-bound", "1e-9"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    assert_eq!(report["validity"]["valid"], false, "{report:#}");
}

#[test]
fn latencies_are_logged_piece_by_piece() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("open-loop-{}.hlog", std::process::id()));
    let report = report(&["fanout", "--peers", "3", "--hdr-log", path.to_str().expect("the path is text")]);
    let written = std::fs::read_to_string(&path).expect("the file is there");
    let _ = std::fs::remove_file(&path);
    assert!(written.starts_with("#[Histogram log format version 1.3]\n"), "{written}");
    let pieces = written.lines().filter(|line| line.contains(",HISTFAA")).count();
    assert_eq!(Some(pieces), report["intervals"].as_array().map(Vec::len), "{written}");
}

#[test]
fn response_times_are_written_by_percentile() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("open-loop-{}.hgrm", std::process::id()));
    let file = path.to_str().expect("the path is text");
    let report = report(&["echo", "--peers", "3", "--hgrm", file]);
    let written = std::fs::read_to_string(&path).expect("the file is there");
    let _ = std::fs::remove_file(&path);
    assert!(written.trim_start().starts_with("Value     Percentile TotalCount 1/(1-Percentile)"), "{written}");
    let counted = written.lines().find_map(|line| line.split("Total count    =").nth(1)).expect("a footer");
    // Of the messages that were due in the measured time, which are about as many as were delivered in it.
    let counted: u64 = counted.trim_end_matches(']').trim().parse().expect("a number");
    assert!(counted > 0 && counted <= number(&report, "total_delivered"), "{written}");
    let max = written.lines().find_map(|line| line.strip_prefix("#[Max     =")).and_then(|rest| rest.split(',').next()).expect("a footer");
    let max: f64 = max.trim().parse().expect("a number");
    assert!((max - number(&report["latency_ns"], "max") as f64 / 1e3).abs() < 0.01, "{written} {report:#}");
}
