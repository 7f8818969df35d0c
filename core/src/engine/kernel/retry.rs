//! Bounded repetition of requests to peers that do not answer.

use crate::units::TimeMs;

/// How long to wait between tries, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    first_ms: u64,
    longest_ms: u64,
    tries_max: u32,
}

impl Pace {
    /// For peers: the first wait is longer than a round trip on any network, the longest is
    /// the period at which contacts are published, and so found again. With doubling waits
    /// the tries take about a quarter of an hour.
    pub const PEER: Self = Self { first_ms: 1_000, longest_ms: 60_000, tries_max: 20 };

    /// Waits that double from `first_ms` to `longest_ms`, without end: for what a deadline of
    /// its own ends.
    #[must_use]
    pub const fn between(first_ms: u64, longest_ms: u64) -> Self {
        Self { first_ms, longest_ms, tries_max: u32::MAX }
    }
}

/// When to try again. Every try may reach the peer twice: requests are idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    pace: Pace,
    tries: u32,
    due_ms: TimeMs,
}

impl Retry {
    /// Due at a time, at first.
    #[must_use]
    pub fn new(pace: Pace, due_ms: TimeMs) -> Self {
        Self { pace, tries: 0, due_ms }
    }

    /// When the next try is due.
    #[must_use]
    pub fn due_ms(self) -> TimeMs {
        self.due_ms
    }

    /// Whether the next try is due. One that is further away than any wait was set by a clock
    /// that has been set back since.
    #[must_use]
    pub fn is_due(self, now_ms: TimeMs) -> bool {
        now_ms >= self.due_ms || self.due_ms - now_ms > self.pace.longest_ms
    }

    /// Tries so far.
    #[must_use]
    pub fn tries(self) -> u32 {
        self.tries
    }

    /// Whether no try is left.
    #[must_use]
    pub fn is_spent(self) -> bool {
        self.tries >= self.pace.tries_max
    }

    /// Counts a try; `false` if none is left.
    pub fn take(&mut self, now_ms: TimeMs) -> bool {
        if self.is_spent() {
            return false;
        }
        let doubled = 1_u64 << self.tries.min(16);
        let wait = self.pace.first_ms.saturating_mul(doubled).min(self.pace.longest_ms);
        self.tries = self.tries.saturating_add(1);
        self.due_ms = now_ms.saturating_add(wait);
        true
    }

    /// Due at a time, unless it is due earlier. The waits that follow stay as they are.
    pub fn hasten(&mut self, due_ms: TimeMs) {
        self.due_ms = self.due_ms.min(due_ms);
    }

    /// Begins anew, due at a time.
    pub fn reset(&mut self, due_ms: TimeMs) {
        *self = Self::new(self.pace, due_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_tries_end() {
        let mut retry = Retry::new(Pace { first_ms: 100, longest_ms: 350, tries_max: 4 }, 10);
        let mut now_ms = 10;
        for wait in [100, 200, 350, 350] {
            assert_eq!(retry.due_ms(), now_ms);
            assert!(retry.take(now_ms));
            assert_eq!(retry.due_ms(), now_ms + wait);
            now_ms += wait;
        }
        assert!(retry.is_spent() && !retry.take(now_ms));
        retry.reset(7);
        assert_eq!((retry.tries(), retry.due_ms(), retry.take(7)), (0, 7, true));
        assert_eq!(retry.due_ms(), 107);
    }

    #[test]
    fn what_has_no_last_try_waits_at_most_the_longest() {
        let mut retry = Retry::new(Pace::between(10, 640), 0);
        for _ in 0..100 {
            assert!(retry.take(0));
        }
        assert_eq!(retry.due_ms(), 640);
    }
}
