//! What a provider keeps of a lease, and a holder of one that it has.

use serde::{Deserialize, Serialize};

use crate::engine::kernel::{Stored, Table};
use crate::ids::{CertId, Digest, Key};
use crate::lease::objects::Workload;
use crate::lease::{Maintenance, Phase};
use crate::units::{TimeMs, Window};
use crate::wire::{Envelope, WireError, decode_record};

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
    /// Of what it has lost on the way, so much was lost in maintenances that were announced, ms.
    pub(super) announced_ms: u64,
    /// The operator of this host has ended it.
    pub(super) is_withdrawn: bool,
}

impl Stored for LeaseRecord {
    const TABLE: Table = Table::Lease;
    const VERSION: u8 = 2;

    fn from_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_record::<LeaseV1>(body).map(Self::from))
    }
}

/// A lease on this host, as it was kept before it was told what its provider does to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LeaseV1 {
    cert_id: CertId,
    holder: Key,
    grant: Envelope,
    workload: Workload,
    order: u32,
    units: u32,
    window: Window,
    starts_at_ms: TimeMs,
    ends_at_ms: TimeMs,
    cpu_max_milli: u64,
    memory_max_bytes: u64,
    disk_max_bytes: u64,
    extensions: Vec<(CertId, Envelope)>,
    phase: Phase,
    receipts: Vec<Envelope>,
    countersigned: u32,
    countersignature: Option<Envelope>,
    failure: Option<String>,
}

impl From<LeaseV1> for LeaseRecord {
    fn from(old: LeaseV1) -> Self {
        Self {
            cert_id: old.cert_id,
            holder: old.holder,
            grant: old.grant,
            workload: old.workload,
            order: old.order,
            units: old.units,
            window: old.window,
            starts_at_ms: old.starts_at_ms,
            ends_at_ms: old.ends_at_ms,
            cpu_max_milli: old.cpu_max_milli,
            memory_max_bytes: old.memory_max_bytes,
            disk_max_bytes: old.disk_max_bytes,
            extensions: old.extensions,
            phase: old.phase,
            receipts: old.receipts,
            countersigned: old.countersigned,
            countersignature: old.countersignature,
            failure: old.failure,
            announced_ms: 0,
            is_withdrawn: false,
        }
    }
}

/// A maintenance that this host has announced; its key is its number, four bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct MaintenanceV1 {
    /// Unix ms.
    from_ms: TimeMs,
    /// Unix ms.
    to_ms: TimeMs,
    why: String,
}

impl Stored for MaintenanceV1 {
    const TABLE: Table = Table::Maintenance;
}

impl From<&Maintenance> for MaintenanceV1 {
    fn from(Maintenance { from_ms, to_ms, why }: &Maintenance) -> Self {
        Self { from_ms: *from_ms, to_ms: *to_ms, why: why.clone() }
    }
}

impl From<MaintenanceV1> for Maintenance {
    fn from(MaintenanceV1 { from_ms, to_ms, why }: MaintenanceV1) -> Self {
        Self { from_ms, to_ms, why }
    }
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
    /// The provider was asked to end it.
    pub(super) is_stopped: bool,
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
    const VERSION: u8 = 2;

    fn from_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_record::<HeldV1>(body).map(Self::from))
    }
}

/// A lease of this holder, as it was kept before it was noted who ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HeldV1 {
    redeem: Envelope,
    cert_id: CertId,
    provider: Key,
    workload: Workload,
    uploads: bool,
    units: u32,
    window: Window,
    answer: Answer,
    extensions: Vec<(CertId, Envelope)>,
    extending: Option<Extending>,
    receipts: Vec<Envelope>,
    countersigned: u32,
    results: Vec<FetchedResult>,
    is_fetched: bool,
}

impl From<HeldV1> for HeldLease {
    fn from(old: HeldV1) -> Self {
        Self {
            redeem: old.redeem,
            cert_id: old.cert_id,
            provider: old.provider,
            workload: old.workload,
            uploads: old.uploads,
            units: old.units,
            window: old.window,
            answer: old.answer,
            extensions: old.extensions,
            extending: old.extending,
            receipts: old.receipts,
            countersigned: old.countersigned,
            results: old.results,
            is_fetched: old.is_fetched,
            // Nobody knows any more: the provider is not blamed for what its holder may have asked.
            is_stopped: true,
        }
    }
}
