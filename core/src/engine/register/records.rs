//! What the provider keeps of a certificate that it issued.

use serde::{Deserialize, Serialize};

use crate::certificate::verify::TransferKind;
use crate::certificate::{Certificate, VerifiedCertificate};
use crate::engine::kernel::{Stored, Table};
use crate::ids::{Key, LeaseId, TermsHash, TradeId};
use crate::units::TimeMs;
use crate::wire::Envelope;

/// Released terms that are remembered per certificate, so that they are not locked again.
const RELEASED_KEPT: usize = 8;

/// A lock that has neither been used nor released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LiveLock {
    pub(super) grant: Envelope,
    pub(super) terms_hash: TermsHash,
    pub(super) funders: Vec<Key>,
    pub(super) to: Key,
}

/// What holds (cert_id, seq) for the seq that is current. An Activation consumes it and
/// starts the next seq; a redemption consumes it for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Hold {
    /// Nothing: it may be locked, given or redeemed.
    Free,
    Locked(LiveLock),
    /// A lease, with the signed RedeemGrant.
    Redeemed(LeaseId, Envelope),
    /// What it was split or merged into.
    Spent(Spent),
    /// It was never sold, and its units are given back.
    Void,
    /// It was sold on this provider's word alone, and the coins went back to the buyer. What was
    /// signed stands, so its units are nobody's until its window is over.
    TakenBack,
}

/// What a split or a merge has made of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent {
    pub(super) kind: TransferKind,
    /// Id of the Split or Merge.
    pub(super) cause: [u8; 32],
    /// What was answered: of each part, or of the merged certificate.
    pub(super) activations: Vec<Envelope>,
}

/// The current seq of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) hold: Hold,
    pub(super) attempt: u32,
    /// Evidence of the last release; zero before one.
    pub(super) prev_release: [u8; 32],
    /// Terms of the last released locks, which may not be locked again.
    pub(super) released: Vec<TermsHash>,
    /// Whether the sale by which its holder has it was undone: it is taken back as soon as no lock
    /// stands in the way.
    pub(super) is_undone: bool,
}

impl Head {
    /// A seq that nothing has touched.
    pub(super) fn fresh() -> Self {
        let (hold, prev_release, released) = (Hold::Free, [0; 32], Vec::new());
        Self { hold, attempt: 0, prev_release, released, is_undone: false }
    }

    pub(super) fn lock(&self) -> Option<&LiveLock> {
        match &self.hold {
            Hold::Locked(lock) => Some(lock),
            Hold::Free | Hold::Redeemed(..) | Hold::Spent(_) | Hold::Void | Hold::TakenBack => None,
        }
    }

    pub(super) fn lease(&self) -> Option<LeaseId> {
        match &self.hold {
            Hold::Redeemed(lease, _) => Some(*lease),
            Hold::Free | Hold::Locked(_) | Hold::Spent(_) | Hold::Void | Hold::TakenBack => None,
        }
    }

    /// What came out of it, if it was split or merged.
    pub(super) fn spent(&self) -> Option<&Spent> {
        match &self.hold {
            Hold::Spent(spent) => Some(spent),
            Hold::Free | Hold::Locked(_) | Hold::Redeemed(..) | Hold::Void | Hold::TakenBack => {
                None
            }
        }
    }

    /// Whether it is good for nothing any more.
    pub(super) fn is_void(&self) -> bool {
        matches!(self.hold, Hold::Void | Hold::TakenBack)
    }

    /// Whether its units belong to no claim of it any more.
    pub(super) fn gave_units_back(&self) -> bool {
        matches!(self.hold, Hold::Void | Hold::Spent(_))
    }

    /// The same seq after its lock was released: the next grant has the next number and
    /// names the evidence, so that the two grants together prove nothing.
    pub(super) fn unlocked(mut self, terms_hash: TermsHash, evidence: [u8; 32]) -> Self {
        self.released.push(terms_hash);
        if self.released.len() > RELEASED_KEPT {
            self.released.remove(0);
        }
        Self {
            hold: Hold::Free,
            attempt: self.attempt.saturating_add(1),
            prev_release: evidence,
            released: self.released,
            is_undone: self.is_undone,
        }
    }
}

/// A certificate in the provider's register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct IssuedRecord {
    pub(super) certificate: Certificate,
    /// What it says; its `seq` is the one that `head` is about.
    pub(super) facts: VerifiedCertificate,
    /// The trade that it was issued for; none, if it came of a split or a merge.
    pub(super) trade: Option<TradeId>,
    /// When, unix ms.
    pub(super) issued_at_ms: TimeMs,
    pub(super) head: Head,
    /// To whom the certificate has still to be pushed.
    pub(super) push: Option<Key>,
    /// The last sales that a checkpoint left behind.
    pub(super) sales: Vec<PastSale>,
    /// Who gave it in hops that a checkpoint left behind, the last ones: one may not have heard
    /// that its gift was granted.
    pub(super) givers: Vec<Key>,
}

/// A sale whose hop a checkpoint has left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PastSale {
    pub(super) terms: TermsHash,
    /// Who paid, and for whom.
    pub(super) parties: Vec<Key>,
    pub(super) activation: Envelope,
}

impl Stored for IssuedRecord {
    const TABLE: Table = Table::Issued;
}

/// How many units of a class this host sells; its key is the class, two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct CapacityRecord {
    pub(super) units: u32,
}

impl Stored for CapacityRecord {
    const TABLE: Table = Table::Capacity;
}

impl IssuedRecord {
    /// Whether it was issued and then neither locked nor sold.
    pub(super) fn is_unsold(&self) -> bool {
        self.facts.seq == 0 && matches!(self.head.hold, Hold::Free)
    }
}
