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
    let report = json(&run(&["fanout", "--peers", "20", "--duration", "0.6", "--warmup", "0", "--json", "-", "--flamegraph", svg.path()]));
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
    json(&run(&["echo", "--target", &address, "--peers", "20", "--duration", "0.5", "--warmup", "0", "--json", "-"]));
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
