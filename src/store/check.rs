//! `capex db check`: reads everything and repairs nothing.

use std::path::Path;

use super::error::StoreError;
use super::layout::Layout;
use super::lock::DirLock;
use super::record::upsert;
use super::replay::Replay;
use super::schema::Meta;
use super::{INDEX_DIR, JOURNAL_DIR, Record, mark, open_index};

/// How the index compares with the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// Same records, as of the batch that it last applied.
    Agrees,
    /// There is none, or it is older than the snapshot: the next open fills it.
    Absent,
    /// Unreadable or different: the next open puts it aside and rebuilds it.
    Disagrees,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The network named in the journal; `None` for a store without a journal.
    pub meta: Option<Meta>,
    pub files: usize,
    /// Their bytes.
    pub journal_bytes: u64,
    pub last_seq: u64,
    pub records: usize,
    /// Bytes of an unfinished last write.
    pub torn_bytes: u64,
    pub index: IndexState,
}

/// Reads the whole store in `dir`, which no process may hold, and shows each live record to
/// `look`, which knows what the tables mean.
///
/// # Errors
/// [`StoreError::Locked`], [`StoreError::Corrupt`] with the file and offset of the first damage
/// to the journal, [`StoreError::Lost`] when its end is gone, or a failed file operation.
pub fn check(dir: &Path, look: &mut dyn FnMut(&Record)) -> Result<Report, StoreError> {
    let _lock = DirLock::take(dir)?;
    let journal_dir = dir.join(JOURNAL_DIR);
    let layout = Layout::scan(&journal_dir)?;
    let meta = named(&layout)?;
    let found = dir.join(INDEX_DIR).exists().then(|| open_index(dir));
    let indexed_seq = found.as_ref().and_then(|found| found.as_ref().ok()?.1);
    let acknowledged_seq = mark::read(dir).max(indexed_seq);
    let Some(meta) = meta else {
        mark::admit(&journal_dir, 0, acknowledged_seq)?;
        return Ok(Report {
            meta: None,
            files: 0,
            journal_bytes: 0,
            last_seq: 0,
            records: 0,
            torn_bytes: 0,
            index: IndexState::Absent,
        });
    };
    let mut replay = Replay::read(&layout, &meta, indexed_seq.unwrap_or(u64::MAX))?;
    mark::admit(&journal_dir, replay.last_seq, acknowledged_seq)?;
    let index = match found {
        None | Some(Ok((_, None))) => IndexState::Absent,
        Some(Ok((_, Some(seq)))) if seq < replay.snapshot_seq => IndexState::Absent,
        Some(Ok((index, Some(_)))) => match index.equals(&replay.base) {
            Ok(true) => IndexState::Agrees,
            _ => IndexState::Disagrees,
        },
        Some(Err(_)) => IndexState::Disagrees,
    };
    replay.settle();
    for entry in replay.entries() {
        let (key, value) = entry?;
        if let Some((table, key)) = key.split_first() {
            look(&upsert(*table, key, value));
        }
    }
    Ok(Report {
        meta: Some(meta),
        files: layout.segments.len() + usize::from(layout.snapshot.is_some()),
        journal_bytes: replay.total_bytes,
        last_seq: replay.last_seq,
        torn_bytes: replay.torn.as_ref().map_or(0, |t| t.torn_bytes),
        records: replay.base.len(),
        index,
    })
}

fn named(layout: &Layout) -> Result<Option<Meta>, StoreError> {
    let Some((file, header)) = layout.header()? else {
        return Ok(None);
    };
    let (meta, _) =
        Meta::decode(&header).ok_or_else(|| StoreError::corrupt(&file, 0, "a header"))?;
    Ok(Some(meta))
}
