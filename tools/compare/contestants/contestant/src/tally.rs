//! Which messages of a sink are answered: every 64th of a connection, so that its sender can keep a window and know what arrived.

/// One answer for so many messages.
const ANSWERED: u64 = 64;

/// The messages of one connection.
#[derive(Debug, Default)]
pub struct Tally {
    counted: u64,
}

impl Tally {
    /// Counts one message, and says whether it is to be sent back.
    #[inline]
    pub fn count(&mut self) -> bool {
        self.counted += 1;
        self.counted.is_multiple_of(ANSWERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixty_fourth_is_answered() {
        let mut tally = Tally::default();
        let answered: Vec<_> = (1..=200).filter(|_| tally.count()).collect();
        assert_eq!(answered, [64, 128, 192]);
    }
}
