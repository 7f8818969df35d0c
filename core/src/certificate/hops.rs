//! What each kind of hop does to a certificate: the provider signs what stands here, and whoever
//! verifies holds it to the same.

use std::collections::BTreeSet;

use super::objects::{Activation, Area, Consumed, Gift, Merge, Parent, Split, blinded, part_id};
use super::parts::{Misfit, partition, union};
use super::verify::{Fault, TransferFact, TransferKind, VerifiedCertificate, ensure};
use crate::ids::{CertId, Key};
use crate::limits::{MERGE_PARTS_MAX, ROOTS_MAX};
use crate::settlement::objects::Terms;
use crate::wire::{Magic, VERSION, Verified};

/// A hop whose cause has been checked, for one certificate that it makes.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The certificate after the hop, but for the Activation's id and height.
    after: VerifiedCertificate,
    consumes: Vec<Parent>,
    cause: [u8; 32],
}

impl Step {
    /// A sale. Whether the terms sell this certificate is for [`check_terms`] to say.
    ///
    /// # Errors
    /// [`Fault::Seq`] after 2^32 hops.
    pub(crate) fn sale(
        before: &VerifiedCertificate,
        terms: &Verified<Terms>,
    ) -> Result<Self, Fault> {
        Self::moved(before, TransferKind::Sale, terms.id(), terms.to, terms.nonce16)
    }

    /// A gift.
    ///
    /// # Errors
    /// As [`check_gift`].
    pub(crate) fn gift(before: &VerifiedCertificate, gift: &Verified<Gift>) -> Result<Self, Fault> {
        check_gift(before, gift)?;
        let kind = if before.recall.is_some() { TransferKind::Recall } else { TransferKind::Gift };
        let mut step = Self::moved(before, kind, gift.id(), gift.to, gift.nonce16)?;
        step.after.recall = None;
        Ok(step)
    }

    fn moved(
        before: &VerifiedCertificate,
        kind: TransferKind,
        cause: [u8; 32],
        to: Key,
        salt16: [u8; 16],
    ) -> Result<Self, Fault> {
        let seq = before.seq.checked_add(1).ok_or(Fault::Seq)?;
        let mut after = before.clone();
        after.transfers.push(TransferFact {
            kind,
            from: before.holder,
            to,
            cert_id: before.cert_id,
            seq,
        });
        after.holder = to;
        after.salt16 = salt16;
        after.seq = seq;
        Ok(Self { after, consumes: vec![before.head()], cause })
    }

    /// A split: one step for each part.
    ///
    /// # Errors
    /// As [`check_split`].
    pub(crate) fn split(
        before: &VerifiedCertificate,
        split: &Verified<Split>,
    ) -> Result<Vec<Self>, Fault> {
        check_split(before, split)?;
        let steps = (0..).zip(&split.parts).map(|(index, part)| {
            let mut after = before.clone();
            after.cert_id = part_id(split.id(), index);
            after.units = part.units.clone();
            after.window = part.window;
            after.salt16 = split.nonce16;
            after.not_after_slot = not_after(before, part);
            Self::made(after, TransferKind::Split, vec![before.head()], split.id())
        });
        Ok(steps.collect())
    }

    /// A merge of certificates, in the order of its parts.
    ///
    /// # Errors
    /// What the merge gets wrong, [`Fault::OtherKind`], [`Fault::Apart`], [`Fault::Sum`] or
    /// [`Fault::TooManyRoots`].
    pub(crate) fn merge(
        parents: &[&VerifiedCertificate],
        merge: &Verified<Merge>,
    ) -> Result<Self, Fault> {
        let ascends = merge.parts.is_sorted_by(|a, b| a.cert_id < b.cert_id);
        let is_counted = (2..=MERGE_PARTS_MAX).contains(&merge.parts.len());
        ensure(ascends && is_counted, Fault::Parts)?;
        let [first, others @ ..] = parents else { return Err(Fault::Foreign) };
        ensure(parents.len() == merge.parts.len(), Fault::Foreign)?;
        for (parent, named) in parents.iter().zip(&merge.parts) {
            ensure(parent.cert_id == named.cert_id, Fault::Foreign)?;
            check_recut(parent, Key(merge.key()), named)?;
        }
        let kind = |one: &VerifiedCertificate| {
            (one.provider, one.class, one.class_hash, one.features, one.pay, one.holder)
        };
        ensure(others.iter().all(|other| kind(other) == kind(first)), Fault::OtherKind)?;
        let areas: Vec<Area> = parents.iter().map(|parent| parent.area()).collect();
        let area = union(&areas.iter().collect::<Vec<_>>())?;
        let roots: BTreeSet<CertId> =
            parents.iter().flat_map(|parent| parent.roots.iter().copied()).collect();
        ensure(roots.len() <= ROOTS_MAX, Fault::TooManyRoots)?;
        let mut after = (*first).clone();
        for other in others {
            let fresh = other.transfers.iter().filter(|fact| !first.transfers.contains(fact));
            for fact in fresh {
                if !after.transfers.contains(fact) {
                    after.transfers.push(*fact);
                }
            }
        }
        after.not_after_slot = merged_not_after(parents, &area);
        after.checkpointed_at = parents.iter().filter_map(|parent| parent.checkpointed_at).max();
        after.as_of_height = parents.iter().map(|parent| parent.as_of_height).max().unwrap_or(0);
        after.cert_id = CertId(merge.id());
        after.salt16 = merge.nonce16;
        after.units = area.units;
        after.window = area.window;
        after.roots = roots.into_iter().collect();
        Ok(Self::made(after, TransferKind::Merge, merge.parts.clone(), merge.id()))
    }

    /// A new certificate of the same holder, at its first seq.
    fn made(
        mut after: VerifiedCertificate,
        kind: TransferKind,
        consumes: Vec<Parent>,
        cause: [u8; 32],
    ) -> Self {
        after.seq = 1;
        let (from, to, cert_id) = (after.holder, after.holder, after.cert_id);
        after.transfers.push(TransferFact { kind, from, to, cert_id, seq: after.seq });
        Self { after, consumes, cause }
    }

    /// Id of the certificate that it makes.
    pub(crate) fn cert_id(&self) -> CertId {
        self.after.cert_id
    }

    /// Units and window after it.
    pub(crate) fn area(&self) -> Area {
        self.after.area()
    }

    /// Issues to which the certificate goes back after it.
    pub(crate) fn roots(&self) -> &[CertId] {
        &self.after.roots
    }

    /// What the provider signs, at these attempts of what it consumes. A chain source that has
    /// fallen back makes no Activation older than what it consumes: then two holders could each
    /// show one that is current at the lower height.
    pub(crate) fn activation(&self, attempts: &[u32], p_height: u32, magic: Magic) -> Activation {
        let after = &self.after;
        let consumed = |(parent, attempt): (&Parent, &u32)| Consumed {
            cert_id: parent.cert_id,
            seq: parent.seq,
            attempt: *attempt,
            prev_hash: parent.prev_hash,
        };
        Activation {
            v: VERSION,
            provider: after.provider,
            cert_id: after.cert_id,
            seq: after.seq,
            consumes: self.consumes.iter().zip(attempts).map(consumed).collect(),
            roots: after.roots.clone(),
            holder_hash: blinded(after.holder, after.salt16, magic),
            class: after.class,
            features: after.features,
            units: after.units.clone(),
            window: after.window,
            cause_hash: self.cause,
            p_height: p_height.max(after.as_of_height),
        }
    }

    /// Whether an Activation ends this hop.
    ///
    /// # Errors
    /// What it gets wrong.
    pub(crate) fn check(&self, activation: &Activation, magic: Magic) -> Result<(), Fault> {
        let after = &self.after;
        let ours = activation.provider == after.provider && activation.cert_id == after.cert_id;
        ensure(ours, Fault::Foreign)?;
        ensure(activation.seq == after.seq, Fault::Seq)?;
        ensure(activation.consumes.len() == self.consumes.len(), Fault::Seq)?;
        for (consumed, parent) in activation.consumes.iter().zip(&self.consumes) {
            let place = (consumed.cert_id, consumed.seq);
            ensure(place == (parent.cert_id, parent.seq), Fault::Seq)?;
            ensure(consumed.prev_hash == parent.prev_hash, Fault::PrevHash)?;
        }
        let same = activation.class == after.class
            && activation.features == after.features
            && activation.units == after.units
            && activation.window == after.window
            && activation.roots == after.roots;
        ensure(same, Fault::Changed)?;
        let caused = activation.cause_hash == self.cause
            && activation.holder_hash == blinded(after.holder, after.salt16, magic);
        ensure(caused, Fault::Cause)
    }

    /// The certificate after the hop.
    pub(crate) fn done(self, activation: &Verified<Activation>) -> VerifiedCertificate {
        let mut after = self.after;
        after.last_hash = activation.id();
        after.as_of_height = activation.p_height;
        after
    }
}

impl From<Misfit> for Fault {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Form => Self::Parts,
            Misfit::Outside => Self::Outside,
            Misfit::Sum => Self::Sum,
            Misfit::Apart => Self::Apart,
        }
    }
}

/// Last slot in which a part may be redeemed: that of the whole, but within its window.
fn not_after(whole: &VerifiedCertificate, part: &Area) -> u32 {
    whole.not_after_slot.min(part.window.end.saturating_sub(1))
}

/// The earliest of units that share a window; the last window's, if one follows the other.
fn merged_not_after(parents: &[&VerifiedCertificate], area: &Area) -> u32 {
    let at_end = parents.iter().filter(|parent| parent.window.end == area.window.end);
    at_end.map(|parent| parent.not_after_slot).min().unwrap_or(area.window.start)
}

/// Whether terms sell this certificate, all of it, by its holder.
///
/// # Errors
/// What they get wrong.
pub fn check_terms(facts: &VerifiedCertificate, terms: &Terms) -> Result<(), Fault> {
    ensure(terms.cert_id == facts.cert_id, Fault::Foreign)?;
    ensure(terms.from == facts.holder, Fault::NotHolder)?;
    ensure(terms.seq == facts.seq, Fault::Seq)?;
    ensure(terms.prev_hash == facts.last_hash, Fault::PrevHash)?;
    // Its first sale alone makes it anybody's to recall.
    ensure(facts.seq == 0 || facts.recall.is_none(), Fault::Recallable)?;
    let same =
        terms.class == facts.class && terms.units == facts.units && terms.window == facts.window;
    ensure(same, Fault::Changed)
}

/// Whether a gift gives this certificate, by its holder, or by who may recall it.
///
/// # Errors
/// What it gets wrong.
pub fn check_gift(facts: &VerifiedCertificate, gift: &Verified<Gift>) -> Result<(), Fault> {
    ensure(gift.cert_id == facts.cert_id, Fault::Foreign)?;
    let named = Parent { cert_id: gift.cert_id, seq: gift.seq, prev_hash: gift.prev_hash };
    let signer = Key(gift.key());
    let is_held_back = facts.recall.is_some() && signer == facts.holder && signer != facts.giver();
    ensure(!is_held_back, Fault::Recallable)?;
    check_head(facts, facts.giver(), signer, &named)
}

/// Whether a split cuts this certificate, by its holder, into parts that add up to it and can
/// each be redeemed.
///
/// # Errors
/// What it gets wrong.
pub fn check_split(facts: &VerifiedCertificate, split: &Verified<Split>) -> Result<(), Fault> {
    ensure(split.cert_id == facts.cert_id, Fault::Foreign)?;
    let named = Parent { cert_id: split.cert_id, seq: split.seq, prev_hash: split.prev_hash };
    check_recut(facts, Key(split.key()), &named)?;
    partition(&facts.area(), &split.parts)?;
    let is_usable = |part: &Area| part.window.start <= not_after(facts, part);
    ensure(split.parts.iter().all(is_usable), Fault::Parts)
}

/// Whether a holder may cut or join what it names: nobody can take that back from it.
fn check_recut(facts: &VerifiedCertificate, signer: Key, named: &Parent) -> Result<(), Fault> {
    check_head(facts, facts.holder, signer, named)?;
    ensure(facts.recall.is_none(), Fault::Recallable)
}

/// Whether an object is about the seq that is current, by who may sign it.
fn check_head(
    facts: &VerifiedCertificate,
    owner: Key,
    signer: Key,
    named: &Parent,
) -> Result<(), Fault> {
    ensure(facts.seq > 0, Fault::Unsold)?;
    ensure(signer == owner, Fault::NotHolder)?;
    ensure(named.seq == facts.seq, Fault::Seq)?;
    ensure(named.prev_hash == facts.last_hash, Fault::PrevHash)
}
