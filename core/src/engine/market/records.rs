//! What the market keeps on disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Rectangle;
use super::offers::Offer;
use super::spec::{OrderSpec, TimeInForce};
use super::standing::{Standing, StandingState};
use crate::certificate::objects::Area;
use crate::engine::kernel::{Stored, Table, decode_shorter};
use crate::epoch::parts::{ResultHead, ResultPart};
use crate::ids::{CertId, Key, OrderId, PoolId, StandingId, TradeId};
use crate::order::{Alternative, Mode, Side};
use crate::settlement::fees::FeeLimit;
use crate::units::{Slot, TimeMs, Units, Window};
use crate::wire::{Envelope, WireError};

/// A standing order; its key is the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingV1 {
    side: Side,
    alts: Vec<Alternative>,
    qty: u32,
    min_qty: u32,
    mode: Mode,
    window: Window,
    slots: u16,
    features: u64,
    allow: Vec<Key>,
    deny: Vec<Key>,
    min_run: u16,
    time_in_force: TimeInForce,
    beneficiary: Option<Key>,
    use_by: Option<Slot>,
    pool: Option<PoolId>,
    fees: FeeLimit,
    cert: Option<CertId>,
    is_spare: bool,
    state: StandingState,
    placed_at_ms: TimeMs,
    filled: u32,
    matched: BTreeMap<TradeId, u32>,
    units: Option<Units>,
    offers: Vec<Offer>,
    parts: BTreeMap<TradeId, Area>,
    last_epoch: Option<u64>,
    last_order: Option<OrderId>,
    note: Option<String>,
    is_recallable: bool,
}

impl Stored for StandingV1 {
    const TABLE: Table = Table::Standing;
    const VERSION: u8 = 2;

    fn from_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_shorter(body, &false))
    }
}

impl From<&Standing> for StandingV1 {
    fn from(standing: &Standing) -> Self {
        let spec = standing.spec.clone();
        Self {
            side: spec.side,
            alts: spec.alts,
            qty: spec.qty,
            min_qty: spec.min_qty,
            mode: spec.mode,
            window: spec.window,
            slots: spec.slots,
            features: spec.features,
            allow: spec.allow,
            deny: spec.deny,
            min_run: spec.min_run,
            time_in_force: spec.time_in_force,
            beneficiary: spec.beneficiary,
            use_by: spec.use_by,
            pool: spec.pool,
            fees: spec.fees,
            cert: spec.cert,
            is_spare: spec.is_spare,
            state: standing.state,
            placed_at_ms: standing.placed_at_ms,
            filled: standing.filled,
            matched: standing.matched.clone(),
            units: standing.units.clone(),
            offers: standing.offers.clone(),
            parts: standing.parts.clone(),
            last_epoch: standing.last_epoch,
            last_order: standing.last_order,
            note: standing.note.clone(),
            is_recallable: spec.is_recallable,
        }
    }
}

impl StandingV1 {
    /// The standing order that was kept under this id.
    pub(super) fn with_id(self, id: StandingId) -> Standing {
        let spec = OrderSpec {
            side: self.side,
            alts: self.alts,
            qty: self.qty,
            min_qty: self.min_qty,
            mode: self.mode,
            window: self.window,
            slots: self.slots,
            features: self.features,
            allow: self.allow,
            deny: self.deny,
            min_run: self.min_run,
            time_in_force: self.time_in_force,
            beneficiary: self.beneficiary,
            use_by: self.use_by,
            is_recallable: self.is_recallable,
            pool: self.pool,
            fees: self.fees,
            cert: self.cert,
            is_spare: self.is_spare,
        };
        Standing {
            id,
            spec,
            state: self.state,
            placed_at_ms: self.placed_at_ms,
            filled: self.filled,
            matched: self.matched,
            units: self.units,
            offers: self.offers,
            parts: self.parts,
            last_epoch: self.last_epoch,
            last_order: self.last_order,
            note: self.note,
        }
    }
}

/// A signed order of this node, and what it promises; its key is epoch and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderV1 {
    pub envelope: Envelope,
    pub(super) standing: StandingId,
    /// What an ask stands for.
    pub(super) rectangle: Option<Rectangle>,
    /// What a bid may cost.
    pub(super) reserved_sat: u64,
}

impl Stored for OrderV1 {
    const TABLE: Table = Table::Order;
}

/// Records that belong to an epoch beside its head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    pub orders: u32,
    pub result: u32,
}

/// A computed epoch: what its result says of itself, and its parts; its key is the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochV1 {
    /// What the result says of itself.
    pub head: ResultHead,
    pub parts: Parts,
}

impl Stored for EpochV1 {
    const TABLE: Table = Table::Epoch;
}

/// An epoch that ended: what stands on disk of its orders until it is computed; its key is the
/// epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenV1 {
    /// Orders, those of this node included.
    pub(super) count: u32,
    /// Records with orders of others.
    pub(super) parts: u32,
    /// Other traders whose roots had been heard.
    pub(super) operators: u32,
}

impl Stored for FrozenV1 {
    const TABLE: Table = Table::Frozen;
}

/// Some orders of an epoch that ended as they were received, ascending by id, without those of
/// this node; its key is epoch and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersV1(pub Vec<Envelope>);

impl Stored for OrdersV1 {
    const TABLE: Table = Table::EpochOrders;
}

/// Some rows and prices of a result; its key is epoch and number.
impl Stored for ResultPart {
    const TABLE: Table = Table::EpochPart;
}
