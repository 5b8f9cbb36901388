//! One peer, without a socket.
//!
//! This module owns what a connection says and keeps: handshake, keepalive, the messages that are arriving, the requests that wait, and
//! what is to be sent. It is given bytes and the time, and gives bytes back. It does not know which core it is on, who the application
//! is, or how many other peers there are.

mod acks;
mod budget;
mod handshake;
mod keepalive;
mod log;
mod noise;
mod outbox;
mod peer;
mod reassembly;
mod requests;
mod response;
mod rtt;
mod session;
mod timers;

pub(crate) use acks::{AWAITED_ID, Arrival, Delivery, Exchange, LEDGER_ID, LOST, Ledger, PENDING_ID, WINDOW_ID};
pub(crate) use budget::Budget;
pub(crate) use handshake::{Handshake, Progress};
pub(crate) use log::{LOG_SPARE, Logs, log_segments};
pub(crate) use noise::{Keys, MAX_PLAINTEXT, MAX_RECORD, Opened};
pub(crate) use outbox::{OUTBOX_SPARE, Outbox, Quanta, QueuedPool, SPANS_CHARGE, Slices, TERMS_CHARGE};
pub(crate) use peer::{Due, Peer, Received, Whole};
pub(crate) use reassembly::{REASSEMBLY, charge as reassembly_charge};
pub(crate) use requests::{Origin, REQUEST_BYTES, REQUESTS_SPARE};
pub use response::RequestTimeout;
pub(crate) use session::{SESSION, Session};
pub(crate) use timers::{Timer, Timers};
