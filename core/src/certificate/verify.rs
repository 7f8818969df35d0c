//! Offline verification of a certificate: every signature, every link of the chain.
//!
//! What it proves: the provider signed the Issue and every Activation, every seller and
//! giver was the holder before, and every preimage fits its Terms. What it does not: that
//! no later transfer exists, nor that payment stands. The spend named in a
//! Transfer is a hint where to look on the chain and is not covered by any signature; a
//! Quittance in its place is the seller's own word that it was paid.

use crate::reason;
use crate::reasons::Reason;
use serde::{Deserialize, Serialize};

use super::objects::{Activation, Certificate, DefaultProof, Gift, Hop, Issue};
use crate::ids::{CertId, Key, TermsHash};
use crate::limits::CERTIFICATE_HOPS_MAX;
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
    /// Class, features, units or window differ from the Issue.
    #[error("class, features, units or window changed on the way")]
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
    /// A gift of a certificate that was never sold.
    #[error("given away before it was sold")]
    Unsold,
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
        }
    }
}

/// How a certificate changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferKind {
    Sale,
    Gift,
}

impl TransferKind {
    /// Name for people and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sale => "sale",
            Self::Gift => "gift",
        }
    }
}

/// One change of holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferFact {
    pub kind: TransferKind,
    pub from: Key,
    pub to: Key,
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
    /// Last slot in which Redeem may start.
    pub not_after_slot: Slot,
    /// Who holds it, as far as this copy knows.
    pub holder: Key,
    /// Changes of holder so far; the next hop consumes it.
    pub seq: u32,
    /// Id of the last Activation, or `cert_id`.
    pub last_hash: [u8; 32],
    /// The provider's chain height at the last Activation; 0 without one.
    pub as_of_height: u32,
    /// Every change of holder, oldest first.
    pub transfers: Vec<TransferFact>,
}

/// Verifies every signature and link of a certificate, offline.
///
/// # Errors
/// The first [`Fault`] found, with the hop it is in.
pub fn verify(
    certificate: &Certificate,
    params: &Params,
) -> Result<VerifiedCertificate, CertificateError> {
    let whole = |fault| CertificateError { hop: None, fault };
    if certificate.hops.len() > CERTIFICATE_HOPS_MAX {
        return Err(whole(Fault::TooManyHops));
    }
    let mut facts = start(&certificate.issue, params).map_err(whole)?;
    for (index, hop) in certificate.hops.iter().enumerate() {
        step(&mut facts, hop, params.magic)
            .map_err(|fault| CertificateError { hop: Some(index), fault })?;
    }
    Ok(facts)
}

/// Facts of a certificate that was never sold.
fn start(issue: &Envelope, params: &Params) -> Result<VerifiedCertificate, Fault> {
    let issue: Verified<Issue> = issue.verify(params.magic)?;
    // An empty window has no slot for it.
    let inside = (issue.window.start..issue.window.end).contains(&issue.not_after_slot);
    ensure(issue.units.is_canonical() && inside, Fault::Area)?;
    ensure(params.class_hash(issue.class) == Some(issue.class_hash), Fault::Class)?;
    let id = issue.id();
    let issue = issue.into_value();
    Ok(VerifiedCertificate {
        cert_id: CertId(id),
        provider: issue.provider,
        class: issue.class,
        class_hash: issue.class_hash,
        features: issue.features,
        units: issue.units,
        window: issue.window,
        not_after_slot: issue.not_after_slot,
        holder: issue.provider,
        seq: 0,
        last_hash: id,
        as_of_height: 0,
        transfers: Vec::new(),
    })
}

fn ensure(ok: bool, fault: Fault) -> Result<(), Fault> {
    if ok { Ok(()) } else { Err(fault) }
}

/// What a hop says about the Activation that must end it.
struct Moved {
    kind: TransferKind,
    to: Key,
    cause_hash: [u8; 32],
    /// Of the lock; a gift takes the number that the provider gives it.
    attempt: Option<u32>,
}

fn step(facts: &mut VerifiedCertificate, hop: &Hop, magic: Magic) -> Result<(), Fault> {
    let (moved, activation) = match hop {
        Hop::Sale { terms, lock, transfer, activation } => {
            (sale(facts, terms, lock, transfer, magic)?, activation)
        }
        Hop::Gift { gift, activation } => (give(facts, gift, magic)?, activation),
    };
    let activation: Verified<Activation> = activation.verify(magic)?;
    let ours = activation.provider == facts.provider && activation.cert_id == facts.cert_id;
    ensure(ours, Fault::Foreign)?;
    ensure(Some(activation.seq) == facts.seq.checked_add(1), Fault::Seq)?;
    ensure(activation.prev_hash == facts.last_hash, Fault::PrevHash)?;
    let same = activation.class == facts.class
        && activation.features == facts.features
        && activation.units == facts.units
        && activation.window == facts.window;
    ensure(same, Fault::Changed)?;
    let caused = activation.cause_hash == moved.cause_hash
        && activation.holder == moved.to
        && moved.attempt.is_none_or(|attempt| attempt == activation.attempt);
    ensure(caused, Fault::Cause)?;
    facts.transfers.push(TransferFact { kind: moved.kind, from: facts.holder, to: moved.to });
    facts.holder = moved.to;
    facts.seq = activation.seq;
    facts.last_hash = activation.id();
    facts.as_of_height = activation.p_height;
    Ok(())
}

fn sale(
    facts: &VerifiedCertificate,
    terms: &Envelope,
    lock: &Envelope,
    transfer: &Transfer,
    magic: Magic,
) -> Result<Moved, Fault> {
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
    Ok(Moved {
        kind: TransferKind::Sale,
        to: terms.to,
        cause_hash: terms.id(),
        attempt: Some(lock.attempt),
    })
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

/// Whether terms sell this certificate, all of it, by its holder.
///
/// # Errors
/// What they get wrong.
pub fn check_terms(facts: &VerifiedCertificate, terms: &Terms) -> Result<(), Fault> {
    ensure(terms.cert_id == facts.cert_id, Fault::Foreign)?;
    ensure(terms.from == facts.holder, Fault::NotHolder)?;
    ensure(terms.seq == facts.seq, Fault::Seq)?;
    ensure(terms.prev_hash == facts.last_hash, Fault::PrevHash)?;
    let same =
        terms.class == facts.class && terms.units == facts.units && terms.window == facts.window;
    ensure(same, Fault::Changed)
}

fn give(facts: &VerifiedCertificate, gift: &Envelope, magic: Magic) -> Result<Moved, Fault> {
    let gift: Verified<Gift> = gift.verify(magic)?;
    check_gift(facts, &gift)?;
    Ok(Moved { kind: TransferKind::Gift, to: gift.to, cause_hash: gift.id(), attempt: None })
}

/// Whether a gift gives this certificate, by its holder.
///
/// # Errors
/// What it gets wrong.
pub fn check_gift(facts: &VerifiedCertificate, gift: &Verified<Gift>) -> Result<(), Fault> {
    ensure(gift.cert_id == facts.cert_id, Fault::Foreign)?;
    ensure(facts.seq > 0, Fault::Unsold)?;
    ensure(Key(gift.key()) == facts.holder, Fault::NotHolder)?;
    ensure(gift.seq == facts.seq, Fault::Seq)?;
    ensure(gift.prev_hash == facts.last_hash, Fault::PrevHash)
}
