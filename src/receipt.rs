//! Acknowledged sends, as the application sees them.
//!
//! A plain send says that a message was queued. An *acknowledged* one says what became of it: [`Context::send_acked`] and
//! [`Context::broadcast_acked`] return the id of a [`Receipt`], in which stand the nodes that have acknowledged, and when. Its end is
//! reported exactly once, whatever happens: everybody has answered, the deadline came, or the engine stops. The deadline is kept on
//! the core that asked, so that it holds although another core is lost.
//!
//! **At least once.** Until the deadline, a message that is not acknowledged is sent again on each new connection to the same node and
//! channel, while this engine lives. The receiver knows what it has taken from this engine, and suppresses repetitions: see
//! [`crate::Acks::window`] for how far that reaches. A *restarted* engine is another sender: nothing that it sends is suppressed.
//!
//! **When a message is acknowledged.** After the handler's `on_message` has returned, or, for the types in [`crate::Acks::by_handler`],
//! when the application says so with [`Context::ack`] or [`crate::Handle::ack`].

use std::fmt;
use std::time::Duration;

use crate::error::SendError;
use crate::handler::{Context, Sent};
use crate::id::{NodeId, PeerId};
use crate::shard::Asker;
use crate::time::Timestamp;
use crate::wire::Meta;

/// Whom an acknowledged send is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A peer, while it is connected: refused where it is not. If its connection ends afterwards, the message goes on by node and channel.
    Peer(PeerId),
    /// A node, whether it is connected now or not: the message is kept until it is, or until the deadline. It takes the way over core 0
    /// and a look at every peer of one core, so this is the slower one, and it may be overtaken by what is sent to the peer.
    Node {
        /// Which.
        node: NodeId,
        /// On which channel.
        channel: u16,
    },
}

impl From<PeerId> for Target {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

/// A node, on channel 0.
impl From<NodeId> for Target {
    fn from(node: NodeId) -> Self {
        Self::Node { node, channel: 0 }
    }
}

/// A node, on that channel.
impl From<(NodeId, u16)> for Target {
    fn from((node, channel): (NodeId, u16)) -> Self {
        Self::Node { node, channel }
    }
}

/// One acknowledged send of this engine, for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptId(pub(crate) u64);

impl ReceiptId {
    pub(crate) const CORE_SHIFT: u32 = 56;

    /// The core that asked, from 0.
    #[must_use]
    pub fn core(self) -> usize {
        (self.0 >> Self::CORE_SHIFT) as usize
    }

    /// The id as a number, for logs and foreign interfaces.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiptId({}/{})", self.core(), self.0 & ((1 << Self::CORE_SHIFT) - 1))
    }
}

/// The right to acknowledge one message: the first time counts, later ones do nothing. Keep it as long as needed; the sender's deadline is
/// running.
///
/// It is worth nothing after the connection on which the message came: the sender repeats the message on the next, with a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the sender waits for the acknowledgement until its deadline"]
pub struct AckId {
    pub(crate) peer: PeerId,
    pub(crate) id: u64,
}

impl AckId {
    /// Who sent the message.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

/// Why a message was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AckFailure {
    /// Not before the deadline. Whether it arrived is not known.
    Expired,
    /// It could not be queued: at the peer's core at first, or for the new connection after the old one had ended.
    Refused(SendError),
    /// It waited for its node to come back, and more connections had ended than are remembered (`Limits::max_peers`).
    Evicted,
    /// The engine stops. Whether the message arrived is not known.
    Stopped,
}

impl fmt::Display for AckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("not acknowledged before the deadline"),
            Self::Refused(reason) => write!(f, "not sent: {reason}"),
            Self::Evicted => f.write_str("more connections have ended than are remembered"),
            Self::Stopped => f.write_str("the engine has stopped"),
        }
    }
}

impl std::error::Error for AckFailure {}

/// What is known of one acknowledged send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    id: ReceiptId,
    tag: u64,
    sent_at: Timestamp,
    /// Peers that it went to so far, and cores that have not said to how many of theirs.
    reached: usize,
    silent: usize,
    acked: Vec<(NodeId, Duration)>,
    failed: Vec<(Option<NodeId>, AckFailure)>,
    ended: bool,
}

impl Receipt {
    pub(crate) fn new(id: ReceiptId, tag: u64, sent_at: Timestamp, reached: usize, silent: usize) -> Self {
        Self { id, tag, sent_at, reached, silent, acked: Vec::new(), failed: Vec::new(), ended: false }
    }

    /// Which send this is of.
    #[must_use]
    pub fn id(&self) -> ReceiptId {
        self.id
    }

    /// What the application gave with it.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// How many peers it went to: one for a single target, for a broadcast all that were established. `None` while a core has not said
    /// yet to how many of its own.
    #[must_use]
    pub fn expected(&self) -> Option<usize> {
        (self.silent == 0).then_some(self.reached)
    }

    /// Who has acknowledged, and how long after the send that was known to the engine: the fastest first.
    #[must_use]
    pub fn acked(&self) -> &[(NodeId, Duration)] {
        &self.acked
    }

    /// How long after the send the `k`-th acknowledgement came, from 1: the latency of a quorum of that size. `None`: not yet, or never.
    #[must_use]
    pub fn kth(&self, k: usize) -> Option<Duration> {
        self.acked.get(k.checked_sub(1)?).map(|(_, after)| *after)
    }

    /// Who has not acknowledged and will not, and why. Of those who only let the deadline pass, a broadcast does not know the names.
    #[must_use]
    pub fn failed(&self) -> &[(Option<NodeId>, AckFailure)] {
        &self.failed
    }

    /// Whether this is all: nothing more will be added.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ended
    }

    /// Whether everybody it went to has acknowledged.
    #[must_use]
    pub fn is_acked(&self) -> bool {
        self.silent == 0 && self.acked.len() == self.reached
    }

    /// A core has sent it to so many of its peers.
    pub(crate) fn reach(&mut self, peers: usize) {
        self.reached += peers;
        self.silent = self.silent.saturating_sub(1);
    }

    /// Another core may have seen an earlier acknowledgement later: they are kept in the order of their times.
    pub(crate) fn ack(&mut self, node: NodeId, at: Timestamp) -> Duration {
        let after = at - self.sent_at;
        let position = self.acked.partition_point(|(_, earlier)| *earlier <= after);
        self.acked.insert(position, (node, after));
        after
    }

    pub(crate) fn fail(&mut self, node: Option<NodeId>, failure: AckFailure) {
        self.failed.push((node, failure));
    }

    /// Whether everybody has answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.silent == 0 && self.unanswered() == 0
    }

    fn unanswered(&self) -> usize {
        self.reached.saturating_sub(self.acked.len() + self.failed.len())
    }

    /// Nothing more is awaited. Whoever has not answered has failed with `rest`; `node` is who that is, where it is one.
    pub(crate) fn end(&mut self, node: Option<NodeId>, rest: AckFailure) {
        let missing = self.unanswered();
        self.failed.extend(std::iter::repeat_n((node, rest), missing));
        self.ended = true;
    }
}

impl Context<'_> {
    /// Sends a message that the receiver acknowledges. [`crate::Handler::on_receipt`] is called on this core, exactly once, with the
    /// outcome: at the latest when `deadline` is over.
    ///
    /// The frame is made here and kept until the outcome. `TooManyUnacked`: `Acks::pending` of them, `Acks::answers` of their peers,
    /// or `Acks::bytes` of their frames, have no outcome yet on this core. With any error nothing is sent, and no receipt follows. In a
    /// lane whose [`crate::WhenSlow`] drops what a slow peer does not take, it may be dropped like any other message, and expires unless a
    /// new connection comes first: choose a lane that does not drop.
    pub fn send_acked(
        &mut self,
        target: impl Into<Target>,
        meta: impl Into<Meta>,
        body: &[u8],
        deadline: Duration,
        tag: u64,
    ) -> Result<ReceiptId, SendError> {
        let (target, meta) = (target.into(), meta.into());
        self.shard.enter(|shard| shard.send_acked(target, meta, body, deadline, Asker::Handler { tag }))
    }

    /// Sends a message to every established peer of every core, or, on error, to none; each acknowledges it. Encoded once.
    /// [`crate::Handler::on_acked`] and [`crate::Handler::on_receipt`] tell on this core who has acknowledged, and when.
    ///
    /// Refused as [`Context::broadcast`] and [`Context::send_acked`] are. To nobody is a success too: the receipt then has
    /// `expected() == Some(0)`.
    pub fn broadcast_acked(&mut self, meta: impl Into<Meta>, body: &[u8], deadline: Duration, tag: u64) -> Result<ReceiptId, SendError> {
        let meta = meta.into();
        self.shard.enter(|shard| shard.broadcast_acked(meta, body, deadline, Asker::Handler { tag }))
    }

    /// What is known so far of an acknowledged send of this core's handler. `None`: it has ended, or is another core's. During
    /// [`crate::Handler::on_acked`] the receipt at hand is the argument, and not here.
    #[must_use]
    pub fn receipt(&self, id: ReceiptId) -> Option<&Receipt> {
        self.shard.receipt(id)
    }

    /// Acknowledges a message whose type is in [`crate::Acks::by_handler`]. From here on its repetitions are suppressed.
    pub fn ack(&mut self, ack: AckId) -> Result<Sent, SendError> {
        self.shard.enter(|shard| shard.ack(ack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ORIGIN + Duration::from_millis(millis)
    }

    #[test]
    fn the_kth_acknowledgement_is_that_of_the_kth_fastest() {
        let mut receipt = Receipt::new(ReceiptId(1), 0, at(10), 2, 1);
        receipt.ack(NodeId([2; 32]), at(30));
        receipt.ack(NodeId([1; 32]), at(20));
        assert_eq!((receipt.kth(0), receipt.kth(1), receipt.kth(3)), (None, Some(Duration::from_millis(10)), None));
        assert_eq!(receipt.acked()[1].0, NodeId([2; 32]));
        assert!(!receipt.is_answered() && receipt.expected().is_none(), "one core has not said to how many it went");
        receipt.reach(1);
        assert_eq!((receipt.expected(), receipt.is_answered()), (Some(3), false));
        receipt.end(None, AckFailure::Expired);
        assert_eq!(receipt.failed(), [(None, AckFailure::Expired)]);
        assert!(receipt.is_complete() && !receipt.is_acked());
    }
}
