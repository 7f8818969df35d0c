//! `capex devnet`.

use super::Context;
use super::failure::{Exit, Failure};

/// Flags of `devnet`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex devnet --seed 7
  capex devnet --json > market.json

Next: capex init --network devnet")]
pub struct Flags {
    /// Decides everything that is drawn
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

/// Runs a whole market.
///
/// # Errors
/// What failed first.
pub fn run(_flags: &Flags, _context: &mut Context<'_>) -> Result<(), Failure> {
    Err(Failure::new(
        Exit::Failed,
        "cli.not_built",
        "devnet is not part of this build",
    ))
}
