//! What a core has noted of a peer: see [`crate::Config::recorder`].

use std::fmt;
use std::time::Duration;

use crate::error::CloseReason;
use crate::handler::Direction;
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::time::Timestamp;
use crate::wire::Kind;

/// Something that happened to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlightEvent {
    /// The peer was established. The first event of each.
    Connected {
        /// Who opened the connection.
        direction: Direction,
    },
    /// A frame came. One for which there was no memory, or that was over its limit, is looked at again later: it is there twice, with
    /// `Starved` or `Delayed` between.
    Received {
        /// What it is.
        kind: Kind,
        /// The message's type; zero for control frames.
        message_type: u16,
        /// Bytes after the header.
        len: u32,
    },
    /// A message for this peer alone, or a control frame, was queued. Broadcasts are in the core's log and not here: what leaves of them is
    /// in `Written`.
    Queued {
        /// What it is.
        kind: Kind,
        /// The message's type; zero for control frames.
        message_type: u16,
        /// Bytes of the message's body, or of the control frame's payload.
        len: u32,
    },
    /// The kernel took bytes in one write.
    Written {
        /// How many; encrypted, of the records.
        bytes: u32,
    },
    /// The kernel takes nothing more for now.
    Blocked,
    /// It takes something again.
    Writable,
    /// A pong came in answer to a ping.
    Rtt {
        /// How long that took, nanoseconds.
        nanos: u64,
    },
    /// The peer came over `Limits::outbox_soft`, or stayed there for another `Limits::soft_grace`.
    Slow {
        /// Bytes that it had still to receive.
        queued: u64,
    },
    /// It is below half of that again.
    Drained,
    /// Messages to the peer were dropped, or (`RateLimitedMessages`) messages from it.
    Dropped {
        /// The counter that has them too: it says why.
        why: Counter,
        /// How many.
        messages: u32,
    },
    /// The application stopped reading.
    Paused,
    /// A lack of memory stopped reading.
    Starved,
    /// What it sends is over `Rates::receive`, and is read later.
    Delayed,
    /// Reading goes on.
    Resumed,
    /// The peer ended. The last event of each; what is still written to it, or read from it, is not noted.
    Closed(CloseReason),
}

impl fmt::Display for FlightEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = |f: &mut fmt::Formatter<'_>, what, kind: Kind, message_type: u16, len: u32| {
            if kind.is_control() {
                write!(f, "{what:<10} {kind:?}")
            } else {
                write!(f, "{what:<10} {kind:?}, type {message_type}, {len} bytes")
            }
        };
        match *self {
            Self::Connected { direction } => write!(f, "{:<10} {direction:?}", "connected"),
            Self::Received { kind, message_type, len } => frame(f, "received", kind, message_type, len),
            Self::Queued { kind, message_type, len } => frame(f, "queued", kind, message_type, len),
            Self::Written { bytes } => write!(f, "{:<10} {bytes} bytes", "written"),
            Self::Blocked => f.write_str("blocked"),
            Self::Writable => f.write_str("writable"),
            Self::Rtt { nanos } => write!(f, "{:<10} {:?}", "rtt", Duration::from_nanos(nanos)),
            Self::Slow { queued } => write!(f, "{:<10} {queued} bytes to receive", "slow"),
            Self::Drained => f.write_str("drained"),
            Self::Dropped { why, messages } => write!(f, "{:<10} {messages} messages, {}", "dropped", why.name()),
            Self::Paused => f.write_str("paused"),
            Self::Starved => f.write_str("starved"),
            Self::Delayed => f.write_str("delayed"),
            Self::Resumed => f.write_str("resumed"),
            Self::Closed(reason) => write!(f, "{:<10} {reason}", "closed"),
        }
    }
}

/// An event, and the turn in which it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlightEntry {
    /// When that turn began: events of one turn have one time, and their order.
    pub at: Timestamp,
    /// What happened.
    pub event: FlightEvent,
}

/// The last events of a peer, oldest first: from [`crate::Context::flight`]. It prints itself as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlightRecord {
    /// Whose.
    pub peer: PeerId,
    /// When the peer was established.
    pub since: Timestamp,
    /// How many events there were before these, which had to give way.
    pub earlier: u64,
    /// At most [`crate::Config::recorder`].
    pub entries: Vec<FlightEntry>,
}

/// One line for the peer, and one for each event: seconds since it was established, and what happened.
impl fmt::Display for FlightRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}: {} events", self.peer, self.entries.len())?;
        if self.earlier > 0 {
            write!(f, ", {} earlier ones are gone", self.earlier)?;
        }
        for FlightEntry { at, event } in &self.entries {
            write!(f, "\n{:>14.6} s  {event}", (*at - self.since).as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<FlightEntry>(), 24);
    }

    #[test]
    fn a_record_is_a_table() {
        let since = Timestamp::from_nanos(5_000_000_000);
        let at = |micros, event| FlightEntry { at: since + Duration::from_micros(micros), event };
        let entries = vec![
            at(0, FlightEvent::Connected { direction: Direction::Dialled }),
            at(12, FlightEvent::Received { kind: Kind::Data, message_type: 7, len: 120 }),
            at(12, FlightEvent::Queued { kind: Kind::Pong, message_type: 0, len: 8 }),
            at(1_500_000, FlightEvent::Dropped { why: Counter::MessagesExpired, messages: 3 }),
            at(61_000_000, FlightEvent::Closed(CloseReason::Unresponsive)),
        ];
        let record = FlightRecord { peer: PeerId::new(1, 2, 3), since, earlier: 9, entries };
        let table = [
            "peer 1/2#3: 5 events, 9 earlier ones are gone",
            "      0.000000 s  connected  Dialled",
            "      0.000012 s  received   Data, type 7, 120 bytes",
            "      0.000012 s  queued     Pong",
            "      1.500000 s  dropped    3 messages, messages_expired",
            "     61.000000 s  closed     the peer sent nothing for keepalive.timeout, or did not answer keepalive.adaptive.probes pings",
        ];
        assert_eq!(record.to_string(), table.join("\n"));
    }
}
