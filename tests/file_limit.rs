//! Engines that need more files than the process may open.
//!
//! Set-up: a process of its own, whose `RLIMIT_NOFILE` is lowered. Claim: the soft limit is raised to what an engine needs, which it
//! says; where the hard limit is in the way, the engine does not start, says how many it needs and how many there may be, and leaves
//! nothing open.

mod common;

use common::{loopback, open_files};
use corecast::{Config, Context, Engine, Handler, Message, PeerId, StartError, Warning};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

struct Quiet;

impl Handler for Quiet {
    type Command = ();

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {}
}

fn limit_files(soft: u64, hard: Option<u64>) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: hard }).unwrap();
}

/// Needs 64 more.
fn config(peers: usize, half_open: usize) -> Config {
    let mut config = loopback();
    config.limits.max_peers = peers;
    config.limits.max_half_open = half_open;
    config
}

fn warnings(config: Config) -> Vec<Warning> {
    let engine = Engine::start(config, |_| Quiet).unwrap();
    // What else there is to say of the host is not of the files.
    let warnings = engine.warnings().iter().filter(|warning| matches!(warning, Warning::FileLimitRaised { .. })).cloned().collect();
    engine.shutdown();
    warnings
}

#[test]
fn the_limit_is_raised_as_far_as_it_may_be_and_then_the_engine_refuses() {
    let hard = getrlimit(Resource::Nofile).maximum;
    limit_files(200, hard);
    assert_eq!(warnings(config(100, 36)), [], "200 are enough");
    assert_eq!(getrlimit(Resource::Nofile).current, Some(200));
    let raised = warnings(config(300, 64));
    assert_eq!(raised, [Warning::FileLimitRaised { from: 200, to: 428 }]);
    assert!(raised[0].to_string().contains("from 200"), "{}", raised[0]);
    assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: Some(428), maximum: hard });

    limit_files(300, Some(428));
    let open = open_files();
    for (peers, half_open, needed) in [(300, 65, 429), (1024, 256, 1344)] {
        match Engine::start(config(peers, half_open), |_| Quiet).unwrap_err() {
            error @ StartError::FileLimit { limit: 428, needed: named } if named == needed => {
                assert!(error.to_string().starts_with("limits.max_peers and limits.max_half_open need"), "{error}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((open_files(), getrlimit(Resource::Nofile).current), (open, Some(300)), "nothing was changed");
    assert_eq!(warnings(config(300, 64)), [Warning::FileLimitRaised { from: 300, to: 428 }]);
}
