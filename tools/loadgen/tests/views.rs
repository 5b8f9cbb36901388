//! How a run is looked at, by the built binary: flamegraphs, pages, the live view.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{json, run, serve, show};

/// A file that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the path is text")
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_else(|error| panic!("{}: {error}", self.path()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_flamegraph_has_the_threads_of_the_engines() {
    let svg = Scratch::new("run.svg");
    let report = json(&run(&[
        "fanout",
        "--in-flight",
        "2",
        "--peers",
        "20",
        "--duration",
        "0.6",
        "--warmup",
        "0",
        "--json",
        "-",
        "--flamegraph",
        svg.path(),
    ]));
    assert_eq!(report["lost"], 0, "{report:#}");
    let svg = svg.text();
    for part in ["server-0", "client-0", "fanout: 20 subscribers", "samples"] {
        assert!(svg.contains(part), "{part:?} in {} bytes", svg.len());
    }
    assert!(svg.trim_end().ends_with("</svg>"));
}

#[test]
fn a_flamegraph_of_a_server_in_its_own_process() {
    let svg = Scratch::new("serve.svg");
    let (mut server, address) = serve("echo", &["--flamegraph", svg.path()]);
    json(&run(&["echo", "--in-flight", "2", "--target", &address, "--peers", "20", "--duration", "0.5", "--warmup", "0", "--json", "-"]));
    server.signal("TERM");
    let output = server.finish();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let svg = svg.text();
    assert!(svg.contains("server-0") && !svg.contains("client-0") && svg.trim_end().ends_with("</svg>"));
}

#[test]
fn a_flamegraph_that_cannot_be_written_ends_the_run_before_it_begins() {
    let output = run(&["echo", "--flamegraph", "/nowhere/out.svg"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(output.stdout.is_empty() && show(&output).contains("/nowhere/out.svg"), "{}", show(&output));
}

/// A page that needs nothing from elsewhere.
fn assert_page(page: &str, parts: &[&str]) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"), "{} bytes", page.len());
    for part in parts {
        assert!(page.contains(part), "{part:?} in {} bytes", page.len());
    }
    for foreign in ["<script", "http:", "https:", "url(", "NaN"] {
        assert!(!page.contains(foreign), "{foreign:?}");
    }
}

const SHORT: [&str; 6] = ["--duration", "1", "--warmup", "0.1", "--peers", "4"];

#[test]
fn every_workload_has_a_page() {
    let plots =
        ["Latency by percentile", "Latency over time", "Throughput over time", "What each core of the server did", "messages_received"];
    for workload in ["echo", "fanout", "topics", "receipts"] {
        let page = Scratch::new(&format!("{workload}.html"));
        let more: &[&str] = if workload == "topics" { &["--topics", "4"] } else { &[] };
        json(&run(&[&[workload, "--in-flight", "2", "--json", "-", "--html", page.path()], &SHORT[..], more].concat()));
        assert_page(&page.text(), &[&[workload][..], &plots].concat());
    }
    // Counted at the server, where there is no histogram.
    let page = Scratch::new("flood.html");
    json(&run(&[&["flood", "--json", "-", "--html", page.path()], &SHORT[..]].concat()));
    assert_page(&page.text(), &["flood", "What each core of the server did"]);
    for (workload, parts) in [("mixed", ["without bulk", "with bulk"]), ("slow-readers", ["undisturbed", "disturbed"])] {
        let page = Scratch::new(&format!("{workload}.html"));
        json(&run(&[workload, "--quick", "--peers", "8", "--json", "-", "--html", page.path()]));
        assert_page(&page.text(), &parts);
    }
}

#[test]
fn a_page_of_results_that_were_written_before() {
    let (slow, fast, page) = (Scratch::new("slow.json"), Scratch::new("fast.json"), Scratch::new("both.html"));
    for (file, rate) in [(&fast, "400"), (&slow, "200")] {
        let output = run(&[&["echo", "--rate", rate, "--lag-bound", "10", "--json", file.path()], &SHORT[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    }
    let output = run(&["html", fast.path(), slow.path(), "-o", page.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let text = page.text();
    assert_page(&text, &["2 runs", "Latency against throughput", "--rate 200", "--rate 400"]);
    assert!(text.find("200 a second") < text.find("400 a second"), "in the order of the staircase");
    let output = run(&["html", slow.path(), "-o", "-"]);
    assert_page(&String::from_utf8(output.stdout).expect("it is text"), &["200 a second", "Latency by percentile"]);
}

#[test]
fn a_page_of_what_is_no_result_is_refused() {
    let other = Scratch::new("other.json");
    for (text, words) in [("{", "EOF"), ("{}", "no schema"), ("[]", "nothing in it"), ("{\"schema\": \"corecast-loadgen/1\"}", "loadgen/1")]
    {
        fs::write(other.path(), text).expect("the folder is there");
        let output = run(&["html", other.path(), "-o", "-"]);
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        assert!(output.stdout.is_empty() && show(&output).contains(words), "{words:?} in {}", show(&output));
    }
    assert_eq!(run(&["html", other.path()]).status.code(), Some(2), "it has to be said where to");
}

#[test]
fn what_cannot_go_together_is_refused_before_anything_starts() {
    for (args, words) in [
        (&["echo", "--html", "x", "--json", "x"][..], "cannot go to the same place"),
        (&["echo", "--flamegraph", "-"], "--flamegraph needs a file"),
        (&["echo", "--live", "--json", "-"], "standard output"),
        (&["sweep", "echo", "--from", "1", "--to", "2", "--flamegraph", "x"], "--flamegraph is for one run"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{}", show(&output));
        assert!(show(&output).contains(words), "{words:?} in {}", show(&output));
    }
}

#[test]
fn the_live_view_is_not_there_where_nobody_looks() {
    let output = run(&[&["echo", "--live", "--in-flight", "1"][..], &SHORT].concat());
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{}", show(&output));
}

#[test]
fn a_sweep_is_a_staircase_on_its_page() {
    let (page, found, again) = (Scratch::new("sweep.html"), Scratch::new("sweep.json"), Scratch::new("again.html"));
    let rates = ["sweep", "echo", "--from", "100", "--to", "300", "--steps", "2", "--lag-bound", "10"];
    let output = run(&[&rates[..], &["--html", page.path(), "--json", found.path()], &SHORT].concat());
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_page(&page.text(), &["Response time against throughput", "What was sent of what was due", "<td>100</td>", "<td>300</td>"]);
    let output = run(&["html", found.path(), "-o", again.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(again.text(), page.text(), "it is made of what the file says");
    let run_alone = Scratch::new("alone.json");
    let output = run(&[&["echo", "--in-flight", "1", "--json", run_alone.path()][..], &SHORT].concat());
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let output = run(&["html", found.path(), run_alone.path(), "-o", "-"]);
    assert!(output.status.code() == Some(2) && show(&output).contains("pages of their own"), "{}", show(&output));
}

#[test]
fn results_without_plots_have_a_page_too() {
    let (found, page) = (Scratch::new("doctor.json"), Scratch::new("doctor.html"));
    let output = run(&["doctor", "--peers", "1", "--json", found.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let output = run(&["html", found.path(), "-o", page.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_page(&page.text(), &["<h1>doctor</h1>", "somaxconn", "passed"]);
}
