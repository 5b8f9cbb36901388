//! Fan-out: one log that all peers read from, each at its own cursor.
//!
//! What one batch of events brought is contiguous in the log, so a peer that misses it gets it with one `send`, and a peer
//! whose socket is full keeps nothing but its cursor. A sender does not get its own messages back: the log remembers
//! who sent which run of bytes.

use std::collections::VecDeque;

use super::peer::{Ending, Peer};
use super::scan::{Item, Scanner};
use crate::wire;

/// Bytes that must be free at the front before the rest is moved down.
const TRIM_AT: u64 = 1 << 20;

/// Neighbouring bytes from one sender. A run starts where the one before it ends.
struct Run {
    source: usize,
    end: u64,
}

/// Messages that some peer may still miss. Positions count from the start of the server: `base <= cursor <= end`.
#[derive(Default)]
pub(super) struct SharedLog {
    bytes: Vec<u8>,
    base: u64,
    runs: VecDeque<Run>,
}

impl SharedLog {
    pub(super) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends every message in `bytes`, which came from the peer in slot `source`, and answers its pings. Returns the bytes
    /// that belonged to whole frames.
    pub(super) fn append_from(&mut self, source: usize, peer: &mut Peer, bytes: &[u8]) -> Result<usize, Ending> {
        let mut scanner = Scanner::new(bytes);
        while let Some(item) = scanner.next()? {
            match item {
                Item::Messages(run) => {
                    self.append(source, run);
                    peer.own_end = self.end();
                }
                Item::Ping(nonce) => peer.send_own(&wire::control(wire::PONG, nonce))?,
                Item::Goodbye => return Err(Ending::Goodbye),
            }
        }
        Ok(scanner.consumed())
    }

    fn append(&mut self, source: usize, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let end = self.end();
        match self.runs.back_mut() {
            Some(last) if last.source == source => last.end = end,
            _ => self.runs.push_back(Run { source, end }),
        }
    }

    /// Sends the peer in slot `slot` what it misses, as far as its socket takes it.
    #[inline]
    pub(super) fn flush(&self, slot: usize, peer: &mut Peer) -> Result<(), Ending> {
        loop {
            if peer.has_own() {
                peer.flush_own()?;
            }
            let end = self.skip_own(slot, peer);
            if peer.cursor == end || !peer.writable {
                return Ok(());
            }
            let missing = &self.bytes[(peer.cursor - self.base) as usize..(end - self.base) as usize];
            peer.cursor += peer.send(missing)? as u64;
            peer.mid_frame = peer.cursor < end;
            if !peer.has_own() && peer.cursor >= peer.own_end {
                return Ok(());
            }
        }
    }

    /// Moves the peer's cursor over its own messages, and returns where the run of others' messages from there ends.
    #[inline]
    fn skip_own(&self, slot: usize, peer: &mut Peer) -> u64 {
        if peer.cursor >= peer.own_end {
            return self.end();
        }
        let mut index = self.runs.partition_point(|run| run.end <= peer.cursor);
        if self.runs[index].source == slot {
            // The next run has another source, or it would have been joined to this one.
            peer.cursor = self.runs[index].end;
            index += 1;
        }
        let others = self.runs.iter().skip(index).take_while(|run| run.source != slot);
        others.last().map_or(peer.cursor, |run| run.end)
    }

    /// Forgets what lies before `slowest`, the position of the peer that is furthest behind.
    pub(super) fn trim(&mut self, slowest: u64) {
        let done = slowest - self.base;
        if slowest == self.end() {
            self.bytes.clear();
        } else if done >= TRIM_AT && done >= self.bytes.len() as u64 / 2 {
            self.bytes.drain(..done as usize);
        } else {
            return;
        }
        self.base = slowest;
        let stale = self.runs.partition_point(|run| run.end <= slowest);
        self.runs.drain(..stale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn peer_at(cursor: u64, own_end: u64) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = Peer::new(stream);
        (peer.cursor, peer.own_end) = (cursor, own_end);
        peer
    }

    #[test]
    fn a_peer_misses_everything_but_its_own() {
        let mut log = SharedLog::default();
        for (source, bytes) in [(1, "aa"), (1, "bb"), (2, "cc"), (3, "dd"), (1, "ee")] {
            log.append(source, bytes.as_bytes());
        }
        let mut stranger = peer_at(0, 0);
        assert_eq!((log.skip_own(9, &mut stranger), stranger.cursor), (10, 0));
        let mut first = peer_at(0, 10);
        assert_eq!((log.skip_own(1, &mut first), first.cursor), (8, 4));
        first.cursor = 8;
        assert_eq!((log.skip_own(1, &mut first), first.cursor), (10, 10));
        let mut second = peer_at(1, 6);
        assert_eq!((log.skip_own(2, &mut second), second.cursor), (4, 1));
    }

    #[test]
    fn trimming_keeps_positions() {
        let mut log = SharedLog::default();
        log.append(1, &vec![1; 3 << 20]);
        log.append(2, &vec![2; 1 << 20]);
        log.trim(TRIM_AT);
        assert_eq!((log.base, log.len()), (0, 4 << 20), "moving three parts to free one does not pay");
        log.trim(3 << 20);
        assert_eq!((log.base, log.len(), log.runs.len()), (3 << 20, 1 << 20, 1));
        log.trim(4 << 20);
        assert_eq!((log.end(), log.len(), log.runs.len()), (4 << 20, 0, 0));
    }
}
