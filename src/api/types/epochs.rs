use serde::{Deserialize, Serialize};

use super::{SlotPrice, SlotRange};

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

/// Answer to `GET /api/v1/epochs/{n}/verify`: the epoch computed again from its orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCheck {
    /// Which.
    pub epoch: u64,
    /// Orders read.
    pub orders: u32,
    /// Every signature and proof of work is good.
    pub orders_ok: bool,
    /// The root is that of the orders.
    pub root_ok: bool,
    /// Matching the orders again gives the journaled result.
    pub result_ok: bool,
    /// Roots seen that equal this node's.
    pub roots_equal: u32,
    /// Roots seen that differ.
    pub roots_different: u32,
}
