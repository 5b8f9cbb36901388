//! Connections of the pool for any thread: what a [`Handle`] asks for, and a thread waits for.

use std::fmt;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use crate::endpoint::Endpoint;
use crate::error::{DialError, SendError};
use crate::handle::{Handle, LONGEST_WAIT, is_core_thread};
use crate::id::PeerId;
use crate::reactor::inbox::Command;
use crate::shard::Mail;

/// Why waiting for a connection gave none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is none, and this is why.
    Dial(DialError),
    /// The word did not reach the core that has the pool: its inbox has no room, or the engine has stopped.
    Send(SendError),
    /// Not yet. Waiting again is possible; the attempt goes on.
    TimedOut,
    /// The engine has stopped, or its first core is lost.
    Stopped,
    /// A blocking call was made on a core thread, which would wait for itself.
    WouldDeadlock,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Send(error) => write!(f, "not asked for: {error}"),
            Self::TimedOut => f.write_str("no connection yet"),
            Self::Stopped => f.write_str("the engine has stopped"),
            Self::WouldDeadlock => f.write_str("a blocking call on a core thread would wait for itself; use Context::connect"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// A connection that a thread has asked for. Dropping it leaves the attempt as it is, without anybody to tell.
#[derive(Debug)]
#[must_use = "what becomes of it is told here and nowhere else"]
pub struct PendingPeer {
    answer: Receiver<Result<PeerId, DialError>>,
    outcome: Option<Result<PeerId, ConnectError>>,
}

impl PendingPeer {
    /// Waits for the connection, at most for `timeout`. Blocks; on a core thread it answers `WouldDeadlock` instead. After `TimedOut` it
    /// can be called again, and after an outcome too.
    ///
    /// The peer was established when this was answered, and may be gone since, as any peer may: then what is sent to it is refused
    /// ([`SendError::NotConnected`]), or counted (`sends_refused`). Ask again.
    pub fn wait(&mut self, timeout: Duration) -> Result<PeerId, ConnectError> {
        if is_core_thread() {
            return Err(ConnectError::WouldDeadlock);
        }
        if self.outcome.is_none() {
            let outcome = match self.answer.recv_deadline(Instant::now() + timeout.min(LONGEST_WAIT)) {
                Ok(result) => result.map_err(ConnectError::Dial),
                Err(RecvTimeoutError::Timeout) => return Err(ConnectError::TimedOut),
                Err(RecvTimeoutError::Disconnected) => Err(ConnectError::Stopped),
            };
            self.outcome = Some(outcome);
        }
        self.outcome.unwrap_or(Err(ConnectError::TimedOut))
    }
}

impl<C: Send + 'static> Handle<C> {
    /// Asks for a connection to a target: one that there is, or, where there is none, one that is dialled for it. See
    /// [`crate::Context::connect`].
    pub fn connect(&self, target: impl Into<Endpoint>) -> Result<PendingPeer, SendError> {
        self.ask_pool(target.into(), false)
    }

    /// The same, and waits for it, at most for `timeout`. Blocks; on a core thread it answers `WouldDeadlock` instead.
    pub fn connect_blocking(&self, target: impl Into<Endpoint>, timeout: Duration) -> Result<PeerId, ConnectError> {
        if is_core_thread() {
            return Err(ConnectError::WouldDeadlock);
        }
        self.connect(target).map_err(ConnectError::Send)?.wait(timeout)
    }

    /// The same as [`Handle::connect`], and the target is kept connected from now on: see [`crate::Context::pin`].
    pub fn pin(&self, target: impl Into<Endpoint>) -> Result<PendingPeer, SendError> {
        self.ask_pool(target.into(), true)
    }

    /// The target need not be kept connected any more: see [`crate::Context::unpin`].
    pub fn unpin(&self, target: impl Into<Endpoint>) -> Result<(), SendError> {
        let mail = Mail::Unpin { endpoint: Box::new(target.into()) };
        self.fabric.command(0, Command::Mail(mail)).map_err(|(_, reason)| reason)
    }

    fn ask_pool(&self, endpoint: Endpoint, pin: bool) -> Result<PendingPeer, SendError> {
        let (reply, answer) = bounded(1);
        self.fabric.command(0, Command::Connect { endpoint: Box::new(endpoint), pin, reply }).map_err(|(_, reason)| reason)?;
        Ok(PendingPeer { answer, outcome: None })
    }
}
