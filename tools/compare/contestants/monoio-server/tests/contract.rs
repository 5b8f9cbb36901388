//! Set-up: the program as a process, peers by hand on loopback. Claim: over both drivers, all of the contract, and one that never reads holds up no one.

use conformance::contract;
use conformance::peers::WirePeer;
use conformance::program::{Program, locked_version};

const PATH: &str = env!("CARGO_BIN_EXE_monoio-server");

/// Over io_uring.
mod uring {
    use super::{Program, WirePeer};

    const PROGRAM: Program = Program { path: super::PATH, arguments: &["--driver", "uring"] };

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
}

/// Over epoll.
mod epoll {
    use super::{Program, WirePeer};

    const PROGRAM: Program = Program { path: super::PATH, arguments: &["--driver", "epoll"] };

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
}

/// The same without sleeping: what depends on how the driver is polled.
mod uring_spinning {
    use super::{Program, WirePeer};

    const PROGRAM: Program = Program { path: super::PATH, arguments: &["--driver", "uring", "--poll", "spin"] };

    conformance::contract!(WirePeer, PROGRAM;
        echoes_everything_in_order,
        fans_out_to_all_others,
        one_that_never_reads_holds_up_no_one,
        ends_in_order_while_connections_are_open,
    );
}

/// The same without sleeping: what depends on how the driver is polled.
mod epoll_spinning {
    use super::{Program, WirePeer};

    const PROGRAM: Program = Program { path: super::PATH, arguments: &["--driver", "epoll", "--poll", "spin"] };

    conformance::contract!(WirePeer, PROGRAM;
        echoes_everything_in_order,
        fans_out_to_all_others,
        one_that_never_reads_holds_up_no_one,
        ends_in_order_while_connections_are_open,
    );
}

#[test]
fn says_what_it_is() {
    let versions = ["monoio", "io-uring"].map(|package| format!("{package} {}", locked_version(package)));
    contract::says_what_it_is(Program { path: PATH, arguments: &[] }, &versions.each_ref().map(String::as_str));
}
