//! One peer, without a socket.
//!
//! This module owns what a connection says and keeps: handshake, keepalive, the messages that are arriving, the requests that wait, and
//! what is to be sent. It is given bytes and the time, and gives bytes back. It does not know which core it is on, who the application
//! is, or how many other peers there are.

mod acks;
mod handshake;
mod keepalive;
mod log;
mod outbox;
mod peer;
mod reassembly;
mod requests;
mod rtt;
mod session;
mod timers;

pub(crate) use acks::{Arrival, Delivery, Exchange, Ledger};
pub(crate) use handshake::{Handshake, Progress};
pub(crate) use log::Logs;
pub(crate) use outbox::{Dropped, Outbox, Quanta, QueuedPool, SPANS_CHARGE, Slices};
pub(crate) use peer::{Due, Peer, Received};
pub(crate) use reassembly::Budget;
pub(crate) use requests::Origin;
pub(crate) use timers::Timer;
