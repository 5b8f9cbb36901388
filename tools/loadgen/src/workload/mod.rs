//! What the peers of a run do. One file each; a new one needs its file, a [`Kind`], and a line in [`crate::run`]'s table.

mod all_to_all;
mod cadence;
mod echo;
mod fanout;
mod flood;
mod mixed;
mod open_loop;
mod publisher;
mod reach;
mod receipts;
mod request;
pub(crate) mod slow_readers;
mod topics;

use corecast::{Context, Message, RequestError, SendError};

pub(crate) use all_to_all::AllToAll;
pub(crate) use echo::Echo;
pub(crate) use fanout::Fanout;
pub(crate) use flood::Flood;
pub(crate) use mixed::Mixed;
pub(crate) use receipts::Receipts;
pub(crate) use request::Request;
pub(crate) use slow_readers::SlowReaders;
pub(crate) use topics::{Subscriptions, Topics};

use crate::arrivals::Offered;
use crate::client::Core;
use crate::measure::Condition;
use crate::pairs::Pairs;
use crate::probe::Sample;
use crate::server::Mode;

/// What one core's peers do. Everything is called on the core's thread; `index` is a peer's position in the core's share.
pub(crate) trait Workload: 'static {
    /// A peer is connected. What is sent to it now, the server has read before the peer counts as ready. On error it is connected again.
    fn on_connected(&mut self, _cx: &mut Context<'_>, _core: &mut Core, _index: usize) -> Result<(), SendError> {
        Ok(())
    }
    /// Every peer of the run is ready. With a fixed rate, `at` is when the first message is due.
    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, at: u64);
    /// The condition changes: begin, or end, what disturbs.
    fn enter(&mut self, _cx: &mut Context<'_>, _core: &mut Core, _condition: Condition) {}
    /// A message came.
    fn on_message(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize, message: Message<'_>);
    /// The peer takes messages again.
    fn on_drained(&mut self, _cx: &mut Context<'_>, _core: &mut Core, _index: usize) {}
    /// Something may be due.
    fn on_pace(&mut self, _cx: &mut Context<'_>, _core: &mut Core) {}
    /// Every 50 ms: what was refused for a reason that nobody says the end of may be tried again.
    fn on_tick(&mut self, _cx: &mut Context<'_>, _core: &mut Core) {}
    /// A message of this peer has reached all that are to get it of one engine.
    fn on_reached(&mut self, _cx: &mut Context<'_>, _core: &mut Core, _sender: u32, _number: u64) {}
    /// Nothing new is to be sent; `core.sending` is off already.
    fn on_stop(&mut self, _cx: &mut Context<'_>, _core: &mut Core) {}
    /// What the server had received of the peer when it was asked, behind all that had been sent before; nothing where it did not answer.
    fn on_acknowledged(&mut self, _cx: &mut Context<'_>, _core: &mut Core, _index: usize, _sample: Option<&Sample>) {}
    /// What came of the request with this number.
    fn on_answer(&mut self, _: &mut Context<'_>, _: &mut Core, _index: usize, _seq: u64, _: Result<Message<'_>, RequestError>) {}
    /// What the server received of the peer, in all.
    fn on_tally(&mut self, _cx: &mut Context<'_>, _core: &mut Core, _index: usize, _sample: &Sample) {}
    /// Who has sent and received how much, where every peer sends to every other.
    fn pairs(&self, _core: &Core) -> Option<Pairs> {
        None
    }
}

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pacing {
    /// When one of so many has come to its end.
    Closed { in_flight: u32 },
    /// When it is due, whatever happens.
    Open(Offered),
    /// Whenever the engine takes one.
    Greedy,
}

impl Pacing {
    /// How many messages one peer may have under way, as far as that is known beforehand.
    pub(crate) fn in_flight(self) -> usize {
        match self {
            Self::Closed { in_flight } => in_flight as usize,
            Self::Open(_) | Self::Greedy => 1,
        }
    }

    /// What an open loop offers.
    pub(crate) fn offered(self) -> Option<Offered> {
        if let Self::Open(offered) = self { Some(offered) } else { None }
    }
}

/// What a server sends in the bulk lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bulk {
    /// Bytes of each message.
    pub(crate) size: usize,
    /// Messages that each peer may have asked for and not received.
    pub(crate) ahead: u32,
}

/// The workloads that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    AllToAll,
    Echo,
    Fanout,
    Flood,
    Mixed,
    Receipts,
    Request,
    SlowReaders,
    Topics,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AllToAll => "all-to-all",
            Self::Echo => "echo",
            Self::Fanout => "fanout",
            Self::Flood => "flood",
            Self::Mixed => "mixed",
            Self::Receipts => "receipts",
            Self::Request => "request",
            Self::SlowReaders => "slow-readers",
            Self::Topics => "topics",
        }
    }

    /// The server that it needs.
    pub(crate) fn server_mode(self) -> Mode {
        match self {
            Self::Echo => Mode::Echo,
            Self::AllToAll | Self::Fanout | Self::SlowReaders => Mode::Fanout,
            Self::Flood => Mode::Sink,
            Self::Mixed => Mode::Mixed,
            Self::Receipts => Mode::Receipts,
            Self::Request => Mode::Request,
            Self::Topics => Mode::Topics,
        }
    }

    /// Whether one peer publishes besides those that subscribe.
    pub(crate) fn has_publisher(self) -> bool {
        matches!(self, Self::Fanout | Self::SlowReaders | Self::Topics)
    }

    /// Whether one peer sends for the whole run.
    pub(crate) fn one_sends(self) -> bool {
        self.has_publisher() || self == Self::Receipts
    }

    /// Whether what one peer sends goes to others, so that all have to be at one server.
    pub(crate) fn needs_one_server(self) -> bool {
        self.one_sends() || self == Self::AllToAll
    }

    /// Whether the server tells it what all peers do together, so that there must be no others.
    pub(crate) fn has_to_be_alone(self) -> bool {
        matches!(self, Self::Receipts | Self::SlowReaders)
    }

    /// Whether messages end at the server, which then knows how many came, and how fast.
    pub(crate) fn counted_at_server(self) -> bool {
        self == Self::Flood
    }
}
