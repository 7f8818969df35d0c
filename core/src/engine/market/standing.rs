//! A standing order: the instruction that this node keeps re-signing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::offers::Offer;
use super::spec::{OrderSpec, TimeInForce};
use crate::certificate::objects::Area;
use crate::ids::{OrderId, StandingId, TradeId};
use crate::units::{Slot, TimeMs, Units};

/// Where a standing order is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StandingState {
    Open,
    Filled,
    Cancelled,
    /// Its time or window passed.
    Expired,
}

impl StandingState {
    /// Name for people and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Filled => "filled",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// A standing order with what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub id: StandingId,
    pub spec: OrderSpec,
    pub state: StandingState,
    /// Unix ms.
    pub placed_at_ms: TimeMs,
    /// Blocks per slot that were settled.
    pub filled: u32,
    /// Blocks per slot that were matched and are being settled.
    pub matched: BTreeMap<TradeId, u32>,
    /// Of own capacity.
    pub units: Option<Units>,
    /// Certificates of which it sells something.
    pub offers: Vec<Offer>,
    /// What of them the matched rows take.
    pub parts: BTreeMap<TradeId, Area>,
    /// Last epoch that it was signed for.
    pub last_epoch: Option<u64>,
    pub last_order: Option<OrderId>,
    /// Why it was not signed last time: reason code.
    pub note: Option<String>,
}

impl Standing {
    /// A new one.
    #[must_use]
    pub fn new(id: StandingId, spec: OrderSpec, units: Option<Units>, now_ms: TimeMs) -> Self {
        Self {
            id,
            spec,
            state: StandingState::Open,
            placed_at_ms: now_ms,
            filled: 0,
            matched: BTreeMap::new(),
            units,
            offers: Vec::new(),
            parts: BTreeMap::new(),
            last_epoch: None,
            last_order: None,
            note: None,
        }
    }

    /// Whether it is still signed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == StandingState::Open
    }

    /// Blocks per slot of a bid that are neither settled nor being settled.
    #[must_use]
    pub fn remainder(&self) -> u32 {
        let matched: u32 = self.matched.values().fold(0, |sum, qty| sum.saturating_add(*qty));
        self.spec.qty.saturating_sub(self.filled).saturating_sub(matched)
    }

    /// Whether it lives for one epoch.
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        matches!(self.spec.time_in_force, TimeInForce::ImmediateOrCancel | TimeInForce::FillOrKill)
    }

    /// Whether its time or window has passed.
    #[must_use]
    pub fn is_past(&self, now_ms: TimeMs, first_slot: Slot) -> bool {
        let needed = u32::from(self.spec.slots).max(1);
        let too_late = self.spec.window.end < first_slot.saturating_add(needed);
        let timed_out =
            matches!(self.spec.time_in_force, TimeInForce::GoodTillTime(until) if now_ms >= until);
        too_late || timed_out
    }
}
