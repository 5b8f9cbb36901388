//! What is done with results, by the built binary: merging those of several client processes, steps of rates, baselines.

mod common;

use std::path::{Path, PathBuf};

use common::{Process, assert_verified, json, number, run, serve, show, text};
use serde_json::Value;

/// A file in a folder that is gone with the test's build.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

fn path(file: &Path) -> &str {
    file.to_str().expect("the path is text")
}

#[test]
fn the_results_of_two_processes_are_merged() {
    let (server, address) = serve("echo", &[]);
    let files = [file("one.json"), file("two.json")];
    let args = ["echo", "--target", &address, "--peers", "3", "--rate", "500", "--duration", "2", "--warmup", "0.3", "--lag-bound", "30"];
    // Both connect while the other does, so they measure together.
    let running = files.each_ref().map(|file| Process::start(&[&args[..], &["--json", path(file)]].concat()));
    for process in running {
        let output = process.finish();
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    }
    let [one, two] = files.each_ref().map(|file| {
        let text = std::fs::read_to_string(file).expect("the report is there");
        serde_json::from_str::<Value>(&text).expect("it is JSON")
    });
    let merged = json(&run(&["merge", path(&files[0]), path(&files[1]), "--json", "-"]));
    assert_verified(&merged, "echo", 6, 64);
    assert_eq!((merged["rate"].as_f64(), merged["merged"].as_array().map(Vec::len)), (Some(1000.0), Some(2)));
    for count in ["sent", "delivered", "total_sent", "total_delivered"] {
        assert_eq!(number(&merged, count), number(&one, count) + number(&two, count), "{count}");
    }
    let max = |report: &Value| number(&report["latency_ns"], "max");
    assert_eq!(max(&merged), max(&one).max(max(&two)));
    let p50 = |report: &Value| number(&report["latency_ns"], "p50");
    assert!((p50(&one).min(p50(&two))..=p50(&one).max(p50(&two))).contains(&p50(&merged)), "{merged:#}");

    // The table says what it is of, and a plotter's text is written of all messages.
    let output = run(&["merge", path(&files[0]), path(&files[1])]);
    assert!(text(&output.stdout).contains("echo: 6 peers") && text(&output.stdout).contains("response"), "{}", show(&output));
    let output = run(&["merge", path(&files[0]), path(&files[1]), "--hgrm", "-"]);
    let counted = |report: &Value| report["histograms"]["latency"].as_str().map_or(0, str::len);
    assert!(text(&output.stdout).contains("Total count") && counted(&merged) > 0, "{}", show(&output));

    // The same run twice, another server's run, and what is no report.
    let stranger = file("three.json");
    let args = ["echo", "--closed", "--peers", "2", "--duration", "0.1", "--warmup", "0", "--json", path(&stranger)];
    assert_eq!(run(&args).status.code(), Some(0));
    for (other, code, part) in [
        (path(&files[0]), 2, "the same run"),
        (path(&stranger), 2, "its server was its own"),
        ("/dev/null", 1, "expected a report"),
        ("/nonexistent", 1, "/nonexistent"),
    ] {
        let output = run(&["merge", path(&files[0]), other]);
        assert_eq!(output.status.code(), Some(code), "{}", show(&output));
        assert!(text(&output.stderr).contains(part), "{part:?}: {}", show(&output));
    }
    assert_eq!(run(&["merge", path(&files[0])]).status.code(), Some(2));
    drop(server);
    files.iter().chain([&stranger]).for_each(|file| drop(std::fs::remove_file(file)));
}
