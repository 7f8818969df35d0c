//! The append-only journal: the truth of the store.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::record::{MAX_FRAME_BYTES, encode_batch, split, upsert};
use super::replay::{Layout, Live, Replay, segment_path, snapshot_path};
use super::schema::Meta;
use super::segment::{Kind, Medium, create_whole, encode_frame, open_append, sync_dir};
use capex_core::engine::Record;

/// Records of a snapshot are written in parts of about this size, in bytes.
const SNAPSHOT_PART_BYTES: usize = 1 << 20;

const _: () = assert!(SNAPSHOT_PART_BYTES <= MAX_FRAME_BYTES);

/// Sizes at which the journal starts a new file and at which it compacts itself, in bytes.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// A segment is closed once it is this long. An open reads one into memory at once: this,
    /// and the batch that went beyond it.
    pub segment_bytes: u64,
    /// No compaction below this total: replaying it takes a fraction of a second.
    pub compact_min_bytes: u64,
    /// Compaction starts when the journal is longer than this many times the live records, so
    /// each byte is rewritten seldom and the disk holds a bounded multiple of what is live.
    pub compact_factor: u64,
    /// A batch longer than this is written in several frames: what is encoded at once.
    pub frame_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            compact_min_bytes: 64 << 20,
            compact_factor: 4,
            frame_bytes: 1 << 20,
        }
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
    /// Bytes of every file but the active segment.
    sealed_bytes: u64,
    next_seq: u64,
    /// Bytes of the last batch appended by this process, zero when there is none to retract.
    last_batch_bytes: u64,
    /// After a failed compaction, the total at which to try again.
    compact_again_bytes: u64,
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
        if let Some(keep @ 1..) = keep_bytes {
            active.truncate(keep).map_err(|e| StoreError::io("truncate", &path, e))?;
        }
        let active_bytes = active.metadata().map_err(|e| StoreError::io("read", &path, e))?.len();
        Ok(Self {
            dir: dir.to_owned(),
            meta: meta.clone(),
            tuning,
            active: Box::new(active),
            active_path: path,
            active_first_seq: first_seq,
            active_bytes,
            sealed_bytes: replay.total_bytes - replay.active_bytes,
            next_seq,
            last_batch_bytes: 0,
            compact_again_bytes: 0,
            is_poisoned: false,
        })
    }

    /// Number of the last batch, zero before the first.
    pub(super) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Bytes of all files.
    pub(super) fn total_bytes(&self) -> u64 {
        self.sealed_bytes + self.active_bytes
    }

    /// Takes the last batch back, because it cannot be acknowledged after all, and takes no
    /// more until the store is opened again.
    pub(super) fn retract(&mut self) {
        self.active_bytes -= self.last_batch_bytes;
        self.next_seq -= u64::from(self.last_batch_bytes > 0);
        self.last_batch_bytes = 0;
        self.cut_back();
        self.is_poisoned = true;
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
        self.last_batch_bytes = batch_bytes;
        self.active_bytes += batch_bytes;
        self.next_seq += 1;
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

    /// Whether the journal has outgrown its live records.
    pub(super) fn wants_compaction(&self, live_bytes: u64) -> bool {
        let total = self.total_bytes();
        total > self.tuning.compact_min_bytes
            && total > live_bytes.saturating_mul(self.tuning.compact_factor)
            && total >= self.compact_again_bytes
    }

    /// Replaces everything before now by one snapshot file.
    ///
    /// A crash between any two steps leaves a directory that opens to the same state: a new
    /// empty segment, an unfinished temporary file, or old files beside the snapshot.
    pub(super) fn compact(&mut self) -> Result<(), StoreError> {
        if self.is_poisoned {
            return Err(StoreError::Poisoned);
        }
        self.compact_again_bytes = self.total_bytes() + self.tuning.segment_bytes;
        if self.next_seq > self.active_first_seq {
            self.rotate()?;
        }
        let layout = Layout::scan(&self.dir)?;
        let live = Replay::read(&layout, &self.meta, u64::MAX)?.into_live();
        let seq = self.last_seq();
        self.sealed_bytes = write_snapshot(&self.dir, &self.meta, seq, &live)?;
        remove_all(&self.dir, &Layout::scan(&self.dir)?.leftovers)?;
        self.compact_again_bytes = 0;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        let path = segment_path(&self.dir, self.next_seq);
        let header_bytes = create_segment(&path, &self.meta, self.next_seq)?;
        self.active = Box::new(open_append(&path)?);
        self.sealed_bytes += self.active_bytes;
        self.active_path = path;
        self.active_first_seq = self.next_seq;
        self.active_bytes = header_bytes;
        self.last_batch_bytes = 0;
        Ok(())
    }
}

fn create_segment(path: &Path, meta: &Meta, first_seq: u64) -> Result<u64, StoreError> {
    let header = encode_frame(Kind::Header, first_seq, &meta.encode());
    create_whole(path, |w| w.write_all(&header))?;
    Ok(header.len() as u64)
}

fn remove_all(dir: &Path, files: &[PathBuf]) -> Result<(), StoreError> {
    for file in files {
        fs::remove_file(file).map_err(|e| StoreError::io("remove", file, e))?;
    }
    if files.is_empty() { Ok(()) } else { sync_dir(dir) }
}

/// Writes the snapshot file for `seq` and returns its length in bytes.
pub(super) fn write_snapshot(
    dir: &Path,
    meta: &Meta,
    seq: u64,
    live: &Live,
) -> Result<u64, StoreError> {
    let path = snapshot_path(dir, seq);
    create_whole(&path, |w| {
        w.write_all(&encode_frame(Kind::Header, seq, &meta.encode()))?;
        write_parts(w, seq, live)?;
        w.write_all(&encode_frame(Kind::End, seq, &(live.len() as u64).to_be_bytes()))
    })?;
    fs::metadata(&path).map(|m| m.len()).map_err(|e| StoreError::io("read", &path, e))
}

fn write_parts(w: &mut dyn Write, seq: u64, live: &Live) -> io::Result<()> {
    let mut part = Vec::new();
    let mut part_bytes = 0;
    for (key, value) in live {
        let Some((table, key)) = key.split_first() else {
            continue;
        };
        let bytes = key.len() + value.len();
        if part_bytes + bytes > SNAPSHOT_PART_BYTES && !part.is_empty() {
            write_part(w, seq, &part)?;
            part.clear();
            part_bytes = 0;
        }
        part.push(upsert(*table, key, value.as_slice()));
        part_bytes += bytes;
    }
    write_part(w, seq, &part)
}

fn write_part(w: &mut dyn Write, seq: u64, part: &[Record]) -> io::Result<()> {
    let too_large = || io::Error::new(io::ErrorKind::InvalidData, "a record over the bound");
    let payload = encode_batch(part).ok_or_else(too_large)?;
    w.write_all(&encode_frame(Kind::Part, seq, &payload))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

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
        let replay = Replay::read(&layout, &meta(), u64::MAX).unwrap();
        assert_eq!(replay.torn, None, "a failed write must leave whole frames");
        let journal = Journal::open(dir, &meta(), Tuning::default(), &layout, &replay).unwrap();
        (journal, replay.into_live())
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
