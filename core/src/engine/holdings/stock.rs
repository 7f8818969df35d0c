//! Held certificates that are sold on: what the market sees of them, and what their sales leave.

use super::records::HeldRecord;
use super::{ERRAND_PACE, Holdings};
use crate::certificate::Certificate;
use crate::certificate::objects::{Activation, Area, Hop};
use crate::certificate::verify::TransferKind;
use crate::engine::certificates::notify;
use crate::engine::kernel::{Context, Retry};
use crate::engine::market::{Stock, Title};
use crate::ids::{CertId, Key};

/// A part that its provider was asked for.
#[derive(Debug, Clone)]
pub enum Part {
    /// The provider has not been asked, or has refused.
    Whole,
    Waits,
    Here(Box<Certificate>),
    Lost,
}

impl Holdings {
    /// What has become of a certificate; `None` if this node never held it.
    #[must_use]
    pub fn stock(&self, me: Key, cert: &CertId) -> Option<Stock<'_>> {
        let HeldRecord { certificate, facts, redeemed, spent, pending, .. } =
            self.held.get(cert)?;
        Some(match (spent, certificate.last_activation()) {
            (Some(TransferKind::Split), _) => Stock::Cut(self.parts_of(cert)),
            (Some(_), _) => Stock::Consumed,
            _ if redeemed.is_some() => Stock::Consumed,
            _ if facts.holder != me => Stock::Moved,
            _ if pending.is_some() => Stock::Waits,
            (None, Some(activation)) => Stock::Held(Title { facts, activation }),
            // Nobody holds what was never sold.
            (None, None) => Stock::Moved,
        })
    }

    /// The certificates here that one was split into.
    fn parts_of(&self, cert: &CertId) -> Vec<(CertId, Area)> {
        let is_part = |(id, record): &(&CertId, &HeldRecord)| {
            let HeldRecord { certificate, .. } = record;
            let hops = certificate.hops.iter().flat_map(Hop::activations);
            let signed = hops.chain(certificate.last_activation());
            let mut said = signed.filter_map(|bytes| bytes.peek::<Activation>().ok());
            said.any(|one| {
                one.cert_id == **id && one.consumes.iter().any(|spent| spent.cert_id == *cert)
            })
        };
        // A sale consumes its own certificate.
        let others = self.held.iter().filter(|(id, _)| *id != cert);
        let parts = others.filter(is_part);
        parts.map(|(id, record)| (*id, record.facts.area())).collect()
    }

    /// Whether a certificate is held, and nothing is under way with it.
    #[must_use]
    pub fn is_whole(&self, me: Key, cert: &CertId) -> bool {
        matches!(self.stock(me, cert), Some(Stock::Held(_)))
    }

    /// The part of a certificate that has an area.
    #[must_use]
    pub fn part(&self, me: Key, cert: &CertId, area: &Area) -> Part {
        let Some(record) = self.held.get(cert) else { return Part::Lost };
        if self.is_whole(me, cert) {
            return Part::Whole;
        }
        if record.pending.is_some() {
            return Part::Waits;
        }
        if record.spent != Some(TransferKind::Split) {
            return Part::Lost;
        }
        let parts = self.parts_of(cert).into_iter();
        let part = parts.filter(|(_, of)| of == area).find_map(|(id, _)| self.held.get(&id));
        part.map_or(Part::Lost, |part| Part::Here(Box::new(part.certificate.clone())))
    }

    /// Signs a split of a certificate whose parts are sold, and asks the provider for it.
    ///
    /// # Errors
    /// `split.*`.
    pub fn cut(
        &mut self,
        ctx: &mut Context<'_>,
        cert: CertId,
        parts: Vec<Area>,
    ) -> Result<(), &'static str> {
        self.start_split(ctx, cert, parts, None)?;
        self.errands.insert(cert, Retry::new(ERRAND_PACE, ctx.now_ms));
        self.send_errand(ctx, cert);
        Ok(())
    }

    /// A held certificate was sold at a sequence number.
    pub fn mark_sold(&mut self, ctx: &mut Context<'_>, cert: CertId, seq: u32) {
        let me = ctx.me();
        let record = self.held.get_mut(&cert);
        let is_held = |record: &&mut HeldRecord| {
            record.facts.seq == seq && record.facts.holder == me && !record.is_consumed()
        };
        if let Some(record) = record.filter(is_held) {
            record.spent = Some(TransferKind::Sale);
            self.save(ctx, cert);
            notify(ctx, cert, "sold");
        }
    }

    /// The sale of a certificate at a sequence number was none: it is held as before.
    pub fn mark_unsold(&mut self, ctx: &mut Context<'_>, cert: CertId, seq: u32) {
        let record = self.held.get_mut(&cert);
        let is_sold = |record: &&mut HeldRecord| {
            record.facts.seq == seq && record.spent == Some(TransferKind::Sale)
        };
        if let Some(record) = record.filter(is_sold) {
            record.spent = None;
            self.save(ctx, cert);
            notify(ctx, cert, "unsold");
        }
    }
}
