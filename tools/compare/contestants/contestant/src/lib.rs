//! What the contestants have in common, so that they differ in nothing but their frameworks.
//!
//! ```text
//! options   the command line, the core to run on, the first line of output, the signal to end
//! session   WIRE.md in plaintext as an acceptor sees it: bytes in, what to do with them out (tokio-idiomatic, tokio-tuned, monoio-server)
//! frames    the same wire for a codec: one frame at a time
//! tally     which messages of a sink are answered
//! log       what a fan-out has still to send, shared by all who read it (tokio-tuned, monoio-server)
//! ```

pub mod frames;
pub mod log;
mod options;
pub mod session;
pub mod tally;
// The client and the bare server use more of it.
#[allow(dead_code)]
#[path = "../../../src/wire.rs"]
mod wire;

pub use options::{Mode, Options, Poll, announce, dialler_gone, stop_signal};
