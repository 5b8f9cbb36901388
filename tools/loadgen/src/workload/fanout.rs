//! Fan-out: one peer publishes, the server sends each message to all others, and every subscriber checks that it has each once and in
//! order.

use super::Pacing;
use super::publisher::{Audience, PUBLISHER, Published};
use crate::client::Core;
use crate::payload::Header;
use crate::verify::{Stream, Verdict};

/// One core's subscribers, and on the first core the publisher.
pub(crate) type Fanout = Published<Everybody>;

/// All peers but the publisher get everything.
pub(crate) struct Everybody {
    /// Engines with subscribers.
    engines: usize,
    /// On this engine.
    subscribers: u32,
    /// What each peer has received; the publisher's stays empty.
    streams: Vec<Stream>,
}

impl Fanout {
    pub(crate) fn new(pacing: Pacing, core: &Core) -> Self {
        // The first engine may have the publisher and nobody else.
        let alone = core.share.total as usize == core.share.engines;
        let audience = Everybody {
            engines: core.share.engines - usize::from(alone),
            subscribers: core.share.count - u32::from(core.share.first == PUBLISHER),
            streams: (0..core.count()).map(|_| Stream::default()).collect(),
        };
        Self::to(audience, pacing, core)
    }
}

impl Audience for Everybody {
    fn address(&self, number: u64) -> (u32, u64) {
        (PUBLISHER, number)
    }

    fn engines(&self, _number: u64) -> usize {
        self.engines
    }

    fn subscribers(&self, _number: u64) -> u32 {
        self.subscribers
    }

    fn accept(&mut self, index: usize, header: &Header) -> Option<(Verdict, u64)> {
        // Nobody else publishes in this run.
        (header.sender == PUBLISHER).then(|| (self.streams[index].accept(header.seq), header.seq))
    }
}
