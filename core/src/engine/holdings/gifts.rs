//! Gifts: the giver signs, the provider activates, both push the certificate on. Who paid for a
//! certificate that it may recall is its giver.

use super::errands::{Kind, fresh16};
use super::records::{HeldRecord, Pending};
use super::{Holdings, HoldingsCommand};
use crate::certificate::objects::{Gift, Hop};
use crate::certificate::verify::verify;
use crate::code;
use crate::engine::certificates::notify;
use crate::engine::io::Done;
use crate::engine::kernel::{Context, answer};
use crate::engine::witness::Witness;
use crate::ids::{CertId, Key};
use crate::wire::{Envelope, VERSION};

impl Holdings {
    /// Does what an operator asks, unless the certificate is on offer. Returns the certificate that is here by it.
    pub fn on_command(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        is_known: &dyn Fn(&Key) -> bool,
        is_on_offer: &dyn Fn(&CertId) -> bool,
        id: u64,
        command: HoldingsCommand,
    ) -> Option<CertId> {
        match command {
            HoldingsCommand::Gift { cert, .. } if is_on_offer(&cert) => {
                answer(ctx, Some(id), Err(code!("gift.on_offer")));
            }
            HoldingsCommand::Split { cert, .. } if is_on_offer(&cert) => {
                answer(ctx, Some(id), Err(code!("split.on_offer")));
            }
            HoldingsCommand::Merge { certs } if certs.iter().any(is_on_offer) => {
                answer(ctx, Some(id), Err(code!("merge.on_offer")));
            }
            HoldingsCommand::Gift { cert, to } => {
                let started = self.start_gift(ctx, cert, to).map(|()| cert);
                self.begin(ctx, id, Kind::Gift, started);
            }
            HoldingsCommand::Recall { cert } => {
                let started = self.start_gift(ctx, cert, ctx.me()).map(|()| cert);
                self.begin(ctx, id, Kind::Gift, started);
            }
            HoldingsCommand::Split { cert, parts, give } => {
                let started = self.start_split(ctx, cert, parts, give).map(|()| cert);
                self.begin(ctx, id, Kind::Split, started);
            }
            HoldingsCommand::Merge { certs } => {
                let started = self.start_merge(ctx, certs);
                self.begin(ctx, id, Kind::Merge, started);
            }
            HoldingsCommand::Fetch { cert, provider } => {
                self.fetch(ctx, provider, cert, Some(id));
            }
            HoldingsCommand::Import { certificate, provider } => {
                let taken = self.import(ctx, witness, is_known, *certificate, provider);
                answer(ctx, Some(id), taken.map(|_| Done::Ok));
                return taken.ok();
            }
        }
        None
    }

    /// Signs a gift of a certificate, as its giver.
    pub(super) fn start_gift(
        &mut self,
        ctx: &mut Context<'_>,
        cert: CertId,
        to: Key,
    ) -> Result<(), &'static str> {
        let record = self.held.get_mut(&cert).ok_or(code!("gift.unknown_certificate"))?;
        may_give(record, ctx, to)?;
        match &record.pending {
            // Repeating the command repeats the same gift.
            Some(Pending::Gift { to: other, .. }) if *other == to => return Ok(()),
            Some(_) => return Err(code!("gift.pending")),
            None => {}
        }
        let nonce16 = fresh16(ctx, "gift");
        let gift = ctx.sign(Gift {
            v: VERSION,
            cert_id: cert,
            seq: record.facts.seq,
            prev_hash: record.facts.last_hash,
            to,
            nonce16,
        });
        record.pending = Some(Pending::Gift { gift: gift.envelope().clone(), to });
        record.has_signed_gift = true;
        self.save(ctx, cert);
        Ok(())
    }

    pub(super) fn finish_gift(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        cert: CertId,
        activation: Envelope,
    ) -> Result<(), ()> {
        let record = self.held.get(&cert).ok_or(())?;
        let Some(Pending::Gift { gift, to }) = &record.pending else { return Err(()) };
        let to = *to;
        let mut certificate = record.certificate.clone();
        certificate.hops.push(Hop::Gift { gift: gift.clone(), activation });
        // The chain binds cause, holder and provider, so a wrong Activation fails here.
        let facts = verify(&certificate, ctx.params).map_err(|_| ())?;
        let seq = facts.seq;
        witness.learn_certificate(ctx, &certificate);
        let until_ms = facts.window.ends_at_ms(ctx.params.slot_s);
        let mut moved = HeldRecord::new(certificate, facts, record.is_wanted);
        let recalled = to == ctx.me();
        moved.push = (!recalled).then_some(to);
        self.held.insert(cert, moved);
        self.errands.remove(&cert);
        self.save(ctx, cert);
        let command = self.commands.remove(&cert);
        answer(ctx, command, Ok(Done::Gifted { cert, seq }));
        if recalled {
            notify(ctx, cert, "recalled");
        } else {
            notify(ctx, cert, "given");
            self.pushes.take(cert, to, ctx.now_ms, until_ms);
            self.bring_due(ctx);
        }
        Ok(())
    }
}

fn may_give(record: &HeldRecord, ctx: &Context<'_>, to: Key) -> Result<(), &'static str> {
    if record.is_consumed() {
        return Err(code!("gift.consumed"));
    }
    if record.facts.giver() != ctx.me() {
        let is_held = record.facts.holder == ctx.me();
        return Err(if is_held { code!("gift.recallable") } else { code!("gift.not_holder") });
    }
    if to == record.facts.holder {
        return Err(code!("gift.to_self"));
    }
    if ctx.now_ms >= record.facts.window.starts_at_ms(ctx.params.slot_s) {
        return Err(code!("gift.window_started"));
    }
    Ok(())
}
