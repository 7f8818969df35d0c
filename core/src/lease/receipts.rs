//! Receipts: what was delivered, as a chain of hashes that the provider signs and the
//! holder countersigns.
//!
//! A certificate sells capacity at the holder's disposal, so a receipt counts the time in
//! which there was some, not the CPU that was burnt. Times, CPU and output are those of the
//! receipt's own period; the memory peak is that since the start.

use std::collections::BTreeMap;

use super::lifecycle::{End, Usage};
use super::objects::{Cause, LeaseStatus, Outcome, Receipt, Unavailable};
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
    /// More was delivered than the holder's node saw of the lease.
    #[error("the receipts say more than this node saw of the lease")]
    NotAsSeen,
    /// The holder's node saw nothing of the lease.
    #[error("this node saw nothing of the lease")]
    Unseen,
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
            Self::NotAsSeen => reason!("receipt.not_as_seen"),
            Self::Unseen => reason!("receipt.unseen"),
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
    /// Whether the lease was at its holder's disposal in it, but for what was lost.
    pub is_delivered: bool,
    pub unavailable: Vec<Unavailable>,
    /// Usage since the start of the lease.
    pub usage: Usage,
    /// The end, for the final receipt.
    pub outcome: Option<Outcome>,
}

impl Period {
    /// The last period of a lease: from the last receipt, else its start, else that of the
    /// window, to its end. What it takes beyond its window is not sold. What the provider fails
    /// to deliver goes on to the end of the window, whenever it failed.
    #[must_use]
    pub fn last(
        end: &End,
        by_provider: ByProvider,
        (window_start_ms, window_end_ms): (TimeMs, TimeMs),
        chain: &[Verified<Receipt>],
    ) -> Self {
        let start_ms = end.started_at_ms.unwrap_or(window_start_ms);
        let latest_ms = window_end_ms.max(start_ms);
        let is_delivered = end.started_at_ms.is_some();
        let cause = match end.outcome {
            Outcome::Failed => Some(Cause::Failed),
            Outcome::Interrupted => Some(Cause::Interrupted),
            // Its holder has asked for nothing, or for what cannot be run.
            Outcome::Deadline if !is_delivered => Some(Cause::Late),
            Outcome::Deadline => None,
            // However its workload took it.
            Outcome::Exited { .. }
            | Outcome::Trapped
            | Outcome::Stopped
            | Outcome::OutOfMemory
            | Outcome::OutOfDisk
            | Outcome::Unfit => by_provider.has_ended_it.then_some(Cause::Withdrawn),
        };
        let lost_ms = if is_delivered { end.ended_at_ms.min(latest_ms) } else { start_ms };
        let to_ms = if cause.is_some() { latest_ms } else { end.ended_at_ms.min(latest_ms) };
        let from_ms = chain.last().map_or(start_ms, |receipt| receipt.to_ms).min(to_ms);
        let rest_ms = to_ms.saturating_sub(lost_ms.max(from_ms));
        let lost = Lost { ms: end.usage.interrupted_ms, announced_ms: by_provider.announced_ms };
        // What was lost on the way cannot be more than the rest of the period.
        let before = lost.unsaid(to_ms.saturating_sub(from_ms).saturating_sub(rest_ms), chain);
        let rest = cause.map(|cause| Unavailable { cause, ms: rest_ms });
        Self {
            from_ms,
            to_ms,
            is_delivered,
            unavailable: merged(before.into_iter().map(Some).chain([rest])),
            usage: end.usage,
            outcome: Some(end.outcome.clone()),
        }
    }

    /// A period of a lease that goes on. `lost` is what was lost until its end.
    #[must_use]
    pub fn passing(
        (from_ms, to_ms): (TimeMs, TimeMs),
        lost: Lost,
        usage: Usage,
        chain: &[Verified<Receipt>],
    ) -> Self {
        let lost = lost.unsaid(to_ms.saturating_sub(from_ms), chain);
        let unavailable = merged(lost.map(Some));
        Self { from_ms, to_ms, is_delivered: true, unavailable, usage, outcome: None }
    }
}

/// What a provider has done to a lease by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByProvider {
    /// Of what was lost on the way, so much was lost in maintenances that it had announced, ms.
    pub announced_ms: u64,
    /// Its operator has ended it.
    pub has_ended_it: bool,
}

/// Time of a lease in which it had no process and then had one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// In all, ms.
    pub ms: u64,
    /// Of which in maintenances that were announced, ms.
    pub announced_ms: u64,
}

impl Lost {
    /// By cause.
    #[must_use]
    pub fn by_cause(self) -> [Unavailable; 2] {
        let announced_ms = self.announced_ms.min(self.ms);
        let interrupted_ms = self.ms.saturating_sub(announced_ms);
        [
            Unavailable { cause: Cause::Interrupted, ms: interrupted_ms },
            Unavailable { cause: Cause::Maintenance, ms: announced_ms },
        ]
    }

    /// What of it is on no receipt yet, at most so much.
    fn unsaid(self, most_ms: u64, chain: &[Verified<Receipt>]) -> [Unavailable; 2] {
        let mut room_ms = most_ms;
        self.by_cause().map(|Unavailable { cause, ms }| {
            let said = chain.iter().flat_map(|receipt| &receipt.unavailable);
            let said = said.filter(|lost| lost.cause == cause);
            let said_ms = said.fold(0, |sum: u64, lost| sum.saturating_add(lost.ms));
            let ms = ms.saturating_sub(said_ms).min(room_ms);
            room_ms = room_ms.saturating_sub(ms);
            Unavailable { cause, ms }
        })
    }
}

/// Each cause once, ascending, and none without time.
#[must_use]
pub fn merged(lost: impl IntoIterator<Item = Option<Unavailable>>) -> Vec<Unavailable> {
    let mut by_cause: BTreeMap<Cause, u64> = BTreeMap::new();
    for Unavailable { cause, ms } in lost.into_iter().flatten().filter(|lost| lost.ms > 0) {
        let sum = by_cause.entry(cause).or_default();
        *sum = sum.saturating_add(ms);
    }
    by_cause.into_iter().map(|(cause, ms)| Unavailable { cause, ms }).collect()
}

/// The next receipt of a chain. What never began is not delivered.
#[must_use]
pub fn next(
    provider: Key,
    (lease, units): (LeaseId, u32),
    chain: &[Verified<Receipt>],
    period: Period,
) -> Receipt {
    let length_ms = period.to_ms.saturating_sub(period.from_ms);
    let lost_ms = period.unavailable.iter().fold(0, |sum: u64, lost| sum.saturating_add(lost.ms));
    let cpu_before: u64 = chain.iter().map(|receipt| receipt.cpu_us).sum();
    let output_before: u64 = chain.iter().map(|receipt| receipt.output_bytes).sum();
    let throttled_before: u64 = chain.iter().map(|receipt| receipt.throttled_us).sum();
    Receipt {
        v: VERSION,
        provider,
        lease,
        seq: u32::try_from(chain.len()).unwrap_or(u32::MAX),
        prev_hash: chain.last().map_or([0; 32], Verified::id),
        units,
        from_ms: period.from_ms,
        to_ms: period.to_ms,
        delivered_ms: if period.is_delivered { length_ms.saturating_sub(lost_ms) } else { 0 },
        unavailable: period.unavailable,
        cpu_us: period.usage.cpu_us.saturating_sub(cpu_before),
        memory_peak_bytes: period.usage.memory_peak_bytes,
        throttled_us: period.usage.throttled_us.saturating_sub(throttled_before),
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
    let counted = receipt.delivered_ms.saturating_add(receipt.unavailable_ms());
    let length = receipt.to_ms.checked_sub(receipt.from_ms);
    let is_ordered = receipt.unavailable.is_sorted_by(|a, b| a.cause < b.cause);
    if !is_ordered || !follows || length.is_none_or(|length| counted > length) {
        return Err(ReceiptError::Times);
    }
    chain.push(receipt);
    Ok(())
}

/// What a holder knows of a lease beside its receipts.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Start and end of the window, unix ms.
    pub window_ms: (TimeMs, TimeMs),
    /// The own time, unix ms.
    pub now_ms: TimeMs,
    /// What the provider said of the lease last.
    pub status: Option<&'a LeaseStatus>,
}

/// Two machines may disagree by so much on what time it is, ms.
const SLACK_MS: u64 = 5_000;

impl Seen<'_> {
    /// Whether a holder may agree to a chain of receipts: nothing in it is outside the window or
    /// still to come, and it says of start, end and time what the provider told all along.
    ///
    /// # Errors
    /// [`ReceiptError::NotAsSeen`] or [`ReceiptError::Unseen`].
    pub fn agree(&self, chain: &[Verified<Receipt>]) -> Result<(), ReceiptError> {
        let delivered = || chain.iter().filter(|receipt| receipt.delivered_ms > 0);
        let delivered_ms = delivered().fold(0, |sum: u64, r| sum.saturating_add(r.delivered_ms));
        let (Some(first), Some(last)) = (delivered().next(), chain.last()) else {
            // Nothing is claimed.
            return Ok(());
        };
        let status = self.status.ok_or(ReceiptError::Unseen)?;
        let started_at_ms = status.started_at_ms.ok_or(ReceiptError::NotAsSeen)?;
        let latest_ms = self.window_ms.1.min(self.now_ms).saturating_add(SLACK_MS);
        let earliest_ms = self.window_ms.0.saturating_sub(SLACK_MS);
        let elapsed_ms = last.to_ms.saturating_sub(started_at_ms);
        // A provider may say early that it will not deliver the rest.
        let said_until_ms = last.to_ms.saturating_sub(last.unavailable_ms());
        let is_in_time = first.from_ms >= earliest_ms
            && said_until_ms <= latest_ms
            && last.to_ms <= self.window_ms.1.saturating_add(SLACK_MS);
        let is_as_told = first.from_ms >= started_at_ms && delivered_ms <= elapsed_ms;
        let total_ms =
            |lost: &[Unavailable]| lost.iter().map(|lost| lost.ms).fold(0, u64::saturating_add);
        let receipts_ms = chain.iter().map(|r| r.unavailable_ms()).fold(0, u64::saturating_add);
        // Receipts come later than what was told, and leave nothing of it out.
        let is_final = last.outcome.is_some();
        let is_whole =
            !is_final || total_ms(&status.unavailable) <= receipts_ms.saturating_add(SLACK_MS);
        let ends_alike = match (&status.outcome, &last.outcome) {
            (Some(told), Some(signed)) => told == signed,
            _ => true,
        };
        if is_in_time && is_as_told && is_whole && ends_alike {
            Ok(())
        } else {
            Err(ReceiptError::NotAsSeen)
        }
    }
}
