//! `capex devchain`: a Bitcoin chain for development, in Bitcoin Core's RPC.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::up::{announce, runtime, stop_asked};
use super::{Context, wait_ms};
use crate::chain::devchain::server::{ServeError, ServeOptions, serve};
use crate::node::config::{DEVCHAIN_LISTEN, devchain_dir};
use capex_core::reason;

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
    /// Time between blocks; 0s mines on request only
    #[arg(long, default_value = "500ms", value_parser = wait_ms, value_name = "TIME")]
    pub block_every: u64,
    /// Directory of the cookie [default: the state directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Stop when standard input ends, so that the process does not outlive its parent
    #[arg(long, hide = true)]
    pub exit_on_stdin_eof: bool,
}

/// Serves until interrupted.
///
/// # Errors
/// The address is taken, or the directory cannot be used.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let state_dir = devchain_dir(flags.dir.as_deref(), context.env)
        .ok_or_else(|| Failure::new(reason!("config.no_home"), "no home directory: pass --dir"))?;
    runtime()?.block_on(async {
        let options = ServeOptions {
            listen: flags.listen,
            block_every: (flags.block_every > 0).then(|| Duration::from_millis(flags.block_every)),
            state_dir,
            shutdown: Box::pin(stop_asked(flags.exit_on_stdin_eof)?),
        };
        let failed = |error: ServeError| Failure::coded(error.code(), error.to_string());
        let running = serve(options).await.map_err(failed)?;
        let found = Serving { url: running.url(), cookie: running.cookie_path.clone() };
        announce(context, &found, |found, page| {
            page.field("url", &found.url).field("cookie", found.cookie.display());
        });
        running.stopped().await;
        Ok(())
    })
}

#[derive(Serialize)]
struct Serving {
    url: String,
    cookie: PathBuf,
}
