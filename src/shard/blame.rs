//! Who is to blame for a connection that came to nothing.
//!
//! A breaker opens for what its target, or the network on the way there, did; what this side lacks or wants says nothing about a target.

use std::io::ErrorKind;

use crate::error::{CloseReason, HandshakeError};
use crate::wire::{GoodbyeCode, RefusalCode};

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This side, or nobody.
    Local,
    /// The target, or the network on the way there.
    Target,
}

impl Fault {
    fn target_if(blamed: bool) -> Self {
        if blamed { Self::Target } else { Self::Local }
    }

    /// For what the kernel says. Only what it says of the other side is held against that: no route is as a rule what this machine lacks.
    pub(super) fn of_io(kind: ErrorKind) -> Self {
        use ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NotConnected, NotFound, TimedOut,
            UnexpectedEof,
        };
        Self::target_if(matches!(
            kind,
            BrokenPipe
                | ConnectionAborted
                | ConnectionRefused
                | ConnectionReset
                | HostUnreachable
                | NotConnected
                // A path at which nobody listens any more: the file goes with the listener.
                | NotFound
                | TimedOut
                | UnexpectedEof
        ))
    }

    /// For a handshake that failed.
    pub(super) fn of_handshake(error: HandshakeError) -> Self {
        match error {
            // Another connection is there, or this very node.
            HandshakeError::RefusedByPeer(RefusalCode::Duplicate | RefusalCode::SelfConnection) => Self::Local,
            HandshakeError::Goodbye(code) => Self::of_goodbye(code),
            // What this side does not want.
            HandshakeError::Refused(code) => Self::target_if(!matches!(
                code,
                RefusalCode::Duplicate
                    | RefusalCode::SelfConnection
                    | RefusalCode::Full
                    | RefusalCode::ShuttingDown
                    | RefusalCode::NotAllowed
            )),
            HandshakeError::Io(kind) => Self::of_io(kind),
            _ => Self::Target,
        }
    }

    fn of_goodbye(code: GoodbyeCode) -> Self {
        Self::target_if(!matches!(code, GoodbyeCode::Duplicate | GoodbyeCode::Replaced | GoodbyeCode::SelfConnection))
    }

    /// For the end of a peer that has sent nothing.
    pub(super) fn of_close(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Requested
            | CloseReason::ShuttingDown
            | CloseReason::Replaced
            | CloseReason::PausedTooLong
            | CloseReason::NotAllowed
            | CloseReason::HandlerPanicked
            | CloseReason::Idle => Self::Local,
            CloseReason::Goodbye(code) => Self::of_goodbye(code),
            CloseReason::Io(kind) => Self::of_io(kind),
            CloseReason::Eof
            | CloseReason::Violation(_)
            | CloseReason::SlowPeer(_)
            | CloseReason::RateLimited
            | CloseReason::Unresponsive
            | CloseReason::PartialTimeout => Self::Target,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_side_lacks_or_wants_is_not_held_against_the_target() {
        // No descriptors and no buffers have no kind of their own: whatever is not known to be the target's fault is not.
        for local in [libc_error(24), libc_error(23), libc_error(105), ErrorKind::AddrNotAvailable, ErrorKind::AddrInUse] {
            assert_eq!(Fault::of_io(local), Fault::Local, "{local}");
        }
        for local in [ErrorKind::NetworkUnreachable, ErrorKind::NetworkDown, ErrorKind::PermissionDenied, ErrorKind::InvalidInput] {
            assert_eq!(Fault::of_io(local), Fault::Local, "{local}");
        }
        for remote in
            [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::TimedOut, ErrorKind::HostUnreachable, libc_error(2)]
        {
            assert_eq!(Fault::of_io(remote), Fault::Target, "{remote}");
        }
        use HandshakeError::{Eof, Refused, RefusedByPeer, Timeout, WrongNode};
        for local in [RefusalCode::NotAllowed, RefusalCode::Full, RefusalCode::ShuttingDown, RefusalCode::Duplicate] {
            assert_eq!(Fault::of_handshake(Refused(local)), Fault::Local, "{local:?}");
        }
        assert_eq!(Fault::of_handshake(RefusedByPeer(RefusalCode::Duplicate)), Fault::Local);
        for remote in [RefusedByPeer(RefusalCode::NotAllowed), Refused(RefusalCode::Version), Eof, Timeout, WrongNode] {
            assert_eq!(Fault::of_handshake(remote), Fault::Target, "{remote:?}");
        }
        assert_eq!(Fault::of_close(CloseReason::Requested), Fault::Local);
        assert_eq!(Fault::of_close(CloseReason::Eof), Fault::Target);
    }

    fn libc_error(code: i32) -> ErrorKind {
        std::io::Error::from_raw_os_error(code).kind()
    }
}
