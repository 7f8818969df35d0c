//! What a counterparty has made of leases, by the receipts that this node has itself.

use super::Leases;
use super::records::{Answer, HeldLease, LeaseRecord};
use crate::ids::{Key, LeaseId};
use crate::lease::objects::{Cause, Receipt, Unavailable};
use crate::lease::receipts;
use crate::params::Params;
use crate::units::TimeMs;
use crate::wire::Envelope;

/// What a provider has delivered to this node. Leases are remembered for a horizon after their
/// windows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivery {
    /// Leases that are over.
    pub leases: u32,
    /// Of which the provider has ended before their windows, by itself.
    pub ended_early: u32,
    /// Of their windows, as far as the holder did not end them early, in thousandths of a
    /// block-second.
    pub sold_block_ms: u64,
    /// Of which delivered.
    pub delivered_block_ms: u64,
    /// Of which not, as the provider says: each cause once, in thousandths of a block-second.
    pub unavailable: Vec<Unavailable>,
}

impl Delivery {
    /// How much of what was sold was delivered, in thousandths; `None` without anything sold.
    #[must_use]
    pub fn permille(&self) -> Option<u64> {
        let sold = (self.sold_block_ms > 0).then_some(u128::from(self.sold_block_ms))?;
        u64::try_from(u128::from(self.delivered_block_ms) * 1_000 / sold).ok()
    }

    fn add(
        &mut self,
        record: &HeldLease,
        receipts: &[Receipt],
        (starts_at_ms, ends_at_ms): (TimeMs, TimeMs),
    ) {
        let window_ms = ends_at_ms.saturating_sub(starts_at_ms);
        let units = u64::from(record.units);
        // What this node did not sign is the provider's word on itself.
        let is_agreed = usize::try_from(record.countersigned).is_ok_and(|n| n >= receipts.len());
        let whole_ms = window_ms.saturating_mul(units);
        let told_ms = receipts.iter().map(|receipt| receipt.delivered_ms);
        let told_ms = told_ms.fold(0, u64::saturating_add).saturating_mul(units);
        let delivered_ms = if is_agreed { told_ms.min(whole_ms) } else { 0 };
        let lost = receipts.iter().flat_map(|receipt| &receipt.unavailable).copied();
        let withheld = withheld(record, receipts, ends_at_ms);
        let lost: Vec<Unavailable> = receipts::merged(lost.map(Some).chain([withheld]))
            .into_iter()
            .map(|lost| times(lost, units))
            .collect();
        let lost_ms: u64 = lost.iter().map(|lost| lost.ms).fold(0, u64::saturating_add);
        self.leases = self.leases.saturating_add(1);
        if lost.iter().any(|lost| lost.cause == Cause::Withdrawn) {
            self.ended_early = self.ended_early.saturating_add(1);
        }
        // Without a last receipt all of the window was sold, and what no receipt says was not
        // delivered.
        let counted_ms = delivered_ms.saturating_add(lost_ms);
        let sold_ms =
            if record.has_ended() && is_agreed { counted_ms } else { whole_ms.max(counted_ms) };
        self.sold_block_ms = self.sold_block_ms.saturating_add(sold_ms);
        self.delivered_block_ms = self.delivered_block_ms.saturating_add(delivered_ms);
        let known = std::mem::take(&mut self.unavailable);
        self.unavailable = receipts::merged(known.into_iter().chain(lost).map(Some));
    }
}

/// What a provider keeps of a window without a word: it has ended the lease, and nobody had asked it to.
fn withheld(record: &HeldLease, receipts: &[Receipt], ends_at_ms: TimeMs) -> Option<Unavailable> {
    let last = receipts.last().filter(|last| last.outcome.is_some())?;
    let ms = ends_at_ms.saturating_sub(last.to_ms);
    (!record.is_stopped).then_some(Unavailable { cause: Cause::Withdrawn, ms })
}

fn times(lost: Unavailable, units: u64) -> Unavailable {
    Unavailable { ms: lost.ms.saturating_mul(units), ..lost }
}

/// Receipts of one lease, with what its holder signed for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipts {
    pub lease: LeaseId,
    pub receipts: Vec<Envelope>,
    /// Of the last of them that was agreed to.
    pub countersignature: Option<Envelope>,
}

impl Leases {
    /// What a provider has delivered here of leases whose windows are over.
    #[must_use]
    pub fn delivery(&self, provider: &Key, now_ms: TimeMs, params: &Params) -> Delivery {
        let mut delivery = Delivery::default();
        let granted = self.held.values().filter(|record| {
            record.provider == *provider && matches!(record.answer, Answer::Granted(_))
        });
        for record in granted {
            let ends_at_ms = record.window.ends_at_ms(params.slot_s);
            if record.has_ended() || ends_at_ms < now_ms {
                let receipts: Vec<Receipt> = read(&record.receipts);
                let starts_at_ms = record.window.starts_at_ms(params.slot_s);
                delivery.add(record, &receipts, (starts_at_ms, ends_at_ms));
            }
        }
        delivery
    }

    /// Providers that have delivered something here, or should have.
    pub fn providers(&self) -> impl Iterator<Item = Key> {
        let granted = |record: &&HeldLease| matches!(record.answer, Answer::Granted(_));
        self.held.values().filter(granted).map(|record| record.provider)
    }

    /// Receipts of all leases between this node and another, as holder and as provider.
    #[must_use]
    pub fn receipts_with(&self, other: &Key) -> Vec<Receipts> {
        let of_held = |(lease, record): (&LeaseId, &HeldLease)| Receipts {
            lease: *lease,
            receipts: record.receipts.clone(),
            countersignature: None,
        };
        let of_hosted = |(lease, record): (&LeaseId, &LeaseRecord)| Receipts {
            lease: *lease,
            receipts: record.receipts.clone(),
            countersignature: record.countersignature.clone(),
        };
        let held = self.held.iter().filter(|(_, record)| record.provider == *other).map(of_held);
        let hosted = self.hosted.iter().filter(|(_, record)| record.holder == *other);
        let all = held.chain(hosted.map(of_hosted));
        all.filter(|receipts| !receipts.receipts.is_empty()).collect()
    }
}

fn read(receipts: &[Envelope]) -> Vec<Receipt> {
    // They were verified before they were stored.
    receipts.iter().filter_map(|receipt| receipt.peek().ok()).collect()
}
