//! The application's handler, with a look at how long it takes.
//!
//! Ring 0 calls the handler and reads no clock, so whoever wants to know stands in between: an [`Observed`] is a [`Handler`] that passes
//! every call on. While nobody looks, that costs a call one predictable branch.

use std::net::SocketAddr;
use std::time::Duration;

use super::Clock;
use crate::error::{CloseReason, DialError, RequestError, SendError};
use crate::handler::{Backlog, Context, Direction, Handler, Message, PeerInfo, Responder};
use crate::id::{DialId, NodeId, PeerId, Topic};
use crate::receipt::Receipt;

/// See the module.
#[derive(Debug)]
pub(super) struct Observed<H> {
    inner: H,
    clock: Clock,
    /// Somebody looks.
    active: bool,
    /// Calls since `begin`, and how long they took.
    calls: u32,
    spent: Duration,
}

impl<H: Handler> Observed<H> {
    pub(super) fn new(inner: H, clock: Clock) -> Self {
        Self { inner, clock, active: false, calls: 0, spent: Duration::ZERO }
    }

    /// Calls are measured from here on.
    pub(super) fn begin(&mut self) {
        (self.active, self.calls, self.spent) = (true, 0, Duration::ZERO);
    }

    /// How many there were since, and how long they took.
    pub(super) fn end(&mut self) -> (u32, Duration) {
        self.active = false;
        (self.calls, self.spent)
    }

    #[inline]
    fn pass<R>(&mut self, call: impl FnOnce(&mut H) -> R) -> R {
        if self.active { self.measure(call) } else { call(&mut self.inner) }
    }

    #[cold]
    #[inline(never)]
    fn measure<R>(&mut self, call: impl FnOnce(&mut H) -> R) -> R {
        let began = self.clock.now();
        let result = call(&mut self.inner);
        self.calls += 1;
        self.spent += self.clock.now() - began;
        result
    }
}

impl<H: Handler> Handler for Observed<H> {
    type Command = H::Command;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.pass(|inner| inner.on_start(cx));
    }

    fn authorize(&mut self, node: NodeId, address: SocketAddr, direction: Direction) -> bool {
        self.pass(|inner| inner.authorize(node, address, direction))
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        self.pass(|inner| inner.on_connected(cx, peer, info));
    }

    #[inline]
    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        self.pass(|inner| inner.on_message(cx, peer, message));
    }

    #[inline]
    fn on_request(&mut self, cx: &mut Context<'_>, peer: PeerId, request: Message<'_>, responder: Responder) {
        self.pass(|inner| inner.on_request(cx, peer, request, responder));
    }

    #[inline]
    fn on_response(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, result: Result<Message<'_>, RequestError>) {
        self.pass(|inner| inner.on_response(cx, peer, tag, result));
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        self.pass(|inner| inner.on_drained(cx, peer));
    }

    fn on_slow(&mut self, cx: &mut Context<'_>, peer: PeerId, backlog: Backlog) {
        self.pass(|inner| inner.on_slow(cx, peer, backlog));
    }

    fn on_subscribed(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.pass(|inner| inner.on_subscribed(cx, peer, topic));
    }

    fn on_unsubscribed(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.pass(|inner| inner.on_unsubscribed(cx, peer, topic));
    }

    fn on_send_failed(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, reason: SendError) {
        self.pass(|inner| inner.on_send_failed(cx, peer, tag, reason));
    }

    fn on_dial_failed(&mut self, cx: &mut Context<'_>, dial: DialId, error: DialError, retry_in: Option<Duration>) {
        self.pass(|inner| inner.on_dial_failed(cx, dial, error, retry_in));
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        self.pass(|inner| inner.on_closed(cx, peer, reason));
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: H::Command) {
        self.pass(|inner| inner.on_command(cx, command));
    }

    fn on_acked(&mut self, cx: &mut Context<'_>, receipt: &Receipt) {
        self.pass(|inner| inner.on_acked(cx, receipt));
    }

    fn on_receipt(&mut self, cx: &mut Context<'_>, receipt: Receipt) {
        self.pass(|inner| inner.on_receipt(cx, receipt));
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, tag: u64) {
        self.pass(|inner| inner.on_timer(cx, tag));
    }
}
