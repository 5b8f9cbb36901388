//! Who gets in: the allow-list, and what the application wants.
//!
//! Set-up: engines with keys, of which one has a list that changes while they are connected, or a handler that is asked; and strangers
//! written by hand. Claim: who is not on the list, or not wanted, never becomes a peer on either side and is told why; who is taken off is
//! cut on every channel and core, and stays out until he is on it again; nobody else notices.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::node::{Node, Seen};
use common::raw::{Hello, Raw, refusal};
use common::{eventually, eventually_stats, loopback};
use corecast::{
    Admission, AllowError, CloseReason, Config, Cores, Counter, Dial, DialError, Direction, GoodbyeCode, Identity, NodeId, PeerId, PeerInfo,
};

fn id(name: u8) -> NodeId {
    identity(name).node_id()
}

fn identity(name: u8) -> Identity {
    Identity::from_secret([name; 32])
}

fn open(name: u8) -> Config {
    let mut config = Config::secure(identity(name), Admission::Open).listen("127.0.0.1:0".parse().unwrap());
    config.addresses.exempt = vec!["127.0.0.0/8".parse().unwrap()];
    config.backoff.max = Duration::from_millis(100);
    // Each attempt is to be seen.
    config.breaker.failures = 0;
    config
}

fn listing(name: u8, list: &[u8]) -> Config {
    let mut config = open(name);
    config.admission = Some(Admission::AllowList(list.iter().map(|&name| id(name)).collect()));
    config
}

fn dial(from: &Node, to: &Node) -> Dial {
    let dial = Dial::node(to.engine.node_id(), to.address());
    from.handle().dial(dial.clone()).unwrap();
    dial
}

/// The message is there, and back.
fn echo(node: &mut Node, peer: PeerId, text: &'static [u8]) {
    node.run(peer.core(), move |cx| cx.send(peer, 1, text)).unwrap();
    assert_eq!(node.message(peer).1, text);
}

#[test]
fn who_is_taken_off_the_list_is_cut_on_every_channel_and_stays_out_until_he_is_on_it_again() {
    let mut server = Node::echo(listing(9, &[1, 2]).cores(Cores::Unpinned(2)));
    let (mut one, mut two) = (Node::report(open(1)), Node::report(open(2)));
    const CHANNELS: u16 = 4;
    let mut peers = Vec::new();
    for channel in 0..CHANNELS {
        one.handle().dial(Dial::node(id(9), server.address()).channel(channel)).unwrap();
        peers.push(one.connected().0);
        let (_, info) = server.connected();
        assert_eq!((info.node, info.authenticated), (id(1), true));
    }
    dial(&two, &server);
    let (bystander, _) = two.connected();
    server.connected();
    echo(&mut one, peers[3], b"before");

    server.handle().disallow(id(1)).unwrap();
    for peer in peers {
        assert_eq!(one.closed(peer), CloseReason::Goodbye(GoodbyeCode::NotAllowed));
    }
    server.counts(Counter::ClosedNotAllowed, CHANNELS.into());
    for _ in 0..CHANNELS {
        let closed = server.wait("an end", |seen| if let Seen::Closed { reason, .. } = seen { Some(*reason) } else { None });
        assert_eq!(closed, CloseReason::NotAllowed);
    }
    // It goes on dialling, and is told each time.
    for _ in 0..3 * CHANNELS {
        let (error, again) =
            one.wait(
                "a failed dial",
                |seen| if let Seen::DialFailed { error, retry_in, .. } = seen { Some((*error, *retry_in)) } else { None },
            );
        assert!(error == DialError::NotAllowed && again.is_some(), "{error:?}");
    }
    eventually_stats(&server.handle(), "each is counted", |stats| stats.get(Counter::HandshakeNotAllowed) >= 3 * u64::from(CHANNELS));
    echo(&mut two, bystander, b"undisturbed");
    server.counts(Counter::Peers, 1);
    assert!(server.leftovers().is_empty(), "the application hears nothing of those who are refused");

    server.handle().allow(id(1)).unwrap();
    for _ in 0..CHANNELS {
        one.connected();
        assert_eq!(server.connected().1.node, id(1));
    }
    server.counts(Counter::Peers, u64::from(CHANNELS) + 1);
    assert_eq!(server.count(Counter::ClosedNotAllowed), CHANNELS.into());
    one.engine.shutdown();
    two.engine.shutdown();
    server.finish();
}

#[test]
fn nobody_is_dialled_who_is_not_on_the_list() {
    let (one, two) = (Node::report(open(1)), Node::report(open(2)));
    let mut node = Node::report(listing(9, &[1]));
    let refused = node.handle().dial(Dial::node(id(2), two.address())).unwrap();
    assert_eq!(node.dial_failed(refused), (DialError::NotAllowed, None));
    assert_eq!(node.count(Counter::DialAttempts), 0);
    let ended = node.handle().dial(Dial::node(id(1), one.address())).unwrap();
    let (peer, info) = node.connected();
    assert_eq!(info.dial, Some(ended));
    node.handle().disallow(id(1)).unwrap();
    assert_eq!(node.closed(peer), CloseReason::NotAllowed);
    assert_eq!(node.dial_failed(ended), (DialError::NotAllowed, None));
    // It is over: the target is free for another dial, which needs the list as well.
    let again = node.handle().dial(Dial::node(id(1), one.address())).unwrap();
    assert_eq!(node.dial_failed(again), (DialError::NotAllowed, None));
    node.handle().allow(id(1)).unwrap();
    node.handle().dial(Dial::node(id(1), one.address())).unwrap();
    let (_, info) = node.connected();
    assert_eq!(info.node, id(1));
    node.counts(Counter::DialAttempts, 2);
    node.engine.shutdown();
    one.finish();
    two.finish();
}

#[test]
fn a_handshake_under_way_ends_with_its_place_on_the_list() {
    // One that does not answer, so that the attempt lasts.
    let listener = common::raw::RawListener::bind();
    let mut node = Node::report(listing(9, &[1]));
    let dial = node.handle().dial(Dial::node(id(1), listener.address())).unwrap();
    let mut raw = listener.accept();
    node.counts(Counter::HalfOpen, 1);
    node.handle().disallow(id(1)).unwrap();
    assert_eq!(node.dial_failed(dial), (DialError::NotAllowed, None));
    node.counts(Counter::HalfOpen, 0);
    // Preamble and message 1, and nothing more.
    assert_eq!(raw.read_to_end().0.len(), 56);
    node.finish();
}

#[test]
fn an_engine_that_is_open_has_no_list_to_change() {
    for config in [open(1), loopback()] {
        let node = Node::report(config);
        assert_eq!(node.handle().allow(id(2)), Err(AllowError::Open));
        assert_eq!(node.handle().disallow(id(2)), Err(AllowError::Open));
        node.finish();
    }
    let node = Node::report(listing(1, &[]));
    let handle = node.handle();
    // Any number of times, and in vain.
    for _ in 0..100 {
        handle.allow(id(2)).unwrap();
        handle.disallow(id(3)).unwrap();
    }
    node.finish();
    assert!(matches!(handle.allow(id(2)), Err(AllowError::Send(_))));
}

type Asked = Arc<Mutex<Vec<PeerInfo>>>;

/// An engine whose handler does not want these, and whom it was asked about.
fn judging(config: Config, unwanted: Vec<NodeId>) -> (Node, Asked) {
    let asked = Asked::default();
    let note = Arc::clone(&asked);
    let node = Node::judging(config, move |info| {
        note.lock().unwrap().push(info.clone());
        !unwanted.contains(&info.node)
    });
    (node, asked)
}

#[test]
fn the_handler_is_asked_about_each_node_with_all_that_is_known_of_it() {
    let plain = |name: u8| {
        let mut config = loopback();
        config.node = Some(id(name));
        config
    };
    for encrypted in [true, false] {
        let config = |name| if encrypted { open(name) } else { plain(name) };
        // The acceptor does not want 2, and 1 does not want to have dialled 8.
        let (mut server, by_server) = judging(config(9).cores(Cores::Unpinned(2)), vec![id(2)]);
        let (other, _) = judging(config(8), Vec::new());
        let (mut one, by_one) = judging(config(1), vec![id(8)]);
        let (mut two, by_two) = judging(config(2), Vec::new());

        one.handle().dial(Dial::node(id(9), server.address()).once()).unwrap();
        let (_, info) = server.connected();
        let (_, dialled) = one.connected();
        assert_eq!((info.node, info.direction), (id(1), Direction::Accepted));
        assert_eq!((dialled.node, dialled.direction), (id(9), Direction::Dialled));
        assert_eq!(dialled.address, server.address());
        assert_eq!(*by_server.lock().unwrap(), [info]);
        assert_eq!(*by_one.lock().unwrap(), [dialled]);

        let refused = two.handle().dial(Dial::node(id(9), server.address()).once()).unwrap();
        assert_eq!(two.dial_failed(refused), (DialError::NotAllowed, None));
        server.counts(Counter::HandshakeNotAllowed, 1);
        assert_eq!(
            by_server.lock().unwrap()[1..].iter().map(|asked| (asked.node, asked.direction)).collect::<Vec<_>>(),
            [(id(2), Direction::Accepted)]
        );
        // Encrypted, the dialler is still to be asked when it hears of that; in the clear it never learns who that was.
        assert_eq!(by_two.lock().unwrap().len(), 0);

        let unwanted = one.handle().dial(Dial::node(id(8), other.address()).once()).unwrap();
        assert_eq!(one.dial_failed(unwanted), (DialError::NotAllowed, None));
        one.counts(Counter::HandshakeNotAllowed, 1);
        other.counts(Counter::HandshakeGoodbye, 1);
        let asked =
            by_one.lock().unwrap()[1..].iter().map(|asked| (asked.node, asked.address.clone(), asked.direction)).collect::<Vec<_>>();
        assert_eq!(asked, [(id(8), other.address().into(), Direction::Dialled)]);

        assert!(server.leftovers().is_empty() && two.leftovers().is_empty() && one.leftovers().is_empty());
        one.engine.shutdown();
        two.finish();
        other.finish();
        server.finish();
    }
}

#[test]
fn who_is_not_wanted_is_told_so_byte_for_byte_and_leaves_nothing() {
    let unwanted = Hello::node(1);
    let (mut node, asked) = judging(loopback(), vec![NodeId(unwanted.node)]);
    for count in 1..=3 {
        let mut raw = Raw::connect(node.address());
        raw.send(&unwanted.greeting());
        assert_eq!(raw.read(16), refusal(10));
        raw.expect_eof();
        node.counts(Counter::HandshakeNotAllowed, count);
    }
    eventually("each was asked about", || asked.lock().unwrap().len() == 3);
    let (wanted, _) = node.raw_peer(Hello::node(2));
    node.counts(Counter::Established, 1);
    drop(wanted);
    node.finish();
}
