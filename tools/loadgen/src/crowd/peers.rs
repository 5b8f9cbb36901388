//! The many: peers of one engine, each with a dial that is kept up, so that who is cut off comes again by the library's own backoff.
//!
//! At the beginning they come some at a time, as all workloads' peers do. When they are cut off they all come back at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use corecast::{
    CloseReason, Config, Context, Counter, DialError, DialId, Engine, Handle, Handler, Message, PeerId, PeerInfo, RequestError,
};

use crate::client::PROBE_TIMEOUT;
use crate::clock;
use crate::error::Error;
use crate::probe::{DATA, Question};
use crate::reason::{Dialling, Ending};
use crate::security::Goal;

/// Dials and greetings under way at a time at the beginning; see [`crate::client::connect`].
const UNDER_WAY: usize = 100;

/// What the peers are told.
enum Command {
    /// A round begins: what happens from here on is counted, and answered when it is asked for.
    Begin { at: u64, done: Sender<()> },
    /// Everybody ends his connection.
    Cut,
    /// Everybody sends a message, and waits for it to come back.
    Wake,
    /// Say what has happened since the round began.
    Report { answer: Sender<Return> },
}

/// How everybody went and came back, in one round. Times are nanoseconds since it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Return {
    /// When the last one was gone.
    pub(crate) gone_ns: u64,
    /// When each that came back was there, in this order.
    pub(crate) back_ns: Vec<u64>,
    /// Peers that came back and were cut off again.
    pub(crate) relapses: u64,
    /// Why attempts failed, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Why peers ended, and how often.
    pub(crate) endings: BTreeMap<String, u64>,
    /// Messages that came back as they were sent; those that were sent.
    pub(crate) woken: (u64, u64),
}

/// What the main thread looks at.
#[derive(Default)]
struct Census {
    /// Peers that the server has answered.
    present: AtomicU64,
    /// Peers that have not been away and come back since the round began.
    awaited: AtomicU64,
    /// Messages that have not come back.
    unreturned: AtomicU64,
}

/// The peers' engine.
pub(crate) struct Crowd {
    engine: Engine<Command>,
    handle: Handle<Command>,
    census: Arc<Census>,
    peers: u32,
}

impl Crowd {
    /// They begin to come. With `spread` each has an address of its own in 127.0.0.0/8, 200 of them in each /24.
    pub(crate) fn start(config: Config, goal: Goal, peers: u32, spread: bool) -> Result<Self, Error> {
        let census = Arc::<Census>::default();
        let for_core = Arc::clone(&census);
        let engine = Engine::start(config, move |_| Peers::new(goal.clone(), peers, spread, Arc::clone(&for_core)));
        let engine = engine.map_err(|source| Error::Start { what: "client", source })?;
        Ok(Self { handle: engine.handle(), engine, census, peers })
    }

    /// How many are there, and known to the server.
    pub(crate) fn present(&self) -> u64 {
        self.census.present.load(Relaxed)
    }

    pub(crate) fn all_present(&self) -> bool {
        self.present() == u64::from(self.peers)
    }

    /// How many have not come back in this round.
    pub(crate) fn awaited(&self) -> u64 {
        self.census.awaited.load(Relaxed)
    }

    pub(crate) fn unreturned(&self) -> u64 {
        self.census.unreturned.load(Relaxed)
    }

    /// What happens from here on belongs to a new round.
    pub(crate) fn begin_round(&self, at: u64) -> Result<(), Error> {
        let (done, begun) = mpsc::channel();
        self.tell(Command::Begin { at, done });
        begun.recv_timeout(PROBE_TIMEOUT).map_err(|_| Error::CoreSilent { engine: 0 })
    }

    pub(crate) fn cut(&self) {
        self.tell(Command::Cut);
    }

    pub(crate) fn wake(&self) {
        self.census.unreturned.store(u64::from(self.peers), Relaxed);
        self.tell(Command::Wake);
    }

    pub(crate) fn report(&self) -> Result<Return, Error> {
        let (answer, answered) = mpsc::channel();
        self.tell(Command::Report { answer });
        answered.recv_timeout(PROBE_TIMEOUT).map_err(|_| Error::CoreSilent { engine: 0 })
    }

    /// What the peers' engine has counted of this.
    pub(crate) fn counted(&self, counter: Counter) -> u64 {
        self.handle.stats().get(counter)
    }

    /// The inbox has nothing in it but what is said here, a few words a round.
    fn tell(&self, command: Command) {
        let _ = self.handle.post(0, command);
    }

    pub(crate) fn shutdown(self) {
        self.engine.shutdown();
    }
}

/// One of them.
#[derive(Clone, Default)]
struct Place {
    peer: Option<PeerId>,
    /// The server has answered it.
    is_present: bool,
    /// It has been away since the round began.
    was_away: bool,
    /// When it came back, since the round began.
    back_ns: Option<u64>,
}

/// The peers' handler.
struct Peers {
    goal: Goal,
    spread: bool,
    census: Arc<Census>,
    places: Vec<Place>,
    /// How many have been dialled for the first time, and how many of those have not come yet.
    dialled: usize,
    coming: usize,
    round_at: u64,
    round: Return,
}

impl Peers {
    fn new(goal: Goal, peers: u32, spread: bool, census: Arc<Census>) -> Self {
        let places = vec![Place::default(); peers as usize];
        Self { goal, spread, census, places, dialled: 0, coming: 0, round_at: clock::now_ns(), round: Return::default() }
    }

    /// Dials as many for the first time as may be under way.
    fn refill(&mut self, cx: &mut Context<'_>) {
        while self.coming < UNDER_WAY && self.dialled < self.places.len() {
            let mut dial = self.goal.standing(self.dialled as u16);
            if self.spread {
                dial = dial.source(address(self.dialled as u32));
            }
            cx.dial(dial);
            self.dialled += 1;
            self.coming += 1;
        }
    }

    fn index(cx: &Context<'_>, peer: PeerId) -> Option<usize> {
        cx.user::<u32>(peer).map(|index| *index as usize)
    }

    fn since(&self) -> u64 {
        clock::now_ns().saturating_sub(self.round_at)
    }

    fn publish(&self) {
        let present = self.places.iter().filter(|place| place.is_present).count();
        self.census.present.store(present as u64, Relaxed);
    }

    fn arrived(&mut self, cx: &mut Context<'_>, index: usize) {
        let since = self.since();
        let place = &mut self.places[index];
        place.is_present = true;
        add(&self.census.present, 1);
        if place.was_away && place.back_ns.replace(since).is_none() {
            add(&self.census.awaited, -1);
        }
        // Of those who come for the first time; the others are not waited for.
        self.coming = self.coming.saturating_sub(1);
        self.refill(cx);
    }

    fn left(&mut self, index: usize, reason: CloseReason) {
        let since = self.since();
        let place = &mut self.places[index];
        place.peer = None;
        if !std::mem::take(&mut place.is_present) {
            // The next attempt follows by itself.
            *self.round.failures.entry(Ending(reason).to_string()).or_default() += 1;
            return;
        }
        add(&self.census.present, -1);
        *self.round.endings.entry(Ending(reason).to_string()).or_default() += 1;
        place.was_away = true;
        if place.back_ns.take().is_some() {
            self.round.relapses += 1;
            add(&self.census.awaited, 1);
        } else {
            self.round.gone_ns = since;
        }
    }

    fn begin(&mut self, at: u64) {
        self.round_at = at;
        self.round = Return::default();
        for place in &mut self.places {
            (place.was_away, place.back_ns) = (!place.is_present, None);
        }
        self.census.awaited.store(self.places.len() as u64, Relaxed);
        self.publish();
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        for (index, place) in self.places.iter().enumerate() {
            let sent = place.peer.is_some_and(|peer| cx.send(peer, DATA, &(index as u64).to_le_bytes()).is_ok());
            self.round.woken.1 += u64::from(sent);
        }
    }

    fn report(&self) -> Return {
        let mut back_ns: Vec<u64> = self.places.iter().filter_map(|place| place.back_ns).collect();
        back_ns.sort_unstable();
        Return { back_ns, ..self.round.clone() }
    }
}

/// An address of its own for each: 200 in a subnet, as it may be where many nodes are with one provider.
fn address(number: u32) -> IpAddr {
    let (subnet, host) = (number / 200, number % 200);
    let [_, _, high, low] = subnet.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 16 + high, low, 1 + host as u8))
}

/// One writer besides the main thread, which writes only when nothing happens here.
fn add(counter: &AtomicU64, more: i64) {
    counter.store(counter.load(Relaxed).saturating_add_signed(more), Relaxed);
}

impl Handler for Peers {
    type Command = Command;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.refill(cx);
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        let index = u32::from(info.channel);
        self.places[index as usize].peer = Some(peer);
        cx.set_user(peer, index);
        // This side is ready first: the server's answer says that it is, too.
        if cx.request(peer, Question::Greet.meta(), &Question::Greet.encode(0), PROBE_TIMEOUT, 0).is_err() {
            cx.close(peer);
        }
    }

    fn on_response(&mut self, cx: &mut Context<'_>, peer: PeerId, _tag: u64, result: Result<Message<'_>, RequestError>) {
        let Some(index) = Self::index(cx, peer).filter(|index| self.places[*index].peer == Some(peer)) else { return };
        match result {
            Ok(_) => self.arrived(cx, index),
            // `on_closed` says why.
            Err(RequestError::PeerClosed) => {}
            Err(error) => {
                *self.round.failures.entry(format!("the server did not answer the greeting: {error}")).or_default() += 1;
                cx.close(peer);
            }
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let index = Self::index(cx, peer).map(|index| (index as u64).to_le_bytes());
        if index.is_some_and(|index| message.body == index) && message.message_type() == DATA {
            self.round.woken.0 += 1;
            add(&self.census.unreturned, -1);
        }
    }

    fn on_dial_failed(&mut self, _cx: &mut Context<'_>, _dial: DialId, error: DialError, _retry_in: Option<Duration>) {
        *self.round.failures.entry(Dialling(error).to_string()).or_default() += 1;
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        if let Some(index) = Self::index(cx, peer).filter(|index| self.places[*index].peer == Some(peer)) {
            self.left(index, reason);
        }
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Begin { at, done } => {
                self.begin(at);
                let _ = done.send(());
            }
            Command::Cut => self.places.iter().filter_map(|place| place.peer).for_each(|peer| cx.close(peer)),
            Command::Wake => self.wake(cx),
            Command::Report { answer } => {
                let _ = answer.send(self.report());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_an_address_of_its_own() {
        let all: std::collections::HashSet<_> = (0..65_536).map(address).collect();
        assert_eq!(all.len(), 65_536);
        assert!(all.iter().all(|address| address.is_loopback()));
        assert_eq!(
            [address(0), address(199), address(200)].map(|address| address.to_string()),
            ["127.16.0.1", "127.16.0.200", "127.16.1.1"]
        );
    }
}
