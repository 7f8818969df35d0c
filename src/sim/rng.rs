//! The only source of chance in a simulation.

/// `SplitMix64` (Steele, Lea and Flood 2014): one word of state, so that a seed is a run.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// From a seed; every seed is good.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[low, high)`; `low` if the range is empty. The bias of the remainder is
    /// below 2^-40 for the small ranges used here.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % high.saturating_sub(low).max(1)
    }

    /// True `per_mille` times in a thousand.
    pub fn hits(&mut self, per_mille: u16) -> bool {
        self.draw() % 1000 < u64::from(per_mille)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_its_published_sequence() {
        let mut rng = Rng::new(1_234_567);
        let drawn = [rng.draw(), rng.draw(), rng.draw()];
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(drawn, published);
    }

    #[test]
    fn ranges_hold_their_bounds() {
        let mut rng = Rng::new(7);
        assert!((0..1000).all(|_| (5..8).contains(&rng.within(5, 8))));
        assert_eq!(rng.within(9, 9), 9);
        assert!(!(0..1000).any(|_| rng.hits(0)));
        assert!((0..1000).all(|_| rng.hits(1000)));
    }
}
