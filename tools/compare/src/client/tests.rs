//! The client against the bare server, and against servers that cheat.

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

fn faults_against(answer: impl FnMut(usize, &[u8]) -> Vec<u8> + Send + 'static) -> super::Faults {
    let (address, thread) = cheat(answer);
    let figures = measure(&config(address, Load::Echo { connections: 1, in_flight: 8 }, 32)).unwrap();
    thread.join().unwrap();
    figures.faults
}

#[test]
fn cheating_is_noticed() {
    let doubled = faults_against(|number, frame| if number == 50 { [frame, frame].concat() } else { frame.to_vec() });
    assert_eq!((doubled.duplicated, doubled.lost, doubled.corrupt), (1, 0, 0));

    let mut held = Vec::new();
    let swapped = faults_against(move |number, frame| match number {
        50 => {
            held = frame.to_vec();
            Vec::new()
        }
        51 => [frame, &held].concat(),
        _ => frame.to_vec(),
    });
    assert_eq!((swapped.reordered, swapped.lost, swapped.duplicated), (1, 0, 0));
}
