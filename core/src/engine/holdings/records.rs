//! What a holder keeps of a certificate that it has.

use serde::{Deserialize, Serialize};

use crate::certificate::verify::TransferKind;
use crate::certificate::{Certificate, VerifiedCertificate};
use crate::engine::kernel::{Stored, Table};
use crate::ids::{CertId, Key, LeaseId};
use crate::wire::Envelope;

/// What waits for the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pending {
    Gift {
        gift: Envelope,
        to: Key,
    },
    Split {
        split: Envelope,
        /// The part that is given away when it is there, and to whom.
        give: Option<(u32, Key)>,
    },
    /// On each of the certificates that it joins.
    Merge {
        merge: Envelope,
        /// The one of them that asks.
        lead: CertId,
    },
}

/// A certificate that this node holds or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct HeldRecord {
    /// Every signed byte that this node knows.
    pub(super) certificate: Certificate,
    pub(super) facts: VerifiedCertificate,
    pub(super) redeemed: Option<LeaseId>,
    /// What it was sold by, or split or merged into others.
    pub(super) spent: Option<TransferKind>,
    pub(super) pending: Option<Pending>,
    /// Whether this node has signed a gift of it: its provider may grant one that it has refused
    /// before, if a copy of it comes later.
    pub(super) has_signed_gift: bool,
    /// To whom the certificate has still to be pushed.
    pub(super) push: Option<Key>,
    /// Whether this node bought it or asked for it: then it has a place of its own.
    pub(super) is_wanted: bool,
}

impl Stored for HeldRecord {
    const TABLE: Table = Table::Held;
}

impl HeldRecord {
    /// A certificate as it arrives.
    pub(super) fn new(
        certificate: Certificate,
        facts: VerifiedCertificate,
        is_wanted: bool,
    ) -> Self {
        Self {
            certificate,
            facts,
            redeemed: None,
            spent: None,
            pending: None,
            has_signed_gift: false,
            push: None,
            is_wanted,
        }
    }

    /// Whether a key has it and may do with it what it wants: nothing is under way.
    pub(super) fn is_free_for(&self, me: Key) -> bool {
        self.facts.holder == me && !self.is_consumed() && self.pending.is_none()
    }

    /// Whether nothing can be done with it any more.
    pub(super) fn is_consumed(&self) -> bool {
        self.redeemed.is_some() || self.spent.is_some()
    }
}
