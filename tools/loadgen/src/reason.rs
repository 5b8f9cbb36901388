//! Why connections fail and end, in words that a user of the load generator can act on.

use std::fmt;

use corecast::{CloseReason, DialError, GoodbyeCode, HandshakeError, RefusalCode, Slow};

/// Why a dial did not end in a peer.
pub(crate) struct Dialling(pub(crate) DialError);

/// Why a peer ended.
pub(crate) struct Ending(pub(crate) CloseReason);

impl fmt::Display for Dialling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DialError::Handshake(HandshakeError::RefusedByPeer(code)) => write!(f, "the server refused: {}", refusal(code)),
            DialError::Handshake(HandshakeError::Refused(code)) => write!(f, "the server was refused: {}", refusal(code)),
            DialError::Handshake(HandshakeError::Goodbye(code)) => write!(f, "the server withdrew: {}", goodbye(code)),
            DialError::NotAllowed => write!(f, "the server refused: {}", refusal(RefusalCode::NotAllowed)),
            other => other.fmt(f),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            CloseReason::Goodbye(code) => write!(f, "the server said goodbye: {}", goodbye(code)),
            CloseReason::SlowPeer(slow) => write!(f, "the server reads too slowly: {}", slowness(slow)),
            other => other.fmt(f),
        }
    }
}

fn refusal(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Version => "it does not speak this version of the protocol",
        RefusalCode::Suite => "it speaks plaintext, or another cipher; both sides need the same --plaintext or --cipher",
        RefusalCode::AuthFailed => {
            "it has another key, network or network secret; both sides need the same --network and --network-secret-file"
        }
        RefusalCode::NotAllowed => "this node is not on its list, see its --allow",
        RefusalCode::Malformed => "it did not understand the greeting",
        RefusalCode::WrongNetwork => "it belongs to another network; both sides need the same --network",
        RefusalCode::SelfConnection => "it has the same node id",
        RefusalCode::Duplicate => "it has this node and channel already",
        RefusalCode::Full => "it is full, see its --max-peers",
        RefusalCode::ShuttingDown => "it is shutting down",
        _ => "for a reason that this version does not know",
    }
}

fn goodbye(code: GoodbyeCode) -> &'static str {
    match code {
        GoodbyeCode::Closed => "it closed the connection",
        GoodbyeCode::ShuttingDown => "it is shutting down",
        GoodbyeCode::Replaced => "a newer connection took this one's place",
        GoodbyeCode::Duplicate => "it has this node and channel already",
        GoodbyeCode::SlowPeer => "this client reads too slowly",
        GoodbyeCode::Violation => "this client broke the protocol",
        GoodbyeCode::Full => "it is full, see its --max-peers",
        GoodbyeCode::Unresponsive => "this client sent nothing for too long",
        GoodbyeCode::NotAllowed => "this node is not on its list any more",
        GoodbyeCode::RateLimited => "this client sends more than it allows",
        _ => "for a reason that this version does not know",
    }
}

fn slowness(slow: Slow) -> &'static str {
    match slow {
        Slow::HardBound => "too many bytes wait for it",
        Slow::SoftMark => "bytes wait for it, and they hardly get fewer",
        Slow::WriteStall => "it took nothing for too long",
        Slow::LogFull => "it held up the broadcast log",
        _ => "for a reason that this version does not know",
    }
}
