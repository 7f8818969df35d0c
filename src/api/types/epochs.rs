use serde::{Deserialize, Serialize};

use super::{SlotPrice, SlotRange};
use capex_core::epoch::audit::Difference;

/// A row of an epoch's result, anyone's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRow {
    pub trade_id: String,
    pub buy: String,
    pub sell: String,
    pub class: String,
    pub window: SlotRange,
    pub qty: u32,
    /// Total price, msat.
    pub price_msat: u64,
}

/// Root that a node signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRoot {
    pub key: String,
    /// Tree hash over the ids of all valid orders.
    pub root: String,
    pub count: u32,
}

/// A computed epoch in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochHead {
    pub epoch: u64,
    /// Orders known here.
    pub count: u32,
    /// Rows of its result, anyone's.
    pub rows: u32,
    /// Tree hash over the ids of all valid orders known here.
    pub root: String,
    pub result_root: String,
}

/// A computed epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    pub epoch: u64,
    /// First slot that it could trade.
    pub first_slot: u32,
    /// Tree hash over the ids of all valid orders known here.
    pub root: String,
    pub count: u32,
    pub result_root: String,
    pub rows: Vec<EpochRow>,
    pub prices: Vec<SlotPrice>,
    pub roots: Vec<SeenRoot>,
    /// Whether every root seen is the one of this node.
    pub agreed: bool,
}

/// One place where an epoch differs from what its orders give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochDifference {
    pub code: String,
    /// Which order, row or price, or which field of the epoch.
    pub place: String,
    /// What follows from the orders and the network definition.
    pub expected: String,
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
    pub epoch: u64,
    pub orders: u32,
    /// Where the journaled root and result differ from what the orders give: none if the
    /// epoch is what it says. At most 32.
    pub differences: Vec<EpochDifference>,
    pub more_differences: u32,
    /// Roots seen that equal this node's.
    pub roots_equal: u32,
    pub roots_different: u32,
}
