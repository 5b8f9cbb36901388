//! Stand-ins for servers that may not be installed: the server's side of each protocol, in threads that block.
//!
//! They know as much of a protocol as the client uses, written from the server's side; each connection has a thread. What comes goes
//! back (echo), to the other connections (fan-out), or back if it is the 64th (sink).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::Protocol;
use crate::server::Mode;

/// A server for so many connections. Dropping it waits until they have ended.
pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    /// ZMTP: where the subscribers connect.
    pub(super) publishing: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl StandIn {
    /// ZMTP: the subscribers come to an address of their own; otherwise there are none.
    pub(super) fn start(protocol: Protocol, mode: Mode, connections: usize, subscribers: usize) -> Self {
        let hub = Arc::new(Hub { protocol, mode, subscribers: Mutex::new(Vec::new()) });
        let mut threads = Vec::new();
        let mut listen = |count: usize, publishes: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let hub = Arc::clone(&hub);
            threads.push(std::thread::spawn(move || {
                let serve = |index| {
                    let (stream, _) = listener.accept().unwrap();
                    let mut peer = Peer::new(Arc::clone(&hub), index, stream);
                    std::thread::spawn(move || peer.serve(publishes))
                };
                // All of them are accepted before the first is waited for.
                let peers: Vec<_> = (0..count).map(serve).collect();
                peers.into_iter().for_each(|peer| peer.join().unwrap());
            }));
            address
        };
        let address = listen(connections, false);
        let publishing = (subscribers > 0).then(|| listen(subscribers, true));
        Self { address, publishing, threads }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // A test that failed may never have made all its connections.
        if !std::thread::panicking() {
            self.threads.drain(..).for_each(|thread| thread.join().expect("no connection's thread panics"));
        }
    }
}

/// What the connections share.
struct Hub {
    protocol: Protocol,
    mode: Mode,
    /// By the number of their connection.
    subscribers: Mutex<Vec<(usize, TcpStream)>>,
}

/// A connection, and what has come on it and is not dealt with.
struct Peer {
    hub: Arc<Hub>,
    index: usize,
    stream: TcpStream,
    input: Vec<u8>,
    bodies: u64,
}

/// What a client may want, and how many bytes it used to say so.
enum Wish {
    Body { used: usize, body: Vec<u8> },
    Answer { used: usize, answer: Vec<u8> },
    Subscription { used: usize, answer: Vec<u8> },
}

impl Peer {
    fn new(hub: Arc<Hub>, index: usize, stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { hub, index, stream, input: Vec::new(), bodies: 0 }
    }

    fn serve(&mut self, publishes: bool) {
        match self.hub.protocol {
            Protocol::Zmtp => self.greet_zmtp(publishes),
            Protocol::Nats => self.send(b"INFO {\"server_id\":\"stand-in\",\"max_payload\":1048576}\r\n"),
            // Whoever connects is told everything.
            Protocol::MessageIo | Protocol::Json if self.hub.mode == Mode::Fanout => self.subscribe(),
            _ => {}
        }
        let mut chunk = vec![0; 64 << 10];
        while let count @ 1.. = self.stream.read(&mut chunk).unwrap() {
            self.input.extend_from_slice(&chunk[..count]);
            while let Some(wish) = self.wish() {
                self.grant(wish);
            }
        }
        self.hub.subscribers.lock().unwrap().retain(|(index, _)| *index != self.index || self.hub.protocol == Protocol::Zmtp);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn subscribe(&mut self) {
        self.hub.subscribers.lock().unwrap().push((self.index, self.stream.try_clone().unwrap()));
    }

    fn greet_zmtp(&mut self, publishes: bool) {
        let mut greeting = [0; 64];
        self.stream.read_exact(&mut greeting).unwrap();
        assert_eq!((greeting[0], greeting[9], greeting[10], &greeting[12..17]), (0xFF, 0x7F, 3, &b"NULL\0"[..]));
        self.send(&greeting);
        let (ours, theirs): (&[u8], &[u8]) = match (self.hub.mode, publishes) {
            (Mode::Fanout, true) => (b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB", b"SUB"),
            (Mode::Fanout, false) => (b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PULL", b"PUSH"),
            _ => (b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER", b"DEALER"),
        };
        self.send(ours);
        let mut ready = vec![0; 24 + theirs.len()];
        self.stream.read_exact(&mut ready).unwrap();
        assert!(ready.ends_with(theirs), "{ready:?}");
        if publishes {
            let mut subscription = [0; 3];
            self.stream.read_exact(&mut subscription).unwrap();
            assert_eq!(subscription, [0, 1, 1]);
            self.subscribe();
        }
    }

    fn grant(&mut self, wish: Wish) {
        let used = match wish {
            Wish::Answer { used, answer } => {
                self.send(&answer);
                used
            }
            Wish::Subscription { used, answer } => {
                self.send(&answer);
                self.subscribe();
                used
            }
            Wish::Body { used, body } => {
                self.take(&body);
                used
            }
        };
        self.input.drain(..used);
    }

    fn take(&mut self, body: &[u8]) {
        self.bodies += 1;
        let bytes = self.frame(body);
        match self.hub.mode {
            Mode::Echo => self.send(&bytes),
            Mode::Sink if self.bodies.is_multiple_of(64) => self.send(&bytes),
            Mode::Sink => {}
            Mode::Fanout => {
                let mut subscribers = self.hub.subscribers.lock().unwrap();
                // ZMTP: the publisher is a connection of the other address.
                let all = self.hub.protocol == Protocol::Zmtp;
                let others = subscribers.iter_mut().filter(|(index, _)| all || *index != self.index);
                let count = others.map(|(_, stream)| stream.write_all(&bytes).unwrap()).count();
                drop(subscribers);
                if self.hub.protocol == Protocol::Redis {
                    self.send(format!(":{count}\r\n").as_bytes());
                }
            }
        }
    }

    /// A message as this server sends it.
    fn frame(&self, body: &[u8]) -> Vec<u8> {
        let len = body.len();
        let head = match (self.hub.protocol, self.hub.mode) {
            (Protocol::Nats, Mode::Fanout) => format!("MSG corecast 1 {len}\r\n"),
            (Protocol::Nats, _) => format!("MSG corecast.{} 1 {len}\r\n", self.index),
            (Protocol::Redis, Mode::Fanout) => format!("*3\r\n$7\r\nmessage\r\n$8\r\ncorecast\r\n${len}\r\n"),
            (Protocol::Redis, _) => format!("${len}\r\n"),
            // Whole, as it came.
            _ => return body.to_vec(),
        };
        [head.as_bytes(), body, b"\r\n"].concat()
    }

    /// The first thing in the input, if it is whole.
    fn wish(&self) -> Option<Wish> {
        let input = &self.input[..];
        let line_len = input.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let as_it_came = |used: usize| input.get(..used).map(|body| Wish::Body { used, body: body.to_vec() });
        match self.hub.protocol {
            Protocol::Json => as_it_came(line_len?),
            // Sizes under 2^14, or in the short form.
            Protocol::MessageIo if input.first()? & 0x80 == 0 => as_it_came(1 + usize::from(input[0])),
            Protocol::MessageIo => as_it_came(2 + (usize::from(input[0] & 0x7F) | usize::from(*input.get(1)?) << 7)),
            Protocol::Zmtp if input.first()? & 2 == 0 => as_it_came(2 + usize::from(*input.get(1)?)),
            Protocol::Zmtp => as_it_came(9 + u64::from_be_bytes(*input.get(1..)?.first_chunk()?) as usize),
            Protocol::Nats => wish_of_nats(input, line_len?),
            Protocol::Redis => wish_of_redis(input, line_len?),
            Protocol::Wire | Protocol::Noise => unreachable!("the bare server is there"),
        }
    }
}

/// A body of `len` bytes with a line's end after it, from `at` on.
fn body_at(input: &[u8], at: usize, len: usize) -> Option<Wish> {
    let body = input.get(at..at + len)?.to_vec();
    assert_eq!(input.get(at + len..at + len + 2)?, b"\r\n");
    Some(Wish::Body { used: at + len + 2, body })
}

fn wish_of_nats(input: &[u8], used: usize) -> Option<Wish> {
    let line = str::from_utf8(&input[..used]).unwrap();
    match *line.split_whitespace().collect::<Vec<_>>() {
        ["CONNECT", options] => {
            let options: serde_json::Value = serde_json::from_str(options).unwrap();
            assert_eq!((&options["verbose"], &options["echo"]), (&false.into(), &true.into()));
            Some(Wish::Answer { used, answer: Vec::new() })
        }
        // Confirmed by the pong.
        ["SUB", _, "1"] => Some(Wish::Subscription { used, answer: Vec::new() }),
        ["PING"] => Some(Wish::Answer { used, answer: b"PONG\r\n".to_vec() }),
        ["PUB", _, len] => body_at(input, used, len.parse().unwrap()),
        _ => panic!("not a line of NATS: {line:?}"),
    }
}

fn wish_of_redis(input: &[u8], used: usize) -> Option<Wish> {
    let answer = |answer: &[u8]| Some(Wish::Answer { used, answer: answer.to_vec() });
    match &input[..used] {
        b"PING\r\n" => answer(b"+PONG\r\n"),
        b"SUBSCRIBE corecast\r\n" => {
            Some(Wish::Subscription { used, answer: b"*3\r\n$9\r\nsubscribe\r\n$8\r\ncorecast\r\n:1\r\n".to_vec() })
        }
        command => {
            let words: &[u8] = if command == b"*2\r\n" { b"$4\r\nECHO\r\n$" } else { b"$7\r\nPUBLISH\r\n$8\r\ncorecast\r\n$" };
            let at = used + words.len();
            assert_eq!(input.get(used..at)?, words);
            let digits = input[at..].iter().position(|&byte| byte == b'\r')?;
            input.get(at + digits + 1)?;
            let len = str::from_utf8(&input[at..at + digits]).unwrap().parse().unwrap();
            body_at(input, at + digits + 2, len)
        }
    }
}
