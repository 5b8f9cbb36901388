//! One run of one workload, as the main thread drives it: start the engines, connect every peer, warm up, measure, stop, drain, add up.

mod others;
mod phases;
mod timeline;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use corecast::{Admission, Config, Cores, Counter, Engine, Handle, Identity, Lane, RequestError, Spin};

use crate::arrivals::{Arrivals, Schedule};
use crate::cli::{CpuList, LoadArgs, ViewArgs};
use crate::client::{Command, Common, Core, Driver, Outcome, PROBE_TIMEOUT, Share};
use crate::error::Error;
use crate::flamegraph::Flamegraph;
use crate::live::Live;
use crate::machine::{Machine, SPARE_DESCRIPTORS, allowed_cpus, raise_descriptor_limit, usable_cpus};
use crate::measure::Condition;
use crate::outcome::{Samples, Total};
use crate::output::{self, JsonSink};
use crate::pacer::{Pace, Pacer, Sender};
use crate::probe::{Question, Sample};
use crate::progress::{Cohort, Line, Progress};
use crate::report::{Figures, Report, SCHEMA, Setup, Validity, reasons_text};
use crate::security::{self, Goal, Identities, Target};
use crate::serve::Stop;
use crate::server::Server;
use crate::spec::Spec;
use crate::targets::Targets;
use crate::workload::{AllToAll, Echo, Fanout, Flood, Kind, Mixed, Pacing, Receipts, Request, SlowReaders, Topics, Workload};
use crate::{clock, html, limits, payload};
pub(crate) use phases::Phases;
use timeline::Timeline;

/// Channels of one node: a client engine has no more peers than this at one server.
const CHANNELS: u32 = 1 << 16;
/// How long a client's core that spins looks for work before it sleeps all the same.
const SPIN: Duration = Duration::from_secs(1);
/// How often the main thread looks.
const GLANCE: Duration = Duration::from_millis(10);
/// What connecting may take where the command line does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// And what it may take there while nothing at all answers.
const NOBODY_THERE: Duration = Duration::from_secs(5);
/// After so long it is said why connecting takes so long.
const EXPLAIN_AFTER: Duration = Duration::from_secs(1);
/// From `Begin` to the first message that is due: time for the command to reach every core.
const LEAD_NS: u64 = 20_000_000;

/// Runs a workload, prints its table, writes its JSON.
pub(crate) fn main(spec: Spec) -> Result<(), Error> {
    let stop = Stop::install()?;
    let LoadArgs { json, hgrm, hdr_log, view: ViewArgs { html, .. }, .. } = &spec.load;
    let [json, hgrm, log, html] = [json, hgrm, hdr_log, html].map(|path| JsonSink::open_some(path.as_ref()));
    let (json, hgrm, log, html) = (json?, hgrm?, log?, html?);
    let report = execute(&spec, &stop)?;
    if ![&json, &hgrm, &log, &html].into_iter().flatten().any(JsonSink::is_stdout) {
        output::print(&report)?;
    }
    if let Some(sink) = json {
        sink.write(&report)?;
    }
    if let Some(sink) = hgrm {
        sink.write_text(&report.hgrm())?;
    }
    if let Some(sink) = log {
        sink.write_text(&report.hdr_log())?;
    }
    if let Some(sink) = html {
        sink.write_text(&html::page(std::slice::from_ref(&report)))?;
    }
    if report.passed() { Ok(()) } else { Err(Error::Verification) }
}

/// Runs a workload to its report.
pub(crate) fn execute(spec: &Spec, stop: &Stop) -> Result<Report, Error> {
    spec.load.target.iter().try_for_each(|target| spec.load.engine.check_address(&target.address))?;
    if spec.load.target.len() > 1 && spec.kind.needs_one_server() {
        return Err(Error::SeveralTargets { workload: spec.kind.name() });
    }
    check_descriptors(spec)?;
    let flamegraph = Flamegraph::prepare_some(spec.load.view.flamegraph.as_ref())?;
    let placement = Placement::choose(&spec.load);
    let (server, targets) = if spec.load.target.is_empty() {
        let server = start_server(spec, &placement)?;
        let target = server.target();
        (Some(server), vec![target])
    } else {
        (None, spec.load.target.clone())
    };
    let result = Run::start(spec, &placement, targets.into(), server.as_ref().map(Server::handle)).and_then(|mut run| {
        run.flamegraph = flamegraph;
        let mut result = run.drive(spec, &placement, stop);
        if let (Ok(report), Some(server)) = (&mut result, &server) {
            // Before the client says goodbye, which is counted too.
            report.server_counters = Some(server.counters());
        }
        run.shutdown();
        result
    });
    if let Some(server) = server {
        server.shutdown();
    }
    result
}

/// Which processors each side is pinned to. Empty: not pinned.
struct Placement {
    server: Vec<usize>,
    client: Vec<usize>,
    /// For the pacer alone, where all others are pinned elsewhere.
    spare: Option<usize>,
    /// Whether there are more processors than cores of either side.
    room: bool,
}

impl Placement {
    /// As the command line says. What it leaves open: with the server in this process, one processor each, where there are two.
    fn choose(load: &LoadArgs) -> Self {
        let allowed = allowed_cpus();
        let (server, client) = Self::of_cores(load, &allowed);
        // A target on this machine needs a processor too, and nobody knows which.
        let others =
            server.len().max(usize::from(load.target.is_empty()) + load.target.iter().filter(|target| target.address.is_local()).count());
        let pinned = !server.is_empty() && !client.is_empty();
        let spare = allowed.iter().copied().find(|cpu| pinned && !server.contains(cpu) && !client.contains(cpu));
        let room = usable_cpus() > others + client.len().max(1);
        Self { server, client, spare, room }
    }

    /// How the pacer waits.
    fn pace(&self, spec: &Spec) -> Pace {
        spec.generator.pace.unwrap_or(if self.room { Pace::Spin } else { Pace::Sleep })
    }

    /// Of the server, which is in another process where there is a target, and of the client.
    fn of_cores(load: &LoadArgs, allowed: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let list = |list: &Option<CpuList>| list.as_ref().map(|list| list.0.clone());
        let (server, client) = (list(&load.server_cores), list(&load.client_cores));
        if !load.target.is_empty() {
            return (Vec::new(), client.unwrap_or_default());
        }
        let first_not_in = |taken: &[usize]| allowed.iter().copied().find(|cpu| !taken.contains(cpu)).into_iter().collect::<Vec<_>>();
        match (server, client) {
            (Some(server), Some(client)) => (server, client),
            (Some(server), None) => (server.clone(), first_not_in(&server)),
            (None, Some(client)) => (first_not_in(&client), client),
            (None, None) => match allowed[..] {
                [server, client, ..] => (vec![server], vec![client]),
                _ => (Vec::new(), Vec::new()),
            },
        }
    }
}

fn check_descriptors(spec: &Spec) -> Result<(), Error> {
    let limit = raise_descriptor_limit();
    // Slow readers come again before the server has let go of the last ones.
    let connections = u64::from(spec.connections() + 2 * spec.slow);
    let embedded = spec.load.target.is_empty();
    let needed = connections * (1 + u64::from(embedded)) + SPARE_DESCRIPTORS;
    if needed <= limit { Ok(()) } else { Err(Error::Descriptors { needed, limit, embedded }) }
}

/// A client engine's keys, and its configuration.
fn client(load: &LoadArgs, run_id: u32, engine: u64, engines: usize) -> Result<(Identities, Config), Error> {
    let count = load.identities.unwrap_or(u64::from(u32::MAX)).div_ceil(engines as u64);
    let seed = load.seed.unwrap_or(u64::from(run_id) << 16 | u64::from(std::process::id()));
    let identities = Identities { seed, engine, count };
    Ok((identities, security::config(&load.engine, identities.of_engine(), Admission::Open)?))
}

fn start_server(spec: &Spec, placement: &Placement) -> Result<Server, Error> {
    let identity = Identity::generate().map_err(|source| Error::System { what: "no randomness for a key", source })?;
    // Everybody comes from this process, and from one address.
    let mut config = security::config(&spec.load.engine, identity, Admission::Open)?.listen(SocketAddr::from(([127, 0, 0, 1], 0)).into());
    config.addresses.exempt = limits::loopback();
    if !placement.server.is_empty() {
        config.cores = Cores::Pinned(placement.server.clone());
    }
    let connections = (spec.connections() + 2 * spec.slow) as usize;
    limits::fit_messages(&mut config.limits, spec.longest(), spec.under_way());
    limits::fit_peers(&mut config.limits, connections, spec.longest(), spec.under_way());
    limits::fit_acks(&mut config.acks, &config.limits, spec.longest(), spec.under_way());
    config.io.notsent_lowat = spec.tuning.notsent_lowat;
    limits::cut_off(&mut config, &spec.tuning.slow_peers);
    Server::start(config, placement.server.len().max(1), spec.kind.server_mode())
}

/// How a run's peers are divided among its client engines.
fn shares(total: u32, wanted: usize) -> Vec<Share> {
    let engines = (wanted as u32).clamp(total.div_ceil(CHANNELS), total.max(1)).max(1);
    Share::split(total, engines as usize)
}

fn setup(spec: &Spec, placement: &Placement) -> Setup {
    let pinned = |cpus: &[usize]| (!cpus.is_empty()).then(|| cpus.to_vec());
    let in_flight = if let Pacing::Closed { in_flight } = spec.pacing { Some(in_flight) } else { None };
    let offered = spec.pacing.offered();
    Setup {
        workload: spec.kind.name().to_owned(),
        server: if spec.load.target.is_empty() { "embedded".into() } else { Targets::from(spec.load.target.clone()).to_string() },
        peers: spec.load.peers,
        size: spec.load.size,
        in_flight,
        rate: offered.map(|offered| offered.rate),
        arrivals: offered.map(|offered| offered.arrivals.to_string()),
        arrival_seed: offered.filter(|offered| offered.arrivals == Arrivals::Poisson).map(|offered| offered.seed),
        pace: offered.map(|_| placement.pace(spec)),
        plaintext: spec.load.engine.plaintext,
        server_cores: pinned(&placement.server),
        client_cores: pinned(&placement.client),
        spin_us: spec.load.engine.spin_us,
    }
}

/// The client side of a run.
struct Run {
    run_id: u32,
    engines: Vec<Engine<Command>>,
    handles: Vec<Handle<Command>>,
    cohort: Cohort,
    targets: Targets,
    shares: Vec<Share>,
    connections: u64,
    /// The subscribers that stop reading, where some do.
    slow: Option<SlowReaders>,
    line: Line,
    /// What is measured, second by second.
    timeline: Timeline,
    flamegraph: Option<Flamegraph>,
}

impl Run {
    fn start(spec: &Spec, placement: &Placement, targets: Targets, server: Option<Handle<()>>) -> Result<Self, Error> {
        let total = spec.connections();
        let shares = shares(total, placement.client.len());
        let cohort = Cohort(shares.iter().map(|_| Arc::default()).collect());
        let common = Arc::new(Common { handles: OnceLock::new() });
        let run_id = clock::now_ns() as u32 ^ std::process::id().rotate_left(16);
        let spin = spec.pacing.offered().is_some_and(|_| placement.pace(spec) == Pace::Spin);
        let mut engines = Vec::new();
        for (share, progress) in shares.iter().zip(&cohort.0) {
            let cpu = placement.client.get(share.engine % placement.client.len().max(1)).copied();
            let (share, common, progress, targets) = (*share, Arc::clone(&common), Arc::clone(progress), targets.clone());
            engines.push(start_client(spec, cpu, Parts { share, common, progress, run_id, targets, spin })?);
        }
        let handles: Vec<_> = engines.iter().map(Engine::handle).collect();
        let _ = common.handles.set(handles.clone());
        for warning in engines.iter().flat_map(Engine::warnings) {
            output::remark(format_args!("client: warning: {warning}"));
        }
        let slow = if spec.slow > 0 { Some(start_slow(spec, placement, targets.of(0).clone(), run_id)?) } else { None };
        let timeline = Timeline::new(spec, handles.clone(), server);
        let live = if spec.load.view.live { Live::open(setup(spec, placement).to_string()) } else { None };
        let line = Line::new(spec.kind.name(), live);
        let connections = u64::from(total);
        Ok(Self { run_id, engines, handles, cohort, targets, shares, connections, slow, line, timeline, flamegraph: None })
    }

    fn drive(&mut self, spec: &Spec, placement: &Placement, stop: &Stop) -> Result<Report, Error> {
        let connecting = Instant::now();
        self.connect(spec, stop)?;
        self.connect_slow(spec, stop)?;
        if stop.requested() {
            return Err(Error::Interrupted);
        }
        let connect_s = connecting.elapsed().as_secs_f64();
        if spec.load.peers >= 1000 {
            self.line.clear();
            let connected = self.connections + u64::from(spec.slow);
            output::remark(format_args!("{connected} peers connected in {connect_s:.2} s"));
        }
        self.check_mode(spec)?;
        let other_peers = self.meet_others(spec, stop)?;
        log::info!("{} peers are ready after {connect_s:.3} s", self.connections);
        let at = clock::now_ns() + LEAD_NS;
        self.tell_all(|| Command::Begin { at });
        let pacer = self.start_pacer(spec, placement, at)?;
        self.wait("warm-up", spec, spec.load.warmup, stop, |_| false);
        let started_at_s = clock::wall_s();
        self.flamegraph.as_mut().map_or(Ok(()), Flamegraph::start)?;
        let phases = match spec.rounds {
            None => self.measure(spec, stop),
            Some(rounds) => self.alternate(spec, rounds, stop)?,
        };
        self.flamegraph.iter_mut().for_each(Flamegraph::stop);
        drop(pacer);
        self.tell_all(|| Command::Stop);
        self.drain(spec, stop);
        let outcomes = self.collect()?;
        self.line.clear();
        self.flamegraph.take().map_or(Ok(()), |flamegraph| flamegraph.finish(setup(spec, placement).to_string()))?;
        let mut total = Total::of(outcomes);
        let (slices, intervals) = self.timeline.finish();
        total.add_slices(slices);
        if let Some(slow) = &self.slow {
            total.add_slow(slow.outcome()?);
        }
        total.late_answers = self.handles.iter().map(|handle| handle.stats().get(Counter::LateResponses)).sum();
        let (verified, figures) = (total.verified(|sent| spec.deliveries(sent)), Figures::of(spec, &total, &phases));
        Ok(Report {
            schema: SCHEMA.to_owned(),
            run_id: self.run_id,
            command: std::env::args().collect(),
            merged: Vec::new(),
            setup: setup(spec, placement),
            started_at_s,
            connect_s,
            connect_failures: std::mem::take(&mut total.failures),
            validity: Validity::of(spec, &verified, &figures),
            verified,
            other_peers,
            figures,
            targets: total.targets(&self.targets, spec, &phases),
            intervals,
            interrupted: stop.requested(),
            server_counters: None,
            machine: Machine::describe(),
        })
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for handle in &self.handles {
            self.tell(handle, &command);
        }
    }

    /// The inbox may be full of announcements for a moment. It is not worth more than a moment: a core that does not empty it hangs, and
    /// [`Run::collect`] says so.
    fn tell(&self, handle: &Handle<Command>, command: impl Fn() -> Command) {
        for _ in 0..100 {
            if handle.post(0, command()).is_ok() {
                return;
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Until the server has answered every peer.
    fn connect(&mut self, spec: &Spec, stop: &Stop) -> Result<(), Error> {
        let started = Instant::now();
        let given_up_after = spec.load.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let mut explained = false;
        loop {
            let ready = self.cohort.sum(|progress| &progress.ready) - self.cohort.sum(|progress| &progress.ended);
            if !explained && started.elapsed() >= EXPLAIN_AFTER {
                explained = self.explain_waiting(ready);
            }
            self.line.show("connecting", ready, "peers");
            if ready == self.connections {
                self.line.note(None);
                return Ok(());
            }
            if stop.requested() {
                return Err(Error::Interrupted);
            }
            let (waited, fatal) = (started.elapsed(), self.cohort.sum(|progress| &progress.fatal) > 0);
            // Whoever says how long to wait may be about to start the server.
            let hopeless = spec.load.connect_timeout.is_none() && waited >= NOBODY_THERE && self.cohort.reached() < self.targets.len();
            if fatal || hopeless && self.cohort.failure().is_some() || waited >= given_up_after {
                let mut reasons = BTreeMap::new();
                for outcome in self.collect()? {
                    for (reason, count) in outcome.failures.into_iter().chain(outcome.endings) {
                        *reasons.entry(reason).or_default() += count;
                    }
                }
                self.line.clear();
                return Err(Error::Connect {
                    target: self.targets.to_string(),
                    ready,
                    wanted: self.connections,
                    waited,
                    reasons: reasons_text(&reasons),
                });
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Says why connecting takes so long, where that is known: on the line, which goes on saying it, or once. Returns whether it was once.
    fn explain_waiting(&mut self, ready: u64) -> bool {
        let Some(reason) = self.cohort.failure() else { return false };
        if self.line.on_terminal() {
            self.line.note(Some(reason));
            return false;
        }
        let (targets, wanted) = (&self.targets, self.connections);
        output::remark(format_args!("{ready} of {wanted} peers connected to {targets}, trying again: {reason}"));
        true
    }

    /// Asks one of the targets, through the first peer that goes there.
    fn probe(&self, target: usize, question: Question) -> Result<Vec<u8>, RequestError> {
        let (answer, answered) = mpsc::channel();
        let share = self.shares.iter().find(|share| share.contains(target as u32)).expect("there are as many peers as targets");
        let index = target - share.first as usize;
        self.tell(&self.handles[share.engine], || Command::Probe { index, question, answer: answer.clone() });
        drop(answer);
        match answered.recv_timeout(PROBE_TIMEOUT + Duration::from_secs(1)) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(RequestError::TimedOut),
        }
    }

    /// Of each target: nothing where it does not answer, or with something else.
    fn sample(&self, question: Question) -> Vec<Option<Sample>> {
        let of = |target| self.probe(target, question).ok().and_then(|body| Sample::decode(&body));
        (0..self.targets.len()).map(of).collect()
    }

    fn check_mode(&self, spec: &Spec) -> Result<(), Error> {
        for (index, target) in self.targets.iter().enumerate() {
            let body = self.probe(index, Question::Sample).map_err(|source| Error::Probe { target: target.clone(), source })?;
            let is = Sample::decode(&body).and_then(|sample| sample.mode()).ok_or_else(|| Error::NotALoadgen { target: target.clone() })?;
            let needed = spec.kind.server_mode();
            if is != needed {
                return Err(Error::WrongMode { target: target.clone(), is, needed });
            }
        }
        Ok(())
    }

    /// What each target said at the two ends of a phase. At the end, who has lost a peer may have lost the one that is asked through.
    fn samples(&self, before: Vec<Option<Sample>>) -> Samples {
        let after = if self.failed() { vec![None; before.len()] } else { self.sample(Question::Sample) };
        before.into_iter().zip(after).map(|(before, after)| [before, after]).collect()
    }

    fn start_pacer(&self, spec: &Spec, placement: &Placement, at: u64) -> Result<Option<Pacer>, Error> {
        let Some(offered) = spec.pacing.offered() else { return Ok(None) };
        // Only the first engine sends.
        let engines = if spec.kind.one_sends() { 1 } else { self.handles.len() };
        let sender = |engine: usize| {
            let share = Share { engine, engines, first: 0, count: 0, total: 0 };
            let (handle, progress) = (self.handles[engine].clone(), Arc::clone(&self.cohort.0[engine]));
            Sender { schedule: Schedule::new(&offered, at, &share), handle, progress }
        };
        Pacer::start(placement.pace(spec), placement.spare, (0..engines).map(sender).collect()).map(Some)
    }

    /// Whether a peer has ended that should not have.
    fn failed(&self) -> bool {
        self.cohort.sum(|progress| &progress.ended) > 0 || self.slow.as_ref().is_some_and(|slow| slow.ended() > 0)
    }

    /// Lets time pass until it is `done`, as long as there is a point in it: a run that has lost a peer has failed, and goes on to say so.
    fn wait(&mut self, phase: &str, spec: &Spec, duration: Duration, stop: &Stop, mut done: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + duration;
        while Instant::now() < until && !stop.requested() && !self.failed() && !done(self) {
            let counted = if spec.kind.counted_at_server() { self.sent() } else { self.received() };
            let unit = if spec.kind.counted_at_server() { "sent" } else { "delivered" };
            self.line.show_measured(phase, counted, unit, self.timeline.intervals());
            self.timeline.look();
            std::thread::sleep(GLANCE.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// One phase, with nothing that disturbs.
    fn measure(&mut self, spec: &Spec, stop: &Stop) -> Phases {
        // At both ends the server is asked after the client's window has turned: its window is as long as the client's, half a round
        // trip later.
        self.tell_all(|| Command::OpenWindow(Condition::Undisturbed));
        let before = self.sample(Question::SampleAndReset);
        self.timeline.begin(Condition::Undisturbed);
        self.wait("measuring", spec, spec.load.duration, stop, |_| false);
        self.tell_all(|| Command::CloseWindow);
        self.timeline.end();
        let mut phases = Phases::default();
        phases.samples[Condition::Undisturbed as usize].push(self.samples(before));
        phases
    }

    fn sent(&self) -> u64 {
        self.cohort.sum(|progress| &progress.sent)
    }

    fn received(&self) -> u64 {
        self.cohort.sum(|progress| &progress.received)
    }

    /// Until all that was sent has arrived, or the time is over.
    fn drain(&mut self, spec: &Spec, stop: &Stop) {
        let until = Instant::now() + spec.load.drain;
        let interrupted = stop.requested();
        // Twice, with a pause: a core that has not yet seen `Stop` may have sent one more meanwhile.
        let mut quiet = 0;
        while quiet < 2 && Instant::now() < until && (interrupted || !stop.requested()) {
            let (received, expected) = (self.received(), spec.deliveries(self.sent()));
            self.line.show_measured("draining", received, "delivered", self.timeline.intervals());
            let owed = self.cohort.sum(|progress| &progress.outstanding);
            let ended = received + self.cohort.sum(|progress| &progress.unanswered);
            quiet = if ended >= expected && owed == 0 { quiet + 1 } else { 0 };
            std::thread::sleep(GLANCE.min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn collect(&self) -> Result<Vec<Outcome>, Error> {
        let each = self.handles.iter().enumerate().map(|(engine, handle)| {
            let (answer, answered) = mpsc::channel();
            self.tell(handle, || Command::Report { answer: answer.clone() });
            drop(answer);
            answered.recv_timeout(PROBE_TIMEOUT).map_err(|_| Error::CoreSilent { engine })
        });
        each.collect()
    }

    fn shutdown(self) {
        // First, so that a server in this process, which is next, need not wait for those that do not read.
        if let Some(slow) = self.slow {
            slow.shutdown();
        }
        for engine in self.engines {
            engine.shutdown();
        }
    }
}

/// What a client engine is made of.
struct Parts {
    share: Share,
    common: Arc<Common>,
    progress: Arc<Progress>,
    run_id: u32,
    targets: Targets,
    /// Whether the core looks for work all the time, unless the command line says otherwise.
    spin: bool,
}

fn start_client(spec: &Spec, cpu: Option<usize>, parts: Parts) -> Result<Engine<Command>, Error> {
    let (identities, mut config) = client(&spec.load, parts.run_id, parts.share.engine as u64, parts.share.engines)?;
    if let Some(cpu) = cpu {
        config.cores = Cores::Pinned(vec![cpu]);
    }
    if parts.spin && spec.load.engine.spin_us.is_none() {
        config.io.spin = Spin { window: SPIN, forced: true };
    }
    config.io.socket_receive_buffer = spec.receive_buffer;
    let (peers, size, in_flight) = (parts.share.count as usize, spec.longest(), spec.under_way());
    limits::fit_messages(&mut config.limits, size, in_flight);
    limits::fit_peers(&mut config.limits, peers, size, in_flight);
    limits::fit_acks(&mut config.acks, &config.limits, size, in_flight);
    if let Some((of_each, of_all)) = spec.unanswered() {
        limits::fit_requests(&mut config.limits, of_each, of_all);
    }
    if spec.pacing == Pacing::Greedy {
        limits::fit_flood(&mut config.limits, peers, size);
    }
    // Every engine's word that a message has arrived everywhere goes to the first.
    config.limits.inbox_messages = (config.limits.inbox_messages + parts.share.engines * in_flight).min(1 << 24);
    let (kind, pacing, drain) = (spec.kind, spec.pacing, spec.load.drain.max(GLANCE));
    let (own_size, longest) = (spec.load.size, spec.longest());
    let goal = Goal { targets: parts.targets.clone(), first: parts.share.first, identities };
    let targets = parts.targets.len();
    let core = move || {
        let Parts { share, common, progress, run_id, .. } = &parts;
        let builder = payload::Builder::new(*run_id, own_size);
        Core::new(*share, Arc::clone(common), Arc::clone(progress), builder, longest, drain, pacing.offered().is_some()).to(targets)
    };
    match kind {
        Kind::AllToAll => start_engine(config, goal, core, move |core| AllToAll::new(pacing, core)),
        Kind::Request => {
            let deadline = spec.requests.expect("request has a deadline").deadline;
            start_engine(config, goal, core, move |core| Request::new(pacing, deadline, core.count()))
        }
        Kind::Echo => start_engine(config, goal, core, move |core| Echo::new(pacing, core.count())),
        Kind::Fanout | Kind::SlowReaders => start_engine(config, goal, core, move |core| Fanout::new(pacing, core)),
        Kind::Mixed => {
            let (bulk, offered) = (spec.bulk.expect("mixed has bulk"), spec.pacing.offered().expect("mixed has a rate"));
            start_engine(config, goal, move || core().in_lane(Lane::High), move |core| Mixed::new(offered, bulk, core.count()))
        }
        Kind::Topics => {
            let subscriptions = spec.subscriptions.expect("topics has subscriptions");
            start_engine(config, goal, core, move |core| Topics::new(pacing, subscriptions, core))
        }
        Kind::Receipts => {
            let terms = spec.terms.expect("receipts has terms");
            start_engine(config, goal, core, move |core| Receipts::new(pacing, terms, core))
        }
        Kind::Flood => start_engine(config, goal, core, move |core| Flood::new(pacing, core.count())),
    }
}

/// The subscribers that stop reading, on the first of the client's processors.
fn start_slow(spec: &Spec, placement: &Placement, target: Target, run_id: u32) -> Result<SlowReaders, Error> {
    let (identities, mut config) = client(&spec.load, run_id, Identities::SLOW, 1)?;
    if let Some(cpu) = placement.client.first() {
        config.cores = Cores::Pinned(vec![*cpu]);
    }
    limits::fit_messages(&mut config.limits, spec.load.size, 1);
    // Those that are renewed may still be closing.
    limits::fit_peers(&mut config.limits, 2 * spec.slow as usize, spec.load.size, 1);
    SlowReaders::start(config, Goal::to(target, identities), spec.slow, run_id, spec.load.size)
}

fn start_engine<W: Workload>(
    config: Config,
    goal: Goal,
    core: impl Fn() -> Core + Send + Sync + 'static,
    workload: impl Fn(&Core) -> W + Send + Sync + 'static,
) -> Result<Engine<Command>, Error> {
    let engine = Engine::start(config, move |_| {
        let core = core();
        let workload = workload(&core);
        Driver::new(core, workload, goal.clone())
    });
    engine.map_err(|source| Error::Start { what: "client", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_one_engine() {
        for (total, wanted, engines) in [(1, 0, 1), (10, 3, 3), (2, 8, 2), (65_536, 1, 1), (65_537, 1, 2), (1_000_000, 1, 16)] {
            let shares = shares(total, wanted);
            assert_eq!(shares.len(), engines);
            assert_eq!(shares.iter().map(|share| share.count).sum::<u32>(), total);
            assert!(shares.iter().all(|share| (1..=CHANNELS).contains(&share.count)));
            assert!(shares.windows(2).all(|pair| pair[0].first + pair[0].count == pair[1].first));
        }
    }
}
