//! Leases as the API shows them.

use super::provider::loss;
use super::records::{Answer, FetchedResult, HeldLease, LeaseRecord};
use super::{Leases, Uploaded};
use crate::ids::{CertId, Key, LeaseId};
use crate::lease::objects::{LeaseStatus, Outcome, Receipt, Unavailable};
use crate::lease::score::Score;
use crate::lease::{Maintenance, Phase, Usage, receipts};
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
    /// Of those that extended it.
    pub extensions: Vec<CertId>,
    pub holder: Key,
    pub provider: Key,
    /// On which side this node stands.
    pub role: LeaseRole,
    /// `reserved`, `ready`, `running`, `exited`, `interrupted`, `ended`, `released`; for a holder
    /// also `waiting` and `refused`.
    pub phase: String,
    pub window: Window,
    /// Runs of the workload that have begun.
    pub runs: u32,
    /// When the lease came to be at its holder's disposal, unix ms.
    pub started_at_ms: Option<TimeMs>,
    /// When its workload ended by itself while the lease goes on, unix ms.
    pub exited_at_ms: Option<TimeMs>,
    /// When the lease ended, unix ms.
    pub ended_at_ms: Option<TimeMs>,
    /// What the last run or the lease came to.
    pub outcome: Option<Outcome>,
    pub usage: Usage,
    /// Time in which the blocks were at the holder's disposal, by receipts, ms.
    pub delivered_ms: u64,
    /// Time in which they were not, by receipts, or while the lease lasts as far as it is known.
    pub unavailable: Vec<Unavailable>,
    /// When its provider will not deliver, or did not, as announced.
    pub maintenance: Vec<Maintenance>,
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
    /// In which band the provider has measured its host.
    pub score: Option<Score>,
    /// Output and results of all runs that are over are on this holder's disk.
    pub is_fetched: bool,
    /// Of a holder, while content is still to be sent.
    pub uploaded: Option<Uploaded>,
}

impl LeaseView {
    /// Time delivered so far, ms: that of the receipts, or while the lease lasts since its start.
    #[must_use]
    pub fn delivered_by(&self, now_ms: TimeMs, slot_s: u32) -> u64 {
        match self.started_at_ms {
            Some(started_at_ms) if self.ended_at_ms.is_none() => {
                let end_ms = now_ms.min(self.window.ends_at_ms(slot_s));
                let lost_ms =
                    self.unavailable.iter().map(|lost| lost.ms).fold(0, u64::saturating_add);
                let length_ms = end_ms.saturating_sub(started_at_ms);
                length_ms.saturating_sub(lost_ms).max(self.delivered_ms)
            }
            _ => self.delivered_ms,
        }
    }
}

impl Leases {
    /// Every lease of this node, hosted ones first.
    #[must_use]
    pub fn views(&self, me: Key, now_ms: TimeMs) -> Vec<LeaseView> {
        let hosted = self.hosted.iter().map(move |(id, record)| {
            let (score, maintenance) = (self.score(record), self.of_lease(record));
            let unavailable = self.unavailable(record, now_ms);
            LeaseView { score, maintenance, unavailable, ..hosted(me, *id, record) }
        });
        let held = self.held.iter().map(|(id, record)| {
            let view = held(me, *id, record, self.told.get(id));
            let is_fetched = self.is_fetched(id, record);
            let view = LeaseView { is_fetched, uploaded: self.uploaded(id, record), ..view };
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
        Phase::Reserved
        | Phase::Ready
        | Phase::Running { .. }
        | Phase::Exited { .. }
        | Phase::Interrupted { .. }
        | Phase::Ended(_) => Vec::new(),
    };
    let exit = record.phase.exit();
    let why = exit.and_then(|exit| exit.code.clone()).or_else(|| loss(&record.phase));
    LeaseView {
        lease_id,
        cert_id: record.cert_id,
        extensions: record.extensions.iter().map(|(cert, _)| *cert).collect(),
        holder: record.holder,
        provider: me,
        role: LeaseRole::Provider,
        phase: record.phase.name().to_owned(),
        window: record.window,
        runs: record.phase.runs(),
        started_at_ms: record.phase.started_at_ms(),
        exited_at_ms: exit.map(|exit| exit.at_ms),
        ended_at_ms: end.map(|end| end.ended_at_ms),
        outcome: record.phase.outcome().cloned(),
        usage: record.phase.usage(),
        delivered_ms: read(&record.receipts).map(|receipt| receipt.delivered_ms).sum(),
        unavailable: Vec::new(),
        maintenance: Vec::new(),
        receipts: count(&record.receipts),
        countersigned: record.countersigned,
        left_behind,
        refusal: record.failure.clone().or(why),
        results: Vec::new(),
        score: None,
        is_fetched: false,
        uploaded: None,
    }
}

fn held(me: Key, lease_id: LeaseId, record: &HeldLease, told: Option<&LeaseStatus>) -> LeaseView {
    let last = read(&record.receipts).last();
    let final_receipt = last.as_ref().filter(|receipt| receipt.outcome.is_some());
    let from_receipts = Usage {
        cpu_us: read(&record.receipts).map(|receipt| receipt.cpu_us).sum(),
        memory_peak_bytes: last.as_ref().map_or(0, |receipt| receipt.memory_peak_bytes),
        output_bytes: read(&record.receipts).map(|receipt| receipt.output_bytes).sum(),
        throttled_us: read(&record.receipts).map(|receipt| receipt.throttled_us).sum(),
        interrupted_ms: 0,
    };
    let from_status = told.map_or(Usage::default(), |told| Usage {
        cpu_us: told.cpu_us,
        memory_peak_bytes: told.memory_peak_bytes,
        ..Usage::default()
    });
    let said = read(&record.receipts).flat_map(|receipt| receipt.unavailable).map(Some);
    let unavailable = match told {
        Some(told) if final_receipt.is_none() => told.unavailable.clone(),
        Some(_) | None => receipts::merged(said),
    };
    // A receipt without time delivered does not say that anything began.
    let first = read(&record.receipts).find(|receipt| receipt.delivered_ms > 0);
    let first_ms = first.map(|receipt| receipt.from_ms);
    let told_end = told.and_then(|told| told.outcome.clone());
    LeaseView {
        lease_id,
        cert_id: record.cert_id,
        extensions: record.extensions.iter().map(|(cert, _)| *cert).collect(),
        holder: me,
        provider: record.provider,
        role: LeaseRole::Holder,
        phase: held_phase(record, told, final_receipt.is_some()),
        window: record.window,
        runs: told.map_or(0, |told| told.runs),
        started_at_ms: told.and_then(|told| told.started_at_ms).or(first_ms),
        exited_at_ms: told.filter(|_| final_receipt.is_none()).and_then(|told| told.exited_at_ms),
        ended_at_ms: final_receipt
            .map(|receipt| receipt.to_ms)
            .or(told.and_then(|told| told.ended_at_ms)),
        outcome: final_receipt.and_then(|receipt| receipt.outcome.clone()).or(told_end),
        usage: from_receipts.at_least(from_status),
        delivered_ms: read(&record.receipts).map(|receipt| receipt.delivered_ms).sum(),
        unavailable,
        maintenance: told.map_or(Vec::new(), |told| told.maintenance.clone()),
        receipts: count(&record.receipts),
        countersigned: record.countersigned,
        left_behind: Vec::new(),
        refusal: match &record.answer {
            Answer::Refused(code) => Some(code.clone()),
            Answer::Waiting | Answer::Granted(_) => told.and_then(|told| told.code.clone()),
        },
        results: record.results.clone(),
        score: told.and_then(|told| told.score),
        is_fetched: record.is_fetched,
        uploaded: None,
    }
}

/// The words of a remote status are taken only if they are ours.
fn held_phase(record: &HeldLease, told: Option<&LeaseStatus>, is_final: bool) -> String {
    let told = told.and_then(|told| Phase::named(&told.phase));
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
