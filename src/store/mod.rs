//! What the node may never forget.
//!
//! Every durable fact is a [`Record`]. [`Store::submit`] hands a batch of them to a thread that
//! appends to an append-only, checksummed journal, one fsync for all that wait; only then are
//! they applied, in another thread, to a sled index that answers queries. The journal is the
//! truth: the index is compared with it at every open, brought up to date, and put aside and
//! rebuilt where it disagrees.
//!
//! ```text
//! <dir>/lock                       who holds the store
//! <dir>/acknowledged              number of the last batch that was promised
//! <dir>/journal/segment-<seq>.log  batches from <seq> on
//! <dir>/journal/snapshot-<seq>.log every live record as of <seq>
//! <dir>/index/                     sled
//! <dir>/quarantine-<n>/            indexes that could not be used
//! ```

mod check;
mod compact;
mod error;
mod export;
mod index;
mod journal;
mod key_file;
mod layout;
mod lock;
mod mark;
mod places;
mod queue;
mod record;
mod replay;
mod schema;
mod seal;
mod secret;
mod segment;
mod writer;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};

pub use capex_core::engine::Record;
pub use check::{IndexState, Report, check};
pub use error::StoreError;
pub use export::import;
pub use journal::Tuning;
pub use key_file::{
    create_secret, is_open_secret, load_or_create_secret, load_secret, replace_secret,
};
pub use lock::holder;
pub use record::{MAX_FRAME_BYTES, Row, erase, upsert};
pub use schema::{Meta, RESERVED_TABLE, SCHEMA_VERSION};
pub use seal::{Password, SealError, Sealer, unseal};
pub use secret::{
    IDENTITY_FILE, SEED_FILE, SecretError, create_private, read_private, replace_private,
};

use index::{Index, record_bytes};
use journal::Journal;
use layout::Layout;
use lock::DirLock;
use mark::Mark;
use record::{BATCH_HEAD_BYTES, encoded_len, full_key};
use replay::Replay;
use writer::{Done, Job, Shared};

/// Directory of the store in a data directory.
pub const DIR: &str = "store";

const JOURNAL_DIR: &str = "journal";
const INDEX_DIR: &str = "index";
const QUARANTINE: &str = "quarantine-";
/// Unusable indexes that are kept for inspection; the journal has all that they held.
const QUARANTINES_KEPT: usize = 3;

/// What an open found and repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    pub records: usize,
    /// Where an unusable index went; it was rebuilt from the journal.
    pub quarantined: Option<PathBuf>,
    /// Bytes of an unfinished last write that were cut off. They were never acknowledged.
    pub truncated_bytes: u64,
}

/// Who is told that records of some tables have become durable.
struct Observer {
    is_wanted: Box<dyn Fn(u8) -> bool + Send + Sync>,
    tell: Arc<dyn Fn() + Send + Sync>,
}

/// The open store of one data directory. Holds its lock until dropped.
///
/// Its methods take `&self`, so it is shared as it is. Dropping it waits until what was submitted
/// is written.
pub struct Store {
    meta: Meta,
    shared: Arc<Shared>,
    observer: OnceLock<Observer>,
    threads: Vec<JoinHandle<()>>,
    _lock: DirLock,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("network", &self.meta.network)
            .field("last_seq", &self.last_seq())
            .finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.jobs.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to write.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Opens the store in `dir`, or creates it, and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it, [`StoreError::WrongNetwork`],
    /// [`StoreError::NewerSchema`], [`StoreError::OlderSchema`], [`StoreError::Corrupt`] when
    /// acknowledged bytes of the journal are damaged, [`StoreError::Lost`] when they are gone
    /// (nothing is changed then), or a failed file operation.
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
        let mut replay = Replay::read(&layout, meta, applied_seq.unwrap_or(u64::MAX))?;
        mark::admit(&journal_dir, replay.last_seq, mark::read(dir).max(applied_seq))?;
        let mark = Mark::open(dir)?;
        let journal = Journal::open(&journal_dir, meta, tuning.clone(), &layout, &replay, mark)?;
        let agreed = found.and_then(|(index, seq)| agree(index, seq, &mut replay));
        replay.settle();
        let (index, quarantined) = settle_index(dir, agreed, &mut replay)?;
        let report = OpenReport {
            records: replay.base.len(),
            quarantined,
            truncated_bytes: replay.torn.as_ref().map_or(0, |t| t.torn_bytes),
        };
        let live = replay.base.iter().map(|(key, place)| record_bytes(key, place.len as usize));
        let live_bytes = live.sum();
        drop(replay);
        let shared = Shared::new(journal_dir, meta.clone(), tuning, &journal, index, live_bytes);
        let shared = Arc::new(shared);
        let threads = start(&shared, journal).map_err(|e| StoreError::io("start", dir, e))?;
        let observer = OnceLock::new();
        Ok((Self { meta: meta.clone(), shared, observer, threads, _lock: lock }, report))
    }

    /// Queues `records` as one atomic batch and calls `done` once it survives a loss of power,
    /// with its number in the journal, or once it is clear that it does not.
    ///
    /// Batches become durable in the order in which they are submitted; those that wait share
    /// one fsync and one number. `done` runs on the thread that writes, so it only passes the
    /// word on. Waits only while 64 MiB of other records do. After a failure every later batch is
    /// refused, since it may build on the one that was lost; the next open sees exactly what was
    /// acknowledged.
    ///
    /// # Errors
    /// Through `done`: [`StoreError::Full`], [`StoreError::Io`], [`StoreError::RecordTooLarge`],
    /// [`StoreError::ReservedTable`], [`StoreError::Poisoned`] after a failure.
    pub fn submit(
        &self,
        records: Vec<Record>,
        done: impl FnOnce(Result<u64, StoreError>) + Send + 'static,
    ) {
        if records.is_empty() {
            return done(Ok(self.last_seq()));
        }
        let told = self.observer.get().filter(|o| records.iter().any(|r| (o.is_wanted)(r.table)));
        let done: Done = match told.map(|observer| Arc::clone(&observer.tell)) {
            None => Box::new(done),
            Some(tell) => Box::new(move |result| {
                if result.is_ok() {
                    tell();
                }
                done(result);
            }),
        };
        let (job, bytes) = match refuse(&records) {
            Some(error) => (Job::Refuse { error, done }, 0),
            None => {
                let bytes = records.iter().map(encoded_len).sum();
                (Job::Write { records, done }, bytes)
            }
        };
        if let Err(Job::Write { done, .. } | Job::Refuse { done, .. }) =
            self.shared.jobs.push(job, bytes)
        {
            done(Err(StoreError::Poisoned));
        }
    }

    /// [`Store::submit`], and waits.
    ///
    /// # Errors
    /// As [`Store::submit`].
    pub fn persist(&self, records: &[Record]) -> Result<u64, StoreError> {
        let (answer, written) = mpsc::channel();
        self.submit(records.to_vec(), move |result| {
            // The other end waits below.
            let _ = answer.send(result);
        });
        written.recv().unwrap_or(Err(StoreError::Poisoned))
    }

    /// Calls `tell` after each batch that changed a table of interest, once it is durable. It
    /// runs on the thread that writes, so it only passes the word on. The first call counts.
    pub fn on_durable(
        &self,
        is_wanted: impl Fn(u8) -> bool + Send + Sync + 'static,
        tell: impl Fn() + Send + Sync + 'static,
    ) {
        let observer = Observer { is_wanted: Box::new(is_wanted), tell: Arc::new(tell) };
        // A second one is a mistake of the program, and changes nothing.
        let _ = self.observer.set(observer);
    }

    /// The index, once it holds everything that is durable now.
    fn caught_up(&self) -> Result<&Index, StoreError> {
        self.shared.caught_up()
    }

    /// Every live record, ordered by table and key.
    pub fn load(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        self.caught_up()?.visit(&[], |table, key, value| {
            records.push(upsert(table, key, value));
            Ok(())
        })?;
        Ok(records)
    }

    /// The value of `key` in `table`.
    pub fn get(&self, table: u8, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.caught_up()?.get(&full_key(table, key))
    }

    /// Keys and values of `table`, in key order.
    pub fn scan(&self, table: u8) -> Result<Vec<Row>, StoreError> {
        self.scan_prefix(table, &[])
    }

    /// Keys and values of `table` whose keys begin with `prefix`, in key order.
    pub fn scan_prefix(&self, table: u8, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.caught_up()?.visit(&full_key(table, prefix), |_, key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(rows)
    }

    /// Up to `limit` records of `table` with keys after `after`, in key order; from the first
    /// one without it.
    pub fn page(
        &self,
        table: u8,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.caught_up()?.page(table, after, limit)
    }

    /// Up to `limit` records of `table` with keys before `before`, the last one first; from the
    /// last one without it.
    pub fn page_back(
        &self,
        table: u8,
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.caught_up()?.page_back(table, before, limit)
    }

    /// The records of `table` whose keys are wanted, in key order. Reads the whole table.
    pub fn select(
        &self,
        table: u8,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.caught_up()?.visit(&[table], |_, key, value| {
            if is_wanted(key) {
                rows.push((key.to_vec(), value.to_vec()));
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Number of the last acknowledged batch, zero before the first.
    pub fn last_seq(&self) -> u64 {
        self.shared.last_seq()
    }

    /// Bytes of the journal's files.
    pub fn journal_bytes(&self) -> u64 {
        self.shared.sizes.total()
    }

    /// Writes the index to disk with an fsync, so that the next open has little to catch up.
    pub fn durable_flush(&self) -> Result<(), StoreError> {
        self.shared.flush_index()
    }

    /// Replaces the journal's history by a snapshot of the live records. Runs by itself, in a
    /// thread of its own, when the journal has outgrown them; takes time in proportion to the
    /// journal.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.shared.compact()
    }

    /// Waits until the index has caught up and a compaction that began has ended.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.shared.settle()
    }
}

/// Why a batch cannot be written, whatever the disk says.
fn refuse(records: &[Record]) -> Option<StoreError> {
    let fault = |record: &Record| match record {
        record if record.table == RESERVED_TABLE => Some(StoreError::ReservedTable(record.table)),
        record if encoded_len(record) + BATCH_HEAD_BYTES > MAX_FRAME_BYTES => {
            Some(StoreError::RecordTooLarge)
        }
        _ => None,
    };
    records.iter().find_map(fault)
}

/// Starts the threads that write.
fn start(shared: &Arc<Shared>, journal: Journal) -> std::io::Result<Vec<JoinHandle<()>>> {
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    let worker = Arc::clone(shared);
    let index = named("store-index").spawn(move || writer::run_index(&worker))?;
    let worker = Arc::clone(shared);
    let journal = named("store-journal").spawn(move || writer::run_journal(&worker, journal))?;
    Ok(vec![journal, index])
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

/// The index to go on with: the one that agrees, or a new one from the journal's state.
fn settle_index(
    dir: &Path,
    agreed: Result<Option<Index>, StoreError>,
    replay: &mut Replay,
) -> Result<(Index, Option<PathBuf>), StoreError> {
    match agreed {
        Ok(Some(index)) => Ok((index, None)),
        // New, half filled, or older than the snapshot: nothing to compare it with.
        Ok(None) => Ok((rebuild(dir, replay)?, None)),
        Err(error) => {
            let aside = quarantine(dir)?;
            tracing::warn!(%error, aside = %aside.display(), "the index is rebuilt");
            Ok((rebuild(dir, replay)?, Some(aside)))
        }
    }
}

/// Fills the index anew from the journal's state.
fn rebuild(dir: &Path, replay: &mut Replay) -> Result<Index, StoreError> {
    let index = Index::open(&dir.join(INDEX_DIR))?;
    index.fill(&replay.base, &mut replay.values, replay.last_seq)?;
    index.durable_flush()?;
    Ok(index)
}

/// Brings an index up to date with the journal. `None` when it cannot be compared with it; an
/// error means that it cannot be used.
fn agree(
    index: Index,
    applied_seq: Option<u64>,
    replay: &mut Replay,
) -> Result<Option<Index>, StoreError> {
    let disagree = || StoreError::Index("it disagrees with the journal".to_owned());
    match applied_seq {
        Some(seq) if seq >= replay.snapshot_seq => {
            if !index.equals(&replay.base)? {
                return Err(disagree());
            }
            index.apply(&replay.pending_values()?, replay.last_seq)?;
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
