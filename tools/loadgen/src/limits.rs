//! What an engine of a run must be allowed: messages of the run's size, as many under way as the run asks for, as many peers.

use corecast::{Acks, Config, Limits, Subnet};

use crate::cli::SlowPeerArgs;
use crate::machine::SPARE_DESCRIPTORS;

/// Memory that one peer's outbox is given at most, however much a run has under way.
const OUTBOX_CEILING: usize = 4 << 30;

/// Half-open connections that are enough for peers that connect some at a time.
const HALF_OPEN: usize = 1024;

/// At least the bytes that a message takes on the wire: header and fragment headers are under a thousandth, and something.
fn wire_len(message: usize) -> usize {
    message + message / 1000 + 64
}

/// Makes room for messages of `message` bytes, `outstanding` of them for one peer at a time. Never lowers a limit but `outbox_soft`.
pub(crate) fn fit_messages(limits: &mut Limits, message: usize, outstanding: usize) {
    limits.max_message = limits.max_message.max(message);
    let wire = wire_len(limits.max_message.max(message));
    let under_way = wire_len(message).saturating_mul(outstanding.saturating_add(2)).min(OUTBOX_CEILING);
    limits.outbox_hard = limits.outbox_hard.max(2 * wire).max(2 * under_way);
    // Backpressure below what a closed loop keeps under way would hold the loop back.
    limits.outbox_soft = limits.outbox_soft.max(under_way);
    limits.log_bytes = limits.log_bytes.max(2 * limits.outbox_hard);
    limits.send_bytes = limits.send_bytes.max(2 * under_way);
    limits.reassembly_bytes = limits.reassembly_bytes.max(2 * limits.max_message);
    limits.inbox_bytes = limits.inbox_bytes.max(4 * wire);
}

/// Acknowledged broadcasts under way, so that four times as many ids are no more than can be remembered.
const MOST_PENDING: usize = 1 << 18;

/// Makes room for so many broadcasts of `message` bytes that have not all their acknowledgements. Both sides need it: the one remembers
/// what the other may repeat. Never lowers a limit.
pub(crate) fn fit_acks(acks: &mut Acks, limits: &Limits, message: usize, outstanding: usize) {
    // No more than the library allows: a run that wants more is told so when it is refused.
    acks.pending = acks.pending.max(outstanding.min(MOST_PENDING));
    acks.bytes = acks.bytes.max(wire_len(message).saturating_mul(outstanding.saturating_add(2)).min(OUTBOX_CEILING));
    acks.window = acks.window.max(4 * acks.pending);
    // Until the other cores have said to how many it went, a broadcast counts as one to all that there may be.
    let most = (limits.max_peers + limits.max_half_open).saturating_mul(outstanding.clamp(64, MOST_PENDING));
    acks.answers = acks.answers.max(most);
}

/// Makes room for so many requests without an answer, of one peer and of all, and for the few that a run makes besides. Never lowers a
/// limit.
pub(crate) fn fit_requests(limits: &mut Limits, of_each: usize, of_all: usize) {
    limits.pending_requests = limits.pending_requests.max(of_each.saturating_add(16));
    limits.max_requests = limits.max_requests.max(of_all.saturating_add(1024));
}

/// How many peers, and how many half-open connections besides, `descriptors` file descriptors allow where `wanted` peers are asked for.
pub(crate) fn peers_within(wanted: u64, descriptors: u64) -> (usize, usize) {
    let usable = descriptors.saturating_sub(SPARE_DESCRIPTORS).max(2);
    let half_open = wanted.min(HALF_OPEN as u64).min(usable / 2);
    let peers = wanted.min(usable - half_open);
    // As many half-open as peers, where there is room: then a crowd that comes at once is let in at once.
    (peers as usize, peers.min(usable - peers).max(half_open) as usize)
}

/// Makes room for `peers` peers that connect some at a time, as [`crate::client`] does, and for a message under way for each.
pub(crate) fn fit_peers(limits: &mut Limits, peers: usize, message: usize, outstanding: usize) {
    limits.max_peers = peers.max(1);
    limits.max_half_open = peers.clamp(1, HALF_OPEN);
    limits.max_dials = limits.max_dials.max(peers);
    let under_way = wire_len(message).saturating_mul(outstanding).saturating_mul(peers).saturating_mul(2);
    limits.send_bytes = limits.send_bytes.max(under_way.min(2 * OUTBOX_CEILING));
    limits.reassembly_bytes = limits.reassembly_bytes.max(message.saturating_mul(peers).min(OUTBOX_CEILING));
}

/// Makes backpressure come early: a peer that sends as fast as it is let fills everything that it is given, and a queue of
/// megabytes for each of a thousand peers would measure memory.
pub(crate) fn fit_flood(limits: &mut Limits, peers: usize, message: usize) {
    let share = (64 << 20) / peers.max(1);
    limits.outbox_soft = share.clamp(64 << 10, 1 << 20).max(2 * wire_len(message)).min(limits.outbox_hard);
    limits.send_bytes = limits.send_bytes.max(2 * peers.saturating_mul(limits.outbox_soft));
}

/// When a server cuts off a peer that does not read, where the command line says anything about it. Called last: what it says is taken as
/// it is, and the library says what is wrong with it.
pub(crate) fn cut_off(config: &mut Config, args: &SlowPeerArgs) {
    if let Some(hard) = args.outbox_hard {
        config.limits.outbox_hard = hard;
        config.limits.outbox_soft = config.limits.outbox_soft.min(hard);
        config.limits.log_bytes = config.limits.log_bytes.max(2 * hard);
    }
    if let Some(soft) = args.outbox_soft {
        config.limits.outbox_soft = soft;
    }
    if let Some(grace) = args.soft_grace {
        config.limits.soft_grace = grace;
    }
    if let Some(stall) = args.write_stall {
        config.timeouts.write_stall = stall;
    }
}

/// Where all peers of a run on one machine come from, however many they are.
pub(crate) fn loopback() -> Vec<Subnet> {
    vec!["127.0.0.0/8".parse().expect("a subnet")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_stay_within_the_descriptors() {
        assert_eq!(peers_within(16_384, 1 << 20), (16_384, 16_384));
        assert_eq!(peers_within(16_384, 20_000), (16_384, 3_552));
        assert_eq!(peers_within(100_000, 20_000), (18_912, 1_024));
        assert_eq!(peers_within(1, 64), (1, 1));
        for (wanted, descriptors) in [(1, 1024), (5000, 1024), (1 << 23, u64::MAX)] {
            let (peers, half_open) = peers_within(wanted, descriptors);
            assert!((peers + half_open) as u64 <= descriptors - SPARE_DESCRIPTORS && peers > 0 && half_open > 0);
        }
    }

    #[test]
    fn what_is_fitted_is_valid() {
        for message in [32, 64 << 10, 1 << 20, 16 << 20] {
            for (peers, outstanding) in [(1, 1), (10_000, 1), (50, 1000), (4_000_000, 1_000_000)] {
                let mut config = Config::plaintext();
                fit_messages(&mut config.limits, message, outstanding);
                fit_peers(&mut config.limits, peers, message, outstanding);
                fit_acks(&mut config.acks, &config.limits, message, outstanding);
                config.validate().unwrap_or_else(|error| panic!("{message} {peers} {outstanding}: {error}"));
                fit_flood(&mut config.limits, peers, message);
                config.validate().unwrap_or_else(|error| panic!("flood {message} {peers} {outstanding}: {error}"));
            }
        }
    }
}
