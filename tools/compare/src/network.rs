//! The network that a comparison runs in: loopback, with which settings.
//!
//! Figures of TCP depend on what the machine's owner has set. Under BBR, which paces what it sends with a timer for each connection, bulk
//! over loopback was half as fast in the first second as under CUBIC, whoever served. So a run makes a network of its own, where it may,
//! with the settings that the kernel comes with.

use std::fmt;
use std::fs;
use std::io;

use clap::{Args, ValueEnum};

use crate::sys;

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// What a new network has from the machine's, and what the kernel comes with: CUBIC since 2.6.19, and buffers as on a machine with memory
/// enough.
const USUAL: [(&str, &str); 3] = [
    (CONGESTION_CONTROL, "cubic"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 6291456"),
    ("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 4194304"),
];

/// Where the servers listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// A network namespace of the run's own, with the settings that the kernel comes with; the machine's where that is not allowed
    Own,
    /// The machine's, with its settings
    Machine,
}

#[derive(Clone, Copy, Args)]
pub(crate) struct NetworkArgs {
    /// The network that servers and client run in
    #[arg(long, value_enum, default_value = "own")]
    network: Network,
}

impl NetworkArgs {
    /// Goes there, and says where that is. To be called while there is no other thread.
    pub(crate) fn enter(self) -> io::Result<Network> {
        if self.network == Network::Machine {
            return Ok(Network::Machine);
        }
        if let Err(error) = sys::own_network() {
            eprintln!("corecast-compare: in the machine's network, with its settings, because it may have none of its own: {error}");
            return Ok(Network::Machine);
        }
        // There is no way back from here.
        sys::loopback_up().map_err(|error| {
            io::Error::new(error.kind(), format!("no loopback interface in a network of its own: {error}; --network machine does without"))
        })?;
        for (file, usual) in USUAL {
            if let Err(error) = fs::write(file, usual) {
                eprintln!("corecast-compare: {file} stays what it is, because it cannot be set to {usual:?}: {error}");
            }
        }
        Ok(Network::Own)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "a network of its own",
            Self::Machine => "the machine's network",
        })
    }
}

/// How TCP decides when to send, in the network that this thread is in.
pub(crate) fn congestion_control() -> Option<String> {
    Some(fs::read_to_string(CONGESTION_CONTROL).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_network_of_its_own_has_loopback_and_nothing_else() {
        let enter = || -> io::Result<Vec<String>> {
            sys::own_network()?;
            sys::loopback_up()?;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            for (file, usual) in USUAL {
                fs::write(file, usual).unwrap();
                assert_eq!(fs::read_to_string(file).unwrap().split_ascii_whitespace().collect::<Vec<_>>().join(" "), usual);
            }
            let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            Ok(devices.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
        };
        let outside = congestion_control();
        match std::thread::spawn(enter).join().unwrap() {
            Ok(devices) => {
                assert!(devices.contains(&"lo".to_owned()) && !devices.iter().any(|name| name.starts_with("eth")), "{devices:?}")
            }
            // Who is not root has a user namespace too, which a process with more than one thread does not get.
            Err(error) => assert!(matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput), "{error}"),
        }
        assert_eq!(congestion_control(), outside, "other threads are where they were");
    }
}
