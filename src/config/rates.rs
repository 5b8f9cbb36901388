//! How much a peer may send, and be sent.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Config, Rate, at_least, at_least_time, within};
use crate::error::ConfigError;
use crate::wire::{HEADER_LEN, message_wire_len};

/// Limits on what each peer may send to this side, and on what this side sends to each peer: token buckets, in messages and in bytes.
///
/// **What counts** are the application's frames: messages, requests, responses, messages to be acknowledged, subscribing and unsubscribing.
/// Pings have a limit of their own ([`crate::Keepalive::max_pings_per_second`]); pongs, acknowledgements and goodbyes are answers, of which
/// there cannot be more than there was something to answer, and cost nothing. A message costs what `costs` has for its type, when its first
/// frame comes; each frame costs its bytes when it comes, with its header of 8 bytes, before encryption. Broadcasts and publishes cost
/// once for each peer that they go to.
///
/// **Received.** What comes over the limit is dealt with as `when_over` says.
///
/// **Sent.** What goes over the limit is refused when it is sent, with [`crate::SendError::RateLimited`], which says when it would be
/// taken; a peer for whom a broadcast or a publish is too much is passed by. Both are counted (`sends_rate_limited`). What has waited for
/// its node, and what is sent again because a connection ended before the acknowledgement came, costs nothing. Nothing waits on this
/// side for the limit: the application knows what is still worth sending later.
///
/// Memory: about 250 bytes for each peer of an engine that has rates, none without.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rates {
    /// What a peer may send to this side. Default: no limit.
    pub receive: Option<RateLimit>,
    /// What this side sends to a peer. Default: no limit. Where the other side has a limit, best a little under that.
    pub send: Option<RateLimit>,
    /// What happens to what a peer sends beyond `receive`. Default: [`WhenOver::Delay`], which loses nothing.
    pub when_over: WhenOver,
    /// What a message of a type costs, in messages. Default: 1 for all types. 0 costs only its bytes. Not more than a bucket holds at once
    /// (`burst`). A response costs by its own type.
    pub costs: BTreeMap<u16, u32>,
    /// What subscribing and unsubscribing cost, in messages, each time. Default 1.
    pub subscribe: u32,
    /// With [`WhenOver::Drop`]: for how long what was dropped is added up before [`crate::Handler::on_rate_limited`] says it. At least 1
    /// ms. Default: none, it is not called. No other [`WhenOver`] has anything to report: there it does nothing.
    pub report: Option<Duration>,
}

/// A limit in messages and in bytes. What passes has to be within both.
///
/// `burst` is what may come at once after a pause, `per_second` what may come in the long run. Bursts of bytes have to hold the longest
/// message that [`crate::Limits::max_message`] allows, with its headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// In messages, as `Rates::costs` counts them. None: no limit.
    pub messages: Option<Rate>,
    /// In bytes, headers included. None: no limit.
    pub bytes: Option<Rate>,
}

/// What happens to what a peer sends beyond [`Rates::receive`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenOver {
    /// It is read later: nothing more is read from the peer until its bucket has enough for the next frame and some more (up to 25 ms,
    /// or a full bucket), so that TCP slows it down (`rate_delays`). Nothing is lost and the order stays.
    ///
    /// The peer is not taken for dead meanwhile, nor cut off for what is unfinished, and the time is no pause
    /// ([`crate::Timeouts::pause`]). Its own pings wait behind what it has sent; so that it does not take this side for dead, it is sent a
    /// ping each `Keepalive::interval`, or third of `Keepalive::timeout`, which is longer, as long as there are delays. What it
    /// does with a reader that is slow is its own decision: see [`crate::Timeouts::write_stall`].
    ///
    /// Timers are to the millisecond: a burst that is less than a few milliseconds' worth keeps the peer under its rate.
    #[default]
    Delay,
    /// It is dropped, in whole messages, and counted (`rate_limited_messages`, `rate_limited_bytes`), and reported where that is asked for
    /// ([`Rates::report`]). A message whose bytes run into the limit on the way is dropped whole. To the sender it is as if the application
    /// had ignored it: a request times out, a message to be acknowledged is not. Subscribing and unsubscribing take what there is in the
    /// bucket, and are never dropped: the two sides would disagree from then on.
    Drop,
    /// The peer is cut off: [`crate::CloseReason::RateLimited`] (`closed_rate_limited`).
    Disconnect,
}

impl Default for Rates {
    fn default() -> Self {
        Self { receive: None, send: None, when_over: WhenOver::Delay, costs: BTreeMap::new(), subscribe: 1, report: None }
    }
}

impl Rates {
    /// What a message of this type costs, in messages.
    pub(crate) fn cost(&self, message_type: u16) -> u32 {
        self.costs.get(&message_type).copied().unwrap_or(1)
    }

    pub(super) fn validate(&self, config: &Config) -> Result<(), ConfigError> {
        if self.receive.or(self.send).is_none() {
            let expected = "a limit on what is received, or rates.send one on what is sent; without either, leave rates out";
            return Err(ConfigError { field: "rates.receive", value: None, expected, bound: None, unit: "" });
        }
        let receive = ["rates.receive.messages.per_second", "rates.receive.messages.burst", "rates.receive.bytes.per_second"];
        let send = ["rates.send.messages.per_second", "rates.send.messages.burst", "rates.send.bytes.per_second"];
        self.check_limit(self.receive, config, receive, "rates.receive.bytes.burst")?;
        self.check_limit(self.send, config, send, "rates.send.bytes.burst")?;
        self.report.map_or(Ok(()), |report| at_least_time("rates.report", report, Duration::from_millis(1)))
    }

    fn check_limit(
        &self,
        limit: Option<RateLimit>,
        config: &Config,
        fields: [&'static str; 3],
        burst: &'static str,
    ) -> Result<(), ConfigError> {
        let Some(limit) = limit else { return Ok(()) };
        if let Some(rate) = limit.messages {
            at_least(fields[0], rate.per_second as usize, 1, "at least 1 a second")?;
            at_least(fields[1], rate.burst as usize, 1, "at least 1 at once")?;
            let dearest = self.costs.values().copied().max().unwrap_or(0);
            within(
                "rates.costs",
                dearest as usize,
                0,
                rate.burst as usize,
                "no more than each limit's messages.burst, or none would pass",
            )?;
            within("rates.subscribe", self.subscribe as usize, 0, rate.burst as usize, "no more than each limit's messages.burst")?;
        }
        if let Some(rate) = limit.bytes {
            at_least(fields[2], rate.per_second as usize, 1, "at least 1 a second")?;
            let limits = &config.limits;
            let longest = message_wire_len(true, limits.max_message, limits.fragment.max(HEADER_LEN));
            at_least(burst, rate.burst as usize, longest, "at least one limits.max_message with its headers, or none would pass")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Rate = Rate { per_second: 1, burst: 1 };

    fn refused(change: impl FnOnce(&mut Rates)) -> Option<&'static str> {
        let mut rates = Rates { receive: Some(RateLimit { messages: Some(SLOW), bytes: None }), ..Rates::default() };
        change(&mut rates);
        Config { rates: Some(rates), ..Config::plaintext() }.validate().err().map(|error| error.field)
    }

    #[test]
    fn a_limit_that_lets_nothing_pass_names_its_field() {
        let most = message_wire_len(true, 1 << 20, 16 << 10) as u32;
        let bytes = |per_second, burst| Some(RateLimit { messages: None, bytes: Some(Rate { per_second, burst }) });
        let messages = |per_second, burst| Some(RateLimit { messages: Some(Rate { per_second, burst }), bytes: None });
        assert_eq!(refused(|_| ()), None);
        assert_eq!(refused(|rates| rates.receive = None), Some("rates.receive"));
        assert_eq!(refused(|rates| rates.receive = messages(0, 1)), Some("rates.receive.messages.per_second"));
        assert_eq!(refused(|rates| rates.receive = messages(1, 0)), Some("rates.receive.messages.burst"));
        assert_eq!(refused(|rates| rates.receive = bytes(0, most)), Some("rates.receive.bytes.per_second"));
        assert_eq!(refused(|rates| rates.receive = bytes(1, most - 1)), Some("rates.receive.bytes.burst"));
        assert_eq!(refused(|rates| rates.send = messages(0, 1)), Some("rates.send.messages.per_second"));
        assert_eq!(refused(|rates| rates.send = bytes(1, most - 1)), Some("rates.send.bytes.burst"));
        assert_eq!(refused(|rates| rates.send = bytes(1, most)), None);
        assert_eq!(refused(|rates| _ = rates.costs.insert(7, 2)), Some("rates.costs"));
        assert_eq!(refused(|rates| rates.subscribe = 2), Some("rates.subscribe"));
        assert_eq!(refused(|rates| rates.report = Some(Duration::ZERO)), Some("rates.report"));
    }

    #[test]
    fn a_type_costs_what_it_is_said_to_and_all_others_one() {
        let rates = Rates { costs: [(7, 5), (8, 0)].into(), ..Rates::default() };
        assert_eq!([7, 8, 9].map(|message_type| rates.cost(message_type)), [5, 0, 1]);
    }
}
