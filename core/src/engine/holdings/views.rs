//! What this node tells of the certificates that it holds or held.

use super::records::Pending;
use super::{HeldRecord, Holdings};
use crate::certificate::verify::TransferKind;
use crate::certificate::{Certificate, VerifiedCertificate};
use crate::engine::certificates::{CertificateRole, CertificateView, is_party, state};
use crate::ids::{CertId, Key};
use crate::units::Slot;

impl Holdings {
    /// Every signed byte of a certificate that this node holds or held.
    #[must_use]
    pub fn certificate(&self, id: &CertId) -> Option<&Certificate> {
        self.held.get(id).map(|record| &record.certificate)
    }

    /// What the held copy of a certificate says; former holdings included.
    #[must_use]
    pub fn held(&self, id: &CertId) -> Option<&VerifiedCertificate> {
        self.held.get(id).map(|record| &record.facts)
    }

    /// Whether a held certificate is known to be redeemed.
    #[must_use]
    pub fn is_redeemed(&self, id: &CertId) -> bool {
        self.held.get(id).is_some_and(|record| record.redeemed.is_some())
    }

    /// The held copy for a peer that is a party to it; `None` tells a stranger nothing.
    #[must_use]
    pub fn certificate_for(&self, peer: Key, id: &CertId) -> Option<&Certificate> {
        let held = self.held.get(id)?;
        is_party(&held.certificate, &held.facts, peer).then_some(&held.certificate)
    }

    /// Whether this node has a certificate of a provider that it bought, asked for or uses: what
    /// was only brought here may be of a provider that somebody made up.
    #[must_use]
    pub fn has_provider(&self, provider: &Key) -> bool {
        let mut of = self.held.values().filter(|record| record.facts.provider == *provider);
        of.any(HeldRecord::matters)
    }

    /// Certificates held, as the API shows them.
    pub fn views(&self, me: Key, slot: Slot) -> impl Iterator<Item = CertificateView> {
        self.held.values().map(move |record| {
            let is_given = record.facts.holder != me;
            let is_past = record.facts.window.end <= slot;
            let last = record.facts.transfers.last();
            let is_recalled =
                last.is_some_and(|last| last.kind == TransferKind::Recall && last.from == me);
            let spent = record.spent.or(is_recalled.then_some(TransferKind::Recall));
            CertificateView {
                role: CertificateRole::Held,
                facts: record.facts.clone(),
                state: state(record.redeemed.is_some(), spent, is_given, is_past),
                lock: None,
                gift_pending: match &record.pending {
                    Some(Pending::Gift { to, .. }) => Some(*to),
                    Some(Pending::Split { give, .. }) => give.map(|(_, to)| to),
                    Some(Pending::Merge { .. }) | None => None,
                },
                recut_pending: match &record.pending {
                    Some(Pending::Split { .. }) => Some(TransferKind::Split),
                    Some(Pending::Merge { .. }) => Some(TransferKind::Merge),
                    Some(Pending::Gift { .. }) | None => None,
                },
                lease: record.redeemed,
                on_offer: None,
            }
        })
    }
}
