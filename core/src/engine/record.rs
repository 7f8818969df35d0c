//! Durable facts, as upserts by key: replaying them in order and keeping the last value of
//! each key gives the state back, however often an entry is repeated.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::RECORD_MAX_BYTES;
use crate::wire::{self, WireError};

/// Tables of the engine. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Counters by name: highest epoch signed, next nonce, next key index.
    Counter = 1,
    /// Standing orders by id.
    Standing = 2,
    /// Computed epochs by number: root, counts and hash of the result.
    Epoch = 3,
    /// Signed orders of computed epochs by (epoch, id).
    Order = 4,
    /// Settlements of this buyer by trade id.
    Buyer = 5,
    /// Settlements of this seller by trade id.
    Seller = 6,
    /// Certificates that this provider issued, by id: chain, holder, seq, consumption.
    Issued = 7,
    /// Certificates that this node holds or held, by id.
    Held = 8,
    /// Leases on this host by id.
    Lease = 9,
    /// Leases of this holder by id.
    HeldLease = 10,
    /// Capacity by class.
    Capacity = 11,
    /// Proofs of equivocation by provider key.
    Proof = 12,
    /// Rows and prices of computed epochs by (epoch, part).
    EpochPart = 13,
}

impl Table {
    /// Number on disk.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// One upsert, or a deletion if there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Table number.
    pub table: u8,
    /// Key within the table.
    pub key: Vec<u8>,
    /// Encoded value.
    pub value: Option<Vec<u8>>,
}

/// A value that no later life could read back. What goes into a table is bounded so that there
/// is none; the check stands where a record is made, so that a bound that was forgotten costs
/// one record and is told, and not the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record of {bytes} bytes for table {table:?}, allowed are {RECORD_MAX_BYTES}")]
pub struct RecordTooLarge {
    /// Where it would go.
    pub table: Table,
    /// Its length.
    pub bytes: usize,
}

impl RecordTooLarge {
    /// Stable reason code.
    pub const CODE: &'static str = "record.too_large";
}

impl Record {
    /// An upsert.
    ///
    /// # Errors
    /// [`RecordTooLarge`]: [`Record::read`] would refuse it.
    pub fn put<T: Serialize>(table: Table, key: &[u8], value: &T) -> Result<Self, RecordTooLarge> {
        let value = wire::encode(value);
        if value.len() > RECORD_MAX_BYTES {
            return Err(RecordTooLarge { table, bytes: value.len() });
        }
        Ok(Self { table: table.number(), key: key.to_vec(), value: Some(value) })
    }

    /// A deletion.
    #[must_use]
    pub fn delete(table: Table, key: &[u8]) -> Self {
        Self { table: table.number(), key: key.to_vec(), value: None }
    }

    /// The value, decoded.
    ///
    /// # Errors
    /// The bytes are not a `T`; a deletion counts as malformed.
    pub fn read<T: Serialize + DeserializeOwned>(&self) -> Result<T, WireError> {
        wire::decode_record(self.value.as_deref().ok_or(WireError::Malformed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_read_back_is_no_record() {
        // A vector's length takes some bytes too.
        let length_bytes = wire::encode(&vec![7_u8; 1 << 20]).len() - (1 << 20);
        let largest = vec![7_u8; RECORD_MAX_BYTES - length_bytes];
        let record = Record::put(Table::Epoch, b"k", &largest).unwrap();
        assert_eq!(record.value.as_ref().map(Vec::len), Some(RECORD_MAX_BYTES));
        assert_eq!(record.read::<Vec<u8>>().as_ref(), Ok(&largest));
        let larger = vec![7_u8; largest.len() + 1];
        let refused = Record::put(Table::Epoch, b"k", &larger).unwrap_err();
        assert_eq!(refused, RecordTooLarge { table: Table::Epoch, bytes: RECORD_MAX_BYTES + 1 });
    }
}
