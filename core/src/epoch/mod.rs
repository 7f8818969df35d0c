//! An epoch: its phases, the vote on its order set, and its result, computed once.

pub mod audit;
pub mod parts;
pub mod signed;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::book::{OrderSet, instance};
use super::ids::{Key, OrderId, TradeId, from_hex, to_hex};
use super::matching;
use super::settlement::objects::Row;
use super::units::{Slot, TimeMs};
use crate::params::Params;
use crate::wire::{Object, VERSION, encode, object_id, sha256};

/// The epoch of a time.
#[must_use]
pub fn epoch_at(now_ms: TimeMs, params: &Params) -> u64 {
    now_ms / params.epoch_ms()
}

/// First millisecond of an epoch.
#[must_use]
pub fn opens_at_ms(epoch: u64, params: &Params) -> TimeMs {
    epoch.saturating_mul(params.epoch_ms())
}

/// When roots of an epoch are signed, unix ms.
#[must_use]
pub fn root_at_ms(epoch: u64, params: &Params) -> TimeMs {
    opens_at_ms(epoch, params) + params.epoch.open_ms + params.epoch.freeze_ms
}

/// When the result of an epoch is computed, unix ms: the end of its ROOT phase.
#[must_use]
pub fn computed_at_ms(epoch: u64, params: &Params) -> TimeMs {
    opens_at_ms(epoch.saturating_add(1), params)
}

/// Phase of the epoch that a time lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Orders are gossiped.
    Open,
    /// Orders are only reconciled.
    Freeze,
    /// Roots are signed and compared.
    Root,
}

impl Phase {
    /// The phase at a time.
    #[must_use]
    pub fn at(now_ms: TimeMs, params: &Params) -> Self {
        let offset = now_ms % params.epoch_ms();
        if offset < params.epoch.open_ms {
            Self::Open
        } else if offset < params.epoch.open_ms + params.epoch.freeze_ms {
            Self::Freeze
        } else {
            Self::Root
        }
    }

    /// Name for people and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Freeze => "freeze",
            Self::Root => "root",
        }
    }
}

/// A node's view of an epoch's order set. Diagnoses, decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Version.
    pub v: u8,
    /// Which epoch.
    pub epoch: u64,
    /// Tree hash over the sorted ids.
    pub root: [u8; 32],
    /// How many orders.
    pub count: u32,
}

impl Object for Root {
    const NAME: &'static str = "root";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// A row of a result with who is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRow {
    /// The row.
    pub row: Row,
    /// Its object id.
    pub trade: TradeId,
    /// Owner of the bid.
    pub buyer: Key,
    /// Owner of the ask.
    pub seller: Key,
    /// Why it does not bind, if so: reason code.
    pub void: Option<String>,
}

/// Price of one class and slot.
pub type SlotPrice = (u16, Slot, u64);

/// What an epoch came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochResult {
    /// Which epoch.
    pub epoch: u64,
    /// Tree hash of the orders that were matched.
    pub root: [u8; 32],
    /// How many orders were in the set.
    pub count: u32,
    /// Rows, ascending by (class, start, bid, ask).
    pub rows: Vec<ResultRow>,
    /// Clearing prices, ascending by (class, slot).
    pub prices: Vec<SlotPrice>,
    /// Hash of rows and prices.
    pub result_root: [u8; 32],
    /// Gains from trade, msat.
    pub welfare_msat: u128,
}

/// Reason code of a row under the smallest trade.
pub const BELOW_MINIMUM: &str = "trade.below_minimum";
/// Reason code of a row whose own profile needs more lead.
pub const WINDOW_TOO_NEAR: &str = "trade.window_too_near";

/// Matches the set of an epoch.
///
/// # Errors
/// A [`matching::MatchError`]: the set broke a bound that admission should have kept.
pub fn compute(
    epoch: u64,
    set: &OrderSet,
    params: &Params,
) -> Result<EpochResult, matching::MatchError> {
    let book = set.book();
    let algorithm = matching::Algorithm::try_from(params.matching_version)?;
    let outcome = matching::solve(&instance(&book, epoch, params), algorithm)?;
    let mut rows: Vec<ResultRow> =
        outcome.trades.iter().filter_map(|trade| result_row(trade, epoch, set, params)).collect();
    rows.sort_by_key(|result| row_key(&result.row));
    let prices: Vec<SlotPrice> =
        outcome.prices.iter().map(|(&(class, slot), &msat)| (class, slot, msat)).collect();
    let hashed: Vec<&Row> = rows.iter().map(|result| &result.row).collect();
    let result_root = hash_result(&hashed, &prices, params);
    Ok(EpochResult {
        epoch,
        root: set.root(),
        count: u32::try_from(set.len()).unwrap_or(u32::MAX),
        rows,
        prices,
        result_root,
        welfare_msat: outcome.welfare_msat,
    })
}

impl EpochResult {
    /// The result in the form that the matcher gives.
    #[must_use]
    pub fn outcome(&self) -> matching::Outcome {
        outcome(self.rows.iter().map(|found| &found.row), &self.prices, self.welfare_msat)
    }
}

/// Rows, prices and gains in the form that the matcher gives: labels are lower-case hex.
fn outcome<'a>(
    rows: impl Iterator<Item = &'a Row>,
    prices: &[SlotPrice],
    welfare_msat: u128,
) -> matching::Outcome {
    let trade = |row: &Row| matching::Trade {
        class: row.class,
        start: row.start,
        buy: to_hex(&row.buy),
        sell: to_hex(&row.sell),
        hours: row.slots,
        qty: row.qty,
        msat: row.msat,
        sat: row.price_sat(),
    };
    let prices = prices.iter().map(|&(class, slot, msat)| ((class, slot), msat));
    matching::Outcome { welfare_msat, prices: prices.collect(), trades: rows.map(trade).collect() }
}

fn row_key(row: &Row) -> (u16, Slot, [u8; 32], [u8; 32]) {
    (row.class, row.start, row.buy, row.sell)
}

fn result_row(
    trade: &matching::Trade,
    epoch: u64,
    set: &OrderSet,
    params: &Params,
) -> Option<ResultRow> {
    let id = |label: &str| from_hex(label).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let (buy, sell) = (id(&trade.buy)?, id(&trade.sell)?);
    let row = Row {
        v: VERSION,
        epoch,
        buy,
        sell,
        class: trade.class,
        start: trade.start,
        slots: trade.hours,
        qty: trade.qty,
        msat: trade.msat,
    };
    Some(ResultRow {
        trade: TradeId(object_id(&row, params.magic)),
        buyer: set.get(&OrderId(buy))?.owner,
        seller: set.get(&OrderId(sell))?.owner,
        void: void_code(&row, params).map(str::to_owned),
        row,
    })
}

/// Why a row does not bind, by content alone.
#[must_use]
pub fn void_code(row: &Row, params: &Params) -> Option<&'static str> {
    if row.price_sat() < params.min_trade_sat {
        return Some(BELOW_MINIMUM);
    }
    let lead_ms = params.profile(row.price_sat()).lead_s * 1000;
    let ready_ms = computed_at_ms(row.epoch, params) + lead_ms;
    (row.window().starts_at_ms(params.slot_s) < ready_ms).then_some(WINDOW_TOO_NEAR)
}

/// `result_root`: the hash of rows and prices, both in canonical order.
fn hash_result(rows: &[&Row], prices: &[SlotPrice], params: &Params) -> [u8; 32] {
    sha256(&[b"capex/result/v1\0", &params.magic, &encode(&(rows, prices))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other_without_a_gap() {
        let params = crate::test_support::devnet();
        assert_eq!(Phase::at(0, &params), Phase::Open);
        assert_eq!(Phase::at(1000, &params), Phase::Freeze);
        assert_eq!(Phase::at(1600, &params), Phase::Root);
        assert_eq!(Phase::at(2000, &params), Phase::Open);
        assert_eq!(root_at_ms(1, &params), 3600);
        assert_eq!(computed_at_ms(1, &params), 4000);
        // ceil((2 · 2 s + 18 s) / 4 s)
        assert_eq!(params.first_slot(1), 6);
    }
}
