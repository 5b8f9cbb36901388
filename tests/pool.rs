//! The connection pool and circuit breakers, over real sockets.
//!
//! Set-up: engines that connect by the pool, from threads and from cores, to each other and to ports where nobody listens, in plaintext and
//! encrypted. Claim: whoever asks gets a connection that is there, or the one that is dialled for all who ask; a target that fails is left
//! alone for a while, and dialled again when it is back; what nobody uses is closed, what is pinned is not.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::node::Node;
use common::raw::{Hello, RawListener, data};
use common::{LIVENESS, NEVER, Wire, eventually_counts, eventually_stats, loopback};
use corecast::{
    BreakerState, CloseReason, Config, ConnectError, Cores, Counter, Dial, DialError, Endpoint, GoodbyeCode, Meta, NodeId, PeerId,
    SendError,
};

const REFUSED: DialError = DialError::Connect(ErrorKind::ConnectionRefused);

/// Whose breakers open soon, and for long enough to see it.
fn strict() -> Config {
    let mut config = Config::plaintext();
    config.breaker.failures = 3;
    config.breaker.cool_down = Duration::from_millis(400);
    config.breaker.max_cool_down = Duration::from_millis(400);
    config.backoff.min = Duration::from_millis(5);
    config.backoff.max = Duration::from_millis(10);
    config
}

/// What another engine is to the pool.
fn endpoint(wire: Wire, server: &Node) -> Endpoint {
    Endpoint::from(&wire.dial(&server.engine))
}

#[test]
fn a_thread_gets_one_connection_however_often_it_asks() {
    for wire in Wire::BOTH {
        let server = Node::echo(wire.listening());
        let mut node = Node::report(wire.dialling().cores(Cores::Unpinned(2)));
        let handle = node.handle();
        let target = endpoint(wire, &server);
        let peer = handle.connect_blocking(&target, LIVENESS).unwrap();
        assert_eq!(node.connected().0, peer);
        // From any thread at once, and from the cores.
        let answers: Vec<_> = (0..8)
            .map(|_| {
                let (handle, target) = (handle.clone(), target.clone());
                std::thread::spawn(move || handle.connect_blocking(&target, LIVENESS))
            })
            .collect();
        answers.into_iter().for_each(|answer| assert_eq!(answer.join().unwrap(), Ok(peer)));
        for core in [0, 1] {
            let target = target.clone();
            assert_eq!(node.run(core, move |cx| cx.connect(target, core as u64)), Ok(()));
            assert_eq!(node.pooled(core as u64), (core, Ok(peer)));
        }
        if wire == Wire::Noise {
            assert_eq!(handle.connect_blocking(server.engine.node_id(), LIVENESS), Ok(peer));
        }
        node.counts(Counter::PoolMisses, 1);
        let hits = 10 + u64::from(wire == Wire::Noise);
        node.counts(Counter::PoolHits, hits);
        assert_eq!(node.count(Counter::DialAttempts), 1);
        // It carries messages like any other.
        handle.send(peer, handle.frame(7, b"pooled").unwrap()).unwrap();
        assert_eq!(node.message(peer), (Meta::new(7), b"pooled".to_vec()));
        // When it has ended, whoever has its id is told so, and whoever asks gets another.
        handle.close(peer).unwrap();
        assert_eq!(node.closed(peer), CloseReason::Requested);
        server.counts(Counter::Peers, 0);
        let late = node.run(peer.core(), move |cx| cx.send(peer, 7, b"late")).unwrap_err();
        assert!(matches!(late, SendError::NotConnected | SendError::Closing), "{late}");
        let again = handle.connect_blocking(&target, LIVENESS).unwrap();
        assert_ne!(again, peer);
        node.engine.shutdown();
        server.finish();
    }
}

#[test]
fn all_who_ask_while_it_is_dialled_wait_for_one_attempt() {
    let listener = RawListener::bind();
    let node = Node::report(Config::plaintext().cores(Cores::Unpinned(2)));
    let handle = node.handle();
    let mut pending: Vec<_> = (0..20).map(|_| handle.connect(listener.address()).unwrap()).collect();
    let mut raw = listener.accept();
    assert_eq!(pending[0].wait(Duration::from_millis(20)), Err(ConnectError::TimedOut));
    raw.read_greeting();
    raw.send(&Hello::node(1).greeting());
    let peers: Vec<PeerId> = pending.iter_mut().map(|pending| pending.wait(LIVENESS).unwrap()).collect();
    assert!(peers.iter().all(|&peer| peer == peers[0]));
    // An outcome stays what it is.
    assert_eq!(pending[3].wait(Duration::ZERO), Ok(peers[0]));
    node.counts(Counter::PoolMisses, 20);
    assert_eq!(node.count(Counter::DialAttempts), 1);
    drop(raw);
    node.finish();
}

#[test]
fn a_breaker_opens_where_nobody_listens_and_closes_when_somebody_does() {
    let (socket, address) = RawListener::deaf();
    let mut node = Node::report(strict());
    let handle = node.handle();
    for _ in 0..3 {
        assert_eq!(handle.connect_blocking(address, LIVENESS), Err(ConnectError::Dial(REFUSED)));
    }
    assert_eq!(node.breaker(), (0, address.into(), BreakerState::Open));
    // Nothing is tried now, whoever asks.
    let refused = handle.connect_blocking(address, LIVENESS);
    assert!(matches!(refused, Err(ConnectError::Dial(DialError::BreakerOpen { retry_in })) if retry_in <= Duration::from_millis(400)));
    let once = handle.dial(Dial::to(address).channel(3).once()).unwrap();
    assert!(matches!(node.dial_failed(once), (DialError::BreakerOpen { .. }, None)));
    node.counts(Counter::BreakerRefused, 2);
    assert_eq!(node.count(Counter::DialAttempts), 3);
    // A dial that is kept up waits, and finds out when somebody is there.
    let kept = handle.dial(Dial::to(address)).unwrap();
    assert!(matches!(node.dial_failed(kept), (DialError::BreakerOpen { .. }, Some(_))));
    assert_eq!(node.breaker().2, BreakerState::HalfOpen);
    assert_eq!(node.breaker().2, BreakerState::Open, "the probe was refused");
    let listener = RawListener::listen(socket);
    let mut raw = listener.establish(Hello::node(1));
    let (peer, info) = node.connected();
    assert_eq!(info.dial, Some(kept));
    assert_eq!(handle.connect_blocking(address, LIVENESS), Ok(peer), "the pool finds it as well");
    assert_eq!(node.breaker().2, BreakerState::HalfOpen);
    // It has accepted. That is not enough.
    assert_eq!(node.count(Counter::BreakerClosed), 0);
    raw.send(&data(1, b"here I am"));
    assert_eq!(node.breaker(), (0, address.into(), BreakerState::Closed));
    eventually_stats(&handle, "nothing is held against it", |stats| {
        stats.get(Counter::BreakerTargets) == 0 && stats.get(Counter::BreakerOpened) == stats.get(Counter::BreakerHalfOpened)
    });
    handle.cancel_dial(kept).unwrap();
    drop(raw);
    node.finish();
}

#[test]
fn a_source_address_that_is_not_ours_is_nothing_against_the_target() {
    let server = Node::report(loopback());
    let mut node = Node::report(strict());
    for _ in 0..5 {
        let dial = Dial::to(server.address()).source("192.0.2.1".parse().unwrap()).once();
        let dial = node.handle().dial(dial).unwrap();
        assert_eq!(node.dial_failed(dial), (DialError::Connect(ErrorKind::AddrNotAvailable), None));
    }
    assert_eq!((node.count(Counter::BreakerOpened), node.count(Counter::BreakerTargets)), (0, 0));
    assert!(node.handle().connect_blocking(server.address(), LIVENESS).is_ok());
    node.engine.shutdown();
    server.finish();
}

#[test]
fn what_is_idle_is_closed_and_what_is_pinned_is_not() {
    let (mut server, pinned) = (Node::report(loopback()), Node::report(loopback()));
    let mut config = Config::plaintext();
    config.pool.max_idle = Duration::from_millis(100);
    config.backoff.max = Duration::from_millis(100);
    let mut node = Node::report(config);
    let handle = node.handle();
    let kept = handle.pin(pinned.address()).unwrap().wait(LIVENESS).unwrap();
    let idle = handle.connect_blocking(server.address(), LIVENESS).unwrap();
    assert_eq!(node.closed(idle), CloseReason::Idle);
    let (peer, _) = server.connected();
    assert_eq!(server.closed(peer), CloseReason::Goodbye(GoodbyeCode::Closed));
    eventually_counts(&handle, Counter::ClosedIdle, 1);
    assert_eq!(handle.connect_blocking(pinned.address(), LIVENESS), Ok(kept));
    // It comes back by itself when it ends.
    handle.close(kept).unwrap();
    assert_eq!(node.closed(kept), CloseReason::Requested);
    let back = node.wait("the pinned target", |seen| match seen {
        common::node::Seen::Connected { peer, info } if *peer != kept && info.address == pinned.address() => Some(*peer),
        _ => None,
    });
    handle.unpin(pinned.address()).unwrap();
    assert_eq!(node.closed(back), CloseReason::Idle);
    node.counts(Counter::PoolTargets, 0);
    node.finish();
    server.finish();
    pinned.finish();
}

#[test]
fn a_call_that_would_wait_for_itself_says_so_and_the_end_of_the_engine_ends_the_others() {
    let listener = RawListener::bind();
    let mut config = Config::plaintext();
    config.timeouts.handshake = NEVER;
    let node = Node::report(config);
    let (handle, address) = (node.handle(), listener.address());
    let on_core = handle.clone();
    let answers = node.run(0, move |_| {
        let mut pending = on_core.connect(address).unwrap();
        (on_core.connect_blocking(address, LIVENESS), pending.wait(LIVENESS))
    });
    assert_eq!(answers, (Err(ConnectError::WouldDeadlock), Err(ConnectError::WouldDeadlock)));
    let mut pending = handle.connect(address).unwrap();
    assert_eq!(pending.wait(Duration::from_millis(1)), Err(ConnectError::TimedOut));
    let _hanging = listener.accept();
    node.engine.shutdown();
    let end = pending.wait(LIVENESS).unwrap_err();
    assert!(matches!(end, ConnectError::Stopped | ConnectError::Dial(DialError::ShuttingDown)), "{end}");
    assert_eq!(handle.connect(address).unwrap_err(), SendError::Stopped);
    assert_eq!(handle.unpin(address).unwrap_err(), SendError::Stopped);
}

#[test]
fn what_the_pool_cannot_do_is_told_with_its_reason() {
    let node = Node::report(Config::plaintext());
    let handle = node.handle();
    let told = |target: Endpoint| handle.connect_blocking(&target, LIVENESS).unwrap_err();
    assert_eq!(told(NodeId([9; 32]).into()), ConnectError::Dial(DialError::NoAddress));
    assert_eq!(told("192.0.2.1:9".parse::<std::net::SocketAddr>().unwrap().into()), ConnectError::Dial(DialError::PlaintextRemote));
    let own = (node.engine.node_id(), "127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap());
    assert_eq!(told(own.into()), ConnectError::Dial(DialError::SelfConnection));
    let encrypted = Node::report(Wire::Noise.dialling());
    let nobody = encrypted.handle().connect_blocking("127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap(), LIVENESS);
    assert_eq!(nobody, Err(ConnectError::Dial(DialError::NodeRequired)));
    encrypted.finish();
    node.finish();
}
