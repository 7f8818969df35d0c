//! A lease that runs is extended by a certificate whose window begins where its own ends: the
//! holder signs for it, the provider consumes it, and the process only learns of a later end.
//!
//! Receipts stay one chain: they are of the lease, and the grants say which certificates it has
//! consumed.

use super::holder::is_grant;
use super::io::LeasePurpose;
use super::provider::prepare;
use super::records::{Answer, Extending, HeldLease};
use super::{Context, Holdings, Leases, Pace, Retry, notify};
use crate::certificate::VerifiedCertificate;
use crate::code;
use crate::engine::io::{Done, Protocol};
use crate::engine::kernel::{answer, remote_code};
use crate::engine::register::{Register, publish_grant};
use crate::ids::{CertId, Key, LeaseId};
use crate::lease::objects::{Extend, LeaseReply, LeaseRequest};
use crate::limits::{EXTENSIONS_MAX, HORIZON_SLOTS};
use crate::units::Window;
use crate::wire::{Envelope, VERSION, Verified};

/// Unanswered tries after which a command is told so: 15 s.
const COMMAND_TRIES: u32 = 5;
/// Repetition of what was sent: it may have been granted, and then it is used up.
const EXTENDING: Pace = Pace::between(1_000, 60_000);
/// Life of the request, s.
const LIFE_S: u64 = 60;

/// What both sides know of the lease: that which the certificate has to fit.
struct Lasting {
    provider: Key,
    class: u16,
    features: u64,
    units: u32,
    window: Window,
    extensions: usize,
}

impl Lasting {
    /// Whether a certificate adjoins.
    fn check(&self, next: &VerifiedCertificate) -> Result<(), &'static str> {
        if next.provider != self.provider {
            return Err(code!("extend.other_provider"));
        }
        if next.class != self.class || next.features != self.features {
            return Err(code!("extend.other_class"));
        }
        if next.units.count() != self.units {
            return Err(code!("extend.other_units"));
        }
        if next.window.start != self.window.end {
            return Err(code!("extend.gap"));
        }
        let slots = next.window.end.saturating_sub(self.window.start);
        if slots > HORIZON_SLOTS || self.extensions >= EXTENSIONS_MAX {
            return Err(code!("extend.too_long"));
        }
        Ok(())
    }
}

/// An extension comes this long before the end, ms: what it says has to reach the process.
const LEAD_MS: u64 = 1_000;

impl Leases {
    /// Answers the holder that wants more time. Checks in the order signature, lease, holder,
    /// time, certificate, fit; what was granted before is answered again.
    pub(super) fn on_extend(
        &mut self,
        ctx: &mut Context<'_>,
        register: &mut Register,
        extend: &Envelope,
    ) -> Result<LeaseReply, &'static str> {
        let extend: Verified<Extend> =
            extend.verify(ctx.params.magic).map_err(|_| "lease.bad_signature")?;
        let lease = extend.lease;
        let record = self.hosted.get(&lease).ok_or(code!("lease.not_found"))?;
        if record.holder != extend.holder {
            return Err(code!("lease.not_holder"));
        }
        if let Some((_, grant)) = record.extensions.iter().find(|(id, _)| *id == extend.cert_id) {
            let (grant, ends_at_ms) = (grant.clone(), record.ends_at_ms);
            return Ok(LeaseReply::Extended { grant, ends_at_ms });
        }
        if extend.not_after_s < ctx.now_ms / 1000 {
            return Err(code!("redeem.expired"));
        }
        let is_near = ctx.now_ms.saturating_add(LEAD_MS) >= record.ends_at_ms;
        if record.phase.end().is_some() || is_near {
            return Err(code!("extend.too_late"));
        }
        register.check_claim(ctx, extend.cert_id, extend.seq, extend.holder)?;
        let next = register.issued(&extend.cert_id).ok_or(code!("redeem.unknown_certificate"))?;
        let first = register.issued(&record.cert_id).ok_or(code!("lease.not_found"))?;
        let lasting = Lasting {
            provider: first.provider,
            class: first.class,
            features: first.features,
            units: record.units,
            window: record.window,
            extensions: record.extensions.len(),
        };
        lasting.check(next)?;
        let end = next.window.end;
        let grant = register.consume_redeem(ctx, extend.cert_id, lease)?;
        let record = self.hosted.get_mut(&lease).ok_or(code!("lease.not_found"))?;
        record.window.end = end;
        record.ends_at_ms = record.window.ends_at_ms(ctx.params.slot_s);
        record.extensions.push((extend.cert_id, grant.clone()));
        ctx.out.store(&lease.0, record);
        publish_grant(ctx, &grant);
        ctx.out.push(prepare(lease, record, Vec::new()));
        notify(ctx, lease, record.phase.name());
        Ok(LeaseReply::Extended { grant, ends_at_ms: record.ends_at_ms })
    }

    /// Asks the provider of a held lease for more time; answers the command when it has said.
    pub(super) fn extend_held(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &Holdings,
        command: u64,
        lease: LeaseId,
        cert: CertId,
    ) {
        match self.may_extend(ctx, holdings, lease, cert) {
            Err(code) => answer(ctx, Some(command), Err(code)),
            Ok(seq) => {
                let extend = Extend {
                    v: VERSION,
                    lease,
                    cert_id: cert,
                    seq,
                    holder: ctx.me(),
                    not_after_s: self.good_until_s(ctx.now_ms, LIFE_S),
                };
                let request = ctx.sign(extend).envelope().clone();
                let until = holdings.held(&cert).map(|next| next.window);
                let Some(record) = self.held.get_mut(&lease) else { return };
                let until = until.unwrap_or(record.window);
                record.extending = Some(Extending { cert, request, until });
                ctx.out.store(&lease.0, record);
                self.extending.insert(lease, (Retry::new(EXTENDING, ctx.now_ms), Some(command)));
                self.send_extend(ctx, lease);
            }
        }
    }

    /// What the holder can see by itself; answers the number that is consumed.
    fn may_extend(
        &self,
        ctx: &Context<'_>,
        holdings: &Holdings,
        lease: LeaseId,
        cert: CertId,
    ) -> Result<u32, &'static str> {
        let record = self.held.get(&lease).ok_or(code!("lease.not_found"))?;
        if !matches!(record.answer, Answer::Granted(_)) || record.has_ended() {
            return Err(code!("extend.too_late"));
        }
        if record.window.ends_at_ms(ctx.params.slot_s) <= ctx.past_ms() {
            return Err(code!("extend.too_late"));
        }
        if record.extending.is_some() {
            return Err(code!("lease.busy"));
        }
        let next = holdings.held(&cert).ok_or(code!("redeem.unknown_certificate"))?;
        if holdings.is_redeemed(&cert) {
            return Err(code!("redeem.consumed"));
        }
        if let Some(first) = holdings.held(&record.cert_id) {
            let lasting = Lasting {
                provider: record.provider,
                class: first.class,
                features: first.features,
                units: first.units.count(),
                window: record.window,
                extensions: record.extensions.len(),
            };
            lasting.check(next)?;
        }
        Ok(next.seq)
    }

    /// Sends what is on disk. Repeating it is safe: a certificate is consumed once.
    pub(super) fn send_extend(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let Some((retry, command)) = self.extending.get_mut(&lease) else { return };
        let told = if retry.tries() >= COMMAND_TRIES { command.take() } else { None };
        answer(ctx, told, Err(code!("redeem.no_answer")));
        let Some(record) = self.held.get_mut(&lease) else { return };
        // The answer may be lost, and what was granted is answered again: so it is asked for as long
        // as it would matter.
        let until = record.extending.as_ref().map_or(record.window, |extending| extending.until);
        let is_over = until.ends_at_ms(ctx.params.slot_s) <= ctx.past_ms();
        if is_over || !retry.take(ctx.now_ms) {
            record.extending = None;
            ctx.out.store(&lease.0, record);
            let command = self.extending.remove(&lease).and_then(|(_, command)| command);
            return answer(ctx, command, Err(code!("redeem.no_answer")));
        }
        let Some(extending) = &record.extending else { return };
        let request = LeaseRequest::Extend { extend: extending.request.clone() };
        ctx.out.send(record.provider, Protocol::Lease, &request, LeasePurpose::Extend(lease));
    }

    pub(super) fn on_extend_reply(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &mut Holdings,
        lease: LeaseId,
        result: Result<LeaseReply, String>,
    ) {
        let Some(record) = self.held.get_mut(&lease) else { return };
        let Some(Extending { cert, .. }) = record.extending else { return };
        let done = match result {
            Ok(LeaseReply::Extended { grant, .. }) => {
                let next = holdings.held(&cert).map(|facts| facts.window.end);
                match next {
                    Some(end) if is_grant(&grant, record.provider, cert, lease, ctx) => {
                        record.window.end = record.window.end.max(end);
                        record.extensions.push((cert, grant));
                        Ok(())
                    }
                    Some(_) | None => Err(code!("redeem.bad_grant").to_owned()),
                }
            }
            Ok(LeaseReply::Refused { code }) => Err(remote_code(&code).to_owned()),
            // No answer: the timer repeats it.
            Ok(_) | Err(_) => return,
        };
        record.extending = None;
        ctx.out.store(&lease.0, record);
        let is_granted = done.is_ok();
        let command = self.extending.remove(&lease).and_then(|(_, command)| command);
        if is_granted {
            holdings.mark_redeemed(ctx, cert, lease);
            self.follow(ctx.now_ms, lease);
        }
        answer(ctx, command, done.as_ref().map(|()| Done::Ok).map_err(String::as_str));
    }

    /// Goes on with what an earlier life has asked.
    pub(super) fn resume_extending(&mut self, now_ms: u64) {
        let asked = self.held.iter().filter(|(_, record)| record.extending.is_some());
        let retry = |lease: &LeaseId| (*lease, (Retry::new(EXTENDING, now_ms), None));
        self.extending = asked.map(|(lease, _)| retry(lease)).collect();
    }

    pub(super) fn tick_extending(&mut self, ctx: &mut Context<'_>) {
        let due = self.extending.iter().filter(|(_, (retry, _))| retry.is_due(ctx.now_ms));
        let due: Vec<LeaseId> = due.map(|(lease, _)| *lease).collect();
        due.into_iter().for_each(|lease| self.send_extend(ctx, lease));
    }
}

impl HeldLease {
    /// Whether its last receipt is here.
    pub(super) fn has_ended(&self) -> bool {
        let last = self.receipts.last();
        let last = last.and_then(|receipt| receipt.peek::<crate::lease::objects::Receipt>().ok());
        last.is_some_and(|receipt| receipt.outcome.is_some())
    }
}
