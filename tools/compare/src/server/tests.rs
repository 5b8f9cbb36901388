//! The bare server over loopback: peers that trickle, stall, mix, misbehave and leave.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{LOG_LIMIT, Mode, Poll, Server, ServerConfig};
use crate::wire::{self, Header, Hello};

/// A server in a thread of this process. It ends when this is dropped, and a failure of its own fails the test.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl TestServer {
    pub(crate) fn start(mode: Mode) -> Self {
        Self::with_log_limit(mode, LOG_LIMIT)
    }

    fn with_log_limit(mode: Mode, log_limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let config = ServerConfig { mode, poll: Poll::Block, network: [0; 32], log_limit };
        let thread = std::thread::spawn(move || Server::new(listener, config)?.run(&stopped));
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let outcome = self.thread.take().expect("taken only here").join();
        if !std::thread::panicking() {
            outcome.expect("the server does not panic").expect("the server does not fail");
        }
    }
}

/// A peer by hand, on a blocking socket.
struct TestPeer(TcpStream);

impl TestPeer {
    fn raw(server: &TestServer) -> Self {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(stream)
    }

    /// Returns once the server counts it as established: it has answered a ping.
    fn dial(server: &TestServer) -> Self {
        let mut peer = Self::raw(server);
        peer.0.write_all(&[opening().as_slice(), &wire::ready(), &wire::control(wire::PING, [1; 8])].concat()).unwrap();
        peer.expect_opening();
        assert_eq!(peer.frame(), wire::control(wire::PONG, [1; 8]));
        peer
    }

    fn expect_opening(&mut self) {
        let mut answer = [0; wire::OPENING_LEN];
        self.0.read_exact(&mut answer).unwrap();
        let theirs = wire::parse_opening(&answer).unwrap();
        assert_eq!((theirs.network, theirs.channel), ([0; 32], 9), "the channel is repeated");
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next whole frame, header included.
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = vec![0; wire::HEADER_LEN];
        self.0.read_exact(&mut frame).unwrap();
        let length = Header::read(&frame).unwrap().length();
        frame.resize(wire::HEADER_LEN + length, 0);
        self.0.read_exact(&mut frame[wire::HEADER_LEN..]).unwrap();
        frame
    }

    /// Everything up to the server's end of the connection.
    fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

fn hello() -> Hello {
    Hello { network: [0; 32], node: [7; 32], instance: 1, max_message: wire::MAX_MESSAGE, channel: 9 }
}

fn opening() -> [u8; wire::OPENING_LEN] {
    wire::opening(&hello())
}

fn data(body: &[u8]) -> Vec<u8> {
    let mut frame = Header::new(body.len(), wire::DATA, wire::NORMAL_LANE, 3).to_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// Message `number`, of 16 KiB, all of it depending on its number.
fn large(number: u32) -> Vec<u8> {
    data(&(0..4096_u32).flat_map(|word| (word ^ number.wrapping_mul(0x9E37_79B1)).to_le_bytes()).collect::<Vec<_>>())
}

#[test]
fn input_in_slices_of_one_byte_is_echoed_whole() {
    let server = TestServer::start(Mode::Echo);
    let mut peer = TestPeer::raw(&server);
    let messages = [data(b"first"), data(b""), data(&[9; 300])];
    let all = [opening().as_slice(), &wire::ready(), &messages.concat(), &wire::control(wire::PING, [5; 8])].concat();
    for byte in all {
        peer.send(&[byte]);
    }
    peer.expect_opening();
    for message in &messages {
        assert_eq!(&peer.frame(), message);
    }
    assert_eq!(peer.frame(), wire::control(wire::PONG, [5; 8]));
}

#[test]
fn one_read_of_mixed_frames_is_answered_in_order() {
    let server = TestServer::start(Mode::Echo);
    let mut peer = TestPeer::dial(&server);
    let (ping, pong) = (wire::control(wire::PING, [2; 8]).to_vec(), wire::control(wire::PONG, [2; 8]).to_vec());
    peer.send(&[data(b"a"), ping, data(b"b"), data(b"c")].concat());
    for expected in [data(b"a"), pong, data(b"b"), data(b"c")] {
        assert_eq!(peer.frame(), expected);
    }
}

#[test]
fn an_echoing_peer_that_does_not_read_gets_everything_later() {
    let server = TestServer::start(Mode::Echo);
    let mut peer = TestPeer::dial(&server);
    let mut writer = peer.0.try_clone().unwrap();
    // More than both sockets' buffers hold, so the server has to stop reading and go on later.
    let count = 1000;
    let thread = std::thread::spawn(move || {
        (0..count).for_each(|number| writer.write_all(&large(number)).unwrap());
        writer.write_all(&wire::goodbye(wire::CLOSED, 0)).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    std::thread::sleep(Duration::from_millis(100));
    for number in 0..count {
        assert_eq!(peer.frame(), large(number), "message {number}");
    }
    thread.join().unwrap();
    assert_eq!(peer.rest(), wire::goodbye(wire::CLOSED, 0));
}

#[test]
fn a_sink_sends_every_64th_message_of_a_peer_back() {
    let server = TestServer::start(Mode::Sink);
    let mut peer = TestPeer::dial(&server);
    let mut other = TestPeer::dial(&server);
    let number = |number: u32| data(&number.to_le_bytes());
    other.send(&number(0));
    peer.send(&(1..=63).flat_map(number).collect::<Vec<_>>());
    peer.send(&wire::control(wire::PING, [4; 8]));
    assert_eq!(peer.frame(), wire::control(wire::PONG, [4; 8]), "none of the first 63 comes back");
    peer.send(&(64..=200).flat_map(number).collect::<Vec<_>>());
    for answered in [64, 128, 192] {
        assert_eq!(peer.frame(), number(answered));
    }
    peer.send(&wire::control(wire::PING, [5; 8]));
    assert_eq!(peer.frame(), wire::control(wire::PONG, [5; 8]));
}

#[test]
fn fan_out_goes_to_all_others_and_not_back() {
    let server = TestServer::start(Mode::Fanout);
    let mut peers: Vec<TestPeer> = (0..4).map(|_| TestPeer::dial(&server)).collect();
    for round in 0..20_u32 {
        for (sender, peer) in peers.iter_mut().enumerate() {
            peer.send(&[large(round * 8 + sender as u32), data(&[sender as u8])].concat());
        }
    }
    for (receiver, peer) in peers.iter_mut().enumerate() {
        let mut next = [0_u32; 4];
        for _ in 0..3 * 20 * 2 {
            let frame = peer.frame();
            let sender = (0..4).find(|&sender| {
                let number = next[sender] / 2 * 8 + sender as u32;
                frame == if next[sender] % 2 == 0 { large(number) } else { data(&[sender as u8]) }
            });
            let sender = sender.expect("the next message of one of the senders");
            assert_ne!(sender, receiver, "its own message came back");
            next[sender] += 1;
        }
        peer.send(&wire::control(wire::PING, [8; 8]));
        assert_eq!(peer.frame(), wire::control(wire::PONG, [8; 8]), "nothing more than that came");
    }
}

#[test]
fn a_stalled_subscriber_gets_everything_in_order_and_holds_up_no_one() {
    let server = TestServer::start(Mode::Fanout);
    let mut stalled = TestPeer::dial(&server);
    let mut prompt = TestPeer::dial(&server);
    let mut publisher = TestPeer::dial(&server);
    let count = 1000;
    let mut pong_due = false;
    for number in 0..count {
        publisher.send(&large(number));
        assert_eq!(prompt.frame(), large(number));
        if number == count / 2 {
            // Its answer must not land inside a frame that is half sent.
            stalled.send(&wire::control(wire::PING, [6; 8]));
            pong_due = true;
        }
    }
    for number in 0..count {
        let mut frame = stalled.frame();
        if pong_due && frame == wire::control(wire::PONG, [6; 8]) {
            pong_due = false;
            frame = stalled.frame();
        }
        assert_eq!(frame, large(number), "message {number}");
    }
    assert!(!pong_due || stalled.frame() == wire::control(wire::PONG, [6; 8]));
}

#[test]
fn a_subscriber_that_never_reads_is_cut_off_at_the_limit() {
    let server = TestServer::with_log_limit(Mode::Fanout, 1 << 20);
    let stalled = TestPeer::dial(&server);
    let mut prompt = TestPeer::dial(&server);
    let mut publisher = TestPeer::dial(&server);
    for number in 0..1000 {
        publisher.send(&large(number));
        assert_eq!(prompt.frame(), large(number));
    }
    // 16 MB were published; what came before the cut is what the sockets held.
    assert!(stalled.rest().len() < 1000 * 16_384);
}

#[test]
fn a_goodbye_is_answered_and_ends_the_connection() {
    for mode in [Mode::Echo, Mode::Fanout] {
        let server = TestServer::start(mode);
        let mut peer = TestPeer::dial(&server);
        let other = TestPeer::dial(&server);
        peer.send(&[data(b"last words").as_slice(), &wire::goodbye(wire::CLOSED, 0), &data(b"discarded")].concat());
        peer.0.shutdown(Shutdown::Write).unwrap();
        let echoed = if mode == Mode::Echo { data(b"last words") } else { Vec::new() };
        assert_eq!(peer.rest(), [echoed.as_slice(), &wire::goodbye(wire::CLOSED, 0)].concat());
        if mode == Mode::Fanout {
            let mut other = other;
            assert_eq!(other.frame(), data(b"last words"));
        }
    }
}

#[test]
fn broken_rules_are_named() {
    let server = TestServer::start(Mode::Echo);
    let cases = [
        (Header::new(8, 99, 0, 0).to_bytes(), wire::UNKNOWN_KIND),
        ([0xFF; 8], wire::FRAME_TOO_LONG),
        (wire::ready(), wire::UNEXPECTED_READY),
        (Header::new(0, wire::DATA, 0, 0).to_bytes(), wire::WRONG_LANE),
    ];
    for (bytes, rule) in cases {
        let mut peer = TestPeer::dial(&server);
        peer.send(&bytes);
        assert_eq!(peer.rest(), wire::goodbye(wire::VIOLATION, rule.0));
    }
    let mut early = TestPeer::raw(&server);
    early.send(&[opening().as_slice(), &data(b"before ready")].concat());
    early.expect_opening();
    assert_eq!(early.rest(), wire::goodbye(wire::VIOLATION, wire::EXPECTED_READY.0));
}

#[test]
fn a_wrong_opening_is_refused_and_a_stranger_gets_silence() {
    let server = TestServer::start(Mode::Echo);
    let mut other_network = TestPeer::raw(&server);
    other_network.send(&wire::opening(&Hello { network: [1; 32], ..hello() }));
    assert_eq!(other_network.rest(), wire::refusal(wire::RefusalCode::WRONG_NETWORK));
    let mut other_suite = TestPeer::raw(&server);
    // Refused on the preamble alone: another suite's hello may be of another length.
    other_suite.send(&[0xCC, 0x43, 0x52, 0x50, 1, 1, 0, 0]);
    assert_eq!(other_suite.rest(), wire::refusal(wire::RefusalCode::SUITE));
    let mut stranger = TestPeer::raw(&server);
    stranger.send(b"GET / HT");
    assert_eq!(stranger.rest(), b"");
}

#[test]
fn peers_that_come_and_go_reuse_slots_and_miss_nothing() {
    let server = TestServer::start(Mode::Fanout);
    let mut publisher = TestPeer::dial(&server);
    let deadline = Instant::now() + Duration::from_secs(10);
    for number in 0..100_u32 {
        let mut subscriber = TestPeer::dial(&server);
        publisher.send(&data(&number.to_le_bytes()));
        assert_eq!(subscriber.frame(), data(&number.to_le_bytes()));
        // Even ones leave in order, odd ones vanish.
        if number.is_multiple_of(2) {
            subscriber.send(&wire::goodbye(wire::CLOSED, 0));
            subscriber.0.shutdown(Shutdown::Write).unwrap();
            assert_eq!(subscriber.rest(), wire::goodbye(wire::CLOSED, 0));
        }
        assert!(Instant::now() < deadline);
    }
}
