//! `serve` with rates for each peer, by the built binary: what is over them is read later, dropped, or costs the peer its connection. What
//! is asserted is what arrived and what the server counted.

mod common;

use std::process::Output;

use common::{Process, json, number, run, serve, show, text};
use serde_json::Value;

/// A run of echo that sends more than it may, and what the server has counted at its end.
fn run_over(limits: &[&str], drain: &str) -> (Output, Value) {
    let (mut server, address) = serve("echo", &[limits, &["--stats-json", "-"]].concat());
    let echo = ["echo", "--target", &address, "--peers", "2", "--in-flight", "50", "--duration", "0.5", "--warmup", "0"];
    let output = run(&[&echo[..], &["--size", "4k", "--json", "-", "--drain", drain]].concat());
    server.signal("TERM");
    let ended = server.finish();
    let said = text(&ended.stdout);
    let stats = said.find('{').map(|begin| serde_json::from_str(&said[begin..]).expect("it is JSON"));
    (output, stats.unwrap_or_else(|| panic!("no counters: {}", show(&ended))))
}

#[test]
fn what_is_over_the_rate_is_read_later_and_nothing_is_lost() {
    for limits in [&["--rate-receive-messages", "200:20"][..], &["--rate-receive-bytes", "1M"]] {
        let (output, stats) = run_over(limits, "10");
        let report = json(&output);
        assert_eq!(number(&report, "total_delivered"), number(&report, "total_sent"), "{report:#}");
        assert!(number(&stats["sum"], "rate_delays") > 0, "{stats:#}");
    }
}

#[test]
fn what_is_over_the_rate_is_dropped_and_found_lost() {
    let (output, stats) = run_over(&["--rate-receive-messages", "100:20", "--when-over", "drop"], "0.5");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    // The run's own questions may be dropped as well.
    let dropped = number(&stats["sum"], "rate_limited_messages");
    assert!(number(&report, "lost") > 0 && number(&report, "lost") <= dropped, "{dropped} dropped: {report:#}");
}

#[test]
fn who_is_over_the_rate_is_cut_off_and_told_why() {
    let (output, stats) = run_over(&["--rate-receive-messages", "100:20", "--when-over", "disconnect"], "0.5");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    let reasons = report["disconnect_reasons"].as_object().expect("reasons by name");
    assert!(reasons.keys().any(|reason| reason.contains("sends more than it allows")), "{report:#}");
    assert!(number(&stats["sum"], "closed_rate_limited") > 0, "{stats:#}");
}

#[test]
fn what_is_sent_over_the_rate_is_refused_and_found_lost() {
    let (output, stats) = run_over(&["--rate-send-messages", "100:20", "--rate-send-bytes", "100M"], "0.5");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(number(&stats["sum"], "sends_rate_limited") > 0, "{stats:#}");
}

#[test]
fn the_rates_in_force_are_in_the_second_line() {
    let rates = ["--rate-receive-messages", "9", "--rate-send-bytes", "3M:4M", "--when-over", "drop"];
    let mut server = Process::start(&[&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--open"], &rates[..]].concat());
    assert!(server.says().starts_with("listening on "));
    let limits = server.says();
    for part in ["received 9 messages/s (burst 9)", "sent 3145728 bytes/s (burst 4194304)", "over it dropped"] {
        assert!(limits.contains(part), "{part:?} in {limits}");
    }
}

#[test]
fn wrong_rates_are_answered_with_the_reason() {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--open"];
    for (args, code, part) in [
        (&["--rate-receive-messages", "0"][..], 2, "expected a number a second"),
        (&["--rate-receive-bytes", "1M:"], 2, "expected bytes a second"),
        (&["--when-over", "drop"], 2, "there is no limit"),
        (&["--when-over", "explode", "--rate-receive-messages", "5"], 2, "delay, drop, disconnect"),
        (&["--rate-receive-bytes", "1M:100"], 1, "rates.receive.bytes.burst"),
    ] {
        let output = run(&[&serve[..], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", show(&output));
        assert!(text(&output.stderr).contains(part), "{part:?} for {args:?}: {}", show(&output));
    }
}
