//! Peers and engines that are stopped, or killed, at the worst moment.
//!
//! Set-up: an engine in a process of its own (this test's binary, started again), another one here, connected to it over Noise with
//! messages going both ways. Claim: a stopped peer is found out and cut off, and its process is let in again when it goes on; an engine
//! that was stopped for longer than its keepalive does not blame its peers; one that is killed in the middle of a frame is an end like any
//! other, and nothing of it is left. What is stopped or killed as a peer of the engine under attack (`canary`) is not noticed by the good
//! peers.

#[path = "common/canary.rs"]
mod canary;
mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use canary::Canary;
use common::node::{Node, Seen};
use common::{LIVENESS, eventually, eventually_idle};
use corecast::{Admission, CloseReason, Config, Counter, Dial, Identity, PeerId};
use rustix::process::{Pid, Signal, kill_process};

const CHILD: &str = "CORECAST_TEST_ENGINE";
/// Whom the other process dials, as a peer of the engine under attack.
const TARGET: &str = "CORECAST_TEST_TARGET";
/// Messages that such a peer has on the way, without end: what comes back is sent again.
const IN_FLIGHT: usize = 3;

fn config(name: u8) -> Config {
    let mut config = Config::secure(Identity::from_secret([name; 32]), Admission::Open);
    config.keepalive.interval = Duration::from_millis(250);
    config.keepalive.timeout = Duration::from_millis(1500);
    config.backoff.max = Duration::from_millis(200);
    config.addresses.exempt = vec!["127.0.0.0/8".parse().unwrap()];
    config
}

/// The engine of the other process: nothing, unless it is that process.
#[test]
fn engine_of_the_other_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut node = Node::echo(config(2).listen("127.0.0.1:0".parse().unwrap()));
    if let Ok(target) = std::env::var(TARGET) {
        node.handle().dial(target.parse::<Dial>().unwrap().source([127, 66, 1, 1].into())).unwrap();
        let (peer, _) = node.connected();
        for _ in 0..IN_FLIGHT {
            node.handle().send(peer, node.handle().frame(1, &[4; 1 << 20]).unwrap()).unwrap();
        }
    }
    println!("listening {}@{}", node.engine.node_id(), node.address());
    // Until the test is over: then its end of this is closed.
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {
        println!("peers {} unresponsive {}", node.count(Counter::Peers), node.count(Counter::ClosedUnresponsive));
        std::io::stdout().flush().unwrap();
        line.clear();
    }
}

/// That process. It is killed with the test, however that ends.
struct Other {
    child: Child,
    says: std::io::Lines<BufReader<std::process::ChildStdout>>,
    dial: Dial,
}

impl Other {
    fn start() -> Self {
        Self::spawn(&mut Self::command())
    }

    /// A peer of the engine under attack, in the middle of sending and receiving when this returns.
    fn peer_of(canary: &Canary) -> Self {
        let server = &canary.server;
        Self::spawn(Self::command().env(TARGET, format!("{}@{}", server.engine.node_id(), server.address())))
    }

    fn command() -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "engine_of_the_other_process", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
        command
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap()).lines();
        let dial = loop {
            let line = says.next().unwrap().unwrap();
            // The harness has its own words, on the same line too.
            if let Some((_, target)) = line.split_once("listening ") {
                break target.parse().unwrap();
            }
        };
        Self { child, says, dial }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How many peers it has now, and how many it has found unresponsive.
    fn ask(&mut self) -> (u64, u64) {
        self.child.stdin.as_mut().unwrap().write_all(b"?\n").unwrap();
        loop {
            let line = self.says.next().unwrap().unwrap();
            if let Some((_, figures)) = line.split_once("peers ") {
                let mut figures = figures.split(" unresponsive ").map(|figure| figure.trim().parse().unwrap());
                return (figures.next().unwrap(), figures.next().unwrap());
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(other: &Other) -> (Node, PeerId) {
    let mut node = Node::report(config(1));
    node.handle().dial(other.dial.clone()).unwrap();
    let (peer, _) = node.connected();
    (node, peer)
}

/// A message there and back.
fn echo(node: &mut Node, peer: PeerId, body: &[u8]) {
    node.handle().send(peer, node.handle().frame(1, body).unwrap()).unwrap();
    assert!(node.message(peer).1 == body);
}

#[test]
fn a_peer_that_is_stopped_is_found_out_and_let_in_again() {
    let other = Other::start();
    let (mut node, peer) = connect(&other);
    echo(&mut node, peer, &[1; 100_000]);
    other.signal(Signal::STOP);
    assert_eq!(node.closed(peer), CloseReason::Unresponsive);
    other.signal(Signal::CONT);
    // The dial goes on by itself.
    let (peer, _) = node.connected();
    echo(&mut node, peer, &[2; 100_000]);
    node.engine.shutdown();
}

#[test]
fn an_engine_that_was_stopped_does_not_blame_its_peers() {
    let mut other = Other::start();
    // This side is patient, so that what ends the connection, if anything does, is the engine that was stopped.
    let mut patient = config(1);
    patient.keepalive.timeout = 6 * LIVENESS;
    let mut node = Node::report(patient);
    node.handle().dial(other.dial.clone()).unwrap();
    let (peer, _) = node.connected();
    echo(&mut node, peer, &[1; 1000]);
    eventually("it has published that it has a peer", || other.ask() == (1, 0));
    other.signal(Signal::STOP);
    // Twice what it would wait for a peer.
    std::thread::sleep(Duration::from_secs(3));
    other.signal(Signal::CONT);
    echo(&mut node, peer, &[2; 1000]);
    // Longer than it would take to find anybody unresponsive now.
    std::thread::sleep(Duration::from_secs(2));
    echo(&mut node, peer, &[3; 1000]);
    assert_eq!(other.ask(), (1, 0), "the peer that it had, and nobody was found unresponsive");
    assert!(!node.leftovers().iter().any(|seen| matches!(seen, Seen::Closed { .. })));
    node.engine.shutdown();
}

/// Killed or asked to go, while it is in the middle of sending a great deal.
#[test]
fn an_engine_that_is_killed_in_the_middle_of_a_frame_is_an_end_like_any_other() {
    for signal in [Signal::KILL, Signal::TERM] {
        let mut other = Other::start();
        let (mut node, peer) = connect(&other);
        for _ in 0..30 {
            node.handle().send(peer, node.handle().frame(1, &[3; 1 << 20]).unwrap()).unwrap();
        }
        node.message(peer);
        other.signal(signal);
        let reason = node.closed(peer);
        assert!(matches!(reason, CloseReason::Eof | CloseReason::Io(_)), "{signal:?}: {reason:?}");
        assert!(!other.child.wait().unwrap().success());
        eventually("nobody is half-open for ever", || node.count(Counter::HalfOpen) == 0);
        eventually_idle(&node.handle());
        assert_eq!(node.count(Counter::ClosedViolation), 0, "half a frame is no violation");
        node.engine.shutdown();
    }
}

#[test]
fn good_peers_do_not_notice_a_peer_that_is_stopped() {
    let mut canary = Canary::secure(|config| {
        config.keepalive.interval = Duration::from_millis(250);
        config.keepalive.timeout = Duration::from_millis(1500);
    });
    let other = Other::peer_of(&canary);
    canary.counts(Counter::Peers, 4);
    other.signal(Signal::STOP);
    // Its sockets are full of what it does not read; what it was sending has stopped in the middle of a message.
    canary.counts(Counter::ClosedUnresponsive, 1);
    canary.counts(Counter::Peers, 3);
    canary.sings();
    canary.lets_somebody_in();
    other.signal(Signal::CONT);
    eventually("it is let in again", || canary.count(Counter::Peers) == 4);
    drop(other);
    canary.counts(Counter::Peers, 3);
    canary.finish();
}

#[test]
fn good_peers_do_not_notice_a_peer_that_is_killed_in_the_middle_of_a_frame() {
    let canary = Canary::secure(|_| {});
    for round in 0..3 {
        let other = Other::peer_of(&canary);
        canary.counts(Counter::Peers, 4);
        other.signal(Signal::KILL);
        canary.counts(Counter::Peers, 3);
        assert_eq!(canary.count(Counter::ClosedEof) + canary.count(Counter::ClosedIo), round + 1);
        canary.sings();
    }
    assert_eq!(canary.count(Counter::ClosedViolation), 0, "half a frame is no violation");
    canary.finish();
}
