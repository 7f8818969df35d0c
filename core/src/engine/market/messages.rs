//! What the market is told to do, and what it tells people.

use super::OrderSpec;
use crate::engine::kernel::ClockCheck;
use crate::ids::{Key, StandingId};

/// What an operator asks of the market.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarketCommand {
    /// Keep an order in the market.
    Place(Box<OrderSpec>),
    Cancel(StandingId),
    /// Forget what a key failed to do, and sign towards it again.
    Forgive(Key),
}

/// What became of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarketNews {
    Computed {
        epoch: u64,
        /// Rows of it, own and others'.
        rows: usize,
    },
    /// An epoch has no result: nothing of it binds here.
    Failed { epoch: u64, code: &'static str },
    /// Others think differently of the own clock than before.
    Clock(ClockCheck),
    /// The clock was ahead and is right again: orders were signed and epochs computed too early.
    ClockWasAhead {
        /// The last of those epochs.
        through: u64,
        /// The open epoch.
        epoch: u64,
    },
}
