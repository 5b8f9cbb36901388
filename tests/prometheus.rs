//! The HTTP endpoint for metrics.
//!
//! Set-up: an engine with an endpoint on loopback, and clients that ask well, badly, slowly, and not at all. Claim: who asks well gets
//! every counter, with as many series whoever is connected; nobody keeps another waiting for longer than the deadline; nothing is left.
#![cfg(feature = "prometheus")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::node::Node;
use common::raw::Hello;
use common::{LIVENESS, eventually, loopback, open_files};
use corecast::{Config, Context, Cores, Counter, EndpointError, PrometheusEndpoint};

fn ask(address: SocketAddr, request: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIVENESS)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert!(body.is_empty() || body.len() == length.parse::<usize>().unwrap());
    (head.to_owned(), body.to_owned())
}

fn scrape(endpoint: &PrometheusEndpoint) -> String {
    let (head, body) = ask(endpoint.local_addr(), b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
    body
}

fn series(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[test]
fn there_are_as_many_series_with_peers_as_without() {
    let mut server = Node::report(loopback().cores(Cores::Unpinned(2)));
    let endpoint = PrometheusEndpoint::start(server.handle(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let before = series(&scrape(&endpoint));
    let raws: Vec<_> = (0..20).map(|name| server.raw_peer(Hello::node(name))).collect();
    eventually("the peers are shown", || {
        let text = scrape(&endpoint);
        assert_eq!(series(&text), before);
        let peers = |core| text.lines().find_map(|line| line.strip_prefix(&format!("corecast_peers{{core=\"{core}\"}} ")));
        (0..2).map(|core| peers(core).unwrap().parse::<u32>().unwrap()).sum::<u32>() == 20
    });
    assert!(before.len() > 2 * Counter::ALL.len());
    drop(raws);
    drop(server);
    assert_eq!(series(&scrape(&endpoint)), before, "an engine that has ended is shown as it was");
}

#[test]
fn a_core_that_hangs_is_shown_as_it_was() {
    let server = Node::report(Config::plaintext().cores(Cores::Unpinned(2)));
    let endpoint = PrometheusEndpoint::start(server.handle(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let turns = |text: &str| {
        let count = text.lines().find_map(|line| line.strip_prefix("corecast_turn_seconds_count{core=\"1\"} "));
        count.unwrap().parse::<u64>().unwrap()
    };
    eventually("the core has had a turn", || turns(&scrape(&endpoint)) > 0);
    let ((entered, hangs), (go_on, wait)) = (channel(), channel());
    let hang = move |_: &mut Context<'_>| {
        entered.send(()).unwrap();
        wait.recv_timeout(LIVENESS).unwrap();
    };
    server.handle().post(1, Box::new(hang)).unwrap_or_else(|_| panic!("there is room"));
    hangs.recv_timeout(LIVENESS).unwrap();
    let before = turns(&scrape(&endpoint));
    eventually("a reading without that core is made", || {
        let began = Instant::now();
        assert_eq!(turns(&scrape(&endpoint)), before, "it has been shown before it hung, so it is not empty now");
        began.elapsed() >= Duration::from_millis(400)
    });
    assert!(before > 0);
    assert!(server.handle().prometheus_text(Duration::ZERO).unwrap().contains("corecast_turns_total{core=\"1\"}"));
    go_on.send(()).unwrap();
}

#[test]
fn who_asks_badly_is_told_so() {
    let server = Node::report(Config::plaintext());
    let endpoint = PrometheusEndpoint::start(server.handle(), "[::1]:0".parse().unwrap()).unwrap();
    let status = |request: &[u8]| ask(endpoint.local_addr(), request).0.lines().next().unwrap().to_owned();
    assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(status(b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status(b"what?\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    let long = format!("GET /metrics HTTP/1.1\r\nCookie: {}\r\n\r\n", "a".repeat(50_000));
    assert_eq!(status(long.as_bytes()), "HTTP/1.1 431 Request Header Fields Too Large");
    let (head, body) = ask(endpoint.local_addr(), b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK") && body.is_empty(), "{head}");
}

#[test]
fn who_says_nothing_is_cut_off_and_the_next_one_is_answered() {
    let server = Node::report(Config::plaintext());
    let endpoint = PrometheusEndpoint::start(server.handle(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let began = Instant::now();
    let mut silent = TcpStream::connect(endpoint.local_addr()).unwrap();
    silent.set_read_timeout(Some(LIVENESS)).unwrap();
    assert!(!scrape(&endpoint).is_empty(), "it has waited for the silent one's deadline");
    let mut told = String::new();
    silent.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 408 Request Timeout"), "{told}");
    assert!(began.elapsed() < LIVENESS);
}

#[test]
fn it_stays_on_loopback_unless_told_otherwise_and_is_gone_when_it_is_dropped() {
    // In a process of its own: others open files.
    if !std::env::args().any(|argument| argument == "--exact") {
        let this = std::env::current_exe().unwrap();
        let name = "it_stays_on_loopback_unless_told_otherwise_and_is_gone_when_it_is_dropped";
        assert!(std::process::Command::new(this).args(["--exact", name]).status().unwrap().success());
        return;
    }
    let server = Node::report(Config::plaintext());
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let refused = PrometheusEndpoint::start(server.handle(), everywhere);
    assert!(matches!(&refused, Err(EndpointError::NotLoopback { address }) if *address == everywhere), "{refused:?}");
    let files = open_files();
    let endpoint = PrometheusEndpoint::start_anywhere(server.handle(), everywhere).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], endpoint.local_addr().port()));
    assert!(ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 200 OK"));
    let taken = PrometheusEndpoint::start(server.handle(), address);
    assert!(matches!(taken, Err(EndpointError::Io { .. })), "{taken:?}");
    drop(endpoint);
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(open_files(), files);
}
