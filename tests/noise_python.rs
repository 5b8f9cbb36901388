//! An engine and a peer that knows nothing but WIRE.md.
//!
//! Set-up: `tests/python/peer.py`, which was written from the text alone and has its own cryptography, as a process; an engine on the other
//! side of the socket. Claim: they understand each other in both roles and both suites, past a change of keys; a changed record ends the
//! connection and is counted; and the text's vectors are what that peer computes. Needs `python3`.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::node::Node;
use corecast::{
    Admission, Cipher, CloseReason, Config, Counter, Dial, GoodbyeCode, Identity, NetworkId, NetworkSecret, NodeId, Security, Violation,
};

const NETWORK: [u8; 32] = [0x4E; 32];
const NETWORK_SECRET: [u8; 32] = [0x53; 32];
const SECRET: [u8; 32] = [0x70; 32];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The peer, in the suite and with the network secret that are meant.
fn python(suite: u8, with_secret: bool) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(root().join("tests/python/peer.py"));
    command.args(["--suite", &suite.to_string(), "--secret", &hex(&SECRET), "--network", &hex(&NETWORK)]);
    if with_secret {
        command.args(["--psk", &hex(&NETWORK_SECRET)]);
    }
    command
}

/// Its last line, once it has ended well.
fn run(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("python3 is needed for this test: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().last().unwrap_or_default().to_owned()
}

fn config(suite: u8, with_secret: bool) -> Config {
    let mut config = Config::secure(Identity::from_secret([1; 32]), Admission::AllowList(vec![python_node()]));
    config.network = NetworkId(NETWORK);
    if let Security::Noise(noise) = &mut config.security {
        noise.cipher = if suite == 1 { Cipher::AesGcm } else { Cipher::ChaChaPoly };
        noise.secret = with_secret.then(|| NetworkSecret::new(NETWORK_SECRET));
    }
    config
}

fn python_node() -> NodeId {
    Identity::from_secret(SECRET).node_id()
}

fn dial(node: &Node, suite: u8, with_secret: bool, how: &str) -> String {
    let mut command = python(suite, with_secret);
    let (address, name) = (node.address(), node.engine.node_id());
    command.args(["dial", &address.ip().to_string(), &address.port().to_string(), &name.to_string(), how]);
    run(command)
}

#[test]
fn the_text_has_what_another_implementation_computes_from_it() {
    let mut check = python(1, false);
    check.arg("check");
    assert_eq!(run(check), "the published vectors hold");
    let mut compare = python(1, false);
    compare.arg("compare").arg(root().join("src/wire/WIRE.md"));
    assert_eq!(run(compare), "38 vectors are as computed");
}

#[test]
fn a_peer_written_from_the_text_talks_with_an_engine_past_a_change_of_keys() {
    for (suite, with_secret) in [(1, false), (2, true)] {
        let mut node = Node::echo(config(suite, with_secret).listen("127.0.0.1:0".parse().unwrap()));
        let said = dial(&node, suite, with_secret, "talk");
        assert!(said.starts_with("talked: "), "{said}");
        let (peer, info) = node.connected();
        assert_eq!((info.node, info.authenticated, info.channel), (python_node(), true, 3));
        assert_eq!(node.closed(peer), CloseReason::Goodbye(GoodbyeCode::Closed));
        assert_eq!(node.count(Counter::ClosedViolation), 0);
        node.finish();
    }
}

#[test]
fn a_changed_record_ends_the_connection_and_is_counted() {
    let mut node = Node::echo(config(1, false).listen("127.0.0.1:0".parse().unwrap()));
    assert_eq!(dial(&node, 1, false, "tamper"), "cut off: rule 18");
    let (peer, _) = node.connected();
    assert_eq!(node.closed(peer), CloseReason::Violation(Violation::RecordNotAuthentic));
    node.counts(Counter::ViolationRecordNotAuthentic, 1);
    node.counts(Counter::MessagesReceived, 1);
    node.finish();
}

/// A process that is ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_engine_dials_a_peer_written_from_the_text() {
    for (suite, with_secret) in [(1, true), (2, false)] {
        let mut command = python(suite, with_secret);
        let child = command.arg("listen").stdout(Stdio::piped()).spawn();
        let mut peer = Running(child.unwrap_or_else(|error| panic!("python3 is needed for this test: {error}")));
        let mut lines = BufReader::new(peer.0.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let (name, port) = line.split_once(' ').unwrap();
        assert_eq!(name, python_node().to_string());
        let mut node = Node::report(config(suite, with_secret));
        node.handle().dial(format!("{name}@127.0.0.1:{port}").parse::<Dial>().unwrap().once()).unwrap();
        let (connected, info) = node.connected();
        assert_eq!((info.node, info.authenticated), (python_node(), true));
        for index in 0..20_u32 {
            let body = vec![index as u8; index as usize * 700];
            node.handle().send(connected, node.handle().frame(5, &body).unwrap()).unwrap();
            assert!(node.message(connected).1 == body);
        }
        node.handle().close(connected).unwrap();
        assert_eq!(node.closed(connected), CloseReason::Requested);
        assert_eq!(lines.next().unwrap().unwrap(), "echoed: 20");
        assert!(peer.0.wait().unwrap().success());
    }
}
