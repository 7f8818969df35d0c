//! Why an order matched or did not, and what one would get.

use serde::{Deserialize, Serialize};

use super::{ClassLimit, Reason, Side, SlotPrice, SlotRange};

/// A value of one side in a comparison that failed. Exactly one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Takes part in the epoch; otherwise the reason code stands in `code`.
    Live(bool),
    /// Reason code of an order that takes no part.
    Code(String),
    Classes(Vec<String>),
    /// Deliverable window and slots in a row.
    Run {
        window: SlotRange,
        /// Slots in a row: the run of a bid, the shortest run of an ask.
        slots: u32,
    },
    Key(String),
    Features(Vec<String>),
    Slots(u32),
    /// Limit, msat per block.
    LimitMsat(u64),
    /// Price of one unit over the whole run, msat.
    RunMsat(u64),
    Qty(u64),
    Asks(u64),
}

/// An accepted trade that stood in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedTrade {
    pub buy: String,
    pub sell: String,
    pub class: String,
    pub window: SlotRange,
    pub qty: u32,
    /// Total price, msat.
    pub price_msat: u64,
}

/// A trade of the order itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// Object id of the row; none in a quote.
    pub trade_id: Option<String>,
    /// Object id of the counter-order.
    pub order: String,
    /// Its owner: the provider of a bid, unless it resells.
    pub counterparty: String,
    /// Who delivers, where a holder resells.
    #[serde(default)]
    pub provider: Option<String>,
    pub class: String,
    pub window: SlotRange,
    pub qty: u32,
    /// Total price, msat.
    pub price_msat: u64,
    /// Total price, sat.
    pub price_sat: u64,
    /// Why the trade does not bind, if so.
    pub code: Option<String>,
}

/// One step of the funnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunnelStep {
    /// Reason code of whoever fails here.
    pub code: String,
    pub rule: String,
    /// Counter-orders that passed all before.
    pub tried: u32,
    /// Those of them that passed.
    pub passed: u32,
}

/// An order of the other side, with what kept it from trading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterOrder {
    pub id: String,
    pub owner: String,
    /// Who delivers, where its owner resells.
    #[serde(default)]
    pub provider: Option<String>,
    /// Limit for the class in common, or its first, msat per block.
    pub limit_msat: u64,
    pub qty: u32,
    pub window: SlotRange,
    pub traded_qty: u32,
    /// Reason code of the first constraint that failed; none if it traded.
    pub code: Option<String>,
    /// The order's own value there.
    pub own: Option<Fact>,
    /// The counter-order's value there.
    pub theirs: Option<Fact>,
    /// Accepted trades that made the promise or took the units, at most 4.
    pub because: Vec<AcceptedTrade>,
}

/// The limit at which an order begins to match, found by matching the book again: with it
/// the order gets units, with the next worse one it gets none. All other orders, and its
/// other alternatives, unchanged. Of a bid, 1 also stands for "at any limit". With a `code`
/// all this holds by version 1 of the rules, while the network's version was not seen to
/// agree: an indication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BestLimit {
    pub class: String,
    /// Lowest limit of a bid, highest of an ask, msat per block; none if no price matches.
    pub limit_msat: Option<u64>,
    pub qty: u32,
    /// Their total price there, msat.
    pub price_msat: u64,
    /// `explain.limit_not_confirmed` if it is an indication.
    pub code: Option<String>,
}

/// In the money at the published prices over a run that was offered, and refused all the same
/// (docs/matching.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paradox {
    pub class: String,
    /// The run with the largest gain forgone, slots.
    pub window: SlotRange,
    /// The order's limit for one unit over the run, msat.
    pub limit_msat: u64,
    /// Published price of one unit over the run, msat.
    pub market_msat: u64,
    /// Reason code of what stood against the nearest counter-order that offered the run.
    pub code: String,
    /// Accepted trades that stood against it, at most 4.
    pub because: Vec<AcceptedTrade>,
}

/// Answer to `GET /api/v1/orders/{id}/explain`: why an order matched, or did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Epoch in which it took part.
    pub epoch: u64,
    /// Object id in that epoch; `quote` in a quote.
    pub id: String,
    /// The standing order of this node that it came from.
    pub order_id: Option<String>,
    pub owner: String,
    /// Who delivers, of an ask that resells.
    #[serde(default)]
    pub provider: Option<String>,
    pub side: Side,
    pub alternatives: Vec<ClassLimit>,
    pub qty: u32,
    pub min_qty: u32,
    pub window: SlotRange,
    /// Consecutive slots of a bid; 0 for an ask.
    pub slots: u16,
    /// `matched`, `partly`, `unmatched` or `dropped`.
    pub state: String,
    /// Why it got nothing: of a dropped order its own reason, else that of the nearest
    /// counter-order, or `explain.no_counter_orders`.
    pub code: Option<String>,
    pub fills: Vec<Fill>,
    /// How many counter-orders pass each constraint, in the order in which they are tried.
    pub funnel: Vec<FunnelStep>,
    pub counter_orders: u32,
    /// Those nearest to a trade, nearest first, at most 16.
    pub nearest: Vec<CounterOrder>,
    /// Where it begins to match, for each alternative; for a matched one, of its class.
    pub best_limits: Vec<BestLimit>,
    /// Why `best_limits` is empty, if it is.
    pub best_limits_code: Option<String>,
    /// Whether it was paradoxically rejected.
    pub paradox: Option<Paradox>,
}

/// Answer to `POST /api/v1/quote`: what an order would get in the open book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Always `indication`: nobody is bound by it, and nothing is reserved.
    pub binding: String,
    /// What it rests on and what can still change.
    pub reason: Reason,
    /// Epoch whose orders were matched.
    pub book_epoch: u64,
    /// Orders matched, this one aside.
    pub orders: u32,
    pub epoch: u64,
    /// Its phase: `open`, `freeze` or `root`.
    pub phase: String,
    /// First epoch for which an order placed now could be signed.
    pub joins_epoch: u64,
    /// End of the open epoch, unix ms: then its book is gone.
    pub expires_at: u64,
    pub side: Side,
    pub qty: u32,
    /// Units in trades that would bind; of an ask, units times slots of them.
    pub filled_qty: u32,
    pub fills: Vec<Fill>,
    /// Uniform prices of their slots.
    pub prices: Vec<SlotPrice>,
    /// Price of the trades that would bind, sat.
    pub price_sat: u64,
    /// Chain fees of this side for them at the present fee rate, sat: one funding each for a
    /// buyer, one claim each for a seller.
    pub fee_sat: u64,
    /// Price with fees: paid by a buyer, left to a seller. Sat.
    pub total_sat: u64,
    /// Chain fees if every trade has to be refunded (a buyer) or claimed (a seller), sat.
    pub worst_fee_sat: u64,
    /// Why, if it would not get all.
    pub explanation: Option<Explanation>,
}

/// Units at one price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Limit, msat per block.
    pub limit_msat: u64,
    pub qty: u64,
    /// Units at this limit and better ones.
    pub cumulative_qty: u64,
}

/// Depth of a class over slots in which it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotDepth {
    pub window: SlotRange,
    /// Lowest ask, msat per block.
    pub best_ask_msat: Option<u64>,
    pub ask_qty: u64,
    pub ask_total_qty: u64,
    /// Highest bid, msat per block.
    pub best_bid_msat: Option<u64>,
    pub bid_qty: u64,
    /// Units of all bids; a bid counts in every slot of its window.
    pub bid_total_qty: u64,
    /// Best asks first, at most 5 prices.
    pub asks: Vec<Level>,
    /// Best bids first, at most 5 prices.
    pub bids: Vec<Level>,
    /// Last clearing price of the slots, msat per block.
    pub last_price_msat: Option<u64>,
}

/// Depth of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassDepth {
    pub class: String,
    pub slots: Vec<SlotDepth>,
}

/// Answer to `GET /api/v1/depth`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depth {
    /// When this was so, unix ms.
    pub at: u64,
    /// Epoch whose orders these are.
    pub epoch: u64,
    /// Phase of the open epoch: `open`, `freeze` or `root`.
    pub phase: String,
    /// End of the open epoch, unix ms.
    pub epoch_ends_at: u64,
    /// Orders in the book, of all classes.
    pub orders: u32,
    /// Classes with orders, by number.
    pub classes: Vec<ClassDepth>,
}
