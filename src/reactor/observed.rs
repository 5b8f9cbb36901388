//! The application's handler, with a look at how long it takes.
//!
//! Ring 0 calls the handler and reads no clock, so whoever wants to know stands in between: an [`Observed`] is a [`Handler`] that passes
//! every call on. While nobody looks, that costs a call one predictable branch.

use std::sync::Arc;
use std::time::Duration;

use super::Clock;
use crate::endpoint::{BreakerState, Endpoint};
use crate::error::{CloseReason, DialError, RequestError, SendError};
use crate::handler::{AfterPanic, Backlog, Callback, Context, Handler, HandlerPanic, Message, PeerInfo, RateLimited, Responder};
use crate::id::{DialId, PeerId, Topic};
use crate::notice::Notice;
use crate::receipt::Receipt;
use crate::watchdog::{Running, Watch};

/// See the module.
#[derive(Debug)]
pub(super) struct Observed<H> {
    inner: H,
    clock: Clock,
    /// Somebody looks: the watchdog at every call, or the accounts at those of this read batch.
    active: bool,
    /// Where it is published what runs. None without a watchdog.
    watch: Option<Arc<Watch>>,
    /// Calls so far, while they are published.
    number: u64,
    measuring: bool,
    /// Calls since `begin`, and how long they took.
    calls: u32,
    spent: Duration,
}

impl<H: Handler> Observed<H> {
    pub(super) fn new(inner: H, clock: Clock, watch: Option<Arc<Watch>>) -> Self {
        Self { inner, clock, active: watch.is_some(), watch, number: 0, measuring: false, calls: 0, spent: Duration::ZERO }
    }

    /// Calls are measured from here on.
    pub(super) fn begin(&mut self) {
        (self.active, self.measuring, self.calls, self.spent) = (true, true, 0, Duration::ZERO);
    }

    /// How many there were since, and how long they took.
    pub(super) fn end(&mut self) -> (u32, Duration) {
        (self.active, self.measuring) = (self.watch.is_some(), false);
        (self.calls, self.spent)
    }

    #[inline]
    fn pass<R>(&mut self, running: Running, call: impl FnOnce(&mut H) -> R) -> R {
        if self.active { self.observe(running, call) } else { call(&mut self.inner) }
    }

    #[inline(never)]
    fn observe<R>(&mut self, running: Running, call: impl FnOnce(&mut H) -> R) -> R {
        self.number += 1;
        let _running = self.watch.as_ref().map(|watch| watch.enter(self.number, running));
        if !self.measuring {
            return call(&mut self.inner);
        }
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
        self.pass(Running::new(Callback::Start), |inner| inner.on_start(cx));
    }

    fn authorize(&mut self, info: &PeerInfo) -> bool {
        self.pass(Running::new(Callback::Authorize), |inner| inner.authorize(info))
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
        self.pass(Running::new(Callback::Connected), |inner| inner.on_connected(cx, peer, info));
    }

    #[inline]
    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        self.pass(Running::with(Callback::Message, message.message_type()), |inner| inner.on_message(cx, peer, message));
    }

    #[inline]
    fn on_request(&mut self, cx: &mut Context<'_>, peer: PeerId, request: Message<'_>, responder: Responder) {
        self.pass(Running::with(Callback::Request, request.message_type()), |inner| inner.on_request(cx, peer, request, responder));
    }

    #[inline]
    fn on_response(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, result: Result<Message<'_>, RequestError>) {
        let running = match &result {
            Ok(message) => Running::with(Callback::Response, message.message_type()),
            Err(_) => Running::new(Callback::Response),
        };
        self.pass(running, |inner| inner.on_response(cx, peer, tag, result));
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        self.pass(Running::new(Callback::Drained), |inner| inner.on_drained(cx, peer));
    }

    fn on_slow(&mut self, cx: &mut Context<'_>, peer: PeerId, backlog: Backlog) {
        self.pass(Running::new(Callback::Slow), |inner| inner.on_slow(cx, peer, backlog));
    }

    fn on_subscribed(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.pass(Running::new(Callback::Subscribed), |inner| inner.on_subscribed(cx, peer, topic));
    }

    fn on_unsubscribed(&mut self, cx: &mut Context<'_>, peer: PeerId, topic: Topic) {
        self.pass(Running::new(Callback::Unsubscribed), |inner| inner.on_unsubscribed(cx, peer, topic));
    }

    fn on_send_failed(&mut self, cx: &mut Context<'_>, peer: PeerId, tag: u64, reason: SendError) {
        self.pass(Running::new(Callback::SendFailed), |inner| inner.on_send_failed(cx, peer, tag, reason));
    }

    fn on_dial_failed(&mut self, cx: &mut Context<'_>, dial: DialId, error: DialError, retry_in: Option<Duration>) {
        self.pass(Running::new(Callback::DialFailed), |inner| inner.on_dial_failed(cx, dial, error, retry_in));
    }

    fn on_rate_limited(&mut self, cx: &mut Context<'_>, peer: PeerId, dropped: RateLimited) {
        self.pass(Running::new(Callback::RateLimited), |inner| inner.on_rate_limited(cx, peer, dropped));
    }

    fn on_going_away(&mut self, cx: &mut Context<'_>, peer: PeerId, notice: Notice) {
        self.pass(Running::new(Callback::GoingAway), |inner| inner.on_going_away(cx, peer, notice));
    }

    fn on_pooled(&mut self, cx: &mut Context<'_>, tag: u64, result: Result<PeerId, DialError>) {
        self.pass(Running::new(Callback::Pooled), |inner| inner.on_pooled(cx, tag, result));
    }

    fn on_breaker(&mut self, cx: &mut Context<'_>, target: Endpoint, state: BreakerState) {
        self.pass(Running::new(Callback::Breaker), |inner| inner.on_breaker(cx, target, state));
    }

    /// Nobody looks: a panic of this ends the core.
    fn on_panic(&mut self, cx: &mut Context<'_>, panic: &HandlerPanic) -> AfterPanic {
        self.inner.on_panic(cx, panic)
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason) {
        self.pass(Running::new(Callback::Closed), |inner| inner.on_closed(cx, peer, reason));
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: H::Command) {
        self.pass(Running::new(Callback::Command), |inner| inner.on_command(cx, command));
    }

    fn on_acked(&mut self, cx: &mut Context<'_>, receipt: &Receipt) {
        self.pass(Running::new(Callback::Acked), |inner| inner.on_acked(cx, receipt));
    }

    fn on_receipt(&mut self, cx: &mut Context<'_>, receipt: Receipt) {
        self.pass(Running::new(Callback::Receipt), |inner| inner.on_receipt(cx, receipt));
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, tag: u64) {
        self.pass(Running::new(Callback::Timer), |inner| inner.on_timer(cx, tag));
    }
}

#[cfg(test)]
mod tests {
    /// A method that is not passed on would be the trait's default: the application would not hear of what it is for.
    #[test]
    fn every_method_of_a_handler_is_passed_on() {
        let (_, methods) = include_str!("../handler.rs").split_once("pub trait Handler").unwrap();
        let (methods, _) = methods.split_once("\n}\n").unwrap();
        let methods: Vec<_> = methods.lines().filter_map(|line| line.strip_prefix("    fn ")?.split_once('(')).collect();
        assert!(methods.len() >= 17, "{methods:?}");
        for (method, _) in methods {
            assert!(include_str!("observed.rs").contains(&format!("inner.{method}(")), "{method} is not passed on");
        }
    }
}
