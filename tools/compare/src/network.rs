//! The network that a comparison runs in: loopback, with which settings.
//!
//! Figures of TCP depend on what the machine's owner has set. Under BBR, which paces what it sends with a timer for each connection, bulk
//! over loopback was half as fast in the first second as under CUBIC, whoever served. So a run makes a network of its own, where it may,
//! with the settings that the kernel comes with.

use std::fmt;
use std::fs;

use clap::{Args, ValueEnum};

use crate::sys;

/// What the kernel comes with, since 2.6.19.
const USUAL: &str = "cubic";
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

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
    pub(crate) fn enter(self) -> Network {
        if self.network == Network::Machine {
            return Network::Machine;
        }
        if let Err(error) = sys::own_network() {
            eprintln!("corecast-compare: in the machine's network, with its settings, because it may have none of its own: {error}");
            return Network::Machine;
        }
        if let Err(error) = fs::write(CONGESTION_CONTROL, USUAL) {
            eprintln!("corecast-compare: the congestion control stays what it is, because {USUAL} cannot be had: {error}");
        }
        Network::Own
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
    use std::io;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_network_of_its_own_has_loopback_and_nothing_else() {
        let enter = || -> io::Result<Vec<String>> {
            sys::own_network()?;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            fs::write(CONGESTION_CONTROL, "reno").unwrap();
            assert_eq!(congestion_control().as_deref(), Some("reno"));
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
