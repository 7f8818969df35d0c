//! Results of epochs on disk: a head record each, and records for their parts.

use std::collections::BTreeMap;

use crate::engine::kernel::{Cause, Outbox, Record, RecordTooLarge, Table, Unreadable, records};
use crate::epoch::EpochResult;
use crate::epoch::parts::{ResultHead, ResultPart, part_key, read_part_key};

/// Adds the records of a result and returns the number of its parts.
///
/// # Errors
/// A record that could not be read back.
pub(super) fn encode(
    result: &EpochResult,
    records: &mut Vec<Record>,
) -> Result<u32, RecordTooLarge> {
    let mut parts = 0;
    for (number, part) in result.parts() {
        records.push(Record::store(&part_key(result.epoch, number), &part)?);
        parts = number.saturating_add(1);
    }
    records.push(Record::store(&result.epoch.to_be_bytes(), &result.head())?);
    Ok(parts)
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
}

/// One epoch whose result stands on disk.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Part records on disk.
    pub(super) parts: u32,
    pub(super) result: EpochResult,
}

/// The results that stand in the records, which come in any order; ascending by epoch.
///
/// # Errors
/// A record that cannot be read, or an epoch with too few or too many of them.
pub(super) fn load(all: &[Record]) -> Result<Vec<Loaded>, Unreadable> {
    let mut epochs: BTreeMap<u64, Pieces> = BTreeMap::new();
    for found in records::<ResultHead>(all) {
        let (record, head) = found?;
        let epoch = u64::from_be_bytes(record.key_array()?);
        if head.epoch != epoch {
            return Err(record.unreadable(Cause::Content));
        }
        epochs.entry(epoch).or_default().head = Some(head);
    }
    for found in records::<ResultPart>(all) {
        let (record, part) = found?;
        let key = read_part_key(&record.key).ok_or_else(|| record.unreadable(Cause::Key))?;
        epochs.entry(key.0).or_default().parts.insert(key.1, part);
    }
    epochs.into_iter().map(|(epoch, pieces)| assemble(epoch, pieces)).collect()
}

fn assemble(epoch: u64, pieces: Pieces) -> Result<Loaded, Unreadable> {
    let parts = u32::try_from(pieces.parts.len()).unwrap_or(u32::MAX);
    let result = pieces.head.and_then(|head| head.assemble(pieces.parts.into_values()));
    let result = result.ok_or_else(|| Unreadable {
        table: Table::Epoch.number(),
        key: epoch.to_be_bytes().to_vec(),
        cause: Cause::Content,
    })?;
    Ok(Loaded { parts, result })
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
        let mut records = Vec::new();
        let parts = encode(result, &mut records).unwrap();
        (parts, records)
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
            let reversed: Vec<Record> = records.into_iter().rev().collect();
            let loaded = load(&reversed).unwrap().remove(0);
            assert_eq!((loaded.parts, loaded.result), (parts, result));
        }
    }

    #[test]
    fn whatever_is_missing_is_an_error_and_never_half_a_result() {
        let (parts, whole) = records(&result(7, 3 * ROWS_PER_PART, 5));
        let key = 7_u64.to_be_bytes().to_vec();
        let content = Unreadable { table: Table::Epoch.number(), key, cause: Cause::Content };
        for gone in 0..whole.len() {
            let mut rest = whole.clone();
            rest.remove(gone);
            rest.extend(records(&result(8, 1, 1)).1);
            assert_eq!(load(&rest).unwrap_err(), content, "{gone}");
            let mut bad = whole.clone();
            bad[gone].value.as_mut().unwrap().pop();
            let expected = bad[gone].unreadable(Cause::Malformed);
            assert_eq!(load(&bad).unwrap_err(), expected, "{gone}");
            bad[gone].key.pop();
            assert!(load(&bad).is_err());
        }
        let mut more = whole.clone();
        more[0].key = part_key(7, parts);
        more.push(whole[0].clone());
        assert_eq!(load(&more).unwrap_err(), content);
        let mut other = whole.clone();
        other[parts as usize].key = 8_u64.to_be_bytes().to_vec();
        assert_eq!(load(&other).unwrap_err().cause, Cause::Content);
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
