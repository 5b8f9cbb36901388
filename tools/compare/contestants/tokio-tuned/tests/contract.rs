//! Set-up: the program as a process, peers by hand on loopback. Claim: all of the contract, and one that never reads holds up no one.

use conformance::contract;
use conformance::peers::WirePeer;
use conformance::program::{Program, locked_version};

const PROGRAM: Program = Program { path: env!("CARGO_BIN_EXE_tokio-tuned"), arguments: &[] };

conformance::contract!(WirePeer, PROGRAM;
    echoes_everything_in_order,
    takes_input_in_pieces,
    fans_out_to_all_others,
    a_sink_answers_every_64th,
    peers_may_leave_at_any_time,
    one_that_never_reads_holds_up_no_one,
    one_that_never_reads_is_cut_off,
    one_that_never_reads_is_held_up_alone,
    ends_in_order_while_connections_are_open,
    a_goodbye_is_answered,
);

#[test]
fn says_what_it_is() {
    let versions = ["tokio"].map(|package| format!("{package} {}", locked_version(package)));
    contract::says_what_it_is(PROGRAM, &versions.each_ref().map(String::as_str));
}

/// The same without sleeping: what depends on the order of tasks.
mod spinning {
    use super::{Program, WirePeer};

    const PROGRAM: Program = Program { path: super::PROGRAM.path, arguments: &["--poll", "spin"] };

    conformance::contract!(WirePeer, PROGRAM;
        echoes_everything_in_order,
        fans_out_to_all_others,
        one_that_never_reads_holds_up_no_one,
        ends_in_order_while_connections_are_open,
    );
}
