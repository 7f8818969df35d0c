//! Checkpoints: the provider's word in place of a history that has grown long.

use super::Register;
use super::records::{Hold, IssuedRecord, PastSale};
use crate::certificate::Certificate;
use crate::certificate::objects::{Base, Checkpoint, Hop};
use crate::code;
use crate::engine::kernel::Context;
use crate::ids::{CertId, Key, TermsHash};
use crate::limits::{CERTIFICATE_HOPS_MAX, CHECKPOINT_HOPS};
use crate::settlement::objects::Terms;
use crate::wire::{Envelope, VERSION};

/// Sales that are remembered when their hops are left behind: who paid for another asks for its
/// Activation within minutes.
const SALES_KEPT: usize = 16;
/// Givers that are remembered likewise, 32 bytes each: all of one history.
const GIVERS_KEPT: usize = CERTIFICATE_HOPS_MAX;

impl Register {
    /// Answers the holder of a certificate with a long history: the same certificate, resting on
    /// this register's word. One that is in use, or has a short history, is answered as it is.
    ///
    /// # Errors
    /// `checkpoint.not_holder`, or the register may issue nothing.
    pub(super) fn on_checkpoint(
        &mut self,
        ctx: &mut Context<'_>,
        peer: Key,
        id: CertId,
    ) -> Result<Certificate, &'static str> {
        let record = self.valid(&id).filter(|record| record.facts.holder == peer);
        let record = record.ok_or(code!("checkpoint.not_holder"))?;
        let is_long = record.certificate.hops.len() >= CHECKPOINT_HOPS;
        let activation = match (&record.head.hold, record.certificate.last_activation()) {
            (Hold::Free, Some(activation)) if is_long => activation.clone(),
            _ => return Ok(record.certificate.clone()),
        };
        self.may_issue()?;
        let checkpoint = ctx.sign(checkpoint(record, ctx.chain.height)).envelope().clone();
        let base = Base::Checkpoint { checkpoint, activation };
        let short = Certificate { bases: vec![base], hops: Vec::new() };
        if let Some(record) = self.issued.get_mut(&id) {
            let sales = record.certificate.hops.iter().filter_map(|hop| past_sale(hop, ctx));
            let sales: Vec<PastSale> = sales.collect();
            record.sales.extend(sales);
            let excess = record.sales.len().saturating_sub(SALES_KEPT);
            record.sales.drain(..excess);
            for giver in record.certificate.hops.iter().filter_map(giver) {
                if !record.givers.contains(&giver) {
                    record.givers.push(giver);
                }
            }
            let excess = record.givers.len().saturating_sub(GIVERS_KEPT);
            record.givers.drain(..excess);
            record.certificate = short.clone();
            record.facts.checkpointed_at = Some(record.facts.as_of_height);
            record.facts.transfers.clear();
            self.save(ctx, id);
        }
        Ok(short)
    }

    /// The Activation of a sale whose hop was left behind, for who paid for it or got it.
    pub(super) fn activation_left_behind(&self, terms: TermsHash, peer: Key) -> Option<Envelope> {
        let record = self.issued.get(self.sold.get(&terms)?)?;
        let is_its = |sale: &&PastSale| sale.terms == terms && sale.parties.contains(&peer);
        Some(record.sales.iter().find(is_its)?.activation.clone())
    }
}

fn giver(hop: &Hop) -> Option<Key> {
    match hop {
        Hop::Gift { gift, .. } => Some(Key(gift.key)),
        Hop::Sale { .. } | Hop::Split { .. } | Hop::Merge { .. } => None,
    }
}

fn past_sale(hop: &Hop, ctx: &Context<'_>) -> Option<PastSale> {
    let Hop::Sale { terms, activation, .. } = hop else { return None };
    let said: Terms = terms.peek().ok()?;
    let funders = said.funders.iter().map(|funder| funder.key);
    Some(PastSale {
        terms: TermsHash(terms.id::<Terms>(ctx.params.magic)),
        parties: funders.chain([said.to]).collect(),
        activation: activation.clone(),
    })
}

fn checkpoint(record: &IssuedRecord, p_height: u32) -> Checkpoint {
    let facts = &record.facts;
    Checkpoint {
        v: VERSION,
        provider: facts.provider,
        last_hash: facts.last_hash,
        holder: facts.holder,
        salt16: facts.salt16,
        class_hash: facts.class_hash,
        pay: facts.pay,
        not_after_slot: facts.not_after_slot,
        hops: u32::try_from(record.certificate.hops.len()).unwrap_or(u32::MAX),
        p_height,
    }
}
