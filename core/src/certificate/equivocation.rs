//! Statements of one provider that cannot both be honest, and the proof of it.
//!
//! Lock, gift, split, merge and redemption each consume a (cert_id, seq) under the provider's
//! signature. Every grant has the number of its `attempt`: a lock that was released is followed
//! by the next one, and so is whatever consumes after it; that is how an honest provider never
//! signs two for one number. An Activation or RedeemGrant is final: nothing may consume the same
//! (cert_id, seq) at a later attempt.
//!
//! Two Activations of which neither descends from the other may not share a (class, unit, slot).
//! Where they go back to no common Issue, that alone convicts. Where they have one in common, the
//! overlap may be honest, since one may descend from the other; if it is not, there is a
//! contradiction in what they consume, which convicts. For follow the shared unit-slot forward
//! from the Issues. If it comes from two Issues, their first Activations overlap, and have no
//! root in common. If it comes from one, each hop hands it on to exactly one certificate, since
//! the parts of a split are disjoint; so the two ways part at a (cert_id, seq) that two
//! Activations consume. Those differ in their cause, or they are parts of one split that
//! overlap, or one certificate at one seq that says two things: each is found below.

use std::cmp::Ordering;

use super::objects::{Activation, Area, EquivProof, RedeemGrant, StatementKind};
use crate::ids::{CertId, Key};
use crate::reason;
use crate::reasons::Reason;
use crate::settlement::objects::LockGrant;
use crate::wire::{Envelope, Magic, Verified, WireError};

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A statement does not decode or verify.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Both may be honest.
    #[error("the statements do not contradict each other")]
    Compatible,
    /// Not in the one canonical order, lower statement first.
    #[error("the statements are not in canonical order")]
    Order,
}

impl ProofError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Wire(error) => error.reason(),
            Self::Compatible => reason!("proof.compatible"),
            Self::Order => reason!("proof.order"),
        }
    }
}

/// A provider's statement whose signature has been checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    Lock(Verified<LockGrant>),
    Activation(Verified<Activation>),
    Redeem(Verified<RedeemGrant>),
}

/// What a statement consumes: at most one cause may have each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumption {
    pub cert_id: CertId,
    pub seq: u32,
    /// Number of the grant for it.
    pub attempt: u32,
    /// Terms hash, or id of the Gift, Split, Merge or Redeem.
    pub cause: [u8; 32],
    /// Whether nothing can release it.
    pub is_final: bool,
}

impl Statement {
    /// Checks form and signature of a statement.
    ///
    /// # Errors
    /// As [`Envelope::verify`]; malformed, if its lists have no form that a provider signs.
    pub fn verify(kind: StatementKind, bytes: &Envelope, magic: Magic) -> Result<Self, WireError> {
        let statement = match kind {
            StatementKind::LockGrant => Self::Lock(bytes.verify(magic)?),
            StatementKind::Activation => Self::Activation(bytes.verify(magic)?),
            StatementKind::RedeemGrant => Self::Redeem(bytes.verify(magic)?),
        };
        let is_formed = match &statement {
            Self::Activation(activation) => activation.is_well_formed(),
            Self::Lock(_) | Self::Redeem(_) => true,
        };
        if is_formed { Ok(statement) } else { Err(WireError::Malformed) }
    }

    /// Whose it is.
    #[must_use]
    pub fn provider(&self) -> Key {
        match self {
            Self::Lock(lock) => lock.provider,
            Self::Activation(activation) => activation.provider,
            Self::Redeem(grant) => grant.provider,
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> StatementKind {
        match self {
            Self::Lock(_) => StatementKind::LockGrant,
            Self::Activation(_) => StatementKind::Activation,
            Self::Redeem(_) => StatementKind::RedeemGrant,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        match self {
            Self::Lock(lock) => lock.envelope(),
            Self::Activation(activation) => activation.envelope(),
            Self::Redeem(grant) => grant.envelope(),
        }
    }

    /// The provider's chain height when it signed.
    #[must_use]
    pub fn height(&self) -> u32 {
        match self {
            Self::Lock(lock) => lock.p_height,
            Self::Activation(activation) => activation.p_height,
            Self::Redeem(grant) => grant.p_height,
        }
    }

    /// What it consumes: several for a merge.
    #[must_use]
    pub fn consumes(&self) -> Vec<Consumption> {
        match self {
            Self::Lock(lock) => vec![Consumption {
                cert_id: lock.cert_id,
                seq: lock.seq,
                attempt: lock.attempt,
                cause: lock.terms_hash.0,
                is_final: false,
            }],
            Self::Activation(activation) => {
                let consumed = activation.consumes.iter().map(|consumed| Consumption {
                    cert_id: consumed.cert_id,
                    seq: consumed.seq,
                    attempt: consumed.attempt,
                    cause: activation.cause_hash,
                    is_final: true,
                });
                consumed.collect()
            }
            Self::Redeem(grant) => vec![Consumption {
                cert_id: grant.cert_id,
                seq: grant.seq,
                attempt: grant.attempt,
                cause: grant.redeem_hash.0,
                is_final: true,
            }],
        }
    }

    /// Every (cert_id, seq) that it consumes.
    #[must_use]
    pub fn places(&self) -> Vec<(CertId, u32)> {
        self.consumes().iter().map(|consumed| (consumed.cert_id, consumed.seq)).collect()
    }

    /// Whether an honest provider cannot have signed both.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        if self.provider() != other.provider() {
            return false;
        }
        let (mine, others) = (self.consumes(), other.consumes());
        let pairs = mine.iter().flat_map(|a| others.iter().map(move |b| (a, b)));
        let mut shared = pairs.filter(|(a, b)| (a.cert_id, a.seq) == (b.cert_id, b.seq)).peekable();
        let shares = shared.peek().is_some();
        shared.any(|(a, b)| a.clashes(b))
            || match (self, other) {
                (Self::Activation(a), Self::Activation(b)) => titles_clash(a, b, shares),
                _ => false,
            }
    }
}

impl Consumption {
    /// Of one (cert_id, seq): whether both cannot be honest.
    fn clashes(&self, other: &Self) -> bool {
        // A later attempt says that the earlier one was released.
        let clash = match self.attempt.cmp(&other.attempt) {
            Ordering::Less => self.is_final,
            Ordering::Equal => true,
            Ordering::Greater => other.is_final,
        };
        clash && self.cause != other.cause
    }
}

/// Of two Activations of one provider, which consume something in common for the same cause, or
/// nothing: whether both cannot be honest.
fn titles_clash(a: &Activation, b: &Activation, shares: bool) -> bool {
    let area = |one: &Activation| Area { units: one.units.clone(), window: one.window };
    let (one, other) = (area(a), area(b));
    if a.cert_id == b.cert_id {
        // An id keeps its area and its roots for ever.
        return (a.seq == b.seq && a.holder_hash != b.holder_hash)
            || (a.class, a.features, &one, &a.roots) != (b.class, b.features, &other, &b.roots);
    }
    let is_apart = shares || !a.roots.iter().any(|root| b.roots.contains(root));
    is_apart && a.class == b.class && one.overlaps(&other)
}

/// The proof that two statements contradict each other, in canonical order.
#[must_use]
pub fn prove(a: &Statement, b: &Statement) -> Option<EquivProof> {
    if !a.contradicts(b) {
        return None;
    }
    let mut parts = [(a.kind(), a.envelope().clone()), (b.kind(), b.envelope().clone())];
    parts.sort();
    let [a, b] = parts;
    Some(EquivProof { a, b })
}

/// Checks a proof; returns the provider that it convicts.
///
/// # Errors
/// [`ProofError`]. All of them follow from the bytes alone, except an unknown version.
pub fn verify_proof(proof: &EquivProof, magic: Magic) -> Result<Key, ProofError> {
    if proof.a >= proof.b {
        return Err(ProofError::Order);
    }
    let a = Statement::verify(proof.a.0, &proof.a.1, magic)?;
    let b = Statement::verify(proof.b.0, &proof.b.1, magic)?;
    if !a.contradicts(&b) {
        return Err(ProofError::Compatible);
    }
    Ok(a.provider())
}
