//! Why a transaction or a block was refused, in Bitcoin Core's words.

use std::fmt;

use thiserror::Error;

/// A refusal. Displays as Core prints it: `reason`, or `reason, detail`; a script failure
/// as `reason (detail)`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Reject {
    reason: &'static str,
    detail: String,
}

impl Reject {
    /// A refusal without further detail.
    pub(super) fn new(reason: &'static str) -> Self {
        Self { reason, detail: String::new() }
    }

    /// A refusal with the numbers that led to it.
    pub(super) fn with(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// Core's reason string, a stable code: `non-final`, `dust`, …
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Whether the transaction is in the mempool or on the chain already: no failure for
    /// one who wants it there.
    pub fn is_already_known(&self) -> bool {
        matches!(
            self.reason,
            "txn-already-in-mempool" | "txn-same-nonwitness-data-in-mempool" | "txn-already-known"
        )
    }

    /// Same as [`Self::reason`]: Core's strings are the stable codes of this module.
    pub fn code(&self) -> &'static str {
        self.reason
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.detail.as_str(), self.reason) {
            ("", reason) => f.write_str(reason),
            (detail, super::script::SCRIPT_FAILED) => write!(f, "{} {detail}", self.reason),
            (detail, reason) => write!(f, "{reason}, {detail}"),
        }
    }
}
