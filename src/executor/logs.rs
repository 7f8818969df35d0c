//! Standard output and error of a workload: streamed to a file, up to a cap.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bell::Wake;
use capex_core::limits::LEASE_CHUNK_BYTES;

/// Part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The bytes from the offset asked for.
    pub bytes: Vec<u8>,
    /// Nothing will follow: the lease has ended and this was the last of it.
    pub end: bool,
}

/// Reads a file from an offset. An offset behind its end reads nothing.
pub(super) fn read_range(file: &mut File, from: u64, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(max.min(LEASE_CHUNK_BYTES) as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A stream's file. What goes beyond the cap is dropped and counted, and the workload is
/// not told: a chatty program is not a failed one.
#[derive(Clone)]
pub(super) struct CappedLog(Arc<Mutex<Kept>>);

struct Kept {
    file: File,
    bytes: u64,
    dropped: u64,
    cap: u64,
    /// Something came since it was counted.
    is_new: bool,
    wake: Wake,
}

impl CappedLog {
    /// Goes on behind what is there. The first that comes after each count wakes.
    pub(super) fn open(path: &Path, cap: u64, wake: Wake) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        let kept = Kept { file, bytes, dropped: 0, cap, is_new: false, wake };
        Ok(Self(Arc::new(Mutex::new(kept))))
    }

    /// Bytes kept and bytes dropped.
    pub(super) fn counts(&self) -> (u64, u64) {
        let mut kept = self.lock();
        kept.is_new = false;
        (kept.bytes, kept.dropped)
    }

    /// Whether something came since it was counted.
    pub(super) fn is_new(&self) -> bool {
        self.lock().is_new
    }

    /// Makes durable what is kept: from the end of the lease on it counts as delivered.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.lock().file.sync_all()
    }

    /// Keeps what there is room for, and counts the rest.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.lock();
        let room = usize::try_from(kept.cap.saturating_sub(kept.bytes)).unwrap_or(usize::MAX);
        let keep = bytes.len().min(room);
        kept.file.write_all(&bytes[..keep])?;
        kept.bytes += keep as u64;
        kept.dropped = kept.dropped.saturating_add((bytes.len() - keep) as u64);
        if !std::mem::replace(&mut kept.is_new, true) {
            kept.wake.up();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_beyond_the_cap_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let log = CappedLog::open(&path, 10, Wake::default()).unwrap();
        for _ in 0..3 {
            log.append(b"tick\n!").unwrap();
        }
        assert!(log.is_new());
        assert_eq!(log.counts(), (10, 8));
        assert!(!log.is_new());
        assert_eq!(std::fs::read(&path).unwrap(), b"tick\n!tick");
    }

    #[test]
    fn what_the_disk_does_not_take_for_good_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let kept = CappedLog::open(&dir.path().join("stdout"), 10, Wake::default()).unwrap();
        kept.append(b"tick").unwrap();
        kept.sync().unwrap();
        // A device that takes every byte and cannot be synced.
        let lost = CappedLog::open(Path::new("/dev/null"), 10, Wake::default()).unwrap();
        lost.append(b"tick").unwrap();
        assert!(lost.sync().is_err());
    }

    #[test]
    fn ranges_end_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"0123456789").unwrap();
        let mut file = File::open(&path).unwrap();
        for (from, max, expected) in
            [(0, 4, &b"0123"[..]), (8, 4, b"89"), (10, 4, b""), (99, 4, b""), (0, 0, b"")]
        {
            assert_eq!(read_range(&mut file, from, max).unwrap(), expected, "{from}+{max}");
        }
    }
}
