//! What a member of a pool keeps of it; the key of the record is the pool's id.

use serde::{Deserialize, Serialize};

use super::objects::Pool;
use crate::engine::kernel::{Stored, Table};
use crate::ids::{Key, StandingId, TradeId};
use crate::settlement::fees::FeeLimit;
use crate::wire::Envelope;

/// A pool of which this node is a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolV1 {
    /// As its creator signed it.
    pub(super) signed: Envelope,
    pub(super) pool: Pool,
    /// What this node pledged, sat.
    pub(super) share_sat: u64,
    /// Coins kept for the pledge and its fee, sat.
    pub(super) reserved_sat: u64,
    pub(super) fees: FeeLimit,
    pub(super) part: Part,
    pub(super) stage: Stage,
}

impl Stored for PoolV1 {
    const TABLE: Table = Table::Pool;
}

/// What this node is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    /// The creator, who pledges first, with those who joined in their order.
    Creator { others: Vec<Member> },
    Member {
        /// Index of the single-use refund key.
        key_index: u64,
        /// Who pledged how much when the creator last told.
        told: Vec<(Key, u64)>,
    },
}

/// One who joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) key: Key,
    pub(super) share_sat: u64,
    /// Single-use refund key of its contract, x-only.
    pub(super) refund_xonly: [u8; 32],
}

/// How far a pool has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Pledges are missing; to a member, who does not know, also while the creator bids.
    Gathering,
    /// The creator bids.
    Bidding(StandingId),
    /// The bid was matched. Once somebody has been asked to sign, the pool ends with the trade.
    Settling {
        trade: TradeId,
        standing: Option<StandingId>,
        is_asked: bool,
    },
    Bought(TradeId),
    Ended {
        code: String,
        trade: Option<TradeId>,
    },
}

impl Stage {
    /// Name for people and JSON.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Gathering => "gathering",
            Self::Bidding(_) => "bidding",
            Self::Settling { .. } => "settling",
            Self::Bought(_) => "bought",
            Self::Ended { .. } => "ended",
        }
    }

    /// Why it ended.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Ended { code, .. } => Some(code),
            Self::Gathering | Self::Bidding(_) | Self::Settling { .. } | Self::Bought(_) => None,
        }
    }

    pub(super) fn trade(&self) -> Option<TradeId> {
        match self {
            Self::Gathering | Self::Bidding(_) => None,
            Self::Settling { trade, .. } | Self::Bought(trade) => Some(*trade),
            Self::Ended { trade, .. } => *trade,
        }
    }

    /// Whether the pledge is still to be paid, and no trade has taken its place.
    pub(super) fn is_pledged(&self) -> bool {
        matches!(self, Self::Gathering | Self::Bidding(_))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Bought(_) | Self::Ended { .. })
    }
}

impl PoolV1 {
    /// Pledges known here, sat, the creator's first.
    pub(super) fn pledges(&self) -> Vec<(Key, u64)> {
        match &self.part {
            Part::Creator { others } => {
                let joined = others.iter().map(|member| (member.key, member.share_sat));
                [(self.pool.creator, self.share_sat)].into_iter().chain(joined).collect()
            }
            Part::Member { told, .. } => told.clone(),
        }
    }

    /// What of the price nobody has pledged yet, as far as is known here, sat.
    pub(super) fn missing_sat(&self) -> u64 {
        let pledged = self.pledges().iter().fold(0_u64, |sum, (_, one)| sum.saturating_add(*one));
        self.pool.price_sat().saturating_sub(pledged)
    }
}
