//! Randomness from a seed, for jitter and for the simulator.
//!
//! Ring 0 has no randomness of its own: whoever builds a shard hands it a seed, and the same seed gives the same run. **Not
//! cryptographic**: the state follows from a few outputs, so nothing a peer must not guess (keys, nonces, challenges) may come from
//! here.
//!
//! The generator is xoshiro256++ 1.0, its state filled by SplitMix64 as its authors advise (Blackman and Vigna,
//! <https://prng.di.unimi.it/xoshiro256plusplus.c> and <https://prng.di.unimi.it/splitmix64.c>).

use std::time::Duration;

/// A seeded pseudo-random generator (xoshiro256++): jitter and simulation only, not cryptographic.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator that `seed` stands for. Every seed is a good one, zero too: SplitMix64 never fills the state with zeros only.
    pub(crate) fn new(mut seed: u64) -> Self {
        Self { state: std::array::from_fn(|_| split_mix(&mut seed)) }
    }

    /// The next 64 bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number in `0..n`, each equally likely.
    ///
    /// Multiply and reject (Lemire, "Fast Random Integer Generation in an Interval", 2019): almost never a second draw for a small
    /// `n`, and a division only where one might be needed.
    ///
    /// # Panics
    ///
    /// If `n` is zero: there is no such number.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "no number is below zero");
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            // 2^64 mod n: as many low halves are one draw too many for some results.
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// Fills `bytes`. The same seed gives the same bytes on every platform.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    /// A duration in `0..limit`, to the nanosecond; zero where `limit` is zero. Limits above 584 years count as 584 years.
    pub(crate) fn duration_below(&mut self, limit: Duration) -> Duration {
        match u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX) {
            0 => Duration::ZERO,
            nanos => Duration::from_nanos(self.below(nanos)),
        }
    }

    /// True in `numerator` of `denominator` cases; always where `numerator` is not the smaller one.
    ///
    /// # Panics
    ///
    /// If `denominator` is zero.
    #[cfg(test)]
    pub(crate) fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }
}

/// One step of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_the_reference_vectors() {
        // The reference implementation's first outputs for the state 1, 2, 3, 4; `rand_xoshiro` tests against the same.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        for expected in [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
            14_011_001_112_246_962_877,
            12_406_186_145_184_390_807,
            15_849_039_046_786_891_736,
            10_450_023_813_501_588_000,
        ] {
            assert_eq!(rng.next_u64(), expected);
        }
    }

    #[test]
    fn seeding_is_split_mix() {
        let state = [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F, 0xF88B_B8A8_724C_81EC];
        assert_eq!(Rng::new(0).state, state);
    }

    #[test]
    fn same_seed_same_numbers() {
        let (mut a, mut b, mut c) = (Rng::new(7), Rng::new(7), Rng::new(8));
        let numbers: Vec<u64> = (0..100).map(|_| a.next_u64()).collect();
        assert!(numbers.iter().all(|&n| n == b.next_u64()));
        assert!(numbers.iter().all(|&n| n != c.next_u64()));
    }

    #[test]
    fn below_stays_below_and_is_even() {
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[usize::try_from(rng.below(6)).unwrap()] += 1;
        }
        // 10 000 expected each, standard deviation 91.
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(rng.below(1), 0);
        for n in [2, 3, u64::MAX / 2 + 2, u64::MAX] {
            assert!((0..1000).all(|_| rng.below(n) < n));
        }
    }

    #[test]
    fn below_rejects_where_a_plain_multiplication_is_uneven() {
        // For n = 3 * 2^62 a multiplication alone would hit every third number twice as often as its neighbours.
        let mut rng = Rng::new(2);
        let mut counts = [0u32; 3];
        for _ in 0..30_000 {
            counts[usize::try_from(rng.below(3 << 62) % 3).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    }

    #[test]
    #[should_panic(expected = "below zero")]
    fn below_zero_is_a_mistake() {
        Rng::new(1).below(0);
    }

    #[test]
    fn fill_takes_any_length() {
        let mut whole = [0; 16];
        Rng::new(3).fill(&mut whole);
        for length in 0..=whole.len() {
            let mut part = vec![0; length];
            Rng::new(3).fill(&mut part);
            assert_eq!(part, whole[..length]);
        }
    }

    #[test]
    fn durations_stay_below_their_limit() {
        let mut rng = Rng::new(4);
        assert_eq!(rng.duration_below(Duration::ZERO), Duration::ZERO);
        assert_eq!(rng.duration_below(Duration::from_nanos(1)), Duration::ZERO);
        let limit = Duration::from_secs(2);
        let drawn: Vec<Duration> = (0..1000).map(|_| rng.duration_below(limit)).collect();
        assert!(drawn.iter().all(|&duration| duration < limit));
        assert!(drawn.iter().any(|&duration| duration < limit / 10));
        assert!(drawn.iter().any(|&duration| duration > limit / 10 * 9));
        assert!(rng.duration_below(Duration::MAX) < Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn chance_keeps_its_odds() {
        let mut rng = Rng::new(5);
        let hits = (0..10_000).filter(|_| rng.chance(1, 4)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!((0..100).all(|_| rng.chance(3, 3) && !rng.chance(0, 3)));
    }
}
