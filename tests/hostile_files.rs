//! A process that runs out of file descriptors while strangers knock.
//!
//! Set-up: an engine with its defaults and well-behaved peers at it (`canary`), in a process that has opened all the files that it may;
//! peers written by hand, from 127.66.0.0/16, whose sockets were made before. Claim: accepting pauses, and the good peers notice nothing;
//! when there are files again, those who still wait get in, without anybody connecting anew; and everything comes back.

#[path = "common/canary.rs"]
mod canary;
mod common;

use std::fs::File;
use std::net::SocketAddr;

use canary::Canary;
use common::{eventually, eventually_stats};
use corecast::Counter;
use corecast_attacks::{Link, Peer, Sources, Who};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const KNOCKING: u64 = 12;

#[test]
fn those_who_knock_while_there_are_no_files_get_in_when_there_are() {
    let canary = Canary::secure(|_| {});
    let (target, sources) = (canary.target(), Sources::everywhere());
    let before = canary.count(Counter::Accepted);
    let knocking: Vec<(Socket, Who)> = (0..KNOCKING)
        .map(|number| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let who = Who::numbered(500 + number, sources.next());
            socket.bind(&SocketAddr::new(who.source, 0).into()).unwrap();
            (socket, who)
        })
        .collect();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).unwrap();
    let fillers: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    knocking.iter().for_each(|(socket, _)| socket.connect(&target.address.into()).expect("the kernel takes it into the backlog"));
    eventually_stats(&canary.server.handle(), "accepting pauses", |stats| stats.get(Counter::AcceptPauses) >= 3);
    canary.sings();

    drop(fillers);
    setrlimit(Resource::Nofile, limit).unwrap();
    eventually("all that wait are accepted, or were let go", || {
        canary.count(Counter::Accepted) - before + canary.count(Counter::AcceptPauses) == KNOCKING
    });
    let shed = canary.count(Counter::AcceptPauses);
    let links: Vec<(Link, Who)> = knocking.into_iter().map(|(socket, who)| (Link::over(socket.into()).unwrap(), who)).collect();
    let (gone, waiting): (Vec<_>, Vec<_>) = links.into_iter().partition(|(link, _)| link.is_over());
    assert_eq!((gone.len() as u64, waiting.len() as u64), (shed, KNOCKING - shed));
    for (link, who) in waiting {
        let mut peer = Peer::shake(link, &target, &who).unwrap();
        peer.echo(3, b"in after all").unwrap();
        peer.leave();
    }
    drop(gone);
    assert_eq!(canary.count(Counter::AcceptErrors), 0);
    canary.finish();
}
