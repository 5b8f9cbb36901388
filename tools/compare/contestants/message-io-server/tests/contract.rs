//! Set-up: the program as a process, peers by hand on loopback. Claim: all of the contract, but one that never reads stops everyone.

use conformance::contract;
use conformance::peers::MessageIoPeer;
use conformance::program::{Program, locked_version};

const PROGRAM: Program = Program { path: env!("CARGO_BIN_EXE_message-io-server"), arguments: &[] };

conformance::contract!(MessageIoPeer, PROGRAM;
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
    contract::says_what_it_is(PROGRAM, &[&format!("message-io {}", locked_version("message-io"))]);
}
