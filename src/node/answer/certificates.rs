//! Certificates that this node issued, holds or held.

use super::orders::{best_bid_msat, orders_of};
use crate::api::types::{
    AttachedWorkload, Certificate, CertificateTransfer, TransferKind, slot_range, unit_ranges,
};
use crate::api::{ApiError, FileText, Listed, Noun, Page, Place, Prefix};
use crate::node::Node;
use capex_core::certificate::{file, verify};
use capex_core::engine::certificates::{CertificateRole, CertificateView};
use capex_core::ids::{CertId, Key};
use capex_core::order::Order;

impl Node {
    pub(super) fn certificate_views(&self) -> Vec<CertificateView> {
        self.engine().certificates(self.now_slot())
    }

    pub(super) fn certificates(&self, page: Page) -> Listed<Certificate> {
        let place = |view: &CertificateView| {
            let facts = &view.facts;
            Place { number: facts.window.start.into(), id: facts.cert_id.0 }
        };
        let views = self.certificate_views().into_iter();
        let book = orders_of(self.shown_epoch().1);
        let page = page.cut(views.map(|view| (place(&view), view)));
        page.map(|view| self.certificate_dto(&view, &book))
    }

    pub(super) fn certificate(&self, prefix: &Prefix) -> Result<Certificate, ApiError> {
        let found =
            prefix.find(Noun::Certificate, self.certificate_views(), |v| v.facts.cert_id.0)?;
        Ok(self.certificate_dto(&found, &orders_of(self.shown_epoch().1)))
    }

    pub(super) fn certificate_file(&self, prefix: &Prefix) -> Result<FileText, ApiError> {
        let found =
            prefix.find(Noun::Certificate, self.certificate_views(), |v| v.facts.cert_id.0)?;
        let certificate = self
            .engine()
            .certificate(&found.facts.cert_id)
            .ok_or_else(|| ApiError::not_found(Noun::Certificate, prefix.as_str()))?;
        Ok(FileText(file::write(certificate, self.engine().params())))
    }

    fn certificate_dto(&self, view: &CertificateView, book: &[&Order]) -> Certificate {
        let facts = &view.facts;
        let is_held = view.role == CertificateRole::Held && view.state == "active";
        let may_sell = is_held && facts.recall.is_none();
        let wanted = (facts.class, facts.features, facts.window);
        let best_bid_msat =
            may_sell.then(|| best_bid_msat(book, self.engine().me(), wanted)).flatten();
        let state = match (view.role, view.state) {
            (CertificateRole::Issued, "active") => "issued",
            (CertificateRole::Held, "active") => "held",
            (_, state) => state,
        };
        Certificate {
            cert_id: facts.cert_id.to_string(),
            provider: facts.provider.to_string(),
            class: self.class_name(facts.class),
            window: slot_range(facts.window),
            not_after_slot: facts.not_after_slot,
            units: unit_ranges(&facts.units),
            features: self.feature_names(facts.features),
            holder: facts.holder.to_string(),
            recall_by: facts.recall.map(|key| key.to_string()),
            seq: facts.seq,
            transfers: self
                .engine()
                .certificate(&facts.cert_id)
                .map_or_else(Vec::new, |certificate| CertificateTransfer::all(certificate, facts)),
            state: state.to_owned(),
            pending: pending(view.recut_pending, view.gift_pending, facts.recall.is_some()),
            p_height: (facts.seq > 0).then_some(facts.as_of_height),
            lease_id: view.lease.map(|lease| lease.to_string()),
            order_id: view.on_offer.map(|order| order.to_string()),
            best_bid_msat,
            workload: self.attached_to(&facts.cert_id),
        }
    }
}

impl Node {
    /// What is to run on a certificate by itself.
    fn attached_to(&self, cert: &CertId) -> Option<AttachedWorkload> {
        let engine = self.engine();
        let (_, attached) = engine.leases().attached(engine.params()).find(|(id, _)| id == cert)?;
        Some(AttachedWorkload {
            order_id: attached.order.to_string(),
            kind: attached.kind.name().to_owned(),
            redeems_at: attached.redeems_at_ms,
            code: attached.refusal,
        })
    }
}

/// What waits for the provider. A part that is to be given away has to be cut out first.
fn pending(
    recut: Option<verify::TransferKind>,
    gift_to: Option<Key>,
    is_recallable: bool,
) -> Option<TransferKind> {
    match (recut, gift_to) {
        (Some(verify::TransferKind::Split), _) => Some(TransferKind::Split),
        (Some(verify::TransferKind::Merge), _) => Some(TransferKind::Merge),
        (_, Some(_)) if is_recallable => Some(TransferKind::Recall),
        (_, Some(_)) => Some(TransferKind::Gift),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_provider_has_a_name() {
        let (split, merge) = (verify::TransferKind::Split, verify::TransferKind::Merge);
        let to = Some(Key([1; 32]));
        for (recut, gift_to, is_recallable, expected) in [
            (None, None, false, None),
            (None, None, true, None),
            (None, to, false, Some(TransferKind::Gift)),
            (None, to, true, Some(TransferKind::Recall)),
            (Some(split), None, false, Some(TransferKind::Split)),
            (Some(split), to, false, Some(TransferKind::Split)),
            (Some(merge), None, false, Some(TransferKind::Merge)),
        ] {
            let told = pending(recut, gift_to, is_recallable);
            assert_eq!(told, expected, "{recut:?} {gift_to:?} {is_recallable}");
        }
    }
}
