//! The others: strangers that never get in, and peers that break a rule, stop in the middle, do not read, or vanish.
//!
//! Each does one thing that the server has to end in one way, and is counted under it, so that the server's own counters can be checked.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corecast_attacks::frames::{forbidden, pings, send_and_never_read};
use corecast_attacks::handshake::{Wrong, wrong_opening};
use corecast_attacks::link::Link;
use corecast_attacks::openers::{Garbage, good_opening};
use corecast_attacks::wire::data;
use corecast_attacks::{Failure, Peer, Sources, Target, Who};

use super::{DEAR, TRAP};

/// Connections that come from one address at once: more than may be in their handshake from there.
const CROWD: u64 = 20;
/// For how long one does not read.
const DEAF: Duration = Duration::from_millis(1500);
/// For how long one keeps something unfinished: longer than the server has patience.
const UNFINISHED: Duration = Duration::from_millis(2500);

/// What was done, in the words of what it has to end in.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Connections, of all kinds.
    pub(super) connected: AtomicU64,
    /// Those whose handshake came to its end.
    pub(super) established: AtomicU64,
    pub(super) garbage: AtomicU64,
    pub(super) wrong_network: AtomicU64,
    /// Those that left before they had said who they are, or were one too many from their address.
    pub(super) left_early: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) broke_rules: AtomicU64,
    pub(super) flooded: AtomicU64,
    /// Those that sent more than they may.
    pub(super) greedy: AtomicU64,
    /// Those over whose message the application panicked.
    pub(super) trapped: AtomicU64,
    pub(super) vanished: AtomicU64,
    pub(super) unfinished: AtomicU64,
    pub(super) deaf: AtomicU64,
    /// Things that could not be done as they were meant: a connection that was not granted, a handshake that did not end.
    pub(super) failed: AtomicU64,
}

fn more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One of them after the other, on a thread of its own.
pub(super) struct Rough {
    pub(super) target: Target,
    pub(super) done: Arc<Done>,
    pub(super) sources: Sources,
    /// Every peer is somebody else: the first of them.
    pub(super) first: u64,
}

type Act = fn(&mut Rough) -> Result<(), Failure>;

impl Rough {
    /// What takes no time, again and again until the deadline.
    pub(super) fn quick(&mut self, deadline: Instant) {
        const ACTS: [Act; 9] = [
            Rough::garbage,
            Rough::wrong_network,
            Rough::leave_early,
            Rough::break_a_rule,
            Rough::vanish,
            Rough::crowd,
            Rough::flood,
            Rough::take_too_much,
            Rough::set_off_a_panic,
        ];
        self.repeat(deadline, &ACTS);
    }

    /// What has to be waited for.
    pub(super) fn slow(&mut self, deadline: Instant) {
        const ACTS: [Act; 3] = [Rough::say_nothing, Rough::stop_in_the_middle, Rough::read_nothing];
        self.repeat(deadline, &ACTS);
    }

    fn repeat(&mut self, deadline: Instant, acts: &[Act]) {
        for act in acts.iter().cycle() {
            if Instant::now() >= deadline {
                return;
            }
            if act(self).is_err() {
                more(&self.done.failed);
            }
        }
    }

    fn who(&mut self) -> Who {
        self.first += 1;
        Who::numbered(self.first, self.sources.next())
    }

    fn link_from(&self, source: IpAddr) -> Result<Link, Failure> {
        let link = Link::connect(source, self.target.address).map_err(Failure::Connect)?;
        more(&self.done.connected);
        Ok(link)
    }

    fn link(&self) -> Result<Link, Failure> {
        self.link_from(self.sources.next())
    }

    /// Established on both sides: it has had a message returned.
    fn peer(&mut self) -> Result<Peer, Failure> {
        let who = self.who();
        let link = self.link_from(who.source)?;
        let mut peer = Peer::shake(link, &self.target, &who)?;
        peer.echo(1, b"here")?;
        more(&self.done.established);
        Ok(peer)
    }

    fn garbage(&mut self) -> Result<(), Failure> {
        let mut link = self.link()?;
        // The server may have closed before all of it has left.
        let _ = link.send(&Garbage::ALL[self.first as usize % Garbage::ALL.len()].bytes());
        self.first += 1;
        let _ = link.read_to_end(Duration::from_secs(1));
        more(&self.done.garbage);
        Ok(())
    }

    fn wrong_network(&mut self) -> Result<(), Failure> {
        let mut link = self.link()?;
        link.send(&wrong_opening(&self.target, Wrong::Network, self.first)).map_err(Failure::Connect)?;
        let _ = link.read_to_end(Duration::from_secs(1));
        more(&self.done.wrong_network);
        Ok(())
    }

    fn leave_early(&mut self) -> Result<(), Failure> {
        let mut link = self.link()?;
        let opening = good_opening(&self.target, self.first);
        link.send(&opening[..opening.len() / 2]).map_err(Failure::Connect)?;
        link.shut();
        let _ = link.read_to_end(Duration::from_secs(1));
        more(&self.done.left_early);
        Ok(())
    }

    fn crowd(&mut self) -> Result<(), Failure> {
        let source = self.sources.next();
        let mut links = Vec::new();
        for _ in 0..CROWD {
            links.push(self.link_from(source)?);
            more(&self.done.left_early);
        }
        for mut link in links {
            link.shut();
            let _ = link.read_to_end(Duration::from_secs(1));
        }
        Ok(())
    }

    fn say_nothing(&mut self) -> Result<(), Failure> {
        let mut link = self.link()?;
        more(&self.done.silent);
        let _ = link.read_to_end(UNFINISHED);
        Ok(())
    }

    fn break_a_rule(&mut self) -> Result<(), Failure> {
        let forbidden = forbidden();
        let (_, bytes, _) = &forbidden[self.first as usize % forbidden.len()];
        let mut peer = self.peer()?;
        more(&self.done.broke_rules);
        let _ = peer.send(bytes);
        let _ = peer.farewell();
        Ok(())
    }

    fn flood(&mut self) -> Result<(), Failure> {
        let mut peer = self.peer()?;
        more(&self.done.flooded);
        let _ = pings(&mut peer, 1000);
        Ok(())
    }

    fn take_too_much(&mut self) -> Result<(), Failure> {
        let mut peer = self.peer()?;
        more(&self.done.greedy);
        let _ = peer.send(&data(DEAR, b"").repeat(3));
        let _ = peer.farewell();
        Ok(())
    }

    fn set_off_a_panic(&mut self) -> Result<(), Failure> {
        let mut peer = self.peer()?;
        more(&self.done.trapped);
        let _ = peer.send(&data(TRAP, b""));
        let _ = peer.farewell();
        Ok(())
    }

    fn vanish(&mut self) -> Result<(), Failure> {
        let mut peer = self.peer()?;
        more(&self.done.vanished);
        let _ = peer.half_a_frame();
        if self.first.is_multiple_of(2) {
            peer.link.reset()
        } else {
            drop(peer)
        }
        Ok(())
    }

    fn stop_in_the_middle(&mut self) -> Result<(), Failure> {
        let mut peer = self.peer()?;
        more(&self.done.unfinished);
        let _ = peer.half_a_frame();
        let _ = peer.link.read_to_end(UNFINISHED);
        Ok(())
    }

    fn read_nothing(&mut self) -> Result<(), Failure> {
        let mut peer = [self.peer()?];
        more(&self.done.deaf);
        send_and_never_read(&mut peer, 64 << 10, DEAF);
        let _ = peer[0].link.read_to_end(UNFINISHED);
        Ok(())
    }
}
