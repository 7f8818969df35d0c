use serde::{Deserialize, Serialize};

use super::SlotRange;

/// Phase of a lease after which nothing of it runs.
pub const LEASE_ENDED_PHASES: [&str; 3] = ["ended", "released", "failed"];

/// A file that a workload left as a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFile {
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: String,
    /// Its length, bytes.
    pub bytes: u64,
}

/// A lease on this host, or one that this node holds elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub lease_id: String,
    pub cert_id: String,
    pub holder: String,
    pub provider: String,
    /// `holder` or `provider`: this node's part.
    pub role: String,
    pub class: String,
    pub window: SlotRange,
    /// What runs it, as `wasm`.
    pub backend: String,
    /// `reserved`, `ready`, `running`, `ended`, `released` or `failed`.
    pub phase: String,
    /// Exit code, if the workload ended by itself.
    pub exit_code: Option<i32>,
    /// How it ended: `exited`, `trapped`, `deadline`, `stopped`, `out_of_memory`,
    /// `out_of_disk` or `failed`.
    pub outcome: Option<String>,
    /// When the workload started, unix ms.
    pub started_at: Option<u64>,
    /// When it ended, unix ms.
    pub ended_at: Option<u64>,
    /// Time in which the blocks were at the holder's disposal, s, as a decimal string.
    pub delivered_s: String,
    /// CPU time used, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    /// Receipts signed by the provider.
    pub receipts: u32,
    /// Whether the holder signed the last receipt.
    pub countersigned: bool,
    /// Results that can be fetched.
    pub results: Vec<ResultFile>,
    /// What the provider could not remove; empty, or a fault of the host.
    pub left_behind: Vec<String>,
    /// Reason code of a lease that failed.
    pub code: Option<String>,
}

impl Lease {
    /// Whether nothing of it will run any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        LEASE_ENDED_PHASES.contains(&self.phase.as_str())
    }
}

/// Which output of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    #[default]
    Stdout,
    Stderr,
}

/// A part of a workload's output, or of a result file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// The bytes.
    pub bytes: Vec<u8>,
    pub end: bool,
}
