//! Splits and merges, as the provider activates them.

use std::collections::BTreeMap;

use super::records::{Head, Hold, IssuedRecord, Spent};
use super::redeem::publish_grant;
use super::{ISSUED_MAX, Register, has_room};
use crate::certificate::hops::Step;
use crate::certificate::objects::{Area, Hop, Merge, Split};
use crate::certificate::verify::{Fault, TransferKind, states};
use crate::certificate::{VerifiedCertificate, join};
use crate::code;
use crate::engine::certificates::notify;
use crate::engine::kernel::Context;
use crate::ids::CertId;
use crate::limits::PARTS_PER_ROOT_MAX;
use crate::wire::Envelope;

impl Register {
    /// Answers a Split: the Activation of each part. Repeating it gives the same.
    ///
    /// # Errors
    /// The reason code.
    pub fn on_split(
        &mut self,
        ctx: &mut Context<'_>,
        split: &Envelope,
    ) -> Result<Vec<Envelope>, &'static str> {
        let split = split.verify::<Split>(ctx.params.magic).map_err(|error| error.code())?;
        let id = split.cert_id;
        let record = self.valid(&id).ok_or(code!("split.unknown_certificate"))?;
        if let Some(spent) = record.head.spent_by(split.id()) {
            return Ok(spent.activations.clone());
        }
        self.may_issue()?;
        let steps = Step::split(&record.facts, &split).map_err(split_code)?;
        may_recut(record, ctx).map_err(Refusal::of_split)?;
        self.has_room_for(&record.facts.roots, steps.len()).map_err(Refusal::of_split)?;
        if !has_room(&record.certificate) {
            return Err(code!("split.too_many_hops"));
        }
        let (class, attempt) = (record.facts.class, record.head.attempt);
        let areas: Vec<(CertId, Area)> =
            steps.iter().map(|step| (step.cert_id(), step.area())).collect();
        let before = record.certificate.clone();
        let roots = record.facts.roots.clone();
        self.pace.take(ctx, &roots, steps.len())?;
        self.ledger.recut(class, &[id], &areas).map_err(|error| error.code())?;
        let mut answer = Vec::new();
        for step in steps {
            let activation =
                ctx.sign(step.activation(&[attempt], ctx.chain.height, ctx.params.magic));
            let bytes = activation.envelope().clone();
            let mut certificate = before.clone();
            let split = split.envelope().clone();
            certificate.hops.push(Hop::Split { split, activations: vec![bytes.clone()] });
            let part = IssuedRecord::recut(certificate, step.done(&activation), ctx.now_ms);
            self.insert_recut(ctx, part);
            answer.push(bytes);
        }
        let spent =
            Spent { kind: TransferKind::Split, cause: split.id(), activations: answer.clone() };
        self.spend(ctx, id, spent);
        answer.iter().for_each(|activation| publish_grant(ctx, activation));
        Ok(answer)
    }

    /// Answers a Merge. Repeating it gives the same Activation.
    ///
    /// # Errors
    /// The reason code.
    pub fn on_merge(
        &mut self,
        ctx: &mut Context<'_>,
        merge: &Envelope,
    ) -> Result<Envelope, &'static str> {
        let merge = merge.verify::<Merge>(ctx.params.magic).map_err(|error| error.code())?;
        let known: Option<Vec<&IssuedRecord>> =
            merge.parts.iter().map(|part| self.valid(&part.cert_id)).collect();
        let records = known.ok_or(code!("merge.unknown_certificate"))?;
        let done = records.first().and_then(|record| record.head.spent_by(merge.id()));
        if let Some(activation) = done.and_then(|spent| spent.activations.first()) {
            return Ok(activation.clone());
        }
        self.may_issue()?;
        let parents: Vec<&VerifiedCertificate> =
            records.iter().map(|record| &record.facts).collect();
        let step = Step::merge(&parents, &merge).map_err(merge_code)?;
        for record in &records {
            may_recut(record, ctx).map_err(Refusal::of_merge)?;
        }
        self.has_room_for(step.roots(), 1).map_err(Refusal::of_merge)?;
        let mut certificate = join(records.iter().map(|record| &record.certificate));
        if !has_room(&certificate) {
            return Err(code!("merge.too_many_hops"));
        }
        // The histories may rest on checkpoints that do not fit each other.
        let heads = |left: &mut dyn Iterator<Item = &VerifiedCertificate>| -> Vec<_> {
            left.map(VerifiedCertificate::head).collect()
        };
        let left = states(&certificate, ctx.params).map_err(|_| code!("merge.histories"))?;
        if heads(&mut left.values()) != merge.parts {
            return Err(code!("merge.histories"));
        }
        let attempts: Vec<u32> = records.iter().map(|record| record.head.attempt).collect();
        let class = records.first().map_or(0, |record| record.facts.class);
        let ids: Vec<CertId> = merge.parts.iter().map(|part| part.cert_id).collect();
        let merged = [(step.cert_id(), step.area())];
        self.pace.take(ctx, step.roots(), 1)?;
        self.ledger.recut(class, &ids, &merged).map_err(|error| error.code())?;
        let activation = ctx.sign(step.activation(&attempts, ctx.chain.height, ctx.params.magic));
        let bytes = activation.envelope().clone();
        let merge_bytes = merge.envelope().clone();
        certificate.hops.push(Hop::Merge { merge: merge_bytes, activation: bytes.clone() });
        let whole = IssuedRecord::recut(certificate, step.done(&activation), ctx.now_ms);
        self.insert_recut(ctx, whole);
        for id in ids {
            let activations = vec![bytes.clone()];
            let spent = Spent { kind: TransferKind::Merge, cause: merge.id(), activations };
            self.spend(ctx, id, spent);
        }
        publish_grant(ctx, &bytes);
        Ok(bytes)
    }

    fn insert_recut(&mut self, ctx: &mut Context<'_>, record: IssuedRecord) {
        let id = record.facts.cert_id;
        self.by_holder.insert((record.facts.holder, id));
        self.count_part(&record);
        self.issued.insert(id, record);
        self.save(ctx, id);
        notify(ctx, id, "issued");
    }

    /// Consumes a certificate for what has come out of it.
    fn spend(&mut self, ctx: &mut Context<'_>, id: CertId, spent: Spent) {
        let Some(record) = self.issued.get_mut(&id) else { return };
        let what = spent.kind.name();
        self.by_holder.remove(&(record.facts.holder, id));
        record.head.hold = Hold::Spent(spent);
        record.push = None;
        self.pushes.end(id);
        self.save(ctx, id);
        notify(ctx, id, what);
    }

    /// Counts a certificate that came of others towards the bound of each of its roots.
    pub(super) fn count_part(&mut self, record: &IssuedRecord) {
        count(&mut self.parts, record);
    }

    fn has_room_for(&self, roots: &[CertId], more: usize) -> Result<(), Refusal> {
        if self.issued.len().saturating_add(more) > ISSUED_MAX {
            return Err(Refusal::Full);
        }
        let of = |root: &CertId| self.parts.get(root).copied().unwrap_or(0);
        let most = roots.iter().map(of).max().unwrap_or(0);
        if most.saturating_add(more) > PARTS_PER_ROOT_MAX {
            return Err(Refusal::TooManyParts);
        }
        Ok(())
    }
}

/// Certificates that came of splits and merges, by root.
pub(super) fn counted<'a>(
    records: impl Iterator<Item = &'a IssuedRecord>,
) -> BTreeMap<CertId, usize> {
    let mut parts = BTreeMap::new();
    records.for_each(|record| count(&mut parts, record));
    parts
}

fn count(parts: &mut BTreeMap<CertId, usize>, record: &IssuedRecord) {
    if record.trade.is_none() {
        for root in &record.facts.roots {
            let count = parts.entry(*root).or_default();
            *count = count.saturating_add(1);
        }
    }
}

/// Why a certificate cannot be split or merged now.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Locked,
    Consumed,
    Started,
    Full,
    TooManyParts,
}

impl Refusal {
    fn of_split(self) -> &'static str {
        match self {
            Self::Locked => code!("split.locked"),
            Self::Consumed => code!("split.consumed"),
            Self::Started => code!("split.window_started"),
            Self::Full => code!("split.full"),
            Self::TooManyParts => code!("split.too_many_parts"),
        }
    }

    fn of_merge(self) -> &'static str {
        match self {
            Self::Locked => code!("merge.locked"),
            Self::Consumed => code!("merge.consumed"),
            Self::Started => code!("merge.window_started"),
            Self::Full => code!("merge.full"),
            Self::TooManyParts => code!("merge.too_many_parts"),
        }
    }
}

fn may_recut(record: &IssuedRecord, ctx: &Context<'_>) -> Result<(), Refusal> {
    match record.head.hold {
        Hold::Free => {}
        Hold::Locked(_) => return Err(Refusal::Locked),
        // What is void has not even been found.
        Hold::Redeemed(..) | Hold::Spent(_) | Hold::Void | Hold::TakenBack => {
            return Err(Refusal::Consumed);
        }
    }
    if ctx.now_ms >= record.facts.window.starts_at_ms(ctx.params.slot_s) {
        return Err(Refusal::Started);
    }
    Ok(())
}

/// What a split gets wrong. The holder knows the same rules, so that it can say it before.
pub(in crate::engine) fn split_code(fault: Fault) -> &'static str {
    match fault {
        Fault::Unsold | Fault::NotHolder => code!("split.not_holder"),
        Fault::Seq => code!("split.stale_seq"),
        Fault::Parts => code!("split.bad_parts"),
        Fault::Outside => code!("split.outside"),
        Fault::Sum => code!("split.sum"),
        Fault::Recallable => code!("split.recallable"),
        Fault::Wire(_)
        | Fault::TooManyHops
        | Fault::Class
        | Fault::Area
        | Fault::Foreign
        | Fault::PrevHash
        | Fault::Changed
        | Fault::Lock
        | Fault::Preimage
        | Fault::Cause
        | Fault::Bases
        | Fault::Loose
        | Fault::OtherKind
        | Fault::Apart
        | Fault::TooManyRoots => code!("split.prev_hash"),
    }
}

/// What a merge gets wrong.
pub(in crate::engine) fn merge_code(fault: Fault) -> &'static str {
    match fault {
        Fault::Unsold | Fault::NotHolder => code!("merge.not_holder"),
        Fault::Seq => code!("merge.stale_seq"),
        Fault::Parts => code!("merge.bad_parts"),
        Fault::Sum => code!("merge.overlap"),
        Fault::Apart => code!("merge.apart"),
        Fault::OtherKind => code!("merge.other_kind"),
        Fault::TooManyRoots => code!("merge.too_many_roots"),
        Fault::Recallable => code!("merge.recallable"),
        Fault::Wire(_)
        | Fault::TooManyHops
        | Fault::Class
        | Fault::Area
        | Fault::Foreign
        | Fault::PrevHash
        | Fault::Changed
        | Fault::Lock
        | Fault::Preimage
        | Fault::Cause
        | Fault::Bases
        | Fault::Loose
        | Fault::Outside => code!("merge.prev_hash"),
    }
}

impl Head {
    /// What came out of it, if this cause consumed it.
    fn spent_by(&self, cause: [u8; 32]) -> Option<&Spent> {
        self.spent().filter(|spent| spent.cause == cause)
    }
}
