//! The signed objects of a lease and the messages of `lease/1`.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ids::{CertId, Digest, Key, LeaseId};
use crate::units::TimeMs;
use crate::wire::{Envelope, Object};

/// The holder presents a certificate. Signed by the holder; its object id is the lease id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeem {
    pub v: u8,
    pub cert_id: CertId,
    /// Sequence number consumed: that of the last Activation.
    pub seq: u32,
    pub holder: Key,
    /// SHA-256 of the encoded [`Workload`].
    pub workload_digest: Digest,
    /// The provider's challenge.
    pub challenge32: [u8; 32],
    /// Not valid after this time, unix s.
    pub not_after_s: u64,
}

impl Object for Redeem {
    const NAME: &'static str = "redeem";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.holder.0)
    }
}

/// An input file of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Name in the working directory: no separator, no control character, ≤ 128 bytes.
    pub name: String,
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Length, bytes.
    pub bytes: u64,
}

/// What runs in a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// A WASI 0.2 command component.
    Wasm,
}

/// What runs in a lease, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub kind: WorkloadKind,
    /// SHA-256 of the component.
    pub component: Digest,
    /// Length of the component, bytes.
    pub component_bytes: u64,
    pub args: Vec<String>,
    pub inputs: Vec<InputFile>,
    /// Names of files to keep as results.
    pub results: Vec<String>,
}

/// What a holder may ask of a running lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verb {
    Put,
    Logs,
    Get,
    Status,
    Stop,
    /// Fetch receipts, countersign them.
    Receipt,
}

/// Authorises one request on a lease. Signed by the holder key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCall {
    pub v: u8,
    pub lease: LeaseId,
    pub verb: Verb,
    /// Rises with every call of a lease.
    pub counter: u64,
    /// Not valid after this time, unix s.
    pub not_after_s: u64,
}

impl Object for LeaseCall {
    const NAME: &'static str = "lease-call";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// How a workload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Exited {
        code: i32,
    },
    Trapped,
    Deadline,
    Stopped,
    /// It asked for more memory than its blocks have.
    OutOfMemory,
    /// It wrote more than its blocks have.
    OutOfDisk,
    /// The provider failed to run it.
    Failed,
}

/// What was delivered, hash-chained and signed by the provider; the holder countersigns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub v: u8,
    pub provider: Key,
    pub lease: LeaseId,
    /// 0, 1, ….
    pub seq: u32,
    /// Object id of the receipt before; zero at 0.
    pub prev_hash: [u8; 32],
    /// Start of the period, unix ms.
    pub from_ms: TimeMs,
    /// End of the period, unix ms.
    pub to_ms: TimeMs,
    /// Time in the period in which the blocks were at the holder's disposal, ms.
    pub delivered_ms: u64,
    /// Time in the period in which they were not, ms.
    pub unavailable_ms: u64,
    /// CPU time used, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    pub output_bytes: u64,
    /// The end, on the last receipt.
    pub outcome: Option<Outcome>,
}

impl Object for Receipt {
    const NAME: &'static str = "receipt";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.provider.0)
    }
}

/// The holder's agreement with a receipt. Signed by the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countersign {
    pub v: u8,
    pub receipt: [u8; 32],
}

impl Object for Countersign {
    const NAME: &'static str = "countersign";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// State of a lease as its provider tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Phase name: `reserved`, `ready`, `running`, `ended`, `released`.
    pub phase: String,
    /// When the workload started, unix ms.
    pub started_at_ms: Option<TimeMs>,
    /// When it ended, unix ms.
    pub ended_at_ms: Option<TimeMs>,
    pub outcome: Option<Outcome>,
    /// CPU time, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    /// Content that is still missing.
    pub need: Vec<Digest>,
    /// Why it could not be run: reason code, at most 64 bytes.
    pub code: Option<String>,
}

/// Requests of `lease/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseRequest {
    /// A nonce for Redeem. Answer: `Challenge`.
    Challenge(CertId),
    /// Signed Redeem with what shall run. Answer: `Lease`.
    Redeem { redeem: Envelope, workload: Workload },
    /// A part of a component or input. Answer: `Progress`.
    Put {
        call: Envelope,
        digest: Digest,
        offset: u64,
        /// At most 256 KiB.
        bytes: Vec<u8>,
    },
    /// Output from a position; waits a little if there is none. Answer: `Bytes`.
    Logs { call: Envelope, stream: Stream, from: u64 },
    /// A part of a result file. Answer: `Bytes`.
    Get { call: Envelope, name: String, from: u64 },
    /// Answer: `Status`.
    Status { call: Envelope },
    /// End early. Answer: `Status`.
    Stop { call: Envelope },
    /// Receipts from a number on. Answer: `Receipts`.
    Receipts { call: Envelope, from_seq: u32 },
    /// Signed Countersign. Answer: `Stored`.
    Countersign { lease: LeaseId, signature: Envelope },
}

/// Answers of `lease/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseReply {
    /// Good for 60 s and one Redeem.
    Challenge([u8; 32]),
    /// The certificate is consumed and the lease stands.
    Lease {
        lease: LeaseId,
        grant: Envelope,
        need: Vec<Digest>,
        /// Start of the window, unix ms.
        starts_at_ms: TimeMs,
        /// End of the window, unix ms.
        ends_at_ms: TimeMs,
    },
    /// Bytes of the content received so far.
    Progress {
        /// Contiguous bytes received.
        received: u64,
        /// Whole, and its digest right.
        complete: bool,
    },
    /// A part of output or result.
    Bytes {
        bytes: Vec<u8>,
        end: bool,
    },
    Status(LeaseStatus),
    /// Signed receipts, ascending.
    Receipts(Vec<Envelope>),
    Stored,
    /// No, with a stable reason code.
    Refused {
        /// Reason code, at most 64 bytes.
        code: String,
    },
}
