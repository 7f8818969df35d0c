//! Why the executor refuses.

use capex_core::reason;
use capex_core::reasons::Reason;
use std::io;
use std::path::Path;

use super::spec::SpecError;

/// A refusal or failure of the executor; [`Self::code`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The specification is out of bounds.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No such lease on this host.
    #[error("no such lease")]
    UnknownLease,
    /// A lease of this id exists with another specification.
    #[error("the lease exists with another specification")]
    Conflict,
    /// [`capex_core::limits::OPEN_LEASES_MAX`] are held.
    #[error("this host holds as many leases as it can")]
    Full,
    /// What an earlier process of the lease had is still in use.
    #[error("still in use: {0}")]
    Left(String),
    /// What is said at the door of its process is of another release than this daemon.
    #[error("the process of the lease is of another release")]
    OtherRelease,
    /// Blobs are missing.
    #[error("{0} blobs are missing")]
    BlobsMissing(usize),
    /// The window ended before the lease was started.
    #[error("the delivery window is over")]
    WindowOver,
    /// The lease has ended already.
    #[error("the lease has ended")]
    AlreadyEnded,
    /// The digest is not part of this lease.
    #[error("the lease needs no such blob")]
    UnknownDigest,
    /// A chunk that does not continue what was received.
    #[error("the next byte expected is {expected}")]
    OutOfOrder {
        /// Bytes received so far: the offset to resume at.
        expected: u64,
    },
    /// A chunk over [`capex_core::limits::LEASE_CHUNK_BYTES`].
    #[error("a chunk of {0} bytes is too large")]
    ChunkTooLarge(usize),
    /// More bytes than the specification announced.
    #[error("more bytes than announced")]
    Oversize,
    /// The complete blob does not have the digest; it was discarded.
    #[error("the bytes do not have the digest")]
    WrongDigest,
    /// Results can be read when the lease has ended.
    #[error("the lease has not ended")]
    NotEnded,
    /// The name is not a result of this lease, or no regular file was left there.
    #[error("no such result")]
    NoResult,
    /// The self-test failed: nobody should offer anything of this back end.
    #[error("self-test: {0}")]
    SelfTest(String),
    /// The host failed.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl ExecutorError {
    /// File work beside the loop panicked, or was cancelled.
    pub(crate) fn background(error: tokio::task::JoinError) -> Self {
        Self::Io { what: "background work".to_owned(), source: io::Error::other(error) }
    }

    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Spec(error) => error.reason(),
            Self::UnknownLease => reason!("lease.not_found"),
            Self::Conflict => reason!("lease.conflict"),
            Self::Full => reason!("lease.host_full"),
            Self::Left(_) => reason!("lease.still_in_use"),
            Self::OtherRelease => reason!("access.other_release"),
            Self::BlobsMissing(_) => reason!("lease.blobs_missing"),
            Self::WindowOver => reason!("lease.window_over"),
            Self::AlreadyEnded => reason!("lease.ended"),
            Self::UnknownDigest => reason!("put.unknown_digest"),
            Self::OutOfOrder { .. } => reason!("put.out_of_order"),
            Self::ChunkTooLarge(_) => reason!("put.chunk_too_large"),
            Self::Oversize => reason!("put.oversize"),
            Self::WrongDigest => reason!("put.wrong_digest"),
            Self::NotEnded => reason!("result.not_ended"),
            Self::NoResult => reason!("result.not_found"),
            Self::SelfTest(_) => reason!("executor.self_test_failed"),
            Self::Io { source, .. } => of_io(source),
        }
    }
}

/// The row of what the host could not read or write.
pub(super) fn of_io(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => reason!("executor.disk_full"),
        _ => reason!("executor.io"),
    }
}

/// Names the path that an input or output error is about.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, ExecutorError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, ExecutorError> {
        self.map_err(|source| ExecutorError::Io { what: path.display().to_string(), source })
    }
}
