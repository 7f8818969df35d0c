//! History in the store: what a start leaves there, and how it is read later.

use std::sync::Arc;

use bitcoin::secp256k1::{All, Secp256k1};

use crate::api::types::EpochHead;
use crate::api::{ApiError, Listed, Page, Place, Prefix};
use crate::store::{Row, Store, StoreError};
use capex_core::book::OrderSet;
use capex_core::engine::Unreadable;
use capex_core::engine::kernel::{Record, Table};
use capex_core::engine::market::archive::read_epoch;
use capex_core::engine::market::records::EpochV1;
use capex_core::engine::trades::{PAST_KEPT, PastTradeV1, TradeView, past_key_prefix};
use capex_core::epoch::EpochResult;
use capex_core::ids::{TradeId, to_hex};
use capex_core::limits::EPOCHS_IN_MEMORY;
use capex_core::params::Params;
use capex_core::reason;

/// Tables of which only the records of the last few epochs go into memory.
const PARTS_OF_EPOCHS: [Table; 2] = [Table::EpochPart, Table::EpochOrders];

/// The records that an engine begins with: everything but what is only read, which are the parts
/// of older epochs and trades that ended long ago.
///
/// # Errors
/// The index cannot be read.
pub(super) fn opening_records(store: &Store) -> Result<Vec<Record>, StoreError> {
    let recent = store.page_back(Table::Epoch.number(), None, EPOCHS_IN_MEMORY)?;
    let unmatched = store.scan(Table::Frozen.number())?;
    let oldest = recent.last().into_iter().chain(unmatched.first()).map(|(epoch, _)| epoch).min();
    let parts = PARTS_OF_EPOCHS.map(Table::number);
    let mut records = Vec::new();
    // Numbers that this release does not know are the engine's to refuse.
    for table in 0..Table::FIRST_OF_SHELL {
        let rows = match oldest {
            _ if table == Table::PastTrade.number() => {
                // Of each side as many as an engine keeps.
                store.page_back(table, None, 2 * PAST_KEPT)?
            }
            // Keys of parts begin with that of their epoch.
            Some(oldest) if parts.contains(&table) => {
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

fn failed(error: &StoreError) -> ApiError {
    ApiError::coded(error.code(), error.to_string())
}

fn unreadable(error: &Unreadable) -> ApiError {
    ApiError::coded(Unreadable::CODE, error.to_string()).with_hint(error.hint())
}

/// Trades that have ended, as they stand in the store. Reads take long, so not in the loop.
pub(super) struct PastTrades {
    pub(super) store: Arc<Store>,
    pub(super) params: Arc<Params>,
}

impl PastTrades {
    /// Those before a place, the newest first, up to `limit`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn page(
        &self,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<TradeView>, ApiError> {
        let table = Table::PastTrade.number();
        let key = before.map(|place| past_key_prefix(place.number, TradeId(place.id)));
        let rows = self.store.page_back(table, key.as_deref(), limit);
        self.views(rows.map_err(|error| failed(&error))?)
    }

    /// Those whose id begins with some digits. Looks at every trade that ever ended: 0.2 s for
    /// those of a year.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn find(&self, prefix: &Prefix) -> Result<Vec<TradeView>, ApiError> {
        let id = |key: &[u8]| key.get(8..40).and_then(|id| <[u8; 32]>::try_from(id).ok());
        let is_wanted = |key: &[u8]| id(key).is_some_and(|id| prefix.matches(&id));
        let rows = self.store.select(Table::PastTrade.number(), is_wanted);
        self.views(rows.map_err(|error| failed(&error))?)
    }

    fn views(&self, rows: Vec<Row>) -> Result<Vec<TradeView>, ApiError> {
        let secp: Secp256k1<All> = Secp256k1::new();
        let view = |row: Row| {
            let past: PastTradeV1 = record(Table::PastTrade.number(), row)
                .load()
                .map_err(|error| unreadable(&error))?;
            Ok(past.view(&secp, &self.params))
        };
        rows.into_iter().map(view).collect()
    }
}

/// Computed epochs, the newest first. Reads the store, so not in the loop.
///
/// # Errors
/// The store cannot be read.
pub(super) fn epochs(store: &Store, page: Page) -> Result<Listed<EpochHead>, ApiError> {
    let before = page.before.map(|place| place.number.to_be_bytes());
    let table = Table::Epoch.number();
    // One more tells whether the list goes on.
    let rows = store.page_back(table, before.as_ref().map(<[u8; 8]>::as_slice), page.limit + 1);
    let head = |row: Row| {
        let EpochV1 { head, .. } = record(table, row).load().map_err(|error| unreadable(&error))?;
        let shown = EpochHead {
            epoch: head.epoch,
            count: head.count,
            rows: head.rows,
            root: to_hex(&head.root),
            result_root: to_hex(&head.result_root),
        };
        Ok((Place { number: head.epoch, id: [0; 32] }, shown))
    };
    let rows = rows.map_err(|error| failed(&error))?;
    Ok(page.cut(rows.into_iter().map(head).collect::<Result<Vec<_>, ApiError>>()?))
}

/// Orders and result of a computed epoch that is in the store only. Takes long with many orders,
/// so not in the loop.
///
/// # Errors
/// The store cannot be read, or has forgotten it meanwhile.
pub(super) fn epoch(
    store: &Store,
    params: &Params,
    epoch: u64,
) -> Result<(Arc<OrderSet>, Arc<EpochResult>), ApiError> {
    let key = epoch.to_be_bytes();
    let head = store.get(Table::Epoch.number(), &key).map_err(|error| failed(&error))?;
    let mut records: Vec<Record> = head
        .map(|value| record(Table::Epoch.number(), (key.to_vec(), value)))
        .into_iter()
        .collect();
    for table in [Table::EpochPart, Table::EpochOrders, Table::Order].map(Table::number) {
        let rows = store.scan_prefix(table, &key).map_err(|error| failed(&error))?;
        records.extend(rows.into_iter().map(|row| record(table, row)));
    }
    let found = read_epoch(&records, params.magic)
        .map_err(|error| unreadable(&error))?
        .ok_or_else(|| epoch_not_found("this node has no result of that epoch"))?;
    Ok((found.set, found.result))
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

    /// The frozen record of an ended trade, of another epoch and trade.
    fn ended(epoch: u64, trade: u8) -> Record {
        let text = include_str!("../../tests/vectors/records/past_trade.hex");
        let value = text.lines().find_map(|line| line.strip_prefix("value ")).unwrap();
        let value = capex_core::ids::from_hex(value).unwrap();
        let sold: PastTradeV1 = upsert(Table::PastTrade.number(), [0; 41], value).load().unwrap();
        let PastTradeV1::Seller(mut seller) = sold else { panic!("the provider sells") };
        (seller.row.epoch, seller.trade) = (epoch, TradeId([trade; 32]));
        let key = [past_key_prefix(epoch, seller.trade).as_slice(), &[2]].concat();
        Record::store(&key, &PastTradeV1::Seller(seller)).unwrap()
    }

    #[test]
    fn a_start_takes_the_newest_trades_and_every_one_is_read_by_page_or_by_id() {
        let dir = tempfile::tempdir().unwrap();
        let params = Arc::new(crate::definitions::load("devnet").unwrap());
        let meta = Meta { network: "devnet".into(), magic: params.magic };
        let (store, _) = Store::open(dir.path(), &meta).unwrap();
        let count = 2 * PAST_KEPT as u64 + 50;
        let all: Vec<Record> = (0..count).map(|epoch| ended(epoch, epoch as u8)).collect();
        store.persist(&all).unwrap();
        let opening = opening_records(&store).unwrap();
        assert_eq!(opening.len(), 2 * PAST_KEPT);
        assert!(opening.contains(all.last().unwrap()) && !opening.contains(&all[49]));
        let past = PastTrades { store: Arc::new(store), params };
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let views = past.page(before, 1_000).unwrap();
            let Some(last) = views.last() else { break };
            before = Some(Place { number: last.row.epoch, id: last.trade.0 });
            seen.extend(views.iter().map(|view| view.row.epoch));
        }
        assert!(seen.into_iter().eq((0..count).rev()));
        let oldest = past.find(&Prefix::parse("00000000").unwrap()).unwrap();
        let epochs: Vec<u64> = oldest.iter().map(|view| view.row.epoch).collect();
        let expected: Vec<u64> = (0..count).filter(|epoch| epoch % 256 == 0).collect();
        assert_eq!(epochs, expected);
        assert!(oldest[0].done && oldest[0].contract_spk.is_some(), "with its address");
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
