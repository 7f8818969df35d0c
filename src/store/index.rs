//! The queryable index: a sled tree that repeats what the journal says.
//!
//! `Tree::flush` of sled 0.34.7 is not an fsync, so nothing here is the only copy of a fact.
//! One tree holds all tables (the first key byte is the table); a value is
//! `version u8 | payload | crc32c u32`.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::places::{Live, Values};
use super::record::{Row, full_key};
use super::schema::RESERVED_TABLE;

/// Version byte of every value.
const VALUE_VERSION: u8 = 1;
/// Where the number of the last applied batch stands.
const APPLIED_KEY: &[u8] = &[RESERVED_TABLE, b's', b'e', b'q'];
/// Page cache, in bytes: well above the hot tables of one node, small beside a host's memory.
const CACHE_BYTES: u64 = 32 << 20;
/// How often sled writes its log in the background, in ms. The journal makes up for the rest.
const FLUSH_EVERY_MS: u64 = 200;
/// Bytes per batch when the index is filled anew: sled keeps every version of a page that a batch
/// makes until the batch ends.
const FILL_BATCH_BYTES: usize = 256 << 10;
/// How long an index that this process just closed may take to let go of its file.
const RELEASE_WAIT: Duration = Duration::from_secs(5);

/// The last change of each key in some batches, by full key.
pub(super) type Merged = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The open index.
pub(super) struct Index {
    db: sled::Db,
    dir: PathBuf,
}

/// Growth of the live records by one batch, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) added_bytes: u64,
    pub(super) removed_bytes: u64,
}

/// What one live record counts for: its journal overhead, key and value, in bytes.
pub(super) fn record_bytes(full_key: &[u8], value_bytes: usize) -> u64 {
    (9 + full_key.len() + value_bytes) as u64
}

fn index_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Index(error.to_string())
}

/// Runs `work`, and turns a panic of sled on a damaged file into an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Index("sled panicked".to_owned())))
}

impl Index {
    /// Opens or creates the index in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let deadline = Instant::now() + RELEASE_WAIT;
        let db = loop {
            match guarded(|| open_sled(dir).map_err(index_error)) {
                Err(StoreError::Index(e))
                    if e.contains("could not acquire lock") && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => break other?,
            }
        };
        restrict(dir)?;
        Ok(Self { db, dir: dir.to_owned() })
    }

    /// Number of the last batch that the index holds; `None` for a new or half-filled one.
    pub(super) fn applied_seq(&self) -> Result<Option<u64>, StoreError> {
        guarded(|| {
            let Some(raw) = self.db.get(APPLIED_KEY).map_err(index_error)? else {
                return Ok(None);
            };
            let bytes: [u8; 8] = unseal(&raw)?.try_into().map_err(|_| index_error("bad number"))?;
            Ok(Some(u64::from_be_bytes(bytes)))
        })
    }

    /// Whether the index holds exactly the records of `live`.
    pub(super) fn equals(&self, live: &Live) -> Result<bool, StoreError> {
        guarded(|| {
            let mut expected = live.iter();
            for entry in self.db.iter() {
                let (key, raw) = entry.map_err(index_error)?;
                if key.first() == Some(&RESERVED_TABLE) {
                    continue;
                }
                let value = unseal(&raw)?;
                let crc = crc32c::crc32c(value);
                let is_same = expected.next().is_some_and(|(k, place)| {
                    k[..] == key[..] && place.len as usize == value.len() && place.crc == crc
                });
                if !is_same {
                    return Ok(false);
                }
            }
            Ok(expected.next().is_none())
        })
    }

    /// Makes the index hold exactly `live`, as of batch `seq`.
    pub(super) fn fill(
        &self,
        live: &Live,
        values: &mut Values,
        seq: u64,
    ) -> Result<(), StoreError> {
        guarded(|| {
            self.db.clear().map_err(index_error)?;
            let (mut batch, mut batch_bytes) = (sled::Batch::default(), 0);
            for (key, place) in live {
                batch.insert(key.as_slice(), seal(&values.read(place)?));
                batch_bytes += key.len() + place.len as usize;
                if batch_bytes >= FILL_BATCH_BYTES {
                    self.db.apply_batch(std::mem::take(&mut batch)).map_err(index_error)?;
                    batch_bytes = 0;
                }
            }
            batch.insert(APPLIED_KEY, seal(&seq.to_be_bytes()));
            self.db.apply_batch(batch).map_err(index_error)
        })
    }

    /// Applies the changes up to batch `seq` in one atomic step.
    pub(super) fn apply(&self, changes: &Merged, seq: u64) -> Result<Delta, StoreError> {
        guarded(|| {
            let mut delta = Delta::default();
            let mut batch = sled::Batch::default();
            for (key, value) in changes {
                if let Some(old) = self.db.get(key).map_err(index_error)? {
                    delta.removed_bytes += record_bytes(key, unseal(&old)?.len());
                }
                match value {
                    Some(value) => {
                        delta.added_bytes += record_bytes(key, value.len());
                        batch.insert(key.as_slice(), seal(value));
                    }
                    None => batch.remove(key.as_slice()),
                }
            }
            batch.insert(APPLIED_KEY, seal(&seq.to_be_bytes()));
            self.db.apply_batch(batch).map_err(index_error)?;
            Ok(delta)
        })
    }

    /// The value of a full key.
    pub(super) fn get(&self, full_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| match self.db.get(full_key).map_err(index_error)? {
            Some(raw) => Ok(Some(unseal(&raw)?.to_vec())),
            None => Ok(None),
        })
    }

    /// Calls `visit` with every record whose full key begins with `prefix`, in key order.
    pub(super) fn visit(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(u8, &[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        guarded(|| {
            for entry in self.db.scan_prefix(prefix) {
                let (key, raw) = entry.map_err(index_error)?;
                match key.split_first() {
                    Some((&RESERVED_TABLE, _)) | None => {}
                    Some((table, key)) => visit(*table, key, unseal(&raw)?)?,
                }
            }
            Ok(())
        })
    }

    /// Up to `limit` records of `table` with keys after `after`, in key order; from its first
    /// record without one.
    pub(super) fn page(
        &self,
        table: u8,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let from = match after {
            Some(key) => Bound::Excluded(full_key(table, key)),
            None => Bound::Included(vec![table]),
        };
        // The reserved table is the last, so each other one has a table after it.
        let to = Bound::Excluded(vec![table.saturating_add(1)]);
        guarded(|| {
            let rows = self.db.range((from, to)).take(limit).map(|entry| {
                let (key, raw) = entry.map_err(index_error)?;
                Ok((key.get(1..).unwrap_or_default().to_vec(), unseal(&raw)?.to_vec()))
            });
            rows.collect()
        })
    }

    /// Up to `limit` records of `table` with keys before `before`, the last one first; from its
    /// last record without one.
    pub(super) fn page_back(
        &self,
        table: u8,
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let end = before.map_or_else(|| vec![table.saturating_add(1)], |key| full_key(table, key));
        guarded(|| {
            let rows = self.db.range(vec![table]..end).rev().take(limit).map(|entry| {
                let (key, raw) = entry.map_err(index_error)?;
                Ok((key.get(1..).unwrap_or_default().to_vec(), unseal(&raw)?.to_vec()))
            });
            rows.collect()
        })
    }

    /// Writes the index to disk: sled's flush, then the fsync that it leaves out.
    pub(super) fn durable_flush(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush().map(drop).map_err(index_error))?;
        for name in ["db", "conf"] {
            let path = self.dir.join(name);
            let synced = File::open(&path).and_then(|f| f.sync_all());
            synced.map_err(|e| StoreError::io("sync", &path, e))?;
        }
        super::segment::sync_dir(&self.dir)
    }
}

fn open_sled(dir: &Path) -> sled::Result<sled::Db> {
    sled::Config::default()
        .path(dir)
        .mode(sled::Mode::HighThroughput)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .open()
}

/// sled creates its files with the process's default mode.
fn restrict(dir: &Path) -> Result<(), StoreError> {
    let set = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|e| StoreError::io("restrict", path, e))
    };
    set(dir, 0o700)?;
    ["db", "conf"].iter().try_for_each(|name| set(&dir.join(name), 0o600))
}

fn seal(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 5);
    out.push(VALUE_VERSION);
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

fn unseal(raw: &[u8]) -> Result<&[u8], StoreError> {
    let sound = raw.split_last_chunk::<4>().and_then(|(body, crc)| {
        (crc32c::crc32c(body) == u32::from_be_bytes(*crc)).then(|| body.split_first()).flatten()
    });
    match sound {
        Some((&VALUE_VERSION, payload)) => Ok(payload),
        Some(_) => Err(index_error("a value of an unknown version")),
        None => Err(index_error("a value fails its checksum")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_and_every_changed_bit_is_seen() {
        let raw = seal(b"fact");
        assert_eq!(unseal(&raw).unwrap(), b"fact");
        for bit in 0..raw.len() * 8 {
            let mut bad = raw.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&bad).is_err());
        }
    }
}
