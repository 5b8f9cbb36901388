//! When the messages of an open loop are due: evenly, at random or in bursts, known beforehand from a rate and a seed.
//!
//! Nothing here looks at a clock. The pacer and each core that sends make the same schedule of the same numbers, and whatever the server
//! does, the schedule stays.

use std::fmt;

use crate::client::Share;

/// Messages of a burst where the command line does not say.
const BURST: u32 = 10;
/// Most that may be due at once.
const BURST_MAX: u32 = 100_000;

/// How the messages of an open loop are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrivals {
    /// One after the other, at the same distance.
    Constant,
    /// At random and independently of each other, as many users who know nothing of each other are.
    Poisson,
    /// So many at once, and then none until the rate allows as many again.
    Burst(u32),
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Poisson => f.write_str("poisson"),
            Self::Burst(size) => write!(f, "burst:{size}"),
        }
    }
}

pub(crate) fn parse_arrivals(text: &str) -> Result<Arrivals, String> {
    let expected = || format!("expected constant, poisson, burst or burst:N with 2 to {BURST_MAX} messages");
    match text.split_once(':') {
        None if text == "constant" => Ok(Arrivals::Constant),
        None if text == "poisson" => Ok(Arrivals::Poisson),
        None if text == "burst" => Ok(Arrivals::Burst(BURST)),
        Some(("burst", size)) => {
            let size = size.parse().ok().filter(|size| (2..=BURST_MAX).contains(size));
            size.map(Arrivals::Burst).ok_or_else(expected)
        }
        _ => Err(expected()),
    }
}

/// What an open loop offers the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Offered {
    /// Messages a second, all peers of the run together.
    pub(crate) rate: f64,
    pub(crate) arrivals: Arrivals,
    /// Poisson: the same number gives the same schedule.
    pub(crate) seed: u64,
}

/// When the messages of one core are due.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// When the first message of the run is due.
    at: u64,
    /// Nanoseconds from one message of the run to the next, on average.
    interval: f64,
    engines: u64,
    source: Source,
    /// The next one.
    due: u64,
}

/// Where the next one's time comes from.
#[derive(Clone, Debug)]
enum Source {
    /// The messages of the run are numbered, and the cores have them in turn.
    Numbered { next: u64, burst: u64 },
    /// Each core has a random stream of its own: together they are one again.
    Random { random: Random, after: f64 },
}

impl Schedule {
    /// The core's part of what is offered from `at` on.
    pub(crate) fn new(offered: &Offered, at: u64, share: &Share) -> Self {
        let engine = share.engine as u64;
        let source = match offered.arrivals {
            Arrivals::Constant => Source::Numbered { next: engine, burst: 1 },
            Arrivals::Burst(size) => Source::Numbered { next: engine, burst: u64::from(size) },
            Arrivals::Poisson => Source::Random { random: Random::new(offered.seed, engine), after: 0.0 },
        };
        let mut schedule = Self { at, interval: 1e9 / offered.rate, engines: share.engines as u64, source, due: 0 };
        schedule.advance();
        schedule
    }

    /// When the next message is due.
    pub(crate) fn next(&self) -> u64 {
        self.due
    }

    /// When the next message is due, if that is not after `now`. Each is returned once.
    pub(crate) fn due(&mut self, now: u64) -> Option<u64> {
        let due = self.due;
        (due <= now).then(|| {
            self.advance();
            due
        })
    }

    /// How many messages are due and have not been returned, about.
    pub(crate) fn overdue(&self, now: u64) -> u64 {
        let interval = self.interval * self.engines as f64;
        now.checked_sub(self.due).map_or(0, |late| 1 + (late as f64 / interval) as u64)
    }

    fn advance(&mut self) {
        let after = match &mut self.source {
            // From the number and not from the last one's time, so that no error adds up.
            Source::Numbered { next, burst } => {
                let number = *next - *next % *burst;
                *next += self.engines;
                number as f64 * self.interval
            }
            Source::Random { random, after } => {
                *after += -random.fraction().ln() * self.interval * self.engines as f64;
                *after
            }
        };
        self.due = self.at.saturating_add(after as u64);
    }
}

/// Numbers that look random: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
struct Random {
    state: u64,
}

impl Random {
    /// One of many streams of a seed.
    fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self { state: seed };
        // Far from the other streams: their states differ by more than a step.
        random.state = random.next().wrapping_add(stream.wrapping_mul(0xD134_2543_DE82_EF95));
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.state ^ self.state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// Over 0, so that it has a logarithm, to 1.
    fn fraction(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(engine: usize, engines: usize) -> Share {
        Share { engine, engines, first: 0, count: 1, total: 2 }
    }

    /// All that is due until then.
    fn until(offered: &Offered, at: u64, engine: usize, engines: usize, end: u64) -> Vec<u64> {
        let mut schedule = Schedule::new(offered, at, &share(engine, engines));
        std::iter::from_fn(|| schedule.due(end)).collect()
    }

    fn offered(rate: f64, arrivals: Arrivals, seed: u64) -> Offered {
        Offered { rate, arrivals, seed }
    }

    fn evenly(rate: f64) -> Offered {
        offered(rate, Arrivals::Constant, 0)
    }

    #[test]
    fn the_cores_of_a_run_share_one_rate() {
        let even = evenly(1000.0);
        assert_eq!(until(&even, 5, 0, 2, 4_000_004), [5, 2_000_005]);
        assert_eq!(until(&even, 5, 1, 2, 4_000_004), [1_000_005, 3_000_005]);
    }

    #[test]
    fn a_constant_rate_is_exact_however_long_it_goes_on() {
        // 3 a second do not divide a second. An hour later the 10,800th is due at the hour, to the nanosecond.
        let all = until(&evenly(3.0), 7, 0, 1, 7 + 3_600_000_000_000);
        assert_eq!((all.len(), all.last()), (10_801, Some(&(7 + 3_600_000_000_000))));
        assert!(all.windows(2).all(|pair| (333_333_333..=333_333_334).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn what_is_overdue_is_counted_without_being_returned() {
        let mut schedule = Schedule::new(&evenly(1000.0), 0, &share(0, 1));
        assert_eq!((schedule.overdue(0), schedule.overdue(10_500_000)), (1, 11));
        let returned = std::iter::from_fn(|| schedule.due(4_000_000)).count() as u64;
        assert_eq!((returned, schedule.overdue(4_000_000), schedule.overdue(10_500_000)), (5, 0, 6));
    }

    #[test]
    fn bursts_come_at_once_and_keep_the_rate() {
        let all = until(&offered(1000.0, Arrivals::Burst(4), 0), 0, 0, 1, 11_999_999);
        assert_eq!(all, [0, 0, 0, 0, 4_000_000, 4_000_000, 4_000_000, 4_000_000, 8_000_000, 8_000_000, 8_000_000, 8_000_000]);
        // Three cores have the same bursts between them.
        let mut shared: Vec<_> =
            (0..3).flat_map(|engine| until(&offered(1000.0, Arrivals::Burst(4), 0), 0, engine, 3, 11_999_999)).collect();
        shared.sort_unstable();
        assert_eq!(shared, all);
    }

    #[test]
    fn random_arrivals_are_as_many_and_as_far_apart_as_they_should_be() {
        // 100,000 expected: the standard deviation is 316, and for a given seed nothing changes any more.
        let all = until(&offered(10_000.0, Arrivals::Poisson, 7), 0, 0, 1, 10_000_000_000);
        assert!((99_000..101_000).contains(&all.len()), "{}", all.len());
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // Of exponential gaps the deviation is the mean, and one in e is longer than the mean.
        assert!((mean / 100_000.0 - 1.0).abs() < 0.01 && (deviation / mean - 1.0).abs() < 0.02, "{mean} {deviation}");
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.01, "{longer}");
    }

    #[test]
    fn random_arrivals_are_known_from_their_seed() {
        let of = |seed, engine| until(&offered(1000.0, Arrivals::Poisson, seed), 0, engine, 2, 1_000_000_000);
        assert_eq!(of(1, 0), of(1, 0));
        assert_ne!(of(1, 0), of(2, 0));
        assert_ne!(of(1, 0), of(1, 1));
        let both = of(1, 0).len() + of(1, 1).len();
        assert!((850..1150).contains(&both), "{both}");
    }

    #[test]
    fn arrivals_are_told_by_their_names() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson, Arrivals::Burst(2), Arrivals::Burst(100_000)] {
            assert_eq!(parse_arrivals(&arrivals.to_string()), Ok(arrivals));
        }
        assert_eq!(parse_arrivals("burst"), Ok(Arrivals::Burst(10)));
        for bad in ["", "even", "burst:", "burst:1", "burst:100001", "burst:x", "poisson:2", "constant:1"] {
            assert!(parse_arrivals(bad).is_err(), "{bad}");
        }
    }
}
