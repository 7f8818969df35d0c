//! Where the process of a lease runs. `local` starts it on this machine; a batch system would be
//! a file beside it.

mod local;
mod process;

use std::os::fd::OwnedFd;
use std::path::Path;

pub(super) use self::local::Local;
pub(super) use self::process::ProcessId;
use super::error::ExecutorError;
use super::spec::Secrets;

/// Starts lease processes (`capex shim DIR`), and finds those again that an earlier daemon
/// started. They outlive the daemon: all that is said to them is a file of their directory.
pub(super) trait Launcher: Send + Sync {
    /// Starts the process of a lease, and hands it what is on no disk.
    ///
    /// # Errors
    /// `executor.io` when there is none to be had.
    fn launch(&self, dir: &Path, secrets: &Secrets) -> Result<Box<dyn Launched>, ExecutorError>;

    /// The process that has written down its identity in the directory.
    fn adopt(&self, dir: &Path, process: ProcessId) -> Box<dyn Launched>;
}

/// A lease process, wherever it runs.
pub(super) trait Launched: Send {
    /// Whether it still runs.
    fn is_alive(&mut self) -> bool;

    /// What becomes readable when it ends, while it runs; `None` where nothing does.
    fn exit(&mut self) -> Option<OwnedFd>;

    /// Ends it and all that it started, without asking.
    fn kill(&self);
}
