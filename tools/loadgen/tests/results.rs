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

const BRIEF: [&str; 8] = ["--peers", "3", "--duration", "0.2", "--warmup", "0", "--lag-bound", "30"];

#[test]
fn a_sweep_has_a_line_for_each_rate() {
    for workload in ["echo", "fanout"] {
        let args = [&["sweep", workload, "--from", "200", "--to", "600", "--steps", "3", "--arrivals", "poisson"][..], &BRIEF].concat();
        let sweep = json(&run(&[&args[..], &["--json", "-"]].concat()));
        assert_eq!((&sweep["schema"], &sweep["setup"]["workload"]), (&"corecast-loadgen-sweep/1".into(), &workload.into()));
        let steps = sweep["steps"].as_array().expect("a list");
        assert_eq!(steps.iter().map(|step| step["rate"].as_f64()).collect::<Vec<_>>(), [Some(200.0), Some(400.0), Some(600.0)]);
        for step in steps {
            assert_eq!((&step["verdict"], number(step, "lost")), (&"valid".into(), 0), "{step:#}");
            assert!(number(&step["response_ns"], "p999") >= number(&step["service_ns"], "p50"), "{step:#}");
        }
        assert!(sweep["machine"]["kernel"].is_string(), "{sweep:#}");
        let output = run(&args);
        let table = text(&output.stdout);
        assert_eq!((output.status.code(), table.lines().count()), (Some(0), 2 + 3), "{}", show(&output));
        assert!(table.contains("poisson arrivals") && table.matches("valid").count() == 3, "{table}");
    }
}

#[test]
fn a_sweep_without_a_valid_rate_has_no_answer() {
    let output =
        run(&["sweep", "echo", "--from", "200", "--to", "400", "--steps", "2", "--peers", "2", "--duration", "0.1", "--lag-bound", "1e-9"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert_eq!(text(&output.stdout).matches("INVALID").count(), 2, "{}", show(&output));
}

#[test]
fn a_knee_is_found_or_said_to_be_elsewhere() {
    // No machine takes half a minute, and none a microsecond.
    let above = [&["knee", "echo", "--from", "100", "--to", "200", "--p99", "30", "--confirm", "1"][..], &BRIEF].concat();
    let knee = json(&run(&[&above[..], &["--json", "-"]].concat()));
    assert_eq!((knee["rate"].as_f64(), &knee["over"], &knee["generator_limited"]), (Some(200.0), &Value::Null, &Value::from(false)));
    // Both ends, and the confirmation.
    assert_eq!(knee["steps"].as_array().map(Vec::len), Some(3));
    let output = run(&above);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(text(&output.stdout).contains("no knee: p99 is under 30.0 s at 200 messages a second too, raise --to"), "{}", show(&output));
    let below = [&["knee", "fanout", "--from", "100", "--to", "200", "--p99", "0.000001", "--confirm", "1"][..], &BRIEF].concat();
    let output = run(&below);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stdout).contains("no knee: already at 100 messages a second it is over"), "{}", show(&output));
}

#[test]
fn wrong_arguments_are_answered_with_two() {
    for (args, part) in [
        (&["sweep", "echo", "--from", "100"][..], "--to"),
        (&["sweep", "echo", "--from", "200", "--to", "200"], "not below"),
        (&["sweep", "echo", "--from", "100", "--to", "200", "--steps", "1"], "--steps"),
        (&["sweep", "echo", "--from", "100", "--to", "200", "--hgrm", "-"], "for one run"),
        (&["sweep", "echo", "--from", "100", "--to", "200", "--rate", "5"], "--rate"),
        (&["sweep", "flood", "--from", "100", "--to", "200"], "flood"),
        (&["knee", "echo", "--from", "100", "--to", "200"], "--p99"),
        (&["knee", "echo", "--from", "100", "--to", "200", "--p99", "0"], "expected seconds"),
        (&["knee", "echo", "--from", "100", "--to", "200", "--p99", "1", "--precision", "0"], "0.001 to 0.5"),
        (&["knee", "echo", "--from", "100", "--to", "200", "--p99", "1", "--target", "127.0.0.1:7000"], "not who"),
        (&["merge", "a.json", "b.json", "--json", "-", "--hgrm", "-"], "the same place"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", show(&output));
        assert!(text(&output.stderr).contains(part), "{part:?} for {args:?}: {}", show(&output));
    }
}

#[test]
fn a_baseline_is_kept_and_compared_with() {
    let kept = file("baseline.json");
    let save = ["baseline", "save", path(&kept), "--rounds", "6", "--duration", "0.1", "--work", "echo --peers 2 --closed"];
    let output = run(&save);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(text(&output.stdout).contains("6 rounds of 1 works saved in"), "{}", show(&output));
    // Nothing becomes a thousand times as slow by itself.
    let comparison = json(&run(&["baseline", "compare", path(&kept), "--threshold", "1000", "--json", "-"]));
    assert_eq!((&comparison["schema"], &comparison["worse"]), (&"corecast-loadgen-comparison/1".into(), &Value::from(false)));
    let figures = comparison["works"][0]["figures"].as_array().expect("a list");
    let names: Vec<_> = figures.iter().map(|figure| figure[0].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["deliveries_per_s", "p50", "p99", "server_cpu"]);
    assert!(figures.iter().all(|figure| figure[1]["outcome"] != "worse"), "{comparison:#}");

    // A baseline that was a million times as fast.
    let mut saved: Value = serde_json::from_slice(&std::fs::read(&kept).expect("it is there")).expect("it is JSON");
    for round in saved["works"][0]["rounds"].as_array_mut().expect("a list") {
        round["p50_ns"] = (round["p50_ns"].as_f64().expect("a time") / 1e6).into();
    }
    std::fs::write(&kept, saved.to_string()).expect("it is written");
    let output = run(&["baseline", "compare", path(&kept), "--threshold", "1000"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert_eq!(text(&output.stdout).matches(" WORSE\n").count(), 1, "{}", show(&output));

    // One of another machine.
    saved["machine"]["cpu_model"] = "abacus".into();
    std::fs::write(&kept, saved.to_string()).expect("it is written");
    let output = run(&["baseline", "compare", path(&kept)]);
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    assert!(text(&output.stderr).contains("measured elsewhere: on abacus"), "{}", show(&output));
    drop(std::fs::remove_file(&kept));
}

#[test]
fn another_build_is_compared_with_by_turns() {
    let own = env!("CARGO_BIN_EXE_corecast-loadgen");
    let rounds = ["--rounds", "6", "--duration", "0.1", "--work", "fanout --peers 2 --closed"];
    let output = run(&[&["baseline", "compare", "--against", own, "--threshold", "1000"][..], &rounds].concat());
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(text(&output.stdout).starts_with("fanout --peers 2 --closed\n"), "{}", show(&output));
    let output = run(&[&["baseline", "compare", "--against", "/nonexistent"][..], &rounds].concat());
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(text(&output.stderr).contains("/nonexistent fanout"), "{}", show(&output));
}

#[test]
fn a_baseline_of_nothing_is_refused() {
    for (args, code, part) in [
        (&["baseline", "compare"][..], 2, "NAME|FILE"),
        (&["baseline", "compare", "name", "--against", "/bin/true"], 2, "cannot be used with"),
        (&["baseline", "compare", "name", "--rounds", "7"], 2, "cannot be used with"),
        (&["baseline", "compare", "/dev/null"], 1, "baseline save"),
        (&["baseline", "compare", "./nowhere.json"], 1, "nowhere.json"),
        (&["baseline", "save", "name", "--rounds", "5"], 2, "--rounds"),
        (&["baseline", "save", "name", "--work", "flood"], 2, "echo or fanout"),
        (&["baseline", "save", "name", "--work", "echo --peers x"], 2, "--peers"),
        (&["baseline", "save", "name", "--work", "echo --json x"], 2, "leave it out"),
        (&["baseline", "save", "/nonexistent/folder/x.json"], 1, "/nonexistent"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", show(&output));
        assert!(text(&output.stderr).contains(part), "{part:?} for {args:?}: {}", show(&output));
    }
}
