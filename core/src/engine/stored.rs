//! Any record by the form of its table, for those who read a store without an engine.

use super::holdings::HeldRecord;
use super::kernel::{Cause, ConductV1, CounterV1, Record, SaltV1, Stored, Table, Unreadable};
use super::leases::{AttachedV1, HeldLease, LeaseRecord, MaintenanceV1};
use super::market::SignedEpochs;
use super::market::records::{EpochV1, FrozenV1, OrderV1, OrdersV1, StandingV1};
use super::pools::PoolV1;
use super::register::{BehindV1, CapacityRecord, HorizonV1, IssuedRecord, RestoredV1};
use super::trades::PastTradeV1;
use super::witness::{HeardV1, ProofRecord};
use crate::epoch::parts::{ResultPart, read_part_key};
use crate::settlement::buyer::Buyer;
use crate::settlement::registrar::Registrar;
use crate::settlement::seller::Seller;

/// Reads a record of the engine in the form of its table, and writes it as this release does.
/// A record of this release's version comes back as it is, byte for byte.
///
/// It is read alone: whether it agrees with other records is seen at a start.
///
/// # Errors
/// [`Unreadable`] with table, key and cause, as a start would name it.
pub fn reread(record: &Record) -> Result<Record, Unreadable> {
    let table = Table::with_number(record.table);
    match table.ok_or_else(|| record.unreadable(Cause::Table))? {
        Table::Counter => again::<CounterV1>(record, |key| std::str::from_utf8(key).is_ok()),
        Table::Standing => again::<StandingV1>(record, has::<32>),
        Table::Epoch => again::<EpochV1>(record, has::<8>),
        Table::Order => again::<OrderV1>(record, has::<40>),
        Table::Buyer => again::<Buyer>(record, has::<32>),
        Table::Seller => again::<Seller>(record, has::<32>),
        Table::Issued => again::<IssuedRecord>(record, has::<32>),
        Table::Held => again::<HeldRecord>(record, has::<32>),
        Table::Lease => again::<LeaseRecord>(record, has::<32>),
        Table::HeldLease => again::<HeldLease>(record, has::<32>),
        Table::Attached => again::<AttachedV1>(record, has::<32>),
        Table::Maintenance => again::<MaintenanceV1>(record, has::<4>),
        Table::Capacity => again::<CapacityRecord>(record, has::<2>),
        Table::Proof => again::<ProofRecord>(record, has::<32>),
        Table::EpochPart => again::<ResultPart>(record, |key| read_part_key(key).is_some()),
        Table::Pool => again::<PoolV1>(record, has::<32>),
        Table::Frozen => again::<FrozenV1>(record, has::<8>),
        Table::EpochOrders => again::<OrdersV1>(record, |key| read_part_key(key).is_some()),
        Table::Registrar => again::<Registrar>(record, has::<32>),
        Table::PastTrade => again::<PastTradeV1>(record, has::<41>),
        Table::Salt => again::<SaltV1>(record, has::<8>),
        Table::Behind => again::<BehindV1>(record, |key| key == RestoredV1::KEY),
        Table::Heard => again::<HeardV1>(record, has::<32>),
        Table::Restored => again::<RestoredV1>(record, |key| key == RestoredV1::KEY),
        Table::Horizon => again::<HorizonV1>(record, |key| key == RestoredV1::KEY),
        Table::SignedEpochs => again::<SignedEpochs>(record, has::<1>),
        Table::Conduct => again::<ConductV1>(record, |key| matches!(key.len(), 32 | 36)),
    }
}

fn again<S: Stored>(record: &Record, is_key: fn(&[u8]) -> bool) -> Result<Record, Unreadable> {
    if !is_key(&record.key) {
        return Err(record.unreadable(Cause::Key));
    }
    let value: S = record.load()?;
    Record::store(&record.key, &value).map_err(|_| record.unreadable(Cause::Content))
}

fn has<const LEN: usize>(key: &[u8]) -> bool {
    key.len() == LEN
}
