use serde::{Deserialize, Serialize};

use super::{Reason, RedeemBody, SlotDepth, SlotRange};

/// Buy or sell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Buy,
    Sell,
}

/// How the units of a bid may be spread over providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each unit stays with one provider for the whole run.
    #[default]
    Sticky,
    /// All units with one provider.
    Gang,
}

/// How long an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeInForce {
    /// Until filled or cancelled.
    #[default]
    Gtc,
    /// Until `expires_at`.
    Gtt,
    Ioc,
    /// One epoch, all or nothing.
    Fok,
}

/// A class that an order accepts, with its limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassLimit {
    pub class: String,
    /// Worst acceptable price, msat per block.
    pub limit_msat: u64,
}

/// Body of `POST /api/v1/orders`: keep an order in the market.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder {
    pub side: Side,
    /// Classes and limits in order of preference, 1 to 4 (an ask: 1).
    pub alternatives: Vec<ClassLimit>,
    /// Blocks per slot, 1 to 10,000; left out with `all_spare`.
    #[serde(default)]
    pub qty: u32,
    /// Sell whatever no other order of this node offers, as it becomes free, in place of a number
    /// of units.
    #[serde(default)]
    pub all_spare: bool,
    /// Smallest acceptable fill, 1 to `qty`.
    #[serde(default = "one")]
    pub min_qty: u32,
    /// Spread over providers.
    #[serde(default)]
    pub mode: Mode,
    /// When the blocks may be delivered, slots.
    pub window: SlotRange,
    /// Consecutive slots that a bid needs, 1 to 168; 0 for an ask.
    #[serde(default)]
    pub slots: u16,
    /// Names of required (bid) or offered (ask) features.
    #[serde(default)]
    pub features: Vec<String>,
    /// Only these counterparties.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Never these counterparties.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Shortest run that an ask accepts, slots; 0 for a bid, where 0 stands for 1 in an ask.
    #[serde(default)]
    pub min_run: u16,
    /// How long it stands.
    #[serde(default)]
    pub time_in_force: TimeInForce,
    /// End of a `gtt` order, unix ms.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// Key that shall hold what is bought, if not this node.
    #[serde(default)]
    pub beneficiary: Option<String>,
    /// First slot in which that key can redeem no more; null for the end of what is bought.
    #[serde(default)]
    pub use_by: Option<u32>,
    /// Whether this node may take what is bought back from that key, until its first slot begins.
    #[serde(default)]
    pub recall: bool,
    /// Most that the fees of one trade may come to, sat. Above it the order is not signed.
    #[serde(default)]
    pub max_fee_sat: Option<u64>,
    /// Most that they may come to, percent of what the trade is worth at the limit; the
    /// configuration's `max_fee_share` if there is none.
    #[serde(default)]
    pub max_fee_percent: Option<u8>,
    /// The held certificate that an ask sells, as its id or a unique prefix: `qty` of its units, in
    /// `window` of its slots. Else it sells capacity of this host.
    #[serde(default)]
    pub cert_id: Option<String>,
    /// What a bid runs by itself on the certificates that it brings, from the first second of their
    /// windows, unless they are given, sold, cut or redeemed before. Without `env_sealed`, and not
    /// with `beneficiary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Box<RedeemBody>>,
}

fn one() -> u32 {
    1
}

/// Answer to `POST /api/v1/orders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub order_id: String,
}

/// Answer to `POST /api/v1/orders/preview`: total, fees and worst case of an order, and why it
/// would be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    pub side: Side,
    /// Class of the first alternative.
    pub class: String,
    /// Blocks per slot.
    pub qty: u32,
    /// When, slots.
    pub window: SlotRange,
    /// Start of the window, unix ms.
    pub starts_at: u64,
    /// End of the window, unix ms.
    pub ends_at: u64,
    /// Paid at most (buy) or earned at least if everything is sold (sell), sat.
    pub total_sat: u64,
    /// Fees of one trade at the present fee rate, sat.
    pub fee_sat: u64,
    /// Most that can be lost: a bid's total with the fees of as many trades as it may be
    /// filled by, refunds included; an ask's claims. Sat.
    pub worst_case_sat: u64,
    /// Most that the fees of a trade that fills all of it may come to, refund included: above
    /// that it is not signed, sat.
    pub max_fee_sat: u64,
    /// Why it would be refused now, by the rules by which it is placed and signed, and what
    /// else to know before saying yes.
    pub warnings: Vec<Reason>,
}

/// One signed appearance of a standing order in an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOrder {
    pub epoch: u64,
    /// Object id in that epoch: what rows and books name.
    pub id: String,
    pub qty: u32,
}

/// A standing order of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub order_id: String,
    /// When it was placed, unix ms.
    pub placed_at: u64,
    pub side: Side,
    /// Class of the first alternative.
    pub class: String,
    /// Limit of the first alternative, msat per block.
    pub limit_msat: u64,
    pub alternatives: Vec<ClassLimit>,
    pub qty: u32,
    /// Whether it sells whatever is spare: then `qty` is what that was at the last.
    #[serde(default)]
    pub all_spare: bool,
    /// Blocks per slot matched so far.
    pub filled_qty: u32,
    pub min_qty: u32,
    pub mode: Mode,
    pub window: SlotRange,
    /// Consecutive slots of a bid; 0 for an ask.
    pub slots: u16,
    pub features: Vec<String>,
    pub time_in_force: TimeInForce,
    /// End of a `gtt` order, unix ms.
    pub expires_at: Option<u64>,
    /// Holder of what is bought, if not this node.
    pub beneficiary: Option<String>,
    /// First slot in which that holder can redeem no more.
    pub use_by: Option<u32>,
    /// Whether this node may take what is bought back from that holder.
    #[serde(default)]
    pub recall: bool,
    /// Most that the fees of one trade may come to, sat.
    pub max_fee_sat: Option<u64>,
    /// Most that they may come to, percent of what the trade is worth at the limit.
    pub max_fee_percent: u8,
    /// The certificate that an ask sells, or sells a part of.
    #[serde(default)]
    pub cert_id: Option<String>,
    /// Certificates that it offers now: that one, or what is left of it.
    #[serde(default)]
    pub offers: Vec<String>,
    /// What runs by itself on what a bid brings: `wasm`, `oci` or `rootfs`.
    #[serde(default)]
    pub workload: Option<String>,
    /// `standing`, `filled`, `cancelled`, `expired` or `refused`.
    pub state: String,
    /// Reason code of the end, or of why it was not signed for the last epoch.
    pub code: Option<String>,
    /// Latest appearances, newest first, at most 16.
    pub signed: Vec<SignedOrder>,
}

/// An order of anyone in the book of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookOrder {
    pub id: String,
    pub owner: String,
    /// Limit for this class, msat per block.
    pub limit_msat: u64,
    pub qty: u32,
    pub min_qty: u32,
    pub window: SlotRange,
    /// Consecutive slots of a bid; 0 for an ask.
    pub slots: u16,
    /// Whether this node signed it.
    pub own: bool,
}

/// Price of a class in a slot of the last computed epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPrice {
    pub class: String,
    pub slot: u32,
    /// Uniform price, msat per block.
    pub price_msat: u64,
}

/// Answer to `GET /api/v1/book`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Epoch whose orders these are.
    pub epoch: u64,
    pub class: String,
    /// First slot that this epoch can trade.
    pub first_slot: u32,
    pub bids: Vec<BookOrder>,
    pub asks: Vec<BookOrder>,
    pub prices: Vec<SlotPrice>,
    /// Units by slot and price.
    #[serde(default)]
    pub depth: Vec<SlotDepth>,
}
