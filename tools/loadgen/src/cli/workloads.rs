//! The workloads: what each is told besides what all are.

use std::time::Duration;

use clap::Args;

use super::load::{FloodPacingArgs, LoadArgs, OpenArgs, PacingArgs, PhaseArgs, SlowPeerArgs};
use super::values::{parse_lowat, parse_positive_seconds, parse_receive_buffer, parse_size};
use crate::workload::Subscriptions;

/// `mixed`.
#[derive(Clone, Debug, Args)]
pub(crate) struct MixedArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Bytes of each bulk message, 32 to 16M.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_size)]
    pub(crate) bulk_size: usize,
    /// Bulk messages that each peer has asked for and not received. With as few as the kernel's socket buffers hold, the kernel has the
    /// bulk, and not the server's outbox.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=i64::from(BULK_AHEAD_MAX)))]
    pub(crate) bulk_ahead: u32,
    /// TCP_NOTSENT_LOWAT of the server in this process: what its kernel takes of the bulk beyond what is in flight, and so has in front of
    /// what is sent next in the high lane. Without it: not set.
    #[arg(long, value_name = "BYTES", value_parser = parse_lowat, conflicts_with = "target")]
    pub(crate) notsent_lowat: Option<u32>,
    /// SO_RCVBUF of the client's connections: it bounds what is in flight, which is in front of what is sent next in the high lane too.
    /// Without it: the kernel's own tuning, which is megabytes on loopback.
    #[arg(long, value_name = "BYTES", value_parser = parse_receive_buffer)]
    pub(crate) receive_buffer: Option<usize>,
    #[command(flatten)]
    pub(crate) phases: PhaseArgs,
}

/// Most bulk messages that one peer may have under way: a server in a process of its own must have room for them.
pub(crate) const BULK_AHEAD_MAX: u32 = 64;

/// `slow-readers`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SlowReadersArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
    /// How many of the subscribers stop reading; one at least does not.
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) slow: u32,
    /// TCP_NOTSENT_LOWAT of the server in this process: what its kernel takes for a peer that does not read, before the outbox has it.
    /// Without it: 64k.
    #[arg(long, value_name = "BYTES", value_parser = parse_lowat, conflicts_with = "target")]
    pub(crate) notsent_lowat: Option<u32>,
    #[command(flatten)]
    pub(crate) slow_peers: SlowPeerArgs,
    #[command(flatten)]
    pub(crate) phases: PhaseArgs,
}

/// `echo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
}

/// `all-to-all`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AllToAllArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
}

/// Most peers of an all-to-all: each has an account of each other.
pub(crate) const ALL_TO_ALL_MAX: i64 = 2000;

/// `request`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
    /// A request that has no answer after so long has timed out, in seconds.
    #[arg(long, value_name = "S", default_value = "1", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) deadline: Duration,
    /// Requests that may time out, warm-up included; one more fails the run.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) timeouts_allowed: u64,
}

/// `fanout`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
}

/// `topics`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TopicsArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
    /// Topics, to which the publisher publishes in turn. Each has a subscriber at least.
    #[arg(long, value_name = "T", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) topics: u32,
    /// Topics that each peer subscribes to. They are dealt evenly: each topic has peers x M / T subscribers, or one more. Without it: 10,
    /// or all where there are fewer.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) per_peer: Option<u32>,
}

impl TopicsArgs {
    pub(crate) fn subscriptions(&self) -> Subscriptions {
        Subscriptions { topics: self.topics, per_peer: self.per_peer.unwrap_or(10.min(self.topics)) }
    }
}

/// `receipts`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReceiptsArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
    /// Acknowledgements that make a quorum. Without it: two thirds of the peers and one more.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) quorum: Option<u32>,
    /// A broadcast that somebody has not acknowledged after so long has failed, in seconds.
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_positive_seconds, allow_negative_numbers = true)]
    pub(crate) deadline: Duration,
}

impl ReceiptsArgs {
    pub(crate) fn quorum(&self) -> u32 {
        self.quorum.unwrap_or(2 * self.load.peers / 3 + 1)
    }
}

/// `flood`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FloodArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) pacing: FloodPacingArgs,
}
