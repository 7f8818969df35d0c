//! Sales: issue, lock, release and activation.

use super::records::{Hold, IssuedRecord, LiveLock};
use super::redeem::publish_grant;
use super::{ISSUED_MAX, Register, activation_of, has_room};
use crate::certificate::Claim;
use crate::certificate::hops::Step;
use crate::certificate::objects::{Binding, Hop, Issue, Payment};
use crate::certificate::verify::{Fault, check_terms};
use crate::code;
use crate::engine::certificates::notify;
use crate::engine::kernel::Context;
use crate::engine::trades::Fresh;
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::limits::LIVE_LOCKS_PER_KEY;
use crate::params::Params;
use crate::settlement::objects::{Accept, LockGrant, Terms, Transfer};
use crate::units::TimeMs;
use crate::wire::{Envelope, VERSION, Verified, sha256};

/// How long a buyer that pays for itself is left to ask for its Activation, ms: it does so on
/// the tip that has the claim, as a rule within a round trip.
const ASKS_WITHIN_MS: u64 = 5_000;

/// Until when the buyer of a fresh certificate may ask for its lock, unix ms: it has the
/// time for terms to get them and the time for funding to answer.
pub(super) fn sold_by_ms(record: &IssuedRecord, params: &Params) -> TimeMs {
    let patience = params.settle.terms_ms.saturating_add(params.settle.fund_ms);
    record.issued_at_ms.saturating_add(patience)
}

impl Register {
    /// Issues the certificate of a trade, once: the same trade gets the same Issue.
    ///
    /// # Errors
    /// `issue.*` or `ledger.*`: the units are not free, or not this host's.
    pub fn issue(
        &mut self,
        ctx: &mut Context<'_>,
        trade: TradeId,
        fresh: &Fresh,
    ) -> Result<Verified<Issue>, &'static str> {
        if let Some(record) = self.by_trade.get(&trade).and_then(|id| self.issued.get(id)) {
            if record.head.is_void() {
                return Err(code!("issue.void"));
            }
            let issue = record.certificate.issue().ok_or(code!("issue.void"))?;
            return issue.verify(ctx.params.magic).map_err(|e| e.code());
        }
        self.may_issue()?;
        if self.issued.len() >= ISSUED_MAX {
            return Err(code!("issue.full"));
        }
        let Fresh { class, units, window, .. } = fresh;
        let (class, window) = (*class, *window);
        let is_usable = (window.start..window.end).contains(&fresh.not_after_slot);
        if !is_usable || !units.is_canonical() {
            return Err(code!("issue.bad_area"));
        }
        let class_hash = ctx.params.class_hash(class).ok_or(code!("issue.unknown_class"))?;
        // The market has claimed the row, else it is claimed now; never other units.
        if self.ledger.areas(Claim::Row(trade)).any(|area| area != (class, units, window)) {
            return Err(code!("issue.not_claimed"));
        }
        self.ledger.claim(Claim::Row(trade), class, units, window).map_err(|e| e.code())?;
        let issue = sign_issue(ctx, class_hash, fresh);
        let id = CertId(issue.id());
        self.ledger.retag(Claim::Row(trade), Claim::Certificate(id));
        self.issued.insert(id, IssuedRecord::new(&issue, trade, ctx.now_ms));
        self.by_trade.insert(trade, id);
        self.save(ctx, id);
        notify(ctx, id, "issued");
        Ok(issue)
    }

    /// Locks (cert_id, seq) for these terms alone and gossips the grant; the same terms get
    /// the same grant.
    ///
    /// # Errors
    /// `lock.*`: consumed, locked for others, or too many live locks of one funder.
    pub fn lock(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        accepts: &[Verified<Accept>],
    ) -> Result<Verified<LockGrant>, &'static str> {
        let terms_hash = TermsHash(terms.id());
        let record = self.issued.get(&terms.cert_id).ok_or(code!("lock.unknown_certificate"))?;
        if let Some(lock) = record.head.lock() {
            return if lock.terms_hash == terms_hash {
                lock.grant.verify(ctx.params.magic).map_err(|error| error.code())
            } else {
                Err(code!("lock.live"))
            };
        }
        self.may_issue()?;
        may_lock(record, terms, ctx)?;
        let agreed = |(funder, accept): (&Key, &Verified<Accept>)| {
            accept.terms_hash == terms_hash && Key(accept.key()) == *funder
        };
        let funders: Vec<Key> = terms.funders.iter().map(|funder| funder.key).collect();
        if funders.len() != accepts.len() || !funders.iter().zip(accepts).all(agreed) {
            return Err(code!("lock.accept_missing"));
        }
        if funders.iter().any(|funder| self.live_locks(*funder) >= LIVE_LOCKS_PER_KEY) {
            return Err(code!("lock.too_many"));
        }
        let grant = sign_lock(ctx, record, terms);
        let live = LiveLock { grant: grant.envelope().clone(), terms_hash, funders, to: terms.to };
        if let Some(record) = self.issued.get_mut(&terms.cert_id) {
            record.head.hold = Hold::Locked(live);
            self.locked.insert(terms_hash, terms.cert_id);
        }
        self.save(ctx, terms.cert_id);
        publish_grant(ctx, grant.envelope());
        Ok(grant)
    }

    /// Frees a lock. `evidence` is the id of the TermsCancel, of the Accept whose consent
    /// has elapsed, or of the refund transaction.
    pub fn release(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash, evidence: [u8; 32]) {
        let Some(id) = self.locked.remove(&terms_hash) else { return };
        let Some(record) = self.issued.get_mut(&id) else { return };
        record.head = record.head.clone().unlocked(terms_hash, evidence);
        if record.facts.seq == 0 {
            self.void(ctx, id);
        } else if record.head.is_undone {
            self.take_from_holder(ctx, id);
        } else {
            self.save(ctx, id);
        }
    }

    /// Takes back what a sale on these terms has moved, if nothing has followed from it: it is good
    /// for nothing any more. Its units stay claimed, because a second Activation of them would
    /// contradict the first. A lock stands until it ends: who pays for it has paid in good faith.
    pub fn take_back(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash) {
        let Some(id) = self.sold.get(&terms_hash).copied() else { return };
        let Some(record) = self.issued.get_mut(&id) else { return };
        let is_last = matches!(
            record.certificate.hops.last(),
            Some(Hop::Sale { terms, .. }) if terms.id::<Terms>(ctx.params.magic) == terms_hash.0
        );
        if !is_last {
            return;
        }
        match record.head.hold {
            Hold::Free => self.take_from_holder(ctx, id),
            Hold::Locked(_) => {
                record.head.is_undone = true;
                self.save(ctx, id);
            }
            Hold::Redeemed(..) | Hold::Spent(_) | Hold::Void | Hold::TakenBack => {}
        }
    }

    fn take_from_holder(&mut self, ctx: &mut Context<'_>, id: CertId) {
        let Some(record) = self.issued.get_mut(&id) else { return };
        record.head.hold = Hold::TakenBack;
        record.push = None;
        self.by_holder.remove(&(record.facts.holder, id));
        self.pushes.end(id);
        self.save(ctx, id);
        notify(ctx, id, "taken_back");
    }

    /// Moves a paid certificate to `terms.to` and signs the Activation, once. The caller has
    /// checked the payment on the chain.
    ///
    /// # Errors
    /// `transfer.unknown_certificate`, `transfer.preimage` or `transfer.no_lock`.
    pub fn activate_sale(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        transfer: &Transfer,
    ) -> Result<Envelope, &'static str> {
        let record =
            self.issued.get(&terms.cert_id).ok_or(code!("transfer.unknown_certificate"))?;
        if let Some(activation) = activation_of(&record.certificate, terms.id()) {
            return Ok(activation);
        }
        if transfer.terms_hash.0 != terms.id() || sha256(&[&transfer.x]) != terms.payment_hash {
            return Err(code!("transfer.preimage"));
        }
        let live = record.head.lock().filter(|lock| lock.terms_hash.0 == terms.id());
        let lock = live.ok_or(code!("transfer.no_lock"))?.grant.clone();
        let hop = |activation| Hop::Sale {
            terms: terms.envelope().clone(),
            lock,
            transfer: transfer.clone(),
            activation,
        };
        // The buyer asks for its Activation on each new tip; a beneficiary hears of it first now.
        let asks = terms.funders.iter().any(|funder| funder.key == terms.to);
        let wait_ms = if asks { ASKS_WITHIN_MS } else { 0 };
        let step = Step::sale(&record.facts, terms);
        let step = step.map_err(|_| code!("transfer.no_lock"))?;
        let activation = self.activate(ctx, terms.cert_id, step, wait_ms, hop)?;
        Ok(activation)
    }

    fn live_locks(&self, funder: Key) -> usize {
        let locked = self.locked.values().filter_map(|id| self.issued.get(id)?.head.lock());
        locked.filter(|lock| lock.funders.contains(&funder)).count()
    }

    /// Gives the units of a certificate back that was never sold.
    fn void(&mut self, ctx: &mut Context<'_>, id: CertId) {
        if let Some(record) = self.issued.get_mut(&id) {
            record.head.hold = Hold::Void;
            self.ledger.release(Claim::Certificate(id));
            self.save(ctx, id);
        }
    }

    /// Gives the units of a trade back that ended before its certificate was locked.
    pub fn void_trade(&mut self, ctx: &mut Context<'_>, trade: TradeId) {
        self.ledger.release(Claim::Row(trade));
        let id = self.by_trade.get(&trade).copied();
        if let Some(id) = id.filter(|id| self.issued.get(id).is_some_and(IssuedRecord::is_unsold)) {
            self.void(ctx, id);
        }
    }

    pub(super) fn void_unsold(&mut self, ctx: &mut Context<'_>) {
        let late = |record: &IssuedRecord| {
            record.is_unsold() && sold_by_ms(record, ctx.params) <= ctx.now_ms
        };
        let ids: Vec<CertId> =
            self.issued.iter().filter(|(_, record)| late(record)).map(|(id, _)| *id).collect();
        for id in ids {
            self.void(ctx, id);
        }
    }
}

/// Whether terms may lock their certificate now.
fn may_lock(
    record: &IssuedRecord,
    terms: &Verified<Terms>,
    ctx: &Context<'_>,
) -> Result<(), &'static str> {
    match record.head.hold {
        Hold::Free => {}
        Hold::Locked(_) => return Err(code!("lock.live")),
        Hold::Redeemed(..) | Hold::Spent(_) => return Err(code!("lock.consumed")),
        Hold::Void | Hold::TakenBack => return Err(code!("lock.void")),
    }
    if record.head.released.contains(&TermsHash(terms.id())) {
        return Err(code!("lock.released"));
    }
    check_terms(&record.facts, terms).map_err(|fault| match fault {
        Fault::NotHolder => "lock.not_holder",
        Fault::Seq => "lock.stale_seq",
        Fault::PrevHash => "lock.prev_hash",
        Fault::Wire(_)
        | Fault::TooManyHops
        | Fault::Class
        | Fault::Area
        | Fault::Foreign
        | Fault::Changed
        | Fault::Lock
        | Fault::Preimage
        | Fault::Cause
        | Fault::Unsold
        | Fault::Bases
        | Fault::Loose
        | Fault::Parts
        | Fault::Outside
        | Fault::Sum
        | Fault::OtherKind
        | Fault::Apart
        | Fault::TooManyRoots => "lock.mismatch",
        Fault::Recallable => "lock.recallable",
    })?;
    if !has_room(&record.certificate) {
        return Err(code!("lock.too_many_hops"));
    }
    if ctx.now_ms >= record.facts.window.starts_at_ms(ctx.params.slot_s) {
        return Err(code!("lock.window_started"));
    }
    Ok(())
}

fn sign_issue(ctx: &mut Context<'_>, class_hash: [u8; 32], fresh: &Fresh) -> Verified<Issue> {
    let nonce32 = ctx.fresh("issue");
    ctx.sign(Issue {
        v: VERSION,
        provider: ctx.me(),
        class: fresh.class,
        class_hash,
        features: fresh.features,
        units: fresh.units.clone(),
        window: fresh.window,
        pay: Payment::Prepaid,
        binding: fresh.recall.map_or(Binding::Registrar, |by| Binding::Recallable { by }),
        nonce32,
        not_after_slot: fresh.not_after_slot,
    })
}

fn sign_lock(
    ctx: &Context<'_>,
    record: &IssuedRecord,
    terms: &Verified<Terms>,
) -> Verified<LockGrant> {
    ctx.sign(LockGrant {
        v: VERSION,
        provider: record.facts.provider,
        cert_id: terms.cert_id,
        seq: terms.seq,
        attempt: record.head.attempt,
        prev_release: record.head.prev_release,
        terms_hash: TermsHash(terms.id()),
        fund_by: terms.fund_by,
        refund_at: terms.refund_at,
        p_height: ctx.chain.height,
    })
}
