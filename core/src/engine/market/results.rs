//! Results of epochs on disk: a head record each, and records for their parts.

use std::collections::BTreeMap;

use crate::engine::context::Outbox;
use crate::engine::record::{Record, Table};
use crate::epoch::EpochResult;
use crate::epoch::parts::{PartsError, ResultHead, ResultPart, part_key, read_part_key};

/// Writes a result and returns the number of its parts.
pub(super) fn put(out: &mut Outbox, result: &EpochResult) -> u32 {
    let mut parts = 0;
    for (number, part) in result.parts() {
        out.put(Table::EpochPart, &part_key(result.epoch, number), &part);
        parts = number.saturating_add(1);
    }
    out.put(Table::Epoch, &result.epoch.to_be_bytes(), &result.head());
    parts
}

/// Deletes a result that has so many parts.
pub(super) fn delete(out: &mut Outbox, epoch: u64, parts: u32) {
    for number in 0..parts {
        out.delete(Table::EpochPart, &part_key(epoch, number));
    }
    out.delete(Table::Epoch, &epoch.to_be_bytes());
}

/// What the records say of one epoch.
#[derive(Debug, Default)]
struct Pieces {
    head: Option<ResultHead>,
    parts: BTreeMap<u32, ResultPart>,
    /// Number of the highest part and one, whether it decodes or not.
    numbered: u32,
    is_damaged: bool,
}

/// Heads and parts that come in any order.
#[derive(Debug, Default)]
pub(super) struct Loading {
    epochs: BTreeMap<u64, Pieces>,
}

/// One epoch whose result stands on disk, whole or not.
pub(super) struct Loaded {
    pub(super) epoch: u64,
    /// Part records on disk.
    pub(super) parts: u32,
    pub(super) result: Result<EpochResult, PartsError>,
}

impl Loading {
    /// Takes a record of either table; others are none of its business.
    pub(super) fn take(&mut self, record: &Record) {
        if record.table == Table::Epoch.number() {
            let Ok(key) = record.key.as_slice().try_into() else { return };
            let epoch = u64::from_be_bytes(key);
            let pieces = self.epochs.entry(epoch).or_default();
            match record.read::<ResultHead>() {
                Ok(head) if head.epoch == epoch => pieces.head = Some(head),
                _ => pieces.is_damaged = true,
            }
        } else if record.table == Table::EpochPart.number()
            && let Some((epoch, number)) = read_part_key(&record.key)
        {
            let pieces = self.epochs.entry(epoch).or_default();
            pieces.numbered = pieces.numbered.max(number.saturating_add(1));
            match record.read::<ResultPart>() {
                Ok(part) => drop(pieces.parts.insert(number, part)),
                Err(_) => pieces.is_damaged = true,
            }
        }
    }

    /// The results, ascending by epoch.
    pub(super) fn finish(self) -> impl Iterator<Item = Loaded> {
        self.epochs.into_iter().map(|(epoch, pieces)| {
            let result = match pieces.head {
                _ if pieces.is_damaged => Err(PartsError::Record),
                Some(head) => head.assemble(pieces.parts.into_values()),
                None => Err(PartsError::Head),
            };
            Loaded { epoch, parts: pieces.numbered, result }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::io::Effect;
    use crate::epoch::ResultRow;
    use crate::epoch::parts::{PRICES_PER_PART, ROWS_PER_PART};
    use crate::ids::{Key, TradeId};
    use crate::limits::RECORD_MAX_BYTES;
    use crate::settlement::objects::Row;
    use crate::wire::VERSION;

    /// A result of the longest rows that there are.
    fn result(epoch: u64, rows: usize, prices: usize) -> EpochResult {
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
            count: u32::MAX,
            rows: (0..rows).map(row).collect(),
            prices: (0..prices).map(|n| (u16::MAX, n as u32, u64::MAX)).collect(),
            result_root: [2; 32],
            welfare_msat: u128::MAX,
        }
    }

    fn records(result: &EpochResult) -> (u32, Vec<Record>) {
        let mut out = Outbox::default();
        let parts = put(&mut out, result);
        out.flush();
        match out.poll() {
            Some(Effect::Persist { records, .. }) => (parts, records),
            other => panic!("{other:?}"),
        }
    }

    fn load<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Loaded> {
        let mut loading = Loading::default();
        records.into_iter().for_each(|record| loading.take(record));
        loading.finish().collect()
    }

    #[test]
    fn a_result_is_read_back_whole_from_bounded_records_in_any_order() {
        let (full, prices) = (ROWS_PER_PART, PRICES_PER_PART);
        let table = [
            (0, 0, 0),
            (1, 1, 1),
            (full, prices, 1),
            (full + 1, prices, 2),
            (3, 2 * prices + 1, 3),
            (20 * full, 7, 20),
        ];
        for (rows, prices, expected) in table {
            let result = result(7, rows, prices);
            let (parts, records) = records(&result);
            assert_eq!((parts, records.len()), (expected, expected as usize + 1));
            let longest = records.iter().filter_map(|record| record.value.as_ref()).map(Vec::len);
            assert!(longest.max().unwrap() <= RECORD_MAX_BYTES / 8);
            let loaded = load(records.iter().rev()).remove(0);
            assert_eq!((loaded.epoch, loaded.parts), (7, parts));
            assert_eq!(loaded.result.unwrap(), result);
        }
    }

    #[test]
    fn whatever_is_missing_is_an_error_and_never_half_a_result() {
        let (parts, whole) = records(&result(7, 3 * ROWS_PER_PART, 5));
        let other = records(&result(8, 1, 1)).1;
        for gone in 0..whole.len() {
            let rest = whole.iter().enumerate().filter(|(at, _)| *at != gone);
            let loaded = load(rest.map(|(_, record)| record).chain(&other));
            let head = gone + 1 == whole.len();
            let code = if head { "epoch.head_missing" } else { "epoch.parts_missing" };
            assert_eq!(loaded[0].result.as_ref().unwrap_err().code(), code, "{gone}");
            // What is left is known, so that it can be forgotten with its epoch.
            assert_eq!(loaded[0].parts, if gone + 2 == whole.len() { parts - 1 } else { parts });
            assert!(loaded[1].result.is_ok());
            let mut bad = whole.clone();
            bad[gone].value.as_mut().unwrap().pop();
            let code = load(&bad).remove(0).result.unwrap_err().code();
            assert_eq!(code, "epoch.bad_record");
        }
        let mut more = whole.clone();
        more[0].key = part_key(7, parts);
        more.push(whole[0].clone());
        assert_eq!(load(&more).remove(0).result, Err(PartsError::Count));
    }

    #[test]
    fn nothing_is_left_of_a_deleted_result() {
        let (parts, written) = records(&result(7, 2 * ROWS_PER_PART, 5));
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
