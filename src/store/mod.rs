//! What the node may never forget.
//!
//! Every durable fact is a [`Record`]. [`Store::persist`] appends a batch of them to an
//! append-only, checksummed journal and returns after its fsync; only then are they applied to
//! a sled index that answers queries. The journal is the truth: the index is compared with it
//! at every open, brought up to date, and put aside and rebuilt where it disagrees
//! (DESIGN §9).
//!
//! ```text
//! <dir>/lock                       who holds the store
//! <dir>/journal/segment-<seq>.log  batches from <seq> on
//! <dir>/journal/snapshot-<seq>.log every live record as of <seq>
//! <dir>/index/                     sled
//! <dir>/quarantine-<n>/            indexes that could not be used
//! ```

mod check;
mod error;
mod export;
mod index;
mod journal;
mod lock;
mod record;
mod replay;
mod schema;
mod secret;
mod segment;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub use capex_core::engine::Record;
pub use check::{IndexState, Report, check};
pub use error::StoreError;
pub use export::import;
pub use journal::Tuning;
pub use record::{MAX_FRAME_BYTES, Row, erase, upsert};
pub use schema::{Meta, RESERVED_TABLE, SCHEMA_VERSION};
pub use secret::{SecretError, load_or_create_secret};

use index::{Index, record_bytes};
use journal::Journal;
use lock::DirLock;
use record::full_key;
use replay::{Changes, Layout, Live, Replay};

const JOURNAL_DIR: &str = "journal";
const INDEX_DIR: &str = "index";
const QUARANTINE: &str = "quarantine-";
/// Unusable indexes that are kept for inspection; the journal has all that they held.
const QUARANTINES_KEPT: usize = 3;

/// What an open found and repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Live records.
    pub records: usize,
    /// Where an unusable index went; it was rebuilt from the journal.
    pub quarantined: Option<PathBuf>,
    /// Bytes of an unfinished last write that were cut off. They were never acknowledged.
    pub truncated_bytes: u64,
}

/// The open store of one data directory. Holds its lock until dropped.
pub struct Store {
    meta: Meta,
    journal: Journal,
    index: Index,
    live_bytes: u64,
    _lock: DirLock,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("network", &self.meta.network)
            .field("last_seq", &self.journal.last_seq())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `dir`, or creates it, and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it, [`StoreError::WrongNetwork`],
    /// [`StoreError::NewerSchema`], [`StoreError::Corrupt`] when acknowledged bytes of the
    /// journal are damaged (nothing is changed then), or a failed file operation.
    pub fn open(dir: &Path, meta: &Meta) -> Result<(Self, OpenReport), StoreError> {
        Self::open_with(dir, meta, Tuning::default())
    }

    /// [`Store::open`] with other file sizes.
    pub fn open_with(
        dir: &Path,
        meta: &Meta,
        tuning: Tuning,
    ) -> Result<(Self, OpenReport), StoreError> {
        let journal_dir = dir.join(JOURNAL_DIR);
        create_private_dir(dir)?;
        let lock = DirLock::take(dir)?;
        create_private_dir(&journal_dir)?;
        let layout = Layout::scan(&journal_dir)?;
        if let Some((file, header)) = layout.header()? {
            meta.admit(&file, &header)?;
        }
        let found = open_index(dir);
        let applied_seq = found.as_ref().ok().and_then(|(_, seq)| *seq);
        if layout.is_empty() && applied_seq.is_some_and(|seq| seq > 0) {
            return Err(StoreError::corrupt(&journal_dir, 0, "the journal of the index"));
        }
        let replay = Replay::read(&layout, meta, applied_seq.unwrap_or(u64::MAX))?;
        let journal = Journal::open(&journal_dir, meta, tuning, &layout, &replay)?;
        let truncated_bytes = replay.torn.as_ref().map_or(0, |t| t.torn_bytes);
        let agreed = found.and_then(|(index, seq)| agree(index, seq, &replay));
        let live = replay.into_live();
        let (index, quarantined) = match agreed {
            Ok(Some(index)) => (index, None),
            // New, half filled, or older than the snapshot: nothing to compare it with.
            Ok(None) => (rebuild(dir, &live, journal.last_seq())?, None),
            Err(error) => {
                let aside = quarantine(dir)?;
                tracing::warn!(%error, aside = %aside.display(), "the index is rebuilt");
                (rebuild(dir, &live, journal.last_seq())?, Some(aside))
            }
        };
        let live_bytes = live.iter().map(|(k, v)| record_bytes(k, v)).sum();
        let report = OpenReport { records: live.len(), quarantined, truncated_bytes };
        Ok((Self { meta: meta.clone(), journal, index, live_bytes, _lock: lock }, report))
    }

    /// Makes `records` durable as one atomic batch and returns its journal number.
    ///
    /// An empty batch changes nothing and costs nothing, a batch of any length is one: it may
    /// take several frames of the journal, and counts only if the last of them is there.
    /// When it returns `Ok`, the batch survives a loss of power. After an error nothing of the
    /// batch is there, and the next open sees exactly what was acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`], [`StoreError::RecordTooLarge`],
    /// [`StoreError::ReservedTable`], [`StoreError::Index`]; [`StoreError::Poisoned`] after a
    /// failure that only a new open can repair.
    pub fn persist(&mut self, records: &[Record]) -> Result<u64, StoreError> {
        if let Some(record) = records.iter().find(|r| r.table == RESERVED_TABLE) {
            return Err(StoreError::ReservedTable(record.table));
        }
        if records.is_empty() {
            return Ok(self.last_seq());
        }
        let seq = self.journal.append(records)?;
        let changes: Changes =
            records.iter().map(|r| (full_key(r.table, &r.key), r.value.clone())).collect();
        match self.index.apply(&changes, seq) {
            Ok(delta) => {
                let grown = self.live_bytes.saturating_add(delta.added_bytes);
                self.live_bytes = grown.saturating_sub(delta.removed_bytes);
            }
            Err(error) => {
                self.journal.retract();
                return Err(error);
            }
        }
        if self.journal.wants_compaction(self.live_bytes)
            && let Err(error) = self.compact()
        {
            // The batch is safe already; compaction is tried again after more has been written.
            tracing::warn!(code = error.code(), %error, "the journal could not be compacted");
        }
        Ok(seq)
    }

    /// Every live record, ordered by table and key.
    pub fn load(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        self.index.visit(&[], |table, key, value| {
            records.push(upsert(table, key, value));
            Ok(())
        })?;
        Ok(records)
    }

    /// The value of `key` in `table`.
    pub fn get(&self, table: u8, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.index.get(&full_key(table, key))
    }

    /// Keys and values of `table`, in key order.
    pub fn scan(&self, table: u8) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.index.visit(&[table], |_, key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(rows)
    }

    /// Number of the last acknowledged batch, zero before the first.
    pub fn last_seq(&self) -> u64 {
        self.journal.last_seq()
    }

    /// Bytes of the journal's files.
    pub fn journal_bytes(&self) -> u64 {
        self.journal.total_bytes()
    }

    /// Writes the index to disk with an fsync, so that the next open has little to catch up.
    pub fn durable_flush(&self) -> Result<(), StoreError> {
        self.index.durable_flush()
    }

    /// Replaces the journal's history by a snapshot of the live records. Runs by itself when
    /// the journal has outgrown them; takes time in proportion to the journal.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        // An index older than the snapshot could not be compared with it at the next open.
        self.index.durable_flush()?;
        self.journal.compact()
    }
}

/// Creates `dir` and what is missing above it, each entry durable before anything is put in it.
fn create_private_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_dir(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(StoreError::io("create", dir, e)),
        _ => segment::sync_dir(parent),
    }
}

fn open_index(dir: &Path) -> Result<(Index, Option<u64>), StoreError> {
    let index = Index::open(&dir.join(INDEX_DIR))?;
    let applied_seq = index.applied_seq()?;
    Ok((index, applied_seq))
}

/// Fills the index anew from the journal's state.
fn rebuild(dir: &Path, live: &Live, seq: u64) -> Result<Index, StoreError> {
    let index = Index::open(&dir.join(INDEX_DIR))?;
    index.fill(live, seq)?;
    index.durable_flush()?;
    Ok(index)
}

/// Brings an index up to date with the journal. `None` when it cannot be compared with it; an
/// error means that it cannot be used.
fn agree(
    index: Index,
    applied_seq: Option<u64>,
    replay: &Replay,
) -> Result<Option<Index>, StoreError> {
    let disagree = || StoreError::Index("it disagrees with the journal".to_owned());
    match applied_seq {
        Some(seq) if seq > replay.last_seq => Err(disagree()),
        Some(seq) if seq >= replay.snapshot_seq => {
            if !index.equals(&replay.base)? {
                return Err(disagree());
            }
            index.apply(&replay.pending, replay.last_seq)?;
            Ok(Some(index))
        }
        _ => Ok(None),
    }
}

/// Renames the index away and forgets all but the latest few that went before.
fn quarantine(dir: &Path) -> Result<PathBuf, StoreError> {
    let io = |source| StoreError::io("list", dir, source);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        numbers.extend(name.to_str().and_then(|n| n.strip_prefix(QUARANTINE)?.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    let path_of = |n: u32| dir.join(format!("{QUARANTINE}{n}"));
    let aside = path_of(numbers.last().map_or(1, |n| n.saturating_add(1)));
    let index = dir.join(INDEX_DIR);
    if index.exists() {
        fs::rename(&index, &aside).map_err(|e| StoreError::io("rename", &index, e))?;
    }
    for old in numbers.iter().rev().skip(QUARANTINES_KEPT - 1) {
        let path = path_of(*old);
        fs::remove_dir_all(&path).map_err(|e| StoreError::io("remove", &path, e))?;
    }
    segment::sync_dir(dir)?;
    Ok(aside)
}
