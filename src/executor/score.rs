//! What a processor and the memory of this host do, measured in the same way by a provider before it
//! sells and by a holder within its lease: `examples/score` for components, and this for containers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use capex_core::lease::score::Score;

/// Of one xorshift generator: each needs the one before, and no memory.
const STEPS: u64 = 4_194_304;
/// More than processors keep beside themselves.
const COPY_MIB: u64 = 32;
/// The shortest try within this counts: what came between is not the processor's.
const TRIES: Duration = Duration::from_secs(1);
/// What is printed: two numbers of eight bytes.
pub(super) const PRINTED_BYTES: usize = 16;

/// Shortest times of one thread, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) steps_ns: u64,
    pub(super) copy_ns: u64,
}

impl Times {
    /// Measures for two seconds.
    pub(super) fn measure() -> Self {
        let copy_bytes = usize::try_from(COPY_MIB << 20).unwrap_or(0);
        let (from, mut to) = (vec![7_u8; copy_bytes], vec![0_u8; copy_bytes]);
        Self {
            steps_ns: shortest_ns(steps),
            copy_ns: shortest_ns(|| black_box(&mut to).copy_from_slice(black_box(&from))),
        }
    }

    /// As both print it.
    pub(super) fn to_bytes(self) -> [u8; PRINTED_BYTES] {
        let mut bytes = [0; PRINTED_BYTES];
        bytes[..8].copy_from_slice(&self.steps_ns.to_le_bytes());
        bytes[8..].copy_from_slice(&self.copy_ns.to_le_bytes());
        bytes
    }

    /// The rates that they are; nothing that took no time.
    pub(super) fn score(self) -> Option<Score> {
        let rate = |amount: u64, ns: u64| {
            u32::try_from(amount.saturating_mul(1_000_000_000).checked_div(ns)?).ok()
        };
        let processor = u32::try_from(STEPS.saturating_mul(1_000).checked_div(self.steps_ns)?);
        Some(Score { processor: processor.ok()?, memory: rate(COPY_MIB, self.copy_ns)? })
    }
}

/// What was printed, as a score.
#[must_use]
pub fn of_printed(bytes: &[u8]) -> Option<Score> {
    let (steps, copy) = bytes.split_at_checked(8)?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    Times { steps_ns: number(steps)?, copy_ns: number(copy)? }.score()
}

fn steps() {
    let mut x = black_box(0x2545_f491_4f6c_dd1d_u64);
    for _ in 0..STEPS {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
}

fn shortest_ns(mut work: impl FnMut()) -> u64 {
    let (begun, mut shortest) = (Instant::now(), Duration::MAX);
    while begun.elapsed() < TRIES {
        let before = Instant::now();
        work();
        shortest = shortest.min(before.elapsed());
    }
    u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_rates_and_nonsense_becomes_nothing() {
        let times = Times { steps_ns: 4_194_304, copy_ns: 4_000_000 };
        let score = Some(Score { processor: 1_000, memory: 8_000 });
        assert_eq!(times.score(), score);
        assert_eq!(of_printed(&times.to_bytes()), score);
        for bytes in [&[0; 16][..], &[1; 8], &[1; 17], &[], &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0]] {
            assert_eq!(of_printed(bytes), None, "{bytes:?}");
        }
    }
}
