//! Many peers of one server that do nothing but be there: what `idle` and `reconnect-storm` have in common.
//!
//! The server is a process of its own, whose memory and processor time are nobody else's: [`ServerProcess`]. The peers are one engine's:
//! [`Crowd`]. Beside them is one more peer, of an engine of its own, that asks the server questions and has messages returned: the
//! [`Bystander`].

mod bystander;
mod peers;
mod process;

use std::time::{Duration, Instant};

use clap::Args;
use corecast::{Address, Admission, Config, Identity, Spin};

use crate::cli::{EngineArgs, parse_address, parse_positive_seconds};
use crate::error::Error;
use crate::limits;
use crate::machine::{SPARE_DESCRIPTORS, raise_descriptor_limit};
use crate::report::reasons_text;
use crate::security::{self, Goal, Identities, Target, parse_target};
use crate::serve::Stop;
use crate::server::Mode;

pub(crate) use bystander::{Bystander, EVERY, Trips};
pub(crate) use peers::{Crowd, Return};
pub(crate) use process::ServerProcess;

/// How often the main thread looks.
pub(crate) const GLANCE: Duration = Duration::from_millis(5);
/// What one peer alone may take to connect.
const ALONE: Duration = Duration::from_secs(10);

/// What both workloads are told.
#[derive(Clone, Debug, Args)]
pub(crate) struct CrowdArgs {
    /// The server to load, as it says of itself: `serve --mode echo`, with room for the peers. Without it: a process of its own that is
    /// started for the run.
    #[arg(long, value_name = "NODE@ADDR", value_parser = parse_target)]
    pub(crate) target: Option<Target>,
    /// Where the server that is started listens: IP:port or unix:PATH.
    #[arg(long, value_name = "ADDR", value_parser = parse_address, default_value = "127.0.0.1:0", conflicts_with = "target")]
    pub(crate) listen: Address,
    /// How long all peers together may take to connect at the beginning, in seconds.
    #[arg(long, value_name = "S", default_value = "60", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) connect_timeout: Duration,
    /// Write the figures there as JSON (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// What the server that is started is told besides, after `--`: see `serve --help`.
    #[arg(last = true, value_name = "SERVE-OPTIONS", conflicts_with = "target")]
    pub(crate) server: Vec<String>,
}

impl CrowdArgs {
    /// The options of the server that is started, for so many peers. What the user says goes before what is said here.
    pub(crate) fn server_args(&self, peers: u32, exempt: bool) -> Vec<String> {
        let said = |names: &[&str]| {
            let is = |arg: &String, name: &str| arg == name || arg.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
            self.server.iter().any(|arg| names.iter().any(|name| is(arg, name)))
        };
        let mut args = vec!["--mode".to_owned(), Mode::Echo.to_string(), "--ends-with-parent".to_owned()];
        if !said(&["--max-peers"]) {
            // And the bystander, and room for those whose end the server has not noticed yet.
            args.extend(["--max-peers".to_owned(), (peers + peers / 8 + 16).to_string()]);
        }
        if !self.engine.plaintext && !said(&["--open", "--allow", "--allow-file"]) {
            args.push("--open".to_owned());
        }
        if exempt {
            args.extend(["--exempt".to_owned(), "127.0.0.0/8".to_owned()]);
        }
        args.extend(self.engine.to_args());
        args.extend(self.server.iter().cloned());
        args
    }

    /// The server to load, started where the command line names none.
    pub(crate) fn server(&self, peers: u32, exempt: bool) -> Result<(Option<ServerProcess>, Target), Error> {
        if let Some(target) = &self.target {
            self.engine.check_address(&target.address)?;
            return Ok((None, target.clone()));
        }
        self.engine.check_address(&self.listen)?;
        let server = ServerProcess::start(&self.listen, self.server_args(peers, exempt), self.engine.plaintext)?;
        let target = server.target().clone();
        Ok((Some(server), target))
    }

    /// Whether so many peers may be had here.
    pub(crate) fn check_descriptors(peers: u32) -> Result<(), Error> {
        let (limit, needed) = (raise_descriptor_limit(), u64::from(peers) + 2 * SPARE_DESCRIPTORS);
        if needed <= limit { Ok(()) } else { Err(Error::Descriptors { needed, limit, embedded: false }) }
    }

    /// The bystander, connected.
    pub(crate) fn bystander(&self, target: &Target) -> Result<Bystander, Error> {
        let identity = Identity::generate().map_err(|source| Error::System { what: "no randomness for a key", source })?;
        let bystander = Bystander::start(security::config(&self.engine, identity, Admission::Open)?, target)?;
        let started = Instant::now();
        // Alone it needs no time: who does not answer now is not there.
        if wait_until(started + self.connect_timeout.min(ALONE), || bystander.is_connected()) {
            return Ok(bystander);
        }
        let reasons = bystander.failure().map_or_else(String::new, |reason| format!("; {reason}"));
        bystander.shutdown();
        Err(Error::Connect { target: target.to_string(), ready: 0, wanted: 1, waited: started.elapsed(), reasons })
    }

    /// The peers, all of them connected. `tune` has the last word on their configuration.
    pub(crate) fn gather(
        &self,
        target: &Target,
        peers: u32,
        spread: bool,
        stop: &Stop,
        tune: impl FnOnce(&mut Config),
    ) -> Result<Crowd, Error> {
        let (goal, mut config) = self.goal(target, peers)?;
        tune(&mut config);
        let crowd = Crowd::start(config, goal, peers, spread)?;
        let started = Instant::now();
        let gathered = wait_until(started + self.connect_timeout, || crowd.all_present() || stop.requested());
        if crowd.all_present() {
            log::info!("{peers} peers are ready after {:.3} s", started.elapsed().as_secs_f64());
            return Ok(crowd);
        }
        let (ready, report) = (crowd.present(), crowd.report()?);
        crowd.shutdown();
        if gathered {
            return Err(Error::Interrupted);
        }
        let mut reasons = report.failures;
        report.endings.into_iter().for_each(|(reason, count)| *reasons.entry(reason).or_default() += count);
        let (target, reasons) = (target.to_string(), reasons_text(&reasons));
        Err(Error::Connect { target, ready, wanted: peers.into(), waited: started.elapsed(), reasons })
    }

    /// Where the peers go, and their engine's configuration.
    fn goal(&self, target: &Target, peers: u32) -> Result<(Goal, Config), Error> {
        let seed = crate::clock::now_ns() ^ u64::from(std::process::id()) << 32;
        let identities = Identities { seed, engine: 0, count: u64::from(u32::MAX) };
        let mut config = security::config(&self.engine, identities.of_engine(), Admission::Open)?;
        // Those that have said goodbye may still be closing when they come again: for those there is room as far as there are files.
        let files = raise_descriptor_limit().saturating_sub(2 * SPARE_DESCRIPTORS) as usize;
        limits::fit_peers(&mut config.limits, (2 * peers as usize).min(files).max(peers as usize), 64, 1);
        // Nobody comes to this engine.
        config.limits.max_half_open = 1;
        // They and the server share the machine: who looks for work instead of sleeping takes it from the other.
        config.io.spin = self.engine.spin().unwrap_or(Spin { window: Duration::ZERO, forced: false });
        Ok((Goal::to(target.clone(), identities), config))
    }
}

/// Until it is `done`, at most until `deadline`. Returns whether it was.
pub(crate) fn wait_until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(GLANCE);
    }
    true
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        crowd: CrowdArgs,
    }

    #[test]
    fn what_the_user_says_to_the_server_is_not_said_twice() {
        let args = |line: &[&str]| Alone::parse_from([&["x"], line].concat()).crowd.server_args(100, true);
        let plain = args(&[]);
        assert!(plain.join(" ").contains("--max-peers 128 --open --exempt 127.0.0.0/8"), "{plain:?}");
        let own = args(&["--", "--max-peers=5", "--allow", "ab"]);
        assert_eq!(own.iter().filter(|arg| arg.starts_with("--max-peers")).count(), 1, "{own:?}");
        assert!(!own.contains(&"--open".to_owned()), "{own:?}");
        assert!(!args(&["--plaintext"]).contains(&"--open".to_owned()));
        assert!(args(&["--plaintext"]).contains(&"--plaintext".to_owned()));
    }
}
