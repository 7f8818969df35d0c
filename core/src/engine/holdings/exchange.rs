//! Whole certificates between peers: acquire, push, fetch.

use super::records::HeldRecord;
use super::{Errand, GIFTED_HOPS_MAX, HELD_MAX, Holdings, HoldingsPurpose};
use crate::certificate::objects::Issue;
use crate::certificate::{Certificate, verify};
use crate::engine::certificates::notify;
use crate::engine::courier::{CourierReply, CourierRequest};
use crate::engine::io::Protocol;
use crate::engine::kernel::{Answer, Context, answer};
use crate::engine::messages::{SettleReply, SettleRequest};
use crate::engine::register::{RegisterReply, RegisterRequest};
use crate::engine::witness::Witness;
use crate::ids::{CertId, Key};

impl Holdings {
    /// Stores a certificate that a sale has made this node's.
    ///
    /// # Errors
    /// A code of [`crate::certificate::CertificateError`], `acquire.not_holder`,
    /// `acquire.window_past` or `acquire.full`.
    pub fn acquire(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        certificate: Certificate,
    ) -> Result<CertId, &'static str> {
        self.take(ctx, witness, certificate, "acquired")
    }

    /// Verifies a certificate and stores it if it is this node's and longer than what it has.
    fn take(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        certificate: Certificate,
        what: &'static str,
    ) -> Result<CertId, &'static str> {
        let facts = verify(&certificate, ctx.params).map_err(|error| error.code())?;
        let id = facts.cert_id;
        if facts.holder != ctx.me() {
            return Err("acquire.not_holder");
        }
        witness.learn_certificate(ctx, &certificate);
        let known = self.held.get(&id);
        if known.is_some_and(|known| known.facts.seq >= facts.seq) {
            return Ok(id);
        }
        if ctx.params.slot_at(ctx.now_ms) >= facts.window.end {
            return Err("acquire.window_past");
        }
        if known.is_none() && self.held.len() >= HELD_MAX {
            return Err("acquire.full");
        }
        self.errands.remove(&Errand::Gift(id));
        let command = self.commands.remove(&id);
        answer(ctx, command, Err("gift.stale_seq"));
        self.held.insert(id, HeldRecord::new(certificate, facts));
        self.save(ctx, id);
        notify(ctx, id, what);
        Ok(id)
    }

    /// Asks the provider for a certificate that has moved on without this node hearing of
    /// it, as one does that was given away and came back. One that gets no answer is asked
    /// for again when it is used again.
    pub fn fetch(&self, ctx: &mut Context<'_>, provider: Key, cert: CertId) {
        let request = SettleRequest::Register(RegisterRequest::Get(cert));
        ctx.out.send(provider, Protocol::Settle, &request, HoldingsPurpose::Fetch(cert));
    }

    /// Answers a peer that brings a certificate.
    ///
    /// # Errors
    /// As [`Holdings::acquire`].
    pub fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        request: &CourierRequest,
    ) -> Result<CourierReply, &'static str> {
        let CourierRequest::Push(certificate) = request;
        self.on_push(ctx, witness, certificate).map(|()| CourierReply::Stored)
    }

    /// Takes what a stranger says is this node's. Anyone can make up a provider and give its
    /// certificates away, so gifts may not use up the room of what this node buys.
    ///
    /// # Errors
    /// As [`Holdings::acquire`].
    pub fn on_push(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        certificate: &Certificate,
    ) -> Result<(), &'static str> {
        let is_known =
            self.held.contains_key(&CertId(certificate.issue.id::<Issue>(ctx.params.magic)));
        let hops = |record: &HeldRecord| record.certificate.hops.len();
        let held: usize = self.held.values().map(hops).sum();
        if held.saturating_add(certificate.hops.len()) > GIFTED_HOPS_MAX && !is_known {
            return Err("acquire.full");
        }
        self.take(ctx, witness, certificate.clone(), "received").map(|_| ())
    }

    /// A peer answered, or could not be reached.
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        purpose: HoldingsPurpose,
        result: Result<SettleReply, String>,
    ) {
        match purpose {
            HoldingsPurpose::Gift(cert) => {
                self.on_gift_reply(ctx, witness, cert, SettleReply::told(result));
            }
            HoldingsPurpose::Push(cert) => match SettleReply::told(result) {
                Answer::Said(CourierReply::Stored) | Answer::Refused(_) => self.end_push(ctx, cert),
                Answer::None => {}
            },
            HoldingsPurpose::Fetch(cert) => {
                if let Answer::Said(RegisterReply::Certificate(certificate)) =
                    SettleReply::told(result)
                    && certificate.issue.id::<Issue>(ctx.params.magic) == cert.0
                {
                    // A certificate that is not this node's, or does not verify, is dropped.
                    let _ = self.take(ctx, witness, certificate, "received");
                }
            }
        }
    }

    /// Pushes a given certificate to its new holder, which can also fetch it.
    pub(super) fn send_push(&mut self, ctx: &mut Context<'_>, cert: CertId) {
        let record = self.held.get(&cert);
        let Some((to, record)) = record.and_then(|record| Some((record.push?, record))) else {
            self.errands.remove(&Errand::Push(cert));
            return;
        };
        let request = CourierRequest::Push(record.certificate.clone());
        let may_try =
            self.errands.get_mut(&Errand::Push(cert)).is_some_and(|errand| errand.take(ctx.now_ms));
        if !may_try || to == ctx.me() {
            self.end_push(ctx, cert);
            return;
        }
        let request = SettleRequest::Courier(request);
        ctx.out.send(to, Protocol::Settle, &request, HoldingsPurpose::Push(cert));
    }

    fn end_push(&mut self, ctx: &mut Context<'_>, cert: CertId) {
        self.errands.remove(&Errand::Push(cert));
        if let Some(record) = self.held.get_mut(&cert).filter(|record| record.push.is_some()) {
            record.push = None;
            self.save(ctx, cert);
        }
    }
}
