//! What an owner asks the market to keep.

use serde::{Deserialize, Serialize};

use crate::ids::Key;
use crate::order::{Alternative, Mode, Side};
use crate::units::{TimeMs, Window};

/// How long a standing order lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeInForce {
    /// Until filled or cancelled.
    GoodTillCancelled,
    /// Until a time, unix ms.
    GoodTillTime(TimeMs),
    /// One epoch, any part.
    ImmediateOrCancel,
    /// One epoch, all or nothing.
    FillOrKill,
}

/// An instruction to keep an order in the market: what the owner's daemon re-signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSpec {
    /// Bid or ask.
    pub side: Side,
    /// Classes and limits, 1 to 4 (an ask: 1).
    pub alts: Vec<Alternative>,
    /// Blocks per slot.
    pub qty: u32,
    /// Smallest fill.
    pub min_qty: u32,
    /// Spread over providers.
    pub mode: Mode,
    /// When.
    pub window: Window,
    /// Consecutive slots of a bid; 0 for an ask.
    pub slots: u16,
    /// Feature bits.
    pub features: u64,
    /// Only these counterparties.
    pub allow: Vec<Key>,
    /// Never these.
    pub deny: Vec<Key>,
    /// Shortest run of an ask; 0 for a bid.
    pub min_run: u16,
    /// How long it stands.
    pub time_in_force: TimeInForce,
    /// Holder of what is bought, if not this node.
    pub beneficiary: Option<Key>,
}
