//! Unix-domain sockets.
//!
//! Set-up: engines that listen at paths in a directory of the test's own, encrypted and not, alone and beside TCP. Claim: a peer there is a
//! peer like any other, and the kernel says whose it is; the file has its mode, takes the place of one that nobody listens on any more,
//! never that of anything else, and goes with the engine; what cannot be dialled is said, and tried again.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use common::node::{Node, Seen};
use common::place::{Place, listening};
use common::raw::{Hello, READY, data, header};
use common::{LIVENESS, NEVER, Wire};
use corecast::{
    Address, CloseReason, Context, Cores, Counter, Dial, DialError, Direction, Engine, Frame, Handler, Message, NodeId, PeerId, StartError,
};

/// Of the engine so far; what is published is older than the core's last sleep, so it is woken for it.
fn turns(node: &Node) -> u64 {
    node.run(0, |_| ());
    node.count(Counter::Turns)
}

struct Quiet;

impl Handler for Quiet {
    type Command = ();

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {}
}

fn dial(wire: Wire, server: &Node, address: &Address) -> Dial {
    let dial = Dial::to(address.clone());
    if wire == Wire::Noise { dial.expect(server.engine.node_id()) } else { dial }
}

fn start(address: &Address) -> Result<Engine, StartError> {
    Engine::start(listening(Wire::Plaintext, address), |_| Quiet)
}

/// An engine's peer comes by this path.
fn assert_reachable(address: &Address) {
    let mut client = Node::report(Wire::Plaintext.dialling());
    client.handle().dial(Dial::to(address.clone()).once()).unwrap();
    client.connected();
    client.engine.shutdown();
}

fn identity_of(path: &Path) -> (u64, u64) {
    let file = fs::symlink_metadata(path).unwrap();
    (file.dev(), file.ino())
}

#[test]
fn a_peer_at_a_path_is_a_peer_like_any_other() {
    for wire in Wire::BOTH {
        let place = Place::new();
        let address = place.address("node.sock");
        let mut server = Node::echo(listening(wire, &address).cores(Cores::Unpinned(2)));
        assert_eq!((server.engine.addresses(), server.engine.local_addrs()), ([address.clone()].as_slice(), [].as_slice()));
        let mut client = Node::report(wire.dialling());
        let id = client.handle().dial(dial(wire, &server, &address)).unwrap();
        let ((there, accepted), (peer, dialled)) = (server.connected(), client.connected());
        assert_eq!((&accepted.address, accepted.direction, accepted.dial), (&address, Direction::Accepted, None));
        assert_eq!((&dialled.address, dialled.direction, dialled.dial), (&address, Direction::Dialled, Some(id)));
        assert_eq!(dialled.authenticated, wire == Wire::Noise);
        // From one byte to many times what the socket takes at once, several at a time.
        let bodies: Vec<Vec<u8>> = [1, 100, 70_000, 1 << 20, 1 << 20, 1 << 20, 0].iter().map(|&len| vec![len as u8 | 1; len]).collect();
        for body in &bodies {
            client.handle().send(peer, Frame::new(7, body).unwrap()).unwrap();
        }
        for body in &bodies {
            let (meta, came) = client.message(peer);
            assert_eq!((meta.message_type, came.len()), (7, body.len()));
            assert!(came == *body);
        }
        let answer = client.handle().request_blocking(peer, 3, &bodies[2], LIVENESS).unwrap();
        assert!(answer.body == bodies[2]);
        client.handle().close(peer).unwrap();
        assert_eq!(client.closed(peer), CloseReason::Requested);
        assert!(matches!(server.closed(there), CloseReason::Goodbye(_)));
        // The wish stands.
        client.connected();
        client.handle().cancel_dial(id).unwrap();
        client.engine.shutdown();
        server.finish();
    }
}

#[test]
fn the_kernel_says_whose_a_peer_is_and_the_handler_can_go_by_it() {
    for wire in Wire::BOTH {
        let place = Place::new();
        let address = place.address("node.sock");
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mut config = listening(wire, &address);
        config.listen.push("127.0.0.1:0".parse().unwrap());
        let mut server = Node::judging(config, move |info| info.credentials().is_some_and(|credentials| credentials.uid == uid));
        let mut client = Node::report(wire.dialling());
        client.handle().dial(dial(wire, &server, &address).once()).unwrap();
        for (_, info) in [server.connected(), client.connected()] {
            let credentials = info.credentials().expect("Linux says");
            assert_eq!((credentials.pid, credentials.uid, credentials.gid), (Some(std::process::id()), uid, gid));
        }
        // Over TCP nobody can say.
        let tcp = client.handle().dial(wire.dial(&server.engine).channel(1).once()).unwrap();
        assert_eq!(client.dial_failed(tcp), (DialError::NotAllowed, None));
        let peers = server.handle().peers(LIVENESS).unwrap();
        assert_eq!(peers.iter().map(|peer| &peer.info.address).collect::<Vec<_>>(), [&address]);
        client.engine.shutdown();
        server.finish();
    }
}

#[test]
fn a_broadcast_goes_to_peers_of_both_kinds() {
    for wire in Wire::BOTH {
        let place = Place::new();
        let address = place.address("node.sock");
        let mut config = wire.listening().cores(Cores::Unpinned(2));
        config.listen.push(address.clone());
        let mut server = Node::report(config);
        assert_eq!((server.engine.local_addrs().len(), &server.engine.addresses()[1]), (1, &address));
        let mut client = Node::report(wire.dialling());
        let mut peers = Vec::new();
        for channel in 0..6 {
            let dial = if channel % 2 == 0 { wire.dial(&server.engine) } else { dial(wire, &server, &address) };
            client.handle().dial(dial.channel(channel)).unwrap();
            let (peer, info) = client.connected();
            assert_eq!(info.address.ip().is_some(), channel % 2 == 0);
            peers.push(peer);
            server.connected();
        }
        for number in 0..100u32 {
            server.handle().broadcast(Frame::new(1, &vec![number as u8; 1 + 100 * number as usize]).unwrap()).unwrap();
        }
        for &peer in &peers {
            for number in 0..100u32 {
                assert_eq!(client.message(peer).1, vec![number as u8; 1 + 100 * number as usize]);
            }
        }
        client.engine.shutdown();
        server.finish();
    }
}

#[test]
fn limits_by_address_are_not_for_paths_and_those_of_the_engine_are() {
    let place = Place::new();
    let address = place.address("node.sock");
    let mut config = listening(Wire::Plaintext, &address);
    config.listen.push("127.0.0.1:0".parse().unwrap());
    (config.addresses.peers_per_ip, config.addresses.half_open_per_ip) = (1, 1);
    config.limits.max_peers = 5;
    let mut server = Node::report(config);
    let mut client = Node::report(Wire::Plaintext.dialling());
    for channel in 0..4 {
        client.handle().dial(Dial::to(address.clone()).channel(channel)).unwrap();
        server.connected();
    }
    client.handle().dial(Dial::to(server.address()).channel(4)).unwrap();
    server.connected();
    let refused = client.handle().dial(Dial::to(server.address()).channel(5).once()).unwrap();
    assert!(matches!(client.dial_failed(refused).0, DialError::Handshake(_)));
    server.counts(Counter::RefusedIpPeers, 1);
    let full = client.handle().dial(Dial::to(address.clone()).channel(6).once()).unwrap();
    assert_ne!(client.dial_failed(full).1, Some(LIVENESS));
    server.counts(Counter::HandshakeFull, 1);
    client.engine.shutdown();
    server.finish();
}

#[test]
fn a_file_that_nobody_listens_on_is_replaced() {
    let place = Place::new();
    let address = place.address("node.sock");
    drop(UnixListener::bind(place.path("node.sock")).unwrap());
    assert!(place.path("node.sock").exists(), "it is left");
    let engine = start(&address).unwrap();
    assert_reachable(&address);
    engine.shutdown();
}

#[test]
fn where_somebody_listens_an_engine_does_not_start_and_disturbs_nobody() {
    let place = Place::new();
    let (address, path) = (place.address("node.sock"), place.path("node.sock"));
    let engine = start(&address).unwrap();
    let before = identity_of(&path);
    let error = start(&address).unwrap_err();
    match &error {
        StartError::Listen { address: named, source } => assert_eq!((named, source.kind()), (&address, ErrorKind::AddrInUse)),
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    // Nor twice in one engine, which leaves nothing behind.
    let mut twice = listening(Wire::Plaintext, &place.address("other.sock"));
    twice.listen.push(place.address("other.sock"));
    assert!(matches!(Engine::start(twice, |_| Quiet), Err(StartError::Listen { .. })));
    assert!(!place.path("other.sock").exists());
    assert_eq!(identity_of(&path), before);
    assert_reachable(&address);
    engine.shutdown();
    // A socket of another kind, and one whose backlog is full.
    let datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(start(&address), Err(StartError::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse));
    drop(datagrams);
    fs::remove_file(&path).unwrap();
    let busy = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    busy.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    busy.listen(0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    assert!(matches!(start(&address), Err(StartError::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse));
}

#[test]
fn of_engines_that_start_at_once_where_a_file_is_left_one_has_the_path() {
    let place = Place::new();
    let address = place.address("node.sock");
    for _ in 0..10 {
        drop(UnixListener::bind(place.path("node.sock")).unwrap());
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| start(&address))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (up, refused): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
        assert_eq!((up.len(), refused.len()), (1, 3));
        for refused in refused {
            assert!(matches!(refused, Err(StartError::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse));
        }
        assert_reachable(&address);
    }
}

#[test]
fn what_is_no_socket_is_not_touched() {
    let place = Place::new();
    fs::write(place.path("file"), b"precious").unwrap();
    fs::create_dir(place.path("directory")).unwrap();
    drop(UnixListener::bind(place.path("stale")).unwrap());
    symlink(place.path("stale"), place.path("link")).unwrap();
    symlink(place.path("nowhere"), place.path("dangling")).unwrap();
    for name in ["file", "directory", "link", "dangling"] {
        let before = identity_of(&place.path(name));
        match start(&place.address(name)).unwrap_err() {
            error @ StartError::NotASocket { .. } => assert!(error.to_string().contains(name), "{error}"),
            other => panic!("{name}: {other}"),
        }
        assert_eq!(identity_of(&place.path(name)), before, "{name}");
    }
    assert_eq!(fs::read(place.path("file")).unwrap(), b"precious");
    // Nor is a directory made.
    let missing = Address::unix(place.path("missing").join("node.sock")).unwrap();
    assert!(matches!(start(&missing), Err(StartError::Listen { source, .. }) if source.kind() == ErrorKind::NotFound));
}

#[test]
fn the_file_goes_with_the_engine_and_nobody_elses_does() {
    let place = Place::new();
    let (address, path) = (place.address("node.sock"), place.path("node.sock"));
    start(&address).unwrap().shutdown();
    assert!(!path.exists());
    drop(start(&address).unwrap());
    assert!(!path.exists());
    // Somebody has put his own there.
    let engine = start(&address).unwrap();
    fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    engine.shutdown();
    assert!(path.exists());
    drop(theirs);
    // An engine that does not start takes back what it has made by then.
    fs::remove_file(&path).unwrap();
    let mut config = listening(Wire::Plaintext, &address);
    config.listen.push("192.0.2.1:1".parse().unwrap());
    config.security = corecast::Security::Plaintext { allow_remote: true };
    assert!(matches!(Engine::start(config, |_| Quiet), Err(StartError::Listen { .. })));
    assert!(!path.exists());
}

#[test]
fn a_path_that_cannot_be_dialled_is_tried_again_with_backoff() {
    let place = Place::new();
    let address = place.address("node.sock");
    let mut client = Node::report(Wire::Plaintext.dialling());
    let wish = client.handle().dial(Dial::to(address.clone())).unwrap();
    for _ in 0..3 {
        let (error, retry_in) = client.dial_failed(wish);
        assert_eq!(error, DialError::Connect(ErrorKind::NotFound));
        assert!(retry_in.is_some());
    }
    drop(UnixListener::bind(place.path("node.sock")).unwrap());
    let refused = client.wait("a refusal", |seen| match seen {
        Seen::DialFailed { error: error @ DialError::Connect(ErrorKind::ConnectionRefused), .. } => Some(*error),
        _ => None,
    });
    assert_eq!(refused, DialError::Connect(ErrorKind::ConnectionRefused));
    let server = Node::report(listening(Wire::Plaintext, &address));
    assert_eq!(client.connected().1.dial, Some(wish));
    // No address of ours leads to a path.
    let ours: IpAddr = "127.0.0.1".parse().unwrap();
    let odd = client.handle().dial(Dial::to(address).source(ours).channel(1).once()).unwrap();
    assert_eq!(client.dial_failed(odd), (DialError::Connect(ErrorKind::InvalidInput), None));
    client.engine.shutdown();
    server.finish();
}

/// The kernel tells of room whenever something was read, and nobody waits for any.
#[test]
fn what_the_other_side_reads_costs_this_side_nothing() {
    const MESSAGES: u64 = 200;
    let place = Place::new();
    let mut config = listening(Wire::Plaintext, &place.address("node.sock"));
    (config.keepalive.interval, config.keepalive.timeout) = (NEVER, 2 * NEVER);
    let mut server = Node::report(config);
    let mut raw = UnixStream::connect(place.path("node.sock")).unwrap();
    raw.write_all(&Hello::node(1).greeting()).unwrap();
    raw.read_exact(&mut [0; 96]).unwrap();
    raw.write_all(&header(0, READY, 0, 0)).unwrap();
    let (peer, _) = server.connected();
    for _ in 0..MESSAGES {
        server.run(0, move |cx| cx.send(peer, 1, b"one write each").unwrap());
    }
    server.counts(Counter::MessagesSent, MESSAGES);
    let before = turns(&server);
    for _ in 0..MESSAGES {
        raw.read_exact(&mut data(1, b"one write each")).unwrap();
        // There is no event to wait for: that is what is looked for.
        std::thread::sleep(Duration::from_millis(1));
    }
    raw.write_all(&data(1, b"done")).unwrap();
    server.message(peer);
    let turns = turns(&server) - before;
    // Two: for what the peer said, and for the asking. Told of each read, the kernel puts some together: 16 and more.
    assert!(turns < 8, "{turns} turns for {MESSAGES} messages that were read");
    drop(raw);
    server.closed(peer);
    server.finish();
}

#[test]
fn a_peer_that_vanishes_in_the_middle_of_everything_is_one_that_is_gone() {
    let place = Place::new();
    let address = place.address("node.sock");
    let mut server = Node::report(listening(Wire::Plaintext, &address));
    for number in 0..20 {
        let mut raw = UnixStream::connect(place.path("node.sock")).unwrap();
        raw.write_all(&Hello::node(number).greeting()).unwrap();
        raw.read_exact(&mut [0; 96]).unwrap();
        raw.write_all(&header(0, READY, 0, 0)).unwrap();
        let (peer, info) = server.connected();
        assert_eq!(info.node, NodeId(Hello::node(number).node));
        for _ in 0..8 {
            server.handle().send(peer, Frame::new(1, &vec![1; 1 << 20]).unwrap()).unwrap();
        }
        // Some of it is in the socket, most is not, and this side's reset must be no signal to the process.
        raw.read_exact(&mut [0; 5000]).unwrap();
        drop(raw);
        assert!(matches!(server.closed(peer), CloseReason::Io(_) | CloseReason::Eof));
    }
    server.finish();
}
