//! Gifts: the giver signs, the provider activates, both push the certificate on.

use super::records::{HeldRecord, PendingGift};
use super::{GIFT_PACE, Holdings, HoldingsCommand, HoldingsPurpose};
use crate::certificate::objects::{Gift, Hop};
use crate::certificate::verify::verify;
use crate::code;
use crate::engine::certificates::notify;
use crate::engine::io::{Done, Protocol};
use crate::engine::kernel::{Answer, Context, Retry, answer, remote_code};
use crate::engine::messages::SettleRequest;
use crate::engine::register::{RegisterReply, RegisterRequest};
use crate::engine::witness::Witness;
use crate::ids::{CertId, Key};
use crate::wire::{Envelope, VERSION};

/// Unanswered tries after which the command that asked for a gift is told so: 15 s.
const GIFT_COMMAND_TRIES: u32 = 5;

impl Holdings {
    /// Does what an operator asks. Returns the certificate that is here by it.
    pub fn on_command(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        is_known: &dyn Fn(&Key) -> bool,
        id: u64,
        command: HoldingsCommand,
    ) -> Option<CertId> {
        match command {
            HoldingsCommand::Gift { cert, to } => self.gift(ctx, id, cert, to),
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

    /// Gives a certificate away, as its holder. Answers the command when the provider has.
    fn gift(&mut self, ctx: &mut Context<'_>, command: u64, cert: CertId, to: Key) {
        if let Err(code) = self.start_gift(ctx, cert, to) {
            answer(ctx, Some(command), Err(code));
            return;
        }
        if let Some(earlier) = self.commands.insert(cert, command) {
            answer(ctx, Some(earlier), Err(code!("gift.pending")));
        }
        self.gifts.insert(cert, Retry::new(GIFT_PACE, ctx.now_ms));
        self.send_gift(ctx, cert);
    }

    fn start_gift(
        &mut self,
        ctx: &mut Context<'_>,
        cert: CertId,
        to: Key,
    ) -> Result<(), &'static str> {
        let record = self.held.get_mut(&cert).ok_or(code!("gift.unknown_certificate"))?;
        may_give(record, ctx, to)?;
        if let Some(pending) = &record.gift {
            // Repeating the command repeats the same gift.
            return if pending.to == to { Ok(()) } else { Err(code!("gift.pending")) };
        }
        let mut nonce16 = [0; 16];
        nonce16.copy_from_slice(&ctx.fresh("gift")[..16]);
        let gift = ctx.sign(Gift {
            v: VERSION,
            cert_id: cert,
            seq: record.facts.seq,
            prev_hash: record.facts.last_hash,
            to,
            nonce16,
        });
        record.gift = Some(PendingGift { gift: gift.envelope().clone(), to });
        self.save(ctx, cert);
        Ok(())
    }

    /// Sends a pending gift to the provider, unless its time is over.
    pub(super) fn send_gift(&mut self, ctx: &mut Context<'_>, cert: CertId) {
        let pending = self.held.get(&cert).and_then(|record| {
            let gift = record.gift.as_ref()?.gift.clone();
            Some((gift, record.facts.provider, record.facts.window.starts_at_ms(ctx.params.slot_s)))
        });
        let Some((gift, provider, until_ms)) = pending else {
            self.gifts.remove(&cert);
            return;
        };
        if ctx.now_ms >= until_ms {
            self.end_gift(ctx, cert, Err(code!("gift.window_started")));
            return;
        }
        let errand = self.gifts.entry(cert).or_insert(Retry::new(GIFT_PACE, ctx.now_ms));
        let tries = errand.tries();
        errand.take(ctx.now_ms);
        if tries >= GIFT_COMMAND_TRIES {
            let command = self.commands.remove(&cert);
            answer(ctx, command, Err(code!("gift.no_answer")));
        }
        let request = SettleRequest::Register(RegisterRequest::Gift(gift));
        ctx.out.send(provider, Protocol::Settle, &request, HoldingsPurpose::Gift(cert));
    }

    /// The provider answered a gift, or could not be reached.
    pub(super) fn on_gift_reply(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        cert: CertId,
        told: Answer<RegisterReply>,
    ) {
        let pending = self.held.get(&cert).filter(|record| record.gift.is_some());
        let Some(provider) = pending.map(|record| record.facts.provider) else { return };
        match told {
            Answer::Said(RegisterReply::Activation(activation)) => {
                if self.finish_gift(ctx, witness, cert, activation).is_err() {
                    self.end_gift(ctx, cert, Err(code!("gift.bad_activation")));
                }
            }
            Answer::Refused(code) => {
                if code == "gift.stale_seq" {
                    self.fetch(ctx, provider, cert, None);
                }
                self.end_gift(ctx, cert, Err(remote_code(&code)));
            }
            // Anything else is no answer: the errand tries again.
            Answer::Said(RegisterReply::Certificate(_) | RegisterReply::Held(_)) | Answer::None => {
            }
        }
    }

    fn finish_gift(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        cert: CertId,
        activation: Envelope,
    ) -> Result<(), ()> {
        let record = self.held.get(&cert).ok_or(())?;
        let pending = record.gift.as_ref().ok_or(())?;
        let to = pending.to;
        let mut certificate = record.certificate.clone();
        certificate.hops.push(Hop::Gift { gift: pending.gift.clone(), activation });
        // The chain binds cause, holder and provider, so a wrong Activation fails here.
        let facts = verify(&certificate, ctx.params).map_err(|_| ())?;
        let seq = facts.seq;
        witness.learn_certificate(ctx, &certificate);
        let until_ms = facts.window.ends_at_ms(ctx.params.slot_s);
        let mut moved = HeldRecord::new(certificate, facts, record.is_wanted);
        moved.push = Some(to);
        self.held.insert(cert, moved);
        self.gifts.remove(&cert);
        self.save(ctx, cert);
        let command = self.commands.remove(&cert);
        answer(ctx, command, Ok(Done::Gifted { seq }));
        notify(ctx, cert, "given");
        self.pushes.take(cert, to, ctx.now_ms, until_ms);
        self.bring_due(ctx);
        Ok(())
    }

    fn end_gift(&mut self, ctx: &mut Context<'_>, cert: CertId, result: Result<Done, &str>) {
        if let Some(record) = self.held.get_mut(&cert) {
            record.gift = None;
        }
        self.gifts.remove(&cert);
        self.save(ctx, cert);
        let command = self.commands.remove(&cert);
        answer(ctx, command, result);
    }
}

fn may_give(record: &HeldRecord, ctx: &Context<'_>, to: Key) -> Result<(), &'static str> {
    if record.redeemed.is_some() {
        return Err(code!("gift.consumed"));
    }
    if record.facts.holder != ctx.me() {
        return Err(code!("gift.not_holder"));
    }
    if to == ctx.me() {
        return Err(code!("gift.to_self"));
    }
    if ctx.now_ms >= record.facts.window.starts_at_ms(ctx.params.slot_s) {
        return Err(code!("gift.window_started"));
    }
    Ok(())
}
