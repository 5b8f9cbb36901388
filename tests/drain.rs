//! Engines that say that they will go.
//!
//! Set-up: an engine that is told to go while peers, dialled or written by hand, have requests under way, are half connected, or come only
//! now. Claim: everybody is told; what is under way ends; who comes is refused, counted, and asked to stay away; who was asked to stays
//! away for so long and within its own bound; and at the end nothing of anybody is left.

mod common;

use std::time::{Duration, Instant};

use common::node::{Node, Seen};
use common::raw::{GO_AWAY, GOODBYE, Hello, Raw, RawListener, go_away, goodbye_for, refusal_for};
use common::{LIVENESS, NEVER, Wire, eventually_idle, eventually_stats, loopback};
use corecast::{CloseReason, Config, Cores, Counter, Dial, DialError, GoodbyeCode, HandshakeError, Notice, RefusalCode, SendError};

const REFUSED: DialError = DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::ShuttingDown));

/// Long enough for a slow machine to do in it what a test wants done, and not waited for to its end.
fn long() -> Notice {
    Notice::new(NEVER).retry_after(Duration::from_secs(20)).reason(3)
}

/// Dials again soon.
fn eager(mut config: Config) -> Config {
    config.backoff.min = Duration::from_millis(5);
    config.backoff.max = Duration::from_millis(40);
    config
}

#[test]
fn requests_under_way_end_before_the_engine_does() {
    for wire in Wire::BOTH {
        let mut server = Node::report(wire.listening().cores(Cores::Unpinned(2)));
        let mut clients: Vec<Node> = (0..4)
            .map(|channel| {
                let client = Node::report(wire.dialling());
                client.handle().dial(wire.dial(&server.engine).channel(channel)).unwrap();
                client
            })
            .collect();
        let mut peers = Vec::new();
        for (tag, client) in clients.iter_mut().enumerate() {
            let (peer, info) = client.connected();
            assert!(info.takes_notice);
            client.run(0, move |cx| cx.request(peer, 1, b"slow", NEVER, tag as u64)).unwrap();
            peers.push(peer);
        }
        let requests: Vec<_> = (0..4).map(|_| server.request()).collect();
        server.handle().drain(long()).unwrap();
        for client in &mut clients {
            assert_eq!(client.going_away(), long());
        }
        server.counts(Counter::NoticesSent, 4);
        // The answers come only now, and what is asked now is answered as well.
        for (_, meta, _, responder) in requests {
            server.handle().respond(responder, meta, b"done").unwrap();
        }
        for (tag, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response(tag as u64).1.unwrap().1, b"done");
            let peer = peers[tag];
            client.run(0, move |cx| cx.request(peer, 1, b"one more", NEVER, 10)).unwrap();
            let (_, meta, _, responder) = server.request();
            server.handle().respond(responder, meta, b"as before").unwrap();
            assert_eq!(client.response(10).1.unwrap().1, b"as before");
        }
        assert_eq!((server.count(Counter::Peers), server.count(Counter::Landing)), (4, 2), "{wire:?}");
        // They have nothing more to ask, and go; the last of them lets the engine stop, long before its time.
        for (client, peer) in clients.iter().zip(&peers) {
            client.handle().close(*peer).unwrap();
        }
        server.counts(Counter::Peers, 0);
        let report = server.engine.drain(long());
        assert!(report.drained && report.cut == 0 && report.elapsed < LIVENESS, "{report:?}");
        for client in clients {
            assert_eq!(client.count(Counter::NoticesReceived), 1);
            client.engine.shutdown();
        }
    }
}

#[test]
fn whoever_stays_is_told_goodbye_when_the_time_is_up_and_everything_is_given_back() {
    let mut server = Node::echo(loopback().cores(Cores::Unpinned(2)));
    let mut raws: Vec<Raw> = (0..6).map(|number| server.raw_peer(Hello { features: number % 2, ..Hello::node(number as u32) }).0).collect();
    server.handle().drain(Notice::new(Duration::from_millis(300)).retry_after(Duration::from_secs(7))).unwrap();
    for (number, raw) in raws.iter_mut().enumerate() {
        // Half of them are of an older version, and are told nothing before the goodbye.
        let mut frame = raw.message_frame().unwrap();
        if number % 2 == 1 {
            assert_eq!((frame.kind, &frame.payload[4..]), (GO_AWAY, &[&7000u32.to_le_bytes()[..], &[0; 4]].concat()[..]));
            frame = raw.message_frame().unwrap();
        }
        assert_eq!((frame.kind, &frame.payload[..]), (GOODBYE, &goodbye_for(1, 0, 7000)[8..]));
        raw.expect_eof();
    }
    drop(raws);
    eventually_idle(&server.handle());
    assert_eq!((server.count(Counter::ClosedShuttingDown), server.count(Counter::NoticesSent)), (6, 3));
    // The engine is there, and lets nobody in, until it is shut down.
    let mut late = Raw::connect(server.address());
    late.send(&Hello::node(9).greeting());
    assert_eq!(late.read(16), refusal_for(8, 7000));
    late.expect_eof();
    drop(late);
    server.counts(Counter::HandshakeShuttingDown, 1);
    server.finish();
}

#[test]
fn newcomers_are_refused_and_counted_and_dials_end() {
    for wire in Wire::BOTH {
        let (_socket, deaf) = RawListener::deaf();
        let mut server = Node::report(eager(wire.listening()));
        let dial = Dial::to(deaf);
        let waiting = server.handle().dial(if wire == Wire::Noise { dial.expect(corecast::NodeId([9; 32])) } else { dial }).unwrap();
        server.dial_failed(waiting);
        server.handle().drain(long()).unwrap();
        server.wait("the end of the dial", |seen| match seen {
            Seen::DialFailed { error: DialError::ShuttingDown, retry_in: None, .. } => Some(()),
            _ => None,
        });
        let refused = server.handle().dial(Dial::to(deaf)).unwrap();
        assert_eq!(server.dial_failed(refused), (DialError::ShuttingDown, None));
        let mut client = Node::report(wire.dialling());
        for number in 1..=3 {
            let dial = client.handle().dial(wire.dial(&server.engine).once()).unwrap();
            assert_eq!(client.dial_failed(dial), (REFUSED, None), "{wire:?}");
            server.counts(Counter::HandshakeShuttingDown, number);
        }
        // One that would dial again is asked not to, for as long as it allows.
        let dial = client.handle().dial(wire.dial(&server.engine)).unwrap();
        let (error, retry_in) = client.dial_failed(dial);
        assert_eq!(error, REFUSED);
        // Encrypted, that was said in the clear, by whoever stood on the way: no longer than a dial may wait anyway.
        let (most, cut) = if wire == Wire::Noise { (30, 0) } else { (60, 1) };
        let most = Duration::from_secs(most);
        assert!(retry_in.is_some_and(|wait| wait >= most && wait <= 2 * most), "{retry_in:?}");
        client.counts(Counter::DelaysHeeded, 1);
        client.counts(Counter::DelaysCut, cut);
        assert_eq!(server.count(Counter::Established), 0);
        client.engine.shutdown();
        server.finish();
    }
}

#[test]
fn a_dial_comes_back_when_it_was_asked_to_and_not_sooner() {
    const DELAY: Duration = Duration::from_millis(400);
    let millis = DELAY.as_millis() as u32;
    let listener = RawListener::bind();
    let mut node = Node::report(eager(Config::plaintext()));
    node.handle().dial(Dial::to(listener.address())).unwrap();
    let ends: [&[u8]; 3] = [
        &goodbye_for(1, 0, millis),
        // Said ahead; the connection then ends without a word. What it ends with says nothing of a delay, and takes nothing back.
        &go_away(0, millis, 7),
        &[go_away(0, millis, 7), goodbye_for(1, 0, 0)].concat(),
    ];
    for (round, last) in ends.into_iter().enumerate() {
        let mut raw = listener.establish(Hello { instance: round as u64, features: 1, ..Hello::node(1) });
        let (peer, _) = node.connected();
        // Taken before it is sent: what is asked for begins later.
        let asked = Instant::now();
        raw.send(last);
        drop(raw);
        let reason = node.closed(peer);
        assert!(matches!(reason, CloseReason::Goodbye(GoodbyeCode::ShuttingDown) | CloseReason::Eof), "{reason:?}");
        let mut next = listener.accept();
        assert!(asked.elapsed() >= DELAY, "round {round}: back after {:?}", asked.elapsed());
        next.read_greeting();
        // The same before there is a connection.
        let asked = Instant::now();
        next.send(&refusal_for(7, millis));
        drop(next);
        // The next round's, or the last.
        let next = listener.accept();
        assert!(asked.elapsed() >= DELAY, "round {round}: back after {:?}", asked.elapsed());
        drop(next);
        node.counts(Counter::DelaysHeeded, 2 * (round as u64 + 1));
    }
    node.engine.shutdown();
}

#[test]
fn nobody_is_sent_away_for_longer_than_it_allows() {
    let mut config = eager(Config::plaintext());
    config.backoff.max_asked = Duration::from_millis(50);
    let listener = RawListener::bind();
    let mut node = Node::report(config);
    node.handle().dial(Dial::to(listener.address())).unwrap();
    for round in 1..=3u64 {
        let mut raw = listener.establish(Hello { instance: round, ..Hello::node(1) });
        node.connected();
        raw.send(&goodbye_for(1, 0, u32::MAX));
        drop(raw);
        node.counts(Counter::DelaysCut, round);
    }
    listener.accept();
    node.engine.shutdown();
}

#[test]
fn an_engine_that_drains_waits_for_its_peers_and_no_longer_than_it_said() {
    let mut server = Node::report(loopback());
    let (raw, _) = server.raw_peer(Hello { features: 1, ..Hello::node(1) });
    let (mut stays, _) = server.raw_peer(Hello { features: 1, ..Hello::node(2) });
    let handle = server.handle();
    let draining = std::thread::spawn(move || server.engine.drain(Notice::new(Duration::from_millis(500)).reason(1)));
    eventually_stats(&handle, "everybody is told", |stats| stats.get(Counter::NoticesSent) == 2);
    drop(raw);
    assert_eq!(stays.message_frame().unwrap().kind, GO_AWAY);
    // It is asked, and does nothing: the goodbye comes.
    assert_eq!(stays.message_frame().unwrap().kind, GOODBYE);
    stays.expect_eof();
    drop(stays);
    let report = draining.join().unwrap();
    assert!(report.drained && report.cut == 0 && report.elapsed >= Duration::from_millis(500), "{report:?}");
    assert_eq!(handle.drain(long()), Err(SendError::Stopped));
}

#[test]
fn a_shutdown_does_not_wait_for_the_end_of_the_period() {
    let mut server = Node::report(loopback());
    let mut client = Node::report(Config::plaintext());
    client.handle().dial(Dial::to(server.address()).once()).unwrap();
    let ((peer, _), _) = (client.connected(), server.connected());
    server.handle().drain(long()).unwrap();
    // A second word changes nothing.
    server.handle().drain(Notice::new(Duration::ZERO)).unwrap();
    assert_eq!(client.going_away(), long());
    let report = server.engine.shutdown();
    assert!(report.drained && report.elapsed < LIVENESS, "{report:?}");
    assert_eq!(client.closed(peer), CloseReason::Goodbye(GoodbyeCode::ShuttingDown));
    client.finish();
}
