//! What protects a connection once it is established.

use super::noise::{Opened, Records};
use crate::buffers::BufferPool;
use crate::error::Violation;

/// Memory of an encrypted session besides its records: itself, and two keys with what is computed from each beforehand (AES-GCM's are the
/// larger).
pub(crate) const SESSION: usize = size_of::<Sealed>() + 2 * 600;

/// How the bytes of an established connection are protected.
///
/// A plaintext session passes bytes through, in both directions, without touching them. An encrypted one opens records before the decoder
/// and seals them after the outbox.
#[derive(Debug)]
pub(crate) enum Session {
    Plaintext,
    Noise(Box<Sealed>),
}

impl Session {
    /// Whether the other side has proved that it is the node it says it is.
    #[inline]
    pub(crate) const fn is_authenticated(&self) -> bool {
        matches!(self, Self::Noise(_))
    }
}

/// An encrypted session.
///
/// What was sealed is sent as it is and never sealed again, so the part of a record that the kernel did not take is kept here, and the next
/// record is sealed when it has left. The drop policies act on what is not sealed yet: a record is committed.
#[derive(Debug)]
pub(crate) struct Sealed {
    records: Records,
    /// The rest of the last record, from `sent` on. The memory is the core's pool's.
    unsent: Vec<u8>,
    sent: usize,
    /// Messages whose last byte is in that record.
    messages: u64,
}

impl Sealed {
    /// `unsent`: bytes of the handshake that come first.
    pub(super) fn new(records: Records, unsent: &[u8], pool: &mut BufferPool) -> Self {
        let mut sealed = Self { records, unsent: Vec::new(), sent: 0, messages: 0 };
        if !unsent.is_empty() {
            pool.extend(&mut sealed.unsent, unsent);
        }
        sealed
    }

    /// The rest of the last record.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.unsent[self.sent..]
    }

    /// Seals the next record into `out`. Returns its length. The last one has left.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> usize {
        debug_assert!(self.unsent().is_empty(), "one record at a time");
        self.records.seal(plaintext, out)
    }

    /// So many messages end in that record.
    pub(crate) fn holds(&mut self, messages: u64) {
        self.messages = messages;
    }

    /// The kernel took so many bytes of `record`: what was sealed last, or of what was unsent of it. Returns the messages that have left
    /// with it: all of the record's, or none.
    pub(crate) fn advance(&mut self, record: &[u8], taken: usize, pool: &mut BufferPool) -> u64 {
        if self.unsent.is_empty() {
            if taken < record.len() {
                pool.extend(&mut self.unsent, &record[taken..]);
            }
        } else {
            self.sent += taken;
            if self.sent == self.unsent.len() {
                pool.give_back(std::mem::take(&mut self.unsent));
                self.sent = 0;
            }
        }
        if self.unsent.is_empty() { std::mem::take(&mut self.messages) } else { 0 }
    }

    /// See [`Records::open`].
    pub(crate) fn open(&mut self, pool: &mut BufferPool, input: &[u8], out: &mut Opened) -> Result<(), Violation> {
        self.records.open(pool, input, out)
    }

    /// Whether there is a rest.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The length of a record that has begun to arrive and has not ended; zero between records.
    pub(crate) fn partial_len(&self) -> usize {
        if self.records.is_partial() { self.records.partial_len() } else { 0 }
    }

    /// Bytes of buffers that the core's pool has lent this session.
    pub(crate) fn held(&self) -> usize {
        self.records.held() + self.unsent.capacity()
    }

    /// Gives what has arrived of an unfinished record back: nothing is read any more.
    pub(crate) fn stop_reading(&mut self, pool: &mut BufferPool) {
        self.records.release(pool);
    }

    /// Gives the rest up. Returns the messages that did not leave whole for it.
    pub(crate) fn drop_unsent(&mut self, pool: &mut BufferPool) -> u64 {
        pool.give_back(std::mem::take(&mut self.unsent));
        self.sent = 0;
        std::mem::take(&mut self.messages)
    }
}
