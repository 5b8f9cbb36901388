//! `churn`: peers that come and go, fail, break rules and stop reading, and the books of both engines afterwards.

mod common;

use common::{json, number, run};

#[test]
fn the_books_balance_when_everybody_has_gone() {
    for args in [&["churn", "--quick", "--json", "-"][..], &["churn", "--plaintext", "--quick", "--peers", "8", "--json", "-"]] {
        let report = json(&run(args));
        assert_eq!(report["balanced"], true, "{report:#}");
        assert!(number(&report, "visits") > 10 && number(&report, "messages") > 100, "{report:#}");
        let entries = report["entries"].as_array().expect("the books have entries");
        assert!(entries.iter().all(|entry| entry["counted"] == entry["expected"]), "{report:#}");
        // Each kind of trouble has happened.
        for what in ["openings that are none", "broke a rule", "vanished", "left a frame unfinished", "did not read", "one too many"] {
            let seen = |entry: &&serde_json::Value| entry["what"].as_str().is_some_and(|name| name.contains(what));
            let entry = entries.iter().find(seen).unwrap_or_else(|| panic!("{what} in {report:#}"));
            assert!(number(entry, "counted") > 0, "{what} in {report:#}");
        }
    }
}
