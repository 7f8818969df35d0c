//! Bounded repetition of requests to peers that do not answer.

use crate::units::TimeMs;

/// First wait: longer than a round trip on any network.
const FIRST_WAIT_MS: u64 = 1_000;
/// Longest wait: the period at which contacts are published, and so found again.
const LONGEST_WAIT_MS: u64 = 60_000;
/// Tries in all: with doubling waits about a quarter of an hour.
const TRIES_MAX: u32 = 20;

/// When to try again. Every try may reach the peer twice: requests are idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Backoff {
    tries: u32,
    due_ms: TimeMs,
}

impl Backoff {
    /// Due at once.
    pub(in crate::engine) fn new(now_ms: TimeMs) -> Self {
        Self { tries: 0, due_ms: now_ms }
    }

    /// When the next try is due.
    pub(in crate::engine) fn due_ms(self) -> TimeMs {
        self.due_ms
    }

    /// Tries so far.
    pub(in crate::engine) fn tries(self) -> u32 {
        self.tries
    }

    /// Whether no try is left.
    pub(in crate::engine) fn is_spent(self) -> bool {
        self.tries >= TRIES_MAX
    }

    /// Counts a try; false if none is left.
    pub(in crate::engine) fn take(&mut self, now_ms: TimeMs) -> bool {
        if self.is_spent() {
            return false;
        }
        let wait = FIRST_WAIT_MS.saturating_mul(1 << self.tries.min(16)).min(LONGEST_WAIT_MS);
        self.tries += 1;
        self.due_ms = now_ms.saturating_add(wait);
        true
    }
}
