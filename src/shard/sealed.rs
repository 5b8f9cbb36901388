//! Peers whose bytes are sealed on their way out and opened on their way in.

use super::Shard;
use super::receive::ReadOutcome;
use super::supervised::Supervised;
use crate::error::CloseReason;
use crate::handler::Handler;
use crate::metrics::Counter;
use crate::proto::{MAX_PLAINTEXT, MAX_RECORD, Opened, Session, Slices};

/// Most that goes into one record while more than one lane has something to send: what comes into a better lane meanwhile waits for the
/// rest of one record, as in plaintext it waits for the rest of one fragment.
const SHARED_RECORD: usize = 16 << 10;

/// The core's own memory for sealing and opening: one record on its way out, and what one read's records have in them. Plaintext needs
/// neither, and allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// What is sealed next, where it does not stand in one piece already.
    gathered: Vec<u8>,
    /// The record that was sealed last, `len` bytes.
    record: Vec<u8>,
    len: usize,
    opened: Opened,
}

impl Scratch {
    /// Most memory that it takes with reads of so many bytes.
    pub(super) const fn most(read: usize) -> usize {
        2 * MAX_PLAINTEXT + MAX_RECORD + 2 * Opened::most(read)
    }
}

impl Shard {
    /// Whether what leaves to this peer has to be sealed: then `seal` and `advance_sealed` take the places of `gather` and `advance`.
    #[inline]
    pub(crate) fn is_sealed(&self, slot: u32) -> bool {
        matches!(self.slots.at(slot).peer.session, Session::Noise(_))
    }

    /// What is to be written to this peer next: the rest of its last record, or a new record of what waits. Empty where nothing does.
    ///
    /// What goes into a record has left the outbox, whatever the kernel takes of it.
    pub(crate) fn seal(&mut self, slot: u32) -> &[u8] {
        if self.slots.at(slot).peer.unsent() == 0 {
            return self.seal_next(slot);
        }
        match &self.slots.at(slot).peer.session {
            Session::Noise(sealed) => sealed.unsent(),
            Session::Plaintext => &[],
        }
    }

    fn seal_next(&mut self, slot: u32) -> &[u8] {
        let peer = &mut self.slots.at_mut(slot).peer;
        let Session::Noise(sealed) = &mut peer.session else { return &[] };
        let scratch = &mut self.scratch;
        let most = if peer.outbox.backlogged(&self.logs) > 1 { SHARED_RECORD } else { MAX_PLAINTEXT };
        let plaintext = match peer.outbox.contiguous(&self.logs) {
            Some(bytes) => &bytes[..bytes.len().min(most)],
            None => {
                let mut slices = Slices::new(most);
                peer.outbox.gather(&self.logs, &self.quanta, &mut slices);
                scratch.gathered.clear();
                slices.as_slice().iter().for_each(|slice| scratch.gathered.extend_from_slice(slice));
                &scratch.gathered[..]
            }
        };
        if plaintext.is_empty() {
            return &[];
        }
        scratch.record.resize(MAX_RECORD, 0);
        scratch.len = sealed.seal(plaintext, &mut scratch.record);
        let (committed, before) = (plaintext.len(), peer.outbox.used());
        let advanced = peer.outbox.advance(&self.logs, &mut self.pool, &self.quanta, committed);
        sealed.holds(advanced.messages);
        let after = peer.outbox.used();
        self.sends.shrink(before - after, after);
        &scratch.record[..scratch.len]
    }

    /// The kernel took so many bytes of what `seal` gave. `full`: it takes no more for now; `last`: the driver writes no more to this peer
    /// in this flush. Returns whether there is more to write now.
    pub(crate) fn advance_sealed(&mut self, slot: u32, taken: usize, full: bool, last: bool) -> bool {
        let entry = self.slots.at_mut(slot);
        let Session::Noise(sealed) = &mut entry.peer.session else { return false };
        let messages = sealed.advance(&self.scratch.record[..self.scratch.len], taken, &mut self.buffers);
        entry.used |= messages > 0;
        self.stats.add(Counter::BytesSent, taken as u64);
        self.stats.add(Counter::MessagesSent, messages);
        if entry.pressed {
            self.relieve(slot, taken);
        }
        self.written(slot, taken, full, last)
    }

    /// Opens what came from a peer, and has it read.
    #[inline(never)]
    pub(super) fn read_sealed<H: Handler>(&mut self, handler: &mut Supervised<H>, slot: u32, input: &[u8]) -> ReadOutcome {
        let mut opened = std::mem::take(&mut self.scratch.opened);
        opened.clear();
        let result = match &mut self.slots.at_mut(slot).peer.session {
            Session::Noise(sealed) => sealed.open(&mut self.buffers, input, &mut opened),
            Session::Plaintext => Ok(()),
        };
        // What came before a record that cannot be is authentic.
        let outcome = self.read_batch(handler, slot, opened.as_slice());
        self.scratch.opened = opened;
        let Err(violation) = result else { return outcome };
        self.close(slot, CloseReason::Violation(violation));
        if self.slots.at(slot).is_ended() { ReadOutcome::Stop } else { ReadOutcome::Continue }
    }
}
