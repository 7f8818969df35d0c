//! How a lease runs on the provider's host (DESIGN §10).
//!
//! ```text
//! node → Manager ──spawns──▶ capex shim <lease-dir> ──runs──▶ the component (WASI 0.2)
//!           ▲                     │ state.json, usage.json, stdout, stderr, work/
//!           └────── polls ────────┘
//! ```
//!
//! One child process per lease enforces the delivery window, the memory and the disk
//! quota by itself, so that a lease neither dies with the daemon nor outlives its end.
//! Everything that the two processes say to each other is a file of the lease directory:
//! a restarted daemon adopts what it finds there.

use async_trait::async_trait;

mod blobs;
mod error;
mod event;
mod guest;
mod hex_text;
pub mod inventory;
mod layout;
mod logs;
mod manager;
mod meter;
mod probe;
mod process;
mod quota;
mod retention;
pub mod samples;
pub mod shim;
mod spec;
mod state;
mod supervise;
mod wasm;
mod watch;

pub use blobs::PutProgress;
pub use error::ExecutorError;
pub use event::LeaseEvent;
pub use inventory::HostCapacity;
pub use logs::LogChunk;
pub use manager::{EVENT_QUEUE, Manager};
pub use probe::Capabilities;
pub use retention::FreedProof;
pub use spec::{
    Allowance, Input, LeaseSpec, MAX_GRACE_MS, MAX_MEMORY_BYTES, MAX_OUTPUT_BYTES, MAX_STRINGS,
    MAX_STRINGS_BYTES, MAX_WINDOW_MS, MAX_WORK_BYTES, MIN_MEMORY_BYTES, SpecError,
};
pub use state::{Ended, Outcome, State, Usage};

use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::Stream;

/// A back end that runs leases: today [`Manager`] with WebAssembly components, later
/// containers, clusters and virtual machines behind the same verbs.
///
/// Every verb names its lease and may be repeated: the second answer equals the first.
/// Errors carry a stable reason code ([`ExecutorError::code`]).
#[async_trait]
pub trait Executor: Send + Sync {
    /// Runs the self-test once and caches what it proved; a class is only offered on it.
    async fn probe(&self) -> Result<Capabilities, ExecutorError>;
    /// What this host can sell: totals, bounded by the limits of our own cgroup.
    async fn inventory(&self) -> Result<HostCapacity, ExecutorError>;
    /// Records the lease durably; answers the digests that are still missing.
    async fn prepare(&self, spec: LeaseSpec) -> Result<Vec<Digest>, ExecutorError>;
    /// Hands the lease to its process, which waits for the window by itself.
    async fn start(&self, lease: &LeaseId) -> Result<(), ExecutorError>;
    /// Takes over, after a restart, every lease found on disk.
    async fn adopt(&self) -> Result<Vec<(LeaseId, State)>, ExecutorError>;
    /// The latest sample, at most a quarter of a second old while the lease runs.
    async fn sample(&self, lease: &LeaseId) -> Result<Usage, ExecutorError>;
    /// At most [`capex_core::limits::LEASE_CHUNK_BYTES`] of a stream from a byte offset.
    async fn logs(
        &self,
        lease: &LeaseId,
        stream: Stream,
        from: u64,
    ) -> Result<LogChunk, ExecutorError>;
    /// Asks the lease to end now; its end is reported by an event.
    async fn stop(&self, lease: &LeaseId, why: &str) -> Result<(), ExecutorError>;
    /// Frees everything and says what, if anything, was left behind.
    async fn release(&self, lease: &LeaseId) -> Result<FreedProof, ExecutorError>;

    /// Runs a further command inside the lease.
    ///
    /// # Errors
    /// `executor.unsupported` unless the back end has processes to run it in.
    async fn exec(&self, _lease: &LeaseId, _argv: &[String]) -> Result<(), ExecutorError> {
        Err(ExecutorError::Unsupported("exec"))
    }

    /// Connects to a port inside the lease.
    ///
    /// # Errors
    /// `executor.unsupported` unless the back end gives a lease a network of its own.
    async fn dial(&self, _lease: &LeaseId, _port: u16) -> Result<(), ExecutorError> {
        Err(ExecutorError::Unsupported("dial"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_back_end_lacks_is_refused_by_a_code() {
        assert_eq!(ExecutorError::Unsupported("exec").code(), "executor.unsupported");
    }
}
