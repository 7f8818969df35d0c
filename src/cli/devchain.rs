//! `capex devchain`: a Bitcoin chain for development, in Bitcoin Core's RPC.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::failure::{Exit, Failure};
use super::{Context, wait_ms};
use crate::node::config::{DEVCHAIN_LISTEN, devchain_dir};

/// Flags of `devchain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex devchain
  capex devchain --listen 127.0.0.1:0 --block-every 500ms --dir /tmp/chain

Next: capex init --network devnet")]
pub struct Flags {
    /// Address of the RPC server
    #[arg(long, default_value = DEVCHAIN_LISTEN, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Time between blocks
    #[arg(long, default_value = "500ms", value_parser = wait_ms, value_name = "TIME")]
    pub block_every: u64,
    /// Directory of the cookie [default: the state directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Serves until interrupted.
///
/// # Errors
/// The address is taken, or the directory can not be written.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let _dir = devchain_dir(flags.dir.as_deref(), context.env)
        .ok_or_else(|| Failure::usage("config.no_home", "no home directory: pass --dir"))?;
    // SEAM: `crate::chain::devchain::server::serve(listen, block_every, dir, shutdown)`.
    Err(Failure::new(Exit::Failed, "cli.not_built", "devchain is not part of this build"))
}
