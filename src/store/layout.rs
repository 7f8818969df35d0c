//! The files of a journal, and which of them count.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::segment::{Frame, FrameReader, Kind, TEMPORARY};

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
            let mut frames = FrameReader::open(&file.path)?;
            if let Some(Frame { kind: Kind::Header, payload, .. }) = frames.next()? {
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
