//! The values of options: what is understood, and what is said of anything else.

use std::net::ToSocketAddrs;
use std::time::Duration;

use corecast::{Address, ParseAddressError};

use crate::payload::HEADER_LEN;

/// Processors, in the order they were named, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

pub(crate) fn parse_cpus(text: &str) -> Result<CpuList, String> {
    let number = |text: &str| {
        text.trim().parse::<usize>().map_err(|_| format!("`{text}` is no processor number; expected a list such as 0,2 or 0-3"))
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last || last >= 4096 {
            return Err(format!("`{part}` is no range of processors"));
        }
        cpus.extend(first..=last);
    }
    let mut seen = cpus.clone();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != cpus.len() {
        Err("a processor is named twice: two pinned cores on it would halve each other".into())
    } else {
        Ok(CpuList(cpus))
    }
}

pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|value| value.checked_mul(factor));
    bytes.ok_or_else(|| "expected a number of bytes, such as 64, 16k or 1M".to_owned())
}

pub(super) fn parse_lowat(text: &str) -> Result<u32, String> {
    let bytes = u32::try_from(parse_bytes(text)?).ok().filter(|bytes| (1..=1 << 30).contains(bytes));
    bytes.ok_or_else(|| "expected 1 byte to 1024M".into())
}

pub(super) fn parse_receive_buffer(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if (1 << 10..=1 << 30).contains(&bytes) { Ok(bytes) } else { Err("expected 1k to 1024M".into()) }
}

pub(super) fn parse_max_message(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if (1..=MAX_MESSAGE).contains(&bytes) { Ok(bytes) } else { Err("expected 1 byte to 16M".into()) }
}

/// The protocol's ceiling.
const MAX_MESSAGE: usize = 16 << 20;

pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if (HEADER_LEN..=MAX_MESSAGE).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("expected {HEADER_LEN} bytes to 16M: each message begins with its sequence number, time, sender and checksum"))
}

/// Of a name's addresses the first IPv4 one, otherwise the first: both sides choose the same.
pub(crate) fn parse_address(text: &str) -> Result<Address, String> {
    const EXPECTED: &str = "expected IP:port, host:port or unix:PATH, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000";
    match text.parse() {
        Ok(address) => return Ok(address),
        Err(error @ ParseAddressError::Unix(_)) => return Err(error.to_string()),
        Err(_) => {}
    }
    if !text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(EXPECTED.into());
    }
    let addresses: Vec<_> = text.to_socket_addrs().map_err(|error| format!("{error}; {EXPECTED}"))?.collect();
    let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied();
    address.map(Address::Tcp).ok_or_else(|| format!("the name has no address; {EXPECTED}"))
}

pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|value| (0.0..=86_400.0).contains(value));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, 0 to 86400, such as 5 or 0.5".into())
}

pub(crate) fn parse_positive_seconds(text: &str) -> Result<Duration, String> {
    let duration = parse_seconds(text)?;
    if duration >= Duration::from_millis(1) { Ok(duration) } else { Err("expected at least 0.001 seconds".into()) }
}

pub(super) fn parse_lag_bound(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|value| (1e-9..=3600.0).contains(value));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, 0.000000001 to 3600, such as 0.001".into())
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    // Well beyond what one process sends: what it cannot send it has to remember.
    let rate = text.parse::<f64>().ok().filter(|value| (0.001..=1e7).contains(value));
    rate.ok_or_else(|| "expected messages a second, over 0 and at most 10000000, such as 1000".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(parse_cpus("0,2"), Ok(CpuList(vec![0, 2])));
        assert_eq!(parse_cpus("4-6,1"), Ok(CpuList(vec![4, 5, 6, 1])));
        for bad in ["", "a", "1,1", "3-1", "0-2,1", "1,"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16k"), Ok(16 << 10));
        assert_eq!(parse_size("16M"), Ok(16 << 20));
        assert_eq!(parse_size("32"), Ok(32));
        for bad in ["31", "0", "17M", "-1", "x", "99999999999999999999", "18446744073709551615k"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(parse_address("127.0.0.1:0").map(|address| address.to_string()), Ok("127.0.0.1:0".into()));
        assert_eq!(parse_address("unix:/run/a:b"), Ok(Address::unix("/run/a:b").unwrap()));
        assert!(parse_address("[::1]:7000").is_ok_and(|address| address.to_string() == "[::1]:7000"));
        assert!(parse_address("localhost:7000").is_ok_and(|address| address.is_local() && address.to_string().ends_with(":7000")));
        for bad in ["", "nowhere", ":7000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1", "unix:"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_rates() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(parse_seconds("-1").is_err() && parse_seconds("nan").is_err() && parse_seconds("inf").is_err());
        assert!(parse_positive_seconds("0").is_err());
        assert!(parse_rate("0").is_err() && parse_rate("NaN").is_err());
    }
}
