//! What connections leave behind: nothing.
//!
//! Set-up: one test in a process of its own, so that its files can be counted; an engine on two cores, through which connections go
//! that end in every way there is. Claim: afterwards as many files are open as before, every level is zero, every place is free; and a
//! stopped engine has closed everything.

mod common;

use std::time::Duration;

use common::node::Node;
use common::raw::{Hello, NORMAL, PREAMBLE, Raw, RawListener, data, first, goodbye, header, refusal};
use common::{NEVER, eventually, eventually_idle, loopback, open_files};
use corecast::{Cores, Counter, Dial};

#[test]
fn every_way_to_end_gives_everything_back() {
    const ROUNDS: u32 = 6;
    const WAYS: u32 = 12;
    let before = open_files();
    let mut config = loopback().cores(Cores::Unpinned(2));
    config.timeouts.handshake = Duration::from_millis(150);
    config.timeouts.partial = Duration::from_millis(100);
    config.timeouts.linger = Duration::from_millis(100);
    config.timeouts.pause = Duration::from_millis(100);
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    // The same target fails again and again, and each time it is to be dialled.
    config.breaker.failures = 0;
    // A place that is lost is missed at once.
    config.limits.max_peers = 16;
    config.limits.max_half_open = 16;
    let mut node = Node::report(config);
    let listener = RawListener::bind();
    eventually("the engine is there", || node.run(0, |cx| cx.cores()) == 2 && node.run(1, |_| true));
    let running = open_files();
    for round in 0..ROUNDS {
        for way in 0..WAYS {
            let hello = Hello { instance: u64::from(round), ..Hello::node(way) };
            if way < 4 {
                let mut raw = Raw::connect(node.address());
                match way {
                    0 => raw.try_send(b"SSH-2.0-x\r\n"),
                    1 => raw.try_send(&PREAMBLE[..5]),
                    2 => raw.try_send(&[&PREAMBLE[..4], &[9, 0, 0, 0]].concat()),
                    _ => raw.try_send(&hello.greeting()),
                }
                raw.read_to_end();
                continue;
            }
            let (mut raw, peer) = node.raw_peer(hello);
            match way {
                4 => raw.send(&goodbye(0, 0)),
                5 => drop(raw.stream.shutdown(std::net::Shutdown::Write)),
                6 => {
                    node.run(peer.core(), move |cx| (0..20).for_each(|_| assert!(cx.send(peer, 1, &[0; 100_000]).is_ok())));
                    raw.reset();
                    node.closed(peer);
                    continue;
                }
                7 => raw.send(&header(0, 99, NORMAL, 0)),
                8 => raw.send(&data(1, &[0; 100])[..50]),
                9 => raw.send(&first(NORMAL, 1, 3000, &[0; 1000])),
                10 => {
                    node.run(peer.core(), move |cx| cx.pause_read(peer));
                    raw.send(&data(1, b"x"));
                }
                _ => {
                    node.run(peer.core(), move |cx| {
                        assert!(cx.set_user(peer, vec![1u8; 1000]));
                        assert!(cx.send(peer, 1, &[0; 100_000]).is_ok());
                        assert!(cx.request(peer, 1, b"?", NEVER, 1).is_ok());
                        cx.close(peer);
                    });
                }
            }
            raw.read_to_end();
            node.closed(peer);
        }
        // Dials that come to nothing, in three ways.
        for way in 0..3 {
            let dial = node.handle().dial(Dial::to(listener.address()).once()).unwrap();
            let mut raw = listener.accept();
            match way {
                0 => {
                    raw.read_greeting();
                    raw.send(&refusal(7));
                }
                1 => raw.reset(),
                _ => {}
            }
            assert!(node.dial_failed(dial).1.is_none());
        }
        eventually_idle(&node.handle());
        eventually("as many files are open as when nobody was there", || open_files() == running);
    }
    // All places are free.
    let raws: Vec<_> = (100..116).map(|number| node.raw_peer(Hello::node(number)).0).collect();
    assert_eq!((node.count(Counter::HandshakeFull), node.count(Counter::RefusedHalfOpen)), (0, 0));
    drop((raws, listener));
    node.finish();
    assert_eq!(open_files(), before);
}
