//! When the next try of a trade may happen. In memory only: after a restart everything may
//! be tried at once.

use crate::params::Params;
use crate::units::TimeMs;

/// Tries of a message within the time that Terms have: the first repeats come early, so
/// that one lost message does not lose a trade.
const TRIES_PER_DEADLINE: u64 = 8;
/// Largest doubling of the wait between tries: 64 times the first.
const DOUBLINGS_MAX: u32 = 6;

/// Tries of one step: messages by time, broadcasts by chain tip.
#[derive(Debug, Default)]
pub(super) struct Retry {
    tries: u32,
    due_ms: TimeMs,
    acted_tip: Option<u32>,
}

impl Retry {
    /// A new state: everything may be tried at once.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether a message may be sent (again).
    pub(super) fn is_message_due(&self, now_ms: TimeMs) -> bool {
        now_ms >= self.due_ms
    }

    /// Whether this tip has not been acted on.
    pub(super) fn is_tip_due(&self, tip: u32) -> bool {
        self.acted_tip != Some(tip)
    }

    /// A try happened: the next message waits twice as long as this one did.
    pub(super) fn tried(&mut self, now_ms: TimeMs, tip: u32, params: &Params) {
        let first_ms = (params.settle.terms_ms / TRIES_PER_DEADLINE).max(1);
        self.due_ms = now_ms.saturating_add(first_ms << self.tries.min(DOUBLINGS_MAX));
        self.tries = self.tries.saturating_add(1);
        self.acted_tip = Some(tip);
    }

    /// When the next message may go.
    pub(super) fn due_ms(&self) -> TimeMs {
        self.due_ms
    }
}
