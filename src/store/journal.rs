//! The append-only journal: the truth of the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::StoreError;
use super::layout::{Layout, segment_path};
use super::mark::Mark;
use super::record::{encode_batch, split};
use super::replay::Replay;
use super::schema::Meta;
use super::segment::{Kind, Medium, create_whole, encode_frame, open_append, sync_dir};
use capex_core::engine::Record;

/// Sizes at which the journal starts a new file and at which it compacts itself, in bytes.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// A segment is closed once it is this long. An open reads one into memory at once: this,
    /// and the batch that went beyond it.
    pub segment_bytes: u64,
    /// No compaction below this total: replaying it takes a fraction of a second.
    pub compact_min_bytes: u64,
    /// Compaction starts when the journal is longer than this many times the live records, so
    /// each byte is rewritten about once and the disk holds a bounded multiple of what is live.
    pub compact_factor: u64,
    /// A batch longer than this is written in several frames: what is encoded at once.
    pub frame_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            compact_min_bytes: 64 << 20,
            compact_factor: 2,
            frame_bytes: 1 << 20,
        }
    }
}

/// Bytes of the journal's files, for those who do not own it.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Of every file but the active segment.
    pub(super) sealed: AtomicU64,
    active: AtomicU64,
}

impl Sizes {
    pub(super) fn total(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed) + self.active.load(Ordering::Relaxed)
    }
}

/// The open journal, ready to append.
pub(super) struct Journal {
    dir: PathBuf,
    meta: Meta,
    tuning: Tuning,
    active: Box<dyn Medium>,
    active_path: PathBuf,
    active_first_seq: u64,
    active_bytes: u64,
    sizes: Arc<Sizes>,
    next_seq: u64,
    /// Where it is noted what was acknowledged.
    mark: Mark,
    is_poisoned: bool,
}

impl Journal {
    /// Repairs what a crash left (unfinished files, a torn tail) and opens the last segment.
    pub(super) fn open(
        dir: &Path,
        meta: &Meta,
        tuning: Tuning,
        layout: &Layout,
        replay: &Replay,
        mark: Mark,
    ) -> Result<Self, StoreError> {
        remove_all(dir, &layout.leftovers)?;
        let next_seq = replay.last_seq + 1;
        let first_seq = layout.segments.last().map_or(next_seq, |s| s.seq);
        let path = segment_path(dir, first_seq);
        let keep_bytes = replay.torn.as_ref().map(|t| t.keep_bytes);
        if layout.segments.is_empty() || keep_bytes == Some(0) {
            create_segment(&path, meta, first_seq)?;
        }
        let mut active = open_append(&path)?;
        take_over(&mut active, keep_bytes).map_err(|e| StoreError::io("sync", &path, e))?;
        if let Some(torn) = &replay.torn {
            tracing::warn!(
                file = %path.display(),
                at = torn.keep_bytes,
                bytes = torn.torn_bytes,
                "the end of the journal was an unfinished write and has been cut off"
            );
        }
        let active_bytes = active.metadata().map_err(|e| StoreError::io("read", &path, e))?.len();
        let sizes = Arc::new(Sizes::default());
        sizes.sealed.store(replay.total_bytes - replay.active_bytes, Ordering::Relaxed);
        sizes.active.store(active_bytes, Ordering::Relaxed);
        Ok(Self {
            dir: dir.to_owned(),
            meta: meta.clone(),
            tuning,
            active: Box::new(active),
            active_path: path,
            active_first_seq: first_seq,
            active_bytes,
            sizes,
            next_seq,
            mark,
            is_poisoned: false,
        })
    }

    /// Number of the last batch, zero before the first.
    pub(super) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Bytes of the files, as they grow.
    pub(super) fn sizes(&self) -> Arc<Sizes> {
        Arc::clone(&self.sizes)
    }

    /// Appends one batch and returns its number once it survives a loss of power.
    ///
    /// All its frames have that number; the last is a [`Kind::Batch`], those before it are
    /// [`Kind::More`]. One fsync follows them, and a replay drops a batch without its last frame,
    /// so a batch is there whole or not at all.
    ///
    /// # Errors
    /// On any failure the file is cut back to what was acknowledged before. A failed fsync
    /// leaves it unknown what the disk holds, so the journal then takes nothing more.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<u64, StoreError> {
        if self.is_poisoned {
            return Err(StoreError::Poisoned);
        }
        if self.active_bytes >= self.tuning.segment_bytes {
            self.rotate()?;
        }
        let seq = self.next_seq;
        let batch_bytes = match self.append_frames(seq, records) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.cut_back();
                return Err(error);
            }
        };
        if let Err(source) = self.active.sync() {
            self.cut_back();
            self.is_poisoned = true;
            return Err(StoreError::io("sync", &self.active_path, source));
        }
        self.active_bytes += batch_bytes;
        self.sizes.active.store(self.active_bytes, Ordering::Relaxed);
        self.next_seq += 1;
        self.mark.set(seq);
        Ok(seq)
    }

    /// Writes the frames of a batch and returns their length.
    fn append_frames(&mut self, seq: u64, records: &[Record]) -> Result<u64, StoreError> {
        let mut parts = split(records, self.tuning.frame_bytes).peekable();
        let mut bytes = 0;
        while let Some(part) = parts.next() {
            let kind = if parts.peek().is_some() { Kind::More } else { Kind::Batch };
            let payload = encode_batch(part).ok_or(StoreError::RecordTooLarge)?;
            let frame = encode_frame(kind, seq, &payload);
            self.active
                .append(&frame)
                .map_err(|source| StoreError::io("append to", &self.active_path, source))?;
            bytes += frame.len() as u64;
        }
        Ok(bytes)
    }

    fn cut_back(&mut self) {
        if self.active.truncate(self.active_bytes).is_err() {
            self.is_poisoned = true;
        }
    }

    /// Lets everything up to now end with a file, and returns the number of the last batch in
    /// it.
    pub(super) fn seal(&mut self) -> Result<u64, StoreError> {
        if self.is_poisoned {
            return Err(StoreError::Poisoned);
        }
        if self.next_seq > self.active_first_seq {
            self.rotate()?;
        }
        Ok(self.last_seq())
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        let path = segment_path(&self.dir, self.next_seq);
        let header_bytes = create_segment(&path, &self.meta, self.next_seq)?;
        self.active = Box::new(open_append(&path)?);
        self.sizes.sealed.fetch_add(self.active_bytes, Ordering::Relaxed);
        self.sizes.active.store(header_bytes, Ordering::Relaxed);
        self.active_path = path;
        self.active_first_seq = self.next_seq;
        self.active_bytes = header_bytes;
        Ok(())
    }
}

/// Makes durable what a replay has read of the last segment, and cuts off what does not count. A
/// process that was killed may have left its last batch in memory of the system alone; from here on
/// the index and what is promised build on it.
fn take_over(active: &mut dyn Medium, keep_bytes: Option<u64>) -> std::io::Result<()> {
    match keep_bytes {
        Some(keep @ 1..) => active.truncate(keep),
        Some(0) | None => active.sync(),
    }
}

fn create_segment(path: &Path, meta: &Meta, first_seq: u64) -> Result<u64, StoreError> {
    let header = encode_frame(Kind::Header, first_seq, &meta.encode());
    create_whole(path, |file| file.write(&header))?;
    Ok(header.len() as u64)
}

/// Removes files of a directory for good.
pub(super) fn remove_all(dir: &Path, files: &[PathBuf]) -> Result<(), StoreError> {
    for file in files {
        fs::remove_file(file).map_err(|e| StoreError::io("remove", file, e))?;
    }
    if files.is_empty() { Ok(()) } else { sync_dir(dir) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;

    use super::*;
    use crate::store::places::Live;
    use crate::store::upsert;

    /// A disk that takes `left` more bytes, and fails its fsync if told so.
    struct Failing {
        file: File,
        left: usize,
        sync_fails: bool,
    }

    impl Medium for Failing {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            let fits = bytes.len().min(self.left);
            self.left -= fits;
            self.file.append(&bytes[..fits])?;
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.sync_fails { Err(io::Error::other("lost page")) } else { self.file.sync() }
        }

        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.file.truncate(len)
        }
    }

    fn meta() -> Meta {
        Meta { network: "devnet".into(), magic: *b"capx" }
    }

    fn open(dir: &Path) -> (Journal, Live) {
        let layout = Layout::scan(dir).unwrap();
        let mut replay = Replay::read(&layout, &meta(), u64::MAX).unwrap();
        assert_eq!(replay.torn, None, "a failed write must leave whole frames");
        let journal = Journal::open(
            dir,
            &meta(),
            Tuning::default(),
            &layout,
            &replay,
            Mark::open(dir).unwrap(),
        )
        .unwrap();
        replay.settle();
        (journal, replay.base)
    }

    fn put(n: u64) -> [Record; 1] {
        [upsert(1, n.to_be_bytes(), vec![7; 50])]
    }

    #[test]
    fn a_full_disk_refuses_the_batch_and_keeps_the_acknowledged_ones() {
        for left in 0..80 {
            let dir = tempfile::tempdir().unwrap();
            let (mut journal, _) = open(dir.path());
            journal.append(&put(1)).unwrap();
            let file = open_append(&journal.active_path).unwrap();
            journal.active = Box::new(Failing { file, left, sync_fails: false });
            let error = journal.append(&put(2)).unwrap_err();
            assert_eq!(error.code(), "store.full");
            drop(journal);
            let (mut journal, live) = open(dir.path());
            assert_eq!(live.len(), 1);
            assert_eq!(journal.append(&put(3)).unwrap(), 2);
            assert_eq!(open(dir.path()).1.len(), 2);
        }
    }

    #[test]
    fn after_a_full_disk_the_same_journal_goes_on_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        let file = open_append(&journal.active_path).unwrap();
        journal.active = Box::new(Failing { file, left: 30, sync_fails: false });
        assert!(journal.append(&put(1)).is_err());
        journal.active = Box::new(open_append(&journal.active_path).unwrap());
        assert_eq!(journal.append(&put(1)).unwrap(), 1);
        assert_eq!(open(dir.path()).1.len(), 1);
    }

    /// A last batch that only a process which is gone has seen written.
    #[test]
    fn what_a_replay_has_read_is_fsynced_before_anything_builds_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        for keep_bytes in [None, Some(0)] {
            let file = open_append(&journal.active_path).unwrap();
            let mut disk = Failing { file, left: 0, sync_fails: true };
            assert!(take_over(&mut disk, keep_bytes).is_err());
        }
    }

    #[test]
    fn a_failed_fsync_is_never_acknowledged_and_stops_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        journal.append(&put(1)).unwrap();
        let file = open_append(&journal.active_path).unwrap();
        journal.active = Box::new(Failing { file, left: 1 << 20, sync_fails: true });
        assert_eq!(journal.append(&put(2)).unwrap_err().code(), "store.io");
        assert_eq!(journal.append(&put(2)).unwrap_err().code(), "store.poisoned");
        assert_eq!(open(dir.path()).1.len(), 1);
    }
}
