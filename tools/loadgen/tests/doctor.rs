//! `doctor`, by the built binary: it says what it found, fails only for what would make a run fail, and writes JSON.

mod common;

use common::{json, run, show, text};

#[test]
fn a_run_that_is_no_effort_is_carried() {
    let output = run(&["doctor", "--peers", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let said = text(&output.stdout);
    for check in
        ["files", "somaxconn", "ports", "tcp buffers", "congestion", "hyperthreads", "governor", "cpu quota", "clock source", "profiling"]
    {
        assert!(said.contains(check), "{check:?} in {said}");
    }
    assert!(output.stderr.is_empty(), "{}", show(&output));
}

#[test]
fn what_would_fail_fails() {
    // More than a process may ever open, and more than there are ports.
    let output = run(&["doctor", "--peers", "4000000", "--own-server"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let said = text(&output.stdout);
    assert!(said.contains("FAIL") && said.contains("ip_local_port_range"), "{said}");
    assert!(output.stderr.is_empty(), "{}", show(&output));
}

#[test]
fn findings_as_json() {
    for args in [&["doctor", "--peers", "1", "--json"][..], &["doctor", "--peers", "1", "--json", "-"]] {
        let diagnosis = json(&run(args));
        assert_eq!((&diagnosis["schema"], &diagnosis["runs"]), (&"corecast-loadgen-doctor/1".into(), &true.into()));
        let checks = diagnosis["checks"].as_array().expect("a list");
        let known = ["ok", "warn", "fail", "cannot_read"];
        assert!(checks.iter().all(|check| check["status"].as_str().is_some_and(|status| known.contains(&status))), "{diagnosis:#}");
        assert!(checks.iter().filter(|check| check["status"] == "warn").all(|check| check["change"].is_string()), "{diagnosis:#}");
    }
}
