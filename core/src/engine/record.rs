//! Durable facts, as upserts by key: replaying them in order and keeping the last value of
//! each key gives the state back, however often an entry is repeated.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{self, WireError};

/// Tables of the engine. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Counters by name: highest epoch signed, next nonce, next key index.
    Counter = 1,
    /// Standing orders by id.
    Standing = 2,
    /// Computed epochs by number: order ids, root, result.
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

impl Record {
    /// An upsert.
    #[must_use]
    pub fn put<T: Serialize>(table: Table, key: &[u8], value: &T) -> Self {
        Self { table: table.number(), key: key.to_vec(), value: Some(wire::encode(value)) }
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
