//! Epochs on disk: the orders of one that ended, then its result, each with a head record and
//! records for its parts. An order of this node stands in a record of its own, which was written
//! when it was signed.
//!
//! The last few are in memory too; older ones are only read, from the records of one of them,
//! until they are forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::SignedOrder;
use super::records::{EpochV1, FrozenV1, OrderV1, OrdersV1, Parts};
use crate::book::OrderSet;
use crate::engine::kernel::{Cause, Outbox, Record, RecordTooLarge, Table, Unreadable, records};
use crate::epoch::EpochResult;
use crate::epoch::parts::{ResultPart, part_key, read_part_key};
use crate::ids::OrderId;
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
    /// Epochs that ended and have no result.
    pub(super) frozen: BTreeMap<u64, (FrozenV1, OrderSet)>,
    pub(super) own: Vec<Own>,
}

/// An order of this node.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) order: Verified<Order>,
    pub(super) signed: SignedOrder,
}

/// Key of the record of an order of this node: epoch and id.
pub(super) fn order_key(epoch: u64, id: &OrderId) -> Vec<u8> {
    [epoch.to_be_bytes().as_slice(), &id.0].concat()
}

/// Adds the records of orders but for those in `own`, and says how many they are.
///
/// # Errors
/// A record that could not be read back.
pub(super) fn encode_orders(
    epoch: u64,
    set: &OrderSet,
    own: &BTreeSet<OrderId>,
    records: &mut Vec<Record>,
) -> Result<u32, RecordTooLarge> {
    let others = set.iter().filter(|order| !own.contains(&OrderId(order.id())));
    let mut orders = others.map(|order| order.envelope().clone());
    let mut parts: u32 = 0;
    loop {
        let part: Vec<_> = orders.by_ref().take(ORDERS_PER_PART).collect();
        if part.is_empty() {
            return Ok(parts);
        }
        records.push(Record::store(&part_key(epoch, parts), &OrdersV1(part))?);
        parts = parts.saturating_add(1);
    }
}

/// Adds the records of a result but for its head, and says how many they are.
///
/// # Errors
/// A record that could not be read back.
pub(super) fn encode_result(
    result: &EpochResult,
    records: &mut Vec<Record>,
) -> Result<u32, RecordTooLarge> {
    let mut parts = 0;
    for (number, part) in result.parts() {
        records.push(Record::store(&part_key(result.epoch, number), &part)?);
        parts = number.saturating_add(1);
    }
    Ok(parts)
}

/// Deletes an epoch that has so many parts, and these orders of this node.
pub(super) fn delete(out: &mut Outbox, epoch: u64, parts: Parts, own: &BTreeSet<OrderId>) {
    delete_orders(out, epoch, parts.orders, own);
    for number in 0..parts.result {
        out.delete(Table::EpochPart, &part_key(epoch, number));
    }
    out.delete(Table::Epoch, &epoch.to_be_bytes());
}

/// Deletes the orders of an epoch: so many parts, and these of this node.
pub(super) fn delete_orders(out: &mut Outbox, epoch: u64, parts: u32, own: &BTreeSet<OrderId>) {
    for number in 0..parts {
        out.delete(Table::EpochOrders, &part_key(epoch, number));
    }
    for id in own {
        out.delete(Table::Order, &order_key(epoch, id));
    }
}

/// Reads the heads of all epochs and the last few of them whole, from records in any order.
///
/// # Errors
/// A record that cannot be read, or one of the last few epochs with too few or too many parts.
pub(super) fn load(all: &[Record], magic: Magic) -> Result<Loaded, Unreadable> {
    let heads = heads(all)?;
    let mut loaded = Loaded { own: own(all, magic)?, ..Loaded::default() };
    let mut frozen = frozen(all)?;
    let recent: Vec<u64> = heads.keys().rev().take(EPOCHS_IN_MEMORY).copied().collect();
    let oldest = recent.last().copied().unwrap_or(u64::MAX);
    let is_wanted =
        |epoch| frozen.contains_key(&epoch) || epoch >= oldest && heads.contains_key(&epoch);
    let mut wanted = Pieces::default();
    for record in all.iter().filter(|record| is_part(record)) {
        let key = read_part_key(&record.key).ok_or_else(|| record.unreadable(Cause::Key))?;
        if !heads.contains_key(&key.0) && !frozen.contains_key(&key.0) {
            return Err(record.unreadable(Cause::Content));
        }
        if is_wanted(key.0) {
            wanted.take(record, key, magic)?;
        }
    }
    for Own { order, .. } in loaded.own.iter().filter(|own| is_wanted(own.signed.epoch)) {
        wanted.sets.entry(order.epoch).or_default().insert(order.clone());
    }
    while let Some((epoch, head)) = frozen.pop_first() {
        loaded.frozen.insert(epoch, (head, wanted.assemble_frozen(epoch, head)?));
    }
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

fn frozen(all: &[Record]) -> Result<BTreeMap<u64, FrozenV1>, Unreadable> {
    let frozen = records::<FrozenV1>(all).map(|found| {
        let (record, head) = found?;
        Ok((u64::from_be_bytes(record.key_array()?), head))
    });
    frozen.collect()
}

fn own(all: &[Record], magic: Magic) -> Result<Vec<Own>, Unreadable> {
    let own = records::<OrderV1>(all).map(|found| {
        let (record, OrderV1 { envelope, standing, rectangle, reserved_sat }) = found?;
        let order = Verified::<Order>::from_own_journal(envelope, magic)
            .map_err(|_| record.unreadable(Cause::Content))?;
        let (epoch, features) = (order.epoch, order.features);
        if record.key != order_key(epoch, &OrderId(order.id())) {
            return Err(record.unreadable(Cause::Key));
        }
        let signed = SignedOrder { standing, epoch, rectangle, features, reserved_sat };
        Ok(Own { order, signed })
    });
    own.collect()
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

    fn assemble_frozen(&mut self, epoch: u64, head: FrozenV1) -> Result<OrderSet, Unreadable> {
        let set = self.sets.remove(&epoch).unwrap_or_default();
        let parts = self.order_parts.remove(&epoch).unwrap_or_default();
        if parts == head.parts && usize::try_from(head.count) == Ok(set.len()) {
            return Ok(set);
        }
        let (table, key) = (Table::Frozen.number(), epoch.to_be_bytes().to_vec());
        Err(Unreadable { table, key, cause: Cause::Content })
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
    use crate::ids::{Key, StandingId, TradeId};
    use crate::limits::RECORD_MAX_BYTES;
    use crate::settlement::objects::Row;
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
            let owner = Key(key.verifying_key().to_bytes());
            let order = Order { nonce, ..Order::sample(owner, epoch) };
            set.insert(sign(order, MAGIC, &key));
        }
        set
    }

    const MAGIC: Magic = [0xca, 0xfe, 0, 5];

    fn records(epoch: u64, rows: usize, prices: usize, orders: usize) -> (Parts, Vec<Record>) {
        let (result, mut records) = (result(epoch, rows, prices, orders), Vec::new());
        let (set, own) = (set(epoch, orders), BTreeSet::new());
        let orders = encode_orders(epoch, &set, &own, &mut records).unwrap();
        let parts = Parts { orders, result: encode_result(&result, &mut records).unwrap() };
        let head = EpochV1 { head: result.head(), parts };
        records.push(Record::store(&epoch.to_be_bytes(), &head).unwrap());
        (parts, records)
    }

    /// An epoch that ended, of so many orders, of which the first two are this node's.
    fn ended(epoch: u64, orders: usize) -> (FrozenV1, Vec<Record>) {
        let (set, mut records) = (set(epoch, orders), Vec::new());
        let own: BTreeSet<OrderId> = set.ids().take(2).collect();
        let parts = encode_orders(epoch, &set, &own, &mut records).unwrap();
        for id in own {
            let order = OrderV1 {
                envelope: set.get(&id).unwrap().envelope().clone(),
                standing: StandingId([1; 32]),
                rectangle: None,
                reserved_sat: 5,
            };
            records.push(Record::store(&order_key(epoch, &id), &order).unwrap());
        }
        let head = FrozenV1 { count: orders as u32, parts, operators: 3 };
        records.push(Record::store(&epoch.to_be_bytes(), &head).unwrap());
        (head, records)
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
    fn an_epoch_without_a_result_is_read_back_with_the_orders_of_this_node_or_not_at_all() {
        for orders in [2, 3, ORDERS_PER_PART + 3] {
            let (head, all) = ended(7, orders);
            let loaded = load(&all, MAGIC).unwrap();
            let (found, set_found) = &loaded.frozen[&7];
            assert_eq!(*found, head);
            assert!(set_found.iter().eq(set(7, orders).iter()));
            assert_eq!(loaded.own.len(), 2);
            assert!(loaded.recent.is_empty());
            for gone in 0..all.len() {
                let mut rest = all.clone();
                rest.remove(gone);
                let is_lost = gone + 1 == all.len() && head.parts == 0;
                assert_eq!(load(&rest, MAGIC).is_err(), !is_lost, "{gone} of {orders}");
            }
        }
    }

    #[test]
    fn nothing_is_left_of_a_deleted_epoch() {
        let (parts, mut written) = records(7, 2 * ROWS_PER_PART, 5, ORDERS_PER_PART + 1);
        let (mut out, own) = (Outbox::default(), OrderId([1; 32]));
        written.insert(2, Record::delete(Table::Order, &order_key(7, &own)));
        delete(&mut out, 7, parts, &BTreeSet::from([own]));
        out.flush();
        let Some(Effect::Persist { records, .. }) = out.poll() else { panic!("nothing deleted") };
        let keys = |records: &[Record]| -> Vec<(u8, Vec<u8>)> {
            records.iter().map(|record| (record.table, record.key.clone())).collect()
        };
        assert_eq!(keys(&records), keys(&written));
        assert!(records.iter().all(|record| record.value.is_none()));
    }
}
