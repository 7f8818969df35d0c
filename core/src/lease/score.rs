//! What a host does in a second: a number for its processors and one for its memory, in bands.

use serde::{Deserialize, Serialize};

/// What one thread of a lease does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Steps of a generator of which each needs the one before, millions a second.
    pub processor: u32,
    /// Memory copied, MiB a second.
    pub memory: u32,
}

/// Preferred numbers, ten to a decade: each is about a quarter more than the one before.
///
/// Source: ISO 3, series R10.
const BANDS: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];

impl Score {
    /// The band that it is in, as its lower end. Two measurements of one host differ by less.
    #[must_use]
    pub fn band(self) -> Self {
        Self { processor: lower(self.processor), memory: lower(self.memory) }
    }
}

fn lower(number: u32) -> u32 {
    let number = u64::from(number);
    let mut scale = 1;
    while number >= scale * 10 {
        scale *= 10;
    }
    let within = BANDS.iter().map(|band| band * scale / 100).filter(|band| *band <= number);
    u32::try_from(within.max().unwrap_or(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_begins_at_the_preferred_number_below() {
        let table = [
            (0, 0),
            (1, 1),
            (9, 8),
            (10, 10),
            (12, 12),
            (99, 80),
            (100, 100),
            (124, 100),
            (125, 125),
            (692, 630),
            (999, 800),
            (15_300, 12_500),
            (u32::MAX, 4_000_000_000),
        ];
        for (number, band) in table {
            let score = Score { processor: number, memory: number }.band();
            assert_eq!((score.processor, score.memory), (band, band), "{number}");
        }
    }
}
