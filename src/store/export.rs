//! A store as text: JSON lines in key order, closed by a checksum line.
//!
//! ```text
//! {"capex_export":1,"network":"devnet","magic":"63617078","schema":2,"seq":42}
//! {"table":1,"key":"00ff","value":"…"}
//! {"records":1,"sha256":"…"}
//! ```
//! The checksum covers every byte before its own line.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use bitcoin::hex::{DisplayHex, FromHex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::compact::write_snapshot;
use super::error::StoreError;
use super::layout::Layout;
use super::lock::DirLock;
use super::record::{MAX_FRAME_BYTES, Row as Entry, full_key};
use super::schema::{Meta, RESERVED_TABLE, SCHEMA_VERSION};
use super::{JOURNAL_DIR, Store, create_private_dir, mark};

/// Version of the export's lines.
const EXPORT_VERSION: u8 = 1;
/// Longest line that an import reads, in bytes: the longest record in hex, and its frame.
const MAX_LINE_BYTES: u64 = 2 * MAX_FRAME_BYTES as u64 + 1_024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    capex_export: u8,
    network: String,
    magic: String,
    schema: u16,
    seq: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    table: u8,
    key: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    records: u64,
    sha256: String,
}

/// A writer or reader that hashes what passes.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
}

impl<W: Write> Hashed<W> {
    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
        line.push(b'\n');
        self.hash.update(&line);
        self.inner.write_all(&line)
    }
}

impl Store {
    /// Writes every live record to `w` and returns their number; `progress` is called with each
    /// number on the way. Two stores with the same records and history number export the same
    /// bytes.
    pub fn export(
        &self,
        w: &mut dyn Write,
        progress: &mut dyn FnMut(usize),
    ) -> Result<usize, StoreError> {
        self.export_tables(|_| true, w, progress)
    }

    /// [`Store::export`] of some tables only.
    pub fn export_tables(
        &self,
        is_wanted: impl Fn(u8) -> bool,
        w: &mut dyn Write,
        progress: &mut dyn FnMut(usize),
    ) -> Result<usize, StoreError> {
        let io = |e| StoreError::io("write", Path::new("the export"), e);
        let mut out = Hashed { inner: w, hash: Sha256::new() };
        out.line(&Head {
            capex_export: EXPORT_VERSION,
            network: self.meta.network.clone(),
            magic: self.meta.magic.to_lower_hex_string(),
            schema: SCHEMA_VERSION,
            seq: self.last_seq(),
        })
        .map_err(io)?;
        let mut records = 0;
        self.caught_up()?.visit(&[], |table, key, value| {
            if !is_wanted(table) {
                return Ok(());
            }
            records += 1;
            progress(records);
            let (key, value) = (key.to_lower_hex_string(), value.to_lower_hex_string());
            out.line(&Row { table, key, value }).map_err(io)
        })?;
        let sha256 = out.hash.clone().finalize().to_lower_hex_string();
        out.line(&Trailer { records: records as u64, sha256 }).map_err(io)?;
        out.inner.flush().map_err(io)?;
        Ok(records)
    }
}

/// Makes a new store in `dir` from an export; returns the number of its records. The store is
/// there whole or not at all. `progress` is called with each number on the way.
///
/// # Errors
/// [`StoreError::NotEmpty`] when `dir` holds a store, [`StoreError::WrongNetwork`],
/// [`StoreError::NewerSchema`], [`StoreError::Import`] with the line that cannot be read.
pub fn import(
    dir: &Path,
    meta: &Meta,
    r: &mut dyn BufRead,
    progress: &mut dyn FnMut(usize),
) -> Result<usize, StoreError> {
    let journal_dir = dir.join(JOURNAL_DIR);
    create_private_dir(dir)?;
    let _lock = DirLock::take(dir)?;
    // Beside the mark of another journal no start would read this one.
    if !Layout::scan(&journal_dir)?.is_empty() || mark::read(dir).is_some() {
        return Err(StoreError::NotEmpty(dir.to_owned()));
    }
    let mut lines = Lines { inner: r, hash: Sha256::new(), number: 0 };
    let head: Head = lines.next()?.parse()?;
    admit(meta, &head)?;
    let mut rows = Rows { lines, last: None, count: 0, progress };
    create_private_dir(&journal_dir)?;
    if let Err(error) = write_snapshot(&journal_dir, meta, head.seq, &mut rows) {
        // Best effort: an empty directory is no store.
        let _ = fs::remove_dir(&journal_dir);
        return Err(error);
    }
    Ok(rows.count)
}

/// The records of an export, up to its checksum.
struct Rows<'a> {
    lines: Lines<'a>,
    last: Option<Vec<u8>>,
    count: usize,
    progress: &'a mut dyn FnMut(usize),
}

impl Iterator for Rows<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row().transpose()
    }
}

impl Rows<'_> {
    fn row(&mut self) -> Result<Option<Entry>, StoreError> {
        let line = self.lines.next()?;
        if let Ok(trailer) = line.parse::<Trailer>() {
            let sha256 = line.hash_before.to_lower_hex_string();
            if trailer.records != self.count as u64 || trailer.sha256 != sha256 {
                return Err(line.bad("the checksum does not match"));
            }
            return match self.lines.next() {
                Err(StoreError::Import { what: ENDED, .. }) => Ok(None),
                _ => Err(line.bad("more follows the checksum")),
            };
        }
        let row: Row = line.parse()?;
        let key = Vec::from_hex(&row.key).map_err(|_| line.bad("the key is not hex"))?;
        let value = Vec::from_hex(&row.value).map_err(|_| line.bad("the value is not hex"))?;
        let full = full_key(row.table, &key);
        let in_order = self.last.as_ref().is_none_or(|last| *last < full);
        if row.table == RESERVED_TABLE || !in_order {
            return Err(line.bad("the record is out of order"));
        }
        self.last = Some(full.clone());
        self.count += 1;
        (self.progress)(self.count);
        Ok(Some((full, value)))
    }
}

fn admit(meta: &Meta, head: &Head) -> Result<(), StoreError> {
    let wrong = |what| StoreError::Import { line: 1, what };
    if head.capex_export != EXPORT_VERSION {
        return Err(wrong("an export of another version"));
    }
    if head.schema > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema { found: head.schema, known: SCHEMA_VERSION });
    }
    if head.network != meta.network || head.magic != meta.magic.to_lower_hex_string() {
        let expected = meta.network.clone();
        return Err(StoreError::WrongNetwork { found: head.network.clone(), expected });
    }
    // The first batch after the import needs a number of its own.
    if head.seq == u64::MAX {
        return Err(wrong("the history number is out of range"));
    }
    Ok(())
}

const ENDED: &str = "the export ends before its checksum";

struct Lines<'a> {
    inner: &'a mut dyn BufRead,
    hash: Sha256,
    number: u64,
}

struct Line {
    bytes: Vec<u8>,
    number: u64,
    hash_before: [u8; 32],
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Line, StoreError> {
        self.number += 1;
        let mut bytes = Vec::new();
        let mut limited = Read::take(&mut *self.inner, MAX_LINE_BYTES);
        limited
            .read_until(b'\n', &mut bytes)
            .map_err(|e| StoreError::io("read", Path::new("the export"), e))?;
        if bytes.last() != Some(&b'\n') {
            return Err(StoreError::Import { line: self.number, what: ENDED });
        }
        let hash_before = self.hash.clone().finalize().into();
        self.hash.update(&bytes);
        Ok(Line { bytes, number: self.number, hash_before })
    }
}

impl Line {
    fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, StoreError> {
        serde_json::from_slice(&self.bytes).map_err(|_| self.bad("not a line of an export"))
    }

    fn bad(&self, what: &'static str) -> StoreError {
        StoreError::Import { line: self.number, what }
    }
}
