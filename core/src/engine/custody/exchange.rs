//! Whole certificates between peers: acquire, push, fetch.

use super::records::HeldRecord;
use super::{Custody, Errand, GIFTED_HOPS_MAX, HELD_MAX, notify};
use crate::certificate::objects::{Activation, Hop, Issue};
use crate::certificate::{Certificate, verify};
use crate::engine::io::Protocol;
use crate::engine::kernel::{Context, Purpose, answer};
use crate::ids::{CertId, Key, LeaseId};
use crate::settlement::objects::{SettleReply, SettleRequest, Terms};

impl Custody {
    /// Stores a certificate that a sale has made this node's.
    ///
    /// # Errors
    /// A code of [`crate::certificate::CertificateError`], `acquire.not_holder`,
    /// `acquire.window_past` or `acquire.full`.
    pub fn acquire(
        &mut self,
        ctx: &mut Context<'_>,
        certificate: Certificate,
    ) -> Result<CertId, &'static str> {
        self.take(ctx, certificate, "acquired")
    }

    /// Verifies a certificate and stores it if it is this node's and longer than what it has.
    fn take(
        &mut self,
        ctx: &mut Context<'_>,
        certificate: Certificate,
        what: &'static str,
    ) -> Result<CertId, &'static str> {
        let facts = verify(&certificate, ctx.params).map_err(|error| error.code())?;
        let id = facts.cert_id;
        if facts.holder != ctx.me() {
            return Err("acquire.not_holder");
        }
        self.learn_certificate(ctx, &certificate);
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
        self.save_held(ctx, id);
        notify(ctx, id, what);
        Ok(id)
    }

    /// Asks a provider for a certificate that this node holds or held.
    pub fn fetch(&mut self, ctx: &mut Context<'_>, provider: Key, cert: CertId) {
        let request = SettleRequest::GetCert(cert);
        ctx.out.send(provider, Protocol::Settle, &request, Purpose::GetCert(cert));
    }

    /// Notes that a held certificate was redeemed.
    pub fn mark_redeemed(&mut self, ctx: &mut Context<'_>, cert: CertId, lease: LeaseId) {
        if let Some(record) = self.held.get_mut(&cert) {
            record.redeemed = Some(lease);
            self.save_held(ctx, cert);
            notify(ctx, cert, "redeemed");
        }
    }

    /// Answers Gift, Push and GetCert; `None` for what belongs to a settlement.
    pub fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        peer: Key,
        request: &SettleRequest,
    ) -> Option<SettleReply> {
        let answer = match request {
            SettleRequest::Gift(gift) => self.on_gift(ctx, gift).map(SettleReply::Activation),
            SettleRequest::Push(certificate) => self.on_push(ctx, certificate),
            SettleRequest::GetCert(id) => self.on_get(peer, *id).map(SettleReply::Certificate),
            _ => return None,
        };
        Some(answer.unwrap_or_else(|code| SettleReply::Refused { code: code.to_owned() }))
    }

    /// Takes what a stranger says is this node's. Anyone can make up a provider and give its
    /// certificates away, so gifts may not use up the room of what this node buys.
    fn on_push(
        &mut self,
        ctx: &mut Context<'_>,
        certificate: &Certificate,
    ) -> Result<SettleReply, &'static str> {
        let is_known =
            self.held.contains_key(&CertId(certificate.issue.id::<Issue>(ctx.params.magic)));
        let hops = |record: &HeldRecord| record.certificate.hops.len();
        let held: usize = self.held.values().map(hops).sum();
        if held.saturating_add(certificate.hops.len()) > GIFTED_HOPS_MAX && !is_known {
            return Err("acquire.full");
        }
        self.take(ctx, certificate.clone(), "received").map(|_| SettleReply::Stored)
    }

    /// The same refusal whether it is unknown or not for this peer, so that asking tells
    /// nothing.
    fn on_get(&self, peer: Key, id: CertId) -> Result<Certificate, &'static str> {
        let refused = "certificate.not_a_party";
        if let Some(record) = self.issued.get(&id).filter(|record| !record.void) {
            let lock = record.lock.as_ref();
            let waits = lock.is_some_and(|lock| lock.to == peer || lock.funders.contains(&peer));
            if waits || is_party(&record.certificate, record.facts.provider, peer) {
                return Ok(record.certificate.clone());
            }
        }
        let held = self.held.get(&id).ok_or(refused)?;
        if is_party(&held.certificate, held.facts.provider, peer) {
            return Ok(held.certificate.clone());
        }
        Err(refused)
    }

    /// Routes the answer to a request of [`Purpose::Gift`], [`Purpose::Push`] or
    /// [`Purpose::GetCert`].
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        purpose: &Purpose,
        result: Result<SettleReply, String>,
    ) {
        match (purpose, result) {
            (Purpose::Gift(cert, _), result) => self.on_gift_reply(ctx, *cert, result),
            (Purpose::Push(cert), Ok(SettleReply::Stored | SettleReply::Refused { .. })) => {
                self.end_push(ctx, *cert);
            }
            (Purpose::GetCert(cert), Ok(SettleReply::Certificate(certificate))) => {
                let asked = certificate.issue.id::<Issue>(ctx.params.magic);
                if asked == cert.0 {
                    // A certificate that is not this node's, or does not verify, is dropped.
                    let _ = self.take(ctx, certificate, "received");
                }
            }
            _ => {}
        }
    }

    /// Pushes a certificate to its new holder, from either side of the gift.
    pub(super) fn send_push(&mut self, ctx: &mut Context<'_>, cert: CertId) {
        let held = self.held.get(&cert);
        let held = held.and_then(|record| Some((record.push?, &record.certificate)));
        let issued = self.issued.get(&cert);
        let issued = issued.and_then(|record| Some((record.push?, &record.certificate)));
        let Some((to, certificate)) = issued.or(held) else {
            self.errands.remove(&Errand::Push(cert));
            return;
        };
        let request = SettleRequest::Push(certificate.clone());
        let tries_left =
            self.errands.get_mut(&Errand::Push(cert)).is_some_and(|errand| errand.take(ctx.now_ms));
        if !tries_left || to == ctx.me() {
            // The holder can still fetch it.
            self.end_push(ctx, cert);
            return;
        }
        ctx.out.send(to, Protocol::Settle, &request, Purpose::Push(cert));
    }

    fn end_push(&mut self, ctx: &mut Context<'_>, cert: CertId) {
        self.errands.remove(&Errand::Push(cert));
        if let Some(record) = self.issued.get_mut(&cert).filter(|record| record.push.is_some()) {
            record.push = None;
            self.save_issued(ctx, cert);
        }
        if let Some(record) = self.held.get_mut(&cert).filter(|record| record.push.is_some()) {
            record.push = None;
            self.save_held(ctx, cert);
        }
    }
}

/// Whether a peer is provider, present or former holder, or has paid for a certificate.
fn is_party(certificate: &Certificate, provider: Key, peer: Key) -> bool {
    let in_hop = |hop: &Hop| match hop {
        Hop::Sale { terms, .. } => terms.peek::<Terms>().is_ok_and(|terms| {
            terms.from == peer
                || terms.to == peer
                || terms.funders.iter().any(|funder| funder.key == peer)
        }),
        Hop::Gift { gift, activation } => {
            gift.key == peer.0
                || activation.peek::<Activation>().is_ok_and(|moved| moved.holder == peer)
        }
    };
    peer == provider || certificate.hops.iter().any(in_hop)
}
