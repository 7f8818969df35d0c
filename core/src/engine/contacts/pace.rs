//! How often something may come: so many at once, and one in a time in the long run.

use crate::units::TimeMs;

/// A bucket that fills with time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// When all is there again, unix ms.
    full_at_ms: TimeMs,
}

impl Pace {
    /// One that is full at a time.
    #[cfg(test)]
    pub(super) fn full_at_ms(&mut self, full_at_ms: TimeMs) {
        self.full_at_ms = full_at_ms;
    }

    /// Takes one, if there is one: of `most`, which come back one in `each_ms`.
    pub(super) fn take(&mut self, now_ms: TimeMs, most: u64, each_ms: u64) -> bool {
        let empty_ms = most.saturating_mul(each_ms);
        let until_full_ms = self.full_at_ms.saturating_sub(now_ms);
        // A clock that was set back would wait for its former time.
        let until_full_ms = if until_full_ms > empty_ms { 0 } else { until_full_ms };
        let after_ms = until_full_ms.saturating_add(each_ms);
        let is_there = after_ms <= empty_ms;
        if is_there {
            self.full_at_ms = now_ms.saturating_add(after_ms);
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_come_at_once_and_then_one_in_a_time() {
        let mut pace = Pace::default();
        let mut taken = |now_ms| (0..10).filter(|_| pace.take(now_ms, 8, 1_000)).count();
        assert_eq!([5_000_000, 5_000_999, 5_001_000, 5_003_500].map(&mut taken), [8, 0, 1, 2]);
        assert_eq!(taken(5_003_999), 0);
        assert_eq!(taken(5_004_000), 1);
        assert_eq!(taken(6_000_000), 8, "no more, however long it waits");
        assert_eq!(taken(1_000_000), 8, "a clock that was set back");
    }
}
