//! How much a server lets each peer send, and sends to each.

use clap::{Args, ValueEnum};
use corecast::{Config, Rate, RateLimit, Rates, WhenOver};

use crate::cli::parse_bytes;
use crate::security::parse_rate_limit;

/// What each peer may send, and is sent. Without them: no limits.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Rates")]
pub(crate) struct RateArgs {
    /// Messages that each peer may send: so many a second, or so many a second and at once.
    #[arg(long, value_name = "R[:BURST]", value_parser = parse_rate_limit)]
    rate_receive_messages: Option<Rate>,
    /// Bytes that each peer may send a second, headers included, such as 1M or 1M:4M. Without a burst: a second's worth, or the longest
    /// message.
    #[arg(long, value_name = "BYTES[:BURST]", value_parser = parse_byte_rate)]
    rate_receive_bytes: Option<ByteRate>,
    /// Messages that each peer is sent. What is over it is refused: an echo, a fan-out's delivery or an answer is lost.
    #[arg(long, value_name = "R[:BURST]", value_parser = parse_rate_limit)]
    rate_send_messages: Option<Rate>,
    /// Bytes that each peer is sent a second, likewise.
    #[arg(long, value_name = "BYTES[:BURST]", value_parser = parse_byte_rate)]
    rate_send_bytes: Option<ByteRate>,
    /// What happens to what a peer sends over its limit. Without it: delay.
    #[arg(long, value_enum)]
    when_over: Option<Over>,
}

/// What happens to what a peer sends over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Over {
    /// It is read later.
    Delay,
    /// It is dropped.
    Drop,
    /// The peer is cut off.
    Disconnect,
}

/// Bytes a second; at once, where that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ByteRate {
    per_second: u32,
    burst: Option<u32>,
}

impl RateArgs {
    /// What makes no sense together.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.when_over.is_some() && self.rate_receive_messages.is_none() && self.rate_receive_bytes.is_none() {
            return Err("--when-over: there is no limit: say --rate-receive-messages or --rate-receive-bytes, too".into());
        }
        Ok(())
    }

    /// Called when it is known how long a message may be. The library says what is wrong with what was said.
    pub(crate) fn apply(&self, config: &mut Config) {
        let longest = config.limits.max_message + config.limits.max_message / 100 + 64;
        let limit = |messages: Option<Rate>, bytes: Option<ByteRate>| {
            let bytes = bytes.map(|ByteRate { per_second, burst }| {
                let burst = burst.unwrap_or(per_second.max(u32::try_from(longest).unwrap_or(u32::MAX)));
                Rate { per_second, burst }
            });
            (messages.is_some() || bytes.is_some()).then_some(RateLimit { messages, bytes })
        };
        let mut rates = Rates::default();
        rates.receive = limit(self.rate_receive_messages, self.rate_receive_bytes);
        rates.send = limit(self.rate_send_messages, self.rate_send_bytes);
        rates.when_over = match self.when_over {
            None | Some(Over::Delay) => WhenOver::Delay,
            Some(Over::Drop) => WhenOver::Drop,
            Some(Over::Disconnect) => WhenOver::Disconnect,
        };
        config.rates = (rates.receive.is_some() || rates.send.is_some()).then_some(rates);
    }
}

/// The rates in force, for the line that has the limits; nothing where there are none.
pub(crate) fn describe(config: &Config) -> String {
    let Some(rates) = &config.rates else { return String::new() };
    let mut parts = Vec::new();
    for (what, limit) in [("received", rates.receive), ("sent", rates.send)] {
        for (unit, rate) in [("messages", limit.and_then(|limit| limit.messages)), ("bytes", limit.and_then(|limit| limit.bytes))] {
            parts.extend(rate.map(|rate| format!("{what} {} {unit}/s (burst {})", rate.per_second, rate.burst)));
        }
    }
    let over = match rates.when_over {
        _ if rates.receive.is_none() => "",
        WhenOver::Drop => ", over it dropped",
        WhenOver::Disconnect => ", over it cut off",
        _ => ", over it read later",
    };
    format!("; each peer: {}{over}", parts.join(", "))
}

fn parse_byte_rate(text: &str) -> Result<ByteRate, String> {
    let number = |text: &str| parse_bytes(text).ok().and_then(|bytes| u32::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    let (per_second, burst) = text.split_once(':').map_or((text, None), |(rate, burst)| (rate, Some(burst)));
    match (number(per_second), burst.map(number)) {
        (Some(per_second), None) => Ok(ByteRate { per_second, burst: None }),
        (Some(per_second), Some(Some(burst))) => Ok(ByteRate { per_second, burst: Some(burst) }),
        _ => Err("expected bytes a second, such as 1M, or with a burst, such as 1M:4M".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_in_bytes() {
        assert_eq!(parse_byte_rate("1M"), Ok(ByteRate { per_second: 1 << 20, burst: None }));
        assert_eq!(parse_byte_rate("64k:1M"), Ok(ByteRate { per_second: 64 << 10, burst: Some(1 << 20) }));
        for bad in ["", "0", "1M:", ":1M", "1M:0", "x", "8192M"] {
            assert!(parse_byte_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_without_a_burst_lets_the_longest_message_pass() {
        for message in [1 << 10, 1 << 20, 16 << 20] {
            let mut config = Config::plaintext();
            crate::limits::fit_messages(&mut config.limits, message, 1);
            let per_second = Some(ByteRate { per_second: 1000, burst: None });
            RateArgs { rate_receive_bytes: per_second, rate_send_bytes: per_second, ..RateArgs::default() }.apply(&mut config);
            config.validate().unwrap_or_else(|error| panic!("{message}: {error}"));
        }
        let mut config = Config::plaintext();
        RateArgs::default().apply(&mut config);
        assert!(config.rates.is_none() && describe(&config).is_empty());
        let messages = Some(Rate { per_second: 5, burst: 7 });
        RateArgs { rate_receive_messages: messages, when_over: Some(Over::Drop), ..RateArgs::default() }.apply(&mut config);
        assert_eq!(describe(&config), "; each peer: received 5 messages/s (burst 7), over it dropped");
        assert!(RateArgs { when_over: Some(Over::Drop), ..RateArgs::default() }.check().is_err());
    }
}
