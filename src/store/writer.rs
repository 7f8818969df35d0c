//! The two threads that write: one appends to the journal, the other keeps the index.
//!
//! ```text
//! submit ─► jobs ─► journal thread ─► append, one fsync for all that wait ─► done
//!                        └─► written ─► index thread ─► sled, one batch for all that waits
//!                                             └─► compaction, in a thread of its own
//! ```

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use super::compact::compact;
use super::error::StoreError;
use super::index::{Index, Merged};
use super::journal::{Journal, Sizes, Tuning};
use super::queue::Queue;
use super::record::{encoded_len, full_key};
use super::schema::Meta;
use capex_core::engine::Record;

/// Bytes of records that may wait for the journal or for the index.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Bytes of batches that are written as one. More would not save much: they share one fsync. sled
/// keeps every version of a page that a write makes until the write ends, so one of 64 MiB in
/// small records took over a gigabyte.
const SHARED_BYTES: usize = 1 << 20;

/// Called once a batch is durable, or is not going to be.
pub(super) type Done = Box<dyn FnOnce(Result<u64, StoreError>) + Send>;

pub(super) enum Job {
    Write {
        records: Vec<Record>,
        done: Done,
    },
    /// A batch that cannot be written.
    Refuse {
        error: StoreError,
        done: Done,
    },
    /// Ends the current file, and answers with the number of the last batch in it.
    Seal(mpsc::Sender<Result<u64, StoreError>>),
}

/// A batch that is durable.
struct Written {
    seq: u64,
    records: Vec<Record>,
}

/// How far the index is.
#[derive(Debug, Default)]
struct Progress {
    written_seq: u64,
    indexed_seq: u64,
    index_error: Option<String>,
    has_ended: bool,
}

/// What the threads and the store share.
pub(super) struct Shared {
    journal_dir: PathBuf,
    meta: Meta,
    tuning: Tuning,
    pub(super) jobs: Queue<Job>,
    written: Queue<Written>,
    index: Index,
    pub(super) sizes: Arc<Sizes>,
    live_bytes: AtomicU64,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Held while a compaction runs.
    compacting: Mutex<()>,
    is_compacting: AtomicBool,
    /// After a compaction that failed, the journal's length at which to try again.
    compact_again_bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        journal_dir: PathBuf,
        meta: Meta,
        tuning: Tuning,
        journal: &Journal,
        index: Index,
        live_bytes: u64,
    ) -> Self {
        let seq = journal.last_seq();
        let progress = Progress { written_seq: seq, indexed_seq: seq, ..Progress::default() };
        Self {
            journal_dir,
            meta,
            tuning,
            jobs: Queue::new(WAITING_BYTES_MAX),
            written: Queue::new(WAITING_BYTES_MAX),
            index,
            sizes: journal.sizes(),
            live_bytes: AtomicU64::new(live_bytes),
            progress: Mutex::new(progress),
            changed: Condvar::new(),
            compacting: Mutex::new(()),
            is_compacting: AtomicBool::new(false),
            compact_again_bytes: AtomicU64::new(0),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, progress: MutexGuard<'a, Progress>) -> MutexGuard<'a, Progress> {
        self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of the last batch that is durable.
    pub(super) fn last_seq(&self) -> u64 {
        self.progress().written_seq
    }

    /// The index, once it holds every batch that is durable now.
    pub(super) fn caught_up(&self) -> Result<&Index, StoreError> {
        let mut progress = self.progress();
        let seq = progress.written_seq;
        while progress.indexed_seq < seq && progress.index_error.is_none() && !progress.has_ended {
            progress = self.wait(progress);
        }
        match &progress.index_error {
            Some(error) => Err(StoreError::Index(error.clone())),
            None => Ok(&self.index),
        }
    }

    /// Writes the index to disk with an fsync.
    pub(super) fn flush_index(&self) -> Result<(), StoreError> {
        self.caught_up()?.durable_flush()
    }

    /// Replaces the journal's history by a snapshot.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let again = self.sizes.total() + self.tuning.segment_bytes;
        self.compact_again_bytes.store(again, Ordering::Relaxed);
        let (answer, sealed) = mpsc::channel();
        self.jobs.push(Job::Seal(answer), 0).map_err(|_| StoreError::Poisoned)?;
        let seq = sealed.recv().map_err(|_| StoreError::Poisoned)??;
        // An index older than the snapshot could not be compared with it at the next open, and
        // one that failed is rebuilt then.
        if let Err(error) = self.flush_index() {
            tracing::warn!(code = error.code(), %error, "compaction goes on without the index");
        }
        compact(&self.journal_dir, &self.meta, seq, &self.sizes)?;
        self.compact_again_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn wants_compaction(&self) -> bool {
        let total = self.sizes.total();
        let live = self.live_bytes.load(Ordering::Relaxed);
        total > self.tuning.compact_min_bytes
            && total > live.saturating_mul(self.tuning.compact_factor)
            && total >= self.compact_again_bytes.load(Ordering::Relaxed)
    }

    /// Waits until the index has caught up and no compaction runs or is due.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        self.caught_up()?;
        while self.is_compacting.load(Ordering::Acquire) {
            drop(self.compacting.lock().unwrap_or_else(PoisonError::into_inner));
            thread::yield_now();
        }
        Ok(())
    }
}

/// Ends with the thread that writes, also where that panics: who waits for the disk then, and who
/// comes later, is told that nothing is written any more.
struct Writing<'a>(&'a Shared);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.jobs.close();
        while let Some(left) = self.0.jobs.take_all() {
            for job in left {
                match job {
                    Job::Write { done, .. } | Job::Refuse { done, .. } => {
                        done(Err(StoreError::Poisoned));
                    }
                    // Who asked finds the other end gone.
                    Job::Seal(_) => {}
                }
            }
        }
        self.0.written.close();
    }
}

/// Appends what waits until the queue of jobs is closed.
pub(super) fn run_journal(shared: &Shared, mut journal: Journal) {
    let _writing = Writing(shared);
    let mut has_failed = false;
    while let Some(jobs) = shared.jobs.take_all() {
        let mut waiting = Vec::new();
        for job in jobs {
            match job {
                Job::Write { records, done } => waiting.push((records, done)),
                Job::Refuse { error, done } => {
                    write(shared, &mut journal, &mut has_failed, std::mem::take(&mut waiting));
                    let error = if has_failed { StoreError::Poisoned } else { error };
                    has_failed = true;
                    done(Err(error));
                }
                Job::Seal(answer) => {
                    write(shared, &mut journal, &mut has_failed, std::mem::take(&mut waiting));
                    // Who asked may have given up.
                    let _ = answer.send(journal.seal());
                }
            }
        }
        write(shared, &mut journal, &mut has_failed, waiting);
    }
}

/// Writes all of `waiting`, as many together as may be. After a failure nothing is written any
/// more: what comes later may build on what was lost.
fn write(
    shared: &Shared,
    journal: &mut Journal,
    has_failed: &mut bool,
    waiting: Vec<(Vec<Record>, Done)>,
) {
    let (mut batch, mut dones, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (records, done) in waiting {
        bytes += records.iter().map(encoded_len).sum::<usize>();
        batch.extend(records);
        dones.push(done);
        if bytes >= SHARED_BYTES {
            let (batch, dones) = (std::mem::take(&mut batch), std::mem::take(&mut dones));
            write_batch(shared, journal, has_failed, batch, dones);
            bytes = 0;
        }
    }
    if !dones.is_empty() {
        write_batch(shared, journal, has_failed, batch, dones);
    }
}

fn write_batch(
    shared: &Shared,
    journal: &mut Journal,
    has_failed: &mut bool,
    batch: Vec<Record>,
    dones: Vec<Done>,
) {
    let written = if *has_failed { Err(StoreError::Poisoned) } else { journal.append(&batch) };
    match written {
        Ok(seq) => {
            shared.progress().written_seq = seq;
            dones.into_iter().for_each(|done| done(Ok(seq)));
            let bytes = batch.iter().map(encoded_len).sum();
            // The queue is closed by this thread only.
            let _ = shared.written.push(Written { seq, records: batch }, bytes);
        }
        Err(error) => {
            *has_failed = true;
            let mut error = Some(error);
            for done in dones {
                done(Err(error.take().unwrap_or(StoreError::Poisoned)));
            }
        }
    }
}

/// Keeps the index up to date until the queue of written batches is closed.
pub(super) fn run_index(shared: &Arc<Shared>) {
    let mut compaction: Option<thread::JoinHandle<()>> = None;
    while let Some(written) = shared.written.take_all() {
        let Some(seq) = written.back().map(|last| last.seq) else { continue };
        let applied = apply_all(shared, written);
        let mut progress = shared.progress();
        progress.indexed_seq = seq;
        if let Err(error) = applied {
            tracing::error!(code = error.code(), %error, "history cannot be read in this run");
            progress.index_error.get_or_insert(error.to_string());
        }
        drop(progress);
        if shared.wants_compaction() && !shared.is_compacting.swap(true, Ordering::AcqRel) {
            if let Some(before) = compaction.take() {
                // It has ended, or it could not have been started again.
                let _ = before.join();
            }
            compaction = start_compaction(shared);
        }
        shared.changed.notify_all();
    }
    shared.progress().has_ended = true;
    shared.changed.notify_all();
    if let Some(last) = compaction {
        let _ = last.join();
    }
}

/// Applies batches in their order, a few together.
fn apply_all(shared: &Shared, written: VecDeque<Written>) -> Result<(), StoreError> {
    let (mut together, mut bytes) = (Vec::new(), 0);
    for batch in written {
        bytes += batch.records.iter().map(encoded_len).sum::<usize>();
        together.push(batch);
        if bytes >= SHARED_BYTES {
            apply(shared, std::mem::take(&mut together))?;
            bytes = 0;
        }
    }
    apply(shared, together)
}

fn apply(shared: &Shared, written: Vec<Written>) -> Result<(), StoreError> {
    let Some(seq) = written.last().map(|last| last.seq) else { return Ok(()) };
    if let Some(error) = &shared.progress().index_error {
        return Err(StoreError::Index(error.clone()));
    }
    let mut merged = Merged::new();
    for record in written.into_iter().flat_map(|batch| batch.records) {
        merged.insert(full_key(record.table, &record.key), record.value);
    }
    let delta = shared.index.apply(&merged, seq)?;
    shared.live_bytes.fetch_add(delta.added_bytes, Ordering::Relaxed);
    shared.live_bytes.fetch_sub(delta.removed_bytes, Ordering::Relaxed);
    Ok(())
}

fn start_compaction(shared: &Arc<Shared>) -> Option<thread::JoinHandle<()>> {
    let worker = Arc::clone(shared);
    let thread = thread::Builder::new().name("store-compact".to_owned()).spawn(move || {
        if let Err(error) = worker.compact() {
            // Nothing is lost: it is tried again after more has been written.
            tracing::warn!(code = error.code(), %error, "the journal could not be compacted");
        }
        worker.is_compacting.store(false, Ordering::Release);
    });
    if thread.is_err() {
        shared.is_compacting.store(false, Ordering::Release);
    }
    thread.ok()
}
