use serde::{Deserialize, Serialize};

use super::{SlotPrice, SlotRange};
use capex_core::epoch::audit::Difference;

/// A row of an epoch's result, anyone's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Object id of the row.
    pub trade_id: String,
    /// Object id of the bid.
    pub buy: String,
    /// Object id of the ask.
    pub sell: String,
    /// Class name.
    pub class: String,
    /// Delivery window, slots.
    pub window: SlotRange,
    /// Units.
    pub qty: u32,
    /// Total price, msat.
    pub price_msat: u64,
}

/// Root that a node signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRoot {
    /// Who signed.
    pub key: String,
    /// Tree hash over the ids of all valid orders.
    pub root: String,
    /// Orders.
    pub count: u32,
}

/// A computed epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number.
    pub epoch: u64,
    /// First slot that it could trade.
    pub first_slot: u32,
    /// Tree hash over the ids of all valid orders known here.
    pub root: String,
    /// Orders under the root.
    pub count: u32,
    /// Hash of rows and prices.
    pub result_root: String,
    /// The result.
    pub rows: Vec<EpochRow>,
    /// Uniform prices.
    pub prices: Vec<SlotPrice>,
    /// Roots of other nodes.
    pub roots: Vec<SeenRoot>,
    /// Whether every root seen is the one of this node.
    pub agreed: bool,
}

/// One place where an epoch differs from what its orders give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochDifference {
    /// Stable reason code.
    pub code: String,
    /// Which order, row or price, or which field of the epoch.
    pub place: String,
    /// What follows from the orders and the network definition.
    pub expected: String,
    /// What the epoch says.
    pub found: String,
}

impl From<Difference> for EpochDifference {
    fn from(difference: Difference) -> Self {
        let Difference { code, place, expected, found } = difference;
        Self { code: code.to_owned(), place, expected, found }
    }
}

/// Answer to `GET /api/v1/epochs/{n}/verify`: the epoch computed again from its orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCheck {
    /// Which.
    pub epoch: u64,
    /// Orders read.
    pub orders: u32,
    /// Where the journaled root and result differ from what the orders give: none if the
    /// epoch is what it says. At most 32.
    pub differences: Vec<EpochDifference>,
    /// Differences beyond these.
    pub more_differences: u32,
    /// Roots seen that equal this node's.
    pub roots_equal: u32,
    /// Roots seen that differ.
    pub roots_different: u32,
}
