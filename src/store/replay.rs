//! Reading a journal: which files count, and which state they add up to. Changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::record::{decode_batch, full_key};
use super::schema::Meta;
use super::segment::{Frame, Frames, Kind, TEMPORARY};
use capex_core::engine::Record;

/// The live records by full key.
pub(super) type Live = BTreeMap<Vec<u8>, Vec<u8>>;
/// The last change of each key in a stretch of the journal.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

const SEGMENT: &str = "segment-";
const SNAPSHOT: &str = "snapshot-";
const EXTENSION: &str = "log";

/// A journal file and the sequence number in its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Numbered {
    pub(super) seq: u64,
    pub(super) path: PathBuf,
}

/// Path of the segment whose first batch is `seq`.
pub(super) fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{SEGMENT}{seq:016x}.{EXTENSION}"))
}

/// Path of the snapshot that stands for every batch up to and including `seq`.
pub(super) fn snapshot_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{SNAPSHOT}{seq:016x}.{EXTENSION}"))
}

/// The files of a journal directory.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The latest snapshot.
    pub(super) snapshot: Option<Numbered>,
    /// Segments after the snapshot, in order.
    pub(super) segments: Vec<Numbered>,
    /// What a crash left behind: unfinished files, and files that the snapshot replaces.
    pub(super) leftovers: Vec<PathBuf>,
}

impl Layout {
    /// Lists `dir`; a directory that does not exist is an empty journal.
    pub(super) fn scan(dir: &Path) -> Result<Self, StoreError> {
        let mut layout = Self::default();
        if !dir.exists() {
            return Ok(layout);
        }
        let io = |source| StoreError::io("list", dir, source);
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|e| e == TEMPORARY) {
                layout.leftovers.push(path);
            } else if let Some(seq) = number(&path, SNAPSHOT) {
                snapshots.push(Numbered { seq, path });
            } else if let Some(seq) = number(&path, SEGMENT) {
                layout.segments.push(Numbered { seq, path });
            }
        }
        snapshots.sort();
        layout.segments.sort();
        layout.snapshot = snapshots.pop();
        layout.leftovers.extend(snapshots.into_iter().map(|s| s.path));
        // A snapshot is taken right after a rotation, so a segment that begins at or before
        // its number also ends there.
        let after = layout.snapshot.as_ref().map_or(0, |s| s.seq);
        let old = layout.segments.partition_point(|s| s.seq <= after);
        layout.leftovers.extend(layout.segments.drain(..old).map(|s| s.path));
        Ok(layout)
    }

    /// Whether there is no journal yet.
    pub(super) fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.segments.is_empty()
    }

    /// Network and schema of the first file that has a sound header.
    pub(super) fn header(&self) -> Result<Option<(PathBuf, Vec<u8>)>, StoreError> {
        for file in self.snapshot.iter().chain(&self.segments) {
            let bytes = read(&file.path)?;
            if let Some(Frame { kind: Kind::Header, payload, .. }) = Frames::new(&bytes).next() {
                return Ok(Some((file.path.clone(), payload.to_vec())));
            }
        }
        Ok(None)
    }
}

fn number(path: &Path, prefix: &str) -> Option<u64> {
    let stem = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let hex = stem.strip_prefix(prefix)?;
    (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok()).flatten()
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|e| StoreError::io("read", path, e))
}

/// A last frame that an interrupted write left unfinished.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// Bytes of the file that count; zero when even its header is unfinished.
    pub(super) keep_bytes: u64,
    /// Bytes behind them.
    pub(super) torn_bytes: u64,
}

/// The state that a journal adds up to, cut in two at a sequence number.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// State after the batch where the cut is.
    pub(super) base: Live,
    /// What later batches change.
    pub(super) pending: Changes,
    /// Number of the snapshot, zero without one.
    pub(super) snapshot_seq: u64,
    /// Number of the last batch.
    pub(super) last_seq: u64,
    /// Bytes of all files that count.
    pub(super) total_bytes: u64,
    /// Bytes of the last segment.
    pub(super) active_bytes: u64,
    /// The unfinished end of the last segment.
    pub(super) torn: Option<Torn>,
    /// Records of a batch whose last frame has not come yet.
    unfinished: Vec<Record>,
}

impl Replay {
    /// Reads every file of `layout`; batches after `cut_seq` go to [`Replay::pending`].
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with file and offset when an acknowledged byte is damaged or a
    /// file is missing; wrong network and newer schema as [`Meta::admit`] says.
    pub(super) fn read(layout: &Layout, meta: &Meta, cut_seq: u64) -> Result<Self, StoreError> {
        let mut replay = Self::default();
        if let Some(snapshot) = &layout.snapshot {
            replay.read_snapshot(snapshot, meta)?;
        }
        for (i, segment) in layout.segments.iter().enumerate() {
            let is_last = i + 1 == layout.segments.len();
            replay.read_segment(segment, meta, is_last, cut_seq)?;
        }
        Ok(replay)
    }

    /// The state after the last batch.
    pub(super) fn into_live(self) -> Live {
        let mut live = self.base;
        for (key, value) in self.pending {
            match value {
                Some(value) => live.insert(key, value),
                None => live.remove(&key),
            };
        }
        live
    }

    fn read_snapshot(&mut self, file: &Numbered, meta: &Meta) -> Result<(), StoreError> {
        let bytes = read(&file.path)?;
        let mut frames = Frames::new(&bytes);
        let corrupt = |at, what| StoreError::corrupt(&file.path, at, what);
        let header = frames.next().filter(|f| f.kind == Kind::Header && f.seq == file.seq);
        meta.admit(&file.path, header.ok_or_else(|| corrupt(0, "a header"))?.payload)?;
        let mut end = None;
        while end.is_none() {
            let at = frames.offset();
            match frames.next() {
                Some(Frame { kind: Kind::Part, payload, .. }) => {
                    let records = decode_batch(payload).ok_or_else(|| corrupt(at, "records"))?;
                    for record in records {
                        let key = full_key(record.table, &record.key);
                        self.base.insert(key, record.value.unwrap_or_default());
                    }
                }
                Some(Frame { kind: Kind::End, payload, .. }) => end = Some(payload.to_vec()),
                _ => return Err(corrupt(at, "a part of the snapshot")),
            }
        }
        let count = (self.base.len() as u64).to_be_bytes();
        if !frames.at_end() || end.as_deref() != Some(&count[..]) {
            return Err(corrupt(frames.offset(), "the end of the snapshot"));
        }
        self.snapshot_seq = file.seq;
        self.last_seq = file.seq;
        self.total_bytes += bytes.len() as u64;
        Ok(())
    }

    fn read_segment(
        &mut self,
        file: &Numbered,
        meta: &Meta,
        is_last: bool,
        cut_seq: u64,
    ) -> Result<(), StoreError> {
        if file.seq != self.last_seq + 1 {
            return Err(StoreError::corrupt(&file.path, 0, "an earlier segment is missing"));
        }
        let bytes = read(&file.path)?;
        let mut frames = Frames::new(&bytes);
        match frames.next() {
            Some(f) if f.kind == Kind::Header && f.seq == file.seq => {
                meta.admit(&file.path, f.payload)?;
            }
            Some(_) => return Err(StoreError::corrupt(&file.path, 0, "a header")),
            None => return self.stopped(file, &frames, &bytes, 0, is_last),
        }
        let (mut at, mut whole) = (frames.offset(), frames.offset());
        while let Some(frame) = frames.next() {
            self.take_frame(frame, cut_seq)
                .ok_or_else(|| StoreError::corrupt(&file.path, at, "the next batch"))?;
            at = frames.offset();
            if frame.kind == Kind::Batch {
                whole = at;
            }
        }
        self.unfinished.clear();
        self.stopped(file, &frames, &bytes, whole, is_last)
    }

    /// Judges the place where the walk through a segment stopped; what is `whole` before it
    /// counts.
    fn stopped(
        &mut self,
        file: &Numbered,
        frames: &Frames<'_>,
        bytes: &[u8],
        whole: usize,
        is_last: bool,
    ) -> Result<(), StoreError> {
        let keep_bytes = whole as u64;
        if whole < bytes.len() || keep_bytes == 0 {
            // Without a header the segment's first batch is not expected yet.
            let expected_seq = self.last_seq + u64::from(keep_bytes > 0);
            if !is_last || frames.later_frame_follows(expected_seq) {
                return Err(StoreError::corrupt(&file.path, frames.offset(), "a sound frame"));
            }
            let torn_bytes = bytes.len() as u64 - keep_bytes;
            self.torn = Some(Torn { keep_bytes, torn_bytes });
        }
        self.total_bytes += keep_bytes;
        self.active_bytes = keep_bytes;
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame<'_>, cut_seq: u64) -> Option<()> {
        if !matches!(frame.kind, Kind::Batch | Kind::More) || frame.seq != self.last_seq + 1 {
            return None;
        }
        self.unfinished.extend(decode_batch(frame.payload)?);
        if frame.kind == Kind::Batch {
            self.last_seq = frame.seq;
            for record in std::mem::take(&mut self.unfinished) {
                self.take_record(record, frame.seq > cut_seq);
            }
        }
        Some(())
    }

    fn take_record(&mut self, record: Record, is_pending: bool) {
        let key = full_key(record.table, &record.key);
        match record.value {
            value if is_pending => {
                self.pending.insert(key, value);
            }
            Some(value) => {
                self.base.insert(key, value);
            }
            None => {
                self.base.remove(&key);
            }
        }
    }
}
