//! Receipts: what was delivered, as a chain of hashes that the provider signs and the
//! holder countersigns.
//!
//! A certificate sells capacity at the holder's disposal, so a receipt counts the time in
//! which there was some, not the CPU that was burnt. Times, CPU and output are those of the
//! receipt's own period; the memory peak is that since the start.

use super::lifecycle::{End, Usage};
use super::objects::{Outcome, Receipt};
use crate::ids::{Key, LeaseId};
use crate::reason;
use crate::reasons::Reason;
use crate::units::TimeMs;
use crate::wire::{Envelope, Magic, VERSION, Verified, WireError};

/// Period of the first receipt of a lease, ms. The rest of the lease has one more.
pub const PERIOD_MS: u64 = 60_000;
/// Receipts that a holder keeps of one lease.
pub const RECEIPTS_MAX: usize = 64;

/// Why receipts prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not signed by the provider.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Of another provider or lease.
    #[error("receipt of another provider or lease")]
    Foreign,
    /// A number is missing.
    #[error("receipt numbers have a gap")]
    Gap,
    /// Not a successor of the receipt before.
    #[error("hash of the receipt before is not the one named")]
    PrevHash,
    /// Another receipt with the number of a known one.
    #[error("another receipt has the same number")]
    Changed,
    /// The period overlaps, or holds less time than it says.
    #[error("periods overlap, or hold less time than delivered")]
    Times,
    /// A receipt after the final one.
    #[error("receipt after the final one")]
    AfterFinal,
    /// More receipts than a lease has.
    #[error("too many receipts")]
    TooMany,
}

impl ReceiptError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Wire(_) => reason!("receipt.bad_signature"),
            Self::Foreign => reason!("receipt.foreign"),
            Self::Gap => reason!("receipt.gap"),
            Self::PrevHash => reason!("receipt.prev_hash"),
            Self::Changed => reason!("receipt.changed"),
            Self::Times => reason!("receipt.times"),
            Self::AfterFinal => reason!("receipt.after_final"),
            Self::TooMany => reason!("receipt.too_many"),
        }
    }
}

/// What a provider says about a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Start, unix ms.
    pub from_ms: TimeMs,
    /// End, unix ms.
    pub to_ms: TimeMs,
    /// Usage since the start of the lease.
    pub usage: Usage,
    /// The end, for the final receipt.
    pub outcome: Option<Outcome>,
}

impl Period {
    /// The last period of a lease: from the last receipt, else the start of the workload,
    /// else of the window, to its end.
    #[must_use]
    pub fn last(end: &End, window_start_ms: TimeMs, last: Option<&Receipt>) -> Self {
        let start_ms = end.started_at_ms.unwrap_or(window_start_ms);
        let from_ms = last.map_or(start_ms, |receipt| receipt.to_ms).min(end.ended_at_ms);
        let outcome = Some(end.outcome.clone());
        Self { from_ms, to_ms: end.ended_at_ms, usage: end.usage, outcome }
    }
}

/// The next receipt of a chain. A period that ends in the provider's failure counts as not
/// delivered.
#[must_use]
pub fn next(provider: Key, lease: LeaseId, chain: &[Verified<Receipt>], period: Period) -> Receipt {
    let length_ms = period.to_ms.saturating_sub(period.from_ms);
    let failed = period.outcome == Some(Outcome::Failed);
    let cpu_before: u64 = chain.iter().map(|receipt| receipt.cpu_us).sum();
    let output_before: u64 = chain.iter().map(|receipt| receipt.output_bytes).sum();
    Receipt {
        v: VERSION,
        provider,
        lease,
        seq: u32::try_from(chain.len()).unwrap_or(u32::MAX),
        prev_hash: chain.last().map_or([0; 32], Verified::id),
        from_ms: period.from_ms,
        to_ms: period.to_ms,
        delivered_ms: if failed { 0 } else { length_ms },
        unavailable_ms: if failed { length_ms } else { 0 },
        cpu_us: period.usage.cpu_us.saturating_sub(cpu_before),
        memory_peak_bytes: period.usage.memory_peak_bytes,
        output_bytes: period.usage.output_bytes.saturating_sub(output_before),
        outcome: period.outcome,
    }
}

/// Extends a verified chain by receipts as they came; known ones may be repeated.
///
/// # Errors
/// The first receipt that does not fit; the chain is then as before.
pub fn extend(
    chain: &mut Vec<Verified<Receipt>>,
    provider: Key,
    lease: LeaseId,
    receipts: &[Envelope],
    magic: Magic,
) -> Result<(), ReceiptError> {
    if receipts.len() > RECEIPTS_MAX {
        return Err(ReceiptError::TooMany);
    }
    let before = chain.len();
    for receipt in receipts {
        if let Err(error) = push(chain, provider, lease, receipt, magic) {
            chain.truncate(before);
            return Err(error);
        }
    }
    Ok(())
}

fn push(
    chain: &mut Vec<Verified<Receipt>>,
    provider: Key,
    lease: LeaseId,
    receipt: &Envelope,
    magic: Magic,
) -> Result<(), ReceiptError> {
    let receipt: Verified<Receipt> = receipt.verify(magic)?;
    if receipt.provider != provider || receipt.lease != lease {
        return Err(ReceiptError::Foreign);
    }
    let place = usize::try_from(receipt.seq).unwrap_or(usize::MAX);
    if let Some(known) = chain.get(place) {
        return if known.id() == receipt.id() { Ok(()) } else { Err(ReceiptError::Changed) };
    }
    if place != chain.len() {
        return Err(ReceiptError::Gap);
    }
    if place >= RECEIPTS_MAX {
        return Err(ReceiptError::TooMany);
    }
    let last = chain.last();
    if last.is_some_and(|last| last.outcome.is_some()) {
        return Err(ReceiptError::AfterFinal);
    }
    if receipt.prev_hash != last.map_or([0; 32], Verified::id) {
        return Err(ReceiptError::PrevHash);
    }
    let follows = last.is_none_or(|last| last.to_ms <= receipt.from_ms);
    let counted = receipt.delivered_ms.saturating_add(receipt.unavailable_ms);
    let length = receipt.to_ms.checked_sub(receipt.from_ms);
    if !follows || length.is_none_or(|length| counted > length) {
        return Err(ReceiptError::Times);
    }
    chain.push(receipt);
    Ok(())
}
