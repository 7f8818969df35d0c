//! The register: issue, lock, release, activation and redemption of certificates.

use super::records::{IssuedRecord, LiveLock};
use super::{Custody, Errand, notify};
use crate::certificate::objects::{Activation, Binding, Hop, Issue, Payment, RedeemGrant};
use crate::certificate::verify::{
    Fault, TransferFact, TransferKind, VerifiedCertificate, check_terms,
};
use crate::certificate::{Certificate, Claim};
use crate::engine::io::{Effect, Topic};
use crate::engine::kernel::{Backoff, Context, Table};
use crate::ids::{CertId, Key, LeaseId, TermsHash, TradeId};
use crate::lease::objects::Redeem;
use crate::limits::{CERTIFICATE_HOPS_MAX, LIVE_LOCKS_PER_KEY, SETTLE_MAX_BYTES};
use crate::params::Params;
use crate::settlement::objects::{Accept, LockGrant, Terms, Transfer};
use crate::settlement::registrar::Registrar;
use crate::units::{TimeMs, Units, Window};
use crate::wire::{self, Envelope, VERSION, Verified, sha256};

/// Released terms that are remembered per certificate, so that they are not locked again.
const RELEASED_KEPT: usize = 8;

/// A sale with 8 funders and 16 unit ranges, and room for the message around it.
const HOP_MAX_BYTES: usize = 4 << 10;

/// Whether a certificate was issued and then neither locked nor sold.
pub(super) fn is_unsold(record: &IssuedRecord) -> bool {
    !record.void && record.facts.seq == 0 && record.lock.is_none()
}

/// Until when the buyer of a fresh certificate may ask for its lock, unix ms: it has the
/// time for terms to get them and the time for funding to answer.
pub(super) fn sold_by_ms(record: &IssuedRecord, params: &Params) -> TimeMs {
    let patience = params.settle.terms_ms.saturating_add(params.settle.fund_ms);
    record.issued_at_ms.saturating_add(patience)
}

impl Registrar for Custody {
    fn issue(
        &mut self,
        ctx: &mut Context<'_>,
        trade: TradeId,
        class: u16,
        features: u64,
        units: &Units,
        window: Window,
    ) -> Result<Verified<Issue>, &'static str> {
        if let Some(record) = self.by_trade.get(&trade).and_then(|id| self.issued.get(id)) {
            if record.void {
                return Err("issue.void");
            }
            return record.certificate.issue.verify(ctx.params.magic).map_err(|e| e.code());
        }
        if self.issued.len() >= super::ISSUED_MAX {
            return Err("issue.full");
        }
        if window.is_empty() || !units.is_canonical() {
            return Err("issue.bad_area");
        }
        let class_hash = ctx.params.class_hash(class).ok_or("issue.unknown_class")?;
        // The market has claimed the row, else it is claimed now; never other units.
        if self.ledger.areas(Claim::Row(trade)).any(|area| area != (class, units, window)) {
            return Err("issue.not_claimed");
        }
        self.ledger.claim(Claim::Row(trade), class, units, window).map_err(|e| e.code())?;
        let issue = ctx.sign_issue(class, class_hash, features, units, window);
        self.register(ctx, trade, &issue);
        Ok(issue)
    }

    fn lock(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        accepts: &[Verified<Accept>],
    ) -> Result<Verified<LockGrant>, &'static str> {
        let terms_hash = TermsHash(terms.id());
        let magic = ctx.params.magic;
        let record = self.issued.get(&terms.cert_id).ok_or("lock.unknown_certificate")?;
        if let Some(lock) = &record.lock {
            return if lock.terms_hash == terms_hash {
                lock.grant.verify(magic).map_err(|error| error.code())
            } else {
                Err("lock.live")
            };
        }
        may_lock(record, terms, ctx)?;
        let agreed = |(funder, accept): (&Key, &Verified<Accept>)| {
            accept.terms_hash == terms_hash && Key(accept.key()) == *funder
        };
        let funders: Vec<Key> = terms.funders.iter().map(|funder| funder.key).collect();
        if funders.len() != accepts.len() || !funders.iter().zip(accepts).all(agreed) {
            return Err("lock.accept_missing");
        }
        if funders.iter().any(|funder| self.live_locks(*funder) >= LIVE_LOCKS_PER_KEY) {
            return Err("lock.too_many");
        }
        let grant = ctx.sign_lock(record, terms);
        let live = LiveLock { grant: grant.envelope().clone(), terms_hash, funders, to: terms.to };
        if let Some(record) = self.issued.get_mut(&terms.cert_id) {
            record.lock = Some(live);
        }
        self.save_issued(ctx, terms.cert_id);
        publish_grant(ctx, grant.envelope());
        Ok(grant)
    }

    fn release(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash, evidence: [u8; 32]) {
        let is_live = |record: &IssuedRecord| {
            record.lock.as_ref().is_some_and(|lock| lock.terms_hash == terms_hash)
        };
        let Some((&id, record)) = self.issued.iter_mut().find(|(_, record)| is_live(record)) else {
            return;
        };
        record.lock = None;
        record.attempt = record.attempt.saturating_add(1);
        record.prev_release = evidence;
        record.released.push(terms_hash);
        if record.released.len() > RELEASED_KEPT {
            record.released.remove(0);
        }
        if record.facts.seq == 0 {
            self.void(ctx, id);
        } else {
            self.save_issued(ctx, id);
        }
    }

    fn activate_sale(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        transfer: &Transfer,
    ) -> Result<Envelope, &'static str> {
        let record = self.issued.get(&terms.cert_id).ok_or("transfer.unknown_certificate")?;
        if let Some(activation) = activation_of(&record.certificate, terms.id()) {
            return Ok(activation);
        }
        if transfer.terms_hash.0 != terms.id() || sha256(&[&transfer.x]) != terms.payment_hash {
            return Err("transfer.preimage");
        }
        let live = record.lock.as_ref().filter(|lock| lock.terms_hash.0 == terms.id());
        let lock = live.ok_or("transfer.no_lock")?.grant.clone();
        let hop = |activation| Hop::Sale {
            terms: terms.envelope().clone(),
            lock,
            transfer: transfer.clone(),
            activation,
        };
        let cause = Cause { kind: TransferKind::Sale, to: terms.to, hash: terms.id() };
        // The buyer takes its Activation from the answer; a beneficiary hears of it first now.
        let told = terms.funders.iter().any(|funder| funder.key == terms.to);
        self.activate(ctx, terms.cert_id, cause, !told, hop)
    }

    fn conflicting_lock(
        &self,
        provider: Key,
        cert: CertId,
        seq: u32,
        attempt: u32,
        terms_hash: TermsHash,
    ) -> bool {
        self.is_equivocator(provider)
            || self.heard.conflicts(provider, cert, seq, attempt, terms_hash)
    }
}

/// Why a certificate moves.
pub(super) struct Cause {
    pub(super) kind: TransferKind,
    pub(super) to: Key,
    pub(super) hash: [u8; 32],
}

impl Custody {
    fn register(&mut self, ctx: &mut Context<'_>, trade: TradeId, issue: &Verified<Issue>) {
        let id = CertId(issue.id());
        self.ledger.retag(Claim::Row(trade), Claim::Certificate(id));
        let facts = VerifiedCertificate {
            cert_id: id,
            provider: issue.provider,
            class: issue.class,
            class_hash: issue.class_hash,
            features: issue.features,
            units: issue.units.clone(),
            window: issue.window,
            not_after_slot: issue.not_after_slot,
            holder: issue.provider,
            seq: 0,
            last_hash: id.0,
            as_of_height: 0,
            transfers: Vec::new(),
        };
        let record = IssuedRecord {
            certificate: Certificate { issue: issue.envelope().clone(), hops: Vec::new() },
            facts,
            trade,
            issued_at_ms: ctx.now_ms,
            attempt: 0,
            prev_release: [0; 32],
            lock: None,
            released: Vec::new(),
            redeemed: None,
            void: false,
            push: None,
        };
        self.issued.insert(id, record);
        self.by_trade.insert(trade, id);
        self.save_issued(ctx, id);
        notify(ctx, id, "issued");
    }

    fn live_locks(&self, funder: Key) -> usize {
        let locks = self.issued.values().filter_map(|record| record.lock.as_ref());
        locks.filter(|lock| lock.funders.contains(&funder)).count()
    }

    /// Appends a hop. What is consumed is on disk before the Activation leaves.
    pub(super) fn activate(
        &mut self,
        ctx: &mut Context<'_>,
        id: CertId,
        cause: Cause,
        push: bool,
        hop: impl FnOnce(Envelope) -> Hop,
    ) -> Result<Envelope, &'static str> {
        let record = self.issued.get_mut(&id).ok_or("transfer.unknown_certificate")?;
        let activation = ctx.sign(activation(record, &cause, ctx.chain.height));
        let bytes = activation.envelope().clone();
        record.certificate.hops.push(hop(bytes.clone()));
        let facts = &mut record.facts;
        facts.transfers.push(TransferFact { kind: cause.kind, from: facts.holder, to: cause.to });
        facts.holder = cause.to;
        facts.seq = activation.seq;
        facts.last_hash = activation.id();
        facts.as_of_height = activation.p_height;
        record.attempt = 0;
        record.prev_release = [0; 32];
        record.lock = None;
        record.released.clear();
        record.push = push.then_some(cause.to);
        self.errands.remove(&Errand::Push(id));
        self.save_issued(ctx, id);
        if push {
            self.errands.insert(Errand::Push(id), Backoff::new(ctx.now_ms));
            self.send_push(ctx, id);
        }
        Ok(bytes)
    }

    /// Gives the units of a certificate back that was never sold.
    fn void(&mut self, ctx: &mut Context<'_>, id: CertId) {
        if let Some(record) = self.issued.get_mut(&id) {
            record.void = true;
            self.ledger.release(Claim::Certificate(id));
            self.save_issued(ctx, id);
        }
    }

    /// Gives the units of a trade back that ended before its certificate was locked.
    pub fn void_trade(&mut self, ctx: &mut Context<'_>, trade: TradeId) {
        self.ledger.release(Claim::Row(trade));
        let id = self.by_trade.get(&trade).copied();
        if let Some(id) = id.filter(|id| self.issued.get(id).is_some_and(is_unsold)) {
            self.void(ctx, id);
        }
    }

    pub(super) fn void_unsold(&mut self, ctx: &mut Context<'_>) {
        let late = |record: &IssuedRecord| {
            is_unsold(record) && sold_by_ms(record, ctx.params) <= ctx.now_ms
        };
        let ids: Vec<CertId> =
            self.issued.iter().filter(|(_, record)| late(record)).map(|(id, _)| *id).collect();
        for id in ids {
            self.void(ctx, id);
        }
    }

    /// Whether a redemption may consume its certificate: known, holder, seq, consumed,
    /// window, in this order.
    ///
    /// # Errors
    /// `redeem.unknown_certificate`, `redeem.not_holder`, `redeem.stale_seq`,
    /// `redeem.consumed`, `redeem.locked` or `redeem.window_past`.
    pub fn check_redeem(&self, ctx: &Context<'_>, redeem: &Redeem) -> Result<(), &'static str> {
        let record = self.issued.get(&redeem.cert_id).filter(|record| !record.void);
        let record = record.ok_or("redeem.unknown_certificate")?;
        if record.facts.holder != redeem.holder || record.facts.seq == 0 {
            return Err("redeem.not_holder");
        }
        if record.facts.seq != redeem.seq {
            return Err("redeem.stale_seq");
        }
        if record.redeemed.is_some() {
            return Err("redeem.consumed");
        }
        if record.lock.is_some() {
            return Err("redeem.locked");
        }
        if ctx.params.slot_at(ctx.now_ms) > record.facts.not_after_slot {
            return Err("redeem.window_past");
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
        let record = self.issued.get_mut(&cert_id).ok_or("redeem.unknown_certificate")?;
        let grant = ctx.sign(RedeemGrant {
            v: VERSION,
            provider: record.facts.provider,
            cert_id,
            seq: record.facts.seq,
            attempt: record.attempt,
            redeem_hash: lease,
            p_height: ctx.chain.height,
        });
        let bytes = grant.envelope().clone();
        record.redeemed = Some((lease, bytes.clone()));
        ctx.out.put(Table::Issued, &cert_id.0, record);
        notify(ctx, cert_id, "redeemed");
        Ok(bytes)
    }
}

/// Whether terms may lock their certificate now.
fn may_lock(
    record: &IssuedRecord,
    terms: &Verified<Terms>,
    ctx: &Context<'_>,
) -> Result<(), &'static str> {
    if record.void {
        return Err("lock.void");
    }
    if record.redeemed.is_some() {
        return Err("lock.consumed");
    }
    if record.released.contains(&TermsHash(terms.id())) {
        return Err("lock.released");
    }
    check_terms(&record.facts, terms).map_err(|fault| match fault {
        Fault::NotHolder => "lock.not_holder",
        Fault::Seq => "lock.stale_seq",
        Fault::PrevHash => "lock.prev_hash",
        _ => "lock.mismatch",
    })?;
    if !has_room(&record.certificate) {
        return Err("lock.too_many_hops");
    }
    if ctx.now_ms >= record.facts.window.starts_at_ms(ctx.params.slot_s) {
        return Err("lock.window_started");
    }
    Ok(())
}

/// Whether a certificate can take one more hop and still travel in one message.
pub(super) fn has_room(certificate: &Certificate) -> bool {
    let bytes = wire::encode(certificate).len().saturating_add(HOP_MAX_BYTES);
    certificate.hops.len() < CERTIFICATE_HOPS_MAX && bytes <= SETTLE_MAX_BYTES
}

/// The Activation that ended the hop with a cause.
pub(super) fn activation_of(certificate: &Certificate, cause: [u8; 32]) -> Option<Envelope> {
    certificate.hops.iter().rev().find_map(|hop| {
        let (Hop::Sale { activation, .. } | Hop::Gift { activation, .. }) = hop;
        let peeked: Activation = activation.peek().ok()?;
        (peeked.cause_hash == cause).then(|| activation.clone())
    })
}

fn activation(record: &IssuedRecord, cause: &Cause, p_height: u32) -> Activation {
    let facts = &record.facts;
    Activation {
        v: VERSION,
        provider: facts.provider,
        cert_id: facts.cert_id,
        seq: facts.seq.saturating_add(1),
        attempt: record.attempt,
        holder: cause.to,
        class: facts.class,
        features: facts.features,
        units: facts.units.clone(),
        window: facts.window,
        prev_hash: facts.last_hash,
        cause_hash: cause.hash,
        p_height,
    }
}

/// Gossips a grant, behind the records that were made with it.
pub(in crate::engine) fn publish_grant(ctx: &mut Context<'_>, grant: &Envelope) {
    ctx.out.push(Effect::Publish { topic: Topic::Locks, bytes: wire::encode(grant) });
}

impl Context<'_> {
    fn sign_issue(
        &mut self,
        class: u16,
        class_hash: [u8; 32],
        features: u64,
        units: &Units,
        window: Window,
    ) -> Verified<Issue> {
        let nonce32 = self.fresh("issue");
        self.sign(Issue {
            v: VERSION,
            provider: self.me(),
            class,
            class_hash,
            features,
            units: units.clone(),
            window,
            pay: Payment::Prepaid,
            binding: Binding::Registrar,
            nonce32,
            // A redemption in the last slot still runs until the window ends.
            not_after_slot: window.end - 1,
        })
    }

    fn sign_lock(&self, record: &IssuedRecord, terms: &Verified<Terms>) -> Verified<LockGrant> {
        self.sign(LockGrant {
            v: VERSION,
            provider: record.facts.provider,
            cert_id: terms.cert_id,
            seq: terms.seq,
            attempt: record.attempt,
            prev_release: record.prev_release,
            terms_hash: TermsHash(terms.id()),
            fund_by: terms.fund_by,
            refund_at: terms.refund_at,
            p_height: self.chain.height,
        })
    }
}
