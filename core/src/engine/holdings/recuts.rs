//! Splits and merges: the holder signs, the provider activates, and what is held is exchanged for
//! what has come of it, at once.

use std::collections::BTreeSet;

use super::errands::fresh16;
use super::records::{HeldRecord, Pending};
use super::{HELD_MAX, Holdings};
use crate::certificate::hops::Step;
use crate::certificate::objects::{Activation, Area, Hop, Merge, Parent, Split};
use crate::certificate::verify::{TransferKind, check_split, verify};
use crate::certificate::{Certificate, VerifiedCertificate, join};
use crate::code;
use crate::engine::certificates::notify;
use crate::engine::io::Done;
use crate::engine::kernel::{Context, answer};
use crate::engine::register::{merge_code, split_code};
use crate::engine::witness::Witness;
use crate::ids::{CertId, Key};
use crate::limits::MERGE_PARTS_MAX;
use crate::wire::{Envelope, VERSION};

impl Holdings {
    /// Signs a split of a certificate, as its holder. One part may be given away when it is there.
    pub(super) fn start_split(
        &mut self,
        ctx: &mut Context<'_>,
        cert: CertId,
        parts: Vec<Area>,
        give: Option<(u32, Key)>,
    ) -> Result<(), &'static str> {
        let has_room = self.held.len().saturating_add(parts.len()) <= HELD_MAX;
        let record = self.held.get_mut(&cert).ok_or(code!("split.unknown_certificate"))?;
        may_recut(record, ctx).map_err(|refusal| match refusal {
            Refusal::Consumed => code!("split.consumed"),
            Refusal::NotHolder => code!("split.not_holder"),
            Refusal::Started => code!("split.window_started"),
        })?;
        if give.is_some_and(|(_, to)| to == ctx.me()) {
            return Err(code!("gift.to_self"));
        }
        if let Some(pending) = &record.pending {
            // Repeating the command repeats the same split.
            return match pending {
                Pending::Split { split, give: known } if *known == give => {
                    let same = split.peek::<Split>().is_ok_and(|split| split.parts == parts);
                    if same { Ok(()) } else { Err(code!("split.pending")) }
                }
                Pending::Gift { .. } | Pending::Split { .. } | Pending::Merge { .. } => {
                    Err(code!("split.pending"))
                }
            };
        }
        if !has_room {
            return Err(code!("split.full"));
        }
        let Parent { cert_id, seq, prev_hash } = record.facts.head();
        let nonce16 = fresh16(ctx, "split");
        let count = parts.len();
        let split = ctx.sign(Split { v: VERSION, cert_id, seq, prev_hash, parts, nonce16 });
        check_split(&record.facts, &split).map_err(split_code)?;
        if give.is_some_and(|(index, _)| usize::try_from(index).is_ok_and(|at| at >= count)) {
            return Err(code!("split.bad_parts"));
        }
        record.pending = Some(Pending::Split { split: split.envelope().clone(), give });
        self.save(ctx, cert);
        Ok(())
    }

    /// Signs a merge of certificates, as their holder. Returns the one that asks for it.
    pub(super) fn start_merge(
        &mut self,
        ctx: &mut Context<'_>,
        certs: Vec<CertId>,
    ) -> Result<CertId, &'static str> {
        let ids: BTreeSet<CertId> = certs.iter().copied().collect();
        let (Some(lead), 2..=MERGE_PARTS_MAX) = (ids.first().copied(), certs.len()) else {
            return Err(code!("merge.bad_parts"));
        };
        if ids.len() != certs.len() {
            return Err(code!("merge.bad_parts"));
        }
        let known: Option<Vec<&HeldRecord>> = ids.iter().map(|id| self.held.get(id)).collect();
        let records = known.ok_or(code!("merge.unknown_certificate"))?;
        for record in &records {
            may_recut(record, ctx).map_err(|refusal| match refusal {
                Refusal::Consumed => code!("merge.consumed"),
                Refusal::NotHolder => code!("merge.not_holder"),
                Refusal::Started => code!("merge.window_started"),
            })?;
        }
        let parents: Vec<&VerifiedCertificate> =
            records.iter().map(|record| &record.facts).collect();
        let parts: Vec<Parent> = parents.iter().map(|facts| facts.head()).collect();
        if records.iter().any(|record| record.pending.is_some()) {
            // Repeating the command repeats the same merge.
            let waits = records.iter().all(|record| match &record.pending {
                Some(Pending::Merge { merge, .. }) => {
                    merge.peek::<Merge>().is_ok_and(|merge| merge.parts == parts)
                }
                _ => false,
            });
            return if waits { Ok(lead) } else { Err(code!("merge.pending")) };
        }
        let nonce16 = fresh16(ctx, "merge");
        let merge = ctx.sign(Merge { v: VERSION, parts, nonce16 });
        Step::merge(&parents, &merge).map_err(merge_code)?;
        for id in ids {
            if let Some(record) = self.held.get_mut(&id) {
                let merge = merge.envelope().clone();
                record.pending = Some(Pending::Merge { merge, lead });
                self.save(ctx, id);
            }
        }
        Ok(lead)
    }

    pub(super) fn finish_split(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        cert: CertId,
        activations: &[Envelope],
    ) -> Result<(), ()> {
        let record = self.held.get(&cert).ok_or(())?;
        let Some(Pending::Split { split, give }) = &record.pending else { return Err(()) };
        let (signed, give) = (split.verify::<Split>(ctx.params.magic).map_err(|_| ())?, *give);
        let steps = Step::split(&record.facts, &signed).map_err(|_| ())?;
        if steps.len() != activations.len() {
            return Err(());
        }
        let mut parts = Vec::new();
        for (step, bytes) in steps.into_iter().zip(activations) {
            let activation = bytes.verify::<Activation>(ctx.params.magic).map_err(|_| ())?;
            step.check(&activation, ctx.params.magic).map_err(|_| ())?;
            let mut certificate = record.certificate.clone();
            let activations = vec![bytes.clone()];
            certificate.hops.push(Hop::Split { split: split.clone(), activations });
            parts.push((certificate, step.done(&activation)));
        }
        let ids: Vec<CertId> = parts.iter().map(|(_, facts)| facts.cert_id).collect();
        for (certificate, facts) in parts {
            self.insert_recut(ctx, witness, certificate, facts);
        }
        self.spend(ctx, cert, TransferKind::Split);
        self.errands.remove(&cert);
        let command = self.commands.remove(&cert);
        let given = give.and_then(|(index, to)| {
            let part = ids.get(usize::try_from(index).ok()?)?;
            Some((*part, self.start_gift(ctx, *part, to)))
        });
        match given {
            Some((part, Ok(()))) => {
                if let Some(command) = command {
                    self.commands.insert(part, command);
                }
                self.send_errand(ctx, part);
            }
            Some((_, Err(code))) => answer(ctx, command, Err(code)),
            None => answer(ctx, command, Ok(Done::Split { parts: ids })),
        }
        Ok(())
    }

    pub(super) fn finish_merge(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        lead: CertId,
        bytes: &Envelope,
    ) -> Result<(), ()> {
        let pending = self.held.get(&lead).and_then(|record| record.pending.as_ref());
        let Some(Pending::Merge { merge, .. }) = pending else { return Err(()) };
        let (merge, magic) = (merge.clone(), ctx.params.magic);
        let signed = merge.verify::<Merge>(magic).map_err(|_| ())?;
        let ids: Vec<CertId> = signed.parts.iter().map(|part| part.cert_id).collect();
        let known: Option<Vec<&HeldRecord>> = ids.iter().map(|id| self.held.get(id)).collect();
        let records = known.ok_or(())?;
        let parents: Vec<&VerifiedCertificate> =
            records.iter().map(|record| &record.facts).collect();
        let step = Step::merge(&parents, &signed).map_err(|_| ())?;
        let activation = bytes.verify::<Activation>(magic).map_err(|_| ())?;
        step.check(&activation, magic).map_err(|_| ())?;
        let mut certificate = join(records.iter().map(|record| &record.certificate));
        certificate.hops.push(Hop::Merge { merge, activation: bytes.clone() });
        let (id, provider) = (step.cert_id(), activation.provider);
        let command = self.commands.remove(&lead);
        self.errands.remove(&lead);
        for part in ids {
            self.spend(ctx, part, TransferKind::Merge);
        }
        match verify(&certificate, ctx.params) {
            Ok(facts) => {
                self.insert_recut(ctx, witness, certificate, facts);
                answer(ctx, command, Ok(Done::Held { cert: id }));
            }
            // The copies here tell their common past in two ways: the provider has it in one.
            Err(_) => self.fetch(ctx, provider, id, command),
        }
        Ok(())
    }

    fn insert_recut(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        certificate: Certificate,
        facts: VerifiedCertificate,
    ) {
        witness.learn_certificate(ctx, &certificate);
        let id = facts.cert_id;
        self.held.insert(id, HeldRecord::new(certificate, facts, true));
        self.save(ctx, id);
        notify(ctx, id, "received");
        self.ask_checkpoint(ctx, id);
    }

    /// A certificate has become others, or a part of one.
    fn spend(&mut self, ctx: &mut Context<'_>, cert: CertId, kind: TransferKind) {
        if let Some(record) = self.held.get_mut(&cert) {
            record.pending = None;
            record.push = None;
            record.spent = Some(kind);
            self.pushes.end(cert);
            self.save(ctx, cert);
            notify(ctx, cert, kind.name());
        }
    }

    /// A certificate was taken in: what is held here and was consumed on the way to it is spent.
    pub(super) fn spend_lineage(&mut self, ctx: &mut Context<'_>, certificate: &Certificate) {
        for hop in &certificate.hops {
            let kind = match hop {
                Hop::Split { .. } => TransferKind::Split,
                Hop::Merge { .. } => TransferKind::Merge,
                Hop::Sale { .. } | Hop::Gift { .. } => continue,
            };
            let activations = hop.activations().iter();
            let said = activations.filter_map(|bytes| bytes.peek::<Activation>().ok());
            let consumed: Vec<_> = said.flat_map(|activation| activation.consumes).collect();
            for one in consumed {
                let record = self.held.get(&one.cert_id);
                let is_spent =
                    record.is_some_and(|held| held.facts.seq <= one.seq && held.spent.is_none());
                if is_spent {
                    self.overtaken(ctx, one.cert_id, &[]);
                    self.spend(ctx, one.cert_id, kind);
                }
            }
        }
    }
}

enum Refusal {
    Consumed,
    NotHolder,
    Started,
}

fn may_recut(record: &HeldRecord, ctx: &Context<'_>) -> Result<(), Refusal> {
    if record.is_consumed() {
        return Err(Refusal::Consumed);
    }
    if record.facts.holder != ctx.me() {
        return Err(Refusal::NotHolder);
    }
    if ctx.now_ms >= record.facts.window.starts_at_ms(ctx.params.slot_s) {
        return Err(Refusal::Started);
    }
    Ok(())
}
