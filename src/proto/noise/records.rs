//! Records: how frames travel when encrypted (WIRE.md, 5.7).

use std::fmt;

use snow::TransportState;

use crate::buffers::BufferPool;
use crate::error::Violation;

/// The length in front of a record.
const LEN: usize = 2;
/// Bytes by which a record is longer than what is in it, besides its length.
pub(crate) const TAG: usize = 16;
/// The longest record, with its length.
pub(crate) const MAX_RECORD: usize = LEN + u16::MAX as usize;
/// Most that fits into one record.
pub(crate) const MAX_PLAINTEXT: usize = u16::MAX as usize - TAG;
/// Records of a direction after which its key is replaced. AES-GCM stays far under its bound of 2^24.5 records a key
/// (draft-irtf-cfrg-aead-limits), and what a stolen key opens is at most 256 MiB.
const REKEY: u64 = if cfg!(fuzzing) { 8 } else { 4096 };

/// The two directions of a session.
///
/// Each record is sealed once, with the next nonce: what the kernel did not take of it is kept as it is, and never sealed anew.
pub(crate) struct Records {
    transport: TransportState,
    /// A record that has begun to arrive. The memory is the core's pool's.
    partial: Vec<u8>,
    /// For the test of what happens when one side forgets to.
    #[cfg(test)]
    pub(super) keeps_keys: bool,
}

impl Records {
    pub(super) fn new(transport: TransportState) -> Self {
        Self {
            transport,
            partial: Vec::new(),
            #[cfg(test)]
            keeps_keys: false,
        }
    }

    /// Seals one record into `out`, which has room for it, and returns its length on the wire.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> usize {
        debug_assert!(!plaintext.is_empty() && plaintext.len() <= MAX_PLAINTEXT);
        let sealed = self.transport.write_message(plaintext, &mut out[LEN..]);
        // What can fail is a wrong length, and a nonce that has counted to 2^64.
        let len = sealed.expect("a record fits, and a connection does not live for so many");
        out[..LEN].copy_from_slice(&(len as u16).to_le_bytes());
        if self.changes_key(self.transport.sending_nonce()) {
            self.transport.rekey_outgoing();
        }
        LEN + len
    }

    /// Opens one record that is whole, without the length in front of it. `out` has room for it with its tag.
    pub(crate) fn open_whole(&mut self, record: &[u8], out: &mut [u8]) -> Result<usize, Violation> {
        let opened = self.transport.read_message(record, out).map_err(|_| Violation::RecordNotAuthentic)?;
        if self.changes_key(self.transport.receiving_nonce()) {
            self.transport.rekey_incoming();
        }
        Ok(opened)
    }

    /// Opens the records that `input` completes into `out`. What was opened before a record that cannot be is in `out` even so.
    pub(crate) fn open(&mut self, pool: &mut BufferPool, mut input: &[u8], out: &mut Opened) -> Result<(), Violation> {
        while !self.partial.is_empty() {
            let whole = if self.partial.len() < LEN { LEN } else { record_len(&self.partial)? };
            let missing = whole - self.partial.len();
            let (now, rest) = input.split_at(missing.min(input.len()));
            pool.extend(&mut self.partial, now);
            input = rest;
            if now.len() < missing {
                return Ok(());
            }
            if whole > LEN {
                let partial = std::mem::take(&mut self.partial);
                let opened = self.open_one(&partial[LEN..], out);
                pool.give_back(partial);
                opened?;
            }
        }
        while input.len() >= LEN {
            let Some((record, rest)) = input.split_at_checked(record_len(input)?) else { break };
            self.open_one(&record[LEN..], out)?;
            input = rest;
        }
        if !input.is_empty() {
            pool.extend(&mut self.partial, input);
        }
        Ok(())
    }

    fn open_one(&mut self, record: &[u8], out: &mut Opened) -> Result<(), Violation> {
        // `snow` has ring open in place, so there has to be room for the tag as well.
        let opened = self.open_whole(record, out.room(record.len()))?;
        out.filled += opened;
        Ok(())
    }

    /// Whether a direction changes its key after so many records.
    fn changes_key(&self, records: u64) -> bool {
        #[cfg(test)]
        if self.keeps_keys {
            return false;
        }
        records.is_multiple_of(REKEY)
    }

    /// Whether a record has begun to arrive and has not ended.
    pub(crate) fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// How long that record will be.
    pub(crate) fn partial_len(&self) -> usize {
        record_len(&self.partial).unwrap_or(LEN)
    }

    /// Bytes of memory that are held between reads.
    pub(crate) fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// Gives that memory back.
    pub(crate) fn release(&mut self, pool: &mut BufferPool) {
        pool.give_back(std::mem::take(&mut self.partial));
    }
}

/// The length on the wire of the record that begins here; at least two bytes are there.
fn record_len(bytes: &[u8]) -> Result<usize, Violation> {
    let Some(&len) = bytes.first_chunk() else { return Ok(LEN) };
    let len = u16::from_le_bytes(len) as usize;
    if len > TAG { Ok(LEN + len) } else { Err(Violation::RecordTooShort) }
}

/// Keys are not printed.
impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("partial", &self.partial.len()).finish_non_exhaustive()
    }
}

/// What a read's records had in them. A core has one, and uses it again for each read.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    bytes: Vec<u8>,
    filled: usize,
}

impl Opened {
    /// Room for what a read of so many bytes may complete: a record that had begun before it, too.
    pub(crate) const fn most(read: usize) -> usize {
        read + MAX_RECORD
    }

    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// So many bytes after what is filled. Grows to what reads need, and stays that large.
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.filled + len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.filled..end]
    }
}
