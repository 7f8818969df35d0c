//! Why an image was not pulled.

use std::io;

use capex_core::reason;
use capex_core::reasons::Reason;

use crate::executor::images::ImageError;

/// A refusal or failure; [`Self::reason`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A redirect, or the place of a token, to where this host does not go.
    #[error("the registry leads to {0}")]
    Address(String),
    #[error("the registry answers {0}")]
    Denied(u16),
    #[error("the registry has no {0}")]
    NotFound(String),
    #[error("the registry gave other bytes than {0}")]
    Digest(String),
    #[error("{0}")]
    Document(String),
    #[error("the image has no variant for {0}")]
    Platform(String),
    #[error("the image has {bytes} bytes, of at most {max_bytes}")]
    TooLarge { bytes: u64, max_bytes: u64 },
    #[error("the disk is full")]
    DiskFull,
    #[error("the registry takes too long")]
    Timeout,
    #[error("{0}")]
    Unreachable(String),
    /// The host failed.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl PullError {
    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Address(_) => reason!("pull.address"),
            Self::Denied(_) => reason!("pull.denied"),
            Self::NotFound(_) => reason!("pull.not_found"),
            Self::Digest(_) => reason!("pull.digest"),
            Self::Document(_) => reason!("pull.document"),
            Self::Platform(_) => reason!("pull.platform"),
            Self::TooLarge { .. } => reason!("pull.too_large"),
            Self::DiskFull => reason!("pull.disk_full"),
            Self::Timeout => reason!("pull.timeout"),
            Self::Unreachable(_) => reason!("pull.unreachable"),
            Self::Io { .. } => reason!("executor.io"),
        }
    }

    /// Whether the same may come to an end a moment later: what is whole is kept for that.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable(_))
    }

    /// What went wrong with a file of this host.
    pub(super) fn disk(what: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let what = what.display().to_string();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { what, source },
        }
    }
}

impl From<ImageError> for PullError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Platform(here) => Self::Platform(here),
            error => Self::Document(error.to_string()),
        }
    }
}
