//! `reconnect-storm`: all peers are cut off at once, and come back by themselves: how long it takes, how many handshakes a second that is,
//! what is refused meanwhile, and what a peer that was not cut off notices.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::parse_positive_seconds;
use crate::clock;
use crate::crowd::{Bystander, Crowd, CrowdArgs, EVERY, GLANCE, Return, ServerProcess, Trips, wait_until};
use crate::error::Error;
use crate::machine::Machine;
use crate::output::{self, JsonSink};
use crate::probe::Counters;
use crate::report::{Latency, group, percentile_text, reasons_text, row, time};
use crate::serve::Stop;

/// `--quick`: peers at most, quiet time, one round.
const QUICK: (u32, Duration) = (100, Duration::from_millis(300));
/// Part of a second for which the most handshakes are looked for.
const BUSIEST: u64 = 100_000_000;
/// After a round, for the last messages of the bystander.
const SETTLE: Duration = Duration::from_secs(2);

/// Who cuts the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cut {
    /// The peers end them, all at once.
    Client,
    /// The server's process is killed, and started again at once.
    Server,
}

/// Cuts all peers off at once, and measures how they come back.
#[derive(Clone, Debug, Args)]
pub(crate) struct StormArgs {
    /// Peers. There is one more, the bystander.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    peers: u32,
    /// Who cuts them off. With `server` the bystander is cut off too.
    #[arg(long, value_enum, default_value = "client")]
    cut: Cut,
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long the bystander is measured before each, in seconds.
    #[arg(long, value_name = "S", default_value = "1", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    quiet: Duration,
    /// How long all may take to come back, in seconds. Who has not come then fails the run.
    #[arg(long, value_name = "S", default_value = "60", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    patience: Duration,
    /// Each peer has an address of its own, 200 of them in a subnet, and the server holds them to its limits by address. Without it all
    /// come from one address, which the server that is started exempts.
    #[arg(long)]
    pub(crate) spread: bool,
    /// The peers' shortest wait for the next attempt, in seconds. Without it: the library's own choice.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    backoff_min: Option<Duration>,
    /// Their longest.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    backoff_max: Option<Duration>,
    /// So many failures in a row open a peer's circuit breaker. Without it: there is none.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    breaker_failures: Option<u32>,
    /// How long the breaker is open at first, in seconds. Without it: the library's own choice.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds, requires = "breaker_failures")]
    breaker_cool_down: Option<Duration>,
    /// One round with 100 peers at most: whether it works.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,
}

impl StormArgs {
    /// The options of the server that is started, where one is.
    pub(crate) fn server_args(&self) -> Vec<String> {
        self.crowd.server_args(self.peers, !self.spread)
    }

    /// What makes no sense together.
    pub(crate) fn check(&self) -> Result<(), String> {
        let address = self.crowd.target.as_ref().map_or(&self.crowd.listen, |target| &target.address);
        if self.cut == Cut::Server && self.crowd.target.is_some() {
            return Err("--cut server: only a server that is started for the run can be killed: leave out --target".into());
        }
        if self.spread && address.socket_addr().is_none_or(|address| !address.ip().is_loopback() || address.is_ipv6()) {
            return Err(format!("--spread: the peers' addresses are in 127.0.0.0/8, from which nobody gets to {address}"));
        }
        Ok(())
    }

    fn tune(&self, config: &mut corecast::Config) {
        let backoff = &mut config.backoff;
        backoff.min = self.backoff_min.unwrap_or(backoff.min);
        // What is said is not to be refused because of what nobody has said.
        backoff.max = self.backoff_max.unwrap_or(backoff.max.max(backoff.min));
        if let Some(failures) = self.breaker_failures {
            let breaker = &mut config.breaker;
            breaker.failures = failures;
            breaker.cool_down = self.breaker_cool_down.unwrap_or(breaker.cool_down);
            breaker.max_cool_down = breaker.max_cool_down.max(breaker.cool_down);
            breaker.targets = breaker.targets.max(self.peers as usize);
        }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    schema: &'static str,
    workload: &'static str,
    target: String,
    peers: u32,
    cut: Cut,
    spread: bool,
    encrypted: bool,
    /// How long the peers took the first time, some at a time.
    connect_s: f64,
    rounds: Vec<Round>,
    interrupted: bool,
    passed: bool,
    machine: Machine,
}

/// One storm. Times are from the cut.
#[derive(Debug, Serialize)]
struct Round {
    /// Peers that came back.
    back: u64,
    /// When the last one was gone.
    gone_s: f64,
    /// When peers were back, of those that were.
    back_ns: Option<Latency>,
    first_back_s: f64,
    /// Nothing where some have not come.
    all_back_s: Option<f64>,
    /// Peers that came back by all that time, and in the busiest tenth of a second.
    handshakes_per_s: f64,
    handshakes_per_s_peak: f64,
    /// Peers that had come back and were cut off again.
    relapses: u64,
    /// Why attempts failed, as the peers saw it.
    failures: BTreeMap<String, u64>,
    /// What the server counted meanwhile: connections, handshakes, refusals.
    server: Counters,
    bystander: Standing,
}

/// What the bystander noticed.
#[derive(Debug, Serialize)]
struct Standing {
    quiet_ns: Option<Latency>,
    storm_ns: Option<Latency>,
    sent: u64,
    delivered: u64,
    /// Messages that were due while it had no connection.
    unsent: u64,
    /// How often its connection ended.
    ended: u64,
    duplicated: u64,
    reordered: u64,
    corrupt: u64,
}

impl Standing {
    fn of(quiet: &Trips, storm: &Trips) -> Self {
        let sum = |field: fn(&Trips) -> u64| field(quiet) + field(storm);
        Self {
            quiet_ns: Latency::of(&quiet.latency),
            storm_ns: Latency::of(&storm.latency),
            sent: sum(|trips| trips.sent),
            delivered: sum(|trips| trips.tally.delivered),
            unsent: sum(|trips| trips.unsent),
            ended: sum(|trips| trips.ended),
            duplicated: sum(|trips| trips.tally.duplicated),
            reordered: sum(|trips| trips.tally.reordered),
            corrupt: sum(|trips| trips.tally.corrupt),
        }
    }

    /// What it was sent came once, in order and undamaged; and, where it was not to be cut off, all of it.
    fn passed(&self, cut: Cut) -> bool {
        let undisturbed = (self.ended, self.unsent, self.delivered) == (0, 0, self.sent);
        self.delivered > 0 && [self.duplicated, self.reordered, self.corrupt] == [0; 3] && (cut == Cut::Server || undisturbed)
    }
}

impl Round {
    fn of(seen: Return, peers: u32, server: Counters, bystander: Standing) -> Self {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let back = seen.back_ns.len() as u64;
        let (first, last) = (seen.back_ns.first().copied().unwrap_or(0), seen.back_ns.last().copied().unwrap_or(0));
        Self {
            back,
            gone_s: seconds(seen.gone_ns),
            back_ns: percentiles(&seen.back_ns),
            first_back_s: seconds(first),
            all_back_s: (back == u64::from(peers)).then(|| seconds(last)),
            handshakes_per_s: crate::outcome::per_second(back, last),
            handshakes_per_s_peak: crate::outcome::per_second(busiest(&seen.back_ns), BUSIEST),
            relapses: seen.relapses,
            failures: seen.failures,
            server,
            bystander,
        }
    }

    fn passed(&self, cut: Cut) -> bool {
        self.all_back_s.is_some() && self.bystander.passed(cut)
    }
}

/// Of sorted times.
fn percentiles(sorted: &[u64]) -> Option<Latency> {
    let at = |part: f64| sorted[((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len()) - 1];
    (!sorted.is_empty()).then(|| Latency::new([at(0.5), at(0.9), at(0.99), at(0.999), at(1.0)]))
}

/// How many of these sorted times are in the part of a second that has most of them.
fn busiest(sorted: &[u64]) -> u64 {
    let mut first = 0;
    let most = sorted.iter().enumerate().map(|(at, time)| {
        while sorted[first] + BUSIEST <= *time {
            first += 1;
        }
        at + 1 - first
    });
    most.max().unwrap_or(0) as u64
}

pub(crate) fn main(args: &StormArgs) -> Result<(), Error> {
    let stop = Stop::install()?;
    let json = JsonSink::open_some(args.crowd.json.as_ref())?;
    let mut args = args.clone();
    if args.quick {
        (args.peers, args.quiet, args.rounds) = (args.peers.min(QUICK.0), QUICK.1, 1);
    }
    let figures = run(&args, &stop)?;
    match json {
        Some(sink) if sink.is_stdout() => sink.write(&figures)?,
        sink => {
            output::print(&figures)?;
            sink.map_or(Ok(()), |sink| sink.write(&figures))?;
        }
    }
    if figures.passed { Ok(()) } else { Err(Error::Verification) }
}

/// All that takes part.
struct Storm<'a> {
    args: &'a StormArgs,
    server: Option<ServerProcess>,
    crowd: Crowd,
    bystander: Bystander,
}

fn run(args: &StormArgs, stop: &Stop) -> Result<Figures, Error> {
    CrowdArgs::check_descriptors(args.peers)?;
    let (server, target) = args.crowd.server(args.peers, !args.spread)?;
    let bystander = args.crowd.bystander(&target)?;
    bystander.check_mode()?;
    let connecting = Instant::now();
    let crowd = args.crowd.gather(&target, args.peers, args.spread, stop, |config| args.tune(config))?;
    let connect_s = connecting.elapsed().as_secs_f64();
    let mut storm = Storm { args, server, crowd, bystander };
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        if stop.requested() {
            break;
        }
        let round = storm.round(stop)?;
        let over = round.all_back_s.is_none();
        rounds.push(round);
        if over {
            break;
        }
    }
    storm.crowd.shutdown();
    storm.bystander.shutdown();
    Ok(Figures {
        schema: "corecast-loadgen-storm/1",
        workload: "reconnect-storm",
        target: args.crowd.target.as_ref().map_or_else(|| "a process of its own".to_owned(), ToString::to_string),
        peers: args.peers,
        cut: args.cut,
        spread: args.spread,
        encrypted: !args.crowd.engine.plaintext,
        connect_s,
        interrupted: stop.requested(),
        passed: !rounds.is_empty() && rounds.iter().all(|round| round.passed(args.cut)),
        rounds,
        machine: Machine::describe(),
    })
}

impl Storm<'_> {
    fn round(&mut self, stop: &Stop) -> Result<Round, Error> {
        drop(self.bystander.trips()?);
        self.bystander.send(true);
        wait_until(Instant::now() + self.args.quiet, || stop.requested());
        let (before, quiet) = (self.bystander.counters()?, self.bystander.trips()?);
        self.crowd.begin_round(clock::now_ns())?;
        let deadline = Instant::now() + self.args.patience;
        let before = match (self.args.cut, &mut self.server) {
            (Cut::Server, Some(server)) => {
                server.restart()?;
                // A new one counts from zero.
                Counters::new()
            }
            _ => {
                self.crowd.cut();
                before
            }
        };
        wait_until(deadline, || stop.requested() || self.crowd.awaited() == 0 && self.bystander.is_connected());
        let seen = self.crowd.report()?;
        self.bystander.send(false);
        let settled = Instant::now() + SETTLE;
        wait_until(settled, || self.bystander.under_way() == 0);
        // The last timer may be one message after that.
        std::thread::sleep(GLANCE);
        wait_until(settled, || self.bystander.under_way() == 0);
        let (storm, after) = (self.bystander.trips()?, self.bystander.counters()?);
        Ok(Round::of(seen, self.args.peers, more(&before, &after), Standing::of(&quiet, &storm)))
    }
}

/// What the server has counted since, of those that come: connections, handshakes, refusals.
fn more(before: &Counters, after: &Counters) -> Counters {
    let tells = |name: &str| {
        ["accepted", "established", "half_open_evicted", "accept_pauses", "accept_errors"].contains(&name)
            || name.starts_with("refused_")
            || name.starts_with("handshake")
    };
    let since = |(name, count): (&String, &u64)| (name.clone(), count.saturating_sub(before.get(name).copied().unwrap_or(0)));
    after.iter().filter(|(name, _)| tells(name)).map(since).filter(|(_, more)| *more > 0).collect()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interrupted = if self.interrupted { " (interrupted)" } else { "" };
        let how = if self.encrypted { "encrypted" } else { "in plaintext" };
        let by = match self.cut {
            Cut::Client => "the peers",
            Cut::Server => "the server's restart",
        };
        let from = if self.spread { ", each from an address of its own" } else { "" };
        writeln!(f, "reconnect-storm: {} peers, {how}, cut off by {by}{from}{interrupted}", group(u64::from(self.peers)))?;
        row(f, "connected", &format!("in {:.2} s at first, some at a time", self.connect_s))?;
        for (number, round) in self.rounds.iter().enumerate() {
            writeln!(f, "  round {}", number + 1)?;
            round.fmt(f)?;
        }
        let end = if self.passed { "everybody came back" } else { "FAILED" };
        row(f, "verified", end)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all_back_s.map_or_else(|| "NOT ALL came back".to_owned(), |all| format!("all back after {all:.3} s"));
        row(f, "back", &format!("{}: {all}; the last was gone after {:.3} s", group(self.back), self.gone_s))?;
        self.back_ns.map_or(Ok(()), |back| row(f, "", &percentile_text(&back)))?;
        let rates = (group(self.handshakes_per_s as u64), group(self.handshakes_per_s_peak as u64));
        row(f, "handshakes", &format!("{}/s over all, {}/s in the busiest tenth of a second", rates.0, rates.1))?;
        if !self.failures.is_empty() {
            row(f, "failed", reasons_text(&self.failures).trim_start_matches("; "))?;
        }
        if self.relapses > 0 {
            row(f, "relapses", &format!("{} had come back and were cut off again", group(self.relapses)))?;
        }
        let counted: Vec<_> = self.server.iter().map(|(name, count)| format!("{name} {count}")).collect();
        row(f, "server says", &counted.join(", "))?;
        let Standing { quiet_ns, storm_ns, sent, delivered, unsent, ended, .. } = &self.bystander;
        for (name, latency) in [("bystander", quiet_ns), ("in the storm", storm_ns)] {
            latency.map_or(Ok(()), |latency| row(f, name, &percentile_text(&latency)))?;
        }
        if *ended > 0 || *unsent > 0 || delivered < sent {
            let away = time(unsent * EVERY.as_nanos() as u64);
            row(f, "", &format!("cut off {ended} times, away for {away}, {} of {} messages came back", group(*delivered), group(*sent)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ranked_and_the_busiest_tenth_of_a_second_is_found() {
        let times: Vec<u64> = (1..=100).map(|tenth| tenth * 10_000_000).collect();
        let Latency { p50, p90, p99, p999, max } = percentiles(&times).unwrap();
        assert_eq!([p50, p90, p99, p999, max].map(|time| time / 10_000_000), [50, 90, 99, 100, 100]);
        assert_eq!((busiest(&times), busiest(&[]), busiest(&[7])), (10, 0, 1));
        assert_eq!(busiest(&[0, 1, BUSIEST, BUSIEST + 1, BUSIEST + 2]), 3);
        assert!(percentiles(&[]).is_none());
    }

    #[test]
    fn only_what_says_something_of_comers_is_told() {
        let counters = |list: &[(&str, u64)]| list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Counters>();
        let before = counters(&[("accepted", 2), ("refused_ip_rate", 1), ("turns", 9)]);
        let after = counters(&[("accepted", 5), ("refused_ip_rate", 1), ("handshake_timeout", 4), ("turns", 10)]);
        assert_eq!(more(&before, &after), counters(&[("accepted", 3), ("handshake_timeout", 4)]));
    }
}
