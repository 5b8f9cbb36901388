//! What holds for a contestant. Counts, order and content; how fast it is, is for the comparison to say.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::peers::{Peer, Stalled, WirePeer};
use crate::program::{DEADLINE, Program};

/// A message that depends on all of its numbers, of at least eight bytes.
fn body(sender: usize, number: usize, len: usize) -> Vec<u8> {
    let mut body = [(sender as u32).to_le_bytes(), (number as u32).to_le_bytes()].concat();
    body.extend((body.len()..len).map(|index| (index * 31 + number * 7 + sender) as u8));
    body
}

/// Bytes that one connection cannot have on its way without being read: its buffers on both sides take less.
const STOPS_WITHIN: usize = 32 << 20;

/// Connects so many, and waits until all of them get what is sent to all.
fn connect_all<P: Peer>(address: SocketAddr, count: usize) -> Vec<P> {
    let mut peers: Vec<P> = (0..count).map(|_| P::connect(address)).collect();
    // Servers whose protocol has no handshake accept in order: when the last one has been heard, all are there.
    let (last, others) = peers.split_last_mut().expect("some");
    last.send(b"everybody here?");
    for other in others {
        assert_eq!(other.receive().as_deref(), Some(b"everybody here?".as_slice()));
    }
    peers
}

/// Several connections, messages of several sizes, all on their way at once.
pub fn echoes_everything_in_order<P: Peer>(program: Program) {
    let server = program.start("echo");
    let mut peers: Vec<P> = (0..10).map(|_| P::connect(server.address)).collect();
    for round in 0..3 {
        for (sender, peer) in peers.iter_mut().enumerate() {
            let messages = [8, 9, 32, 1000, 16_000].map(|len| P::encode(&body(sender, round, len))).concat();
            peer.socket().write(&messages);
        }
        for (sender, peer) in peers.iter_mut().enumerate() {
            for len in [8, 9, 32, 1000, 16_000] {
                assert_eq!(peer.receive(), Some(body(sender, round, len)), "peer {sender}, round {round}, {len} bytes");
            }
        }
    }
    server.end();
}

/// Input that trickles in, byte by byte, and then all at once.
pub fn takes_input_in_pieces<P: Peer>(program: Program) {
    let server = program.start("echo");
    let mut peer = P::connect(server.address);
    let messages: Vec<_> = [20, 8, 150].into_iter().enumerate().map(|(number, len)| body(0, number, len)).collect();
    for byte in messages.iter().flat_map(|body| P::encode(body)) {
        peer.socket().write(&[byte]);
    }
    for expected in &messages {
        assert_eq!(peer.receive().as_ref(), Some(expected));
    }
    // More than any buffer that is allocated in advance: in one piece, which the server has to read in many.
    let count = 300;
    let all: Vec<u8> = (0..count).flat_map(|number| P::encode(&body(0, number, 1000))).collect();
    let mut writer = peer.socket().stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&all).unwrap());
        for number in 0..count {
            assert_eq!(peer.receive(), Some(body(0, number, 1000)), "message {number}");
        }
    });
    server.end();
}

/// Every message to all but its sender, in the order in which its sender sent.
pub fn fans_out_to_all_others<P: Peer>(program: Program) {
    let server = program.start("fanout");
    let mut peers: Vec<P> = connect_all(server.address, 5);
    let (rounds, burst) = (10, 10);
    for round in 0..rounds {
        for (sender, peer) in peers.iter_mut().enumerate() {
            let messages = (0..burst).flat_map(|index| P::encode(&body(sender, round * burst + index, 8 + index * 100)));
            let messages: Vec<u8> = messages.collect();
            peer.socket().write(&messages);
        }
        for receiver in 0..peers.len() {
            let mut next = [0; 5];
            for _ in 0..burst * (peers.len() - 1) {
                let message = peers[receiver].receive().expect("it is still connected");
                let sender = u32::from_le_bytes(*message.first_chunk().unwrap()) as usize;
                assert_ne!(sender, receiver, "its own message came back");
                let index = next[sender];
                assert_eq!(message, body(sender, round * burst + index, 8 + index * 100), "from {sender} to {receiver}");
                next[sender] += 1;
            }
        }
    }
    server.end();
}

/// A sink says nothing but every 64th message of each connection.
pub fn a_sink_answers_every_64th<P: Peer>(program: Program) {
    let server = program.start("sink");
    let mut peers: Vec<P> = (0..3).map(|_| P::connect(server.address)).collect();
    // In pieces that do not fall together with the answers.
    for burst in 0..16 {
        for (sender, peer) in peers.iter_mut().enumerate() {
            let messages: Vec<u8> = (burst * 100..burst * 100 + 100).flat_map(|number| P::encode(&body(sender, number, 40))).collect();
            peer.socket().write(&messages);
        }
    }
    for (sender, peer) in peers.iter_mut().enumerate() {
        for answer in 1..=1600 / 64 {
            assert_eq!(peer.receive(), Some(body(sender, answer * 64 - 1, 40)), "answer {answer} to {sender}");
        }
    }
    server.end();
}

/// Peers that vanish inside a message, and with unread messages, are missed by no one.
pub fn peers_may_leave_at_any_time<P: Peer>(program: Program) {
    for mode in ["echo", "fanout"] {
        let server = program.start(mode);
        let mut staying: Vec<P> = if mode == "fanout" { connect_all(server.address, 2) } else { vec![P::connect(server.address)] };
        for number in 0..30 {
            let mut leaving = P::connect(server.address);
            let message = P::encode(&body(9, number, 100));
            leaving.socket().write(&message[..message.len() / 2]);
            if number % 2 == 0 {
                // Whatever it has got by now is unread: a reset.
                drop(leaving);
            } else {
                leaving.socket().stream.shutdown(Shutdown::Write).unwrap();
            }
            staying[0].send(&body(0, number, 500));
            // Echo has only one that stays, fan-out two: the last one gets it either way.
            assert_eq!(staying.last_mut().unwrap().receive(), Some(body(0, number, 500)));
        }
        server.end();
    }
}

/// Fan-out: what one that never reads misses is kept for it, or it is cut off, but the others get everything. Afterwards it reads: it
/// has everything up to where it was cut off.
pub fn one_that_never_reads_holds_up_no_one<P: Peer>(program: Program) {
    const COUNT: usize = 3000;
    let server = program.start("fanout");
    let mut peers: Vec<P> = connect_all(server.address, 3);
    let [stuck, prompt, publisher] = &mut peers[..] else { unreachable!("three") };
    for number in 0..COUNT {
        publisher.send(&body(0, number, 16_000));
        assert_eq!(prompt.receive(), Some(body(0, number, 16_000)), "message {number}");
    }
    for number in 0..COUNT {
        assert_eq!(stuck.receive(), Some(body(0, number, 16_000)), "message {number} to the one that was stuck");
    }
    server.end();
}

/// Fan-out: it does not wait for ever for one that never reads: at a limit that one is cut off.
pub fn one_that_never_reads_is_cut_off<P: Peer>(program: Program) {
    const COUNT: usize = 20_000;
    let server = program.start("fanout");
    let mut peers: Vec<P> = connect_all(server.address, 3);
    let [stuck, prompt, publisher] = &mut peers[..] else { unreachable!("three") };
    for number in 0..COUNT {
        publisher.send(&body(0, number, 8000));
        assert_eq!(prompt.receive(), Some(body(0, number, 8000)), "message {number}");
    }
    let got = (0..).take_while(|&number| stuck.receive().inspect(|message| assert_eq!(*message, body(0, number, 8000))).is_some());
    assert!(got.count() < COUNT, "160 MB waited for one that does not read");
    server.end();
}

/// Echo: one that sends and never reads is held up, and only that one; then it reads, and everything is there.
pub fn one_that_never_reads_is_held_up_alone<P: Peer>(program: Program) {
    let server = program.start("echo");
    let mut stuck = P::connect(server.address);
    let sent = send_until_stalled(&mut stuck, 4000).expect("it is not answered without end");
    let mut other = P::connect(server.address);
    for number in 0..100 {
        other.send(&body(1, number, 100));
        assert_eq!(other.receive(), Some(body(1, number, 100)));
    }
    for number in 0..sent {
        assert_eq!(stuck.receive(), Some(body(0, number, 16_000)), "message {number}");
    }
    server.end();
}

/// Sends messages until one does not get away for as long as the socket waits, and returns how many did; none if `most` got away.
fn send_until_stalled<P: Peer>(peer: &mut P, most: usize) -> Option<usize> {
    peer.socket().stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    (0..most).find(|&number| peer.socket().stream.write_all(&P::encode(&body(0, number, 16_000))).is_err())
}

/// Fan-out: one that never reads stops all others, until it is gone. That is no wish but how some contestants are, and the comparison
/// shows it as it is.
pub fn one_that_never_reads_stops_everyone<P: Peer>(program: Program) {
    let server = program.start("fanout");
    let mut peers: Vec<P> = connect_all(server.address, 3);
    let publisher = peers.pop().expect("three");
    let (mut prompt, stuck) = (peers.pop().expect("two"), peers.pop().expect("one"));
    prompt.socket().stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let count = STOPS_WITHIN / P::encode(&body(0, 0, 16_000)).len();
    std::thread::scope(|scope| {
        let mut publisher = publisher;
        // Blocked as soon as the server is.
        scope.spawn(move || (0..count).for_each(|number| publisher.send(&body(0, number, 16_000))));
        let got = (0..count).find(|&number| match prompt.receive_or_stall() {
            Ok(message) => {
                assert_eq!(message, Some(body(0, number, 16_000)), "message {number}");
                false
            }
            Err(Stalled) => true,
        });
        let got = got.expect("what the one that is stuck does not read stops somewhere");
        drop(stuck);
        prompt.socket().stream.set_read_timeout(Some(DEADLINE)).unwrap();
        for number in got..count {
            assert_eq!(prompt.receive(), Some(body(0, number, 16_000)), "message {number}, when the stuck one is gone");
        }
    });
    server.end();
}

/// SIGTERM ends it in order, also where one connection is idle and one does not read.
pub fn ends_in_order_while_connections_are_open<P: Peer>(program: Program) {
    for mode in ["echo", "sink"] {
        let server = program.start(mode);
        let _idle = P::connect(server.address);
        let mut stuck = P::connect(server.address);
        send_until_stalled(&mut stuck, 1000);
        server.end();
    }
    program.start("fanout").end();
}

/// A goodbye is answered with one, and nothing is lost before it.
pub fn a_goodbye_is_answered<P: Peer>(program: Program) {
    let server = program.start("echo");
    let mut peer = WirePeer::connect(server.address);
    let message = WirePeer::encode(b"last words");
    peer.socket().write(&message);
    assert_eq!(peer.say_goodbye(), [message, WirePeer::farewell()].concat());
    server.end();
}

/// What it says about itself: what it is made with, in which version, and that it refuses what it does not know.
pub fn says_what_it_is(program: Program, words: &[&str]) {
    let help = program.run(&["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    for word in words.iter().chain(&["--poll", "--core", "--mode", "--listen"]) {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    for wrong in [&["--mode", "nonsense"][..], &["--mode", "echo", "--listen", "here"], &[]] {
        let refused = program.run(wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
        assert!(!refused.stderr.is_empty());
    }
}
