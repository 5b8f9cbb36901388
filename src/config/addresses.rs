//! What each source address may ask of the engine before anybody has proved anything.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::{ConfigError, at_least, within};

/// Limits on connections that are accepted, by where they come from. For IPv6 an "address" is a /64: what one customer is given.
///
/// They hold one stranger back from taking the places of all others; whom a connection belongs to is not known yet when they are applied.
///
/// A connection to a Unix-domain socket has no address, and none of these limits applies to it: who may come there at all is said by the
/// file's mode ([`crate::Io::unix_mode`]). The limits on the whole engine hold for it as for all others ([`crate::Limits::max_half_open`],
/// `max_peers`, [`crate::Timeouts::handshake`]). All connections that come that way count as one subnet when somebody has to give way, so
/// that neither they nor those from the network can push the others out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Addresses {
    /// Connections in their handshake, per address. Default 8. One more is closed at once (`refused_ip_half_open`).
    pub half_open_per_ip: usize,
    /// Handshakes that an address may begin. Default 4 a second, 16 at once: a node that restarts with some channels. More are closed at
    /// once (`refused_ip_rate`).
    pub handshakes_per_ip: Rate,
    /// Handshakes that a subnet, /24 or /48, may begin. Default 64 a second, 64 at once. More are closed at once (`refused_subnet_rate`).
    pub handshakes_per_subnet: Rate,
    /// Accepted connections, in their handshake or established, per address. Default 64. One more is closed at once (`refused_ip_peers`).
    pub peers_per_ip: usize,
    /// The same per subnet. Default 256. One more is closed at once (`refused_subnet_peers`).
    pub peers_per_subnet: usize,
    /// Addresses and subnets that are remembered at a time. Default 65,536, about 150 bytes each, 240 while the table grows. Those about
    /// which there is nothing to remember any more make room; where all have something, a connection from a new one is closed at once
    /// (`refused_table`).
    pub table: usize,
    /// Where these limits do not apply (those of [`crate::Limits`] do), and half-open connections do not give way to others. Default:
    /// nowhere, not even on loopback. Behind a proxy or a load balancer all connections have its address: that belongs here.
    pub exempt: Vec<Subnet>,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            half_open_per_ip: 8,
            handshakes_per_ip: Rate { per_second: 4, burst: 16 },
            handshakes_per_subnet: Rate { per_second: 64, burst: 64 },
            peers_per_ip: 64,
            peers_per_subnet: 256,
            table: 1 << 16,
            exempt: Vec::new(),
        }
    }
}

impl Addresses {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        at_least("addresses.half_open_per_ip", self.half_open_per_ip, 1, "at least 1")?;
        at_least("addresses.peers_per_ip", self.peers_per_ip, 1, "at least 1")?;
        at_least("addresses.peers_per_subnet", self.peers_per_subnet, 1, "at least 1")?;
        for (field, rate) in
            [("addresses.handshakes_per_ip", self.handshakes_per_ip), ("addresses.handshakes_per_subnet", self.handshakes_per_subnet)]
        {
            at_least(field, rate.per_second.min(rate.burst) as usize, 1, "at least 1 a second, and 1 at once")?;
        }
        within("addresses.table", self.table, 16, 1 << 24, "16 to 16777216 entries")?;
        within("addresses.exempt", self.exempt.len(), 0, 1024, "at most 1024 subnets")
    }
}

/// So many a second in the long run, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// A range of IP addresses, as in `10.0.0.0/8` or `2001:db8::/32`. An address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The addresses that have their first `prefix` bits in common with `address`; `None` where it has not so many. IPv4 mapped into
    /// IPv6 (`::ffff:10.0.0.0/104`) is what it is, `10.0.0.0/8`; a shorter prefix of it, which would be all of IPv4 and more, is `None`.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let canonical = address.to_canonical();
        let prefix = if canonical.is_ipv4() && address.is_ipv6() { prefix.checked_sub(96)? } else { prefix };
        let most = if canonical.is_ipv4() { 32 } else { 128 };
        (prefix <= most).then_some(Self { address: canonical, prefix })
    }

    /// Whether `address` is in it. An IPv4 address that is mapped into IPv6 counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_ipv4() != self.address.is_ipv4() {
            return false;
        }
        let offset = if address.is_ipv4() { 96 } else { 0 };
        let fixed = u32::from(self.prefix) + offset;
        let mask = u128::MAX.checked_shl(128 - fixed).unwrap_or(0);
        (bits(address) ^ bits(self.address)) & mask == 0
    }
}

fn bits(address: IpAddr) -> u128 {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    u128::from(address)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The text was not an address, or not an address, a slash and a number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSubnetError;

impl fmt::Display for ParseSubnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an IP address, a slash and a number of bits, as in 10.0.0.0/8")
    }
}

impl std::error::Error for ParseSubnetError {}

impl FromStr for Subnet {
    type Err = ParseSubnetError;

    fn from_str(text: &str) -> Result<Self, ParseSubnetError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| ParseSubnetError)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseSubnetError)?;
        let prefix = prefix.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
        Self::new(address, prefix).ok_or(ParseSubnetError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_the_addresses_that_share_its_prefix() {
        let has = |subnet: &str, address: &str| subnet.parse::<Subnet>().unwrap().contains(address.parse().unwrap());
        assert!(has("127.0.0.0/8", "127.66.1.2"));
        assert!(has("127.0.0.0/8", "::ffff:127.66.1.2"));
        assert!(!has("127.0.0.0/8", "128.0.0.1"));
        assert!(!has("127.0.0.0/8", "::1"));
        assert!(has("127.1.0.0/16", "127.1.255.9") && !has("127.1.0.0/16", "127.2.0.0"));
        assert!(has("10.0.0.1", "10.0.0.1") && !has("10.0.0.1", "10.0.0.2"));
        assert!(has("0.0.0.0/0", "9.9.9.9") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("::/0", "2001:db8::1") && !has("::/0", "9.9.9.9"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1") && !has("2001:db8::/32", "2001:db9::1"));
        // However it is written.
        assert!(has("::ffff:10.0.0.0/104", "10.9.9.9") && !has("::ffff:10.0.0.0/104", "11.0.0.0"));
        assert!(has("::ffff:10.0.0.1", "10.0.0.1") && !has("::ffff:10.0.0.1", "10.0.0.2"));
    }

    #[test]
    fn a_subnet_that_is_none_is_refused() {
        for text in ["", "127.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/", "name/8", "::ffff:0.0.0.0/95"] {
            assert_eq!(text.parse::<Subnet>(), Err(ParseSubnetError), "{text}");
        }
        assert_eq!("10.0.0.0/8".parse::<Subnet>().unwrap().to_string(), "10.0.0.0/8");
    }
}
