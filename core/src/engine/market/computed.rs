//! The costly part of an epoch's end, made away from the engine.

use std::sync::Arc;

use super::archive;
use crate::book::OrderSet;
use crate::engine::kernel::{Record, RecordTooLarge};
use crate::epoch::{EpochResult, compute};
use crate::matching::MatchError;
use crate::params::Params;

/// Why an epoch has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    /// The set broke a bound that admission should have kept.
    #[error(transparent)]
    Match(#[from] MatchError),
    /// The orders or the result could not be read back.
    #[error(transparent)]
    Record(#[from] RecordTooLarge),
    /// The computation ended without an answer.
    #[error("the computation of the epoch ended without an answer")]
    Lost,
    /// The computation of earlier epochs takes longer than an epoch.
    #[error("earlier epochs are still being computed")]
    Behind,
}

impl ComputeError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Match(error) => error.code(),
            Self::Record(_) => RecordTooLarge::CODE,
            Self::Lost => "epoch.lost",
            Self::Behind => "epoch.behind",
        }
    }
}

/// A computed epoch: its result, and the records of its parts, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Computed {
    pub(super) result: Arc<EpochResult>,
    pub(super) records: Vec<Record>,
    pub(super) parts: u32,
}

impl Computed {
    /// Matches a set and encodes what the journal keeps of the result. Takes up to seconds: a shell
    /// calls it on a thread of its own.
    ///
    /// # Errors
    /// See [`ComputeError`].
    pub fn new(epoch: u64, set: &OrderSet, params: &Params) -> Result<Self, ComputeError> {
        let result = compute(epoch, set, params)?;
        let mut records = Vec::new();
        let parts = archive::encode_result(&result, &mut records)?;
        Ok(Self { result: Arc::new(result), records, parts })
    }

    /// The result.
    #[must_use]
    pub fn result(&self) -> &EpochResult {
        &self.result
    }
}
