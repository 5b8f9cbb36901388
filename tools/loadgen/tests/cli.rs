//! The built binary, as a user or a script runs it: exit codes, JSON, signals, errors. Every process is bounded in time and ended by its
//! own id.

mod common;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Process, assert_measured, assert_verified, json, loadgen, number, ready, run, serve, serve_at, show, text};
use serde_json::Value;

/// What holds for every run with one phase that went well.
fn assert_clean(report: &Value, workload: &str, peers: u64, size: u64) {
    assert_verified(report, workload, peers, size);
    assert_measured(report);
    let copies = if workload == "fanout" { peers } else { 1 };
    assert!(number(report, "sent") > 0 && number(report, "total_sent") >= number(report, "sent"), "{report:#}");
    assert_eq!(number(report, "total_delivered"), number(report, "total_sent") * copies, "{report:#}");
}

const SHORT: [&str; 8] = ["--duration", "0.3", "--warmup", "0.1", "--json", "-", "--drain", "3"];

#[test]
fn without_arguments_echo_and_fanout_are_run_and_verified() {
    let output = run(&["--quick"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let tables = text(&output.stdout);
    for part in ["echo: 50 peers", "fanout: 50 subscribers", "p99.9", "0 lost, 0 duplicated, 0 reordered, 0 corrupt"] {
        assert!(tables.contains(part), "{part:?} in {tables}");
    }
    let reports = json(&run(&["--quick", "--json", "-"]));
    assert_eq!(reports.as_array().map(Vec::len), Some(2));
}

#[test]
fn echo_against_a_server_in_another_process() {
    let (server, address) = serve("echo", &[]);
    let report = json(&run(&[&["echo", "--target", &address, "--peers", "20", "--size", "100", "--in-flight", "3"][..], &SHORT].concat()));
    assert_clean(&report, "echo", 20, 100);
    assert_eq!(number(&report, "in_flight"), 3);
    assert_eq!(report["server"], address);
    drop(server);
}

#[test]
fn the_measured_time_is_reported_piece_by_piece() {
    for args in [&["echo", "--peers", "5", "--closed"][..], &["fanout", "--peers", "5", "--closed", "--client-cores", "0,1"]] {
        let report = json(&run(&[args, &SHORT].concat()));
        let intervals = report["intervals"].as_array().expect("a list");
        assert!(intervals.len() >= 2, "{report:#}");
        // Whatever was counted is in one of them.
        for count in ["sent", "delivered"] {
            assert_eq!(intervals.iter().map(|interval| number(interval, count)).sum::<u64>(), number(&report, count), "{report:#}");
        }
        for interval in intervals {
            assert_eq!((interval["core_time"].as_array().map(Vec::len), &interval["disturbed"]), (Some(1), &Value::from(false)));
            assert!(number(interval, "p50_ns") <= number(interval, "p99_ns") && number(interval, "p99_ns") <= number(interval, "max_ns"));
        }
    }
}

#[test]
fn a_server_may_be_at_a_path() {
    let path = std::env::temp_dir().join(format!("corecast-loadgen-{}.sock", std::process::id()));
    let (mut server, address) = serve_at(&format!("unix:{}", path.display()), "echo", &[]);
    assert!(address.ends_with(&format!("@unix:{}", path.display())), "{address}");
    let report = json(&run(&[&["echo", "--target", &address, "--peers", "20", "--size", "40k", "--in-flight", "3"][..], &SHORT].concat()));
    assert_clean(&report, "echo", 20, 40 << 10);
    server.signal("TERM");
    server.finish();
    assert!(!path.exists(), "it goes with the server");
}

#[test]
fn fanout_against_a_server_in_another_process() {
    let (server, address) = serve("fanout", &[]);
    // Longer than a fragment.
    let report =
        json(&run(&[&["fanout", "--target", &address, "--peers", "15", "--size", "40k", "--in-flight", "4"][..], &SHORT].concat()));
    assert_clean(&report, "fanout", 15, 40 << 10);
    assert!(number(&report["completion_ns"], "p50") >= number(&report["latency_ns"], "p50"), "{report:#}");
    drop(server);
}

#[test]
fn flood_is_counted_by_the_sink() {
    let report = json(&run(&[&["flood", "--peers", "5", "--size", "1k"][..], &SHORT].concat()));
    assert_clean(&report, "flood", 5, 1024);
    let (server, address) = serve("sink", &[]);
    let report = json(&run(&[&["flood", "--target", &address, "--peers", "3", "--size", "64"][..], &SHORT].concat()));
    assert_clean(&report, "flood", 3, 64);
    drop(server);
}

#[test]
fn a_flood_is_bounded_by_what_the_sink_has_counted() {
    for (peers, in_flight) in [(1, "1"), (3, "7"), (20, "1000")] {
        let args = ["flood", "--peers", &peers.to_string(), "--in-flight", in_flight];
        let report = json(&run(&[&args[..], &SHORT].concat()));
        assert_clean(&report, "flood", peers, 64);
        assert_eq!(number(&report, "in_flight").to_string(), in_flight);
    }
}

#[test]
fn a_fixed_rate_is_kept() {
    for workload in ["echo", "fanout", "flood"] {
        let report = json(&run(&[&[workload, "--peers", "4", "--rate", "2000", "--lag-bound", "10"][..], &SHORT].concat()));
        assert_clean(&report, workload, 4, 64);
        let sent = number(&report, "sent") as f64 / report["elapsed_s"].as_f64().expect("a time");
        assert!((1000.0..4000.0).contains(&sent), "{report:#}");
        assert!(report["send_lag_ns"]["max"].is_u64() && report["in_flight"].is_null(), "{report:#}");
    }
}

#[test]
fn several_client_and_server_cores_share_the_peers() {
    for workload in ["echo", "fanout"] {
        let args = [workload, "--peers", "9", "--in-flight", "4", "--server-cores", "0,1", "--client-cores", "1,0,2"];
        let report = json(&run(&[&args[..], &SHORT].concat()));
        assert_clean(&report, workload, 9, 64);
    }
}

#[test]
fn sigterm_under_load_drains_what_was_taken() {
    let (mut server, address) = serve("echo", &[]);
    let run =
        ready(&["echo", "--target", &address, "--peers", "5", "--in-flight", "64", "--duration", "15", "--drain", "0.5", "--json", "-"]);
    // In the middle of it.
    std::thread::sleep(Duration::from_millis(300));
    server.signal("TERM");
    let output = server.finish();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let said = text(&output.stderr);
    assert!(said.contains(", drained in ") && said.contains(" 0 messages unsent"), "{said}");
    let output = run.finish();
    assert_eq!(output.status.code(), Some(1), "a server that leaves fails the run: {}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    assert_eq!((number(&report, "disconnected"), number(&report, "corrupt"), number(&report, "duplicated")), (5, 0, 0), "{report:#}");
}

#[test]
fn sigterm_drains_and_the_counters_are_written() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("stats-{}.json", std::process::id()));
    let file = path.to_str().expect("the path is text");
    let (mut server, address) = serve("echo", &["--stats-json", file, "--spin-us", "0"]);
    json(&run(&[&["echo", "--closed", "--target", &address, "--peers", "4"][..], &SHORT].concat()));
    server.signal("TERM");
    let output = server.finish();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(text(&output.stderr).contains("served echo"), "{}", show(&output));
    let stats: Value = serde_json::from_slice(&std::fs::read(&path).expect("the file is there")).expect("it is JSON");
    let _ = std::fs::remove_file(&path);
    assert!(number(&stats["sum"], "messages_received") > 0, "{stats:#}");
    assert_eq!(stats["cores"].as_array().map(Vec::len), Some(1));
}

#[test]
fn sigint_ends_an_idle_server() {
    let (mut server, _) = serve("fanout", &[]);
    server.signal("INT");
    let output = server.finish();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
}

#[test]
fn sigint_ends_a_run_early_and_it_is_reported() {
    let mut process = ready(&["echo", "--closed", "--peers", "5", "--duration", "15", "--warmup", "0", "--json", "-"]);
    // Something is to be delivered first.
    std::thread::sleep(Duration::from_millis(300));
    process.signal("INT");
    let report = json(&process.finish());
    assert_eq!(report["interrupted"], true);
    assert!(report["elapsed_s"].as_f64().is_some_and(|elapsed| elapsed < 10.0), "{report:#}");
    assert_eq!(number(&report, "total_delivered"), number(&report, "total_sent"), "{report:#}");
}

#[test]
fn a_server_that_dies_fails_the_run() {
    let (mut server, address) = serve("echo", &[]);
    let run = ready(&["echo", "--target", &address, "--peers", "5", "--duration", "15", "--drain", "0.5", "--json", "-"]);
    server.signal("KILL");
    let output = run.finish();
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", show(&output)));
    assert_eq!(number(&report, "disconnected"), 5, "{report:#}");
}

#[test]
fn a_server_that_is_full_says_so() {
    let (server, address) = serve("echo", &["--max-peers", "2"]);
    let output = run(&["echo", "--target", &address, "--peers", "3", "--connect-timeout", "0.5"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let error = text(&output.stderr);
    assert!(error.contains("only 2 of 3 peers connected") && error.contains("it is full"), "{error}");
    drop(server);
}

#[test]
fn an_occupied_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = run(&["serve", "--listen", &address, "--mode", "echo", "--open"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains(&address), "{}", show(&output));
}

#[test]
fn peers_that_cannot_connect_are_counted_with_the_reason() {
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").to_string();
    let output = run(&["echo", "--plaintext", "--target", &address, "--peers", "3", "--connect-timeout", "0.3"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let error = text(&output.stderr);
    assert!(error.contains("only 0 of 3 peers connected") && error.contains("refused") && error.contains(&address), "{error}");
}

#[test]
fn the_wrong_server_is_named() {
    let (server, address) = serve("echo", &["--max-message", "2k"]);
    let output = run(&["fanout", "--target", &address, "--peers", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("serve --mode fanout"), "{}", show(&output));
    let network = "ab".repeat(32);
    let output = run(&["echo", "--target", &address, "--peers", "1", "--network", &network, "--connect-timeout", "0.3"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("both sides need the same --network"), "{}", show(&output));
    drop(server);
}

#[test]
fn wrong_arguments_are_answered_with_two() {
    for (args, part) in [
        (&["echo", "--size", "31"][..], "32 bytes to 16M"),
        (&["echo", "--size", "0"], "32 bytes to 16M"),
        (&["echo", "--size", "17M"], "32 bytes to 16M"),
        (&["echo", "--peers", "0"], "--peers"),
        (&["echo", "--in-flight", "0"], "--in-flight"),
        (&["echo", "--rate", "0"], "--rate"),
        (&["echo", "--rate", "5", "--in-flight", "2"], "cannot be used with"),
        (&["echo", "--rate", "5", "--closed"], "cannot be used with"),
        (&["fanout", "--arrivals", "poisson", "--in-flight", "2"], "cannot be used with"),
        (&["echo", "--arrivals", "burst:1"], "constant, poisson, burst"),
        (&["echo", "--lag-bound", "0"], "expected seconds"),
        (&["echo", "--pace", "fast"], "--pace"),
        (&["echo", "--json", "-", "--hgrm", "-"], "--json and --hgrm cannot go to the same place"),
        (&["echo", "--hgrm", "x", "--hdr-log", "x"], "the same place"),
        (&["topics", "--arrivals", "poisson"], "needs --rate"),
        (&["flood", "--pace", "sleep"], "needs --rate"),
        (&["flood", "--rate", "0"], "--rate"),
        (&["flood", "--rate", "5", "--in-flight", "2"], "cannot be used with"),
        (&["fanout", "--duration", "-1"], "--duration"),
        (&["fanout", "--target", "nowhere"], "expected IP:port"),
        (&["fanout", "--target", "127.0.0.1:0"], "port 0"),
        (&["fanout", "--target", "127.0.0.1:1", "--server-cores", "0"], "cannot be used with"),
        (&["serve", "--listen", "127.0.0.1:0"], "--mode"),
        (&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--cores", "0,0"], "named twice"),
        (&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--network", "xyz"], "64 hexadecimal digits"),
        (&["serve", "--listen", "0.0.0.0:0", "--mode", "echo", "--plaintext"], "--allow-remote"),
        (&["serve", "--listen", "127.0.0.1:0", "--mode", "echo"], "who may connect?"),
        (&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--plaintext", "--identity", "key"], "cannot be used with"),
        (&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--open", "--allow-remote"], "--plaintext"),
        (&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--open", "--handshakes-per-ip", "0"], "expected a number a second"),
        (&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--open", "--exempt", "10.0.0.0/99"], "as in 10.0.0.0/8"),
        (&["echo", "--target", "127.0.0.1:7000"], "not who"),
        (&["echo", "--target", "abc@127.0.0.1:7000"], "64 hexadecimal digits"),
        (&["echo", "--plaintext", "--target", "192.0.2.1:7000"], "--allow-remote"),
        (&["mixed", "--rate", "0"], "--rate"),
        (&["mixed", "--bulk-ahead", "0"], "--bulk-ahead"),
        (&["mixed", "--bulk-size", "31"], "32 bytes to 16M"),
        (&["mixed", "--notsent-lowat", "0"], "--notsent-lowat"),
        (&["mixed", "--target", "127.0.0.1:1", "--notsent-lowat", "16k"], "cannot be used with"),
        (&["slow-readers", "--peers", "1"], "--peers"),
        (&["slow-readers", "--slow", "0"], "--slow"),
        (&["slow-readers", "--rounds", "0"], "--rounds"),
        (&["slow-readers", "--target", "127.0.0.1:1", "--outbox-soft", "64k"], "cannot be used with"),
        (&["topics", "--topics", "0"], "--topics"),
        (&["topics", "--per-peer", "0"], "--per-peer"),
        (&["topics", "--topics", "5", "--per-peer", "6"], "only 5 --topics"),
        (&["topics", "--peers", "3", "--topics", "7", "--per-peer", "2"], "without a subscriber"),
        (&["receipts", "--quorum", "0"], "--quorum"),
        (&["receipts", "--peers", "3", "--quorum", "4"], "only 3 --peers"),
        (&["receipts", "--deadline", "0"], "0.001 seconds"),
        (&["all-to-all", "--peers", "1"], "--peers"),
        (&["all-to-all", "--peers", "2001"], "--peers"),
        (&["request", "--deadline", "0"], "0.001 seconds"),
        (&["dance"], "dance"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", show(&output));
        assert!(text(&output.stderr).contains(part), "{part:?} for {args:?}: {}", show(&output));
    }
}

#[test]
fn more_peers_than_descriptors_are_refused_before_anything_starts() {
    let output = run(&["echo", "--peers", "4000000"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("RLIMIT_NOFILE"), "{}", show(&output));
}

#[test]
fn json_that_cannot_be_written_is_refused_before_anything_starts() {
    let file = "/nonexistent/report.json";
    let listen = ["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--stats-json", file];
    for args in [&["--json", file][..], &["echo", "--duration", "60", "--json", file], &listen] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
        assert!(output.stdout.is_empty() && text(&output.stderr).contains(file), "{args:?}: {}", show(&output));
    }
}

#[test]
fn standard_output_that_cannot_be_written_ends_the_run() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
    for args in [&["--quick"][..], &["--quick", "--json", "-"]] {
        let output = Process(Some(loadgen(args).stdout(full()).spawn().expect("the binary starts"))).finish();
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        assert!(text(&output.stderr).contains("cannot write to standard output"), "{}", show(&output));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Process(Some(loadgen(args).stdout(writer).spawn().expect("the binary starts"))).finish();
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        assert!(!text(&output.stderr).contains("panicked") && !text(&output.stderr).contains("cannot write"), "{}", show(&output));
    }
    // Nor does a standard error that is full panic.
    let output = Process(Some(loadgen(&["--quick"]).stderr(full()).spawn().expect("the binary starts"))).finish();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
}

#[test]
fn a_target_that_nobody_listens_at_is_given_up_early_and_explained() {
    let address = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").to_string();
    let started = Instant::now();
    let output = run(&["echo", "--plaintext", "--target", &address, "--peers", "3"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let error = text(&output.stderr);
    assert_eq!(error.matches("trying again: could not connect").count(), 1, "{error}");
}

/// A folder of its own, gone with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("corecast-loadgen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        if !text.is_empty() {
            std::fs::write(&path, text).expect("a file");
        }
        path.to_str().expect("our names are ASCII").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_key_file_a_network_secret_and_the_other_cipher() {
    let folder = Folder::new("keys");
    let (key, secret) = (folder.file("key", ""), folder.file("secret", &format!("corecast-network-secret-1 {}\n", "5e".repeat(32))));
    let output = run(&["echo", "--network-secret-file", &secret, "--duration", "0.1"]);
    assert!(text(&output.stderr).contains("mode 0644"), "{}", show(&output));
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let more = ["--identity", &key, "--network-secret-file", &secret, "--cipher", "chacha-poly"];
    let (server, first) = serve("echo", &more);
    let args =
        ["echo", "--closed", "--target", &first, "--peers", "4", "--identities", "2", "--seed", "1", "--duration", "0.2", "--warmup", "0"];
    let output = run(&[&args[..], &more[2..], &["--json", "-"]].concat());
    assert!(number(&json(&output), "total_delivered") > 0, "{}", show(&output));
    let output = run(&[&args[..], &["--connect-timeout", "0.3"]].concat());
    assert!(text(&output.stderr).contains("--cipher"), "{}", show(&output));
    let output = run(&[&args[..], &more[4..], &["--connect-timeout", "0.3"]].concat());
    assert!(text(&output.stderr).contains("--network-secret-file"), "{}", show(&output));
    drop(server);
    // The same key again: the same node.
    let (server, second) = serve("echo", &more);
    assert_eq!(first.split('@').next(), second.split('@').next());
    drop(server);
    let key = folder.file("no-key", "something else");
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--open", "--identity", &key]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains(&key), "{}", show(&output));
}

#[test]
fn a_stranger_is_not_let_in() {
    let stranger = "ab".repeat(32);
    let mut process =
        Process::start(&["serve", "--listen", "127.0.0.1:0", "--mode", "echo", "--allow", &stranger, "--exempt", "127.0.0.0/8"]);
    let address = process.says().strip_prefix("listening on ").expect("it says where").to_owned();
    let limits = process.says();
    assert!(limits.contains("admitted: 1 nodes") && limits.contains("4/s (burst 16)") && limits.contains("127.0.0.0/8"), "{limits}");
    let output = run(&["echo", "--target", &address, "--peers", "1", "--connect-timeout", "0.3"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("not on its list"), "{}", show(&output));
    drop(process);
}

#[test]
fn a_good_peer_is_measured_under_attack() {
    for args in [&["hostile", "--duration", "0.15", "--json", "-"][..], &["hostile", "--plaintext", "--duration", "0.15", "--json", "-"]] {
        let report = json(&run(args));
        assert_eq!(report["canary_survived"], true, "{report:#}");
        let lines = report["lines"].as_array().expect("a line for each attack");
        assert_eq!((lines.len(), &lines[0]["attack"]), (14, &Value::from("none")), "{report:#}");
        assert!(lines.iter().all(|line| line["round_trips_per_s"].as_f64().is_some_and(|rate| rate > 0.0)), "{report:#}");
        assert!(number(&report["counters"], "handshake_wrong_magic") > 0, "{report:#}");
    }
    let output = run(&["hostile", "--plaintext", "--target", "192.0.2.1:7000"]);
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    assert!(text(&output.stderr).contains("stay on this machine"), "{}", show(&output));
}
