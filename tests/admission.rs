//! Who gets in: the limits by address, before anybody has proved anything.
//!
//! Set-up: an echoing engine, peers and strangers written by hand that come from addresses of 127.0.0.0/8, each its own. Claim: each limit
//! holds exactly, refuses with a close and no word, and is counted under its own name; whoever is not over it gets in; established peers
//! are never touched; and all places come back, however they are left.

mod common;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use common::node::Node;
use common::raw::{Hello, Raw};
use common::{NEVER, eventually, eventually_idle, eventually_stats, loopback};
use corecast::{Config, Cores, Counter, Rate, Security, Subnet};

/// Nobody is exempt, and nothing ends by itself.
fn config() -> Config {
    let mut config = loopback();
    config.addresses.exempt = Vec::new();
    config.timeouts.handshake = NEVER;
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config
}

/// The same, without limits on how fast strangers come.
fn unhurried() -> Config {
    let mut config = config();
    config.addresses.handshakes_per_ip = Rate { per_second: 100_000, burst: 100_000 };
    config.addresses.handshakes_per_subnet = Rate { per_second: 100_000, burst: 100_000 };
    config
}

fn ip(a: u8, b: u8, c: u8) -> IpAddr {
    Ipv4Addr::new(127, a, b, c).into()
}

/// Somebody who says nothing.
fn stranger(node: &Node, source: IpAddr) -> Raw {
    Raw::connect_from(source, node.address())
}

fn refused(node: &Node, source: IpAddr, counter: Counter, count: u64) {
    stranger(node, source).expect_silent_close();
    node.counts(counter, count);
}

/// A peer that is in, by a name that no other has.
fn peer(node: &Node, source: IpAddr, name: u32) -> Raw {
    let mut raw = Raw::connect_from(source, node.address()).try_shake(Hello::node(name)).expect("nothing is in the way");
    raw.echo(1, b"in");
    raw
}

/// All refusals by address; a test names those that it expects.
fn refusals(node: &Node) -> Vec<(Counter, u64)> {
    use Counter::{
        HalfOpenEvicted, RefusedHalfOpen, RefusedIpHalfOpen, RefusedIpPeers, RefusedIpRate, RefusedSubnetPeers, RefusedSubnetRate,
        RefusedTable,
    };
    let all = [
        RefusedHalfOpen,
        HalfOpenEvicted,
        RefusedIpHalfOpen,
        RefusedIpRate,
        RefusedSubnetRate,
        RefusedIpPeers,
        RefusedSubnetPeers,
        RefusedTable,
    ];
    let stats = node.handle().stats();
    all.into_iter().map(|counter| (counter, stats.get(counter))).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn an_address_has_so_many_in_their_handshake_and_gets_the_places_back() {
    let mut config = config().cores(Cores::Unpinned(2));
    config.addresses.half_open_per_ip = 3;
    let node = Node::echo(config);
    let silent: Vec<Raw> = (0..3).map(|_| stranger(&node, ip(66, 0, 1))).collect();
    node.counts(Counter::HalfOpen, 3);
    (1..=4).for_each(|count| refused(&node, ip(66, 0, 1), Counter::RefusedIpHalfOpen, count));
    // A neighbour is another address.
    let neighbour = peer(&node, ip(66, 0, 2), 1);
    drop(silent);
    node.counts(Counter::HalfOpen, 0);
    let peers: Vec<Raw> = (2..7).map(|name| peer(&node, ip(66, 0, 1), name)).collect();
    assert_eq!(refusals(&node), [(Counter::RefusedIpHalfOpen, 4)]);
    drop((neighbour, peers));
    node.finish();
}

#[test]
fn an_address_and_a_subnet_have_so_many_connections_and_get_the_places_back() {
    let mut config = unhurried().cores(Cores::Unpinned(2));
    config.addresses.peers_per_ip = 2;
    config.addresses.peers_per_subnet = 3;
    let node = Node::echo(config);
    let mut first = peer(&node, ip(66, 0, 1), 1);
    let half_open = stranger(&node, ip(66, 0, 1));
    node.counts(Counter::HalfOpen, 1);
    refused(&node, ip(66, 0, 1), Counter::RefusedIpPeers, 1);
    let second = peer(&node, ip(66, 0, 2), 2);
    refused(&node, ip(66, 0, 2), Counter::RefusedSubnetPeers, 1);
    refused(&node, ip(66, 0, 3), Counter::RefusedSubnetPeers, 2);
    let mut elsewhere = peer(&node, ip(66, 1, 1), 3);
    first.echo(2, b"undisturbed");
    elsewhere.echo(2, b"undisturbed");
    drop((second, half_open));
    node.counts(Counter::Peers, 2);
    node.counts(Counter::HalfOpen, 0);
    // The place of a peer comes back with the turn after its end.
    let mut again = None;
    eventually("there is room for two more in the subnet", || {
        again = stranger(&node, ip(66, 0, 3)).try_shake(Hello::node(4));
        again.is_some()
    });
    let third = peer(&node, ip(66, 0, 1), 5);
    eventually_stats(&node.handle(), "six were let in, and all others are counted", |stats| {
        stats.get(Counter::Accepted) - stats.get(Counter::RefusedIpPeers) - stats.get(Counter::RefusedSubnetPeers) == 6
    });
    drop((first, elsewhere, again, third));
    node.finish();
}

/// Comes so often from addresses in turn, and goes at once. How often it was let in, and how long that took.
fn knock(node: &Node, times: u32, source: impl Fn(u32) -> IpAddr) -> (u64, Duration) {
    let began = Instant::now();
    let let_in = (0..times).filter(|&number| stranger(node, source(number)).try_shake(Hello::node(1000 + number)).is_some()).count();
    (let_in as u64, began.elapsed())
}

#[test]
fn an_address_and_a_subnet_begin_so_many_handshakes_a_second() {
    let mut config = config();
    config.addresses.handshakes_per_ip = Rate { per_second: 2, burst: 5 };
    config.addresses.handshakes_per_subnet = Rate { per_second: 2, burst: 20 };
    let mut node = Node::echo(config);
    let (mut good, _) = node.raw_peer(Hello::node(1));
    let at_most = |burst: u64, took: Duration| burst + 2 * (took.as_secs() + 1);

    let (let_in, took) = knock(&node, 60, |_| ip(66, 0, 1));
    assert!((5..=at_most(5, took)).contains(&let_in), "{let_in} in {took:?}");
    node.counts(Counter::RefusedIpRate, 60 - let_in);
    assert_eq!(node.count(Counter::RefusedSubnetRate), 0, "one address does not use up what its subnet has");

    let (let_in, took) = knock(&node, 60, |number| ip(77, 0, number as u8));
    assert!((20..=at_most(20, took)).contains(&let_in), "{let_in} in {took:?}");
    node.counts(Counter::RefusedSubnetRate, 60 - let_in);

    good.echo(1, b"undisturbed");
    let good_address = peer(&node, ip(66, 1, 1), 2);
    assert_eq!(refusals(&node).len(), 2, "{:?}", refusals(&node));
    // And after a while they are let in again.
    eventually("the address is let in again", || stranger(&node, ip(66, 0, 1)).try_shake(Hello::node(3)).is_some());
    drop((good, good_address));
    node.finish();
}

#[test]
fn the_oldest_stranger_of_the_busiest_subnet_gives_way_and_nobody_else() {
    const MOST: usize = 16;
    for cores in [1, 2] {
        let mut config = unhurried().cores(Cores::Unpinned(cores));
        config.limits.max_half_open = MOST;
        let mut node = Node::echo(config);
        let mut peers: Vec<Raw> = (0..4).map(|number| peer(&node, ip(1, 0, number), u32::from(number))).collect();
        let others: Vec<Raw> = (0..4).map(|number| stranger(&node, ip(2, 0, number))).collect();
        node.counts(Counter::HalfOpen, 4);
        let mut flood = Vec::new();
        for number in 0..MOST - 4 {
            flood.push(stranger(&node, ip(66, 0, number as u8)));
            node.counts(Counter::HalfOpen, 5 + number as u64);
        }
        assert_eq!(refusals(&node), []);
        for number in 0..20u8 {
            flood.push(stranger(&node, ip(66, 0, 100 + number)));
            node.counts(Counter::HalfOpenEvicted, u64::from(number) + 1);
        }
        node.counts(Counter::HalfOpen, MOST as u64);
        let mut flood = flood.into_iter();
        flood.by_ref().take(20).for_each(Raw::expect_silent_close);
        // Those that are left, of the flood and of the others, are still welcome, and so is somebody new.
        let mut in_now: Vec<Raw> =
            (100u32..).zip(others.into_iter().chain(flood)).map(|(name, raw)| raw.shake(Hello::node(name))).collect();
        in_now.push(peer(&node, ip(3, 0, 1), 500));
        peers.extend(in_now);
        peers.iter_mut().for_each(|raw| raw.echo(3, b"all are in"));
        assert_eq!(refusals(&node), [(Counter::HalfOpenEvicted, 20)]);
        assert_eq!((0..peers.len()).map(|_| node.connected()).count(), 4 + MOST + 1);
        node.counts(Counter::Accepted, 4 + MOST as u64 + 20 + 1);
        drop(peers);
        node.finish();
    }
}

#[test]
fn an_address_that_a_full_table_does_not_know_waits_until_another_is_forgotten() {
    let mut config = unhurried();
    config.addresses.table = 16;
    let node = Node::echo(config);
    let mut peers: Vec<Raw> = (0..8).map(|number| peer(&node, ip(66, number, 1), u32::from(number))).collect();
    refused(&node, ip(66, 100, 1), Counter::RefusedTable, 1);
    // Of a subnet that is known it is the address that has no room.
    refused(&node, ip(66, 0, 2), Counter::RefusedTable, 2);
    peers.push(peer(&node, ip(66, 0, 1), 100));
    assert_eq!(refusals(&node), [(Counter::RefusedTable, 2)]);
    drop(peers.remove(3));
    let mut new = None;
    eventually("the new address is let in", || {
        new = stranger(&node, ip(66, 100, 1)).try_shake(Hello::node(200));
        new.is_some()
    });
    peers.iter_mut().chain(&mut new).for_each(|raw| raw.echo(1, b"served"));
    drop((peers, new));
    node.finish();
}

#[test]
fn exempt_addresses_pass_by_all_but_the_whole() {
    let mut config = config();
    config.limits.max_half_open = 6;
    config.addresses.half_open_per_ip = 2;
    config.addresses.peers_per_ip = 2;
    config.addresses.peers_per_subnet = 2;
    config.addresses.handshakes_per_ip = Rate { per_second: 1, burst: 1 };
    config.addresses.handshakes_per_subnet = Rate { per_second: 1, burst: 2 };
    config.addresses.exempt = vec!["127.1.0.0/16".parse::<Subnet>().unwrap(), "127.2.0.7".parse().unwrap()];
    let node = Node::echo(config);
    let mut peers: Vec<Raw> = (0..20).map(|name| peer(&node, ip(1, 0, 1), name)).collect();
    peers.push(peer(&node, ip(2, 0, 7), 100));
    // Beside it nobody is exempt.
    let first = stranger(&node, ip(2, 0, 8));
    node.counts(Counter::HalfOpen, 1);
    refused(&node, ip(2, 0, 8), Counter::RefusedIpRate, 1);
    // In the whole, strangers give way to exempt addresses, and these to nobody.
    let silent: Vec<Raw> = (0..6).map(|_| stranger(&node, ip(1, 2, 3))).collect();
    node.counts(Counter::HalfOpenEvicted, 1);
    first.expect_silent_close();
    node.counts(Counter::HalfOpen, 6);
    refused(&node, ip(1, 2, 3), Counter::RefusedHalfOpen, 1);
    refused(&node, ip(3, 0, 1), Counter::RefusedHalfOpen, 2);
    peers.iter_mut().for_each(|raw| raw.echo(1, b"served"));
    assert_eq!(refusals(&node), [(Counter::RefusedHalfOpen, 2), (Counter::HalfOpenEvicted, 1), (Counter::RefusedIpRate, 1)]);
    drop((peers, silent));
    node.finish();
}

#[test]
fn an_address_is_the_same_through_an_ipv6_listener() {
    if TcpListener::bind("[::]:0").is_err() {
        return; // There is no IPv6 here.
    }
    let mut config = unhurried();
    config.security = Security::Plaintext { allow_remote: true };
    config.listen.push("[::]:0".parse().unwrap());
    config.addresses.half_open_per_ip = 2;
    let node = Node::echo(config);
    let port = node.engine.local_addrs()[1].port();
    let first = stranger(&node, ip(66, 0, 1));
    let second = Raw::connect_from(ip(66, 0, 1), (Ipv4Addr::LOCALHOST, port).into());
    node.counts(Counter::HalfOpen, 2);
    Raw::connect_from(ip(66, 0, 1), (Ipv4Addr::LOCALHOST, port).into()).expect_silent_close();
    refused(&node, ip(66, 0, 1), Counter::RefusedIpHalfOpen, 2);
    drop((first, second));
    eventually_idle(&node.handle());
    node.finish();
}
