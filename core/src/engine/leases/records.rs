//! What a provider keeps of a lease, and a holder of one that it has.

use serde::{Deserialize, Serialize};

use crate::engine::kernel::{Stored, Table};
use crate::ids::{CertId, Digest, Key};
use crate::lease::Phase;
use crate::lease::objects::Workload;
use crate::units::{TimeMs, Window};
use crate::wire::Envelope;

/// A lease on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct LeaseRecord {
    pub(super) cert_id: CertId,
    pub(super) holder: Key,
    /// Signed RedeemGrant, to answer a repeated Redeem.
    pub(super) grant: Envelope,
    pub(super) workload: Workload,
    pub(super) window: Window,
    pub(super) starts_at_ms: TimeMs,
    pub(super) ends_at_ms: TimeMs,
    pub(super) memory_max_bytes: u64,
    pub(super) disk_max_bytes: u64,
    pub(super) phase: Phase,
    /// Signed receipts, by number.
    pub(super) receipts: Vec<Envelope>,
    /// Receipts, from number 0, that the holder has agreed to.
    pub(super) countersigned: u32,
    /// Signed Countersign of the last of them; its hash chain covers the others.
    pub(super) countersignature: Option<Envelope>,
    /// Why the host could not run it: reason code.
    pub(super) failure: Option<String>,
}

impl Stored for LeaseRecord {
    const TABLE: Table = Table::Lease;
}

/// What the provider has said to a Redeem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Waiting,
    Granted(Envelope),
    Refused(String),
}

/// A lease of this holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct HeldLease {
    pub(super) redeem: Envelope,
    pub(super) cert_id: CertId,
    pub(super) provider: Key,
    pub(super) workload: Workload,
    pub(super) window: Window,
    pub(super) answer: Answer,
    /// Signed receipts, by number.
    pub(super) receipts: Vec<Envelope>,
    /// Receipts, from number 0, whose countersignature the provider has.
    pub(super) countersigned: u32,
    pub(super) results: Vec<FetchedResult>,
    /// Output, results and receipts are here: nothing more is asked of the provider.
    pub(super) is_fetched: bool,
}

/// A result file of a held lease, as it is on this node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedResult {
    pub name: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: Digest,
}

impl Stored for HeldLease {
    const TABLE: Table = Table::HeldLease;
}
