//! The program as a user runs it.
//!
//! Set-up: the built binary with tiny windows, in a folder of its own where nothing else was built. Claim: servers start, listen, end on
//! SIGTERM with status 0 (anything else fails the row), the reports have what was run, who is missing is said and skipped, and a command
//! line that makes no sense ends with status 2 before anything starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, alone in a folder. By a link: a copy is still open for writing in the child that another test starts at that moment, and
/// what is open for writing is not executed.
struct Alone(PathBuf);

impl Alone {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("corecast-compare-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::hard_link(env!("CARGO_BIN_EXE_corecast-compare"), folder.join("corecast-compare")).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Without a PATH, so that no server of the system is found.
    fn run(&self, args: &[&str]) -> Output {
        Command::new(self.file("corecast-compare")).args(args).current_dir(&self.0).env("PATH", "").output().unwrap()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // What is left behind lies in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// On one core, so that it works where there is no other.
const TINY: &str = "run --rounds 1 --patience 0 --warmup-ms 20 --measure-ms 100 --client-poll block --server-core 0 --client-core 0";

fn tiny<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TINY.split(' ').chain(more.iter().copied()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn bare_against_itself_gives_all_reports() {
    let alone = Alone::new("reports");
    let files = ["--json", "a.json", "--markdown", "a.md", "--html", "a.html", "--svg", "a.svg"];
    let output = alone.run(&tiny(&[&["--self-check", "--only", "fanout-50-128B-x1", "--bars"], &files[..]].concat()));
    let (printed, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{printed}\n{log}");
    assert!(log.starts_with("rows: 1, contestants: 2; about "), "{log}");
    let line = printed.lines().find(|line| line.starts_with("| bare-again |")).expect("it is in the table");
    assert_eq!(line.matches('|').count(), 11, "{line}");
    assert!(printed.contains("## Bars"), "{printed}");
    assert_eq!(printed.trim_end().split("## Bars").next().unwrap().trim_end(), read(&alone.file("a.md")).trim_end());
    assert!(read(&alone.file("a.html")).ends_with("</html>\n") && read(&alone.file("a.svg")).starts_with("<svg "));
    let report: serde_json::Value = serde_json::from_str(&read(&alone.file("a.json"))).unwrap();
    assert_eq!(report["schema"], "corecast-compare/2");
    for entry in report["rows"][0]["entries"].as_array().unwrap() {
        assert!(entry["rounds"][0]["sample"]["deliveries"].as_u64().unwrap() > 0, "{entry}");
    }
    let again = alone.run(&["report", "a.json", "--bars", "--html", "b.html"]);
    assert_eq!(text(&again.stdout), printed);
    assert_eq!(read(&alone.file("b.html")), read(&alone.file("a.html")));
}

#[test]
fn rows_of_two_runs_and_of_memory_give_their_figures() {
    let alone = Alone::new("rows");
    for (row, figure) in [("stuck-1-of-50", "kept"), ("open-fanout-50", "p999"), ("idle-1000", "memory")] {
        let output = alone.run(&tiny(&["--contestants", "bare", "--only", row, "--json", "a.json"]));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_str(&read(&alone.file("a.json"))).unwrap();
        let median = &report["rows"][0]["entries"][0]["estimates"][figure]["median"];
        assert!(median.as_f64().unwrap() > 0.0, "{row}: {report}");
    }
}

#[test]
fn who_is_missing_is_skipped_with_one_line() {
    let alone = Alone::new("missing");
    let output = alone.run(&tiny(&["--only", "echo-1"]));
    let (printed, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{printed}\n{log}");
    assert!(log.contains("skipped: corecast: not built: cargo build --release -p corecast-contestant\n"), "{log}");
    assert!(log.contains("skipped: tokio-tuned: not built: cargo build --release --manifest-path"), "{log}");
    assert!(printed.contains("| bare |") && printed.contains("- `naive`: ") && !printed.contains("| naive |"), "{printed}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    let alone = Alone::new("refused");
    let refused = |args: &[&str], reason: &str| {
        let output = alone.run(args);
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {log}");
        assert!(log.contains(reason) && !log.contains("round 1"), "{args:?}: {log}");
    };
    refused(&["run", "--only", "nothing"], "fanout-1000-128B-x64");
    refused(&["run", "--contestants", "kafka"], "no contestant is called \"kafka\"; there are: bare-spin, bare, ");
    refused(&["run", "--contestants", "corecast,naive"], "none of these contestants is there: corecast: not built");
    refused(&["run", "--quick", "--rounds", "3"], "cannot be used with");
    refused(&["run", "--server-core", "4000"], "--server-core 4000: this process may run on core 0");
    refused(&["run", "--server-core", "0", "--client-core", "0"], "give each a core, or --client-poll block");
    refused(&["run", "--only", "echo-1", "--svg", "a.svg", "--svg-row", "idle-1000"], "this run has no such row");
    refused(&["report", "nowhere.json"], "nowhere.json");
    refused(&["setout"], "naive: not built: cargo build");
}
