//! Where the values of records stand in the files of the journal, so that reading a journal
//! takes the memory of its keys only.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::error::StoreError;

/// A value in one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    file: u32,
    offset: u64,
    /// Its length in bytes.
    pub(super) len: u32,
    /// Its CRC-32C.
    pub(super) crc: u32,
}

/// The live records by full key.
pub(super) type Live = BTreeMap<Vec<u8>, Place>;
/// The last change of each key in a stretch of the journal.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Place>>;

/// The files that places point into, opened when they are first read.
#[derive(Debug, Default)]
pub(super) struct Values {
    files: Vec<(PathBuf, Option<File>)>,
}

impl Values {
    /// Adds a file and returns its number.
    pub(super) fn add(&mut self, path: PathBuf) -> u32 {
        self.files.push((path, None));
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The place of `value` at `offset` of a file.
    pub(super) fn place(file: u32, offset: u64, value: &[u8]) -> Place {
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        Place { file, offset, len, crc: crc32c::crc32c(value) }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// The file cannot be read, or its bytes have changed since the place was noted.
    pub(super) fn read(&mut self, place: &Place) -> Result<Vec<u8>, StoreError> {
        let index = place.file as usize;
        let gone = || StoreError::Index("a value outside the journal".to_owned());
        let (path, file) = self.files.get_mut(index).ok_or_else(gone)?;
        if file.is_none() {
            *file = Some(File::open(&*path).map_err(|e| StoreError::io("open", path, e))?);
        }
        let file = file.as_ref().ok_or_else(gone)?;
        let mut value = vec![0; place.len as usize];
        let read = file.read_exact_at(&mut value, place.offset);
        read.map_err(|e| StoreError::io("read", path, e))?;
        if crc32c::crc32c(&value) != place.crc {
            let offset = usize::try_from(place.offset).unwrap_or(usize::MAX);
            return Err(StoreError::corrupt(path, offset, "a value as it was written"));
        }
        Ok(value)
    }
}
