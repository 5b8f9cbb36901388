//! `idle` and `reconnect-storm` by the built binary: many peers of a server in another process, which is started for the run or was there.
//! What is asserted is who was there, who came back and why not, not what it cost or how long it took.

mod common;

use std::process::Output;
use std::time::{Duration, Instant};

use common::{LIMIT, Process, json, loadgen, number, ready, run, serve, show, text};
use serde_json::Value;

/// What holds for every idle run that went well.
fn assert_idle(report: &Value, peers: u64) {
    assert_eq!((report["schema"].as_str(), report["passed"].as_bool()), (Some("corecast-loadgen-idle/1"), Some(true)), "{report:#}");
    let counts = ["peers", "woken", "returned", "disconnected"].map(|count| number(report, count));
    assert_eq!(counts, [peers, peers, peers, 0], "{report:#}");
    assert!(number(report, "resident_before") > 0 && number(report, "resident_idle") > 0, "{report:#}");
    assert!(report["bytes_per_peer"].is_f64() && report["server_cpus_used"].is_f64(), "{report:#}");
}

/// What holds for every round of a storm that went well.
fn assert_rounds(report: &Value, peers: u64, rounds: usize) {
    assert_eq!((report["schema"].as_str(), report["passed"].as_bool()), (Some("corecast-loadgen-storm/1"), Some(true)), "{report:#}");
    assert_eq!(report["rounds"].as_array().map(Vec::len), Some(rounds), "{report:#}");
    for round in report["rounds"].as_array().expect("a list") {
        assert_eq!(number(round, "back"), peers, "{report:#}");
        let times = [&round["first_back_s"], &round["all_back_s"]].map(|time| time.as_f64().expect("a time"));
        assert!(times[0] > 0.0 && times.is_sorted(), "{report:#}");
        assert!(number(&round["server"], "established") >= peers, "{report:#}");
        let bystander = &round["bystander"];
        assert_eq!(["duplicated", "reordered", "corrupt"].map(|wrong| number(bystander, wrong)), [0; 3], "{report:#}");
        assert!(number(bystander, "delivered") > 0 && bystander["quiet_ns"]["p50"].is_u64(), "{report:#}");
    }
}

#[test]
fn idle_peers_are_counted_and_still_there() {
    for more in [&[][..], &["--plaintext"]] {
        let report = json(&run(&[&["idle", "--peers", "150", "--duration", "0.5", "--json", "-"], more].concat()));
        assert_idle(&report, 150);
        assert_eq!(report["encrypted"], more.is_empty(), "{report:#}");
    }
}

#[test]
fn idle_peers_are_pinged_by_either_side() {
    let args = ["idle", "--peers", "20", "--duration", "2", "--json", "-", "--", "--keepalive-interval", "0.4"];
    let report = json(&run(&args));
    assert_idle(&report, 20);
    // Twenty peers and five intervals, and not every one of them has to be over.
    assert!(number(&report, "pings_by_server") >= 20, "{report:#}");
}

#[test]
fn idle_at_a_server_that_was_there_and_at_a_path() {
    let (server, address) = serve("echo", &[]);
    assert_idle(&json(&run(&["idle", "--quick", "--target", &address, "--json", "-"])), 200);
    drop(server);
    let path = std::env::temp_dir().join(format!("corecast-loadgen-idle-{}.sock", std::process::id()));
    let listen = format!("unix:{}", path.display());
    assert_idle(&json(&run(&["idle", "--quick", "--listen", &listen, "--json", "-"])), 200);
    assert!(!path.exists(), "it goes with the server");
}

#[test]
fn a_server_that_dies_fails_the_idle_run() {
    let (mut server, address) = serve("echo", &[]);
    let idle = ready(&["idle", "--peers", "5", "--duration", "15", "--target", &address, "--json", "-"]);
    server.signal("KILL");
    let output = idle.finish();
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("did not answer the probe"), "{}", show(&output));
}

#[test]
fn all_come_back_whoever_cut_them_off() {
    let storm = ["reconnect-storm", "--peers", "60", "--rounds", "2", "--quiet", "0.3", "--json", "-"];
    let report = json(&run(&storm));
    assert_rounds(&report, 60, 2);
    for round in report["rounds"].as_array().expect("a list") {
        let bystander = &round["bystander"];
        assert_eq!(number(bystander, "delivered"), number(bystander, "sent"), "{report:#}");
        assert_eq!(["ended", "unsent"].map(|count| number(bystander, count)), [0; 2], "{report:#}");
    }
    let report = json(&run(&[&storm[..], &["--cut", "server", "--backoff-max", "0.5"]].concat()));
    assert_rounds(&report, 60, 2);
    for round in report["rounds"].as_array().expect("a list") {
        assert_eq!(number(&round["bystander"], "ended"), 1, "{report:#}");
    }
}

#[test]
fn a_storm_at_a_server_that_was_there_and_in_plaintext_at_a_path() {
    let (server, address) = serve("echo", &[]);
    assert_rounds(&json(&run(&["reconnect-storm", "--quick", "--target", &address, "--json", "-"])), 100, 1);
    drop(server);
    let path = std::env::temp_dir().join(format!("corecast-loadgen-storm-{}.sock", std::process::id()));
    let listen = format!("unix:{}", path.display());
    let args = ["reconnect-storm", "--quick", "--plaintext", "--cut", "server", "--listen", &listen, "--json", "-"];
    assert_rounds(&json(&run(&args)), 100, 1);
}

#[test]
fn what_a_server_refuses_is_told_by_reason() {
    // One attempt a second from each address, and one at once: whoever comes back at once is too early.
    let args = ["reconnect-storm", "--peers", "10", "--rounds", "1", "--quiet", "0.1", "--spread", "--backoff-max", "0.3", "--json", "-"];
    let report = json(&run(&[&args[..], &["--breaker-failures", "50", "--", "--handshakes-per-ip", "1"]].concat()));
    assert_rounds(&report, 10, 1);
    let round = &report["rounds"][0];
    assert!(number(&round["server"], "refused_ip_rate") > 0, "{report:#}");
    assert!(round["failures"].as_object().is_some_and(|failures| !failures.is_empty()), "{report:#}");
}

/// A run that is given up, because the server has no room for all.
fn run_at_a_full_server(workload: &str) -> Output {
    run(&[workload, "--peers", "10", "--connect-timeout", "1", "--", "--max-peers", "5"])
}

#[test]
fn those_that_do_not_get_in_are_counted_with_the_reason() {
    for workload in ["idle", "reconnect-storm"] {
        let output = run_at_a_full_server(workload);
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        let error = text(&output.stderr);
        // The bystander is one of the five.
        assert!(error.contains("only 4 of 10 peers connected") && error.contains("it is full"), "{error}");
    }
}

#[test]
fn a_server_that_does_not_start_or_is_another_is_named() {
    let output = run(&["idle", "--quick", "--listen", "unix:/nonexistent/server.sock"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("/nonexistent/server.sock"), "{}", show(&output));
    let (server, address) = serve("fanout", &[]);
    let output = run(&["reconnect-storm", "--quick", "--target", &address]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("serve --mode echo"), "{}", show(&output));
    drop(server);
}

#[test]
fn the_tables_say_what_was_measured() {
    for (args, parts) in [
        (&["idle", "--quick"][..], ["idle: 200 peers, encrypted", "B a peer", "% of a processor", "200 of 200 messages"]),
        (&["reconnect-storm", "--quick"], ["cut off by the peers", "all back after", "in the storm p50", "everybody came back"]),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        let table = text(&output.stdout);
        for part in parts {
            assert!(table.contains(part), "{part:?} in {table}");
        }
    }
}

#[test]
fn the_server_that_was_started_ends_with_the_run_however_that_ends() {
    // Who is killed leaves the server's key behind.
    let folder = std::env::temp_dir().join(format!("corecast-loadgen-end-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("server.sock");
    let listen = format!("unix:{}", path.display());
    for signal in ["INT", "KILL"] {
        let mut idle = loadgen(&["idle", "--peers", "5", "--duration", "600", "--listen", &listen]);
        let mut process = Process(Some(idle.env("TMPDIR", &folder).spawn().expect("the binary starts")));
        let until = Instant::now() + LIMIT;
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            assert!(Instant::now() < until, "the server listens");
            std::thread::sleep(Duration::from_millis(5));
        }
        process.signal(signal);
        process.finish();
        while std::os::unix::net::UnixStream::connect(&path).is_ok() {
            assert!(Instant::now() < until, "nobody listens any more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn wrong_arguments_are_answered_with_two() {
    for (args, part) in [
        (&["idle", "--peers", "0"][..], "--peers"),
        (&["idle", "--target", "127.0.0.1:1"], "not who"),
        (&["idle", "--plaintext", "--target", "127.0.0.1:1", "--", "--max-peers", "3"], "cannot be used with"),
        (&["idle", "--", "--maxpeers", "3"], "what follows -- is for the server: unexpected argument '--maxpeers'"),
        (&["reconnect-storm", "--plaintext", "--target", "127.0.0.1:1", "--cut", "server"], "leave out --target"),
        (&["reconnect-storm", "--spread", "--listen", "unix:/tmp/x"], "--spread"),
        (&["reconnect-storm", "--breaker-cool-down", "1"], "--breaker-failures"),
        (&["reconnect-storm", "--rounds", "0"], "--rounds"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", show(&output));
        assert!(text(&output.stderr).contains(part), "{part:?} for {args:?}: {}", show(&output));
    }
}
