//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use capex_core::reasons::Reason;

/// Every way in which the store refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("{} is in use by {}", .dir.display(), .pid.map_or_else(|| "another process".to_owned(), |p| format!("process {p}")))]
    Locked {
        /// The store's directory.
        dir: PathBuf,
        /// Who holds the lock, when the lock file says so.
        pid: Option<u32>,
    },
    /// The directory belongs to another network.
    #[error("the store belongs to network {found}, not to {expected}")]
    WrongNetwork {
        /// Network named in the journal.
        found: String,
        /// Network that the caller asked for.
        expected: String,
    },
    /// The directory was written by a later release.
    #[error("the store has schema {found}, this release knows schemas up to {known}")]
    NewerSchema {
        /// Schema named in the journal.
        found: u16,
        /// Latest schema that this release reads.
        known: u16,
    },
    /// The directory was written by a release that is too old.
    #[error("the store has schema {found}, this release reads schemas from {oldest} on")]
    OlderSchema {
        /// Schema named in the journal.
        found: u16,
        /// Oldest schema that this release reads.
        oldest: u16,
    },
    /// Acknowledged bytes of the journal are damaged or missing.
    #[error("{} is damaged at byte {offset}: {what} should be there", .file.display())]
    Corrupt {
        file: PathBuf,
        /// Offset of the first bad byte's frame.
        offset: u64,
        what: &'static str,
    },
    /// The journal ends before what was acknowledged: the disk has lost it, or somebody cut it off.
    #[error("{} ends with batch {last_seq}, and batches up to {acknowledged_seq} were acknowledged: the disk has lost {}", .journal.display(), lost(*.last_seq, *.acknowledged_seq))]
    Lost {
        journal: PathBuf,
        /// Number of the last batch that is there.
        last_seq: u64,
        /// Number of the last batch that was promised to be durable.
        acknowledged_seq: u64,
    },
    /// The disk is full; nothing of the batch was kept.
    #[error("no space left to write {}", .path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The index failed. The journal is whole: opening the store again rebuilds the index.
    #[error("the index failed ({0}); opening the store again rebuilds it")]
    Index(String),
    /// An earlier failure left it unknown what the disk holds.
    #[error("the store takes no more writes after an earlier failure; open it again")]
    Poisoned,
    /// A record is longer than [`MAX_FRAME_BYTES`](super::MAX_FRAME_BYTES) with its frame.
    #[error("a record may have {} bytes at most", super::MAX_FRAME_BYTES)]
    RecordTooLarge,
    /// The table number belongs to the store itself.
    #[error("table {0} is reserved")]
    ReservedTable(u8),
    /// An export cannot be read.
    #[error("line {line} of the export: {what}")]
    Import { line: u64, what: &'static str },
    /// An import needs a directory without a store.
    #[error("{} already holds a store", .0.display())]
    NotEmpty(PathBuf),
}

fn lost(last_seq: u64, acknowledged_seq: u64) -> String {
    match acknowledged_seq.saturating_sub(last_seq) {
        1 => "the last one".to_owned(),
        count => format!("the last {count}"),
    }
}

impl StoreError {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "store.locked",
            Self::WrongNetwork { .. } => "store.wrong_network",
            Self::NewerSchema { .. } => "store.newer_schema",
            Self::OlderSchema { .. } => "store.older_schema",
            Self::Corrupt { .. } => "store.corrupt",
            Self::Lost { .. } => "store.lost",
            Self::Full { .. } => "store.full",
            Self::Io { .. } => "store.io",
            Self::Index(_) => "store.index",
            Self::Poisoned => "store.poisoned",
            Self::RecordTooLarge => "store.record_too_large",
            Self::ReservedTable(_) => "store.reserved_table",
            Self::Import { .. } => "store.import",
            Self::NotEmpty(_) => "store.not_empty",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        Reason::find(self.code()).and_then(Reason::hint)
    }

    /// Wraps a system error: a full disk is told apart, because its cure is known.
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path: path.to_owned() }
            }
            _ => Self::Io { what, path: path.to_owned(), source },
        }
    }

    pub(super) fn corrupt(file: &Path, offset: usize, what: &'static str) -> Self {
        Self::Corrupt { file: file.to_owned(), offset: offset as u64, what }
    }
}
