//! The signed objects of a lease and the messages of `lease/1`.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::maintenance::Maintenance;
use super::pull::{ImageRef, Pulled};
use super::score::Score;
use crate::ids::{CertId, Digest, Key, LeaseId};
use crate::params::Isolation;
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

/// The holder of a lease presents another certificate of its provider, whose window begins where
/// that of the lease ends. Signed by the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extend {
    pub v: u8,
    pub lease: LeaseId,
    pub cert_id: CertId,
    /// Sequence number consumed: that of the last Activation.
    pub seq: u32,
    pub holder: Key,
    /// Not valid after this time, unix s.
    pub not_after_s: u64,
}

impl Object for Extend {
    const NAME: &'static str = "extend";
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

/// Content that the holder uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 of it.
    pub digest: Digest,
    /// Length, bytes.
    pub bytes: u64,
}

/// What is run, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A WASI 0.2 command component.
    Wasm { component: Content },
    /// An OCI image: its manifest, and the config and layers that it names, exactly these.
    Oci { manifest: Content, blobs: Vec<Content> },
    /// A tar archive of a root file system.
    Rootfs { archive: Content },
}

/// What kind of thing is run: a host has a runtime for it, or has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PayloadKind {
    Wasm,
    Oci,
    Rootfs,
}

impl PayloadKind {
    /// Name for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Oci => "oci",
            Self::Rootfs => "rootfs",
        }
    }
}

impl Payload {
    /// What has to be there to run it.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        match self {
            Self::Wasm { .. } => PayloadKind::Wasm,
            Self::Oci { .. } => PayloadKind::Oci,
            Self::Rootfs { .. } => PayloadKind::Rootfs,
        }
    }

    /// What its class promises it to run in.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        match self {
            Self::Wasm { .. } => Isolation::Wasm,
            Self::Oci { .. } | Self::Rootfs { .. } => Isolation::Container,
        }
    }

    /// All its parts; the first names the others.
    pub fn contents(&self) -> impl Iterator<Item = &Content> + Clone {
        let (first, others): (_, &[Content]) = match self {
            Self::Wasm { component } => (component, &[]),
            Self::Oci { manifest, blobs } => (manifest, blobs),
            Self::Rootfs { archive } => (archive, &[]),
        };
        std::iter::once(first).chain(others)
    }
}

/// Value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    Plain(String),
    /// For the provider's lease key alone: neither a log nor the journal has it in clear.
    Sealed(Vec<u8>),
}

/// A variable of the workload's environment, which has no others but those of its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Not empty, without `=`.
    pub name: String,
    pub value: EnvValue,
}

/// What happens when a workload ends by itself while its window lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// The lease waits for its holder.
    #[default]
    No,
    /// It is run again, unless it exited with 0.
    OnFailure,
    /// It is run again.
    Always,
}

/// What runs in a lease; its digest is what a Redeem signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub payload: Payload,
    /// Program and arguments; for a component its arguments. Empty: what the image says.
    pub command: Vec<String>,
    pub env: Vec<EnvVar>,
    /// Absolute path; else what the image says.
    pub workdir: Option<String>,
    pub inputs: Vec<InputFile>,
    /// Names of files to keep as results.
    pub results: Vec<String>,
    /// Ports on which it listens, ascending: only these are forwarded.
    pub ports: Vec<u16>,
    /// Whether it may open connections to the outside, if its provider lets it.
    pub egress: bool,
    /// Time between the stop signal and the kill, within the window, ms; 0 for no signal.
    pub grace_ms: u32,
    /// Number of the stop signal; 0 for what the image says, else SIGTERM.
    pub stop_signal: u8,
    pub restart: RestartPolicy,
}

impl Workload {
    /// A workload of a payload alone.
    #[must_use]
    pub fn of(payload: Payload) -> Self {
        Self {
            payload,
            command: Vec::new(),
            env: Vec::new(),
            workdir: None,
            inputs: Vec::new(),
            results: Vec::new(),
            ports: Vec::new(),
            egress: false,
            grace_ms: 0,
            stop_signal: 0,
            restart: RestartPolicy::No,
        }
    }

    /// A component without arguments or files.
    #[must_use]
    pub fn wasm(digest: Digest, bytes: u64) -> Self {
        Self::of(Payload::Wasm { component: Content { digest, bytes } })
    }
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
    /// Run the workload again.
    Restart,
    /// Run another workload, by its digest.
    Replace(Digest),
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
    /// What was uploaded cannot be run.
    Unfit,
    /// The host lost its process, and did not get it back.
    Interrupted,
}

/// Why blocks were not at their holder's disposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// The host was not ready when the window began, or never.
    Late,
    /// The host could not prepare, launch or keep it.
    Failed,
    /// The host lost the process of the lease, or went down.
    Interrupted,
    /// The provider had said before that it would not deliver then.
    Maintenance,
    /// The provider has ended the lease.
    Withdrawn,
}

/// Time in which blocks were not at their holder's disposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    pub cause: Cause,
    pub ms: u64,
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
    /// Units of the certificate: a block-second is one of them for a second.
    pub units: u32,
    /// Start of the period, unix ms.
    pub from_ms: TimeMs,
    /// End of the period, unix ms.
    pub to_ms: TimeMs,
    /// Time in the period in which the blocks were at the holder's disposal, ms.
    pub delivered_ms: u64,
    /// Time in the period in which they were not, each cause once, ascending.
    pub unavailable: Vec<Unavailable>,
    /// CPU time used, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    /// Time in which the workload waited for processors because its blocks have no more of them, µs.
    pub throttled_us: u64,
    pub output_bytes: u64,
    /// The end, on the last receipt.
    pub outcome: Option<Outcome>,
}

impl Receipt {
    /// Time in the period in which the blocks were not at the holder's disposal, ms.
    #[must_use]
    pub fn unavailable_ms(&self) -> u64 {
        self.unavailable.iter().fold(0, |sum, lost| sum.saturating_add(lost.ms))
    }
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
    /// Phase name: `reserved`, `ready`, `running`, `exited`, `interrupted`, `ended`, `released`.
    pub phase: String,
    /// Runs of the workload that have begun.
    pub runs: u32,
    /// When the lease came to be at its holder's disposal, unix ms.
    pub started_at_ms: Option<TimeMs>,
    /// When its workload ended by itself while the lease goes on, unix ms.
    pub exited_at_ms: Option<TimeMs>,
    /// When the lease ended, unix ms.
    pub ended_at_ms: Option<TimeMs>,
    /// What the last run or the lease came to.
    pub outcome: Option<Outcome>,
    /// CPU time, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    /// Time so far in which the blocks were not at the holder's disposal, as receipts will say.
    pub unavailable: Vec<Unavailable>,
    /// When its provider will not deliver, or did not, as announced.
    pub maintenance: Vec<Maintenance>,
    /// Content that is still missing.
    pub need: Vec<Digest>,
    /// Why it could not be run: reason code, at most 64 bytes.
    pub code: Option<String>,
    /// In which band its provider has measured this host, if it has.
    pub score: Option<Score>,
}

/// Requests of `lease/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseRequest {
    /// A nonce for Redeem. Answer: `Challenge`.
    Challenge(CertId),
    /// Signed Redeem with what shall run. Answer: `Lease`.
    Redeem { redeem: Envelope, workload: Workload },
    /// Signed Extend. Answer: `Extended`.
    Extend { extend: Envelope },
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
    /// Run the workload again, whether it runs or has exited. Answer: `Status`.
    Restart { call: Envelope },
    /// Run another workload on the same disk. Answer: `Status`.
    Replace { call: Envelope, workload: Workload },
    /// Receipts from a number on. Answer: `Receipts`.
    Receipts { call: Envelope, from_seq: u32 },
    /// Signed Countersign. Answer: `Stored`.
    Countersign { lease: LeaseId, signature: Envelope },
    /// Fetch an image for whoever holds the certificate, who is the peer that asks, and say how far
    /// that is. Nothing is consumed. Answer: `Pulled`.
    Pull { cert: CertId, image: ImageRef },
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
    /// The certificate is consumed and the lease ends later.
    Extended {
        grant: Envelope,
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
        /// Nothing follows, unless the workload is run again.
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
    Pulled(Pulled),
}
