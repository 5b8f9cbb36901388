//! Questions and answers.
//!
//! Set-up: an engine that asks (from its cores and from threads), and peers that answer: other engines, and ones written by hand that
//! answer late, never, twice, or leave. Claim: every request ends exactly once, on the core that asked and under its tag, with the
//! response or with the reason why there is none.

mod common;

use std::time::Duration;

use common::node::{Node, Seen};
use common::raw::{GOODBYE, Hello, NORMAL, REQUEST, RESPONSE, Raw, RawFrame, frame};
use common::{LIVENESS, NEVER, loopback};
use corecast::{CloseReason, Config, Cores, Counter, Dial, Lane, Meta, PeerId, QueryError, RequestError, RequestTimeout, SendError, Sent};

fn config() -> Config {
    let mut config = loopback();
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config
}

fn correlation(request: &RawFrame) -> u64 {
    assert_eq!(request.kind, REQUEST);
    u64::from_le_bytes(request.payload[..8].try_into().unwrap())
}

fn response(correlation: u64, body: &[u8]) -> Vec<u8> {
    frame(RESPONSE, NORMAL, 6, &[&correlation.to_le_bytes(), body].concat())
}

/// A client engine with one peer on each of its cores, all of them the same echoing server on different channels.
fn asker(cores: usize) -> (Node, Node, Vec<PeerId>) {
    let server = Node::echo(config());
    let mut client = Node::report({
        let mut config = config().cores(Cores::Unpinned(cores));
        config.listen.clear();
        config
    });
    let mut peers = Vec::new();
    for channel in 0..cores {
        client.handle().dial(Dial::to(server.address()).channel(channel as u16)).unwrap();
        peers.push(client.connected().0);
    }
    peers.sort_by_key(|peer| peer.core());
    assert_eq!(peers.iter().map(|peer| peer.core()).collect::<Vec<_>>(), (0..cores).collect::<Vec<_>>());
    (server, client, peers)
}

fn done(server: Node, client: Node) {
    client.engine.shutdown();
    server.finish();
}

#[test]
fn every_core_gets_the_answers_to_its_own_questions() {
    let (server, mut client, peers) = asker(2);
    let mut tag = 0;
    for asking in 0..2 {
        for &peer in &peers {
            for len in [0, 1, 5000, 100_000] {
                tag += 1;
                let body = vec![tag as u8; len];
                let question = body.clone();
                let meta = Meta::new(tag as u16).lane(Lane::ALL[tag as usize % 3]);
                let sent = client.run(asking, move |cx| cx.request(peer, meta, &question, NEVER, tag)).unwrap();
                assert_eq!(sent == Sent::Forwarded, peer.core() != asking);
                let (core, result) = client.response(tag);
                assert_eq!(core, asking);
                let (answered, got) = result.unwrap();
                assert_eq!(answered, meta);
                assert!(got == body);
            }
        }
    }
    client.counts(Counter::RequestsSent, tag);
    assert!(client.leftovers().is_empty(), "each request ends once");
    done(server, client);
}

#[test]
fn many_questions_at_once_are_told_apart() {
    let (server, mut client, peers) = asker(2);
    let asked = client.run(0, {
        let peers = peers.clone();
        move |cx| (0..300u64).all(|tag| cx.request(peers[tag as usize % 2], 1, &tag.to_le_bytes(), NEVER, tag).is_ok())
    });
    assert!(asked);
    let mut seen = [false; 300];
    for _ in 0..300 {
        let (tag, result) = client.wait("a response", |seen| match seen {
            Seen::Response { tag, result, .. } => Some((*tag, result.clone())),
            _ => None,
        });
        assert_eq!(result.unwrap().1, tag.to_le_bytes());
        assert!(!std::mem::replace(&mut seen[tag as usize], true));
    }
    done(server, client);
}

#[test]
fn a_thread_may_wait_for_its_answer() {
    let (server, client, peers) = asker(2);
    let threads: Vec<_> = (0..6u32)
        .map(|number| {
            let (handle, peer) = (client.handle(), peers[number as usize % 2]);
            std::thread::spawn(move || {
                for round in 0..20 {
                    let body = vec![number as u8; 100 * round];
                    let meta = Meta::new(number as u16).lane(Lane::High);
                    let response = handle.request_blocking(peer, meta, &body, LIVENESS).unwrap();
                    assert_eq!(response.meta, meta);
                    assert!(response.body == body);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    client.counts(Counter::RequestsSent, 120);
    done(server, client);
}

#[test]
fn without_an_answer_a_request_ends_at_its_deadline_and_a_late_one_is_only_counted() {
    let mut node = Node::report(config());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    node.run(0, move |cx| cx.request(peer, 5, b"?", Duration::from_millis(50), 11)).unwrap();
    let asked = raw.message_frame().unwrap();
    assert_eq!((correlation(&asked), asked.message_type, &asked.payload[8..]), (1, 5, &b"?"[..]));
    assert_eq!(node.response(11), (0, Err(RequestError::TimedOut)));
    let thread = node.handle();
    assert_eq!(thread.request_blocking(peer, 5, b"?", Duration::from_millis(50)).unwrap_err(), RequestError::TimedOut);
    node.counts(Counter::RequestsTimedOut, 2);
    // Late answers, and a second answer, are no offence and reach nobody.
    let second = raw.message_frame().unwrap();
    assert_eq!(correlation(&second), 2);
    raw.send(&[response(1, b"late"), response(2, b"late")].concat());
    node.counts(Counter::LateResponses, 2);
    node.run(0, move |cx| cx.request(peer, 5, b"?", NEVER, 12)).unwrap();
    assert_eq!(correlation(&raw.message_frame().unwrap()), 3);
    raw.send(&[response(3, b"in time"), response(3, b"again")].concat());
    let (meta, body) = node.response(12).1.unwrap();
    assert_eq!((meta.message_type, &body[..]), (6, &b"in time"[..]));
    node.counts(Counter::LateResponses, 3);
    assert!(node.leftovers().is_empty());
    drop(raw);
    assert_eq!(node.closed(peer), CloseReason::Eof);
    node.finish();
}

#[test]
fn answers_may_come_in_any_order() {
    let mut node = Node::report(config());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    node.run(0, move |cx| (1..=5).for_each(|tag| assert!(cx.request(peer, 5, &[], NEVER, tag).is_ok())));
    let asked: Vec<u64> = (0..5).map(|_| correlation(&raw.message_frame().unwrap())).collect();
    assert_eq!(asked, [1, 2, 3, 4, 5]);
    for number in [3, 1, 5, 2, 4u64] {
        raw.send(&response(number, &[number as u8]));
        assert_eq!(node.response(number).1.unwrap().1, [number as u8]);
    }
    drop(raw);
    node.finish();
}

#[test]
fn when_the_peer_ends_so_do_the_questions_to_it() {
    let mut node = Node::report(config().cores(Cores::Unpinned(2)));
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let thread = std::thread::spawn({
        let handle = node.handle();
        move || handle.request_blocking(peer, 1, b"thread", NEVER)
    });
    raw.message_frame().unwrap();
    for core in 0..2 {
        node.run(core, move |cx| cx.request(peer, 1, b"core", NEVER, 20 + core as u64)).unwrap();
        raw.message_frame().unwrap();
    }
    let pending = node.handle().peers(LIVENESS).unwrap()[0].pending_requests;
    assert_eq!(pending, 3);
    drop(raw);
    for core in 0..2 {
        assert_eq!(node.response(20 + core as u64), (core, Err(RequestError::PeerClosed)));
    }
    assert_eq!(thread.join().unwrap(), Err(RequestError::PeerClosed));
    assert_eq!(node.closed(peer), CloseReason::Eof);
    // And from now on there is nobody to ask.
    common::eventually_idle(&node.handle());
    let gone = RequestError::Send(SendError::NotConnected);
    assert_eq!(node.run(peer.core(), move |cx| cx.request(peer, 1, b"core", NEVER, 30)), Err(SendError::NotConnected));
    assert_eq!(node.handle().request_blocking(peer, 1, b"thread", NEVER), Err(gone));
    let other = 1 - peer.core();
    assert_eq!(node.run(other, move |cx| cx.request(peer, 1, b"core", NEVER, 31)), Ok(Sent::Forwarded));
    assert_eq!(node.response(31), (other, Err(gone)));
    node.finish();
}

#[test]
fn a_blocking_call_on_a_core_says_that_it_would_deadlock() {
    let mut node = Node::echo(config().cores(Cores::Unpinned(2)));
    let (raw, peer) = node.raw_peer(Hello::node(1));
    for core in 0..2 {
        let handle = node.handle();
        let (asked, listed) =
            node.run(core, move |_| (handle.request_blocking(peer, 1, b"?", LIVENESS), handle.peers(LIVENESS).map(|peers| peers.len())));
        assert_eq!((asked, listed), (Err(RequestError::WouldDeadlock), Err(QueryError::WouldDeadlock)));
    }
    assert_eq!(node.handle().peers(LIVENESS).unwrap().len(), 1);
    drop(raw);
    node.finish();
}

#[test]
fn a_question_may_be_answered_later_by_any_thread() {
    let mut server = Node::report(config().cores(Cores::Unpinned(2)));
    let client = Node::report(Config::plaintext());
    client.handle().dial(Dial::to(server.address())).unwrap();
    let mut client = client;
    let (peer, _) = client.connected();
    let (asker, _) = server.connected();
    for tag in 1..=3u64 {
        client.run(0, move |cx| cx.request(peer, 9, &[tag as u8; 10], NEVER, tag)).unwrap();
    }
    let mut questions: Vec<_> = (0..3).map(|_| server.request()).collect();
    // In another order than they came: from a thread, from the peer's core, and from another core.
    for place in [2, 0, 1] {
        questions.rotate_left(1);
        let (from, meta, body, responder) = questions.pop().unwrap();
        assert_eq!((from, meta.message_type), (asker, 9));
        let tag = u64::from(body[0]);
        match place {
            0 => drop(server.run(from.core(), move |cx| cx.respond(responder, 10, &body)).unwrap()),
            1 => assert_eq!(server.run(1 - from.core(), move |cx| cx.respond(responder, 10, &body)), Ok(Sent::Forwarded)),
            _ => server.handle().respond(responder, 10, &body).unwrap(),
        }
        let (core, result) = client.response(tag);
        let (meta, got) = result.unwrap();
        assert_eq!((core, meta.message_type, got), (0, 10, vec![tag as u8; 10]));
    }
    // Long after the asker is gone, an answer is refused and counted.
    client.run(0, move |cx| cx.request(peer, 9, b"gone", NEVER, 4)).unwrap();
    let (.., responder) = server.request();
    client.engine.shutdown();
    server.closed(asker);
    common::eventually_idle(&server.handle());
    server.handle().respond(responder, 10, b"too late").unwrap();
    server.counts(Counter::SendsRefused, 1);
    server.finish();
}

#[test]
fn questions_that_wait_have_a_bound() {
    let mut config = config();
    config.limits.pending_requests = 2;
    let mut node = Node::report(config);
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let asked = node.run(0, move |cx| [1, 2, 3].map(|tag| cx.request(peer, 5, b"?", NEVER, tag)));
    assert_eq!(asked, [Ok(Sent::Queued), Ok(Sent::Queued), Err(SendError::TooManyRequests)]);
    assert_eq!(node.handle().request_blocking(peer, 5, b"?", NEVER), Err(RequestError::Send(SendError::TooManyRequests)));
    node.counts(Counter::SendsRefused, 2);
    let first = raw.message_frame().unwrap();
    raw.message_frame().unwrap();
    raw.send(&response(correlation(&first), b"!"));
    assert_eq!(node.response(1).1.unwrap().1, b"!");
    // An answer makes room for a question.
    node.run(0, move |cx| cx.request(peer, 5, b"?", NEVER, 4)).unwrap();
    assert_eq!(correlation(&raw.message_frame().unwrap()), 3, "a refused request takes no number");
    drop(raw);
    for tag in [2, 4] {
        assert_eq!(node.response(tag).1, Err(RequestError::PeerClosed));
    }
    node.finish();
}

#[test]
fn a_request_written_by_hand_is_answered_to_its_number() {
    let node = Node::echo(config());
    let mut raw = Raw::establish(node.address(), Hello::node(1));
    for correlation in [1, 2, 77, u64::MAX] {
        raw.send(&frame(REQUEST, NORMAL, 3, &[&u64::to_le_bytes(correlation)[..], b"question"].concat()));
        let answer = raw.message_frame().unwrap();
        assert_eq!((answer.kind, answer.message_type), (RESPONSE, 3));
        assert_eq!(answer.payload, [&u64::to_le_bytes(correlation)[..], b"question"].concat());
    }
    drop(raw);
    node.finish();
}

#[test]
fn a_question_that_is_too_long_is_not_asked() {
    let mut config = config();
    config.limits.max_message = 1000;
    let mut node = Node::report(config);
    let (mut raw, peer) = node.raw_peer(Hello { max_message: 500, ..Hello::node(1) });
    let too_long = |len| SendError::TooLong { len, max: 500 };
    assert_eq!(node.run(0, move |cx| cx.request(peer, 1, &[0; 501], NEVER, 1)), Err(too_long(501)));
    assert_eq!(node.handle().request_blocking(peer, 1, &[0; 900], NEVER), Err(RequestError::Send(too_long(900))));
    node.run(0, move |cx| cx.request(peer, 1, &[0; 500], NEVER, 1)).unwrap();
    assert_eq!(raw.message_frame().unwrap().payload.len(), 508);
    node.handle().close(peer).unwrap();
    assert_eq!(node.response(1).1, Err(RequestError::PeerClosed));
    assert_eq!(raw.message_frame().unwrap().kind, GOODBYE);
    drop(raw);
    node.finish();
}

#[test]
fn a_shutdown_ends_the_questions() {
    let mut node = Node::report(config());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let thread = std::thread::spawn({
        let handle = node.handle();
        move || (handle.request_blocking(peer, 1, b"thread", NEVER), handle)
    });
    raw.message_frame().unwrap();
    let closer = std::thread::spawn(move || raw.expect_goodbye(1, 0));
    let report = node.engine.shutdown();
    assert!(report.drained, "{report:?}");
    closer.join().unwrap();
    let (result, handle) = thread.join().unwrap();
    assert_eq!(result, Err(RequestError::PeerClosed));
    assert_eq!(handle.request_blocking(peer, 1, b"after", NEVER), Err(RequestError::Send(SendError::Stopped)));
    assert_eq!(handle.peers(LIVENESS).unwrap_err(), QueryError::Stopped);
}

#[test]
fn a_request_may_wait_for_as_long_as_responses_take() {
    let server = Node::echo(loopback());
    let mut config = loopback();
    // Nothing that works is as slow as that.
    config.timeouts.request_floor = LIVENESS;
    config.timeouts.request_ceiling = 2 * LIVENESS;
    let mut client = Node::report(config);
    client.handle().dial(Dial::to(server.address()).once()).unwrap();
    let (peer, _) = client.connected();
    let response_time = |client: &Node| client.handle().peers(LIVENESS).unwrap()[0].response_time;
    assert_eq!(response_time(&client), None);
    client.run(0, move |cx| cx.request(peer, 5, b"?", RequestTimeout::Adaptive, 1)).unwrap();
    assert_eq!(client.response(1).1.unwrap().1, b"?");
    assert_eq!(client.handle().request_blocking(peer, 5, b"!", RequestTimeout::Adaptive).unwrap().body, b"!");
    assert!(response_time(&client).is_some_and(|time| time < LIVENESS));
    client.handle().close(peer).unwrap();
    client.closed(peer);
    client.finish();
    server.finish();

    // Who never responds is waited for as long as the ceiling says.
    let mut config = loopback();
    (config.timeouts.request_floor, config.timeouts.request_ceiling) = (Duration::from_millis(10), Duration::from_millis(50));
    let mut node = Node::report(config);
    let (raw, peer) = node.raw_peer(Hello::node(1));
    node.run(0, move |cx| cx.request(peer, 5, b"?", RequestTimeout::Adaptive, 2)).unwrap();
    assert_eq!(node.response(2).1, Err(RequestError::TimedOut));
    assert_eq!(node.handle().request_blocking(peer, 5, b"?", RequestTimeout::Adaptive), Err(RequestError::TimedOut));
    node.counts(Counter::RequestsTimedOut, 2);
    drop(raw);
    node.finish();
}
