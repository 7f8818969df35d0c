//! Leases as the API shows them.

use super::Leases;
use super::records::{Answer, FetchedResult, HeldLease, LeaseRecord};
use crate::ids::{CertId, Key, LeaseId};
use crate::lease::objects::{LeaseStatus, Outcome, Receipt};
use crate::lease::{Phase, Usage};
use crate::units::{TimeMs, Window};
use crate::wire::Envelope;

/// On which side of a lease this node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseRole {
    Provider,
    /// It is this node's.
    Holder,
}

/// A lease as this node knows it. A holder knows its phase from the provider's last answer
/// and from receipts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    pub lease_id: LeaseId,
    /// Of the certificate that was redeemed.
    pub cert_id: CertId,
    pub holder: Key,
    pub provider: Key,
    /// On which side this node stands.
    pub role: LeaseRole,
    /// `reserved`, `ready`, `running`, `ended`, `released`; for a holder also `waiting` and
    /// `refused`.
    pub phase: String,
    pub window: Window,
    /// When the workload started, unix ms.
    pub started_at_ms: Option<TimeMs>,
    /// When it ended, unix ms.
    pub ended_at_ms: Option<TimeMs>,
    pub outcome: Option<Outcome>,
    pub usage: Usage,
    /// Time in which the blocks were at the holder's disposal, by receipts, ms.
    pub delivered_ms: u64,
    pub receipts: u32,
    /// Of which countersigned by the holder and known to the provider.
    pub countersigned: u32,
    /// What the provider could not remove.
    pub left_behind: Vec<String>,
    /// Reason code of a refused redemption, of a host that could not run it, or of receipts
    /// that this holder does not agree to.
    pub refusal: Option<String>,
    /// Results that are on this holder's disk.
    pub results: Vec<FetchedResult>,
    /// Output, results and receipts are all on this holder's disk.
    pub is_fetched: bool,
}

impl LeaseView {
    /// Time delivered so far, ms: that of the receipts, or while it runs since its start.
    #[must_use]
    pub fn delivered_by(&self, now_ms: TimeMs, slot_s: u32) -> u64 {
        match self.started_at_ms {
            Some(started_at_ms) if self.phase == "running" => {
                let end_ms = now_ms.min(self.window.ends_at_ms(slot_s));
                end_ms.saturating_sub(started_at_ms).max(self.delivered_ms)
            }
            _ => self.delivered_ms,
        }
    }
}

impl Leases {
    /// Every lease of this node, hosted ones first.
    #[must_use]
    pub fn views(&self, me: Key) -> Vec<LeaseView> {
        let hosted = self.hosted.iter().map(|(id, record)| hosted(me, *id, record));
        let held = self.held.iter().map(|(id, record)| {
            let view = held(me, *id, record, self.told.get(id));
            let dispute = self.disputes.get(id).map(|reason| reason.code().to_owned());
            LeaseView { refusal: view.refusal.or(dispute), ..view }
        });
        hosted.chain(held).collect()
    }
}

fn hosted(me: Key, lease_id: LeaseId, record: &LeaseRecord) -> LeaseView {
    let end = record.phase.end();
    let left_behind = match &record.phase {
        Phase::Released { left_behind, .. } => left_behind.clone(),
        Phase::Reserved | Phase::Ready | Phase::Running { .. } | Phase::Ended(_) => Vec::new(),
    };
    LeaseView {
        lease_id,
        cert_id: record.cert_id,
        holder: record.holder,
        provider: me,
        role: LeaseRole::Provider,
        phase: record.phase.name().to_owned(),
        window: record.window,
        started_at_ms: record.phase.started_at_ms(),
        ended_at_ms: end.map(|end| end.ended_at_ms),
        outcome: end.map(|end| end.outcome.clone()),
        usage: record.phase.usage(),
        delivered_ms: read(&record.receipts).map(|receipt| receipt.delivered_ms).sum(),
        receipts: count(&record.receipts),
        countersigned: record.countersigned,
        left_behind,
        refusal: record.failure.clone(),
        results: Vec::new(),
        is_fetched: false,
    }
}

fn held(me: Key, lease_id: LeaseId, record: &HeldLease, told: Option<&LeaseStatus>) -> LeaseView {
    let last = read(&record.receipts).last();
    let final_receipt = last.as_ref().filter(|receipt| receipt.outcome.is_some());
    let from_receipts = Usage {
        cpu_us: read(&record.receipts).map(|receipt| receipt.cpu_us).sum(),
        memory_peak_bytes: last.as_ref().map_or(0, |receipt| receipt.memory_peak_bytes),
        output_bytes: read(&record.receipts).map(|receipt| receipt.output_bytes).sum(),
    };
    let from_status = told.map_or(Usage::default(), |told| Usage {
        cpu_us: told.cpu_us,
        memory_peak_bytes: told.memory_peak_bytes,
        output_bytes: 0,
    });
    // A receipt without time delivered does not say that anything began.
    let first = read(&record.receipts).find(|receipt| receipt.delivered_ms > 0);
    let first_ms = first.map(|receipt| receipt.from_ms);
    let told_end = told.and_then(|told| told.outcome.clone());
    LeaseView {
        lease_id,
        cert_id: record.cert_id,
        holder: me,
        provider: record.provider,
        role: LeaseRole::Holder,
        phase: held_phase(record, told, final_receipt.is_some()),
        window: record.window,
        started_at_ms: told.and_then(|told| told.started_at_ms).or(first_ms),
        ended_at_ms: final_receipt
            .map(|receipt| receipt.to_ms)
            .or(told.and_then(|told| told.ended_at_ms)),
        outcome: final_receipt.and_then(|receipt| receipt.outcome.clone()).or(told_end),
        usage: from_receipts.at_least(from_status),
        delivered_ms: read(&record.receipts).map(|receipt| receipt.delivered_ms).sum(),
        receipts: count(&record.receipts),
        countersigned: record.countersigned,
        left_behind: Vec::new(),
        refusal: match &record.answer {
            Answer::Refused(code) => Some(code.clone()),
            Answer::Waiting | Answer::Granted(_) => told.and_then(|told| told.code.clone()),
        },
        results: record.results.clone(),
        is_fetched: record.is_fetched,
    }
}

/// The words of a remote status are taken only if they are ours.
fn held_phase(record: &HeldLease, told: Option<&LeaseStatus>, is_final: bool) -> String {
    let known = ["reserved", "ready", "running", "ended", "released"];
    let told = told.and_then(|told| known.into_iter().find(|phase| *phase == told.phase));
    let phase = match record.answer {
        Answer::Waiting => "waiting",
        Answer::Refused(_) => "refused",
        Answer::Granted(_) if is_final && told != Some("released") => "ended",
        Answer::Granted(_) => told.unwrap_or("reserved"),
    };
    phase.to_owned()
}

fn read(receipts: &[Envelope]) -> impl Iterator<Item = Receipt> {
    // They were verified before they were stored.
    receipts.iter().filter_map(|receipt| receipt.peek().ok())
}

fn count(receipts: &[Envelope]) -> u32 {
    u32::try_from(receipts.len()).unwrap_or(u32::MAX)
}
