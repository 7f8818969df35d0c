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
    /// What runs, which need not be what was redeemed with.
    pub(super) workload: Workload,
    /// How often the holder has asked for another run.
    pub(super) order: u32,
    /// Units of the certificate.
    pub(super) units: u32,
    pub(super) window: Window,
    pub(super) starts_at_ms: TimeMs,
    pub(super) ends_at_ms: TimeMs,
    pub(super) cpu_max_milli: u64,
    pub(super) memory_max_bytes: u64,
    pub(super) disk_max_bytes: u64,
    /// Certificates that extended it, with the signed RedeemGrant of each, to answer again.
    pub(super) extensions: Vec<(CertId, Envelope)>,
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

/// An extension that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extending {
    pub(super) cert: CertId,
    /// Signed Extend.
    pub(super) request: Envelope,
    /// Window of the certificate.
    pub(super) until: Window,
}

/// A lease of this holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct HeldLease {
    pub(super) redeem: Envelope,
    pub(super) cert_id: CertId,
    pub(super) provider: Key,
    /// What runs, which need not be what was redeemed with.
    pub(super) workload: Workload,
    /// Content of it is still to be sent.
    pub(super) uploads: bool,
    /// Units of the certificate.
    pub(super) units: u32,
    pub(super) window: Window,
    pub(super) answer: Answer,
    /// Certificates that extended it, with the provider's word for each.
    pub(super) extensions: Vec<(CertId, Envelope)>,
    /// What the provider was asked, and has not answered.
    pub(super) extending: Option<Extending>,
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
    /// Number of the run that left it.
    pub run: u32,
}

impl Stored for HeldLease {
    const TABLE: Table = Table::HeldLease;
}
