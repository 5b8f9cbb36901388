//! Set-up: the program as a process, peers by hand on loopback. Claim: all of the contract, but one that never reads stops everyone.

use conformance::contract;
use conformance::peers::JsonPeer;
use conformance::program::{Program, locked_version};

const PROGRAM: Program = Program { path: env!("CARGO_BIN_EXE_naive"), arguments: &[] };

conformance::contract!(JsonPeer, PROGRAM;
    echoes_everything_in_order,
    takes_input_in_pieces,
    fans_out_to_all_others,
    a_sink_answers_every_64th,
    peers_may_leave_at_any_time,
    one_that_never_reads_stops_everyone,
    ends_in_order_while_connections_are_open,
);

#[test]
fn says_what_it_is() {
    let versions = ["serde_json", "env_logger"].map(|package| format!("{package} {}", locked_version(package)));
    contract::says_what_it_is(PROGRAM, &versions.each_ref().map(String::as_str));
}
