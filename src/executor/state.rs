//! What the lease process writes down about itself.

use capex_core::reason;
use capex_core::reasons::Reason;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::ProcessId;
use capex_core::lease::objects;

/// Longest reason kept: enough for a sentence, and it is remote text.
const MAX_REASON_CHARS: usize = 256;
/// Larger than any state, usage or specification file that validates.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// How far a lease is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Blobs arrive, or the component is being compiled.
    Preparing,
    /// Compiled, waiting for the window.
    Ready,
    Running {
        pid: u32,
        /// Unix ms.
        started_at_ms: u64,
    },
    Ended(Ended),
}

/// The end of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub outcome: Outcome,
    /// Unix ms; absent if the workload never began.
    pub started_at_ms: Option<u64>,
    /// Unix ms.
    pub ended_at_ms: u64,
    /// From start to end on a clock that cannot be set.
    pub delivered_ms: u64,
    pub cpu_us: u64,
    /// Most memory in use at any time.
    pub memory_peak_bytes: u64,
}

/// Why a lease ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    Exited {
        /// Its exit code; 0 is success. The preview 1 adapter turns all others into 1.
        code: i32,
    },
    /// The workload broke a rule of WebAssembly.
    Trapped {
        reason: String,
    },
    Deadline,
    Stopped,
    /// It trapped after memory was refused to it.
    Memory,
    /// Its working directory outgrew the quota.
    OutputQuota,
    /// The host or the component made it impossible to run.
    Failed {
        reason: String,
    },
    /// The lease process vanished without a word: killed, or the host went down.
    Interrupted,
}

impl Outcome {
    /// A failure, with a reason fit for showing.
    pub(super) fn failed(reason: impl AsRef<str>) -> Self {
        Self::Failed { reason: printable(reason.as_ref()) }
    }

    /// The outcome as receipts name it: those are about money, not about causes.
    #[must_use]
    pub fn for_receipt(&self) -> objects::Outcome {
        match self {
            Self::Exited { code } => objects::Outcome::Exited { code: *code },
            Self::Trapped { .. } => objects::Outcome::Trapped,
            Self::Deadline => objects::Outcome::Deadline,
            Self::Stopped => objects::Outcome::Stopped,
            Self::Memory => objects::Outcome::OutOfMemory,
            Self::OutputQuota => objects::Outcome::OutOfDisk,
            Self::Failed { .. } | Self::Interrupted => objects::Outcome::Failed,
        }
    }

    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Exited { .. } => reason!("lease.exited"),
            Self::Trapped { .. } => reason!("lease.trapped"),
            Self::Deadline => reason!("lease.deadline"),
            Self::Stopped => reason!("lease.stopped"),
            Self::Memory => reason!("lease.memory"),
            Self::OutputQuota => reason!("lease.output_quota"),
            Self::Failed { .. } => reason!("lease.failed"),
            Self::Interrupted => reason!("lease.interrupted"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Trapped { reason } => write!(f, "trapped: {reason}"),
            Self::Deadline => f.write_str("the window ended"),
            Self::Stopped => f.write_str("stopped on request"),
            Self::Memory => f.write_str("out of memory"),
            Self::OutputQuota => f.write_str("wrote more than its disk quota"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
            Self::Interrupted => f.write_str("the lease process vanished"),
        }
    }
}

/// One sample of a lease; `usage.json`, renewed each quarter of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Unix ms of the sample.
    pub at_ms: u64,
    /// Since the start, on a clock that cannot be set.
    pub delivered_ms: u64,
    pub cpu_us: u64,
    /// Most memory in use at any time.
    pub memory_peak_bytes: u64,
    /// How often memory was refused.
    pub memory_denied: u64,
    /// Bytes kept of standard output.
    pub stdout_bytes: u64,
    /// Bytes of standard output beyond the cap.
    pub stdout_dropped: u64,
    /// Bytes kept of standard error.
    pub stderr_bytes: u64,
    /// Bytes of standard error beyond the cap.
    pub stderr_dropped: u64,
    /// Bytes in the working directory.
    pub work_bytes: u64,
}

impl Usage {
    /// Bytes kept of both standard streams.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.stdout_bytes.saturating_add(self.stderr_bytes)
    }
}

/// `state.json`: the state and the process that vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Absent until a lease process took over.
    pub(super) shim: Option<ProcessId>,
    #[serde(flatten)]
    pub(super) state: State,
}

/// Control characters replaced and cut: the text may come from a stranger's component.
pub(super) fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(MAX_REASON_CHARS).collect()
}

/// Whether a file has to survive a loss of power, or only the death of its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Fsync,
    Rename,
}

/// Replaces a file as a whole: a reader sees the old content or the new.
pub(super) fn write_json<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let temporary = path.with_extension("json.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    if durability == Durability::Fsync {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    match (durability, path.parent()) {
        (Durability::Fsync, Some(dir)) => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

/// Reads a file of [`write_json`]; `None` when there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    use io::Read as _;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(read_json::<Record>(&path).unwrap(), None);
        let ended = Ended {
            outcome: Outcome::Trapped { reason: "x".into() },
            started_at_ms: Some(1),
            ended_at_ms: 2,
            delivered_ms: 1,
            cpu_us: 3,
            memory_peak_bytes: 4,
        };
        let shim = ProcessId { pid: 4, start_ticks: 9, boot_id: "b".into() };
        for state in [
            State::Preparing,
            State::Ready,
            State::Running { pid: 4, started_at_ms: 5 },
            State::Ended(ended),
        ] {
            let record = Record { shim: Some(shim.clone()), state };
            write_json(&path, &record, Durability::Fsync).unwrap();
            assert_eq!(read_json::<Record>(&path).unwrap(), Some(record));
        }
    }

    #[test]
    fn a_reason_cannot_reach_a_terminal_unescaped() {
        let text = printable(&format!("\u{1b}[31mred\n{}", "x".repeat(1_000)));
        assert!(text.starts_with(" [31mred x"));
        assert_eq!(text.chars().count(), MAX_REASON_CHARS);
    }
}
