//! The program as a user runs it.
//!
//! Set-up: the built binary, one short pair of bare against itself. Claim: servers start, listen, end on SIGTERM with
//! status 0 (anything else fails the row), and the report has the row with its ratio.

use std::process::Command;

#[test]
fn bare_against_itself_gives_a_table() {
    let json = std::env::temp_dir().join(format!("corecast-compare-{}.json", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_corecast-compare"))
        .args(["run", "--self-check", "--rounds", "1", "--patience", "0", "--warmup-ms", "20", "--measure-ms", "100"])
        .args(["--client-poll", "block", "--only", "fanout-50-block-128B", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let (table, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{table}\n{log}");
    let row = table.lines().find(|line| line.starts_with("| fanout-50-block-128B-x1 |")).expect("the row is in the table");
    assert_eq!(row.matches('|').count(), 11, "{row}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    let rounds = &report["rows"][0]["other_rounds"];
    assert_eq!(rounds.as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(rounds[0]["faults"]["lost"], 0);
    assert!(rounds[0]["deliveries"].as_u64().unwrap() > 0);
}

#[test]
fn a_pattern_without_a_row_names_the_rows() {
    let output = Command::new(env!("CARGO_BIN_EXE_corecast-compare")).args(["run", "--only", "nothing"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("fanout-1000-block-128B-x64"));
}
