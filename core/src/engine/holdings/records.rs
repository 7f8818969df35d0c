//! What a holder keeps of a certificate that it has.

use serde::{Deserialize, Serialize};

use crate::certificate::{Certificate, VerifiedCertificate};
use crate::engine::kernel::{Stored, Table};
use crate::ids::{Key, LeaseId};
use crate::wire::Envelope;

/// A gift that waits for the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingGift {
    pub(super) gift: Envelope,
    pub(super) to: Key,
}

/// A certificate that this node holds or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct HeldRecord {
    /// Every signed byte that this node knows.
    pub(super) certificate: Certificate,
    pub(super) facts: VerifiedCertificate,
    pub(super) redeemed: Option<LeaseId>,
    pub(super) gift: Option<PendingGift>,
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
        Self { certificate, facts, redeemed: None, gift: None, push: None, is_wanted }
    }
}
