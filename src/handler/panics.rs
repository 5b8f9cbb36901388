//! What a handler is told of the one before it, which panicked. What is done about a panic is in `shard::supervised`.

use std::fmt;

use crate::id::{NodeId, PeerId};

/// A method of [`crate::Handler`] that the engine calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Callback {
    /// `on_start`, of a core's first handler.
    Start,
    /// `authorize`.
    Authorize,
    /// `on_connected`.
    Connected,
    /// `on_message`.
    Message,
    /// `on_request`.
    Request,
    /// `on_response`.
    Response,
    /// `on_drained`.
    Drained,
    /// `on_slow`.
    Slow,
    /// `on_rate_limited`.
    RateLimited,
    /// `on_subscribed`.
    Subscribed,
    /// `on_unsubscribed`.
    Unsubscribed,
    /// `on_send_failed`.
    SendFailed,
    /// `on_dial_failed`.
    DialFailed,
    /// `on_pooled`.
    Pooled,
    /// `on_breaker`.
    Breaker,
    /// `on_going_away`.
    GoingAway,
    /// `on_closed`.
    Closed,
    /// `on_command`.
    Command,
    /// `on_acked`.
    Acked,
    /// `on_receipt`.
    Receipt,
    /// `on_timer`.
    Timer,
}

impl Callback {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 21] = [
        Self::Start,
        Self::Authorize,
        Self::Connected,
        Self::Message,
        Self::Request,
        Self::Response,
        Self::Drained,
        Self::Slow,
        Self::RateLimited,
        Self::Subscribed,
        Self::Unsubscribed,
        Self::SendFailed,
        Self::DialFailed,
        Self::Pooled,
        Self::Breaker,
        Self::GoingAway,
        Self::Closed,
        Self::Command,
        Self::Acked,
        Self::Receipt,
        Self::Timer,
    ];

    /// The method's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "on_start",
            Self::Authorize => "authorize",
            Self::Connected => "on_connected",
            Self::Message => "on_message",
            Self::Request => "on_request",
            Self::Response => "on_response",
            Self::Drained => "on_drained",
            Self::Slow => "on_slow",
            Self::RateLimited => "on_rate_limited",
            Self::Subscribed => "on_subscribed",
            Self::Unsubscribed => "on_unsubscribed",
            Self::SendFailed => "on_send_failed",
            Self::DialFailed => "on_dial_failed",
            Self::Pooled => "on_pooled",
            Self::Breaker => "on_breaker",
            Self::GoingAway => "on_going_away",
            Self::Closed => "on_closed",
            Self::Command => "on_command",
            Self::Acked => "on_acked",
            Self::Receipt => "on_receipt",
            Self::Timer => "on_timer",
        }
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A panic of the handler that this one takes the place of: see [`crate::Handler::on_panic`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerPanic {
    /// The method that panicked.
    pub callback: Callback,
    /// The peer that the call was about, which has been closed (`HandlerPanicked`), unless it was gone already.
    pub peer: Option<PeerId>,
    /// The node that the call was about: that peer's, if it is this core's, or the one that `authorize` was asked about. The same node
    /// again and again may mean it.
    pub node: Option<NodeId>,
    /// The type of the message, request or response that was being handled.
    pub message_type: Option<u16>,
    /// What the panic said, if it was text. May repeat what a peer has sent, and be as long as the panicking code made it.
    pub text: Option<String>,
    /// Panics of the application's code on this core since the start, with this one: `handler_panics`.
    pub count: u64,
}

/// How a core goes on after a panic of its handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AfterPanic {
    /// With the new handler.
    #[default]
    Continue,
    /// Not: its thread ends as if the panic had not been caught, and its peers are lost. Reported by `ShutdownReport::panicked`.
    EndCore,
}
