//! A process that runs out of file descriptors.
//!
//! Set-up: an echoing engine with established peers, in a process of its own whose `RLIMIT_NOFILE` is then lowered to what is open,
//! while more peers knock. Claim: accepting pauses, which is counted, and does not spin; the established peers go on in order; when
//! there are descriptors again, those who wait get in without anybody connecting anew; and at the end as many files are open as at the
//! beginning.

mod common;

use std::time::{Duration, Instant};

use common::node::Node;
use common::raw::{Hello, Raw};
use common::{LIVENESS, NEVER, eventually, eventually_stats, loopback, open_files};
use corecast::{Cores, Counter};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn limit_files(count: u64) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), ..getrlimit(Resource::Nofile) }).unwrap();
}

#[test]
fn accepting_survives_a_lack_of_file_descriptors() {
    let files_before = open_files();
    let limit_before = getrlimit(Resource::Nofile).current.expect("a limit");
    let mut config = loopback().cores(Cores::Unpinned(2));
    config.limits.max_peers = 64;
    config.limits.max_half_open = 64;
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    let mut node = Node::echo(config);
    let mut established: Vec<Raw> = (0..4).map(|number| node.raw_peer(Hello::node(number)).0).collect();

    // The sockets of those who will knock are made while there are descriptors; connecting takes none.
    const KNOCKING: u32 = 12;
    let sockets: Vec<socket2::Socket> =
        (0..KNOCKING).map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap()).collect();
    // Linux gives the lowest free number, so what counts is the highest in use, and that no lower one is free.
    let mut fillers = Vec::new();
    limit_files(256);
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fillers.push(file);
    }
    let knocking: Vec<Raw> = sockets
        .into_iter()
        .map(|socket| {
            socket.connect(&node.address().into()).expect("the kernel takes it into the backlog");
            Raw::over(socket.into())
        })
        .collect();
    eventually_stats(&node.handle(), "accepting pauses, again and again", |stats| stats.get(Counter::AcceptPauses) >= 3);
    let turns = node.count(Counter::Turns);
    let began = Instant::now();
    for round in 0..50u16 {
        established.iter_mut().for_each(|raw| raw.echo(round, &round.to_le_bytes()));
    }
    assert_eq!(node.count(Counter::Peers), 4);
    // Each echo takes a turn or two, and the pauses ten a second: a loop that spins on accept makes tens of thousands.
    let spins = began.elapsed().as_millis() as u64 / 100 + 1;
    assert!(node.count(Counter::Turns) - turns < 50 * 4 * 4 + 10 * spins, "{:?}", node.handle().stats());

    // Each pause has let one of them go, so that it is not left hanging; the others are still there.
    drop(fillers);
    limit_files(limit_before);
    let accepted = || node.count(Counter::Accepted) - 4;
    eventually("all that wait are accepted", || accepted() + node.count(Counter::AcceptPauses) == u64::from(KNOCKING));
    let shed = node.count(Counter::AcceptPauses);
    assert!(shed >= 3 && accepted() > 0, "{:?}", node.handle().stats());
    node.counts(Counter::HalfOpen, u64::from(KNOCKING) - shed);
    let (mut in_now, mut let_go) = (Vec::new(), 0);
    for (number, raw) in knocking.into_iter().enumerate() {
        // Whoever was let go finds its connection closed.
        raw.stream.set_nonblocking(true).unwrap();
        let gone = !matches!(raw.stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        raw.stream.set_nonblocking(false).unwrap();
        if gone {
            let_go += 1;
        } else {
            in_now.push(raw.shake(Hello::node(100 + number as u32)));
        }
    }
    assert_eq!(let_go, shed);
    node.counts(Counter::Peers, 4 + u64::from(KNOCKING) - shed);
    for raw in established.iter_mut().chain(&mut in_now) {
        raw.echo(7, b"everybody is served");
    }
    assert_eq!(node.count(Counter::AcceptErrors), 0);
    drop((established, in_now));
    node.finish();
    let deadline = Instant::now() + LIVENESS;
    while open_files() != files_before {
        assert!(Instant::now() < deadline, "{} files are open, {files_before} were", open_files());
        std::thread::sleep(Duration::from_millis(5));
    }
}
