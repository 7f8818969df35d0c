//! Durable facts, as upserts by key: replaying them in order and keeping the last value of
//! each key gives the state back, however often an entry is repeated.
//!
//! A value on disk is `version u8 ‖ encoding`. What it encodes is a [`Stored`] type of its own,
//! so that the types in memory can change while what earlier releases wrote stays readable. A
//! record that cannot be read is [`Unreadable`] and ends the node: one that forgot what it had
//! sold would sell it again.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ids::to_hex;
use crate::limits::RECORD_MAX_BYTES;
use crate::wire::{self, WireError};

/// Tables of the engine. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Counters by name: next nonce, next key index.
    Counter = 1,
    Standing = 2,
    /// Computed epochs by number: root, counts and hash of the result.
    Epoch = 3,
    /// Signed orders of this node, by (epoch, id).
    Order = 4,
    /// Open trades of this buyer by trade id.
    Buyer = 5,
    /// Open trades of this seller by trade id.
    Seller = 6,
    /// Certificates that this provider issued, by id: chain, holder, seq, consumption.
    Issued = 7,
    /// Certificates that this node holds or held, by id.
    Held = 8,
    /// Leases on this host by id.
    Lease = 9,
    /// Leases of this holder by id.
    HeldLease = 10,
    Capacity = 11,
    /// Proofs of equivocation by provider key.
    Proof = 12,
    /// Rows and prices of computed epochs by (epoch, part).
    EpochPart = 13,
    /// Signed orders of others in epochs that ended, by (epoch, part).
    EpochOrders = 15,
    /// Locks of this registrar by terms.
    Registrar = 14,
    /// Trades that have ended by (epoch, trade, role).
    PastTrade = 16,
    /// Salts by the life that drew from them.
    Salt = 17,
    /// Misses of others by key, or by coin.
    Conduct = 18,
    /// Epochs for which orders were signed, as ranges.
    SignedEpochs = 19,
    /// A statement of this node that its register does not have.
    Behind = 20,
    /// When the store was restored from a copy, until peers have been asked.
    Restored = 21,
    /// The newest statement of each provider that was heard, by its key.
    Heard = 22,
    /// Epochs that ended and have no result yet, by number.
    Frozen = 23,
    /// Pools of which this node is a member, by id.
    Pool = 24,
    /// How high the chain was in earlier slots: how far back this register remembers.
    Horizon = 25,
    /// Workloads that came with an order, by its id.
    Attached = 26,
    /// Maintenances that this host has announced, by number.
    Maintenance = 27,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 27] = [
        Self::Counter,
        Self::Standing,
        Self::Epoch,
        Self::Order,
        Self::Buyer,
        Self::Seller,
        Self::Issued,
        Self::Held,
        Self::Lease,
        Self::HeldLease,
        Self::Capacity,
        Self::Proof,
        Self::EpochPart,
        Self::EpochOrders,
        Self::Registrar,
        Self::PastTrade,
        Self::Salt,
        Self::Conduct,
        Self::SignedEpochs,
        Self::Behind,
        Self::Restored,
        Self::Heard,
        Self::Frozen,
        Self::Pool,
        Self::Horizon,
        Self::Attached,
        Self::Maintenance,
    ];
    /// Tables from this number on belong to the program around the engine.
    pub const FIRST_OF_SHELL: u8 = 0x80;

    /// Number on disk.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The table with this number.
    #[must_use]
    pub fn with_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }

    /// Name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Standing => "standing",
            Self::Epoch => "epoch",
            Self::Order => "order",
            Self::Buyer => "buyer",
            Self::Seller => "seller",
            Self::Issued => "issued",
            Self::Held => "held",
            Self::Lease => "lease",
            Self::HeldLease => "held_lease",
            Self::Capacity => "capacity",
            Self::Proof => "proof",
            Self::EpochPart => "epoch_part",
            Self::EpochOrders => "epoch_orders",
            Self::Registrar => "registrar",
            Self::PastTrade => "past_trade",
            Self::Salt => "salt",
            Self::Conduct => "conduct",
            Self::SignedEpochs => "signed_epochs",
            Self::Behind => "behind",
            Self::Restored => "restored",
            Self::Heard => "heard",
            Self::Frozen => "frozen",
            Self::Pool => "pool",
            Self::Horizon => "horizon",
            Self::Attached => "attached",
            Self::Maintenance => "maintenance",
        }
    }
}

/// A form in which a table keeps a thing.
///
/// To change it, add a type for the new form with the next [`Stored::VERSION`], and let its
/// [`Stored::from_older`] read the form of before.
pub trait Stored: Serialize + DeserializeOwned {
    /// Where it stands.
    const TABLE: Table;
    /// Version that is written.
    const VERSION: u8 = 1;

    /// Reads what an earlier release wrote; `None` for a version that none did.
    #[must_use]
    fn from_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        let _ = (version, body);
        None
    }
}

/// Why a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// A release that knows more than this one wrote it.
    #[error("it has version {found}, this release reads versions up to {known}")]
    Version {
        found: u8,
        /// Latest version that this release reads.
        known: u8,
    },
    /// The bytes are not an encoding of the form that the version names.
    #[error("its bytes are not an encoding of its version")]
    Malformed,
    /// The key is not one of that table.
    #[error("its key is not one of that table")]
    Key,
    /// The bytes decode, and contradict what they must agree with.
    #[error("its content contradicts itself")]
    Content,
    /// What other records refer to is not there.
    #[error("other records need it, and it is not there")]
    Missing,
    /// No table of this release has the number.
    #[error("this release knows no such table")]
    Table,
}

/// A record of this node that this release cannot read. Going on without it could break a
/// promise, so the node stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {} in table {} cannot be read: {cause}", to_hex(.key), table_name(*.table))]
pub struct Unreadable {
    pub table: u8,
    pub key: Vec<u8>,
    pub cause: Cause,
}

impl Unreadable {
    /// Stable reason code.
    pub const CODE: &'static str = "record.unreadable";

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.cause {
            Cause::Version { .. } | Cause::Table => {
                "a later release wrote this data directory: start that release, or restore a \
                 backup made before it"
            }
            Cause::Malformed | Cause::Key | Cause::Content | Cause::Missing => {
                "check the store with `capex db check`, then restore a backup; what this node \
                 promised after the backup was made is not in it"
            }
        }
    }
}

fn table_name(number: u8) -> String {
    match Table::with_number(number) {
        Some(table) => format!("`{}` ({number})", table.name()),
        None => number.to_string(),
    }
}

/// One upsert, or a deletion if there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub table: u8,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// A value that no later life could read back. What goes into a table is bounded so that there
/// is none; the check stands where a record is made, so that a bound that was forgotten stops
/// the node with the name of the table, and before anything that follows from the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {} in table `{}` would have {bytes} bytes", to_hex(.key), .table.name())]
pub struct RecordTooLarge {
    pub table: Table,
    pub key: Vec<u8>,
    pub bytes: usize,
}

impl RecordTooLarge {
    /// Stable reason code.
    pub const CODE: &'static str = "record.too_large";
}

impl Record {
    /// An upsert of a stored form.
    ///
    /// # Errors
    /// [`RecordTooLarge`]: [`Record::load`] would refuse it.
    pub fn store<S: Stored>(key: &[u8], value: &S) -> Result<Self, RecordTooLarge> {
        let mut bytes = vec![S::VERSION];
        bytes.extend(wire::encode(value));
        if bytes.len() > RECORD_MAX_BYTES {
            let (key, bytes) = (key.to_vec(), bytes.len());
            return Err(RecordTooLarge { table: S::TABLE, key, bytes });
        }
        Ok(Self { table: S::TABLE.number(), key: key.to_vec(), value: Some(bytes) })
    }

    /// The value, from the form of its version.
    ///
    /// # Errors
    /// [`Unreadable`], with table and key.
    pub fn load<S: Stored>(&self) -> Result<S, Unreadable> {
        let stored = self.value.as_deref().and_then(<[u8]>::split_first);
        let (&version, body) = stored.ok_or_else(|| self.unreadable(Cause::Malformed))?;
        let read = if version == S::VERSION {
            wire::decode_record(body)
        } else {
            let unknown = Cause::Version { found: version, known: S::VERSION };
            S::from_older(version, body).ok_or_else(|| self.unreadable(unknown))?
        };
        read.map_err(|_| self.unreadable(Cause::Malformed))
    }

    /// The key, where it has a fixed length.
    ///
    /// # Errors
    /// [`Unreadable`]: it has another length.
    pub fn key_array<const LEN: usize>(&self) -> Result<[u8; LEN], Unreadable> {
        self.key.as_slice().try_into().map_err(|_| self.unreadable(Cause::Key))
    }

    /// The error that says that this record cannot be used.
    #[must_use]
    pub fn unreadable(&self, cause: Cause) -> Unreadable {
        Unreadable { table: self.table, key: self.key.clone(), cause }
    }

    /// A deletion.
    #[must_use]
    pub fn delete(table: Table, key: &[u8]) -> Self {
        Self { table: table.number(), key: key.to_vec(), value: None }
    }
}

/// Reads what an earlier release wrote before its form had one more field, the last, with the
/// value that stands for its absence.
///
/// # Errors
/// What the bytes get wrong.
pub fn decode_shorter<S: Stored>(body: &[u8], last: &impl Serialize) -> Result<S, WireError> {
    wire::decode_record(&[body, &wire::encode(last)].concat())
}

/// The records of one stored form, with the record itself for its key.
pub fn records<S: Stored>(
    all: &[Record],
) -> impl Iterator<Item = Result<(&Record, S), Unreadable>> {
    let of_table = all.iter().filter(|record| record.table == S::TABLE.number());
    of_table.map(|record| record.load().map(|value| (record, value)))
}

/// Whether every record is of a table that this release knows.
///
/// # Errors
/// [`Unreadable`] with the first that is not.
pub fn check_tables(all: &[Record]) -> Result<(), Unreadable> {
    let is_foreign = |record: &&Record| {
        record.table < Table::FIRST_OF_SHELL && Table::with_number(record.table).is_none()
    };
    all.iter().find(is_foreign).map_or(Ok(()), |record| Err(record.unreadable(Cause::Table)))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct CapacityV2 {
        units: u32,
        since: u64,
    }

    impl Stored for CapacityV2 {
        const TABLE: Table = Table::Capacity;
        const VERSION: u8 = 2;

        fn from_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
            let from_v1 = |units| Self { units, since: 0 };
            (version == 1).then(|| wire::decode_record(body).map(from_v1))
        }
    }

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Bytes(Vec<u8>);

    impl Stored for Bytes {
        const TABLE: Table = Table::Epoch;
    }

    fn capacity(value: &[u8]) -> Record {
        Record { table: Table::Capacity.number(), key: vec![0, 7], value: Some(value.to_vec()) }
    }

    #[test]
    fn a_stored_form_reads_its_own_version_and_the_one_before() {
        let stored = Record::store(&[0, 7], &CapacityV2 { units: 5, since: 9 }).unwrap();
        let value = [2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(stored, capacity(&value));
        assert_eq!(stored.load(), Ok(CapacityV2 { units: 5, since: 9 }));
        let older = capacity(&[1, 0, 0, 0, 5]);
        assert_eq!(older.load(), Ok(CapacityV2 { units: 5, since: 0 }));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_table_and_key() {
        let malformed = Cause::Malformed;
        let table: [(&[u8], Cause); 6] = [
            (&[3, 0, 0, 0, 5], Cause::Version { found: 3, known: 2 }),
            (&[0], Cause::Version { found: 0, known: 2 }),
            (&[], malformed),
            (&[1, 0, 0, 0], malformed),
            (&[2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0], malformed),
            (&[2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 0], malformed),
        ];
        for (value, cause) in table {
            let error = capacity(value).load::<CapacityV2>().unwrap_err();
            assert_eq!(error, Unreadable { table: 11, key: vec![0, 7], cause }, "{value:?}");
        }
        let deleted = Record::delete(Table::Capacity, &[0, 7]);
        assert_eq!(deleted.load::<CapacityV2>().unwrap_err().cause, malformed);
        let text = capacity(&[3]).load::<CapacityV2>().unwrap_err().to_string();
        assert!(text.contains("record 0007 in table `capacity` (11)"), "{text}");
        assert_eq!(capacity(&[]).key_array::<3>().unwrap_err().cause, Cause::Key);
        assert_eq!(capacity(&[]).key_array(), Ok([0, 7]));
    }

    #[test]
    fn only_records_of_the_table_are_read() {
        let other = Record { table: Table::Proof.number(), key: vec![], value: Some(vec![9]) };
        let all = [other, capacity(&[1, 0, 0, 0, 5])];
        let found: Vec<_> = records::<CapacityV2>(&all).map(Result::unwrap).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.units, 5);
    }

    #[test]
    fn a_table_of_a_later_release_is_noticed_and_those_of_the_shell_are_not_ours() {
        let of = |table| Record { table, key: vec![1], value: Some(vec![]) };
        assert_eq!(check_tables(&[of(1), of(0xe0), of(0x80)]), Ok(()));
        let error = check_tables(&[of(1), of(0x7f)]).unwrap_err();
        assert_eq!((error.table, error.cause), (0x7f, Cause::Table));
        for table in Table::ALL {
            assert_eq!(Table::with_number(table.number()), Some(table));
        }
    }

    #[test]
    fn what_could_not_be_read_back_is_no_record() {
        // The version and a vector's length take some bytes too.
        let beside = 1 + wire::encode(&vec![7_u8; 1 << 20]).len() - (1 << 20);
        let largest = Bytes(vec![7_u8; RECORD_MAX_BYTES - beside]);
        let record = Record::store(b"k", &largest).unwrap();
        assert_eq!(record.value.as_ref().map(Vec::len), Some(RECORD_MAX_BYTES));
        assert_eq!(record.load().as_ref(), Ok(&largest));
        let larger = Bytes(vec![7_u8; largest.0.len() + 1]);
        let refused = Record::store(b"k", &larger).unwrap_err();
        let (key, bytes) = (b"k".to_vec(), RECORD_MAX_BYTES + 1);
        assert_eq!(refused, RecordTooLarge { table: Table::Epoch, key, bytes });
        let text = refused.to_string();
        assert!(text.contains("record 6b in table `epoch` would have 4194305 bytes"), "{text}");
    }
}
