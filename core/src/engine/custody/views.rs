//! Certificates as the API shows them.

use super::Custody;
use super::records::LiveLock;
use crate::certificate::VerifiedCertificate;
use crate::engine::Context;
use crate::ids::{Key, LeaseId, TermsHash};
use crate::settlement::objects::LockGrant;
use crate::units::Slot;

/// On which side of a certificate this node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateRole {
    /// It is its provider.
    Issued,
    /// It holds it, or did.
    Held,
}

/// The lock on a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockView {
    /// For which terms.
    pub terms_hash: TermsHash,
    /// Number of the grant.
    pub attempt: u32,
}

/// A certificate as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateView {
    /// On which side this node stands.
    pub role: CertificateRole,
    /// Id, provider, class, units, window, holder, seq, transfers.
    pub facts: VerifiedCertificate,
    /// `active`, `given`, `redeemed` or `expired`.
    pub state: &'static str,
    /// The lock of an open sale, known to the provider alone.
    pub lock: Option<LockView>,
    /// To whom a gift waits for the provider.
    pub gift_pending: Option<Key>,
    /// The lease, once redeemed.
    pub lease: Option<LeaseId>,
}

impl Custody {
    /// Certificates issued and held; those that were never sold are left out.
    #[must_use]
    pub fn views(&self, ctx: &Context<'_>) -> Vec<CertificateView> {
        self.views_at(ctx.me(), ctx.params.slot_at(ctx.now_ms))
    }

    /// As [`Custody::views`], for a node's key and a slot.
    #[must_use]
    pub fn views_at(&self, me: Key, slot: Slot) -> Vec<CertificateView> {
        let issued = self.issued.values().filter(|record| !record.void).map(|record| {
            let redeemed = record.redeemed.is_some();
            CertificateView {
                role: CertificateRole::Issued,
                facts: record.facts.clone(),
                state: state(redeemed, false, record.facts.window.end <= slot),
                lock: record.lock.as_ref().and_then(lock_view),
                gift_pending: None,
                lease: record.redeemed.as_ref().map(|(lease, _)| *lease),
            }
        });
        let held = self.held.values().map(|record| {
            let given = record.facts.holder != me;
            CertificateView {
                role: CertificateRole::Held,
                facts: record.facts.clone(),
                state: state(record.redeemed.is_some(), given, record.facts.window.end <= slot),
                lock: None,
                gift_pending: record.gift.as_ref().map(|gift| gift.to),
                lease: record.redeemed,
            }
        });
        issued.chain(held).collect()
    }
}

fn state(redeemed: bool, given: bool, past: bool) -> &'static str {
    match (redeemed, given, past) {
        (true, ..) => "redeemed",
        (_, true, _) => "given",
        (.., true) => "expired",
        _ => "active",
    }
}

fn lock_view(lock: &LiveLock) -> Option<LockView> {
    let grant: LockGrant = lock.grant.peek().ok()?;
    Some(LockView { terms_hash: lock.terms_hash, attempt: grant.attempt })
}
