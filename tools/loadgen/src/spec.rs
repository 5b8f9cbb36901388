//! What is run: a workload and all that it was told.

use std::time::Duration;

use crate::acked::Terms;
use crate::cli::{
    AllToAllArgs, EchoArgs, FanoutArgs, FloodArgs, LoadArgs, MixedArgs, PacingArgs, PhaseArgs, ReceiptsArgs, RequestArgs, ScheduleArgs,
    SlowPeerArgs, SlowReadersArgs, TopicsArgs,
};
use crate::pacer::Pace;
use crate::workload::{Bulk, Kind, Pacing, Subscriptions};

/// `--quick`: peers at most, measured time, warm-up.
const QUICK: (u32, Duration, Duration) = (50, Duration::from_millis(600), Duration::from_millis(100));
/// What an open loop offers where the command line does not say: messages a second, and where each goes to many, deliveries. Little enough
/// for any machine, so that what is measured is the time that a message takes and not how long it waits for others.
const RATE: f64 = 1000.0;
const DELIVERIES: f64 = 50_000.0;
/// When a server in this process cuts slow readers off, where the command line does not say: sooner than the library's defaults, which are
/// made for seconds of trouble in days of service.
const SLOW_SOFT: usize = 64 << 10;
const SLOW_GRACE: Duration = Duration::from_secs(1);
/// And what its kernel takes for them: megabytes otherwise, for which a phase is too short.
const SLOW_LOWAT: u32 = 64 << 10;

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) pacing: Pacing,
    pub(crate) load: LoadArgs,
    /// Rounds of an undisturbed and a disturbed phase each. Nothing: one undisturbed phase.
    pub(crate) rounds: Option<u32>,
    /// Mixed only.
    pub(crate) bulk: Option<Bulk>,
    /// Mixed: `SO_RCVBUF` of the client's connections.
    pub(crate) receive_buffer: Option<usize>,
    /// Slow readers: so many of the peers.
    pub(crate) slow: u32,
    /// Topics only.
    pub(crate) subscriptions: Option<Subscriptions>,
    /// Receipts only.
    pub(crate) terms: Option<Terms>,
    /// Request only.
    pub(crate) requests: Option<Requests>,
    pub(crate) tuning: Tuning,
    pub(crate) generator: Generator,
}

/// How the generator of an open loop works, and how well it has to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Generator {
    /// Nothing: what the machine has room for.
    pub(crate) pace: Option<Pace>,
    /// How late it may be at p99. Nothing: see [`crate::report::Validity`].
    pub(crate) lag_bound: Option<Duration>,
}

/// What requests are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) deadline: Duration,
    /// So many may pass it in a run that counts as passed.
    pub(crate) timeouts_allowed: u64,
}

/// What a server in this process is told besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tuning {
    pub(crate) notsent_lowat: Option<u32>,
    pub(crate) slow_peers: SlowPeerArgs,
}

impl Spec {
    /// A workload with one phase.
    pub(crate) fn plain(kind: Kind, pacing: Pacing, load: LoadArgs) -> Self {
        Self {
            kind,
            pacing,
            load,
            rounds: None,
            bulk: None,
            receive_buffer: None,
            slow: 0,
            subscriptions: None,
            terms: None,
            requests: None,
            tuning: Tuning::default(),
            generator: Generator::default(),
        }
    }

    /// A workload at this rate, whatever it does by itself.
    pub(crate) fn at_rate(kind: Kind, rate: f64, schedule: &ScheduleArgs, load: &LoadArgs) -> Self {
        let spec = Self::plain(kind, Pacing::Open(schedule.offered(rate)), load.clone());
        Self { generator: schedule.generator(), ..spec }
    }

    /// A workload with one phase that is an open loop, unless it is told otherwise.
    pub(crate) fn open(kind: Kind, pacing: &PacingArgs, load: &LoadArgs) -> Self {
        let open = Pacing::Open(pacing.open.schedule.offered(pacing.open.rate.unwrap_or_else(|| default_rate(kind, load.peers))));
        let spec = Self::plain(kind, pacing.closed().unwrap_or(open), load.clone());
        Self { generator: pacing.open.schedule.generator(), ..spec }
    }

    /// A workload with one phase that is a closed loop, unless it is told a rate. Then `in_flight` has a default.
    fn closed(kind: Kind, pacing: &PacingArgs, load: &LoadArgs) -> Self {
        Self { generator: pacing.open.schedule.generator(), ..Self::plain(kind, pacing.rate_or_closed(), load.clone()) }
    }

    fn phased(kind: Kind, pacing: Pacing, mut load: LoadArgs, phases: &PhaseArgs) -> Self {
        let mut rounds = phases.rounds;
        if phases.quick {
            let (peers, duration, warmup) = QUICK;
            load.peers = load.peers.min(peers);
            (load.duration, load.warmup, rounds) = (duration, warmup, 1);
        }
        Self { rounds: Some(rounds), ..Self::plain(kind, pacing, load) }
    }

    /// Peers that read all the time, without the publisher.
    pub(crate) fn readers(&self) -> u32 {
        self.load.peers - self.slow
    }

    /// Connections of the engines that are measured.
    pub(crate) fn connections(&self) -> u32 {
        self.readers() + u32::from(self.kind.has_publisher())
    }

    /// Deliveries that so many sent messages lead to, to those that read all the time.
    pub(crate) fn deliveries(&self, sent: u64) -> u64 {
        match self.subscriptions {
            Some(subscriptions) => subscriptions.deliveries(self.load.peers, sent),
            None if self.kind.one_sends() => sent * u64::from(self.readers()),
            None if self.kind == Kind::AllToAll => sent * u64::from(self.load.peers - 1),
            None => sent,
        }
    }

    /// Bytes of the longest message.
    pub(crate) fn longest(&self) -> usize {
        self.bulk.map_or(0, |bulk| bulk.size).max(self.load.size)
    }

    /// How many messages of that length one peer may have under way, as far as that is known beforehand.
    pub(crate) fn under_way(&self) -> usize {
        match self.bulk {
            Some(bulk) => bulk.ahead as usize,
            // What all the others have under way comes to each.
            None if self.kind == Kind::AllToAll => self.pacing.in_flight().saturating_mul(self.load.peers as usize),
            None => self.pacing.in_flight(),
        }
    }

    /// Requests that one peer may have without an answer, and all peers together.
    pub(crate) fn unanswered(&self) -> Option<(usize, usize)> {
        let Requests { deadline, .. } = self.requests?;
        let peers = self.load.peers as usize;
        let of_each = match self.pacing.offered() {
            // A server that answers none has them all until their deadline, and some more until it is noticed.
            Some(offered) => (2.0 * offered.rate * deadline.as_secs_f64()) as usize / peers + 64,
            None => self.pacing.in_flight(),
        };
        Some((of_each, of_each.saturating_mul(peers)))
    }

    /// How long each phase is.
    pub(crate) fn phase(&self) -> Duration {
        self.rounds.map_or(self.load.duration, |rounds| self.load.duration / (2 * rounds))
    }
}

/// What a workload offers that is told no rate.
fn default_rate(kind: Kind, peers: u32) -> f64 {
    if kind.one_sends() || kind == Kind::AllToAll { RATE.min(DELIVERIES / f64::from(peers)) } else { RATE }
}

impl PacingArgs {
    /// Nothing where no closed loop is asked for.
    fn closed(&self) -> Option<Pacing> {
        (self.closed || self.in_flight.is_some()).then(|| Pacing::Closed { in_flight: self.in_flight.unwrap_or(1) })
    }

    fn rate_or_closed(&self) -> Pacing {
        let closed = Pacing::Closed { in_flight: self.in_flight.unwrap_or(1) };
        self.open.rate.map_or(closed, |rate| Pacing::Open(self.open.schedule.offered(rate)))
    }
}

impl From<&EchoArgs> for Spec {
    fn from(args: &EchoArgs) -> Self {
        Self::open(Kind::Echo, &args.pacing, &args.load)
    }
}

impl From<&FanoutArgs> for Spec {
    fn from(args: &FanoutArgs) -> Self {
        Self::open(Kind::Fanout, &args.pacing, &args.load)
    }
}

impl From<&TopicsArgs> for Spec {
    fn from(args: &TopicsArgs) -> Self {
        let subscriptions = Some(args.subscriptions());
        Self { subscriptions, ..Self::closed(Kind::Topics, &args.pacing, &args.load) }
    }
}

impl From<&ReceiptsArgs> for Spec {
    fn from(args: &ReceiptsArgs) -> Self {
        let terms = Some(Terms { quorum: args.quorum(), deadline: args.deadline });
        Self { terms, ..Self::closed(Kind::Receipts, &args.pacing, &args.load) }
    }
}

impl From<&AllToAllArgs> for Spec {
    fn from(args: &AllToAllArgs) -> Self {
        Self::open(Kind::AllToAll, &args.pacing, &args.load)
    }
}

impl From<&RequestArgs> for Spec {
    fn from(args: &RequestArgs) -> Self {
        let requests = Requests { deadline: args.deadline, timeouts_allowed: args.timeouts_allowed };
        let mut load = args.load.clone();
        // What was asked last may take until then.
        load.drain = load.drain.max(args.deadline + Duration::from_secs(1));
        Self { requests: Some(requests), ..Self::open(Kind::Request, &args.pacing, &load) }
    }
}

impl From<&FloodArgs> for Spec {
    fn from(args: &FloodArgs) -> Self {
        let open = &args.pacing.open;
        let pacing = match (open.rate, args.pacing.in_flight) {
            (Some(rate), _) => Pacing::Open(open.schedule.offered(rate)),
            (None, Some(in_flight)) => Pacing::Closed { in_flight },
            (None, None) => Pacing::Greedy,
        };
        Self { generator: open.schedule.generator(), ..Self::plain(Kind::Flood, pacing, args.load.clone()) }
    }
}

impl From<&MixedArgs> for Spec {
    fn from(args: &MixedArgs) -> Self {
        Self {
            bulk: Some(Bulk { size: args.bulk_size, ahead: args.bulk_ahead }),
            receive_buffer: args.receive_buffer,
            tuning: Tuning { notsent_lowat: args.notsent_lowat, ..Tuning::default() },
            generator: args.open.schedule.generator(),
            ..Self::phased(
                Kind::Mixed,
                Pacing::Open(args.open.schedule.offered(args.open.rate.unwrap_or(RATE))),
                args.load.clone(),
                &args.phases,
            )
        }
    }
}

impl From<&SlowReadersArgs> for Spec {
    fn from(args: &SlowReadersArgs) -> Self {
        let spec = Self::phased(Kind::SlowReaders, args.pacing.rate_or_closed(), args.load.clone(), &args.phases);
        let (mut slow_peers, mut notsent_lowat) = (args.slow_peers.clone(), args.notsent_lowat);
        if spec.load.target.is_empty() {
            // Those that read have as much waiting for them as is in flight.
            let soft = SLOW_SOFT.max(2 * spec.load.size.saturating_mul(spec.under_way()));
            slow_peers.outbox_soft.get_or_insert(soft.min(slow_peers.outbox_hard.unwrap_or(4 << 20)));
            slow_peers.soft_grace.get_or_insert(SLOW_GRACE);
            notsent_lowat.get_or_insert(SLOW_LOWAT);
        }
        // One at least reads.
        let slow = args.slow.min(spec.load.peers - 1);
        Self { slow, tuning: Tuning { notsent_lowat, slow_peers }, generator: args.pacing.open.schedule.generator(), ..spec }
    }
}
