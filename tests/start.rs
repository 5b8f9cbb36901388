//! Starting and stopping.
//!
//! Set-up: configurations that cannot work or cannot be had, engines that stop while messages are queued, and handlers that panic.
//! Claim: what is wrong is named, in the error, the warnings or the report; a stop ends, delivers what can be delivered, and says what
//! was not; one core's panic costs no other core its peers, and new peers still get in.

mod common;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::node::Node;
use common::raw::{Hello, Raw, data};
use common::{NEVER, eventually, eventually_stats, loopback};
use corecast::{Config, Context, Cores, Counter, Dial, Engine, Handler, Message, PeerId, SendError, StartError, Warning};

fn config() -> Config {
    let mut config = loopback();
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    // Peers here often stay open to the end, and send nothing that a close could destroy.
    config.timeouts.linger = Duration::from_millis(200);
    config
}

struct Quiet;

impl Handler for Quiet {
    type Command = ();

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {}
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    match Engine::start(loopback().listen(address.into()), |_| Quiet).unwrap_err() {
        StartError::Listen { address: named, source } => {
            assert_eq!(named, address);
            assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
        }
        other => panic!("{other}"),
    }
    // An engine's own port as well.
    let first = Engine::start(config(), |_| Quiet).unwrap();
    let address = first.local_addrs()[0];
    let error = Engine::start(Config::plaintext().listen(address.into()), |_| Quiet).unwrap_err();
    assert!(matches!(&error, StartError::Listen { address: named, .. } if *named == address));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    // And it is free again with the engine, whoever was connected.
    let raw = Raw::establish(address, Hello::node(1));
    first.shutdown();
    drop(raw);
    Engine::start(Config::plaintext().listen(address.into()), |_| Quiet).unwrap().shutdown();
}

#[test]
fn what_cannot_work_is_named_before_anything_is_opened() {
    type Change = Box<dyn Fn(&mut Config)>;
    let cases: Vec<(&str, Change)> = vec![
        ("cores", Box::new(|c| c.cores = Cores::Unpinned(0))),
        ("cores", Box::new(|c| c.cores = Cores::Unpinned(257))),
        ("limits.max_peers", Box::new(|c| c.limits.max_peers = 0)),
        ("limits.max_half_open", Box::new(|c| c.limits.max_half_open = 0)),
        ("limits.max_message", Box::new(|c| c.limits.max_message = 0)),
        ("limits.max_message", Box::new(|c| c.limits.max_message = (16 << 20) + 1)),
        ("limits.fragment", Box::new(|c| c.limits.fragment = 1023)),
        ("limits.fragment", Box::new(|c| c.limits.fragment = 32_769)),
        ("limits.outbox_hard", Box::new(|c| c.limits.outbox_hard = 2 << 20)),
        ("limits.outbox_soft", Box::new(|c| c.limits.outbox_soft = 0)),
        ("limits.log_bytes", Box::new(|c| c.limits.log_bytes = 1 << 20)),
        ("limits.send_bytes", Box::new(|c| c.limits.send_bytes = 1 << 20)),
        ("limits.reassembly_bytes", Box::new(|c| c.limits.reassembly_bytes = 1000)),
        ("limits.pending_requests", Box::new(|c| c.limits.pending_requests = 0)),
        ("limits.inbox_messages", Box::new(|c| c.limits.inbox_messages = 15)),
        ("limits.inbox_messages", Box::new(|c| c.limits.inbox_messages = 1 << 24)),
        ("limits.inbox_bytes", Box::new(|c| c.limits.inbox_bytes = 1000)),
        ("limits.max_dials", Box::new(|c| c.limits.max_dials = 0)),
        ("limits.soft_grace", Box::new(|c| c.limits.soft_grace = Duration::ZERO)),
        ("keepalive.interval", Box::new(|c| c.keepalive.interval = Duration::ZERO)),
        ("keepalive.timeout", Box::new(|c| c.keepalive.timeout = Duration::from_secs(9))),
        ("keepalive.ping_burst", Box::new(|c| c.keepalive.ping_burst = 0)),
        ("keepalive.max_pings_per_second", Box::new(|c| c.keepalive.max_pings_per_second = 0)),
        ("keepalive.interval", Box::new(|c| c.keepalive.interval = Duration::MAX)),
        ("keepalive.timeout", Box::new(|c| c.keepalive.timeout = Duration::MAX)),
        ("timeouts.write_stall", Box::new(|c| c.timeouts.write_stall = Duration::MAX)),
        ("timeouts.drain", Box::new(|c| c.timeouts.drain = Duration::MAX)),
        ("timeouts.handshake", Box::new(|c| c.timeouts.handshake = Duration::ZERO)),
        ("timeouts.connect", Box::new(|c| c.timeouts.connect = Duration::ZERO)),
        ("timeouts.write_stall", Box::new(|c| c.timeouts.write_stall = Duration::ZERO)),
        ("timeouts.partial", Box::new(|c| c.timeouts.partial = Duration::ZERO)),
        ("timeouts.pause", Box::new(|c| c.timeouts.pause = Duration::ZERO)),
        ("timeouts.linger", Box::new(|c| c.timeouts.linger = Duration::ZERO)),
        ("backoff.min", Box::new(|c| c.backoff.min = Duration::ZERO)),
        ("backoff.max", Box::new(|c| c.backoff.max = Duration::from_millis(49))),
        ("io.receive_buffer", Box::new(|c| c.io.receive_buffer = 100)),
        ("io.read_budget", Box::new(|c| c.io.read_budget = 0)),
        ("io.write_budget", Box::new(|c| c.io.write_budget = 100)),
        ("io.flush_peers", Box::new(|c| c.io.flush_peers = 0)),
        ("io.events", Box::new(|c| c.io.events = 0)),
        ("io.accepts", Box::new(|c| c.io.accepts = 0)),
        ("listen", Box::new(|c| c.listen.push("0.0.0.0:0".parse().unwrap()))),
    ];
    for (field, change) in cases {
        let mut config = Config::plaintext();
        change(&mut config);
        match Engine::start(config, |_| Quiet).unwrap_err() {
            StartError::Config(error) => {
                assert_eq!(error.field, field);
                assert!(error.to_string().starts_with(field), "{error}");
            }
            other => panic!("{field}: {other}"),
        }
    }
}

#[test]
fn a_processor_that_cannot_be_had_is_a_warning() {
    let node = Node::echo(config().cores(Cores::Pinned(vec![4095, 4094])));
    let warnings = node.engine.warnings();
    for (core, processor) in [(0, 4095), (1, 4094)] {
        assert!(warnings.contains(&Warning::PinRefused { core, processor }), "{warnings:?}");
    }
    for number in 0..2 {
        Raw::establish(node.address(), Hello::node(number)).echo(1, b"runs all the same");
    }
    node.finish();
}

#[test]
fn what_the_host_will_not_carry_is_a_warning() {
    // Not by what is available: a quota makes that fewer.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first: usize = list.trim().split([',', '-']).next().unwrap().parse().unwrap();
    let node = Node::echo(config().cores(Cores::Pinned(vec![first, first])));
    assert!(node.engine.warnings().contains(&Warning::SameProcessor { cores: [0, 1], processor: first }), "{:?}", node.engine.warnings());
    Raw::establish(node.address(), Hello::node(1)).echo(1, b"runs all the same");
    node.finish();

    let is_small = std::thread::available_parallelism().unwrap().get() < 200;
    let node = Node::echo(config().cores(Cores::Unpinned(200)));
    let warned = |warning: &Warning| matches!(warning, Warning::MoreCoresThanProcessors { cores: 200, processors: 1.. });
    assert_eq!(node.engine.warnings().iter().any(warned), is_small, "{:?}", node.engine.warnings());
    node.finish();
}

#[test]
fn several_listeners_lead_to_the_same_engine() {
    let mut addresses: Vec<SocketAddr> =
        vec!["127.0.0.1:0".parse().unwrap(), "127.0.0.2:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    if TcpListener::bind("[::1]:0").is_ok() {
        addresses.push("[::1]:0".parse().unwrap());
    }
    let mut config = Config::plaintext().cores(Cores::Unpinned(2));
    config.listen = addresses.iter().map(|&address| address.into()).collect();
    let node = Node::echo(config);
    let local = node.engine.local_addrs().to_vec();
    assert_eq!(local.len(), addresses.len());
    let mut raws = Vec::new();
    for (index, (asked, got)) in addresses.iter().zip(&local).enumerate() {
        assert_eq!(asked.ip(), got.ip());
        assert_ne!(got.port(), 0);
        let mut raw = Raw::establish(*got, Hello::node(index as u32));
        raw.echo(1, b"x");
        raws.push(raw);
    }
    node.counts(Counter::Peers, raws.len() as u64);
    drop(raws);
    node.finish();
}

#[test]
fn a_shutdown_delivers_what_is_queued_and_reports_that() {
    const ALL: u32 = 300;
    let mut node = Node::report(config().cores(Cores::Unpinned(2)));
    let (mut first, first_id) = node.raw_peer(Hello::node(1));
    let (mut second, second_id) = node.raw_peer(Hello::node(2));
    let body = |number: u32| [&number.to_le_bytes()[..], &[number as u8; 20_000]].concat();
    for peer in [first_id, second_id] {
        node.run(peer.core(), move |cx| (0..ALL).for_each(|number| assert!(cx.send(peer, 1, &body(number)).is_ok())));
    }
    let handle = node.handle();
    let address = node.address();
    let stopper = std::thread::spawn(move || node.engine.shutdown());
    for raw in [&mut first, &mut second] {
        (0..ALL).for_each(|number| raw.expect_data(1, &body(number)));
        raw.expect_goodbye(1, 0);
    }
    drop((first, second));
    let report = stopper.join().unwrap();
    assert!(report.drained, "{report:?}");
    assert_eq!((report.unsent_messages, report.unsent_bytes, report.cut, report.panicked), (0, 0, 0, vec![]));
    let stats = handle.stats();
    assert_eq!((stats.get(Counter::MessagesSent), stats.get(Counter::ClosedShuttingDown)), (2 * u64::from(ALL), 2));
    assert_eq!(stats.get(Counter::Peers), 0);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_shutdown_ends_and_reports_what_was_not_sent() {
    let mut config = config();
    config.timeouts.drain = Duration::from_millis(200);
    config.timeouts.linger = Duration::from_millis(100);
    config.timeouts.write_stall = NEVER;
    let mut node = Node::report(config);
    let stuck = Raw::connect_narrow(node.address()).shake(Hello::node(1));
    let (peer, _) = node.connected();
    let (mut good, good_id) = node.raw_peer(Hello::node(2));
    node.run(0, move |cx| {
        (0..100).for_each(|_| assert!(cx.send(peer, 1, &[1; 100_000]).is_ok()));
        assert!(cx.send(good_id, 1, b"good").is_ok());
    });
    let reader = std::thread::spawn(move || {
        good.expect_data(1, b"good");
        good.expect_goodbye(1, 0);
    });
    let report = node.engine.shutdown();
    reader.join().unwrap();
    assert!(!report.drained);
    assert!((1..=100).contains(&report.unsent_messages), "{report:?}");
    // What the kernel took and what was not sent are all there was.
    assert!(report.unsent_bytes > 1_000_000 && report.unsent_bytes < 100 * 100_100, "{report:?}");
    assert!(report.elapsed >= Duration::from_millis(200));
    drop(stuck);
}

#[test]
fn strangers_in_their_handshake_do_not_hold_a_shutdown_up() {
    let node = Node::report(config());
    let mut silent = Raw::connect(node.address());
    let mut greeted = Raw::connect(node.address());
    greeted.send(&Hello::node(1).greeting());
    greeted.read_greeting();
    node.counts(Counter::HalfOpen, 2);
    let leaver = std::thread::spawn(move || {
        greeted.expect_goodbye(1, 0);
        drop(greeted);
        silent.read_to_end();
    });
    let report = node.engine.shutdown();
    assert!(report.drained && report.cut == 0, "{report:?}");
    leaver.join().unwrap();
}

#[test]
fn an_engine_that_is_dropped_shuts_down() {
    let mut node = Node::report(config());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    node.run(0, move |cx| assert!(cx.send(peer, 1, &[5; 1000]).is_ok()));
    let (address, handle) = (node.address(), node.handle());
    let reader = std::thread::spawn(move || {
        raw.expect_data(1, &[5; 1000]);
        raw.expect_goodbye(1, 0);
    });
    drop(node);
    reader.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(handle.stats().get(Counter::Peers), 0);
    let frame = handle.frame(1, b"x").unwrap();
    assert_eq!(handle.send(peer, frame).unwrap_err().reason, SendError::Stopped);
}

#[test]
fn during_a_shutdown_nobody_gets_in() {
    let mut config = config();
    config.timeouts.drain = NEVER;
    config.timeouts.linger = NEVER;
    let mut node = Node::report(config);
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let mut waiting = Raw::connect(node.address());
    node.counts(Counter::HalfOpen, 1);
    let (address, handle) = (node.address(), node.handle());
    let stopper = std::thread::spawn(move || (node.engine.shutdown(), 0));
    raw.expect_goodbye(1, 0);
    eventually("nobody listens", || TcpStream::connect(address).is_err());
    // Whoever was in its handshake is let go.
    waiting.read_to_end();
    // To the application the peer is gone; on the wire it may still talk.
    raw.try_send(&data(1, b"too late"));
    let frame = handle.frame(1, b"x").unwrap();
    let _ = handle.send(peer, frame);
    eventually_stats(&handle, "no peer", |stats| stats.get(Counter::Peers) == 0);
    drop((raw, waiting));
    let (report, _) = stopper.join().unwrap();
    assert!(report.drained, "{report:?}");
    assert_eq!(handle.stats().get(Counter::MessagesReceived), 0);
}

#[test]
fn a_panic_costs_one_core_and_is_reported() {
    let mut node = Node::echo(config().cores(Cores::Unpinned(3)));
    let mut peers: Vec<(Raw, PeerId)> = (0..6).map(|number| node.raw_peer(Hello::node(number))).collect();
    node.handle().post(1, Box::new(|_| panic!("this panic is part of the test"))).unwrap_or_else(|_| panic!("not posted"));
    let (mut lost, mut kept): (Vec<_>, Vec<_>) = peers.drain(..).partition(|(_, peer)| peer.core() == 1);
    assert_eq!((lost.len(), kept.len()), (2, 4));
    for (raw, _) in &mut lost {
        raw.read_to_end();
    }
    for (raw, peer) in &mut kept {
        raw.echo(1, b"undisturbed");
        let frame = node.handle().frame(2, b"direct").unwrap();
        node.handle().send(*peer, frame).unwrap();
        raw.expect_data(2, b"direct");
    }
    // Broadcasts reach the others; what is for the core that is gone comes back.
    node.handle().broadcast(node.handle().frame(3, b"all").unwrap()).unwrap();
    kept.iter_mut().for_each(|(raw, _)| raw.expect_data(3, b"all"));
    let frame = node.handle().frame(4, b"from a core").unwrap();
    node.run(2, move |cx| cx.broadcast(&frame)).unwrap();
    kept.iter_mut().for_each(|(raw, _)| raw.expect_data(4, b"from a core"));
    let lost_id = lost[0].1;
    // Its sockets close before the last of it does.
    eventually("the core is known to be gone", || {
        let frame = node.handle().frame(1, b"x").unwrap();
        node.handle().send(lost_id, frame).is_err_and(|refused| refused.reason == SendError::Stopped)
    });
    assert_eq!(node.run(0, move |cx| cx.send(lost_id, 1, b"x")), Err(SendError::Stopped));
    // New peers go to the cores that are left, and those who lost theirs may come back.
    for (index, (raw, _)) in lost.iter().enumerate() {
        let hello = Hello { instance: 100, ..raw.hello };
        let mut again = Raw::connect(node.address()).shake(hello);
        again.echo(1, b"back");
        kept.push((again, kept[index].1));
    }
    for number in 10..14 {
        let (mut raw, peer) = node.raw_peer(Hello::node(number));
        assert_ne!(peer.core(), 1);
        raw.echo(1, b"new");
        kept.push((raw, peer));
    }
    let goodbyes: Vec<_> = kept.into_iter().map(|(mut raw, _)| std::thread::spawn(move || raw.expect_goodbye(1, 0))).collect();
    let report = node.engine.shutdown();
    assert_eq!((report.panicked, report.cut, report.unsent_bytes), (vec![1], 0, 0));
    assert!(!report.drained);
    goodbyes.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn what_a_panic_has_cost_comes_back() {
    let server = Node::echo(config());
    let mut config = config().cores(Cores::Unpinned(2));
    config.backoff.max = Duration::from_millis(50);
    config.limits.max_peers = 4;
    let mut node = Node::report(config);
    let dials: Vec<_> = (0..2).map(|channel| node.handle().dial(Dial::to(server.address()).channel(channel)).unwrap()).collect();
    let mut on_core = [None; 2];
    for _ in 0..2 {
        let (peer, info) = node.connected();
        on_core[peer.core()] = info.dial;
    }
    let _strangers: Vec<_> = (0..2).map(|number| node.raw_peer(Hello::node(number))).collect();
    node.handle().post(1, Box::new(|_| panic!("this panic is part of the test"))).unwrap_or_else(|_| panic!("not posted"));
    // The dial whose connection was there goes on, on the core that is left.
    let (peer, info) = node.connected();
    assert_eq!((peer.core(), info.dial), (0, on_core[1]));
    assert!(dials.contains(&on_core[1].unwrap()));
    // And its other peer's place is free: four are all that there is room for.
    let (mut raw, peer) = node.raw_peer(Hello::node(9));
    assert_eq!(peer.core(), 0);
    raw.send(&data(1, b"in"));
    assert_eq!(node.message(peer).1, b"in");
    assert_eq!(node.engine.shutdown().panicked, [1]);
    drop(server);
}

#[test]
fn a_thread_that_waits_for_a_core_that_panics_is_let_go() {
    let mut node = Node::report(config().cores(Cores::Unpinned(2)));
    let (_first, first_id) = node.raw_peer(Hello::node(1));
    let (_second, second_id) = node.raw_peer(Hello::node(2));
    let (mut raw, peer) = if first_id.core() == 1 { (_first, first_id) } else { (_second, second_id) };
    assert_eq!(peer.core(), 1);
    let handle = node.handle();
    let waiter = std::thread::spawn(move || handle.request_blocking(peer, 1, b"?", NEVER));
    raw.message_frame().unwrap();
    node.handle().post(1, Box::new(|_| panic!("this panic is part of the test"))).unwrap_or_else(|_| panic!("not posted"));
    let error = waiter.join().unwrap().unwrap_err();
    assert_eq!(error, corecast::RequestError::Send(SendError::Stopped));
    assert_eq!(node.engine.shutdown().panicked, [1]);
}

#[test]
fn a_factory_that_panics_fails_the_start() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let started = std::panic::catch_unwind(AssertUnwindSafe(|| {
        Engine::start(config().cores(Cores::Unpinned(3)), move |core| {
            count.fetch_add(1, Ordering::SeqCst);
            assert!(core != 2, "this panic is part of the test");
            Quiet
        })
    }));
    assert!(started.expect("the panic stays on its thread").is_err());
    assert_eq!(made.load(Ordering::SeqCst), 3);
}

#[test]
fn handlers_are_made_on_their_cores_and_told_of_the_start_first() {
    let (give, take) = std::sync::mpsc::channel();

    struct First(usize, std::sync::mpsc::Sender<(usize, usize, Option<String>)>);

    impl Handler for First {
        type Command = ();

        fn on_start(&mut self, cx: &mut Context<'_>) {
            self.1.send((self.0, cx.core(), std::thread::current().name().map(String::from))).unwrap();
        }

        fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {}
    }

    let engine = Engine::start(config().cores(Cores::Unpinned(3)), move |core| First(core, give.clone())).unwrap();
    let mut told: Vec<_> = (0..3).map(|_| take.recv_timeout(common::LIVENESS).unwrap()).collect();
    told.sort();
    for (index, (made_for, core, name)) in told.into_iter().enumerate() {
        assert_eq!((made_for, core, name), (index, index, Some(format!("corecast-{index}"))));
    }
    assert!(engine.shutdown().drained);
}

#[test]
fn an_engine_of_many_cores_starts_and_stops_again_and_again() {
    for round in 0..10 {
        let mut node = Node::echo(config().cores(Cores::Unpinned(1 + round % 4)));
        let (mut raw, _) = node.raw_peer(Hello::node(1));
        raw.echo(1, b"x");
        let report = {
            let reader = std::thread::spawn(move || raw.expect_goodbye(1, 0));
            let report = node.engine.shutdown();
            reader.join().unwrap();
            report
        };
        assert!(report.drained, "{report:?}");
    }
}
