use serde::{Deserialize, Serialize};

use super::{Side, SlotRange};

/// A trade of this node: a row of an epoch's result and its settlement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trade {
    pub trade_id: String,
    pub epoch: u64,
    /// This node's side.
    pub side: Side,
    pub class: String,
    pub window: SlotRange,
    pub qty: u32,
    /// Total price, msat.
    pub price_msat: u64,
    /// Total price, sat: msat rounded down.
    pub price_sat: u64,
    /// Key of the bid's owner.
    pub buyer: String,
    /// Key of the ask's owner.
    pub seller: String,
    pub buy_order: String,
    pub sell_order: String,
    /// Certificate sold, once Terms exist.
    pub cert_id: Option<String>,
    /// State of the settlement, or `void`.
    pub state: String,
    /// Reason code of a trade that came to nothing.
    pub code: Option<String>,
    /// Terms and transactions, once Terms exist.
    pub settlement: Option<Settlement>,
}

/// The contract of a trade and what happened to it on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub terms_hash: String,
    /// Address of the contract (of the first funder).
    pub address: String,
    /// Transaction that pays the contract.
    pub fund: Option<ChainTx>,
    /// Seller's spend, which reveals the preimage.
    pub claim: Option<ChainTx>,
    /// Buyer's spend after the timelock.
    pub refund: Option<ChainTx>,
    /// The preimage, once revealed.
    pub preimage: Option<String>,
    /// State of this side's machine, as `settled` or `refunded`.
    pub state: String,
}

/// A transaction of a settlement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainTx {
    /// Its id, in the order in which explorers print it.
    pub txid: String,
    /// Height of its block; null while it waits.
    pub height: Option<u32>,
    /// Virtual size, vB.
    pub vsize: u64,
    /// Fee, sat; null where its inputs are not known here.
    pub fee_sat: Option<u64>,
}
