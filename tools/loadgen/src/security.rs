//! Who is who, and who may connect: keys of servers and clients, targets, admission, and the limits that hold strangers back.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use corecast::{Address, Admission, Cipher, Config, Dial, Identity, NetworkSecret, NodeId, Noise, Rate, Security, Subnet};

use crate::cli::{EngineArgs, parse_address, parse_positive_seconds};
use crate::error::Error;
use crate::rates;
use crate::targets::Targets;

/// The server to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// Whom the client means. Plaintext needs nobody.
    pub(crate) node: Option<NodeId>,
}

impl Target {
    pub(crate) fn dial(&self) -> Dial {
        match self.node {
            Some(node) => Dial::node(node, self.address.clone()),
            None => Dial::to(self.address.clone()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "{node}@{}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// `NodeId@host:port` or `NodeId@unix:PATH`; in plaintext what follows the `@`.
pub(crate) fn parse_target(text: &str) -> Result<Target, String> {
    let (node, address) = match text.split_once('@') {
        // Paths may have one too, node ids no colon.
        Some((node, address)) if !node.contains(':') => (Some(node.parse().map_err(|error| format!("before the @: {error}"))?), address),
        _ => (None, text),
    };
    let address = parse_address(address)?;
    match address.socket_addr().map(|address| address.port()) {
        Some(0) => Err("nothing can listen on port 0: expected the port that the server names".into()),
        _ => Ok(Target { address, node }),
    }
}

/// What seals the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    #[default]
    AesGcm,
    ChachaPoly,
}

/// The keys of a client engine's peers, all from one number. They keep no secret: who knows the number has them all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identities {
    pub(crate) seed: u64,
    /// Which engine: each has keys of its own.
    pub(crate) engine: u64,
    /// Peers beyond so many share them again, on channels of their own.
    pub(crate) count: u64,
}

impl Identities {
    /// Those of the subscribers that stop reading: of no other engine.
    pub(crate) const SLOW: u64 = u32::MAX as u64;

    pub(crate) fn of_peer(self, channel: u16) -> Identity {
        self.derive(u64::from(channel) % self.count)
    }

    /// The engine's own, under which it dials nobody.
    pub(crate) fn of_engine(self) -> Identity {
        self.derive(1 << 16)
    }

    /// One of many that each have a key of their own.
    pub(crate) fn numbered(self, number: u64) -> Identity {
        self.derive((1 << 17) + number)
    }

    fn derive(self, number: u64) -> Identity {
        let number = self.engine << 32 | number;
        // SplitMix64 (Steele, Lea, Flood 2014), from a state of its own for each.
        let mut state = self.seed ^ number.wrapping_mul(0xD134_2543_DE82_EF95);
        let mut secret = [0; 32];
        for word in secret.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            word.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
        }
        Identity::from_secret(secret)
    }
}

/// Where a client engine's peers go, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) targets: Targets,
    /// The run's number of the engine's first peer.
    pub(crate) first: u32,
    pub(crate) identities: Identities,
}

impl Goal {
    /// All to one server, and of an engine that has all peers.
    pub(crate) fn to(target: Target, identities: Identities) -> Self {
        Self { targets: vec![target].into(), first: 0, identities }
    }

    /// The run's number of this peer of the engine.
    pub(crate) fn number(&self, channel: u16) -> u32 {
        self.first + u32::from(channel)
    }

    /// A reason that this peer failed for.
    pub(crate) fn explain(&self, channel: u16, reason: impl ToString) -> String {
        self.targets.explain(self.number(channel), reason)
    }

    /// One attempt.
    pub(crate) fn dial(&self, channel: u16) -> Dial {
        self.standing(channel).once()
    }

    /// Kept up by the library.
    pub(crate) fn standing(&self, channel: u16) -> Dial {
        let target = self.targets.of(self.number(channel));
        let dial = target.dial().channel(channel);
        // In plaintext every peer has its engine's name, and channels tell them apart.
        if target.node.is_some() { dial.identity(self.identities.of_peer(channel)) } else { dial }
    }
}

/// A configuration as both sides begin with it.
pub(crate) fn config(engine: &EngineArgs, identity: Identity, admission: Admission) -> Result<Config, Error> {
    let mut config = if engine.plaintext {
        let mut config = Config::plaintext();
        config.security = Security::Plaintext { allow_remote: engine.allow_remote };
        config
    } else {
        let mut noise = Noise::new(identity);
        noise.cipher = match engine.cipher {
            Suite::AesGcm => Cipher::AesGcm,
            Suite::ChachaPoly => Cipher::ChaChaPoly,
        };
        noise.secret = engine.network_secret_file.as_deref().map(NetworkSecret::load).transpose().map_err(Error::Identity)?;
        let mut config = Config::default();
        (config.security, config.admission) = (Security::Noise(noise), Some(admission));
        config
    };
    config.network = engine.network;
    // What is measured with a handler that has lost what it knew is worth nothing.
    config.restarts.most = 0;
    // Peers that share a key, or an engine's name in plaintext, have a channel each.
    config.limits.channels = 1 << 16;
    // It goes where it is sent, however often that fails: what it measures is the other side.
    config.breaker.failures = 0;
    if let Some(spin) = engine.spin() {
        config.io.spin = spin;
    }
    Ok(config)
}

/// The bytes of a network's secret, for attackers that know it: the library hands them to nobody. It has read the file, so it is one.
pub(crate) fn network_secret(path: &Path) -> Result<[u8; 32], Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let digits = text.split_whitespace().last().unwrap_or_default();
    // 64 hexadecimal digits, which is how a node id is written too.
    let secret: NodeId = digits.parse().map_err(|_| Error::Content { path: path.to_owned(), expected: "64 hexadecimal digits" })?;
    Ok(*secret.as_bytes())
}

/// Who a server is, and who may connect to it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AdmissionArgs {
    /// The file with the server's key, which is made if there is none. Without it: a key for this run.
    #[arg(long, value_name = "FILE", conflicts_with = "plaintext")]
    pub(crate) identity: Option<PathBuf>,
    /// Let every node in. This, --allow or --allow-file has to be said, except with --plaintext, where a node id proves nothing.
    #[arg(long, conflicts_with_all = ["allow", "allow_file"])]
    pub(crate) open: bool,
    /// Let this node in, and no other that is not named. Can be given more than once.
    #[arg(long, value_name = "NODE", conflicts_with = "plaintext")]
    pub(crate) allow: Vec<NodeId>,
    /// Let the nodes in that this file names, one a line.
    #[arg(long, value_name = "FILE", conflicts_with = "plaintext")]
    pub(crate) allow_file: Option<PathBuf>,
}

impl AdmissionArgs {
    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        match &self.identity {
            Some(path) => Identity::load_or_generate(path).map_err(Error::Identity),
            None => Identity::generate().map_err(|source| Error::System { what: "no randomness for a key", source }),
        }
    }

    pub(crate) fn admission(&self, plaintext: bool) -> Result<Admission, Error> {
        if self.open || plaintext {
            return Ok(Admission::Open);
        }
        let mut list = self.allow.clone();
        if let Some(path) = &self.allow_file {
            let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                list.push(line.parse().map_err(|_| Error::Content { path: path.clone(), expected: "a node id a line" })?);
            }
        } else if list.is_empty() {
            return Err(Error::NoAdmission);
        }
        Ok(Admission::AllowList(list))
    }
}

/// What holds strangers, and peers, within bounds. Without them: the library's own choices.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Connections in their handshake, in all. Without it: as many as file descriptors allow, at most 16384.
    #[arg(long, value_name = "N")]
    pub(crate) max_half_open: Option<usize>,
    /// Channels that a node may have. Without it: all of them, since the peers of a run may share keys.
    #[arg(long, value_name = "N")]
    channels: Option<usize>,
    /// Connections in their handshake, from one address.
    #[arg(long, value_name = "N")]
    half_open_per_ip: Option<usize>,
    /// Handshakes that an address may begin: so many a second, or so many a second and at once.
    #[arg(long, value_name = "R[:BURST]", value_parser = parse_rate_limit)]
    handshakes_per_ip: Option<Rate>,
    /// The same for a /24 or /48.
    #[arg(long, value_name = "R[:BURST]", value_parser = parse_rate_limit)]
    handshakes_per_subnet: Option<Rate>,
    /// Accepted connections from one address.
    #[arg(long, value_name = "N")]
    peers_per_ip: Option<usize>,
    /// The same for a /24 or /48.
    #[arg(long, value_name = "N")]
    peers_per_subnet: Option<usize>,
    /// Addresses and subnets that are remembered.
    #[arg(long, value_name = "N")]
    address_table: Option<usize>,
    /// A subnet, such as 127.0.0.0/8, for which the limits by address do not hold. Can be given more than once.
    #[arg(long, value_name = "SUBNET")]
    exempt: Vec<Subnet>,
    /// Steps of handshakes that a turn computes.
    #[arg(long, value_name = "N")]
    handshakes_per_turn: Option<usize>,
    /// Connections that a turn accepts.
    #[arg(long, value_name = "N")]
    accepts_per_turn: Option<usize>,
    /// A handshake, whole, in seconds.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds)]
    handshake_timeout: Option<Duration>,
    /// A frame or message that has begun, besides the time that its length takes, in seconds.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds)]
    partial_timeout: Option<Duration>,
    /// A ping after so much silence, in seconds.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds)]
    keepalive_interval: Option<Duration>,
    /// Cut off after so much silence, in seconds.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds)]
    keepalive_timeout: Option<Duration>,
    /// Pings that a peer may send: so many a second, or so many a second and at once.
    #[arg(long, value_name = "R[:BURST]", value_parser = parse_rate_limit)]
    pings: Option<Rate>,
    /// What a shutdown gives the outboxes, in seconds.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds)]
    drain_timeout: Option<Duration>,
    /// The longest wait between two dials, in seconds.
    #[arg(long, value_name = "S", value_parser = parse_positive_seconds)]
    backoff_max: Option<Duration>,
    /// Memory for sends that are not written yet, in all, bytes.
    #[arg(long, value_name = "BYTES", value_parser = crate::cli::parse_bytes)]
    send_bytes: Option<usize>,
    /// Memory for messages that have not arrived whole, of each core, bytes.
    #[arg(long, value_name = "BYTES", value_parser = crate::cli::parse_bytes)]
    reassembly_bytes: Option<usize>,
    /// Where long messages are cut, bytes.
    #[arg(long, value_name = "BYTES", value_parser = crate::cli::parse_bytes)]
    fragment: Option<usize>,
    /// Most that is read from a peer in a turn, bytes.
    #[arg(long, value_name = "BYTES", value_parser = crate::cli::parse_bytes)]
    read_budget: Option<usize>,
    /// Most that is written to a peer in a turn, bytes.
    #[arg(long, value_name = "BYTES", value_parser = crate::cli::parse_bytes)]
    write_budget: Option<usize>,
    /// Peers that are written to before the core reads again.
    #[arg(long, value_name = "N")]
    flush_peers: Option<usize>,
}

impl LimitArgs {
    /// What is said here is taken as it is; the library says what is wrong with it.
    pub(crate) fn apply(&self, config: &mut Config) {
        fn set<T: Copy>(field: &mut T, value: Option<T>) {
            *field = value.unwrap_or(*field);
        }
        let addresses = &mut config.addresses;
        set(&mut addresses.half_open_per_ip, self.half_open_per_ip);
        set(&mut addresses.handshakes_per_ip, self.handshakes_per_ip);
        set(&mut addresses.handshakes_per_subnet, self.handshakes_per_subnet);
        set(&mut addresses.peers_per_ip, self.peers_per_ip);
        set(&mut addresses.peers_per_subnet, self.peers_per_subnet);
        set(&mut addresses.table, self.address_table);
        addresses.exempt.extend_from_slice(&self.exempt);
        set(&mut config.limits.max_half_open, self.max_half_open);
        set(&mut config.limits.channels, self.channels);
        set(&mut config.limits.send_bytes, self.send_bytes);
        set(&mut config.limits.reassembly_bytes, self.reassembly_bytes);
        set(&mut config.limits.fragment, self.fragment);
        set(&mut config.timeouts.handshake, self.handshake_timeout);
        set(&mut config.timeouts.partial, self.partial_timeout);
        set(&mut config.timeouts.drain, self.drain_timeout);
        set(&mut config.keepalive.interval, self.keepalive_interval);
        set(&mut config.keepalive.timeout, self.keepalive_timeout);
        set(&mut config.keepalive.max_pings_per_second, self.pings.map(|rate| rate.per_second));
        set(&mut config.keepalive.ping_burst, self.pings.map(|rate| rate.burst));
        set(&mut config.backoff.max, self.backoff_max);
        set(&mut config.io.handshakes, self.handshakes_per_turn);
        set(&mut config.io.accepts, self.accepts_per_turn);
        set(&mut config.io.read_budget, self.read_budget);
        set(&mut config.io.write_budget, self.write_budget);
        set(&mut config.io.flush_peers, self.flush_peers);
    }
}

/// The limits on strangers and on what peers send that are in force, in a line.
pub(crate) fn describe(config: &Config) -> String {
    let addresses = &config.addresses;
    let who = match (&config.security, &config.admission) {
        (Security::Plaintext { .. }, _) => "PLAINTEXT, everybody".to_owned(),
        (_, Some(Admission::AllowList(list))) => format!("{} nodes", list.len()),
        _ => "every node".to_owned(),
    };
    let exempt: Vec<String> = addresses.exempt.iter().map(Subnet::to_string).collect();
    let rate = |rate: Rate| format!("{}/s (burst {})", rate.per_second, rate.burst);
    format!(
        "admitted: {who}; at most {} peers and {} half-open; per address {} half-open, {} handshakes, {} peers; \
         per subnet {} handshakes, {} peers; exempt: {}",
        config.limits.max_peers,
        config.limits.max_half_open,
        addresses.half_open_per_ip,
        rate(addresses.handshakes_per_ip),
        addresses.peers_per_ip,
        rate(addresses.handshakes_per_subnet),
        addresses.peers_per_subnet,
        if exempt.is_empty() { "nobody".to_owned() } else { exempt.join(", ") },
    ) + &rates::describe(config)
}

pub(crate) fn parse_rate_limit(text: &str) -> Result<Rate, String> {
    let (per_second, burst) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u32>().ok().filter(|&number| number > 0);
    match (number(per_second), number(burst)) {
        (Some(per_second), Some(burst)) => Ok(Rate { per_second, burst }),
        _ => Err("expected a number a second, such as 4, or with a burst, such as 4:16".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let node = Identity::from_secret([1; 32]).node_id();
        let target = parse_target(&format!("{node}@127.0.0.1:7000")).unwrap();
        assert_eq!((target.node, target.address.socket_addr().map(|address| address.port())), (Some(node), Some(7000)));
        assert_eq!(target.to_string(), format!("{node}@127.0.0.1:7000"));
        assert_eq!(parse_target("127.0.0.1:7000").unwrap().node, None);
        let target = parse_target(&format!("{node}@unix:/run/a@b")).unwrap();
        assert_eq!((target.node, target.address), (Some(node), Address::unix("/run/a@b").unwrap()));
        assert_eq!(parse_target("unix:/run/a@b").unwrap().to_string(), "unix:/run/a@b");
        for bad in ["127.0.0.1:0", "ab@127.0.0.1:1", "@127.0.0.1:1", ""] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_come_from_the_seed_and_are_shared_beyond_their_number() {
        let identities = Identities { seed: 7, engine: 0, count: 3 };
        let names: Vec<NodeId> = (0..3).map(|channel| identities.of_peer(channel).node_id()).collect();
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
        assert_eq!(identities.of_peer(4).node_id(), names[1]);
        let other = Identities { engine: 1, ..identities };
        assert_ne!(other.of_peer(0).node_id(), names[0]);
        assert_ne!(Identities { seed: 8, ..identities }.of_peer(0).node_id(), names[0]);
        assert_ne!(identities.of_engine().node_id(), other.of_engine().node_id());
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate_limit("4:16"), Ok(Rate { per_second: 4, burst: 16 }));
        assert_eq!(parse_rate_limit("4"), Ok(Rate { per_second: 4, burst: 4 }));
        assert!(parse_rate_limit("0").is_err() && parse_rate_limit("4:").is_err() && parse_rate_limit("x").is_err());
    }
}
