//! Several cores of one engine, each on a thread of its own: they share what an engine's cores share, and nothing else. No sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::{Poll, Waker};

use super::{Core, config};
use crate::config::Cores;
use crate::reactor::inbox::{Fabric, Inbox, Queued, Signal};
use crate::reactor::{Clock, WAKER};
use crate::rng::Rng;
use crate::shard::{Shard, Shared};
use crate::wire::Frame;

/// How long the cores may take to have their peers, and the tests for what they do.
const LIVENESS: Duration = Duration::from_secs(30);

/// What the cores share. Each thread makes its [`Member`].
pub struct Mesh {
    fabric: Arc<Fabric<()>>,
    /// What the wakers belong to. Nobody sleeps.
    _polls: Vec<Poll>,
    /// Peers of each core.
    peers: usize,
    settled: AtomicUsize,
}

impl Mesh {
    /// Of so many cores, with so many peers each.
    #[must_use]
    pub fn new(cores: usize, peers: usize) -> Self {
        let config = config(cores * peers).cores(Cores::Unpinned(cores));
        let shared = Shared::new(Arc::new(config), &mut Rng::new(1));
        let make = |_| {
            let poll = Poll::new().expect("an epoll");
            let waker = Waker::new(poll.registry(), WAKER).expect("an eventfd");
            (Inbox::new(&shared, waker), poll)
        };
        let (inboxes, polls): (Vec<_>, Vec<_>) = (0..cores).map(make).unzip();
        let fabric = Arc::new(Fabric { shared, clock: Clock::new(), inboxes: inboxes.into() });
        Self { fabric, _polls: polls, peers, settled: AtomicUsize::new(0) }
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("cores", &self.fabric.inboxes.len()).field("peers", &self.peers).finish_non_exhaustive()
    }
}

/// One core of a [`Mesh`].
#[derive(Debug)]
pub struct Member<'a> {
    mesh: &'a Mesh,
    core: Core,
}

impl<'a> Member<'a> {
    /// Core number `index`, with its peers, on the calling thread. Returns when all the others have theirs: each needs a thread.
    #[must_use]
    pub fn new(mesh: &'a Mesh, index: usize) -> Self {
        let shared = mesh.fabric.shared.clone();
        let mut core = Core::bare(index, shared.clone());
        // Who may connect is decided by core 0, for all.
        core.settle_in(&shared, index * mesh.peers..(index + 1) * mesh.peers, |shard| {
            exchange(&mesh.fabric, shard);
            true
        });
        mesh.settled.fetch_add(1, Ordering::AcqRel);
        let mut member = Self { mesh, core };
        let deadline = Instant::now() + LIVENESS;
        while mesh.settled.load(Ordering::Acquire) < mesh.fabric.inboxes.len() {
            assert!(Instant::now() < deadline, "another core has not got its peers: its thread has ended, or never began");
            member.turn(|_| {});
        }
        member
    }

    /// A turn: what other cores have sent is taken in, `act` is done, and everything is written. Returns the bytes.
    pub fn turn(&mut self, act: impl FnOnce(&mut Core)) -> usize {
        self.core.begin();
        exchange(&self.mesh.fabric, &mut self.core.shard);
        act(&mut self.core);
        // Before the flush, so that the others begin while this one writes.
        send(&self.mesh.fabric, &mut self.core.shard);
        let written = self.core.flush(usize::MAX);
        self.core.end();
        written
    }
}

impl Core {
    /// To every peer of every core, unless one of them has no room for it now.
    pub fn try_broadcast(&mut self, frame: &Frame) -> bool {
        self.shard.broadcast(frame, None).is_ok()
    }
}

/// Takes in what came, as the reactor does, and answers.
fn exchange(fabric: &Fabric<()>, shard: &mut Shard) {
    let core = shard.core();
    let inbox = &fabric.inboxes[core];
    while let Some(signal) = inbox.control.pop() {
        if let Signal::Shard(control) = signal {
            shard.handle_control(control);
        }
    }
    while shard.wants_mail()
        && let Some(Queued { what: mail, .. }) = inbox.cores.pop()
    {
        let cost = mail.cost();
        shard.handle_mail(mail);
        fabric.shared.credits[core].release(cost);
    }
    send(fabric, shard);
}

fn send(fabric: &Fabric<()>, shard: &mut Shard) {
    while let Some((core, mail)) = shard.poll_mail() {
        fabric.deliver(core, mail);
    }
    while let Some((core, control)) = shard.poll_control() {
        fabric.signal(core, Signal::Shard(control));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_of_one_core_is_written_to_the_peers_of_all() {
        const PEERS: usize = 20;
        const FRAMES: usize = 300;
        let mesh = Mesh::new(3, PEERS);
        let frame = Frame::new(1, b"for all").unwrap();
        let all = FRAMES * PEERS * frame.as_bytes().len();
        std::thread::scope(|scope| {
            for index in 0..3 {
                let (mesh, frame) = (&mesh, &frame);
                scope.spawn(move || {
                    let mut member = Member::new(mesh, index);
                    let (mut sent, mut written) = (0, 0);
                    let deadline = Instant::now() + LIVENESS;
                    while written < all {
                        assert!(Instant::now() < deadline, "core {index} has written {written} of {all} bytes");
                        written += member.turn(|core| sent += usize::from(index == 0 && sent < FRAMES && core.try_broadcast(frame)));
                    }
                    assert_eq!(written, all);
                });
            }
        });
    }
}
