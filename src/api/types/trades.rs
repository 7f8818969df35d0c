use serde::{Deserialize, Serialize};

use super::{Reason, Side, SlotRange};

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
    /// Key that holds what is sold, once Terms or the own order name it.
    pub holder: Option<String>,
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
    /// What has happened, in its order.
    pub timeline: Vec<TradeStep>,
    /// What happens next, for people.
    pub next: String,
    /// By when something happens by itself; null once the trade has ended.
    pub due: Option<TradeDue>,
    /// The most that this node can lose until then if others do their worst and it goes on
    /// running, sat.
    pub at_risk_sat: u64,
    /// Units that hang on it: to a buyer those paid for, to a seller those kept for the sale.
    pub at_risk_units: u32,
    /// Fees of this node so far, sat; null if another transaction of its wallet replaced the
    /// funding, whose fee stands in the history of the wallet.
    pub fees_sat: Option<u64>,
    /// Why the last broadcast failed, in the words of the chain source.
    pub trouble: Option<String>,
    /// Why somebody should look at it; null if it goes on by itself.
    pub stuck: Option<Reason>,
    /// What a person can do about that.
    pub advice: Option<String>,
}

/// Something that happened in a trade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TradeStep {
    /// `opened`, `terms`, `locked`, `fund`, `replacement`, `claim`, `key_spend`, `refund` or
    /// `activated`.
    pub what: String,
    /// Unix ms, where this node noted the time.
    pub at: Option<u64>,
    /// Chain height, where it is known; null while a transaction waits.
    pub height: Option<u32>,
    pub tx: Option<ChainTx>,
}

/// By when something happens in a trade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TradeDue {
    /// Stable name of what is due, as `refund` or `activation`.
    pub kind: String,
    /// Chain height; null where a time decides.
    pub height: Option<u32>,
    /// That time, or about when the chain will have that height, unix ms.
    pub expected_at: u64,
    /// The same from now on, minutes rounded up; 0 once it has passed.
    pub minutes_left: u64,
    /// What happens then if nothing else has come before, for people.
    pub then: String,
}

/// The contract of a trade and what happened to it on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub terms_hash: String,
    /// Address of the contract (of the first funder).
    pub address: String,
    /// Transaction that pays the contract.
    pub fund: Option<ChainTx>,
    /// Seller's spend: by script, which reveals the preimage, or with the buyer's key.
    pub claim: Option<ChainTx>,
    /// Whether that is spent with both keys, like any other payment.
    pub by_key: bool,
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
