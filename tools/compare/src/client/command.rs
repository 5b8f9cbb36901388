//! `corecast-compare client`: one run of the client, from its command line to its figures.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::meter::Window;
use super::{ClientConfig, Load, Protocol, measure};
use crate::server::Poll;
use crate::{parse_id, pin, sys};

/// The loads by their names; their numbers are options of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LoadName {
    /// Messages that come back to their sender; a fixed number on their way
    Echo,
    /// One publisher, many subscribers; a fixed number of broadcasts on their way
    Fanout,
    /// Messages that the server drops, but for every 64th
    Sink,
    /// Echo at a fixed rate, whatever is on its way
    OpenEcho,
    /// Fan-out at a fixed rate
    OpenFanout,
    /// Connections that do nothing
    Idle,
}

#[derive(Args)]
pub(crate) struct ClientArgs {
    #[arg(long)]
    server: SocketAddr,
    /// Where the subscribers connect, if the server publishes on a port of its own
    #[arg(long)]
    publishing: Option<SocketAddr>,
    #[arg(long, value_enum, default_value = "wire")]
    protocol: Protocol,
    #[arg(long, value_enum)]
    load: LoadName,
    /// Connections, or subscribers of a fan-out, which has one publisher more
    #[arg(long, default_value_t = 1)]
    peers: usize,
    /// Echo and sink: messages on their way, per connection
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Fan-out: broadcasts on their way
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
    /// Fan-out: so many of the subscribers never read
    #[arg(long, default_value_t = 0)]
    stuck: usize,
    /// Open loads: messages (fan-out: broadcasts) a second, in all
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Bytes in a message
    #[arg(long, default_value_t = 32)]
    size: usize,
    #[arg(long, default_value_t = 1)]
    core: usize,
    #[arg(long, value_enum, default_value = "block")]
    poll: Poll,
    /// Measure the CPU time and the memory of this process
    #[arg(long)]
    server_pid: Option<u32>,
    #[arg(long, default_value_t = 500)]
    warmup_ms: u64,
    #[arg(long, default_value_t = 1500)]
    measure_ms: u64,
    /// 64 hex digits; all zero if not given
    #[arg(long, value_parser = parse_id)]
    network: Option<[u8; 32]>,
    /// Noise: the server's node id, 64 hex digits
    #[arg(long, value_parser = parse_id)]
    node: Option<[u8; 32]>,
}

impl ClientArgs {
    fn load(&self) -> Load {
        let Self { peers, in_flight, outstanding, stuck, rate, .. } = *self;
        match self.load {
            LoadName::Echo => Load::Echo { connections: peers, in_flight },
            LoadName::Fanout => Load::Fanout { subscribers: peers, outstanding, stuck },
            LoadName::Sink => Load::Sink { connections: peers, in_flight },
            LoadName::OpenEcho => Load::OpenEcho { connections: peers, rate },
            LoadName::OpenFanout => Load::OpenFanout { subscribers: peers, rate },
            LoadName::Idle => Load::Idle { connections: peers },
        }
    }

    /// What is to be done, unless it makes no sense.
    pub(crate) fn config(&self) -> Result<ClientConfig, String> {
        let config = ClientConfig {
            protocol: self.protocol,
            server: self.server,
            publishing: self.publishing,
            network: self.network.unwrap_or_default(),
            node: self.node,
            load: self.load(),
            body_len: self.size,
            poll: self.poll,
            window: Window {
                warmup: Duration::from_millis(self.warmup_ms),
                measure: Duration::from_millis(self.measure_ms),
                server_pid: self.server_pid,
            },
        };
        config.check()?;
        Ok(config)
    }

    /// Runs and prints the figures. False if messages were lost, doubled, overtaken or damaged.
    pub(crate) fn run(&self, config: &ClientConfig) -> io::Result<bool> {
        sys::raise_file_limit()?;
        pin(Some(self.core));
        let figures = measure(config)?;
        println!("{}", serde_json::to_string_pretty(&figures)?);
        if !figures.faults.none() {
            eprintln!("INVALID: {:?}", figures.faults);
        }
        Ok(figures.faults.none())
    }
}
