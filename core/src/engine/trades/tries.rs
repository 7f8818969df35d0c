//! When the next try of a trade may happen. In memory only: after a restart everything may
//! be tried at once.

use crate::engine::kernel::{Pace, Retry};
use crate::params::Params;
use crate::units::TimeMs;

/// Tries of a message within the time that Terms have: the first repeats come early, so
/// that one lost message does not lose a trade.
const TRIES_PER_DEADLINE: u64 = 8;
/// The longest wait between tries: 64 times the first.
const LONGEST_WAIT: u64 = 64;

/// Tries of one step: messages by time, broadcasts by chain tip.
#[derive(Debug)]
pub(super) struct Tries {
    message: Retry,
    acted_tip: Option<u32>,
    /// When the first of them was.
    since_ms: Option<TimeMs>,
}

impl Tries {
    /// Everything may be tried at once.
    pub(super) fn new(params: &Params) -> Self {
        let first_ms = (params.settle.terms_ms / TRIES_PER_DEADLINE).max(1);
        let pace = Pace::between(first_ms, first_ms.saturating_mul(LONGEST_WAIT));
        Self { message: Retry::new(pace, 0), acted_tip: None, since_ms: None }
    }

    /// A new state: everything may be tried at once.
    pub(super) fn reset(&mut self) {
        self.message.reset(0);
        self.acted_tip = None;
        self.since_ms = None;
    }

    /// Whether a message may be sent (again).
    pub(super) fn is_message_due(&self, now_ms: TimeMs) -> bool {
        self.message.is_due(now_ms)
    }

    /// Whether this tip has not been acted on.
    pub(super) fn is_tip_due(&self, tip: u32) -> bool {
        self.acted_tip != Some(tip)
    }

    /// A try happened: the next message waits twice as long as this one did.
    pub(super) fn tried(&mut self, now_ms: TimeMs, tip: u32) {
        self.message.take(now_ms);
        self.acted_tip = Some(tip);
        self.since_ms = self.since_ms.or(Some(now_ms));
    }

    /// Messages and broadcasts tried since the last change of state, in this life.
    pub(super) fn count(&self) -> u32 {
        self.message.tries()
    }

    /// Whether anything was tried since the last change of state.
    pub(super) fn has_tried(&self) -> bool {
        self.acted_tip.is_some()
    }

    /// When it was first tried since the last change of state, in this life, unix ms.
    pub(super) fn since_ms(&self) -> Option<TimeMs> {
        self.since_ms
    }

    /// When the next message may go.
    pub(super) fn due_ms(&self) -> TimeMs {
        self.message.due_ms()
    }
}
