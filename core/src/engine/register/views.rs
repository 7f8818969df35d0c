//! What the register tells of its certificates.

use std::ops::Bound;

use super::records::{Hold, IssuedRecord, LiveLock};
use super::{HELD_PER_REPLY, Register, activation_of};
use crate::certificate::{Certificate, VerifiedCertificate};
use crate::engine::certificates::{CertificateRole, CertificateView, LockView, is_party, state};
use crate::ids::{CertId, Key, TermsHash};
use crate::settlement::objects::LockGrant;
use crate::units::Slot;
use crate::wire::Envelope;

impl Register {
    /// Every signed byte of a certificate issued here.
    #[must_use]
    pub fn certificate(&self, id: &CertId) -> Option<&Certificate> {
        self.issued.get(id).map(|record| &record.certificate)
    }

    /// What the register says of a certificate; `None` if it is void.
    #[must_use]
    pub fn issued(&self, id: &CertId) -> Option<&VerifiedCertificate> {
        self.valid(id).map(|record| &record.facts)
    }

    pub(super) fn valid(&self, id: &CertId) -> Option<&IssuedRecord> {
        self.issued.get(id).filter(|record| !record.head.is_void())
    }

    /// The certificate for a peer that is a party to it or waits for it; `None` tells a
    /// stranger nothing.
    #[must_use]
    pub fn certificate_for(&self, peer: Key, id: &CertId) -> Option<&Certificate> {
        let record = self.valid(id)?;
        let lock = record.head.lock();
        let waits = lock.is_some_and(|lock| lock.to == peer || lock.funders.contains(&peer));
        let is_party = is_party(&record.certificate, &record.facts, peer);
        let has_given = record.givers.contains(&peer);
        (waits || is_party || has_given).then_some(&record.certificate)
    }

    /// What a key holds and can still use, of certificates above an id: one answer of them.
    pub(super) fn held_by(&self, holder: Key, after: CertId, slot: Slot) -> Vec<(CertId, u32)> {
        let last = (holder, CertId([0xff; 32]));
        let above = self.by_holder.range((Bound::Excluded((holder, after)), Bound::Included(last)));
        let usable = |record: &&IssuedRecord| {
            record.head.lease().is_none() && record.facts.window.end > slot
        };
        let records = above.filter_map(|(_, id)| self.valid(id).filter(usable));
        records
            .take(HELD_PER_REPLY)
            .map(|record| (record.facts.cert_id, record.facts.seq))
            .collect()
    }

    /// The Activation of a sale, for a party of its certificate.
    #[must_use]
    pub fn activation_of_sale(&self, terms: TermsHash, peer: Key) -> Option<Envelope> {
        let certificate = self.certificate_for(peer, self.sold.get(&terms)?);
        let told = certificate.and_then(|certificate| activation_of(certificate, terms.0));
        told.or_else(|| self.activation_left_behind(terms, peer))
    }

    /// Certificates issued here; those that were never sold are left out.
    pub fn views(&self, slot: Slot) -> impl Iterator<Item = CertificateView> {
        let valid = self.issued.values().filter(|record| !record.head.is_void());
        valid.map(move |record| {
            let is_redeemed = matches!(record.head.hold, Hold::Redeemed(..));
            CertificateView {
                role: CertificateRole::Issued,
                facts: record.facts.clone(),
                state: state(
                    is_redeemed,
                    record.head.spent().map(|spent| spent.kind),
                    false,
                    record.facts.window.end <= slot,
                ),
                lock: record.head.lock().and_then(lock_view),
                gift_pending: None,
                recut_pending: None,
                lease: record.head.lease(),
                on_offer: None,
            }
        })
    }
}

fn lock_view(lock: &LiveLock) -> Option<LockView> {
    let grant: LockGrant = lock.grant.peek().ok()?;
    Some(LockView { terms_hash: lock.terms_hash, attempt: grant.attempt })
}
