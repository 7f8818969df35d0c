//! What runs a workload inside a lease process. `wasm` runs components in the process itself;
//! what runs containers stands beside it.
//!
//! A runtime is used by the shim alone, one call at a time and from one thread; only
//! [`Runtime::prepare`] is called from another, before all others. What it lets do beside a
//! workload is used from other threads. Nothing here needs an asynchronous runtime.

mod beside;
mod oci;
mod wasm;
mod within;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use capex_core::lease::objects::PayloadKind;
use capex_core::reason;
use capex_core::reasons::Reason;

pub(super) use self::beside::{Beside, Exec, Files, Process, ProcessControl, ProcessIo};
pub use self::oci::probe_egress;
pub(super) use self::oci::{
    DiskRate, DiskRates, PROCESSES, disk_rates, own_addresses, probe as probe_containers,
};
pub use self::wasm::{Needs, Unfit, inspect};
pub(super) use self::within::{Within, Writing};
use super::bell::Wake;
use super::error::of_io;
use super::layout::LeaseDir;
use super::logs::CappedLog;
use super::spec::{LeaseSpec, Secrets};
use super::state::{Outcome, printable};

/// Name of the notice in the workload's directory.
pub(super) const NOTICE_FILE: &str = "capex-notice";

/// What a runtime is given.
pub(super) struct Job {
    pub(super) dir: LeaseDir,
    pub(super) spec: LeaseSpec,
    /// Standard output and error of the workload, over all its runs.
    pub(super) logs: [CappedLog; 2],
    pub(super) secrets: Arc<Secrets>,
    /// Called when the workload has ended.
    pub(super) wake: Wake,
}

impl Job {
    /// Variables of the environment.
    fn env(&self) -> Result<Vec<(&str, &str)>, Failure> {
        let env = self.spec.env(&self.secrets);
        env.ok_or_else(|| {
            Failure::workload(reason!("workload.sealed"), "a variable cannot be opened")
        })
    }
}

/// What runs the workload of one lease.
pub(super) trait Runtime: Send {
    /// Makes everything ready that does not need the window: compiles, unpacks, builds the disk.
    /// May take long, and ends early once `cancelled` is set.
    ///
    /// # Errors
    /// Whether it is the workload that cannot be run, or the host that cannot run it.
    fn prepare(&mut self, cancelled: &AtomicBool) -> Result<(), Failure>;

    /// Starts the workload, the first time or again after its exit, on the disk as it is.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    fn run(&mut self) -> Result<(), Failure>;

    /// What the workload has come to, told once; `None` while it runs.
    /// [`Outcome::Stopped`] is what a kill came to.
    fn ended(&mut self) -> Option<Outcome>;

    /// How often [`Self::ended`] has to be asked while the workload runs, where its end does not wake.
    fn beat(&self) -> Option<Duration> {
        None
    }

    /// What may be done beside the workload that runs now, from any thread; each run has its own.
    /// `None` if this runtime runs nothing beside a workload.
    fn beside(&self) -> Option<Arc<dyn Beside>> {
        None
    }

    /// The files of the lease, once all is prepared.
    ///
    /// # Errors
    /// The disk.
    fn files(&self) -> std::io::Result<Files>;

    /// What all runs have used since the runtime was opened; counters only rise.
    fn sample(&mut self) -> Sample;

    /// Lays a text where the workload can read it. Its standard error has it in any case.
    ///
    /// # Errors
    /// The disk.
    fn notice(&mut self, _text: &str) -> std::io::Result<()> {
        Ok(())
    }

    /// Tells the workload to end, or ends it; [`Self::wait`] says what came of it.
    fn stop(&mut self, how: Stop);

    /// Gives back all that the host lent: cgroups, mounts, loop devices, namespaces. May be called
    /// whatever came before it, more than once, and says what could not be given back.
    fn release(&mut self) -> Vec<Left>;
}

/// How a workload is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// By the signal that its holder chose: it may take its time.
    Signal,
    /// At once, and everything that it started.
    Kill,
}

/// What could not be given back: a path or a name, for the operator.
pub(super) type Left = String;

/// What a workload has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) cpu_us: u64,
    /// Most memory in use at any time.
    pub(super) memory_peak_bytes: u64,
    /// How often memory was refused, or a process was killed for it.
    pub(super) memory_denied: u64,
    /// Time in which it waited for processors beyond its own, µs.
    pub(super) throttled_us: u64,
    /// Bytes on the disk of the lease; `None` if they cannot be counted.
    pub(super) work_bytes: Option<u64>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// What was uploaded cannot be run: the holder's to mend.
    #[error("{text}")]
    Workload { reason: Reason, text: String },
    /// The host cannot run it: the provider's failure.
    #[error("{text}")]
    Host { reason: Reason, text: String },
    /// It was told to.
    #[error("cancelled")]
    Cancelled,
}

impl Failure {
    /// The workload cannot be run.
    pub(super) fn workload(reason: Reason, text: impl AsRef<str>) -> Self {
        Self::Workload { reason, text: printable(text.as_ref()) }
    }

    /// The host cannot run it.
    pub(super) fn host(text: impl AsRef<str>) -> Self {
        Self::Host { reason: reason!("lease.failed"), text: printable(text.as_ref()) }
    }

    /// The host has no longer what its runtime needs.
    pub(super) fn gone(text: impl AsRef<str>) -> Self {
        Self::Host { reason: reason!("runtime.gone"), text: printable(text.as_ref()) }
    }

    /// The host could not read or write something.
    pub(super) fn io(what: &str, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => of_io(error),
            _ => reason!("lease.failed"),
        };
        Self::Host { reason, text: printable(&format!("{what}: {error}")) }
    }

    /// Its row in the table of reasons.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Workload { reason, .. } | Self::Host { reason, .. } => *reason,
            Self::Cancelled => reason!("lease.stopped"),
        }
    }

    /// How a workload ended that never began for this.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Workload { reason, text } => {
                Outcome::Unfit { code: reason.code().to_owned(), reason: text.clone() }
            }
            Self::Host { reason, text } => {
                Outcome::Failed { code: Some(reason.code().to_owned()), reason: text.clone() }
            }
            Self::Cancelled => Outcome::Stopped,
        }
    }
}

/// The runtime of a lease's payload. To be called from the main thread of its process, before
/// any other thread runs what it confines.
///
/// # Errors
/// [`Failure::Host`] if this host has none.
pub(super) fn open(job: Job) -> Result<Box<dyn Runtime>, Failure> {
    match job.spec.workload.payload.kind() {
        PayloadKind::Wasm => Ok(Box::new(wasm::Wasm::open(job)?)),
        PayloadKind::Oci | PayloadKind::Rootfs => Ok(Box::new(oci::Oci::open(job)?)),
    }
}

/// Gives back what the runtime of a process that is gone had been lent, by the directory of its
/// lease alone. Nothing of a component outlives its process.
pub(super) fn sweep(dir: &LeaseDir) -> Vec<Left> {
    oci::sweep(dir)
}

/// Ends what is left of a lease process that is gone, and keeps the disk of the lease for the next
/// one. Nothing of a component outlives its process.
pub(super) fn rescue(dir: &LeaseDir) -> Vec<Left> {
    oci::rescue(dir)
}

/// Becomes a container, or a program in one.
pub(super) fn enter(dir: &Path, request: &str) -> std::io::Result<()> {
    oci::enter::run(dir, request)
}

/// Why this host runs no containers; `None` if it does.
#[must_use]
pub fn no_containers() -> Option<String> {
    probe_containers().err()
}

/// What of the rate at which leases use their disks this host can limit, in words.
#[must_use]
pub fn disk_limits() -> &'static str {
    disk_rates().name()
}

/// Ends what a lease process leaves behind, or has running long after its end.
pub(super) fn guard(dir: &LeaseDir) -> std::io::Result<()> {
    oci::guard::guard(dir)
}

/// The kinds of payload that this host can run.
#[must_use]
pub fn offered() -> Vec<PayloadKind> {
    let mut kinds = vec![PayloadKind::Wasm];
    match oci::probe() {
        Ok(()) => kinds.extend([PayloadKind::Oci, PayloadKind::Rootfs]),
        Err(why) => tracing::info!(why, "this host runs no containers"),
    }
    kinds
}
