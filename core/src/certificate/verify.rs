//! Offline verification of a certificate: every signature, every link of the chain.
//!
//! What it proves: the provider signed the Issue and every Activation, whoever sold, gave, split
//! or merged was the holder before, every preimage fits its Terms, and no split or merge made a
//! unit-slot or lost one. What it does not: that no later transfer exists, nor that payment
//! stands. The spend named in a Transfer is a hint where to look on the chain and is not covered
//! by any signature; a Quittance in its place is the seller's own word that it was paid. What
//! lies before a checkpoint rests on the provider's word.

use crate::reason;
use crate::reasons::Reason;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::hops::{check_gift, check_split, check_terms};

use super::hops::Step;
use super::objects::{
    Activation, Area, Base, Certificate, Checkpoint, DefaultProof, Gift, Hop, Issue, Merge, Parent,
    Payment, Split, blinded,
};
use crate::ids::{CertId, Key, TermsHash};
use crate::limits::{CERTIFICATE_HOPS_MAX, ROOTS_MAX};
use crate::params::Params;
use crate::settlement::objects::{LockGrant, Quittance, Terms, Transfer};
use crate::units::{Slot, Units, Window};
use crate::wire::{Envelope, Magic, Verified, WireError, sha256};

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A signed object does not decode or verify.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// More than 64 hops.
    #[error("more than 64 hops")]
    TooManyHops,
    /// A class that the network does not define, or other floors.
    #[error("resource class is not the network's")]
    Class,
    /// Units are not canonical, the window is empty, or `not_after_slot` lies outside it.
    #[error("units or delivery window have no valid form")]
    Area,
    /// A part that names another certificate or provider.
    #[error("part belongs to another certificate or provider")]
    Foreign,
    /// The sequence number is not the next one.
    #[error("sequence number is not the next one")]
    Seq,
    /// The hash of the part before is not the one named.
    #[error("hash of the last activation is not the one named")]
    PrevHash,
    /// Sold or given by another than the holder.
    #[error("signed by another than the holder")]
    NotHolder,
    /// Class, features, units, window or roots are not those that the hop leaves.
    #[error("class, features, units, window or roots changed on the way")]
    Changed,
    /// The lock is for other terms.
    #[error("lock does not match the terms")]
    Lock,
    /// SHA-256 of the preimage is not the payment hash.
    #[error("preimage does not match the payment hash")]
    Preimage,
    /// The Activation names another cause, attempt or holder than the hop.
    #[error("activation does not match its hop")]
    Cause,
    /// Given, split or merged before it was sold.
    #[error("given, split or merged before it was sold")]
    Unsold,
    /// No base, more than 16, or two of one certificate.
    #[error("it must begin with 1 to 16 distinct certificates")]
    Bases,
    /// Something is left over that the certificate does not go back to.
    #[error("a part of it leads nowhere")]
    Loose,
    /// Parts of a split or a merge: too few, too many, not ascending, without unit or slot, or
    /// one that could never be redeemed.
    #[error("parts have no valid form")]
    Parts,
    /// A part has a unit or slot that the certificate has not.
    #[error("a part lies outside the certificate")]
    Outside,
    /// A unit is in two parts in one slot, or in none.
    #[error("the parts do not add up")]
    Sum,
    /// Merged certificates of different providers, classes or features.
    #[error("certificates of different providers, classes or features cannot be merged")]
    OtherKind,
    /// Merged certificates that make no rectangle.
    #[error("the merged certificates are not adjacent")]
    Apart,
    /// Merged certificates that go back to more than 16 Issues.
    #[error("it goes back to more than 16 issues")]
    TooManyRoots,
    /// Sold, given, split or merged by its holder, while who paid for it may take it back.
    #[error("who paid for it may recall it, so it moves in no other way")]
    Recallable,
}

/// A certificate that proves nothing, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("certificate{}: {fault}", hop.map_or(String::new(), |hop| format!(" hop {hop}")))]
pub struct CertificateError {
    /// Number of the hop from 0; `None` for the Issue or the whole.
    pub hop: Option<usize>,
    pub fault: Fault,
}

impl CertificateError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self.fault {
            Fault::Wire(WireError::BadSignature | WireError::WrongSigner | WireError::WeakKey) => {
                reason!("certificate.bad_signature")
            }
            Fault::Wire(WireError::UnknownVersion) => reason!("certificate.unknown_version"),
            Fault::Wire(_) => reason!("certificate.malformed"),
            Fault::TooManyHops => reason!("certificate.too_many_hops"),
            Fault::Class => reason!("certificate.unknown_class"),
            Fault::Area => reason!("certificate.bad_area"),
            Fault::Foreign => reason!("certificate.foreign_part"),
            Fault::Seq => reason!("certificate.seq_gap"),
            Fault::PrevHash => reason!("certificate.prev_hash"),
            Fault::NotHolder => reason!("certificate.not_holder"),
            Fault::Changed => reason!("certificate.changed"),
            Fault::Lock => reason!("certificate.lock_mismatch"),
            Fault::Preimage => reason!("certificate.preimage"),
            Fault::Cause => reason!("certificate.cause_mismatch"),
            Fault::Unsold => reason!("certificate.gift_before_sale"),
            Fault::Bases => reason!("certificate.bad_bases"),
            Fault::Loose => reason!("certificate.loose_part"),
            Fault::Parts => reason!("certificate.bad_parts"),
            Fault::Outside => reason!("certificate.part_outside"),
            Fault::Sum => reason!("certificate.parts_sum"),
            Fault::OtherKind => reason!("certificate.other_kind"),
            Fault::Apart => reason!("certificate.parts_apart"),
            Fault::TooManyRoots => reason!("certificate.too_many_roots"),
            Fault::Recallable => reason!("certificate.recallable"),
        }
    }
}

/// How a certificate changed hands, or came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferKind {
    Sale,
    Gift,
    /// A part of a certificate of the same holder.
    Split,
    /// Made of certificates of the same holder.
    Merge,
    /// Given by who paid for it, not by its holder.
    Recall,
}

impl TransferKind {
    /// Name for people and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sale => "sale",
            Self::Gift => "gift",
            Self::Split => "split",
            Self::Merge => "merge",
            Self::Recall => "recall",
        }
    }
}

/// One hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferFact {
    pub kind: TransferKind,
    pub from: Key,
    /// The same as `from`, if it was split or merged.
    pub to: Key,
    /// The certificate that moved, or came to be.
    pub cert_id: CertId,
    /// Its seq after the hop.
    pub seq: u32,
}

/// What a valid certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedCertificate {
    pub cert_id: CertId,
    pub provider: Key,
    pub class: u16,
    /// Object id of the class's floors.
    pub class_hash: [u8; 32],
    pub features: u64,
    pub units: Units,
    pub window: Window,
    pub pay: Payment,
    /// Last slot in which Redeem may start.
    pub not_after_slot: Slot,
    /// Who holds it, as far as this copy knows.
    pub holder: Key,
    /// What blinds the holder in the last Activation.
    pub salt16: [u8; 16],
    /// Hops under this id so far, its birth as a part or by a merge included; the next one
    /// consumes it.
    pub seq: u32,
    /// Id of the last Activation, or `cert_id`.
    pub last_hash: [u8; 32],
    /// The provider's chain height at the last Activation; 0 without one.
    pub as_of_height: u32,
    /// Every hop since the Issues or checkpoints, each after those that it rests on.
    pub transfers: Vec<TransferFact>,
    /// Issues from which it descends, ascending; its own id, if it was never split or merged.
    pub roots: Vec<CertId>,
    /// The provider's chain height up to which its history rests on the provider's word.
    pub checkpointed_at: Option<u32>,
    /// Who may take it back from its holder. Not stored: [`Certificate::recall`] tells it.
    #[serde(skip)]
    pub recall: Option<Key>,
}

impl VerifiedCertificate {
    /// A certificate as it is issued: seq 0, held by its provider.
    pub(crate) fn issued(issue: &Verified<Issue>) -> Self {
        let cert_id = CertId(issue.id());
        Self {
            cert_id,
            provider: issue.provider,
            class: issue.class,
            class_hash: issue.class_hash,
            features: issue.features,
            units: issue.units.clone(),
            window: issue.window,
            pay: issue.pay,
            not_after_slot: issue.not_after_slot,
            holder: issue.provider,
            salt16: [0; 16],
            seq: 0,
            last_hash: cert_id.0,
            as_of_height: 0,
            transfers: Vec::new(),
            roots: vec![cert_id],
            checkpointed_at: None,
            recall: issue.recall(),
        }
    }

    /// Units and window.
    #[must_use]
    pub fn area(&self) -> Area {
        Area { units: self.units.clone(), window: self.window }
    }

    /// Who decides to whom it is given: its holder, unless somebody may recall it.
    #[must_use]
    pub fn giver(&self) -> Key {
        self.recall.filter(|_| self.seq > 0).unwrap_or(self.holder)
    }

    /// What the next hop consumes.
    #[must_use]
    pub fn head(&self) -> Parent {
        Parent { cert_id: self.cert_id, seq: self.seq, prev_hash: self.last_hash }
    }
}

/// Verifies every signature and link of a certificate, offline.
///
/// # Errors
/// The first [`Fault`] found, with the hop it is in.
pub fn verify(
    certificate: &Certificate,
    params: &Params,
) -> Result<VerifiedCertificate, CertificateError> {
    let mut left = states(certificate, params)?.into_values();
    match (left.next(), left.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(CertificateError { hop: None, fault: Fault::Loose }),
    }
}

/// What the hops of a history leave, by id: one certificate, if it is that of one.
pub(crate) fn states(
    history: &Certificate,
    params: &Params,
) -> Result<BTreeMap<CertId, VerifiedCertificate>, CertificateError> {
    let whole = |fault| CertificateError { hop: None, fault };
    if history.hops.len() > CERTIFICATE_HOPS_MAX {
        return Err(whole(Fault::TooManyHops));
    }
    if !(1..=ROOTS_MAX).contains(&history.bases.len()) {
        return Err(whole(Fault::Bases));
    }
    let mut live = BTreeMap::new();
    for base in &history.bases {
        let facts = start(base, params).map_err(whole)?;
        if live.insert(facts.cert_id, facts).is_some() {
            return Err(whole(Fault::Bases));
        }
    }
    for (index, hop) in history.hops.iter().enumerate() {
        step(&mut live, hop, params.magic)
            .map_err(|fault| CertificateError { hop: Some(index), fault })?;
    }
    Ok(live)
}

fn start(base: &Base, params: &Params) -> Result<VerifiedCertificate, Fault> {
    let facts = match base {
        Base::Issue(issue) => VerifiedCertificate::issued(&issue.verify(params.magic)?),
        Base::Checkpoint { checkpoint, activation } => checkpointed(
            &*checkpoint.verify(params.magic)?,
            &activation.verify(params.magic)?,
            params.magic,
        )?,
    };
    // An empty window has no slot for it.
    let inside = (facts.window.start..facts.window.end).contains(&facts.not_after_slot);
    ensure(facts.units.is_canonical() && inside, Fault::Area)?;
    ensure(params.class_hash(facts.class) == Some(facts.class_hash), Fault::Class)?;
    Ok(facts)
}

fn checkpointed(
    checkpoint: &Checkpoint,
    activation: &Verified<Activation>,
    magic: Magic,
) -> Result<VerifiedCertificate, Fault> {
    ensure(checkpoint.provider == activation.provider, Fault::Foreign)?;
    ensure(checkpoint.last_hash == activation.id(), Fault::PrevHash)?;
    let holder_hash = blinded(checkpoint.holder, checkpoint.salt16, magic);
    ensure(activation.holder_hash == holder_hash, Fault::Cause)?;
    ensure(activation.is_well_formed(), Fault::Seq)?;
    Ok(VerifiedCertificate {
        cert_id: activation.cert_id,
        provider: activation.provider,
        class: activation.class,
        class_hash: checkpoint.class_hash,
        features: activation.features,
        units: activation.units.clone(),
        window: activation.window,
        pay: checkpoint.pay,
        not_after_slot: checkpoint.not_after_slot,
        holder: checkpoint.holder,
        salt16: checkpoint.salt16,
        seq: activation.seq,
        last_hash: checkpoint.last_hash,
        as_of_height: activation.p_height,
        transfers: Vec::new(),
        roots: activation.roots.clone(),
        checkpointed_at: Some(activation.p_height),
        recall: None,
    })
}

pub(super) fn ensure(ok: bool, fault: Fault) -> Result<(), Fault> {
    if ok { Ok(()) } else { Err(fault) }
}

type Live = BTreeMap<CertId, VerifiedCertificate>;

fn step(live: &mut Live, hop: &Hop, magic: Magic) -> Result<(), Fault> {
    match hop {
        Hop::Sale { terms, lock, transfer, activation } => {
            let before = take(live, terms.peek::<Terms>()?.cert_id)?;
            let (step, attempt) = sale(&before, terms, lock, transfer, magic)?;
            let ends = |activation: &Activation| {
                activation.consumes.iter().all(|consumed| consumed.attempt == attempt)
            };
            end(live, step, activation, magic, ends)
        }
        Hop::Gift { gift, activation } => {
            let gift: Verified<Gift> = gift.verify(magic)?;
            let before = take(live, gift.cert_id)?;
            end(live, Step::gift(&before, &gift)?, activation, magic, |_| true)
        }
        Hop::Split { split, activations } => {
            let split: Verified<Split> = split.verify(magic)?;
            let before = take(live, split.cert_id)?;
            let mut steps = Step::split(&before, &split)?;
            ensure(!activations.is_empty(), Fault::Loose)?;
            for activation in activations {
                let made = activation.peek::<Activation>()?.cert_id;
                let at = steps.iter().position(|step| step.cert_id() == made);
                let step = steps.swap_remove(at.ok_or(Fault::Foreign)?);
                end(live, step, activation, magic, |_| true)?;
            }
            Ok(())
        }
        Hop::Merge { merge, activation } => {
            let merge: Verified<Merge> = merge.verify(magic)?;
            let parents: Vec<VerifiedCertificate> = merge
                .parts
                .iter()
                .map(|part| take(live, part.cert_id))
                .collect::<Result<_, _>>()?;
            let parents: Vec<&VerifiedCertificate> = parents.iter().collect();
            end(live, Step::merge(&parents, &merge)?, activation, magic, |_| true)
        }
    }
}

fn take(live: &mut Live, id: CertId) -> Result<VerifiedCertificate, Fault> {
    live.remove(&id).ok_or(Fault::Foreign)
}

fn end(
    live: &mut Live,
    step: Step,
    activation: &Envelope,
    magic: Magic,
    is_granted: impl Fn(&Activation) -> bool,
) -> Result<(), Fault> {
    let activation: Verified<Activation> = activation.verify(magic)?;
    step.check(&activation, magic)?;
    ensure(is_granted(&activation), Fault::Cause)?;
    let after = step.done(&activation);
    ensure(live.insert(after.cert_id, after).is_none(), Fault::Bases)
}

/// The step of a sale, and the attempt of its lock.
fn sale(
    facts: &VerifiedCertificate,
    terms: &Envelope,
    lock: &Envelope,
    transfer: &Transfer,
    magic: Magic,
) -> Result<(Step, u32), Fault> {
    let terms: Verified<Terms> = terms.verify(magic)?;
    check_terms(facts, &terms)?;
    let lock: Verified<LockGrant> = lock.verify(magic)?;
    ensure(lock.provider == facts.provider && lock.cert_id == facts.cert_id, Fault::Foreign)?;
    let granted = lock.seq == facts.seq
        && lock.terms_hash.0 == terms.id()
        && lock.fund_by == terms.fund_by
        && lock.refund_at == terms.refund_at;
    ensure(granted, Fault::Lock)?;
    let revealed = transfer.v == crate::wire::VERSION
        && transfer.terms_hash.0 == terms.id()
        && sha256(&[&transfer.x]) == terms.payment_hash;
    ensure(revealed, Fault::Preimage)?;
    if let Some(quittance) = transfer.signed_quittance(terms.from) {
        quittance.verify::<Quittance>(magic)?;
        let names_no_spend = transfer.spend_txid == [0; 32] && transfer.vin == 0;
        ensure(names_no_spend, Fault::Wire(WireError::Malformed))?;
    }
    Ok((Step::sale(facts, &terms)?, lock.attempt))
}

/// What a valid proof of default says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDefault {
    /// The certificate before the sale.
    pub title: VerifiedCertificate,
    pub terms: Terms,
    pub terms_hash: TermsHash,
    /// The preimage of the terms, and where the spend that revealed it is to be found.
    pub transfer: Transfer,
}

/// Verifies the proof of a default offline: that the holder sold the certificate on these terms,
/// that the provider promised to move it when they are paid, and that their preimage is known.
/// The spend is for the chain to show, and an Activation would be the provider's answer.
///
/// # Errors
/// The first part that proves nothing; the sale counts as the hop after the last.
pub fn verify_default(
    proof: &DefaultProof,
    params: &Params,
) -> Result<VerifiedDefault, CertificateError> {
    let title = verify(&proof.title, params)?;
    let at_sale = |fault| CertificateError { hop: Some(proof.title.hops.len()), fault };
    let DefaultProof { terms, lock, transfer, .. } = proof;
    sale(&title, terms, lock, transfer, params.magic).map_err(at_sale)?;
    let terms_hash = transfer.terms_hash;
    let terms = terms.peek().map_err(|error| at_sale(error.into()))?;
    Ok(VerifiedDefault { title, terms, terms_hash, transfer: transfer.clone() })
}
