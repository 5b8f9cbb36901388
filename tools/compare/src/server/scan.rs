//! Finds the frames in what was read, and joins messages that stand next to each other.

use crate::wire::{self, Header, Rule};

/// What stands next in the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// One or more whole message frames, to be passed on as they are.
    Messages(&'a [u8]),
    /// A ping, and what its answer must repeat.
    Ping([u8; 8]),
    /// The sender is going; what comes after it does not count.
    Goodbye,
}

/// A cursor over received bytes.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that belonged to whole frames so far.
    pub(super) fn consumed(&self) -> usize {
        self.at
    }

    /// The next item, or none if what is left is not a whole frame.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Item<'a>>, Rule> {
        let mut start = self.at;
        while let Some(header) = Header::read(&self.bytes[self.at..]) {
            header.check()?;
            let end = self.at + wire::HEADER_LEN + header.length();
            let is_message = matches!(header.kind(), wire::DATA | wire::FRAGMENT);
            if end > self.bytes.len() || (!is_message && self.at > start) {
                break;
            }
            let body = self.at + wire::HEADER_LEN;
            self.at = end;
            if is_message {
                continue;
            }
            match header.kind() {
                wire::PING => return Ok(Some(Item::Ping(self.bytes[body..end].try_into().expect("its length was checked")))),
                wire::GOODBYE => return Ok(Some(Item::Goodbye)),
                wire::READY => return Err(wire::UNEXPECTED_READY),
                wire::PONG => return Err(wire::UNSOLICITED_PONG),
                // Requests have no one here to answer them; they are skipped, and so are responses.
                _ => start = self.at,
            }
        }
        Ok((self.at > start).then(|| Item::Messages(&self.bytes[start..self.at])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(body: &[u8]) -> Vec<u8> {
        let mut frame = Header::new(body.len(), wire::DATA, wire::NORMAL_LANE, 7).to_bytes().to_vec();
        frame.extend_from_slice(body);
        frame
    }

    #[test]
    fn neighbouring_messages_are_one_item() {
        let messages = [data(b"one"), data(b""), data(b"three")].concat();
        let input = [messages.clone(), wire::control(wire::PING, [9; 8]).to_vec(), data(b"four"), data(b"five")[..9].to_vec()].concat();
        let mut scanner = Scanner::new(&input);
        assert_eq!(scanner.next(), Ok(Some(Item::Messages(&messages))));
        assert_eq!(scanner.next(), Ok(Some(Item::Ping([9; 8]))));
        assert_eq!(scanner.next(), Ok(Some(Item::Messages(&data(b"four")))));
        assert_eq!(scanner.next(), Ok(None));
        assert_eq!(input.len() - scanner.consumed(), 9);
    }

    #[test]
    fn requests_are_skipped() {
        let request = Header::new(8, wire::REQUEST, wire::NORMAL_LANE, 1).to_bytes();
        let input = [request.as_slice(), &[0; 8]].concat().repeat(16_000);
        assert_eq!(Scanner::new(&input).next(), Ok(None));
    }

    #[test]
    fn a_broken_rule_ends_the_scan() {
        assert_eq!(Scanner::new(&wire::ready()).next(), Err(wire::UNEXPECTED_READY));
        assert_eq!(Scanner::new(&wire::control(wire::PONG, [0; 8])).next(), Err(wire::UNSOLICITED_PONG));
        assert_eq!(Scanner::new(&[0xFF; 8]).next(), Err(wire::FRAME_TOO_LONG));
    }
}
