//! `capex shim DIR`: the child process of one lease. Hidden: the daemon starts it.

use std::path::PathBuf;

use super::failure::{Exit, Failure};

/// Flags of `shim`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex shim /var/lib/capex/leases/00112233
  capex lease list

Next: capex lease show")]
pub struct Flags {
    /// Directory of the lease
    pub dir: PathBuf,
}

/// Runs the lease to its end.
///
/// # Errors
/// The directory holds no lease.
pub fn run(_flags: &Flags) -> Result<u8, Failure> {
    // SEAM: `crate::executor::shim::run(&flags.dir)`.
    Err(Failure::new(Exit::Failed, "cli.not_built", "leases are not part of this build"))
}
