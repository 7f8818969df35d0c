use serde::{Deserialize, Serialize};

use super::SlotRange;

/// Body of `POST /api/v1/pools`: what several are to pay for together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePool {
    /// Key that shall hold what is bought.
    pub holder: String,
    pub class: String,
    /// Names of required features.
    #[serde(default)]
    pub features: Vec<String>,
    /// Blocks per slot, all at one provider.
    pub qty: u32,
    /// When the blocks may be delivered, slots.
    pub window: SlotRange,
    /// Consecutive slots that are needed.
    pub slots: u16,
    /// Highest price, msat per block.
    pub limit_msat: u64,
    /// Until when it gathers pledges and bids, unix ms.
    pub expires_at: u64,
    /// Who may pledge, at most 7 keys; without any, whoever has the invitation.
    #[serde(default)]
    pub invited: Vec<String>,
    /// Whether all pay by one transaction, so that it costs nobody anything if one does not; else
    /// each pays by its own.
    #[serde(default = "all_or_nothing")]
    pub all_or_nothing: bool,
    /// What this node pledges, sat.
    pub share_sat: u64,
    /// Most that the fees of this node's share may come to, sat.
    #[serde(default)]
    pub max_fee_sat: Option<u64>,
}

/// What people expect of a pool.
fn all_or_nothing() -> bool {
    true
}

/// Body of `POST /api/v1/pools/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinPool {
    /// The line of text that the creator's node wrote.
    pub invitation: String,
    /// What this node pledges, sat.
    pub share_sat: u64,
    /// Most that the fees of this node's share may come to, sat.
    #[serde(default)]
    pub max_fee_sat: Option<u64>,
}

/// Who pledged how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pledge {
    pub key: String,
    pub share_sat: u64,
}

/// A pool of which this node is a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub pool_id: String,
    /// One line of text: whoever has it may join, if nobody is named.
    pub invitation: String,
    /// Key of its creator.
    pub creator: String,
    /// Key that shall hold what is bought.
    pub holder: String,
    pub class: String,
    pub features: Vec<String>,
    /// Blocks per slot.
    pub qty: u32,
    pub window: SlotRange,
    /// Consecutive slots.
    pub slots: u16,
    /// Highest price, msat per block.
    pub limit_msat: u64,
    /// Highest price of the whole, sat: what the pledges have to make up.
    pub price_sat: u64,
    /// Until when it gathers pledges and bids, unix ms.
    pub expires_at: u64,
    /// Keys that alone may pledge, if any.
    pub invited: Vec<String>,
    /// Whether all pay by one transaction, or each by its own.
    pub all_or_nothing: bool,
    /// What this node pledged, sat.
    pub share_sat: u64,
    /// Pledges known here, the creator's first.
    pub pledges: Vec<Pledge>,
    /// What nobody has pledged yet, as far as is known here, sat.
    pub missing_sat: u64,
    /// `gathering`, `bidding`, `settling`, `bought` or `ended`.
    pub stage: String,
    /// Reason code of its end.
    pub code: Option<String>,
    /// The trade that this node pays a part of.
    pub trade_id: Option<String>,
}
