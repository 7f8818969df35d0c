//! History in the store: what a start leaves there, and how it is read later.

use std::sync::Arc;

use crate::api::ApiError;
use crate::node::offload::EpochStudy;
use crate::store::{Row, Store, StoreError};
use capex_core::engine::Unreadable;
use capex_core::engine::kernel::{Record, Table};
use capex_core::engine::market::archive::read_epoch;
use capex_core::limits::EPOCHS_IN_MEMORY;
use capex_core::params::Params;
use capex_core::reason;

/// Tables of which only the records of the last few epochs go into memory.
const PARTS_OF_EPOCHS: [Table; 2] = [Table::EpochPart, Table::EpochOrders];

/// The records that an engine begins with: everything but the parts of epochs that are only read.
///
/// # Errors
/// The index cannot be read.
pub(super) fn opening_records(store: &Store) -> Result<Vec<Record>, StoreError> {
    let recent = store.last(Table::Epoch.number(), EPOCHS_IN_MEMORY)?;
    let parts = PARTS_OF_EPOCHS.map(Table::number);
    let mut records = Vec::new();
    // Numbers that this release does not know are the engine's to refuse.
    for table in 0..Table::FIRST_OF_SHELL {
        let rows = match recent.first() {
            // Keys of parts begin with that of their epoch.
            Some((oldest, _)) if parts.contains(&table) => {
                store.page(table, Some(oldest), usize::MAX)?
            }
            _ => store.scan(table)?,
        };
        records.extend(rows.into_iter().map(|row| record(table, row)));
    }
    Ok(records)
}

fn record(table: u8, (key, value): Row) -> Record {
    Record { table, key, value: Some(value) }
}

/// A computed epoch that is in the store only.
pub(super) struct PastEpoch {
    pub(super) store: Arc<Store>,
    pub(super) params: Params,
    pub(super) epoch: u64,
}

impl PastEpoch {
    /// Reads it. Takes long with many orders, so not in the loop.
    ///
    /// # Errors
    /// The store cannot be read, or has forgotten it meanwhile.
    pub(super) fn open(self) -> Result<EpochStudy, ApiError> {
        let key = self.epoch.to_be_bytes();
        let failed = |error: StoreError| ApiError::coded(error.code(), error.to_string());
        let head = self.store.get(Table::Epoch.number(), &key).map_err(failed)?;
        let mut records: Vec<Record> = head
            .map(|value| record(Table::Epoch.number(), (key.to_vec(), value)))
            .into_iter()
            .collect();
        for table in PARTS_OF_EPOCHS.map(Table::number) {
            let rows = self.store.scan_prefix(table, &key).map_err(failed)?;
            records.extend(rows.into_iter().map(|row| record(table, row)));
        }
        let found = read_epoch(&records, self.params.magic)
            .map_err(|error| ApiError::coded(Unreadable::CODE, error.to_string()))?
            .ok_or_else(|| epoch_not_found("this node has no result of that epoch"))?;
        // Roots are kept as long as an epoch is in memory.
        let roots = Vec::new();
        Ok(EpochStudy { params: self.params, set: found.set, result: found.result, roots })
    }
}

/// The answer where an epoch is neither in memory nor in the store.
pub(super) fn epoch_not_found(message: &str) -> ApiError {
    ApiError::new(reason!("epoch.not_found"), message)
        .with_hint("epochs without orders have none; old ones are forgotten")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Meta, upsert};

    #[test]
    fn a_start_reads_the_parts_of_the_last_epochs_and_nothing_of_the_shell() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta { network: "devnet".into(), magic: *b"capx" };
        let (store, _) = Store::open(dir.path(), &meta).unwrap();
        let part = |epoch: u64| [epoch.to_be_bytes().as_slice(), &[0; 4]].concat();
        let mut all = vec![upsert(0x70, *b"later", *b""), upsert(0xe0, *b"wallet", *b"")];
        for epoch in 1..=9_u64 {
            all.push(upsert(Table::Epoch.number(), epoch.to_be_bytes(), *b"head"));
            all.push(upsert(Table::EpochPart.number(), part(epoch), *b"result"));
            all.push(upsert(Table::EpochOrders.number(), part(epoch), *b"orders"));
        }
        store.persist(&all).unwrap();
        let found = opening_records(&store).unwrap();
        let keys = |table: u8| -> Vec<Vec<u8>> {
            let of_table = found.iter().filter(|record| record.table == table);
            of_table.map(|record| record.key.clone()).collect()
        };
        let first = 10 - EPOCHS_IN_MEMORY as u64;
        for table in PARTS_OF_EPOCHS {
            assert_eq!(keys(table.number()), (first..=9).map(part).collect::<Vec<_>>());
        }
        assert_eq!(keys(Table::Epoch.number()).len(), 9);
        assert_eq!((keys(0x70).len(), keys(0xe0).len()), (1, 0));
    }

    #[test]
    fn a_store_without_epochs_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta { network: "devnet".into(), magic: *b"capx" };
        let (store, _) = Store::open(dir.path(), &meta).unwrap();
        store.persist(&[upsert(Table::EpochPart.number(), [1; 12], *b"stray")]).unwrap();
        assert_eq!(opening_records(&store).unwrap().len(), 1, "the engine refuses it");
    }
}
