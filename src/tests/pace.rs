//! How the scheduler of the simulated nodes treats them.

/// How the scheduler treats the cores.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// From a reason to run to running, nanoseconds at most.
    pub(super) wake: u64,
    /// From core to core, nanoseconds at most.
    pub(super) mail: u64,
    /// Per 100,000 turns: one that begins long after it should.
    pub(super) freeze: u64,
    pub(super) longest_freeze: u64,
    /// Bytes read from a peer, and peers written to, in a turn.
    pub(super) read_budget: usize,
    pub(super) flush_peers: usize,
    pub(super) write_budget: usize,
}

impl Pace {
    /// Everything at once.
    pub(super) fn prompt() -> Self {
        Self { wake: 0, mail: 0, freeze: 0, longest_freeze: 0, read_budget: 256 << 10, flush_peers: 512, write_budget: 256 << 10 }
    }
}
