//! How much memory an engine takes at most.

use crate::config::Config;
use crate::metrics::Histograms;
use crate::reactor::bound as reactor;
use crate::shard::bound as shard;
use crate::wire::message_wire_len;

/// What a core has whatever happens: its thread's structures, counters, wheel and queues while they are empty.
const CORE: usize = 256 << 10;

impl Config {
    /// Most memory, in bytes, that an engine of this configuration has on the heap at any time, whatever its peers and the application do.
    ///
    /// It is a sum with one line for each holder, and each line is what the limits allow at once, so a working engine takes a fraction:
    /// most of it is `log_bytes`, `send_bytes` (twice, since memory that grows doubles), `reassembly_bytes` and `inbox_bytes`; and for each
    /// of `max_peers` 68 KiB, the largest unfinished frame, and the two reserves. Encrypted, each peer may have two records besides, one
    /// that has begun to arrive and one that has not left, and its keys: 200 KiB more. To make it smaller, lower those.
    ///
    /// Not in it: the kernel's socket buffers, the threads' stacks and what the allocator itself needs; the handlers and what they keep,
    /// values kept with peers, and commands (`Handler::Command`) as far as they are larger than a message's entry in a queue or point to
    /// memory of their own; the allow-list, about 130 bytes a node; frames that the application holds on to, and what its own calls return
    /// ([`crate::Handle::peers`], [`crate::Handle::histograms`], responses to [`crate::Handle::request_blocking`], what a
    /// [`crate::PendingReceipt`] has been told).
    #[must_use]
    pub fn memory_bound(&self) -> usize {
        let (limits, io, cores) = (&self.limits, &self.io, self.cores.count());
        // Peers that were replaced or closed are on their way out for a while; the directory lets no more of them be than this.
        let slots = limits.max_peers + limits.max_half_open;
        let longest = message_wire_len(true, limits.max_message, limits.fragment);
        let per_core = [
            CORE,
            if self.metrics.histograms { Histograms::BYTES } else { 0 },
            // What is read goes through here, and what the kernel announces.
            io.receive_buffer,
            io.events * reactor::EVENT,
            shard::broadcasts(self),
            // Mail of other cores and commands of handles: the queues, what is in them, and a message that is on its way into one. Frames
            // of a batch are charged with all but their reference counts, which at worst are two parts in three.
            limits.inbox_messages * (shard::MAIL + reactor::COMMAND),
            2 * limits.inbox_bytes + limits.inbox_bytes / 3 * 4 + 2 * longest,
            shard::requests(self) + limits.max_requests * reactor::WAITER,
            limits.max_timers * shard::USER_TIMER,
            self.restarts.most * shard::RESTART,
            // Closing and dialling from outside, connections that were handed over: see `Inbox::outside_credit`.
            (slots + limits.max_dials) * reactor::SIGNAL,
        ];
        let whole_engine = [
            shard::sends(self, slots),
            shard::reassembly(self, slots),
            shard::input(self, slots),
            shard::sessions(self, slots),
            slots * limits.subscriptions * shard::SUBSCRIPTION,
            shard::receipts(self),
            shard::exchanges(self, slots),
            slots * shard::recorded(self),
            shard::rates(self, slots),
            slots * (shard::PEER + shard::GRANT + reactor::SOCKET),
            shard::half_open(self) * (shard::ACCEPTED + reactor::SOCKET),
            shard::handshakes(self, shard::half_open(self) + limits.max_dials),
            self.addresses.table * shard::ADDRESS,
            limits.max_dials * (shard::DIAL + reactor::SOCKET),
            shard::breakers(self),
            shard::pool(self) + self.pool.waiting * reactor::WAITER,
        ];
        cores * per_core.iter().sum::<usize>() + whole_engine.iter().sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Admission, Cores};
    use crate::identity::Identity;

    #[test]
    fn the_default_configuration_has_a_bound_that_can_be_said() {
        let bound = Config::plaintext().memory_bound();
        assert!((2_350_000_000..2_500_000_000).contains(&bound), "{bound} bytes: the README says how much");
    }

    /// A session takes what its lines in the bound say, and plaintext nothing.
    #[test]
    fn encryption_has_its_part() {
        let config = Config::secure(Identity::from_secret([1; 32]), Admission::Open);
        let more = config.memory_bound() - Config::plaintext().memory_bound();
        let slots = config.limits.max_peers + config.limits.max_half_open;
        let handshakes = shard::handshakes(&config, shard::half_open(&config) + config.limits.max_dials);
        let each = (more - handshakes) / slots;
        assert!((136 << 10..216 << 10).contains(&each), "{each} bytes for each peer");
        assert!(handshakes >= 3_200 * config.limits.max_dials, "what a handshake was measured to take");
    }

    #[test]
    fn the_bound_grows_with_each_limit_that_it_is_made_of() {
        let small = Config::plaintext();
        let grows = |change: &dyn Fn(&mut Config), least: usize| {
            let mut larger = Config::plaintext();
            change(&mut larger);
            let more = larger.memory_bound() - small.memory_bound();
            assert!(more >= least, "{more} bytes more, not {least}");
        };
        grows(&|c| c.limits.log_bytes += 1 << 20, 1 << 20);
        grows(&|c| c.limits.outbox_hard += 1 << 20, 1 << 20);
        grows(&|c| c.limits.send_bytes += 1 << 20, 2 << 20);
        grows(&|c| c.limits.send_reserve += 1 << 10, 2048 * 1024);
        grows(&|c| c.limits.reassembly_bytes += 1 << 20, 1 << 20);
        grows(&|c| c.limits.reassembly_reserve += 1 << 10, 1024 * 1024);
        grows(&|c| c.limits.buffer_pool += 1 << 20, 1 << 20);
        grows(&|c| c.limits.inbox_bytes += 1 << 20, 2 << 20);
        grows(&|c| c.limits.inbox_messages += 1000, 100_000);
        grows(&|c| c.limits.max_requests += 1000, 100_000);
        grows(&|c| c.limits.max_timers += 1000, 40_000);
        grows(&|c| c.limits.max_peers += 1, 68 << 10);
        grows(&|c| c.limits.max_half_open += 1, 68 << 10);
        grows(&|c| c.addresses.table += 1000, 100_000);
        grows(&|c| c.limits.max_dials += 1000, 200_000);
        grows(&|c| c.breaker.targets += 1000, 500_000 + 3 * 123_000); // three paths each
        grows(&|c| c.pool.max_targets += 1000, 100_000 + 2 * 123_000);
        grows(&|c| c.pool.waiting += 1000, 100_000);
        grows(&|c| c.acks.bytes += 1 << 20, 2 << 20);
        grows(&|c| c.restarts.most += 1000, 16_000);
        grows(&|c| c.acks.answers += 1 << 10, 500 << 10);
        grows(&|c| c.acks.pending += 1 << 10, 1000 << 10);
        grows(&|c| c.acks.window += 1 << 10, (1024 * (16 + 8)) << 10);
        grows(&|c| c.acks.by_handler.push(1), 1024 * 1024 * 9);
        grows(&|c| c.recorder += 10, 1024 * 2 * 10 * 24);
        grows(&|c| c.rates = Some(crate::config::Rates::default()), 1280 * 500);
        grows(&|c| c.io.receive_buffer += 1 << 20, 1 << 20);
        grows(&|c| c.cores = Cores::Unpinned(2), 256 << 20);
    }
}
