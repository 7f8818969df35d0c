//! Compaction: the journal's history becomes a snapshot of the live records.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::error::StoreError;
use super::journal::{Sizes, remove_all};
use super::layout::{Layout, snapshot_path};
use super::record::{MAX_FRAME_BYTES, encode_batch, upsert};
use super::replay::Replay;
use super::schema::Meta;
use super::segment::{Kind, WholeFile, create_whole, encode_frame};
use capex_core::engine::Record;

/// Records of a snapshot are written in parts of about this size, in bytes.
const PART_BYTES: usize = 1 << 20;

const _: () = assert!(PART_BYTES <= MAX_FRAME_BYTES);

/// Replaces the files that end with batch `seq` by one snapshot. The journal may be appended to
/// meanwhile: files that begin later are not touched.
///
/// A crash between any two steps leaves a directory that opens to the same state: an unfinished
/// temporary file, or old files beside the snapshot.
pub(super) fn compact(dir: &Path, meta: &Meta, seq: u64, sizes: &Sizes) -> Result<(), StoreError> {
    let mut layout = Layout::scan(dir)?;
    layout.segments.retain(|segment| segment.seq <= seq);
    if layout.segments.is_empty() {
        return Ok(());
    }
    let mut replay = Replay::read(&layout, meta, u64::MAX)?;
    let bytes = write_snapshot(dir, meta, seq, replay.entries())?;
    drop(replay);
    let old: Vec<PathBuf> =
        layout.snapshot.into_iter().chain(layout.segments).map(|file| file.path).collect();
    let lens = old.iter().filter_map(|path| fs::metadata(path).ok());
    let freed: u64 = lens.map(|found| found.len()).sum();
    remove_all(dir, &old)?;
    sizes.sealed.fetch_add(bytes, Ordering::Relaxed);
    sizes.sealed.fetch_sub(freed, Ordering::Relaxed);
    Ok(())
}

/// Writes the snapshot file for `seq` from entries in key order; returns its length in bytes.
pub(super) fn write_snapshot<K: AsRef<[u8]>>(
    dir: &Path,
    meta: &Meta,
    seq: u64,
    entries: impl Iterator<Item = Result<(K, Vec<u8>), StoreError>>,
) -> Result<u64, StoreError> {
    create_whole(&snapshot_path(dir, seq), |file| {
        file.write(&encode_frame(Kind::Header, seq, &meta.encode()))?;
        let count = write_parts(file, seq, entries)?;
        file.write(&encode_frame(Kind::End, seq, &count.to_be_bytes()))?;
        Ok(file.bytes)
    })
}

fn write_parts<K: AsRef<[u8]>>(
    file: &mut WholeFile,
    seq: u64,
    entries: impl Iterator<Item = Result<(K, Vec<u8>), StoreError>>,
) -> Result<u64, StoreError> {
    let (mut part, mut part_bytes, mut count) = (Vec::new(), 0, 0);
    for entry in entries {
        let (key, value) = entry?;
        let Some((table, key)) = key.as_ref().split_first() else { continue };
        let bytes = key.len() + value.len();
        if part_bytes + bytes > PART_BYTES && !part.is_empty() {
            write_part(file, seq, &part)?;
            part.clear();
            part_bytes = 0;
        }
        part.push(upsert(*table, key, value));
        part_bytes += bytes;
        count += 1;
    }
    write_part(file, seq, &part)?;
    Ok(count)
}

fn write_part(file: &mut WholeFile, seq: u64, part: &[Record]) -> Result<(), StoreError> {
    let payload = encode_batch(part).ok_or(StoreError::RecordTooLarge)?;
    file.write(&encode_frame(Kind::Part, seq, &payload))
}
