//! Redemption: the last consumption of a certificate.

use super::Register;
use super::records::Hold;
use crate::certificate::objects::RedeemGrant;
use crate::code;
use crate::engine::certificates::notify;
use crate::engine::io::{Effect, Topic};
use crate::engine::kernel::Context;
use crate::ids::{CertId, Key, LeaseId};
use crate::lease::objects::Redeem;
use crate::wire::{self, Envelope, VERSION};

impl Register {
    /// Whether a redemption may consume its certificate: known, holder, seq, consumed,
    /// window, in this order.
    ///
    /// # Errors
    /// `redeem.unknown_certificate`, `redeem.not_holder`, `redeem.stale_seq`,
    /// `redeem.consumed`, `redeem.locked`, `redeem.window_past`, `register.behind` or
    /// `register.restored`.
    pub fn check_redeem(&self, ctx: &Context<'_>, redeem: &Redeem) -> Result<(), &'static str> {
        self.check_claim(ctx, redeem.cert_id, redeem.seq, redeem.holder)
    }

    /// As [`Self::check_redeem`], for whatever consumes a certificate.
    ///
    /// # Errors
    /// As there.
    pub fn check_claim(
        &self,
        ctx: &Context<'_>,
        cert: CertId,
        seq: u32,
        holder: Key,
    ) -> Result<(), &'static str> {
        self.may_issue()?;
        let record = self.valid(&cert).ok_or(code!("redeem.unknown_certificate"))?;
        if record.facts.holder != holder || record.facts.seq == 0 {
            return Err(code!("redeem.not_holder"));
        }
        if record.facts.seq != seq {
            return Err(code!("redeem.stale_seq"));
        }
        match record.head.hold {
            Hold::Free => {}
            Hold::Locked(_) => return Err(code!("redeem.locked")),
            Hold::Redeemed(..) | Hold::Spent(_) => return Err(code!("redeem.consumed")),
            Hold::Void | Hold::TakenBack => return Err(code!("redeem.unknown_certificate")),
        }
        if ctx.params.slot_at(ctx.now_ms) > record.facts.not_after_slot {
            return Err(code!("redeem.window_past"));
        }
        Ok(())
    }

    /// Consumes a certificate for a lease, for good. The caller has checked that it may,
    /// records the lease with it and then gossips the grant.
    ///
    /// # Errors
    /// `redeem.unknown_certificate`.
    pub fn consume_redeem(
        &mut self,
        ctx: &mut Context<'_>,
        cert_id: CertId,
        lease: LeaseId,
    ) -> Result<Envelope, &'static str> {
        let record = self.issued.get_mut(&cert_id).ok_or(code!("redeem.unknown_certificate"))?;
        let grant = ctx.sign(RedeemGrant {
            v: VERSION,
            provider: record.facts.provider,
            cert_id,
            seq: record.facts.seq,
            attempt: record.head.attempt,
            redeem_hash: lease,
            p_height: ctx.chain.height,
        });
        let bytes = grant.envelope().clone();
        record.head.hold = Hold::Redeemed(lease, bytes.clone());
        self.save(ctx, cert_id);
        notify(ctx, cert_id, "redeemed");
        Ok(bytes)
    }
}

/// Gossips a statement, behind the records that were made with it.
pub fn publish_grant(ctx: &mut Context<'_>, grant: &Envelope) {
    ctx.out.push(Effect::Publish { topic: Topic::Locks, bytes: wire::encode(grant) });
}
