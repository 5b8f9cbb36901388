//! How connections end.
//!
//! Set-up: an engine with short deadlines, and peers written by hand that fall silent, stop in the middle, reset, close without a
//! word, or leave in order. Claim: each end has its own reason and counter; whoever shows life stays; who leaves in order gets what it
//! was owed; and nothing of anybody is left.

mod common;

use std::time::{Duration, Instant};

use common::node::Node;
use common::raw::{BULK, FRAGMENT, Hello, MORE, NORMAL, PING, PONG, REQUEST, Raw, control, data, first, frame, goodbye, header};
use common::{LIVENESS, NEVER, eventually_idle, loopback};
use corecast::{CloseReason, Config, Counter, GoodbyeCode, Initiator, SendError};

/// Nothing ends by itself.
fn patient() -> Config {
    let mut config = loopback();
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config.timeouts.partial = NEVER;
    config
}

fn short_partial() -> Config {
    let mut config = patient();
    config.timeouts.partial = Duration::from_millis(200);
    config
}

fn short_keepalive() -> Config {
    let mut config = patient();
    config.keepalive.interval = Duration::from_millis(100);
    config.keepalive.max_pings_per_second = 10;
    config.keepalive.timeout = Duration::from_millis(600);
    config
}

#[test]
fn half_a_frame_and_silence_ends_the_peer() {
    let mut node = Node::echo(short_partial());
    let whole = data(1, &[7; 100]);
    for (number, cut) in [1, 7, 8, 9, 107].into_iter().enumerate() {
        let (mut raw, peer) = node.raw_peer(Hello::node(number as u32));
        raw.echo(1, b"before");
        raw.send(&whole[..cut]);
        assert_eq!(node.closed(peer), CloseReason::PartialTimeout);
        raw.expect_goodbye(0, 0);
        node.counts(Counter::ClosedPartial, number as u64 + 1);
    }
    node.finish();
}

#[test]
fn half_a_message_and_silence_ends_the_peer() {
    let mut node = Node::echo(short_partial());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    raw.send(&first(NORMAL, 1, 3000, &[1; 1000]));
    // The buffer that it will need.
    node.counts(Counter::ReassemblyBytes, 4096);
    assert_eq!(node.closed(peer), CloseReason::PartialTimeout);
    raw.expect_goodbye(0, 0);
    drop(raw);
    node.counts(Counter::ClosedPartial, 1);
    node.finish();
}

#[test]
fn a_trickle_extends_nothing_and_idleness_between_frames_is_no_offence() {
    let mut node = Node::echo(short_partial());
    let (mut idle, _) = node.raw_peer(Hello::node(1));
    idle.echo(1, b"then idle");
    let (mut raw, peer) = node.raw_peer(Hello::node(2));
    let began = Instant::now();
    for byte in data(1, &[9; 300]) {
        if node.count(Counter::ClosedPartial) == 1 {
            break;
        }
        raw.try_send(&[byte]);
        std::thread::sleep(Duration::from_millis(40));
    }
    assert!(began.elapsed() < LIVENESS);
    assert_eq!(node.closed(peer), CloseReason::PartialTimeout);
    raw.expect_goodbye(0, 0);
    drop(raw);
    // Messages in other lanes, in one piece or several, do not excuse the one that never ends.
    let pieces = [first(NORMAL, 3, 8, b"busy"), frame(FRAGMENT, NORMAL, 3, b"busy")].concat();
    let (mut raw, peer) = node.raw_peer(Hello::node(3));
    raw.send(&first(BULK, 1, 3000, &[1; 1000]));
    let began = Instant::now();
    while node.count(Counter::ClosedPartial) < 2 && began.elapsed() < LIVENESS {
        raw.try_send(&data(2, b"busy"));
        raw.try_send(&pieces);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(node.closed(peer), CloseReason::PartialTimeout);
    // The idle one was there all the time, for longer than the deadline.
    idle.echo(1, b"still there");
    drop((idle, raw));
    node.finish();
}

#[test]
fn a_message_that_goes_on_is_delivered_however_it_is_cut() {
    let mut node = Node::report(patient());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let body: Vec<u8> = (0..5000u32).map(|index| index as u8).collect();
    for cut in [1, 7, 1000, 4999] {
        raw.send(&first(NORMAL, 4, 5000, &body[..cut]));
        let rest: Vec<&[u8]> = body[cut..].chunks(1700).collect();
        for (index, piece) in rest.iter().enumerate() {
            let more = if index + 1 < rest.len() { MORE } else { 0 };
            let bytes = frame(FRAGMENT, NORMAL | more, 4, piece);
            let (left, right) = bytes.split_at(bytes.len() / 2);
            raw.send(left);
            raw.send(right);
        }
        let (meta, got) = node.message(peer);
        assert_eq!(meta.message_type, 4);
        assert!(got == body);
    }
    drop(raw);
    node.finish();
}

#[test]
fn a_reset_in_the_middle_of_anything_gives_everything_back() {
    let mut node = Node::report(patient());
    let middles: [&[u8]; 4] = [b"", &data(1, &[7; 500])[..300], &first(NORMAL, 1, 30_000, &[1; 9000]), &header(5, REQUEST, NORMAL, 1)[..3]];
    for (number, bytes) in middles.into_iter().enumerate() {
        let (mut raw, peer) = node.raw_peer(Hello::node(number as u32));
        raw.send(bytes);
        // Something is on its way to it as well.
        node.run(0, move |cx| (0..10).try_for_each(|_| cx.send(peer, 1, &[0; 100_000]).map(drop))).unwrap();
        raw.reset();
        let reason = node.closed(peer);
        assert!(matches!(reason, CloseReason::Io(_)), "{reason:?}");
        assert_eq!(reason.initiator(), Initiator::Remote);
        node.counts(Counter::ClosedIo, number as u64 + 1);
        eventually_idle(&node.handle());
    }
    node.finish();
}

#[test]
fn silence_is_probed_and_then_ends_the_peer() {
    let mut node = Node::echo(short_keepalive());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let ping = raw.frame().unwrap();
    assert_eq!((ping.kind, ping.flags, ping.message_type, ping.payload.len()), (PING, 0, 0, 8));
    // One outstanding ping is enough.
    let last = raw.frame().unwrap();
    assert_eq!((last.kind, &last.payload[..2]), (common::raw::GOODBYE, &7u16.to_le_bytes()[..]));
    raw.expect_eof();
    assert_eq!(node.closed(peer), CloseReason::Unresponsive);
    node.counts(Counter::ClosedUnresponsive, 1);
    assert_eq!(node.count(Counter::PingsSent), 1);
    drop(raw);
    node.finish();
}

#[test]
fn whoever_answers_pings_or_says_anything_stays() {
    let mut node = Node::echo(short_keepalive());
    let (mut answering, answering_id) = node.raw_peer(Hello::node(1));
    let (mut talking, _) = node.raw_peer(Hello::node(2));
    let began = Instant::now();
    // Twice the dead time.
    let mut pongs = 0;
    while began.elapsed() < Duration::from_millis(1200) {
        let ping = answering.frame().unwrap();
        assert_eq!(ping.kind, PING);
        answering.send(&frame(PONG, 0, 0, &ping.payload));
        pongs += 1;
        // Any byte is life, if only one; a frame is not needed for that.
        talking.send(&data(1, b"x"));
    }
    assert!(pongs >= 2);
    talking.echo_skipping_pings();
    assert_eq!(node.count(Counter::Peers), 2);
    assert_eq!(node.count(Counter::ClosedUnresponsive), 0);
    let snapshot = node.handle().peers(LIVENESS).unwrap();
    let answered = snapshot.iter().find(|peer| peer.id == answering_id).unwrap();
    assert!(answered.rtt.is_some(), "a pong measures the way: {answered:?}");
    drop((answering, talking));
    node.finish();
}

#[test]
fn two_engines_that_have_nothing_to_say_keep_each_other_alive() {
    // Not more than the four pings a second that each side allows the other.
    let mut config = patient();
    config.keepalive.interval = Duration::from_millis(300);
    config.keepalive.timeout = Duration::from_millis(900);
    let mut server = Node::report(config.clone());
    config.listen.clear();
    let mut client = Node::report(config);
    client.handle().dial(corecast::Dial::to(server.address())).unwrap();
    let (peer, _) = server.connected();
    client.connected();
    // Whoever is the first to ping spares the other one the trouble. Eight are more than fit into the dead time.
    let pings = || server.count(Counter::PingsSent) + client.count(Counter::PingsSent);
    common::eventually("eight pings", || pings() >= 8);
    for node in [&server, &client] {
        assert_eq!((node.count(Counter::Peers), node.count(Counter::ClosedUnresponsive)), (1, 0));
    }
    client.engine.shutdown();
    assert_eq!(server.closed(peer), CloseReason::Goodbye(GoodbyeCode::ShuttingDown));
    server.finish();
}

#[test]
fn pings_are_answered_with_their_nonce() {
    let mut node = Node::echo(patient());
    let (mut raw, _) = node.raw_peer(Hello::node(1));
    for nonce in [0, 1, u64::MAX, 0x0123_4567_89AB_CDEF] {
        raw.send(&control(PING, nonce));
        let pong = raw.frame().unwrap();
        assert_eq!((pong.kind, pong.flags, pong.message_type, pong.payload), (PONG, 0, 0, nonce.to_le_bytes().to_vec()));
    }
    drop(raw);
    node.finish();
}

#[test]
fn a_close_without_goodbye_is_told_from_one_with() {
    let mut node = Node::echo(patient());
    let (raw, peer) = node.raw_peer(Hello::node(1));
    drop(raw);
    assert_eq!(node.closed(peer), CloseReason::Eof);
    node.counts(Counter::ClosedEof, 1);
    let codes = [
        (0, GoodbyeCode::Closed),
        (1, GoodbyeCode::ShuttingDown),
        (2, GoodbyeCode::Replaced),
        (4, GoodbyeCode::SlowPeer),
        (5, GoodbyeCode::Violation),
        (7, GoodbyeCode::Unresponsive),
        (10, GoodbyeCode::RateLimited),
        (999, GoodbyeCode::Closed),
    ];
    for (index, (code, meaning)) in codes.into_iter().enumerate() {
        let (mut raw, peer) = node.raw_peer(Hello::node(10 + index as u32));
        // What comes after it is discarded, whatever it is.
        raw.send(&[goodbye(code, 0), vec![0xFF; 50]].concat());
        assert_eq!(node.closed(peer), CloseReason::Goodbye(meaning));
        node.counts(Counter::ClosedGoodbye, index as u64 + 1);
    }
    assert_eq!(node.count(Counter::ClosedViolation), 0);
    node.finish();
}

#[test]
fn a_peer_that_closes_its_direction_still_gets_what_it_is_owed() {
    let mut node = Node::echo(patient());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let body = |number: u32| vec![number as u8; 20_000];
    let batch: Vec<u8> = (0..100).flat_map(|number| data(1, &body(number))).collect();
    let mut writer = raw.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &batch).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    for number in 0..100 {
        raw.expect_data(1, &body(number));
    }
    sender.join().unwrap();
    assert_eq!(node.closed(peer), CloseReason::Eof);
    raw.expect_goodbye(0, 0);
    drop(raw);
    node.finish();
}

#[test]
fn a_graceful_close_delivers_a_large_queue_before_it_says_goodbye() {
    const ALL: u32 = 150;
    let mut node = Node::report(patient());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let body = |number: u32| [&number.to_le_bytes()[..], &[number as u8; 50_000]].concat();
    let last = node.run(0, move |cx| {
        for number in 0..ALL {
            cx.send(peer, 1, &body(number)).unwrap();
        }
        cx.close(peer);
        // From here on it is nobody's peer.
        cx.send(peer, 1, b"too late")
    });
    assert_eq!(last, Err(SendError::Closing));
    assert_eq!(node.closed(peer), CloseReason::Requested);
    // It is still talking; that changes nothing.
    raw.send(&data(1, b"not read any more"));
    for number in 0..ALL {
        raw.expect_data(1, &body(number));
    }
    raw.expect_goodbye(0, 0);
    node.counts(Counter::ClosedRequested, 1);
    node.counts(Counter::MessagesSent, u64::from(ALL));
    assert_eq!(node.count(Counter::MessagesDropped), 0);
    drop(raw);
    eventually_idle(&node.handle());
    let after = node.run(0, move |cx| cx.send(peer, 1, b"stale"));
    assert!(matches!(after, Err(SendError::NotConnected | SendError::Closing)));
    node.finish();
}

#[test]
fn a_close_through_the_handle_is_the_same() {
    let mut node = Node::report(patient());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    for number in 0..10u32 {
        node.handle().send(peer, node.handle().frame(1, &number.to_le_bytes()).unwrap()).unwrap();
    }
    // A close overtakes what was sent by handles, so wait until the core has it.
    for number in 0..10u32 {
        raw.expect_data(1, &number.to_le_bytes());
    }
    node.handle().close(peer).unwrap();
    // Closing twice is harmless.
    node.handle().close(peer).unwrap();
    raw.expect_goodbye(0, 0);
    assert_eq!(node.closed(peer), CloseReason::Requested);
    drop(raw);
    eventually_idle(&node.handle());
    node.handle().close(peer).unwrap();
    node.counts(Counter::ClosedRequested, 1);
    node.finish();
}

#[test]
fn a_closed_peer_that_never_closes_its_side_is_let_go_of() {
    let mut config = patient();
    config.timeouts.linger = Duration::from_millis(100);
    config.timeouts.drain = Duration::from_millis(300);
    let mut node = Node::report(config);
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    node.handle().close(peer).unwrap();
    raw.expect_goodbye(0, 0);
    let mut narrow = Raw::connect_narrow(node.address()).shake(Hello::node(2));
    let (stuck, _) = node.wait("the second", |seen| match seen {
        common::node::Seen::Connected { peer, info } if info.node.0 == narrow.hello.node => Some((*peer, ())),
        _ => None,
    });
    // And this one does not even read what it is owed.
    node.run(0, move |cx| {
        (0..100).try_for_each(|_| cx.send(stuck, 1, &[0; 100_000]).map(drop)).unwrap();
        cx.close(stuck);
    });
    common::eventually_stats(&node.handle(), "its queue is dropped", |stats| stats.get(Counter::MessagesDropped) > 0);
    // What it was sent is a prefix.
    let (bytes, _) = narrow.read_to_end();
    assert!((1..100 * 100_000).contains(&bytes.len()));
    // `raw` was open all the time: the engine has given up on its FIN.
    eventually_idle(&node.handle());
    drop((raw, narrow));
    eventually_idle(&node.handle());
    // What could not be delivered is reported, though this shutdown itself went well.
    let report = node.engine.shutdown();
    assert!(report.unsent_messages > 0 && report.cut == 0, "{report:?}");
}

trait EchoSkipping {
    fn echo_skipping_pings(&mut self);
}

impl EchoSkipping for Raw {
    /// Reads echoes up to a marker that is sent now.
    fn echo_skipping_pings(&mut self) {
        self.send(&data(99, b"marker"));
        while self.message().expect("the peer stays").0 != 99 {}
    }
}
