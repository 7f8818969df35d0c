//! The signed objects of a lease and the messages of `lease/1` (DESIGN §10).

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ids::{CertId, Digest, Key, LeaseId};
use crate::units::TimeMs;
use crate::wire::{Envelope, Object};

/// The holder presents a certificate. Signed by the holder; its object id is the lease id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeem {
    /// Version.
    pub v: u8,
    /// Which certificate.
    pub cert_id: CertId,
    /// Sequence number consumed: that of the last Activation.
    pub seq: u32,
    /// Who presents it.
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
    /// Back end that it needs.
    pub kind: WorkloadKind,
    /// SHA-256 of the component.
    pub component: Digest,
    /// Length of the component, bytes.
    pub component_bytes: u64,
    /// Arguments.
    pub args: Vec<String>,
    /// Input files.
    pub inputs: Vec<InputFile>,
    /// Names of files to keep as results.
    pub results: Vec<String>,
}

/// What a holder may ask of a running lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verb {
    /// Upload content.
    Put,
    /// Read output.
    Logs,
    /// Fetch a result.
    Get,
    /// State and usage.
    Status,
    /// End early.
    Stop,
    /// Fetch receipts, countersign them.
    Receipt,
}

/// Authorises one request on a lease. Signed by the holder key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCall {
    /// Version.
    pub v: u8,
    /// Which lease.
    pub lease: LeaseId,
    /// What for.
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
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a workload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// By itself.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// The guest trapped.
    Trapped,
    /// The window ended first.
    Deadline,
    /// The holder stopped it.
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
    /// Version.
    pub v: u8,
    /// Who delivered.
    pub provider: Key,
    /// Which lease.
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
    /// Bytes of output.
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
    /// Version.
    pub v: u8,
    /// Object id of the receipt.
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
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// CPU time, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    /// Content that is still missing.
    pub need: Vec<Digest>,
}

/// Requests of `lease/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseRequest {
    /// A nonce for Redeem. Answer: `Challenge`.
    Challenge(CertId),
    /// Signed Redeem with what shall run. Answer: `Lease`.
    Redeem {
        /// Signed Redeem.
        redeem: Envelope,
        /// What shall run.
        workload: Workload,
    },
    /// A part of a component or input. Answer: `Progress`.
    Put {
        /// Signed LeaseCall.
        call: Envelope,
        /// Of the whole content.
        digest: Digest,
        /// Where the part begins.
        offset: u64,
        /// At most 256 KiB.
        bytes: Vec<u8>,
    },
    /// Output from a position; waits a little if there is none. Answer: `Bytes`.
    Logs {
        /// Signed LeaseCall.
        call: Envelope,
        /// Which output.
        stream: Stream,
        /// First byte wanted.
        from: u64,
    },
    /// A part of a result file. Answer: `Bytes`.
    Get {
        /// Signed LeaseCall.
        call: Envelope,
        /// Name of the result.
        name: String,
        /// First byte wanted.
        from: u64,
    },
    /// Answer: `Status`.
    Status {
        /// Signed LeaseCall.
        call: Envelope,
    },
    /// End early. Answer: `Status`.
    Stop {
        /// Signed LeaseCall.
        call: Envelope,
    },
    /// Receipts from a number on. Answer: `Receipts`.
    Receipts {
        /// Signed LeaseCall.
        call: Envelope,
        /// First wanted.
        from_seq: u32,
    },
    /// Signed Countersign. Answer: `Stored`.
    Countersign {
        /// Which lease.
        lease: LeaseId,
        /// Signed Countersign.
        signature: Envelope,
    },
}

/// Answers of `lease/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseReply {
    /// Good for 60 s and one Redeem.
    Challenge([u8; 32]),
    /// The certificate is consumed and the lease stands.
    Lease {
        /// Id of the Redeem.
        lease: LeaseId,
        /// Signed RedeemGrant.
        grant: Envelope,
        /// Content to upload.
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
        /// The part.
        bytes: Vec<u8>,
        /// Nothing will follow.
        end: bool,
    },
    /// State and usage.
    Status(LeaseStatus),
    /// Signed receipts, ascending.
    Receipts(Vec<Envelope>),
    /// Taken note.
    Stored,
    /// No, with a stable reason code.
    Refused {
        /// Reason code, at most 64 bytes.
        code: String,
    },
}
