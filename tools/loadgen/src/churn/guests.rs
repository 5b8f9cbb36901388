//! The well-behaved: peers of one engine that come, have numbered messages returned, and go; some stay. And dials that cannot succeed,
//! until their target's breaker is open.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use corecast::{
    BreakerState, CloseReason, Config, Context, Dial, DialError, DialId, Endpoint, Engine, Handle, Handler, Message, PeerId, PeerInfo, Sent,
};

use super::pooled::{ERRAND, Errands};
use crate::error::Error;
use crate::security::{Identities, Target};

/// Where the well-behaved come from: an address that the server exempts from its limits.
pub(super) const SOURCE: [u8; 4] = [127, 1, 0, 1];
/// Messages that a guest has on the way at a time.
const WINDOW: u64 = 4;
/// Messages of a guest that does not stay: up to so many.
const VISIT: u64 = 40;
/// From the end of a visit to the next guest's dial.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two looks of one who stays.
const PACE: Duration = Duration::from_millis(10);
const TYPE: u16 = 1;
/// Timers: the next guest may come; look after those who stay.
const NEXT: u64 = 0;
const LOOK: u64 = 1;
const HOPE: u64 = 2;
/// From the end of a hopeless dial to the next.
const DISAPPOINTMENT: Duration = Duration::from_millis(50);

/// What has happened, as the guests saw it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) connected: AtomicU64,
    /// Attempts that failed, by reports.
    pub(super) failed: AtomicU64,
    /// Of these: the node was another than the dial meant.
    pub(super) mistaken: AtomicU64,
    /// Dials that were refused because the breaker is open.
    pub(super) refused: AtomicU64,
    /// What breakers did, by reports.
    pub(super) opened: AtomicU64,
    pub(super) half_opened: AtomicU64,
    /// Connections that the pool was asked for, those that it has made, those that it has closed, and messages that went over them and came
    /// back.
    pub(super) asked: AtomicU64,
    pub(super) pooled: AtomicU64,
    pub(super) idled: AtomicU64,
    pub(super) errands: AtomicU64,
    pub(super) errands_done: AtomicU64,
    /// Guests that closed their connection, all their messages returned.
    pub(super) left: AtomicU64,
    /// Guests whose connection ended otherwise.
    pub(super) cut_off: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) heard: AtomicU64,
    /// Messages that were not the next.
    pub(super) wrong: AtomicU64,
    stop: AtomicBool,
}

pub(super) fn more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// One guest's visit.
struct Visit {
    sent: u64,
    heard: u64,
    messages: u64,
    stays: bool,
}

/// What the guests' engine does.
struct Host {
    seen: Arc<Seen>,
    target: Target,
    identities: Identities,
    /// Guests at a time; the first few of them stay.
    guests: u64,
    staying: u64,
    next: u64,
    /// Dials that lead nowhere, each again when it has failed, and the attempts that are under way.
    hopeless: Vec<Dial>,
    attempts: HashMap<DialId, usize>,
    /// Of guests. Other connections are the pool's.
    invitations: HashSet<DialId>,
    stayed: Vec<PeerId>,
    errands: Errands,
}

/// The message of this number: mostly short, now and then in several fragments.
fn body(number: u64) -> Vec<u8> {
    let len = if number % 29 == 28 { 40_000 } else { 16 + (number * 37 % 500) as usize };
    let mut body = number.to_le_bytes().to_vec();
    body.resize(len, number as u8);
    body
}

impl Host {
    fn invite(&mut self, cx: &mut Context<'_>) {
        let number = self.next;
        self.next += 1;
        // In plaintext a name is what one says it is; each guest has one of its own either way.
        let identity = self.identities.numbered(number);
        let dial = cx.dial(self.target.dial().identity(identity).source(IpAddr::from(SOURCE)).once());
        self.invitations.insert(dial);
    }

    fn hope(&mut self, cx: &mut Context<'_>, index: usize) {
        let dial = cx.dial(self.hopeless[index].clone());
        self.attempts.insert(dial, index);
    }

    /// After those who stay, and, in the end, those who were on their way in when it was said that nobody comes any more.
    fn look(&mut self, cx: &mut Context<'_>, stop: bool) {
        if !stop {
            self.errands.look(cx, &self.seen);
        }
        let peers: Vec<PeerId> = if stop { cx.peers().collect() } else { self.stayed.clone() };
        peers.into_iter().for_each(|peer| self.go_on(cx, peer));
        if !stop || cx.peers().next().is_some() {
            cx.set_timer(PACE, LOOK);
        }
    }

    fn go_on(&self, cx: &mut Context<'_>, peer: PeerId) {
        let stop = self.seen.stop.load(Ordering::Relaxed);
        while let Some(visit) = cx.user_mut::<Visit>(peer) {
            let over = stop || (!visit.stays && visit.sent == visit.messages);
            if over && visit.heard == visit.sent {
                return cx.close(peer);
            }
            if over || visit.sent - visit.heard >= WINDOW {
                return;
            }
            let number = visit.sent;
            visit.sent += 1;
            match cx.send(peer, TYPE, &body(number)) {
                Ok(Sent::Forwarded) | Err(_) => return more(&self.seen.wrong),
                Ok(_) => more(&self.seen.sent),
            }
        }
    }
}

impl Handler for Host {
    type Command = ();

    fn on_command(&mut self, cx: &mut Context<'_>, (): ()) {
        for _ in 0..self.guests {
            self.invite(cx);
        }
        (0..self.hopeless.len()).for_each(|index| self.hope(cx, index));
        cx.set_timer(PACE, LOOK);
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        if !info.dial.is_some_and(|dial| self.invitations.remove(&dial)) {
            return more(&self.seen.pooled);
        }
        more(&self.seen.connected);
        let number = read(&self.seen.connected);
        let stays = number <= self.staying;
        cx.set_user(peer, Visit { sent: 0, heard: 0, messages: 1 + number * 7 % VISIT, stays });
        if stays {
            self.stayed.push(peer);
        }
        self.go_on(cx, peer);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        if message.message_type() == ERRAND {
            return more(&self.seen.errands_done);
        }
        let Some(visit) = cx.user_mut::<Visit>(peer) else { return more(&self.seen.wrong) };
        let number = visit.heard;
        visit.heard += 1;
        let stays = visit.stays;
        more(if message.body == body(number) { &self.seen.heard } else { &self.seen.wrong });
        // Who stays takes his time: what he has is written at the next look.
        if !stays {
            self.go_on(cx, peer);
        }
    }

    fn on_dial_failed(&mut self, cx: &mut Context<'_>, dial: DialId, error: DialError, _: Option<Duration>) {
        let is_refused = matches!(error, DialError::BreakerOpen { .. });
        more(if is_refused { &self.seen.refused } else { &self.seen.failed });
        let Some(index) = self.attempts.remove(&dial) else {
            // A guest that should have got in.
            self.invitations.remove(&dial);
            more(&self.seen.wrong);
            cx.set_timer(PAUSE, NEXT);
            return;
        };
        if matches!(error, DialError::Handshake(_)) {
            more(&self.seen.mistaken);
        }
        cx.set_timer(DISAPPOINTMENT, HOPE + index as u64);
    }

    fn on_pooled(&mut self, cx: &mut Context<'_>, _: u64, result: Result<PeerId, DialError>) {
        self.errands.found(cx, &self.seen, result);
    }

    fn on_breaker(&mut self, _: &mut Context<'_>, _: Endpoint, state: BreakerState) {
        more(match state {
            BreakerState::Open => &self.seen.opened,
            BreakerState::HalfOpen => &self.seen.half_opened,
            // Nothing that is dialled in vain comes back.
            BreakerState::Closed => &self.seen.wrong,
        });
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, _: PeerId, reason: CloseReason) {
        match reason {
            CloseReason::Idle => return more(&self.seen.idled),
            CloseReason::Requested => more(&self.seen.left),
            _ => more(&self.seen.cut_off),
        }
        cx.set_timer(PAUSE, NEXT);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, tag: u64) {
        let stop = self.seen.stop.load(Ordering::Relaxed);
        match tag {
            NEXT if !stop => self.invite(cx),
            LOOK => self.look(cx, stop),
            _ if tag >= HOPE && !stop => self.hope(cx, (tag - HOPE) as usize),
            _ => {}
        }
    }
}

/// The engine of the well-behaved.
pub(super) struct Guests {
    engine: Engine<()>,
    pub(super) seen: Arc<Seen>,
}

/// Who comes.
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) identities: Identities,
    pub(super) guests: u64,
    pub(super) staying: u64,
    /// An address where nobody listens.
    pub(super) deserted: SocketAddr,
}

impl Plan {
    /// To nobody, and to a node that is another: as somebody else, since a dial of ours to that address may be the pool's.
    fn hopeless(&self) -> Vec<Dial> {
        let nobody = Target { address: self.deserted.into(), ..self.target.clone() }.dial();
        let (another, somebody) = (self.identities.numbered(1 << 30), self.identities.numbered((1 << 30) + 1));
        let another = self.target.node.map(|_| Target { node: Some(another.node_id()), ..self.target.clone() }.dial().identity(somebody));
        std::iter::once(nobody).chain(another).map(|dial| dial.source(IpAddr::from(SOURCE)).once()).collect()
    }
}

impl Guests {
    pub(super) fn start(config: Config, plan: &Plan) -> Result<Self, Error> {
        let seen = Arc::<Seen>::default();
        let make = {
            let (seen, hopeless) = (Arc::clone(&seen), plan.hopeless());
            let (target, identities, guests, staying) = (plan.target.clone(), plan.identities, plan.guests, plan.staying);
            move |_| Host {
                seen: Arc::clone(&seen),
                target: target.clone(),
                identities,
                guests,
                staying,
                next: 1,
                hopeless: hopeless.clone(),
                attempts: HashMap::new(),
                invitations: HashSet::new(),
                stayed: Vec::new(),
                errands: Errands::to(&target),
            }
        };
        let engine = Engine::start(config, make).map_err(|source| Error::Start { what: "guests' engine", source })?;
        Ok(Self { engine, seen })
    }

    /// They begin to come.
    pub(super) fn go(&self) {
        // The queue is empty: there is room for one.
        let _ = self.engine.handle().post(0, ());
    }

    /// Everybody finishes what he has begun and leaves; nobody new comes.
    pub(super) fn stop(&self) {
        self.seen.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn handle(&self) -> Handle<()> {
        self.engine.handle()
    }

    pub(super) fn shutdown(self) -> corecast::ShutdownReport {
        self.engine.shutdown()
    }
}
