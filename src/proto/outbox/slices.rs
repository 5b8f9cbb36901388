//! What one vectored write is given: so many slices and bytes, and no more.

use std::io::IoSlice;

/// Slices of one vectored write. The kernel copies up to 8 without allocating and allows 1,024; 64 covers a burst of large frames.
pub(crate) const MAX_SLICES: usize = 64;

/// A bounded list of slices for one vectored write.
pub(crate) struct Slices<'a> {
    slices: [IoSlice<'a>; MAX_SLICES],
    len: usize,
    bytes: usize,
    budget: usize,
}

impl<'a> Slices<'a> {
    pub(crate) fn new(budget: usize) -> Self {
        Self { slices: [IoSlice::new(&[]); MAX_SLICES], len: 0, bytes: 0, budget }
    }

    pub(crate) fn as_slice(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.len]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == MAX_SLICES || self.bytes == self.budget
    }

    /// Bytes for which there is room.
    pub(super) fn room(&self) -> usize {
        self.budget - self.bytes
    }

    pub(super) fn push(&mut self, bytes: &'a [u8]) {
        if bytes.is_empty() || self.is_full() {
            return;
        }
        let bytes = &bytes[..bytes.len().min(self.room())];
        self.slices[self.len] = IoSlice::new(bytes);
        self.len += 1;
        self.bytes += bytes.len();
    }
}
