//! Issued certificates as the API shows them.

use super::Register;
use super::records::{Hold, LiveLock};
use crate::engine::certificates::{CertificateRole, CertificateView, LockView, state};
use crate::settlement::objects::LockGrant;
use crate::units::Slot;

impl Register {
    /// Certificates issued here; those that were never sold are left out.
    pub fn views(&self, slot: Slot) -> impl Iterator<Item = CertificateView> {
        let valid = self.issued.values().filter(|record| !record.head.is_void());
        valid.map(move |record| {
            let is_redeemed = matches!(record.head.hold, Hold::Redeemed(..));
            CertificateView {
                role: CertificateRole::Issued,
                facts: record.facts.clone(),
                state: state(is_redeemed, false, record.facts.window.end <= slot),
                lock: record.head.lock().and_then(lock_view),
                gift_pending: None,
                lease: record.head.lease(),
            }
        })
    }
}

fn lock_view(lock: &LiveLock) -> Option<LockView> {
    let grant: LockGrant = lock.grant.peek().ok()?;
    Some(LockView { terms_hash: lock.terms_hash, attempt: grant.attempt })
}
