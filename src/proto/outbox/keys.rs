//! Which message of a lane has which conflation key.
//!
//! A few spans are looked through. From [`SEARCHED`] on an index is kept, made when it is first asked: a queue of keyed messages can be
//! thousands long, and each push would go through half of it. The index is by the spans' numbers, which stay the same while others leave.
//! It does not hear of spans that go: what it says is looked at, and where that is not so any more, the spans are searched.

use std::collections::BTreeMap;

use super::queue::Queue;
use super::span::Span;
#[cfg(test)]
use super::span::TERMS_CHARGE;

/// So many spans are searched without an index.
const SEARCHED: usize = 32;

/// Keys to the numbers of the last spans that came with them. A tree, since keys may be chosen by strangers.
#[derive(Debug, Default)]
pub(super) struct Keys(BTreeMap<u64, u64>);

#[cfg(test)]
impl Keys {
    /// Bytes of memory, at most: nodes of the tree are at least five parts in eleven full, and 24 bytes of 192 are for no entry.
    pub(super) fn memory(&self) -> usize {
        self.0.len() * (TERMS_CHARGE - 16)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn number(&self, key: u64) -> Option<u64> {
        self.0.get(&key).copied()
    }
}

impl Queue {
    /// Where the newest message of this key stands that has not begun.
    pub(super) fn find_key(&mut self, key: u64) -> Option<usize> {
        if self.keys.is_none() {
            if self.spans.len() <= SEARCHED {
                return self.search_key(key);
            }
            let numbered = (self.first..).zip(&self.spans);
            self.keys = Some(Box::new(Keys(numbered.filter_map(|(number, span)| Some((span.key()?, number))).collect())));
        }
        let number = *self.keys.as_ref()?.0.get(&key)?;
        // What is before the first has left, and what came earlier too.
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        match self.spans.get(at) {
            Some(Span::Shared(shared)) if shared.key() == Some(key) => (!shared.has_begun()).then_some(at),
            _ => self.search_key(key),
        }
    }

    fn search_key(&self, key: u64) -> Option<usize> {
        self.spans.iter().rposition(|span| matches!(span, Span::Shared(shared) if shared.key() == Some(key) && !shared.has_begun()))
    }

    /// Notes the key of the last span.
    pub(super) fn note_key(&mut self) {
        let Some((keys, key)) = self.keys.as_mut().zip(self.spans.back().and_then(Span::key)) else { return };
        keys.0.insert(key, self.first + self.spans.len() as u64 - 1);
        self.fit_keys();
    }

    /// Spans may have left.
    pub(super) fn fit_keys(&mut self) {
        if self.keys.as_ref().is_some_and(|keys| keys.0.len() > 2 * self.spans.len()) {
            // Most are of messages that are gone, and what is charged for the others must be enough. It is made again when it is asked for.
            self.keys = None;
        }
    }

    /// Spans were taken out of the middle: the others have new numbers.
    pub(super) fn forget_keys(&mut self) {
        self.keys = None;
    }
}
