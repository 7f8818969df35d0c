//! An epoch: its phases, the vote on its order set, and its result, computed once.

pub mod audit;
pub mod parts;
pub mod signed;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::book::{Booked, Entry, OrderSet};
use super::ids::{Key, TradeId, to_hex};
use super::matching;
use super::settlement::objects::Row;
use super::units::{Slot, TimeMs};
use crate::params::Params;
use crate::wire::{Object, VERSION, domain, encode, sha256};

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
    pub v: u8,
    pub epoch: u64,
    /// Tree hash over the sorted ids.
    pub root: [u8; 32],
    pub count: u32,
}

impl Object for Root {
    const NAME: &'static str = "root";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// A row of a result with who is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRow {
    pub row: Row,
    pub trade: TradeId,
    pub buyer: Key,
    pub seller: Key,
    /// Why it does not bind, if so: reason code.
    pub void: Option<String>,
}

/// Price of one class and slot.
pub type SlotPrice = (u16, Slot, u64);

/// What an epoch came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochResult {
    pub epoch: u64,
    /// Tree hash of the orders that were matched.
    pub root: [u8; 32],
    /// How many orders were in the set.
    pub count: u32,
    /// Rows, ascending by (class, start, bid, ask).
    pub rows: Vec<ResultRow>,
    /// Clearing prices, ascending by (class, slot).
    pub prices: Vec<SlotPrice>,
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
    let orders = set.entries();
    let algorithm = matching::Algorithm::try_from(params.matching_version)?;
    let cleared = matching::clear(&Booked { orders: &orders, epoch, params }, algorithm)?;
    let mut hash = ResultHash::new(cleared.matches.len(), params);
    let found = cleared.matches.iter();
    let rows = found.map(|found| result_row(found, epoch, &orders, params, &mut hash)).collect();
    let prices = cleared.prices.into_iter().map(|((class, slot), msat)| (class, slot, msat));
    let prices: Vec<SlotPrice> = prices.collect();
    Ok(EpochResult {
        epoch,
        root: set.root(),
        count: u32::try_from(set.len()).unwrap_or(u32::MAX),
        rows,
        result_root: hash.finish(&prices),
        prices,
        welfare_msat: cleared.welfare_msat,
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
    found: &matching::Match,
    epoch: u64,
    orders: &[Entry<'_>],
    params: &Params,
    hash: &mut ResultHash,
) -> ResultRow {
    let (bid, ask) = (&orders[found.bid], &orders[found.ask]);
    let row = Row {
        v: VERSION,
        epoch,
        buy: bid.id.0,
        sell: ask.id.0,
        class: found.class,
        start: found.start,
        slots: found.hours,
        qty: found.qty,
        msat: found.msat,
    };
    ResultRow {
        trade: hash.add(&row),
        buyer: bid.owner,
        seller: ask.owner,
        void: void_code(&row, params).map(str::to_owned),
        row,
    }
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

/// `result_root`: the hash of the encoding of (rows, prices), both in canonical order, as far
/// as rows have been added.
struct ResultHash {
    hash: Sha256,
    row_domain: Vec<u8>,
}

impl ResultHash {
    fn new(rows: usize, params: &Params) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"capex/result/v1\0");
        hash.update(params.magic);
        hash.update((rows as u64).to_be_bytes());
        Self { hash, row_domain: domain(Row::NAME, VERSION, params.magic) }
    }

    /// Adds the next row; returns its object id.
    fn add(&mut self, row: &Row) -> TradeId {
        let encoded = encode_row(row);
        self.hash.update(encoded);
        TradeId(sha256(&[&self.row_domain, &encoded]))
    }

    fn finish(mut self, prices: &[SlotPrice]) -> [u8; 32] {
        self.hash.update(encode(&prices));
        self.hash.finalize().into()
    }
}

/// Bytes of an encoded row.
const ROW_BYTES: usize = 93;

/// As [`encode`], which takes an id byte by byte: a result may have a million rows.
fn encode_row(row: &Row) -> [u8; ROW_BYTES] {
    let Row { v, epoch, buy, sell, class, start, slots, qty, msat } = row;
    let mut encoded = [0; ROW_BYTES];
    let mut rest = encoded.as_mut_slice();
    let fields: [&[u8]; 9] = [
        &v.to_be_bytes(),
        &epoch.to_be_bytes(),
        buy,
        sell,
        &class.to_be_bytes(),
        &start.to_be_bytes(),
        &slots.to_be_bytes(),
        &qty.to_be_bytes(),
        &msat.to_be_bytes(),
    ];
    for field in fields {
        let (place, after) = rest.split_at_mut(field.len());
        place.copy_from_slice(field);
        rest = after;
    }
    encoded
}

fn hash_result(rows: &[Row], prices: &[SlotPrice], params: &Params) -> [u8; 32] {
    let mut hash = ResultHash::new(rows.len(), params);
    for row in rows {
        hash.add(row);
    }
    hash.finish(prices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::object_id;

    #[test]
    fn the_root_of_a_result_is_the_hash_of_its_encoding() {
        let params = crate::test_support::devnet();
        let row = |qty| Row {
            v: VERSION,
            epoch: 7,
            buy: [1; 32],
            sell: [2; 32],
            class: 0x0304,
            start: 0x0506_0708,
            slots: 0x090a,
            qty,
            msat: 0x0b0c_0d0e,
        };
        assert_eq!(encode_row(&row(u32::MAX)), encode(&row(u32::MAX)).as_slice());
        let (rows, prices) = (vec![row(8), row(9)], vec![(3, 4, 11), (3, 5, 12)]);
        let encoded = encode(&(&rows, &prices));
        let whole = sha256(&[b"capex/result/v1\0", &params.magic, &encoded]);
        assert_eq!(hash_result(&rows, &prices, &params), whole);
        let mut hash = ResultHash::new(1, &params);
        assert_eq!(hash.add(&rows[0]).0, object_id(&rows[0], params.magic));
    }

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
