use serde::{Deserialize, Serialize};

use super::SlotRange;
use capex_core::lease::score::Score;

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

/// Time in which blocks were not at their holder's disposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// `late`, `failed`, `interrupted`, `maintenance` or `withdrawn`.
    pub cause: String,
    /// Decimal string.
    pub unavailable_s: String,
}

/// A time in which a provider does not deliver, as it has announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseMaintenance {
    /// Unix ms.
    pub starts_at: u64,
    /// Unix ms.
    pub ends_at: u64,
    /// In its words.
    pub why: String,
}

/// A lease on this host, or one that this node holds elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub lease_id: String,
    pub cert_id: String,
    /// Ids of certificates that extended it, in order.
    pub extensions: Vec<String>,
    pub holder: String,
    pub provider: String,
    /// `holder` or `provider`: this node's part.
    pub role: String,
    pub class: String,
    pub window: SlotRange,
    /// What runs it, as `wasm`.
    pub backend: String,
    /// `reserved`, `ready`, `running`, `exited`, `interrupted`, `ended`, `released` or `failed`.
    pub phase: String,
    /// Runs of the workload that have begun.
    pub runs: u32,
    /// Exit code, if the workload ended by itself.
    pub exit_code: Option<i32>,
    /// What the last run, or the lease, came to: `exited`, `trapped`, `deadline`, `stopped`, `out_of_memory`,
    /// `out_of_disk`, `failed`, `interrupted` or `unfit`.
    pub outcome: Option<String>,
    /// When the lease came to be at its holder's disposal, unix ms.
    pub started_at: Option<u64>,
    /// When its workload ended by itself while the lease goes on, unix ms.
    pub exited_at: Option<u64>,
    /// When the lease ended, unix ms.
    pub ended_at: Option<u64>,
    /// Time in which the blocks were at the holder's disposal, s, as a decimal string.
    pub delivered_s: String,
    /// Time in which they were not, each cause once.
    pub unavailable: Vec<Unavailable>,
    /// When its provider will not deliver, or did not, as it has announced.
    #[serde(default)]
    pub maintenance: Vec<LeaseMaintenance>,
    /// CPU time used, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    /// Time in which it waited for processors because its blocks have no more, µs, by receipts.
    pub throttled_us: u64,
    /// Receipts signed by the provider.
    pub receipts: u32,
    /// Whether the holder signed the last receipt.
    pub countersigned: bool,
    /// Output and results of every run that is over are on the holder's disk.
    pub fetched: bool,
    /// Results that can be fetched.
    pub results: Vec<ResultFile>,
    /// What the provider could not remove; empty, or a fault of the host.
    pub left_behind: Vec<String>,
    /// Reason code of a lease that failed, or that is interrupted.
    pub code: Option<String>,
    /// How far its content has come; null once all of it has, and for a provider.
    #[serde(default)]
    pub upload: Option<Upload>,
    /// In which band the provider has measured its host; null if it has told none.
    pub score: Option<HostScore>,
}

/// How much of the content of a lease its provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub sent_bytes: u64,
    pub total_bytes: u64,
}

/// What one thread of a host does: the lower end of the band in which it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostScore {
    /// Steps of a generator of which each needs the one before, millions a second.
    pub processor: u32,
    /// Memory copied, MiB a second.
    pub memory: u32,
}

impl From<Score> for HostScore {
    fn from(Score { processor, memory }: Score) -> Self {
        Self { processor, memory }
    }
}

impl Lease {
    /// Whether nothing of it will run any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        LEASE_ENDED_PHASES.contains(&self.phase.as_str())
    }

    /// Whether its workload has ended, or the lease has, and what it left is here.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let is_here = self.fetched || self.role == "provider";
        self.is_over() || (self.phase == "exited" && is_here)
    }
}

/// What extends a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendBody {
    /// A certificate of the same provider, class and number of units, whose window begins where
    /// that of the lease ends; a prefix of its id will do.
    pub cert_id: String,
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
