//! Whom to attack, from where, and how much.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::noise::{Keys, Setup, Suite};
use crate::wire::Hello;

/// How a network speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Not encrypted.
    Plaintext,
    /// Encrypted.
    Noise {
        /// With this.
        suite: Suite,
        /// The network's secret, if it has one.
        secret: Option<[u8; 32]>,
    },
}

/// An engine that listens.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// Its id, which is its key when encrypted.
    pub node: [u8; 32],
    /// Its network's id.
    pub network: [u8; 32],
    /// How it speaks.
    pub protection: Protection,
}

impl Target {
    /// A target that speaks plaintext, on network zero.
    #[must_use]
    pub fn plaintext(address: SocketAddr) -> Self {
        Self { address, node: [0; 32], network: [0; 32], protection: Protection::Plaintext }
    }

    /// A target that speaks Noise with AES-GCM, on network zero without a secret.
    #[must_use]
    pub fn secure(address: SocketAddr, node: [u8; 32]) -> Self {
        Self { address, node, network: [0; 32], protection: Protection::Noise { suite: Suite::AesGcm, secret: None } }
    }

    /// What a dialler with these keys begins an honest encrypted handshake with. In plaintext, which has none, it is that of suite 1.
    #[must_use]
    pub fn setup(&self, keys: Keys) -> Setup {
        let (suite, secret) = match self.protection {
            Protection::Plaintext => (Suite::AesGcm, None),
            Protection::Noise { suite, secret } => (suite, secret),
        };
        Setup::new(suite, self.network, secret, keys)
    }

    /// The first four bytes of whoever speaks to it.
    #[must_use]
    pub fn magic(&self) -> [u8; 4] {
        if self.is_secure() { crate::wire::MAGIC_NOISE } else { crate::wire::MAGIC_PLAINTEXT }
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.protection != Protection::Plaintext
    }
}

/// Who a raw peer is, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// Its address.
    pub source: IpAddr,
    /// Its keys. In plaintext its name is their public half.
    pub keys: Keys,
    /// What it says of itself, besides network and name.
    pub hello: Hello,
}

impl Who {
    /// The peer of this number, always the same.
    #[must_use]
    pub fn numbered(number: u64, source: IpAddr) -> Self {
        Self { source, keys: Keys::numbered(number), hello: Hello::node(0) }
    }

    /// Its hello on the target's network.
    #[must_use]
    pub fn hello(&self, target: &Target) -> Hello {
        Hello { network: target.network, node: self.keys.public, ..self.hello }
    }
}

/// Source addresses, handed out in turn to all clones: so many hosts in each of so many /24 of 127.66.0.0/16.
#[derive(Clone, Debug)]
pub struct Sources {
    prefix: [u8; 2],
    subnets: u8,
    hosts: u8,
    next: Arc<AtomicU32>,
}

impl Sources {
    /// So many hosts in each of so many subnets of 127.66.0.0/16.
    #[must_use]
    pub fn new(subnets: u8, hosts: u8) -> Self {
        Self::within([127, 66], subnets, hosts)
    }

    /// The same in another /16.
    #[must_use]
    pub fn within(prefix: [u8; 2], subnets: u8, hosts: u8) -> Self {
        assert!(subnets > 0 && hosts > 0 && hosts < 255);
        Self { prefix, subnets, hosts, next: Arc::default() }
    }

    /// One address only.
    #[must_use]
    pub fn single() -> Self {
        Self::new(1, 1)
    }

    /// As many as 127.66.0.0/16 has, so that no limit by address is met.
    #[must_use]
    pub fn everywhere() -> Self {
        Self::new(255, 250)
    }

    /// The next one: first one host of each subnet, then the next host.
    #[must_use]
    pub fn next(&self) -> IpAddr {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (subnets, hosts) = (u32::from(self.subnets), u32::from(self.hosts));
        let [a, b] = self.prefix;
        let subnet = (number % subnets) as u8;
        let host = (number / subnets % hosts) as u8 + 1;
        Ipv4Addr::new(a, b, subnet, host).into()
    }
}

/// How much of an attack.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Connections, all at once where the attack holds them, else one after another.
    pub connections: usize,
    /// What each of them does, in the attack's own unit.
    pub count: u64,
    /// How long connections are held, or waited for.
    pub duration: Duration,
    /// Where they come from.
    pub sources: Sources,
}

impl Scale {
    /// So many connections from as many addresses, that do their thing so often, and wait five seconds for what comes of it.
    #[must_use]
    pub fn new(connections: usize, count: u64) -> Self {
        Self { connections, count, duration: Duration::from_secs(5), sources: Sources::everywhere() }
    }

    /// The same for so long.
    #[must_use]
    pub fn lasting(self, duration: Duration) -> Self {
        Self { duration, ..self }
    }

    /// The same from these addresses.
    #[must_use]
    pub fn from(self, sources: Sources) -> Self {
        Self { sources, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_go_through_the_subnets_first() {
        let sources = Sources::new(2, 2);
        let drawn: Vec<String> = (0..5).map(|_| sources.next().to_string()).collect();
        assert_eq!(drawn, ["127.66.0.1", "127.66.1.1", "127.66.0.2", "127.66.1.2", "127.66.0.1"]);
    }
}
