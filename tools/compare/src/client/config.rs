//! What a run of the client is told: against whom, in which protocol, with which load.

use std::net::SocketAddr;

use serde::Serialize;

use super::message::MIN_BODY;
use super::meter::Window;
use super::protocol::Role;
use crate::server::{Mode, Poll};
use crate::wire;

/// What the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// WIRE.md in plaintext
    Wire,
    /// WIRE.md encrypted
    Noise,
    /// The text protocol of NATS
    Nats,
    /// RESP, with SUBSCRIBE, PUBLISH and ECHO
    Redis,
    /// ZMTP 3.0 with the NULL mechanism
    Zmtp,
    /// FramedTcp of message-io: a length as a varint, then the bytes
    MessageIo,
    /// One JSON object a line
    Json,
}

impl Protocol {
    /// Why this load does not exist in this protocol, if so.
    pub(crate) fn lacks(self, load: Load) -> Option<&'static str> {
        match (self, load) {
            (Protocol::Redis, Load::Sink { .. }) => Some("Redis has no sink: it answers every command, and counts no messages"),
            (Protocol::Nats, Load::Sink { .. }) => Some("NATS has no sink: what nobody subscribes to, nobody counts"),
            _ => None,
        }
    }
}

/// What to do with the server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) enum Load {
    /// Every connection keeps `in_flight` messages on their way to the server and back.
    Echo { connections: usize, in_flight: usize },
    /// One more connection than `subscribers` publishes; up to `outstanding` broadcasts are on their way. `stuck` of the subscribers
    /// stop reading before the first one, and a broadcast is complete when the others have it.
    Fanout { subscribers: usize, outstanding: usize, stuck: usize },
    /// Every connection keeps up to `in_flight` messages on their way to a server that drops them; it sends every 64th one back.
    Sink { connections: usize, in_flight: usize },
    /// `rate` messages a second in all, from the connections in turn, sent when their time has come whatever is still on its way.
    /// Latency counts from the time that a message was due.
    OpenEcho { connections: usize, rate: u64 },
    /// `rate` broadcasts a second, each due at its own time as in `OpenEcho`.
    OpenFanout { subscribers: usize, rate: u64 },
    /// Connections that do nothing: what the server's memory grows by for each.
    Idle { connections: usize },
}

/// A sink sends back each message whose number on its connection, counted from 1, is a multiple of this.
pub(crate) const SINK_ANSWERS_EVERY: u64 = 64;

impl Load {
    /// Connections that are dialled.
    pub(crate) fn connections(self) -> usize {
        match self {
            Load::Echo { connections, .. }
            | Load::Sink { connections, .. }
            | Load::OpenEcho { connections, .. }
            | Load::Idle { connections } => connections,
            Load::Fanout { subscribers, .. } | Load::OpenFanout { subscribers, .. } => subscribers + 1,
        }
    }

    /// What connection `index` is for.
    pub(super) fn role(self, index: usize) -> Role {
        match self {
            Load::Fanout { subscribers, .. } | Load::OpenFanout { subscribers, .. } if index < subscribers => Role::Subscriber,
            Load::Fanout { .. } | Load::OpenFanout { .. } => Role::Publisher,
            Load::Echo { .. } | Load::Sink { .. } | Load::OpenEcho { .. } | Load::Idle { .. } => Role::Caller,
        }
    }

    /// What the server has to do with the messages.
    pub(crate) fn mode(self) -> Mode {
        match self {
            Load::Echo { .. } | Load::OpenEcho { .. } | Load::Idle { .. } => Mode::Echo,
            Load::Fanout { .. } | Load::OpenFanout { .. } => Mode::Fanout,
            Load::Sink { .. } => Mode::Sink,
        }
    }
}

/// One run against one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientConfig {
    pub(crate) protocol: Protocol,
    pub(crate) server: SocketAddr,
    /// Where the subscribers connect, if the server publishes on a port of its own.
    pub(crate) publishing: Option<SocketAddr>,
    /// `Wire` and `Noise`: the network's id.
    pub(crate) network: [u8; 32],
    /// `Noise`: the server's node id, without which nobody can dial it.
    pub(crate) node: Option<[u8; 32]>,
    pub(crate) load: Load,
    pub(crate) body_len: usize,
    pub(crate) poll: Poll,
    pub(crate) window: Window,
}

impl ClientConfig {
    /// Says what makes no sense, before anything is dialled.
    pub(crate) fn check(&self) -> Result<(), String> {
        let sizes = MIN_BODY..=wire::MAX_MESSAGE as usize;
        if !sizes.contains(&self.body_len) {
            return Err(format!("a message has {} to {} bytes, not {}", sizes.start(), sizes.end(), self.body_len));
        }
        if self.protocol == Protocol::Noise && self.node.is_none() {
            return Err("an encrypted server can only be dialled by who knows its node id: give that too".into());
        }
        if self.protocol != Protocol::Zmtp && self.publishing.is_some() {
            return Err(format!("a server that speaks {:?} has one port, not another one for subscribers", self.protocol));
        }
        if let Some(reason) = self.protocol.lacks(self.load) {
            return Err(reason.into());
        }
        self.check_load()
    }

    fn check_load(&self) -> Result<(), String> {
        let reason = match self.load {
            Load::Echo { connections: 0, .. }
            | Load::Sink { connections: 0, .. }
            | Load::OpenEcho { connections: 0, .. }
            | Load::Idle { connections: 0 }
            | Load::Fanout { subscribers: 0, .. }
            | Load::OpenFanout { subscribers: 0, .. } => "a load needs at least one connection",
            Load::Echo { in_flight: 0, .. } | Load::Fanout { outstanding: 0, .. } => "a closed loop needs at least one message on its way",
            Load::OpenEcho { rate: 0, .. } | Load::OpenFanout { rate: 0, .. } => "an open loop needs a rate above 0",
            Load::Fanout { subscribers, stuck, .. } if stuck >= subscribers => "at least one subscriber has to read",
            Load::Sink { in_flight, .. } if (in_flight as u64) < SINK_ANSWERS_EVERY => {
                "a sink answers every 64th message: fewer than 64 on their way would wait for ever"
            }
            Load::Sink { .. } if self.body_len > wire::FRAGMENT_LEN => "a message to a sink has at most 16384 bytes, one frame",
            Load::Idle { .. } if self.window.server_pid.is_none() => "an idle load reads the server's memory: give its process",
            _ => return Ok(()),
        };
        Err(reason.into())
    }
}
