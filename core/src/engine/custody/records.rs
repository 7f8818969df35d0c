//! What the provider keeps of a certificate that it issued, and a holder of one that it has.

use serde::{Deserialize, Serialize};

use crate::certificate::{Certificate, VerifiedCertificate};
use crate::ids::{Key, LeaseId, TermsHash, TradeId};
use crate::units::TimeMs;
use crate::wire::Envelope;

/// A lock that has neither been used nor released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LiveLock {
    /// Signed LockGrant.
    pub(super) grant: Envelope,
    /// For which terms.
    pub(super) terms_hash: TermsHash,
    /// Who pays.
    pub(super) funders: Vec<Key>,
    /// Holder after the sale.
    pub(super) to: Key,
}

/// A certificate in the provider's register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IssuedRecord {
    /// Every signed byte.
    pub(super) certificate: Certificate,
    /// What it says.
    pub(super) facts: VerifiedCertificate,
    /// The trade that it was issued for.
    pub(super) trade: TradeId,
    /// When, unix ms.
    pub(super) issued_at_ms: TimeMs,
    /// Number of the next grant for the present seq.
    pub(super) attempt: u32,
    /// Evidence of the last release; zero before one.
    pub(super) prev_release: [u8; 32],
    /// The lock, if one is live.
    pub(super) lock: Option<LiveLock>,
    /// Terms of the last released locks, which may not be locked again.
    pub(super) released: Vec<TermsHash>,
    /// The lease and signed RedeemGrant, once redeemed.
    pub(super) redeemed: Option<(LeaseId, Envelope)>,
    /// Never sold, and its units given back.
    pub(super) void: bool,
    /// To whom the certificate has still to be pushed.
    pub(super) push: Option<Key>,
}

/// A gift that waits for the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingGift {
    /// Signed Gift.
    pub(super) gift: Envelope,
    /// To whom.
    pub(super) to: Key,
}

/// A certificate that this node holds or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeldRecord {
    /// Every signed byte that this node knows.
    pub(super) certificate: Certificate,
    /// What it says.
    pub(super) facts: VerifiedCertificate,
    /// The lease, once redeemed.
    pub(super) redeemed: Option<LeaseId>,
    /// A gift on its way.
    pub(super) gift: Option<PendingGift>,
    /// To whom the certificate has still to be pushed.
    pub(super) push: Option<Key>,
}

impl HeldRecord {
    /// A certificate as it arrives.
    pub(super) fn new(certificate: Certificate, facts: VerifiedCertificate) -> Self {
        Self { certificate, facts, redeemed: None, gift: None, push: None }
    }
}
