//! The client against the bare server, and against servers that cheat.

mod protocols;
mod servers;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use super::meter::Window;
use super::{ClientConfig, Load, Protocol, measure};
use crate::server::tests::TestServer;
use crate::server::{Mode, Poll};
use crate::wire::{self, Hello};

fn config(server: SocketAddr, load: Load, body_len: usize) -> ClientConfig {
    let window = Window { warmup: Duration::from_millis(20), measure: Duration::from_millis(150), server_pid: Some(std::process::id()) };
    ClientConfig {
        protocol: Protocol::Wire,
        server,
        publishing: None,
        network: [0; 32],
        node: None,
        load,
        body_len,
        poll: Poll::Block,
        window,
    }
}

/// Nobody listens there.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

#[test]
fn echo_loses_nothing() {
    let server = TestServer::start(Mode::Echo);
    for (connections, in_flight, body_len) in [(1, 1, 32), (5, 1, 32), (5, 40, 100), (2, 3, 16_384)] {
        let figures = measure(&config(server.address, Load::Echo { connections, in_flight }, body_len)).unwrap();
        assert!(figures.faults.none(), "{figures:?}");
        assert!(figures.deliveries > 0 && figures.server_cpu_ns_per_delivery > 0.0, "{figures:?}");
        assert!(figures.p50_ns <= figures.p99_ns && figures.p50_ns > 0, "{figures:?}");
    }
}

#[test]
fn fan_out_loses_nothing() {
    let server = TestServer::start(Mode::Fanout);
    for (subscribers, outstanding, body_len) in [(1, 1, 128), (7, 1, 1024), (7, 64, 128), (3, 16, 16_384)] {
        let figures = measure(&config(server.address, Load::Fanout { subscribers, outstanding, stuck: 0 }, body_len)).unwrap();
        assert!(figures.faults.none(), "{figures:?}");
        assert!(figures.deliveries > 0, "{figures:?}");
    }
}

#[test]
fn messages_of_several_frames_come_back_whole() {
    let server = TestServer::start(Mode::Echo);
    for body_len in [16_385, 32_764, 100 << 10, 1 << 20] {
        let figures = measure(&config(server.address, Load::Echo { connections: 2, in_flight: 3 }, body_len)).unwrap();
        assert!(figures.faults.none() && figures.deliveries > 0, "{body_len}: {figures:?}");
    }
    let server = TestServer::start(Mode::Fanout);
    let figures = measure(&config(server.address, Load::Fanout { subscribers: 3, outstanding: 2, stuck: 0 }, 100 << 10)).unwrap();
    assert!(figures.faults.none() && figures.deliveries > 0, "{figures:?}");
}

#[test]
fn a_sink_accounts_for_all_that_it_took() {
    let server = TestServer::start(Mode::Sink);
    for (connections, in_flight, body_len) in [(1, 64, 32), (3, 200, 100), (2, 1024, 16_384)] {
        let figures = measure(&config(server.address, Load::Sink { connections, in_flight }, body_len)).unwrap();
        assert!(figures.faults.none() && figures.deliveries > 0, "{figures:?}");
        assert!(figures.deliveries.is_multiple_of(64), "{figures:?}");
    }
}

#[test]
fn open_loops_send_what_was_due() {
    let server = TestServer::start(Mode::Echo);
    let figures = measure(&config(server.address, Load::OpenEcho { connections: 3, rate: 2_000 }, 32)).unwrap();
    assert!(figures.faults.none() && figures.deliveries > 0 && figures.p999_ns > 0, "{figures:?}");
    let server = TestServer::start(Mode::Fanout);
    let figures = measure(&config(server.address, Load::OpenFanout { subscribers: 5, rate: 500 }, 128)).unwrap();
    assert!(figures.faults.none() && figures.deliveries > 0 && figures.p999_ns > 0, "{figures:?}");
}

#[test]
fn subscribers_that_never_read_are_nobodys_loss() {
    let server = TestServer::start(Mode::Fanout);
    let figures = measure(&config(server.address, Load::Fanout { subscribers: 5, outstanding: 4, stuck: 2 }, 16_384)).unwrap();
    assert!(figures.faults.none() && figures.deliveries > 0, "{figures:?}");
    assert!(figures.deliveries_per_second > 0.0);
}

#[test]
fn idle_connections_have_a_size() {
    let server = TestServer::start(Mode::Echo);
    let figures = measure(&config(server.address, Load::Idle { connections: 20 }, 32)).unwrap();
    assert!(figures.faults.none() && figures.deliveries == 0, "{figures:?}");
    // This process has both ends, so what it grows by is not the server's alone.
    assert!(figures.bytes_per_connection.is_some());
}

#[test]
fn loads_without_sense_are_refused_before_anything_is_dialled() {
    let refusal = |load, body_len| measure(&config(nowhere(), load, body_len)).unwrap_err().to_string();
    for (load, body_len, word) in [
        (Load::Echo { connections: 0, in_flight: 1 }, 32, "at least one connection"),
        (Load::Echo { connections: 1, in_flight: 0 }, 32, "on its way"),
        (Load::Echo { connections: 1, in_flight: 1 }, 23, "24 to 1048576"),
        (Load::Fanout { subscribers: 3, outstanding: 1, stuck: 3 }, 32, "has to read"),
        (Load::Sink { connections: 1, in_flight: 63 }, 32, "for ever"),
        (Load::Sink { connections: 1, in_flight: 64 }, 16_385, "one frame"),
        (Load::OpenEcho { connections: 1, rate: 0 }, 32, "rate above 0"),
    ] {
        let reason = refusal(load, body_len);
        assert!(reason.contains(word), "{load:?}: {reason}");
    }
    let encrypted = ClientConfig { protocol: Protocol::Noise, ..config(nowhere(), Load::Idle { connections: 1 }, 32) };
    assert!(measure(&encrypted).unwrap_err().to_string().contains("node id"));
}

#[test]
fn a_refusal_is_reported_by_name() {
    let server = TestServer::start(Mode::Echo);
    let config = ClientConfig { network: [1; 32], ..config(server.address, Load::Echo { connections: 1, in_flight: 1 }, 32) };
    let error = measure(&config).unwrap_err().to_string();
    assert!(error.contains("WrongNetwork"), "{error}");
}

/// A server for one connection that gives each message (header and body) to `answer` and sends back what that returns.
fn cheat(mut answer: impl FnMut(usize, &[u8]) -> Vec<u8> + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut opening = [0; wire::OPENING_LEN];
        stream.read_exact(&mut opening).unwrap();
        let theirs = wire::parse_opening(&opening).unwrap();
        stream.write_all(&wire::opening(&Hello { node: [9; 32], ..theirs })).unwrap();
        let mut ready = [0; wire::HEADER_LEN];
        stream.read_exact(&mut ready).unwrap();
        let mut frame = [0; wire::HEADER_LEN + 32];
        let mut number = 0;
        while read_frame(&mut stream, &mut frame) {
            let bytes = answer(number, &frame);
            number += 1;
            // The client may have seen enough.
            if stream.write_all(&bytes).is_err() {
                break;
            }
        }
    });
    (address, thread)
}

/// False at the end or at a goodbye, which is shorter.
fn read_frame(stream: &mut TcpStream, frame: &mut [u8]) -> bool {
    stream.read_exact(&mut frame[..wire::HEADER_LEN]).is_ok()
        && frame[4] == wire::DATA
        && stream.read_exact(&mut frame[wire::HEADER_LEN..]).is_ok()
}

fn faults_against(load: Load, answer: impl FnMut(usize, &[u8]) -> Vec<u8> + Send + 'static) -> super::Faults {
    let (address, thread) = cheat(answer);
    let figures = measure(&config(address, load, 32)).unwrap();
    thread.join().unwrap();
    figures.faults
}

#[test]
fn cheating_is_noticed() {
    let echo = Load::Echo { connections: 1, in_flight: 8 };
    let doubled = faults_against(echo, |number, frame| if number == 50 { [frame, frame].concat() } else { frame.to_vec() });
    assert_eq!((doubled.duplicated, doubled.lost, doubled.corrupt), (1, 0, 0));

    let mut held = Vec::new();
    let swapped = faults_against(echo, move |number, frame| match number {
        50 => {
            held = frame.to_vec();
            Vec::new()
        }
        51 => [frame, &held].concat(),
        _ => frame.to_vec(),
    });
    assert_eq!((swapped.reordered, swapped.lost, swapped.duplicated), (1, 0, 0));
}

/// Every 64th goes back, or the one after it: then the server has missed one, or counted one too few.
#[test]
fn a_sink_that_miscounts_is_noticed() {
    let sink = Load::Sink { connections: 1, in_flight: 192 };
    let right = |number: usize| (number + 1).is_multiple_of(64);
    let one = faults_against(sink, move |number, frame| if right(number) { frame.to_vec() } else { Vec::new() });
    assert!(one.none(), "{one:?}");
    let late = |number: usize| number > 64 && number.is_multiple_of(64);
    let faults = faults_against(sink, move |number, frame| if late(number) { frame.to_vec() } else { Vec::new() });
    assert_eq!((faults.lost, faults.corrupt), (192, 1));
}
