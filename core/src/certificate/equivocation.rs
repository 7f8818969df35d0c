//! Statements of one provider that cannot both be honest, and the proof of it.
//!
//! Lock, gift and redemption each consume a (cert_id, seq) under the provider's signature.
//! Every grant has the number of its `attempt`: a lock that was released is followed by the
//! next one, and so is a gift or a redemption after it; that is how an honest provider
//! never signs two for one number. An Activation or RedeemGrant is final: nothing may
//! consume the same (cert_id, seq) at a later attempt.

use std::cmp::Ordering;

use super::objects::{Activation, EquivProof, RedeemGrant, StatementKind};
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
    pub provider: Key,
    pub cert_id: CertId,
    pub seq: u32,
    /// Number of the grant for it.
    pub attempt: u32,
    /// Terms hash, id of the Gift or id of the Redeem.
    pub cause: [u8; 32],
    /// Whether nothing can release it.
    pub is_final: bool,
}

impl Statement {
    /// Checks form and signature of a statement.
    ///
    /// # Errors
    /// As [`Envelope::verify`].
    pub fn verify(kind: StatementKind, bytes: &Envelope, magic: Magic) -> Result<Self, WireError> {
        Ok(match kind {
            StatementKind::LockGrant => Self::Lock(bytes.verify(magic)?),
            StatementKind::Activation => Self::Activation(bytes.verify(magic)?),
            StatementKind::RedeemGrant => Self::Redeem(bytes.verify(magic)?),
        })
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

    /// What it consumes. An Activation of seq 0 does not exist; taken as consuming 0.
    #[must_use]
    pub fn consumes(&self) -> Consumption {
        match self {
            Self::Lock(lock) => Consumption {
                provider: lock.provider,
                cert_id: lock.cert_id,
                seq: lock.seq,
                attempt: lock.attempt,
                cause: lock.terms_hash.0,
                is_final: false,
            },
            Self::Activation(activation) => Consumption {
                provider: activation.provider,
                cert_id: activation.cert_id,
                seq: activation.seq.saturating_sub(1),
                attempt: activation.attempt,
                cause: activation.cause_hash,
                is_final: true,
            },
            Self::Redeem(grant) => Consumption {
                provider: grant.provider,
                cert_id: grant.cert_id,
                seq: grant.seq,
                attempt: grant.attempt,
                cause: grant.redeem_hash.0,
                is_final: true,
            },
        }
    }

    /// Whether an honest provider cannot have signed both.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        let (a, b) = (self.consumes(), other.consumes());
        if a.provider != b.provider {
            return false;
        }
        if let (Self::Activation(x), Self::Activation(y)) = (self, other)
            && (x.cert_id != y.cert_id || x.seq == y.seq)
        {
            return activations_clash(x, y);
        }
        let same = a.cert_id == b.cert_id && a.seq == b.seq && a.cause != b.cause;
        // A later attempt says that the earlier one was released.
        let clash = match a.attempt.cmp(&b.attempt) {
            Ordering::Less => a.is_final,
            Ordering::Equal => true,
            Ordering::Greater => b.is_final,
        };
        same && clash
    }
}

/// Activations of two certificates clash if they share a (class, unit, slot): neither can
/// descend from the other, since a hop keeps the certificate's id. Of one certificate and
/// sequence number, if they differ in cause or holder.
fn activations_clash(a: &Activation, b: &Activation) -> bool {
    if a.cert_id == b.cert_id {
        return a.cause_hash != b.cause_hash || a.holder != b.holder;
    }
    a.class == b.class && a.window.overlaps(b.window) && a.units.overlaps(&b.units)
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
    Ok(a.consumes().provider)
}
