//! Checkpoints: a history that has grown long is left behind, so that the certificate can go on.

use super::{Holdings, HoldingsPurpose};
use crate::certificate::verify;
use crate::engine::io::Protocol;
use crate::engine::kernel::{Answer, Context};
use crate::engine::messages::SettleRequest;
use crate::engine::register::{RegisterReply, RegisterRequest};
use crate::ids::CertId;
use crate::limits::{CHECKPOINT_ASKED_HOPS, SETTLE_MAX_BYTES};
use crate::wire;

impl Holdings {
    /// Asks the provider to put its word in place of a history, if that is long. An answer that does
    /// not come is asked for again when the next hop is refused for it.
    pub(super) fn ask_checkpoint(&self, ctx: &mut Context<'_>, cert: CertId) {
        let Some(record) = self.held.get(&cert) else { return };
        let is_long = record.certificate.hops.len() >= CHECKPOINT_ASKED_HOPS
            || wire::encode(&record.certificate).len() >= SETTLE_MAX_BYTES / 2;
        if record.facts.holder == ctx.me() && !record.is_consumed() && is_long {
            let request = SettleRequest::Register(RegisterRequest::Checkpoint(cert));
            let purpose = HoldingsPurpose::Checkpoint(cert);
            ctx.out.send(record.facts.provider, Protocol::Settle, &request, purpose);
        }
    }

    /// The provider answered: the same certificate, shorter, takes the place of the one here.
    pub(super) fn on_checkpoint_reply(
        &mut self,
        ctx: &mut Context<'_>,
        cert: CertId,
        told: Answer<RegisterReply>,
    ) {
        let Answer::Said(RegisterReply::Certificate(certificate)) = told else { return };
        let Some(record) = self.held.get_mut(&cert) else { return };
        let Ok(facts) = verify(&certificate, ctx.params) else { return };
        let (new, old) = (&facts, &record.facts);
        let is_same = new.head() == old.head()
            && (new.holder, new.provider, new.not_after_slot)
                == (old.holder, old.provider, old.not_after_slot)
            && new.area() == old.area()
            && (new.class, new.features, new.pay) == (old.class, old.features, old.pay);
        if is_same && certificate.hops.len() < record.certificate.hops.len() {
            record.certificate = certificate;
            record.facts = facts;
            self.save(ctx, cert);
        }
    }
}
