//! The contestant as the comparison runs it.
//!
//! Set-up: the built binary, and two peers made of the library. Claim: it says where it listens, in plaintext and encrypted, does what
//! each mode says, and ends in order at SIGTERM.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use corecast::{Admission, Config, Context, Dial, Engine, Handler, Identity, Message, PeerId, PeerInfo, RequestError, Responder};

/// So that a server that does nothing fails the test instead of holding it up.
const LIMIT: Duration = Duration::from_secs(20);
const TYPE: u16 = 7;

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corecast-contestant"));
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).trim().to_owned();
        Self { child, address }
    }

    fn stop(mut self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail harmlessly if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends so many numbered messages when it is connected, and passes on what it hears.
struct Peer {
    count: u32,
    connected: Sender<()>,
    heard: Sender<u32>,
}

impl Handler for Peer {
    type Command = ();

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, _: &PeerInfo) {
        let _ = self.connected.send(());
        for number in 1..=self.count {
            cx.send(peer, TYPE, &number.to_le_bytes()).unwrap();
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, message: Message<'_>) {
        let _ = self.heard.send(u32::from_le_bytes(message.body.try_into().unwrap()));
    }

    fn on_request(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>, _: Responder) {}
    fn on_response(&mut self, _: &mut Context<'_>, _: PeerId, _: u64, _: Result<Message<'_>, RequestError>) {}
}

/// Connects a peer that sends so many messages; what it hears comes back.
fn connect(server: &Server, count: u32) -> (Engine<()>, Receiver<u32>) {
    let ((connected, is_connected), (heard, hears)) = (channel(), channel());
    let config = match server.address.contains('@') {
        true => Config::secure(Identity::generate().unwrap(), Admission::Open),
        false => Config::plaintext(),
    };
    let engine = Engine::start(config, move |_| Peer { count, connected: connected.clone(), heard: heard.clone() }).unwrap();
    let dial = match server.address.split_once('@') {
        Some((node, address)) => Dial::node(node.parse().unwrap(), address.parse::<SocketAddr>().unwrap()),
        None => Dial::to(server.address.parse::<SocketAddr>().unwrap()),
    };
    engine.handle().dial(dial).unwrap();
    is_connected.recv_timeout(LIMIT).unwrap();
    (engine, hears)
}

#[test]
fn an_echo_comes_back_however_it_waits_and_encrypted() {
    for args in [&["--poll", "spin"][..], &["--poll", "block"], &["--noise"]] {
        let server = Server::start(&[&["--mode", "echo"], args].concat());
        let (_peer, heard) = connect(&server, 3);
        for expected in 1..=3 {
            assert_eq!(heard.recv_timeout(LIMIT).unwrap(), expected);
        }
        server.stop();
    }
}

#[test]
fn fan_out_reaches_the_others_and_not_the_sender() {
    let server = Server::start(&["--mode", "fanout"]);
    let (_first, first) = connect(&server, 0);
    let (_second, second) = connect(&server, 2);
    assert_eq!((first.recv_timeout(LIMIT).unwrap(), first.recv_timeout(LIMIT).unwrap()), (1, 2));
    // The first one has both, so the second one's would have come as well.
    assert!(second.try_recv().is_err());
    server.stop();
}

#[test]
fn a_sink_answers_every_64th() {
    let server = Server::start(&["--mode", "sink"]);
    let (_peer, heard) = connect(&server, 200);
    for expected in [64, 128, 192] {
        assert_eq!(heard.recv_timeout(LIMIT).unwrap(), expected);
    }
    server.stop();
}
