//! How far the journal was acknowledged, in a small file beside it.
//!
//! A journal whose end is gone looks like one that never had it. This number tells them apart,
//! with the index or without. It is written after each fsync of the journal and without one of
//! its own: so it survives the end of the process, after a loss of power it may be behind, and it
//! is never ahead.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::error::StoreError;

/// Name of the file in the store's directory.
pub(super) const FILE: &str = "acknowledged";
/// A number and its checksum.
const BYTES: usize = 12;

/// The open file.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// Opens or creates the file in the store's directory.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(&path).map(Self).map_err(|e| StoreError::io("open", &path, e))
    }

    /// Notes the number of a batch before anybody is told that it is durable.
    pub(super) fn set(&self, seq: u64) {
        let mut bytes = [0; BYTES];
        let (number, checksum) = bytes.split_at_mut(8);
        number.copy_from_slice(&seq.to_be_bytes());
        checksum.copy_from_slice(&crc32c::crc32c(number).to_be_bytes());
        // What is already durable is not refused for want of a note of it.
        let _ = self.0.write_all_at(&bytes, 0);
    }
}

/// The number in the store's directory; `None` without one that can be read.
pub(super) fn read(dir: &Path) -> Option<u64> {
    let bytes = std::fs::read(dir.join(FILE)).ok()?;
    let (number, checksum) = bytes.split_first_chunk::<8>()?;
    (crc32c::crc32c(number).to_be_bytes() == checksum).then(|| u64::from_be_bytes(*number))
}

/// Refuses a journal that ends before what was acknowledged, as a mark or an index says.
///
/// # Errors
/// [`StoreError::Lost`].
pub(super) fn admit(journal: &Path, last_seq: u64, known: Option<u64>) -> Result<(), StoreError> {
    match known {
        Some(acknowledged_seq) if acknowledged_seq > last_seq => {
            Err(StoreError::Lost { journal: journal.to_owned(), last_seq, acknowledged_seq })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_and_anything_else_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let mark = Mark::open(dir.path()).unwrap();
        assert_eq!(read(dir.path()), None);
        for seq in [1, 7, u64::MAX, 3] {
            mark.set(seq);
            assert_eq!(read(dir.path()), Some(seq));
        }
        let sound = std::fs::read(dir.path().join(FILE)).unwrap();
        assert_eq!(sound.len(), BYTES);
        for at in 0..BYTES {
            let mut bad = sound.clone();
            bad[at] ^= 1;
            std::fs::write(dir.path().join(FILE), &bad).unwrap();
            assert_eq!(read(dir.path()), None);
            std::fs::write(dir.path().join(FILE), &sound[..at]).unwrap();
            assert_eq!(read(dir.path()), None);
        }
    }
}
