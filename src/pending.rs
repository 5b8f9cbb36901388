//! Acknowledged sends from any thread: what a [`Handle`] sends, and a thread waits for.

use std::fmt;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};

use crate::error::SendError;
use crate::handle::{Handle, LONGEST_WAIT, Rejected, is_core_thread};
use crate::id::NodeId;
use crate::reactor::inbox::{Command, Report};
use crate::receipt::{AckId, Receipt, Target};
use crate::shard::Mail;
use crate::wire::Meta;

/// Why waiting for a receipt gave none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The core refused the send: nothing was sent to anyone.
    Send(SendError),
    /// Not yet. Waiting again is possible; the send goes on.
    TimedOut,
    /// The engine has stopped, or the core that kept the receipt is lost.
    Stopped,
    /// A blocking call was made on a core thread, which would wait for itself.
    WouldDeadlock,
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => write!(f, "not sent: {error}"),
            Self::TimedOut => f.write_str("no outcome yet"),
            Self::Stopped => f.write_str("the engine has stopped"),
            Self::WouldDeadlock => f.write_str("a blocking call on a core thread would wait for itself; use Context::send_acked"),
        }
    }
}

impl std::error::Error for ReceiptError {}

/// An acknowledged send that a thread has made. Dropping it leaves the send as it is, without anybody to tell.
#[derive(Debug)]
#[must_use = "what becomes of the send is told here and nowhere else"]
pub struct PendingReceipt {
    reports: Receiver<Report>,
    /// What came so far, the fastest first.
    acked: Vec<(NodeId, Duration)>,
    outcome: Option<Result<Receipt, ReceiptError>>,
}

impl PendingReceipt {
    /// Waits for the outcome, at most for `timeout`. Blocks; on a core thread it answers `WouldDeadlock` instead. After `TimedOut` it can
    /// be called again, and after an outcome too.
    ///
    /// An outcome there is, by the deadline of the send, also where nobody has acknowledged: see [`Receipt::failed`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Receipt, ReceiptError> {
        self.wait_until(timeout, |_| false)?;
        self.outcome.clone().unwrap_or(Err(ReceiptError::TimedOut))
    }

    /// Waits for the `k`-th acknowledgement, at most for `timeout`, and says how long after the send it came: the latency of a quorum of
    /// that size. `None`: all is over, and there were fewer. Blocks; on a core thread it answers `WouldDeadlock` instead.
    pub fn wait_for(&mut self, k: usize, timeout: Duration) -> Result<Option<Duration>, ReceiptError> {
        self.wait_until(timeout, |acked| acked.len() >= k)?;
        match &self.outcome {
            Some(Err(error)) => Err(*error),
            Some(Ok(receipt)) => Ok(receipt.kth(k)),
            None if self.acked.len() >= k => Ok(k.checked_sub(1).map(|last| self.acked[last].1)),
            None => Err(ReceiptError::TimedOut),
        }
    }

    /// Who has acknowledged, of what this object has heard while it was waited for: the fastest first.
    #[must_use]
    pub fn acked(&self) -> &[(NodeId, Duration)] {
        &self.acked
    }

    /// Until there is an outcome, or `enough`, or no time left.
    fn wait_until(&mut self, timeout: Duration, enough: impl Fn(&[(NodeId, Duration)]) -> bool) -> Result<(), ReceiptError> {
        if is_core_thread() {
            return Err(ReceiptError::WouldDeadlock);
        }
        let deadline = Instant::now() + timeout.min(LONGEST_WAIT);
        while self.outcome.is_none() && !enough(&self.acked) {
            match self.reports.recv_deadline(deadline) {
                Ok(report) => self.note(report),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => self.outcome = Some(Err(ReceiptError::Stopped)),
            }
        }
        Ok(())
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Acked { node, after } => {
                let position = self.acked.partition_point(|(_, earlier)| *earlier <= after);
                self.acked.insert(position, (node, after));
            }
            Report::Ended(receipt) => {
                self.acked = receipt.acked().to_vec();
                self.outcome = Some(Ok(receipt));
            }
            Report::Refused(reason) => self.outcome = Some(Err(ReceiptError::Send(reason))),
        }
    }
}

impl<C: Send + 'static> Handle<C> {
    /// Sends a message that the receiver acknowledges, at the latest until `deadline` has passed. What becomes of it, also that the core
    /// refuses it, is told to the [`PendingReceipt`]. The frame is made on the core: see [`crate::Context::send_acked`].
    pub fn send_acked(
        &self,
        target: impl Into<Target>,
        meta: impl Into<Meta>,
        body: &[u8],
        deadline: Duration,
    ) -> Result<PendingReceipt, SendError> {
        let target = target.into();
        let core = if let Target::Peer(peer) = target { peer.core() } else { self.any_core() };
        self.command_acked(core, Some(target), meta.into(), body, deadline)
    }

    /// Sends a message to every established peer of every core, or to none; each acknowledges it. See [`crate::Context::broadcast_acked`].
    pub fn broadcast_acked(&self, meta: impl Into<Meta>, body: &[u8], deadline: Duration) -> Result<PendingReceipt, SendError> {
        self.command_acked(self.any_core(), None, meta.into(), body, deadline)
    }

    /// Acknowledges a message that a handler has passed on, of a type in [`crate::Acks::by_handler`].
    pub fn ack(&self, ack: AckId) -> Result<(), Rejected<AckId>> {
        let core = ack.peer.core();
        self.fabric.command(core, Command::Mail(Mail::Ack(ack))).map_err(|(command, reason)| match command {
            Command::Mail(Mail::Ack(value)) => Rejected { value, reason },
            _ => unreachable!("a refused command comes back as it was"),
        })
    }

    /// The first core that runs.
    fn any_core(&self) -> usize {
        self.fabric.shared.credits.iter().position(|credit| !credit.is_closed()).unwrap_or(0)
    }

    fn command_acked(
        &self,
        core: usize,
        target: Option<Target>,
        meta: Meta,
        body: &[u8],
        deadline: Duration,
    ) -> Result<PendingReceipt, SendError> {
        let max = self.fabric.shared.config.limits.max_message;
        if body.len() > max {
            return Err(SendError::TooLong { len: body.len(), max });
        }
        let (reply, reports) = unbounded();
        let command = Command::Acked { target, meta, body: body.into(), deadline, reply };
        self.fabric.command(core, command).map_err(|(_, reason)| reason)?;
        Ok(PendingReceipt { reports, acked: Vec::new(), outcome: None })
    }
}
