//! Computed epochs on disk: a head record each, and records for the parts of its orders and of
//! its result.
//!
//! The last few are in memory too; older ones are only read, from the records of one of them,
//! until they are forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::records::{EpochV1, OrdersV1, Parts};
use crate::book::OrderSet;
use crate::engine::kernel::{Cause, Outbox, Record, RecordTooLarge, Table, Unreadable, records};
use crate::epoch::EpochResult;
use crate::epoch::parts::{ResultPart, part_key, read_part_key};
use crate::limits::EPOCHS_IN_MEMORY;
use crate::order::Order;
use crate::wire::{Magic, Verified};

/// Orders of one part: about 35 kB of usual ones, 280 kB of the longest.
pub const ORDERS_PER_PART: usize = 128;

/// An epoch read back from its records.
#[derive(Debug, Clone)]
pub struct ArchivedEpoch {
    pub set: Arc<OrderSet>,
    pub result: Arc<EpochResult>,
}

/// What a life begins with: all epochs on disk, and the last few of them whole.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) parts: BTreeMap<u64, Parts>,
    pub(super) recent: BTreeMap<u64, ArchivedEpoch>,
}

/// Adds the records of an epoch, and says how many parts they are.
///
/// # Errors
/// A record that could not be read back.
pub(super) fn encode(
    result: &EpochResult,
    set: &OrderSet,
    records: &mut Vec<Record>,
) -> Result<Parts, RecordTooLarge> {
    let mut parts = Parts::default();
    let mut orders = set.iter().map(|order| order.envelope().clone());
    loop {
        let part: Vec<_> = orders.by_ref().take(ORDERS_PER_PART).collect();
        if part.is_empty() {
            break;
        }
        records.push(Record::store(&part_key(result.epoch, parts.orders), &OrdersV1(part))?);
        parts.orders = parts.orders.saturating_add(1);
    }
    for (number, part) in result.parts() {
        records.push(Record::store(&part_key(result.epoch, number), &part)?);
        parts.result = number.saturating_add(1);
    }
    let head = EpochV1 { head: result.head(), parts };
    records.push(Record::store(&result.epoch.to_be_bytes(), &head)?);
    Ok(parts)
}

/// Deletes an epoch that has so many parts.
pub(super) fn delete(out: &mut Outbox, epoch: u64, parts: Parts) {
    for number in 0..parts.orders {
        out.delete(Table::EpochOrders, &part_key(epoch, number));
    }
    for number in 0..parts.result {
        out.delete(Table::EpochPart, &part_key(epoch, number));
    }
    out.delete(Table::Epoch, &epoch.to_be_bytes());
}

/// Reads the heads of all epochs and the last few of them whole, from records in any order.
///
/// # Errors
/// A record that cannot be read, or one of the last few epochs with too few or too many parts.
pub(super) fn load(all: &[Record], magic: Magic) -> Result<Loaded, Unreadable> {
    let heads = heads(all)?;
    let recent: Vec<u64> = heads.keys().rev().take(EPOCHS_IN_MEMORY).copied().collect();
    let oldest = recent.last().copied().unwrap_or(u64::MAX);
    let mut wanted = Pieces::default();
    for record in all.iter().filter(|record| is_part(record)) {
        let key = read_part_key(&record.key).ok_or_else(|| record.unreadable(Cause::Key))?;
        if !heads.contains_key(&key.0) {
            return Err(record.unreadable(Cause::Content));
        }
        if key.0 >= oldest {
            wanted.take(record, key, magic)?;
        }
    }
    let mut loaded = Loaded::default();
    for (epoch, head) in heads {
        loaded.parts.insert(epoch, head.parts);
        if epoch >= oldest {
            loaded.recent.insert(epoch, wanted.assemble(epoch, head)?);
        }
    }
    Ok(loaded)
}

/// Reads one epoch from all its records; `None` if its head is not among them.
///
/// # Errors
/// A record that cannot be read, or too few or too many of them.
pub fn read_epoch(all: &[Record], magic: Magic) -> Result<Option<ArchivedEpoch>, Unreadable> {
    Ok(load(all, magic)?.recent.pop_first().map(|(_, found)| found))
}

fn heads(all: &[Record]) -> Result<BTreeMap<u64, EpochV1>, Unreadable> {
    let heads = records::<EpochV1>(all).map(|found| {
        let (record, head) = found?;
        let epoch = u64::from_be_bytes(record.key_array()?);
        if head.head.epoch != epoch {
            return Err(record.unreadable(Cause::Content));
        }
        Ok((epoch, head))
    });
    heads.collect()
}

fn is_part(record: &Record) -> bool {
    [Table::EpochPart, Table::EpochOrders].map(Table::number).contains(&record.table)
}

/// Parts by epoch and number.
#[derive(Debug, Default)]
struct Pieces {
    results: BTreeMap<u64, BTreeMap<u32, ResultPart>>,
    sets: BTreeMap<u64, OrderSet>,
    order_parts: BTreeMap<u64, u32>,
}

impl Pieces {
    fn take(
        &mut self,
        record: &Record,
        (epoch, number): (u64, u32),
        magic: Magic,
    ) -> Result<(), Unreadable> {
        if record.table == Table::EpochPart.number() {
            self.results.entry(epoch).or_default().insert(number, record.load()?);
            return Ok(());
        }
        let set = self.sets.entry(epoch).or_default();
        let OrdersV1(envelopes) = record.load()?;
        for envelope in envelopes {
            let order = Verified::<Order>::from_own_journal(envelope, magic)
                .map_err(|_| record.unreadable(Cause::Content))?;
            if order.epoch != epoch {
                return Err(record.unreadable(Cause::Content));
            }
            set.insert(order);
        }
        *self.order_parts.entry(epoch).or_default() += 1;
        Ok(())
    }

    fn assemble(&mut self, epoch: u64, head: EpochV1) -> Result<ArchivedEpoch, Unreadable> {
        let set = self.sets.remove(&epoch).unwrap_or_default();
        let order_parts = self.order_parts.remove(&epoch).unwrap_or_default();
        let parts = self.results.remove(&epoch).unwrap_or_default();
        let result_parts = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let result = head.head.assemble(parts.into_values());
        let counts = Parts { orders: order_parts, result: result_parts };
        let whole = result.filter(|result| {
            counts == head.parts && usize::try_from(result.count) == Ok(set.len())
        });
        let result = whole.ok_or_else(|| Unreadable {
            table: Table::Epoch.number(),
            key: epoch.to_be_bytes().to_vec(),
            cause: Cause::Content,
        })?;
        Ok(ArchivedEpoch { set: Arc::new(set), result: Arc::new(result) })
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::engine::io::Effect;
    use crate::epoch::ResultRow;
    use crate::epoch::parts::{PRICES_PER_PART, ROWS_PER_PART};
    use crate::ids::{Key, TradeId};
    use crate::limits::RECORD_MAX_BYTES;
    use crate::order::{Alternative, Mode, Side, Source};
    use crate::settlement::objects::Row;
    use crate::units::Window;
    use crate::wire::{VERSION, sign};

    /// A result of the longest rows that there are.
    fn result(epoch: u64, rows: usize, prices: usize, orders: usize) -> EpochResult {
        let row = |n: usize| ResultRow {
            row: Row {
                v: VERSION,
                epoch,
                buy: [0xff; 32],
                sell: [0xff; 32],
                class: u16::MAX,
                start: n as u32,
                slots: u16::MAX,
                qty: u32::MAX,
                msat: u64::MAX,
            },
            trade: TradeId([0xff; 32]),
            buyer: Key([0xff; 32]),
            seller: Key([0xff; 32]),
            void: Some("trade.window_too_near".to_owned()),
        };
        EpochResult {
            epoch,
            root: [1; 32],
            count: orders as u32,
            rows: (0..rows).map(row).collect(),
            prices: (0..prices).map(|n| (u16::MAX, n as u32, u64::MAX)).collect(),
            result_root: [2; 32],
            welfare_msat: u128::MAX,
        }
    }

    fn set(epoch: u64, orders: usize) -> OrderSet {
        let mut set = OrderSet::default();
        for nonce in 0..orders as u64 {
            // So many per owner are kept.
            let key = SigningKey::from_bytes(&[nonce as u8 / 32 + 1; 32]);
            let order = Order {
                v: VERSION,
                epoch,
                side: Side::Buy,
                owner: Key(key.verifying_key().to_bytes()),
                nonce,
                alts: vec![Alternative { class: 1, limit_msat: 5 }],
                qty: 1,
                min_qty: 1,
                mode: Mode::Sticky,
                window: Window { start: 1, end: 9 },
                slots: 1,
                features: 0,
                allow: Vec::new(),
                deny: Vec::new(),
                min_run: 0,
                source: Source::Primary,
                created_ms: 0,
                backing: None,
                pow_nonce: 0,
            };
            set.insert(sign(order, MAGIC, &key));
        }
        set
    }

    const MAGIC: Magic = [0xca, 0xfe, 0, 5];

    fn records(epoch: u64, rows: usize, prices: usize, orders: usize) -> (Parts, Vec<Record>) {
        let (set, mut records) = (set(epoch, orders), Vec::new());
        let parts = encode(&result(epoch, rows, prices, orders), &set, &mut records).unwrap();
        (parts, records)
    }

    fn longest(records: &[Record]) -> usize {
        records.iter().filter_map(|record| record.value.as_ref()).map(Vec::len).max().unwrap()
    }

    #[test]
    fn an_epoch_is_read_back_whole_from_bounded_records_in_any_order() {
        let (full, prices) = (ROWS_PER_PART, PRICES_PER_PART);
        let table = [
            (0, 0, 0, 0, 0),
            (1, 1, 1, 1, 1),
            (full, prices, 1, ORDERS_PER_PART, 1),
            (full + 1, prices, 2, ORDERS_PER_PART + 1, 2),
            (3, 2 * prices + 1, 3, 2 * ORDERS_PER_PART, 2),
            (20 * full, 7, 20, 2, 1),
        ];
        for (rows, prices, result_parts, orders, order_parts) in table {
            let (parts, mut records) = records(7, rows, prices, orders);
            assert_eq!(parts, Parts { orders: order_parts, result: result_parts });
            assert_eq!(records.len(), (order_parts + result_parts) as usize + 1);
            assert!(longest(&records) <= RECORD_MAX_BYTES / 8);
            records.reverse();
            let found = read_epoch(&records, MAGIC).unwrap().unwrap();
            assert_eq!(*found.result, result(7, rows, prices, orders));
            assert!(found.set.iter().eq(set(7, orders).iter()));
        }
        assert!(read_epoch(&[], MAGIC).unwrap().is_none());
    }

    #[test]
    fn only_the_last_epochs_are_read_whole_and_older_ones_need_no_parts() {
        let last = 20;
        let mut all: Vec<Record> = (1..=last).flat_map(|epoch| records(epoch, 1, 1, 2).1).collect();
        let first_recent = last + 1 - EPOCHS_IN_MEMORY as u64;
        let of = |epoch: u64| move |record: &Record| record.key.starts_with(&epoch.to_be_bytes());
        // What the store of a long history hands over.
        all.retain(|record| {
            !is_part(record) || (first_recent..=last).any(|epoch| of(epoch)(record))
        });
        let loaded = load(&all, MAGIC).unwrap();
        assert_eq!(loaded.parts.len() as u64, last);
        assert!(loaded.recent.keys().copied().eq(first_recent..=last));
    }

    #[test]
    fn whatever_is_missing_is_an_error_and_never_half_an_epoch() {
        let (parts, whole) = records(7, 3 * ROWS_PER_PART, 5, ORDERS_PER_PART + 1);
        for gone in 0..whole.len() {
            let mut rest = whole.clone();
            rest.remove(gone);
            rest.extend(records(8, 1, 1, 1).1);
            assert_eq!(load(&rest, MAGIC).unwrap_err().cause, Cause::Content, "{gone}");
            let mut bad = whole.clone();
            bad[gone].value.as_mut().unwrap().pop();
            let expected = bad[gone].unreadable(Cause::Malformed);
            assert_eq!(load(&bad, MAGIC).unwrap_err(), expected, "{gone}");
            bad[gone].key.pop();
            assert!(load(&bad, MAGIC).is_err());
        }
        let mut more = whole.clone();
        more[0].key = part_key(7, parts.orders);
        more.push(whole[0].clone());
        assert_eq!(load(&more, MAGIC).unwrap_err().cause, Cause::Content);
        let mut other = whole.clone();
        other.last_mut().unwrap().key = 8_u64.to_be_bytes().to_vec();
        assert_eq!(load(&other, MAGIC).unwrap_err().cause, Cause::Content);
        let mut moved = whole;
        moved[0] = records(8, 1, 1, 1).1[0].clone();
        moved[0].key = part_key(7, 0);
        assert_eq!(load(&moved, MAGIC).unwrap_err(), moved[0].unreadable(Cause::Content));
    }

    #[test]
    fn nothing_is_left_of_a_deleted_epoch() {
        let (parts, written) = records(7, 2 * ROWS_PER_PART, 5, ORDERS_PER_PART + 1);
        let mut out = Outbox::default();
        delete(&mut out, 7, parts);
        out.flush();
        let Some(Effect::Persist { records, .. }) = out.poll() else { panic!("nothing deleted") };
        let keys = |records: &[Record]| -> Vec<(u8, Vec<u8>)> {
            records.iter().map(|record| (record.table, record.key.clone())).collect()
        };
        assert_eq!(keys(&records), keys(&written));
        assert!(records.iter().all(|record| record.value.is_none()));
    }
}
